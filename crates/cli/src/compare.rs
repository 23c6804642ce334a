//! `tollgate compare`: several routers side by side, normalised to top-2 as in Table 1 of the
//! adaptive-gating paper (Li et al., EMNLP 2023).

use serde::Serialize;
use tollgate::{DType, Element, Router, StepContext};

use crate::args::CompareArgs;
use crate::engine::Engine;
use crate::error::Result;
use crate::load::{self, Input};
use crate::notes;
use crate::progress::Progress;
use crate::report::{self, Style, plural, variation};
use crate::run::median;
use crate::step::{Outputs, Problem};

/// One router.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its spelling.
    pub router: String,
    /// A, of the last round's step.
    pub assignments: usize,
    /// A over that of top-2: the experts' work.
    pub computation: f64,
    /// Time over that of top-2 in the same round, median over the rounds; where the device counts
    /// instead of timing, the instructions of its warps over those of top-2.
    pub time: f64,
    /// The same in the paper's Table 1, where it has this row.
    pub paper: Option<f64>,
    /// Milliseconds of a step, median over the rounds; null where they are counted.
    pub ms: Option<f64>,
    /// Instructions of the warps of a step, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// Share of tokens with exactly two experts.
    pub two_expert_share: f64,
    /// α E Σ f P; `None` for routers without a gate.
    pub balance: Option<f64>,
    /// Coefficient of variation of the rows per expert.
    pub load_variation: f64,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// One line about the input.
    pub input: String,
    /// One line about how it was run.
    pub setting: String,
    /// Type of activations and weights.
    pub dtype: &'static str,
    /// Threads.
    pub threads: usize,
    /// On what it ran, as `--device` spells it.
    pub device: String,
    /// T.
    pub tokens: usize,
    /// E.
    pub experts: usize,
    /// Rounds.
    pub rounds: u32,
    /// Whether backward was timed too.
    pub backward: bool,
    /// Milliseconds of top-2, median; null where they are counted.
    pub top2_ms: Option<f64>,
    /// The routers.
    #[serde(rename = "routers")]
    pub rows: Vec<Row>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Layer time normalised to top-2 in the paper's Table 1: forced shares of tokens with one expert.
fn paper(router: &Router) -> Option<f64> {
    let share = match *router {
        _ if *router == Router::top_k(1) => 1.0,
        _ if *router == Router::top_k(2) => 0.0,
        Router::Forced { one_expert_share } => one_expert_share,
        _ => return None,
    };
    let table = [
        (0.0, 1.0),
        (0.2, 0.97),
        (0.5, 0.92),
        (0.8, 0.76),
        (1.0, 0.67),
    ];
    table
        .iter()
        .find(|&&(s, _)| s == share)
        .map(|&(_, time)| time)
}

/// Runs the command and returns what it prints.
///
/// # Errors
/// Bad input.
pub fn run(args: &CompareArgs, style: Style) -> Result<String> {
    let comparison = match args.execution.dtype {
        DType::F32 => compare::<f32>(args),
        DType::F16 => compare::<half::f16>(args),
        DType::Bf16 => compare::<half::bf16>(args),
    }?;
    Ok(match args.json {
        true => report::json::comparison(&comparison),
        false => report::compare::text(&comparison, style),
    })
}

/// What one router has shown so far.
struct Entry<'a, T> {
    problem: Problem<'a, T>,
    /// Of each round: seconds, or instructions where the device counts.
    costs: Vec<f64>,
    assignments: usize,
    two_expert_share: f64,
    balance: f64,
    load_variation: f64,
}

