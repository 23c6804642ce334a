//! Where a layer and its tokens come from.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tollgate::options::Activation;

use super::named::named;

/// How experts are made of one dense FFN (see `data/README.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Upcycle {
    /// Every expert is the dense FFN.
    Copy,
    /// The dense FFN plus seeded uniform noise, another for every expert.
    Noise,
    /// Every expert keeps its own intermediate neurons.
    Partition,
}

impl Upcycle {
    /// Its spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Noise => "noise",
            Self::Partition => "partition",
        }
    }
}

/// Where a layer and its tokens come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// A safetensors file with the layer: a dense FFN and a router in the format of
    /// data/README.md, or experts under the names of Mixtral or of Qwen3-MoE. Without it the
    /// embedded file.
    #[arg(long, value_name = "FILE")]
    pub layer: Vec<PathBuf>,
    /// A safetensors file with the tokens: 'hidden' (or its only matrix), a row a token, and if
    /// wanted 'token_ids' and 'sequence_offsets'. Without it the layer's file.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Which layer of a file that holds several, by its number.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with = "layer_prefix"
    )]
    pub layer_index: Option<u32>,
    /// Which layer of a file that holds several, by what its tensors' names begin with.
    #[arg(long, value_name = "PREFIX")]
    pub layer_prefix: Option<String>,
    /// How experts are made of a dense FFN. [default: noise]
    #[arg(long, value_name = "HOW")]
    pub upcycle: Option<Upcycle>,
    /// Standard deviation of --upcycle noise, as a multiple of each matrix's root mean square.
    /// [default: 0.05]
    #[arg(long, value_name = "SIGMA", allow_negative_numbers = true)]
    pub sigma: Option<f64>,
    /// Seed of --upcycle noise. [default: 2023]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub upcycle_seed: Option<u32>,
    /// The experts' activation. [default: gelu for a dense FFN, silu for the others]
    #[arg(long, value_name = "NAME", value_parser = named!(Activation))]
    pub activation: Option<Activation>,
}

impl InputArgs {
    /// Standard deviation of the noise in force.
    pub fn sigma(&self) -> f64 {
        self.sigma.unwrap_or(0.05)
    }

    /// Seed of the noise in force.
    pub fn upcycle_seed(&self) -> u32 {
        self.upcycle_seed.unwrap_or(2023)
    }
}
