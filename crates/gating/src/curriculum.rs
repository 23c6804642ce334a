//! The curriculum of adaptive gating (Li et al., EMNLP 2023): which samples come first.
//!
//! A sample's complexity vector `C_d = [r_0 … r_L]` holds, for every MoE layer, the share of its
//! tokens that took two experts. Before each epoch the sample with the fewest such tokens becomes
//! the anchor; the others follow by cosine similarity to it, descending.

use tollgate_core::{Error, Result, RoutingTable};

use crate::check;

/// Complexity vectors of a set of samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Complexity {
    layers: usize,
    /// `[samples, layers]`, row-major.
    shares: Vec<f64>,
    /// `[samples]`, over all layers.
    two_expert_tokens: Vec<u64>,
}

impl Complexity {
    /// Measures the samples of one batch: `layers[l]` is the routing of its tokens in MoE layer l,
    /// `sequence_offsets` `[S+1]` the exclusive prefix sums of the samples' lengths.
    ///
    /// A sample without tokens has the share 0 in every layer.
    ///
    /// # Errors
    /// No layer, a table that is invalid or has another number of tokens than the first, offsets
    /// that do not ascend from 0 to that number.
    pub fn measure<W>(layers: &[&RoutingTable<W>], sequence_offsets: &[i32]) -> Result<Self> {
        let Some(first) = layers.first() else {
            return Err(Error::OutOfRange {
                what: "layers",
                value: 0,
                min: 1,
                max: usize::MAX,
            });
        };
        let tokens = first.num_tokens();
        for table in layers {
            table.validate()?;
            Error::check_shape("tokens of a layer's table (T)", table.num_tokens(), tokens)?;
        }
        check::sequence_offsets(sequence_offsets, tokens)?;
        let mut measured = Self {
            layers: layers.len(),
            ..Self::default()
        };
        for ends in sequence_offsets.windows(2) {
            let sample = ends[0] as usize..ends[1] as usize;
            let mut total = 0;
            for table in layers {
                let two = sample
                    .clone()
                    .filter(|&t| table.assignments_of(t).len() == 2)
                    .count();
                measured
                    .shares
                    .push(two as f64 / sample.len().max(1) as f64);
                total += two as u64;
            }
            measured.two_expert_tokens.push(total);
        }
        Ok(measured)
    }

    /// Vectors that were measured elsewhere: `shares` `[samples, layers]` row-major, each in
    /// `[0, 1]`, and `two_expert_tokens` `[samples]`, the tokens with two experts over all layers.
    ///
    /// # Errors
    /// No layer, lengths that do not fit, a share outside `[0, 1]` or NaN.
    pub fn from_shares(
        layers: usize,
        shares: Vec<f64>,
        two_expert_tokens: Vec<u64>,
    ) -> Result<Self> {
        Error::check_range("layers", layers, 1, usize::MAX)?;
        let samples = two_expert_tokens.len();
        let needed = Error::checked_product("shares (S·L)", samples, layers, usize::MAX)?;
        Error::check_shape("shares (S·L)", shares.len(), needed)?;
        for &share in &shares {
            Error::check_real("share of tokens with two experts", share, 0.0, 1.0)?;
        }
        Ok(Self {
            layers,
            shares,
            two_expert_tokens,
        })
    }

    /// Appends the samples of another batch.
    ///
    /// # Errors
    /// Another number of layers.
    pub fn append(&mut self, other: &Self) -> Result<()> {
        Error::check_shape("layers of the other samples", other.layers, self.layers)?;
        self.shares.extend_from_slice(&other.shares);
        self.two_expert_tokens
            .extend_from_slice(&other.two_expert_tokens);
        Ok(())
    }

    /// Number of samples.
    pub fn num_samples(&self) -> usize {
        self.two_expert_tokens.len()
    }

    /// Number of MoE layers.
    pub fn num_layers(&self) -> usize {
        self.layers
    }

