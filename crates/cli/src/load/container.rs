//! The safetensors container: header and extent of every tensor, checked before anything is used.
//!
//! The format: 8 bytes of header length (little-endian), a JSON object from tensor names to dtype,
//! shape and byte range, then the data, which the tensors cover without gap or overlap. It is read
//! here rather than by the `safetensors` crate so that an error can name the tensor, what it claims
//! and what is there.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::tensor::Tensor;
use crate::error::{Failure, Result};

/// Bytes of the header's length.
const PREFIX: usize = 8;
/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// What to do about a file whose bytes make no sense.
const DAMAGED: &str = "copy or export it again as safetensors";

/// A safetensors file in memory whose header has been checked against its bytes.
#[derive(Debug)]
pub struct Container<'a> {
    file: String,
    tensors: BTreeMap<String, Extent>,
    data: &'a [u8],
}

/// Type, shape and place of one tensor.
#[derive(Debug, Clone, PartialEq)]
struct Extent {
    dtype: String,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

impl<'a> Container<'a> {
    /// Reads the header of `bytes`; `file` is the name that errors use.
    ///
    /// # Errors
    /// A header that is no JSON object of tensors, or claims what the bytes do not hold.
    pub fn parse(file: &str, bytes: &'a [u8]) -> Result<Self> {
        let damaged = |problem: String| Failure::file(file, problem, DAMAGED);
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
            let len = bytes.len();
            return Err(damaged(format!(
                "holds {len} bytes, a safetensors file begins with {PREFIX} bytes of header length"
            )));
        };
        let claimed = u64::from_le_bytes(*prefix);
        if claimed > MAX_HEADER || claimed > rest.len() as u64 {
            let limit = MAX_HEADER.min(rest.len() as u64);
            return Err(damaged(format!(
                "its header claims {claimed} bytes where at most {limit} can be: truncated, or not \
                 a safetensors file"
            )));
        }
        let (header, data) = rest.split_at(claimed as usize);
        let header: Map<String, Value> = serde_json::from_slice(header)
            .map_err(|e| damaged(format!("its header is not a JSON object ({e})")))?;
        let mut tensors = BTreeMap::new();
        for (name, entry) in header {
            if name == "__metadata__" {
                continue;
            }
            let extent = extent(&entry, data.len())
                .map_err(|problem| damaged(format!("tensor '{name}' {problem}")))?;
            tensors.insert(name, extent);
        }
        covered(&tensors, data.len()).map_err(damaged)?;
        Ok(Self {
            file: file.to_owned(),
            tensors,
            data,
        })
    }

    /// The file's name in errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of a name, if there is one.
    pub fn get<'b>(&'b self, name: &'b str) -> Option<Tensor<'b>> {
        let extent = self.tensors.get(name)?;
        Some(Tensor {
            file: &self.file,
            name,
            dtype: &extent.dtype,
            shape: &extent.shape,
            bytes: &self.data[extent.start..extent.end],
        })
    }

    /// The tensor of a name.
    ///
    /// # Errors
    /// There is none; what there is instead is listed.
    pub fn require<'b>(&'b self, name: &'b str) -> Result<Tensor<'b>> {
        self.get(name).ok_or_else(|| {
            Failure::file(
                &self.file,
                format!("has no tensor '{name}', only {}", self.listing()),
                "give a file that has it, with the layer in one piece",
            )
        })
    }

    /// The names, as many as fit a line.
    pub fn listing(&self) -> String {
        list(self.names().map(str::to_owned).collect())
    }
}

