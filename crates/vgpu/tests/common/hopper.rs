//! Clusters, bulk copies and dependent launches of sm_90.

use tollgate_vgpu::host::LaunchConfig;

use super::references;
use super::{Case, Failure, Params, Run, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let clusters = kernel_file!("cluster_reduce_sm90a");
    vec![
        Case::new("cluster_sum_dsmem", clusters, ROWS, |run, p| {
            cluster_sum(run, "cluster_sum_dsmem", p)
        }),
        Case::new("cluster_sum_remote_arrive", clusters, ROWS, |run, p| {
            cluster_sum(run, "cluster_sum_remote_arrive", p)
        }),
        Case::new("cluster_sum_st_async", clusters, ROWS, |run, p| {
            cluster_sum(run, "cluster_sum_st_async", p)
        }),
        Case::new(
            "bulk_copy",
            kernel_file!("bulk_copy_sm90a"),
            PIECES,
            bulk_copy,
        ),
        Case::new(
            "dependent_first",
            kernel_file!("dependent_launch_sm90a"),
            CHAINS,
            dependent_launch,
        ),
    ]
}

struct Rows {
    rows: usize,
    cols: usize,
    clusters: usize,
}

const fn rows(rows: usize, cols: usize, clusters: usize) -> Rows {
    Rows {
        rows,
        cols,
        clusters,
    }
}

const ROWS: &[Rows] = &[
    rows(5, 600, 2),
    rows(0, 10, 1),
    rows(1, 1, 1),
    rows(2, 512, 3),
    rows(3, 0, 1),
    rows(40, 2000, 4),
];

fn cluster_sum(run: &Run<'_>, entry: &str, p: &Rows) -> Result<(), Failure> {
    let values = run.random().units(p.rows * p.cols);
    let out = run.alloc::<f32>(p.rows)?;
    let params = Params::new()
        .u64(run.upload(&values)?)
        .u64(out)
        .len(p.rows)
        .len(p.cols);
    run.launch(entry, &launch(4 * p.clusters, 128, 0), &params)?;
    let want = references::cluster_sums(&values, p.rows, p.cols);
    same("out", &run.read::<f32>(out, p.rows)?, &want)
}

/// Pieces of 16 bytes, blocks. Two slots of 128 pieces a block: the first one is used three times.
const PIECES: &[[usize; 2]] = &[[1153, 2], [0, 1], [1, 1], [128, 1], [257, 4], [5000, 3]];

fn bulk_copy(run: &Run<'_>, &[pieces, grid]: &[usize; 2]) -> Result<(), Failure> {
    let mut random = run.random();
    let flip = random.next() as u32;
    let src = random.words(4 * pieces);
    let dst = run.alloc::<u32>(src.len())?;
    let params = Params::new()
        .u64(run.upload(&src)?)
        .u64(dst)
        .len(pieces)
        .u32(flip);
    run.launch("bulk_copy", &launch(grid, 128, 0), &params)?;
    let want: Vec<u32> = src.iter().map(|word| word ^ flip).collect();
    same("dst", &run.read::<u32>(dst, src.len())?, &want)
}

struct Chain {
    n: usize,
    block: usize,
    /// With programmatic stream serialisation: the second grid may start before the first one ends.
    early: bool,
}

const CHAINS: &[Chain] = &[
    Chain {
        n: 300,
        block: 64,
        early: true,
    },
    Chain {
        n: 300,
        block: 64,
        early: false,
    },
    Chain {
        n: 1,
        block: 32,
        early: true,
    },
    Chain {
        n: 33,
        block: 33,
        early: true,
    },
    Chain {
        n: 5000,
        block: 128,
        early: true,
    },
];

fn dependent_launch(run: &Run<'_>, p: &Chain) -> Result<(), Failure> {
    let mut random = run.random();
    let x = random.words(p.n);
    let mask = random.words(32);
    let mid = run.alloc::<u32>(p.n)?;
    let out = run.alloc::<u32>(p.n)?;
    let config = launch(p.n.div_ceil(p.block), p.block, 0);
    let params = Params::new().u64(run.upload(&x)?).u64(mid).len(p.n);
    let mask_ptr = run.upload(&mask)?;
    run.launch("dependent_first", &config, &params)?;
    let params = Params::new().u64(mid).u64(mask_ptr).u64(out).len(p.n);
    let config = LaunchConfig {
        programmatic_dependent: p.early,
        ..config
    };
    run.launch("dependent_second", &config, &params)?;

    let want_mid: Vec<u32> = (x.iter())
        .map(|x| x.wrapping_mul(3).wrapping_add(1))
        .collect();
    let reversed = want_mid.iter().rev().enumerate();
    let want: Vec<u32> = reversed.map(|(i, mid)| mid ^ mask[i % 32]).collect();
    same("mid", &run.read::<u32>(mid, p.n)?, &want_mid)?;
    same("out", &run.read::<u32>(out, p.n)?, &want)
}
