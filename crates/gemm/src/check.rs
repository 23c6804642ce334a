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

/// Rows and columns of a matrix, wherever it lies.
pub(crate) type Dims = (usize, usize);

fn dims<T>(view: &RowView<'_, T>) -> Dims {
    (view.rows(), view.cols())
}

fn dims_mut<T>(view: &RowViewMut<'_, T>) -> Dims {
    (view.rows(), view.cols())
}

/// The shape of stacked matrices, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) struct StackedShape {
    /// Elements of the data.
    pub len: usize,
    pub experts: usize,
    pub n: usize,
    pub k: usize,
}

impl StackedShape {
    /// The data must have exactly `E·N·K` elements.
    fn check(&self) -> Result<()> {
        let expected = product3("elements of B (E·N·K)", self.experts, self.n, self.k)?;
        Error::check_shape("elements of B (E·N·K)", self.len, expected)
    }
}

fn stacked<T>(b: &Stacked<'_, T>) -> StackedShape {
    StackedShape {
        len: b.data.len(),
        experts: b.experts,
        n: b.n,
        k: b.k,
    }
}

/// Arguments of [`crate::GroupedGemm::m_grouped`].
pub(crate) fn m_grouped<A, B, D>(
    a: &RowView<'_, A>,
    b: &Stacked<'_, B>,
    bias: Option<&[B]>,
    group_offsets: &[i32],
    d: &RowViewMut<'_, D>,
) -> Result<()> {
    m_grouped_shapes(dims(a), stacked(b), bias.map(<[B]>::len), dims_mut(d))?;
    offsets(group_offsets, b.experts, a.rows())
}

/// The shapes of these arguments; `bias` is its length.
pub(crate) fn m_grouped_shapes(
    a: Dims,
    b: StackedShape,
    bias: Option<usize>,
    d: Dims,
) -> Result<()> {
    b.check()?;
    Error::check_shape("columns of A (K)", a.1, b.k)?;
    Error::check_shape("columns of D (N)", d.1, b.n)?;
    Error::check_shape("rows of D (M)", d.0, a.0)?;
    bias.map_or(Ok(()), |len| {
        let expected = Error::checked_product("elements of bias (E·N)", b.experts, b.n, LIMIT)?;
        Error::check_shape("elements of bias (E·N)", len, expected)
    })
}

/// Arguments of [`crate::GroupedGemm::m_grouped_transposed`].
pub(crate) fn m_grouped_transposed<A, B, D>(
    a: &RowView<'_, A>,
    b: &Stacked<'_, B>,
    group_offsets: &[i32],
    d: &RowViewMut<'_, D>,
) -> Result<()> {
    m_grouped_transposed_shapes(dims(a), stacked(b), dims_mut(d))?;
    offsets(group_offsets, b.experts, a.rows())
}

/// The shapes of these arguments.
pub(crate) fn m_grouped_transposed_shapes(a: Dims, b: StackedShape, d: Dims) -> Result<()> {
    b.check()?;
    Error::check_shape("columns of A (N)", a.1, b.n)?;
    Error::check_shape("columns of D (K)", d.1, b.k)?;
    Error::check_shape("rows of D (M)", d.0, a.0)
}

/// Arguments of [`crate::GroupedGemm::k_grouped`].
pub(crate) fn k_grouped<A, X>(
    a: &RowView<'_, A>,
    x: &RowView<'_, X>,
    group_offsets: &[i32],
    w: &[f32],
) -> Result<()> {
    // An empty array has no E; `offsets` names that.
    let experts = group_offsets.len().saturating_sub(1);
    offsets(group_offsets, experts, a.rows())?;
    k_grouped_shapes(dims(a), dims(x), experts, w.len())
}

/// The shapes of these arguments; `w` is its length.
pub(crate) fn k_grouped_shapes(a: Dims, x: Dims, experts: usize, w: usize) -> Result<()> {
    Error::check_shape("rows of X (M)", x.0, a.0)?;
    let expected = product3("elements of W (E·N·K)", experts, a.1, x.1)?;
    Error::check_shape("elements of W (E·N·K)", w, expected)
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

/// The lengths of one map's weights and bias, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) struct MapLens {
    pub weights: usize,
    pub bias: Option<usize>,
}

impl MapLens {
    /// The up map of weights in host memory.
    fn up<T>(weights: &ExpertWeights<'_, T>) -> Self {
        Self {
            weights: weights.up.len(),
            bias: weights.up_bias.map(<[T]>::len),
        }
    }

    /// The down map.
    fn down<T>(weights: &ExpertWeights<'_, T>) -> Self {
        Self {
            weights: weights.down.len(),
            bias: weights.down_bias.map(<[T]>::len),
        }
    }
}

impl Sizes {
    fn check_up(&self, map: MapLens) -> Result<()> {
        Error::check_shape("elements of up (E·N1·H)", map.weights, self.up)?;
        map.bias.map_or(Ok(()), |len| {
            Error::check_shape("elements of up_bias (E·N1)", len, self.up_bias)
        })
    }

