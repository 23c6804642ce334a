//! `permute` and `unpermute` against the reference: bit by bit where the arithmetic is exact.

mod common;

use common::{Device, f64s, implementations, routed, sorted, widen};
use half::{bf16, f16};
use tollgate_core::{Element, RoutingTable};
use tollgate_permute::{Permute, reference};
use tollgate_testkit::{Case, Data, GuardedMatrix, Tolerance, assert_close, assert_same, compare};

#[test]
fn permute_copies_every_row() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let values: Vec<T> = case.data(3).normals(t * h, 1.0);
        let x = GuardedMatrix::of(&values, t, h, pad);
        let mut rows = GuardedMatrix::<T>::poisoned(a, h, pad + 1);
        device.permute(x.view(), &maps, rows.view_mut()).unwrap();
        let rows = rows.values("rows");
        let expected = reference::permute(&f64s(&values), h, &maps).unwrap();
        assert_close("rows", f64s(&rows), &expected, Tolerance::EXACT);
    }
    for_all!("permute", check);
}

#[test]
fn permute_keeps_every_bit_pattern() {
    for (_, device) in implementations() {
        let table =
            RoutingTable::from_rows(2, &[vec![(1, 1.0), (0, 1.0)], vec![(1, 1.0)]]).unwrap();
        let maps = sorted(&table);
        let x = [0x7fa0_0001u32, 0x8000_0000, 0xffc1_2345, 1].map(f32::from_bits);
        let mut rows = GuardedMatrix::<f32>::poisoned(3, 2, 0);
        device
            .permute(
                GuardedMatrix::of(&x, 2, 2, 1).view(),
                &maps,
                rows.view_mut(),
            )
            .unwrap();
        assert_same(
            "rows",
            &rows.values("rows"),
            &[x[0], x[1], x[0], x[1], x[2], x[3]],
        );
    }
}

/// Small integers for rows and weights: every product and sum is exact in every dtype (at most
/// 8 · 3 · 2 = 48 in magnitude, and bf16 holds integers up to 256), so the bits must agree.
#[test]
fn unpermute_of_integers_is_exact() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (mut table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        table.routing_weights = case.data(4).integers(a, 2);
        let values: Vec<T> = case.data(5).integers(a * h, 3);
        let rows = GuardedMatrix::of(&values, a, h, pad);
        let mut y = GuardedMatrix::<T>::poisoned(t, h, pad + 2);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        let exact = reference::unpermute(&f64s(&values), h, &widen(&table), &maps).unwrap();
        let expected: Vec<T> = exact.iter().map(|&v| T::from_f32(v as f32)).collect();
        assert_same("y", &y.values("y"), &expected);
    }
    for_all!("unpermute of integers", check);
}

#[test]
fn unpermute_is_within_rounding_of_the_reference() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, exact, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let values: Vec<T> = case.data(6).normals(a * h, 1.0);
        let rows = GuardedMatrix::of(&values, a, h, pad);
        let mut y = GuardedMatrix::<T>::poisoned(t, h, pad + 2);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        let expected = reference::unpermute(&f64s(&values), h, &exact, &maps).unwrap();
        // The same sum of magnitudes scales the rounding errors of a sum of at most k products.
        let mut absolute = exact;
        absolute
            .routing_weights
            .iter_mut()
            .for_each(|w| *w = w.abs());
        let magnitudes: Vec<f64> = values.iter().map(|v| v.to_f64().abs()).collect();
        let magnitude = reference::unpermute(&magnitudes, h, &absolute, &maps).unwrap();
        let tolerance = Tolerance::dot(max_k, T::DTYPE);
        if let Err(e) = compare(f64s(&y.values("y")), &expected, &magnitude, tolerance) {
            panic!("y, k ≤ {max_k}, {}: {e}", T::DTYPE);
        }
    }
    for_all!("unpermute", check);
}

/// The documented arithmetic, one token and column at a time: the bits on any machine.
#[test]
fn unpermute_adds_in_table_order_by_fused_multiply_adds() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let values: Vec<T> = case.data(6).normals(a * h, 1.0);
        let rows = GuardedMatrix::of(&values, a, h, pad);
        let mut y = GuardedMatrix::<T>::poisoned(t, h, pad);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        let mut expected = Vec::with_capacity(t * h);
        for token in 0..t {
            for j in 0..h {
                let sum = table.assignments_of(token).fold(0f32, |sum, a| {
                    let row = maps.row_of_assignment[a] as usize;
                    table.routing_weights[a].mul_add(values[row * h + j].to_f32(), sum)
                });
                expected.push(T::from_f32(sum));
            }
        }
        assert_same("y", &y.values("y"), &expected);
    }
    for_all!("order of unpermute", check);
}

