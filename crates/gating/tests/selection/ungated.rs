//! Routers without a gate: bit by bit what the CPU draws.

use tollgate_core::options::{GateOptions, StochasticPer};
use tollgate_core::{Cpu, Router, RoutingTable, StepContext};
use tollgate_device::testing::devices;
use tollgate_device::{Faults, Gpu, StatusBlock, WorkspaceLayout};
use tollgate_gating::gpu::table::TableMut;
use tollgate_gating::gpu::ungated::{UngatedInputs, UngatedPlan, run};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Data, assert_same};

use crate::support::{
    Fenced, clear_status, seeded, some_context, step_block, workspace, workspace_memory,
};

#[derive(Debug, Clone, Default)]
struct Host {
    ids: Vec<i32>,
    table: Option<Vec<i32>>,
    sequences: Vec<i32>,
}

/// What the device makes of it, for each of the contexts with one captured graph.
fn on_device(
    gpu: &Gpu,
    options: &GateOptions,
    tokens: usize,
    experts: usize,
    host: &Host,
    contexts: &[StepContext],
    misalign: usize,
) -> (Vec<RoutingTable>, StatusBlock) {
    let stream = gpu.default_stream();
    let mut layout = WorkspaceLayout::new();
    let plan = UngatedPlan::new(&mut layout, options, tokens, experts).unwrap();
    let k = options.router.max_experts_per_token(experts);
    let mut memory = workspace_memory(gpu, &layout);
    let workspace = workspace(&mut memory, &layout);
    let ids = Fenced::from_slice(gpu, &host.ids, misalign);
    let hash_table = host
        .table
        .as_ref()
        .map(|t| Fenced::from_slice(gpu, t, misalign));
    let sequences = Fenced::from_slice(gpu, &host.sequences, misalign);
    let mut step = gpu.upload(stream, &[step_block(&contexts[0])]).unwrap();
    let mut status = clear_status(gpu);
    let mut token_offsets = Fenced::<i32>::new(gpu, tokens + 1, misalign);
    let mut indices = Fenced::<i32>::new(gpu, tokens * k, misalign);
    let mut weights = Fenced::<f32>::new(gpu, tokens * k, misalign);
    let mut expert_offsets = Fenced::<i32>::new(gpu, experts + 1, misalign);
    stream.synchronize().unwrap();
    let capturing = gpu.stream().unwrap();
    let step_view = step.slice();
    let graph = capturing
        .capture(|stream| {
            let inputs = UngatedInputs {
                step: step_view,
                token_ids: Some(ids.get()),
                hash_table: hash_table.as_ref().map(Fenced::get),
                sequence_offsets: Some(sequences.get()),
                status: status.slice_mut(),
            };
            let mut table = TableMut {
                token_offsets: token_offsets.get_mut(),
                expert_indices: indices.get_mut(),
                routing_weights: weights.get_mut(),
                expert_offsets: expert_offsets.get_mut(),
            };
            run(gpu, stream, &plan, &inputs, &workspace, &mut table)
        })
        .unwrap();
    let tables = contexts
        .iter()
        .map(|ctx| {
            step.write(stream, &[step_block(ctx)]).unwrap();
            graph.launch(stream).unwrap();
            stream.synchronize().unwrap();
            RoutingTable {
                token_offsets: token_offsets.read(stream),
                expert_indices: indices.read(stream),
                routing_weights: weights.read(stream),
                expert_offsets: expert_offsets.read(stream),
            }
        })
        .collect();
    (tables, status.read(stream).unwrap()[0])
}

fn on_cpu(
    options: &GateOptions,
    tokens: usize,
    experts: usize,
    host: &Host,
    ctx: &StepContext,
) -> RoutingTable {
    let inputs = GateInputs {
        token_ids: Some(&host.ids),
        hash_table: host.table.as_deref(),
        sequence_offsets: Some(&host.sequences),
        ..GateInputs::without_logits(tokens, experts)
    };
    let mut state = GateState::default();
    Cpu::new(1)
        .unwrap()
        .gate(&inputs, options, ctx, &mut state)
        .unwrap();
    state.selection
}

#[track_caller]
fn same_table(what: &str, actual: &RoutingTable, expected: &RoutingTable) {
    assert_same(what, &actual.token_offsets, &expected.token_offsets);
    assert_same(what, &actual.expert_indices, &expected.expert_indices);
    assert_same(what, &actual.routing_weights, &expected.routing_weights);
    assert_same(what, &actual.expert_offsets, &expected.expert_offsets);
}

