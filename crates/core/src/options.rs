//! Every choice that the papers leave open, as a type named like the option.
//!
//! Defaults are those of `docs/PAPERS.md`. Each enum has one spelling per variant, used on the
//! command line, in JSON and in reports.

use crate::named::named_enum;
use crate::{DropMode, Error, Result, Router};

named_enum! {
    /// How the gap between the best and the second expert is measured (adaptive gating).
    pub enum Gap("gap") {
        /// Difference of the full softmax probabilities. The default.
        Softmax = "softmax",
        /// Difference after renormalising over the top two: tanh((z_i − z_j) / 2).
        Top2 = "top2",
    }
}

named_enum! {
    /// The combine weight of a chosen expert.
    pub enum Weights("weights") {
        /// The score as it is: `w = p_i`.
        Prob = "prob",
        /// Renormalised over the chosen experts: a token with one expert has weight 1.
        Selected = "selected",
        /// Renormalised over the best two, before the second may be left out.
        Top2 = "top2",
    }
}

named_enum! {
    /// How a logit becomes a score.
    pub enum Scores("scores") {
        /// Probabilities over all experts.
        Softmax = "softmax",
        /// Each expert by itself, in (0, 1).
        Sigmoid = "sigmoid",
    }
}

named_enum! {
    /// Which assignments count as load in the balance loss.
    pub enum BalanceOver("balance-over") {
        /// Tokens that took exactly one expert (adaptive gating's Eq. for f).
        Top1Only = "top1_only",
        /// Every token's first choice (Switch, GShard).
        FirstChoice = "first_choice",
        /// Every assignment.
        All = "all",
    }
}

named_enum! {
    /// How a token that must stay finds its local expert on a dropped step (Gating Dropout).
    pub enum LocalChoice("local-choice") {
        /// The best local expert by logit. The default.
        RestrictedArgmax = "restricted_argmax",
        /// Gated expert `e` runs on local expert `e mod n_local`.
        Modulo = "modulo",
        /// A counter-based uniform draw.
        Uniform = "uniform",
    }
}

named_enum! {
    /// The weight of the local expert on a dropped step (Gating Dropout).
    pub enum LocalWeight("local-weight") {
        /// Probability of the expert that runs. The default.
        GateProb = "gate_prob",
        /// Probability of the expert that the gate chose.
        Original = "original",
        /// Softmax over the local experts.
        RestrictedSoftmax = "restricted_softmax",
        /// 1.
        One = "one",
    }
}

named_enum! {
    /// What happens to the balance and z losses on a dropped step (Gating Dropout).
    pub enum AuxLoss("aux-loss") {
        /// They stay. The default.
        Keep = "keep",
        /// They and their gradients are zero.
        Zero = "zero",
    }
}

named_enum! {
    /// How often the coin of Gating Dropout is tossed.
    pub enum Granularity("granularity") {
        /// Once per MoE layer and forward pass. The default.
        Layer = "layer",
        /// Once per step, for all layers.
        Step = "step",
    }
}

named_enum! {
    /// Who keeps its place when an expert is full.
    pub enum DropOrder("drop-order") {
        /// First choices before second ones, then earlier tokens first (GShard).
        Position = "position",
        /// Larger routing weight first, then earlier tokens.
        Probability = "probability",
    }
}

named_enum! {
    /// How often a stochastic expert is drawn (THOR).
    pub enum StochasticPer("thor granularity") {
        /// One expert for the whole batch: the dense path.
        Batch = "batch",
        /// One expert per sequence.
        Sentence = "sentence",
        /// One expert per token.
        Token = "token",
    }
}

named_enum! {
    /// The non-linearity between the two linear maps of an expert.
    pub enum Activation("activation") {
        /// max(v, 0); its derivative at 0 is 0.
        Relu = "relu",
        /// v/2 · (1 + erf(v/√2)).
        Gelu = "gelu",
        /// v/2 · (1 + tanh(√(2/π) · (v + 0.044715 v³))).
        GeluTanh = "gelu_tanh",
        /// v · sigmoid(v).
        Silu = "silu",
    }
}

/// Whether a token keeps its second expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SecondPolicy {
    /// Always.
    All,
    /// Never.
    None,
    /// If its share of the top two exceeds the threshold: `g2 > τ`.
    Threshold(f32),
    /// With probability `min(1, g2 / τ)`; τ = 0.5 is GShard's rule.
    Random(f32),
}

/// A limit on the rows of one expert. Without it nothing is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Rows per expert as a multiple of the even share: `ceil(factor · T · k / E)`, where `k` is
    /// the router's largest number of experts per token.
    pub factor: f32,
    /// Who keeps its place.
    pub order: DropOrder,
}

/// Gating Dropout (Liu et al., ICML 2022). Acts in training only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatingDropout {
    /// Probability that a step makes no exchange.
    pub probability: f32,
    /// What a dropped step does.
    pub mode: DropMode,
    /// How a local expert is found.
    pub local_choice: LocalChoice,
    /// Its weight.
    pub local_weight: LocalWeight,
    /// The auxiliary losses on dropped steps.
    pub aux_loss: AuxLoss,
    /// How often the coin is tossed.
    pub granularity: Granularity,
}

impl GatingDropout {
    /// The options at their defaults.
    pub fn new(probability: f32, mode: DropMode) -> Self {
        Self {
            probability,
            mode,
            local_choice: LocalChoice::RestrictedArgmax,
            local_weight: LocalWeight::GateProb,
            aux_loss: AuxLoss::Keep,
            granularity: Granularity::Layer,
        }
    }
}

