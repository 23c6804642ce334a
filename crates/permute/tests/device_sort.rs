//! The sort on device memory: bounds, alignment, many experts, bad tables.

mod common;

use common::device::OnDevice;
use tollgate_core::RoutingTable;
use tollgate_device::testing::devices;
use tollgate_device::{Faults, Gpu, VirtualOptions, WorkspaceLayout};
use tollgate_permute::gpu::{MAX_EXPERTS, SortPlan, SortShape};
use tollgate_permute::{PermuteMaps, reference};
use tollgate_testkit::{Data, edge_cases};

/// The maps as the sort must leave them: the reference's, −1 behind A and behind the rows.
fn expected(table: &RoutingTable, on_device: &OnDevice) -> PermuteMaps {
    let shape = on_device.shape;
    let mut maps = reference::sort_aligned(table, shape.row_alignment).unwrap();
    maps.row_of_assignment.resize(shape.max_assignments, -1);
    maps.assignment_of_row.resize(on_device.plan.max_rows(), -1);
    maps.token_of_row.resize(on_device.plan.max_rows(), -1);
    maps
}

/// Sorts a table within a bound and compares all of the maps.
fn check(gpu: &Gpu, table: &RoutingTable, max_assignments: usize, row_alignment: usize) {
    let mut on_device = OnDevice::new(gpu, table, max_assignments, row_alignment);
    on_device.sort().unwrap();
    let expected = expected(table, &on_device);
    assert_eq!(on_device.read_maps(), expected);
    on_device.assert_no_fault();
}

/// 0 to `max_k` different experts a token.
fn random(tokens: usize, experts: usize, max_k: usize) -> RoutingTable {
    let mut data = Data::new(tokens as u64);
    let mut table = RoutingTable::default();
    table.reset(experts);
    for _ in 0..tokens {
        let first = data.below(experts);
        for i in 0..data.below(max_k + 1) {
            table.expert_indices.push(((first + i) % experts) as i32);
            table.routing_weights.push(i as f32);
        }
        table.end_token();
    }
    table.finish();
    table
}

#[test]
fn bounds_and_alignments_are_kept() {
    for (_, gpu) in devices() {
        for case in edge_cases() {
            for (max_k, spare, row_alignment) in [(1, 0, 4), (2, 5, 1), (8, 70, 16)] {
                let table = case.routing_table(max_k);
                check(gpu, &table, table.num_assignments() + spare, row_alignment);
            }
        }
        check(gpu, &random(700, 20, 4), 2800, 128);
    }
}

/// More experts than fit shared memory, and the last number that does; several groups of tokens a
/// tile, several tiles a warp of the scan.
#[test]
fn many_experts_and_many_tiles_are_sorted() {
    for (_, gpu) in devices() {
        for (tokens, experts, max_k) in [
            (300, 2047, 5),
            (300, 2049, 5),
            (900, 16_384, 4),
            (9000, 3, 1),
            (2000, 40, 8),
        ] {
            let table = random(tokens, experts, max_k);
            check(gpu, &table, tokens * max_k, 1);
        }
        check(gpu, &random(70, 16_384, 2), 140, 2);
    }
}

#[test]
fn a_bad_expert_index_is_left_out_and_named() {
    for (_, gpu) in devices() {
        for experts in [5usize, 3000] {
            let table = random(200, experts, 4);
            for bad in [-1, experts as i32, i32::MIN, i32::MAX] {
                let mut wrong = table.clone();
                for position in [301, 77] {
                    wrong.expert_indices[position] = bad;
                }
                let mut on_device = OnDevice::new(gpu, &wrong, 800, 1);
                on_device.sort().unwrap();
                // The counts differ from the table's offsets as well; the index is the lower place
                // unless an expert's number is.
                let status = on_device.take_status();
                let faults = Faults::EXPERT_INDEX | Faults::EXPERT_OFFSETS;
                assert_eq!(status.faults, faults);
                let of_position = |position: usize| table.expert_indices[position] as u32;
                let first = of_position(301).min(of_position(77)).min(77);
                assert_eq!(status.first_bad_index, first);
                let maps = on_device.read_maps();
                assert_eq!(maps.row_of_assignment[301], -1);
                assert_eq!(maps.row_of_assignment[77], -1);
                let rows = table.num_assignments() - 2;
                assert_eq!(maps.expert_offsets[experts], rows as i32);
                assert_inverse(&maps, rows);
            }
        }
    }
}

/// The first `rows` rows and their assignments point at each other, the others nowhere.
#[track_caller]
fn assert_inverse(maps: &PermuteMaps, rows: usize) {
    for (row, &assignment) in maps.assignment_of_row.iter().enumerate() {
        if row < rows {
            assert_eq!(maps.row_of_assignment[assignment as usize], row as i32);
        } else {
            assert_eq!(assignment, -1);
        }
    }
    let placed = maps.row_of_assignment.iter().filter(|&&row| row >= 0);
    assert_eq!(placed.count(), rows);
}

