//! What nvcc 13.0 makes of `sample.cu`.

use super::{Operand, Statement, function, name, read};
use crate::ptx::harness::check_parser;
use crate::ptx::{Instruction, Module, Space, Type};

const SM_80: &str = include_str!("sample_sm_80.ptx");
const SM_90A: &str = include_str!("sample_sm_90a.ptx");

/// All statements of a function, those of inner scopes in their place.
fn flat(module: &Module, called: &str) -> Vec<Statement> {
    fn flatten(statements: Vec<Statement>, found: &mut Vec<Statement>) {
        for statement in statements {
            match statement {
                Statement::Block(inner) => flatten(inner, found),
                other => found.push(other),
            }
        }
    }
    let mut found = Vec::new();
    flatten(
        function(module.clone(), called).body.expect("a body"),
        &mut found,
    );
    found
}

fn instructions(module: &Module, called: &str) -> Vec<Instruction> {
    let statements = flat(module, called).into_iter();
    statements
        .filter_map(|statement| match statement {
            Statement::Instruction(instruction) => Some(instruction),
            _ => None,
        })
        .collect()
}

#[test]
fn printed_instructions_are_read_again() {
    check_parser(SM_80.as_bytes()).expect("sm_80");
    check_parser(SM_90A.as_bytes()).expect("sm_90a");
}

#[test]
fn module_scope() {
    for (text, target, functions) in [(SM_80, "sm_80", 6), (SM_90A, "sm_90a", 7)] {
        let found = read(text);
        assert_eq!((found.version, found.target.as_str()), ((9, 0), target));
        assert_eq!(found.functions.len(), functions);
        assert_eq!(
            found
                .functions
                .iter()
                .filter(|found| found.body.is_none())
                .count(),
            2
        );
        assert_eq!(found.files[0], (1, "sample.cu".to_owned()));
        let names: Vec<_> = found
            .variables
            .iter()
            .map(|found| found.name.as_str())
            .collect();
        assert_eq!(
            names,
            ["scales", "counter", "links", "functions", "dynamic"]
        );
        let [scales, counter, links, functions, dynamic] = found.variables.as_slice() else {
            panic!("five variables")
        };
        let floats: Vec<u8> = [1.5_f32, -2.0, 0.1]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let bytes = |init: &Option<crate::ptx::Init>| init.clone().expect("a value").bytes;
        assert_eq!((scales.space, bytes(&scales.init)), (Space::Const, floats));
        assert_eq!(bytes(&counter.init), (-5_i32).to_le_bytes());
        let links = links.init.clone().expect("a value");
        assert_eq!(links.addresses, [(8, "counter".to_owned(), 0, true)]);
        assert_eq!((links.bytes[0], links.bytes[16]), (1, 2));
        let functions = functions.init.clone().expect("a value");
        assert_eq!(
            functions.addresses[1],
            (8, "_Z7doubledf".to_owned(), 0, false)
        );
        assert!(dynamic.is_extern && dynamic.elements == 0 && dynamic.align == 16);
    }
}

#[test]
fn an_entry() {
    let found = read(SM_80);
    let entry = function(found.clone(), "_Z5mixed4RowsPfib");
    assert!(entry.is_entry);
    assert_eq!(entry.directives.max_threads, Some([128, 1, 1]));
    assert_eq!(entry.directives.min_blocks_per_sm, Some(2));
    let params: Vec<_> = entry
        .params
        .iter()
        .map(|param| (param.ty, param.align, param.bytes()))
        .collect();
    let expected = [
        (Type::B8, 8, 24),
        (Type::U64, 8, 8),
        (Type::U32, 4, 4),
        (Type::U8, 1, 1),
    ];
    assert_eq!(params, expected);

    let calls: Vec<_> = instructions(&found, "_Z5mixed4RowsPfib")
        .into_iter()
        .filter(|instruction| instruction.opcode == "call")
        .collect();
    assert_eq!(
        calls[0].to_string(),
        "call.uni (retval0), _Z6scaledf4Rows, (param0, param1);"
    );
    assert_eq!(calls[1].operands.last(), Some(&name("prototype_1")));

    let statements = flat(&found, "_Z5mixed4RowsPfib");
    let shared = statements.iter().find_map(|statement| match statement {
        Statement::Variable(found) if found.space == Space::Shared => Some(found.bytes()),
        _ => None,
    });
    assert_eq!(shared, Some(512));
    // The place of an inlined call is where the code is written, not where it is called.
    assert!(statements.iter().any(|statement| matches!(
        statement,
        Statement::Loc {
            file: 1,
            line: 23,
            ..
        }
    )));
}

#[test]
fn every_instruction_names_its_line() {
    for text in [SM_80, SM_90A] {
        let module = read(text);
        let lines: Vec<_> = text.lines().collect();
        let mut seen = 0;
        for function in module
            .functions
            .iter()
            .filter(|function| function.body.is_some())
        {
            for instruction in instructions(&module, &function.name) {
                let line = lines[instruction.line as usize - 1];
                assert!(
                    line.contains(&instruction.opcode),
                    "{instruction} is not in {line:?}"
                );
                seen += 1;
            }
        }
        assert!(seen > 100, "{seen} instructions");
    }
}

#[test]
fn inline_assembly_for_hopper() {
    let found = read(SM_90A);
    let entry = function(found.clone(), "_Z6tensor9TensorMapi");
    assert_eq!(entry.directives.required_cluster, Some([2, 1, 1]));
    assert!(entry.directives.explicit_cluster);
    assert_eq!((entry.params[0].align, entry.params[0].bytes()), (64, 128));

    let found = instructions(&found, "_Z6tensor9TensorMapi");
    let with = |opcode: &str| {
        let mut matching = found
            .iter()
            .filter(|instruction| instruction.opcode == opcode);
        matching.next().unwrap_or_else(|| panic!("no {opcode}"))
    };
    assert_eq!(with("elect").to_string(), "elect.sync _|P, 4294967295;");
    let copy = with("cp");
    assert_eq!(
        copy.modifiers.join(" "),
        "async bulk tensor 2d shared::cluster global tile mbarrier::complete_tx::bytes"
    );
    assert!(matches!(
        &copy.operands[1],
        Operand::Address {
            coordinates: Some(_),
            ..
        }
    ));
    assert_eq!(with("bra").guard, Some(("P".to_owned(), true)));
    assert_eq!(
        with("fence").modifiers,
        ["mbarrier_init", "release", "cluster"]
    );
}
