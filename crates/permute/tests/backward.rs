//! `permute_backward` and `unpermute_backward` against the reference, and the reference against
//! finite differences of its forward.

mod common;

use common::{Device, f64s, implementations, routed, sorted, widen};
use half::{bf16, f16};
use tollgate_core::{DType, Element, RoutingTable};
use tollgate_permute::{Permute, reference};
use tollgate_testkit::{
    Case, Data, GuardedMatrix, Probe, Tolerance, assert_same, check_gradient, compare, edge_cases,
};

fn magnitudes<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64().abs()).collect()
}

/// Integers up to 3 in magnitude, at most 8 of them and an addend: exact in every dtype.
#[test]
fn permute_backward_of_integers_is_exact() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, exact, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let values: Vec<T> = case.data(5).integers(a * h, 3);
        let drows = GuardedMatrix::of(&values, a, h, pad);
        let start: Vec<f32> = case.data(8).integers(t * h, 9);
        let addend = GuardedMatrix::of(&start, t, h, pad + 1);
        for with_addend in [false, true] {
            let mut dx = GuardedMatrix::<T>::poisoned(t, h, pad + 2);
            let view = with_addend.then(|| addend.view());
            device
                .permute_backward(drows.view(), &table, &maps, view, dx.view_mut())
                .unwrap();
            let wide = f64s(&start);
            let wide = with_addend.then_some(&wide[..]);
            let expected =
                reference::permute_backward(&f64s(&values), h, &exact, &maps, wide).unwrap();
            let expected: Vec<T> = expected.iter().map(|&v| T::from_f32(v as f32)).collect();
            assert_same("dx", &dx.values("dx"), &expected);
        }
    }
    for_all!("permute_backward of integers", check);
}

#[test]
fn permute_backward_is_within_rounding_of_the_reference() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, exact, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let values: Vec<T> = case.data(6).normals(a * h, 1.0);
        let drows = GuardedMatrix::of(&values, a, h, pad);
        let start: Vec<f32> = case.data(8).normals(t * h, 3.0);
        let addend = GuardedMatrix::of(&start, t, h, pad);
        let mut dx = GuardedMatrix::<T>::poisoned(t, h, pad + 2);
        let view = Some(addend.view());
        device
            .permute_backward(drows.view(), &table, &maps, view, dx.view_mut())
            .unwrap();
        let backward = |values: &[f64], start: &[f64]| {
            reference::permute_backward(values, h, &exact, &maps, Some(start)).unwrap()
        };
        let expected = backward(&f64s(&values), &f64s(&start));
        // A sum of at most k + 1 terms; its rounding scales with the terms' magnitudes.
        let magnitude = backward(&magnitudes(&values), &magnitudes(&start));
        let tolerance = Tolerance::dot(max_k + 1, T::DTYPE);
        if let Err(e) = compare(f64s(&dx.values("dx")), &expected, &magnitude, tolerance) {
            panic!("dx, k ≤ {max_k}, {}: {e}", T::DTYPE);
        }
    }
    for_all!("permute_backward", check);
}

/// A fused multiply–add by 1 is an addition: table order, from the addend.
#[test]
fn permute_backward_adds_in_table_order_from_the_addend() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let values: Vec<T> = case.data(6).normals(a * h, 1.0);
        let drows = GuardedMatrix::of(&values, a, h, pad);
        let start: Vec<f32> = case.data(8).normals(t * h, 3.0);
        let addend = GuardedMatrix::of(&start, t, h, pad);
        let mut dx = GuardedMatrix::<T>::poisoned(t, h, pad);
        let view = Some(addend.view());
        device
            .permute_backward(drows.view(), &table, &maps, view, dx.view_mut())
            .unwrap();
        let mut expected = Vec::with_capacity(t * h);
        for i in 0..t * h {
            let sum = table.assignments_of(i / h).fold(start[i], |sum, a| {
                sum + values[maps.row_of_assignment[a] as usize * h + i % h].to_f32()
            });
            expected.push(T::from_f32(sum));
        }
        assert_same("dx", &dx.values("dx"), &expected);
    }
    for_all!("order of permute_backward", check);
}

