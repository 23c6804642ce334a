//! The command line.

mod device;
mod gate;
mod input;
mod named;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tollgate::{Cpu, DType, Router};

pub use device::{DeviceArgs, Place};
pub use gate::GateArgs;
pub use input::{InputArgs, Upcycle};
use named::named;

use crate::Result;
use crate::devices::DevicesArgs;
use crate::vgpu::VgpuCommand;

/// How to read the command line.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = "Runs a Mixture-of-Experts layer on real activations and reports what it did.",
    long_about = "Runs a Mixture-of-Experts layer on real activations and reports where every \
                  token went, how long each stage took and how far the result is from an exact \
                  one.\n\nWithout a subcommand: 'tollgate run'. Without files: 2048 token \
                  activations of a real model and its feed-forward network, made into 16 experts.",
    after_help = "Examples:\n  \
        tollgate                                    adaptive gating on the embedded input\n  \
        tollgate run --router topk:4 --backward     another router, with all gradients\n  \
        tollgate run --router thor --pair           stochastic experts: two passes, two draws\n  \
        tollgate run --gating-dropout 0.3 --local-experts 0..4 --steps 20\n  \
        tollgate run --backward --json --out step.safetensors\n  \
        tollgate run --device virtual --backward    the kernels of the GPU, run on the CPU\n  \
        tollgate run --layer model.safetensors --layer-index 3 --tokens tokens.safetensors\n  \
        tollgate compare                            several routers side by side\n  \
        tollgate curriculum                         an order of the samples, easy ones first\n  \
        tollgate vgpu run kernel.ptx --grid 8 --block 128 --arg 'buf:x=zeros:f32[1024]'\n\n\
        'tollgate run --help' lists all routers and options. Bad input: exit code 2 and one line.",
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one layer and report on it (this is what happens without a subcommand).
    Run(RunArgs),
    /// Set several routers side by side: computation, time, top-2 share, balance.
    Compare(CompareArgs),
    /// Order samples from easy to hard by how often their tokens need two experts.
    Curriculum(CurriculumArgs),
    /// List what --device can name on this machine, and why there is no more.
    Devices(DevicesArgs),
    /// Run PTX kernels on a virtual GPU, with checks; no part of the layer.
    Vgpu {
        /// What to do with the file.
        #[command(subcommand)]
        command: VgpuCommand,
    },
}

/// The routers, for `--router`.
const ROUTER_HELP: &str = "Which experts a token gets.
  adaptive:TAU         one where the best two are more than TAU apart, else two
  top1, top2, topk:K   the K best by softmax
  second:all|none|threshold:TAU|random:TAU
                       the best two, the second kept by a policy
  sigmoid:K            the K best by sigmoid score (plus the file's selection bias)
  grouped:K:GROUPS:TOP[:softmax|:sigmoid]
                       the K best inside the TOP best of GROUPS groups
  noisy:K              the K best of logits with learned noise
  expert-choice:C|Fx   every expert takes its best C tokens, or F times its even share
  hash                 a fixed expert for every token id
  thor[:batch|:sentence|:token]
                       an expert drawn at random
  ensemble             all experts, averaged
  forced:SHARE         this share of the tokens takes one expert, the rest two: for timing";

/// Where and in which numbers a layer runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Execution")]
pub struct ExecutionArgs {
    /// Element type of activations and expert weights (the router stays f32).
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = named!(DType))]
    pub dtype: DType,
    /// Number of threads; without it one per core. Results do not depend on it.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<usize>,
    /// Key of every random draw: routers, Gating Dropout, jitter and the upstream gradient.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub seed: u64,
}

impl ExecutionArgs {
    /// The threads asked for.
    ///
    /// # Errors
    /// A number of threads that is out of range or that the system refuses.
    pub fn cpu(&self) -> Result<Cpu> {
        Ok(match self.threads {
            Some(threads) => Cpu::new(threads)?,
            None => Cpu::all_cores()?,
        })
    }
}

/// `tollgate run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
        tollgate run --router adaptive:0.3 --gap top2 --weights selected\n  \
        tollgate run --router sigmoid:4 --capacity 1.25 --drop-order probability --backward\n  \
        tollgate run --gating-dropout 0.5:gate --local-experts 0..4 --local-choice modulo\n  \
        tollgate run --upcycle partition --dtype bf16 --backward --out step.safetensors")]
