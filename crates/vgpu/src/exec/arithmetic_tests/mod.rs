//! Arithmetic through PTX text: each instruction runs over many lanes, the last warp a partial one,
//! and every result is compared with an independent computation.

#![allow(
    clippy::type_complexity,
    reason = "tables of operations beside their references"
)]

mod bits;
mod compare;
mod convert;
mod errors;
mod float;
mod half;
mod integer;
mod logic;
mod moves;
mod special;

use std::fmt::Write as _;

use super::testing;
use crate::machine::{Checks, Rng};
use crate::memory::Memory;

/// Where the values of an operand come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    B16,
    B32,
    B64,
    /// Integers up to this one, in 32 bits: shift amounts, positions.
    Below(u32),
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    /// f32 numbers with 12 bits of fraction near one: sums and products of few are exact in f64.
    Plain,
    F64,
}

impl Pool {
    /// Bits of the register.
    fn width(self) -> u32 {
        match self {
            Self::B16 | Self::F16 | Self::Bf16 => 16,
            Self::B64 | Self::F64 => 64,
            _ => 32,
        }
    }

    /// Value number `index`: the awkward ones first, then random ones.
    fn value(self, index: u64, rng: &mut Rng) -> u64 {
        let random = rng.next();
        let pick = |special: &[u64]| {
            // Half of the values of every operand are special, in all combinations sooner or later.
            if random >> 40 & 1 == 0 || index < special.len() as u64 {
                special[(random % special.len() as u64) as usize]
            } else {
                random >> 8
            }
        };
        match self {
            Self::B16 => pick(&[0, 1, 2, 0x7f, 0xff, 0x7fff, 0x8000, 0xffff]) & 0xffff,
            Self::B32 => {
                pick(&[
                    0,
                    1,
                    2,
                    0x7fff,
                    0xffff,
                    0x1_0000,
                    0x7fff_ffff,
                    0x8000_0000,
                    0xffff_ffff,
                ]) & 0xffff_ffff
            }
            Self::B64 => {
                let high = random << 13;
                pick(&[
                    0,
                    1,
                    2,
                    0xffff_ffff,
                    1 << 32,
                    i64::MAX as u64,
                    1 << 63,
                    u64::MAX,
                    high,
                ])
            }
            Self::Below(limit) => random % u64::from(limit),
            Self::F16 => {
                pick(&[
                    0, 0x8000, 1, 0x83ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00,
                ]) & 0xffff
            }
            Self::Bf16 => {
                pick(&[
                    0, 0x8000, 1, 0x807f, 0x80, 0x3f80, 0xbf80, 0x7f7f, 0x7f80, 0xff80, 0x7fc0,
                ]) & 0xffff
            }
            Self::F16x2 => Self::F16.value(index, rng) << 16 | Self::F16.value(index, rng),
            Self::Bf16x2 => Self::Bf16.value(index, rng) << 16 | Self::Bf16.value(index, rng),
            Self::F32 => {
                let near_one = (0x3f00_0000 + (random >> 9 & 0x01ff_ffff)) | random & 0x8000_0000;
                let special = [
                    0,
                    0x8000_0000,
                    1,
                    0x807f_ffff,
                    0x0080_0000,
                    0x3f80_0000,
                    0xbf80_0000,
                    0x7f7f_ffff,
                    0x7f80_0000,
                    0xff80_0000,
                    0x7fc0_0000,
                    near_one,
                    near_one,
                ];
                pick(&special) & 0xffff_ffff
            }
            Self::Plain => {
                let fraction = (random & 0xfff) << 11;
                let exponent = 120 + (random >> 20 & 15);
                (random >> 50 & 1) << 31 | exponent << 23 | fraction
            }
            Self::F64 => {
                let near_one = 0x3fe0_0000_0000_0000 + (random >> 10);
                let special = [
                    0,
                    1 << 63,
                    1,
                    0x3ff0_0000_0000_0000,
                    0xbff0_0000_0000_0000,
                    0x7fef_ffff_ffff_ffff,
                    0x7ff0_0000_0000_0000,
                    0xfff0_0000_0000_0000,
                    0x7ff8_0000_0000_0000,
                    near_one,
                    near_one,
                    near_one,
                ];
                pick(&special)
            }
        }
    }
}

