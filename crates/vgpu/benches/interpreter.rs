//! How fast the virtual GPU is: thread instructions a second, tensor-core flops a second, and what
//! the checks and a second core cost or bring.
//!
//! Plain figures of this machine, each the median of several runs; ratios are of runs that took turns.
//! `cargo bench -p tollgate-vgpu` prints the table; `-- --json` one line of JSON; `-- NAME` only the
//! rows whose name contains NAME.

use std::time::Instant;

use tollgate_vgpu::host::{Interleave, L2Promotion, OobFill, TensorElement, encode_tiled};
use tollgate_vgpu::layout::swizzle::Swizzle;
use tollgate_vgpu::machine::Checks;
use tollgate_vgpu::{Config, LaunchConfig, Machine};

const SOFTMAX: &str = include_str!("../tests/kernels/softmax_topk.ptx");
const PERMUTE: &str = include_str!("../tests/kernels/permute16.ptx");
const PHILOX: &str = include_str!("../tests/kernels/philox.ptx");
const GEMM_SM80: &str = include_str!("../tests/kernels/gemm_sm80.ptx");
const GEMM_SM90A: &str = include_str!("../tests/kernels/gemm_sm90a.ptx");

/// Runs of each figure.
const RUNS: usize = 5;

/// What one run did.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    thread_instructions: u64,
    flops: u64,
}

type Kernel = fn(&Machine) -> Run;

fn main() {
    // Cargo passes `--bench`; what else begins with a dash is not a filter.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let json = args.iter().any(|arg| arg == "--json");
    let filter = args
        .iter()
        .find(|arg| !arg.starts_with('-'))
        .cloned()
        .unwrap_or_default();
    let mut rows = Vec::new();
    let kernels: [(&str, Kernel); 5] = [
        ("softmax_topk", softmax),
        ("permute16", permute),
        ("philox", philox),
        ("gemm_sm80 (mma)", gemm_sm80),
        ("gemm_sm90a (wgmma)", gemm_sm90a),
    ];
    for (name, kernel) in kernels
        .into_iter()
        .filter(|(name, _)| name.contains(&filter))
    {
        let plain = machine(Checks::NONE, 1);
        let races = machine(
            Checks {
                races: true,
                ..Checks::NONE
            },
            1,
        );
        let all = machine(
            Checks {
                leaks: false,
                ..Checks::ALL
            },
            1,
        );
        let two = machine(Checks::NONE, 2);
        let machines = [&plain, &races, &all, &two];
        let mut seconds = [const { Vec::new() }; 4];
        let mut first = None;
        for _ in 0..RUNS {
            for (machine, seconds) in machines.iter().zip(&mut seconds) {
                let run = kernel(machine);
                seconds.push(run.seconds);
                first.get_or_insert(run);
            }
        }
        let Some(run) = first else { continue };
        let [plain, races, all, two] = seconds.map(median);
        rows.push(Row {
            name,
            instructions: run.thread_instructions as f64 / plain,
            flops: run.flops as f64 / plain,
            races: races / plain,
            all: all / plain,
            two: plain / two,
        });
    }
    if json {
        let rows: Vec<String> = rows.iter().map(Row::json).collect();
        println!("[{}]", rows.join(","));
        return;
    }
    println!(
        "{:<20} {:>14} {:>10} {:>12} {:>12} {:>12}",
        "kernel", "M thread-inst/s", "GFLOP/s", "races, × time", "all, × time", "2 cores, ×"
    );
    for row in &rows {
        println!(
            "{:<20} {:>14.0} {:>10.2} {:>12.2} {:>12.2} {:>12.2}",
            row.name,
            row.instructions / 1e6,
            row.flops / 1e9,
            row.races,
            row.all,
            row.two
        );
    }
    println!(
        "\nbars: softmax 500 M thread-inst/s, mma and wgmma 3 GFLOP/s, races 3 × at most, 2 cores 1.7 ×"
    );
}

struct Row {
    name: &'static str,
    instructions: f64,
    flops: f64,
    races: f64,
    all: f64,
    two: f64,
}

impl Row {
    fn json(&self) -> String {
        format!(
            "{{\"kernel\":\"{}\",\"thread_instructions_per_s\":{:.0},\"flops_per_s\":{:.0},\
             \"races_time_ratio\":{:.3},\"all_checks_time_ratio\":{:.3},\"two_cores_speedup\":{:.3}}}",
            self.name, self.instructions, self.flops, self.races, self.all, self.two
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn machine(checks: Checks, threads: usize) -> Machine {
    Machine::new(Config {
        checks,
        threads,
        ..Config::default()
    })
    .expect("one device is possible")
}

/// Launches an entry once and times it from launch to the end of its work.
fn timed(machine: &Machine, ptx: &str, entry: &str, config: &LaunchConfig, params: &[u8]) -> Run {
    let module = machine.load(0, ptx).expect("the tests load it too");
    let function = module.function(entry).expect("the entry is in the file");
    if config.dynamic_shared > 48 * 1024 {
        function
            .set_max_dynamic_shared(config.dynamic_shared)
            .expect("fits sm_90a");
    }
    let stream = machine.default_stream(0).expect("device 0 is there");
    machine.take_launches();
    let start = Instant::now();
    machine
        .launch(stream, &function, config, params)
        .expect("a legal launch");
    machine.synchronize(stream).expect("no check fires");
    let seconds = start.elapsed().as_secs_f64();
    let counters = machine.take_launches().remove(0).counters;
    Run {
        seconds,
        thread_instructions: counters.thread_instructions,
        flops: counters.tensor_flops,
    }
}

/// Device memory filled with pseudo-random words whose bits make small bf16 and f32 numbers.
fn random(machine: &Machine, bytes: u64, seed: u64) -> u64 {
    let ptr = machine.alloc(0, bytes).expect("16 GiB are there");
    let mut state = seed;
    let data: Vec<u8> = (0..bytes.div_ceil(4))
        .flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let value = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            (value.to_bits() & 0xffff_0000 | (value.to_bits() >> 16)).to_le_bytes()
        })
        .take(bytes as usize)
        .collect();
    machine.write(ptr, &data).expect("just allocated");
    ptr
}

/// Parameters in their order, each at its natural alignment.
#[derive(Default)]
struct Params(Vec<u8>);

impl Params {
    fn u64(mut self, value: u64) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn map(mut self, map: &[u8; 128]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(64), 0);
        self.0.extend(map);
        self
    }
}

