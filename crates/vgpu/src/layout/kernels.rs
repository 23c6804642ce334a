//! The arithmetic of a matrix multiply-accumulate, `D = A·B + C`.
//!
//! # Accumulation model
//! The ISA leaves order, rounding and subnormals of floating-point accumulation open ("at least
//! single precision"), so a model has to choose. Here each element of D is the chain
//!
//! ```text
//! s = C[i][j];  for k in 0, 1, …, K−1:  s = fma(A[i][k], B[k][j], s)
//! ```
//!
//! in f32, rounded to nearest even after each step, subnormals kept. The product of two `.f16`,
//! `.bf16`, `.tf32` or fp8 values has at most 22 significant bits, so the fused step loses nothing
//! of it (short of f32's range, which only `.bf16` and `.tf32` can leave). A NaN result is the
//! canonical one, 0x7fffffff. With an `.f16` accumulator the chain still runs in f32 and its end
//! is rounded to f16 once. Hardware adds several products at once and truncates; results differ in
//! the last bits, and agree exactly where every partial sum is representable.
//!
//! `.f64` is defined by the ISA as fused multiply-adds and is the same chain in f64. Integers are
//! exact: modulo 2³², or, with `.satfinite`, the exact sum limited once at the end.
//!
//! # Speed
//! Everything is `inline(always)`, so that a caller compiled with `avx2,fma` or `avx512f` gets
//! vector code; without FMA in the target each step is a call into libm, slow but the same result.

/// Sizes of a product: A is `m × k`, B is `k × n`, C and D are `m × n`, each row-major and dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of A and D.
    pub m: usize,
    /// Columns of B and D.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

impl From<(u32, u32, u32)> for Size {
    fn from((m, n, k): (u32, u32, u32)) -> Size {
        Size {
            m: m as usize,
            n: n as usize,
            k: k as usize,
        }
    }
}

/// A slice is not as long as its matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operand {operand} has {have} elements, its matrix needs {need}")]
pub struct SizeError {
    /// `A`, `B` or `D`.
    pub operand: char,
    /// Length of the slice.
    pub have: usize,
    /// Elements of the matrix.
    pub need: usize,
}

impl Size {
    #[inline(always)]
    fn check(self, a: usize, b: usize, d: usize) -> Result<(), SizeError> {
        let needs = [
            ('A', a, self.m.saturating_mul(self.k)),
            ('B', b, self.k.saturating_mul(self.n)),
            ('D', d, self.m.saturating_mul(self.n)),
        ];
        for (operand, have, need) in needs {
            if have != need {
                return Err(SizeError {
                    operand,
                    have,
                    need,
                });
            }
        }
        Ok(())
    }
}

/// The result of every f32 operation on the GPU that is not a number.
const CANONICAL_NAN: f32 = f32::from_bits(0x7fff_ffff);

/// Multiplies f32 tiles; `d` holds C before and D after.
///
/// # Errors
/// When a slice is not as long as its matrix; `d` is then unchanged.
#[inline(always)]
pub fn mma_f32(size: Size, a: &[f32], b: &[f32], d: &mut [f32]) -> Result<(), SizeError> {
    size.check(a.len(), b.len(), d.len())?;
    let Size { m, n, k } = size;
    let mut i = 0;
    if n <= 8 {
        // Narrow tiles need more rows, to have enough independent chains.
        while i + 8 <= m {
            row_block::<8>(n, k, &a[i * k..(i + 8) * k], b, &mut d[i * n..(i + 8) * n]);
            i += 8;
        }
    }
    while i + 4 <= m {
        row_block::<4>(n, k, &a[i * k..(i + 4) * k], b, &mut d[i * n..(i + 4) * n]);
        i += 4;
    }
    while i < m {
        row_block::<1>(n, k, &a[i * k..(i + 1) * k], b, &mut d[i * n..(i + 1) * n]);
        i += 1;
    }
    Ok(())
}

/// [`mma_f32`] with `.f16` accumulators: `d` holds values of f16 before and after, as f32.
///
/// # Errors
/// As [`mma_f32`].
#[inline(always)]
pub fn mma_f16(size: Size, a: &[f32], b: &[f32], d: &mut [f32]) -> Result<(), SizeError> {
    mma_f32(size, a, b, d)?;
    for x in d {
        *x = half::f16::from_f32(*x).to_f32();
    }
    Ok(())
}

