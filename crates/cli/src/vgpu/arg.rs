//! `--arg`: what a kernel is given, and how it becomes the bytes of a parameter.

use tollgate_vgpu::program::EntryParam;

use super::buffer::{Buffer, FILLS};
use super::element::{Element, whole};
use super::map::MapSpec;
use super::place::Pointer;

/// An argument as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// `7`: its type is the parameter's.
    Bare(String),
    /// `u32:7`
    Scalar(Element, u64),
    /// `buf:NAME+16`
    Pointer(Pointer),
    /// `buf:NAME=zeros:f32[8]`
    Buffer(Buffer),
    /// `bytes:00ff`
    Bytes(Vec<u8>),
    /// `struct:u64=@x,u32=5`
    Struct(Vec<Field>),
    /// `map:NAME,bf16,dims=…,box=…`
    Map(MapSpec),
}

/// A member of a structure.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// `u32=5`
    Value(Element, u64),
    /// `u64=@x+16`
    Pointer(Pointer),
    /// `pad=4`
    Padding(usize),
}

/// The forms, for messages.
const FORMS: &str = "7, u32:7, buf:NAME, buf:NAME=FILL, bytes:HEX, struct:TYPE=VALUE,…, map:NAME,…";

impl Arg {
    /// Reads an argument.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, rest)) = text.split_once(':') else {
            return match text.is_empty() || text.contains('=') {
                true => Err(format!(
                    "'{text}' is no argument; write {FORMS}; FILL is {FILLS}"
                )),
                false => Ok(Self::Bare(text.to_owned())),
            };
        };
        match kind {
            "buf" if rest.contains('=') => Buffer::parse(rest).map(Self::Buffer),
            "buf" => Pointer::parse(rest).map(Self::Pointer),
            "bytes" => hex(rest).map(Self::Bytes),
            "struct" => rest
                .split(',')
                .map(Field::parse)
                .collect::<Result<_, _>>()
                .map(Self::Struct),
            "map" => MapSpec::parse(rest).map(Self::Map),
            _ => match Element::parse(kind) {
                Ok(element) => Ok(Self::Scalar(element, element.value(rest)?)),
                Err(_) => Err(format!(
                    "'{text}' is no argument; write {FORMS}; FILL is {FILLS}"
                )),
            },
        }
    }

    /// The parameter's bytes, where `address` says where buffers are.
    ///
    /// # Errors
    /// The argument does not fit the parameter; says what would. Errors of `address`.
    pub fn bytes(
        &self,
        param: &EntryParam,
        address: &dyn Fn(&Pointer) -> Result<u64, String>,
    ) -> Result<Vec<u8>, String> {
        let bytes = match self {
            Self::Bare(text) => {
                let element = Element::parse(&param.ty).map_err(|_| {
                    format!("'{text}' has no type of its own; write TYPE:{text}, or bytes:HEX")
                })?;
                little(element, element.value(text)?)
            }
            Self::Scalar(element, bits) => little(*element, *bits),
            Self::Pointer(pointer) => address(pointer)?.to_le_bytes().to_vec(),
            Self::Buffer(buffer) => {
                let name = buffer.name.clone();
                address(&Pointer { name, offset: 0 })?
                    .to_le_bytes()
                    .to_vec()
            }
            Self::Bytes(bytes) => bytes.clone(),
            Self::Struct(fields) => layout(fields, address)?,
            Self::Map(map) => {
                let map = map.encode(address(&map.origin)?);
                map.map_err(|error| error.to_string())?.to_vec()
            }
        };
        if bytes.len() != param.bytes as usize {
            return Err(format!(
                "it has {} bytes, the parameter {} ({}); {}",
                bytes.len(),
                param.bytes,
                param.ty,
                self.advice(param)
            ));
        }
        Ok(bytes)
    }

    fn advice(&self, param: &EntryParam) -> String {
        match self {
            Self::Scalar(..) if Element::parse(&param.ty).is_ok() => {
                format!("write {}:VALUE or the value alone", param.ty)
            }
            Self::Struct(_) => {
                "members have their natural alignment; pad=BYTES adds space".to_owned()
            }
            _ if Element::parse(&param.ty).is_ok() => format!("write {}:VALUE", param.ty),
            _ => "write struct:TYPE=VALUE,… or bytes:HEX".to_owned(),
        }
    }

    /// The buffers it names but does not define.
    pub fn pointers(&self) -> Vec<&Pointer> {
        match self {
            Self::Pointer(pointer) => vec![pointer],
            Self::Map(map) => vec![&map.origin],
            Self::Struct(fields) => fields
                .iter()
                .filter_map(|field| match field {
                    Field::Pointer(pointer) => Some(pointer),
                    Field::Value(..) | Field::Padding(_) => None,
                })
                .collect(),
            Self::Bare(_) | Self::Scalar(..) | Self::Buffer(_) | Self::Bytes(_) => Vec::new(),
        }
    }
}

