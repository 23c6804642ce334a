//! Matrix products on the tensor cores. With an even seed factors are integers and results exact to
//! the bit; with an odd one they are any numbers and results have a tolerance.

use bytemuck::Zeroable;
use half::bf16;
use tollgate_vgpu::host::{Interleave, L2Promotion, OobFill, TensorElement, encode_tiled};
use tollgate_vgpu::layout::swizzle::Swizzle;

use super::references::{self, Product, WeightLayout};
use super::{Case, Failure, Params, Run, close, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let grouped = kernel_file!("gemm_sm80");
    let hopper = kernel_file!("gemm_sm90a");
    vec![
        Case::new("gemm_grouped_nt_sm80", grouped, GROUPED, |run, p| {
            grouped_gemm(run, "gemm_grouped_nt_sm80", WeightLayout::Nk, p)
        }),
        Case::new("gemm_grouped_nn_sm80", grouped, GROUPED, |run, p| {
            grouped_gemm(run, "gemm_grouped_nn_sm80", WeightLayout::Kn, p)
        }),
        Case::new("gemm_nt_sm90a", hopper, PLAIN, |run, p| {
            gemm_nt(run, "gemm_nt_sm90a", 128, p)
        }),
        Case::new("gemm_nt_cluster2_sm90a", hopper, PAIRS, |run, p| {
            gemm_nt(run, "gemm_nt_cluster2_sm90a", 64, p)
        }),
        Case::new(
            "wgmma_relu_registers_sm90a",
            kernel_file!("wgmma_registers_sm90a"),
            DEPTHS,
            relu_product,
        ),
    ]
}

/// Each element of a bf16 result.
fn check(run: &Run<'_>, got: &[bf16], want: &Product) -> Result<(), Failure> {
    if exact(run) {
        same("d", got, &want.to_bf16())
    } else {
        close("d", got.iter().map(|v| v.to_f64()), &want.values, |i| {
            want.bf16_tolerance(i)
        })
    }
}

fn exact(run: &Run<'_>) -> bool {
    run.seed().is_multiple_of(2)
}

struct Grouped {
    /// Rows before the first expert's, which nobody owns, then the rows of each expert.
    rows: &'static [usize],
    n: usize,
    k: usize,
    grid: usize,
}

const fn grouped(rows: &'static [usize], n: usize, k: usize, grid: usize) -> Grouped {
    Grouped { rows, n, k, grid }
}

/// Tiles are 64 x 64 x 32, in a ring of 3: size 0 has 5 steps, and more tiles than blocks.
const GROUPED: &[Grouped] = &[
    grouped(&[0, 5, 0, 66], 72, 136, 2),
    grouped(&[0, 0], 8, 8, 1),
    grouped(&[2, 1], 8, 8, 1),
    grouped(&[0, 64], 64, 32, 1),
    grouped(&[1, 0, 3, 0], 16, 72, 3),
    grouped(&[0, 100, 1, 31, 0, 130], 136, 264, 5),
];

fn grouped_gemm(
    run: &Run<'_>,
    entry: &str,
    layout: WeightLayout,
    p: &Grouped,
) -> Result<(), Failure> {
    let mut offset = 0;
    let offsets: Vec<u32> = (p.rows.iter())
        .map(|rows| {
            offset += *rows as u32;
            offset
        })
        .collect();
    let (rows, experts) = (offset as usize, offsets.len() - 1);
    let mut random = run.random();
    let a = random.factors(rows * p.k, exact(run));
    let b = random.factors(experts * p.n * p.k, exact(run));
    let d = run.alloc::<bf16>(rows * p.n)?;
    // Nobody writes the rows that nobody owns.
    let unowned = vec![bf16::ZERO; p.rows[0] * p.n];
    if !unowned.is_empty() {
        run.machine().write(d, bytemuck::cast_slice(&unowned))?;
    }
    let params = Params::new()
        .u64(run.upload(&a)?)
        .u64(run.upload(&b)?)
        .u64(d)
        .u64(run.upload(&offsets)?)
        .len(experts)
        .len(p.n)
        .len(p.k)
        .pad_to(8);
    run.launch(entry, &launch(p.grid, 128, 24_576), &params)?;
    let want = references::grouped_gemm(&a, &b, &offsets, p.n, p.k, layout);
    check(run, &run.read::<bf16>(d, rows * p.n)?, &want)
}

