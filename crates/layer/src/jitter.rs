//! Multiplicative jitter of the router's input (Switch Transformer): x · U(1 ± jitter).

use rayon::prelude::*;
use tollgate_core::{Element, Philox, RowView, StepContext, Stream};

/// The factor of one element: uniform in 1 ± jitter, from stream `Jitter`, block = column / 4,
/// word = column mod 4.
pub(crate) fn factors(ctx: &StepContext, token: usize, block: usize, jitter: f32) -> [f32; 4] {
    let token = ctx.first_token.wrapping_add(token as u32);
    Philox::step_words(ctx, token, Stream::Jitter, block as u32)
        .map(|word| (1.0 + f64::from(jitter) * (2.0 * Philox::uniform(word) - 1.0)) as f32)
}

/// Multiplies `[T, H]` in place by the factors: the jitter itself, and its backward.
pub(crate) fn scale(ctx: &StepContext, jitter: f32, hidden: usize, values: &mut [f32]) {
    values
        .par_chunks_mut(hidden)
        .enumerate()
        .for_each(|(t, row)| {
            for (block, four) in row.chunks_mut(4).enumerate() {
                for (v, f) in four.iter_mut().zip(factors(ctx, t, block, jitter)) {
                    *v *= f;
                }
            }
        });
}

/// Writes `x` with jitter, in f32.
pub(crate) fn apply<T: Element>(
    ctx: &StepContext,
    jitter: f32,
    x: RowView<'_, T>,
    out: &mut [f32],
) {
    out.par_chunks_mut(x.cols())
        .enumerate()
        .for_each(|(t, row)| {
            for (o, v) in row.iter_mut().zip(x.row(t)) {
                *o = v.to_f32();
            }
        });
    scale(ctx, jitter, x.cols(), out);
}