/// `R` rows of D, in tiles of columns that fit the vector registers.
#[inline(always)]
fn row_block<const R: usize>(n: usize, k: usize, a: &[f32], b: &[f32], d: &mut [f32]) {
    let mut j = 0;
    while j + 16 <= n {
        tile::<R, 16>(n, k, j, a, b, d);
        j += 16;
    }
    while j + 8 <= n {
        tile::<R, 8>(n, k, j, a, b, d);
        j += 8;
    }
    while j < n {
        tile::<R, 1>(n, k, j, a, b, d);
        j += 1;
    }
}

#[inline(always)]
fn tile<const R: usize, const W: usize>(
    n: usize,
    k: usize,
    j: usize,
    a: &[f32],
    b: &[f32],
    d: &mut [f32],
) {
    let mut acc = [[0.0f32; W]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        acc.copy_from_slice(&d[r * n + j..r * n + j + W]);
    }
    let left: [&[f32]; R] = std::array::from_fn(|r| &a[r * k..r * k + k]);
    for (x, row) in b.chunks_exact(n).take(k).enumerate() {
        let row = &row[j..j + W];
        for r in 0..R {
            for c in 0..W {
                acc[r][c] = left[r][x].mul_add(row[c], acc[r][c]);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (to, &s) in d[r * n + j..r * n + j + W].iter_mut().zip(acc) {
            *to = if s.is_nan() { CANONICAL_NAN } else { s };
        }
    }
}

/// Multiplies integer tiles, wrapping; `d` holds C before and D after.
///
/// # Errors
/// When a slice is not as long as its matrix; `d` is then unchanged.
#[inline(always)]
pub fn mma_s32(size: Size, a: &[i32], b: &[i32], d: &mut [i32]) -> Result<(), SizeError> {
    size.check(a.len(), b.len(), d.len())?;
    let Size { m, n, k } = size;
    for i in 0..m {
        let out = &mut d[i * n..(i + 1) * n];
        for x in 0..k {
            let left = a[i * k + x];
            let row = &b[x * n..(x + 1) * n];
            for (o, &right) in out.iter_mut().zip(row) {
                *o = o.wrapping_add(left.wrapping_mul(right));
            }
        }
    }
    Ok(())
}

/// [`mma_s32`] with `.satfinite`: the exact sum, limited to the range of `.s32`.
///
/// # Errors
/// As [`mma_s32`].
#[inline(always)]
pub fn mma_s32_satfinite(size: Size, a: &[i32], b: &[i32], d: &mut [i32]) -> Result<(), SizeError> {
    size.check(a.len(), b.len(), d.len())?;
    let Size { m, n, k } = size;
    for i in 0..m {
        for j in 0..n {
            let mut sum = i64::from(d[i * n + j]);
            for x in 0..k {
                // Multiplicands have at most 8 bits, so the sum stays far inside i64; saturating
                // only keeps other input from overflowing.
                let product = i64::from(a[i * k + x]) * i64::from(b[x * n + j]);
                sum = sum.saturating_add(product);
            }
            d[i * n + j] = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        }
    }
    Ok(())
}

/// Multiplies f64 tiles; `d` holds C before and D after. `fma` is the fused multiply-add in the
/// rounding mode of the instruction, `f64::mul_add` for `.rn`.
///
/// # Errors
/// When a slice is not as long as its matrix; `d` is then unchanged.
#[inline(always)]
pub fn mma_f64(
    size: Size,
    a: &[f64],
    b: &[f64],
    d: &mut [f64],
    fma: impl Fn(f64, f64, f64) -> f64,
) -> Result<(), SizeError> {
    size.check(a.len(), b.len(), d.len())?;
    let Size { m, n, k } = size;
    for i in 0..m {
        for j in 0..n {
            d[i * n + j] = (0..k).fold(d[i * n + j], |s, x| fma(a[i * k + x], b[x * n + j], s));
        }
    }
    Ok(())
}
