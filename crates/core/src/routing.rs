//! The routing table: which token goes to which expert, as CSR.

use std::ops::Range;

use crate::Result;

/// Which tokens go to which experts with which weights.
///
/// Compressed sparse rows: token `t` has the assignments
/// `token_offsets[t] .. token_offsets[t+1]`, in the order of choice (best first; ascending expert
/// where there is no order). A fixed top-k is the special case of equal counts; nothing downstream
/// assumes one. Offsets are exclusive prefix sums. `W` is f32, and f64 in the reference.
///
/// The fields are public so that frameworks can fill a table themselves; [`RoutingTable::validate`]
/// checks one, and operations check what they index with.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingTable<W = f32> {
    /// `[T+1]`, exclusive prefix sums of the experts per token.
    pub token_offsets: Vec<i32>,
    /// `[A]`, expert of each assignment, token-major. Distinct within a token.
    pub expert_indices: Vec<i32>,
    /// `[A]`, combine weight of each assignment.
    pub routing_weights: Vec<W>,
    /// `[E+1]`, exclusive prefix sums of the assignments per expert.
    pub expert_offsets: Vec<i32>,
}

/// The first invariant that a routing table breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenInvariant {
    /// An offsets array is empty.
    #[error("{array} is empty, it needs at least the entry 0")]
    EmptyOffsets {
        /// The array.
        array: &'static str,
    },
    /// An offsets array does not begin at 0.
    #[error("{array}[0] is {value}, must be 0")]
    FirstOffset {
        /// The array.
        array: &'static str,
        /// What was found.
        value: i32,
    },
    /// An offsets array descends.
    #[error("{array}[{position}] is {value}, below its predecessor {previous}")]
    Descending {
        /// The array.
        array: &'static str,
        /// Where.
        position: usize,
        /// The entry.
        value: i32,
        /// The entry before it.
        previous: i32,
    },
    /// An offsets array does not end at the number of assignments.
    #[error("{array} ends at {value}, but there are {assignments} assignments")]
    LastOffset {
        /// The array.
        array: &'static str,
        /// Its last entry.
        value: i32,
        /// Length of `expert_indices`.
        assignments: usize,
    },
    /// Weights and indices differ in length.
    #[error("routing_weights has {weights} entries, expert_indices has {assignments}")]
    WeightCount {
        /// Length of `routing_weights`.
        weights: usize,
        /// Length of `expert_indices`.
        assignments: usize,
    },
    /// An expert index outside 0..E.
    #[error("expert_indices[{position}] is {value}, must be in 0..{experts}")]
    ExpertIndex {
        /// Where.
        position: usize,
        /// The index.
        value: i32,
        /// E.
        experts: usize,
    },
    /// A token has an expert twice.
    #[error("token {token} has expert {expert} twice")]
    DuplicateExpert {
        /// The token.
        token: usize,
        /// The expert.
        expert: i32,
    },
    /// `expert_offsets` is not the histogram of `expert_indices`.
    #[error("expert_offsets gives expert {expert} {claimed} assignments, but it has {counted}")]
    ExpertCount {
        /// The expert.
        expert: usize,
        /// What the offsets say.
        claimed: i32,
        /// What the indices say.
        counted: i32,
    },
}

impl<W> Default for RoutingTable<W> {
    /// No tokens, no experts: a table to be reset.
    fn default() -> Self {
        Self {
            token_offsets: vec![0],
            expert_indices: Vec::new(),
            routing_weights: Vec::new(),
            expert_offsets: vec![0],
        }
    }
}

impl<W> RoutingTable<W> {
    /// Number of tokens, T.
    pub fn num_tokens(&self) -> usize {
        self.token_offsets.len().saturating_sub(1)
    }

    /// Number of experts, E.
    pub fn num_experts(&self) -> usize {
        self.expert_offsets.len().saturating_sub(1)
    }

    /// Number of assignments, A.
    pub fn num_assignments(&self) -> usize {
        self.expert_indices.len()
    }

    /// The assignments of a token, as positions in `expert_indices` and `routing_weights`.
    #[inline]
    pub fn assignments_of(&self, token: usize) -> Range<usize> {
        self.token_offsets[token] as usize..self.token_offsets[token + 1] as usize
    }

    /// The experts of a token, in the order of choice.
    #[inline]
    pub fn experts_of(&self, token: usize) -> &[i32] {
        &self.expert_indices[self.assignments_of(token)]
    }

