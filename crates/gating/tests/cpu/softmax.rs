//! The row-wise softmax and its backward pass.

use tollgate_core::{RowView, RowViewMut};
use tollgate_gating::{Gating, reference};
use tollgate_testkit::{Guarded, assert_same, gate_cases, run_all};

use crate::bounds::{self, U};
use crate::support::{cpu, implementations};

#[test]
fn softmax_agrees_with_the_reference_on_strided_unaligned_rows() {
    run_all(
        "softmax",
        &gate_cases(),
        &implementations(),
        |case, implementation| {
            let gating = implementation.gating;
            let (t, e) = (case.tokens, case.experts);
            let stride = e + 3;
            let logits = case.router_logits();
            let wide: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
            let view = RowView::new(&wide, t, e).unwrap();
            let (expected, expected_lse) = reference::softmax(view);

            let mut z = Guarded::<f32>::new(t * stride, 5);
            for (r, row) in logits.chunks_exact(e).enumerate() {
                z.as_mut_slice()[r * stride..r * stride + e].copy_from_slice(row);
            }
            let z_view = RowView::strided(z.as_slice(), t, e, stride).unwrap();
            let (mut p, mut lse) = (
                Guarded::<f32>::new(t * stride, 1),
                Guarded::<f32>::new(t, 3),
            );
            let p_view = RowViewMut::strided(p.as_mut_slice(), t, e, stride).unwrap();
            gating.softmax(z_view, p_view, lse.as_mut_slice()).unwrap();
            p.assert_canaries("probs");
            lse.assert_canaries("lse");

            let dp: Vec<f32> = case.data(9).normals(t * e, 1.0);
            for r in 0..t {
                let row = r * e..(r + 1) * e;
                let actual = &p.as_slice()[r * stride..(r + 1) * stride];
                assert!(
                    actual[e..].iter().all(|gap| gap.is_nan()),
                    "gaps are left alone"
                );
                let bound = bounds::of_scores(&wide[row.clone()], &expected[row.clone()], false);
                for (i, (&a, &x)) in actual[..e].iter().zip(&expected[row.clone()]).enumerate() {
                    let same = f64::from(a) == x || (a.is_nan() && x.is_nan());
                    assert!(
                        same || (f64::from(a) - x).abs() <= bound[i],
                        "row {r}: {a} for {x}"
                    );
                }
                let (a, x) = (f64::from(lse.as_slice()[r]), expected_lse[r]);
                let same = a == x || (a.is_nan() && x.is_nan());
                assert!(
                    same || (a - x).abs() <= bounds::of_lse(e, x),
                    "lse of row {r}: {a} for {x}"
                );
            }

            // Backward, on the probabilities just made.
            let p_view = RowView::strided(p.as_slice(), t, e, stride).unwrap();
            let mut dz = Guarded::<f32>::new(t * stride, 7);
            let dz_view = RowViewMut::strided(dz.as_mut_slice(), t, e, stride).unwrap();
            let dp_view = RowView::new(&dp, t, e).unwrap();
            gating.softmax_backward(p_view, dp_view, dz_view).unwrap();
            dz.assert_canaries("dlogits");
            let p64: Vec<f64> = p_view.iter().flatten().map(|&v| f64::from(v)).collect();
            let dp64: Vec<f64> = dp.iter().map(|&v| f64::from(v)).collect();
            let view = |v| RowView::new(v, t, e).unwrap();
            let expected = reference::softmax_backward(view(&p64), view(&dp64)).unwrap();
            for r in 0..t {
                let row = r * e..(r + 1) * e;
                let pairs = p64[row.clone()].iter().zip(&dp64[row.clone()]);
                // The mean errs by a sum's error of the sum of magnitudes; then one subtraction and
                // one product.
                let mean: f64 = pairs.map(|(p, dp)| (p * dp).abs()).sum();
                for i in row {
                    let a = f64::from(dz.as_slice()[r * stride + i % e]);
                    let x = expected[i];
                    let bound = (bounds::of_sum(e) + 3.0) * U * p64[i] * (mean + dp64[i].abs());
                    let same = a == x || (a.is_nan() && x.is_nan());
                    let floor = f64::from(f32::MIN_POSITIVE);
                    assert!(
                        same || (a - x).abs() <= bound + floor,
                        "element {i}: {a} for {x}"
                    );
                }
            }
        },
    );
}

#[test]
fn softmax_does_not_depend_on_threads() {
    let case = gate_cases()
        .into_iter()
        .find(|c| c.name == "many tokens")
        .unwrap();
    let (t, e) = (case.tokens, case.experts);
    let logits = case.router_logits();
    let run = |threads| {
        let (mut p, mut lse) = (vec![f32::NAN; t * e], vec![f32::NAN; t]);
        let out = RowViewMut::new(&mut p, t, e).unwrap();
        cpu(threads)
            .softmax(RowView::new(&logits, t, e).unwrap(), out, &mut lse)
            .unwrap();
        let mut dz = vec![f32::NAN; t * e];
        let out = RowViewMut::new(&mut dz, t, e).unwrap();
        let (p_view, z) = (
            RowView::new(&p, t, e).unwrap(),
            RowView::new(&logits, t, e).unwrap(),
        );
        cpu(threads).softmax_backward(p_view, z, out).unwrap();
        (p, lse, dz)
    };
    let one = run(1);
    for threads in [2, 3] {
        let more = run(threads);
        assert_same("probs", &one.0, &more.0);
        assert_same("lse", &one.1, &more.1);
        assert_same("dlogits", &one.2, &more.2);
    }
}

#[test]
fn shapes_that_differ_are_refused_before_anything_is_written() {
    let z = [0f32; 6];
    let (mut p, mut lse) = (vec![9f32; 6], vec![9f32; 3]);
    let refused = |p: &mut [f32], rows, cols, lse: &mut [f32]| {
        let p = RowViewMut::new(p, rows, cols).unwrap();
        cpu(1)
            .softmax(RowView::new(&z, 2, 3).unwrap(), p, lse)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&mut p, 3, 2, &mut lse[..2]),
        "rows of probs (T) is 3, expected 2"
    );
    assert_eq!(
        refused(&mut p, 2, 2, &mut lse[..2]),
        "columns of probs (E) is 2, expected 3"
    );
    assert_eq!(refused(&mut p, 2, 3, &mut lse), "lse (T) is 3, expected 2");
    assert!(p.iter().chain(&lse).all(|&v| v == 9.0));
}
