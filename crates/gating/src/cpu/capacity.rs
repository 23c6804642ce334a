//! The limit on rows per expert: who keeps its place.

use tollgate_core::RoutingTable;
use tollgate_core::options::DropOrder;

use super::blocks::{Team, fit};
use super::table;
use crate::GateState;

/// Fills `table` and `kept` from `selection`: at most `rows` assignments an expert.
pub(super) fn limit(team: Team, rows: usize, order: DropOrder, state: &mut GateState) {
    let GateState {
        selection,
        table,
        kept,
        ..
    } = state;
    kept.clear();
    let full = (0..selection.num_experts()).any(|e| selection.count_of(e) > rows);
    if !full {
        return table::copy(team, selection, table);
    }
    let stays = match order {
        DropOrder::Position => by_position(selection, rows),
        DropOrder::Probability => by_probability(selection, rows),
    };
    table.reset(selection.num_experts());
    for t in 0..selection.num_tokens() {
        for a in selection.assignments_of(t) {
            if stays[a] {
                table.expert_indices.push(selection.expert_indices[a]);
                table.routing_weights.push(selection.routing_weights[a]);
                kept.push(a as i32);
            }
        }
        table.end_token();
    }
    table.finish();
}

/// All first choices in the order of tokens, then all second ones, and so on (GShard).
fn by_position(selection: &RoutingTable, rows: usize) -> Vec<bool> {
    let mut stays = vec![false; selection.num_assignments()];
    let mut taken = vec![0usize; selection.num_experts()];
    // Tokens that still have a choice to be served; with one round a choice the work is O(A).
    let mut waiting: Vec<u32> = (0..selection.num_tokens() as u32).collect();
    let mut choice = 0;
    while !waiting.is_empty() {
        waiting.retain(|&t| {
            let assignments = selection.assignments_of(t as usize);
            let Some(a) = assignments.clone().nth(choice) else {
                return false;
            };
            let taken = &mut taken[selection.expert_indices[a] as usize];
            stays[a] = *taken < rows;
            *taken += 1;
            choice + 1 < assignments.len()
        });
        choice += 1;
    }
    stays
}

/// Larger weight first (a NaN before all), then the earlier token.
fn by_probability(selection: &RoutingTable, rows: usize) -> Vec<bool> {
    let mut stays = vec![false; selection.num_assignments()];
    // The assignments of every expert, in the order of tokens.
    let mut next: Vec<i32> = selection.expert_offsets.clone();
    let mut claims = Vec::new();
    fit(&mut claims, selection.num_assignments());
    for (a, &e) in selection.expert_indices.iter().enumerate() {
        let at = &mut next[e as usize];
        claims[*at as usize] = a as u32;
        *at += 1;
    }
    let weight = |a: u32| selection.routing_weights[a as usize];
    for e in 0..selection.num_experts() {
        let range = selection.expert_offsets[e] as usize..selection.expert_offsets[e + 1] as usize;
        let claims = &mut claims[range];
        // An expert is at most once in a token, so that positions stand for tokens.
        let before = |&a: &u32, &b: &u32| {
            let (x, y) = (weight(a), weight(b));
            let faulty_first = y.is_nan().cmp(&x.is_nan());
            faulty_first
                .then(y.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Equal))
                .then(a.cmp(&b))
        };
        if rows > 0 && rows < claims.len() {
            claims.select_nth_unstable_by(rows - 1, before);
        }
        let kept = rows.min(claims.len());
        claims[..kept]
            .iter()
            .for_each(|&a| stays[a as usize] = true);
    }
    stays
}
