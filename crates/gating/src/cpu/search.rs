//! The best places of a row: exact, whatever the width of the vectors.
//!
//! A row is padded with −∞ to a multiple of [`LANES`]. Ties go to the lower index, so padding is
//! never in front of an expert. Rows with a NaN give unspecified indices below the padded width:
//! callers find out by the sum of the exponentials.

use pulp::{Simd, bytemuck};

/// Rows are padded to a multiple of this; also the number of partial sums of a row.
pub(super) const LANES: usize = 16;

/// The k up to which [`TopK`] avoids sorting the row.
const FEW: usize = LANES;

/// The best two of a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Best {
    pub first_value: f32,
    pub first: usize,
    /// −∞ where the second is masked or padding.
    pub second_value: f32,
    pub second: usize,
}

/// One bit a lane, lane 0 lowest.
#[inline(always)]
fn bits<S: Simd>(simd: S, mask: S::m32s) -> u32 {
    if const { size_of::<S::m32s>() == size_of::<u16>() } {
        // AVX-512: the mask is such a number already.
        u32::from(bytemuck::cast::<_, u16>(mask))
    } else {
        let lanes = simd.select_u32s(mask, simd.splat_u32s(1), simd.splat_u32s(0));
        let lanes: &[u32] = bytemuck::cast_slice(std::slice::from_ref(&lanes));
        lanes
            .iter()
            .enumerate()
            .fold(0, |bits, (i, &lane)| bits | lane << i)
    }
}

/// The largest value of a row.
#[inline(always)]
pub(super) fn max<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let mut max = simd.splat_f32s(f32::NEG_INFINITY);
    for &values in S::as_simd_f32s(row).0 {
        max = simd.max_f32s(max, values);
    }
    simd.reduce_max_f32s(max)
}

/// The lowest index of `value` in a row that holds it.
#[inline(always)]
fn first_at<S: Simd>(simd: S, row: &[f32], value: f32) -> usize {
    let value = simd.splat_f32s(value);
    let vectors = S::as_simd_f32s(row).0;
    let mut at = 0;
    // From the end, so that the lowest index wins without a branch.
    for (v, &values) in vectors.iter().enumerate().rev() {
        let hits = bits(simd, simd.equal_f32s(values, value));
        let here = v * S::F32_LANES + hits.trailing_zeros() as usize;
        at = if hits != 0 { here } else { at };
    }
    at
}

/// The best two of a row of at least two places.
#[inline(always)]
pub(super) fn best_two<S: Simd>(simd: S, row: &[f32]) -> Best {
    // The best two of every lane.
    let mut firsts = simd.splat_f32s(f32::NEG_INFINITY);
    let mut seconds = firsts;
    for &values in S::as_simd_f32s(row).0 {
        seconds = simd.max_f32s(seconds, simd.min_f32s(firsts, values));
        firsts = simd.max_f32s(firsts, values);
    }
    let first_value = simd.reduce_max_f32s(firsts);
    let first = first_at(simd, row, first_value);
    // Without the winner its lane offers its second.
    let lane = (first % S::F32_LANES) as u32;
    let winner = simd.mask_between_m32s(lane, lane + 1).mask();
    let second_value = simd.reduce_max_f32s(simd.select_f32s(winner, seconds, firsts));
    let second = if second_value == first_value {
        let behind = row[first + 1..].iter().position(|&v| v == first_value);
        first + 1 + behind.unwrap_or(0)
    } else {
        first_at(simd, row, second_value)
    };
    Best {
        first_value,
        first,
        second_value,
        second,
    }
}

/// A key whose order is that of the values, and for equal values that of the lower index.
#[inline(always)]
fn key(value: f32, index: usize) -> u64 {
    // Adding 0 makes −0 a 0, which it ties with. Then the order of f32 is that of integers, once
    // negative numbers are turned around.
    let bits = (value + 0.0).to_bits();
    let ordered = bits ^ (((bits as i32) >> 31) as u32 | 1 << 31);
    u64::from(ordered) << 32 | u64::from(!(index as u32))
}

