//! Register fragments as dense matrices and back.
//!
//! The rule behind the tables of [`crate::layout::mma`] makes whole runs of a matrix out of a register:
//! lanes `4g … 4g+3` hold `4s` neighbours of one row of A or of one column of B, and two neighbours
//! each of a row of D. So nothing here looks up places one by one. The tests compare with the tables.

use crate::lane::LANES;
use crate::layout::elements::{Element, tf32};
use crate::num::fp8;
use crate::num::half::{F16, Half};

/// Rows (of A and D) or columns (of B) that one register covers.
const GROUPS: usize = 8;

/// Hands on the elements of a register of floating-point multiplicands, lane after lane.
#[inline(always)]
pub(super) fn floats(bits: &[u32; LANES], element: Element, mut to: impl FnMut(&[f32])) {
    let halves: &[u16; 2 * LANES] = bytemuck::cast_ref(bits);
    let bytes: &[u8; 4 * LANES] = bytemuck::cast_ref(bits);
    match element {
        Element::F16 => to(&each(halves, |half| f16_to_f32(u16::from_le(half)))),
        Element::Bf16 => to(&each(halves, |half| bf16_to_f32(u16::from_le(half)))),
        Element::E4m3 | Element::E5m2 => to(&each(bytes, |byte| fp8_to_f32(element, byte))),
        _ => to(&each(bits, tf32)),
    }
}

/// Hands on the elements of a register of integer multiplicands, lane after lane.
#[inline(always)]
pub(super) fn integers(bits: &[u32; LANES], element: Element, mut to: impl FnMut(&[i32])) {
    let bytes: &[u8; 4 * LANES] = bytemuck::cast_ref(bits);
    match element {
        Element::S8 => to(&each(bytes, |byte| i32::from(byte as i8))),
        Element::U8 => to(&each(bytes, i32::from)),
        _ => {
            let nibble = |byte: u8, high: u32| element.integer(u32::from(byte) >> (4 * high) & 15);
            let nibbles = each(bytes, |byte| [nibble(byte, 0), nibble(byte, 1)]);
            to(nibbles.as_flattened());
        }
    }
}

/// `array::map` for long arrays, which is not inlined and so not compiled for vectors.
#[inline(always)]
fn each<A: Copy, B: Copy + Default, const L: usize>(from: &[A; L], f: impl Fn(A) -> B) -> [B; L] {
    let mut to = [B::default(); L];
    for (to, from) in to.iter_mut().zip(from) {
        *to = f(*from);
    }
    to
}

#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    f32::from_bits(F16::widen(bits))
}

#[inline(always)]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The f16 nearest to `value`, as an f32.
#[inline(always)]
pub(super) fn round_f16(value: f32) -> f32 {
    f16_to_f32(F16::narrow(value.to_bits()))
}

#[inline(always)]
pub(super) fn fp8_to_f32(element: Element, byte: u8) -> f32 {
    f32::from_bits(if element == Element::E4m3 {
        fp8::e4m3_to_f32(byte)
    } else {
        fp8::e5m2_to_f32(byte)
    })
}

/// Puts a register of A into its M × K matrix of `M` = 8 or 16 rows.
#[inline(always)]
pub(super) fn put_rows<T: Copy, const K: usize>(
    tile: &mut [[T; K]],
    register: usize,
    elements: &[T],
) {
    let halves = tile.len() / GROUPS;
    let (row, run) = (GROUPS * (register % halves), elements.len() / GROUPS);
    let column = run * (register / halves);
    for (row, part) in tile[row..].iter_mut().zip(elements.chunks_exact(run)) {
        row[column..column + run].copy_from_slice(part);
    }
}

/// Puts a register of B into its K × 8 matrix.
#[inline(always)]
pub(super) fn put_columns<T: Copy>(tile: &mut [[T; GROUPS]], register: usize, elements: &[T]) {
    let run = elements.len() / GROUPS;
    let rows = &mut tile[run * register..run * (register + 1)];
    for (column, part) in elements.chunks_exact(run).enumerate() {
        for (row, value) in rows.iter_mut().zip(part) {
            row[column] = *value;
        }
    }
}

/// Where pair number `pair` of every lane's accumulator elements lies in an M × `n` matrix of `halves`
/// times 8 rows: index of lane 0's first element.
#[inline(always)]
fn corner(pair: usize, halves: usize, n: usize) -> usize {
    GROUPS * (pair % halves) * n + GROUPS * (pair / halves)
}

/// Puts the elements `2·pair` and `2·pair + 1` that each lane holds of an accumulator into its matrix
/// of `n` columns.
#[inline(always)]
pub(super) fn put_pair<T: Copy>(
    tile: &mut [T],
    n: usize,
    halves: usize,
    pair: usize,
    [low, high]: [&[T; LANES]; 2],
) {
    let corner = corner(pair, halves, n);
    for group in 0..GROUPS {
        let row = &mut tile[corner + group * n..][..GROUPS];
        for t in 0..4 {
            row[2 * t] = low[4 * group + t];
            row[2 * t + 1] = high[4 * group + t];
        }
    }
}

