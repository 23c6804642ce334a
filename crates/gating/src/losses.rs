//! The consistency loss of stochastic experts (Zuo et al., ICLR 2022).
//!
//! Two passes over a batch draw different experts; the loss keeps their predictions together:
//! `α · ½ · Σ (p − q)(log p − log q)` with `p = softmax(a)`, `q = softmax(b)`, the mean of the two
//! Kullback–Leibler divergences, summed over the target tokens that are not padding. The balance
//! and z losses belong to the gate, see [`crate::Gating::gate`].

use rayon::prelude::*;
use tollgate_core::math::{exp, vectorized};
use tollgate_core::{Cpu, Error, Result, RowView, RowViewMut};

use crate::check;

/// Rows per unit of work. The sum runs over the blocks in order, so it depends on this number and
/// on nothing else.
const BLOCK_ROWS: usize = 8;
/// Below this many logits a side, entering the thread pool costs more than it saves.
const INLINE_ELEMS: usize = 1 << 14;
/// Independent partial sums of a row: one AVX-512 register of f64, twice.
const LANES: usize = 16;

/// The consistency loss of two logit matrices and its gradient with respect to both.
///
/// - `a`, `b`: `[N, V]`, the logits of the two passes.
/// - `padding`: `[N]`, true where a row counts for nothing; `None` counts all rows.
/// - `da`, `db`: `[N, V]`, overwritten: `da_i = α ½ [p_i (log(p_i/q_i) − KL(p‖q)) + (p_i − q_i)]`,
///   and symmetrically for b; 0 in padding rows.
///
/// Returns the loss, α included. Exponentials are f32, everything else f64 rounded once; rows are
/// summed in f64 in a fixed order, so the bits do not depend on the number of threads.
///
/// Where both sides are masked (−∞) an entry counts 0. A row with an entry masked on one side only
/// has an infinite divergence: the loss is +∞ and the row's gradients are NaN. A row with a NaN or
/// +∞ makes the loss NaN, and its gradients. With α = 0 the loss and all gradients are 0 whatever
/// the rows hold.
///
/// # Errors
/// Shapes that differ, more than 2^31 − 1 rows; an α that is negative or not finite. Nothing is
/// written then.
pub fn consistency(
    cpu: &Cpu,
    a: RowView<'_, f32>,
    b: RowView<'_, f32>,
    padding: Option<&[bool]>,
    alpha: f32,
    mut da: RowViewMut<'_, f32>,
    mut db: RowViewMut<'_, f32>,
) -> Result<f64> {
    check_with_gradients(&a, &b, padding, alpha, &da, &db)?;
    if a.cols() == 0 {
        return Ok(0.0);
    }
    if alpha == 0.0 {
        da.fill(0.0);
        db.fill(0.0);
        return Ok(0.0);
    }

    let block = |block: usize, da: &mut RowViewMut<'_, f32>, db: &mut RowViewMut<'_, f32>| {
        let mut sum = 0.0;
        for r in 0..da.rows() {
            let row = block * BLOCK_ROWS + r;
            if padding.is_some_and(|p| p[row]) {
                da.row_mut(r).fill(0.0);
                db.row_mut(r).fill(0.0);
                continue;
            }
            let rows = Rows {
                a: a.row(row),
                b: b.row(row),
                da: da.row_mut(r),
                db: db.row_mut(r),
            };
            sum += vectorized(
                #[inline(always)]
                || row_divergence(rows, f64::from(alpha)),
            );
        }
        sum
    };
    let (mut da, mut db) = (da.chunks(BLOCK_ROWS), db.chunks(BLOCK_ROWS));
    if a.rows() <= BLOCK_ROWS || a.rows() * a.cols() <= INLINE_ELEMS || cpu.threads() == 1 {
        let blocks = da.iter_mut().zip(&mut db).enumerate();
        return Ok(in_order(blocks.map(|(i, (da, db))| block(i, da, db))));
    }
    let sums: Vec<f64> = cpu.install(|| {
        let blocks = da.par_iter_mut().zip(db.par_iter_mut()).enumerate();
        blocks.map(|(i, (da, db))| block(i, da, db)).collect()
    });
    Ok(in_order(sums))
}

/// The sum, from +0 on: that of nothing is no −0.
fn in_order(terms: impl IntoIterator<Item = f64>) -> f64 {
    terms.into_iter().fold(0.0, |sum, term| sum + term)
}

