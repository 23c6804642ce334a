//! Softmax and top-k, histograms, stable ranks, rows moved and brought back.

use half::bf16;

use super::references::{self, NONE, RowLayout};
use super::{Case, Failure, Params, Random, Run, close, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let softmax = kernel_file!("softmax_topk");
    let counts = kernel_file!("histogram");
    let rows = kernel_file!("permute16");
    vec![
        Case::new("softmax_topk_e128", softmax, E128, |run, p| {
            softmax_topk(run, "softmax_topk_e128", p)
        }),
        Case::new("softmax_topk_e1024", softmax, E1024, |run, p| {
            softmax_topk(run, "softmax_topk_e1024", p)
        }),
        Case::new("histogram_shared", counts, HISTOGRAMS, |run, p| {
            histogram(run, "histogram_shared", 4 * p.bins, p)
        }),
        Case::new("histogram_match", counts, HISTOGRAMS, |run, p| {
            histogram(run, "histogram_match", 0, p)
        }),
        Case::new(
            "stable_ranks",
            kernel_file!("stable_ranks"),
            LISTS,
            stable_ranks,
        ),
        Case::new("gather_rows_16b", rows, MOVES, gather_rows),
        Case::new("scatter_rows_16b", rows, MOVES, scatter_rows),
        Case::new("unpermute_rows_bf16", rows, SUMS, unpermute_rows),
    ]
}

struct Gate {
    tokens: usize,
    experts: usize,
    k: usize,
    grid: usize,
    warps: usize,
}

const fn gate(tokens: usize, experts: usize, k: usize, grid: usize, warps: usize) -> Gate {
    Gate {
        tokens,
        experts,
        k,
        grid,
        warps,
    }
}

const E128: &[Gate] = &[
    gate(9, 72, 4, 2, 2),
    gate(0, 8, 2, 1, 1),
    gate(1, 1, 1, 1, 1),
    gate(5, 128, 8, 3, 1),
    gate(7, 33, 1, 1, 32),
    gate(3, 8, 8, 2, 2),
    gate(301, 64, 6, 5, 4),
];
const E1024: &[Gate] = &[
    gate(5, 200, 4, 2, 2),
    gate(0, 8, 2, 1, 1),
    gate(2, 1, 1, 1, 1),
    gate(3, 1024, 8, 1, 1),
    gate(4, 993, 3, 1, 3),
    gate(67, 256, 8, 3, 4),
];

/// Few values, so that many are equal, zeros of both signs, and some rows that underflow.
fn logits(random: &mut Random, p: &Gate) -> Vec<f32> {
    let mut rows = Vec::new();
    for _ in 0..p.tokens {
        let step = [0.125, 1.0, 40.0][random.below(3)];
        rows.extend(random.list(p.experts, |random| match random.below(8) {
            0 => -0.0,
            _ => random.between(-6, 6) as f32 * step,
        }));
    }
    rows
}

fn softmax_topk(run: &Run<'_>, entry: &str, p: &Gate) -> Result<(), Failure> {
    let logits = logits(&mut run.random(), p);
    let chosen = p.tokens * p.k;
    let probs = run.alloc::<f32>(logits.len())?;
    let topk_w = run.alloc::<f32>(chosen)?;
    let topk_idx = run.alloc::<u32>(chosen)?;
    let params = Params::new()
        .u64(run.upload(&logits)?)
        .u64(probs)
        .u64(topk_w)
        .u64(topk_idx)
        .len(p.tokens)
        .len(p.experts)
        .len(p.k);
    run.launch(entry, &launch(p.grid, 32 * p.warps, 0), &params)?;

    let want = references::softmax_topk(&logits, p.experts, p.k);
    same(
        "topk_idx",
        &run.read::<u32>(topk_idx, chosen)?,
        &want.topk_idx,
    )?;
    let near = |what, ptr, want: &[f64]| {
        let got = run.read::<f32>(ptr, want.len())?;
        // A fast exponential; results below the normal numbers may be flushed.
        close(what, got.iter().map(|&v| v.into()), want, |i| {
            1e-5 * want[i] + 1e-37
        })
    };
    near("probs", probs, &want.probs)?;
    near("topk_w", topk_w, &want.topk_w)
}

struct Keys {
    n: usize,
    bins: usize,
    grid: usize,
    warps: usize,
}

const fn keys(n: usize, bins: usize, grid: usize, warps: usize) -> Keys {
    Keys {
        n,
        bins,
        grid,
        warps,
    }
}

