//! Sixteen rows into sixteen columns: what turns a weight matrix into panels.

use tollgate_core::math::vectorized;

use super::kernel::LANES;

/// A transposition for this machine, chosen once.
#[derive(Clone, Copy)]
pub(super) struct Transpose {
    #[cfg(target_arch = "x86_64")]
    avx2: Option<pulp::x86::V3>,
}

impl Transpose {
    pub fn new() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx2: pulp::x86::V3::try_new(),
        }
    }

    /// Element k of row j goes to `to[k·width + j]`. All rows are as long as `to` has lines of
    /// `width ≥ LANES`; of the last line only the first [`LANES`] elements need exist.
    pub fn run(self, rows: [&[f32]; LANES], to: &mut [f32], width: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = self.avx2 {
            vectorized(
                #[inline(always)]
                || avx2::run(simd, rows, to, width),
            );
            return;
        }
        vectorized(
            #[inline(always)]
            || one_by_one(rows, to, width, 0),
        );
    }
}

/// The elements from `first` on.
#[inline(always)]
fn one_by_one(rows: [&[f32]; LANES], to: &mut [f32], width: usize, first: usize) {
    for (k, line) in to.chunks_mut(width).enumerate().skip(first) {
        for (value, row) in line[..LANES].iter_mut().zip(rows) {
            *value = row[k];
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use core::arch::x86_64::__m256;

    use pulp::x86::V3;

    use super::{LANES, one_by_one};

    /// Side of the blocks.
    const SIDE: usize = 8;

    #[inline(always)]
    pub(super) fn run(simd: V3, rows: [&[f32]; LANES], to: &mut [f32], width: usize) {
        let blocks = rows[0].len() / SIDE;
        for (block, lines) in to.chunks_mut(width * SIDE).take(blocks).enumerate() {
            for half in 0..LANES / SIDE {
                let mut square = [[0f32; SIDE]; SIDE];
                for (line, row) in square.iter_mut().zip(&rows[half * SIDE..]) {
                    line.copy_from_slice(&row[block * SIDE..(block + 1) * SIDE]);
                }
                let square = transpose(simd, square);
                for (k, line) in square.iter().enumerate() {
                    let at = k * width + half * SIDE;
                    lines[at..at + SIDE].copy_from_slice(line);
                }
            }
        }
        one_by_one(rows, to, width, blocks * SIDE);
    }

    /// Pairs of rows are interleaved, then pairs of pairs, then the halves of the registers.
    #[inline(always)]
    fn transpose(simd: V3, square: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
        let mut r = [simd.avx._mm256_setzero_ps(); SIDE];
        for i in 0..SIDE {
            r[i] = pulp::cast(square[i]);
        }
        let (top, bottom) = (
            quad(simd, r[0], r[1], r[2], r[3]),
            quad(simd, r[4], r[5], r[6], r[7]),
        );
        let mut columns = [[0f32; SIDE]; SIDE];
        for i in 0..SIDE / 2 {
            let low = simd.avx._mm256_permute2f128_ps::<0x20>(top[i], bottom[i]);
            let high = simd.avx._mm256_permute2f128_ps::<0x31>(top[i], bottom[i]);
            columns[i] = pulp::cast(low);
            columns[i + SIDE / 2] = pulp::cast(high);
        }
        columns
    }

    /// Columns (0, 4), (1, 5), (2, 6) and (3, 7) of four rows, each pair in one register.
    #[inline(always)]
    fn quad(simd: V3, a: __m256, b: __m256, c: __m256, d: __m256) -> [__m256; SIDE / 2] {
        let s = simd.avx;
        let (ab, ab_high) = (s._mm256_unpacklo_ps(a, b), s._mm256_unpackhi_ps(a, b));
        let (cd, cd_high) = (s._mm256_unpacklo_ps(c, d), s._mm256_unpackhi_ps(c, d));
        [
            s._mm256_shuffle_ps::<0x44>(ab, cd),
            s._mm256_shuffle_ps::<0xee>(ab, cd),
            s._mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            s._mm256_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_both_ways() {
        let data: Vec<f32> = (0..LANES * 100).map(|i| i as f32).collect();
        for len in [0, 1, 7, 8, 9, 16, 63, 64, 100] {
            for width in [LANES, LANES + 16, LANES + 3] {
                let rows = std::array::from_fn(|j| &data[j * 100..j * 100 + len]);
                let (mut a, mut b) = (vec![-1.0; len * width], vec![-1.0; len * width]);
                Transpose::new().run(rows, &mut a, width);
                one_by_one(rows, &mut b, width, 0);
                assert_eq!(a, b);
                for (k, line) in a.chunks(width).enumerate() {
                    for (j, &v) in line.iter().enumerate() {
                        let want = if j < LANES {
                            (j * 100 + k) as f32
                        } else {
                            -1.0
                        };
                        assert_eq!(v, want, "length {len}, width {width}, ({k}, {j})");
                    }
                }
            }
        }
    }
}