impl Field {
    fn parse(text: &str) -> Result<Self, String> {
        let (ty, value) = text.split_once('=').ok_or_else(|| {
            format!("'{text}' is no member; write TYPE=VALUE, u64=@NAME or pad=BYTES")
        })?;
        if ty == "pad" {
            let bytes = whole(value).filter(|bytes| (1..=4096).contains(bytes));
            let bytes = bytes.ok_or_else(|| format!("pad is '{value}', must be from 1 to 4096"))?;
            return Ok(Self::Padding(bytes as usize));
        }
        let element = Element::parse(ty)?;
        match value.strip_prefix('@') {
            Some(pointer) if element == Element::U64 => Ok(Self::Pointer(Pointer::parse(pointer)?)),
            Some(_) => Err(format!("'{text}': an address takes a u64")),
            None => Ok(Self::Value(element, element.value(value)?)),
        }
    }
}

fn little(element: Element, bits: u64) -> Vec<u8> {
    bits.to_le_bytes()[..element.bytes()].to_vec()
}

/// Members at their natural alignment, padded at the end to the largest.
fn layout(
    fields: &[Field],
    address: &dyn Fn(&Pointer) -> Result<u64, String>,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut largest = 1;
    for field in fields {
        let (element, bits) = match field {
            Field::Padding(count) => {
                bytes.resize(bytes.len() + count, 0);
                continue;
            }
            Field::Value(element, bits) => (*element, *bits),
            Field::Pointer(pointer) => (Element::U64, address(pointer)?),
        };
        largest = largest.max(element.bytes());
        bytes.resize(bytes.len().next_multiple_of(element.bytes()), 0);
        bytes.extend(little(element, bits));
    }
    bytes.resize(bytes.len().next_multiple_of(largest), 0);
    Ok(bytes)
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 && !digits.is_empty() => Ok(digits
            .chunks(2)
            .map(|pair| (pair[0] << 4 | pair[1]) as u8)
            .collect()),
        _ => Err(format!(
            "'{text}' is not bytes in hexadecimal, two digits each"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(ty: &str, bytes: u32) -> EntryParam {
        EntryParam {
            name: "p".to_owned(),
            offset: 0,
            bytes,
            ty: ty.to_owned(),
        }
    }

    fn bind(text: &str, ty: &str, bytes: u32) -> Result<Vec<u8>, String> {
        let address = |pointer: &Pointer| match &*pointer.name {
            "x" => Ok(0x1000_u64.wrapping_add_signed(pointer.offset)),
            name => Err(format!("no buffer {name}")),
        };
        Arg::parse(text)?.bytes(&param(ty, bytes), &address)
    }

    #[test]
    fn arguments_become_bytes() {
        assert_eq!(bind("7", "u32", 4).unwrap(), [7, 0, 0, 0]);
        assert_eq!(bind("-1", "s64", 8).unwrap(), [255; 8]);
        assert_eq!(bind("1.5", "f32", 4).unwrap(), 1.5_f32.to_le_bytes());
        assert_eq!(bind("f16:1", "b16", 2).unwrap(), [0, 0x3c]);
        assert_eq!(
            bind("buf:x+16", "u64", 8).unwrap(),
            0x1010_u64.to_le_bytes()
        );
        assert_eq!(
            bind("buf:x=zeros:f32[4]", "u64", 8).unwrap(),
            0x1000_u64.to_le_bytes()
        );
        assert_eq!(bind("bytes:00fF", "b8[2]", 2).unwrap(), [0, 255]);
        let layout = bind("struct:u8=1,u64=@x,u16=2", "b8[24]", 24).unwrap();
        assert_eq!(layout[..2], [1, 0]);
        assert_eq!((layout[9], layout[16], layout[23]), (0x10, 2, 0));
        assert_eq!(bind("struct:u8=1,pad=7", "b8[8]", 8).unwrap().len(), 8);
        assert_eq!(
            bind("map:x,f32,dims=8,8,box=8,8", "b8[128]", 128)
                .unwrap()
                .len(),
            128
        );
    }

    #[test]
    fn what_does_not_fit_is_told_what_would() {
        for (text, ty, bytes, words) in [
            ("", "u32", 4, "u32:7"),
            ("x=3", "u32", 4, "buf:NAME=FILL"),
            ("int:3", "u32", 4, "'int:3' is no argument"),
            ("u64:3", "u32", 4, "write u32:VALUE"),
            ("buf:x", "u32", 4, "8 bytes, the parameter 4 (u32)"),
            ("3", "b8[16]", 16, "TYPE:3"),
            ("u32:3", "b8[16]", 16, "struct:TYPE=VALUE"),
            ("struct:u32=1", "b8[16]", 16, "pad=BYTES"),
            ("struct:5", "b8[16]", 16, "TYPE=VALUE"),
            ("struct:u32=@x", "b8[16]", 16, "takes a u64"),
            ("bytes:0", "b8[16]", 16, "two digits"),
            ("buf:y", "u64", 8, "no buffer y"),
            ("1e9", "s32", 4, "whole number from -2147483648"),
            (
                "map:x,f32,dims=3,3,box=3,3",
                "b8[128]",
                128,
                "multiple of 16",
            ),
        ] {
            let error = bind(text, ty, bytes).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
