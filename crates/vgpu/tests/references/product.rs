//! Matrix products in f64.

use half::bf16;

/// A product and what bounds the error of a product in f32.
pub struct Product {
    /// Each element, exact but for f64 rounding.
    pub values: Vec<f64>,
    /// The sum of the magnitudes of each element's terms.
    pub magnitudes: Vec<f64>,
    /// Terms of each sum.
    pub terms: usize,
}

impl Product {
    /// How far element `i` may be off when summed in f32 in any order: each of the sums errs by at
    /// most 2^-23 of the magnitudes (twice the unit of rounding, for sums that truncate).
    pub fn f32_tolerance(&self, i: usize) -> f64 {
        self.terms as f64 * 2f64.powi(-23) * self.magnitudes[i]
    }

    /// As [`Self::f32_tolerance`], then rounded to bf16, whose unit of rounding is 2^-9.
    pub fn bf16_tolerance(&self, i: usize) -> f64 {
        2f64.powi(-8) * self.values[i].abs() + self.f32_tolerance(i)
    }

    /// The elements in bf16; what a kernel must give bit for bit when its f32 sums are exact.
    pub fn to_bf16(&self) -> Vec<bf16> {
        self.values
            .iter()
            .map(|&v| bf16::from_f32(v as f32))
            .collect()
    }
}

/// How the weights of [`grouped_gemm`] lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[E, N, K]`: `gemm_grouped_nt_sm80`.
    Nk,
    /// `[E, K, N]`: `gemm_grouped_nn_sm80`.
    Kn,
}

/// `gemm_grouped_*_sm80`: row r of `a` `[rows, K]` by the weights of the expert whose range of
/// `expert_offsets` `[E + 1]` holds it; `[rows, N]`, zero in rows of no expert.
pub fn grouped_gemm(
    a: &[bf16],
    b: &[bf16],
    expert_offsets: &[u32],
    n: usize,
    k: usize,
    layout: WeightLayout,
) -> Product {
    let mut product = Product {
        values: vec![0.0; a.len() / k * n],
        magnitudes: vec![0.0; a.len() / k * n],
        terms: k,
    };
    for (e, range) in expert_offsets.windows(2).enumerate() {
        let weights = &b[e * n * k..(e + 1) * n * k];
        for r in range[0] as usize..range[1] as usize {
            for col in 0..n {
                for i in 0..k {
                    let weight = match layout {
                        WeightLayout::Nk => weights[col * k + i],
                        WeightLayout::Kn => weights[i * n + col],
                    };
                    let term = a[r * k + i].to_f64() * weight.to_f64();
                    product.values[r * n + col] += term;
                    product.magnitudes[r * n + col] += term.abs();
                }
            }
        }
    }
    product
}

/// `gemm_nt_*`: `a` `[M, K]` by `b` `[N, K]` transposed, `[M, N]`.
pub fn gemm_nt(a: &[bf16], b: &[bf16], n: usize, k: usize) -> Product {
    let rows = (a.len() / k) as u32;
    grouped_gemm(a, b, &[0, rows], n, k, WeightLayout::Nk)
}
