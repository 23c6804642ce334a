//! Who keeps its place when an expert is full.

use tollgate_core::RoutingTable;
use tollgate_core::options::DropOrder;

use super::select::descending;

/// One assignment that asks for a place.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    /// Position in the table.
    pub position: usize,
    pub token: usize,
    /// Place of the expert in the token's order of choice.
    pub choice: usize,
    pub weight: f64,
}

/// The claims on an expert, those that are served first in front.
pub(super) fn claims(selection: &RoutingTable<f64>, expert: usize, order: DropOrder) -> Vec<Claim> {
    let mut claims = Vec::new();
    for token in 0..selection.num_tokens() {
        for (choice, position) in selection.assignments_of(token).enumerate() {
            if selection.expert_indices[position] as usize == expert {
                let weight = selection.routing_weights[position];
                claims.push(Claim {
                    position,
                    token,
                    choice,
                    weight,
                });
            }
        }
    }
    // Both sorts are stable and the claims are in the order of tokens.
    match order {
        DropOrder::Position => claims.sort_by_key(|c| c.choice),
        // A NaN comes first.
        DropOrder::Probability => claims.sort_by(|a, b| descending(a.weight, b.weight)),
    }
    claims
}

/// `selection` without the assignments beyond `rows` an expert, and the positions in `selection`
/// of those that stay (empty if all do).
pub(super) fn limit(
    selection: &RoutingTable<f64>,
    rows: usize,
    order: DropOrder,
) -> (RoutingTable<f64>, Vec<i32>) {
    let mut stays = vec![false; selection.num_assignments()];
    for expert in 0..selection.num_experts() {
        for claim in claims(selection, expert, order).into_iter().take(rows) {
            stays[claim.position] = true;
        }
    }
    if stays.iter().all(|&s| s) {
        return (selection.clone(), Vec::new());
    }
    let mut table = RoutingTable::default();
    let mut kept = Vec::new();
    table.reset(selection.num_experts());
    for token in 0..selection.num_tokens() {
        for position in selection.assignments_of(token).filter(|&a| stays[a]) {
            table
                .expert_indices
                .push(selection.expert_indices[position]);
            table
                .routing_weights
                .push(selection.routing_weights[position]);
            kept.push(position as i32);
        }
        table.end_token();
    }
    table.finish();
    (table, kept)
}