#[test]
fn bad_token_offsets_leave_the_maps_empty() {
    type Break = fn(&mut RoutingTable);
    // With the position that is named: a token whose offset and the next one do not fit.
    let breaks: [(Break, u32); 6] = [
        (|t| t.token_offsets[100] = t.token_offsets[99] - 1, 99),
        (|t| t.token_offsets[150] = -7, 149),
        (|t| t.token_offsets[0] = 1, 0),
        (|t| t.token_offsets[0] = -1, 0),
        (|t| t.token_offsets[200] = 801, 199),
        (|t| t.token_offsets[120] = i32::MAX, 119),
    ];
    for (_, gpu) in devices() {
        for (break_it, position) in breaks {
            let mut table = random(200, 6, 4);
            break_it(&mut table);
            let mut on_device = OnDevice::new(gpu, &table, 800, 4);
            on_device.sort().unwrap();
            let maps = on_device.read_maps();
            let status = on_device.take_status();
            assert_ne!(status.faults & Faults::TOKEN_OFFSETS, 0);
            assert_eq!(status.faults & Faults::EXPERT_INDEX, 0);
            // The experts' counts differ as well; their numbers are below 6.
            assert!(status.first_bad_index <= position.max(5));
            let empty = |map: &[i32]| map.iter().all(|&entry| entry == -1);
            assert!(empty(&maps.row_of_assignment));
            assert!(empty(&maps.assignment_of_row) && empty(&maps.token_of_row));
            assert_eq!(maps.expert_offsets, [0; 7]);
        }
    }
}

#[test]
fn expert_offsets_that_differ_from_the_counts_are_a_fault() {
    for (_, gpu) in devices() {
        for (expert, value) in [(3, 1), (0, 1), (6, i32::MAX), (2, -5)] {
            let right = random(100, 6, 3);
            let mut table = right.clone();
            table.expert_offsets[expert] = value;
            let mut on_device = OnDevice::new(gpu, &table, 300, 1);
            on_device.sort().unwrap();
            // The rows are counted from the indices all the same.
            let expected = expected(&right, &on_device);
            assert_eq!(on_device.read_maps(), expected);
            on_device.assert_fault(Faults::EXPERT_OFFSETS, expert.saturating_sub(1) as u32);
        }
    }
}

#[test]
fn wrong_shapes_and_small_arrays_are_refused_before_a_launch() {
    // One of its own: others' launches are not counted.
    let gpu = Gpu::virtual_gpu(&VirtualOptions::default()).unwrap();
    let table = random(50, 6, 3);
    let mut on_device = OnDevice::new(&gpu, &table, 150, 1);
    on_device.stream.synchronize().unwrap();
    gpu.take_launches();
    let refused = |change: &dyn Fn(&mut OnDevice), expected: &str| {
        let mut on_device = OnDevice::new(&gpu, &table, 150, 1);
        change(&mut on_device);
        let error = on_device.sort().unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "'{error}' should say '{expected}'"
        );
    };
    refused(
        &|d| d.shape.num_tokens = 49,
        "tokens (T) is 49, expected 50",
    );
    refused(&|d| d.shape.num_experts = 7, "experts (E) is 7, expected 6");
    refused(
        &|d| d.shape.max_assignments = 151,
        "bound of the assignments is 151, expected 150",
    );
    refused(
        &|d| d.token_offsets = d.gpu.alloc(50).unwrap(),
        "token_offsets, in elements, holds 50, but 51 are needed",
    );
    refused(
        &|d| d.expert_indices = d.gpu.alloc(149).unwrap(),
        "expert_indices, in elements, holds 149, but 150 are needed",
    );
    refused(
        &|d| d.expert_offsets = d.gpu.alloc(6).unwrap(),
        "expert_offsets, in elements, holds 6, but 7 are needed",
    );
    refused(
        &|d| d.status = d.gpu.alloc(0).unwrap(),
        "the status, in blocks, holds 0, but 1 are needed",
    );
    assert!(gpu.take_launches().is_empty());
    on_device.assert_no_fault();
}

#[test]
fn sizes_beyond_the_limits_are_named() {
    let plan = |shape| {
        SortPlan::new(&mut WorkspaceLayout::new(), shape)
            .unwrap_err()
            .to_string()
    };
    let shape = SortShape {
        num_tokens: 4,
        num_experts: MAX_EXPERTS + 1,
        max_assignments: 4,
        row_alignment: 1,
    };
    assert_eq!(
        plan(shape),
        "experts (E): 65537 overflows the limit of 65536"
    );
    let beyond = i32::MAX as usize + 1;
    let tokens = SortShape {
        num_tokens: beyond,
        num_experts: 2,
        ..shape
    };
    assert_eq!(
        plan(tokens),
        "tokens (T): 2147483648 overflows the limit of 2147483647"
    );
    let assignments = SortShape {
        num_experts: 2,
        max_assignments: beyond,
        ..shape
    };
    assert!(plan(assignments).starts_with("rows (R): 2147483648 assignments"));
}
