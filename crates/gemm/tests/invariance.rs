//! A row's bits depend on nothing but the row and its expert; no bit depends on the threads.

mod common;

use common::{Device, Weights, cpu_is_fused, expert_shape, gpus, one_of_each};
use half::{bf16, f16};
use tollgate_core::options::Activation;
use tollgate_core::{Cpu, Element, RowView, RowViewMut};
use tollgate_gemm::{ExpertGrads, ExpertShape, Experts, GroupedGemm, Stacked};
use tollgate_testkit::{Case, Data, LogitKind, assert_same, poison};

const EXPERTS: usize = 2;

/// Forward and dgrad of rows `[M, K]` and `[M, N]` of one expert among [`EXPERTS`].
fn products<T: Element>(
    device: &impl GroupedGemm,
    b: Stacked<'_, T>,
    bias: &[T],
    expert: usize,
    x: &[T],
    dy: &[T],
) -> (Vec<T>, Vec<T>) {
    let m = x.len() / b.k;
    let offsets: Vec<i32> = (0..=EXPERTS)
        .map(|e| if e > expert { m as i32 } else { 0 })
        .collect();
    let (mut d, mut dx) = (poison(m * b.n), poison(m * b.k));
    let (x, dy) = (
        RowView::new(x, m, b.k).unwrap(),
        RowView::new(dy, m, b.n).unwrap(),
    );
    let out = RowViewMut::new(&mut d, m, b.n).unwrap();
    device.m_grouped(x, b, Some(bias), &offsets, out).unwrap();
    let out = RowViewMut::new(&mut dx, m, b.k).unwrap();
    device.m_grouped_transposed(dy, b, &offsets, out).unwrap();
    (d, dx)
}

/// Each row computed alone, in batches of odd sizes, and in one big batch.
fn rows_do_not_see_each_other<T: Element>(n: usize, k: usize) {
    let m = 150;
    let cpu = Cpu::new(2).unwrap();
    let mut data = Data::new((n * 10_000 + k) as u64);
    let weights: Vec<T> = data.normals(EXPERTS * n * k, 1.0);
    let bias: Vec<T> = data.normals(EXPERTS * n, 1.0);
    let (x, dy): (Vec<T>, Vec<T>) = (data.normals(m * k, 1.0), data.normals(m * n, 1.0));
    let b = Stacked {
        data: &weights,
        experts: EXPERTS,
        n,
        k,
    };
    for expert in 0..EXPERTS {
        let (d, dx) = products(&cpu, b, &bias, expert, &x, &dy);
        for batch in [1, 2, 3, 5, 7, 47, 49, 97] {
            let mut from = 0;
            while from < m {
                let to = (from + batch).min(m);
                let rows = (&x[from * k..to * k], &dy[from * n..to * n]);
                let (part, dpart) = products(&cpu, b, &bias, expert, rows.0, rows.1);
                let what = format!("{} n {n} k {k}: rows {from}..{to}", T::DTYPE);
                assert_same(&what, &part, &d[from * n..to * n]);
                assert_same(&what, &dpart, &dx[from * k..to * k]);
                // Small batches are many: they take samples.
                from = if batch < 8 { to + 13 } else { to };
            }
        }
    }
}

#[test]
fn f32_rows_do_not_see_each_other() {
    for k in [1, 2, 3, 13, 384, 385, 1536, 3072] {
        rows_do_not_see_each_other::<f32>(19, k);
    }
    for n in [1, 16, 64, 65, 130, 300] {
        rows_do_not_see_each_other::<f32>(n, 40);
    }
}

#[test]
fn narrow_rows_do_not_see_each_other() {
    for k in [1, 13, 384, 1536] {
        rows_do_not_see_each_other::<bf16>(19, k);
        rows_do_not_see_each_other::<f16>(19, k);
    }
}

/// The terms of a block of a sum, as the implementation documents it: the fewest equal blocks of at
/// most 384; the bits of a product are those of chains of fused multiply–adds.
#[test]
fn sums_have_the_documented_order() {
    for (_, device) in &one_of_each() {
        if !device.is_cpu() || cpu_is_fused() {
            has_the_documented_order(device);
        }
    }
}