/// At most six names and how many more there are.
pub(super) fn list(names: Vec<String>) -> String {
    const SHOWN: usize = 6;
    if names.is_empty() {
        return "no tensors at all".to_owned();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|n| format!("'{n}'")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// One entry of the header, checked by itself; `available` is the length of the data.
fn extent(entry: &Value, available: usize) -> std::result::Result<Extent, String> {
    let count = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    let field = |key: &str| entry.get(key).ok_or_else(|| format!("has no '{key}'"));
    let dtype = field("dtype")?;
    let dtype = dtype
        .as_str()
        .ok_or_else(|| format!("has dtype {dtype}, must be a name"))?
        .to_owned();
    let shape = field("shape")?;
    let shape: Vec<usize> = shape
        .as_array()
        .and_then(|dims| dims.iter().map(count).collect())
        .ok_or_else(|| format!("has shape {shape}, must be a list of sizes"))?;
    let offsets = field("data_offsets")?;
    let Some(&[start, end]) = offsets
        .as_array()
        .and_then(|ends| ends.iter().map(count).collect::<Option<Vec<usize>>>())
        .as_deref()
    else {
        return Err(format!(
            "has data_offsets {offsets}, must be [begin, end] in bytes"
        ));
    };
    if start > end || end > available {
        return Err(format!(
            "lies at bytes {start}..{end} of the data, which has {available}: truncated, or its \
             header lies"
        ));
    }
    // A type that this crate does not know is no error as long as nobody needs the tensor.
    let known = serde_json::from_value::<Dtype>(Value::String(dtype.clone()));
    if let Ok(known) = known {
        let bits = shape
            .iter()
            .try_fold(known.bitsize(), |bits, &n| bits.checked_mul(n))
            .ok_or_else(|| format!("has shape {shape:?}, whose size overflows {}", usize::MAX))?;
        let held = end - start;
        if bits.div_ceil(8) != held {
            let needed = bits.div_ceil(8);
            return Err(format!(
                "of {dtype} {shape:?} needs {needed} bytes, but its data_offsets give it {held}"
            ));
        }
    }
    Ok(Extent {
        dtype,
        shape,
        start,
        end,
    })
}

/// Whether the tensors cover the data without gap or overlap, as the format demands.
fn covered(
    tensors: &BTreeMap<String, Extent>,
    available: usize,
) -> std::result::Result<(), String> {
    let mut order: Vec<(&String, &Extent)> = tensors.iter().collect();
    order.sort_by_key(|(_, extent)| (extent.start, extent.end));
    let mut end = 0;
    for (name, extent) in order {
        if extent.start != end {
            let start = extent.start;
            return Err(format!(
                "tensor '{name}' begins at byte {start} of the data, where {end} was to come"
            ));
        }
        end = extent.end;
    }
    match available - end {
        0 => Ok(()),
        more => Err(format!(
            "{more} bytes follow its last tensor, which ends at byte {end} of the data"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this header and this much data.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn the_format_is_read() {
        let bytes = file(
            r#"{"__metadata__":{"a":"b"},
               "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
               "a":{"dtype":"NEW","shape":[9],"data_offsets":[0,4]}}"#,
            12,
        );
        let container = Container::parse("f", &bytes).unwrap();
        assert_eq!(container.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(container.get("b").unwrap().bytes.len(), 8);
        let missing = container.require("c").unwrap_err().to_string();
        assert!(
            missing.contains("f: has no tensor 'c', only 'a', 'b';"),
            "{missing}"
        );
    }

    #[test]
    fn lies_are_named() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"x":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let cases = [
            (vec![], "holds 0 bytes"),
            (vec![1; 7], "holds 7 bytes"),
            (
                vec![255; 20],
                "claims 18446744073709551615 bytes where at most 12 can be",
            ),
            (file("{", 0), "not a JSON object"),
            (file("[1]", 0), "not a JSON object"),
            (file(r#"{"x":1}"#, 0), "tensor 'x' has no 'dtype'"),
            (file(&one("1", "[1]", "[0,4]"), 4), "has dtype 1"),
            (file(&one(r#""F32""#, "[-1]", "[0,4]"), 4), "has shape [-1]"),
            (
                file(&one(r#""F32""#, "[1.5]", "[0,4]"), 4),
                "has shape [1.5]",
            ),
            (
                file(&one(r#""F32""#, "[1]", "[0]"), 4),
                "has data_offsets [0]",
            ),
            (
                file(&one(r#""F32""#, "[1]", "[0,8]"), 4),
                "lies at bytes 0..8 of the data, which has 4",
            ),
            (
                file(&one(r#""F32""#, "[1]", "[4,0]"), 4),
                "lies at bytes 4..0",
            ),
            (
                file(&one(r#""F32""#, "[2]", "[0,4]"), 4),
                "needs 8 bytes, but its data_offsets give it 4",
            ),
            (
                file(&one(r#""F32""#, "[4294967296,4294967296]", "[0,4]"), 4),
                "overflows 18446744073709551615",
            ),
            (
                file(&one(r#""F32""#, "[1]", "[4,8]"), 8),
                "begins at byte 4 of the data, where 0",
            ),
            (
                file(&one(r#""F32""#, "[1]", "[0,4]"), 9),
                "5 bytes follow its last tensor",
            ),
        ];
        for (bytes, expected) in cases {
            let error = Container::parse("f", &bytes).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error} should contain {expected}"
            );
        }
    }
}
