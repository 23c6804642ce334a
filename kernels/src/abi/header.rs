//! The C side of the parameter structs.

use std::fmt::Write;

use super::{Abi, StatusBlock, StepBlock, gating, gemm, permute, selection};

/// A field of a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name, the same on both sides.
    pub name: &'static str,
    /// Its type in C. A type that ends in `[n]` is an array.
    pub c_type: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A struct's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Struct {
    /// Its name, the same on both sides.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Bytes.
    pub align: usize,
    /// Its fields, in order, without gaps.
    pub fields: &'static [Field],
}

/// A generated header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// From the package's folder.
    pub path: &'static str,
    /// What it must hold.
    pub text: String,
}

/// All headers as they must be.
pub fn headers() -> Vec<Header> {
    [
        ("common", &[StepBlock::STRUCT, StatusBlock::STRUCT][..]),
        ("gating", gating::STRUCTS),
        ("selection", selection::STRUCTS),
        ("permute", permute::STRUCTS),
        ("gemm", gemm::STRUCTS),
    ]
    .into_iter()
    .map(|(family, structs)| Header {
        path: match family {
            "common" => "include/tollgate/abi/common.h",
            "gating" => "include/tollgate/abi/gating.h",
            "selection" => "include/tollgate/abi/selection.h",
            "permute" => "include/tollgate/abi/permute.h",
            _ => "include/tollgate/abi/gemm.h",
        },
        text: header(family, structs),
    })
    .collect()
}

fn header(family: &str, structs: &[Struct]) -> String {
    let mut text = format!(
        "// Generated from src/abi/{family}.rs; `TOLLGATE_BLESS=1 cargo test -p tollgate-kernels \
         headers` writes it.\n#pragma once\n\n#include <cstddef>\n#include <cstdint>\n\n"
    );
    if family != "common" {
        text.push_str("#include \"tollgate/abi/common.h\"\n\n");
    }
    text.push_str("namespace tollgate {\n");
    for s in structs {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nstruct {} {{\n", s.name);
        for f in s.fields {
            let (c_type, array) = match f.c_type.find('[') {
                Some(at) => f.c_type.split_at(at),
                None => (f.c_type, ""),
            };
            let _ = writeln!(text, "    {} {}{array};", c_type.trim_end(), f.name);
        }
        text.push_str("};\n");
        let _ = writeln!(text, "static_assert(sizeof({}) == {});", s.name, s.size);
        let _ = writeln!(text, "static_assert(alignof({}) == {});", s.name, s.align);
        for f in s.fields {
            let _ = writeln!(
                text,
                "static_assert(offsetof({}, {}) == {});",
                s.name, f.name, f.offset
            );
        }
    }
    text.push_str("\n}  // namespace tollgate\n");
    text
}
