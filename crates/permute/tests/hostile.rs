//! Broken arguments: an error that names the place, nothing written, and never a panic.

mod common;

use common::{Device, cpu, f64s, implementations, sorted, widen};
use proptest::prelude::*;
use tollgate_core::{Error, Result, RoutingTable, RowView};
use tollgate_permute::{Permute, PermuteMaps, reference};
use tollgate_testkit::{GuardedMatrix, Tolerance, compare};

/// Four tokens, three experts, five assignments, H = 2, and everything an operation takes.
struct Setting {
    device: Device,
    table: RoutingTable,
    maps: PermuteMaps,
}

impl Setting {
    fn new(device: &Device) -> Self {
        let rows = [
            vec![(2, 0.5), (0, 0.25)],
            vec![],
            vec![(2, 1.0)],
            vec![(1, 0.1), (2, 0.2)],
        ];
        let table = RoutingTable::from_rows(3, &rows).unwrap();
        let maps = sorted(&table);
        Self {
            device: device.clone(),
            table,
            maps,
        }
    }

    /// Every operation on matrices of the given rows and columns; all outputs must stay untouched
    /// on an error.
    fn all(&self, tokens: usize, assignments: usize, cols: usize) -> [Result<()>; 4] {
        let x = GuardedMatrix::of(&vec![1f32; tokens * cols], tokens, cols, 1);
        let given = GuardedMatrix::of(&vec![1f32; assignments * cols], assignments, cols, 1);
        let mut dweights = vec![-7f32; assignments];
        let (table, maps) = (&self.table, &self.maps);
        let untouched = |result: &Result<()>, out: &GuardedMatrix<f32>| {
            let written = out.values("output").iter().any(|v| !v.is_nan());
            assert!(result.is_ok() || !written, "written in spite of {result:?}");
        };

        let mut rows = GuardedMatrix::poisoned(assignments, cols, 1);
        let permute = self.device.permute(x.view(), maps, rows.view_mut());
        untouched(&permute, &rows);
        let mut y = GuardedMatrix::poisoned(tokens, cols, 1);
        let unpermute = self
            .device
            .unpermute(given.view(), table, maps, y.view_mut());
        untouched(&unpermute, &y);
        let mut dx = GuardedMatrix::poisoned(tokens, cols, 1);
        let permute_backward =
            self.device
                .permute_backward(given.view(), table, maps, None, dx.view_mut());
        untouched(&permute_backward, &dx);
        let mut drows = GuardedMatrix::poisoned(assignments, cols, 1);
        let unpermute_backward = self.device.unpermute_backward(
            x.view(),
            given.view(),
            table,
            maps,
            drows.view_mut(),
            &mut dweights,
        );
        untouched(&unpermute_backward, &drows);
        assert!(unpermute_backward.is_ok() || dweights.iter().all(|&d| d == -7.0));
        [permute, unpermute, permute_backward, unpermute_backward]
    }

    #[track_caller]
    fn refuse(&self, sizes: (usize, usize, usize), expected: [&str; 4]) {
        let results = self.all(sizes.0, sizes.1, sizes.2);
        for (result, expected) in results.iter().zip(expected) {
            match result {
                Ok(()) => assert_eq!(expected, "", "accepted"),
                Err(e) => {
                    assert!(!expected.is_empty(), "refused: {e}");
                    assert!(
                        e.to_string().contains(expected),
                        "'{e}' should say '{expected}'"
                    );
                }
            }
        }
    }
}

const SIZES: (usize, usize, usize) = (4, 5, 2);

#[test]
fn right_arguments_are_accepted() {
    for (_, device) in implementations() {
        Setting::new(&device).refuse(SIZES, [""; 4]);
    }
}

#[test]
fn wrong_numbers_of_rows_are_named() {
    for (_, device) in implementations() {
        let s = Setting::new(&device);
        // More tokens than the maps name are legal for `permute`: not every token must be chosen.
        s.refuse(
            (6, 5, 2),
            [
                "",
                "token matrix (T) is 6",
                "(T) is 6, expected 4",
                "(T) is 6",
            ],
        );
        s.refuse(
            (2, 5, 2),
            [
                "token_of_row[1] is 3, must be in 0..2",
                "is 2",
                "is 2",
                "is 2",
            ],
        );
        let four = "permuted matrix (A) is 4, expected 5";
        s.refuse(
            (4, 4, 2),
            [four, four, four, "entries of dweights (A) is 4, expected 5"],
        );
    }
}

