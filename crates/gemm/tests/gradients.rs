//! The reference's gradients against finite differences of the reference's forward.

mod common;

use common::{Weights, expert_shape};
use tollgate_core::options::Activation;
use tollgate_gemm::{ExpertShape, ExpertWeights, reference};
use tollgate_testkit::{Case, Data, LogitKind, Probe, check_gradient};

/// `<y, dy>` of the experts: the function whose gradient the backward computes.
fn objective(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, f64>,
    x: &[f64],
    dy: &[f64],
    offsets: &[i32],
) -> f64 {
    let forward = reference::up(shape, weights, x, offsets);
    let y = reference::down(shape, weights, &forward.act, offsets);
    y.iter().zip(dy).map(|(y, d)| y * d).sum()
}

#[test]
fn every_activation_and_form() {
    let case = Case {
        name: "gradients",
        tokens: 9,
        experts: 4,
        hidden: 5,
        intermediate: 6,
        logits: LogitKind::Random,
        seed: 1,
    };
    // Expert 2 is empty.
    let offsets = [0, 3, 7, 7, 9];
    for &activation in Activation::ALL {
        for gated in [false, true] {
            let shape = expert_shape(&case, activation, gated);
            let mut data = Data::new(5);
            let random = Weights::<f32>::random(&shape, true, &mut data).to_f64();
            let x: Vec<f64> = (0..9 * 5).map(|_| data.normal()).collect();
            let dy: Vec<f64> = (0..9 * 5).map(|_| data.normal()).collect();
            // ReLU's kink is kept out of reach of the step (1e-5): the seed's points lie farther.
            let forward = reference::up(&shape, &random.borrow64(), &x, &offsets);
            assert!(
                forward.pre.iter().all(|v| v.abs() > 1e-3),
                "choose another seed"
            );
            check_all(&shape, &random, &x, &dy, &offsets);
        }
    }
}

fn check_all(shape: &ExpertShape, weights: &Weights<f64>, x: &[f64], dy: &[f64], offsets: &[i32]) {
    let w = weights.borrow64();
    let forward = reference::up(shape, &w, x, offsets);
    let down = reference::down_backward(shape, &w, &forward.pre, &forward.act, dy, offsets);
    let up = reference::up_backward(shape, &w, x, &down.dpre, offsets);
    let name = |what: &str| format!("{what}, {} gated {}", shape.activation, shape.gated);
    let probe = Probe::default();

    check_gradient(&name("x"), x, &up.dx, probe, |x| {
        objective(shape, &w, x, dy, offsets)
    });
    check_gradient(&name("up"), w.up, &up.up, probe, |up| {
        objective(shape, &ExpertWeights { up, ..w }, x, dy, offsets)
    });
    check_gradient(&name("down"), w.down, &down.down, probe, |down| {
        objective(shape, &ExpertWeights { down, ..w }, x, dy, offsets)
    });
    let bias = weights.up_bias.as_deref().expect("the weights have biases");
    check_gradient(&name("up_bias"), bias, &up.up_bias, probe, |b| {
        let w = ExpertWeights {
            up_bias: Some(b),
            ..w
        };
        objective(shape, &w, x, dy, offsets)
    });
    let bias = weights
        .down_bias
        .as_deref()
        .expect("the weights have biases");
    check_gradient(&name("down_bias"), bias, &down.down_bias, probe, |b| {
        let w = ExpertWeights {
            down_bias: Some(b),
            ..w
        };
        objective(shape, &w, x, dy, offsets)
    });
    // The empty expert.
    let (h, i, n1) = (shape.hidden, shape.intermediate, shape.up_rows());
    assert!(up.up[2 * n1 * h..3 * n1 * h].iter().all(|&v| v == 0.0));
    assert!(down.down[2 * h * i..3 * h * i].iter().all(|&v| v == 0.0));
}
