//! Votes, matches, reductions and exchanges of warps, and random numbers.

use super::references;
use super::{Case, Failure, Params, Run, close, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let warps = kernel_file!("warp_ops");
    let philox = kernel_file!("philox");
    vec![
        Case::new("warp_votes", warps, KEYS, |run, p| {
            warp_ops(run, "warp_votes", p, 0, references::warp_votes)
        }),
        Case::new("warp_divergent", warps, KEYS, |run, p| {
            warp_ops(run, "warp_divergent", p, 0, references::warp_divergent)
        }),
        Case::new("warp_exchange", warps, KEYS, |run, p| {
            let shared = 4 * 32 * p.warps_per_block;
            warp_ops(run, "warp_exchange", p, shared, references::warp_exchange)
        }),
        Case::new("philox_u32", philox, STREAMS, |run, p| {
            let words = numbers::<u32>(run, "philox_u32", p)?;
            same("out", &words, &p.words_by(run, references::philox_u32))
        }),
        Case::new("philox_f32", philox, STREAMS, |run, p| {
            let values = numbers::<f32>(run, "philox_f32", p)?;
            same("out", &values, &p.words_by(run, references::philox_f32))
        }),
        Case::new("philox_normal", philox, STREAMS, |run, p| {
            let values = numbers::<f32>(run, "philox_normal", p)?;
            let want = p.words_by(run, references::philox_normal);
            // Fast logarithm near 1, sine and cosine.
            close("out", values.iter().map(|&v| v.into()), &want, |_| 1e-3)
        }),
    ]
}

struct Warps {
    warps: usize,
    warps_per_block: usize,
}

const KEYS: &[Warps] = &[
    Warps {
        warps: 5,
        warps_per_block: 2,
    },
    Warps {
        warps: 1,
        warps_per_block: 1,
    },
    Warps {
        warps: 3,
        warps_per_block: 32,
    },
    Warps {
        warps: 100,
        warps_per_block: 8,
    },
];

fn warp_ops(
    run: &Run<'_>,
    entry: &str,
    p: &Warps,
    shared: usize,
    reference: fn(&[u32]) -> Vec<u32>,
) -> Result<(), Failure> {
    // Warps of any words, of few different ones, of few odd ones, of equal ones.
    let mut random = run.random();
    let mut keys = Vec::new();
    for _ in 0..p.warps {
        let kind = random.below(4);
        let common = random.next() as u32;
        keys.extend(random.list(32, |random| match kind {
            0 => random.next() as u32,
            1 => random.below(5) as u32,
            2 => random.below(5) as u32 * 2 + 1,
            _ => common,
        }));
    }
    let want = reference(&keys);
    let out = run.alloc::<u32>(want.len())?;
    let params = Params::new()
        .u64(run.upload(&keys)?)
        .u64(out)
        .len(keys.len());
    let grid = p.warps.div_ceil(p.warps_per_block);
    run.launch(
        entry,
        &launch(grid, 32 * p.warps_per_block, shared),
        &params,
    )?;
    same("out", &run.read::<u32>(out, want.len())?, &want)
}

struct Groups {
    groups: usize,
    grid: usize,
    block: usize,
}

impl Groups {
    /// Seed, subsequence, offset: any; the low half of the counter soon carries into the high one.
    fn place(&self, run: &Run<'_>) -> [u64; 3] {
        let mut random = run.random();
        let [seed, subsequence, offset] = [(); 3].map(|()| random.next());
        [seed, subsequence, offset << 32 | 0xffff_fff0]
    }

    fn words_by<T>(&self, run: &Run<'_>, reference: fn(usize, u64, u64, u64) -> Vec<T>) -> Vec<T> {
        let [seed, subsequence, offset] = self.place(run);
        reference(self.groups, seed, subsequence, offset)
    }
}

const STREAMS: &[Groups] = &[
    Groups {
        groups: 100,
        grid: 2,
        block: 48,
    },
    Groups {
        groups: 0,
        grid: 1,
        block: 32,
    },
    Groups {
        groups: 1,
        grid: 1,
        block: 1,
    },
    Groups {
        groups: 3000,
        grid: 3,
        block: 256,
    },
];

fn numbers<T: bytemuck::Pod>(run: &Run<'_>, entry: &str, p: &Groups) -> Result<Vec<T>, Failure> {
    let out = run.alloc::<T>(4 * p.groups)?;
    let [seed, subsequence, offset] = p.place(run);
    let params = Params::new()
        .u64(out)
        .len(p.groups)
        .u64(seed)
        .u64(subsequence)
        .u64(offset);
    run.launch(entry, &launch(p.grid, p.block, 0), &params)?;
    run.read(out, 4 * p.groups)
}