/// The map of a row-major matrix in bf16: swizzle of 128 bytes, filled with zeros.
pub(super) fn matrix_map(
    ptr: u64,
    [rows, cols]: [usize; 2],
    [box_rows, box_cols]: [u32; 2],
) -> [u8; 128] {
    encode_tiled(
        TensorElement::Bf16,
        2,
        ptr,
        &[cols as u64, rows as u64],
        &[2 * cols as u64],
        &[box_cols, box_rows],
        &[1, 1],
        Interleave::None,
        Swizzle::B128,
        L2Promotion::B128,
        OobFill::Zero,
    )
    .expect("a legal map")
}

/// Alignment of a tensor map among parameters.
pub(super) const MAP_ALIGN: usize = 64;

struct Gemm {
    m: usize,
    n: usize,
    k: usize,
    grid: usize,
}

const fn gemm(m: usize, n: usize, k: usize, grid: usize) -> Gemm {
    Gemm { m, n, k, grid }
}

/// Tiles are 128 x 128 x 64, in a ring of 4: size 0 has 2 tiles of 3 steps in one block.
const PLAIN: &[Gemm] = &[
    gemm(136, 72, 136, 1),
    gemm(1, 8, 8, 1),
    gemm(128, 128, 64, 2),
    gemm(64, 136, 328, 1),
    gemm(200, 264, 200, 4),
];
/// As above, two tiles above each other at a time.
const PAIRS: &[Gemm] = &[
    gemm(136, 136, 136, 2),
    gemm(1, 8, 8, 2),
    gemm(256, 128, 64, 4),
    gemm(72, 64, 584, 2),
    gemm(300, 264, 200, 4),
];

fn gemm_nt(run: &Run<'_>, entry: &str, b_box_rows: u32, p: &Gemm) -> Result<(), Failure> {
    let mut random = run.random();
    let a = random.factors(p.m * p.k, exact(run));
    let b = random.factors(p.n * p.k, exact(run));
    let d = run.alloc::<bf16>(p.m * p.n)?;
    let a_map = matrix_map(run.upload(&a)?, [p.m, p.k], [128, 64]);
    let b_map = matrix_map(run.upload(&b)?, [p.n, p.k], [b_box_rows, 64]);
    let d_map = matrix_map(d, [p.m, p.n], [64, 64]);
    let params = Params::new()
        .bytes(&a_map, MAP_ALIGN)
        .bytes(&b_map, MAP_ALIGN)
        .bytes(&d_map, MAP_ALIGN)
        .len(p.m)
        .len(p.n)
        .len(p.k);
    run.launch(entry, &launch(p.grid, 384, 163_904), &params)?;
    let want = references::gemm_nt(&a, &b, p.n, p.k);
    check(run, &run.read::<bf16>(d, p.m * p.n)?, &want)
}

/// K. A step has 64.
const DEPTHS: &[usize] = &[136, 8, 64, 72, 520];

fn relu_product(run: &Run<'_>, &k: &usize) -> Result<(), Failure> {
    const M: usize = 64;
    const N: usize = 128;
    let mut random = run.random();
    let mut a = random.factors(M * k, exact(run));
    let b = random.factors(N * k, exact(run));
    let d = run.alloc::<f32>(M * N)?;
    let a_map = matrix_map(run.upload(&a)?, [M, k], [64, 64]);
    let b_map = matrix_map(run.upload(&b)?, [N, k], [128, 64]);
    let params = Params::new()
        .bytes(&a_map, MAP_ALIGN)
        .bytes(&b_map, MAP_ALIGN)
        .u64(d)
        .len(k);
    run.launch(
        "wgmma_relu_registers_sm90a",
        &launch(1, 128, 24_584),
        &params,
    )?;

    for value in a.iter_mut().filter(|value| value.is_sign_negative()) {
        *value = bf16::zeroed();
    }
    let want = references::gemm_nt(&a, &b, N, k);
    let got = run.read::<f32>(d, M * N)?;
    close("d", got.iter().map(|&v| v.into()), &want.values, |i| {
        if exact(run) {
            0.0
        } else {
            want.f32_tolerance(i)
        }
    })
}
