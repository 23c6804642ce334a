//! Peak arithmetic: independent chains of multiply–adds that stay in registers.
//!
//! A chain `acc = x · y + acc` waits for itself, so there are enough chains to cover the latency of
//! the units (4 or 5 cycles) times their number (2), and few enough to fit the register file. The
//! operands are random numbers, not zeros: units that toggle no bits draw less power and may clock
//! higher than any real product does.
#![allow(unsafe_code)]

use std::hint::black_box;

use pulp::{Arch, Simd, WithSimd};
use tollgate::Cpu;
use tollgate_testkit::Data;

/// Runs `work` on the calling thread, or on every thread of the pool at once; returns the sum.
fn on_threads(cpu: &Cpu, all: bool, work: impl Fn() -> f64 + Sync) -> f64 {
    if all {
        cpu.install(|| rayon::broadcast(|_| work()).iter().sum())
    } else {
        work()
    }
}

/// Turns of the loop: tens of milliseconds, so that waking threads does not count.
const TURNS: usize = 1 << 21;

/// Does f32 fused multiply–adds and returns the number of operations, two for each.
pub(super) fn f32_fma(cpu: &Cpu, all: bool) -> f64 {
    on_threads(cpu, all, || Arch::new().dispatch(Fma { turns: TURNS }))
}

/// The loop, for any instruction set that `pulp` knows.
struct Fma {
    turns: usize,
}

impl WithSimd for Fma {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        // Chains and operands that fit: 24 + 6 of 32 registers, 12 + 4 of 16.
        if S::REGISTER_COUNT >= 32 {
            chains::<S, 24, 2, 4>(simd, self.turns)
        } else {
            chains::<S, 12, 1, 3>(simd, self.turns)
        }
    }
}

#[inline(always)]
fn chains<S: Simd, const N: usize, const X: usize, const Y: usize>(simd: S, turns: usize) -> f64 {
    let mut data = Data::new(7);
    let mut value = || simd.splat_f32s(black_box(data.normal() as f32));
    let x: [S::f32s; X] = std::array::from_fn(|_| value());
    let y: [S::f32s; Y] = std::array::from_fn(|_| value());
    let mut acc: [S::f32s; N] = std::array::from_fn(|_| value());
    for _ in 0..turns {
        for i in 0..N {
            // Where there is no fused instruction: a multiplication and an addition.
            acc[i] = simd.mul_add_e_f32s(x[i % X], y[i % Y], acc[i]);
        }
    }
    black_box(acc.map(|a| simd.reduce_sum_f32s(a)));
    (2 * S::F32_LANES * N * turns) as f64
}

/// Whether the machine has a bf16 dot product that this crate can use.
pub(super) fn has_bf16_dot() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Does bf16 dot products accumulated in f32 and returns the number of operations; none where
/// [`has_bf16_dot`] says no.
pub(super) fn bf16_dot(cpu: &Cpu, all: bool) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if has_bf16_dot() {
        let mut data = Data::new(7);
        let values = std::array::from_fn(|_| black_box(data.normal() as f32));
        return on_threads(cpu, all, || {
            // SAFETY: the machine has the instruction sets that the function is compiled for.
            unsafe { dot_chains(TURNS, &values) }
        });
    }
    let _ = (cpu, all);
    0.0
}

/// Chains of bf16 dot products: more do not stay in registers.
#[cfg(target_arch = "x86_64")]
const DOT_CHAINS: usize = 14;

/// Chains of `vdpbf16ps`: 16 lanes, each adding two products to an f32.
// A function by itself: values that have lived across a call stay in memory inside the loop.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot_chains(turns: usize, values: &[f32; DOT_CHAINS]) -> f64 {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_reduce_add_ps,
        _mm512_set1_ps,
    };
    let pair = |i: usize| {
        let (low, high) = (_mm512_set1_ps(values[i]), _mm512_set1_ps(values[i + 1]));
        _mm512_cvtne2ps_pbh(low, high)
    };
    let x: [__m512bh; 2] = std::array::from_fn(pair);
    let y: [__m512bh; 4] = std::array::from_fn(|i| pair(i + 2));
    let mut chains = [_mm512_set1_ps(0.0); DOT_CHAINS];
    for (chain, value) in chains.iter_mut().zip(values) {
        *chain = _mm512_set1_ps(*value);
    }
    for _ in 0..turns {
        for i in 0..DOT_CHAINS {
            chains[i] = _mm512_dpbf16_ps(chains[i], x[i % 2], y[i % 4]);
        }
    }
    let sum = |chain: &__m512| _mm512_reduce_add_ps(*chain);
    black_box(chains.iter().map(sum).sum::<f32>());
    (16 * 2 * 2 * DOT_CHAINS * turns) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_for_every_thread() {
        let cpu = Cpu::new(2).unwrap();
        let one = Arch::new().dispatch(Fma { turns: 10 });
        // Every instruction set has a power of two of lanes, and 12 or 24 chains.
        assert!(
            one == 240.0 * (one / 240.0).round() && one > 0.0,
            "{one} operations in 10 turns"
        );
        let both = on_threads(&cpu, true, || Arch::new().dispatch(Fma { turns: 10 }));
        assert_eq!(both, 2.0 * one);
    }

    #[test]
    fn bf16_counts_nothing_where_there_is_no_instruction() {
        let cpu = Cpu::new(1).unwrap();
        let operations = bf16_dot(&cpu, false);
        assert_eq!(operations > 0.0, has_bf16_dot());
    }
}
