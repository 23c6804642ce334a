//! Combine weights of the chosen experts.

use tollgate_core::options::Weights;

use super::forward::Assignments;
use super::plan::Plan;

/// `p / of`, and 0 where there is nothing to share. Dividing by 1 changes nothing.
#[inline(always)]
pub(super) fn share(p: f32, of: f32) -> f32 {
    if of == 0.0 { 0.0 } else { p / of }
}

/// Appends the experts `chosen` with their weights: `prob` or `selected`, the options of routers
/// that take k.
#[inline(always)]
pub(super) fn write_all(plan: &Plan<'_>, chosen: &[u32], p: &[f32], out: &mut Assignments<'_>) {
    let of = match plan.weights {
        Weights::Prob => 1.0,
        Weights::Selected | Weights::Top2 => chosen.iter().map(|&e| p[e as usize]).sum(),
    };
    for &e in chosen {
        out.push(e as usize, share(p[e as usize], of) * plan.weight_scale);
    }
}