/// dy up to 3, weights up to 2, rows up to 3: products are exact in every dtype, and dot products
/// of at most 203 columns stay far below 2^24.
#[test]
fn unpermute_backward_of_integers_is_exact() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (mut table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        table.routing_weights = case.data(4).integers(a, 2);
        let dys: Vec<T> = case.data(5).integers(t * h, 3);
        let values: Vec<T> = case.data(6).integers(a * h, 3);
        let (dy, rows) = (
            GuardedMatrix::of(&dys, t, h, pad),
            GuardedMatrix::of(&values, a, h, pad + 1),
        );
        let mut drows = GuardedMatrix::<T>::poisoned(a, h, pad + 2);
        let mut dweights = vec![f32::NAN; a];
        device
            .unpermute_backward(
                dy.view(),
                rows.view(),
                &table,
                &maps,
                drows.view_mut(),
                &mut dweights,
            )
            .unwrap();
        let (expected, expected_weights) =
            reference::unpermute_backward(&f64s(&dys), &f64s(&values), h, &widen(&table), &maps)
                .unwrap();
        let expected: Vec<T> = expected.iter().map(|&v| T::from_f32(v as f32)).collect();
        assert_same("drows", &drows.values("drows"), &expected);
        let dweights = f64s(&dweights);
        assert_eq!(dweights, expected_weights);
    }
    for_all!("unpermute_backward of integers", check);
}

#[test]
fn unpermute_backward_is_within_rounding_of_the_reference() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, exact, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let dys: Vec<T> = case.data(5).normals(t * h, 1.0);
        let values: Vec<T> = case.data(6).normals(a * h, 1.0);
        let (dy, rows) = (
            GuardedMatrix::of(&dys, t, h, pad),
            GuardedMatrix::of(&values, a, h, pad + 1),
        );
        let mut drows = GuardedMatrix::<T>::poisoned(a, h, pad + 2);
        let mut dweights = vec![f32::NAN; a];
        device
            .unpermute_backward(
                dy.view(),
                rows.view(),
                &table,
                &maps,
                drows.view_mut(),
                &mut dweights,
            )
            .unwrap();
        let backward = |dy: &[f64], rows: &[f64]| {
            reference::unpermute_backward(dy, rows, h, &exact, &maps).unwrap()
        };
        let (expected, expected_weights) = backward(&f64s(&dys), &f64s(&values));
        // One product, rounded to f32 and then to the dtype.
        let rounded = Tolerance::rounding(DType::F32).plus(Tolerance::rounding(T::DTYPE));
        if let Err(e) = compare(f64s(&drows.values("drows")), &expected, &expected, rounded) {
            panic!("drows, k ≤ {max_k}, {}: {e}", T::DTYPE);
        }
        let (_, magnitude) = backward(&magnitudes(&dys), &magnitudes(&values));
        let dot = Tolerance::dot(h, DType::F32);
        if let Err(e) = compare(f64s(&dweights), &expected_weights, &magnitude, dot) {
            panic!("dweights, k ≤ {max_k}, {}: {e}", T::DTYPE);
        }
    }
    for_all!("unpermute_backward", check);
}

/// The documented order of a dot product, written down once more: 32·c sums, then halves.
fn dot_in_order<T: Element>(a: &[T], b: &[T]) -> f32 {
    let mut sums = vec![0f32; 32 * 16 / size_of::<T>()];
    let count = sums.len();
    for (j, (a, b)) in a.iter().zip(b).enumerate() {
        sums[j % count] = a.to_f32().mul_add(b.to_f32(), sums[j % count]);
    }
    while sums.len() > 1 {
        let upper = sums.split_off(sums.len() / 2);
        sums.iter_mut()
            .zip(upper)
            .for_each(|(low, high)| *low += high);
    }
    sums[0]
}

#[test]
fn unpermute_backward_has_the_documented_bits() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let dys: Vec<T> = case.data(5).normals(t * h, 1.0);
        let values: Vec<T> = case.data(6).normals(a * h, 1.0);
        let (dy, rows) = (
            GuardedMatrix::of(&dys, t, h, pad),
            GuardedMatrix::of(&values, a, h, pad),
        );
        let mut drows = GuardedMatrix::<T>::poisoned(a, h, pad);
        let mut dweights = vec![f32::NAN; a];
        device
            .unpermute_backward(
                dy.view(),
                rows.view(),
                &table,
                &maps,
                drows.view_mut(),
                &mut dweights,
            )
            .unwrap();
        let drows = drows.values("drows");
        for token in 0..t {
            let dy = dy.view().row(token);
            for a in table.assignments_of(token) {
                let r = maps.row_of_assignment[a] as usize;
                let w = table.routing_weights[a];
                let row: Vec<T> = dy.iter().map(|d| T::from_f32(w * d.to_f32())).collect();
                assert_same("drows", &drows[r * h..(r + 1) * h], &row);
                let dot = dot_in_order(dy, rows.view().row(r));
                assert_same("dweights", &dweights[a..a + 1], &[dot]);
            }
        }
    }
    for_all!("bits of unpermute_backward", check);
}

