//! Variables, their initial values, and registers.

use super::{Statement, body, module, text};
use crate::ptx::{Space, Type, Variable, parse};

fn variable(declaration: &str) -> Variable {
    let mut variables = module(declaration).variables;
    assert_eq!(variables.len(), 1, "{declaration}");
    variables.remove(0)
}

#[track_caller]
fn bytes(declaration: &str, expected: &[u8]) {
    let init = variable(declaration).init.expect("an initial value");
    assert_eq!(init.bytes, expected, "{declaration}");
    assert!(init.addresses.is_empty(), "{declaration}");
}

#[track_caller]
fn addresses(declaration: &str, expected: &[(u64, &str, i64, bool)]) {
    let init = variable(declaration).init.expect("an initial value");
    let found: Vec<_> = init
        .addresses
        .iter()
        .map(|(offset, symbol, addend, generic)| (*offset, symbol.as_str(), *addend, *generic))
        .collect();
    assert_eq!(found, expected, "{declaration}");
}

#[track_caller]
fn refused(declaration: &str, message: &str) {
    let error = parse(&text(declaration, "ret;")).expect_err(declaration);
    assert_eq!(
        (error.line, error.message.as_str()),
        (4, message),
        "{declaration}"
    );
}

#[test]
fn spaces_types_and_linkage() {
    let found = variable(".visible .global .align 16 .v4 .f32 g[2];");
    assert_eq!(
        (found.space, found.ty, found.vector),
        (Space::Global, Type::F32, 4)
    );
    assert_eq!((found.align, found.elements, found.bytes()), (16, 2, 32));
    assert!(found.is_visible && !found.is_extern && found.init.is_none());
    assert_eq!((found.name.as_str(), found.line), ("g", 4));

    let dynamic = variable(".extern .shared .align 16 .b8 dyn[];");
    assert_eq!(
        (dynamic.space, dynamic.elements, dynamic.align),
        (Space::Shared, 0, 16)
    );
    assert!(dynamic.is_extern && !dynamic.is_visible);

    assert!(variable(".weak .const .u32 w;").is_visible);
    assert!(variable(".common .global .u32 w;").is_visible);
    let managed = variable(".global .attribute(.managed) .align 4 .u32 m = 3;");
    assert_eq!(managed.init.expect("an initial value").bytes, [3, 0, 0, 0]);
    assert_eq!(variable(".global .b128 q;").align, 16);
    assert_eq!(variable(".global .v2 .u16 v;").align, 4);
    assert_eq!(variable(".shared .u8 s[2][3][4];").elements, 24);
    assert_eq!(variable(".shared .u8 s[2*WARP_SZ];").elements, 64);
    assert_eq!(variable(".global .u8 $a_1$;").name, "$a_1$");
}

#[test]
fn several_names_share_a_declaration() {
    let names: Vec<_> = module(".global .u32 a, b[3], c = 4;")
        .variables
        .iter()
        .map(|found| (found.name.clone(), found.elements, found.init.is_some()))
        .collect();
    let expected = [("a", 1, false), ("b", 3, false), ("c", 1, true)];
    assert_eq!(
        names,
        expected.map(|(name, count, init)| (name.to_owned(), count, init))
    );
}

#[test]
fn numbers_become_bytes() {
    bytes(".global .u32 g = -5;", &(-5_i32).to_le_bytes());
    bytes(".global .u32 g = 3+4;", &[7, 0, 0, 0]);
    bytes(".global .u8 g = 300;", &[44]);
    bytes(".global .u64 g = 0xFFFFFFFFFFFFFFFF;", &[255; 8]);
    bytes(".global .b128 g = -1;", &[255; 16]);
    bytes(".global .b16 g = 0x3c00;", &[0, 0x3c]);
    bytes(".global .f32 g = 0.1;", &0.1_f32.to_le_bytes());
    bytes(
        ".global .f32 g[2] = {0f3F800000, -2.5};",
        &[0, 0, 128, 63, 0, 0, 32, 192],
    );
    bytes(".global .f64 g = 0.1;", &0.1_f64.to_le_bytes());
    bytes(".const .u8 g[4] = {1, 2};", &[1, 2]);
    bytes(".global .u8 g[4] = {};", &[]);
}

