//! Inputs of the fast implementations, widened for the reference.

use tollgate_core::RowView;

use crate::GateInputs;

/// A matrix of f64.
#[derive(Debug, Clone)]
struct Matrix {
    data: Vec<f64>,
    rows: usize,
    cols: usize,
}

impl Matrix {
    fn new(view: &RowView<'_, f32>) -> Self {
        let data = view.iter().flatten().map(|&v| f64::from(v)).collect();
        Self {
            data,
            rows: view.rows(),
            cols: view.cols(),
        }
    }

    fn view(&self) -> Option<RowView<'_, f64>> {
        // The vector has exactly rows · cols elements, so there always is a view.
        RowView::new(&self.data, self.rows, self.cols).ok()
    }
}

/// f32 inputs as exact f64 copies, so that the reference can run on what an implementation got.
#[derive(Debug, Clone)]
pub struct Widened<'a> {
    source: GateInputs<'a>,
    logits: Option<Matrix>,
    noise_logits: Option<Matrix>,
    selection_bias: Option<Vec<f64>>,
}

impl<'a> Widened<'a> {
    /// Copies the numbers of `inputs`; integers stay borrowed.
    pub fn new(inputs: &GateInputs<'a>) -> Self {
        let widen = |bias: &[f32]| bias.iter().map(|&b| f64::from(b)).collect();
        Self {
            logits: inputs.logits.as_ref().map(Matrix::new),
            noise_logits: inputs.noise_logits.as_ref().map(Matrix::new),
            selection_bias: inputs.selection_bias.map(widen),
            source: inputs.clone(),
        }
    }

    /// The inputs for [`super::gate`](fn@super::gate).
    pub fn inputs(&self) -> GateInputs<'_, f64> {
        GateInputs {
            num_tokens: self.source.num_tokens,
            num_experts: self.source.num_experts,
            logits: self.logits.as_ref().and_then(Matrix::view),
            noise_logits: self.noise_logits.as_ref().and_then(Matrix::view),
            selection_bias: self.selection_bias.as_deref(),
            token_ids: self.source.token_ids,
            hash_table: self.source.hash_table,
            sequence_offsets: self.source.sequence_offsets,
            local_experts: self.source.local_experts.clone(),
        }
    }
}
