//! Functions, statements, instructions and operands.

use super::{
    Operand, Statement, address, body, function, instruction, module, name, operand, operands, read,
};
use crate::ptx::{Directives, Space, Type};

#[test]
fn header() {
    let found = read(
        "/* one\n two */ .version 7.8 // seven\n.target sm_80, debug\n.address_size 64\n\
         .file 1 \"a b.cu\"\n.file 2 \"c.h\", 1600000000000, 12\n.pragma \"x\", \"y\";",
    );
    assert_eq!(
        (found.version, found.target.as_str(), found.address_size),
        ((7, 8), "sm_80", 64)
    );
    assert_eq!(
        found.files,
        [(1, "a b.cu".to_owned()), (2, "c.h".to_owned())]
    );
    assert!(found.functions.is_empty() && found.variables.is_empty());
    assert_eq!(
        read(".version 8.10 .target sm_90a .address_size 64").version,
        (8, 10)
    );
}

#[test]
fn debugging_sections_are_left_out() {
    let found = module(
        ".section .debug_info { .b32 12 .b8 3, 4 .b64 $L__func_begin0 .b32 .debug_loc+487 L: } \
         .section .debug_macinfo { .b8 0 } .global .u32 g;",
    );
    assert_eq!(found.variables.len(), 1);
}

#[test]
fn signatures() {
    let mut found = module(
        ".func (.param .align 8 .b8 r[24]) f(.param .b64 a, .param .u64 .ptr .global .align 16 b, \
         .reg .pred c, .param .align 4 .b8 d[]) .noreturn; .extern .func g; .func h() { ret; }",
    );
    assert_eq!(found.functions.len(), 4);
    let f = found.functions.remove(0);
    assert!(!f.is_entry && f.body.is_none() && f.directives.noreturn);
    assert_eq!((f.name.as_str(), f.line), ("f", 4));
    let shape = |param: &crate::ptx::Param| {
        (
            param.space,
            param.ty,
            param.align,
            param.name.clone(),
            param.elements,
            param.bytes(),
        )
    };
    assert_eq!(
        shape(&f.returns[0]),
        (Space::Param, Type::B8, 8, "r".to_owned(), 24, 24)
    );
    let params: Vec<_> = f.params.iter().map(shape).collect();
    let expected = [
        (Space::Param, Type::B64, 8, "a".to_owned(), 1, 8),
        (Space::Param, Type::U64, 8, "b".to_owned(), 1, 8),
        (Space::Reg, Type::Pred, 1, "c".to_owned(), 1, 0),
        (Space::Param, Type::B8, 4, "d".to_owned(), 0, 0),
    ];
    assert_eq!(params, expected);
    assert!(found.functions[0].body.is_none() && found.functions[0].params.is_empty());
    assert!(found.functions[1].body.is_some());
    assert!(found.functions[2].is_entry);
}

#[test]
fn directives() {
    let found = module(
        ".entry e() .maxntid 128, 2 .minnctapersm 3 .maxnreg 64 .pragma \"x\"; .explicitcluster \
         .reqnctapercluster 2, 1, 1 .maxclusterrank 8 { ret; } .entry f .reqntid 32 { ret; }",
    );
    let expected = Directives {
        max_threads: Some([128, 2, 1]),
        required_threads: None,
        min_blocks_per_sm: Some(3),
        max_registers: Some(64),
        required_cluster: Some([2, 1, 1]),
        explicit_cluster: true,
        max_cluster_rank: Some(8),
        noreturn: false,
    };
    assert_eq!(found.functions[0].directives, expected);
    assert_eq!(
        found.functions[1].directives.required_threads,
        Some([32, 1, 1])
    );
}

