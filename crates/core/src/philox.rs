//! Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011).
//!
//! A draw is a pure function of *(seed, token, layer, step, stream)*: no state, no order, the same
//! on every thread and every rank. That is what lets ranks agree on a coin without a message.

use crate::StepContext;

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What a random number is for. Each purpose has its own stream, so that turning one option on
/// never shifts the draws of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Stream {
    /// Keep or drop the second expert (second-expert policy `random`).
    SecondExpert = 1,
    /// Normal noise of noisy top-k; the block number is the expert.
    RouterNoise = 2,
    /// The coin of Gating Dropout.
    GatingDropout = 3,
    /// The uniform local choice of Gating Dropout.
    LocalChoice = 4,
    /// The expert drawn by stochastic experts (THOR).
    Stochastic = 5,
    /// Multiplicative jitter of the router's input; the block number is the column / 4.
    Jitter = 6,
    /// Which tokens take one expert when a share is forced.
    ForcedShare = 7,
    /// The table of hash routing.
    Hash = 8,
    /// Test data and the upstream gradient that the command makes.
    Data = 9,
}

/// The generator: a 64-bit key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The generator of a seed; key = (low word, high word).
    pub const fn new(seed: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
        }
    }

    /// Four random words for a counter: ten rounds.
    pub const fn words(self, counter: [u32; 4]) -> [u32; 4] {
        let mut c = counter;
        let mut k = self.key;
        let mut round = 0;
        while round < 10 {
            let p0 = (MULTIPLIER[0] as u64) * (c[0] as u64);
            let p1 = (MULTIPLIER[1] as u64) * (c[2] as u64);
            c = [
                (p1 >> 32) as u32 ^ c[1] ^ k[0],
                p1 as u32,
                (p0 >> 32) as u32 ^ c[3] ^ k[1],
                p0 as u32,
            ];
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
            round += 1;
        }
        c
    }

    /// Four words for `token` in this step: counter = (token, layer, step, stream word), where the
    /// stream word packs stream (4 bits), pass (4 bits) and block (24 bits).
    pub const fn step_words(ctx: &StepContext, token: u32, stream: Stream, block: u32) -> [u32; 4] {
        let word = stream as u32 | (ctx.pass & 0xf) << 4 | block << 8;
        Self::new(ctx.seed).words([token, ctx.layer, ctx.step, word])
    }

    /// A uniform integer in `0..n` from one word, by multiply-high. `n` must not be 0.
    pub const fn below(word: u32, n: u32) -> u32 {
        ((word as u64 * n as u64) >> 32) as u32
    }

    /// The integer threshold of a probability: an event of probability `p` happens when
    /// `u64::from(word) < threshold(p)`. Exact at 0 (never) and 1 (always).
    pub fn threshold(p: f64) -> u64 {
        // 2^32 steps: floor keeps `p = 1` at 2^32, above every word.
        (p.clamp(0.0, 1.0) * 4_294_967_296.0) as u64
    }

    /// Whether an event of probability `p` happens, given one word.
    pub fn happens(word: u32, p: f64) -> bool {
        u64::from(word) < Self::threshold(p)
    }

    /// A uniform number in the open interval (0, 1) from one word: the middle of its 2^-32 step.
    pub fn uniform(word: u32) -> f64 {
        (f64::from(word) + 0.5) * (1.0 / 4_294_967_296.0)
    }

    /// A standard normal number from two words, by Box–Muller in f64.
    pub fn normal(word0: u32, word1: u32) -> f64 {
        let radius = (-2.0 * Self::uniform(word0).ln()).sqrt();
        radius * (std::f64::consts::TAU * Self::uniform(word1)).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_known_answers() {
        let ones = u64::MAX;
        let pi = u64::from(0xa409_3822u32) | u64::from(0x299f_31d0u32) << 32;
        let cases = [
            (
                0,
                [0; 4],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                ones,
                [u32::MAX; 4],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                pi,
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (seed, counter, expected) in cases {
            assert_eq!(Philox::new(seed).words(counter), expected);
        }
    }

    #[test]
    fn thresholds_are_exact_at_the_ends() {
        assert!(!Philox::happens(0, 0.0));
        assert!(Philox::happens(u32::MAX, 1.0));
        assert_eq!(Philox::threshold(0.5), 1 << 31);
        assert_eq!(Philox::below(u32::MAX, 16), 15);
        assert_eq!(Philox::below(0, 16), 0);
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let n = 40_000u32;
        let (mut sum, mut square) = (0.0, 0.0);
        for i in 0..n {
            let w = Philox::new(1).words([i, 0, 0, 0]);
            let x = Philox::normal(w[0], w[1]);
            sum += x;
            square += x * x;
        }
        // Standard errors are 1/√n = 0.005 and √(2/n) = 0.007; four of them are allowed.
        assert!((sum / f64::from(n)).abs() < 0.02);
        assert!((square / f64::from(n) - 1.0).abs() < 0.03);
    }

    #[test]
    fn streams_passes_and_blocks_are_distinct() {
        let ctx = StepContext::default();
        let a = Philox::step_words(&ctx, 3, Stream::Jitter, 0);
        assert_ne!(a, Philox::step_words(&ctx, 3, Stream::Hash, 0));
        assert_ne!(a, Philox::step_words(&ctx, 3, Stream::Jitter, 1));
        let second = StepContext { pass: 1, ..ctx };
        assert_ne!(a, Philox::step_words(&second, 3, Stream::Jitter, 0));
    }
}
