//! The three grouped products against the reference, on every edge case and mix of element types.

mod common;

use common::{Device, PAD, abs, check, f64s, groups, implementations};
use half::{bf16, f16};
use tollgate_core::{DType, Element, RowView, RowViewMut};
use tollgate_gemm::{GroupedGemm, Stacked, reference};
use tollgate_testkit::{Case, Data, GuardedMatrix, Tolerance, assert_same, edge_cases, run_all};

/// Inputs of one case: A of either width, X, B and its bias.
struct Inputs<A, B> {
    offsets: Vec<i32>,
    rows: usize,
    experts: usize,
    n: usize,
    k: usize,
    /// `[M, K]`
    x: Vec<A>,
    /// `[M, N]`
    dy: Vec<A>,
    /// `[E, N, K]`
    b: Vec<B>,
    /// `[E, N]`
    bias: Vec<B>,
}

impl<A: Element, B: Element> Inputs<A, B> {
    /// Normal numbers, or small integers whose products and sums are exact in every type.
    fn of(case: &Case, integers: bool) -> Self {
        let (offsets, rows) = groups(case);
        let (experts, n, k) = (case.experts, case.intermediate, case.hidden);
        let mut data = case.data(7);
        Self {
            rows,
            experts,
            n,
            k,
            x: values(&mut data, rows * k, integers),
            dy: values(&mut data, rows * n, integers),
            b: values(&mut data, experts * n * k, integers),
            bias: values(&mut data, experts * n, integers),
            offsets,
        }
    }

    fn stacked(&self) -> Stacked<'_, B> {
        Stacked {
            data: &self.b,
            experts: self.experts,
            n: self.n,
            k: self.k,
        }
    }
}

fn values<T: Element>(data: &mut Data, len: usize, integers: bool) -> Vec<T> {
    if integers {
        data.integers(len, 2)
    } else {
        data.normals(len, 1.0)
    }
}

/// All three products of a case. `exact`: the data are integers, so that the f32 sums are exact
/// (all below 2^24) and the only rounding is the store's, which the reference can repeat.
fn products<A: Element, B: Element, D: Element>(case: &Case, device: &Device, exact: bool) {
    let inputs = Inputs::<A, B>::of(case, exact);
    let (m, n, k) = (inputs.rows, inputs.n, inputs.k);
    let offsets = &inputs.offsets;
    let (x, dy, b) = (f64s(&inputs.x), f64s(&inputs.dy), f64s(&inputs.b));
    let bias64 = f64s(&inputs.bias);
    let names = format!("{}·{}→{}", A::DTYPE, B::DTYPE, D::DTYPE);
    let rounded =
        |v: &[f64]| -> Vec<f64> { v.iter().map(|&v| D::from_f32(v as f32).to_f64()).collect() };

    for bias in [None, Some(&inputs.bias[..])] {
        let bias64 = bias.map(|_| &bias64[..]);
        let mut d = GuardedMatrix::<D>::poisoned(m, n, PAD);
        let a = GuardedMatrix::of(&inputs.x, m, k, PAD);
        device
            .m_grouped(a.view(), inputs.stacked(), bias, offsets, d.view_mut())
            .unwrap();
        let expected = reference::m_grouped(&x, &b, bias64, offsets, n, k);
        let what = format!("m_grouped {names}, bias {}", bias.is_some());
        if exact {
            check(
                &what,
                &d.values(&what),
                &rounded(&expected),
                &expected,
                Tolerance::EXACT,
            );
        } else {
            // One term more for the bias.
            let magnitude = bias64.map(abs);
            let magnitude =
                reference::m_grouped(&abs(&x), &abs(&b), magnitude.as_deref(), offsets, n, k);
            let tolerance = Tolerance::dot(k + 1, D::DTYPE);
            check(&what, &d.values(&what), &expected, &magnitude, tolerance);
        }
    }

    let mut d = GuardedMatrix::<D>::poisoned(m, k, PAD);
    let a = GuardedMatrix::of(&inputs.dy, m, n, PAD);
    device
        .m_grouped_transposed(a.view(), inputs.stacked(), offsets, d.view_mut())
        .unwrap();
    let expected = reference::m_grouped_transposed(&dy, &b, offsets, n, k);
    let what = format!("m_grouped_transposed {names}");
    if exact {
        check(
            &what,
            &d.values(&what),
            &rounded(&expected),
            &expected,
            Tolerance::EXACT,
        );
    } else {
        let magnitude = reference::m_grouped_transposed(&abs(&dy), &abs(&b), offsets, n, k);
        let tolerance = Tolerance::dot(n, D::DTYPE);
        check(&what, &d.values(&what), &expected, &magnitude, tolerance);
    }

    let (dy_matrix, x_matrix) = (
        GuardedMatrix::of(&inputs.dy, m, n, PAD),
        GuardedMatrix::of(&inputs.x, m, k, PAD),
    );
    let sums = reference::k_grouped(&dy, &x, offsets, n, k);
    let magnitudes = reference::k_grouped(&abs(&dy), &abs(&x), offsets, n, k);
    for accumulate in [false, true] {
        // Poison shows an element that was not written; numbers are what is added to.
        let before = match accumulate {
            false => vec![f32::NAN; inputs.experts * n * k],
            true => case.data(9).integers(inputs.experts * n * k, 5),
        };
        let mut w = tollgate_testkit::Guarded::from_slice(&before, 3);
        device
            .k_grouped(
                dy_matrix.view(),
                x_matrix.view(),
                offsets,
                accumulate,
                w.as_mut_slice(),
            )
            .unwrap();
        let what = format!("k_grouped {names}, accumulate {accumulate}");
        w.assert_canaries(&what);
        let old = |i: usize| {
            if accumulate {
                f64::from(before[i])
            } else {
                0.0
            }
        };
        let expected: Vec<f64> = sums.iter().enumerate().map(|(i, s)| old(i) + s).collect();
        let magnitude: Vec<f64> = magnitudes
            .iter()
            .enumerate()
            .map(|(i, s)| old(i).abs() + s)
            .collect();
        // As many terms as the largest group has rows, and the old value.
        let largest = offsets.windows(2).map(|o| o[1] - o[0]).max().unwrap_or(0) as usize;
        let tolerance = match exact {
            true => Tolerance::EXACT,
            false => Tolerance::dot(largest + 1, DType::F32),
        };
        check(&what, w.as_slice(), &expected, &magnitude, tolerance);
        for (e, o) in offsets.windows(2).enumerate().filter(|(_, o)| o[0] == o[1]) {
            let matrix = &w.as_slice()[e * n * k..(e + 1) * n * k];
            let kept = matrix
                .iter()
                .enumerate()
                .all(|(i, &v)| f64::from(v) == old(e * n * k + i));
            assert!(kept, "{what}: empty group {e} at {o:?}");
        }
    }
}

