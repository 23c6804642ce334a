//! `tollgate curriculum`: the order of samples for a next epoch, from easy to hard, by the share of
//! their tokens that took two experts (Li et al., EMNLP 2023).

use serde::Serialize;
use tollgate::gating::curriculum::Complexity;
use tollgate::{Cpu, DType, Element, LayerState, RoutingTable, StepContext};

use crate::args::CurriculumArgs;
use crate::error::{Failure, Result};
use crate::load::{self, Model, Tokens};
use crate::notes;
use crate::progress::Progress;
use crate::report::{self, Style};
use crate::step::{Outputs, Problem};

/// Layers that one layer stands for unless `--depth` says otherwise.
const DEPTH: u32 = 4;
/// Added to the variance, as in BERT.
const EPSILON: f64 = 1e-12;

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Its index in the tokens file.
    pub sample: usize,
    /// Its tokens.
    pub tokens: usize,
    /// Tokens that took two experts, over all layers.
    pub two_expert_tokens: u64,
    /// `r_0 …`: the share of its tokens that took two experts, by layer.
    pub complexity: Vec<f64>,
    /// Cosine similarity to the anchor.
    pub similarity: f64,
}

/// Samples in the order of the next epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Order {
    /// The router's spelling.
    pub router: String,
    /// Number of layers.
    pub layers: usize,
    /// What the layers are, in one line.
    pub setting: String,
    /// The anchor first.
    pub samples: Vec<Sample>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Runs the command and returns what it prints.
///
/// # Errors
/// Bad input.
pub fn run(args: &CurriculumArgs, style: Style) -> Result<String> {
    let order = match args.execution.dtype {
        DType::F32 => order::<f32>(args),
        DType::F16 => order::<half::f16>(args),
        DType::Bf16 => order::<half::bf16>(args),
    }?;
    Ok(match args.json {
        true => report::json::order(&order),
        false => report::curriculum::text(&order, style),
    })
}

fn order<T: Element>(args: &CurriculumArgs) -> Result<Order> {
    let cpu = args.execution.cpu()?;
    let progress = Progress::start("reading the layers and their tokens");
    let (models, mut tokens) = cpu.install(|| load::inputs::<T>(&args.input))?;
    drop(progress);
    let Some(offsets) = tokens.sequence_offsets.clone() else {
        return Err(Failure::file(
            &tokens.origin,
            "has no tensor 'sequence_offsets', so that its samples are unknown",
            "store exclusive prefix sums [S+1] of their lengths, as I32",
        ));
    };
    let layers: Vec<&Model<T>> = match (models.as_slice(), args.depth) {
        ([model], depth) => vec![model; depth.unwrap_or(DEPTH) as usize],
        (several, None) => several.iter().collect(),
        (several, Some(depth)) => {
            return Err(Failure::Usage(format!(
                "--depth {depth} repeats one layer, but --layer is given {} times; leave one out",
                several.len()
            )));
        }
    };
    let progress = Progress::start("routing the samples through the layers");
    let mut tables = Vec::with_capacity(layers.len());
    let mut notes = Vec::new();
    for (index, &model) in layers.iter().enumerate() {
        let last = index + 1 == layers.len();
        let table = route(
            args,
            model,
            &mut tokens,
            index as u32,
            last,
            &cpu,
            &mut notes,
        )?;
        tables.push(table);
    }
    drop(progress);

    let tables: Vec<&RoutingTable> = tables.iter().collect();
    let complexity = Complexity::measure(&tables, &offsets)?;
    let ranked = complexity.order();
    let samples = ranked.iter().map(|&sample| Sample {
        sample,
        tokens: (offsets[sample + 1] - offsets[sample]) as usize,
        two_expert_tokens: complexity.two_expert_tokens(sample),
        complexity: complexity.vector(sample).to_vec(),
        similarity: complexity.similarity(ranked[0], sample),
    });
    let between = "between layers x becomes LayerNorm(x + y), without scale and shift";
    let setting = match models.as_slice() {
        [model] => format!(
            "one layer ({}) applied {} times; {between}",
            model.origin,
            layers.len()
        ),
        several => {
            let names: Vec<&str> = several.iter().map(|m| m.origin.as_str()).collect();
            format!("{} layers ({}); {between}", several.len(), names.join(", "))
        }
    };
    Ok(Order {
        router: args.router.to_string(),
        layers: layers.len(),
        setting,
        samples: samples.collect(),
        notes,
    })
}

/// Runs one layer, and unless it is the last makes its output the next one's input.
fn route<T: Element>(
    args: &CurriculumArgs,
    model: &Model<T>,
    tokens: &mut Tokens<T>,
    layer: u32,
    last: bool,
    cpu: &Cpu,
    notes: &mut Vec<String>,
) -> Result<RoutingTable> {
    let mut state = LayerState::default();
    let mut outputs = Outputs::new(model, tokens, false, args.execution.seed);
    let problem = Problem::new(args.router, &args.gate, model, tokens, cpu.clone())?;
    if layer == 0 {
        notes.extend(notes::without_effect(&args.gate, problem.options()));
    }
    let ctx = StepContext {
        seed: args.execution.seed,
        layer,
        ..StepContext::default()
    };
    problem.step(&ctx, &mut state, &mut outputs)?;
    if !last {
        add_and_normalize(&mut tokens.x, &outputs.y, tokens.hidden);
    }
    Ok(state.into_gate().table)
}

/// `x = LayerNorm(x + y)`, row by row, without scale and shift; in f64, rounded once.
fn add_and_normalize<T: Element>(x: &mut [T], y: &[T], hidden: usize) {
    let h = hidden as f64;
    for (x, y) in x.chunks_mut(hidden.max(1)).zip(y.chunks(hidden.max(1))) {
        let sum: Vec<f64> = x
            .iter()
            .zip(y)
            .map(|(x, y)| x.to_f64() + y.to_f64())
            .collect();
        let mean = sum.iter().sum::<f64>() / h;
        let variance = sum.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / h;
        let scale = 1.0 / (variance + EPSILON).sqrt();
        for (x, s) in x.iter_mut().zip(sum) {
            *x = T::from_f32(((s - mean) * scale) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normalised_by_themselves() {
        let mut x = [1.0f32, 2.0, 3.0, 4.0, 0.0, 0.0];
        add_and_normalize(&mut x, &[1.0, 2.0, 3.0, 6.0, 0.0, 0.0], 2);
        // (2, 4) and (6, 10) have mean ± 1 and ± 2; a constant row becomes 0.
        assert_eq!(x, [-1.0, 1.0, -1.0, 1.0, 0.0, 0.0]);
    }
}
