//! Gating Dropout (Liu et al., "Gating Dropout: Communication-efficient Regularization for
//! Sparsely Activated Transformers", ICML 2022): the coin, and the local choices that are integers.
//!
//! With probability p a training step makes no exchange between ranks: every token stays where it
//! is. All ranks must take the same decision. The paper broadcasts one coin; here the coin is a
//! function of (seed, layer, step, pass), which every rank knows, so that nothing is sent.
//!
//! What a dropped step does to a token, in the order of the rules:
//!
//! 1. A faulty row takes the first local expert with weight NaN, whatever the options.
//! 2. The local expert is found by [`LocalChoice`](tollgate_core::options::LocalChoice).
//!    `restricted_argmax` ranks as the router does (logits, or score plus bias); groups and noise
//!    of the router's own decision do not matter beyond the logits they made.
//! 3. The weight follows from [`LocalWeight`](tollgate_core::options::LocalWeight) alone: where
//!    all local experts are masked, `gate_prob` and `restricted_softmax` are 0, `one` is 1, and
//!    `original` is still the score of the first choice.

use std::ops::Range;

use tollgate_core::options::{GatingDropout, Granularity};
use tollgate_core::{Philox, StepContext, Stream};

/// Whether Gating Dropout drops this step: one coin for the whole batch, the same on every rank.
///
/// Always `false` outside training. With [`Granularity::Step`] all layers and passes of a step
/// share the coin.
pub fn dropped(options: &GatingDropout, ctx: &StepContext) -> bool {
    if !ctx.training {
        return false;
    }
    let ctx = match options.granularity {
        Granularity::Layer => *ctx,
        Granularity::Step => StepContext {
            layer: 0,
            pass: 0,
            ..*ctx
        },
    };
    let word = Philox::step_words(&ctx, 0, Stream::GatingDropout, 0)[0];
    Philox::happens(word, options.probability.into())
}

/// Local choice `modulo`: gated expert `e` runs on local expert `e mod n_local`.
///
/// `local` must not be empty.
pub(crate) fn modulo(first_choice: usize, local: &Range<usize>) -> usize {
    local.start + first_choice % local.len()
}

/// Local choice `uniform`: a draw that depends on the token's global index only.
///
/// `token` is the index within the batch; `local` must not be empty.
pub(crate) fn uniform(ctx: &StepContext, token: usize, local: &Range<usize>) -> usize {
    let global = ctx.first_token.wrapping_add(token as u32);
    let word = Philox::step_words(ctx, global, Stream::LocalChoice, 0)[0];
    local.start + Philox::below(word, local.len() as u32) as usize
}

#[cfg(test)]
mod tests {
    use tollgate_core::DropMode;

    use super::*;

    #[test]
    fn the_coin_is_off_outside_training_and_certain_at_the_ends() {
        let training = StepContext::default();
        let inference = StepContext {
            training: false,
            ..training
        };
        for step in 0..200 {
            let ctx = StepContext { step, ..training };
            assert!(dropped(&GatingDropout::new(1.0, DropMode::Gate), &ctx));
            assert!(!dropped(&GatingDropout::new(0.0, DropMode::Gate), &ctx));
            let inference = StepContext { step, ..inference };
            assert!(!dropped(
                &GatingDropout::new(1.0, DropMode::GateExpert),
                &inference
            ));
        }
    }

    #[test]
    fn the_coin_ignores_tokens_and_with_granularity_step_layers_and_passes() {
        let mut options = GatingDropout::new(0.3, DropMode::Gate);
        let (mut differs_by_layer, mut differs_by_pass) = (false, false);
        for step in 0..100 {
            let ctx = StepContext {
                seed: 7,
                step,
                ..StepContext::default()
            };
            let other_token = StepContext {
                first_token: 9999,
                ..ctx
            };
            let other_layer = StepContext { layer: 3, ..ctx };
            let other_pass = StepContext { pass: 1, ..ctx };
            options.granularity = Granularity::Layer;
            assert_eq!(dropped(&options, &ctx), dropped(&options, &other_token));
            differs_by_layer |= dropped(&options, &ctx) != dropped(&options, &other_layer);
            differs_by_pass |= dropped(&options, &ctx) != dropped(&options, &other_pass);
            options.granularity = Granularity::Step;
            for other in [other_token, other_layer, other_pass] {
                assert_eq!(dropped(&options, &ctx), dropped(&options, &other));
            }
        }
        assert!(differs_by_layer && differs_by_pass);
    }

    #[test]
    fn the_share_of_dropped_steps_is_p() {
        let options = GatingDropout::new(0.3, DropMode::Gate);
        let n = 20_000;
        let count = (0..n)
            .filter(|&step| {
                dropped(
                    &options,
                    &StepContext {
                        step,
                        ..StepContext::default()
                    },
                )
            })
            .count();
        // Standard deviation √(n p (1−p)) = 65; five of them are allowed.
        assert!(
            (count as f64 - 0.3 * f64::from(n)).abs() < 325.0,
            "{count} of {n}"
        );
    }

    #[test]
    fn local_choices_stay_local_and_follow_the_global_token() {
        let ctx = StepContext {
            seed: 3,
            first_token: u32::MAX - 1,
            ..StepContext::default()
        };
        let later = StepContext {
            first_token: u32::MAX,
            ..ctx
        };
        let local = 4..7;
        assert_eq!([0, 1, 2, 3, 5].map(|e| modulo(e, &local)), [4, 5, 6, 4, 6]);
        let mut seen = [0usize; 7];
        for t in 0..300 {
            seen[uniform(&ctx, t, &local)] += 1;
            assert_eq!(uniform(&ctx, t + 1, &local), uniform(&later, t, &local));
        }
        assert_eq!(seen[..4], [0; 4]);
        assert!(seen[4..].iter().all(|&n| n > 60), "{seen:?}");
    }
}
