//! The command line of `tollgate vgpu`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tollgate_vgpu::machine::{Arch, Checks};

use super::buffer::Buffer;
use super::groups::Groups;

/// `tollgate vgpu`.
#[derive(Debug, Clone, Subcommand)]
pub enum VgpuCommand {
    /// Run kernels of a PTX file on a virtual GPU, check them and count what they do.
    Run(Box<RunArgs>),
    /// List the opcodes of a PTX file, and which of them are not supported.
    Ops(OpsArgs),
}

/// `tollgate vgpu run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  tollgate vgpu run saxpy.ptx --entry saxpy --grid 8 --block 128 --arg 1000 --arg 2.5 \\
      --arg 'buf:x=random:f32[1000]' --arg 'buf:y=range:f32[1000]' --print y:4 --counters
  tollgate vgpu run gemm.ptx --grid 4,4 --block 128 --shared 65536 --seeds 100 --json \\
      --arg 'map:a,bf16,dims=512,512,box=64,64,swizzle=128' --buffer 'a=file:a.bin:bf16' …
  tollgate vgpu run peers.ptx --devices 2 \\
      --launch --device 0 --arg 'buf:a=zeros:u32[1]' --arg buf:b \\
      --launch --device 1 --arg 'buf:b=zeros:u32[1]' --arg buf:a

Exit code 0: nothing found; 3: a check found something; 2: bad input, one line says what.
docs/VGPU.md tells what is checked, counted and modelled.")]
pub struct RunArgs {
    /// The PTX file; the sources that it names are looked for beside it.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The launches.
    #[command(flatten)]
    pub launches: Groups,
    /// A buffer that no argument defines: NAME=FILL, as in --arg buf:NAME=FILL.
    #[arg(long = "buffer", value_name = "NAME=FILL", value_parser = Buffer::parse, help_heading = "Launches")]
    pub buffers: Vec<Buffer>,
    /// What to check: all, none, or some of memory-init, registers, races, barriers, leaks. What
    /// cannot be switched off: addresses, alignment, launches, deadlocks. [default: all but leaks]
    #[arg(long, value_name = "LIST", help_heading = "Checks")]
    pub check: Option<Checks>,
    /// Decides the schedule: the same seed does the same again.
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Checks")]
    pub seed: u64,
    /// Try N schedules, of the seeds S to S+N-1, each from the start; tells which seeds found
    /// something and whether outputs differ.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "Checks",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub seeds: u32,
    /// Warp instructions a launch may take before it counts as a livelock. [default: 2^30]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Checks",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub budget: Option<u64>,
    /// The architecture, which has its limits: sm_80, sm_86, sm_89, sm_90 or sm_90a.
    #[arg(
        long,
        value_name = "ARCH",
        default_value = "sm_90a",
        help_heading = "Machine"
    )]
    pub arch: Arch,
    /// Virtual devices; they can reach each other's memory. [default: as many as launches name]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub devices: Option<u32>,
    /// CPU threads for grids of independent blocks; without it one per core.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Machine",
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    pub threads: Option<u32>,
    /// Write a buffer to a file when all is done: little-endian values, or text, one value a line,
    /// if the name ends in .txt.
    #[arg(long = "out", value_name = "NAME=PATH", value_parser = output, help_heading = "Output")]
    pub outputs: Vec<(String, PathBuf)>,
    /// Show the first values of a buffer (16, or COUNT) when all is done.
    #[arg(long = "print", value_name = "NAME[:COUNT]", value_parser = print, help_heading = "Output")]
    pub prints: Vec<(String, usize)>,
    /// Show what each launch did in numbers: traffic, bank conflicts, instructions, occupancy.
    #[arg(long, help_heading = "Output")]
    pub counters: bool,
    /// Show the first N instructions that each launch executes.
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "100",
        help_heading = "Output"
    )]
    pub trace: Option<usize>,
    /// Print JSON instead of the report.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `tollgate vgpu ops`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit code 0: all are supported; 3: some are not; 2: bad input.")]
pub struct OpsArgs {
    /// The PTX file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print JSON instead of the table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

fn output(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), path.into()))
        }
        _ => Err(format!("'{text}' is not of the form NAME=PATH")),
    }
}

fn print(text: &str) -> Result<(String, usize), String> {
    const USUAL: usize = 16;
    let (name, count) = match text.split_once(':') {
        None => (text, Some(USUAL)),
        Some((name, count)) => (name, count.parse().ok().filter(|&count| count > 0)),
    };
    match count {
        Some(count) if !name.is_empty() => Ok((name.to_owned(), count)),
        _ => Err(format!("'{text}' is not of the form NAME or NAME:COUNT")),
    }
}
