//! The executable specification: f64, scalar, in the order of the equations.
//!
//! Nothing is rounded in between, and every matrix is contiguous. Arguments are checked by the
//! implementations: here they are equations, and what does not fit is a caller's bug that panics.
//! In particular `offsets` `[E+1]` must be exclusive prefix sums from 0 to the rows, at least
//! `[0]`.

use crate::activation::{derivative_f64, value_f64};
use crate::{ExpertShape, ExpertWeights};

/// `<a, b>` in eight partial sums, so that medium-sized checks need not wait for one long chain.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `to += factor · from`.
fn add_scaled(to: &mut [f64], factor: f64, from: &[f64]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t += factor * f;
    }
}

/// Row `r` of a contiguous matrix of `cols` columns.
fn row(data: &[f64], cols: usize, r: usize) -> &[f64] {
    &data[r * cols..(r + 1) * cols]
}

/// E.
#[track_caller]
fn experts(offsets: &[i32]) -> usize {
    let groups = offsets.len().checked_sub(1);
    groups.expect("offsets [E+1] must hold at least the entry 0")
}

/// The rows of group `e`.
fn group(offsets: &[i32], e: usize) -> std::ops::Range<usize> {
    offsets[e] as usize..offsets[e + 1] as usize
}

/// `D[m, :] = A[m, :] · B[e]ᵀ + bias[e]`; A `[M, K]`, B `[E, N, K]`, bias `[E, N]`, D `[M, N]`.
///
/// # Panics
/// If `offsets` is empty or does not ascend from 0, or if a slice is shorter than its shape.
pub fn m_grouped(
    a: &[f64],
    b: &[f64],
    bias: Option<&[f64]>,
    offsets: &[i32],
    n: usize,
    k: usize,
) -> Vec<f64> {
    let experts = experts(offsets);
    let mut d = Vec::with_capacity(offsets[experts] as usize * n);
    for e in 0..experts {
        for m in group(offsets, e) {
            for j in 0..n {
                let product = dot(row(a, k, m), row(b, k, e * n + j));
                d.push(product + bias.map_or(0.0, |bias| bias[e * n + j]));
            }
        }
    }
    d
}

/// `D[m, :] = A[m, :] · B[e]`; A `[M, N]`, B `[E, N, K]`, D `[M, K]`.
///
/// # Panics
/// If `offsets` is empty or does not ascend from 0, or if a slice is shorter than its shape.
pub fn m_grouped_transposed(a: &[f64], b: &[f64], offsets: &[i32], n: usize, k: usize) -> Vec<f64> {
    let experts = experts(offsets);
    let mut d = vec![0.0; offsets[experts] as usize * k];
    for e in 0..experts {
        for m in group(offsets, e) {
            for j in 0..n {
                add_scaled(
                    &mut d[m * k..(m + 1) * k],
                    a[m * n + j],
                    row(b, k, e * n + j),
                );
            }
        }
    }
    d
}

/// `W[e] = Σ_{m in group e} A[m, :]ᵀ · X[m, :]`; A `[M, N]`, X `[M, K]`, W `[E, N, K]`. The matrix
/// of an empty group is zero.
///
/// # Panics
/// If `offsets` is empty or does not ascend from 0, or if a slice is shorter than its shape.
pub fn k_grouped(a: &[f64], x: &[f64], offsets: &[i32], n: usize, k: usize) -> Vec<f64> {
    let experts = experts(offsets);
    let mut w = vec![0.0; experts * n * k];
    for e in 0..experts {
        for m in group(offsets, e) {
            for j in 0..n {
                let at = (e * n + j) * k;
                add_scaled(&mut w[at..at + k], a[m * n + j], row(x, k, m));
            }
        }
    }
    w
}

/// `b[e] = Σ_{m in group e} A[m, :]`; A `[M, N]`, b `[E, N]`: the gradient of a bias.
///
/// # Panics
/// If `offsets` is empty or does not ascend from 0, or if a slice is shorter than its shape.
pub fn column_sums(a: &[f64], offsets: &[i32], n: usize) -> Vec<f64> {
    let experts = experts(offsets);
    let mut sums = vec![0.0; experts * n];
    for e in 0..experts {
        for m in group(offsets, e) {
            add_scaled(&mut sums[e * n..(e + 1) * n], 1.0, row(a, n, m));
        }
    }
    sums
}

/// `act [A, I]` of `pre [A, N1]`: `act(pre)`, or `act(gate) · up` in the gated form.
pub fn activate(shape: &ExpertShape, pre: &[f64]) -> Vec<f64> {
    let i = shape.intermediate;
    if !shape.gated {
        return pre
            .iter()
            .map(|&v| value_f64(shape.activation, v))
            .collect();
    }
    let mut act = Vec::with_capacity(pre.len() / 2);
    for r in 0..rows(pre, shape.up_rows()) {
        let (gate, up) = row(pre, 2 * i, r).split_at(i);
        act.extend(
            gate.iter()
                .zip(up)
                .map(|(&g, u)| value_f64(shape.activation, g) * u),
        );
    }
    act
}