    /// The complexity vector of a sample, `[layers]`. Panics if there is no such sample, as slice
    /// indexing does.
    pub fn vector(&self, sample: usize) -> &[f64] {
        &self.shares[sample * self.layers..(sample + 1) * self.layers]
    }

    /// Tokens of a sample that took two experts, over all layers. Panics as [`Self::vector`] does.
    pub fn two_expert_tokens(&self, sample: usize) -> u64 {
        self.two_expert_tokens[sample]
    }

    /// Cosine similarity of the complexity vectors of two samples, 1 for alike and 0 for as unlike
    /// as shares can be. Panics as [`Self::vector`] does.
    pub fn similarity(&self, a: usize, b: usize) -> f64 {
        // Rounding may lift the cosine of equal vectors over 1.
        cosine_similarity(self.vector(a), self.vector(b)).min(1.0)
    }

    /// The order of the samples for the next epoch: the anchor, i.e. the sample with the fewest
    /// tokens with two experts, then the others by cosine similarity to it, descending; ties by
    /// the lower index. Empty without samples.
    pub fn order(&self) -> Vec<usize> {
        let Some(anchor) = (0..self.num_samples()).min_by_key(|&s| self.two_expert_tokens[s])
        else {
            return Vec::new();
        };
        let mut others: Vec<(f64, usize)> = (0..self.num_samples())
            .filter(|&s| s != anchor)
            .map(|s| (cosine_similarity(self.vector(anchor), self.vector(s)), s))
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        std::iter::once(anchor)
            .chain(others.into_iter().map(|(_, s)| s))
            .collect()
    }
}

