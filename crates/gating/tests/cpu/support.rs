//! Inputs of a case, every combination of options, and comparison bit by bit.

use std::sync::LazyLock;

use tollgate_core::options::{
    AuxLoss, BalanceOver, Gap, GateOptions, GatingDropout, LocalChoice, LocalWeight, Scores,
    Weights,
};
use tollgate_core::{Cpu, DropMode, Router, RoutingTable, RowView, StepContext};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Case, assert_same, gate_cases};

/// The case's f32 logits with everything that any router may ask for.
pub struct Tensors {
    pub tokens: usize,
    pub experts: usize,
    pub logits: Vec<f32>,
    pub noise: Vec<f32>,
    pub bias: Vec<f32>,
    pub ids: Vec<i32>,
    pub hash_table: Vec<i32>,
    pub sequences: Vec<i32>,
}

impl Tensors {
    pub fn new(case: &Case) -> Self {
        let (tokens, experts) = (case.tokens, case.experts);
        let mut data = case.data(3);
        let ids = (0..tokens).map(|_| data.below(50) as i32).collect();
        // An empty sequence, one token, a third, the rest.
        let mut sequences = [0, 0, 1.min(tokens), tokens / 3, tokens];
        sequences.sort_unstable();
        Self {
            tokens,
            experts,
            logits: case.router_logits(),
            noise: data.normals(tokens * experts, 1.0),
            bias: data.normals(experts, 0.2),
            ids,
            hash_table: (0..50).map(|i| (i * 7 % experts) as i32).collect(),
            sequences: sequences.iter().map(|&o| o as i32).collect(),
        }
    }

    /// Inputs for `router`; a selection bias where `biased`, for routers that take one.
    pub fn inputs(&self, router: &Router, biased: bool) -> GateInputs<'_> {
        let view = |v| RowView::new(v, self.tokens, self.experts).unwrap();
        let takes_bias = matches!(
            router,
            Router::TopK {
                scores: Scores::Sigmoid,
                ..
            } | Router::Grouped { .. }
        );
        let noisy = matches!(router, Router::Noisy { .. });
        GateInputs {
            noise_logits: noisy.then(|| view(&self.noise)),
            selection_bias: (biased && takes_bias).then_some(&self.bias[..]),
            token_ids: Some(&self.ids),
            hash_table: biased.then_some(&self.hash_table[..]),
            sequence_offsets: Some(&self.sequences),
            local_experts: local_experts(self.experts),
            ..GateInputs::new(view(&self.logits))
        }
    }
}

/// About half of the experts, neither the first nor the last where there are enough.
pub fn local_experts(experts: usize) -> std::ops::Range<usize> {
    experts / 3..experts / 3 + experts.div_ceil(2)
}

/// One spelling of every router and of every branch inside one.
const ROUTERS: [&str; 33] = [
    "top1",
    "top2",
    "topk:3",
    "topk:8",
    "topk:20",
    "sigmoid:1",
    "sigmoid:2",
    "sigmoid:6",
    "grouped:2:3:2",
    "grouped:3:2:1:softmax",
    "grouped:8:8:4",
    "grouped:1:1:1",
    "grouped:2:1:1",
    "grouped:3:4:2",
    "grouped:4:4:2:softmax",
    "adaptive:0",
    "adaptive:0.3",
    "adaptive:1",
    "forced:0.5",
    "second:all",
    "second:none",
    "second:threshold:0.3",
    "second:random:0.4",
    "second:random:0",
    "noisy:1",
    "noisy:2",
    "noisy:5",
    "expert-choice:2",
    // More than the tokens of most cases: all of them.
    "expert-choice:40",
    "expert-choice:1.5x",
    "hash",
    "thor",
    "ensemble",
];

/// Every router that is legal for the sizes.
pub fn routers(tokens: usize, experts: usize) -> Vec<Router> {
    let spelled = ROUTERS.iter().chain(&["thor:sentence", "thor:token"]);
    let routers = spelled.map(|r| r.parse::<Router>().unwrap());
    routers
        .filter(|r| r.validate(tokens, experts).is_ok())
        .collect()
}

/// Every legal combination of router, weights, gap and load, with a weight scale that is not 1.
pub fn combinations(tokens: usize, experts: usize) -> Vec<GateOptions> {
    let mut all = Vec::new();
    for router in routers(tokens, experts) {
        let gaps: &[Gap] = match router {
            Router::Adaptive { .. } => Gap::ALL,
            _ => &[Gap::Softmax],
        };
        for (i, &weights) in [None]
            .iter()
            .chain(&Weights::ALL.iter().map(|&w| Some(w)).collect::<Vec<_>>())
            .enumerate()
        {
            for &gap in gaps {
                let over = BalanceOver::ALL[i % BalanceOver::ALL.len()];
                let options = GateOptions {
                    weights,
                    gap,
                    balance_over: weights.map(|_| over),
                    weight_scale: if i == 0 { 1.0 } else { 2.5 },
                    ..GateOptions::new(router)
                };
                if options.validate(tokens, experts).is_ok() {
                    all.push(options);
                }
            }
        }
    }
    all
}

/// Every combination of what a dropped step may do.
pub fn dropouts() -> Vec<GatingDropout> {
    let mut all = vec![GatingDropout::new(1.0, DropMode::GateExpert)];
    for &local_choice in LocalChoice::ALL {
        for &local_weight in LocalWeight::ALL {
            for &aux_loss in AuxLoss::ALL {
                all.push(GatingDropout {
                    local_choice,
                    local_weight,
                    aux_loss,
                    ..GatingDropout::new(1.0, DropMode::Gate)
                });
            }
        }
    }
    all
}

