//! Multiplicative jitter of the router's input (Switch Transformer): x · U(1 ± amount).

use tollgate_core::{Error, Philox, Result, StepContext, Stream};

/// Columns that the generator's counter can tell apart: four a block, and 24 bits of blocks.
const MAX_COLUMNS: usize = 4 << 24;

/// The factors of columns `4·block` to `4·block + 3` of a token: uniform in 1 ± amount, from stream
/// `Jitter`, word = column mod 4. `token` is an index within the batch.
pub fn factors(ctx: &StepContext, token: usize, block: usize, amount: f32) -> [f32; 4] {
    let token = ctx.first_token.wrapping_add(token as u32);
    Philox::step_words(ctx, token, Stream::Jitter, block as u32)
        .map(|word| (1.0 + f64::from(amount) * (2.0 * Philox::uniform(word) - 1.0)) as f32)
}

/// What [`crate::Gating::jitter`] refuses.
pub(crate) fn check(rows: usize, columns: usize, amount: f32, ctx: &StepContext) -> Result<()> {
    crate::check::rows("rows of x (T)", rows)?;
    Error::check_range("columns of x (H) with jitter", columns, 0, MAX_COLUMNS)?;
    Error::check_real("jitter", amount.into(), 0.0, 1.0)?;
    Error::check_range("pass", ctx.pass as usize, 0, 15)
}
