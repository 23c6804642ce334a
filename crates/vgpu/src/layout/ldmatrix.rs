//! `ldmatrix`, `stmatrix` and `movmatrix`: 8 × 8 matrices of 16-bit elements spread over a warp
//! (PTX ISA 9.7.14.5.15 – 9.7.14.5.17).
//!
//! Memory holds a matrix as 8 rows of 16 bytes, each at an address of its own. Lanes `8j … 8j+7`
//! give the addresses of the rows of matrix `j`; the addresses of the lanes beyond are ignored.
//! In registers, lane `l` holds of each matrix, in its register `j`, the elements at row `l / 4`,
//! columns `2·(l % 4)` and one more, low half first. With `.trans` the roles of row and column
//! change for the registers, not for memory.

/// Rows and columns of a matrix.
pub const SIDE: u32 = 8;

/// Bytes of a row in memory, and the alignment of its address.
pub const ROW_BYTES: u32 = 16;

/// The lane whose address operand says where row `row` of matrix `matrix` lies.
#[inline]
pub const fn address_lane(matrix: u32, row: u32) -> u32 {
    SIDE.wrapping_mul(matrix).wrapping_add(row)
}

/// The matrix and row that the address of `lane` belongs to; `None` for a lane whose address is
/// not used because `count` matrices need fewer.
#[inline]
pub const fn addressed_row(lane: u32, count: u32) -> Option<(u32, u32)> {
    if lane / SIDE < count {
        Some((lane / SIDE, lane % SIDE))
    } else {
        None
    }
}

/// The row and column, as they lie in memory, of the half `half` (0 low, 1 high) of the register
/// that `lane` holds of a matrix. Register `j` holds matrix `j`.
#[inline]
pub const fn place(lane: u32, half: u32, trans: bool) -> (u32, u32) {
    let (major, minor) = (lane / 4 % SIDE, 2 * (lane % 4) + half % 2);
    if trans {
        (minor, major)
    } else {
        (major, minor)
    }
}

/// The lane and half that hold the element at `row`, `col` of a matrix: the inverse of [`place`].
#[inline]
pub const fn holder(row: u32, col: u32, trans: bool) -> (u32, u32) {
    let (major, minor) = if trans { (col, row) } else { (row, col) };
    let (major, minor) = (major % SIDE, minor % SIDE);
    (4 * major + minor / 2, minor % 2)
}

/// Loads one matrix: the registers of the 32 lanes from its rows.
#[inline]
pub fn load(rows: &[[u16; 8]; 8], trans: bool) -> [u32; 32] {
    let mut registers = [0; 32];
    for (lane, register) in registers.iter_mut().enumerate() {
        let half = |h| {
            let (row, col) = place(lane as u32, h, trans);
            u32::from(rows[row as usize][col as usize])
        };
        *register = half(0) | half(1) << 16;
    }
    registers
}

/// Stores one matrix: its rows from the registers of the 32 lanes. The inverse of [`load`].
#[inline]
pub fn store(registers: &[u32; 32], trans: bool) -> [[u16; 8]; 8] {
    let mut rows = [[0; 8]; 8];
    for (lane, register) in registers.iter().enumerate() {
        for half in 0..2 {
            let (row, col) = place(lane as u32, half, trans);
            rows[row as usize][col as usize] = (register >> (16 * half)) as u16;
        }
    }
    rows
}

/// `movmatrix.trans`: transposes a matrix that lies in the registers of the 32 lanes.
#[inline]
pub fn transpose(registers: &[u32; 32]) -> [u32; 32] {
    load(&store(registers, false), true)
}