    /// The weights of a token, in the order of choice.
    #[inline]
    pub fn weights_of(&self, token: usize) -> &[W] {
        &self.routing_weights[self.assignments_of(token)]
    }

    /// Number of assignments of an expert.
    pub fn count_of(&self, expert: usize) -> usize {
        (self.expert_offsets[expert + 1] - self.expert_offsets[expert]) as usize
    }

    /// Number of assignments of every expert, `[E]`.
    pub fn counts(&self) -> Vec<usize> {
        (0..self.num_experts()).map(|e| self.count_of(e)).collect()
    }

    /// Number of tokens that have exactly `k` experts.
    pub fn tokens_with(&self, k: usize) -> usize {
        (0..self.num_tokens())
            .filter(|&t| self.assignments_of(t).len() == k)
            .count()
    }

    /// Empties the table for `num_experts` experts, keeping its memory, so that tokens can be
    /// pushed; finish with [`RoutingTable::finish`].
    pub fn reset(&mut self, num_experts: usize) {
        self.token_offsets.clear();
        self.token_offsets.push(0);
        self.expert_indices.clear();
        self.routing_weights.clear();
        self.expert_offsets.clear();
        self.expert_offsets.resize(num_experts + 1, 0);
    }

    /// Ends the current token: its assignments are those appended to `expert_indices` and
    /// `routing_weights` since the previous call.
    pub fn end_token(&mut self) {
        self.token_offsets.push(self.expert_indices.len() as i32);
    }

    /// Counts the assignments of every expert into `expert_offsets`. Indices must be in range.
    pub fn finish(&mut self) {
        let offsets = &mut self.expert_offsets;
        offsets.fill(0);
        for &e in &self.expert_indices {
            offsets[e as usize + 1] += 1;
        }
        for e in 1..offsets.len() {
            offsets[e] += offsets[e - 1];
        }
    }

    /// The expert that takes every token exactly once in order, if there is one: then permutation
    /// is the identity and the dense path serves.
    pub fn sole_expert(&self) -> Option<usize> {
        let (t, a) = (self.num_tokens(), self.num_assignments());
        let first = *self.expert_indices.first()? as usize;
        let dense = a == t
            && self.count_of(first) == a
            && self
                .token_offsets
                .iter()
                .enumerate()
                .all(|(i, &o)| o as usize == i);
        dense.then_some(first)
    }

    /// Checks every invariant.
    ///
    /// # Errors
    /// The first one that is broken, with position and value.
    pub fn validate(&self) -> Result<()> {
        Ok(self.check()?)
    }

    fn check(&self) -> std::result::Result<(), BrokenInvariant> {
        let assignments = self.expert_indices.len();
        if self.routing_weights.len() != assignments {
            let weights = self.routing_weights.len();
            return Err(BrokenInvariant::WeightCount {
                weights,
                assignments,
            });
        }
        for (array, offsets) in [
            ("token_offsets", &self.token_offsets),
            ("expert_offsets", &self.expert_offsets),
        ] {
            let first = *offsets
                .first()
                .ok_or(BrokenInvariant::EmptyOffsets { array })?;
            if first != 0 {
                return Err(BrokenInvariant::FirstOffset {
                    array,
                    value: first,
                });
            }
            for (i, pair) in offsets.windows(2).enumerate() {
                if pair[1] < pair[0] {
                    return Err(BrokenInvariant::Descending {
                        array,
                        position: i + 1,
                        value: pair[1],
                        previous: pair[0],
                    });
                }
            }
            let last = offsets[offsets.len() - 1];
            if last as usize != assignments {
                return Err(BrokenInvariant::LastOffset {
                    array,
                    value: last,
                    assignments,
                });
            }
        }
        let experts = self.num_experts();
        let mut counts = vec![0i32; experts];
        // `seen[e]` is the last token (plus one) that chose e: duplicates without clearing.
        let mut seen = vec![0usize; experts];
        for token in 0..self.num_tokens() {
            for position in self.assignments_of(token) {
                let value = self.expert_indices[position];
                if value < 0 || value as usize >= experts {
                    return Err(BrokenInvariant::ExpertIndex {
                        position,
                        value,
                        experts,
                    });
                }
                let e = value as usize;
                if seen[e] == token + 1 {
                    return Err(BrokenInvariant::DuplicateExpert {
                        token,
                        expert: value,
                    });
                }
                seen[e] = token + 1;
                counts[e] += 1;
            }
        }
        for (expert, &counted) in counts.iter().enumerate() {
            let claimed = self.expert_offsets[expert + 1] - self.expert_offsets[expert];
            if claimed != counted {
                return Err(BrokenInvariant::ExpertCount {
                    expert,
                    claimed,
                    counted,
                });
            }
        }
        Ok(())
    }
}