/// `dpre [A, N1]` from `pre [A, N1]` and `dact [A, I]`: `dact · act'(pre)`; in the gated form
/// `dact · up · act'(gate)` for the gate's half and `dact · act(gate)` for the other.
///
/// # Panics
/// In the gated form, if `dact` is shorter than its shape.
pub fn activate_backward(shape: &ExpertShape, pre: &[f64], dact: &[f64]) -> Vec<f64> {
    let i = shape.intermediate;
    if !shape.gated {
        let both = pre.iter().zip(dact);
        return both
            .map(|(&v, d)| d * derivative_f64(shape.activation, v))
            .collect();
    }
    let mut dpre = Vec::with_capacity(pre.len());
    for r in 0..rows(pre, shape.up_rows()) {
        let (gate, up) = row(pre, 2 * i, r).split_at(i);
        let d = row(dact, i, r);
        dpre.extend((0..i).map(|j| d[j] * up[j] * derivative_f64(shape.activation, gate[j])));
        dpre.extend((0..i).map(|j| d[j] * value_f64(shape.activation, gate[j])));
    }
    dpre
}

/// Rows of a contiguous matrix (0 if it has no columns).
fn rows(data: &[f64], cols: usize) -> usize {
    data.len().checked_div(cols).unwrap_or(0)
}

/// What the up-projection computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Up {
    /// `[A, N1]` `x · W_upᵀ + b_up`.
    pub pre: Vec<f64>,
    /// `[A, I]` [`activate`] of it.
    pub act: Vec<f64>,
}

/// Up-projection with bias and activation; x `[A, H]`.
///
/// # Panics
/// As [`m_grouped`].
pub fn up(shape: &ExpertShape, weights: &ExpertWeights<'_, f64>, x: &[f64], offsets: &[i32]) -> Up {
    let (n1, h) = (shape.up_rows(), shape.hidden);
    let pre = m_grouped(x, weights.up, weights.up_bias, offsets, n1, h);
    let act = activate(shape, &pre);
    Up { pre, act }
}

/// Down-projection with bias; act `[A, I]`, returns y `[A, H]`.
///
/// # Panics
/// As [`m_grouped`].
pub fn down(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, f64>,
    act: &[f64],
    offsets: &[i32],
) -> Vec<f64> {
    let (h, i) = (shape.hidden, shape.intermediate);
    m_grouped(act, weights.down, weights.down_bias, offsets, h, i)
}

/// What the backward of the down-projection and of the activation computes.
#[derive(Debug, Clone, PartialEq)]
pub struct DownBackward {
    /// `[A, N1]` gradient of `pre`.
    pub dpre: Vec<f64>,
    /// `[E, H, I]` gradient of `down`.
    pub down: Vec<f64>,
    /// `[E, H]` gradient of `down_bias`, whether or not there is one.
    pub down_bias: Vec<f64>,
}

/// Backward of [`down`] and of the activation; pre `[A, N1]`, act `[A, I]`, dy `[A, H]`.
///
/// # Panics
/// As [`m_grouped`].
pub fn down_backward(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, f64>,
    pre: &[f64],
    act: &[f64],
    dy: &[f64],
    offsets: &[i32],
) -> DownBackward {
    let (h, i) = (shape.hidden, shape.intermediate);
    let dact = m_grouped_transposed(dy, weights.down, offsets, h, i);
    DownBackward {
        dpre: activate_backward(shape, pre, &dact),
        down: k_grouped(dy, act, offsets, h, i),
        down_bias: column_sums(dy, offsets, h),
    }
}

/// What the backward of the up-projection computes.
#[derive(Debug, Clone, PartialEq)]
pub struct UpBackward {
    /// `[A, H]` gradient of `x`.
    pub dx: Vec<f64>,
    /// `[E, N1, H]` gradient of `up`.
    pub up: Vec<f64>,
    /// `[E, N1]` gradient of `up_bias`, whether or not there is one.
    pub up_bias: Vec<f64>,
}

/// Backward of the up-projection; x `[A, H]`, dpre `[A, N1]`.
///
/// # Panics
/// As [`m_grouped`].
pub fn up_backward(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, f64>,
    x: &[f64],
    dpre: &[f64],
    offsets: &[i32],
) -> UpBackward {
    let (n1, h) = (shape.up_rows(), shape.hidden);
    UpBackward {
        dx: m_grouped_transposed(dpre, weights.up, offsets, n1, h),
        up: k_grouped(dpre, x, offsets, n1, h),
        up_bias: column_sums(dpre, offsets, n1),
    }
}
