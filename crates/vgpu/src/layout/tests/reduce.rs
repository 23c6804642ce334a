//! Reductions, against operations of the host and written-out cases.

use super::Rng;
use crate::layout::tma::TensorElement as T;
use crate::layout::tma::reduce::Reduction::{self, *};
use half::{bf16, f16};

fn run<const N: usize>(op: Reduction, element: T, old: [u8; N], source: [u8; N]) -> [u8; N] {
    let mut target = old;
    op.apply(element, &mut target, &source).unwrap();
    target
}

#[test]
fn integers() {
    let mut rng = Rng(3);
    for _ in 0..1000 {
        let (x, y) = (rng.next(), rng.next());
        let (a, b) = (x as u32, y as u32 >> rng.range(0, 31));
        let u32s = |op| u32::from_le_bytes(run(op, T::U32, a.to_le_bytes(), b.to_le_bytes()));
        let s32s = |op| i32::from_le_bytes(run(op, T::S32, a.to_le_bytes(), b.to_le_bytes()));
        assert_eq!(u32s(Add), a.wrapping_add(b));
        assert_eq!(u32s(Min), a.min(b));
        assert_eq!(u32s(Max), a.max(b));
        assert_eq!(u32s(Inc), if a >= b { 0 } else { a + 1 });
        assert_eq!(u32s(Dec), if a == 0 || a > b { b } else { a - 1 });
        assert_eq!((u32s(And), u32s(Or), u32s(Xor)), (a & b, a | b, a ^ b));
        assert_eq!(s32s(Add), (a as i32).wrapping_add(b as i32));
        assert_eq!(s32s(Min), (a as i32).min(b as i32));
        assert_eq!(s32s(Max), (a as i32).max(b as i32));
        let u64s = |op| u64::from_le_bytes(run(op, T::U64, x.to_le_bytes(), y.to_le_bytes()));
        let s64s = |op| i64::from_le_bytes(run(op, T::S64, x.to_le_bytes(), y.to_le_bytes()));
        assert_eq!((u64s(Add), u64s(Min)), (x.wrapping_add(y), x.min(y)));
        assert_eq!(s64s(Max), (x as i64).max(y as i64));
        assert_eq!((s64s(And), s64s(Xor)), ((x & y) as i64, (x ^ y) as i64));
    }
}

#[test]
fn counters_wrap_at_their_bound() {
    let u32s =
        |op, a: u32, b: u32| u32::from_le_bytes(run(op, T::U32, a.to_le_bytes(), b.to_le_bytes()));
    assert_eq!(
        (u32s(Inc, 2, 3), u32s(Inc, 3, 3), u32s(Inc, 9, 3)),
        (3, 0, 0)
    );
    assert_eq!(
        (u32s(Dec, 2, 3), u32s(Dec, 0, 3), u32s(Dec, 9, 3)),
        (1, 3, 3)
    );
    assert_eq!(u32s(Inc, u32::MAX, u32::MAX), 0);
}

#[test]
fn floats() {
    let half = |op, a: f32, b: f32| {
        let (a, b) = (f16::from_f32(a), f16::from_f32(b));
        f16::from_le_bytes(run(op, T::F16, a.to_le_bytes(), b.to_le_bytes()))
    };
    assert_eq!(half(Add, 2048.0, 1.0).to_f32(), 2048.0);
    assert_eq!(half(Add, 2050.0, 1.0).to_f32(), 2052.0);
    assert_eq!(half(Min, 1.0, -2.0).to_f32(), -2.0);
    assert_eq!(half(Max, f32::NAN, 3.0).to_f32(), 3.0);
    assert_eq!(half(Min, 3.0, f32::NAN).to_f32(), 3.0);
    assert_eq!(half(Max, -0.0, 0.0).to_bits(), 0);
    assert_eq!(half(Min, 0.0, -0.0).to_bits(), 0x8000);
    assert_eq!(
        half(Add, f32::INFINITY, f32::NEG_INFINITY).to_bits(),
        0x7fff
    );
    let brain = |op, a: f32, b: f32| {
        let (a, b) = (bf16::from_f32(a), bf16::from_f32(b));
        bf16::from_le_bytes(run(op, T::Bf16, a.to_le_bytes(), b.to_le_bytes()))
    };
    assert_eq!(brain(Add, 256.0, 1.0).to_f32(), 256.0);
    assert_eq!(brain(Max, 1.0, 2.0).to_f32(), 2.0);
    let single = run(Add, T::F32, 1.5f32.to_le_bytes(), 2.25f32.to_le_bytes());
    assert_eq!(f32::from_le_bytes(single), 3.75);
    let double = run(Add, T::F64, 1.5f64.to_le_bytes(), 2.25f64.to_le_bytes());
    assert_eq!(f64::from_le_bytes(double), 3.75);
}

#[test]
fn what_does_not_exist_is_refused_and_changes_nothing() {
    for op in Reduction::ALL {
        for element in T::ALL {
            let mut target = [0x5a; 16];
            let result = op.apply(element, &mut target, &[0x33; 16]);
            assert_eq!(result.is_ok(), op.exists(element));
            if let Err(error) = result {
                assert_eq!(target, [0x5a; 16]);
                assert!(error.to_string().contains(op.name()), "{error}");
            }
        }
    }
    assert!(!Min.exists(T::F32) && !Inc.exists(T::U64) && !Add.exists(T::U8));
}
