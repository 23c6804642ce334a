//! Putting a routing table together from parts that were made side by side.

use tollgate_core::RoutingTable;

use super::blocks::{BLOCK_ROWS, Team, fit};

/// Moves the assignments of all blocks together: block b has its first `used[b]` at `b · reserved`,
/// and its token offsets count from there.
pub(super) fn close_gaps(table: &mut RoutingTable, used: &[usize], reserved: usize) {
    let mut end = 0;
    let ends = table.token_offsets[1..].chunks_mut(BLOCK_ROWS);
    for ((b, &used), ends) in used.iter().enumerate().zip(ends) {
        let from = b * reserved;
        if from != end {
            table.expert_indices.copy_within(from..from + used, end);
            table.routing_weights.copy_within(from..from + used, end);
        }
        ends.iter_mut().for_each(|offset| *offset += end as i32);
        end += used;
    }
    table.expert_indices.truncate(end);
    table.routing_weights.truncate(end);
}

/// Adds up `counts` `[blocks, E]` into `expert_offsets`.
pub(super) fn offsets_from_counts(table: &mut RoutingTable, experts: usize, counts: &[i32]) {
    let offsets = &mut table.expert_offsets;
    fit(offsets, experts + 1);
    offsets.fill(0);
    for block in counts.chunks_exact(experts) {
        for (offset, count) in offsets[1..].iter_mut().zip(block) {
            *offset += count;
        }
    }
    for e in 0..experts {
        offsets[e + 1] += offsets[e];
    }
}

/// Makes `to` equal to `from`, in its own memory.
pub(super) fn copy(team: Team, from: &RoutingTable, to: &mut RoutingTable) {
    fit(&mut to.token_offsets, from.token_offsets.len());
    fit(&mut to.expert_indices, from.expert_indices.len());
    fit(&mut to.routing_weights, from.routing_weights.len());
    fit(&mut to.expert_offsets, from.expert_offsets.len());
    team.copy(&from.token_offsets, &mut to.token_offsets);
    team.copy(&from.expert_indices, &mut to.expert_indices);
    team.copy(&from.routing_weights, &mut to.routing_weights);
    to.expert_offsets.copy_from_slice(&from.expert_offsets);
}
