//! The maps, exactly.

mod common;

use common::{MAX_K, cpu, implementations};
use tollgate_core::{Cpu, RoutingTable};
use tollgate_permute::{Permute, PermuteMaps, reference};
use tollgate_testkit::{Data, gate_cases, run_all};

#[test]
fn every_case_is_sorted_as_the_reference_sorts_it() {
    let mut devices = implementations();
    devices.push(("cpu, 3 threads", cpu(3)));
    // One struct for all cases: what an earlier sort left must not matter.
    let mut maps = PermuteMaps::default();
    run_all("sort", &gate_cases(), &devices, |case, device| {
        for max_k in MAX_K {
            let table = case.routing_table(max_k);
            device.sort(&table, &mut maps).unwrap();
            assert_eq!(maps, reference::sort(&table).unwrap(), "k ≤ {max_k}");
        }
    });
}

/// A table of `tokens` with 0 to `max_k` experts each, large enough to be cut into blocks.
fn large(tokens: usize, experts: usize, max_k: usize, always_k: bool) -> RoutingTable {
    let mut data = Data::new(tokens as u64);
    let mut table = RoutingTable::default();
    table.reset(experts);
    for _ in 0..tokens {
        let k = if always_k {
            max_k
        } else {
            data.below(max_k + 1)
        };
        // Distinct by construction: a run of experts from a random one on.
        let first = data.below(experts);
        for i in 0..k {
            table.expert_indices.push(((first + i) % experts) as i32);
            table.routing_weights.push(i as f32);
        }
        table.end_token();
    }
    table.finish();
    table
}

#[test]
fn blocks_and_threads_do_not_change_the_maps() {
    for (tokens, experts, max_k, always) in [
        (40_000, 64, 2, true),
        (60_000, 7, 2, false),
        (9_000, 300, 8, false),
        (70_000, 1, 1, true),
    ] {
        let table = large(tokens, experts, max_k, always);
        let mut one = PermuteMaps::default();
        Cpu::new(1).unwrap().sort(&table, &mut one).unwrap();
        assert_stable_inverse(&table, &one);
        for threads in [2, 3, 5] {
            let mut many = PermuteMaps::default();
            Cpu::new(threads).unwrap().sort(&table, &mut many).unwrap();
            assert!(
                one == many,
                "{threads} threads, {tokens} tokens, {experts} experts"
            );
        }
    }
}

/// What the maps are defined by, checked by position in O(A).
fn assert_stable_inverse(table: &RoutingTable, maps: &PermuteMaps) {
    assert_eq!(maps.expert_offsets, table.expert_offsets);
    assert_eq!(maps.row_of_assignment.len(), table.num_assignments());
    for token in 0..table.num_tokens() {
        for a in table.assignments_of(token) {
            let row = maps.row_of_assignment[a] as usize;
            assert_eq!(maps.assignment_of_row[row] as usize, a);
            assert_eq!(maps.token_of_row[row] as usize, token);
            let expert = table.expert_indices[a] as usize;
            let of_expert =
                table.expert_offsets[expert] as usize..table.expert_offsets[expert + 1] as usize;
            assert!(
                of_expert.contains(&row),
                "row {row} of expert {expert} in {of_expert:?}"
            );
        }
    }
    for expert in table.expert_offsets.windows(2) {
        let rows = expert[0] as usize..expert[1] as usize;
        assert!(
            maps.token_of_row[rows].is_sorted_by(|a, b| a < b),
            "stable by token"
        );
    }
}

#[test]
fn memory_is_kept_between_sorts() {
    let cpu = Cpu::new(1).unwrap();
    let (big, small) = (large(500, 8, 2, true), large(20, 8, 2, true));
    let mut maps = PermuteMaps::default();
    cpu.sort(&big, &mut maps).unwrap();
    let places = |m: &PermuteMaps| {
        [
            &m.row_of_assignment,
            &m.assignment_of_row,
            &m.token_of_row,
            &m.expert_offsets,
        ]
        .map(|v| (v.as_ptr(), v.capacity()))
    };
    let before = places(&maps);
    cpu.sort(&small, &mut maps).unwrap();
    assert_eq!(maps.row_of_assignment.len(), small.num_assignments());
    cpu.sort(&big, &mut maps).unwrap();
    assert_eq!(places(&maps), before);
}

#[test]
fn broken_tables_are_refused_with_the_place_and_nothing_is_written() {
    type Break = fn(&mut RoutingTable);
    let breaks: [(Break, &str); 9] = [
        (
            |t| t.token_offsets[3] = -1,
            "token_offsets[3] is -1, below its predecessor",
        ),
        (|t| t.token_offsets.clear(), "token_offsets is empty"),
        (
            |t| t.token_offsets[0] = 1,
            "token_offsets[0] is 1, must be 0",
        ),
        (|t| t.expert_offsets[8] += 1, "expert_offsets ends at"),
        (
            |t| t.expert_indices[35_000] = 8,
            "expert_indices[35000] is 8, must be in 0..8",
        ),
        (
            |t| t.expert_indices[1] = i32::MIN,
            "expert_indices[1] is -2147483648",
        ),
        (
            |t| t.expert_indices[70_001] = t.expert_indices[70_000],
            "token 35000 has expert",
        ),
        (
            |t| t.expert_offsets[4] += 1,
            "expert_offsets gives expert 3",
        ),
        (
            |t| t.routing_weights.truncate(7),
            "routing_weights has 7 entries",
        ),
    ];
    for threads in [1, 2] {
        let cpu = Cpu::new(threads).unwrap();
        for (break_it, expected) in breaks {
            let mut table = large(40_000, 8, 2, true);
            break_it(&mut table);
            let mut maps = PermuteMaps {
                row_of_assignment: vec![42],
                ..PermuteMaps::default()
            };
            let before = maps.clone();
            let error = cpu.sort(&table, &mut maps).unwrap_err();
            assert_eq!(error, table.validate().unwrap_err());
            assert!(error.to_string().contains(expected), "{error}: {expected}");
            assert_eq!(maps, before);
        }
    }
}
