//! The consistency loss of stochastic experts: by hand, by finite differences, and the CPU against
//! the reference.

use tollgate_core::{Cpu, DType, RowView, RowViewMut};
use tollgate_gating::{losses, reference};
use tollgate_testkit::{
    Data, Guarded, Probe, Tolerance, assert_same, check_gradient, compare, edge_cases,
};

use crate::support::{close, logs};

fn view(data: &[f64], cols: usize) -> RowView<'_, f64> {
    RowView::new(data, data.len() / cols, cols).unwrap()
}

#[test]
fn two_distributions_by_hand() {
    // p = 1/2, 1/2; q = 3/4, 1/4: ½ (−¼ ln ⅔ + ¼ ln 2) = ⅛ ln 3.
    let (a, b) = (logs([1.0, 1.0]), logs([3.0, 1.0]));
    let c = reference::consistency(view(&a, 2), view(&b, 2), None, 5.0).unwrap();
    close(&[c.loss], &[5.0 * 0.125 * 3f64.ln()]);
    // KL(p‖q) = ½ ln ⅔ + ½ ln 2 = ½ ln 4/3.
    let kl = 0.5 * (4.0f64 / 3.0).ln();
    let da = |ratio: f64, q: f64| 2.5 * (0.5 * (ratio.ln() - kl) + 0.5 - q);
    close(&c.da, &[da(2.0 / 3.0, 0.75), da(2.0, 0.25)]);
    // A shift of all logits changes nothing; equal sides cost nothing.
    let shifted = a.map(|z| z + 3.0);
    let c2 = reference::consistency(view(&shifted, 2), view(&b, 2), None, 5.0).unwrap();
    close(&[c2.loss], &[c.loss]);
    let same = reference::consistency(view(&a, 2), view(&a, 2), None, 5.0).unwrap();
    assert_eq!(
        (same.loss, same.da, same.db),
        (0.0, vec![0.0; 2], vec![0.0; 2])
    );
}

#[test]
fn padding_counts_for_nothing() {
    let a = [logs([1.0, 1.0]), [f64::NAN; 2]].concat();
    let b = [logs([3.0, 1.0]), [0.0; 2]].concat();
    let padding = [false, true];
    let c = reference::consistency(view(&a, 2), view(&b, 2), Some(&padding), 1.0).unwrap();
    close(&[c.loss], &[0.125 * 3f64.ln()]);
    assert_eq!((&c.da[2..], &c.db[2..]), (&[0.0; 2][..], &[0.0; 2][..]));
}

#[test]
fn gradients_match_finite_differences() {
    let (n, v) = (4, 9);
    let mut data = Data::new(12);
    let a: Vec<f64> = (0..n * v).map(|_| 2.0 * data.normal()).collect();
    let mut b: Vec<f64> = (0..n * v).map(|_| 2.0 * data.normal()).collect();
    let padding = [false, true, false, false];
    let run = |a: &[f64], b: &[f64]| {
        reference::consistency(view(a, v), view(b, v), Some(&padding), 3.0).unwrap()
    };
    let c = run(&a, &b);
    check_gradient("da", &a, &c.da, Probe::default(), |a| run(a, &b).loss);
    check_gradient("db", &b, &c.db, Probe::default(), |b| run(&a, b).loss);
    // Masked on both sides.
    let mut a = a;
    (a[3], b[3]) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let c = run(&a, &b);
    assert_eq!((c.da[3], c.db[3]), (0.0, 0.0));
    check_gradient("da", &a[4..v], &c.da[4..v], Probe::default(), |tail| {
        let moved = [&a[..4], tail, &a[v..]].concat();
        run(&moved, &b).loss
    });
}

#[test]
fn infinite_divergence_and_faults_are_seen() {
    let inf = f64::INFINITY;
    for (a, b, infinite) in [
        ([0.0, -inf], [0.0, 1.0], true),
        ([-inf, -inf], [0.0, 1.0], true),
        ([0.0, f64::NAN], [0.0, 1.0], false),
        ([0.0, 1.0], [inf, 1.0], false),
    ] {
        let c = reference::consistency(view(&a, 2), view(&b, 2), None, 1.0).unwrap();
        assert!(
            if infinite {
                c.loss == inf
            } else {
                c.loss.is_nan()
            },
            "{a:?} {b:?}"
        );
        assert!(c.da.iter().chain(&c.db).all(|d| d.is_nan()));
    }
    let masked = [-inf; 2];
    let c = reference::consistency(view(&masked, 2), view(&masked, 2), None, 1.0).unwrap();
    assert_eq!((c.loss, c.da, c.db), (0.0, vec![0.0; 2], vec![0.0; 2]));
}

