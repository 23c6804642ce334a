//! JSON. Numbers that are not finite become null, as JSON has none.

use std::collections::BTreeMap;

use serde::Serialize;
use tollgate::Element;

use super::variation;
use crate::args::Upcycle;
use crate::compare::Comparison;
use crate::curriculum::Order;
use crate::run::Run;

/// The report of `tollgate run`; the keys before `errors` are what programs may rely on.
#[derive(Serialize)]
struct Report<'a> {
    router: String,
    dtype: &'static str,
    tokens: usize,
    experts: usize,
    assignments: usize,
    tokens_per_expert: Vec<usize>,
    routing: Routing,
    losses: Losses,
    stages: Vec<Stage>,
    max_rel_error_vs_reference: Option<f64>,
    total_ms: Option<f64>,
    errors: Option<BTreeMap<&'static str, f64>>,
    routing_differs: Option<usize>,
    steps: u32,
    dropped_steps: usize,
    step_ms: StepTimes,
    backward: bool,
    training: bool,
    seed: u64,
    threads: usize,
    device: String,
    /// Its name, of a GPU.
    device_name: Option<&'a str>,
    hidden: usize,
    intermediate: usize,
    activation: &'static str,
    gated: bool,
    input: Input<'a>,
    options: Options,
    #[serde(skip_serializing_if = "Option::is_none")]
    pair: Option<Pair>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Routing {
    one_expert_share: f64,
    two_expert_share: f64,
    no_expert_share: f64,
    load_variation: f64,
    dropped_assignments: usize,
    faulty_rows: usize,
}

#[derive(Serialize)]
struct Losses {
    balance: f64,
    z: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    consistency: Option<f64>,
}

/// Times are null where the device counts instead.
#[derive(Serialize)]
struct Stage {
    name: &'static str,
    ms: Option<f64>,
    /// null where a stage only moves or compares.
    gflops: Option<f64>,
    gbytes_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<StageCounts>,
}

/// What the kernels of a stage did on the virtual GPU.
#[derive(Serialize)]
struct StageCounts {
    launches: usize,
    warp_instructions: u64,
    moved_bytes: u64,
    /// Of the tensors, each once.
    needed_bytes: f64,
    bank_conflicts: u64,
    local_sectors: u64,
}

#[derive(Serialize)]
struct StepTimes {
    min: Option<f64>,
    median: Option<f64>,
}

#[derive(Serialize)]
struct Input<'a> {
    layer: &'a str,
    tokens: &'a str,
    upcycle: Option<&'static str>,
    upcycle_seed: Option<u32>,
    sigma: Option<f64>,
}

#[derive(Serialize)]
struct Options {
    gap: &'static str,
    weights: &'static str,
    weight_scale: Option<f64>,
    balance_over: &'static str,
    balance_alpha: Option<f64>,
    z_coefficient: Option<f64>,
    jitter: Option<f64>,
    capacity: Option<Capacity>,
    gating_dropout: Option<Dropout>,
}

#[derive(Serialize)]
struct Capacity {
    factor: Option<f64>,
    drop_order: &'static str,
}

#[derive(Serialize)]
struct Dropout {
    probability: Option<f64>,
    mode: &'static str,
    local_choice: &'static str,
    local_weight: &'static str,
    aux_loss: &'static str,
    granularity: &'static str,
    local_experts: [usize; 2],
    /// What the step described here did; null if it was not dropped.
    dropped: Option<&'static str>,
}

/// What the two passes drew; null where a pass drew several experts.
#[derive(Serialize)]
struct Pair {
    experts: [Option<usize>; 2],
    consistency_alpha: Option<f64>,
}

/// An f32 as the number that the user wrote, not as its widened value: 0.1, not 0.100000001.
fn decimal(value: f32) -> Option<f64> {
    value.to_string().parse().ok()
}

/// A time, where there is one.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Pretty-printed, with a line end.
fn print(value: &impl Serialize) -> String {
    // Maps with string keys and numbers: there is nothing that could fail to serialise.
    let text = serde_json::to_string_pretty(value);
    text.unwrap_or_else(|e| format!("{{ \"error\": {:?} }}", e.to_string())) + "\n"
}

