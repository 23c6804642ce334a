//! Argument checks shared by every implementation: all of them run before anything is written.

use tollgate_core::{Error, Result, RowView, RowViewMut};

use crate::{ExpertGrads, ExpertShape, ExpertWeights, Stacked};

/// The largest element count of a buffer.
const LIMIT: usize = isize::MAX as usize;

/// `offsets` `[experts+1]` must be exclusive prefix sums from 0 to `rows`.
pub(crate) fn offsets(offsets: &[i32], experts: usize, rows: usize) -> Result<()> {
    // An empty array has no E; `check_offsets` names that.
    if let Some(groups) = offsets.len().checked_sub(1) {
        Error::check_shape("entries of offsets less one (E)", groups, experts)?;
    }
    Error::check_offsets("offsets", offsets, rows)
}

/// `a · b · c`, or an overflow error.
fn product3(what: &'static str, a: usize, b: usize, c: usize) -> Result<usize> {
    let ab = Error::checked_product(what, a, b, LIMIT)?;
    Error::checked_product(what, ab, c, LIMIT)
}

/// The data of stacked matrices must have exactly `E·N·K` elements.
fn stacked<T>(b: &Stacked<'_, T>) -> Result<()> {
    let expected = product3("elements of B (E·N·K)", b.experts, b.n, b.k)?;
    Error::check_shape("elements of B (E·N·K)", b.data.len(), expected)
}

/// Arguments of [`crate::GroupedGemm::m_grouped`].
pub(crate) fn m_grouped<A, B, D>(
    a: &RowView<'_, A>,
    b: &Stacked<'_, B>,
    bias: Option<&[B]>,
    group_offsets: &[i32],
    d: &RowViewMut<'_, D>,
) -> Result<()> {
    stacked(b)?;
    Error::check_shape("columns of A (K)", a.cols(), b.k)?;
    Error::check_shape("columns of D (N)", d.cols(), b.n)?;
    Error::check_shape("rows of D (M)", d.rows(), a.rows())?;
    if let Some(bias) = bias {
        let expected = Error::checked_product("elements of bias (E·N)", b.experts, b.n, LIMIT)?;
        Error::check_shape("elements of bias (E·N)", bias.len(), expected)?;
    }
    offsets(group_offsets, b.experts, a.rows())
}

/// Arguments of [`crate::GroupedGemm::m_grouped_transposed`].
pub(crate) fn m_grouped_transposed<A, B, D>(
    a: &RowView<'_, A>,
    b: &Stacked<'_, B>,
    group_offsets: &[i32],
    d: &RowViewMut<'_, D>,
) -> Result<()> {
    stacked(b)?;
    Error::check_shape("columns of A (N)", a.cols(), b.n)?;
    Error::check_shape("columns of D (K)", d.cols(), b.k)?;
    Error::check_shape("rows of D (M)", d.rows(), a.rows())?;
    offsets(group_offsets, b.experts, a.rows())
}

/// Arguments of [`crate::GroupedGemm::k_grouped`].
pub(crate) fn k_grouped<A, X>(
    a: &RowView<'_, A>,
    x: &RowView<'_, X>,
    group_offsets: &[i32],
    w: &[f32],
) -> Result<()> {
    Error::check_shape("rows of X (M)", x.rows(), a.rows())?;
    // An empty array has no E; `offsets` names that.
    let experts = group_offsets.len().saturating_sub(1);
    offsets(group_offsets, experts, a.rows())?;
    let expected = product3("elements of W (E·N·K)", experts, a.cols(), x.cols())?;
    Error::check_shape("elements of W (E·N·K)", w.len(), expected)
}

/// The element counts that an [`ExpertShape`] implies.
struct Sizes {
    up_rows: usize,
    up: usize,
    up_bias: usize,
    down: usize,
    down_bias: usize,
}

fn sizes(shape: &ExpertShape) -> Result<Sizes> {
    let ExpertShape {
        experts: e,
        hidden: h,
        intermediate: i,
        ..
    } = *shape;
    // `up_rows()` itself must not overflow.
    Error::checked_product("rows of the up map (2·I)", 2, i, LIMIT)?;
    let n1 = shape.up_rows();
    Ok(Sizes {
        up_rows: n1,
        up: product3("elements of up (E·N1·H)", e, n1, h)?,
        up_bias: Error::checked_product("elements of up_bias (E·N1)", e, n1, LIMIT)?,
        down: product3("elements of down (E·H·I)", e, h, i)?,
        down_bias: Error::checked_product("elements of down_bias (E·H)", e, h, LIMIT)?,
    })
}

impl Sizes {
    fn check_up<T>(&self, weights: &ExpertWeights<'_, T>) -> Result<()> {
        Error::check_shape("elements of up (E·N1·H)", weights.up.len(), self.up)?;
        weights.up_bias.map_or(Ok(()), |bias| {
            Error::check_shape("elements of up_bias (E·N1)", bias.len(), self.up_bias)
        })
    }

    fn check_down<T>(&self, weights: &ExpertWeights<'_, T>) -> Result<()> {
        Error::check_shape("elements of down (E·H·I)", weights.down.len(), self.down)?;
        weights.down_bias.map_or(Ok(()), |bias| {
            Error::check_shape("elements of down_bias (E·H)", bias.len(), self.down_bias)
        })
    }
}