#[test]
fn a_loss_that_is_off_or_of_nothing_is_0() {
    let inf = f32::INFINITY;
    // A faulty row, one masked on one side, one that is neither.
    let (a, b) = (
        [f32::NAN, 0.0, -inf, 0.0, 1.0, 2.0],
        [inf, 0.0, 0.0, 0.0, 2.0, 1.0],
    );
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (wa, wb) = (wide(&a), wide(&b));
    let padding = [false, false, true];
    for padding in [None, Some(&padding[..])] {
        let c = reference::consistency(view(&wa, 2), view(&wb, 2), padding, 0.0).unwrap();
        let off = (0, vec![0.0; 6], vec![0.0; 6]);
        assert_eq!((c.loss.to_bits(), c.da, c.db), off);
        let (loss, da, db) = on_cpu(2, &a, &b, 2, padding, 0.0);
        assert_eq!(loss.to_bits(), 0);
        assert_eq!((da, db), (vec![0.0; 6], vec![0.0; 6]));
    }
    // No rows; only padding.
    for alpha in [0.0, 5.0] {
        let none = view(&[], 2);
        let c = reference::consistency(none, none, None, alpha.into()).unwrap();
        assert_eq!(c.loss.to_bits(), 0);
        assert_eq!(on_cpu(1, &[], &[], 2, None, alpha).0.to_bits(), 0);
        let all = Some(&[true; 3][..]);
        assert_eq!(on_cpu(1, &a, &b, 2, all, alpha).0.to_bits(), 0);
    }
}

#[test]
fn refusals_name_the_numbers_and_write_nothing() {
    let cpu = Cpu::new(1).unwrap();
    let (a, b) = ([0f32; 6], [0f32; 6]);
    let run = |rows: usize, padding: Option<&[bool]>, alpha: f32| {
        let (mut da, mut db) = (vec![7f32; 6], vec![7f32; 6]);
        let error = losses::consistency(
            &cpu,
            RowView::new(&a, 3, 2).unwrap(),
            RowView::new(&b, rows, 2).unwrap(),
            padding,
            alpha,
            RowViewMut::new(&mut da, 3, 2).unwrap(),
            RowViewMut::new(&mut db, rows, 2).unwrap(),
        )
        .unwrap_err();
        assert!(da.iter().chain(&db).all(|&d| d == 7.0));
        error.to_string()
    };
    assert_eq!(run(2, None, 1.0), "rows of b (N) is 2, expected 3");
    assert_eq!(run(3, Some(&[true]), 1.0), "padding (N) is 1, expected 3");
    assert!(run(3, None, -1.0).starts_with("consistency α is -1, must be in [0, "));
    assert!(run(3, None, f32::NAN).starts_with("consistency α is NaN"));
}

/// What the CPU computes, through strided, misaligned, guarded memory.
fn on_cpu(
    threads: usize,
    a: &[f32],
    b: &[f32],
    cols: usize,
    padding: Option<&[bool]>,
    alpha: f32,
) -> (f64, Vec<f32>, Vec<f32>) {
    let cpu = Cpu::new(threads).unwrap();
    let rows = a.len() / cols;
    let stride = cols + 3;
    let spread = |data: &[f32]| {
        let mut guarded = Guarded::<f32>::new(rows * stride, 1);
        for (r, row) in data.chunks(cols).enumerate() {
            guarded.as_mut_slice()[r * stride..r * stride + cols].copy_from_slice(row);
        }
        guarded
    };
    let (a, b) = (spread(a), spread(b));
    let (mut da, mut db) = (
        Guarded::<f32>::new(rows * stride, 3),
        Guarded::new(rows * stride, 5),
    );
    let loss = losses::consistency(
        &cpu,
        RowView::strided(a.as_slice(), rows, cols, stride).unwrap(),
        RowView::strided(b.as_slice(), rows, cols, stride).unwrap(),
        padding,
        alpha,
        RowViewMut::strided(da.as_mut_slice(), rows, cols, stride).unwrap(),
        RowViewMut::strided(db.as_mut_slice(), rows, cols, stride).unwrap(),
    )
    .unwrap();
    let gather = |g: &Guarded<f32>| {
        g.assert_canaries("consistency");
        let rows = g.as_slice().chunks(stride).take(rows);
        let gaps = rows.clone().flat_map(|r| r[cols..].to_vec());
        assert!(
            gaps.into_iter().all(f32::is_nan),
            "a gap between rows was written"
        );
        rows.flat_map(|r| r[..cols].to_vec()).collect::<Vec<_>>()
    };
    (loss, gather(&da), gather(&db))
}