/// The index of a [`key`].
#[inline(always)]
fn index_of(key: u64) -> u32 {
    !(key as u32)
}

/// Memory of [`TopK::find`], reused from row to row.
#[derive(Debug, Default)]
pub(super) struct TopK {
    keys: Vec<u64>,
    /// The indices found, best first.
    found: Vec<u32>,
}

impl TopK {
    /// The best `k` of the first `places` values of a padded row, best first; `k ≤ places`.
    ///
    /// For small k: at least k values are not below the k-th largest of the [`LANES`] column
    /// maxima, and seldom many more. These few are ranked by counting, which has no branches to
    /// mispredict.
    #[inline(always)]
    pub(super) fn find<S: Simd>(
        &mut self,
        simd: S,
        row: &[f32],
        places: usize,
        k: usize,
    ) -> &[u32] {
        self.keys.clear();
        if k <= FEW {
            let floor = kth_of_columns(simd, row, k);
            self.collect(simd, row, places, floor);
        } else {
            self.keys.extend((0..places).map(|e| key(row[e], e)));
        }
        if self.keys.len() <= FEW {
            self.rank_by_counting(simd, k);
        } else {
            self.sort(k);
        }
        &self.found
    }

    /// Keys of the values that reach `floor`.
    #[inline(always)]
    fn collect<S: Simd>(&mut self, simd: S, row: &[f32], places: usize, floor: f32) {
        let floor = simd.splat_f32s(floor);
        for (w, word) in row.chunks(64).enumerate() {
            let mut hits = 0u64;
            for (v, &values) in S::as_simd_f32s(word).0.iter().enumerate() {
                let mask = simd.greater_than_or_equal_f32s(values, floor);
                hits |= u64::from(bits(simd, mask)) << (v * S::F32_LANES);
            }
            while hits != 0 {
                let e = w * 64 + hits.trailing_zeros() as usize;
                if e < places {
                    self.keys.push(key(row[e], e));
                }
                hits &= hits - 1;
            }
        }
    }

    /// A key's place is the number of larger ones; keys are distinct.
    #[inline(always)]
    fn rank_by_counting<S: Simd>(&mut self, simd: S, k: usize) {
        let mut keys = [0u64; FEW];
        keys[..self.keys.len()].copy_from_slice(&self.keys);
        let mut places = [0u64; FEW];
        let vectors = S::as_simd_u64s(&keys).0.iter();
        for (&mine, places) in vectors.zip(S::as_mut_simd_u64s(&mut places).0) {
            let mut larger = simd.splat_u64s(0);
            for &other in &self.keys {
                let is_larger = simd.greater_than_u64s(simd.splat_u64s(other), mine);
                let one = simd.select_u64s(is_larger, simd.splat_u64s(1), simd.splat_u64s(0));
                larger = simd.add_u64s(larger, one);
            }
            *places = larger;
        }
        let mut order = [0u32; FEW];
        for (&key, &place) in self.keys.iter().zip(&places) {
            order[place as usize % FEW] = index_of(key);
        }
        self.found.clear();
        self.found.extend_from_slice(&order[..k]);
    }

    fn sort(&mut self, k: usize) {
        let descending = |a: &u64, b: &u64| b.cmp(a);
        if k < self.keys.len() {
            self.keys.select_nth_unstable_by(k, descending);
            self.keys.truncate(k);
        }
        self.keys.sort_unstable_by(descending);
        self.found.clear();
        self.found
            .extend(self.keys.iter().map(|&key| index_of(key)));
    }
}

