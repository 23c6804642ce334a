//! Softmax and top-k, stable ranks, rows moved and brought back.

use half::bf16;

/// What `softmax_topk_*` writes; `T` rows.
pub struct SoftmaxTopk {
    /// `[T, E]`.
    pub probs: Vec<f64>,
    /// `[T, k]`: the probabilities of the chosen.
    pub topk_w: Vec<f64>,
    /// `[T, k]`, by descending logit, equal ones by ascending index; exact.
    pub topk_idx: Vec<u32>,
}

/// `softmax_topk_*` of `logits` `[T, E]`, finite.
pub fn softmax_topk(logits: &[f32], experts: usize, k: usize) -> SoftmaxTopk {
    let mut result = SoftmaxTopk {
        probs: Vec::new(),
        topk_w: Vec::new(),
        topk_idx: Vec::new(),
    };
    for row in logits.chunks_exact(experts) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f64> = row
            .iter()
            .map(|&x| (f64::from(x) - f64::from(max)).exp())
            .collect();
        let sum: f64 = exps.iter().sum();

        let mut order: Vec<usize> = (0..experts).collect();
        // The sort is stable: equal logits stay in ascending order. -0 and 0 are equal.
        order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).expect("finite logits"));
        for &e in &order[..k] {
            result.topk_w.push(exps[e] / sum);
            result.topk_idx.push(e as u32);
        }
        result.probs.extend(exps.iter().map(|x| x / sum));
    }
    result
}

/// Stands for no expert and no row.
pub const NONE: u32 = u32::MAX;

/// `stable_ranks` of one list: the rank of each assignment inside its expert, and the experts'
/// counts.
pub fn stable_ranks(expert_of: &[u32], experts: usize) -> (Vec<u32>, Vec<u32>) {
    let mut counts = vec![0; experts];
    let ranks = expert_of
        .iter()
        .map(|&e| match counts.get_mut(e as usize) {
            Some(count) => {
                *count += 1;
                *count - 1
            }
            None => NONE,
        })
        .collect();
    (ranks, counts)
}

/// The shape of moved rows, in elements of 16 bits.
#[derive(Debug, Clone, Copy)]
pub struct RowLayout {
    /// Elements a row.
    pub row_elems: usize,
    /// From row to row in the source.
    pub src_stride: usize,
    /// From row to row in the destination.
    pub dst_stride: usize,
}

/// `gather_rows_16b`: `dst[r] = src[row_of[r]]`, zeros for [`NONE`]; leaves the gaps as they are.
pub fn gather_rows(src: &[u16], dst: &mut [u16], row_of: &[u32], layout: RowLayout) {
    for (r, &source) in row_of.iter().enumerate() {
        let to = &mut dst[r * layout.dst_stride..][..layout.row_elems];
        if source == NONE {
            to.fill(0);
        } else {
            to.copy_from_slice(&src[source as usize * layout.src_stride..][..layout.row_elems]);
        }
    }
}

/// `scatter_rows_16b`: `dst[row_of[r]] = src[r]`, nothing for [`NONE`].
pub fn scatter_rows(src: &[u16], dst: &mut [u16], row_of: &[u32], layout: RowLayout) {
    for (r, &target) in row_of.iter().enumerate() {
        if target != NONE {
            dst[target as usize * layout.dst_stride..][..layout.row_elems]
                .copy_from_slice(&src[r * layout.src_stride..][..layout.row_elems]);
        }
    }
}

/// `unpermute_rows_bf16`, bit for bit: f32 fused multiply-adds in the order of j, then bf16.
/// `row_of` and `weights` are `[T, k]`.
pub fn unpermute_rows(
    src: &[bf16],
    dst: &mut [bf16],
    row_of: &[u32],
    weights: &[f32],
    k: usize,
    layout: RowLayout,
) {
    for (t, (rows, weights)) in row_of.chunks(k).zip(weights.chunks(k)).enumerate() {
        for i in 0..layout.row_elems {
            let mut sum = 0.0f32;
            for (&row, &weight) in rows.iter().zip(weights) {
                if row != NONE {
                    let value = src[row as usize * layout.src_stride + i].to_f32();
                    sum = weight.mul_add(value, sum);
                }
            }
            dst[t * layout.dst_stride + i] = bf16::from_f32(sum);
        }
    }
}