/// What [`consistency`] and its reference refuse.
pub(crate) fn check_consistency(
    a: (usize, usize),
    b: (usize, usize),
    padding: Option<&[bool]>,
    alpha: f64,
) -> Result<()> {
    check::rows("rows of a (N)", a.0)?;
    Error::check_shape("rows of b (N)", b.0, a.0)?;
    Error::check_shape("columns of b (V)", b.1, a.1)?;
    if let Some(padding) = padding {
        Error::check_shape("padding (N)", padding.len(), a.0)?;
    }
    Error::check_real("consistency α", alpha, 0.0, f32::MAX.into())
}

/// What all implementations of [`crate::Gating::consistency`] refuse.
pub(crate) fn check_with_gradients(
    a: &RowView<'_, f32>,
    b: &RowView<'_, f32>,
    padding: Option<&[bool]>,
    alpha: f32,
    da: &RowViewMut<'_, f32>,
    db: &RowViewMut<'_, f32>,
) -> Result<()> {
    let (of_a, of_b) = ((a.rows(), a.cols()), (b.rows(), b.cols()));
    check_consistency(of_a, of_b, padding, alpha.into())?;
    Error::check_shape("rows of da (N)", da.rows(), a.rows())?;
    Error::check_shape("columns of da (V)", da.cols(), a.cols())?;
    Error::check_shape("rows of db (N)", db.rows(), a.rows())?;
    Error::check_shape("columns of db (V)", db.cols(), a.cols())
}

/// LANES entries of a row. What lies behind the end of a row is masked, which adds nothing.
type Piece = [f32; LANES];

/// A row of each matrix.
struct Rows<'a> {
    a: &'a [f32],
    b: &'a [f32],
    da: &'a mut [f32],
    db: &'a mut [f32],
}

impl Rows<'_> {
    /// Calls `work` with all pieces of `a` and `b`, the last one filled up with −∞, and the same
    /// pieces of `da` and `db` to read and write.
    #[inline(always)]
    fn for_pieces(&mut self, mut work: impl FnMut(&Piece, &Piece, &mut Piece, &mut Piece)) {
        let (a, rest_a) = self.a.as_chunks::<LANES>();
        let (b, rest_b) = self.b.as_chunks::<LANES>();
        let (da, rest_da) = self.da.as_chunks_mut::<LANES>();
        let (db, rest_db) = self.db.as_chunks_mut::<LANES>();
        for i in 0..a.len().min(b.len()).min(da.len()).min(db.len()) {
            work(&a[i], &b[i], &mut da[i], &mut db[i]);
        }
        let rest = rest_a.len();
        if rest > 0 {
            let (mut a, mut b) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
            let (mut da, mut db) = ([0.0; LANES], [0.0; LANES]);
            a[..rest].copy_from_slice(rest_a);
            b[..rest].copy_from_slice(rest_b);
            da[..rest].copy_from_slice(rest_da);
            db[..rest].copy_from_slice(rest_db);
            work(&a, &b, &mut da, &mut db);
            rest_da.copy_from_slice(&da[..rest]);
            rest_db.copy_from_slice(&db[..rest]);
        }
    }
}

/// What one look at both sides of a row tells.
struct Survey {
    max_a: f32,
    max_b: f32,
    faulty: bool,
    one_sided: bool,
}

#[inline(always)]
fn survey(rows: &mut Rows<'_>) -> Survey {
    let mut max = [[f32::NEG_INFINITY; LANES]; 2];
    let (mut faulty, mut one_sided) = ([0u32; LANES], [0u32; LANES]);
    rows.for_pieces(
        #[inline(always)]
        |a, b, _, _| {
            for l in 0..LANES {
                let (a, b) = (a[l], b[l]);
                max[0][l] = if a > max[0][l] { a } else { max[0][l] };
                max[1][l] = if b > max[1][l] { b } else { max[1][l] };
                faulty[l] |= u32::from(a.is_nan() | b.is_nan());
                one_sided[l] |= u32::from((a == f32::NEG_INFINITY) != (b == f32::NEG_INFINITY));
            }
        },
    );
    let [max_a, max_b] = max.map(|lanes| lanes.into_iter().fold(f32::NEG_INFINITY, f32::max));
    let infinite = max_a == f32::INFINITY || max_b == f32::INFINITY;
    Survey {
        max_a,
        max_b,
        faulty: infinite || faulty.contains(&1),
        one_sided: one_sided.contains(&1),
    }
}

