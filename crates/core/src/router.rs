//! The routing policies, and their one-line spelling.

use std::fmt;
use std::str::FromStr;

use crate::options::{Scores, SecondPolicy, StochasticPer};
use crate::{Error, Result};

/// How many tokens every expert takes under expert choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExpertChoiceCapacity {
    /// This many, or all where there are fewer; at most `i32::MAX`, spelled `256`.
    Tokens(usize),
    /// This multiple of the even share, `ceil(factor · T / E)`; spelled `2x`.
    Factor(f32),
}

/// The policy that turns router logits into a routing table.
///
/// `FromStr` and `Display` use the spelling in each variant's first line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Router {
    /// `top1`, `top2`, `topk:K` with softmax scores (Switch, GShard, Mixtral); `sigmoid:K` with
    /// sigmoid scores and an optional selection bias (DeepSeek-V3).
    TopK {
        /// Experts per token, 1..=E.
        k: usize,
        /// Softmax or sigmoid.
        scores: Scores,
    },
    /// `grouped:K:GROUPS:TOP[:softmax|:sigmoid]`. Experts lie in `groups` equal groups; only the
    /// `top_groups` best may be chosen from, a group's merit being the sum of its best
    /// `ceil(K / TOP)` scores (DeepSeek-V3). Scores default to sigmoid.
    Grouped {
        /// Experts per token.
        k: usize,
        /// Number of groups; divides E.
        groups: usize,
        /// Groups that may be chosen from.
        top_groups: usize,
        /// Softmax or sigmoid.
        scores: Scores,
    },
    /// `adaptive:TAU`. Two experts where the gap of the best two is at most τ, else one
    /// (Li et al., EMNLP 2023).
    Adaptive {
        /// Threshold in [0, 1].
        tau: f32,
    },
    /// `forced:SHARE`. This share of the tokens, drawn from the counter, takes one expert, the
    /// rest two: how Table 1 of the adaptive-gating paper was made.
    Forced {
        /// Expected share of tokens with one expert, in [0, 1].
        one_expert_share: f32,
    },
    /// `second:all`, `second:none`, `second:threshold:TAU`, `second:random:TAU`. Top-2 whose
    /// second expert is kept by a policy.
    Second {
        /// The policy.
        policy: SecondPolicy,
    },
    /// `noisy:K`. Top-k of `z + N(0,1) · softplus(z_noise)` (Shazeer et al., 2017).
    Noisy {
        /// Experts per token.
        k: usize,
    },
    /// `expert-choice:C` or `expert-choice:Fx`. Every expert takes its best C tokens, all of them
    /// where there are fewer (Zhou et al., 2022).
    ExpertChoice {
        /// Tokens per expert.
        capacity: ExpertChoiceCapacity,
    },
    /// `hash`. A fixed table from token id to expert, weight 1 (Roller et al., 2021).
    Hash,
    /// `thor` (= `thor:batch`), `thor:sentence`, `thor:token`. An expert drawn uniformly at
    /// random, weight 1 (Zuo et al., ICLR 2022).
    Stochastic {
        /// How often an expert is drawn.
        per: StochasticPer,
    },
    /// `ensemble`. Every expert with weight 1/E: stochastic experts at inference.
    Ensemble,
}

impl Router {
    /// Top-k with softmax scores.
    pub const fn top_k(k: usize) -> Self {
        Self::TopK {
            k,
            scores: Scores::Softmax,
        }
    }

    /// The scores it ranks by; `None` for routers without a gate.
    pub fn scores(&self) -> Option<Scores> {
        match *self {
            Self::TopK { scores, .. } | Self::Grouped { scores, .. } => Some(scores),
            Self::Adaptive { .. }
            | Self::Forced { .. }
            | Self::Second { .. }
            | Self::Noisy { .. }
            | Self::ExpertChoice { .. } => Some(Scores::Softmax),
            Self::Hash | Self::Stochastic { .. } | Self::Ensemble => None,
        }
    }

    /// Whether it needs router logits.
    pub fn has_gate(&self) -> bool {
        self.scores().is_some()
    }

    /// Whether noise is added to the logits in training.
    pub fn is_noisy(&self) -> bool {
        matches!(self, Self::Noisy { .. })
    }

    /// Whether every token takes its best or its best two experts by softmax: the routers for
    /// which `weights = top2` is defined.
    pub fn chooses_one_or_two(&self) -> bool {
        match *self {
            Self::Adaptive { .. } | Self::Forced { .. } | Self::Second { .. } => true,
            Self::TopK { k, scores } => k <= 2 && scores == Scores::Softmax,
            Self::Noisy { k } => k <= 2,
            _ => false,
        }
    }

    /// The most experts a token can get; for expert choice and ensemble that is E.
    pub fn max_experts_per_token(&self, num_experts: usize) -> usize {
        match *self {
            Self::TopK { k, .. } | Self::Grouped { k, .. } | Self::Noisy { k } => k,
            Self::Adaptive { .. } | Self::Forced { .. } => 2.min(num_experts),
            Self::Second {
                policy: SecondPolicy::None,
            } => 1,
            Self::Second { .. } => 2.min(num_experts),
            Self::Hash | Self::Stochastic { .. } => 1,
            Self::ExpertChoice { .. } | Self::Ensemble => num_experts,
        }
    }