/// A bias gradient of `expected` elements exactly when there is a bias.
fn bias_gradient(
    gradient: &'static str,
    length: &'static str,
    has_bias: bool,
    given: Option<usize>,
    expected: usize,
) -> Result<()> {
    match (has_bias, given) {
        (true, None) => Err(Error::Missing {
            what: gradient,
            because: "the bias".to_owned(),
        }),
        (false, Some(_)) => Err(Error::Incompatible {
            what: gradient.to_owned(),
            with: "experts without that bias".to_owned(),
            reason: "there is nothing to differentiate; pass no gradient buffer",
        }),
        (true, Some(actual)) => Error::check_shape(length, actual, expected),
        (false, None) => Ok(()),
    }
}

/// A matrix of `A` rows: `(rows, cols)` against `(expected rows, expected columns)`.
fn matrix(
    what: (&'static str, &'static str),
    actual: (usize, usize),
    expected: (usize, usize),
) -> Result<()> {
    Error::check_shape(what.0, actual.0, expected.0)?;
    Error::check_shape(what.1, actual.1, expected.1)
}

/// Arguments of [`crate::Experts::up`].
pub(crate) fn up<T>(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, T>,
    x: &RowView<'_, T>,
    group_offsets: &[i32],
    pre: &RowViewMut<'_, T>,
    act: &RowViewMut<'_, T>,
) -> Result<()> {
    let sizes = sizes(shape)?;
    sizes.check_up(weights)?;
    let (a, h, i) = (x.rows(), shape.hidden, shape.intermediate);
    Error::check_shape("columns of x (H)", x.cols(), h)?;
    let pre_names = ("rows of pre (A)", "columns of pre (N1)");
    matrix(pre_names, (pre.rows(), pre.cols()), (a, sizes.up_rows))?;
    let act_names = ("rows of act (A)", "columns of act (I)");
    matrix(act_names, (act.rows(), act.cols()), (a, i))?;
    offsets(group_offsets, shape.experts, a)
}

/// Arguments of [`crate::Experts::down`].
pub(crate) fn down<T>(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, T>,
    act: &RowView<'_, T>,
    group_offsets: &[i32],
    y: &RowViewMut<'_, T>,
) -> Result<()> {
    sizes(shape)?.check_down(weights)?;
    let a = act.rows();
    Error::check_shape("columns of act (I)", act.cols(), shape.intermediate)?;
    let y_names = ("rows of y (A)", "columns of y (H)");
    matrix(y_names, (y.rows(), y.cols()), (a, shape.hidden))?;
    offsets(group_offsets, shape.experts, a)
}

/// Arguments of [`crate::Experts::down_backward`]; of the gradients only `down` and `down_bias`,
/// which it writes.
pub(crate) fn down_backward<T>(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, T>,
    pre: &RowView<'_, T>,
    act: &RowView<'_, T>,
    dy: &RowView<'_, T>,
    group_offsets: &[i32],
    dpre: &RowViewMut<'_, T>,
    grads: &ExpertGrads<'_>,
) -> Result<()> {
    let sizes = sizes(shape)?;
    sizes.check_down(weights)?;
    let (a, h, i) = (dy.rows(), shape.hidden, shape.intermediate);
    Error::check_shape("columns of dy (H)", dy.cols(), h)?;
    let pre_names = ("rows of pre (A)", "columns of pre (N1)");
    matrix(pre_names, (pre.rows(), pre.cols()), (a, sizes.up_rows))?;
    let act_names = ("rows of act (A)", "columns of act (I)");
    matrix(act_names, (act.rows(), act.cols()), (a, i))?;
    let dpre_names = ("rows of dpre (A)", "columns of dpre (N1)");
    matrix(dpre_names, (dpre.rows(), dpre.cols()), (a, sizes.up_rows))?;
    Error::check_shape(
        "elements of the gradient of down (E·H·I)",
        grads.down.len(),
        sizes.down,
    )?;
    bias_gradient(
        "the gradient of down_bias",
        "elements of the gradient of down_bias (E·H)",
        weights.down_bias.is_some(),
        grads.down_bias.as_ref().map(|g| g.len()),
        sizes.down_bias,
    )?;
    offsets(group_offsets, shape.experts, a)
}

/// Arguments of [`crate::Experts::up_backward`]; of the gradients only `up` and `up_bias`, which
/// it writes.
pub(crate) fn up_backward<T>(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, T>,
    x: &RowView<'_, T>,
    dpre: &RowView<'_, T>,
    group_offsets: &[i32],
    dx: &RowViewMut<'_, T>,
    grads: &ExpertGrads<'_>,
) -> Result<()> {
    let sizes = sizes(shape)?;
    sizes.check_up(weights)?;
    let (a, h) = (x.rows(), shape.hidden);
    Error::check_shape("columns of x (H)", x.cols(), h)?;
    let dpre_names = ("rows of dpre (A)", "columns of dpre (N1)");
    matrix(dpre_names, (dpre.rows(), dpre.cols()), (a, sizes.up_rows))?;
    let dx_names = ("rows of dx (A)", "columns of dx (H)");
    matrix(dx_names, (dx.rows(), dx.cols()), (a, h))?;
    Error::check_shape(
        "elements of the gradient of up (E·N1·H)",
        grads.up.len(),
        sizes.up,
    )?;
    bias_gradient(
        "the gradient of up_bias",
        "elements of the gradient of up_bias (E·N1)",
        weights.up_bias.is_some(),
        grads.up_bias.as_ref().map(|g| g.len()),
        sizes.up_bias,
    )?;
    offsets(group_offsets, shape.experts, a)
}