#[test]
fn labels_tables_and_places() {
    let statements = body(
        "a: b:\n{ ret; c: }\nt: .branchtargets a, b;\np : .callprototype (.param .b32 _) _ \
         (.param .align 8 .b8 _[24], .param .b64 _);\nq: .callprototype _ () .noreturn;\n\
         s: .calltargets f, g;\n.loc 1 20 3\n.loc 2 7 0, function_name $L__info_string0+12, \
         inlined_at 1 20 3\n.pragma \"nounroll\";\nret;",
    );
    let shown: Vec<_> = statements
        .iter()
        .map(|statement| match statement {
            Statement::Label { name, line } => format!("{line} {name}"),
            Statement::Block(inner) => format!("block of {}", inner.len()),
            Statement::BranchTargets { name, labels, line } => {
                format!("{line} {name} of {}", labels.join(" "))
            }
            Statement::CallTable { name, line } => format!("{line} table {name}"),
            Statement::Loc { file, line, column } => format!("place {file} {line} {column}"),
            Statement::Instruction(instruction) => format!("{} {instruction}", instruction.line),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = [
        "6 a",
        "6 b",
        "block of 2",
        "8 t of a b",
        "9 table p",
        "10 table q",
        "11 table s",
        "place 1 20 3",
        "place 2 7 0",
        "15 ret;",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn opcode_words() {
    let words = |written: &str| {
        let found = instruction(written);
        std::iter::once(found.opcode)
            .chain(found.modifiers)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words("setp.eq.s32 p, a, b;"), "setp eq s32");
    assert_eq!(
        words(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
             [a], [m, {x, y}], [b];"
        ),
        "cp async bulk tensor 2d shared::cluster global tile mbarrier::complete_tx::bytes"
    );
    assert_eq!(
        words("ld.global.L2::128B.u32 a, [b];"),
        "ld global L2::128B u32"
    );
    assert_eq!(
        words("barrier.cluster.arrive.release.aligned;"),
        "barrier cluster arrive release aligned"
    );
    assert_eq!(
        words("fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;"),
        "fence proxy async::generic acquire sync_restrict::shared::cluster cluster"
    );
    assert_eq!(
        words("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {a},{b},{c},{d};"),
        "mma sync aligned m16n8k16 row col f32 f16 f16 f32"
    );
    assert_eq!(words("ld .global\n.u32 a, [b];"), "ld global u32");
    assert_eq!(
        words("tcgen05.ld.16x64b.x1 a, [b];"),
        "tcgen05 ld 16x64b x1"
    );
    assert_eq!(words("t.1e5x.5d;"), "t 1e5x 5d");
}

#[test]
fn guards() {
    let found = instruction("@%p1 bra L;");
    assert_eq!(
        (found.guard, found.line),
        (Some(("%p1".to_owned(), false)), 6)
    );
    assert_eq!(
        instruction("@! p\nret;").guard,
        Some(("p".to_owned(), true))
    );
    assert_eq!(instruction("ret;").guard, None);
}

#[test]
fn plain_operands() {
    assert_eq!(operand("%r1"), name("%r1"));
    assert_eq!(operand("%tid.x"), name("%tid.x"));
    assert_eq!(operand("%tid .x"), name("%tid.x"));
    assert_eq!(operand("%v.x"), name("%v.x"));
    assert_eq!(operand("%clock64"), name("%clock64"));
    assert_eq!(operand("%envreg3"), name("%envreg3"));
    assert_eq!(operand("$L__BB0_1"), name("$L__BB0_1"));
    assert_eq!(operand("_"), Operand::Sink);
    assert_eq!(operand("!p"), Operand::Not("p".to_owned()));
    assert_eq!(
        operand("table+8"),
        Operand::NameOffset("table".to_owned(), 8)
    );
    assert_eq!(
        operand("table+-8"),
        Operand::NameOffset("table".to_owned(), -8)
    );
    assert_eq!(
        operand("table-8+16"),
        Operand::NameOffset("table".to_owned(), 8)
    );
    assert_eq!(operand("table+0"), name("table"));
    let pair = |a, b| Operand::Pair(Box::new(a), Box::new(b));
    assert_eq!(operand("%p1|%p2"), pair(name("%p1"), name("%p2")));
    assert_eq!(operand("_ | p"), pair(Operand::Sink, name("p")));
    assert_eq!(operand("p|_"), pair(name("p"), Operand::Sink));
    assert_eq!(
        operand("{%r1, _, -1, 0f3F800000}"),
        Operand::Vector(vec![
            name("%r1"),
            Operand::Sink,
            Operand::Int(-1),
            Operand::F32(0x3f80_0000)
        ])
    );
    assert_eq!(operands("a, 1, _, !p").len(), 4);
}

#[test]
fn addresses() {
    assert_eq!(operand("[%rd1]"), address(name("%rd1"), 0));
    assert_eq!(operand("[ a + 4 ]"), address(name("a"), 4));
    assert_eq!(operand("[a+-4]"), address(name("a"), -4));
    assert_eq!(operand("[a-4]"), address(name("a"), -4));
    assert_eq!(operand("[a+4+4]"), address(name("a"), 8));
    assert_eq!(operand("[a+(1+1)*4]"), address(name("a"), 8));
    assert_eq!(
        operand("[a-9223372036854775808]"),
        address(name("a"), i64::MIN)
    );
    assert_eq!(operand("[123]"), address(Operand::Int(123), 0));
    assert_eq!(operand("[100+23]"), address(Operand::Int(123), 0));
    assert_eq!(operand("[-4]"), address(Operand::Int(-4), 0));
    let tensor = Operand::Address {
        base: Box::new(name("map")),
        offset: 64,
        coordinates: Some(Box::new(Operand::Vector(vec![name("x"), Operand::Int(0)]))),
    };
    assert_eq!(operand("[map+64, {x, 0}]"), tensor);
    let found = operands("[d], [map, {a, b, c, d}], [bar], {o1, o2}, mask");
    assert_eq!(found.len(), 5);
    assert_eq!(found[3], Operand::Vector(vec![name("o1"), name("o2")]));
}

#[test]
fn calls() {
    let list = |names: &[&str]| Operand::List(names.iter().map(|found| name(found)).collect());
    let call = |written: &str| instruction(written).operands;
    assert_eq!(call("call f;"), [name("f")]);
    assert_eq!(call("call.uni f, ();"), [name("f"), list(&[])]);
    assert_eq!(
        call("call.uni\n(r),\nf,\n(\na,\nb\n);"),
        [list(&["r"]), name("f"), list(&["a", "b"])]
    );
    assert_eq!(
        call("call (r), %rd1, (a), proto;"),
        [list(&["r"]), name("%rd1"), list(&["a"]), name("proto")]
    );
    assert_eq!(
        call("call (_), f, (1);")[0],
        Operand::List(vec![Operand::Sink])
    );
    // Elsewhere parentheses belong to a constant.
    assert_eq!(operand("(3)"), Operand::Int(3));
}

#[test]
fn lines_count_comments_and_carriage_returns() {
    let found = body("// one\r\n/* two\nthree */ ret;\r\n\tret; // four");
    let lines: Vec<_> = found
        .iter()
        .map(|statement| match statement {
            Statement::Instruction(instruction) => instruction.line,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lines, [8, 9]);
}

#[test]
fn a_later_definition_is_found_behind_its_declaration() {
    let found = module(".func f(); .func f() { ret; }");
    assert_eq!(function(found, "f").body.map(|body| body.len()), Some(1));
}
