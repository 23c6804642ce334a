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

macro_rules! value32 {
    ($type:ty, $to:expr, $from:expr) => {
        impl Value for $type {
            const ROWS: usize = 1;

            #[inline(always)]
            fn load(rows: &[Row]) -> [Self; LANES] {
                let from: fn(u32) -> $type = $from;
                rows[0].0.map(from)
            }

            #[inline(always)]
            fn store(rows: &mut [Row], values: &[Self; LANES], mask: u32) {
                let to: fn($type) -> u32 = $to;
                blend(&mut rows[0].0, &values.map(to), mask);
            }

            #[inline(always)]
            fn to_bits64(self) -> u64 {
                let to: fn($type) -> u32 = $to;
                u64::from(to(self))
            }

            #[inline(always)]
            fn from_bits64(bits: u64) -> Self {
                let from: fn(u32) -> $type = $from;
                from(bits as u32)
            }
        }
    };
}

value32!(u32, |value| value, |bits| bits);
value32!(i32, |value| value as u32, |bits| bits as i32);
value32!(f32, f32::to_bits, f32::from_bits);
value32!(u16, u32::from, |bits| bits as u16);
value32!(i16, |value| u32::from(value as u16), |bits| bits as u16
    as i16);
value32!(u8, u32::from, |bits| bits as u8);
value32!(i8, |value| u32::from(value as u8), |bits| bits as u8 as i8);

macro_rules! value64 {
    ($type:ty, $to:expr, $from:expr) => {
        impl Value for $type {
            const ROWS: usize = 2;

            #[inline(always)]
            fn load(rows: &[Row]) -> [Self; LANES] {
                let from: fn(u64) -> $type = $from;
                bytemuck::cast::<[Row; 2], [u64; LANES]>([rows[0], rows[1]]).map(from)
            }

            #[inline(always)]
            fn store(rows: &mut [Row], values: &[Self; LANES], mask: u32) {
                let to: fn($type) -> u64 = $to;
                let mut all = bytemuck::cast::<[Row; 2], [u64; LANES]>([rows[0], rows[1]]);
                blend(&mut all, &values.map(to), mask);
                let halves = bytemuck::cast::<[u64; LANES], [Row; 2]>(all);
                rows[0] = halves[0];
                rows[1] = halves[1];
            }

            #[inline(always)]
            fn to_bits64(self) -> u64 {
                let to: fn($type) -> u64 = $to;
                to(self)
            }

            #[inline(always)]
            fn from_bits64(bits: u64) -> Self {
                let from: fn(u64) -> $type = $from;
                from(bits)
            }
        }
    };
}

value64!(u64, |value| value, |bits| bits);
value64!(i64, |value| value as u64, |bits| bits as i64);
value64!(f64, f64::to_bits, f64::from_bits);

impl Value for u128 {
    const ROWS: usize = 4;

    fn load(rows: &[Row]) -> [Self; LANES] {
        bytemuck::cast([rows[0], rows[1], rows[2], rows[3]])
    }

    fn store(rows: &mut [Row], values: &[Self; LANES], mask: u32) {
        let mut all = Self::load(rows);
        blend(&mut all, values, mask);
        rows[..4].copy_from_slice(&bytemuck::cast::<[u128; LANES], [Row; 4]>(all));
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
