//! Register fragments of `wgmma.mma_async` (PTX ISA 9.7.15.5.1.1).
//!
//! A warpgroup is four warps; warp `w` holds rows `16w … 16w+15` of A and D, each warp in the
//! layout that `mma.m16n8` gives its A and D. D repeats every 8 columns: with `g = lane >> 2`,
//! `t = lane % 4` in the warp, the `i`-th element that a lane holds lies in row
//! `16w + g + 8·((i / 2) % 2)` and column `8·(i / 4) + 2t + i % 2`. Accumulators in `.f16` lie two
//! to a register, low half first. B, and A unless it is in registers, come from shared memory: see
//! [`super::descriptor`].

use super::legality::WgmmaForm;
use super::mma::{Fragment, Operand};

/// Lanes of a warpgroup.
pub const LANES: u32 = 128;

/// The fragment of A in registers.
pub fn fragment_a(form: WgmmaForm) -> Fragment {
    let (m, _, k) = form.shape();
    Fragment {
        operand: Operand::A,
        element: form.a(),
        rows: m,
        cols: k,
        lanes: LANES,
    }
}

/// The fragment of the accumulator, which is both C and D.
pub fn fragment_d(form: WgmmaForm) -> Fragment {
    let (m, n, _) = form.shape();
    Fragment {
        operand: Operand::Accumulator,
        element: form.d(),
        rows: m,
        cols: n,
        lanes: LANES,
    }
}