/// Cosine of the angle between two vectors of shares. The paper is silent about all-zero vectors:
/// here one has similarity 1 to another and 0 to anything else.
fn cosine_similarity(a: &[f64], b: &[f64]) -> f64 {
    // Scaled by the largest entry, so that no square underflows.
    let largest = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
    let (scale_a, scale_b) = (largest(a), largest(b));
    if scale_a == 0.0 || scale_b == 0.0 {
        return if scale_a == scale_b { 1.0 } else { 0.0 };
    }
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x / scale_a, y / scale_b);
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    dot / (aa.sqrt() * bb.sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table in which token t has `ks[t]` experts out of 4.
    fn table(ks: &[usize]) -> RoutingTable {
        let rows: Vec<_> = ks
            .iter()
            .map(|&k| (0..k as i32).map(|e| (e, 0.5)).collect())
            .collect();
        RoutingTable::from_rows(4, &rows).unwrap()
    }

    #[test]
    fn shares_count_tokens_with_exactly_two_experts() {
        let first = table(&[1, 2, 2, 1, 0, 3, 2]);
        let second = table(&[2, 2, 2, 1, 1, 1, 1]);
        let c = Complexity::measure(&[&first, &second], &[0, 4, 4, 7]).unwrap();
        assert_eq!((c.num_samples(), c.num_layers()), (3, 2));
        assert_eq!(c.vector(0), [0.5, 0.75]);
        assert_eq!(c.vector(1), [0.0, 0.0]);
        assert_eq!(c.vector(2), [1.0 / 3.0, 0.0]);
        assert_eq!([0, 1, 2].map(|s| c.two_expert_tokens(s)), [5, 0, 1]);
    }

    #[test]
    fn the_anchor_comes_first_and_the_rest_by_similarity() {
        // Cosines to sample 2 = (1, 0): 0 → 0.6, 1 → 1/√2, 3 → 1, 4 → 0.
        let shares = vec![0.3, 0.4, 0.5, 0.5, 0.1, 0.0, 0.8, 0.0, 0.0, 0.9];
        let c = Complexity::from_shares(2, shares, vec![7, 10, 1, 8, 9]).unwrap();
        assert_eq!(c.order(), [2, 3, 1, 0, 4]);
        assert_eq!([3, 4].map(|s| c.similarity(2, s)), [1.0, 0.0]);
    }

    #[test]
    fn zero_vectors_are_alike_and_unlike_anything_else() {
        let shares = vec![0.2, 0.2, 0.0, 0.0, 0.4, 0.1, 0.0, 0.0];
        let c = Complexity::from_shares(2, shares, vec![4, 0, 5, 0]).unwrap();
        // Ties among the fewest and among the similarities go to the lower index.
        assert_eq!(c.order(), [1, 3, 0, 2]);
        assert_eq!(cosine_similarity(&[0.0], &[0.0]), 1.0);
        assert_eq!(cosine_similarity(&[0.0], &[0.3]), 0.0);
        assert_eq!(cosine_similarity(&[1e-300], &[1e-200]), 1.0);
    }

    #[test]
    fn batches_append_and_errors_name_the_numbers() {
        let t = table(&[1, 2]);
        let mut c = Complexity::measure(&[&t], &[0, 2]).unwrap();
        c.append(&Complexity::measure(&[&t], &[0, 1, 2]).unwrap())
            .unwrap();
        assert_eq!(c.order(), [1, 0, 2]);
        let other = Complexity::measure(&[&t, &t], &[0, 2]).unwrap();
        let text = c.append(&other).unwrap_err().to_string();
        assert_eq!(text, "layers of the other samples is 2, expected 1");
        let none: &[&RoutingTable] = &[];
        assert!(Complexity::measure(none, &[0]).is_err());
        for (offsets, expected) in [
            (&[][..], "sequence_offsets holds 0 elements"),
            (&[1, 2], "sequence_offsets[0] is 1, must be in 0..1"),
            (
                &[0, 2, 1, 2],
                "sequence_offsets[2] = 1 cannot be combined with sequence_offsets[1] = 2: ",
            ),
            (&[0, 3], "sequence_offsets[1] is 3, must be in 0..3"),
            (&[0, -1, 2], "sequence_offsets[1] is -1, must be in 0..3"),
            (
                &[0, 1],
                "sequence_offsets[1] = 1 cannot be combined with 2 tokens: ",
            ),
        ] {
            let text = Complexity::measure(&[&t], offsets).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
        let text = Complexity::from_shares(1, vec![f64::NAN], vec![1])
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "share of tokens with two experts is NaN, must be in [0, 1]"
        );
        assert!(Complexity::from_shares(0, vec![], vec![]).is_err());
        assert!(Complexity::from_shares(2, vec![0.1], vec![1]).is_err());
        assert!(Complexity::from_shares(usize::MAX, vec![0.1], vec![1, 2]).is_err());
        assert_eq!(Complexity::default().order(), [0usize; 0]);
    }

    proptest! {
        #[test]
        fn the_order_is_a_permutation_that_begins_with_the_fewest(
            layers in 0usize..4,
            shares in prop::collection::vec(-0.1f64..1.1, 0..24),
            counts in prop::collection::vec(0u64..5, 0..8),
        ) {
            if let Ok(c) = Complexity::from_shares(layers, shares, counts.clone()) {
                let order = c.order();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..counts.len()).collect::<Vec<_>>());
                if let Some(&anchor) = order.first() {
                    prop_assert!(counts.iter().all(|&c| c >= counts[anchor]));
                }
            }
        }

        #[test]
        fn measuring_never_panics(
            token_offsets in prop::collection::vec(-1i32..4, 0..5),
            expert_indices in prop::collection::vec(-1i32..3, 0..4),
            sequence_offsets in prop::collection::vec(any::<i32>(), 0..4),
        ) {
            let mut t = RoutingTable {
                token_offsets,
                routing_weights: vec![0f32; expert_indices.len()],
                expert_indices,
                expert_offsets: vec![0, 0, 0],
            };
            let _ = Complexity::measure(&[&t], &sequence_offsets);
            if t.expert_indices.iter().all(|&e| (0..2).contains(&e)) {
                t.finish();
                let _ = Complexity::measure(&[&t], &sequence_offsets);
            }
        }
    }
}
