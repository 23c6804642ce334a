//! The limit on rows per expert: the table and what was kept, exactly as the CPU's.

use tollgate_core::options::{Capacity, DropOrder, GateOptions};
use tollgate_core::{Cpu, Router, RoutingTable, RowView};
use tollgate_device::testing::devices;
use tollgate_device::{DeviceRoutingTable, Faults, Gpu, StatusBlock, WorkspaceLayout};
use tollgate_gating::gpu::capacity::{CapacityPlan, limit};
use tollgate_gating::gpu::table::TableMut;
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{assert_same, edge_cases};

use crate::support::{Fenced, clear_status, seeded, some_context, workspace, workspace_memory};

struct Outcome {
    table: RoutingTable,
    kept: Vec<i32>,
    status: StatusBlock,
}

/// A selection and its limit on the device. Entries behind A are poison.
fn on_device(
    gpu: &Gpu,
    capacity: &Capacity,
    router: &Router,
    selection: &RoutingTable,
    misalign: usize,
) -> Outcome {
    let stream = gpu.default_stream();
    let (tokens, experts) = (selection.num_tokens(), selection.num_experts());
    let most = tokens * router.max_experts_per_token(experts);
    let mut layout = WorkspaceLayout::new();
    let plan = CapacityPlan::new(&mut layout, capacity, router, tokens, experts).unwrap();
    let mut memory = workspace_memory(gpu, &layout);
    let workspace = workspace(&mut memory, &layout);
    let token_offsets = Fenced::from_slice(gpu, &selection.token_offsets, misalign);
    let expert_offsets = Fenced::from_slice(gpu, &selection.expert_offsets, misalign);
    let mut indices = Fenced::<i32>::new(gpu, most, misalign);
    let mut weights = Fenced::<f32>::new(gpu, most, misalign);
    stream
        .write(indices.get_mut(), &selection.expert_indices)
        .unwrap();
    stream
        .write(weights.get_mut(), &selection.routing_weights)
        .unwrap();
    let of_selection = DeviceRoutingTable {
        num_tokens: tokens,
        num_experts: experts,
        max_assignments: most,
        token_offsets: token_offsets.get(),
        expert_indices: indices.get(),
        routing_weights: weights.get(),
        expert_offsets: expert_offsets.get(),
    };
    let mut status = clear_status(gpu);
    let mut to_tokens = Fenced::<i32>::new(gpu, tokens + 1, misalign);
    let mut to_indices = Fenced::<i32>::new(gpu, most, misalign);
    let mut to_weights = Fenced::<f32>::new(gpu, most, misalign);
    let mut to_experts = Fenced::<i32>::new(gpu, experts + 1, misalign);
    let mut kept = Fenced::<i32>::new(gpu, most, misalign);
    let mut table = TableMut {
        token_offsets: to_tokens.get_mut(),
        expert_indices: to_indices.get_mut(),
        routing_weights: to_weights.get_mut(),
        expert_offsets: to_experts.get_mut(),
    };
    // Captured, and done twice: nothing is left over that the second run would trip on.
    stream.synchronize().unwrap();
    let capturing = gpu.stream().unwrap();
    let graph = capturing
        .capture(|stream| {
            limit(
                gpu,
                stream,
                &plan,
                &of_selection,
                &mut status.slice_mut(),
                &workspace,
                &mut table,
                &mut kept.get_mut(),
            )
        })
        .unwrap();
    graph.launch(stream).unwrap();
    graph.launch(stream).unwrap();
    let mut table = RoutingTable {
        token_offsets: to_tokens.read(stream),
        expert_indices: to_indices.read(stream),
        routing_weights: to_weights.read(stream),
        expert_offsets: to_experts.read(stream),
    };
    let used = table.token_offsets[tokens] as usize;
    table.expert_indices.truncate(used);
    table.routing_weights.truncate(used);
    let mut kept = kept.read(stream);
    kept.truncate(used);
    Outcome {
        table,
        kept,
        status: status.read(stream).unwrap()[0],
    }
}

/// Runs the CPU's gate with a capacity: its selection, and what became of it.
fn on_cpu(
    options: &GateOptions,
    (tokens, experts): (usize, usize),
    logits: Option<&[f32]>,
) -> GateState {
    let inputs = match logits {
        Some(logits) => GateInputs::new(RowView::new(logits, tokens, experts).unwrap()),
        None => GateInputs::without_logits(tokens, experts),
    };
    let mut state = GateState::default();
    let cpu = Cpu::new(1).unwrap();
    cpu.gate(&inputs, options, &some_context(), &mut state)
        .unwrap();
    state
}

#[track_caller]
fn check(what: &str, actual: &Outcome, expected: &GateState) {
    let (a, e) = (&actual.table, &expected.table);
    assert_same(what, &a.token_offsets, &e.token_offsets);
    assert_same(what, &a.expert_indices, &e.expert_indices);
    assert_same(what, &a.routing_weights, &e.routing_weights);
    assert_same(what, &a.expert_offsets, &e.expert_offsets);
    // Empty on the host when nothing was dropped: then it counts.
    let all = 0..expected.selection.num_assignments() as i32;
    let kept = match expected.kept[..] {
        [] if !e.expert_indices.is_empty() => all.collect(),
        _ => expected.kept.clone(),
    };
    assert_same(what, &actual.kept, &kept);
    assert_eq!(actual.status, StatusBlock::CLEAR, "{what}");
}

