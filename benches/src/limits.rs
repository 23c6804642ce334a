//! The machine's own limits, measured in the same run as what is compared with them.
//!
//! A limit is what a short loop that does nothing else reaches: fused multiply–adds on registers,
//! bf16 dot products on registers, reading and copying arrays far beyond the last-level cache. The
//! best of several rounds counts: disturbances only ever slow a loop down.

mod compute;
mod memory;

use std::fmt;
use std::time::Instant;

use tollgate::{Cpu, DType};

/// A limit in units (operations, bytes) a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// On one thread, the others idle.
    pub one: f64,
    /// On all threads of the pool at once.
    pub all: f64,
}

impl Rate {
    /// Measures `work`, which runs once on each thread it is given and returns the units that all
    /// of them did; the argument says whether that is one thread or all of them.
    fn measure(rounds: usize, mut work: impl FnMut(bool) -> f64) -> Self {
        let mut best = |all| {
            (0..rounds)
                .map(|_| {
                    let start = Instant::now();
                    let units = work(all);
                    units / start.elapsed().as_secs_f64()
                })
                .fold(0.0, f64::max)
        };
        Self {
            one: best(false),
            all: best(true),
        }
    }

    fn better(self, other: Self) -> Self {
        Self {
            one: self.one.max(other.one),
            all: self.all.max(other.all),
        }
    }
}

/// The limits of the machine on the threads of one pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Threads behind [`Rate::all`].
    pub threads: usize,
    /// f32 fused multiply–adds, two operations each.
    pub f32_flops: Rate,
    /// bf16 dot products accumulated in f32, two operations a product; `None` where the machine has
    /// no such instruction, or none that this crate knows.
    pub bf16_flops: Option<Rate>,
    /// Bytes read from RAM.
    pub read: Rate,
    /// Bytes read plus bytes written when copying in RAM: the better of `memcpy` and streaming
    /// stores.
    pub copy: Rate,
    /// The same for the C library's `memcpy` alone.
    pub memcpy: Rate,
}

/// Rounds of each loop.
const ROUNDS: usize = 5;

impl Limits {
    /// Measures all of them; takes a second or two.
    pub fn measure(cpu: &Cpu) -> Self {
        let mut memory = memory::Arrays::new(cpu);
        let memcpy = Rate::measure(ROUNDS, |all| memory.memcpy(all));
        let streamed = Rate::measure(ROUNDS, |all| memory.stream_copy(all));
        Self {
            threads: cpu.threads(),
            f32_flops: Rate::measure(ROUNDS, |all| compute::f32_fma(cpu, all)),
            bf16_flops: compute::has_bf16_dot()
                .then(|| Rate::measure(ROUNDS, |all| compute::bf16_dot(cpu, all))),
            read: Rate::measure(ROUNDS, |all| memory.read(all)),
            copy: memcpy.better(streamed),
            memcpy,
        }
    }

    /// The better of two measurements, limit by limit.
    pub fn better(&self, other: &Self) -> Self {
        Self {
            threads: self.threads,
            f32_flops: self.f32_flops.better(other.f32_flops),
            bf16_flops: self
                .bf16_flops
                .zip(other.bf16_flops)
                .map(|(a, b)| a.better(b)),
            read: self.read.better(other.read),
            copy: self.copy.better(other.copy),
            memcpy: self.memcpy.better(other.memcpy),
        }
    }

    /// The peak that operations on elements of `dtype` are held to, and its name: the f32 peak
    /// where there is no faster instruction for the type.
    pub fn peak(&self, dtype: DType) -> (f64, &'static str) {
        match (dtype, self.bf16_flops) {
            (DType::Bf16, Some(rate)) => (rate.all, "bf16 dot"),
            _ => (self.f32_flops.all, "f32 FMA"),
        }
    }
}

/// Instruction sets that decide the limits, as detected.
fn instruction_sets() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            (
                "avx512bf16",
                std::arch::is_x86_feature_detected!("avx512bf16"),
            ),
        ];
        let found: Vec<_> = known
            .iter()
            .filter(|(_, found)| *found)
            .map(|(name, _)| *name)
            .collect();
        found.join(" ")
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.to_owned()
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "limits of this machine ({})", instruction_sets())?;
        let all = format!("{} threads", self.threads);
        writeln!(f, "  {:<24} {:>10} {all:>10}", "", "1 thread")?;
        let mut line = |name, rate: Option<Rate>, unit| match rate {
            Some(Rate { one, all }) => {
                let (one, all) = (one / 1e9, all / 1e9);
                writeln!(f, "  {name:<24} {one:>10.1} {all:>10.1}  {unit}")
            }
            None => writeln!(
                f,
                "  {name:<24} {:>10} {:>10}  no such instruction; shares are of the f32 peak",
                "n/a", "n/a"
            ),
        };
        line("f32 fused multiply-add", Some(self.f32_flops), "GFLOP/s")?;
        line("bf16 dot product", self.bf16_flops, "GFLOP/s")?;
        line("RAM read", Some(self.read), "GB/s")?;
        line("RAM copy", Some(self.copy), "GB/s read + written")?;
        line("RAM copy, memcpy", Some(self.memcpy), "GB/s read + written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(scale: f64, bf16: bool) -> Limits {
        let rate = |v: f64| Rate {
            one: v * scale,
            all: 2.0 * v * scale,
        };
        Limits {
            threads: 2,
            f32_flops: rate(1e9),
            bf16_flops: bf16.then(|| rate(2e9)),
            read: rate(3e9),
            copy: rate(4e9),
            memcpy: rate(3.5e9),
        }
    }

    #[test]
    fn the_better_measurement_counts_limit_by_limit() {
        let mut slow_copy = limits(2.0, true);
        slow_copy.copy = Rate { one: 1.0, all: 1.0 };
        let best = limits(1.0, true).better(&slow_copy);
        assert_eq!(best.f32_flops.all, 4e9);
        assert_eq!(best.copy.all, 8e9);
    }

    #[test]
    fn bf16_is_held_to_the_f32_peak_where_there_is_no_instruction() {
        assert_eq!(limits(1.0, true).peak(DType::Bf16), (4e9, "bf16 dot"));
        assert_eq!(limits(1.0, false).peak(DType::Bf16), (2e9, "f32 FMA"));
        assert_eq!(limits(1.0, true).peak(DType::F16), (2e9, "f32 FMA"));
        let text = limits(1.0, false).to_string();
        assert!(text.contains("n/a") && text.contains("f32 peak"), "{text}");
    }

    #[test]
    fn the_best_round_counts() {
        let mut round = 0;
        let rate = Rate::measure(3, |all| {
            round += 1;
            // The second round of either kind does far more in the same time.
            std::thread::sleep(std::time::Duration::from_millis(2));
            match (all, round % 3) {
                (false, 2) => 1e6,
                (true, 2) => 2e6,
                _ => 1.0,
            }
        });
        assert!(rate.one > 1e7 && rate.all > 1e7, "{rate:?}");
    }
}
