//! `NAME=FILL`: buffers of device memory and what is in them at first.

use std::path::PathBuf;

use crate::error::{Failure, Result};

use super::element::{Element, whole};
use super::place::Pointer;

/// Bytes of a buffer at most: beyond it the command line has a typing error.
const MAX_BYTES: usize = 1 << 34;

/// A buffer as it is defined.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// Its name.
    pub name: String,
    /// Where it lives; `None`: on the device of the launch that defines it.
    pub device: Option<u32>,
    /// What it holds.
    pub element: Element,
    /// What is in it at first.
    pub fill: Fill,
}

/// What is in a buffer at first.
#[derive(Debug, Clone, PartialEq)]
pub enum Fill {
    /// Nothing: to read it before it is written is reported.
    Uninitialised(usize),
    /// Zeros.
    Zeros(usize),
    /// 0, 1, 2, …
    Range(usize),
    /// The same value, as bits, throughout.
    Constant(u64, usize),
    /// Real numbers in [−1, 1), whole numbers over their full range.
    Random {
        /// Elements.
        count: usize,
        /// Of the generator; `None`: one that depends on the buffer's name.
        seed: Option<u64>,
    },
    /// A file of little-endian values.
    File(PathBuf),
    /// Addresses of buffers.
    Pointers(Vec<Pointer>),
}

/// What a buffer begins with, made.
#[derive(Debug, Clone, PartialEq)]
pub enum Contents {
    /// So many bytes that nobody wrote.
    Unwritten(usize),
    /// These.
    Bytes(Vec<u8>),
    /// Addresses of 8 bytes each.
    Pointers(Vec<Pointer>),
}

impl Contents {
    /// Bytes of the buffer.
    pub fn size(&self) -> usize {
        match self {
            Self::Unwritten(size) => *size,
            Self::Bytes(bytes) => bytes.len(),
            Self::Pointers(pointers) => 8 * pointers.len(),
        }
    }
}

/// The forms, for messages.
pub const FILLS: &str = "zeros:T[N], uninit:T[N], range:T[N], const:V:T[N], random:T[N][:seed=S], \
                         file:PATH:T, ptrs:NAME,NAME…";

impl Buffer {
    /// Reads `NAME=FILL` or `NAME@DEVICE=FILL`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let (name, fill) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' is not of the form NAME=FILL; FILL is {FILLS}"))?;
        let (name, device) = match name.split_once('@') {
            None => (name, None),
            Some((name, device)) => {
                let number = device.parse().map_err(|_| {
                    format!("the device in '{name}@{device}' is to be a whole number")
                })?;
                (name, Some(number))
            }
        };
        let name = buffer_name(name)?.to_owned();
        let (element, fill) = parse_fill(fill)?;
        Ok(Self {
            name,
            device,
            element,
            fill,
        })
    }

    /// What is in it at first.
    ///
    /// # Errors
    /// A file that cannot be read, or has not whole values.
    pub fn contents(&self) -> Result<Contents> {
        Ok(match &self.fill {
            Fill::Uninitialised(count) => Contents::Unwritten(count * self.element.bytes()),
            Fill::Zeros(count) => Contents::Bytes(vec![0; count * self.element.bytes()]),
            Fill::Range(count) => self.filled(*count, |i| match self.element.is_float() {
                true => self.element.from_real(i as f64),
                false => self.element.cut(i as u64),
            }),
            Fill::Constant(bits, count) => self.filled(*count, |_| *bits),
            Fill::Random { count, seed } => {
                let mut random = Random(seed.unwrap_or_else(|| name_hash(&self.name)));
                self.filled(*count, |_| random.next(self.element))
            }
            Fill::File(path) => Contents::Bytes(self.read(path)?),
            Fill::Pointers(pointers) => Contents::Pointers(pointers.clone()),
        })
    }

    fn filled(&self, count: usize, mut bits: impl FnMut(usize) -> u64) -> Contents {
        let size = self.element.bytes();
        let mut bytes = Vec::with_capacity(count * size);
        for i in 0..count {
            bytes.extend_from_slice(&bits(i).to_le_bytes()[..size]);
        }
        Contents::Bytes(bytes)
    }

    fn read(&self, path: &PathBuf) -> Result<Vec<u8>> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| {
            let advice = format!("buffer {} needs a file that can be read", self.name);
            Failure::file(shown.as_str(), format!("cannot read it: {error}"), advice)
        })?;
        let size = self.element.bytes();
        if bytes.is_empty() || !bytes.len().is_multiple_of(size) {
            return Err(Failure::file(
                shown,
                format!("it has {} bytes", bytes.len()),
                format!("{} takes {size} bytes a value", self.element.name()),
            ));
        }
        Ok(bytes)
    }
}

/// Checks the name of a buffer.
///
/// # Errors
/// What a name may be.
pub fn buffer_name(name: &str) -> std::result::Result<&str, String> {
    let good = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(good) {
        return Err(format!(
            "'{name}' is no name of a buffer; use letters, digits, '_' and '.'"
        ));
    }
    Ok(name)
}

