//! What the kernels move, counted by the virtual GPU: no more than they must, in whole lines,
//! without bank conflicts or local memory. `--nocapture` prints the figures.

use tollgate_core::options::{Capacity, DropOrder, GateOptions, StochasticPer};
use tollgate_core::{Router, RoutingTable};
use tollgate_device::{DeviceRoutingTable, Gpu, LaunchRecord, VirtualOptions, WorkspaceLayout};
use tollgate_gating::gpu::capacity::{CapacityPlan, limit};
use tollgate_gating::gpu::expert_choice::{Choice, ChoicePlan};
use tollgate_gating::gpu::table::{FinishPlan, TableMut, finish};
use tollgate_gating::gpu::ungated::{UngatedInputs, UngatedPlan};
use tollgate_gating::gpu::{consistency, expert_choice, jitter, noise, ungated};
use tollgate_testkit::Data;

use crate::support::{Fenced, clear_status, some_context, step_block, workspace, workspace_memory};

/// A virtual GPU without checks, which counts all the same.
fn counting() -> Gpu {
    let options = VirtualOptions {
        checks: false,
        threads: 2,
        ..VirtualOptions::default()
    };
    Gpu::virtual_gpu(&options).unwrap()
}

/// What was launched since the last call; none of it with bank conflicts or local memory.
fn launches(gpu: &Gpu) -> Vec<LaunchRecord> {
    gpu.default_stream().synchronize().unwrap();
    let launches = gpu.take_launches();
    for launch in &launches {
        let c = &launch.counters;
        println!(
            "{:26} blocks {:6} moved {:10} requested {:10} warp instructions {:9} conflicts {}",
            launch.kernel,
            launch.grid[0],
            c.moved_bytes(),
            c.requested_bytes,
            c.warp_instructions,
            c.bank_conflicts
        );
        assert_eq!(c.local_sectors, 0, "{}", launch.kernel);
        // Where experts are counted as they come, it is they who decide about the banks.
        let counts = launch.kernel == "tg_count_experts";
        assert!(c.bank_conflicts == 0 || counts, "{}", launch.kernel);
    }
    launches
}

fn moved(launches: &[LaunchRecord]) -> f64 {
    launches
        .iter()
        .map(|l| l.counters.moved_bytes() as f64)
        .sum()
}

#[track_caller]
fn at_most(what: &str, moved: f64, needed: usize, ratio: f64) {
    let actual = moved / needed as f64;
    println!("{what}: {actual:.3} of the bytes needed");
    assert!(
        actual <= ratio,
        "{what}: {moved} bytes moved, {needed} needed"
    );
}

#[test]
fn elementwise_kernels_move_every_byte_once() {
    let gpu = &counting();
    let (stream, (t, e)) = (gpu.default_stream(), (512, 64));
    let step = gpu.upload(stream, &[step_block(&some_context())]).unwrap();
    let x: Vec<f32> = Data::new(1).normals(t * e, 1.0);
    let z = gpu.upload(stream, &x).unwrap();
    let mut out = [0; 2].map(|_| gpu.alloc::<f32>(t * e).unwrap());
    let mut faults = gpu.alloc::<u32>(t).unwrap();
    let rows = z.slice().rows("z", t, e, e).unwrap();
    let [noise, noisy] = &mut out;
    let problem = noise::Noise {
        step: step.slice(),
        logits: rows,
        noise_logits: rows,
        noise: noise.slice_mut(),
        noisy_logits: noisy.slice_mut(),
        row_faults: faults.slice_mut(),
    };
    noise::add(gpu, stream, problem).unwrap();
    at_most("noise", moved(&launches(gpu)), 16 * t * e, 1.02);

    let [a, b] = &mut out;
    let to = b.slice_mut().rows("b", t, e, e).unwrap();
    noise::backward(gpu, stream, rows, a.slice(), rows, to).unwrap();
    at_most("noise backward", moved(&launches(gpu)), 16 * t * e, 1.02);

    let to = b.slice_mut().rows("b", t, e, e).unwrap();
    jitter::apply(gpu, stream, 0.01, step.slice(), rows, to).unwrap();
    at_most("jitter of f32", moved(&launches(gpu)), 8 * t * e, 1.02);
    let half: Vec<half::bf16> = x.iter().map(|&v| half::bf16::from_f32(v)).collect();
    let half = gpu.upload(stream, &half).unwrap();
    let rows = half.slice().rows("half", t, e, e).unwrap();
    let to = b.slice_mut().rows("b", t, e, e).unwrap();
    jitter::apply(gpu, stream, 0.01, step.slice(), rows, to).unwrap();
    at_most("jitter of bf16", moved(&launches(gpu)), 6 * t * e, 1.02);
}

