//! Noise and jitter: the CPU's bits, on aligned and misaligned rows.

use half::{bf16, f16};
use tollgate_core::options::GateOptions;
use tollgate_core::{Cpu, Element, Router, RowView, RowViewMut, StepContext};
use tollgate_device::Gpu;
use tollgate_device::testing::devices;
use tollgate_gating::gpu::{jitter, noise};
use tollgate_gating::{GateInputs, GateState, Gating, stochastic};
use tollgate_testkit::{Data, assert_same, gate_cases};

use crate::support::{Fenced, seeded, some_context, step_block};

/// Numbers as they are, but for NaN, whose sign and payload are the machine's.
#[track_caller]
fn same_numbers(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
        assert!(same, "{what}: element {i}: {x:?} and {y:?}");
    }
}

/// Draws, noisy logits and row faults.
fn noise_on(
    gpu: &Gpu,
    ctx: &StepContext,
    shape: (usize, usize),
    z: &[f32],
    z_noise: &[f32],
    misalign: usize,
) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
    let (stream, (t, e)) = (gpu.default_stream(), shape);
    let of_z = Fenced::from_slice(gpu, z, misalign);
    let of_noise = Fenced::from_slice(gpu, z_noise, misalign);
    let step = gpu.upload(stream, &[step_block(ctx)]).unwrap();
    let mut noise = Fenced::new(gpu, t * e, misalign);
    let mut noisy = Fenced::new(gpu, t * e, misalign);
    let mut faults = Fenced::new(gpu, t, misalign);
    let problem = noise::Noise {
        step: step.slice(),
        logits: of_z.get().rows("z", t, e, e).unwrap(),
        noise_logits: of_noise.get().rows("z_noise", t, e, e).unwrap(),
        noise: noise.get_mut(),
        noisy_logits: noisy.get_mut(),
        row_faults: faults.get_mut(),
    };
    noise::add(gpu, stream, problem).unwrap();
    (noise.read(stream), noisy.read(stream), faults.read(stream))
}

#[test]
fn noisy_logits_have_the_bits_of_the_cpu() {
    let cpu = Cpu::new(1).unwrap();
    let ctx = some_context();
    for (name, gpu) in devices() {
        for case in gate_cases() {
            let (t, e) = (case.tokens, case.experts);
            if t * e > 20_000 {
                continue;
            }
            let z = case.router_logits();
            let mut z_noise: Vec<f32> = case.data(7).normals(t * e, 20.0);
            for (i, bad) in [f32::INFINITY, f32::NAN, f32::NEG_INFINITY]
                .into_iter()
                .enumerate()
            {
                if let Some(place) = z_noise.get_mut(5 * e + i) {
                    *place = bad;
                }
            }
            let inputs = GateInputs {
                noise_logits: Some(RowView::new(&z_noise, t, e).unwrap()),
                ..GateInputs::new(RowView::new(&z, t, e).unwrap())
            };
            let options = GateOptions::new(Router::Noisy { k: 1 });
            let mut state = GateState::default();
            cpu.gate(&inputs, &options, &ctx, &mut state).unwrap();
            let what = format!("{name}: {}", case.name);
            for misalign in [0, 1] {
                let (noise, noisy, faults) = noise_on(gpu, &ctx, (t, e), &z, &z_noise, misalign);
                assert_same(&what, &noise, &state.noise);
                same_numbers(&what, &noisy, &state.noisy_logits);
                let bad = |v: &f32| v.is_nan() || *v == f32::INFINITY;
                let expected: Vec<u32> = z_noise
                    .chunks(e)
                    .map(|row| u32::from(row.iter().any(bad)))
                    .collect();
                assert_eq!(faults, expected, "{what}");
            }
        }
    }
}