/// One side of a row: its largest logit, and log and reciprocal of `Σ exp(z − max)`.
#[derive(Clone, Copy)]
struct Normalizer {
    max: f32,
    log_sum: f64,
    reciprocal: f32,
}

impl Normalizer {
    /// From the largest logit and the partial sums. A row of only −∞ has the reciprocal 0, which
    /// makes all its probabilities 0.
    #[inline(always)]
    fn new(max: f32, sums: [f64; LANES]) -> Self {
        let sum: f64 = sums.iter().sum();
        if sum == 0.0 {
            return Self {
                max: 0.0,
                log_sum: 0.0,
                reciprocal: 0.0,
            };
        }
        Self {
            max,
            log_sum: sum.ln(),
            reciprocal: (1.0 / sum) as f32,
        }
    }

    /// Of the exponential that it was summed from.
    #[inline(always)]
    fn probability(&self, exponential: f32) -> f64 {
        f64::from(exponential * self.reciprocal)
    }

    /// In f64: a difference of large logits could overflow in f32.
    #[inline(always)]
    fn log_probability(&self, z: f32) -> f64 {
        (f64::from(z) - f64::from(self.max)) - self.log_sum
    }
}

/// `log p − log q`, 0 where both are masked.
#[inline(always)]
fn log_ratio(p: &Normalizer, q: &Normalizer, zp: f32, zq: f32) -> f64 {
    let difference = p.log_probability(zp) - q.log_probability(zq);
    if zp == f32::NEG_INFINITY {
        0.0
    } else {
        difference
    }
}

/// α ½ Σ (p − q)(log p − log q) of one row; writes both gradients.
#[inline(always)]
fn row_divergence(mut rows: Rows<'_>, alpha: f64) -> f64 {
    let survey = survey(&mut rows);
    if survey.faulty || survey.one_sided {
        rows.da.fill(f32::NAN);
        rows.db.fill(f32::NAN);
        return alpha
            * if survey.faulty {
                f64::NAN
            } else {
                f64::INFINITY
            };
    }
    // A fully masked row has no largest logit; 0 keeps −∞ − max at −∞.
    let finite = |max: f32| if max == f32::NEG_INFINITY { 0.0 } else { max };
    let (max_a, max_b) = (finite(survey.max_a), finite(survey.max_b));

    // The exponentials wait in the outputs.
    let mut sums = [[0f64; LANES]; 2];
    rows.for_pieces(
        #[inline(always)]
        |a, b, ea, eb| {
            for l in 0..LANES {
                ea[l] = exp(a[l] - max_a);
                eb[l] = exp(b[l] - max_b);
            }
            for l in 0..LANES {
                sums[0][l] += f64::from(ea[l]);
                sums[1][l] += f64::from(eb[l]);
            }
        },
    );
    let (p, q) = (
        Normalizer::new(max_a, sums[0]),
        Normalizer::new(max_b, sums[1]),
    );

    // KL(p‖q) and KL(q‖p).
    let mut kl = [[0f64; LANES]; 2];
    rows.for_pieces(
        #[inline(always)]
        |a, b, ea, eb| {
            for l in 0..LANES {
                let ratio = log_ratio(&p, &q, a[l], b[l]);
                kl[0][l] += p.probability(ea[l]) * ratio;
                kl[1][l] -= q.probability(eb[l]) * ratio;
            }
        },
    );
    let [kl_pq, kl_qp] = kl.map(|lanes| lanes.iter().sum::<f64>());

    let half = 0.5 * alpha;
    rows.for_pieces(
        #[inline(always)]
        |a, b, da, db| {
            for l in 0..LANES {
                let (pi, qi) = (p.probability(da[l]), q.probability(db[l]));
                let ratio = log_ratio(&p, &q, a[l], b[l]);
                da[l] = (half * (pi * (ratio - kl_pq) + (pi - qi))) as f32;
                db[l] = (half * (qi * (-ratio - kl_qp) + (qi - pi))) as f32;
            }
        },
    );
    half * (kl_pq + kl_qp)
}
