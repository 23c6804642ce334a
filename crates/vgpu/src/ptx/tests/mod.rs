//! Tests of the reader, by subject.

mod bounds;
mod constants;
mod errors;
mod fuzz;
mod nvcc;
mod statements;
mod variables;

use super::{Function, Instruction, Module, Operand, Statement, parse};

/// A module with these declarations and an entry with this body. The declarations start in line 4,
/// the body in line 6.
fn text(declarations: &str, body: &str) -> String {
    // The declarations are one line, so that the lines of the body are known.
    assert!(!declarations.contains('\n'));
    format!(
        ".version 8.8\n.target sm_90a\n.address_size 64\n{declarations}\n\
         .visible .entry k(.param .u64 p0) {{\n{body}\n}}\n"
    )
}

fn module(declarations: &str) -> Module {
    read(&text(declarations, "ret;"))
}

/// Reads what has to be readable.
fn read(text: &str) -> Module {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The statements of an entry.
fn body(text_of_body: &str) -> Vec<Statement> {
    let module = read(&text("", text_of_body));
    function(module, "k").body.expect("an entry with a body")
}

fn function(module: Module, name: &str) -> Function {
    let found = module.functions.into_iter().find(|found| {
        // A declaration may stand in front of the definition.
        found.name == name && found.body.is_some()
    });
    found.unwrap_or_else(|| panic!("no function {name}"))
}

/// The only instruction of a body.
fn instruction(line: &str) -> Instruction {
    let mut statements = body(line);
    assert_eq!(statements.len(), 1, "{line}");
    match statements.remove(0) {
        Statement::Instruction(instruction) => instruction,
        other => panic!("{line} became {other:?}"),
    }
}

/// The operands of an instruction `op …;`.
fn operands(written: &str) -> Vec<Operand> {
    instruction(&format!("op {written};")).operands
}

/// The only operand of an instruction `op …;`.
fn operand(written: &str) -> Operand {
    let mut operands = operands(written);
    assert_eq!(operands.len(), 1, "{written}");
    operands.remove(0)
}

fn name(name: &str) -> Operand {
    Operand::Name(name.to_owned())
}

fn address(base: Operand, offset: i64) -> Operand {
    Operand::Address {
        base: Box::new(base),
        offset,
        coordinates: None,
    }
}
