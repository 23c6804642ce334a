//! The named edge cases that every operation runs.

use tollgate_core::RoutingTable;

use crate::Data;

/// What the router logits of a case look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitKind {
    /// Normal numbers with standard deviation 2.
    Random,
    /// Every logit equal: all ties.
    AllTied,
    /// Small integers, so that ties are frequent.
    ManyTies,
    /// Expert 0 far above the rest: all tokens on one expert.
    OneHot,
    /// Only even experts are attractive: the odd ones stay empty.
    EmptyExperts,
    /// One NaN in every third row.
    Nan,
    /// +∞ in every third row.
    PositiveInfinity,
    /// −∞ (masked) in every other place, never a whole row.
    Masked,
    /// Whole rows of −∞ among random ones, and rows with a single finite logit.
    FullyMasked,
    /// Magnitudes up to 3e38: differences overflow.
    Huge,
}

/// One named situation.
#[derive(Debug, Clone)]
pub struct Case {
    /// Unique name, printed when the case fails.
    pub name: &'static str,
    /// T.
    pub tokens: usize,
    /// E.
    pub experts: usize,
    /// H.
    pub hidden: usize,
    /// I.
    pub intermediate: usize,
    /// The logits.
    pub logits: LogitKind,
    /// Seed of the case's data.
    pub seed: u64,
}

const fn case(
    name: &'static str,
    tokens: usize,
    experts: usize,
    hidden: usize,
    intermediate: usize,
    logits: LogitKind,
) -> Case {
    Case {
        name,
        tokens,
        experts,
        hidden,
        intermediate,
        logits,
        seed: 2023,
    }
}

/// The named list. Sizes are small enough that the f64 reference runs each in milliseconds.
pub fn edge_cases() -> Vec<Case> {
    use LogitKind::*;
    vec![
        case("zero tokens", 0, 4, 8, 16, Random),
        case("one token", 1, 4, 8, 16, Random),
        case("one expert", 9, 1, 8, 16, Random),
        case("one of everything", 1, 1, 1, 1, Random),
        case("empty experts", 33, 8, 16, 32, EmptyExperts),
        case("all tokens on one expert", 65, 8, 16, 32, OneHot),
        case("experts not a power of two", 50, 7, 24, 40, Random),
        case("more experts than tokens", 5, 37, 16, 16, Random),
        case("H and I not multiples of a tile", 40, 6, 13, 37, Random),
        case(
            "H and I prime and larger than a tile",
            70,
            3,
            131,
            67,
            Random,
        ),
        case("all logits tied", 20, 8, 8, 8, AllTied),
        case("many ties", 64, 16, 8, 8, ManyTies),
        case("NaN logits", 21, 5, 8, 8, Nan),
        case("positive infinity", 21, 5, 8, 8, PositiveInfinity),
        case("masked experts", 30, 6, 8, 8, Masked),
        case("fully masked rows", 30, 6, 8, 8, FullyMasked),
        case("huge logits", 30, 6, 8, 8, Huge),
        case("tile plus and minus one", 129, 4, 65, 63, Random),
        case("more than one block of everything", 300, 16, 96, 80, Random),
    ]
}

/// The cases as a gate sees them, with two larger ones.
pub fn gate_cases() -> Vec<Case> {
    let mut cases = edge_cases();
    cases.push(case("many tokens", 2049, 64, 1, 1, LogitKind::Random));
    cases.push(case("many experts", 65, 257, 1, 1, LogitKind::Random));
    cases
}

impl Case {
    /// A data source of this case; `salt` separates several tensors.
    pub fn data(&self, salt: u64) -> Data {
        Data::new(self.seed.wrapping_mul(1_000_003).wrapping_add(salt))
    }

    /// Router logits `[T, E]`, f32, row-major.
    pub fn router_logits(&self) -> Vec<f32> {
        let mut data = self.data(1);
        let mut logits = Vec::with_capacity(self.tokens * self.experts);
        for t in 0..self.tokens {
            for e in 0..self.experts {
                let random = (2.0 * data.normal()) as f32;
                let every_third = t % 3 == 1 && e == (t * 7) % self.experts;
                logits.push(match self.logits {
                    LogitKind::Random => random,
                    LogitKind::AllTied => 0.75,
                    LogitKind::ManyTies => random.round(),
                    LogitKind::OneHot => random + if e == 0 { 40.0 } else { 0.0 },
                    LogitKind::EmptyExperts => random - if e % 2 == 1 { 60.0 } else { 0.0 },
                    LogitKind::Nan if every_third => f32::NAN,
                    LogitKind::PositiveInfinity if every_third => f32::INFINITY,
                    LogitKind::Nan | LogitKind::PositiveInfinity => random,
                    LogitKind::Masked if (t + e) % 2 == 1 && self.experts > 1 => f32::NEG_INFINITY,
                    LogitKind::Masked => random,
                    LogitKind::FullyMasked if t % 3 == 0 => f32::NEG_INFINITY,
                    LogitKind::FullyMasked if t % 3 == 1 && e != t % self.experts => {
                        f32::NEG_INFINITY
                    }
                    LogitKind::FullyMasked => random,
                    LogitKind::Huge => random.signum() * 3e38 * data.uniform().abs() as f32,
                });
            }
        }
        logits
    }

    /// A routing table of the case's sizes that does not come from a gate: tokens have 0 to
    /// `max_k` experts, skewed as the case's name says. For operations downstream of the gate.
    pub fn routing_table(&self, max_k: usize) -> RoutingTable {
        let mut data = self.data(2);
        let mut rows = Vec::with_capacity(self.tokens);
        for _ in 0..self.tokens {
            let k = data.below(max_k.min(self.experts) + 1);
            let mut row: Vec<(i32, f32)> = Vec::with_capacity(k);
            while row.len() < k {
                let e = match self.logits {
                    LogitKind::OneHot if row.is_empty() => 0,
                    LogitKind::EmptyExperts if k <= self.experts.div_ceil(2) => {
                        2 * data.below(self.experts.div_ceil(2))
                    }
                    _ => data.below(self.experts),
                } as i32;
                if row.iter().all(|&(other, _)| other != e) {
                    row.push((e, data.uniform() as f32));
                }
            }
            rows.push(row);
        }
        RoutingTable::from_rows(self.experts, &rows).expect("the rows are legal by construction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_table_is_valid() {
        let cases = gate_cases();
        for (i, case) in cases.iter().enumerate() {
            assert!(
                cases[..i].iter().all(|c| c.name != case.name),
                "{}",
                case.name
            );
            assert_eq!(case.router_logits().len(), case.tokens * case.experts);
            for k in [1, 2, 8] {
                case.routing_table(k).validate().unwrap();
            }
        }
    }
}
