//! `tollgate run`: one layer, its steps, the comparison with the reference.

use tollgate::{DType, Element, StepContext, Trace};

use crate::args::RunArgs;
use crate::check::{Agreement, check};
use crate::engine::{Counted, Engine, Seen};
use crate::error::Result;
use crate::load::{self, Input};
use crate::notes;
use crate::out;
use crate::pair::{self, Pair};
use crate::progress::Progress;
use crate::report::{self, Style};
use crate::step::{Outputs, Problem};

/// Times of the steps, or what they counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// Seconds of each step, its fastest repetition; NaN where steps are counted.
    pub steps: Vec<f64>,
    /// How often each step ran.
    pub repeat: u32,
    /// Steps that Gating Dropout dropped.
    pub dropped: usize,
    /// Of the last step, in its fastest repetition.
    pub trace: Trace,
    /// What the stages of the last step did, where the device counts instead of timing.
    pub counted: Option<Vec<Counted>>,
}

impl Times {
    /// Seconds of the last step.
    pub fn last(&self) -> f64 {
        self.steps.last().copied().unwrap_or(f64::NAN)
    }

    /// Seconds of the fastest step.
    pub fn min(&self) -> f64 {
        self.steps.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Seconds of the step in the middle.
    pub fn median(&self) -> f64 {
        median(&self.steps)
    }
}

/// The middle of some numbers; the mean of the middle two of an even number of them.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]),
    }
}

/// All that a report says about a run.
#[derive(Debug)]
pub struct Run<'a, T> {
    /// The command line.
    pub args: &'a RunArgs,
    /// The layer and its input.
    pub problem: &'a Problem<'a, T>,
    /// The last step.
    pub seen: Seen<'a>,
    /// The GPU's name, where it ran on one.
    pub gpu: Option<&'a str>,
    /// Times of all steps.
    pub times: &'a Times,
    /// The comparison with the reference, if wanted.
    pub agreement: Option<&'a Agreement>,
    /// The second pass of a pair, if wanted.
    pub pair: Option<&'a Pair<T>>,
    /// What the user should know.
    pub notes: &'a [String],
}

/// Runs the command and returns what it prints.
///
/// # Errors
/// Bad input.
pub fn run(args: &RunArgs, style: Style) -> Result<String> {
    match args.execution.dtype {
        DType::F32 => run_in::<f32>(args, style),
        DType::F16 => run_in::<half::f16>(args, style),
        DType::Bf16 => run_in::<half::bf16>(args, style),
    }
}

fn run_in<T: Element>(args: &RunArgs, style: Style) -> Result<String> {
    if args.pair {
        pair::check(&args.router, args.inference)?;
    }
    if let Some(path) = &args.out {
        out::writable(path)?;
    }
    let cpu = args.execution.cpu()?;
    let progress = Progress::start("reading the layer and its tokens");
    let Input { model, tokens } = cpu.install(|| load::input::<T>(&args.input))?;
    let problem = Problem::new(args.router, &args.gate, &model, &tokens, cpu.clone())?;
    let seed = args.execution.seed;
    let mut outputs = cpu.install(|| Outputs::new(&model, &tokens, args.backward, seed));
    let execution = &args.execution;
    let mut engine = Engine::new(&args.device, execution, &cpu, &model, &tokens, &outputs)?;
    drop(progress);

    let progress = Progress::start(match engine.counts() {
        true => "running the layer's kernels on the virtual GPU",
        false => "running the layer",
    });
    let times = steps(args, &problem, &mut engine, &mut outputs)?;
    let ctx = context(args, args.steps - 1);
    engine.collect(&mut outputs)?;
    let pair = match args.pair {
        true => Some(pair::second_pass(&problem, &mut engine, &ctx, &outputs.y)?),
        false => None,
    };
    drop(progress);
    let seen = engine.seen();

    let progress = Progress::start("comparing with the f64 reference (--no-check leaves it out)");
    let agreement = match args.no_check {
        false => Some(check(&problem, &ctx, seen, &outputs)?),
        true => None,
    };
    drop(progress);
    if let Some(path) = &args.out {
        out::write(path, args, &problem, seen, &outputs, pair.as_ref())?;
    }
    let notes = notes::of_run(args, &problem, seen.trace);
    let run = Run {
        args,
        problem: &problem,
        seen,
        gpu: engine.gpu_name(),
        times: &times,
        agreement: agreement.as_ref(),
        pair: pair.as_ref(),
        notes: &notes,
    };
    Ok(match args.json {
        true => report::json::run(&run),
        false => report::run::text(&run, style),
    })
}

/// Where a step of this command stands in training.
fn context(args: &RunArgs, step: u32) -> StepContext {
    StepContext {
        seed: args.execution.seed,
        step,
        training: !args.inference,
        ..StepContext::default()
    }
}

/// One step that is not timed, then all steps, each several times: a step and its repetitions draw
/// the same and write the same. Counts are the same every time, so that one run of each is enough.
fn steps<T: Element>(
    args: &RunArgs,
    problem: &Problem<'_, T>,
    engine: &mut Engine<T>,
    outputs: &mut Outputs<T>,
) -> Result<Times> {
    let counts = engine.counts();
    if !counts {
        engine.step(problem, &context(args, 0), outputs)?;
    }
    let mut times = Times {
        steps: Vec::new(),
        repeat: args.repeat.unwrap_or(if counts { 1 } else { 3 }),
        dropped: 0,
        trace: Trace::default(),
        counted: None,
    };
    for step in 0..args.steps {
        let ctx = context(args, step);
        let mut fastest = f64::INFINITY;
        for _ in 0..times.repeat {
            let seconds = engine.step(problem, &ctx, outputs)?;
            if counts || seconds < fastest {
                fastest = seconds;
                if step + 1 == args.steps {
                    times.trace.clone_from(engine.seen().trace);
                }
            }
        }
        times.steps.push(fastest);
        times.dropped += usize::from(engine.seen().trace.dropped.is_some());
    }
    times.counted = engine.counted().map(<[Counted]>::to_vec);
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