#[test]
fn rows_of_the_consistency_loss_wait_in_shared_memory() {
    let gpu = &counting();
    let stream = gpu.default_stream();
    for (n, v) in [(64, 256), (4, 4096)] {
        let x: Vec<f32> = Data::new(4).normals(n * v, 1.0);
        let a = gpu.upload(stream, &x).unwrap();
        let mut gradients = [0; 2].map(|_| gpu.alloc::<f32>(n * v).unwrap());
        let [da, db] = &mut gradients;
        let mut loss = gpu.alloc::<f64>(1).unwrap();
        let bytes = consistency::workspace_bytes(n).unwrap();
        let mut workspace = gpu.alloc::<u8>(bytes).unwrap();
        let rows = a.slice().rows("a", n, v, v).unwrap();
        let problem = consistency::Consistency {
            a: rows,
            b: rows,
            padding: None,
            alpha: 1.0,
            da: da.slice_mut().rows("da", n, v, v).unwrap(),
            db: db.slice_mut().rows("db", n, v, v).unwrap(),
            loss: loss.slice_mut(),
        };
        consistency::run(gpu, stream, problem, workspace.slice_mut()).unwrap();
        at_most("consistency", moved(&launches(gpu)), 16 * n * v, 1.02);
    }
}

/// Arrays of a table.
struct Arrays {
    token_offsets: Fenced<i32>,
    expert_indices: Fenced<i32>,
    routing_weights: Fenced<f32>,
    expert_offsets: Fenced<i32>,
}

impl Arrays {
    fn new(gpu: &Gpu, tokens: usize, experts: usize, most: usize) -> Self {
        Self {
            token_offsets: Fenced::new(gpu, tokens + 1, 0),
            expert_indices: Fenced::new(gpu, most, 0),
            routing_weights: Fenced::new(gpu, most, 0),
            expert_offsets: Fenced::new(gpu, experts + 1, 0),
        }
    }

    fn table(&mut self) -> TableMut<'_> {
        TableMut {
            token_offsets: self.token_offsets.get_mut(),
            expert_indices: self.expert_indices.get_mut(),
            routing_weights: self.routing_weights.get_mut(),
            expert_offsets: self.expert_offsets.get_mut(),
        }
    }
}

#[test]
fn draws_store_sixteen_bytes_at_a_time() {
    let gpu = &counting();
    let (stream, (t, e)) = (gpu.default_stream(), (16_384, 64));
    let step = gpu.upload(stream, &[step_block(&some_context())]).unwrap();
    let mut status = clear_status(gpu);
    let options = GateOptions::new(Router::Stochastic {
        per: StochasticPer::Token,
    });
    let mut layout = WorkspaceLayout::new();
    let plan = UngatedPlan::new(&mut layout, &options, t, e).unwrap();
    let mut memory = workspace_memory(gpu, &layout);
    let workspace = workspace(&mut memory, &layout);
    let mut arrays = Arrays::new(gpu, t, e, t);
    let inputs = UngatedInputs {
        step: step.slice(),
        token_ids: None,
        hash_table: None,
        sequence_offsets: None,
        status: status.slice_mut(),
    };
    ungated::run(gpu, stream, &plan, &inputs, &workspace, &mut arrays.table()).unwrap();
    let launches = launches(gpu);
    let draw = &launches[0].counters;
    // The step block is read once a warp, in three loads of a sector each.
    let warps = t / 4 / 32;
    at_most("draws", moved(&launches[..1]), 8 * t + warps * 96, 1.0);
    // Two stores and three loads.
    assert_eq!(draw.global_instructions, 5 * warps as u64);
}

#[test]
fn a_table_costs_little_beside_a_gate() {
    let gpu = &counting();
    let stream = gpu.default_stream();
    for (t, e, k, per_block, direct) in [
        (65_536, 64, 1, 256, true),
        (65_536, 256, 8, 256, true),
        (4096, 256, 8, 16, true),
        (65_536, 16, 2, 256, false),
    ] {
        let mut layout = WorkspaceLayout::new();
        let plan = FinishPlan::new(&mut layout, t, e, k, per_block, direct).unwrap();
        let mut memory = workspace_memory(gpu, &layout);
        let workspace = workspace(&mut memory, &layout);
        let mut arrays = Arrays::new(gpu, t, e, t * k);
        let counts = vec![(per_block * k) as i32; t / per_block];
        stream
            .write(workspace.array(plan.block_counts).unwrap(), &counts)
            .unwrap();
        let histogram = vec![(per_block * k / e) as i32; t / per_block * e];
        stream
            .write(workspace.array(plan.block_histogram).unwrap(), &histogram)
            .unwrap();
        if !direct {
            stream
                .fill(workspace.array(plan.slot_experts).unwrap(), 0)
                .unwrap();
            stream
                .fill(workspace.array(plan.slot_weights).unwrap(), 0)
                .unwrap();
        }
        finish(gpu, stream, &plan, &workspace, None, &mut arrays.table()).unwrap();
        let moved = moved(&launches(gpu));
        let gate = 4 * t * e;
        println!(
            "{t} × {e}, k = {k}: {:.4} of the logits' bytes",
            moved / gate as f64
        );
        // Offsets, histograms, and where assignments are moved both ways of them.
        let slots = if direct { 0 } else { 16 * t * k };
        let needed = 4 * (t + 1) + 4 * histogram.len() + 4 * (e + 1) + slots;
        at_most("table", moved, needed, 1.35);
    }
}