#[test]
fn one_expert_for_all_is_the_identity() {
    for (_, device) in implementations() {
        let table = RoutingTable::from_rows(3, &vec![vec![(1, 1.0)]; 77]).unwrap();
        assert_eq!(table.sole_expert(), Some(1));
        let maps = sorted(&table);
        let ascending: Vec<i32> = (0..77).collect();
        assert_eq!(maps.row_of_assignment, ascending);
        assert_eq!(maps.assignment_of_row, ascending);
        assert_eq!(maps.token_of_row, ascending);
        let values: Vec<bf16> = Data::new(1).normals(77 * 19, 1.0);
        let mut rows = GuardedMatrix::<bf16>::poisoned(77, 19, 0);
        let x = GuardedMatrix::of(&values, 77, 19, 4);
        device.permute(x.view(), &maps, rows.view_mut()).unwrap();
        assert_same("rows", &rows.values("rows"), &values);
        let mut y = GuardedMatrix::<bf16>::poisoned(77, 19, 1);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        assert_same("y", &y.values("y"), &values);
    }
}

/// y = x · Σ_a w_a, exactly, for integers.
#[test]
fn round_trip_multiplies_by_the_sum_of_the_weights() {
    fn check<T: Element>(case: &Case, device: &Device, max_k: usize, pad: usize) {
        let (mut table, _, maps) = routed(case, max_k);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        table.routing_weights = case.data(4).integers(a, 2);
        let values: Vec<T> = case.data(5).integers(t * h, 3);
        let x = GuardedMatrix::of(&values, t, h, pad);
        let mut rows = GuardedMatrix::<T>::poisoned(a, h, pad);
        device.permute(x.view(), &maps, rows.view_mut()).unwrap();
        let mut y = GuardedMatrix::<T>::poisoned(t, h, pad);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        let expected: Vec<T> = (0..t * h)
            .map(|i| {
                let total: f32 = table.weights_of(i / h).iter().sum();
                // Adding 0 turns a product of −0 into the +0 that a sum from 0 has.
                T::from_f32(total * values[i].to_f32() + 0.0)
            })
            .collect();
        assert_same("y", &y.values("y"), &expected);
    }
    for_all!("round trip", check);
}

#[test]
fn nan_infinity_and_zero_follow_plain_arithmetic() {
    for (_, device) in implementations() {
        let table = RoutingTable::from_rows(
            4,
            &[
                vec![(0, f32::NAN)],
                vec![],
                vec![(1, -1.0), (3, 0.0)],
                vec![(2, f32::INFINITY)],
                vec![(3, 0.0)],
            ],
        )
        .unwrap();
        let maps = sorted(&table);
        // Rows in expert order: token 0, token 2, token 3, token 2 again, token 4.
        assert_eq!(maps.token_of_row, [0, 2, 3, 2, 4]);
        let rows = [1.0, 0.0, 2.0, 5.0, f32::NEG_INFINITY];
        let rows = GuardedMatrix::of(&rows, 5, 1, 0);
        let mut y = GuardedMatrix::<f32>::poisoned(5, 1, 0);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        let y = y.values("y");
        assert!(y[0].is_nan(), "a NaN weight is seen downstream");
        assert_same("no experts", &y[1..2], &[0.0]);
        assert_same("fma(-1, 0, +0) is +0", &y[2..3], &[0.0]);
        assert_same("infinite weight", &y[3..4], &[f32::INFINITY]);
        assert!(y[4].is_nan(), "0 · ∞ is not masked");
    }
}

#[test]
fn matrices_without_columns_or_rows_are_legal() {
    for (_, device) in implementations() {
        let table = RoutingTable::from_rows(2, &[vec![(1, 1.0), (0, 1.0)], vec![]]).unwrap();
        let maps = sorted(&table);
        let (x, mut rows) = (
            GuardedMatrix::<f32>::poisoned(2, 0, 0),
            GuardedMatrix::<f32>::poisoned(2, 0, 0),
        );
        device.permute(x.view(), &maps, rows.view_mut()).unwrap();
        let mut y = GuardedMatrix::<f32>::poisoned(2, 0, 0);
        device
            .unpermute(rows.view(), &table, &maps, y.view_mut())
            .unwrap();
        let mut dweights = [f32::NAN; 2];
        let mut drows = GuardedMatrix::<f32>::poisoned(2, 0, 0);
        device
            .unpermute_backward(
                x.view(),
                rows.view(),
                &table,
                &maps,
                drows.view_mut(),
                &mut dweights,
            )
            .unwrap();
        assert_same("empty dot products", &dweights, &[0.0, 0.0]);

        let none = RoutingTable::from_rows(2, &[vec![], vec![]]).unwrap();
        let maps = sorted(&none);
        let rows = GuardedMatrix::<f32>::poisoned(0, 3, 0);
        let mut y = GuardedMatrix::<f32>::poisoned(2, 3, 1);
        device
            .unpermute(rows.view(), &none, &maps, y.view_mut())
            .unwrap();
        assert_same("no assignments at all", &y.values("y"), &[0.0; 6]);
    }
}