/// Compares the CPU with the reference on one pair of sides.
///
/// An exponential errs relatively by 1.6e-7 plus the rounding of its argument, 2^-24 · |z − max|;
/// with the rounding of the reciprocal and of the product p errs by `ε = 4e-7 + 2^-24 · 88` at most
/// (below −88 it is 0, an absolute error of 6e-39), and a log-sum-exp by ε absolutely. So each
/// term p (ratio − KL) errs by ε times p (|ratio| + |KL| + 2) and what KL errs by, which is itself
/// at most ε Σ p (|ratio| + 2); the final store rounds once more.
fn agree(what: &str, a: &[f32], b: &[f32], cols: usize, padding: Option<&[bool]>) {
    let alpha = 5.0;
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (wa, wb) = (wide(a), wide(b));
    let expected =
        reference::consistency(view(&wa, cols), view(&wb, cols), padding, alpha).unwrap();
    let one = on_cpu(1, a, b, cols, padding, alpha as f32);
    for threads in [2, 3] {
        let more = on_cpu(threads, a, b, cols, padding, alpha as f32);
        assert_eq!(
            one.0.to_bits(),
            more.0.to_bits(),
            "{what}: loss with {threads} threads"
        );
        assert_same(what, &one.1, &more.1);
        assert_same(what, &one.2, &more.2);
    }
    let epsilon = 4e-7 + 88.0 * DType::F32.unit_roundoff();
    let (p, lse_a) = reference::softmax(view(&wa, cols));
    let (q, lse_b) = reference::softmax(view(&wb, cols));
    let (mut size_a, mut size_b, mut size) = (vec![], vec![], 0.0);
    for (r, (lse_a, lse_b)) in lse_a.iter().zip(&lse_b).enumerate() {
        let at = |i: usize| r * cols + i;
        let ratio = |i: usize| -> f64 {
            let (a, b): (f64, f64) = (wa[at(i)], wb[at(i)]);
            if a == b {
                0.0
            } else {
                ((a - lse_a) - (b - lse_b)).abs()
            }
        };
        let kl = |p: &[f64]| (0..cols).map(|i| p[at(i)] * (ratio(i) + 2.0)).sum::<f64>();
        let (kl_p, kl_q) = (kl(&p), kl(&q));
        for i in 0..cols {
            let both = p[at(i)] + q[at(i)];
            size_a.push(alpha * (p[at(i)] * (ratio(i) + 2.0 * kl_p) + both));
            size_b.push(alpha * (q[at(i)] * (ratio(i) + 2.0 * kl_q) + both));
        }
        if padding.is_none_or(|p| !p[r]) && kl_p.is_finite() && kl_q.is_finite() {
            size += alpha * (kl_p + kl_q);
        }
    }
    let tolerance = Tolerance {
        relative: epsilon,
        absolute: 1e-30,
    };
    let check = |actual: &[f32], expected: &[f64], size: &[f64]| {
        // A gradient beyond f32's range is an infinity there.
        let rounded: Vec<f64> = expected
            .iter()
            .map(|&e| {
                if (e as f32).is_infinite() {
                    f64::from(e as f32)
                } else {
                    e
                }
            })
            .collect();
        if let Err(m) = compare(wide(actual), &rounded, size, tolerance) {
            panic!("{what}: {m}");
        }
    };
    check(&one.1, &expected.da, &size_a);
    check(&one.2, &expected.db, &size_b);
    let loss = compare([one.0], &[expected.loss], &[size], tolerance);
    assert!(loss.is_ok(), "{what}: loss {}", loss.unwrap_err());
}

#[test]
fn the_cpu_agrees_with_the_reference_on_every_case() {
    for case in edge_cases() {
        let a = case.router_logits();
        // The other side has the same masks and faults, and other numbers.
        let mut data = case.data(50);
        let b: Vec<f32> = a
            .iter()
            .map(|z| z * (1.0 + 0.1 * data.uniform() as f32))
            .collect();
        let padding: Vec<bool> = (0..case.tokens).map(|t| t % 5 == 4).collect();
        agree(case.name, &a, &b, case.experts, None);
        agree(case.name, &a, &b, case.experts, Some(&padding));
    }
}

#[test]
fn the_cpu_agrees_on_a_vocabulary_that_is_split_among_threads() {
    let (rows, cols) = (37, 1001);
    let mut data = Data::new(4);
    let a: Vec<f32> = data.normals(rows * cols, 3.0);
    let b: Vec<f32> = data.normals(rows * cols, 3.0);
    agree("vocabulary", &a, &b, cols, None);
    // Nearly equal sides: the loss is of second order and must not be lost in rounding.
    let near: Vec<f32> = a.iter().map(|z| z + 0.01 * data.uniform() as f32).collect();
    agree("near", &a, &near, cols, None);
    agree("equal", &a, &a, cols, None);
    let one_sided: Vec<f32> = a
        .iter()
        .enumerate()
        .map(|(i, &z)| if i == 5000 { f32::NEG_INFINITY } else { z })
        .collect();
    agree("one side masked", &one_sided, &b, cols, None);
}
