//! The auxiliary losses of the gate, from the sums over its rows.

use tollgate_core::options::{AuxLoss, BalanceOver, GateOptions};

use super::blocks::fit;
use super::forward::Sums;
use crate::{GateState, Losses};

/// Fills `load` from the gate's own decision, and `losses`. `state.dropped` is set.
pub(super) fn run(options: &GateOptions, sums: &Sums, state: &mut GateState) {
    let (alpha, c) = (
        f64::from(options.balance_alpha),
        f64::from(options.z_coefficient),
    );
    let tokens = state.lse.len();
    state.load.clear();
    if alpha > 0.0 {
        load(options.balance_over(), state);
    }
    state.losses = Losses::default();
    if silent(options, state) || tokens == 0 {
        return;
    }
    // A faulty row takes part in every mean.
    let mean = if state.status.faulty_rows > 0 {
        f64::NAN
    } else {
        1.0 / tokens as f64
    };
    if alpha > 0.0 {
        let dot: f64 = state
            .load
            .iter()
            .zip(&sums.shares)
            .map(|(f, p)| f * p)
            .sum();
        state.losses.balance = alpha * state.load.len() as f64 * dot * mean;
    }
    if c > 0.0 {
        state.losses.z = c * sums.squares * mean;
    }
}

/// Whether this step has no auxiliary losses, by Gating Dropout.
pub(super) fn silent(options: &GateOptions, state: &GateState) -> bool {
    let zero = options
        .gating_dropout
        .is_some_and(|d| d.aux_loss == AuxLoss::Zero);
    zero && state.dropped.is_some()
}

/// f_e: every expert's share of the load.
fn load(over: BalanceOver, state: &mut GateState) {
    let (selection, load) = (&state.selection, &mut state.load);
    let experts = selection.num_experts();
    fit(load, experts);
    let total = match over {
        BalanceOver::Top1Only => {
            let mut singles = 0;
            for ends in selection.token_offsets.windows(2) {
                if ends[1] - ends[0] == 1 {
                    load[selection.expert_indices[ends[0] as usize] as usize] += 1.0;
                    singles += 1;
                }
            }
            singles
        }
        BalanceOver::FirstChoice => {
            state
                .first_choice
                .iter()
                .for_each(|&e| load[e as usize] += 1.0);
            state.first_choice.len()
        }
        BalanceOver::All => {
            for (e, load) in load.iter_mut().enumerate() {
                *load = selection.count_of(e) as f64;
            }
            selection.num_assignments()
        }
    };
    load.iter_mut().for_each(|f| *f /= total.max(1) as f64);
}