pub struct RunArgs {
    /// The routing policy.
    #[arg(long, value_name = "ROUTER", default_value = "adaptive:0.1", long_help = ROUTER_HELP)]
    pub router: Router,
    /// Where the layer and its tokens come from.
    #[command(flatten)]
    pub input: InputArgs,
    /// The options of the gate.
    #[command(flatten)]
    pub gate: GateArgs,
    /// In which numbers and by how many threads it runs.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// On what it runs.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Also compute all gradients, for a seeded upstream gradient of normal numbers.
    #[arg(long, help_heading = "What to do")]
    pub backward: bool,
    /// Training steps 0..S: each draws anew. The report describes the last; times cover all.
    #[arg(
        long,
        value_name = "S",
        allow_negative_numbers = true,
        default_value_t = 1,
        help_heading = "What to do",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub steps: u32,
    /// Time every step this often and keep its fastest run; one more, before, is not timed. The
    /// virtual GPU counts every step once. [default: 3]
    #[arg(
        long,
        value_name = "R",
        allow_negative_numbers = true,
        help_heading = "What to do",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub repeat: Option<u32>,
    /// Inference: no Gating Dropout, no jitter, no router noise.
    #[arg(long, help_heading = "What to do")]
    pub inference: bool,
    /// Stochastic experts: also run the second pass of the pair, and the loss that keeps the two
    /// outputs, taken as logits, together.
    #[arg(long, help_heading = "What to do")]
    pub pair: bool,
    /// Leave out the comparison with the f64 reference.
    #[arg(long, help_heading = "What to do")]
    pub no_check: bool,
    /// Print JSON instead of the report.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Write routing, probabilities and outputs (with --backward all gradients) to a safetensors
    /// file, so that anyone can check them.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub out: Option<PathBuf>,
}

/// `tollgate compare`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
        tollgate compare --backward --rounds 15\n  \
        tollgate compare --router adaptive:0.05 --router adaptive:0.5 --router topk:4")]
pub struct CompareArgs {
    /// A router to compare with top2; give it several times for several routers.
    #[arg(long = "router", value_name = "ROUTER", long_help = ROUTER_HELP, default_values = [
        "top2", "forced:0.2", "forced:0.5", "forced:0.8", "top1", "adaptive:0.1",
        "second:threshold", "expert-choice:2x", "thor", "hash",
    ])]
    pub routers: Vec<Router>,
    /// Where the layer and its tokens come from.
    #[command(flatten)]
    pub input: InputArgs,
    /// The options of the gate.
    #[command(flatten)]
    pub gate: GateArgs,
    /// In which numbers and by how many threads it runs.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// On what it runs.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Time forward and backward instead of forward alone.
    #[arg(long, help_heading = "What to do")]
    pub backward: bool,
    /// Rounds: each runs every router once, in turn; ratios are taken inside a round, and the
    /// median over the rounds is shown. One more round, before, is not timed. [default: 7; on the
    /// virtual GPU, which counts, 1]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "What to do",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub rounds: Option<u32>,
    /// Print JSON instead of the table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `tollgate curriculum`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
        tollgate curriculum --depth 6 --router adaptive:0.2\n  \
        tollgate curriculum --layer a.safetensors --layer b.safetensors --tokens t.safetensors")]
pub struct CurriculumArgs {
    /// The routing policy; complexity counts the tokens that take exactly two experts.
    #[arg(long, value_name = "ROUTER", default_value = "adaptive:0.1", long_help = ROUTER_HELP)]
    pub router: Router,
    /// Where the layers and the samples come from.
    #[command(flatten)]
    pub input: InputArgs,
    /// The options of the gate.
    #[command(flatten)]
    pub gate: GateArgs,
    /// Where and in which numbers it runs.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// With one layer: how often it is applied, each time to the normalised sum of its input and
    /// output. [default: 4]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "What to do",
        value_parser = clap::value_parser!(u32).range(1..=4096)
    )]
    pub depth: Option<u32>,
    /// Print JSON instead of the table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
