//! Inputs that no one should pass: an error that names the value, or a valid result; no panic.

use proptest::prelude::*;
use tollgate_core::options::{
    AuxLoss, BalanceOver, Capacity, DropOrder, Gap, GateOptions, GatingDropout, Granularity,
    LocalChoice, LocalWeight, Scores, SecondPolicy, StochasticPer, Weights,
};
use tollgate_core::{DropMode, ExpertChoiceCapacity, Router, RowView, RowViewMut, StepContext};
use tollgate_gating::{GateInputs, GateState, Gating};
use tollgate_testkit::{Data, Guarded};

use crate::support::{assert_same_state, cpu};

/// Everything is drawn from one seed, so that a failure is reproduced by it.
struct Draw(Data);

impl Draw {
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.below(all.len())]
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.0.below(n) == 0
    }

    /// A legal size mostly, sometimes one beside it.
    fn size(&mut self, right: usize) -> usize {
        if self.once_in(40) {
            (right + self.0.below(3)).saturating_sub(1)
        } else {
            right
        }
    }

    /// A number in [0, 1) mostly.
    fn real(&mut self) -> f32 {
        if self.once_in(12) {
            self.of(&[0.0, 1.0, 2.5, -1.0, f32::NAN, f32::INFINITY, 1e30, 1e-30])
        } else {
            self.0.uniform().abs() as f32
        }
    }

    fn number(&mut self) -> f32 {
        let special = [
            f32::NEG_INFINITY,
            f32::INFINITY,
            f32::NAN,
            f32::MAX,
            f32::MIN,
            0.0,
            -0.0,
            1e-40,
            100.0,
            2.0,
        ];
        if self.once_in(8) {
            self.of(&special)
        } else {
            (2.0 * self.0.normal()) as f32
        }
    }

    fn numbers(&mut self, n: usize) -> Vec<f32> {
        // Some batches are clean, so that not every row is faulty.
        let clean = self.once_in(2);
        let number = |d: &mut Self| {
            if clean {
                d.0.normal() as f32
            } else {
                d.number()
            }
        };
        (0..n).map(|_| number(self)).collect()
    }

    fn router(&mut self, experts: usize) -> Router {
        let k = 1 + self.0.below(experts + 1);
        let scores = self.of(Scores::ALL);
        match self.0.below(10) {
            0 => Router::TopK { k, scores },
            1 => {
                let divisors: Vec<usize> = (1..=experts)
                    .filter(|g| experts.is_multiple_of(*g))
                    .collect();
                let groups = self.of(&divisors);
                let top_groups = 1 + self.0.below(groups);
                let k = 1 + self.0.below(top_groups * (experts / groups));
                Router::Grouped {
                    k,
                    groups,
                    top_groups,
                    scores,
                }
            }
            2 => Router::Adaptive { tau: self.real() },
            3 => Router::Forced {
                one_expert_share: self.real(),
            },
            4 => {
                let tau = self.real();
                let policy = self.of(&[
                    SecondPolicy::All,
                    SecondPolicy::None,
                    SecondPolicy::Threshold(tau),
                    SecondPolicy::Random(tau),
                ]);
                Router::Second { policy }
            }
            5 => Router::Noisy { k },
            6 => {
                let (tokens, factor) = (self.0.below(8), 2.0 * self.real());
                let capacity = self.of(&[
                    ExpertChoiceCapacity::Tokens(tokens),
                    ExpertChoiceCapacity::Factor(factor),
                ]);
                Router::ExpertChoice { capacity }
            }
            7 => Router::Stochastic {
                per: self.of(StochasticPer::ALL),
            },
            8 => Router::Hash,
            _ => Router::Ensemble,
        }
    }

    fn options(&mut self, experts: usize) -> GateOptions {
        let router = self.router(experts);
        let dropout = GatingDropout {
            probability: if self.once_in(4) { self.real() } else { 1.0 },
            mode: self.of(DropMode::ALL),
            local_choice: self.of(LocalChoice::ALL),
            local_weight: self.of(LocalWeight::ALL),
            aux_loss: self.of(AuxLoss::ALL),
            granularity: self.of(Granularity::ALL),
        };
        let capacity = Capacity {
            factor: 2.0 * self.real(),
            order: self.of(DropOrder::ALL),
        };
        GateOptions {
            gap: self.of(Gap::ALL),
            weights: (!self.once_in(3)).then(|| self.of(Weights::ALL)),
            balance_over: Some(self.of(BalanceOver::ALL)),
            weight_scale: if self.once_in(4) { self.number() } else { 1.0 },
            balance_alpha: self.real(),
            z_coefficient: self.real(),
            capacity: self.once_in(3).then_some(capacity),
            gating_dropout: self.once_in(3).then_some(dropout),
            ..GateOptions::new(router)
        }
    }
}