impl RoutingTable {
    /// A table from explicit lists: per token, its (expert, weight) pairs in the order of choice.
    ///
    /// # Errors
    /// A broken invariant: an index outside `0..num_experts`, or an expert twice in a token.
    pub fn from_rows(num_experts: usize, rows: &[Vec<(i32, f32)>]) -> Result<Self> {
        let mut table = Self::default();
        table.reset(num_experts);
        for row in rows {
            for &(expert, weight) in row {
                if expert < 0 || expert as usize >= num_experts {
                    return Err(BrokenInvariant::ExpertIndex {
                        position: table.expert_indices.len(),
                        value: expert,
                        experts: num_experts,
                    }
                    .into());
                }
                table.expert_indices.push(expert);
                table.routing_weights.push(weight);
            }
            table.end_token();
        }
        table.finish();
        table.validate()?;
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> RoutingTable {
        RoutingTable::from_rows(
            4,
            &[
                vec![(2, 0.5), (0, 0.25)],
                vec![],
                vec![(2, 1.0)],
                vec![(3, 0.1), (1, 0.2)],
            ],
        )
        .unwrap()
    }

    #[test]
    fn counts_and_rows() {
        let t = sample();
        assert_eq!(
            (t.num_tokens(), t.num_experts(), t.num_assignments()),
            (4, 4, 5)
        );
        assert_eq!(t.expert_offsets, [0, 1, 2, 4, 5]);
        assert_eq!(t.experts_of(3), [3, 1]);
        assert_eq!(
            (t.tokens_with(0), t.tokens_with(1), t.tokens_with(2)),
            (1, 1, 2)
        );
        assert_eq!(t.sole_expert(), None);
        let dense = RoutingTable::from_rows(3, &[vec![(1, 1.0)], vec![(1, 1.0)]]).unwrap();
        assert_eq!(dense.sole_expert(), Some(1));
    }

    #[test]
    fn validate_names_the_first_broken_invariant() {
        type Break = fn(&mut RoutingTable);
        let cases: [(Break, &str); 9] = [
            (
                |t| t.routing_weights.truncate(4),
                "routing_weights has 4 entries",
            ),
            (|t| t.token_offsets.clear(), "token_offsets is empty"),
            (
                |t| t.token_offsets[0] = 1,
                "token_offsets[0] is 1, must be 0",
            ),
            (
                |t| t.token_offsets[2] = 1,
                "token_offsets[2] is 1, below its predecessor 2",
            ),
            (
                |t| t.expert_offsets[4] = 6,
                "expert_offsets ends at 6, but there are 5",
            ),
            (
                |t| t.expert_indices[1] = 4,
                "expert_indices[1] is 4, must be in 0..4",
            ),
            (
                |t| t.expert_indices[1] = -1,
                "expert_indices[1] is -1, must be in 0..4",
            ),
            (|t| t.expert_indices[1] = 2, "token 0 has expert 2 twice"),
            (
                |t| t.expert_offsets[1] = 0,
                "gives expert 0 0 assignments, but it has 1",
            ),
        ];
        for (break_it, expected) in cases {
            let mut table = sample();
            break_it(&mut table);
            let error = table.validate().unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error} should contain {expected}"
            );
        }
        assert!(sample().validate().is_ok());
        assert!(RoutingTable::<f32>::default().validate().is_ok());
    }

    proptest! {
        #[test]
        fn validate_never_panics(
            token_offsets in prop::collection::vec(any::<i32>(), 0..6),
            expert_indices in prop::collection::vec(any::<i32>(), 0..6),
            weights in prop::collection::vec(any::<f32>(), 0..6),
            expert_offsets in prop::collection::vec(any::<i32>(), 0..6),
        ) {
            let table = RoutingTable {
                token_offsets, expert_indices, routing_weights: weights, expert_offsets,
            };
            let _ = table.validate();
        }
    }
}