/// The reverse of [`put_pair`].
#[inline(always)]
pub(super) fn take_pair<T: Copy + Default>(
    tile: &[T],
    n: usize,
    halves: usize,
    pair: usize,
) -> [[T; LANES]; 2] {
    let corner = corner(pair, halves, n);
    let mut pairs = [[T::default(); LANES]; 2];
    for group in 0..GROUPS {
        let row = &tile[corner + group * n..][..GROUPS];
        for t in 0..4 {
            pairs[0][4 * group + t] = row[2 * t];
            pairs[1][4 * group + t] = row[2 * t + 1];
        }
    }
    pairs
}

/// The two halves of a register of f16 accumulators.
#[inline(always)]
pub(super) fn split_f16(bits: &[u32; LANES]) -> [[f32; LANES]; 2] {
    [
        each(bits, |bits| f16_to_f32(bits as u16)),
        each(bits, |bits| f16_to_f32((bits >> 16) as u16)),
    ]
}

/// The reverse of [`split_f16`]; rounds to nearest even.
#[inline(always)]
pub(super) fn join_f16([low, high]: &[[f32; LANES]; 2]) -> [u32; LANES] {
    let narrow = |value: f32| u32::from(F16::narrow(value.to_bits()));
    let mut bits = [0; LANES];
    for lane in 0..LANES {
        bits[lane] = narrow(low[lane]) | narrow(high[lane]) << 16;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::legality::MmaForm;
    use crate::layout::mma::{Fragment, MmaTables};

    /// Elements numbered by row and column, as the fragment's table places them: one register.
    fn numbered(fragment: &Fragment, register: u32) -> Vec<u32> {
        let subs = fragment.subs();
        (0..LANES as u32 * subs)
            .map(|slot| {
                let (row, col) = fragment
                    .place(slot / subs, register, slot % subs)
                    .expect("an element");
                row * 1000 + col
            })
            .collect()
    }

    fn rows<const K: usize>(fragment: &Fragment) {
        let (m, _) = fragment.size();
        let mut tile = vec![[u32::MAX; K]; m as usize];
        for register in 0..fragment.registers() {
            put_rows(&mut tile, register as usize, &numbered(fragment, register));
        }
        for (row, values) in tile.iter().enumerate() {
            for (col, value) in values.iter().enumerate() {
                assert_eq!(*value, (row * 1000 + col) as u32, "{fragment:?}");
            }
        }
    }

    #[test]
    fn runs_agree_with_the_tables_of_every_form() {
        for form in MmaForm::all(90) {
            let tables = MmaTables::new(form);
            match form.shape().2 {
                4 => rows::<4>(&tables.a.fragment),
                8 => rows::<8>(&tables.a.fragment),
                16 => rows::<16>(&tables.a.fragment),
                32 => rows::<32>(&tables.a.fragment),
                _ => rows::<64>(&tables.a.fragment),
            }
            let b = &tables.b.fragment;
            let mut tile = vec![[u32::MAX; 8]; form.shape().2 as usize];
            for register in 0..b.registers() {
                put_columns(&mut tile, register as usize, &numbered(b, register));
            }
            for (row, values) in tile.iter().enumerate() {
                let want: [u32; 8] = std::array::from_fn(|col| (row * 1000 + col) as u32);
                assert_eq!(values, &want, "{form:?}");
            }
        }
    }

    #[test]
    fn pairs_agree_with_the_tables_of_wide_accumulators() {
        use crate::layout::legality::WgmmaForm;
        use crate::layout::wgmma::fragment_d;
        for n in [8, 24, 128, 256] {
            for element in [Element::F32, Element::F16] {
                let form =
                    WgmmaForm::new((64, n, 16), element, Element::F16, Element::F16, 90, true)
                        .expect("a form");
                let fragment = fragment_d(form);
                let mut tile = vec![(9, 9); 16 * n as usize];
                let per = fragment.subs();
                for pair in 0..n / 4 {
                    let [low, high] = [0, 1].map(|index| {
                        std::array::from_fn(|lane| {
                            let element = 2 * pair + index;
                            fragment
                                .place(lane as u32, element / per, element % per)
                                .expect("an element")
                        })
                    });
                    put_pair(&mut tile, n as usize, 2, pair as usize, [&low, &high]);
                    assert_eq!(take_pair(&tile, n as usize, 2, pair as usize), [low, high]);
                }
                for (index, place) in tile.iter().enumerate() {
                    let index = index as u32;
                    assert_eq!(*place, (index / n, index % n));
                }
            }
        }
    }
}
