//! Rows to fp8 and back.

use bytemuck::Pod;
use half::bf16;

use super::references::{Fp8, fp8_to_f32, quantize_row};
use super::{Case, Failure, Params, Random, Run, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let file = kernel_file!("fp8_convert_sm90a");
    let narrow: fn(f32) -> bf16 = bf16::from_f32;
    vec![
        Case::new("quantize_e4m3_f32", file, ROWS, |run, p| {
            quantize(run, "quantize_e4m3_f32", Fp8::E4m3, p, |v| v, |v| v)
        }),
        Case::new("quantize_e5m2_f32", file, ROWS, |run, p| {
            quantize(run, "quantize_e5m2_f32", Fp8::E5m2, p, |v| v, |v| v)
        }),
        Case::new("quantize_e4m3_bf16", file, ROWS, move |run, p| {
            quantize(
                run,
                "quantize_e4m3_bf16",
                Fp8::E4m3,
                p,
                narrow,
                bf16::to_f32,
            )
        }),
        Case::new("quantize_e5m2_bf16", file, ROWS, move |run, p| {
            quantize(
                run,
                "quantize_e5m2_bf16",
                Fp8::E5m2,
                p,
                narrow,
                bf16::to_f32,
            )
        }),
        Case::new("dequantize_e4m3", file, ROWS, |run, p| {
            dequantize(run, "dequantize_e4m3", Fp8::E4m3, p)
        }),
        Case::new("dequantize_e5m2", file, ROWS, |run, p| {
            dequantize(run, "dequantize_e5m2", Fp8::E5m2, p)
        }),
    ]
}

struct Rows {
    rows: usize,
    cols: usize,
    grid: usize,
    warps: usize,
}

const fn rows(rows: usize, cols: usize, grid: usize, warps: usize) -> Rows {
    Rows {
        rows,
        cols,
        grid,
        warps,
    }
}

const ROWS: &[Rows] = &[
    rows(5, 150, 2, 2),
    rows(0, 2, 1, 1),
    rows(1, 2, 1, 1),
    rows(3, 0, 1, 2),
    rows(2, 64, 4, 32),
    rows(40, 1000, 3, 4),
];

/// Rows of usual size, of zeros, huge ones, and ones so small that the scale is subnormal or nothing.
fn values(random: &mut Random, p: &Rows) -> Vec<f32> {
    let mut values = Vec::new();
    for _ in 0..p.rows {
        let size = [1.0, 1000.0, 0.0, 1e38, 1e-36, 1e-41][random.below(6)];
        values.extend(random.list(p.cols, |random| match random.below(9) {
            0 => -0.0,
            _ => random.unit() * size,
        }));
    }
    values
}

fn quantize<T: Pod>(
    run: &Run<'_>,
    entry: &str,
    format: Fp8,
    p: &Rows,
    narrow: impl Fn(f32) -> T,
    widen: impl Fn(T) -> f32,
) -> Result<(), Failure> {
    let mut random = run.random();
    let x: Vec<T> = (values(&mut random, p).into_iter()).map(narrow).collect();
    let q = run.alloc::<u8>(x.len())?;
    let scale = run.alloc::<f32>(p.rows)?;
    let params = Params::new()
        .u64(run.upload(&x)?)
        .u64(q)
        .u64(scale)
        .len(p.rows)
        .len(p.cols);
    run.launch(entry, &launch(p.grid, 32 * p.warps, 0), &params)?;

    let (mut want_q, mut want_scale) = (Vec::new(), Vec::new());
    for row in 0..p.rows {
        let row: Vec<f32> = x[row * p.cols..][..p.cols]
            .iter()
            .map(|&v| widen(v))
            .collect();
        let (codes, scale) = quantize_row(format, &row);
        want_q.extend(codes);
        want_scale.push(scale);
    }
    same("scale", &run.read::<f32>(scale, p.rows)?, &want_scale)?;
    same("q", &run.read::<u8>(q, x.len())?, &want_q)
}

fn dequantize(run: &Run<'_>, entry: &str, format: Fp8, p: &Rows) -> Result<(), Failure> {
    let mut random = run.random();
    let q = random.list(p.rows * p.cols, |random| random.next() as u8);
    let scale = random.list(p.rows, |random| random.unit() * 8.0);
    let y = run.alloc::<f32>(q.len())?;
    let params = Params::new()
        .u64(run.upload(&q)?)
        .u64(run.upload(&scale)?)
        .u64(y)
        .len(p.rows)
        .len(p.cols);
    run.launch(entry, &launch(p.grid, 32 * p.warps, 0), &params)?;
    let got: Vec<f32> = run.read(y, q.len())?;
    let want = (q.iter().enumerate()).map(|(i, &q)| fp8_to_f32(format, q) * scale[i / p.cols]);
    // The bits of a NaN are nobody's business.
    let plain = |v: f32| if v.is_nan() { f32::NAN } else { v };
    let (got, want): (Vec<f32>, Vec<f32>) = got
        .into_iter()
        .zip(want)
        .map(|(g, w)| (plain(g), plain(w)))
        .unzip();
    same("y", &got, &want)
}
