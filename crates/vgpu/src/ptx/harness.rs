//! What the fuzzer demands of the reader, shared by `cargo fuzz` and the bounded run of the tests.

use std::fmt::Write;

use super::ast::{Instruction, Module, Statement};
use super::parse;

/// Feeds bytes to the reader. Whatever it accepts must survive being printed and read again:
/// every instruction with the same opcode, guard and operands.
///
/// # Errors
/// What was violated. A panic or an endless loop is for the caller to notice.
pub fn check_parser(data: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(data);
    let lines = text.split('\n').count();
    let module = match parse(&text) {
        Ok(module) => module,
        Err(error) if error.line == 0 || error.line as usize > lines => {
            return Err(format!("an error in line {} of {lines}", error.line));
        }
        Err(error) if error.message.is_empty() => return Err("an error without words".to_owned()),
        Err(_) => return Ok(()),
    };
    let first = instructions(&module);
    if let Some(lost) = first.iter().find(|found| found.line as usize > lines) {
        return Err(format!(
            "an instruction in line {} of {lines}: {lost}",
            lost.line
        ));
    }

    let mut printed = String::from(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry printed()\n{\n",
    );
    for instruction in &first {
        writeln!(printed, "{instruction}").map_err(|error| error.to_string())?;
    }
    printed.push_str("}\n");
    let again = parse(&printed).map_err(|error| format!("printed, but not read: {error}"))?;
    let second = instructions(&again);
    if first.len() != second.len() {
        return Err(format!(
            "{} instructions became {}",
            first.len(),
            second.len()
        ));
    }
    for (before, after) in first.iter().zip(&second) {
        let same = before.guard == after.guard
            && before.opcode == after.opcode
            && before.modifiers == after.modifiers
            && before.operands == after.operands;
        if !same {
            return Err(format!("`{before}` became `{after}`"));
        }
    }
    Ok(())
}

/// All instructions of a module in the order of the text.
fn instructions(module: &Module) -> Vec<&Instruction> {
    fn collect<'a>(statements: &'a [Statement], found: &mut Vec<&'a Instruction>) {
        for statement in statements {
            match statement {
                Statement::Instruction(instruction) => found.push(instruction),
                Statement::Block(inner) => collect(inner, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    for body in module
        .functions
        .iter()
        .filter_map(|function| function.body.as_ref())
    {
        collect(body, &mut found);
    }
    found
}
