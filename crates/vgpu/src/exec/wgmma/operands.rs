//! The matrices of a `wgmma` as dense arrays: out of registers, out of shared memory.

use super::super::fragments::{
    bf16_to_f32, f16_to_f32, floats, fp8_to_f32, integers, join_f16, put_pair, put_rows, split_f16,
    take_pair,
};
use super::super::{Core, Fault};
use super::{Form, ROWS};
use crate::layout::descriptor::{Major, MatrixDescriptor};
use crate::layout::elements::{Element, tf32};
use crate::machine::Shared;
use crate::program::Src;
use crate::report::Kind;

/// Bytes of a chunk.
const CHUNK: usize = 16;

/// A dense matrix, row by row.
pub(super) enum Dense {
    Float(Vec<f32>),
    Integer(Vec<i32>),
}

impl Dense {
    /// A of one warp from its registers: 16 × K.
    pub(super) fn of_registers(core: &Core<'_>, what: &Form, registers: &[Src]) -> Self {
        match what.form.shape().2 {
            8 => Self::rows::<8>(core, what, registers),
            16 => Self::rows::<16>(core, what, registers),
            _ => Self::rows::<32>(core, what, registers),
        }
    }

    #[inline(always)]
    fn rows<const K: usize>(core: &Core<'_>, what: &Form, registers: &[Src]) -> Self {
        let element = what.form.a();
        if element.is_small_int() {
            let mut tile = [[0; K]; ROWS];
            for (register, src) in registers.iter().enumerate() {
                integers(&core.get(*src), element, |values| {
                    put_rows(&mut tile, register, values);
                });
            }
            return Self::Integer(tile.as_flattened().to_vec());
        }
        let mut tile = [[0.0; K]; ROWS];
        for (register, src) in registers.iter().enumerate() {
            floats(&core.get(*src), element, |values| {
                put_rows(&mut tile, register, values);
            });
        }
        let mut values = tile.as_flattened().to_vec();
        if what.negate[0] {
            values.iter_mut().for_each(|value| *value = -*value);
        }
        Self::Float(values)
    }

    /// The accumulator of one warp as it stands in its registers: 16 × N.
    pub(super) fn of_accumulator(core: &Core<'_>, what: &Form) -> Self {
        let n = what.form.shape().1 as usize;
        let row = |index: usize| {
            let slot = what.dst[index].slot.unwrap_or(0);
            &core.warp.regs[slot as usize].0
        };
        match what.form.d() {
            Element::S32 => {
                let mut tile = vec![0; ROWS * n];
                for pair in 0..n / 4 {
                    let pairs = [0, 1].map(|i| row(2 * pair + i).map(|bits| bits as i32));
                    put_pair(&mut tile, n, 2, pair, [&pairs[0], &pairs[1]]);
                }
                Self::Integer(tile)
            }
            element => {
                let mut tile = vec![0.0; ROWS * n];
                for pair in 0..n / 4 {
                    let pairs = if element == Element::F16 {
                        split_f16(row(pair))
                    } else {
                        [0, 1].map(|i| row(2 * pair + i).map(f32::from_bits))
                    };
                    put_pair(&mut tile, n, 2, pair, [&pairs[0], &pairs[1]]);
                }
                Self::Float(tile)
            }
        }
    }

    /// The reverse of [`Self::of_accumulator`].
    pub(super) fn land(&self, core: &mut Core<'_>, what: &Form) {
        let n = what.form.shape().1 as usize;
        let mask = u32::MAX;
        for pair in 0..n / 4 {
            match self {
                Self::Integer(tile) => {
                    let [low, high] = take_pair::<i32>(tile, n, 2, pair);
                    core.set(what.dst[2 * pair], &low, mask);
                    core.set(what.dst[2 * pair + 1], &high, mask);
                }
                Self::Float(tile) => {
                    let values = take_pair::<f32>(tile, n, 2, pair);
                    if what.form.d() == Element::F16 {
                        core.set(what.dst[pair], &join_f16(&values), mask);
                    } else {
                        core.set(what.dst[2 * pair], &values[0], mask);
                        core.set(what.dst[2 * pair + 1], &values[1], mask);
                    }
                }
            }
        }
        for dst in &what.dst {
            core.set_defined(*dst, mask, mask);
        }
    }

