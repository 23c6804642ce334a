//! The variables of a module in memory.

use std::collections::BTreeMap;

use super::Result;
use super::machine::Machine;
use crate::memory::Owner;
use crate::program::{Globals, LoadError, Symbol};
use crate::ptx::ast::{Init, Module, Space, Statement, Variable};

/// Variables that were placed.
pub(super) struct Placed {
    globals: Globals,
    /// Address and bytes, by name.
    ranges: BTreeMap<String, (u64, u64)>,
    const_bytes: u64,
}

/// Bytes of constant memory of a module at most.
const CONST_LIMIT: u64 = 64 * 1024;

impl Placed {
    pub(super) fn globals(&self) -> &Globals {
        &self.globals
    }

    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        self.ranges.get(name).copied()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.ranges.keys().cloned().collect()
    }

    pub(super) fn const_bytes(&self) -> u32 {
        self.const_bytes as u32
    }
}

impl Machine {
    /// Gives each variable an allocation of its own, so that an access that misses one is found, and
    /// writes the initial values.
    pub(super) fn place(&self, device: u32, module: &Module, text: &str) -> Result<Placed> {
        let mut variables: Vec<&Variable> = module.variables.iter().collect();
        for function in &module.functions {
            collect(function.body.as_deref().unwrap_or_default(), &mut variables);
        }
        let mut placed = Placed {
            globals: Globals::default(),
            ranges: BTreeMap::new(),
            const_bytes: 0,
        };
        let result = self.place_all(device, &variables, text, &mut placed);
        if let Err(error) = result {
            self.unplace(&placed);
            return Err(error);
        }
        Ok(placed)
    }

    fn place_all(
        &self,
        device: u32,
        variables: &[&Variable],
        text: &str,
        placed: &mut Placed,
    ) -> Result<()> {
        for variable in variables {
            let is_const = match variable.space {
                Space::Shared => {
                    placed.globals.shared.push((*variable).clone());
                    continue;
                }
                Space::Global => false,
                Space::Const => true,
                other => {
                    let message = format!("a variable in {other:?} cannot be of a module");
                    return Err(error(text, variable.line, message).into());
                }
            };
            if variable.is_extern {
                let message = format!("{} is defined in no module", variable.name);
                return Err(error(text, variable.line, message).into());
            }
            let bytes = variable.bytes();
            if is_const {
                placed.const_bytes = placed.const_bytes.saturating_add(bytes);
                if placed.const_bytes > CONST_LIMIT {
                    let message = format!(
                        "{} bytes of constant memory; {CONST_LIMIT} at most",
                        placed.const_bytes
                    );
                    return Err(error(text, variable.line, message).into());
                }
            }
            let address = self.allocate(Owner::Module(device), bytes, is_const)?;
            let symbol = match is_const {
                true => Symbol::Const(address),
                false => Symbol::Global(address),
            };
            let name = variable.name.clone();
            let before = placed.ranges.insert(name.clone(), (address, bytes));
            placed.globals.symbols.insert(name, symbol);
            if let Some((address, _)) = before {
                self.forget_allocation(address)?;
                let message = format!("{} is declared twice", variable.name);
                return Err(error(text, variable.line, message).into());
            }
        }
        for variable in variables {
            if let Some(&(address, bytes)) = placed.ranges.get(&variable.name) {
                self.initialise(variable, address, bytes, placed, text)?;
            }
        }
        Ok(())
    }

    fn initialise(
        &self,
        variable: &Variable,
        address: u64,
        bytes: u64,
        placed: &Placed,
        text: &str,
    ) -> Result<()> {
        let table = self.memory().snapshot();
        let allocation = table.get(table.find(address, bytes)?);
        // What has no initial value is zero.
        allocation.mark_written(0, bytes);
        let Some(Init {
            bytes: values,
            addresses,
        }) = &variable.init
        else {
            return Ok(());
        };
        let misfit = |what: &str| {
            let message = format!(
                "{what} of {} is outside of its {bytes} bytes",
                variable.name
            );
            error(text, variable.line, message)
        };
        if values.len() as u64 > bytes {
            return Err(misfit("an initial value").into());
        }
        allocation.write(0, values);
        for (offset, symbol, addend, _) in addresses {
            let Some((target, _)) = placed.find(symbol) else {
                let message = format!(
                    "the initial value of {} is the address of {symbol}, which is no .global or \
                     .const variable of the module",
                    variable.name
                );
                return Err(error(text, variable.line, message).into());
            };
            // Addresses of these spaces are generic addresses already.
            let value = target.wrapping_add_signed(*addend).to_le_bytes();
            if offset.checked_add(8).is_none_or(|end| end > bytes) {
                return Err(misfit("an initial address").into());
            }
            allocation.write(*offset, &value);
        }
        Ok(())
    }

    /// Frees variables.
    pub(super) fn unplace(&self, placed: &Placed) {
        for &(address, _) in placed.ranges.values() {
            // After a reset of the device they are gone already.
            let _ = self.forget_allocation(address);
        }
    }
}

/// Variables of the module that are declared in the bodies of functions.
fn collect<'m>(statements: &'m [Statement], found: &mut Vec<&'m Variable>) {
    for statement in statements {
        match statement {
            Statement::Variable(variable)
                if matches!(variable.space, Space::Global | Space::Const) =>
            {
                found.push(variable);
            }
            Statement::Block(inner) => collect(inner, found),
            _ => {}
        }
    }
}

fn error(text: &str, line: u32, message: String) -> LoadError {
    let quoted = text.lines().nth((line as usize).wrapping_sub(1));
    LoadError {
        line,
        text: quoted.unwrap_or_default().trim().to_owned(),
        message,
    }
}