#[test]
fn wrong_columns_and_lengths_are_named() {
    for (_, device) in implementations() {
        let s = Setting::new(&device);
        let (x, rows) = (
            GuardedMatrix::of(&[1f32; 8], 4, 2, 0),
            GuardedMatrix::of(&[1f32; 15], 5, 3, 0),
        );
        let mut out = GuardedMatrix::<f32>::poisoned(5, 3, 0);
        let e = s
            .device
            .permute(x.view(), &s.maps, out.view_mut())
            .unwrap_err();
        assert_eq!(
            e.to_string(),
            "columns of the permuted matrix (H) is 3, expected 2"
        );
        let mut y = GuardedMatrix::<f32>::poisoned(4, 2, 0);
        let e = s
            .device
            .unpermute(rows.view(), &s.table, &s.maps, y.view_mut())
            .unwrap_err();
        assert_eq!(
            e.to_string(),
            "columns of the token matrix (H) is 2, expected 3"
        );

        let drows = GuardedMatrix::of(&[1f32; 10], 5, 2, 0);
        let short = [0f32; 6];
        for (addend, expected) in [
            (
                RowView::new(&short, 3, 2).unwrap(),
                "rows of the addend (T) is 3, expected 4",
            ),
            (
                RowView::new(&short[..4], 4, 1).unwrap(),
                "columns of the addend (H) is 1, expected 2",
            ),
        ] {
            let e = s
                .device
                .permute_backward(drows.view(), &s.table, &s.maps, Some(addend), y.view_mut())
                .unwrap_err();
            assert_eq!(e.to_string(), expected);
        }
        let mut dweights = [0f32; 4];
        let mut out = GuardedMatrix::<f32>::poisoned(5, 2, 0);
        let e = s
            .device
            .unpermute_backward(
                x.view(),
                drows.view(),
                &s.table,
                &s.maps,
                out.view_mut(),
                &mut dweights,
            )
            .unwrap_err();
        assert_eq!(e.to_string(), "entries of dweights (A) is 4, expected 5");
        let mut narrow = GuardedMatrix::<f32>::poisoned(5, 1, 0);
        let e = s
            .device
            .unpermute_backward(
                x.view(),
                drows.view(),
                &s.table,
                &s.maps,
                narrow.view_mut(),
                &mut [0.0; 5],
            )
            .unwrap_err();
        assert!(
            e.to_string()
                .contains("gradient of the permuted matrix (H) is 1, expected 2"),
            "{e}"
        );
        assert!(
            [y.values("y"), out.values("out"), narrow.values("narrow")]
                .iter()
                .all(|m| m.iter().all(|v| v.is_nan()))
        );
    }
}

#[test]
fn maps_out_of_range_are_named_by_whoever_follows_them() {
    for (_, device) in implementations() {
        let mut s = Setting::new(&device);
        s.maps.token_of_row[3] = 4;
        let named = "token_of_row[3] is 4, must be in 0..4";
        s.refuse(SIZES, [named, "", "", named]);

        let mut s = Setting::new(&device);
        s.maps.row_of_assignment[2] = -1;
        let named = "row_of_assignment[2] is -1, must be in 0..5";
        s.refuse(SIZES, ["", named, named, named]);

        let mut s = Setting::new(&device);
        s.maps.assignment_of_row[4] = 5;
        s.refuse(
            SIZES,
            ["", "", "", "assignment_of_row[4] is 5, must be in 0..5"],
        );

        let mut s = Setting::new(&device);
        s.maps.assignment_of_row.pop();
        s.refuse(
            SIZES,
            ["entries of assignment_of_row (A) is 4, expected 5"; 4],
        );
    }
}

#[test]
fn maps_of_another_table_are_refused() {
    for (_, device) in implementations() {
        let mut s = Setting::new(&device);
        s.maps.expert_offsets[1] = 2;
        let named = "maps with expert_offsets[1] = 2 cannot be combined with a table with \
                 expert_offsets[1] = 1";
        s.refuse(SIZES, ["", named, named, named]);

        let mut s = Setting::new(&device);
        s.maps.expert_offsets.push(5);
        let named = "entries of maps.expert_offsets (E+1) is 5, expected 4";
        s.refuse(SIZES, ["", named, named, named]);

        // Where every row must be written once, two assignments on one row are refused …
        let mut s = Setting::new(&device);
        s.maps.row_of_assignment[0] = s.maps.row_of_assignment[2];
        s.refuse(SIZES, ["", "", "", "the two maps must be inverses"]);

        // … and so is a row of the wrong token.
        let mut s = Setting::new(&device);
        s.maps.token_of_row[0] = 3;
        s.refuse(
            SIZES,
            [
                "",
                "",
                "",
                "a table in which token 3 does not own assignment 1",
            ],
        );
    }
}