    /// An operand from the chunks in shared memory: A as M × K, B as K × N.
    #[inline(always)]
    pub(super) fn of_chunks(what: &Form, chunks: &[u32], side: usize, shared: &Shared) -> Self {
        let element = [what.form.a(), what.form.b()][side];
        let walk = Walk::new(what, chunks, side, shared);
        let sign = if what.negate[side] { -1.0 } else { 1.0 };
        match element {
            Element::F16 => Self::Float(walk.collect(|bytes| halves(bytes, sign, f16_to_f32))),
            Element::Bf16 => Self::Float(walk.collect(|bytes| halves(bytes, sign, bf16_to_f32))),
            Element::Tf32 => Self::Float(walk.collect(|bytes| {
                let words: [[u8; 4]; 4] = bytemuck::cast(*bytes);
                words.map(|word| sign * tf32(u32::from_le_bytes(word)))
            })),
            Element::S8 => Self::Integer(walk.collect(|bytes| bytes.map(|b| i32::from(b as i8)))),
            Element::U8 => Self::Integer(walk.collect(|bytes| bytes.map(i32::from))),
            fp8 => Self::Float(walk.collect(|bytes| bytes.map(|b| sign * fp8_to_f32(fp8, b)))),
        }
    }
}

#[inline(always)]
fn halves(bytes: &[u8; CHUNK], sign: f32, widen: impl Fn(u16) -> f32) -> [f32; 8] {
    std::array::from_fn(|i| sign * widen(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])))
}

/// Goes through the chunks of an operand.
struct Walk<'a> {
    chunks: &'a [u32],
    per_line: usize,
    /// Elements of the matrix from one line to the next, and from one element of a line to the next.
    steps: [usize; 2],
    len: usize,
    shared: &'a Shared,
}

impl<'a> Walk<'a> {
    fn new(what: &Form, chunks: &'a [u32], side: usize, shared: &'a Shared) -> Self {
        let (m, n, k) = what.form.shape();
        let (extent, k) = ([m, n][side] as usize, k as usize);
        // K-major lines are rows of A or columns of B, others the reverse.
        let by_k = what.major[side] == Major::K;
        let steps = match (side, by_k) {
            (0, true) => [k, 1],
            (0, false) => [1, k],
            (_, true) => [1, extent],
            (_, false) => [extent, 1],
        };
        let lines = if by_k { extent } else { k };
        Self {
            chunks,
            per_line: chunks.len() / lines,
            steps,
            len: extent * k,
            shared,
        }
    }

    /// The matrix, `P` elements a chunk.
    #[inline(always)]
    fn collect<T: Copy + Default, const P: usize>(
        &self,
        widen: impl Fn(&[u8; CHUNK]) -> [T; P],
    ) -> Vec<T> {
        let mut matrix = vec![T::default(); self.len];
        let [line_step, step] = self.steps;
        for (line, chunks) in self.chunks.chunks_exact(self.per_line).enumerate() {
            for (index, address) in chunks.iter().enumerate() {
                let Some(bytes) = self.shared.bytes(*address, CHUNK as u32).first_chunk() else {
                    continue;
                };
                let values = widen(bytes);
                let start = line * line_step + index * P * step;
                if step == 1 {
                    matrix[start..start + P].copy_from_slice(&values);
                } else {
                    for (i, value) in values.into_iter().enumerate() {
                        matrix[start + i * step] = value;
                    }
                }
            }
        }
        matrix
    }
}

/// Where the 16-byte chunks of an operand lie; `side` 0 is A, 1 is B. Checks that they are in shared
/// memory.
///
/// # Errors
/// The descriptor is not one, or leads outside.
pub(super) fn chunk_addresses(
    core: &Core<'_>,
    what: &Form,
    bits: u64,
    side: usize,
) -> Result<Vec<u32>, Box<Fault>> {
    let name = ["A", "B"][side];
    let element = [what.form.a(), what.form.b()][side];
    let (m, n, _) = what.form.shape();
    let extent = [m, n][side];
    let fail = |words: String| {
        let message = format!("descriptor of {name}: {words}");
        core.fault(Kind::Descriptor, 0, message)
    };
    let descriptor = MatrixDescriptor::decode(bits)
        .and_then(|descriptor| {
            descriptor.check(what.major[side], element, extent)?;
            Ok(descriptor)
        })
        .map_err(|error| fail(error.to_string()))?;
    let addresses = descriptor
        .chunks(what.major[side], element, extent)
        .addresses;
    let shared = &core.env.cluster.blocks[core.block].shared;
    let outside = |address: &&u32| !shared.holds(u64::from(**address), CHUNK as u64);
    if let Some(address) = addresses.iter().find(outside) {
        let words = format!(
            "it leads to shared address {address:#x}, outside the block's memory, which ends at {:#x}",
            shared.end()
        );
        return Err(fail(words));
    }
    Ok(addresses)
}