/// Lanes of a launch: not a multiple of 32, so that the last warp is a partial one.
const THREADS: u32 = 1015;

/// The text of a kernel: inputs in `%i0`, `%i1` …, results in `%o0`, `%o1` …, and `%p`, `%h`,
/// `%r`, `%d` for whatever a body needs.
fn kernel(body: &str, inputs: &[Pool], outputs: &[u32]) -> String {
    let mut text = String::from(
        ".version 8.8\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 data) {\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<8>;\n.reg .b64 %d<8>;\n\
         .reg .b128 %q<4>;\n.reg .b32 %lane;\n.reg .b64 %row;\n\
         ld.param.u64 %row, [data];\nmov.u32 %lane, %tid.x;\n",
    );
    let columns = inputs.len() + outputs.len();
    writeln!(text, "mad.wide.u32 %row, %lane, {}, %row;", 8 * columns).unwrap();
    for (index, pool) in inputs.iter().enumerate() {
        let width = pool.width();
        writeln!(text, ".reg .b{width} %i{index};").unwrap();
        writeln!(text, "ld.global.b{width} %i{index}, [%row+{}];", 8 * index).unwrap();
    }
    for (index, width) in outputs.iter().enumerate() {
        writeln!(text, ".reg .b{width} %o{index};").unwrap();
    }
    writeln!(text, "{body}").unwrap();
    for (index, width) in outputs.iter().enumerate() {
        let at = 8 * (inputs.len() + index);
        writeln!(text, "st.global.b{width} [%row+{at}], %o{index};").unwrap();
    }
    text.push_str("ret;\n}\n");
    text
}

/// Runs a body over rows of inputs, one thread a row; returns the rows of outputs.
fn run(body: &str, inputs: &[Pool], outputs: &[u32], rows: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let columns = inputs.len() + outputs.len();
    let mut data = Vec::new();
    for row in rows {
        data.extend_from_slice(row);
        data.resize(data.len() + outputs.len(), 0);
    }
    let memory = Memory::new(1, true);
    let buffer = testing::buffer(&memory, &data);
    let (reports, _) = testing::run(
        &kernel(body, inputs, outputs),
        "k",
        1,
        rows.len() as u32,
        &testing::params(&[buffer.base()]),
        &memory,
        Checks::default(),
    );
    assert!(reports.is_empty(), "{body}: {}", reports[0]);
    testing::contents::<u64>(&buffer)
        .chunks(columns)
        .map(|row| row[inputs.len()..].to_vec())
        .collect()
}

/// Compares a body's outputs with `expected` over many values of the inputs.
fn check_all(body: &str, inputs: &[Pool], outputs: &[u32], expected: impl Fn(&[u64]) -> Vec<u64>) {
    let mut rng = Rng::new(7, body.len() as u64);
    let rows: Vec<Vec<u64>> = (0..THREADS.into())
        .map(|index| {
            inputs
                .iter()
                .map(|pool| pool.value(index, &mut rng))
                .collect()
        })
        .collect();
    let results = run(body, inputs, outputs, &rows);
    for (row, result) in rows.iter().zip(results) {
        let right = expected(row);
        assert_eq!(
            result, right,
            "{body}: {row:x?} gives {result:x?}, not {right:x?}"
        );
    }
}

/// As [`check_all`] for one output.
fn check(body: &str, inputs: &[Pool], width: u32, expected: impl Fn(&[u64]) -> u64) {
    check_all(body, inputs, &[width], |row| vec![expected(row)]);
}

/// The low `bits` bits, as a signed number.
fn signed(value: u64, bits: u32) -> i128 {
    i128::from((value << (64 - bits)) as i64 >> (64 - bits))
}

/// The low `bits` bits of a number.
fn wrap(value: i128, bits: u32) -> u64 {
    value as u64 & (u64::MAX >> (64 - bits))
}
