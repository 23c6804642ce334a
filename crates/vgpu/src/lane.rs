//! Thirty-two lanes of one register, and the values that live in them.
//!
//! A register of a warp is one [`Row`] (16 and 32 bits a lane), two (64 bits) or four (128 bits).
//! Loops over the 32 lanes of arrays like these are what the compiler turns into vector code.

use bytemuck::{Pod, Zeroable};

/// Lanes of a warp.
pub const LANES: usize = 32;

/// 32 lanes of 32 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Row(pub [u32; LANES]);

/// A type whose 32 lanes fill whole rows.
///
/// 16-bit values sit zero-extended in 32-bit lanes; 64- and 128-bit values are contiguous over two
/// and four rows.
pub trait Value: Copy + Default + Send + Sync + 'static {
    /// Rows that 32 lanes take.
    const ROWS: usize;

    /// Reads 32 lanes from the first [`Self::ROWS`] rows.
    fn load(rows: &[Row]) -> [Self; LANES];

    /// Writes the lanes of `mask`; the others keep what they had.
    fn store(rows: &mut [Row], values: &[Self; LANES], mask: u32);

    /// The value's bits, zero-extended.
    fn to_bits64(self) -> u64;

    /// A value from the low bits of `bits`.
    fn from_bits64(bits: u64) -> Self;
}

/// Copies the lanes of `mask`; a full mask, the usual case, copies everything at once.
#[inline(always)]
fn blend<T: Copy>(into: &mut [T; LANES], from: &[T; LANES], mask: u32) {
    if mask == u32::MAX {
        *into = *from;
    } else {
        for lane in 0..LANES {
            into[lane] = if mask >> lane & 1 != 0 {
                from[lane]
            } else {
                into[lane]
            };
        }
    }
}

/// `f` of every lane. (The `map` of arrays is a call for each element where the compiler has chosen
/// vector extensions for the caller only.)
#[inline(always)]
pub fn each<A: Copy, B: Copy + Default>(values: &[A; LANES], f: impl Fn(A) -> B) -> [B; LANES] {
    let mut out = [B::default(); LANES];
    for lane in 0..LANES {
        out[lane] = f(values[lane]);
    }
    out
}

/// The lanes of a register of several rows.
#[inline(always)]
fn wide<T: Pod>(rows: &[Row]) -> &[T; LANES] {
    bytemuck::from_bytes(&bytemuck::cast_slice(rows)[..LANES * size_of::<T>()])
}

#[inline(always)]
fn wide_mut<T: Pod>(rows: &mut [Row]) -> &mut [T; LANES] {
    bytemuck::from_bytes_mut(&mut bytemuck::cast_slice_mut(rows)[..LANES * size_of::<T>()])
}

/// A type whose bits are those of `$bits`, which fills `$rows` rows.
macro_rules! value {
    ($type:ty, $bits:ty, $rows:expr, $to:expr, $from:expr) => {
        impl Value for $type {
            const ROWS: usize = $rows;

            #[inline(always)]
            fn load(rows: &[Row]) -> [Self; LANES] {
                each(wide::<$bits>(rows), $from)
            }

            #[inline(always)]
            fn store(rows: &mut [Row], values: &[Self; LANES], mask: u32) {
                blend(wide_mut::<$bits>(rows), &each(values, $to), mask);
            }

            #[inline(always)]
            fn to_bits64(self) -> u64 {
                u64::from($to(self))
            }

            #[inline(always)]
            fn from_bits64(bits: u64) -> Self {
                $from(bits as $bits)
            }
        }
    };
}

value!(u32, u32, 1, |value: u32| value, |bits: u32| bits);
value!(i32, u32, 1, |value: i32| value as u32, |bits: u32| bits
    as i32);
value!(f32, u32, 1, f32::to_bits, f32::from_bits);
value!(u16, u32, 1, u32::from, |bits: u32| bits as u16);
value!(
    i16,
    u32,
    1,
    |value: i16| u32::from(value as u16),
    |bits: u32| bits as i16
);
value!(u8, u32, 1, u32::from, |bits: u32| bits as u8);
value!(
    i8,
    u32,
    1,
    |value: i8| u32::from(value as u8),
    |bits: u32| bits as i8
);
value!(u64, u64, 2, |value: u64| value, |bits: u64| bits);
value!(i64, u64, 2, |value: i64| value as u64, |bits: u64| bits
    as i64);
value!(f64, u64, 2, f64::to_bits, f64::from_bits);

impl Value for u128 {
    const ROWS: usize = 4;

    #[inline(always)]
    fn load(rows: &[Row]) -> [Self; LANES] {
        *wide(rows)
    }

    #[inline(always)]
    fn store(rows: &mut [Row], values: &[Self; LANES], mask: u32) {
        blend(wide_mut(rows), values, mask);
    }

    fn to_bits64(self) -> u64 {
        self as u64
    }

    fn from_bits64(bits: u64) -> Self {
        u128::from(bits)
    }
}

/// The lanes of a mask, lowest first.
#[inline]
pub fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_stores_keep_the_other_lanes() {
        let mut rows = [Row([7; LANES]); 4];
        u64::store(&mut rows, &[u64::MAX; LANES], 0b101);
        let back = u64::load(&rows);
        assert_eq!(back[0], u64::MAX);
        assert_eq!(back[1], 7 << 32 | 7);
        assert_eq!(back[2], u64::MAX);
        i16::store(&mut rows, &[-1; LANES], u32::MAX);
        assert_eq!(rows[0].0, [0xffff; LANES]);
        assert_eq!(i16::load(&rows), [-1; LANES]);
        let wide = std::array::from_fn(|lane| (lane as u128) << 100);
        u128::store(&mut rows, &wide, u32::MAX);
        assert_eq!(u128::load(&rows), wide);
    }

    #[test]
    fn lanes_come_lowest_first() {
        assert_eq!(lanes(0x8000_0005).collect::<Vec<_>>(), [0, 2, 31]);
        assert_eq!(lanes(0).count(), 0);
    }
}
