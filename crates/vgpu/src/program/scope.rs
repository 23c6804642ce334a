//! Names and what they stand for, innermost scope first.

use std::collections::HashMap;

use crate::ptx::ast::{Type, Variable};

/// A variable of a module, placed in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// `.global`, at an address.
    Global(u64),
    /// `.const`, at an address.
    Const(u64),
}

/// What a module's variables became on a device.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// Addresses of `.global` and `.const` variables.
    pub symbols: HashMap<String, Symbol>,
    /// `.shared` variables of the module, which every entry that names them places anew.
    pub shared: Vec<Variable>,
}

/// What a name is bound to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Binding {
    Register { slot: u32, ty: Type },
    Vector { slots: Vec<u32>, ty: Type },
    Pred(u32),
    Global(u64),
    Const(u64),
    Shared(u32),
    Local(u32),
    KernelParam(u32),
    Label(u32),
    BranchTable(Vec<String>),
    CallTable,
}

/// A stack of scopes.
#[derive(Debug, Default)]
pub(super) struct Names {
    scopes: Vec<HashMap<String, Binding>>,
    /// Where the current function's names begin: an inlined function sees the module's (the first
    /// scope) and its own, not its caller's.
    floors: Vec<usize>,
}

impl Names {
    pub(super) fn push(&mut self) {
        self.scopes.push(HashMap::new());
    }

    pub(super) fn pop(&mut self) {
        self.scopes.pop();
    }

    /// The entry's own names: it sees the module's, which lie below.
    pub(super) fn enter_entry(&mut self) {
        self.floors.push(0);
        self.push();
    }

    pub(super) fn enter_function(&mut self) {
        self.floors.push(self.scopes.len());
        self.push();
    }

    pub(super) fn leave_function(&mut self) {
        let floor = self.floors.pop().unwrap_or(0);
        self.scopes.truncate(floor);
    }

    /// Binds in the innermost scope; false if the name is bound there already.
    pub(super) fn bind(&mut self, name: &str, binding: Binding) -> bool {
        match self.scopes.last_mut() {
            Some(scope) => scope.insert(name.to_owned(), binding).is_none(),
            None => false,
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Binding> {
        let floor = self.floors.last().copied().unwrap_or(0);
        let own = self.scopes[floor..]
            .iter()
            .rev()
            .find_map(|scope| scope.get(name));
        own.or_else(|| self.scopes.first()?.get(name))
    }
}