/// The draws' logarithm and cosine are series of their own. A difference in the last bits of f64
/// reaches f32 about once in 2^27 draws; in 10^5 none is expected, and one is allowed.
#[test]
fn draws_are_those_of_the_cpu() {
    let ctx = some_context();
    for (name, gpu) in devices() {
        let (t, e) = (1000, 100);
        let zeros = vec![0f32; t * e];
        let (noise, ..) = noise_on(gpu, &ctx, (t, e), &zeros, &zeros, 0);
        let expected: Vec<f32> = (0..t * e)
            .map(|i| stochastic::router_noise(&ctx, i / e, i % e))
            .collect();
        let differ = noise
            .iter()
            .zip(&expected)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        let differ = differ.count();
        assert!(differ <= 1, "{name}: {differ} of {} draws differ", t * e);
        for (a, b) in noise.iter().zip(&expected) {
            assert!(
                (a - b).abs() <= 2f32.powi(-23) * b.abs(),
                "{name}: {a} and {b}"
            );
        }
    }
}

#[test]
fn the_gradient_of_the_noise_has_the_bits_of_the_formula() {
    for (name, gpu) in devices() {
        for (t, e, stride, misalign) in [(0, 3, 3, 0), (5, 8, 8, 0), (7, 12, 16, 0), (6, 5, 9, 3)] {
            let stream = gpu.default_stream();
            let mut data = Data::new(e as u64);
            let len = if t == 0 { 0 } else { (t - 1) * stride + e };
            let dh: Vec<f32> = data.normals(len, 1.0);
            let n: Vec<f32> = data.normals(t * e, 1.0);
            let mut z: Vec<f32> = data.normals(len, 30.0);
            if let Some(z) = z.first_mut() {
                *z = -88.0;
            }
            let of_dh = Fenced::from_slice(gpu, &dh, misalign);
            let of_n = Fenced::from_slice(gpu, &n, misalign);
            let of_z = Fenced::from_slice(gpu, &z, misalign);
            let mut out = Fenced::<f32>::new(gpu, len, misalign);
            noise::backward(
                gpu,
                stream,
                of_dh.get().rows("dh", t, e, stride).unwrap(),
                of_n.get(),
                of_z.get().rows("z", t, e, stride).unwrap(),
                out.get_mut().rows("out", t, e, stride).unwrap(),
            )
            .unwrap();
            let out = out.read(stream);
            for i in 0..t * e {
                let at = i / e * stride + i % e;
                let slope = match z[at] {
                    z if z < -87.3 => 0.0,
                    z => tollgate_core::math::sigmoid(z),
                };
                let expected = dh[at] * n[i] * slope;
                assert_eq!(out[at].to_bits(), expected.to_bits(), "{name}: {i}");
            }
            // The gaps between rows stay as they were.
            let gaps = (0..len).filter(|at| at % stride >= e);
            assert!(
                gaps.into_iter().all(|at| out[at].to_bits() == u32::MAX),
                "{name}"
            );
        }
    }
}

