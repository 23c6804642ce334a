//! Selection limited to the best groups of experts (DeepSeek-V3).

use pulp::Simd;

use super::search::{LANES, TopK, best_two};

/// The router's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub k: usize,
    pub groups: usize,
    pub top_groups: usize,
    pub experts: usize,
}

/// Memory of [`find`], reused from row to row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The best values of the group at hand, best first.
    values: Vec<f32>,
    /// Merit and index of every group; then those that may be chosen from, ascending.
    groups: Vec<(f64, usize)>,
    /// `[E]` score plus bias, −∞ where masked.
    rank: Vec<f32>,
    /// The ranks of the chosen groups side by side, padded.
    candidates: Vec<f32>,
    top: TopK,
    found: Vec<u32>,
}

/// The k best experts of the best groups, best first. `z` and `p` are the logits and scores of a
/// row that is not faulty.
///
/// A group's merit is the sum, best first, of its best `ceil(k / top_groups)` scores plus bias, a
/// masked expert counting −∞. It is summed in f64, where no finite biases overflow.
#[inline(always)]
pub(super) fn find<'a, S: Simd>(
    simd: S,
    shape: Shape,
    z: &[f32],
    p: &[f32],
    bias: Option<&[f32]>,
    scratch: &'a mut Scratch,
) -> &'a [u32] {
    let Shape {
        k,
        groups,
        top_groups,
        experts,
    } = shape;
    let size = experts / groups;
    let places = k.div_ceil(top_groups);
    // What groups are compared by; experts only with a bias, else by logit, which has their order.
    scratch.rank.resize(experts, 0.0);
    for e in 0..experts {
        let value = p[e] + bias.map_or(0.0, |bias| bias[e]);
        scratch.rank[e] = if z[e] == f32::NEG_INFINITY {
            z[e]
        } else {
            value
        };
    }
    scratch.groups.clear();
    for (g, values) in scratch.rank.chunks_exact(size).enumerate() {
        let merit = if places == 2 && size.is_multiple_of(LANES) {
            // The shape of DeepSeek-V3, without a loop over the places.
            let best = best_two(simd, values);
            f64::from(best.first_value) + f64::from(best.second_value)
        } else {
            best_values(values, places, &mut scratch.values);
            scratch.values.iter().map(|&value| f64::from(value)).sum()
        };
        scratch.groups.push((merit, g));
    }
    // Larger merit first; the sort is stable, so that ties go to the lower group.
    scratch.groups.sort_by(|a, b| b.0.total_cmp(&a.0));
    scratch.groups.truncate(top_groups);
    scratch.groups.sort_unstable_by_key(|&(_, g)| g);

    let rank = if bias.is_some() { &scratch.rank[..] } else { z };
    let candidates = top_groups * size;
    scratch.candidates.clear();
    for &(_, g) in &scratch.groups {
        let members = &rank[g * size..(g + 1) * size];
        scratch.candidates.extend_from_slice(members);
    }
    scratch
        .candidates
        .resize(candidates.next_multiple_of(LANES), f32::NEG_INFINITY);
    let found = scratch.top.find(simd, &scratch.candidates, candidates, k);
    scratch.found.clear();
    for &candidate in found {
        let (group, place) = (candidate as usize / size, candidate as usize % size);
        scratch
            .found
            .push((scratch.groups[group].1 * size + place) as u32);
    }
    &scratch.found
}

/// The largest `places` values, best first.
fn best_values(values: &[f32], places: usize, best: &mut Vec<f32>) {
    best.clear();
    best.resize(places, f32::NEG_INFINITY);
    for &value in values {
        // Every place keeps the larger and hands the smaller on.
        let mut value = value;
        for place in best.iter_mut() {
            let smaller = if value > *place { *place } else { value };
            *place = if value > *place { value } else { *place };
            value = smaller;
        }
    }
}