fn run_types<A: Element, B: Element, D: Element>() {
    let implementations = implementations();
    // Operands of different types are loaded as those of one type are, each by itself: what is
    // large need not be simulated once more for each mixture.
    let mixed = A::DTYPE != B::DTYPE || B::DTYPE != D::DTYPE;
    run_all(
        "grouped products",
        &edge_cases(),
        &implementations,
        |case, device| {
            let large = case.tokens * case.hidden * case.intermediate > 100_000;
            if device.is_cpu() || !mixed || !large {
                products::<A, B, D>(case, device, false);
                products::<A, B, D>(case, device, true);
            }
        },
    );
}

#[test]
fn f32_products() {
    run_types::<f32, f32, f32>();
}

#[test]
fn bf16_products() {
    run_types::<bf16, bf16, bf16>();
}

#[test]
fn f16_products() {
    run_types::<f16, f16, f16>();
}

#[test]
fn mixed_products_of_the_router() {
    run_types::<bf16, f32, f32>();
    run_types::<f16, f32, f32>();
    run_types::<f32, f32, bf16>();
    run_types::<f32, bf16, f32>();
}

/// Larger than one unit in every direction, and deeper than one block of a sum.
#[test]
fn many_tiles_of_integers_are_exact() {
    let case = Case {
        name: "many tiles",
        tokens: 700,
        experts: 2,
        hidden: 1025,
        intermediate: 321,
        logits: tollgate_testkit::LogitKind::OneHot,
        seed: 3,
    };
    for (_, device) in implementations() {
        let case = match device.is_cpu() {
            true => case.clone(),
            // Two tiles of rows and more of columns, and sums of two chains.
            false => Case {
                tokens: 140,
                hidden: 401,
                intermediate: 70,
                ..case.clone()
            },
        };
        products::<f32, f32, f32>(&case, &device, true);
        products::<bf16, bf16, f32>(&case, &device, true);
    }
}

#[test]
fn empty_dimensions_are_legal() {
    for (_, device) in implementations() {
        empty_dimensions(&device);
    }
}

fn empty_dimensions(device: &Device) {
    let none: &[f32] = &[];
    // K = 0: the bias alone, or 0.
    let b = Stacked {
        data: none,
        experts: 2,
        n: 3,
        k: 0,
    };
    let bias = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    for (bias, expected) in [
        (Some(&bias[..]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        (None, [0.0; 6]),
    ] {
        let mut d = [f32::NAN; 6];
        let a = RowView::new(none, 2, 0).unwrap();
        let out = RowViewMut::new(&mut d, 2, 3).unwrap();
        device.m_grouped(a, b, bias, &[0, 1, 2], out).unwrap();
        assert_same("K = 0", &d, &expected);
    }
    // N = 0: dgrad is 0, wgrad and forward are empty.
    let b = Stacked {
        data: none,
        experts: 1,
        n: 0,
        k: 2,
    };
    let mut d = [f32::NAN; 4];
    let a = RowView::new(none, 2, 0).unwrap();
    let out = RowViewMut::new(&mut d, 2, 2).unwrap();
    device.m_grouped_transposed(a, b, &[0, 2], out).unwrap();
    assert_same("N = 0", &d, &[0.0; 4]);
    let x = [1.0f32; 4];
    let x = RowView::new(&x, 2, 2).unwrap();
    device.k_grouped(a, x, &[0, 2], false, &mut []).unwrap();
    device
        .m_grouped(
            x,
            b,
            None,
            &[0, 2],
            RowViewMut::new(&mut [0f32; 0], 2, 0).unwrap(),
        )
        .unwrap();
    // No experts, whatever the other sizes.
    let b = Stacked {
        data: none,
        experts: 0,
        n: usize::MAX / 2,
        k: 3,
    };
    let a = RowView::new(none, 0, 3).unwrap();
    let out = RowViewMut::new(&mut [0f32; 0], 0, usize::MAX / 2);
    if let Ok(out) = out {
        device.m_grouped(a, b, None, &[0], out).unwrap();
    }
    let huge = RowView::new(none, 0, isize::MAX as usize).unwrap();
    device.k_grouped(huge, huge, &[0], true, &mut []).unwrap();
}