pub fn ctx() -> StepContext {
    StepContext {
        seed: 31,
        layer: 2,
        step: 8,
        first_token: 64,
        ..StepContext::default()
    }
}

/// A pool of 1 to 3 threads, the same for all tests.
pub fn cpu(threads: usize) -> Cpu {
    static POOLS: LazyLock<[Cpu; 3]> = LazyLock::new(|| [1, 2, 3].map(|n| Cpu::new(n).unwrap()));
    POOLS[threads - 1].clone()
}

/// Something that implements the gate, and how much of a cross product of options it runs.
pub struct Implementation {
    pub gating: &'static dyn Gating,
    /// All of it; otherwise a part, since the virtual GPU takes a hundred times the CPU's time.
    runs_all: bool,
}

impl Implementation {
    /// Whether combination `i` of a case's list is run: on a device one in `thin`, of a large case
    /// one in three times as many. Which ones these are differs from case to case.
    pub fn keeps(&self, case: &Case, i: usize, thin: usize) -> bool {
        self.runs_all || keeps_of_devices(case, i, thin)
    }

    /// The same for options, all of which are run on one case at least.
    pub fn keeps_options(&self, case: &Case, i: usize, options: &GateOptions) -> bool {
        self.keeps(case, i, 11) || is_home(case, options)
    }
}

/// Whether a case is the first of some tokens in which options are legal.
fn is_home(case: &Case, options: &GateOptions) -> bool {
    let legal = |c: &Case| c.tokens >= 20 && options.validate(c.tokens, c.experts).is_ok();
    let cases = gate_cases();
    let home = cases.iter().find(|c| legal(c));
    home.is_some_and(|home| home.name == case.name)
}

fn keeps_of_devices(case: &Case, i: usize, thin: usize) -> bool {
    let large = case.tokens * case.experts > 1 << 12;
    let thin = if large { 3 * thin } else { thin };
    let cases = gate_cases();
    let position = cases.iter().position(|c| c.name == case.name);
    (i + position.unwrap_or(0)).is_multiple_of(thin)
}

/// The CPU, and every device that tests run on.
pub fn implementations() -> Vec<(&'static str, Implementation)> {
    static CPU: LazyLock<Cpu> = LazyLock::new(|| cpu(2));
    let on_cpu = Implementation {
        gating: &*CPU,
        runs_all: true,
    };
    let devices = tollgate_device::testing::devices().iter();
    let devices = devices.map(|(name, gpu)| {
        let gating: &'static dyn Gating = gpu;
        let implementation = Implementation {
            gating,
            runs_all: false,
        };
        (name.as_str(), implementation)
    });
    std::iter::once(("cpu", on_cpu)).chain(devices).collect()
}

/// The gate, into a new state.
pub fn gate(
    gating: &dyn Gating,
    inputs: &GateInputs<'_>,
    options: &GateOptions,
    ctx: &StepContext,
) -> GateState {
    let mut state = GateState::default();
    gating.gate(inputs, options, ctx, &mut state).unwrap();
    state
}

/// A state as the reference would hold it: exact copies.
pub fn widen_state(state: &GateState) -> GateState<f64> {
    let widen = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let table = |t: &RoutingTable| RoutingTable {
        token_offsets: t.token_offsets.clone(),
        expert_indices: t.expert_indices.clone(),
        routing_weights: widen(&t.routing_weights),
        expert_offsets: t.expert_offsets.clone(),
    };
    GateState {
        scores: widen(&state.scores),
        lse: widen(&state.lse),
        noisy_logits: widen(&state.noisy_logits),
        noise: widen(&state.noise),
        first_choice: state.first_choice.clone(),
        runner_up: state.runner_up.clone(),
        weight_source: state.weight_source.clone(),
        selection: table(&state.selection),
        table: table(&state.table),
        kept: state.kept.clone(),
        load: state.load.clone(),
        dropped: state.dropped,
        losses: state.losses,
        status: state.status,
    }
}

/// Panics unless both states have the same bits.
#[track_caller]
pub fn assert_same_state(what: &str, a: &GateState, b: &GateState) {
    for (name, a, b) in [
        ("scores", &a.scores, &b.scores),
        ("lse", &a.lse, &b.lse),
        ("noisy_logits", &a.noisy_logits, &b.noisy_logits),
        ("noise", &a.noise, &b.noise),
        (
            "weights",
            &a.table.routing_weights,
            &b.table.routing_weights,
        ),
        (
            "selected weights",
            &a.selection.routing_weights,
            &b.selection.routing_weights,
        ),
    ] {
        assert_same(&format!("{what}: {name}"), a, b);
    }
    assert_same(&format!("{what}: load"), &a.load, &b.load);
    let losses = |s: &GateState| [s.losses.balance.to_bits(), s.losses.z.to_bits()];
    assert_eq!(losses(a), losses(b), "{what}: losses");
    for (a, b) in [(&a.table, &b.table), (&a.selection, &b.selection)] {
        assert_eq!(a.token_offsets, b.token_offsets, "{what}");
        assert_eq!(a.expert_indices, b.expert_indices, "{what}");
        assert_eq!(a.expert_offsets, b.expert_offsets, "{what}");
    }
    assert_eq!(a.first_choice, b.first_choice, "{what}");
    assert_eq!(a.runner_up, b.runner_up, "{what}");
    assert_eq!(a.weight_source, b.weight_source, "{what}");
    assert_eq!(a.kept, b.kept, "{what}");
    assert_eq!((a.dropped, a.status), (b.dropped, b.status), "{what}");
}
