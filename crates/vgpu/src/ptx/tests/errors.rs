//! Bad texts, with the line that is blamed and what is said about it.

use super::text;
use crate::ptx::parse;

#[track_caller]
fn refused(text: &str, line: u32, message: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(
        (error.line, error.message.as_str()),
        (line, message),
        "{text}"
    );
}

#[test]
fn headers() {
    let cases = [
        ("", 1, "expected `.version`, found the end of the text"),
        ("\n\nmodule", 3, "expected `.version`, found `module`"),
        (
            ".version 8",
            1,
            "expected a version such as `8.0`, found `8`",
        ),
        (
            ".version\n9.1",
            2,
            "PTX 9.1 is newer than 9.0, the newest version known here",
        ),
        (
            ".version 8.0\n.entry",
            2,
            "expected `.target`, found `.entry`",
        ),
        (
            ".version 8.0\n.target gpu",
            2,
            "expected an architecture such as `sm_80`, found `gpu`",
        ),
        (
            ".version 8.0\n.target sm_80, map_f64_to_f32\n",
            2,
            "the target option `map_f64_to_f32` is unknown",
        ),
        (
            ".version 8.0\n.target sm_80\n.entry",
            3,
            "expected `.address_size 64`, found `.entry`",
        ),
        (
            ".version 8.0\n.target sm_80\n.address_size 32",
            3,
            "expected 64, the only address size supported, found `32`",
        ),
        (".version 8.0 /* open", 1, "the comment has no `*/`"),
    ];
    for (text, line, message) in cases {
        refused(text, line, message);
    }
}

#[test]
fn module_scope() {
    let cases = [
        ("ret;", "expected a directive, found `ret`"),
        (".version 8.0", "`.version` stands once, at the start"),
        (".alias a, b;", "`.alias` is not supported"),
        (
            ".visible .visible .global .u32 a;",
            "the directive `.visible` is unknown",
        ),
        (
            ".visible a",
            "expected a variable, `.func` or `.entry`, found `a`",
        ),
        (
            ".file \"a\"",
            "expected the index of a file, found a string",
        ),
        (".file 1 \"a", "the string has no closing quote on its line"),
        (".file 1 \"a\", 5;", "expected `,`, found `;`"),
        (".pragma 5;", "expected a string, found `5`"),
        (
            ".section .text { }",
            "expected a section of debugging data such as `.debug_str`, found `.text`",
        ),
        (".section .debug_str { .b8 1", "the section has no `}`"),
        (".func (a) f;", "expected `.param` or `.reg`, found `a`"),
        (
            ".func f(.param a);",
            "expected the type of a parameter, found `a`",
        ),
        (
            ".func f(.param .u32 .v2 a);",
            "`.v2` does not belong to a parameter here",
        ),
        (
            ".func f(.param .pred a);",
            "a predicate has no memory to be passed in",
        ),
        (".func f(.param .u32 a;", "expected `,` or `)`, found `;`"),
        (
            ".func f(.param .u32 a,);",
            "expected `.param` or `.reg`, found `)`",
        ),
        (".func f() a", "expected a directive, `{` or `;`, found `a`"),
        (".entry f() .maxntid 0 { }", "a size cannot be 0"),
        (".entry f() .maxntid { }", "expected a size, found `{`"),
        (
            ".entry f() .maxnreg 4294967296 { }",
            "a register count cannot be as large as 4294967296",
        ),
        (
            ".entry f() .fast { }",
            "the function directive `.fast` is not supported",
        ),
        ("#define a", "preprocessor lines (`#`) are not part of PTX"),
        (".func f\u{e9};", "the character 'é' is not part of PTX"),
        (". visible", "expected a word behind `.`"),
    ];
    for (declaration, message) in cases {
        refused(&text(declaration, "ret;"), 4, message);
    }
}