#[test]
fn tables_are_checked_for_what_is_followed() {
    for (_, device) in implementations() {
        let mut s = Setting::new(&device);
        s.table.token_offsets[1] = 3;
        let named = "token_offsets[2] is 2, below its predecessor 3";
        s.refuse(SIZES, ["", named, named, named]);

        let mut s = Setting::new(&device);
        s.table.routing_weights.pop();
        let named = "routing_weights has 4 entries, expert_indices has 5";
        s.refuse(SIZES, ["", named, named, named]);

        // Expert indices are not followed once the maps exist.
        let mut s = Setting::new(&device);
        s.table.expert_indices.fill(-1);
        s.refuse(SIZES, [""; 4]);
    }
}

#[test]
fn the_reference_refuses_without_panicking() {
    let s = Setting::new(&cpu(1));
    let table = widen(&s.table);
    let (x, rows) = (vec![1f64; 8], vec![1f64; 10]);
    let shape = |e: Error| assert!(matches!(e, Error::Shape { .. }), "{e}");
    shape(reference::permute(&x, 3, &s.maps).unwrap_err());
    shape(reference::permute(&x, 0, &s.maps).unwrap_err());
    shape(reference::unpermute(&rows, 3, &table, &s.maps).unwrap_err());
    shape(reference::permute_backward(&rows, 2, &table, &s.maps, Some(&x[..7])).unwrap_err());
    shape(reference::unpermute_backward(&x[..6], &rows, 2, &table, &s.maps).unwrap_err());
    let e = reference::unpermute(&rows, usize::MAX / 2, &table, &s.maps).unwrap_err();
    assert!(matches!(e, Error::Overflow { .. }), "{e}");

    // No rows, so nothing but the result itself limits H; it is refused before it is allocated.
    let none = widen(&RoutingTable::from_rows(3, &vec![vec![]; 4]).unwrap());
    let maps = reference::sort(&none).unwrap();
    for hidden in [isize::MAX as usize / 3, isize::MAX as usize / 32 + 1] {
        let overflows = |e: Error| assert!(matches!(e, Error::Overflow { .. }), "{e}");
        overflows(reference::unpermute(&[], hidden, &none, &maps).unwrap_err());
        overflows(reference::permute_backward(&[], hidden, &none, &maps, None).unwrap_err());
        overflows(reference::unpermute_backward(&[], &[], hidden, &none, &maps).unwrap_err());
    }

    let mut twice = s.maps.clone();
    twice.row_of_assignment[0] = twice.row_of_assignment[2];
    let e = reference::unpermute_backward(&x, &rows, 2, &table, &twice).unwrap_err();
    assert!(
        e.to_string()
            .contains("every row must belong to one assignment"),
        "{e}"
    );
    twice.row_of_assignment[0] = 9;
    let e = reference::unpermute(&rows, 2, &table, &twice).unwrap_err();
    assert_eq!(e.to_string(), "row_of_assignment[0] is 9, must be in 0..5");
    assert!(reference::permute(&[], 0, &s.maps).unwrap().is_empty());
}

/// Mostly plausible numbers, some wild ones.
fn number() -> impl Strategy<Value = i32> {
    prop_oneof![12 => 0..5i32, 1 => -2..9i32, 1 => any::<i32>()]
}

fn numbers(max: usize) -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(number(), 0..max)
}

/// Offsets that ascend more often than chance would have it.
fn offsets() -> impl Strategy<Value = Vec<i32>> {
    prop_oneof![
        numbers(6),
        numbers(6).prop_map(|mut v| {
            v.sort_unstable();
            v.insert(0, 0);
            v
        }),
    ]
}