const HISTOGRAMS: &[Keys] = &[
    keys(500, 24, 3, 2),
    keys(0, 8, 2, 1),
    keys(1, 1, 1, 1),
    keys(33, 5, 1, 2),
    keys(1000, 300, 2, 3),
    keys(9001, 64, 4, 8),
];

fn histogram(run: &Run<'_>, entry: &str, shared: usize, p: &Keys) -> Result<(), Failure> {
    // Some are at or above the bins, and some as large as can be.
    let keys = run.random().list(p.n, |random| match random.below(16) {
        0 => u32::MAX,
        _ => random.below(p.bins + 2) as u32,
    });
    let counts = run.upload(&vec![0u32; p.bins])?;
    let params = Params::new()
        .u64(run.upload(&keys)?)
        .u64(counts)
        .len(p.n)
        .len(p.bins);
    run.launch(entry, &launch(p.grid, 32 * p.warps, shared), &params)?;
    let want = references::histogram(&keys, p.bins);
    same("counts", &run.read::<u32>(counts, p.bins)?, &want)
}

struct Lists {
    lists: usize,
    assignments: usize,
    experts: usize,
    warps: usize,
}

const fn lists(lists: usize, assignments: usize, experts: usize, warps: usize) -> Lists {
    Lists {
        lists,
        assignments,
        experts,
        warps,
    }
}

const LISTS: &[Lists] = &[
    lists(2, 150, 10, 2),
    lists(1, 0, 4, 1),
    lists(1, 1, 1, 2),
    lists(3, 64, 70, 2),
    lists(1, 33, 3, 1),
    lists(1, 2500, 64, 32),
];

fn stable_ranks(run: &Run<'_>, p: &Lists) -> Result<(), Failure> {
    let all = p.lists * p.assignments;
    let expert_of = run.random().list(all, |random| match random.below(12) {
        0 => NONE,
        _ => random.below(p.experts + 1) as u32,
    });
    let rank_of = run.alloc::<u32>(all)?;
    let counts = run.alloc::<u32>(p.lists * p.experts)?;
    let params = Params::new()
        .u64(run.upload(&expert_of)?)
        .u64(rank_of)
        .u64(counts)
        .len(p.assignments)
        .len(p.experts);
    let shared = 4 * p.experts * (1 + p.warps);
    run.launch(
        "stable_ranks",
        &launch(p.lists, 32 * p.warps, shared),
        &params,
    )?;

    let (mut want_ranks, mut want_counts) = (Vec::new(), Vec::new());
    for list in 0..p.lists {
        let list = &expert_of[list * p.assignments..][..p.assignments];
        let (ranks, counts) = references::stable_ranks(list, p.experts);
        want_ranks.extend(ranks);
        want_counts.extend(counts);
    }
    same("rank_of", &run.read::<u32>(rank_of, all)?, &want_ranks)?;
    same(
        "counts",
        &run.read::<u32>(counts, want_counts.len())?,
        &want_counts,
    )
}

/// Rows of `pieces` times 16 bytes; strides are in pieces too. `other` rows are at the other side of
/// the map.
struct Moves {
    rows: usize,
    other: usize,
    pieces: usize,
    src_stride: usize,
    dst_stride: usize,
    grid: usize,
    warps: usize,
}

const MOVES: &[Moves] = &[
    Moves {
        rows: 9,
        other: 12,
        pieces: 40,
        src_stride: 41,
        dst_stride: 43,
        grid: 2,
        warps: 1,
    },
    Moves {
        rows: 0,
        other: 1,
        pieces: 4,
        src_stride: 4,
        dst_stride: 4,
        grid: 1,
        warps: 1,
    },
    Moves {
        rows: 1,
        other: 1,
        pieces: 1,
        src_stride: 1,
        dst_stride: 1,
        grid: 3,
        warps: 2,
    },
    Moves {
        rows: 5,
        other: 5,
        pieces: 33,
        src_stride: 33,
        dst_stride: 40,
        grid: 5,
        warps: 3,
    },
    Moves {
        rows: 64,
        other: 90,
        pieces: 256,
        src_stride: 256,
        dst_stride: 256,
        grid: 7,
        warps: 8,
    },
];

impl Moves {
    fn layout(&self) -> RowLayout {
        RowLayout {
            row_elems: 8 * self.pieces,
            src_stride: 8 * self.src_stride,
            dst_stride: 8 * self.dst_stride,
        }
    }

