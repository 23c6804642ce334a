//! The routing table: which token goes to which expert, as CSR.

use std::ops::Range;

use crate::check::prefix_sums;
use crate::{Error, Result};

/// Which tokens go to which experts with which weights.
///
/// Compressed sparse rows: token `t` has the assignments
/// `token_offsets[t] .. token_offsets[t+1]`, in the order of choice (best first; ascending expert
/// where there is no order). A fixed top-k is the special case of equal counts; nothing downstream
/// assumes one. Offsets are exclusive prefix sums. `W` is f32, and f64 in the reference.
///
/// The fields are public so that frameworks can fill a table themselves; [`RoutingTable::validate`]
/// checks one, and operations check what they index with. The accessors presume a table that
/// `validate` accepts: each says what it does with another.
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

    /// The assignments of a token, as positions in `expert_indices` and `routing_weights`. Of a
    /// table that [`RoutingTable::validate`] does not accept the positions may be anything.
    ///
    /// # Panics
    /// If `token >= T`.
    #[inline]
    pub fn assignments_of(&self, token: usize) -> Range<usize> {
        self.token_offsets[token] as usize..self.token_offsets[token + 1] as usize
    }

    /// The experts of a token, in the order of choice.
    ///
    /// # Panics
    /// If `token >= T`; if [`RoutingTable::validate`] does not accept the table, also where its
    /// offsets leave `expert_indices`.
    #[inline]
    pub fn experts_of(&self, token: usize) -> &[i32] {
        &self.expert_indices[self.assignments_of(token)]
    }

    /// The weights of a token, in the order of choice.
    ///
    /// # Panics
    /// If `token >= T`; if [`RoutingTable::validate`] does not accept the table, also where its
    /// offsets leave `routing_weights`.
    #[inline]
    pub fn weights_of(&self, token: usize) -> &[W] {
        &self.routing_weights[self.assignments_of(token)]
    }

    /// Number of assignments of an expert: the difference of its offsets, 0 where they descend in a
    /// table that [`RoutingTable::validate`] does not accept.
    ///
    /// # Panics
    /// If `expert >= E`.
    pub fn count_of(&self, expert: usize) -> usize {
        let (start, end) = (self.expert_offsets[expert], self.expert_offsets[expert + 1]);
        end.saturating_sub(start).max(0) as usize
    }

    /// Number of assignments of every expert, `[E]`, as [`RoutingTable::count_of`]. Never panics.
    pub fn counts(&self) -> Vec<usize> {
        (0..self.num_experts()).map(|e| self.count_of(e)).collect()
    }

    /// Number of tokens that have exactly `k` experts by `token_offsets`. Never panics.
    pub fn tokens_with(&self, k: usize) -> usize {
        (0..self.num_tokens())
            .filter(|&t| self.assignments_of(t).len() == k)
            .count()
    }

    /// Empties the table for `num_experts` experts (at most `i32::MAX`), keeping its memory, so
    /// that tokens can be pushed; finish with [`RoutingTable::finish`].
    ///
    /// # Panics
    /// If the offsets of so many experts do not fit the address space.
    pub fn reset(&mut self, num_experts: usize) {
        self.token_offsets.clear();
        self.token_offsets.push(0);
        self.expert_indices.clear();
        self.routing_weights.clear();
        self.expert_offsets.clear();
        self.expert_offsets.resize(num_experts.saturating_add(1), 0);
    }

    /// Ends the current token: its assignments are those appended to `expert_indices` and
    /// `routing_weights` since the previous call. Assignments are numbered in i32; whoever pushes
    /// them keeps to that.
    pub fn end_token(&mut self) {
        self.token_offsets.push(self.expert_indices.len() as i32);
    }

    /// Counts the assignments of every expert into `expert_offsets`.
    ///
    /// # Panics
    /// If an index lies outside `0..E`.
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
    ///
    /// Counts are believed, indices beyond the first not looked at: of a table that
    /// [`RoutingTable::validate`] does not accept the answer means nothing. Never panics.
    pub fn sole_expert(&self) -> Option<usize> {
        let (t, a) = (self.num_tokens(), self.num_assignments());
        let first = usize::try_from(*self.expert_indices.first()?).ok()?;
        let dense = a == t
            && first < self.num_experts()
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
            prefix_sums(array, offsets, assignments)?;
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
    /// [`Error::OutOfRange`] for more than `i32::MAX` experts, [`Error::Overflow`] for more than
    /// `i32::MAX` assignments.
    pub fn from_rows(num_experts: usize, rows: &[Vec<(i32, f32)>]) -> Result<Self> {
        const LIMIT: usize = i32::MAX as usize;
        Error::check_range("experts (E)", num_experts, 0, LIMIT)?;
        let assignments = (rows.iter()).fold(0usize, |sum, row| sum.saturating_add(row.len()));
        if assignments > LIMIT {
            return Err(Error::Overflow {
                what: "assignments (A)",
                detail: assignments.to_string(),
                limit: LIMIT as u64,
            });
        }
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

    #[test]
    fn accessors_survive_lying_tables() {
        let lying = |offsets: [i32; 3], index: i32| RoutingTable {
            token_offsets: vec![0, 1],
            expert_indices: vec![index],
            routing_weights: vec![1.0],
            expert_offsets: offsets.to_vec(),
        };
        for index in [-1, 2, i32::MIN, i32::MAX] {
            assert_eq!(lying([0, 1, 1], index).sole_expert(), None);
        }
        assert_eq!(lying([0, 1, 1], 0).sole_expert(), Some(0));
        let most = i32::MAX as usize;
        let table = lying([i32::MIN, i32::MAX, i32::MIN], 0);
        assert_eq!((table.counts(), table.sole_expert()), (vec![most, 0], None));
        let mut table = lying([0, 1, 1], 0);
        table.token_offsets = vec![i32::MIN, i32::MAX, i32::MIN];
        assert_eq!((table.tokens_with(1), table.sole_expert()), (0, None));
    }

    #[test]
    fn experts_are_numbered_in_i32() {
        for experts in [1 << 31, usize::MAX] {
            let error = RoutingTable::from_rows(experts, &[]).unwrap_err();
            let expected = format!("experts (E) is {experts}, must be in 0..=2147483647");
            assert_eq!(error.to_string(), expected);
        }
    }

    /// Mostly plausible numbers, and the extremes.
    fn number() -> impl Strategy<Value = i32> {
        prop_oneof![
            8 => 0..4i32,
            1 => any::<i32>(),
            1 => prop::sample::select(vec![-1, i32::MIN, i32::MAX]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn validation_and_accessors_never_panic(
            token_offsets in prop::collection::vec(number(), 0..6),
            expert_indices in prop::collection::vec(number(), 0..6),
            weights in prop::collection::vec(any::<f32>(), 0..6),
            expert_offsets in prop::collection::vec(number(), 0..6),
        ) {
            let table = RoutingTable {
                token_offsets, expert_indices, routing_weights: weights, expert_offsets,
            };
            let valid = table.validate().is_ok();

            let counts = table.counts();
            prop_assert_eq!(counts.len(), table.num_experts());
            if let Some(sole) = table.sole_expert() {
                prop_assert_eq!(counts[sole], table.num_tokens());
            }
            let with: usize = (0..7).map(|k| table.tokens_with(k)).sum();
            prop_assert!(with <= table.num_tokens());
            prop_assert!(!valid || with == table.num_tokens());
        }
    }
}