fn release(machine: &Machine, pointers: &[u64]) {
    for ptr in pointers {
        machine.free(*ptr).expect("allocated above");
    }
}

fn softmax(machine: &Machine) -> Run {
    let (tokens, experts, k) = (4096_u32, 128_u32, 2_u32);
    let logits = random(machine, u64::from(tokens * experts) * 4, 1);
    let probs = random(machine, u64::from(tokens * experts) * 4, 2);
    let weights = random(machine, u64::from(tokens * k) * 4, 3);
    let indices = random(machine, u64::from(tokens * k) * 4, 4);
    let params = Params::default()
        .u64(logits)
        .u64(probs)
        .u64(weights)
        .u64(indices)
        .u32(tokens)
        .u32(experts)
        .u32(k);
    let config = LaunchConfig::new([tokens / 8, 1, 1], [256, 1, 1]);
    let run = timed(machine, SOFTMAX, "softmax_topk_e128", &config, &params.0);
    release(machine, &[logits, probs, weights, indices]);
    run
}

fn permute(machine: &Machine) -> Run {
    let (rows, hidden) = (4096_u32, 1024_u32);
    let pieces = hidden / 8;
    let src = random(machine, u64::from(rows * hidden) * 2, 1);
    let dst = random(machine, u64::from(rows * hidden) * 2, 2);
    let order = machine
        .alloc(0, u64::from(rows) * 4)
        .expect("16 GiB are there");
    // An odd multiplier permutes the rows.
    let map: Vec<u8> = (0..rows)
        .flat_map(|row| (row * 2711 % rows).to_le_bytes())
        .collect();
    machine.write(order, &map).expect("just allocated");
    let params = Params::default()
        .u64(src)
        .u64(dst)
        .u64(order)
        .u32(rows)
        .u32(pieces)
        .u64(u64::from(pieces))
        .u64(u64::from(pieces));
    let config = LaunchConfig::new([rows / 8, 1, 1], [256, 1, 1]);
    let run = timed(machine, PERMUTE, "gather_rows_16b", &config, &params.0);
    release(machine, &[src, dst, order]);
    run
}

fn philox(machine: &Machine) -> Run {
    let groups = 1_u32 << 17;
    let out = random(machine, u64::from(groups) * 16, 1);
    let params = Params::default().u64(out).u32(groups).u64(1).u64(2).u64(3);
    let config = LaunchConfig::new([groups / 256, 1, 1], [256, 1, 1]);
    let run = timed(machine, PHILOX, "philox_u32", &config, &params.0);
    release(machine, &[out]);
    run
}

fn gemm_sm80(machine: &Machine) -> Run {
    let (rows, n, k, experts) = (256_u32, 256_u32, 512_u32, 2_u32);
    let a = random(machine, u64::from(rows * k) * 2, 1);
    let b = random(machine, u64::from(experts * n * k) * 2, 2);
    let d = random(machine, u64::from(rows * n) * 2, 3);
    let offsets = machine.alloc(0, 12).expect("16 GiB are there");
    let split: Vec<u8> = [0, 100, rows]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    machine.write(offsets, &split).expect("just allocated");
    let params = Params::default()
        .u64(a)
        .u64(b)
        .u64(d)
        .u64(offsets)
        .u32(experts)
        .u32(n)
        .u32(k)
        .u32(0);
    let config = LaunchConfig {
        dynamic_shared: 24_576,
        ..LaunchConfig::new([8, 1, 1], [128, 1, 1])
    };
    let run = timed(
        machine,
        GEMM_SM80,
        "gemm_grouped_nt_sm80",
        &config,
        &params.0,
    );
    release(machine, &[a, b, d, offsets]);
    run
}

fn gemm_sm90a(machine: &Machine) -> Run {
    let (m, n, k) = (256_u32, 256_u32, 1024_u32);
    let a = random(machine, u64::from(m * k) * 2, 1);
    let b = random(machine, u64::from(n * k) * 2, 2);
    let d = random(machine, u64::from(m * n) * 2, 3);
    let map = |ptr: u64, cols: u32, rows: u32, extent: [u32; 2]| {
        encode_tiled(
            TensorElement::Bf16,
            2,
            ptr,
            &[u64::from(cols), u64::from(rows)],
            &[u64::from(cols) * 2],
            &extent,
            &[1, 1],
            Interleave::None,
            Swizzle::B128,
            L2Promotion::None,
            OobFill::Zero,
        )
        .expect("a legal map")
    };
    let params = Params::default()
        .map(&map(a, k, m, [64, 128]))
        .map(&map(b, k, n, [64, 128]))
        .map(&map(d, n, m, [64, 64]))
        .u32(m)
        .u32(n)
        .u32(k);
    let config = LaunchConfig {
        dynamic_shared: 163_904,
        ..LaunchConfig::new([4, 1, 1], [384, 1, 1])
    };
    let run = timed(machine, GEMM_SM90A, "gemm_nt_sm90a", &config, &params.0);
    release(machine, &[a, b, d]);
    run
}
