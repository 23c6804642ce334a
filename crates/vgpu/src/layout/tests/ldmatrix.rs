//! `ldmatrix`, `stmatrix`, `movmatrix` against PTX ISA 9.7.14.5.15 – 9.7.14.5.17.

use super::Rng;
use crate::layout::ldmatrix::{address_lane, addressed_row, holder, load, place, store, transpose};

/// Row `r`, column `c` holds `8r + c`.
fn numbered() -> [[u16; 8]; 8] {
    std::array::from_fn(|r| std::array::from_fn(|c| (8 * r + c) as u16))
}

#[test]
fn lanes_hold_two_neighbours_of_a_row() {
    // The ISA's figure: lane 0 holds elements 0 and 1 of row 0, lane 3 the last two, lane 4 the
    // first two of row 1, lane 31 the last two of row 7.
    let registers = load(&numbered(), false);
    for (lane, register) in registers.iter().enumerate() {
        let first = 2 * lane as u32;
        assert_eq!(*register, first | (first + 1) << 16, "lane {lane}");
    }
}

#[test]
fn trans_loads_the_transpose() {
    let rows = numbered();
    let columns: [[u16; 8]; 8] = std::array::from_fn(|r| std::array::from_fn(|c| rows[c][r]));
    assert_eq!(load(&rows, true), load(&columns, false));
    // Lane 1 holds rows 2 and 3 of column 0.
    assert_eq!(load(&rows, true)[1], 16 | 24 << 16);
}

#[test]
fn store_is_the_inverse_of_load_and_holder_of_place() {
    let mut rng = Rng(7);
    let rows: [[u16; 8]; 8] = std::array::from_fn(|_| std::array::from_fn(|_| rng.next() as u16));
    for trans in [false, true] {
        assert_eq!(store(&load(&rows, trans), trans), rows);
        for lane in 0..32 {
            for half in 0..2 {
                let (row, col) = place(lane, half, trans);
                assert_eq!(holder(row, col, trans), (lane, half));
            }
        }
    }
}

#[test]
fn movmatrix_transposes_registers() {
    let moved = store(&transpose(&load(&numbered(), false)), false);
    for r in 0..8 {
        for c in 0..8 {
            assert_eq!(moved[r][c], numbered()[c][r]);
        }
    }
}

#[test]
fn each_count_uses_the_addresses_of_its_lanes() {
    // The ISA's table: .x1 lanes 0–7, .x2 also 8–15, .x4 also 16–23 and 24–31.
    for (count, lanes) in [(1, 8), (2, 16), (4, 32)] {
        for lane in 0..32 {
            let expected = (lane < lanes).then_some((lane / 8, lane % 8));
            assert_eq!(addressed_row(lane, count), expected);
            if let Some((matrix, row)) = expected {
                assert_eq!(address_lane(matrix, row), lane);
            }
        }
    }
}