/// The k-th largest of the maxima of the columns `e mod LANES`: a bound that at least k values of
/// the row reach.
#[inline(always)]
fn kth_of_columns<S: Simd>(simd: S, row: &[f32], k: usize) -> f32 {
    let mut columns = [f32::NEG_INFINITY; LANES];
    for values in row.as_chunks::<LANES>().0 {
        let values = S::as_simd_f32s(values).0.iter();
        for (column, &values) in S::as_mut_simd_f32s(&mut columns).0.iter_mut().zip(values) {
            *column = simd.max_f32s(*column, values);
        }
    }
    // A column stays where fewer than k are larger; the least of them is the k-th largest.
    let mut kth = simd.splat_f32s(f32::INFINITY);
    for &mine in S::as_simd_f32s(&columns).0 {
        let mut larger = simd.splat_u32s(0);
        for &other in &columns {
            let is_larger = simd.greater_than_f32s(simd.splat_f32s(other), mine);
            let one = simd.select_u32s(is_larger, simd.splat_u32s(1), simd.splat_u32s(0));
            larger = simd.add_u32s(larger, one);
        }
        let stays = simd.less_than_u32s(larger, simd.splat_u32s(k as u32));
        let candidate = simd.select_f32s(stays, mine, simd.splat_f32s(f32::INFINITY));
        kth = simd.min_f32s(kth, candidate);
    }
    simd.reduce_min_f32s(kth)
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};
    use tollgate_testkit::Data;

    use super::*;

    struct Find<'a> {
        row: &'a [f32],
        places: usize,
        k: usize,
    }

    impl WithSimd for Find<'_> {
        type Output = (Vec<u32>, Best, f32);
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let found = TopK::default()
                .find(simd, self.row, self.places, self.k)
                .to_vec();
            (found, best_two(simd, self.row), max(simd, self.row))
        }
    }

    /// Every k on rows with ties, masks, both zeros and all sizes, against a stable sort; with the
    /// widest vectors and with none.
    #[test]
    fn the_best_are_those_of_a_stable_sort() {
        let mut data = Data::new(5);
        for places in (1..70usize).chain([128, 200, 257]) {
            for kind in 0..5 {
                let mut row: Vec<f32> = (0..places)
                    .map(|_| match kind {
                        0 => data.normal() as f32,
                        1 => (data.normal() as f32).round() * 0.0,
                        2 => (2.0 * data.normal() as f32).round(),
                        3 if data.below(3) == 0 => f32::NEG_INFINITY,
                        3 => data.normal() as f32,
                        _ => f32::NEG_INFINITY,
                    })
                    .collect();
                let mut order: Vec<u32> = (0..places as u32).collect();
                order.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap());
                row.resize(places.next_multiple_of(LANES), f32::NEG_INFINITY);
                for k in [1, 2, 3, 7, 8, 15, 16, 17, 40, places] {
                    if k > places {
                        continue;
                    }
                    let find = || Find {
                        row: &row,
                        places,
                        k,
                    };
                    for (found, best, max) in [
                        Arch::new().dispatch(find()),
                        Scalar::new().vectorize(find()),
                    ] {
                        let what = format!("{places} places, kind {kind}, k {k}");
                        assert_eq!(found, order[..k], "{what}");
                        assert_eq!(best.first, order[0] as usize, "{what}");
                        assert_eq!(max, row[order[0] as usize], "{what}");
                        assert_eq!(best.first_value, max, "{what}");
                        if places > 1 {
                            assert_eq!(best.second, order[1] as usize, "{what}");
                            assert_eq!(best.second_value, row[order[1] as usize], "{what}");
                        } else {
                            assert_eq!(best.second_value, f32::NEG_INFINITY);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_with_nan_stay_in_range() {
        for at in [0, 3, 16, 31] {
            let mut row = vec![1.0f32; 32];
            row[at] = f32::NAN;
            for row in [row, vec![f32::NAN; 32]] {
                let (found, best, _) = Arch::new().dispatch(Find {
                    row: &row,
                    places: 32,
                    k: 8,
                });
                assert!(found.len() <= 8 && found.iter().all(|&e| e < 32));
                assert!(best.first < 32 && best.second <= 32);
            }
        }
    }
}