    fn check_down(&self, map: MapLens) -> Result<()> {
        Error::check_shape("elements of down (E·H·I)", map.weights, self.down)?;
        map.bias.map_or(Ok(()), |len| {
            Error::check_shape("elements of down_bias (E·H)", len, self.down_bias)
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
    up_shapes(
        shape,
        MapLens::up(weights),
        dims(x),
        dims_mut(pre),
        dims_mut(act),
    )?;
    offsets(group_offsets, shape.experts, x.rows())
}

/// The shapes of these arguments.
pub(crate) fn up_shapes(
    shape: &ExpertShape,
    map: MapLens,
    x: Dims,
    pre: Dims,
    act: Dims,
) -> Result<()> {
    let sizes = sizes(shape)?;
    sizes.check_up(map)?;
    let (a, h, i) = (x.0, shape.hidden, shape.intermediate);
    Error::check_shape("columns of x (H)", x.1, h)?;
    let pre_names = ("rows of pre (A)", "columns of pre (N1)");
    matrix(pre_names, pre, (a, sizes.up_rows))?;
    matrix(("rows of act (A)", "columns of act (I)"), act, (a, i))
}

/// Arguments of [`crate::Experts::down`].
pub(crate) fn down<T>(
    shape: &ExpertShape,
    weights: &ExpertWeights<'_, T>,
    act: &RowView<'_, T>,
    group_offsets: &[i32],
    y: &RowViewMut<'_, T>,
) -> Result<()> {
    down_shapes(shape, MapLens::down(weights), dims(act), dims_mut(y))?;
    offsets(group_offsets, shape.experts, act.rows())
}

/// The shapes of these arguments.
pub(crate) fn down_shapes(shape: &ExpertShape, map: MapLens, act: Dims, y: Dims) -> Result<()> {
    sizes(shape)?.check_down(map)?;
    Error::check_shape("columns of act (I)", act.1, shape.intermediate)?;
    matrix(
        ("rows of y (A)", "columns of y (H)"),
        y,
        (act.0, shape.hidden),
    )
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
    let gradient = MapLens {
        weights: grads.down.len(),
        bias: grads.down_bias.as_ref().map(|g| g.len()),
    };
    down_backward_shapes(
        shape,
        MapLens::down(weights),
        dims(pre),
        dims(act),
        dims(dy),
        dims_mut(dpre),
        gradient,
    )?;
    offsets(group_offsets, shape.experts, dy.rows())
}

/// The shapes of these arguments.
pub(crate) fn down_backward_shapes(
    shape: &ExpertShape,
    map: MapLens,
    pre: Dims,
    act: Dims,
    dy: Dims,
    dpre: Dims,
    gradient: MapLens,
) -> Result<()> {
    let sizes = sizes(shape)?;
    sizes.check_down(map)?;
    let (a, h, i) = (dy.0, shape.hidden, shape.intermediate);
    Error::check_shape("columns of dy (H)", dy.1, h)?;
    let pre_names = ("rows of pre (A)", "columns of pre (N1)");
    matrix(pre_names, pre, (a, sizes.up_rows))?;
    matrix(("rows of act (A)", "columns of act (I)"), act, (a, i))?;
    let dpre_names = ("rows of dpre (A)", "columns of dpre (N1)");
    matrix(dpre_names, dpre, (a, sizes.up_rows))?;
    Error::check_shape(
        "elements of the gradient of down (E·H·I)",
        gradient.weights,
        sizes.down,
    )?;
    bias_gradient(
        "the gradient of down_bias",
        "elements of the gradient of down_bias (E·H)",
        map.bias.is_some(),
        gradient.bias,
        sizes.down_bias,
    )
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
    let gradient = MapLens {
        weights: grads.up.len(),
        bias: grads.up_bias.as_ref().map(|g| g.len()),
    };
    up_backward_shapes(
        shape,
        MapLens::up(weights),
        dims(x),
        dims(dpre),
        dims_mut(dx),
        gradient,
    )?;
    offsets(group_offsets, shape.experts, x.rows())
}

/// The shapes of these arguments.
pub(crate) fn up_backward_shapes(
    shape: &ExpertShape,
    map: MapLens,
    x: Dims,
    dpre: Dims,
    dx: Dims,
    gradient: MapLens,
) -> Result<()> {
    let sizes = sizes(shape)?;
    sizes.check_up(map)?;
    let (a, h) = (x.0, shape.hidden);
    Error::check_shape("columns of x (H)", x.1, h)?;
    let dpre_names = ("rows of dpre (A)", "columns of dpre (N1)");
    matrix(dpre_names, dpre, (a, sizes.up_rows))?;
    matrix(("rows of dx (A)", "columns of dx (H)"), dx, (a, h))?;
    Error::check_shape(
        "elements of the gradient of up (E·N1·H)",
        gradient.weights,
        sizes.up,
    )?;
    bias_gradient(
        "the gradient of up_bias",
        "elements of the gradient of up_bias (E·N1)",
        map.bias.is_some(),
        gradient.bias,
        sizes.up_bias,
    )
}