/// Everything that decides how logits become a routing table.
#[derive(Debug, Clone, PartialEq)]
pub struct GateOptions {
    /// The policy.
    pub router: Router,
    /// The adaptive router's gap.
    pub gap: Gap,
    /// The combine weight; `None` takes the router's default, see [`GateOptions::weights`].
    pub weights: Option<Weights>,
    /// Factor on every combine weight (DeepSeek's routed scaling factor). Default 1.
    pub weight_scale: f32,
    /// The balance loss's load; `None` takes the router's default.
    pub balance_over: Option<BalanceOver>,
    /// α of the balance loss. Default 0.01; 0 turns it off.
    pub balance_alpha: f32,
    /// c of the z-loss. Default 1e-3; 0 turns it off.
    pub z_coefficient: f32,
    /// A limit on rows per expert. Default none: dropless.
    pub capacity: Option<Capacity>,
    /// Gating Dropout. Default none.
    pub gating_dropout: Option<GatingDropout>,
    /// The router's input is multiplied by U(1 ± jitter) in training. Default 0.
    pub jitter: f32,
}

impl GateOptions {
    /// The defaults for a router.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            gap: Gap::Softmax,
            weights: None,
            weight_scale: 1.0,
            balance_over: None,
            balance_alpha: 0.01,
            z_coefficient: 1e-3,
            capacity: None,
            gating_dropout: None,
            jitter: 0.0,
        }
    }

    /// The weights option in force: as set, or the router's default — `selected` for sigmoid
    /// scores, `top2` for the second-expert policies, `prob` for all others.
    pub fn weights(&self) -> Weights {
        self.weights.unwrap_or(match self.router {
            Router::Second { .. } => Weights::Top2,
            _ if self.router.scores() == Some(Scores::Sigmoid) => Weights::Selected,
            _ => Weights::Prob,
        })
    }

    /// The balance option in force: as set, or the router's default — `top1_only` for the routers
    /// that choose between one and two experts, `first_choice` for all others.
    pub fn balance_over(&self) -> BalanceOver {
        self.balance_over.unwrap_or(match self.router {
            Router::Adaptive { .. } | Router::Forced { .. } | Router::Second { .. } => {
                BalanceOver::Top1Only
            }
            _ => BalanceOver::FirstChoice,
        })
    }

    /// Checks every option against `num_experts` and `num_tokens`.
    ///
    /// # Errors
    /// The first option that is out of range, with its value and bound, or two that exclude each
    /// other.
    pub fn validate(&self, num_tokens: usize, num_experts: usize) -> Result<()> {
        Error::check_range("experts (E)", num_experts, 1, i32::MAX as usize)?;
        self.router.validate(num_tokens, num_experts)?;
        let finite = f64::from(f32::MAX);
        Error::check_real("weight_scale", self.weight_scale.into(), -finite, finite)?;
        Error::check_real("balance_alpha", self.balance_alpha.into(), 0.0, finite)?;
        Error::check_real("z_coefficient", self.z_coefficient.into(), 0.0, finite)?;
        Error::check_real("jitter", self.jitter.into(), 0.0, 1.0)?;
        if let Some(capacity) = self.capacity {
            Error::check_real("capacity factor", capacity.factor.into(), 0.0, finite)?;
        }
        if self.weights == Some(Weights::Top2) && !self.router.chooses_one_or_two() {
            return Err(Error::Incompatible {
                what: "weights top2".into(),
                with: format!("router {}", self.router),
                reason: "top2 renormalises over the best two of a softmax; use selected instead",
            });
        }
        if let Some(dropout) = self.gating_dropout {
            Error::check_real("gating dropout p", dropout.probability.into(), 0.0, 1.0)?;
            if !self.router.has_gate() {
                return Err(Error::Incompatible {
                    what: "gating dropout".into(),
                    with: format!("router {}", self.router),
                    reason: "it has no gate whose choice could be made local",
                });
            }
        }
        if !self.router.has_gate() && self.weights.is_some_and(|w| w != Weights::Prob) {
            return Err(Error::Incompatible {
                what: format!("weights {}", self.weights()),
                with: format!("router {}", self.router),
                reason: "it has no scores, its weights are constants",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_errors_name_value_and_bound() {
        let check = |o: &GateOptions| o.validate(8, 4).unwrap_err().to_string();
        let mut o = GateOptions::new(Router::Adaptive { tau: 1.5 });
        assert_eq!(check(&o), "adaptive τ is 1.5, must be in [0, 1]");
        o = GateOptions::new(Router::TopK {
            k: 5,
            scores: Scores::Softmax,
        });
        assert_eq!(check(&o), "k is 5, must be in 1..=4");
        o = GateOptions::new(Router::Adaptive { tau: 0.1 });
        o.gating_dropout = Some(GatingDropout::new(f32::NAN, DropMode::Gate));
        assert_eq!(check(&o), "gating dropout p is NaN, must be in [0, 1]");
        o = GateOptions::new(Router::Hash);
        o.gating_dropout = Some(GatingDropout::new(0.3, DropMode::Gate));
        assert!(check(&o).starts_with("gating dropout cannot be combined with router hash"));
        o = GateOptions::new(Router::Adaptive { tau: 0.1 });
        assert!(
            o.validate(8, 0)
                .unwrap_err()
                .to_string()
                .contains("experts (E) is 0")
        );
    }
}