fn jitter_of<T: Element>(gpu: &Gpu, ctx: &StepContext, what: &str) {
    let cpu = Cpu::new(1).unwrap();
    let (stream, amount) = (gpu.default_stream(), 0.01f32);
    for (t, h, stride, misalign) in [(0, 4, 4, 0), (40, 512, 512, 0), (9, 8, 12, 0), (5, 7, 9, 1)] {
        let len = if t == 0 { 0 } else { (t - 1) * stride + h };
        let x: Vec<T> = Data::new(h as u64).normals(len, 1.0);
        let of_x = Fenced::from_slice(gpu, &x, misalign);
        let step = gpu.upload(stream, &[step_block(ctx)]).unwrap();
        let mut out = Fenced::<f32>::new(gpu, t * h, misalign);
        let rows = of_x.get().rows("x", t, h, stride).unwrap();
        let to = out.get_mut().rows("out", t, h, h).unwrap();
        jitter::apply(gpu, stream, amount, step.slice(), rows, to).unwrap();

        let mut expected = vec![0f32; t * h];
        let view = RowView::strided(&x, t, h, stride).unwrap();
        let to = RowViewMut::new(&mut expected, t, h).unwrap();
        cpu.jitter(view, amount, ctx, to).unwrap();
        for (i, &v) in expected.iter().enumerate() {
            let (token, column) = (i / h, i % h);
            let factor =
                tollgate_gating::jitter::factors(ctx, token, column / 4, amount)[column % 4];
            assert!((1.0 - amount..=1.0 + amount).contains(&factor), "{factor}");
            assert_eq!(v, view.row(token)[column].to_f32() * factor, "{what}: {i}");
        }
        let mut in_parallel = vec![0f32; t * h];
        let to = RowViewMut::new(&mut in_parallel, t, h).unwrap();
        Cpu::new(3).unwrap().jitter(view, amount, ctx, to).unwrap();
        assert_same(what, &in_parallel, &expected);
        assert_same(what, &out.read(stream), &expected);

        // Once more, in place, and over host memory.
        let rows = out.get_mut().rows("out", t, h, h).unwrap();
        jitter::scale(gpu, stream, amount, step.slice(), rows).unwrap();
        let mut on_host = expected.clone();
        let rows = RowViewMut::new(&mut on_host, t, h).unwrap();
        gpu.jitter_backward(amount, ctx, rows).unwrap();
        let rows = RowViewMut::new(&mut expected, t, h).unwrap();
        cpu.jitter_backward(amount, ctx, rows).unwrap();
        assert_same(what, &out.read(stream), &expected);
        assert_same(what, &on_host, &expected);
        let mut on_host = vec![0f32; t * h];
        gpu.jitter(view, 0.0, ctx, RowViewMut::new(&mut on_host, t, h).unwrap())
            .unwrap();
        let plain: Vec<f32> = view.iter().flatten().map(|v| v.to_f32()).collect();
        assert_same(what, &on_host, &plain);
    }
}

#[test]
fn jitter_has_the_bits_of_the_cpu() {
    let ctx = StepContext {
        first_token: u32::MAX - 1,
        ..some_context()
    };
    for (name, gpu) in devices() {
        jitter_of::<f32>(gpu, &ctx, &format!("{name}: f32"));
        jitter_of::<f16>(gpu, &ctx, &format!("{name}: f16"));
        jitter_of::<bf16>(gpu, &ctx, &format!("{name}: bf16"));
    }
}

#[test]
fn jitter_is_refused_where_it_has_no_meaning() {
    let cpu = Cpu::new(1).unwrap();
    let ctx = some_context();
    let x = [1f32; 4];
    let mut out = [0f32; 4];
    for (_, gpu) in devices() {
        let mut refused = |amount: f32, ctx: &StepContext, rows: usize| {
            let view = RowView::new(&x, 2, 2).unwrap();
            let to = RowViewMut::new(&mut out[..2 * rows], rows, 2).unwrap();
            let a = gpu.jitter(view, amount, ctx, to).unwrap_err();
            let to = RowViewMut::new(&mut out[..2 * rows], rows, 2).unwrap();
            let b = cpu.jitter(view, amount, ctx, to).unwrap_err();
            assert_eq!(a, b);
            a.to_string()
        };
        assert_eq!(refused(1.5, &ctx, 2), "jitter is 1.5, must be in [0, 1]");
        assert_eq!(refused(0.5, &ctx, 1), "rows of out (T) is 1, expected 2");
        let pass = StepContext { pass: 16, ..ctx };
        assert_eq!(refused(0.5, &pass, 2), "pass is 16, must be in 0..=15");
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let ctx = some_context();
    let (t, e) = (9, 5);
    let z: Vec<f32> = Data::new(1).normals(t * e, 1.0);
    let mut first = None;
    for seed in 0..50 {
        let outcome = noise_on(&seeded(seed), &ctx, (t, e), &z, &z, 0);
        assert_eq!(&outcome, first.get_or_insert_with(|| outcome.clone()));
    }
}
