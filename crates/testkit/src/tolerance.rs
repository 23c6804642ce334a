//! Comparisons in which a NaN fails, with tolerances derived from the arithmetic.

use std::fmt;

use tollgate_core::DType;

/// How far a computed value may lie from the exact one: `|actual − exact| ≤ bound`, where the bound
/// of an element is `absolute + relative · magnitude`.
///
/// `magnitude` is what rounding errors scale with. For a sum that is the sum of the magnitudes of
/// its terms, not the magnitude of the result, which may cancel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative to the magnitude.
    pub relative: f64,
    /// A floor, for results near zero.
    pub absolute: f64,
}

impl Tolerance {
    /// Bitwise: zero on both counts.
    pub const EXACT: Self = Self {
        relative: 0.0,
        absolute: 0.0,
    };

    /// One rounding to `dtype`, nothing else: half a unit in the last place, and the spacing of
    /// subnormals as the floor.
    pub fn rounding(dtype: DType) -> Self {
        let u = dtype.unit_roundoff();
        Self {
            relative: u,
            absolute: u * dtype.min_positive_normal(),
        }
    }

    /// A sum of `terms` products accumulated in f32 in any order, then rounded to `dtype`.
    ///
    /// Each of the `terms` additions and multiplications errs by at most one part in 2^24 of the
    /// sum of magnitudes, so `(terms + 2) · 2^-24` bounds the sum (Higham, Accuracy and Stability,
    /// §3.1, to first order); the store adds one rounding of `dtype`.
    pub fn dot(terms: usize, dtype: DType) -> Self {
        let accumulate = (terms as f64 + 2.0) * DType::F32.unit_roundoff();
        Self {
            relative: accumulate + dtype.unit_roundoff(),
            absolute: dtype.min_positive_normal(),
        }
    }

    /// A tolerance with only a relative part (and the smallest normal f32 as the floor).
    pub fn relative(relative: f64) -> Self {
        Self {
            relative,
            absolute: f64::from(f32::MIN_POSITIVE),
        }
    }

    /// The sums of both bounds: for a result that passes through two stages, each with its error.
    pub fn plus(self, other: Self) -> Self {
        Self {
            relative: self.relative + other.relative,
            absolute: self.absolute + other.absolute,
        }
    }

    /// The bound for an element of a magnitude.
    pub fn bound(&self, magnitude: f64) -> f64 {
        self.absolute + self.relative * magnitude
    }
}

/// The worst element of a failed comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Position of the element.
    pub position: usize,
    /// What was computed.
    pub actual: f64,
    /// What the reference says.
    pub expected: f64,
    /// How far apart they may be.
    pub bound: f64,
    /// How many elements are out of bounds.
    pub count: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "element {}: {} differs from the reference {} by {:e}, allowed {:e} ({} such elements)",
            self.position,
            self.actual,
            self.expected,
            (self.actual - self.expected).abs(),
            self.bound,
            self.count
        )
    }
}

/// Compares element by element; `magnitude[i]` scales the relative part (pass the expected values'
/// magnitudes where the result does not cancel). Two NaNs are equal, two equal infinities as well;
/// a NaN on one side is a mismatch.
///
/// # Errors
/// The element that exceeds its bound by the largest factor. Panics if the lengths differ.
#[track_caller]
pub fn compare(
    actual: impl IntoIterator<Item = f64>,
    expected: &[f64],
    magnitude: &[f64],
    tolerance: Tolerance,
) -> Result<(), Mismatch> {
    let actual: Vec<f64> = actual.into_iter().collect();
    assert_eq!(actual.len(), expected.len(), "lengths differ");
    assert_eq!(magnitude.len(), expected.len(), "one magnitude an element");
    let mut worst: Option<(f64, Mismatch)> = None;
    let mut count = 0;
    for (position, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let bound = tolerance.bound(magnitude[position].abs());
        let same = a == e || (a.is_nan() && e.is_nan());
        let difference = (a - e).abs();
        // Written so that a NaN difference is not within the bound.
        if same || difference <= bound {
            continue;
        }
        count += 1;
        let excess = if difference.is_nan() {
            f64::INFINITY
        } else {
            difference / bound
        };
        if worst.as_ref().is_none_or(|(w, _)| excess > *w) {
            let m = Mismatch {
                position,
                actual: a,
                expected: e,
                bound,
                count: 0,
            };
            worst = Some((excess, m));
        }
    }
    match worst {
        None => Ok(()),
        Some((_, mismatch)) => Err(Mismatch { count, ..mismatch }),
    }
}

/// [`compare`] with the expected values as magnitudes; panics with `what` on a mismatch.
#[track_caller]
pub fn assert_close(
    what: &str,
    actual: impl IntoIterator<Item = f64>,
    expected: &[f64],
    tolerance: Tolerance,
) {
    if let Err(mismatch) = compare(actual, expected, expected, tolerance) {
        panic!("{what}: {mismatch}");
    }
}

/// Panics unless both slices have the same bits (so NaN equals the same NaN, and 0 is not −0).
#[track_caller]
pub fn assert_same<T: bytemuck::Pod + fmt::Debug>(what: &str, a: &[T], b: &[T]) {
    assert_eq!(a.len(), b.len(), "{what}: lengths differ");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!(
            bytemuck::bytes_of(x) == bytemuck::bytes_of(y),
            "{what}: element {i}: {x:?} and {y:?} differ in their bits"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_on_one_side_fails() {
        let t = Tolerance::relative(1e9);
        assert!(compare([f64::NAN], &[1.0], &[1.0], t).is_err());
        assert!(compare([1.0], &[f64::NAN], &[1.0], t).is_err());
        assert!(compare([f64::NAN], &[f64::NAN], &[1.0], t).is_ok());
        assert!(compare([f64::INFINITY], &[f64::INFINITY], &[1.0], Tolerance::EXACT).is_ok());
        assert!(compare([f64::INFINITY], &[1.0], &[1.0], t).is_err());
    }

    #[test]
    fn the_worst_element_is_named() {
        let e = compare(
            [1.0, 2.5, 3.1],
            &[1.0, 2.0, 3.0],
            &[1.0; 3],
            Tolerance::relative(0.01),
        )
        .unwrap_err();
        assert_eq!((e.position, e.count), (1, 2));
    }
}
