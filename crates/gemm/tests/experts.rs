//! The experts' four steps against the reference: every edge case × activation × form × bias ×
//! type.

mod common;

use common::{Device, PAD, Weights, abs, check, expert_shape, f64s, gpus, groups, u32_roundoff};
use half::{bf16, f16};
use tollgate_core::options::Activation;
use tollgate_core::{DType, Element};
use tollgate_gemm::{ExpertGrads, ExpertShape, Experts, reference};
use tollgate_testkit::{Case, Guarded, GuardedMatrix, Tolerance, edge_cases, run_all};

/// The gradients that a backward writes, guarded, starting from poison or from what is added to.
struct Grads {
    up: Guarded<f32>,
    up_bias: Option<Guarded<f32>>,
    down: Guarded<f32>,
    down_bias: Option<Guarded<f32>>,
    accumulate: bool,
}

/// What accumulation starts from.
const BEFORE: f32 = 3.0;

impl Grads {
    fn new(shape: &ExpertShape, bias: bool, accumulate: bool) -> Self {
        let (e, h, i) = (shape.experts, shape.hidden, shape.intermediate);
        let n1 = shape.up_rows();
        let buffer = |len: usize| {
            let mut buffer = Guarded::new(len, len % 5);
            if accumulate {
                buffer.as_mut_slice().fill(BEFORE);
            }
            buffer
        };
        Self {
            up: buffer(e * n1 * h),
            up_bias: bias.then(|| buffer(e * n1)),
            down: buffer(e * h * i),
            down_bias: bias.then(|| buffer(e * h)),
            accumulate,
        }
    }

    fn borrow(&mut self) -> ExpertGrads<'_> {
        ExpertGrads {
            up: self.up.as_mut_slice(),
            up_bias: self.up_bias.as_mut().map(Guarded::as_mut_slice),
            down: self.down.as_mut_slice(),
            down_bias: self.down_bias.as_mut().map(Guarded::as_mut_slice),
            accumulate: self.accumulate,
        }
    }

    /// One gradient against the reference: sums of as many terms as the largest group has rows, and
    /// what they were added to; exactly what was there (or zero) for an empty expert.
    fn check(
        &self,
        what: &str,
        actual: &Guarded<f32>,
        expected: &[f64],
        magnitude: &[f64],
        offsets: &[i32],
    ) {
        actual.assert_canaries(what);
        let before = if self.accumulate {
            f64::from(BEFORE)
        } else {
            0.0
        };
        let expected: Vec<f64> = expected.iter().map(|v| v + before).collect();
        let magnitude: Vec<f64> = magnitude.iter().map(|v| v + before).collect();
        let largest = offsets.windows(2).map(|o| o[1] - o[0]).max().unwrap_or(0) as usize;
        let tolerance = Tolerance::dot(largest + 1, DType::F32);
        check(what, actual.as_slice(), &expected, &magnitude, tolerance);
        let per_expert = actual.as_slice().len() / (offsets.len() - 1);
        for (e, o) in offsets.windows(2).enumerate() {
            let own = &actual.as_slice()[e * per_expert..(e + 1) * per_expert];
            let untouched = own.iter().all(|&v| f64::from(v) == before);
            assert!(o[0] != o[1] || untouched, "{what}: empty expert {e}");
        }
    }
}