#[test]
fn reference_gradients_are_those_of_the_reference_forward() {
    for case in edge_cases().iter().filter(|c| c.tokens > 0) {
        let (_, table, maps) = routed(case, 8);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let mut data = case.data(9);
        let mut normals = |n: usize| f64s(&data.normals::<f32>(n, 1.0));
        let (x, rows, dy, drows) = (
            normals(t * h),
            normals(a * h),
            normals(t * h),
            normals(a * h),
        );
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let probe = Probe {
            coordinates: 12,
            ..Probe::default()
        };

        let dx = reference::permute_backward(&drows, h, &table, &maps, None).unwrap();
        check_gradient(&format!("{}: dx", case.name), &x, &dx, probe, |x| {
            dot(&reference::permute(x, h, &maps).unwrap(), &drows)
        });
        // With an addend that is the gradient of <x, addend>, as a residual path would give it.
        let dx = reference::permute_backward(&drows, h, &table, &maps, Some(&dy)).unwrap();
        check_gradient(
            &format!("{}: dx with addend", case.name),
            &x,
            &dx,
            probe,
            |x| dot(&reference::permute(x, h, &maps).unwrap(), &drows) + dot(x, &dy),
        );

        let (drows, dweights) =
            reference::unpermute_backward(&dy, &rows, h, &table, &maps).unwrap();
        check_gradient(
            &format!("{}: drows", case.name),
            &rows,
            &drows,
            probe,
            |rows| dot(&reference::unpermute(rows, h, &table, &maps).unwrap(), &dy),
        );
        let weights = table.routing_weights.clone();
        let mut moved = table.clone();
        check_gradient(
            &format!("{}: dweights", case.name),
            &weights,
            &dweights,
            probe,
            |w| {
                moved.routing_weights.copy_from_slice(w);
                dot(&reference::unpermute(&rows, h, &moved, &maps).unwrap(), &dy)
            },
        );
    }
}

/// <permute(x), g> = <x, permute_backward(g)>, exactly, in integers: backward is the transpose.
#[test]
fn permute_backward_is_the_transpose_of_permute() {
    for (_, device) in implementations() {
        for case in device.cases() {
            let (table, _, maps) = routed(&case, 8);
            let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
            let x: Vec<f32> = case.data(1).integers(t * h, 20);
            let g: Vec<f32> = case.data(2).integers(a * h, 20);
            let mut rows = GuardedMatrix::<f32>::poisoned(a, h, 1);
            device
                .permute(
                    GuardedMatrix::of(&x, t, h, 0).view(),
                    &maps,
                    rows.view_mut(),
                )
                .unwrap();
            let mut dx = GuardedMatrix::<f32>::poisoned(t, h, 1);
            let drows = GuardedMatrix::of(&g, a, h, 0);
            device
                .permute_backward(drows.view(), &table, &maps, None, dx.view_mut())
                .unwrap();
            let dot = |a: Vec<f32>, b: &[f32]| -> i64 {
                a.iter().zip(b).map(|(a, b)| (a * b) as i64).sum()
            };
            assert_eq!(
                dot(rows.values("rows"), &g),
                dot(dx.values("dx"), &x),
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn zero_weights_and_nan_follow_plain_arithmetic() {
    for (_, device) in implementations() {
        let rows = [vec![(0, 0.0)], vec![(0, -1.0)], vec![(1, f32::NAN)]];
        let table = RoutingTable::from_rows(2, &rows).unwrap();
        let maps = sorted(&table);
        let dy = GuardedMatrix::of(&[-2.0f32, 0.0, 0.0, 3.0, 1.0, 1.0], 3, 2, 0);
        let values: Vec<f32> = Data::new(1).integers(6, 3);
        let rows = GuardedMatrix::of(&values, 3, 2, 0);
        let mut drows = GuardedMatrix::<f32>::poisoned(3, 2, 0);
        let mut dweights = [f32::NAN; 3];
        device
            .unpermute_backward(
                dy.view(),
                rows.view(),
                &table,
                &maps,
                drows.view_mut(),
                &mut dweights,
            )
            .unwrap();
        let drows = drows.values("drows");
        assert_same(
            "products keep their sign of zero",
            &drows[..4],
            &[-0.0, 0.0, -0.0, -3.0],
        );
        assert!(
            drows[4..].iter().all(|d| d.is_nan()),
            "a NaN weight poisons its row only"
        );
        let expected = [-2.0 * values[0], 3.0 * values[3], values[4] + values[5]];
        assert_eq!(dweights, expected, "dweights do not depend on the weights");
    }
}
