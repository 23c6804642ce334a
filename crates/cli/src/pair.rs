//! `--pair`: the two passes over a batch that stochastic experts make (THOR), and the loss that
//! keeps them together.

use tollgate::gating::losses::consistency;
use tollgate::{Element, Router, RoutingTable, RowView, RowViewMut, StepContext};

use crate::engine::Engine;
use crate::error::{Failure, Result};
use crate::step::Problem;

/// Coefficient of the consistency loss in the paper.
pub const ALPHA: f32 = 5.0;

/// The second pass, and how far it is from the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<T> {
    /// The experts of the second pass.
    pub table: RoutingTable,
    /// `[T, H]`, its output.
    pub y: Vec<T>,
    /// α ½ Σ (p − q)(log p − log q), with the outputs of both passes as logits.
    pub consistency: f64,
}

/// Whether a pair makes sense.
///
/// # Errors
/// A router that does not draw its experts, or inference, which has one pass.
pub fn check(router: &Router, inference: bool) -> Result<()> {
    if !matches!(router, Router::Stochastic { .. }) {
        return Err(Failure::Usage(format!(
            "--pair runs the two passes of stochastic experts, but the router is {router}; use it \
             with --router thor, thor:sentence or thor:token"
        )));
    }
    if inference {
        return Err(Failure::Usage(
            "--pair belongs to training, where each of two passes draws; leave out --inference"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Runs pass 1 of the step whose pass 0 gave `y`.
///
/// # Errors
/// What the layer refuses.
pub fn second_pass<T: Element>(
    problem: &Problem<'_, T>,
    engine: &mut Engine<T>,
    first: &StepContext,
    y: &[T],
) -> Result<Pair<T>> {
    let (t, h) = (problem.tokens.count, problem.tokens.hidden);
    let ctx = StepContext { pass: 1, ..*first };
    let (table, second) = engine.aside(problem, &ctx)?;
    let wide = |values: &[T]| {
        let mut wide = vec![0.0; values.len()];
        T::widen(values, &mut wide);
        wide
    };
    let (a, b) = (wide(y), wide(&second));
    let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    let consistency = consistency(
        problem.layer.device(),
        RowView::new(&a, t, h)?,
        RowView::new(&b, t, h)?,
        None,
        ALPHA,
        RowViewMut::new(&mut da, t, h)?,
        RowViewMut::new(&mut db, t, h)?,
    )?;
    Ok(Pair {
        table,
        y: second,
        consistency,
    })
}