fn any_table() -> impl Strategy<Value = RoutingTable> {
    let loose = (
        offsets(),
        numbers(6),
        prop::collection::vec(any::<f32>(), 0..6),
        offsets(),
    );
    let loose = loose.prop_map(
        |(token_offsets, expert_indices, routing_weights, expert_offsets)| RoutingTable {
            token_offsets,
            expert_indices,
            routing_weights,
            expert_offsets,
        },
    );
    // A valid table in which one number may then be wrong.
    let row = prop::sample::subsequence(vec![0i32, 1, 2], 0..=3);
    let near = (
        prop::collection::vec(row, 0..5),
        0..4usize,
        any::<prop::sample::Index>(),
        number(),
    );
    let near = near.prop_map(|(rows, which, at, value)| {
        let rows: Vec<Vec<(i32, f32)>> = rows
            .iter()
            .map(|r| r.iter().map(|&e| (e, e as f32 - 1.0)).collect())
            .collect();
        let mut table = RoutingTable::from_rows(3, &rows).unwrap();
        let array = match which {
            0 => &mut table.token_offsets,
            1 => &mut table.expert_indices,
            2 => &mut table.expert_offsets,
            _ => return table,
        };
        if !array.is_empty() {
            let at = at.index(array.len());
            array[at] = value;
        }
        table
    });
    prop_oneof![loose, near]
}

fn any_maps() -> impl Strategy<Value = PermuteMaps> {
    (numbers(6), numbers(6), numbers(6), offsets()).prop_map(
        |(row_of_assignment, assignment_of_row, token_of_row, expert_offsets)| PermuteMaps {
            row_of_assignment,
            assignment_of_row,
            token_of_row,
            expert_offsets,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Sorting agrees with validation and with the reference, and writes only on success.
    #[test]
    fn sort_accepts_exactly_the_valid_tables(table in any_table(), before in any_maps()) {
        let mut maps = before.clone();
        let outcome = cpu(1).sort(&table, &mut maps);
        prop_assert_eq!(&outcome, &table.validate());
        match reference::sort(&table) {
            Ok(expected) => prop_assert_eq!(maps, expected),
            Err(_) => prop_assert_eq!(maps, before),
        }
    }

    /// Any maps on any table of any size: an error or the result of the formula.
    #[test]
    fn operations_never_panic(
        table in any_table(),
        wild in any_maps(),
        from_sort in any::<bool>(),
        tokens in 0..6usize,
        resize in any::<bool>(),
        cols in 0..4usize,
    ) {
        let mut maps = wild;
        if from_sort {
            let _ = cpu(1).sort(&table, &mut maps);
        }
        let tokens = if resize { tokens } else { table.num_tokens() };
        let assignments = if resize { maps.token_of_row.len() } else { table.num_assignments() };
        let s = Setting { device: cpu(1), table, maps };
        let accepted = s.all(tokens, assignments, cols).map(|r| r.is_ok());
        if accepted[0] {
            prop_assert!(reference::permute(&vec![1.0; tokens * cols], cols, &s.maps).is_ok());
        }
        if accepted[1] {
            // What the reference computes wherever it takes the table too; expert indices may be
            // wrong, which only the reference minds.
            let values: Vec<f32> = (0..assignments * cols).map(|i| i as f32).collect();
            let rows = GuardedMatrix::of(&values, assignments, cols, 0);
            let mut y = GuardedMatrix::<f32>::poisoned(tokens, cols, 0);
            s.device.unpermute(rows.view(), &s.table, &s.maps, y.view_mut()).unwrap();
            let exact = widen(&s.table);
            if let Ok(expected) = reference::unpermute(&f64s(&values), cols, &exact, &s.maps) {
                let magnitude = reference::unpermute(
                    &f64s(&values), cols, &absolute(exact), &s.maps,
                ).unwrap();
                let finite: Vec<f64> = expected.iter().map(|&v| f64::from(v as f32)).collect();
                let tolerance = Tolerance::dot(s.table.num_experts(), tollgate_core::DType::F32);
                let y = f64s(&y.values("y"));
                // Near f32's limit a partial sum may overflow although the exact one does not.
                if magnitude.iter().all(|&m| m.is_nan() || m <= 1e38) {
                    let close = compare(y, &finite, &magnitude, tolerance);
                    prop_assert!(close.is_ok(), "{:?}", close);
                }
            }
        }
        // What is accepted backward is accepted forward: it is checked for more.
        prop_assert!(!accepted[3] || (accepted[0] && accepted[1]));
        prop_assert_eq!(accepted[1], accepted[2]);
    }
}

fn absolute(mut table: RoutingTable<f64>) -> RoutingTable<f64> {
    table.routing_weights.iter_mut().for_each(|w| *w = w.abs());
    table
}