fn has_the_documented_order(device: &Device) {
    let (m, n) = (5, 18);
    for k in [1, 2, 3, 383, 385, 800, 3072] {
        let mut data = Data::new(k as u64);
        let (x, w): (Vec<f32>, Vec<f32>) = (data.normals(m * k, 1.0), data.normals(n * k, 1.0));
        let mut d = poison(m * n);
        let b = Stacked {
            data: &w,
            experts: 1,
            n,
            k,
        };
        let a = RowView::new(&x, m, k).unwrap();
        let out = RowViewMut::new(&mut d, m, n).unwrap();
        device.m_grouped(a, b, None, &[0, m as i32], out).unwrap();
        let block = k.div_ceil(k.div_ceil(384));
        let mut expected = Vec::new();
        for r in 0..m {
            for j in 0..n {
                let (a, b) = (&x[r * k..(r + 1) * k], &w[j * k..(j + 1) * k]);
                let chains = a
                    .chunks(block)
                    .zip(b.chunks(block))
                    .map(|(a, b)| a.iter().zip(b).fold(0f32, |sum, (a, b)| a.mul_add(*b, sum)));
                expected.push(chains.reduce(|sum, chain| sum + chain).unwrap());
            }
        }
        assert_same(&format!("k {k}"), &d, &expected);
    }
}

/// A NaN and an infinity spoil their own rows only; the same in the weights spoils their expert's.
#[test]
fn a_nan_stays_in_its_row() {
    nan_stays_in_its_row(&Device::cpu(2), &[0, 1, 47, 48, 63, 99]);
    for (_, gpu) in &gpus() {
        nan_stays_in_its_row(gpu, &[0, 15, 16, 99]);
    }
}

fn nan_stays_in_its_row(device: &Device, rows: &[usize]) {
    let (m, n, k) = (100, 70, 33);
    let mut data = Data::new(8);
    let weights: Vec<f32> = data.normals(EXPERTS * n * k, 1.0);
    let bias: Vec<f32> = data.normals(EXPERTS * n, 1.0);
    let (x, dy): (Vec<f32>, Vec<f32>) = (data.normals(m * k, 1.0), data.normals(m * n, 1.0));
    let b = Stacked {
        data: &weights,
        experts: EXPERTS,
        n,
        k,
    };
    let clean = products(device, b, &bias, 1, &x, &dy);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for &row in rows {
            let (mut x, mut dy) = (x.clone(), dy.clone());
            x[row * k + 7] = bad;
            dy[row * n + 7] = bad;
            let dirty = products(device, b, &bias, 1, &x, &dy);
            for r in 0..m {
                let (own, before) = (&dirty.0[r * n..][..n], &clean.0[r * n..][..n]);
                let (own_dx, before_dx) = (&dirty.1[r * k..][..k], &clean.1[r * k..][..k]);
                if r == row {
                    assert!(
                        own.iter().chain(own_dx).all(|v| !v.is_finite()),
                        "{bad} is lost"
                    );
                } else {
                    assert_same(&format!("{bad} in row {row}, row {r}"), own, before);
                    assert_same(&format!("{bad} in row {row}, row {r}"), own_dx, before_dx);
                }
            }
        }
    }
    let mut spoiled = weights.clone();
    spoiled[5] = f32::NAN;
    let b = Stacked {
        data: &spoiled,
        ..b
    };
    let other = products(device, b, &bias, 1, &x, &dy);
    assert_same("a NaN in another expert", &other.0, &clean.0);
    assert_same("a NaN in another expert", &other.1, &clean.1);
}

/// Everything that a forward and a backward write.
#[derive(Debug)]
struct Everything<T> {
    tensors: [Vec<T>; 5],
    gradients: [Vec<f32>; 4],
}