fn routers() -> Vec<(Router, bool)> {
    let thor = |per| (Router::Stochastic { per }, false);
    vec![
        (Router::Hash, true),
        (Router::Hash, false),
        thor(StochasticPer::Batch),
        thor(StochasticPer::Sentence),
        thor(StochasticPer::Token),
        (Router::Ensemble, false),
    ]
}

/// Token ids below `vocabulary`, a table, and sequences of 0 to 6 tokens.
fn host(tokens: usize, experts: usize, vocabulary: usize, table: bool) -> Host {
    let mut data = Data::new(tokens as u64);
    let mut sequences = vec![0];
    let mut end = 0;
    while end < tokens {
        end = (end + data.below(7)).min(tokens);
        sequences.push(end as i32);
    }
    Host {
        ids: (0..tokens).map(|_| data.below(vocabulary) as i32).collect(),
        table: table.then(|| {
            (0..vocabulary)
                .map(|_| data.below(experts) as i32)
                .collect()
        }),
        sequences,
    }
}

#[test]
fn tables_have_the_bits_of_the_cpu() {
    for (name, gpu) in devices() {
        for (router, with_table) in routers() {
            for (tokens, experts) in [(0, 3), (1, 1), (5, 4), (263, 7), (1030, 40), (65, 5000)] {
                let mut options = GateOptions::new(router);
                options.weight_scale = 2.5;
                let host = host(tokens, experts, 50, with_table);
                let first = some_context();
                let wrapped = StepContext {
                    step: 18,
                    pass: 0,
                    first_token: u32::MAX - 3,
                    ..first
                };
                let what = format!("{name}: {router} {with_table}, {tokens} × {experts}");
                for misalign in [0, tokens % 4] {
                    let contexts = [first, wrapped];
                    let (tables, status) =
                        on_device(gpu, &options, tokens, experts, &host, &contexts, misalign);
                    for (ctx, table) in contexts.iter().zip(&tables) {
                        same_table(&what, table, &on_cpu(&options, tokens, experts, &host, ctx));
                    }
                    assert_eq!(status, StatusBlock::CLEAR, "{what}");
                }
            }
        }
    }
}

#[test]
fn bad_indices_are_reported_and_seen_downstream() {
    for (name, gpu) in devices() {
        let ctx = [some_context()];
        let (tokens, experts) = (40, 6);
        let thor = Router::Stochastic {
            per: StochasticPer::Sentence,
        };
        let sound = host(tokens, experts, 20, true);
        let mut cases = Vec::new();
        // Negative, and where there is a table also too large.
        for (position, id, table) in [(7, -1, false), (8, i32::MIN, true), (9, 20, true)] {
            let mut host = sound.clone();
            host.ids[position] = id;
            host.ids[position + 20] = id;
            host.table = host.table.filter(|_| table);
            let bad = [position, position + 20];
            cases.push((Router::Hash, host, Faults::TOKEN_ID, bad.to_vec()));
        }
        // A table that names no expert.
        let mut host = sound.clone();
        host.table.as_mut().unwrap()[host.ids[3] as usize] = experts as i32;
        let bad = (0..tokens)
            .filter(|&t| host.ids[t] == host.ids[3])
            .collect();
        cases.push((Router::Hash, host, Faults::EXPERT_INDEX, bad));
        // Sequences that leave tokens out.
        let mut host = sound;
        host.sequences = vec![2, 10, 30];
        let bad = (0..2).chain(30..tokens).collect();
        cases.push((thor, host, Faults::TOKEN_OFFSETS, bad));
        for (router, host, fault, bad) in cases {
            let options = GateOptions::new(router);
            let (tables, status) = on_device(gpu, &options, tokens, experts, &host, &ctx, 0);
            let table = &tables[0];
            table.validate().unwrap();
            assert_eq!(status.faults, fault, "{name}: {router}");
            let position = match fault {
                Faults::EXPERT_INDEX => host.ids[3] as u32,
                _ => bad[0] as u32,
            };
            assert_eq!(status.first_bad_index, position, "{name}: {router}");
            for t in 0..tokens {
                assert_eq!(
                    table.routing_weights[t].is_nan(),
                    bad.contains(&t),
                    "{router} {t}"
                );
                assert!(!bad.contains(&t) || table.expert_indices[t] == 0);
            }
        }
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    for (router, with_table) in routers() {
        let options = GateOptions::new(router);
        let host = host(70, 5, 9, with_table);
        let ctx = [some_context()];
        let expected = on_cpu(&options, 70, 5, &host, &ctx[0]);
        for seed in 0..50 {
            let (tables, _) = on_device(&seeded(seed), &options, 70, 5, &host, &ctx, 0);
            same_table(&router.to_string(), &tables[0], &expected);
        }
    }
}