fn both_orders() -> [DropOrder; 2] {
    [DropOrder::Position, DropOrder::Probability]
}

#[test]
fn tables_are_those_of_the_cpu() {
    for (name, gpu) in devices() {
        for case in edge_cases() {
            let shape = (case.tokens, case.experts);
            let logits = case.router_logits();
            for (router, factor) in [("top1", 1.0), ("topk:3", 0.5), ("adaptive:0.3", 0.75)] {
                let router: Router = router.parse().unwrap();
                if router.max_experts_per_token(case.experts) > case.experts {
                    continue;
                }
                for order in both_orders() {
                    let mut options = GateOptions::new(router);
                    options.capacity = Some(Capacity { factor, order });
                    let expected = on_cpu(&options, shape, Some(&logits));
                    let capacity = options.capacity.unwrap();
                    let selection = &expected.selection;
                    let misalign = case.tokens % 3;
                    let actual = on_device(gpu, &capacity, &router, selection, misalign);
                    let what = format!("{name}: {}, {router}, {order:?}", case.name);
                    check(&what, &actual, &expected);
                }
            }
        }
    }
}

#[test]
fn factors_from_nothing_to_more_than_enough() {
    for (name, gpu) in devices() {
        for router in [
            Router::Ensemble,
            "expert-choice:2x".parse().unwrap(),
            Router::top_k(2),
        ] {
            for (factor, order) in [0.0, 0.3, 1.0, 1e30]
                .into_iter()
                .flat_map(|f| both_orders().map(|o| (f, o)))
            {
                let shape = (70, 9);
                let logits: Vec<f32> = tollgate_testkit::Data::new(4).normals(630, 1.0);
                let mut options = GateOptions::new(router);
                let capacity = Capacity { factor, order };
                options.capacity = Some(capacity);
                let logits = router.has_gate().then_some(&logits[..]);
                let expected = on_cpu(&options, shape, logits);
                let actual = on_device(gpu, &capacity, &router, &expected.selection, 0);
                check(
                    &format!("{name}: {router}, {factor}, {order:?}"),
                    &actual,
                    &expected,
                );
            }
        }
    }
}

#[test]
fn choices_of_two_digits_and_many_chunks() {
    for (name, gpu) in devices() {
        // 300 choices a token; and all of 1500 tokens on few experts.
        for (router, shape) in [(Router::Ensemble, (9, 300)), (Router::top_k(2), (1500, 3))] {
            let mut data = tollgate_testkit::Data::new(8);
            let logits: Vec<f32> = data.integers(shape.0 * shape.1, 2);
            for order in both_orders() {
                let capacity = Capacity { factor: 0.4, order };
                let mut options = GateOptions::new(router);
                options.capacity = Some(capacity);
                let logits = router.has_gate().then_some(&logits[..]);
                let expected = on_cpu(&options, shape, logits);
                let actual = on_device(gpu, &capacity, &router, &expected.selection, 0);
                check(&format!("{name}: {router}, {order:?}"), &actual, &expected);
            }
        }
    }
}

#[test]
fn bad_tables_are_reported() {
    let rows: Vec<Vec<(i32, f32)>> = (0..50).map(|t| vec![(t % 5, 0.5), (5, 0.25)]).collect();
    let sound = RoutingTable::from_rows(6, &rows).unwrap();
    for (name, gpu) in devices() {
        for order in both_orders() {
            let capacity = Capacity { factor: 0.5, order };
            let mut table = sound.clone();
            table.expert_indices[7] = 6;
            table.expert_indices[70] = -1;
            let outcome = on_device(gpu, &capacity, &Router::top_k(2), &table, 0);
            assert_eq!(outcome.status.faults, Faults::EXPERT_INDEX, "{name}");
            assert_eq!(outcome.status.first_bad_index, 7, "{name}");
            assert!(
                outcome
                    .table
                    .expert_indices
                    .iter()
                    .all(|e| (0..6).contains(e))
            );
            assert!(!outcome.kept.contains(&7) && !outcome.kept.contains(&70));
        }
        let mut table = sound.clone();
        table.token_offsets[10] = 1000;
        let capacity = Capacity {
            factor: 0.5,
            order: DropOrder::Position,
        };
        let outcome = on_device(gpu, &capacity, &Router::top_k(2), &table, 0);
        assert_eq!(outcome.status.faults, Faults::TOKEN_OFFSETS, "{name}");
        assert_eq!(outcome.status.first_bad_index, 9, "{name}");
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    let mut data = tollgate_testkit::Data::new(5);
    let logits: Vec<f32> = data.integers(40 * 4, 1);
    for order in both_orders() {
        let capacity = Capacity { factor: 0.5, order };
        let mut options = GateOptions::new(Router::top_k(2));
        options.capacity = Some(capacity);
        let expected = on_cpu(&options, (40, 4), Some(&logits));
        for seed in 0..50 {
            let gpu = seeded(seed);
            let actual = on_device(&gpu, &capacity, &Router::top_k(2), &expected.selection, 0);
            check("seeds", &actual, &expected);
        }
    }
}
