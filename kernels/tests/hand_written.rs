//! PTX that is written by hand reads its parameters by offset: the list in its head is the
//! declaration's.

use tollgate_kernels::abi::selection::DrawParams;
use tollgate_kernels::abi::{Abi, Struct};
use tollgate_kernels::registry::selection::DRAW;

/// The lines `//     +8  name  type …` of a source.
fn listed(ptx: &str) -> Vec<(usize, &str, &str)> {
    ptx.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("//     +")?;
            let (offset, rest) = line.split_once(' ')?;
            let (name, rest) = rest.trim_start().split_once("  ")?;
            let c_type = rest.trim_start().split("  ").next()?;
            Some((offset.parse().ok()?, name, c_type))
        })
        .collect()
}

#[track_caller]
fn check(ptx: &str, declared: &Struct) {
    let fields = declared.fields.iter();
    let fields: Vec<_> = fields.map(|f| (f.offset, f.name, f.c_type)).collect();
    assert_eq!(listed(ptx), fields, "{}", declared.name);
    // The parameter's size.
    let size = format!(".b8 p[{}]", declared.size);
    assert!(ptx.contains(&size), "{}: no {size}", declared.name);
}

#[test]
fn parameters_are_read_where_they_stand() {
    check(DRAW.sm_80, &DrawParams::STRUCT);
}