/// Forward and backward of one case, each step checked from the values the step before it stored.
fn check_case<T: Element>(
    case: &Case,
    device: &Device,
    activation: Activation,
    gated: bool,
    bias: bool,
) {
    let shape = expert_shape(case, activation, gated);
    let (h, i, n1) = (shape.hidden, shape.intermediate, shape.up_rows());
    let (offsets, a) = groups(case);
    let mut data = case.data(11);
    let weights = Weights::<T>::random(&shape, bias, &mut data);
    let exact_weights = weights.to_f64();
    let (w64, w_abs) = (exact_weights.borrow64(), exact_weights.abs());
    let w_abs = w_abs.borrow64();
    let x: Vec<T> = data.normals(a * h, 1.0);
    let dy: Vec<T> = data.normals(a * h, 1.0);
    let (x64, dy64) = (f64s(&x), f64s(&dy));
    let (u, u_store) = (u32_roundoff(), T::DTYPE.unit_roundoff());
    let label = format!("{} {activation} gated {gated} bias {bias}", T::DTYPE);

    let x_matrix = GuardedMatrix::of(&x, a, h, PAD);
    let (mut pre, mut act) = (
        GuardedMatrix::<T>::poisoned(a, n1, PAD),
        GuardedMatrix::<T>::poisoned(a, i, PAD),
    );
    device
        .up(
            &shape,
            &weights.borrow(),
            x_matrix.view(),
            &offsets,
            pre.view_mut(),
            act.view_mut(),
        )
        .unwrap();
    let what = format!("pre {label}");
    let pre_values = pre.values(&what);
    let expected = reference::up(&shape, &w64, &x64, &offsets);
    let magnitude = reference::up(&shape, &w_abs, &abs(&x64), &offsets).pre;
    check(
        &what,
        &pre_values,
        &expected.pre,
        &magnitude,
        Tolerance::dot(h + 1, T::DTYPE),
    );

    // `act` is a function of the stored `pre`: 16 roundings of f32 for the activation (bound tested
    // where it is defined) and one for the product, relative to max(|v|, 1)·|up|, and one rounding
    // of the type; |act(v)| ≤ |v|, so that is a bound of the result too.
    let what = format!("act {label}");
    let pre64 = f64s(&pre_values);
    let expected = reference::activate(&shape, &pre64);
    let magnitude = activation_magnitude(&shape, &pre64);
    let tolerance = Tolerance {
        relative: 17.0 * u + u_store,
        absolute: T::DTYPE.min_positive_normal(),
    };
    let act_values = act.values(&what);
    check(&what, &act_values, &expected, &magnitude, tolerance);

    let mut y = GuardedMatrix::<T>::poisoned(a, h, PAD);
    device
        .down(
            &shape,
            &weights.borrow(),
            act.view(),
            &offsets,
            y.view_mut(),
        )
        .unwrap();
    let what = format!("y {label}");
    let act64 = f64s(&act_values);
    let expected = reference::down(&shape, &w64, &act64, &offsets);
    let magnitude = reference::down(&shape, &w_abs, &abs(&act64), &offsets);
    check(
        &what,
        &y.values(&what),
        &expected,
        &magnitude,
        Tolerance::dot(i + 1, T::DTYPE),
    );

    for accumulate in [false, true] {
        let mut grads = Grads::new(&shape, bias, accumulate);
        let dy_matrix = GuardedMatrix::of(&dy, a, h, PAD);
        let mut dpre = GuardedMatrix::<T>::poisoned(a, n1, PAD);
        device
            .down_backward(
                &shape,
                &weights.borrow(),
                pre.view(),
                act.view(),
                dy_matrix.view(),
                &offsets,
                dpre.view_mut(),
                &mut grads.borrow(),
            )
            .unwrap();
        let what = format!("dpre {label}");
        let dpre_values = dpre.values(&what);
        let expected = reference::down_backward(&shape, &w64, &pre64, &act64, &dy64, &offsets);
        let dact = reference::m_grouped_transposed(&abs(&dy64), &abs(w64.down), &offsets, h, i);
        // dact errs by (h+2)u of Σ|dy||w|; the derivative (≤ 1.13, or the value, ≤ |gate|) by 64u
        // of max(|gate|, 1); two products and the store round once each. Everything is relative to
        // Σ|dy||w| · 1.13 · max(|gate|, 1) · |up|.
        let magnitude = dpre_magnitude(&shape, &pre64, &dact);
        let tolerance = Tolerance {
            relative: (h as f64 + 2.0 + 64.0 + 2.0) * u + u_store,
            absolute: T::DTYPE.min_positive_normal(),
        };
        check(&what, &dpre_values, &expected.dpre, &magnitude, tolerance);

        let dpre64 = f64s(&dpre_values);
        let mut dx = GuardedMatrix::<T>::poisoned(a, h, PAD);
        device
            .up_backward(
                &shape,
                &weights.borrow(),
                x_matrix.view(),
                dpre.view(),
                &offsets,
                dx.view_mut(),
                &mut grads.borrow(),
            )
            .unwrap();
        let what = format!("dx {label}");
        let expected_up = reference::up_backward(&shape, &w64, &x64, &dpre64, &offsets);
        let magnitude_up =
            reference::up_backward(&shape, &w_abs, &abs(&x64), &abs(&dpre64), &offsets);
        let tolerance = Tolerance::dot(n1, T::DTYPE);
        check(
            &what,
            &dx.values(&what),
            &expected_up.dx,
            &magnitude_up.dx,
            tolerance,
        );

        let label = format!("{label} accumulate {accumulate}");
        let magnitude = reference::k_grouped(&abs(&dy64), &abs(&act64), &offsets, h, i);
        let what = format!("gradient of down {label}");
        grads.check(&what, &grads.down, &expected.down, &magnitude, &offsets);
        let what = format!("gradient of up {label}");
        grads.check(
            &what,
            &grads.up,
            &expected_up.up,
            &magnitude_up.up,
            &offsets,
        );
        if let (Some(up), Some(down)) = (&grads.up_bias, &grads.down_bias) {
            let magnitude = reference::column_sums(&abs(&dy64), &offsets, h);
            let what = format!("gradient of down_bias {label}");
            grads.check(&what, down, &expected.down_bias, &magnitude, &offsets);
            let what = format!("gradient of up_bias {label}");
            grads.check(
                &what,
                up,
                &expected_up.up_bias,
                &magnitude_up.up_bias,
                &offsets,
            );
        }
    }
}