/// The report of `tollgate run`.
pub fn run<T: Element>(run: &Run<'_, T>) -> String {
    let (args, problem, seen) = (run.args, run.problem, run.seen);
    let (model, table, times) = (problem.model, &seen.gate.table, run.times);
    let tokens = table.num_tokens();
    let share = |k: usize| table.tokens_with(k) as f64 / tokens.max(1) as f64;
    let noise = model.upcycle == Some(Upcycle::Noise);
    let counts = |name: &str| {
        let all = times.counted.as_deref()?;
        all.iter().find(|c| c.stage == name)
    };
    let stages = times.trace.stages.iter().map(|s| Stage {
        name: s.name,
        ms: finite(1e3 * s.seconds),
        gflops: finite(s.flops / s.seconds / 1e9).filter(|_| s.flops > 0.0),
        gbytes_per_s: finite(s.bytes / s.seconds / 1e9),
        counted: counts(s.name).map(|c| StageCounts {
            launches: c.launches,
            warp_instructions: c.counters.warp_instructions,
            moved_bytes: c.counters.moved_bytes(),
            needed_bytes: s.bytes,
            bank_conflicts: c.counters.bank_conflicts,
            local_sectors: c.counters.local_sectors,
        }),
    });
    print(&Report {
        router: args.router.to_string(),
        dtype: T::DTYPE.name(),
        tokens,
        experts: model.experts,
        assignments: table.num_assignments(),
        tokens_per_expert: table.counts(),
        routing: Routing {
            one_expert_share: share(1),
            two_expert_share: share(2),
            no_expert_share: share(0),
            load_variation: variation(&table.counts()),
            dropped_assignments: seen.trace.dropped_assignments,
            faulty_rows: seen.trace.status.faulty_rows,
        },
        losses: Losses {
            balance: seen.gate.losses.balance,
            z: seen.gate.losses.z,
            consistency: run.pair.map(|pair| pair.consistency),
        },
        stages: stages.collect(),
        max_rel_error_vs_reference: run.agreement.map(|a| a.largest()),
        total_ms: finite(1e3 * times.last()),
        errors: run.agreement.map(|a| a.errors.iter().copied().collect()),
        routing_differs: run.agreement.map(|a| a.routing_differs),
        steps: args.steps,
        dropped_steps: times.dropped,
        step_ms: StepTimes {
            min: finite(1e3 * times.min()),
            median: finite(1e3 * times.median()),
        },
        backward: args.backward,
        training: !args.inference,
        seed: args.execution.seed,
        threads: problem.layer.device().threads(),
        device: args.device.device.to_string(),
        device_name: run.gpu,
        hidden: model.hidden,
        intermediate: model.intermediate,
        activation: model.activation.name(),
        gated: model.gated,
        input: Input {
            layer: &model.origin,
            tokens: &problem.tokens.origin,
            upcycle: model.upcycle.map(|how| how.name()),
            upcycle_seed: noise.then(|| args.input.upcycle_seed()),
            sigma: noise.then(|| args.input.sigma()),
        },
        options: options(run),
        pair: run.pair.map(|pair| Pair {
            experts: [table.sole_expert(), pair.table.sole_expert()],
            consistency_alpha: decimal(crate::pair::ALPHA),
        }),
        notes: run.notes,
    })
}

/// The gate's options in force.
fn options<T: Element>(run: &Run<'_, T>) -> Options {
    let options = run.problem.options();
    let local = run
        .args
        .gate
        .local_experts
        .clone()
        .unwrap_or(0..run.problem.model.experts);
    Options {
        gap: options.gap.name(),
        weights: options.weights().name(),
        weight_scale: decimal(options.weight_scale),
        balance_over: options.balance_over().name(),
        balance_alpha: decimal(options.balance_alpha),
        z_coefficient: decimal(options.z_coefficient),
        jitter: decimal(options.jitter),
        capacity: options.capacity.map(|c| Capacity {
            factor: decimal(c.factor),
            drop_order: c.order.name(),
        }),
        gating_dropout: options.gating_dropout.map(|d| Dropout {
            probability: decimal(d.probability),
            mode: d.mode.name(),
            local_choice: d.local_choice.name(),
            local_weight: d.local_weight.name(),
            aux_loss: d.aux_loss.name(),
            granularity: d.granularity.name(),
            local_experts: [local.start, local.end],
            dropped: run.seen.trace.dropped.map(|mode| mode.name()),
        }),
    }
}

/// The table of `tollgate compare`.
pub fn comparison(comparison: &Comparison) -> String {
    print(comparison)
}

/// The order of `tollgate curriculum`.
pub fn order(order: &Order) -> String {
    print(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_null_and_decimals_are_short() {
        let text = print(&[f64::NAN, f64::INFINITY, 0.5]);
        assert_eq!(
            text.split_whitespace().collect::<String>(),
            "[null,null,0.5]"
        );
        assert_eq!(decimal(0.1), Some(0.1));
    }
}
