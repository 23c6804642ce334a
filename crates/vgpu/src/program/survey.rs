//! What a text uses, instruction by instruction, and what of it cannot be decoded.

use std::collections::{BTreeMap, HashMap};

use super::LoadError;
use super::assemble::{errors_of_entry, reach};
use super::scope::{Globals, Symbol};
use crate::ptx::ast::{Function, Instruction, Module, Space, Statement};
use crate::ptx::{self, SyntaxError};

/// Where a variable is said to be: an address is needed to decode, and any will do.
const SOMEWHERE: u64 = 1 << 40;

/// What a PTX text uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// `.target` of the text.
    pub target: String,
    /// `.version` of the text.
    pub version: (u32, u32),
    /// Opcodes with all their words (`ld.global.nc.f32`), each once, by name.
    pub ops: BTreeMap<String, Op>,
    /// What cannot be decoded but is not about one instruction's opcode (an unknown declaration).
    pub other: Vec<LoadError>,
    /// Functions with a body that no entry calls: they are counted, but not decoded.
    pub unreached: Vec<String>,
}

/// An opcode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Op {
    /// Occurrences in the text.
    pub count: u64,
    /// Occurrences that cannot be decoded, each with its line and why.
    pub errors: Vec<LoadError>,
}

impl Survey {
    /// Whether all of the text can be decoded.
    pub fn is_supported(&self) -> bool {
        self.other.is_empty() && self.ops.values().all(|op| op.errors.is_empty())
    }
}

/// Reads a text and decodes every instruction that an entry can reach, going on after errors.
///
/// # Errors
/// The text is not PTX.
pub fn survey(text: &str) -> Result<Survey, SyntaxError> {
    let module = ptx::parse(text)?;
    let mut survey = Survey {
        target: module.target.clone(),
        version: module.version,
        ..Survey::default()
    };
    let mut lines: HashMap<u32, Vec<String>> = HashMap::new();
    for function in &module.functions {
        each_instruction(body(function), &mut |instruction| {
            let name = opcode(instruction);
            survey.ops.entry(name.clone()).or_default().count += 1;
            lines.entry(instruction.line).or_default().push(name);
        });
    }
    let globals = globals(&module);
    let mut errors = Vec::new();
    let mut reached: Vec<&str> = Vec::new();
    for entry in module
        .functions
        .iter()
        .filter(|f| f.is_entry && f.body.is_some())
    {
        errors.extend(errors_of_entry(&module, text, entry, &globals));
        reached.extend(reach(&module, entry).functions.iter().map(|f| &*f.name));
    }
    // A function that several entries call, or one entry twice, is decoded as often.
    errors.sort_by(|a, b| (a.line, &a.message).cmp(&(b.line, &b.message)));
    errors.dedup();
    for error in errors {
        // With several instructions on a line, the one that the message or the line speaks of cannot
        // be told; the first is as good as any.
        let name = lines.get(&error.line).and_then(|names| names.first());
        match name.and_then(|name| survey.ops.get_mut(name)) {
            Some(op) => op.errors.push(error),
            None => survey.other.push(error),
        }
    }
    survey.unreached = module
        .functions
        .iter()
        .filter(|f| f.body.is_some() && !reached.contains(&&*f.name))
        .map(|f| f.name.clone())
        .collect();
    Ok(survey)
}

fn body(function: &Function) -> &[Statement] {
    function.body.as_deref().unwrap_or_default()
}

fn opcode(instruction: &Instruction) -> String {
    let mut name = instruction.opcode.clone();
    for word in &instruction.modifiers {
        name.push('.');
        name.push_str(word);
    }
    name
}

fn each_instruction(statements: &[Statement], f: &mut impl FnMut(&Instruction)) {
    for statement in statements {
        match statement {
            Statement::Instruction(instruction) => f(instruction),
            Statement::Block(inner) => each_instruction(inner, f),
            _ => {}
        }
    }
}

/// The module's variables, at no particular address.
fn globals(module: &Module) -> Globals {
    let mut globals = Globals::default();
    let mut place = |variable: &ptx::Variable| {
        let symbol = match variable.space {
            Space::Global => Symbol::Global(SOMEWHERE),
            Space::Const => Symbol::Const(SOMEWHERE),
            _ => return,
        };
        globals.symbols.insert(variable.name.clone(), symbol);
    };
    module.variables.iter().for_each(&mut place);
    for function in &module.functions {
        each_variable(body(function), &mut place);
    }
    globals.shared = module
        .variables
        .iter()
        .filter(|variable| variable.space == Space::Shared)
        .cloned()
        .collect();
    globals
}

fn each_variable(statements: &[Statement], f: &mut impl FnMut(&ptx::Variable)) {
    for statement in statements {
        match statement {
            Statement::Variable(variable) => f(variable),
            Statement::Block(inner) => each_variable(inner, f),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

    #[test]
    fn every_error_of_a_text_is_listed() {
        let text = format!(
            "{HEAD}.global .u32 table[4];\n.func helper() {{ ret; }}\n.func unused() {{ ret; }}\n\
             .visible .entry k() {{\n.reg .pred %p;\nwhat.is.this %p;\nbra nowhere;\n\
             call helper, ();\ncall helper, ();\nnever.heard.u32 table;\nexit;\n}}"
        );
        let survey = survey(&text).unwrap();
        assert_eq!((&*survey.target, survey.version), ("sm_80", (8, 0)));
        assert_eq!(
            survey.ops["call"],
            Op {
                count: 2,
                errors: Vec::new()
            }
        );
        assert_eq!(survey.ops["ret"].count, 2);
        let wrong: Vec<(&str, u32)> = survey
            .ops
            .iter()
            .flat_map(|(name, op)| op.errors.iter().map(|error| (&**name, error.line)))
            .collect();
        assert_eq!(
            wrong,
            [("bra", 10), ("never.heard.u32", 13), ("what.is.this", 9)]
        );
        assert_eq!(survey.unreached, ["unused"]);
        assert!(!survey.is_supported());
    }

    #[test]
    fn a_text_that_is_supported_says_so() {
        let text = format!("{HEAD}.visible .entry k() {{\nexit;\n}}");
        assert!(survey(&text).unwrap().is_supported());
        assert_eq!(survey("nonsense").unwrap_err().line, 1);
    }
}
