//! Arguments that do not fit together: an error that names value and bound, and nothing written;
//! never a panic. Arguments that do fit: every element written.

mod common;

use common::{Device, one_of_each};
use proptest::prelude::*;
use tollgate_core::options::Activation;
use tollgate_core::{Error, RowView, RowViewMut};
use tollgate_gemm::{
    ExpertGrads, ExpertShape, ExpertWeights, Experts, GroupedGemm, Stacked, reference,
};
use tollgate_testkit::poison;

/// A size that is `right` most of the time.
fn mostly(right: usize) -> impl Strategy<Value = usize> {
    prop_oneof![12 => Just(right), 1 => 0usize..6, 1 => Just(right + 1)]
}

/// Offsets of `experts` groups that are right most of the time.
fn offsets(experts: usize, rows: usize) -> impl Strategy<Value = Vec<i32>> {
    let right = prop::collection::vec(0..=rows as i32, experts).prop_map(move |mut cuts| {
        cuts.sort_unstable();
        cuts.insert(0, 0);
        cuts[experts] = rows as i32;
        if experts == 0 { vec![0] } else { cuts }
    });
    let rows = rows as i32;
    let extreme = prop::sample::select(vec![0, rows, rows + 1, -1, i32::MIN, i32::MAX]);
    let wrong = prop_oneof![
        prop::collection::vec(-2..8i32, 0..6),
        prop::collection::vec(any::<i32>(), experts + 1),
        // Differences that overflow; half of them with both ends right.
        (prop::collection::vec(extreme, experts + 1), any::<bool>()).prop_map(
            move |(mut offsets, ends)| {
                if ends {
                    (offsets[0], offsets[experts]) = (0, rows);
                }
                offsets
            }
        ),
    ];
    prop_oneof![6 => right, 2 => wrong]
}

/// Every element was written (no poison is left), or none was (only poison is).
fn all_or_nothing(written: bool, buffers: &[&[f32]]) {
    for (i, buffer) in buffers.iter().enumerate() {
        let fits = buffer.iter().all(|v| v.is_nan() != written);
        assert!(
            fits,
            "buffer {i} after {}",
            if written { "success" } else { "an error" }
        );
    }
}

#[derive(Debug, Clone)]
struct Products {
    e: usize,
    a: (usize, usize),
    x: (usize, usize),
    d: (usize, usize),
    n: usize,
    k: usize,
    b_len: usize,
    bias_len: Option<usize>,
    w_len: usize,
    offsets: Vec<i32>,
}

fn products() -> impl Strategy<Value = Products> {
    (0usize..4, 0usize..6, 0usize..5, 0usize..5)
        .prop_flat_map(|(e, m, n, k)| {
            let a = (mostly(m), mostly(k));
            let x = (mostly(m), mostly(n));
            let d = (mostly(m), mostly(n));
            let bias = prop::option::of(mostly(e * n));
            let lens = (mostly(e * n * k), bias, mostly(e * n * k));
            (Just((e, n, k)), a, x, d, lens, offsets(e, m))
        })
        .prop_map(
            |((e, n, k), a, x, d, (b_len, bias_len, w_len), offsets)| Products {
                e,
                a,
                x,
                d,
                n,
                k,
                b_len,
                bias_len,
                w_len,
                offsets,
            },
        )
}

#[derive(Debug, Clone)]
struct Network {
    shape: (usize, usize, usize),
    gated: bool,
    lens: [usize; 4],
    biases: [bool; 4],
    grads: [usize; 4],
    rows: [usize; 5],
    cols: [usize; 5],
    offsets: Vec<i32>,
}

fn network() -> impl Strategy<Value = Network> {
    (0usize..4, 0usize..5, 0usize..5, 0usize..6, any::<bool>())
        .prop_flat_map(|(e, h, i, a, gated)| {
            let n1 = if gated { 2 * i } else { i };
            let lens = move || {
                let lens = [e * n1 * h, e * n1, e * h * i, e * h];
                lens.map(mostly)
            };
            // A bias and its gradient agree most of the time.
            let biases = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.05))
                .prop_map(|(up, down, differ)| [up, down, up != differ, down]);
            let rows = [a; 5].map(mostly);
            let cols = [h, n1, i, h, n1].map(mostly);
            let shape = Just((e, h, i));
            (
                shape,
                Just(gated),
                lens(),
                biases,
                lens(),
                rows,
                cols,
                offsets(e, a),
            )
        })
        .prop_map(
            |(shape, gated, lens, biases, grads, rows, cols, offsets)| Network {
                shape,
                gated,
                lens,
                biases,
                grads,
                rows,
                cols,
                offsets,
            },
        )
}

