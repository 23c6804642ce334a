//! Texts made to exhaust the stack, the memory or the patience of the reader.

use std::time::{Duration, Instant};

use super::{read, text};
use crate::ptx::{Statement, parse};

const DEEP: usize = 200_000;

#[track_caller]
fn too_deep(body: &str) {
    let error = parse(&text("", body)).expect_err("nested too deeply");
    assert_eq!(error.message, "nested deeper than 128 levels");
}

#[test]
fn depth_is_limited() {
    too_deep(&"{".repeat(DEEP));
    too_deep(&format!("op {}", "(".repeat(DEEP)));
    too_deep(&format!("op {}1;", "-".repeat(DEEP)));
    too_deep(&format!("op {}1;", "(.u64)".repeat(DEEP)));
    too_deep(&format!("op {}1;", "1?2:".repeat(DEEP)));
    too_deep(&format!("op {}1;", "1?".repeat(DEEP)));
    too_deep(&format!("op [a+{}", "(".repeat(DEEP)));
}

#[test]
fn reasonable_depth_is_read() {
    let depth = 120;
    let module = read(&text(
        "",
        &format!("{}ret;{}", "{".repeat(depth), "}".repeat(depth)),
    ));
    let mut statements = module.functions[0].body.as_deref().expect("a body");
    for _ in 0..depth {
        let [Statement::Block(inner)] = statements else {
            panic!("{statements:?}")
        };
        statements = inner;
    }
    assert_eq!(statements.len(), 1);
    // Long is not deep.
    read(&text("", &format!("op {}1;", "1+".repeat(DEEP))));
}

#[test]
fn sizes_are_limited() {
    let cases = [
        (
            ".global .u8 g[0x10000000001];",
            "larger than 1099511627776 bytes",
        ),
        (
            ".global .u32 g[0x8000000000000000][8];",
            "larger than 1099511627776 bytes",
        ),
        (
            ".shared .v4 .f64 g[0xFFFFFFFFFFFFFFFF];",
            "larger than 1099511627776 bytes",
        ),
        (
            ".func f(.param .b8 g[1099511627777]);",
            "larger than 1099511627776 bytes",
        ),
        (
            ".func f(.reg .pred p[0x8000000000000000][2]);",
            "larger than 1099511627776 bytes",
        ),
        (
            ".global .u8 g[2][0x4000000000] = {{1}, {2}};",
            "the initial values take too much memory",
        ),
        (
            ".global .u8 g[][0x4000000000] = {{}, {}, {}, {}, {}};",
            "larger than 1099511627776 bytes",
        ),
    ];
    for (declaration, message) in cases {
        let error = parse(&text(declaration, "ret;")).expect_err(declaration);
        assert_eq!(
            (error.line, error.message.as_str()),
            (4, message),
            "{declaration}"
        );
    }
    let many = "[2]".repeat(17);
    let error = parse(&text(&format!(".global .u8 g{many};"), "")).expect_err("17 dimensions");
    assert_eq!(error.message, "an array has at most 16 dimensions");
}

#[test]
fn sparse_initial_values_share_a_budget() {
    // Each takes 600 KiB for forty characters; a dense table of the same size would be fine.
    let one = ".global .u8 g[2][600000] = {{1}, {2}}; ";
    assert_eq!(read(&text(one, "")).variables[0].bytes(), 1_200_000);
    let error = parse(&text(&one.repeat(100), "")).expect_err("60 MB of zeros");
    assert_eq!(error.message, "the initial values take too much memory");
    let dense = format!(".global .b128 g[] = {{{}0}};", "0,".repeat(DEEP));
    assert_eq!(
        read(&text(&dense, "")).variables[0].elements,
        DEEP as u64 + 1
    );
}

#[test]
fn time_is_linear() {
    // Two megabytes of each kind take milliseconds in a release build. The limit is generous
    // because the tests share their machine; a quadratic reader would take hours.
    let count = 100_000;
    let instructions = "ld.global.u32 %r1, [%rd1+4];\n".repeat(count);
    let texts = [
        text("", &instructions),
        text("", &"L: ".repeat(count * 7)),
        text("", &"/**/".repeat(count * 5)),
        text("", &"// comment\n".repeat(count * 2)),
        text("", &format!("op {}a;", "a, ".repeat(count * 7))),
        text("", &format!("op {};", "9".repeat(count * 20))),
        text("", &format!("op{};", ".a::b".repeat(count * 4))),
        text("", &format!("op {};", "!".repeat(count * 20))),
        text("", &format!("op .{};", "5".repeat(count * 20))),
        text(&format!(".file 1 \"{}", "é".repeat(count * 10)), ""),
        format!("/*{}", "*".repeat(count * 20)),
    ];
    for text in texts {
        let start = Instant::now();
        let outcome = parse(&text);
        let took = start.elapsed();
        let start = &text[text.len().min(80)..text.len().min(120)];
        assert!(
            took < Duration::from_secs(5),
            "{took:?} for {start:?}: {:?}",
            outcome.is_ok()
        );
    }
}
