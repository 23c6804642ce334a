//! Noisy logits (Shazeer et al., 2017): `h = z + n · softplus(z_noise)`, and the way back.

use tollgate_core::{RowView, StepContext};

use super::blocks::{BLOCK_ROWS, Team, fit};
use super::softmax::sigmoid;
use crate::stochastic;

/// ln(1 + e^x), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Fills the draws n and the noisy logits h, both `[T, E]`. A masked logit stays masked.
///
/// Draws cost far more than arithmetic, so that is f64 here: h is rounded once.
pub(super) fn add(
    team: Team,
    z: &RowView<'_, f32>,
    noise_logits: &RowView<'_, f32>,
    ctx: &StepContext,
    noise: &mut Vec<f32>,
    noisy: &mut Vec<f32>,
) {
    let experts = z.cols();
    fit(noise, z.rows() * experts);
    fit(noisy, z.rows() * experts);
    let part = BLOCK_ROWS * experts;
    let blocks = noise.chunks_mut(part).zip(noisy.chunks_mut(part));
    let blocks: Vec<_> = blocks.enumerate().collect();
    team.run(
        blocks,
        || (),
        |(), (b, (noise, noisy))| {
            let rows = noise
                .chunks_exact_mut(experts)
                .zip(noisy.chunks_exact_mut(experts));
            for (r, (noise, noisy)) in rows.enumerate() {
                let token = b * BLOCK_ROWS + r;
                let (z, z_noise) = (z.row(token), noise_logits.row(token));
                for e in 0..experts {
                    let n = stochastic::router_noise(ctx, token, e);
                    noise[e] = n;
                    let masked = z[e] == f32::NEG_INFINITY;
                    let exact = f64::from(z[e]) + f64::from(n) * softplus(f64::from(z_noise[e]));
                    noisy[e] = if masked { z[e] } else { exact as f32 };
                }
            }
        },
    );
}

/// `dz_noise = dh · n · σ(z_noise)` of a row.
#[inline(always)]
pub(super) fn backward(dh: &[f32], noise: &[f32], z_noise: &[f32], dz_noise: &mut [f32]) {
    for (((dn, &dh), &n), &z) in dz_noise.iter_mut().zip(dh).zip(noise).zip(z_noise) {
        *dn = dh * n * sigmoid(z);
    }
}