/// Damages one place of a state.
fn damage(draw: &mut Draw, state: &mut GateState) {
    let value = draw.of(&[-2, -1, 0, 1, 7, i32::MAX, i32::MIN]);
    let number = draw.number();
    let at = draw.0.below(1 << 16);
    let mut integers: Vec<&mut Vec<i32>> = vec![
        &mut state.first_choice,
        &mut state.runner_up,
        &mut state.weight_source,
        &mut state.kept,
        &mut state.selection.token_offsets,
        &mut state.selection.expert_indices,
        &mut state.selection.expert_offsets,
        &mut state.table.token_offsets,
        &mut state.table.expert_indices,
        &mut state.table.expert_offsets,
    ];
    let which = draw.0.below(integers.len() + 5);
    match which.checked_sub(integers.len()) {
        None => {
            let list = &mut integers[which];
            match draw.0.below(3) {
                0 => list.push(value),
                1 => drop(list.pop()),
                _ => {
                    let len = list.len().max(1);
                    if let Some(place) = list.get_mut(at % len) {
                        *place = value;
                    }
                }
            }
        }
        Some(0) => drop(state.scores.pop()),
        Some(1) => state.lse.push(number),
        Some(2) => state.load.push(number.into()),
        Some(3) => drop(state.noise.pop()),
        Some(_) => {
            state.dropped = draw.of(&[None, Some(DropMode::Gate), Some(DropMode::GateExpert)])
        }
    }
}

fn run(seed: u64) -> Result<(), TestCaseError> {
    let draw = &mut Draw(Data::new(seed));
    let (tokens, experts) = (draw.0.below(20), 1 + draw.0.below(40));
    let options = draw.options(experts);
    let ctx = StepContext {
        seed,
        layer: draw.0.word(),
        step: draw.0.word(),
        pass: draw.0.below(18) as u32,
        first_token: draw.0.word(),
        training: !draw.once_in(4),
    };
    let (z, noise) = (
        draw.numbers(tokens * experts),
        draw.numbers(tokens * experts),
    );
    let bias = draw.numbers(experts);
    let view = |v| RowView::new(v, tokens, experts).unwrap();
    let ids: Vec<i32> = (0..draw.size(tokens))
        .map(|_| draw.0.below(9) as i32 - 1)
        .collect();
    let table: Vec<i32> = (0..9)
        .map(|_| draw.0.below(draw_bound(experts)) as i32)
        .collect();
    let offsets = [0, draw.0.below(tokens + 1) as i32, draw.size(tokens) as i32];
    let start = draw.0.below(experts + 1);
    let inputs = GateInputs {
        num_tokens: draw.size(tokens),
        num_experts: draw.size(experts),
        logits: (!draw.once_in(20)).then(|| view(&z)),
        noise_logits: (!draw.once_in(20)).then(|| view(&noise)),
        selection_bias: draw.once_in(4).then_some(&bias[..]),
        token_ids: (!draw.once_in(20)).then_some(&ids[..]),
        hash_table: draw.once_in(2).then_some(&table[..]),
        sequence_offsets: (!draw.once_in(20)).then_some(&offsets[..]),
        local_experts: start..(start + 1 + draw.0.below(experts)).min(experts),
    };
    // Where they do not fit the buffers, only a router that does not ask for those goes on.
    let (tokens, experts) = (inputs.num_tokens, inputs.num_experts);
    let cpu = cpu(1);
    let mut state = GateState::default();
    if cpu.gate(&inputs, &options, &ctx, &mut state).is_err() {
        assert_same_state("untouched", &GateState::default(), &state);
        return Ok(());
    }
    state.selection.validate().unwrap();
    state.table.validate().unwrap();
    prop_assert_eq!(state.table.num_tokens(), tokens);
    prop_assert_eq!(state.table.num_experts(), experts);
    let k_max = options.router.max_experts_per_token(experts);
    for t in 0..tokens {
        prop_assert!(state.table.assignments_of(t).len() <= k_max);
    }
    if let Some(capacity) = &options.capacity {
        let limit =
            tollgate_gating::capacity::rows_per_expert(capacity, &options.router, tokens, experts);
        prop_assert!((0..experts).all(|e| state.table.count_of(e) <= limit));
    }

    let dw = draw.numbers(state.table.num_assignments());
    let (mut dz, mut dn) = (
        Guarded::<f32>::new(tokens * experts, 3),
        Guarded::<f32>::new(tokens * experts, 1),
    );
    let mut backward = |state: &GateState, dw: &[f32]| {
        let out = RowViewMut::new(dz.as_mut_slice(), tokens, experts).unwrap();
        let of_noise = RowViewMut::new(dn.as_mut_slice(), tokens, experts).unwrap();
        let result = cpu.gate_backward(&inputs, &options, &ctx, state, dw, out, Some(of_noise));
        dz.assert_canaries("dlogits");
        dn.assert_canaries("dnoise_logits");
        result
    };
    prop_assert!(backward(&state, &dw).is_ok());
    prop_assert!(backward(&state, &[dw.clone(), vec![1.0]].concat()).is_err());
    // A damaged state: an error or a result.
    for _ in 0..4 {
        let mut damaged = state.clone();
        damage(draw, &mut damaged);
        let _ = backward(&damaged, &dw);
    }
    Ok(())
}

/// One more than the experts: sometimes an index that is none.
fn draw_bound(experts: usize) -> usize {
    experts + usize::from(experts.is_multiple_of(7))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_inputs_give_an_error_or_a_valid_result(seed in any::<u64>()) {
        run(seed)?;
    }
}