#[test]
fn braces_follow_the_dimensions() {
    bytes(".global .u8 g[2][3] = {{1}, {2, 3}};", &[1, 0, 0, 2, 3]);
    bytes(".global .v2 .u8 g = {1, 2};", &[1, 2]);
    bytes(".global .v2 .u8 g[2] = {{1}, {3, 4}};", &[1, 0, 3, 4]);
    bytes(
        ".global .u8 g[2][2][2] = {{{1}, {2}}, {{3}, {4, 5}}};",
        &[1, 0, 2, 0, 3, 0, 4, 5],
    );
    let open = variable(".global .u16 g[][2] = {{1, 2}, {3, 4}, {5}};");
    assert_eq!((open.elements, open.bytes()), (6, 12));
    assert_eq!(
        open.init.expect("an initial value").bytes,
        [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    );
}

#[test]
fn addresses_of_symbols() {
    addresses(".global .u64 h = g;", &[(0, "g", 0, false)]);
    addresses(".global .u64 h = g+4;", &[(0, "g", 4, false)]);
    addresses(".global .u64 h = generic(g)+-4;", &[(0, "g", -4, true)]);
    addresses(".global .u64 h = generic;", &[(0, "generic", 0, false)]);
    addresses(
        ".global .u64 h[4] = {1, generic(a), f, 2};",
        &[(8, "a", 0, true), (16, "f", 0, false)],
    );
    let h = variable(".global .u64 h[3] = {1, generic(a), 2};");
    let mut expected = [0; 24];
    (expected[0], expected[16]) = (1, 2);
    assert_eq!(h.init.expect("an initial value").bytes, expected);
}

#[test]
fn addresses_byte_by_byte() {
    let masks = (0..8).map(|byte| format!("{:#x}(generic(p)+3)", 0xff_u64 << (8 * byte)));
    let list = masks.collect::<Vec<_>>().join(", ");
    addresses(
        &format!(".global .b8 g[12] = {{7, {list}, 9}};"),
        &[(1, "p", 3, true)],
    );
    let cut = list.rsplit_once(", ").expect("several").0;
    let unfinished = "not all eight bytes of an address are written";
    refused(&format!(".global .b8 g[12] = {{{cut}}};"), unfinished);
    refused(&format!(".global .b8 g[12] = {{{cut}, 1}};"), unfinished);
    refused(".global .b8 g[12] = {0xff(p), 0xff00(q)};", unfinished);
    refused(".global .b8 g[12] = {0xff00(p)};", "expected the mask 0xff");
    refused(
        ".global .b8 g[12] = {0xff(p), 0xff(p)};",
        "expected the mask 0xff00",
    );
    refused(
        ".global .u64 g = 0xff(p);",
        "a byte of an address needs an element of 8 bits",
    );
}

#[test]
fn refused_declarations() {
    refused(
        ".global .u32 g = p;",
        "an address needs an element of 64 bits",
    );
    refused(".global .u32 g = {1};", "expected a value, found `{`");
    refused(".global .u32 g[2] = 1;", "expected `{`, found `1`");
    refused(".global .u32 g[2][2] = {1, 2};", "expected `{`, found `1`");
    refused(
        ".global .u32 g[2] = {1, 2, 3};",
        "more values than the 2 of the array",
    );
    refused(".global .u32 g[2] = {1,};", "expected a value, found `}`");
    refused(
        ".global .u32 g[2] = {1 2};",
        "expected `,` or `}`, found `2`",
    );
    refused(
        ".global .u32 g = 1.5;",
        "an integer is expected as this initial value",
    );
    refused(
        ".global .f32 g = 1;",
        "an `.f32` starts with a decimal or `0f…`",
    );
    refused(
        ".global .f64 g = 0f3F800000;",
        "an `.f64` starts with a decimal or `0d…`",
    );
    refused(
        ".global .f16 g = 1;",
        "a variable of this type has no initial value",
    );
    refused(
        ".global .f16 g = 1.0;",
        "an integer is expected as this initial value",
    );
    refused(
        ".shared .u32 s = 1;",
        "only `.global` and `.const` variables of this module have initial values",
    );
    refused(
        ".extern .global .u32 s = 1;",
        "only `.global` and `.const` variables of this module have initial values",
    );
    refused(".global .u32 g[];", "the array `g` needs a size");
    refused(
        ".global .u32 g[0];",
        "the size of an array is an integer from 1",
    );
    refused(
        ".global .u32 g[-1];",
        "the size of an array is an integer from 1",
    );
    refused(".global .u32 g[2][];", "expected a constant, found `]`");
    refused(".global .align 3 .u32 g;", "an alignment is a power of two");
    refused(".global .align 0 .u32 g;", "an alignment is a power of two");
    refused(".global .pred p;", "a predicate can only be a register");
    refused(".global .u32 .u32 p;", "a second type: `.u32`");
    refused(".global .texref t;", "expected a type, found `.texref`");
    refused(".global .v8 .u32 t;", "expected a type, found `.v8`");
    refused(".global t;", "expected a type, found `t`");
    refused(
        ".global .u32 g<4>;",
        "only registers are declared as `name<count>`",
    );
    refused(".global .u32 g", "expected `,` or `;`, found `.visible`");
    refused(
        ".global .u32 g, ;",
        "expected the name of a variable, found `;`",
    );
    refused(
        ".global .u32 _;",
        "expected the name of a variable, found `_`",
    );
    refused(
        ".global .attribute(.unified(1, 2)) .u32 g;",
        "expected `.managed`, the only attribute supported, found `.unified`",
    );
    refused(".reg .u32 r;", "a register is declared inside a function");
    refused(".local .u32 r;", "`.local` is declared inside a function");
    refused(".tex .u32 t;", "the directive `.tex` is unknown");
}

#[test]
fn registers() {
    let statements = body(".reg .b32 %r<10>, x;\n.reg .v2 .f32 v<3>;\n.reg .pred p;");
    let found: Vec<_> = statements
        .iter()
        .map(|statement| match statement {
            Statement::Reg {
                ty,
                vector,
                names,
                line,
            } => (*ty, *vector, names.clone(), *line),
            other => panic!("{other:?}"),
        })
        .collect();
    let named = |name: &str, count| (name.to_owned(), count);
    assert_eq!(
        found[0],
        (
            Type::B32,
            1,
            vec![named("%r", Some(10)), named("x", None)],
            6
        )
    );
    assert_eq!(found[1], (Type::F32, 2, vec![named("v", Some(3))], 7));
    assert_eq!(found[2], (Type::Pred, 1, vec![named("p", None)], 8));
}

#[test]
fn variables_of_a_body() {
    let statements = body(
        ".local .align 8 .b8 depot[48];\n.shared .align 4 .b8 tile[512];\n.param .b32 a, b;\n\
         { .param .align 8 .b8 c[24]; }",
    );
    let spaces: Vec<_> = statements
        .iter()
        .map(|statement| match statement {
            Statement::Variable(variable) => (variable.space, variable.bytes(), variable.line),
            Statement::Block(inner) => match inner.as_slice() {
                [Statement::Variable(found)] => (found.space, found.bytes(), found.line),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (Space::Local, 48, 6),
        (Space::Shared, 512, 7),
        (Space::Param, 4, 8),
        (Space::Param, 4, 8),
        (Space::Param, 24, 9),
    ];
    assert_eq!(spaces, expected);
}
