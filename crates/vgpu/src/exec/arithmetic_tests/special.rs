//! The approximate functions: within the ISA's bounds of the true value, through every form.

use half::{bf16, f16};

use super::{Pool, THREADS, run};
use crate::machine::Rng;

/// Runs `op %o0, %i0` and hands arguments and results to `judge`.
fn each(op: &str, pool: Pool, width: u32, judge: impl Fn(u64, u64)) {
    let mut rng = Rng::new(11, op.len() as u64);
    let rows: Vec<Vec<u64>> = (0..THREADS.into())
        .map(|index| vec![pool.value(index, &mut rng)])
        .collect();
    let results = run(&format!("{op} %o0, %i0;"), &[pool], &[width], &rows);
    for (row, result) in rows.iter().zip(results) {
        judge(row[0], result[0]);
    }
}

/// Checks against an f64 function: `relative` and `absolute` errors, either of which may hold.
fn near(op: &str, pool: Pool, relative: f64, absolute: f64, f: fn(f64) -> f64) {
    let ftz = op.contains("ftz");
    each(op, pool, 32, |argument, result| {
        let argument = f32::from_bits(argument as u32);
        let result = f64::from(f32::from_bits(result as u32));
        let argument = if ftz && argument.is_subnormal() {
            0.0_f32.copysign(argument)
        } else {
            argument
        };
        let truth = f(argument.into());
        let truth = f64::from(truth as f32);
        if truth.is_nan() {
            assert!(result.is_nan(), "{op} {argument:e}: {result}");
        } else if truth.is_infinite() {
            assert_eq!(result, truth, "{op} {argument:e}");
        } else if ftz && truth.abs() <= f64::from(f32::MIN_POSITIVE) * 1.000_001 {
            assert!(
                result.abs() <= f64::from(f32::MIN_POSITIVE),
                "{op} {argument:e}: {result}"
            );
        } else {
            let bound = (truth.abs() * relative)
                .max(absolute)
                .max(f64::from(f32::from_bits(2)));
            assert!(
                (result - truth).abs() <= bound,
                "{op} {argument:e}: {result:e}, {truth:e}"
            );
        }
    });
}

#[test]
fn single_precision() {
    let ulp = 2.0_f64.powi(-23);
    for ftz in ["", ".ftz"] {
        near(
            &format!("ex2.approx{ftz}.f32"),
            Pool::F32,
            3.0 * ulp,
            0.0,
            f64::exp2,
        );
        near(
            &format!("ex2.approx{ftz}.f32"),
            Pool::Plain,
            3.0 * ulp,
            0.0,
            f64::exp2,
        );
        near(
            &format!("lg2.approx{ftz}.f32"),
            Pool::Plain,
            2.0 * ulp,
            2.0 * ulp,
            f64::log2,
        );
        near(
            &format!("lg2.approx{ftz}.f32"),
            Pool::F32,
            2.0 * ulp,
            2.0 * ulp,
            f64::log2,
        );
        near(&format!("rcp.approx{ftz}.f32"), Pool::F32, ulp, 0.0, |x| {
            1.0 / x
        });
        near(
            &format!("sqrt.approx{ftz}.f32"),
            Pool::F32,
            ulp,
            0.0,
            f64::sqrt,
        );
        near(
            &format!("rsqrt.approx{ftz}.f32"),
            Pool::F32,
            1.1 * ulp,
            0.0,
            |x| 1.0 / x.sqrt(),
        );
        // The plain numbers are below 512 π; the ISA's bound there is 2^-14.7.
        let circular = 2.0_f64.powf(-14.7);
        near(
            &format!("sin.approx{ftz}.f32"),
            Pool::Plain,
            0.0,
            circular,
            f64::sin,
        );
        near(
            &format!("cos.approx{ftz}.f32"),
            Pool::Plain,
            0.0,
            circular,
            f64::cos,
        );
    }
    near(
        "tanh.approx.f32",
        Pool::Plain,
        2.0_f64.powi(-11),
        0.0,
        f64::tanh,
    );
}

#[test]
fn quotients() {
    for op in ["div.approx", "div.full", "div.approx.ftz", "div.full.ftz"] {
        let body = format!("{op}.f32 %o0, %i0, %i1;");
        super::check(&body, &[Pool::Plain; 2], 32, |x| {
            // Within 2 ulp; here correctly rounded.
            (f32::from_bits(x[0] as u32) / f32::from_bits(x[1] as u32))
                .to_bits()
                .into()
        });
    }
}

#[test]
fn double_precision() {
    for (op, f) in [
        ("rcp.approx.ftz.f64", (|x| 1.0 / x) as fn(f64) -> f64),
        ("rsqrt.approx.ftz.f64", |x| 1.0 / x.sqrt()),
        ("rsqrt.approx.f64", |x| 1.0 / x.sqrt()),
    ] {
        each(op, Pool::F64, 64, |argument, result| {
            let (argument, result) = (f64::from_bits(argument), f64::from_bits(result));
            let small = argument.is_subnormal() && op.contains("ftz");
            let truth = f(if small {
                0.0_f64.copysign(argument)
            } else {
                argument
            });
            if truth.is_nan() {
                assert!(result.is_nan(), "{op} {argument:e}");
            } else if truth.is_infinite() || truth == 0.0 {
                assert_eq!(result, truth, "{op} {argument:e}");
            } else if truth.is_normal() {
                let error = ((result - truth) / truth).abs();
                assert!(
                    error <= 2.0_f64.powi(-20),
                    "{op} {argument:e}: {result:e}, {truth:e}"
                );
            }
        });
    }
}

#[test]
fn sixteen_bits() {
    let read_f16: fn(u16) -> f64 = |x| f16::from_bits(x).to_f64();
    let read_bf16: fn(u16) -> f64 = |x| bf16::from_bits(x).to_f64();
    // Relative and absolute bounds of the ISA, and half a unit of the result.
    let forms = [
        (
            "ex2.approx.f16",
            Pool::F16,
            read_f16,
            f64::exp2 as fn(f64) -> f64,
            2.0_f64.powf(-9.9),
        ),
        (
            "ex2.approx.ftz.bf16",
            Pool::Bf16,
            read_bf16,
            f64::exp2,
            2.0_f64.powi(-7),
        ),
        (
            "tanh.approx.f16",
            Pool::F16,
            read_f16,
            f64::tanh,
            2.0_f64.powf(-10.987),
        ),
        (
            "tanh.approx.bf16",
            Pool::Bf16,
            read_bf16,
            f64::tanh,
            2.0_f64.powi(-8),
        ),
    ];
    for (op, pool, read, f, bound) in forms {
        let judge = |argument: u16, result: u16| {
            let truth = f(read(argument));
            let result = read(result);
            let largest = read(if pool == Pool::F16 { 0x7bff } else { 0x7f7f });
            if truth.is_nan() {
                assert!(result.is_nan(), "{op} {argument:x}");
            } else if truth > largest {
                assert!(result >= largest, "{op} {argument:x}: {result:e}");
            } else {
                let allowed = (truth.abs() * bound).max(6.0e-8);
                let error = (result - truth).abs();
                assert!(error <= allowed, "{op} {argument:x}: {result:e}, {truth:e}");
            }
        };
        each(op, pool, 16, |argument, result| {
            judge(argument as u16, result as u16)
        });
        let pair = if pool == Pool::F16 {
            Pool::F16x2
        } else {
            Pool::Bf16x2
        };
        each(&format!("{op}x2"), pair, 32, |argument, result| {
            judge(argument as u16, result as u16);
            judge((argument >> 16) as u16, (result >> 16) as u16);
        });
    }
}