    /// Tokens per expert under expert choice, for `num_tokens` tokens and at most so many; `None`
    /// for other routers.
    pub fn expert_choice_tokens(&self, num_tokens: usize, num_experts: usize) -> Option<usize> {
        match *self {
            Self::ExpertChoice {
                capacity: ExpertChoiceCapacity::Tokens(c),
            } => Some(c.min(num_tokens)),
            Self::ExpertChoice {
                capacity: ExpertChoiceCapacity::Factor(f),
            } => {
                let even = num_tokens as f64 / num_experts.max(1) as f64;
                Some(((f64::from(f) * even).ceil() as usize).min(num_tokens))
            }
            _ => None,
        }
    }

    /// Checks the parameters against the sizes. Up to `i32::MAX` tokens, also none, are legal with
    /// every router: what is legal for one batch is for the next.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] or [`Error::RealOutOfRange`] with value and bound.
    pub fn validate(&self, num_tokens: usize, num_experts: usize) -> Result<()> {
        let e = num_experts;
        Error::check_range("tokens (T)", num_tokens, 0, i32::MAX as usize)?;
        match *self {
            Self::TopK { k, .. } | Self::Noisy { k } => Error::check_range("k", k, 1, e),
            Self::Grouped {
                k,
                groups,
                top_groups,
                ..
            } => {
                Error::check_range("groups", groups, 1, e)?;
                if !e.is_multiple_of(groups) {
                    return Err(Error::Incompatible {
                        what: format!("groups {groups}"),
                        with: format!("{e} experts"),
                        reason: "groups must divide the experts evenly",
                    });
                }
                Error::check_range("top groups", top_groups, 1, groups)?;
                Error::check_range("k", k, 1, top_groups * (e / groups))
            }
            Self::Adaptive { tau } => Error::check_real("adaptive τ", tau.into(), 0.0, 1.0),
            Self::Forced { one_expert_share } => {
                Error::check_real("forced share", one_expert_share.into(), 0.0, 1.0)
            }
            Self::Second { policy } => match policy {
                SecondPolicy::All | SecondPolicy::None => Ok(()),
                SecondPolicy::Threshold(tau) | SecondPolicy::Random(tau) => {
                    Error::check_real("second-expert τ", tau.into(), 0.0, 1.0)
                }
            },
            Self::ExpertChoice {
                capacity: ExpertChoiceCapacity::Tokens(c),
            } => Error::check_range("expert-choice tokens (C)", c, 0, i32::MAX as usize),
            Self::ExpertChoice {
                capacity: ExpertChoiceCapacity::Factor(f),
            } => Error::check_real("expert-choice factor", f.into(), 0.0, e as f64),
            Self::Hash | Self::Stochastic { .. } | Self::Ensemble => Ok(()),
        }
    }
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::TopK {
                k: k @ (1 | 2),
                scores: Scores::Softmax,
            } => format!("top{k}"),
            Self::TopK {
                k,
                scores: Scores::Softmax,
            } => format!("topk:{k}"),
            Self::TopK {
                k,
                scores: Scores::Sigmoid,
            } => format!("sigmoid:{k}"),
            Self::Grouped {
                k,
                groups,
                top_groups,
                scores: Scores::Sigmoid,
            } => {
                format!("grouped:{k}:{groups}:{top_groups}")
            }
            Self::Grouped {
                k,
                groups,
                top_groups,
                scores,
            } => {
                format!("grouped:{k}:{groups}:{top_groups}:{scores}")
            }
            Self::Adaptive { tau } => format!("adaptive:{tau}"),
            Self::Forced { one_expert_share } => format!("forced:{one_expert_share}"),
            Self::Second { policy } => match policy {
                SecondPolicy::All => "second:all".into(),
                SecondPolicy::None => "second:none".into(),
                SecondPolicy::Threshold(tau) => format!("second:threshold:{tau}"),
                SecondPolicy::Random(tau) => format!("second:random:{tau}"),
            },
            Self::Noisy { k } => format!("noisy:{k}"),
            Self::ExpertChoice {
                capacity: ExpertChoiceCapacity::Tokens(c),
            } => {
                format!("expert-choice:{c}")
            }
            Self::ExpertChoice {
                capacity: ExpertChoiceCapacity::Factor(x),
            } => {
                format!("expert-choice:{x}x")
            }
            Self::Hash => "hash".into(),
            Self::Stochastic {
                per: StochasticPer::Batch,
            } => "thor".into(),
            Self::Stochastic { per } => format!("thor:{per}"),
            Self::Ensemble => "ensemble".into(),
        };
        f.pad(&text)
    }
}

/// The spellings of [`Router`], for help texts and errors.
pub(crate) const SPELLINGS: &str = "top1, top2, topk:K, sigmoid:K, \
    grouped:K:GROUPS:TOP[:softmax|:sigmoid], adaptive:TAU, forced:SHARE, \
    second:all|none|threshold:TAU|random:TAU, noisy:K, expert-choice:C|Fx, hash, \
    thor[:batch|:sentence|:token], ensemble";