fn compare<T: Element>(args: &CompareArgs) -> Result<Comparison> {
    let cpu = args.execution.cpu()?;
    let progress = Progress::start("reading the layer and its tokens");
    let Input { model, tokens } = cpu.install(|| load::input::<T>(&args.input))?;
    let seed = args.execution.seed;
    let mut outputs = cpu.install(|| Outputs::new(&model, &tokens, args.backward, seed));
    let execution = &args.execution;
    let mut engine = Engine::new(&args.device, execution, &cpu, &model, &tokens, &outputs)?;
    drop(progress);

    // Top-2 is the measure of all others, asked for or not: it comes first.
    let top2 = Router::top_k(2);
    let asked = args.routers.iter().filter(|&&router| router != top2);
    let mut entries = Vec::new();
    for &router in std::iter::once(&top2).chain(asked) {
        entries.push(Entry {
            problem: Problem::new(router, &args.gate, &model, &tokens, cpu.clone())?,
            costs: Vec::new(),
            assignments: 0,
            two_expert_share: 0.0,
            balance: 0.0,
            load_variation: 0.0,
        });
    }
    let counts = engine.counts();
    let progress = Progress::start(match counts {
        true => "running the routers' kernels on the virtual GPU",
        false => "timing the routers in turn",
    });
    // Counts need no warm-up, and are the same in every round but for the draws.
    let rounds = args.rounds.unwrap_or(if counts { 1 } else { 7 });
    for round in u32::from(counts)..=rounds {
        let ctx = StepContext {
            seed,
            step: round.saturating_sub(1),
            ..StepContext::default()
        };
        for entry in &mut entries {
            let seconds = engine.step(&entry.problem, &ctx, &mut outputs)?;
            if round == 0 {
                continue;
            }
            let seen = engine.seen();
            let (table, trace) = (&seen.gate.table, seen.trace);
            entry.costs.push(match engine.counted() {
                None => seconds,
                Some(stages) => {
                    let each = stages.iter().map(|c| c.counters.warp_instructions);
                    each.sum::<u64>() as f64
                }
            });
            entry.assignments = table.num_assignments();
            entry.two_expert_share = trace.two_expert_tokens as f64 / tokens.count.max(1) as f64;
            entry.balance = trace.losses.balance;
            entry.load_variation = variation(&trace.tokens_per_expert);
        }
    }
    drop(progress);

    let base = &entries[0];
    let rows = entries.iter().map(|entry| {
        let router = entry.problem.options().router;
        let ratios: Vec<f64> = entry
            .costs
            .iter()
            .zip(&base.costs)
            .map(|(s, b)| s / b)
            .collect();
        let cost = median(&entry.costs);
        Row {
            router: router.to_string(),
            assignments: entry.assignments,
            computation: entry.assignments as f64 / base.assignments.max(1) as f64,
            time: median(&ratios),
            paper: paper(&router),
            ms: (!counts).then_some(1e3 * cost),
            instructions: counts.then_some(cost as u64),
            two_expert_share: entry.two_expert_share,
            balance: router.has_gate().then_some(entry.balance),
            load_variation: entry.load_variation,
        }
    });
    let mut notes: Vec<String> = entries
        .iter()
        .flat_map(|entry| notes::without_effect(&args.gate, entry.problem.options()))
        .collect();
    if args.gate.gating_dropout.is_some() {
        notes.push("Gating Dropout drops a different step in every round".to_owned());
    }
    Ok(Comparison {
        input: format!(
            "{} tokens, H {}, I {}, {} experts from {}",
            tokens.count, model.hidden, model.intermediate, model.experts, model.origin
        ),
        setting: format!(
            "{}, {}, {}, {}",
            T::DTYPE,
            match engine.gpu_name() {
                None => plural(cpu.threads(), "thread"),
                Some(name) => format!("{} ({name})", engine.place()),
            },
            if args.backward {
                "forward and backward"
            } else {
                "forward"
            },
            match counts {
                true => "counted, not timed".to_owned(),
                false => format!(
                    "{} in turn after one that is not timed",
                    plural(rounds as usize, "round")
                ),
            }
        ),
        dtype: T::DTYPE.name(),
        threads: cpu.threads(),
        device: engine.place().to_string(),
        tokens: tokens.count,
        experts: model.experts,
        rounds,
        backward: args.backward,
        top2_ms: (!counts).then(|| 1e3 * median(&base.costs)),
        rows: rows.collect(),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_table_has_five_rows() {
        let time = |text: &str| paper(&text.parse().unwrap());
        assert_eq!(time("top1"), Some(0.67));
        assert_eq!(time("forced:0.8"), Some(0.76));
        assert_eq!(time("forced:0.5"), Some(0.92));
        assert_eq!(time("forced:0.2"), Some(0.97));
        assert_eq!(time("top2"), Some(1.0));
        assert_eq!(time("forced:0.3"), None);
        assert_eq!(time("adaptive:0.1"), None);
    }
}
