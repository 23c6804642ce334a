//! Blocks that work together, and grids: scan, transpose, named barriers, `cp.async`, grid barrier.

use tollgate_vgpu::host::LaunchConfig;

use super::references;
use super::{Case, Failure, Params, Run, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let tiles = kernel_file!("transpose");
    let sums = kernel_file!("vector_add_async");
    let barrier = kernel_file!("grid_barrier");
    vec![
        Case::new(
            "block_scan_u32",
            kernel_file!("block_scan"),
            SEGMENTS,
            block_scan,
        ),
        Case::new("transpose_f32", tiles, MATRICES, |run, p| {
            transpose(run, "transpose_f32", *p)
        }),
        Case::new("transpose_conflicts_f32", tiles, MATRICES, |run, p| {
            transpose(run, "transpose_conflicts_f32", *p)
        }),
        Case::new("vector_add_groups", sums, VECTORS, |run, p| {
            vector_add(run, "vector_add_groups", *p)
        }),
        Case::new("vector_add_mbarrier", sums, VECTORS, |run, p| {
            vector_add(run, "vector_add_mbarrier", *p)
        }),
        Case::new(
            "named_barrier_sums",
            kernel_file!("named_barriers"),
            SQUARES,
            named_barrier_sums,
        ),
        Case::new("grid_barrier_stencil", barrier, RINGS, grid_barrier),
        Case::new(
            "grid_barrier_stencil:two devices",
            barrier,
            TWO_RINGS,
            grid_barrier,
        )
        .on_devices(2),
    ]
}

struct Segments {
    n: usize,
    segment: usize,
    warps: usize,
}

const SEGMENTS: &[Segments] = &[
    Segments {
        n: 333,
        segment: 180,
        warps: 2,
    },
    Segments {
        n: 1,
        segment: 1,
        warps: 1,
    },
    Segments {
        n: 64,
        segment: 1000,
        warps: 1,
    },
    Segments {
        n: 96,
        segment: 32,
        warps: 4,
    },
    Segments {
        n: 257,
        segment: 256,
        warps: 3,
    },
    Segments {
        n: 9000,
        segment: 4096,
        warps: 32,
    },
];

fn block_scan(run: &Run<'_>, p: &Segments) -> Result<(), Failure> {
    let values = run.random().words(p.n);
    let grid = p.n.div_ceil(p.segment);
    let out = run.alloc::<u32>(p.n)?;
    let totals = run.alloc::<u32>(grid)?;
    let params = Params::new()
        .u64(run.upload(&values)?)
        .u64(out)
        .u64(totals)
        .len(p.n)
        .len(p.segment);
    run.launch("block_scan_u32", &launch(grid, 32 * p.warps, 0), &params)?;
    let (want, want_totals) = references::segment_scan(&values, p.segment);
    same("out", &run.read::<u32>(out, p.n)?, &want)?;
    same("totals", &run.read::<u32>(totals, grid)?, &want_totals)
}

/// Rows, columns.
const MATRICES: &[[usize; 2]] = &[[40, 70], [1, 1], [1, 33], [33, 1], [32, 32], [200, 130]];

fn transpose(run: &Run<'_>, entry: &str, [rows, cols]: [usize; 2]) -> Result<(), Failure> {
    let values = run.random().units(rows * cols);
    let out = run.alloc::<f32>(values.len())?;
    let params = Params::new()
        .u64(run.upload(&values)?)
        .u64(out)
        .len(rows)
        .len(cols);
    let tiles = [cols, rows].map(|n| n.div_ceil(32) as u32);
    let config = LaunchConfig::new([tiles[0], tiles[1], 1], [32, 8, 1]);
    run.launch(entry, &config, &params)?;
    let want = references::transpose(&values, rows, cols);
    same("out", &run.read::<f32>(out, want.len())?, &want)
}

/// Elements, blocks. Two slots of 128 elements a block: the first one is used three times.
const VECTORS: &[[usize; 2]] = &[[1285, 2], [0, 1], [1, 1], [128, 2], [129, 1], [5000, 3]];

fn vector_add(run: &Run<'_>, entry: &str, [n, grid]: [usize; 2]) -> Result<(), Failure> {
    let mut random = run.random();
    let (x, y) = (random.units(n), random.units(n));
    let out = run.alloc::<f32>(n)?;
    let params = Params::new()
        .u64(run.upload(&x)?)
        .u64(run.upload(&y)?)
        .u64(out)
        .len(n);
    run.launch(entry, &launch(grid, 128, 0), &params)?;
    let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    same("out", &run.read::<f32>(out, n)?, &want)
}

/// Values, values a block. Two slots of 64 values: size 0 uses each of them twice and more.
const SQUARES: &[[usize; 2]] = &[
    [700, 330],
    [1, 1],
    [64, 64],
    [65, 100],
    [192, 64],
    [5000, 1500],
];

fn named_barrier_sums(run: &Run<'_>, &[n, per_block]: &[usize; 2]) -> Result<(), Failure> {
    let values = run.random().words(n);
    let grid = n.div_ceil(per_block);
    let sums = run.alloc::<u32>(grid)?;
    let params = Params::new()
        .u64(run.upload(&values)?)
        .u64(sums)
        .len(n)
        .len(per_block);
    run.launch("named_barrier_sums", &launch(grid, 128, 0), &params)?;
    let want = references::segment_square_sums(&values, per_block);
    same("sums", &run.read::<u32>(sums, grid)?, &want)
}

/// A ring on each of some devices, all under way at once.
struct Ring {
    devices: u32,
    n: usize,
    steps: usize,
    grid: usize,
    block: usize,
}

const fn ring(devices: u32, n: usize, steps: usize, grid: usize, block: usize) -> Ring {
    Ring {
        devices,
        n,
        steps,
        grid,
        block,
    }
}

const RINGS: &[Ring] = &[
    ring(1, 150, 5, 3, 48),
    ring(1, 1, 1, 1, 32),
    ring(1, 2, 4, 2, 32),
    ring(1, 100, 0, 2, 32),
    ring(1, 31, 3, 4, 1),
    ring(1, 3000, 8, 12, 128),
];
const TWO_RINGS: &[Ring] = &[ring(2, 100, 4, 2, 64), ring(2, 700, 7, 5, 96)];

fn grid_barrier(run: &Run<'_>, p: &Ring) -> Result<(), Failure> {
    let mut random = run.random();
    let mut rings = Vec::new();
    for device in 0..p.devices {
        let values = random.words(p.n);
        let a = run.upload_on(device, &values)?;
        let b = run.alloc_on::<u32>(device, p.n)?;
        let arrivals = run.upload_on(device, &[0u32])?;
        let params = Params::new()
            .u64(a)
            .u64(b)
            .len(p.n)
            .len(p.steps)
            .u64(arrivals);
        let config = LaunchConfig {
            cooperative: true,
            ..launch(p.grid, p.block, 0)
        };
        let stream = run.stream_on(device)?;
        run.launch_on(stream, "grid_barrier_stencil", &config, &params)?;
        let result = if p.steps.is_multiple_of(2) { a } else { b };
        rings.push((stream, values, result, arrivals));
    }
    for (stream, values, result, arrivals) in rings {
        run.machine().synchronize(stream)?;
        let want = references::ring_stencil(&values, p.steps);
        same("ring", &run.read::<u32>(result, p.n)?, &want)?;
        let want = [(p.grid * p.steps) as u32];
        same("arrivals", &run.read::<u32>(arrivals, 1)?, &want)?;
    }
    Ok(())
}