    /// Launches; destinations have gaps, and rows that stay, so they are filled before.
    fn run(
        &self,
        run: &Run<'_>,
        entry: &str,
        src: &[u16],
        dst: &[u16],
        row_of: &[u32],
    ) -> Result<Vec<u16>, Failure> {
        let written = run.upload(dst)?;
        let params = Params::new()
            .u64(run.upload(src)?)
            .u64(written)
            .u64(run.upload(row_of)?)
            .len(self.rows)
            .len(self.pieces)
            .u64(self.src_stride as u64)
            .u64(self.dst_stride as u64);
        run.launch(entry, &launch(self.grid, 32 * self.warps, 0), &params)?;
        run.read(written, dst.len())
    }
}

fn halves(random: &mut Random, n: usize) -> Vec<u16> {
    random.list(n, |random| random.next() as u16)
}

fn gather_rows(run: &Run<'_>, p: &Moves) -> Result<(), Failure> {
    let random = &mut run.random();
    let src = halves(random, 8 * p.other * p.src_stride);
    let mut want = halves(random, 8 * p.rows * p.dst_stride);
    let row_of = random.list(p.rows, |random| match random.below(6) {
        0 => NONE,
        _ => random.below(p.other) as u32,
    });
    let got = p.run(run, "gather_rows_16b", &src, &want, &row_of)?;
    references::gather_rows(&src, &mut want, &row_of, p.layout());
    same("dst", &got, &want)
}

fn scatter_rows(run: &Run<'_>, p: &Moves) -> Result<(), Failure> {
    let random = &mut run.random();
    let src = halves(random, 8 * p.rows * p.src_stride);
    let mut want = halves(random, 8 * p.other * p.dst_stride);
    // No destination twice.
    let mut row_of = random.permutation(p.other);
    row_of.truncate(p.rows);
    for row in &mut row_of {
        if random.once_in(6) {
            *row = NONE;
        }
    }
    let got = p.run(run, "scatter_rows_16b", &src, &want, &row_of)?;
    references::scatter_rows(&src, &mut want, &row_of, p.layout());
    same("dst", &got, &want)
}

/// `rows` tokens with `k` rows of the `other` ones each.
struct Sums {
    moves: Moves,
    k: usize,
}

const SUMS: &[Sums] = &[
    Sums {
        k: 3,
        moves: Moves {
            rows: 7,
            other: 15,
            pieces: 40,
            src_stride: 41,
            dst_stride: 42,
            grid: 2,
            warps: 1,
        },
    },
    Sums {
        k: 2,
        moves: Moves {
            rows: 0,
            other: 1,
            pieces: 4,
            src_stride: 4,
            dst_stride: 4,
            grid: 1,
            warps: 1,
        },
    },
    Sums {
        k: 0,
        moves: Moves {
            rows: 2,
            other: 1,
            pieces: 3,
            src_stride: 3,
            dst_stride: 3,
            grid: 1,
            warps: 1,
        },
    },
    Sums {
        k: 8,
        moves: Moves {
            rows: 33,
            other: 200,
            pieces: 64,
            src_stride: 64,
            dst_stride: 64,
            grid: 4,
            warps: 4,
        },
    },
];

fn unpermute_rows(run: &Run<'_>, p: &Sums) -> Result<(), Failure> {
    let random = &mut run.random();
    let Sums { moves, k } = p;
    let src = random.list(8 * moves.other * moves.src_stride, |random| {
        bf16::from_f32(random.unit())
    });
    let mut want = random.list(8 * moves.rows * moves.dst_stride, |random| {
        bf16::from_f32(random.unit())
    });
    let row_of = random.list(moves.rows * k, |random| match random.below(6) {
        0 => NONE,
        _ => random.below(moves.other) as u32,
    });
    let weights = random.units(row_of.len());
    let dst = run.upload(&want)?;
    let params = Params::new()
        .u64(run.upload(&src)?)
        .u64(dst)
        .u64(run.upload(&row_of)?)
        .u64(run.upload(&weights)?)
        .len(moves.rows)
        .len(*k)
        .len(moves.pieces)
        .u64(moves.src_stride as u64)
        .u64(moves.dst_stride as u64);
    let geometry = launch(moves.grid, 32 * moves.warps, 0);
    run.launch("unpermute_rows_bf16", &geometry, &params)?;
    // The reference cannot split rows of none.
    if *k == 0 {
        for row in want.chunks_mut(8 * moves.dst_stride) {
            row[..8 * moves.pieces].fill(bf16::ZERO);
        }
    } else {
        references::unpermute_rows(&src, &mut want, &row_of, &weights, *k, moves.layout());
    }
    same("dst", &run.read::<bf16>(dst, want.len())?, &want)
}
