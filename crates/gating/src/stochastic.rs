//! Every random draw of the routers, each in one place, so that all implementations draw the same.
//!
//! A draw is a function of *(seed, token, layer, step, pass, purpose)*. `token` is an index within
//! the batch; the counter holds the global index `ctx.first_token + token` (wrapping), so that a
//! token draws the same wherever its batch begins. The coin and the uniform local choice of Gating
//! Dropout are in [`crate::dropout`].

use tollgate_core::{Philox, StepContext, Stream};

/// Word 0 of a token's draw.
fn word(ctx: &StepContext, token: usize, stream: Stream) -> u32 {
    let global = ctx.first_token.wrapping_add(token as u32);
    Philox::step_words(ctx, global, stream, 0)[0]
}

/// A uniform expert in `0..num_experts` (which fits u32: it is at most `i32::MAX`).
fn uniform(word: u32, num_experts: usize) -> usize {
    Philox::below(word, num_experts as u32) as usize
}

/// Stochastic experts (Zuo et al., ICLR 2022), `thor:batch`: one expert for the whole batch. All
/// ranks draw the same, since no token enters.
pub fn batch_expert(ctx: &StepContext, num_experts: usize) -> usize {
    let word = Philox::step_words(ctx, 0, Stream::Stochastic, 0)[0];
    uniform(word, num_experts)
}

/// `thor:token`: an expert of each token.
pub fn token_expert(ctx: &StepContext, token: usize, num_experts: usize) -> usize {
    uniform(word(ctx, token, Stream::Stochastic), num_experts)
}

/// `thor:sentence`: an expert of each sequence, drawn with the index of its first token, so that it
/// does not depend on how many sequences precede it in the batch.
pub fn sentence_expert(ctx: &StepContext, first_token: usize, num_experts: usize) -> usize {
    token_expert(ctx, first_token, num_experts)
}

/// Hash routing (Roller et al., 2021) without a table: the expert of a token id in this layer, the
/// same in every step and pass. Ids are not negative.
pub fn hash_expert(ctx: &StepContext, token_id: i32, num_experts: usize) -> usize {
    let timeless = StepContext {
        step: 0,
        pass: 0,
        ..*ctx
    };
    let word = Philox::step_words(&timeless, token_id as u32, Stream::Hash, 0)[0];
    uniform(word, num_experts)
}

/// Router `forced`: whether a token takes one expert only, with probability `share`.
pub fn forced_one(ctx: &StepContext, token: usize, share: f32) -> bool {
    Philox::happens(word(ctx, token, Stream::ForcedShare), share.into())
}

/// The word that decides about a token's second expert under policy `random`; the expert stays
/// when [`Philox::happens`] with probability `min(1, g2/τ)`.
pub fn second_word(ctx: &StepContext, token: usize) -> u32 {
    word(ctx, token, Stream::SecondExpert)
}

/// The standard normal number of a token and expert under noisy top-k (Shazeer et al., 2017),
/// rounded to f32: the value that every implementation multiplies with.
pub fn router_noise(ctx: &StepContext, token: usize, expert: usize) -> f32 {
    let global = ctx.first_token.wrapping_add(token as u32);
    let w = Philox::step_words(ctx, global, Stream::RouterNoise, expert as u32);
    Philox::normal(w[0], w[1]) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_global_token() {
        let a = StepContext {
            seed: 5,
            layer: 2,
            step: 9,
            ..StepContext::default()
        };
        let b = StepContext {
            first_token: 40,
            ..a
        };
        for t in 0..50 {
            assert_eq!(token_expert(&a, 40 + t, 13), token_expert(&b, t, 13));
            assert_eq!(sentence_expert(&a, 40 + t, 13), sentence_expert(&b, t, 13));
            assert_eq!(forced_one(&a, 40 + t, 0.5), forced_one(&b, t, 0.5));
            assert_eq!(second_word(&a, 40 + t), second_word(&b, t));
            assert_eq!(router_noise(&a, 40 + t, 7), router_noise(&b, t, 7));
        }
        assert_eq!(batch_expert(&a, 13), batch_expert(&b, 13));
    }

    #[test]
    fn the_two_passes_of_a_step_differ_but_a_hash_does_not() {
        let a = StepContext {
            seed: 5,
            ..StepContext::default()
        };
        let b = StepContext {
            pass: 1,
            step: 77,
            ..a
        };
        let experts = |ctx| {
            (0..64)
                .map(|t| token_expert(ctx, t, 16))
                .collect::<Vec<_>>()
        };
        let hashes = |ctx| (0..64).map(|t| hash_expert(ctx, t, 16)).collect::<Vec<_>>();
        assert_ne!(experts(&a), experts(&b));
        assert_eq!(hashes(&a), hashes(&b));
        assert_ne!(hashes(&a), hashes(&StepContext { layer: 1, ..a }));
    }

    #[test]
    fn experts_are_drawn_evenly() {
        let ctx = StepContext {
            seed: 11,
            ..StepContext::default()
        };
        let (n, experts) = (16_000usize, 16);
        let mut counts = vec![0usize; experts];
        for step in 0..n as u32 {
            counts[batch_expert(&StepContext { step, ..ctx }, experts)] += 1;
        }
        // Each count is binomial with mean 1000 and standard deviation 31; five are allowed.
        assert!(
            counts.iter().all(|&c| c.abs_diff(n / experts) < 155),
            "{counts:?}"
        );
    }
}