/// `max(|v|, 1)` or `max(|gate|, 1)·|up|` `[A, I]`.
fn activation_magnitude(shape: &ExpertShape, pre: &[f64]) -> Vec<f64> {
    let i = shape.intermediate;
    if !shape.gated {
        return pre.iter().map(|v| v.abs().max(1.0)).collect();
    }
    let rows = pre.chunks_exact(2 * i);
    rows.flat_map(|row| (0..i).map(|j| row[j].abs().max(1.0) * row[i + j].abs()))
        .collect()
}

/// `1.13 · max(|gate|, 1) · |up or 1| · Σ|dy||w|` `[A, N1]`.
fn dpre_magnitude(shape: &ExpertShape, pre: &[f64], dact: &[f64]) -> Vec<f64> {
    let i = shape.intermediate;
    if !shape.gated {
        return dact.iter().map(|d| 1.13 * d).collect();
    }
    let rows = pre.chunks_exact(2 * i).zip(dact.chunks_exact(i));
    rows.flat_map(|(row, d)| {
        let gate = (0..i).map(|j| 1.13 * d[j] * row[i + j].abs());
        gate.chain((0..i).map(|j| 1.13 * d[j] * row[j].abs().max(1.0)))
            .collect::<Vec<_>>()
    })
    .collect()
}

fn run_type<T: Element>() {
    let mut devices = vec![("cpu, 2 threads", Device::cpu(2))];
    devices.extend(gpus());
    run_all("experts", &edge_cases(), &devices, |case, device| {
        for &activation in Activation::ALL {
            for (gated, bias) in [(false, false), (false, true), (true, false), (true, true)] {
                // The types share every form's code: on a GPU one of them shows it.
                let every_form = device.is_cpu() || (T::DTYPE == DType::F32 && is_cheap(case));
                if every_form || (activation, gated, bias) == ONE_FORM {
                    check_case::<T>(case, device, activation, gated, bias);
                }
            }
        }
    });
}

/// The form that the other cases have on a GPU, which may be simulated.
const ONE_FORM: (Activation, bool, bool) = (Activation::Silu, true, true);

/// Whether a case is small enough for every form on a simulated GPU.
fn is_cheap(case: &Case) -> bool {
    case.tokens * case.hidden * case.intermediate <= 4_000
}

#[test]
fn f32_experts() {
    run_type::<f32>();
}

#[test]
fn bf16_experts() {
    run_type::<bf16>();
}

#[test]
fn f16_experts() {
    run_type::<f16>();
}

/// Several units in every direction, both halves of the gated form cut into more than one tile.
#[test]
fn experts_of_many_tiles() {
    let case = Case {
        name: "many tiles",
        tokens: 500,
        experts: 3,
        hidden: 401,
        intermediate: 333,
        logits: tollgate_testkit::LogitKind::OneHot,
        seed: 4,
    };
    let mut devices = vec![("cpu, 2 threads", Device::cpu(2))];
    devices.extend(gpus());
    for (_, device) in &devices {
        let case = match device.is_cpu() {
            true => case.clone(),
            // Two tiles of rows and more of columns, and sums of two chains.
            false => Case {
                tokens: 140,
                intermediate: 70,
                ..case.clone()
            },
        };
        check_case::<f32>(&case, device, Activation::Silu, true, true);
        check_case::<bf16>(&case, device, Activation::Gelu, false, true);
    }
}