fn parse_fill(text: &str) -> std::result::Result<(Element, Fill), String> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "zeros" => shape(rest).map(|(element, count)| (element, Fill::Zeros(count))),
        "uninit" => shape(rest).map(|(element, count)| (element, Fill::Uninitialised(count))),
        "range" => shape(rest).map(|(element, count)| (element, Fill::Range(count))),
        "const" => {
            let (value, rest) = rest
                .split_once(':')
                .ok_or_else(|| format!("'{text}' is not of the form const:VALUE:TYPE[COUNT]"))?;
            let (element, count) = shape(rest)?;
            Ok((element, Fill::Constant(element.value(value)?, count)))
        }
        "random" => {
            let (rest, seed) = match rest.split_once(':') {
                None => (rest, None),
                Some((rest, seed)) => (rest, Some(random_seed(seed)?)),
            };
            let (element, count) = shape(rest)?;
            Ok((element, Fill::Random { count, seed }))
        }
        "file" => {
            let (path, element) = rest
                .rsplit_once(':')
                .filter(|(path, _)| !path.is_empty())
                .ok_or_else(|| format!("'{text}' is not of the form file:PATH:TYPE"))?;
            Ok((Element::parse(element)?, Fill::File(path.into())))
        }
        "ptrs" => {
            let pointers: std::result::Result<Vec<Pointer>, String> =
                rest.split(',').map(Pointer::parse).collect();
            Ok((Element::U64, Fill::Pointers(pointers?)))
        }
        _ => Err(format!(
            "a buffer cannot be filled by '{text}'; use {FILLS}"
        )),
    }
}

fn random_seed(text: &str) -> std::result::Result<u64, String> {
    text.strip_prefix("seed=")
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("'{text}' is not of the form seed=NUMBER"))
}

/// `TYPE[COUNT]` or `TYPE[ROWS,COLUMNS…]`.
fn shape(text: &str) -> std::result::Result<(Element, usize), String> {
    let form = || format!("'{text}' is not of the form TYPE[COUNT], for example f32[1024]");
    let (element, counts) = text
        .strip_suffix(']')
        .and_then(|text| text.split_once('['))
        .ok_or_else(form)?;
    let element = Element::parse(element)?;
    let count = counts.split(',').try_fold(1_usize, |all, count| {
        let count = whole(count.trim()).and_then(|count| usize::try_from(count).ok());
        all.checked_mul(count?)
    });
    match count {
        None => Err(form()),
        Some(0) => Err(format!("'{text}' has no elements; 1 at least")),
        Some(count) if count > MAX_BYTES / element.bytes() => Err(format!(
            "'{text}' has more than {} GiB, the most a buffer may have",
            MAX_BYTES >> 30
        )),
        Some(count) => Ok((element, count)),
    }
}

/// Numbers for buffers: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self, element: Element) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        match element.is_float() {
            // 24 bits are exact in f32, and 2⁻²³ of them is a step of [−1, 1).
            true => element.from_real((z >> 40) as f64 / f64::from(1 << 23) - 1.0),
            false => element.cut(z),
        }
    }
}

/// FNV-1a: buffers without a seed differ by their names.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        match Buffer::parse(text).unwrap().contents().unwrap() {
            Contents::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fills_make_their_bytes() {
        assert_eq!(bytes("a=zeros:u16[3]"), [0; 6]);
        assert_eq!(bytes("a=range:u32[2]"), [0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes("a=range:bf16[2]"), [0, 0, 0x80, 0x3f]);
        assert_eq!(bytes("a=const:-1:s8[2]"), [255, 255]);
        assert_eq!(bytes("a=zeros:u8[2,3]").len(), 6);
        let pointers = Buffer::parse("p=ptrs:a,b+8").unwrap();
        assert_eq!(pointers.contents().unwrap().size(), 16);
        let uninit = Buffer::parse("a@1=uninit:f64[4]").unwrap();
        assert_eq!(uninit.device, Some(1));
        assert_eq!(uninit.contents().unwrap(), Contents::Unwritten(32));
    }

    #[test]
    fn random_numbers_depend_on_seed_or_name() {
        let a = bytes("a=random:f32[1000]");
        assert_ne!(a, bytes("b=random:f32[1000]"));
        assert_eq!(
            bytes("a=random:f32[9]:seed=3"),
            bytes("b=random:f32[9]:seed=3")
        );
        let values = a.as_chunks::<4>().0.iter().map(|&v| f32::from_le_bytes(v));
        let (low, high) = values.fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
        assert!(
            (-1.0..-0.9).contains(&low) && (0.9..1.0).contains(&high),
            "{low} {high}"
        );
    }

    #[test]
    fn bad_buffers_say_what_would_be_right() {
        for (text, words) in [
            ("a", "NAME=FILL"),
            ("=zeros:f32[1]", "name of a buffer"),
            ("a b=zeros:f32[1]", "letters"),
            ("a@x=zeros:f32[1]", "whole number"),
            ("a=ones:f32[1]", "zeros:T[N]"),
            ("a=zeros:f32", "TYPE[COUNT]"),
            ("a=zeros:f32[x]", "f32[1024]"),
            ("a=zeros:f32[0]", "no elements"),
            ("a=zeros:f32[99999999999]", "16 GiB"),
            ("a=zeros:float[1]", "'float' is unknown"),
            ("a=const:f32[1]", "const:VALUE"),
            ("a=const:300:u8[1]", "from 0 to 255"),
            ("a=random:f32[1]:3", "seed=NUMBER"),
            ("a=file:f32", "file:PATH:TYPE"),
        ] {
            let error = Buffer::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let missing = Buffer::parse("a=file:/no/such/file:f32").unwrap();
        let error = missing.contents().unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
