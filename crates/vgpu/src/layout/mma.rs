//! Register fragments of `mma.sync` (PTX ISA 9.7.14.5.2 – 9.7.14.5.11).
//!
//! A fragment says which element of a matrix a lane holds in which register. The ISA gives a table
//! for each shape and type; all of them, apart from `.m8n8k4` with `.f16`, follow one rule. With
//! `g = lane >> 2`, `t = lane % 4` and `s` elements in a register:
//!
//! | operand | row                        | column                       |
//! |---------|----------------------------|------------------------------|
//! | A       | `g + 8·(register % 2)`     | `4s·(register / 2) + s·t + e`|
//! | B       | `4s·register + s·t + e`    | `g`                          |
//! | C, D    | `g + 8·(i / 2)`            | `2t + i % 2`                 |
//!
//! where `e` counts the elements in a register and `i` those of C or D that a lane holds. Operand
//! A of an 8-row shape has a single register, at row `g`. The tests write out the ISA's tables one
//! by one and compare.

use super::elements::Element;
use super::legality::MmaForm;

/// Which matrix of `D = A·B + C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The left multiplicand, M × K.
    A,
    /// The right multiplicand, K × N.
    B,
    /// The accumulator C or the result D, M × N.
    Accumulator,
}

/// How the elements of a matrix are spread over the registers of the lanes that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// The matrix.
    pub(super) operand: Operand,
    /// Its element type.
    pub(super) element: Element,
    /// Its rows.
    pub(super) rows: u32,
    /// Its columns.
    pub(super) cols: u32,
    /// Lanes that hold it: 32 for a warp, 128 for a warpgroup.
    pub(super) lanes: u32,
}

impl Fragment {
    /// The matrix.
    pub const fn operand(&self) -> Operand {
        self.operand
    }

    /// Its element type.
    pub const fn element(&self) -> Element {
        self.element
    }

    /// Its rows and columns.
    pub const fn size(&self) -> (u32, u32) {
        (self.rows, self.cols)
    }

    /// Lanes that hold it: 32 for a warp, 128 for a warpgroup.
    pub const fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Elements in one register.
    #[inline]
    pub const fn subs(&self) -> u32 {
        self.element.per_register()
    }

    /// Registers a lane gives to the operand: every element is held exactly once.
    #[inline]
    pub const fn registers(&self) -> u32 {
        self.rows * self.cols / (self.lanes * self.subs())
    }

    /// The row and column of element `sub` of register `register` of lane `lane`; `None` when the
    /// fragment has no such lane, register or element.
    #[inline]
    pub const fn place(&self, lane: u32, register: u32, sub: u32) -> Option<(u32, u32)> {
        let s = self.subs();
        if lane >= self.lanes || register >= self.registers() || sub >= s {
            return None;
        }
        let (warp, g, t) = (lane / 32, (lane % 32) >> 2, lane % 4);
        // Each warp holds 16 rows, in pairs of registers or elements, or all the 8 there are.
        let halves = if self.rows >= 16 { 2 } else { 1 };
        Some(match self.operand {
            Operand::A => {
                let row = warp * 16 + g + 8 * (register % halves);
                (row, 4 * s * (register / halves) + s * t + sub)
            }
            Operand::B => (4 * s * register + s * t + sub, g),
            Operand::Accumulator => {
                let i = register * s + sub;
                let (tile, in_tile) = (i / (2 * halves), i % (2 * halves));
                let row = warp * 16 + g + 8 * (in_tile / 2);
                (row, 8 * tile + 2 * t + in_tile % 2)
            }
        })
    }

    /// The fragment as a table.
    pub fn table(&self) -> FragmentTable {
        let n = (self.rows * self.cols) as usize;
        let mut table = FragmentTable {
            fragment: *self,
            element_of_slot: Vec::with_capacity(n),
            slot_of_element: vec![0; n],
        };
        for register in 0..self.registers() {
            for lane in 0..self.lanes {
                for sub in 0..self.subs() {
                    let Some((row, col)) = self.place(lane, register, sub) else {
                        continue;
                    };
                    let element = row * self.cols + col;
                    table.slot_of_element[element as usize] = table.element_of_slot.len() as u16;
                    table.element_of_slot.push(element as u16);
                }
            }
        }
        table
    }
}

/// A [`Fragment`] worked out for every element.
///
/// A *slot* is `(register · lanes + lane) · subs + sub`: registers outermost, as a machine stores
/// them that keeps the lanes of a register together. An *element* is `row · cols + column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentTable {
    /// What the table was made from.
    pub fragment: Fragment,
    /// The element in each slot.
    pub element_of_slot: Vec<u16>,
    /// The slot that holds each element.
    pub slot_of_element: Vec<u16>,
}

/// The fragments of one form of `mma.sync`, as tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MmaTables {
    /// The instruction's form.
    pub form: MmaForm,
    /// Operand A, M × K.
    pub a: FragmentTable,
    /// Operand B, K × N.
    pub b: FragmentTable,
    /// Operand C, M × N.
    pub c: FragmentTable,
    /// Result D, M × N.
    pub d: FragmentTable,
}

impl MmaTables {
    /// The tables of a legal form.
    pub fn new(form: MmaForm) -> MmaTables {
        let fragment = |operand, element, rows, cols| Fragment {
            operand,
            element,
            rows,
            cols,
            lanes: 32,
        };
        let (m, n, k) = form.shape();
        MmaTables {
            form,
            a: fragment(Operand::A, form.a(), m, k).table(),
            b: fragment(Operand::B, form.b(), k, n).table(),
            c: fragment(Operand::Accumulator, form.c(), m, n).table(),
            d: fragment(Operand::Accumulator, form.d(), m, n).table(),
        }
    }
}
