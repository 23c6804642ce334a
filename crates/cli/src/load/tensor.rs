//! One stored tensor, and its values as the types that a layer needs.

use half::{bf16, f16};
use rayon::prelude::*;
use tollgate::{DType, Element};

use crate::error::{Failure, Result};

/// Elements that are decoded at a time.
const BLOCK: usize = 1 << 14;

/// A tensor of a [`super::Container`].
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    pub(super) file: &'a str,
    pub(super) name: &'a str,
    pub(super) dtype: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Its sizes.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Its type if it holds real numbers of a type that is read here.
    pub fn real_type(&self) -> Option<DType> {
        match self.dtype {
            "F32" => Some(DType::F32),
            "F16" => Some(DType::F16),
            "BF16" => Some(DType::Bf16),
            _ => None,
        }
    }

    /// An error about this tensor.
    pub(super) fn error(&self, problem: impl std::fmt::Display, advice: &str) -> Failure {
        Failure::file(
            self.file,
            format!("tensor '{}' {problem}", self.name),
            advice,
        )
    }

    /// Its two sizes.
    ///
    /// # Errors
    /// It is no matrix.
    pub fn matrix(&self) -> Result<(usize, usize)> {
        match *self.shape {
            [rows, cols] => Ok((rows, cols)),
            _ => {
                let shape = self.shape;
                Err(self.error(
                    format!("has shape {shape:?}, must be a matrix"),
                    "transpose or split it",
                ))
            }
        }
    }

    /// Checks its sizes; `letters` names them.
    ///
    /// # Errors
    /// Other sizes.
    pub fn expect_shape(&self, expected: &[usize], letters: &str) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        Err(self.error(
            format!(
                "has shape {:?}, must be {expected:?} = {letters}",
                self.shape
            ),
            "give tensors of one and the same layer",
        ))
    }

    /// Its values widened to f32.
    ///
    /// # Errors
    /// A type that does not hold real numbers, a NaN or an infinity.
    pub fn reals(&self) -> Result<Vec<f32>> {
        self.elements()
    }

    /// Its values rounded to `T`.
    ///
    /// # Errors
    /// As [`Tensor::reals`]; a value beyond the range of `T`; too little memory.
    pub fn elements<T: Element>(&self) -> Result<Vec<T>> {
        let mut out = self.allocate(self.shape.iter().product())?;
        self.decode_into(&mut out)?;
        Ok(out)
    }

    /// Room for this many elements.
    fn allocate<T: Element>(&self, elems: usize) -> Result<Vec<T>> {
        super::zeros(elems).ok_or_else(|| {
            let bytes = elems.saturating_mul(size_of::<T>());
            self.error(
                format!("needs {bytes} bytes, more than there are"),
                "use a larger machine",
            )
        })
    }

    /// Writes its values, rounded to `T`, to a slice of as many elements.
    ///
    /// # Errors
    /// As [`Tensor::elements`].
    pub fn decode_into<T: Element>(&self, out: &mut [T]) -> Result<()> {
        let Some(stored) = self.real_type() else {
            return Err(self.error(
                format!("has dtype {}, must be F32, F16 or BF16", self.dtype),
                "convert it",
            ));
        };
        let size = stored.size_bytes();
        debug_assert_eq!(self.bytes.len(), out.len() * size);
        let bad = self
            .bytes
            .par_chunks(BLOCK * size)
            .zip(out.par_chunks_mut(BLOCK))
            .enumerate()
            .filter_map(|(block, (bytes, out))| {
                let mut wide = vec![0.0; out.len()];
                widen(stored, bytes, &mut wide);
                T::narrow(&wide, out);
                let bad = (0..out.len()).find(|&i| !out[i].to_f32().is_finite())?;
                Some((block * BLOCK + bad, wide[bad]))
            })
            .min_by_key(|&(position, _)| position);
        match bad {
            None => Ok(()),
            Some((position, value)) => Err(self.unusable(T::DTYPE, position, value)),
        }
    }

    /// A value that is not finite, or not in the type that is wanted.
    fn unusable(&self, wanted: DType, position: usize, value: f32) -> Failure {
        let at = self.index(position);
        if value.is_finite() {
            let problem = format!("has {value:e} at {at}, beyond the range of {wanted}");
            self.error(problem, "use --dtype bf16 or f32")
        } else {
            let problem = format!("has {value} at {at}, must be finite");
            self.error(problem, "repair the value or leave it out")
        }
    }

    /// The position of an element as indices.
    fn index(&self, mut position: usize) -> String {
        let mut indices = vec![0; self.shape.len()];
        for (index, &size) in indices.iter_mut().zip(self.shape).rev() {
            *index = position % size;
            position /= size;
        }
        format!("{indices:?}")
    }

    /// Its values as i32, each in `0..bound`.
    ///
    /// # Errors
    /// A type that does not hold whole numbers, a value outside.
    pub fn indices(&self, bound: usize) -> Result<Vec<i32>> {
        let wide: Vec<i64> = match self.dtype {
            "I32" => words(self.bytes)
                .map(|w| i32::from_le_bytes(w).into())
                .collect(),
            "I64" => words(self.bytes).map(i64::from_le_bytes).collect(),
            other => {
                let problem = format!("has dtype {other}, must be I32 or I64");
                return Err(self.error(problem, "convert it"));
            }
        };
        let bound = bound.min(i32::MAX as usize + 1) as i64;
        match wide.iter().position(|v| !(0..bound).contains(v)) {
            None => Ok(wide.iter().map(|&v| v as i32).collect()),
            Some(position) => {
                let (at, value) = (self.index(position), wide[position]);
                let problem = format!("has {value} at {at}, must be in 0..{bound}");
                Err(self.error(problem, "repair the value"))
            }
        }
    }
}