#[test]
fn bodies() {
    let cases = [
        // A forgotten `;` is blamed on the statement that lacks it.
        (
            "add.u32 a, b, c\nret;",
            6,
            "expected `,` or `;`, found `ret`",
        ),
        ("ret;\n\nret", 8, "expected an operand or `;`, found `}`"),
        (
            "ret;\n\nret\n\nbra L;",
            10,
            "expected `,` or `;`, found `L`, in the statement that starts in line 8",
        ),
        ("ret;;", 6, "expected a statement, found `;`"),
        ("ret;\n.reg .u32 a", 7, "expected `,` or `;`, found `}`"),
        ("\nld.u32 a, [b;", 7, "expected `]`, found `;`"),
        (
            "ld.u32 a, [];",
            6,
            "expected a register, a variable or an address, found `]`",
        ),
        (
            "ld.u32 a, [_];",
            6,
            "expected a register, a variable or an address, found `_`",
        ),
        ("ld.u32 a, [b+%r1];", 6, "expected a constant, found `%r1`"),
        (
            "ld.u32 a, [b+1.5];",
            6,
            "an offset is an integer that fits `.s64`",
        ),
        (
            "ld.u32 a, [b+0x8000000000000000];",
            6,
            "an offset is an integer that fits `.s64`",
        ),
        ("ld.u32 a, [1.5];", 6, "an address is an integer"),
        (
            "ld.u32 a, [b, c];",
            6,
            "expected coordinates in `{…}`, found `c`",
        ),
        (
            "ld.u32 a, b[2];",
            6,
            "indexing a variable is not supported; write `[name+bytes]` or `name+bytes`",
        ),
        ("mov.u32 a, @;", 6, "expected an operand, found `@`"),
        ("mov.u32 {};", 6, "expected an operand, found `}`"),
        (
            "mov.u32 {a, {b}};",
            6,
            "a vector holds registers and constants, not vectors",
        ),
        ("mov.u32 {a b};", 6, "expected `,` or `}`, found `b`"),
        ("mov.u32 a,;", 6, "expected an operand, found `;`"),
        ("mov.u32 a|1;", 6, "expected a register, found `1`"),
        ("mov.u32 (a);", 6, "expected a constant, found `a`"),
        ("mov.u32 !1.0;", 6, "`!` needs integers"),
        ("mov. u32 a;", 6, "expected a word behind `.`"),
        ("call f, (a;", 6, "expected `,` or `)`, found `;`"),
        ("call f, ((a));", 6, "expected a constant, found `a`"),
        ("%r1 a;", 6, "expected an instruction, found `%r1`"),
        ("@1 ret;", 6, "expected a predicate register, found `1`"),
        ("@p;", 6, "expected an instruction, found `;`"),
        ("@p L: ret;", 6, "expected an instruction, found `L`"),
        ("@p l: ret;", 6, "expected an operand or `;`, found `:`"),
        (
            ".reg .u32 a<1048577>;",
            6,
            "1048577 registers are more than 1048576",
        ),
        (".reg .u32 a<2;", 6, "expected `>`, found `;`"),
        (".reg .align 4 .u32 a;", 6, "a register has no alignment"),
        (".maxnreg 32;", 6, "`.maxnreg` does not start a statement"),
        (
            ".extern .reg .u32 a;",
            6,
            "`.extern` does not start a statement",
        ),
        (".loc 1 2\nret;", 7, "expected a source column, found `ret`"),
        (
            ".loc 1 2 3, at 4",
            6,
            "expected `function_name` or `inlined_at`, found `at`",
        ),
        ("t: .branchtargets ;", 6, "expected a name, found `;`"),
        ("t: .callprototype f;", 6, "expected `_`, found `f`"),
        ("ret;\n{ ret;", 5, "this `{` has no `}`"),
        ("ret; }\n}", 7, "expected a directive, found `}`"),
    ];
    for (body, line, message) in cases {
        refused(&text("", body), line, message);
    }
}

#[test]
fn the_message_shows_the_line() {
    let error = parse(&text("", "  ld.global.u32 %r1, [%rd1;  ")).expect_err("no bracket");
    assert_eq!(error.text, "ld.global.u32 %r1, [%rd1;");
    assert_eq!(
        error.to_string(),
        "PTX line 6: expected `]`, found `;`\n    ld.global.u32 %r1, [%rd1;"
    );
}

#[test]
fn a_long_line_is_cut_between_characters() {
    let error = parse(&format!("x{}", "é".repeat(1000))).expect_err("no directive");
    assert_eq!(error.text.chars().count(), 161);
    assert!(error.text.ends_with("é…"));
    let error = parse(&text("", &format!("{}:;", "a".repeat(1000)))).expect_err("no statement");
    assert_eq!(error.message, "expected a statement, found `;`");
    let error = parse(&text("", &format!("mov 1 {};", "a".repeat(1000)))).expect_err("no comma");
    assert!(error.message.len() < 120, "{}", error.message);
}