/// All products of one set of arguments.
fn check_products(device: &Device, p: &Products) {
    let ones = vec![1f32; 400];
    let b = Stacked {
        data: &ones[..p.b_len],
        experts: p.e,
        n: p.n,
        k: p.k,
    };
    let bias = p.bias_len.map(|len| &ones[..len]);
    let a = RowView::new(&ones, p.a.0, p.a.1).unwrap();
    let x = RowView::new(&ones, p.x.0, p.x.1).unwrap();

    let mut d = poison::<f32>(p.d.0 * p.d.1);
    let out = RowViewMut::new(&mut d, p.d.0, p.d.1).unwrap();
    let result = device.m_grouped(a, b, bias, &p.offsets, out);
    all_or_nothing(result.is_ok(), &[&d]);

    let mut d = poison::<f32>(p.a.0 * p.a.1);
    let out = RowViewMut::new(&mut d, p.a.0, p.a.1).unwrap();
    let result = device.m_grouped_transposed(x, b, &p.offsets, out);
    all_or_nothing(result.is_ok(), &[&d]);

    let mut w = poison::<f32>(p.w_len);
    let result = device.k_grouped(x, a, &p.offsets, false, &mut w);
    all_or_nothing(result.is_ok(), &[&w]);
}

/// All steps of the experts with one set of arguments.
fn check_experts(device: &Device, n: &Network) {
    let ones = vec![1f32; 1000];
    let (experts, hidden, intermediate) = n.shape;
    let shape = ExpertShape {
        experts,
        hidden,
        intermediate,
        activation: Activation::Silu,
        gated: n.gated,
    };
    let weights = ExpertWeights {
        up: &ones[..n.lens[0]],
        up_bias: n.biases[0].then(|| &ones[..n.lens[1]]),
        down: &ones[..n.lens[2]],
        down_bias: n.biases[1].then(|| &ones[..n.lens[3]]),
    };
    let input = |i: usize| RowView::new(&ones, n.rows[i], n.cols[i]).unwrap();
    let output = |i: usize| poison::<f32>(n.rows[i] * n.cols[i]);
    macro_rules! view {
        ($buffer:ident, $i:expr) => {
            RowViewMut::new(&mut $buffer, n.rows[$i], n.cols[$i]).unwrap()
        };
    }

    let (mut pre, mut act) = (output(1), output(2));
    let (pre_view, act_view) = (view!(pre, 1), view!(act, 2));
    let result = device.up(&shape, &weights, input(0), &n.offsets, pre_view, act_view);
    all_or_nothing(result.is_ok(), &[&pre, &act]);

    let mut y = output(3);
    let result = device.down(&shape, &weights, input(2), &n.offsets, view!(y, 3));
    all_or_nothing(result.is_ok(), &[&y]);

    let [mut up, mut up_bias, mut down, mut down_bias] = n.grads.map(poison::<f32>);
    let mut grads = ExpertGrads {
        up: &mut up,
        up_bias: n.biases[2].then_some(&mut up_bias),
        down: &mut down,
        down_bias: n.biases[3].then_some(&mut down_bias),
        accumulate: false,
    };
    let mut dpre = output(4);
    let down_result = device.down_backward(
        &shape,
        &weights,
        input(1),
        input(2),
        input(3),
        &n.offsets,
        view!(dpre, 4),
        &mut grads,
    );
    let mut dx = output(0);
    let up_result = device.up_backward(
        &shape,
        &weights,
        input(3),
        input(4),
        &n.offsets,
        view!(dx, 0),
        &mut grads,
    );
    all_or_nothing(down_result.is_ok(), &[&dpre, &down]);
    all_or_nothing(up_result.is_ok(), &[&dx, &up]);
    all_or_nothing(down_result.is_ok() && n.biases[3], &[&down_bias]);
    all_or_nothing(up_result.is_ok() && n.biases[2], &[&up_bias]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn products_never_panic(p in products()) {
        for (_, device) in &one_of_each() {
            check_products(device, &p);
        }
    }

    #[test]
    fn experts_never_panic(n in network()) {
        for (_, device) in &one_of_each() {
            check_experts(device, &n);
        }
    }
}

#[test]
fn offsets_at_the_ends_of_i32_are_refused() {
    for (_, device) in &one_of_each() {
        refuses_extreme_offsets(device);
    }
}

fn refuses_extreme_offsets(device: &Device) {
    let ones = [1f32; 16];
    let a = RowView::new(&ones, 4, 2).unwrap();
    let b = Stacked {
        data: &ones[..12],
        experts: 3,
        n: 2,
        k: 2,
    };
    for offsets in [
        [i32::MIN, 0, 0, 4],
        [0, i32::MIN, 0, 4],
        [0, i32::MAX, i32::MIN, 4],
        [0, i32::MIN, i32::MAX, 4],
        [0, i32::MAX, i32::MAX, 4],
        [0, 0, 4, i32::MAX],
        [0, 0, 4, i32::MIN],
        [i32::MAX, i32::MAX, i32::MAX, i32::MAX],
    ] {
        let mut d = poison::<f32>(8);
        let view = RowViewMut::new(&mut d, 4, 2).unwrap();
        let forward = device.m_grouped(a, b, None, &offsets, view);
        let view = RowViewMut::new(&mut d, 4, 2).unwrap();
        let backward = device.m_grouped_transposed(a, b, &offsets, view);
        let mut w = poison::<f32>(12);
        let weights = device.k_grouped(a, a, &offsets, true, &mut w);
        for result in [forward, backward, weights] {
            assert!(matches!(result, Err(Error::Routing(_))), "{offsets:?}");
        }
        all_or_nothing(false, &[&d, &w]);
    }
}

#[test]
fn the_reference_says_what_empty_offsets_lack() {
    let calls: [fn() -> Vec<f64>; 4] = [
        || reference::m_grouped(&[], &[], None, &[], 1, 1),
        || reference::m_grouped_transposed(&[], &[], &[], 1, 1),
        || reference::k_grouped(&[], &[], &[], 1, 1),
        || reference::column_sums(&[], &[], 1),
    ];
    for call in calls {
        let panic = std::panic::catch_unwind(call).unwrap_err();
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or(panic.downcast_ref::<&str>().map(|m| (*m).to_owned()));
        let expected = "offsets [E+1] must hold at least the entry 0";
        assert_eq!(message.as_deref(), Some(expected));
    }
    assert!(reference::m_grouped(&[], &[], None, &[0], 1, 1).is_empty());
}

#[test]
fn errors_name_value_and_bound() {
    for (_, device) in &one_of_each() {
        names_value_and_bound(device);
    }
}

fn names_value_and_bound(device: &Device) {
    let ones = [1f32; 64];
    let stacked = |experts, n, k, len: usize| Stacked {
        data: &ones[..len],
        experts,
        n,
        k,
    };
    let forward = |b, bias, offsets: &[i32], cols| {
        let mut d = [0f32; 64];
        let out = RowViewMut::new(&mut d, 3, cols).unwrap();
        let a = RowView::new(&ones, 3, 4).unwrap();
        let error = device.m_grouped(a, b, bias, offsets, out).unwrap_err();
        assert!(d.iter().all(|&v| v == 0.0));
        error.to_string()
    };
    let good = stacked(2, 5, 4, 40);
    let cases = [
        (
            forward(good, None, &[0, 1, 3], 6),
            "columns of D (N) is 6, expected 5",
        ),
        (
            forward(stacked(2, 5, 3, 30), None, &[0, 1, 3], 5),
            "columns of A (K) is 4, expected 3",
        ),
        (
            forward(stacked(2, 5, 4, 39), None, &[0, 1, 3], 5),
            "(E·N·K) is 39, expected 40",
        ),
        (
            forward(good, Some(&ones[..9]), &[0, 1, 3], 5),
            "bias (E·N) is 9, expected 10",
        ),
        (forward(good, None, &[0, 3], 5), "(E) is 1, expected 2"),
        (forward(good, None, &[], 5), "offsets is empty"),
        (
            forward(good, None, &[1, 1, 3], 5),
            "offsets[0] is 1, must be 0",
        ),
        (
            forward(good, None, &[0, 4, 3], 5),
            "offsets[2] is 3, below its predecessor 4",
        ),
        (
            forward(good, None, &[0, 1, 2], 5),
            "offsets ends at 2, but there are 3",
        ),
        (forward(good, None, &[0, 1, -1], 5), "offsets[2] is -1"),
        (
            forward(stacked(usize::MAX / 2, 5, 4, 40), None, &[0, 1, 3], 5),
            "× 5 overflows the limit of",
        ),
    ];
    for (error, expected) in cases {
        assert!(
            error.contains(expected),
            "'{error}' should contain '{expected}'"
        );
    }
}

#[test]
fn a_bias_gradient_is_required_exactly_when_there_is_a_bias() {
    for (_, device) in &one_of_each() {
        requires_the_bias_gradient(device);
    }
}

fn requires_the_bias_gradient(device: &Device) {
    let ones = [1f32; 16];
    let shape = ExpertShape {
        experts: 1,
        hidden: 2,
        intermediate: 2,
        activation: Activation::Relu,
        gated: false,
    };
    let view = || RowView::new(&ones, 1, 2).unwrap();
    let run = |has_bias: bool, has_gradient: bool| {
        let bias = has_bias.then_some(&ones[..2]);
        let weights = ExpertWeights {
            up: &ones[..4],
            up_bias: bias,
            down: &ones[..4],
            down_bias: bias,
        };
        let (mut up, mut down, mut out) = ([7f32; 4], [7f32; 4], [7f32; 2]);
        let (mut up_bias, mut down_bias) = ([7f32; 2], [7f32; 2]);
        let mut grads = ExpertGrads {
            up: &mut up,
            up_bias: has_gradient.then_some(&mut up_bias),
            down: &mut down,
            down_bias: has_gradient.then_some(&mut down_bias),
            accumulate: false,
        };
        let to = RowViewMut::new(&mut out, 1, 2).unwrap();
        let first = device.down_backward(
            &shape,
            &weights,
            view(),
            view(),
            view(),
            &[0, 1],
            to,
            &mut grads,
        );
        let to = RowViewMut::new(&mut out, 1, 2).unwrap();
        let second = device.up_backward(&shape, &weights, view(), view(), &[0, 1], to, &mut grads);
        if first.is_err() {
            assert_eq!((up, down, out), ([7.0; 4], [7.0; 4], [7.0; 2]));
        }
        (first, second)
    };
    assert!(matches!(run(true, true), (Ok(()), Ok(()))));
    assert!(matches!(run(false, false), (Ok(()), Ok(()))));
    let missing = run(true, false);
    assert!(matches!(
        missing,
        (Err(Error::Missing { .. }), Err(Error::Missing { .. }))
    ));
    let extra = run(false, true);
    assert!(matches!(
        extra,
        (
            Err(Error::Incompatible { .. }),
            Err(Error::Incompatible { .. })
        )
    ));
}

#[test]
fn a_shape_that_overflows_is_an_error() {
    for (_, device) in &one_of_each() {
        refuses_shapes_that_overflow(device);
    }
}

fn refuses_shapes_that_overflow(device: &Device) {
    let none: &[f32] = &[];
    for (experts, hidden, intermediate) in [
        (1, 1, usize::MAX),
        (usize::MAX, usize::MAX, 1),
        (1, usize::MAX / 2, usize::MAX / 2),
    ] {
        let shape = ExpertShape {
            experts,
            hidden,
            intermediate,
            activation: Activation::Gelu,
            gated: true,
        };
        let weights = ExpertWeights {
            up: none,
            up_bias: None,
            down: none,
            down_bias: None,
        };
        let x = RowView::new(none, 0, 0).unwrap();
        let (mut pre, mut act) = ([0f32; 0], [0f32; 0]);
        let pre = RowViewMut::new(&mut pre, 0, 0).unwrap();
        let act = RowViewMut::new(&mut act, 0, 0).unwrap();
        let error = device.up(&shape, &weights, x, &[0], pre, act).unwrap_err();
        assert!(matches!(error, Error::Overflow { .. }), "{error}");
    }
}