/// The bytes as little-endian words.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    let (words, _) = bytes.as_chunks::<N>();
    words.iter().copied()
}

/// Stored numbers as f32, exactly.
fn widen(stored: DType, bytes: &[u8], out: &mut [f32]) {
    match stored {
        DType::F32 => put(words(bytes).map(f32::from_le_bytes), out),
        DType::F16 => put(
            words(bytes).map(|w| Element::to_f32(f16::from_le_bytes(w))),
            out,
        ),
        DType::Bf16 => put(
            words(bytes).map(|w| Element::to_f32(bf16::from_le_bytes(w))),
            out,
        ),
    }
}

fn put(values: impl Iterator<Item = f32>, out: &mut [f32]) {
    for (o, v) in out.iter_mut().zip(values) {
        *o = v;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<'a>(dtype: &'a str, shape: &'a [usize], bytes: &'a [u8]) -> Tensor<'a> {
        Tensor {
            file: "f",
            name: "x",
            dtype,
            shape,
            bytes,
        }
    }

    #[test]
    fn every_type_widens_exactly_whatever_its_alignment() {
        let mut bytes = vec![0u8];
        for v in [1.5f32, -2.0] {
            bytes.extend(v.to_le_bytes());
        }
        assert_eq!(
            tensor("F32", &[2], &bytes[1..]).reals().unwrap(),
            [1.5, -2.0]
        );
        let bytes = [
            f16::from_f32(0.1).to_le_bytes(),
            f16::from_f32(6e-8).to_le_bytes(),
        ]
        .concat();
        let exact = [0.1, 6e-8].map(|v| f16::from_f32(v).to_f32());
        assert_eq!(tensor("F16", &[2], &bytes).reals().unwrap(), exact);
        let bytes = bf16::from_f32(0.1).to_le_bytes();
        assert_eq!(
            tensor("BF16", &[1], &bytes).elements::<bf16>().unwrap(),
            [bf16::from_f32(0.1)]
        );
    }

    #[test]
    fn the_first_bad_value_is_named_with_its_place() {
        let mut values = vec![0f32; 3 * BLOCK];
        for at in [BLOCK + 5, 2 * BLOCK] {
            values[at] = f32::NAN;
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let error = tensor("F32", &[3, BLOCK], &bytes)
            .reals()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tensor 'x' has NaN at [1, 5], must be finite"),
            "{error}"
        );
        let bytes = 70000f32.to_le_bytes();
        let error = tensor("F32", &[1], &bytes)
            .elements::<f16>()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("has 7e4 at [0], beyond the range of f16"),
            "{error}"
        );
    }

    #[test]
    fn indices_are_checked_in_both_widths() {
        let narrow: Vec<u8> = [0i32, 3].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(tensor("I32", &[2], &narrow).indices(4).unwrap(), [0, 3]);
        let error = tensor("I32", &[2], &narrow)
            .indices(3)
            .unwrap_err()
            .to_string();
        assert!(error.contains("has 3 at [1], must be in 0..3"), "{error}");
        let wide: Vec<u8> = [1i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(tensor("I64", &[2], &wide).indices(9).is_err());
        assert!(tensor("F32", &[2], &narrow).indices(9).is_err());
        assert!(tensor("I32", &[2], &narrow).reals().is_err());
    }
}
