//! The options of the gate, by the names that the papers' page gives them.

use std::ops::Range;

use clap::Args;
use tollgate::options::{
    AuxLoss, BalanceOver, Capacity, DropOrder, Gap, GateOptions, GatingDropout, Granularity,
    LocalChoice, LocalWeight, Weights,
};
use tollgate::{DropMode, Router};

use super::named::named;

/// The options of the gate; what is not given stays at the library's default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Gate")]
pub struct GateArgs {
    /// How far apart the best two are: in softmax probability over all experts, or over the two.
    /// [default: softmax]
    #[arg(long, value_name = "GAP", value_parser = named!(Gap))]
    pub gap: Option<Gap>,
    /// Combine weight: the score, or renormalised over the chosen, or over the best two.
    /// [default: prob; sigmoid and grouped: selected; second: top2]
    #[arg(long, value_name = "WEIGHTS", value_parser = named!(Weights))]
    pub weights: Option<Weights>,
    /// Factor on every combine weight.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub weight_scale: Option<f32>,
    /// Which assignments count as load in the balance loss.
    /// [default: top1_only for routers of one expert or two, else first_choice]
    #[arg(long, value_name = "LOAD", value_parser = named!(BalanceOver))]
    pub balance_over: Option<BalanceOver>,
    /// Coefficient of the balance loss; 0 turns it off. [default: 0.01]
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true)]
    pub balance_alpha: Option<f32>,
    /// Coefficient of the z-loss; 0 turns it off. [default: 0.001]
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    pub z_coefficient: Option<f32>,
    /// Limit of rows per expert, as a multiple of the even share; without it nothing is dropped.
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub capacity: Option<f32>,
    /// Who keeps its place when an expert is full. [default: position]
    #[arg(long, value_name = "ORDER", requires = "capacity", value_parser = named!(DropOrder))]
    pub drop_order: Option<DropOrder>,
    /// The router sees its input multiplied by a random factor in 1 ± AMOUNT. [default: 0]
    #[arg(long, value_name = "AMOUNT", allow_negative_numbers = true)]
    pub jitter: Option<f32>,
    /// Gating Dropout: with probability P a step keeps its tokens local, on a local expert (gate,
    /// the default) or on none (gate-expert).
    #[arg(
        long,
        value_name = "P[:MODE]",
        value_parser = gating_dropout,
        allow_negative_numbers = true
    )]
    pub gating_dropout: Option<(f32, DropMode)>,
    /// Gating Dropout: which local expert. [default: restricted_argmax]
    #[arg(
        long,
        value_name = "CHOICE",
        requires = "gating_dropout",
        value_parser = named!(LocalChoice)
    )]
    pub local_choice: Option<LocalChoice>,
    /// Gating Dropout: its weight. [default: gate_prob]
    #[arg(
        long,
        value_name = "WEIGHT",
        requires = "gating_dropout",
        value_parser = named!(LocalWeight)
    )]
    pub local_weight: Option<LocalWeight>,
    /// Gating Dropout: the balance and z losses of a dropped step. [default: keep]
    #[arg(long, value_name = "WHAT", requires = "gating_dropout", value_parser = named!(AuxLoss))]
    pub aux_loss: Option<AuxLoss>,
    /// Gating Dropout: one coin per layer and pass, or per step. [default: layer]
    #[arg(
        long,
        value_name = "WHAT",
        requires = "gating_dropout",
        value_parser = named!(Granularity)
    )]
    pub granularity: Option<Granularity>,
    /// Gating Dropout: the experts that count as local. [default: all]
    #[arg(long, value_name = "A..B", requires = "gating_dropout", value_parser = expert_range)]
    pub local_experts: Option<Range<usize>>,
}

impl GateArgs {
    /// The options for a router.
    pub fn options(&self, router: Router) -> GateOptions {
        let mut options = GateOptions::new(router);
        options.gap = self.gap.unwrap_or(options.gap);
        options.weights = self.weights;
        options.weight_scale = self.weight_scale.unwrap_or(options.weight_scale);
        options.balance_over = self.balance_over;
        options.balance_alpha = self.balance_alpha.unwrap_or(options.balance_alpha);
        options.z_coefficient = self.z_coefficient.unwrap_or(options.z_coefficient);
        options.jitter = self.jitter.unwrap_or(options.jitter);
        options.capacity = self.capacity.map(|factor| Capacity {
            factor,
            order: self.drop_order.unwrap_or(DropOrder::Position),
        });
        options.gating_dropout = self.gating_dropout.map(|(probability, mode)| {
            let mut dropout = GatingDropout::new(probability, mode);
            dropout.local_choice = self.local_choice.unwrap_or(dropout.local_choice);
            dropout.local_weight = self.local_weight.unwrap_or(dropout.local_weight);
            dropout.aux_loss = self.aux_loss.unwrap_or(dropout.aux_loss);
            dropout.granularity = self.granularity.unwrap_or(dropout.granularity);
            dropout
        });
        options
    }
}

/// `P`, `P:gate` or `P:gate-expert`.
fn gating_dropout(text: &str) -> Result<(f32, DropMode), String> {
    let (p, mode) = match text.split_once(':') {
        None => (text, DropMode::Gate),
        Some((p, mode)) => (p, mode.parse::<DropMode>().map_err(|e| e.to_string())?),
    };
    let probability = p
        .parse()
        .map_err(|_| format!("the probability is '{p}', must be a number in [0, 1]"))?;
    Ok((probability, mode))
}

/// `A..B`: experts A to B−1.
fn expert_range(text: &str) -> Result<Range<usize>, String> {
    text.split_once("..")
        .and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?))
        .ok_or_else(|| format!("'{text}' is not of the form A..B with whole numbers A < B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_and_ranges_parse() {
        assert_eq!(gating_dropout("0.3"), Ok((0.3, DropMode::Gate)));
        assert_eq!(
            gating_dropout("1:gate-expert"),
            Ok((1.0, DropMode::GateExpert))
        );
        assert!(gating_dropout("x").unwrap_err().contains("'x'"));
        assert!(
            gating_dropout("0.3:never")
                .unwrap_err()
                .contains("gate-expert")
        );
        assert_eq!(expert_range("2..6"), Ok(2..6));
        for bad in ["", "2", "2..", "..3", "2...3", "-1..3"] {
            assert!(expert_range(bad).is_err(), "{bad}");
        }
    }
}
