//! The gate on device memory: what the virtual GPU counts, and times where there is a CUDA device.
//!
//! Counters do not depend on the machine. Times are between two events a call, of all its launches,
//! after a warm-up, on random logits in sets that take turns beyond L2; the share is that of a copy on
//! the device of as many bytes as are needed, measured in the same run.

use tollgate::StepContext;
use tollgate::core::options::GateOptions;
use tollgate::device::{Buffer, DeviceSpec, Error, Gpu, LaunchCounters, Result, StepBlock, Stream};
use tollgate::gating::gpu::{self, DeviceGateInputs, DeviceGateState, GatePlan};
use tollgate_benches::data::normals;
use tollgate_benches::gpu::{LAUNCHES, copy_rate, counting, sets_beyond_l2, sum, timed};
use tollgate_benches::harness::Scale;
use tollgate_benches::shapes::GateShape;
use tollgate_benches::table::{median, time};

/// Prints both tables.
pub fn tables(scale: Scale) {
    counters(scale);
    if scale > Scale::Smoke
        && let Ok(gpu) = Gpu::open(DeviceSpec::Cuda(0))
    {
        times(&gpu).expect("shapes agree");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Forward,
    Backward,
}

/// A gate call's buffers in device memory; logits and their gradient in one set or several.
struct OnDevice {
    gpu: Gpu,
    stream: Stream,
    plan: GatePlan,
    step: Buffer<StepBlock>,
    state: Buffer<u8>,
    workspace: Buffer<u8>,
    dweights: Buffer<f32>,
    sets: Vec<[Buffer<f32>; 2]>,
}

/// The operations speak of arguments; here a wrong one is a mistake of this file.
fn told(error: tollgate::Error) -> Error {
    Error::Driver {
        call: "gate",
        reason: error.to_string(),
    }
}

impl OnDevice {
    fn new(gpu: &Gpu, router: &str, shape: GateShape, sets: usize) -> Result<Self> {
        let GateShape { tokens, experts } = shape;
        let options = GateOptions::new(router.parse().expect("a router's spelling"));
        let plan = GatePlan::new(&options, tokens, experts, true, false).map_err(told)?;
        let stream = gpu.stream()?;
        let ctx = StepContext::default();
        let step = StepBlock {
            seed: ctx.seed,
            layer: ctx.layer,
            step: ctx.step,
            pass: ctx.pass,
            first_token: ctx.first_token,
        };
        let set = |seed| -> Result<[Buffer<f32>; 2]> {
            let logits: Vec<f32> = normals(tokens * experts, 2.0, seed as u64);
            Ok([gpu.upload(&stream, &logits)?, gpu.alloc(logits.len())?])
        };
        let dweights: Vec<f32> = normals(plan.max_assignments(), 1.0, 99);
        let mut on_device = Self {
            gpu: gpu.clone(),
            step: gpu.upload(&stream, &[step])?,
            state: gpu.alloc(plan.state_bytes())?,
            workspace: gpu.alloc(plan.workspace_bytes())?,
            dweights: gpu.upload(&stream, &dweights)?,
            sets: (0..sets).map(set).collect::<Result<_>>()?,
            plan,
            stream,
        };
        // The backward pass follows its decisions.
        on_device.launch(Pass::Forward, 0)?;
        on_device.stream.synchronize()?;
        Ok(on_device)
    }

    /// Puts a pass over one of the sets into the stream.
    fn launch(&mut self, pass: Pass, set: usize) -> Result<()> {
        let (t, e) = (self.plan.num_tokens(), self.plan.num_experts());
        let count = self.sets.len();
        let [logits, dlogits] = &mut self.sets[set % count];
        let logits = logits.slice().rows("logits", t, e, e)?;
        let inputs = DeviceGateInputs::new(logits, self.step.slice());
        let mut state = DeviceGateState::new(&self.plan, self.state.slice_mut())?;
        let workspace = self.workspace.slice_mut();
        let (gpu, stream, plan) = (&self.gpu, &self.stream, &self.plan);
        match pass {
            Pass::Forward => gpu::gate(gpu, stream, plan, &inputs, &mut state, workspace),
            Pass::Backward => {
                let dlogits = dlogits.slice_mut().rows("dlogits", t, e, e)?;
                let dweights = self.dweights.slice();
                gpu::gate_backward(
                    gpu, stream, plan, &inputs, &state, dweights, dlogits, None, workspace,
                )
            }
        }
        .map_err(told)
    }

    /// Each tensor once. Where k varies the most that a token can have is counted.
    fn needed_bytes(&self, pass: Pass) -> usize {
        let (t, e) = (self.plan.num_tokens(), self.plan.num_experts());
        let table = 8 * self.plan.max_assignments() + 4 * (t + 1);
        match pass {
            // Logits in; the table, log-sum-exp, first choices, offsets and load of the experts out.
            Pass::Forward => 4 * t * e + table + 8 * t + 4 * (e + 1) + 8 * e,
            // Logits, experts and gradients of the weights, offsets, log-sum-exp and load in.
            Pass::Backward => 8 * t * e + table + 4 * t + 8 * e,
        }
    }
}

/// What the virtual GPU counts of a call.
fn counters(scale: Scale) {
    println!(
        "Virtual GPU, f32 (router, T x E): counted, the same on every machine\n\
         {:<30} {:>12} {:>12} {:>6} {:>9} {:>6} {:>6} {:>10}",
        "call", "moved", "needed", "ratio", "B/access", "banks", "local", "inst/token"
    );
    let gpu = counting();
    // Sums over blocks of tokens are a part of the bytes that depends on T: what is moved beyond the
    // needed is that of T only at T itself.
    for (router, tokens, experts) in [
        ("top1", 65_536, 64),
        ("topk:8", 65_536, 64),
        ("top2", 65_536, 128),
        ("top1", 65_536, 256),
        ("top2", 65_536, 256),
        ("topk:8", 65_536, 256),
        ("topk:8", 512, 256),
        ("adaptive:0.1", 4096, 64),
        ("sigmoid:8", 4096, 64),
        ("grouped:8:8:4", 4096, 256),
    ] {
        let tokens = match scale {
            Scale::Smoke => 64,
            _ => tokens,
        };
        count(&gpu, router, GateShape { tokens, experts }).expect("shapes agree");
    }
    println!();
}

fn count(gpu: &Gpu, router: &str, shape: GateShape) -> Result<()> {
    let mut on_device = OnDevice::new(gpu, router, shape, 1)?;
    for pass in [Pass::Forward, Pass::Backward] {
        gpu.take_launches();
        on_device.launch(pass, 0)?;
        on_device.stream.synchronize()?;
        let launches = gpu.take_launches();
        let moved = sum(&launches, LaunchCounters::moved_bytes);
        let needed = on_device.needed_bytes(pass);
        let accesses = sum(&launches, |c| c.global_instructions) as f64;
        println!(
            "{:<30} {moved:>12} {needed:>12} {:>6.3} {:>9.0} {:>6} {:>6} {:>10.0}",
            name(pass, router, shape),
            moved as f64 / needed as f64,
            sum(&launches, |c| c.requested_bytes) as f64 / accesses,
            sum(&launches, |c| c.bank_conflicts),
            sum(&launches, |c| c.local_sectors),
            sum(&launches, |c| c.warp_instructions) as f64 / shape.tokens as f64,
        );
    }
    Ok(())
}

fn name(pass: Pass, router: &str, shape: GateShape) -> String {
    let pass = match pass {
        Pass::Forward => "gate",
        Pass::Backward => "back",
    };
    format!("{pass} {router} {}", shape.name())
}

/// Times on a CUDA device.
fn times(gpu: &Gpu) -> Result<()> {
    let copied = copy_rate(gpu)?;
    println!(
        "{}, f32 (router, T x E): time by events, {LAUNCHES} calls; a copy on the device moves {:.0} \
         GB/s\n{:<30} {:>10} {:>10} {:>9} {:>8}",
        gpu.facts().name,
        copied / 1e9,
        "call",
        "median",
        "best",
        "GB/s",
        "of copy"
    );
    for (router, tokens, experts) in [
        ("topk:8", 512, 256),
        ("top1", 65_536, 256),
        ("top2", 65_536, 256),
        ("topk:8", 65_536, 256),
        ("topk:8", 65_536, 64),
        ("adaptive:0.1", 65_536, 64),
        ("grouped:8:8:4", 65_536, 256),
    ] {
        let shape = GateShape { tokens, experts };
        let sets = sets_beyond_l2(gpu, 8 * tokens * experts);
        let mut on_device = OnDevice::new(gpu, router, shape, sets)?;
        for pass in [Pass::Forward, Pass::Backward] {
            let stream = on_device.stream.clone();
            let seconds = timed(&stream, |set| on_device.launch(pass, set))?;
            let rate = on_device.needed_bytes(pass) as f64 / median(&seconds);
            let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "{:<30} {:>10} {:>10} {:>9.0} {:>7.0}%",
                name(pass, router, shape),
                time(median(&seconds)),
                time(best),
                rate / 1e9,
                100.0 * rate / copied
            );
        }
    }
    println!();
    Ok(())
}