/// Default τ of the second-expert policies.
const SECOND_TAU: f32 = 0.2;

impl FromStr for Router {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let unknown = || format!("unknown router '{text}', expected one of {SPELLINGS}");
        let count = |s: &str, what: &str| {
            s.parse::<usize>()
                .map_err(|_| format!("router '{text}': {what} is '{s}', must be a whole number"))
        };
        let real = |s: &str, what: &str| {
            s.parse::<f32>()
                .map_err(|_| format!("router '{text}': {what} is '{s}', must be a number"))
        };
        Ok(match *parts.as_slice() {
            ["top1"] => Self::top_k(1),
            ["top2"] => Self::top_k(2),
            ["topk", k] => Self::top_k(count(k, "K")?),
            ["sigmoid", k] => Self::TopK {
                k: count(k, "K")?,
                scores: Scores::Sigmoid,
            },
            ["grouped", k, groups, top, ref rest @ ..] if rest.len() <= 1 => Self::Grouped {
                k: count(k, "K")?,
                groups: count(groups, "GROUPS")?,
                top_groups: count(top, "TOP")?,
                scores: match rest.first() {
                    None => Scores::Sigmoid,
                    Some(name) => name.parse().map_err(|e| format!("router '{text}': {e}"))?,
                },
            },
            ["adaptive", tau] => Self::Adaptive {
                tau: real(tau, "TAU")?,
            },
            ["forced", share] => Self::Forced {
                one_expert_share: real(share, "SHARE")?,
            },
            ["second", "all"] => Self::Second {
                policy: SecondPolicy::All,
            },
            ["second", "none"] => Self::Second {
                policy: SecondPolicy::None,
            },
            ["second", "threshold"] => Self::Second {
                policy: SecondPolicy::Threshold(SECOND_TAU),
            },
            ["second", "random"] => Self::Second {
                policy: SecondPolicy::Random(SECOND_TAU),
            },
            ["second", "threshold", tau] => Self::Second {
                policy: SecondPolicy::Threshold(real(tau, "TAU")?),
            },
            ["second", "random", tau] => Self::Second {
                policy: SecondPolicy::Random(real(tau, "TAU")?),
            },
            ["noisy", k] => Self::Noisy { k: count(k, "K")? },
            ["expert-choice", c] => Self::ExpertChoice {
                capacity: match c.strip_suffix('x') {
                    Some(factor) => ExpertChoiceCapacity::Factor(real(factor, "F")?),
                    None => ExpertChoiceCapacity::Tokens(count(c, "C")?),
                },
            },
            ["hash"] => Self::Hash,
            ["thor"] => Self::Stochastic {
                per: StochasticPer::Batch,
            },
            ["thor", per] => Self::Stochastic {
                per: per.parse().map_err(|e| format!("router '{text}': {e}"))?,
            },
            ["ensemble"] => Self::Ensemble,
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_round_trip() {
        for text in [
            "top1",
            "top2",
            "topk:8",
            "sigmoid:8",
            "grouped:8:8:4",
            "grouped:8:8:4:softmax",
            "adaptive:0.1",
            "forced:0.8",
            "second:all",
            "second:none",
            "second:threshold:0.3",
            "second:random:0.5",
            "noisy:2",
            "expert-choice:256",
            "expert-choice:2x",
            "hash",
            "thor",
            "thor:token",
            "thor:sentence",
            "ensemble",
        ] {
            let router: Router = text.parse().unwrap();
            assert_eq!(router.to_string(), text);
        }
        assert_eq!("topk:1".parse::<Router>().unwrap(), Router::top_k(1));
    }

    #[test]
    fn a_fixed_expert_choice_serves_batches_of_any_size() {
        let fixed: Router = "expert-choice:5".parse().unwrap();
        for (tokens, taken) in [(0, 0), (1, 1), (5, 5), (6, 5)] {
            assert!(fixed.validate(tokens, 4).is_ok());
            assert_eq!(fixed.expert_choice_tokens(tokens, 4), Some(taken));
        }
        let check = |c: usize| {
            let capacity = ExpertChoiceCapacity::Tokens(c);
            Router::ExpertChoice { capacity }.validate(0, 4)
        };
        assert!(check(i32::MAX as usize).is_ok());
        assert_eq!(
            check(1 << 31).unwrap_err().to_string(),
            "expert-choice tokens (C) is 2147483648, must be in 0..=2147483647"
        );
        let even: Router = "expert-choice:2x".parse().unwrap();
        assert_eq!(even.expert_choice_tokens(0, 4), Some(0));
        assert_eq!(even.expert_choice_tokens(6, 4), Some(3));
        assert_eq!(Router::top_k(1).expert_choice_tokens(6, 4), None);
    }

    #[test]
    fn nonsense_is_refused_with_the_choices() {
        for text in [
            "",
            "top3",
            "topk",
            "topk:x",
            "topk:-1",
            "adaptive:",
            "thor:often",
            "hash:1",
        ] {
            let error = text.parse::<Router>().unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