#[test]
fn columns_are_read_in_whole_lines() {
    let gpu = &counting();
    let (stream, (t, e)) = (gpu.default_stream(), (4096, 64));
    let options = GateOptions::new("expert-choice:2x".parse().unwrap());
    let logits: Vec<f32> = Data::new(2).normals(t * e, 1.0);
    let scores: Vec<f32> = logits.iter().map(|z| (z - 6.0).exp()).collect();
    let mut layout = WorkspaceLayout::new();
    let plan = ChoicePlan::new(&mut layout, t, e, 2 * t / e).unwrap();
    let finish = FinishPlan::new(&mut layout, t, e, e, 64, true).unwrap();
    let mut memory = workspace_memory(gpu, &layout);
    let workspace = workspace(&mut memory, &layout);
    let logits = gpu.upload(stream, &logits).unwrap();
    let scores = gpu.upload(stream, &scores).unwrap();
    let mut arrays = Arrays::new(gpu, t, e, t * e);
    let choice = Choice {
        options: &options,
        logits: logits.slice().rows("logits", t, e, e).unwrap(),
        scores: scores.slice(),
        local: None,
    };
    let table = &mut arrays.table();
    expert_choice::run(
        gpu, stream, &plan, &finish, &choice, &workspace, None, table,
    )
    .unwrap();
    for launch in launches(gpu) {
        let c = &launch.counters;
        if launch.kernel == "tg_choice_count" {
            assert!(
                c.read_bytes <= (4 * t * e) as u64 * 21 / 20,
                "{}",
                c.read_bytes
            );
        }
    }
}

#[test]
fn capacity_is_linear_in_the_assignments() {
    let gpu = &counting();
    let (stream, (t, e)) = (gpu.default_stream(), (4096, 64));
    let router = Router::top_k(2);
    let mut data = Data::new(3);
    let rows: Vec<Vec<(i32, f32)>> = (0..t)
        .map(|_| {
            let first = data.below(e);
            let second = (first + 1 + data.below(e - 1)) % e;
            [first, second]
                .map(|e| (e as i32, data.uniform() as f32))
                .to_vec()
        })
        .collect();
    let selection = RoutingTable::from_rows(e, &rows).unwrap();
    for order in [DropOrder::Position, DropOrder::Probability] {
        let capacity = Capacity { factor: 1.0, order };
        let mut layout = WorkspaceLayout::new();
        let plan = CapacityPlan::new(&mut layout, &capacity, &router, t, e).unwrap();
        let mut memory = workspace_memory(gpu, &layout);
        let workspace = workspace(&mut memory, &layout);
        let token_offsets = gpu.upload(stream, &selection.token_offsets).unwrap();
        let indices = gpu.upload(stream, &selection.expert_indices).unwrap();
        let weights = gpu.upload(stream, &selection.routing_weights).unwrap();
        let expert_offsets = gpu.upload(stream, &selection.expert_offsets).unwrap();
        let of_selection = DeviceRoutingTable {
            num_tokens: t,
            num_experts: e,
            max_assignments: 2 * t,
            token_offsets: token_offsets.slice(),
            expert_indices: indices.slice(),
            routing_weights: weights.slice(),
            expert_offsets: expert_offsets.slice(),
        };
        let mut status = clear_status(gpu);
        let mut arrays = Arrays::new(gpu, t, e, 2 * t);
        let mut kept = Fenced::<i32>::new(gpu, 2 * t, 0);
        limit(
            gpu,
            stream,
            &plan,
            &of_selection,
            &mut status.slice_mut(),
            &workspace,
            &mut arrays.table(),
            &mut kept.get_mut(),
        )
        .unwrap();
        println!(
            "{order:?}: {:.0} bytes an assignment",
            moved(&launches(gpu)) / (2 * t) as f64
        );
    }
}