fn run_experts<T: Element>(cpu: &Cpu, shape: &ExpertShape, offsets: &[i32]) -> Everything<T> {
    let (e, h, i, n1) = (
        shape.experts,
        shape.hidden,
        shape.intermediate,
        shape.up_rows(),
    );
    let a = offsets[e] as usize;
    let mut data = Data::new(21);
    let weights = Weights::<T>::random(shape, true, &mut data);
    let weights = weights.borrow();
    let (x, dy): (Vec<T>, Vec<T>) = (data.normals(a * h, 1.0), data.normals(a * h, 1.0));
    let (x, dy) = (
        RowView::new(&x, a, h).unwrap(),
        RowView::new(&dy, a, h).unwrap(),
    );
    let [mut pre, mut act, mut y, mut dpre, mut dx] =
        [n1, i, h, n1, h].map(|cols| poison::<T>(a * cols));
    let [mut up, mut up_bias, mut down, mut down_bias] =
        [e * n1 * h, e * n1, e * h * i, e * h].map(poison::<f32>);
    let mut grads = ExpertGrads {
        up: &mut up,
        up_bias: Some(&mut up_bias),
        down: &mut down,
        down_bias: Some(&mut down_bias),
        accumulate: false,
    };
    let pre_out = RowViewMut::new(&mut pre, a, n1).unwrap();
    let act_out = RowViewMut::new(&mut act, a, i).unwrap();
    cpu.up(shape, &weights, x, offsets, pre_out, act_out)
        .unwrap();
    let pre_in = RowView::new(&pre, a, n1).unwrap();
    let act_in = RowView::new(&act, a, i).unwrap();
    let y_out = RowViewMut::new(&mut y, a, h).unwrap();
    cpu.down(shape, &weights, act_in, offsets, y_out).unwrap();
    let out = RowViewMut::new(&mut dpre, a, n1).unwrap();
    cpu.down_backward(
        shape, &weights, pre_in, act_in, dy, offsets, out, &mut grads,
    )
    .unwrap();
    let dpre_in = RowView::new(&dpre, a, n1).unwrap();
    let out = RowViewMut::new(&mut dx, a, h).unwrap();
    cpu.up_backward(shape, &weights, x, dpre_in, offsets, out, &mut grads)
        .unwrap();
    Everything {
        tensors: [pre, act, y, dpre, dx],
        gradients: [up, up_bias, down, down_bias],
    }
}

fn threads_do_not_matter<T: Element>(gated: bool) {
    let case = Case {
        name: "threads",
        tokens: 0,
        experts: 5,
        hidden: 200,
        intermediate: 150,
        logits: LogitKind::Random,
        seed: 1,
    };
    let shape = expert_shape(&case, Activation::Gelu, gated);
    // One large expert, empty ones and a single row, above the size at which threads are used.
    let offsets = [0, 0, 430, 431, 431, 500];
    let one = run_experts::<T>(&Cpu::new(1).unwrap(), &shape, &offsets);
    for threads in [2, 3, 8] {
        let many = run_experts::<T>(&Cpu::new(threads).unwrap(), &shape, &offsets);
        for (i, (a, b)) in one.tensors.iter().zip(&many.tensors).enumerate() {
            assert_same(&format!("{threads} threads, tensor {i}"), a, b);
            assert!(a.iter().all(|v| !v.to_f32().is_nan()));
        }
        for (i, (a, b)) in one.gradients.iter().zip(&many.gradients).enumerate() {
            assert_same(&format!("{threads} threads, gradient {i}"), a, b);
            assert!(a.iter().all(|v| !v.is_nan()));
        }
    }
}

#[test]
fn no_bit_depends_on_the_threads() {
    for gated in [false, true] {
        threads_do_not_matter::<f32>(gated);
        threads_do_not_matter::<bf16>(gated);
        threads_do_not_matter::<f16>(gated);
    }
}

/// The weights' gradient of an expert does not depend on the other experts' rows.
#[test]
fn an_expert_s_gradient_depends_on_its_rows_only() {
    for (_, device) in &one_of_each() {
        gradient_depends_on_its_rows_only(device);
    }
}

fn gradient_depends_on_its_rows_only(device: &Device) {
    let (n, k) = (70, 90);
    let mut data = Data::new(3);
    let (dy, x): (Vec<f32>, Vec<f32>) = (data.normals(900 * n, 1.0), data.normals(900 * k, 1.0));
    let sums = |rows: std::ops::Range<usize>, offsets: &[i32]| {
        let mut w = poison::<f32>((offsets.len() - 1) * n * k);
        let a = RowView::new(&dy[rows.start * n..rows.end * n], rows.len(), n).unwrap();
        let x = RowView::new(&x[rows.start * k..rows.end * k], rows.len(), k).unwrap();
        device.k_grouped(a, x, offsets, false, &mut w).unwrap();
        w
    };
    let all = sums(0..900, &[0, 1, 1, 400, 402, 900]);
    for (e, rows) in [(0, 0..1), (2, 1..400), (3, 400..402), (4, 402..900)] {
        let alone = sums(rows.clone(), &[0, rows.len() as i32]);
        assert_same(
            &format!("expert {e}"),
            &all[e * n * k..(e + 1) * n * k],
            &alone,
        );
    }
}
