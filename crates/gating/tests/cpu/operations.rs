//! Hostile shapes and values for the operations beside the gate: softmax, its backward pass, and
//! the consistency loss. An error before anything is written, or a result; no panic.

use proptest::prelude::*;
use tollgate_core::{RowView, RowViewMut};
use tollgate_gating::{Gating, losses};
use tollgate_testkit::{Data, Guarded};

use crate::support::cpu;

/// Rows, columns and the distance of rows, of a matrix in guarded memory.
type Shape = (usize, usize, usize);

/// `[rows, cols]` mostly, at some distance; sometimes another size.
fn shape(data: &mut Data, rows: usize, cols: usize) -> Shape {
    let mut beside = |n: usize| match data.below(30) {
        0 => n + 1,
        1 => n.saturating_sub(1),
        _ => n,
    };
    let (rows, cols) = (beside(rows), beside(cols));
    (rows, cols, cols + data.below(3))
}

fn buffer(data: &mut Data, (rows, _, stride): Shape) -> Guarded<f32> {
    let mut buffer = Guarded::new(rows * stride, data.below(8));
    let special = [
        f32::NEG_INFINITY,
        f32::INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN,
        -0.0,
        1e-40,
        -88.0,
    ];
    let clean = data.below(2) == 0;
    for value in buffer.as_mut_slice() {
        *value = match data.below(8) {
            0 if !clean => special[data.below(special.len())],
            _ => (20.0 * data.normal()) as f32,
        };
    }
    buffer
}

fn view(buffer: &Guarded<f32>, (rows, cols, stride): Shape) -> RowView<'_, f32> {
    RowView::strided(buffer.as_slice(), rows, cols, stride).unwrap()
}

fn view_mut(buffer: &mut Guarded<f32>, (rows, cols, stride): Shape) -> RowViewMut<'_, f32> {
    RowViewMut::strided(buffer.as_mut_slice(), rows, cols, stride).unwrap()
}

/// Whether only elements of the matrix changed, or on an error none.
fn respected(before: &[f32], after: &Guarded<f32>, (_, cols, stride): Shape, ok: bool) -> bool {
    after.assert_canaries("operation");
    let bits = |v: f32| v.to_bits();
    let pairs = before.iter().zip(after.as_slice()).enumerate();
    pairs
        .filter(|(i, _)| !ok || i % stride >= cols)
        .all(|(_, (&a, &b))| bits(a) == bits(b))
}

fn run(seed: u64) -> Result<(), TestCaseError> {
    let data = &mut Data::new(seed);
    let (t, e) = (data.below(12), data.below(40));
    let cpu = cpu(1 + data.below(2));
    let [of_a, of_b, of_c, of_d] = [(); 4].map(|()| shape(data, t, e));
    let (a, b) = (buffer(data, of_a), buffer(data, of_b));
    let (mut c, mut d) = (buffer(data, of_c), buffer(data, of_d));
    let same = |x: Shape, y: Shape| (x.0, x.1) == (y.0, y.1);

    let before = c.as_slice().to_vec();
    let mut lse = vec![7f32; shape(data, t, e).0];
    let legal = same(of_a, of_c) && lse.len() == of_a.0;
    let result = cpu.softmax(view(&a, of_a), view_mut(&mut c, of_c), &mut lse);
    prop_assert_eq!(result.is_ok(), legal);
    prop_assert!(respected(&before, &c, of_c, legal));
    if legal {
        for ((z, p), lse) in view(&a, of_a).iter().zip(view(&c, of_c).iter()).zip(&lse) {
            let sum: f32 = p.iter().sum();
            if z.iter().any(|z| z.is_nan() || *z == f32::INFINITY) {
                prop_assert!(lse.is_nan() && p.iter().all(|p| p.is_nan()));
            } else if z.iter().all(|&z| z == f32::NEG_INFINITY) {
                prop_assert!(*lse == f32::NEG_INFINITY && p.iter().all(|&p| p == 0.0));
            } else {
                // 40 probabilities of 3e-7 relative error each, and the order of the sum.
                prop_assert!(lse.is_finite() && (sum - 1.0).abs() < 1e-5);
                prop_assert!(p.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
    } else {
        prop_assert!(lse.iter().all(|&l| l == 7.0));
    }

    let before = d.as_slice().to_vec();
    let legal = same(of_c, of_b) && same(of_c, of_d);
    let out = view_mut(&mut d, of_d);
    let result = cpu.softmax_backward(view(&c, of_c), view(&b, of_b), out);
    prop_assert_eq!(result.is_ok(), legal);
    prop_assert!(respected(&before, &d, of_d, legal));

    let before = [c.as_slice().to_vec(), d.as_slice().to_vec()];
    let padding = vec![data.below(2) == 0; shape(data, t, e).0];
    let padding = (data.below(3) == 0).then_some(&padding[..]);
    let alpha = [0.0, 1.0, 5.0, f32::MAX, f32::NAN, -1.0][data.below(6)];
    let legal = [of_b, of_c, of_d].iter().all(|&x| same(of_a, x))
        && padding.is_none_or(|p| p.len() == of_a.0)
        && alpha >= 0.0;
    let (da, db) = (view_mut(&mut c, of_c), view_mut(&mut d, of_d));
    let result = losses::consistency(&cpu, view(&a, of_a), view(&b, of_b), padding, alpha, da, db);
    prop_assert_eq!(result.is_ok(), legal);
    prop_assert!(respected(&before[0], &c, of_c, legal));
    prop_assert!(respected(&before[1], &d, of_d, legal));
    if let Ok(loss) = result {
        // The two divergences are not negative but for the rounding of their terms.
        prop_assert!(
            loss.is_nan() || loss >= -1e-4 * f64::from(alpha),
            "{}",
            loss
        );
        prop_assert!(alpha != 0.0 || loss.to_bits() == 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_matrices_give_an_error_or_a_result(seed in any::<u64>()) {
        run(seed)?;
    }
}

/// Rows without columns take no memory: however many there are, nothing is done for each.
#[test]
fn rows_without_columns_cost_nothing() {
    for rows in [i32::MAX as usize, usize::MAX] {
        let Ok(view) = RowView::<f32>::new(&[], rows, 0) else {
            continue;
        };
        let none = || RowViewMut::new(&mut [], rows, 0).unwrap();
        let cpu = cpu(2);
        let legal = rows <= i32::MAX as usize;
        assert_eq!(cpu.softmax_backward(view, view, none()).is_ok(), legal);
        assert!(cpu.softmax(view, none(), &mut []).is_err());
        let loss = losses::consistency(&cpu, view, view, None, 1.0, none(), none());
        assert_eq!(loss.ok().map(f64::to_bits), legal.then_some(0));
    }
}
