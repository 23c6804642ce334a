//! From the syntax tree of an entry to a flat list of instructions.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::builder::{Builder, rows};
use super::scope::{Binding, Globals, Names, Symbol};
use super::{EntryParam, Habits, Inst, LoadError, Program, Special, Src, pressure};
use crate::exec;
use crate::lane::{LANES, Row};
use crate::machine::{LOCAL_START, SHARED_BASE};
use crate::ptx::ast::{
    Function, Instruction, Module, Operand, Param, Space, Statement, Type, Variable,
};
use crate::report::SourceLine;

/// Inlined instructions of one entry at most: a bound for call trees that multiply.
const MAX_INSTRUCTIONS: usize = 1 << 22;
/// Depth of inlined calls at most.
const MAX_DEPTH: usize = 64;
/// Rows of registers of a warp at most (64 MiB).
const MAX_ROWS: u32 = 1 << 19;
/// Errors that are collected of one entry at most.
const MAX_ERRORS: usize = 10_000;

/// State of the assembly of one entry.
pub(super) struct Assembler<'m> {
    pub(super) module: &'m Module,
    lines: &'m [&'m str],
    pub(super) names: Names,
    files: HashMap<u32, Arc<str>>,
    insts: Vec<Inst>,
    labels: Vec<u32>,
    constants: Vec<Row>,
    constant_slots: HashMap<(u64, u8), u32>,
    specials: HashMap<Special, u32>,
    rows: u32,
    preds: u32,
    shared: u64,
    dynamic_align: u64,
    /// Places of `.shared` variables, by the line that declares them.
    shared_places: HashMap<u32, u64>,
    local: u64,
    source: Option<SourceLine>,
    calls: Vec<String>,
    pub(super) return_labels: Vec<u32>,
    pub(super) habits: Habits,
    /// Where errors go so that decoding goes on behind them; `None`: the first one ends it.
    errors: Option<&'m RefCell<Vec<LoadError>>>,
}

/// Decodes one entry of a module.
///
/// `text` is the module's PTX, for messages; `globals` says where its variables are.
///
/// # Errors
/// [`LoadError`] names the line of an instruction, modifier or operand that is unknown.
pub fn assemble(
    module: &Module,
    text: &str,
    entry: &Function,
    globals: &Globals,
) -> Result<Program, LoadError> {
    assemble_with(module, text, entry, globals, None)
}

/// Decodes one entry as [`assemble`] does, but goes on behind errors; returns them.
pub(super) fn errors_of_entry(
    module: &Module,
    text: &str,
    entry: &Function,
    globals: &Globals,
) -> Vec<LoadError> {
    let errors = RefCell::default();
    let end = assemble_with(module, text, entry, globals, Some(&errors));
    let mut errors = errors.into_inner();
    errors.extend(end.err());
    errors
}

fn assemble_with(
    module: &Module,
    text: &str,
    entry: &Function,
    globals: &Globals,
    errors: Option<&RefCell<Vec<LoadError>>>,
) -> Result<Program, LoadError> {
    let lines: Vec<&str> = text.lines().collect();
    let assembler = Assembler {
        module,
        lines: &lines,
        names: Names::default(),
        files: module
            .files
            .iter()
            .map(|(index, path)| (*index, Arc::from(&**path)))
            .collect(),
        insts: Vec::new(),
        labels: Vec::new(),
        constants: Vec::new(),
        constant_slots: HashMap::new(),
        specials: HashMap::new(),
        rows: 0,
        preds: 0,
        shared: u64::from(SHARED_BASE),
        dynamic_align: 16,
        shared_places: HashMap::new(),
        local: u64::from(LOCAL_START),
        source: None,
        calls: vec![entry.name.clone()],
        return_labels: Vec::new(),
        habits: Habits::default(),
        errors,
    };
    assembler.entry(entry, globals)
}

impl Assembler<'_> {
    pub(super) fn error(&self, line: u32, message: impl Into<String>) -> LoadError {
        let text = self
            .lines
            .get((line as usize).wrapping_sub(1))
            .map_or("", |text| text.trim());
        LoadError {
            line,
            text: text.to_owned(),
            message: message.into(),
        }
    }

    fn entry(mut self, entry: &Function, globals: &Globals) -> Result<Program, LoadError> {
        let Some(body) = &entry.body else {
            return Err(self.error(entry.line, format!("entry {} has no body", entry.name)));
        };
        // Where the dynamic shared memory begins depends on all the static: placed before anything runs.
        let reached = reach(self.module, entry);
        self.place_shared(&reached, globals)?;
        let static_end = self.shared;
        self.names.push();
        self.bind_module(globals)?;
        self.names.enter_entry();
        let params = self.entry_params(entry)?;
        let param_bytes = params.last().map_or(0, |param| param.offset + param.bytes);
        self.statements(body)?;
        let end = Instruction {
            guard: None,
            opcode: "exit".to_owned(),
            modifiers: Vec::new(),
            operands: Vec::new(),
            line: entry.line,
        };
        self.instruction(&end)?;
        let directives = entry.directives;
        let registers = pressure::registers(&self.insts, &self.labels, directives.max_registers);
        Ok(Program {
            name: Arc::from(&*entry.name),
            labels: self.labels,
            constants: self.constants,
            rows: self.rows,
            preds: self.preds,
            specials: self.specials.into_iter().collect(),
            static_shared: (static_end - u64::from(SHARED_BASE)) as u32,
            dynamic_align: self.dynamic_align as u32,
            local_bytes: (self.local - u64::from(LOCAL_START)) as u32,
            params,
            param_bytes,
            directives,
            registers_per_thread: registers,
            habits: self.habits,
            insts: self.insts,
        })
    }

    fn place_shared(&mut self, reached: &Reached<'_>, globals: &Globals) -> Result<(), LoadError> {
        let module_level = globals
            .shared
            .iter()
            .filter(|v| reached.names.contains(&*v.name));
        let mut all: Vec<&Variable> = module_level.collect();
        for function in &reached.functions {
            collect_shared(function.body.as_deref().unwrap_or_default(), &mut all);
        }
        for variable in all {
            if variable.is_extern || variable.elements == 0 {
                self.dynamic_align = self.dynamic_align.max(variable.align);
                continue;
            }
            let at = self.shared.next_multiple_of(variable.align.max(1));
            self.shared = at + variable.bytes();
            if self.shared > 1 << 24 {
                let message = format!(
                    "{} bytes of static shared memory; 16 MiB at most",
                    self.shared
                );
                return Err(self.error(variable.line, message));
            }
            self.shared_places.insert(variable.line, at);
        }
        let dynamic = self.shared.next_multiple_of(self.dynamic_align);
        self.shared_places.insert(u32::MAX, dynamic);
        Ok(())
    }

    fn shared_place(&self, variable: &Variable) -> u32 {
        let key = if variable.is_extern || variable.elements == 0 {
            u32::MAX
        } else {
            variable.line
        };
        self.shared_places.get(&key).copied().unwrap_or(0) as u32
    }

    fn bind_module(&mut self, globals: &Globals) -> Result<(), LoadError> {
        for (name, symbol) in &globals.symbols {
            let binding = match *symbol {
                Symbol::Global(address) => Binding::Global(address),
                Symbol::Const(address) => Binding::Const(address),
            };
            self.names.bind(name, binding);
        }
        for variable in &globals.shared {
            let place = self.shared_place(variable);
            self.names.bind(&variable.name, Binding::Shared(place));
        }
        Ok(())
    }

    fn entry_params(&mut self, entry: &Function) -> Result<Vec<EntryParam>, LoadError> {
        let mut offset = 0_u64;
        let mut params = Vec::new();
        for param in &entry.params {
            let at = offset.next_multiple_of(param.align.max(1));
            offset = at + param.bytes();
            if offset > 32764 {
                let message = format!("parameters take {offset} bytes; 32764 at most");
                return Err(self.error(entry.line, message));
            }
            self.names
                .bind(&param.name, Binding::KernelParam(at as u32));
            let ty = format!("{:?}", param.ty).to_lowercase();
            params.push(EntryParam {
                name: param.name.clone(),
                offset: at as u32,
                bytes: param.bytes() as u32,
                ty: if param.elements == 1 {
                    ty
                } else {
                    format!("{ty}[{}]", param.elements)
                },
            });
        }
        Ok(params)
    }

    fn bind(&mut self, line: u32, name: &str, binding: Binding) -> Result<(), LoadError> {
        if self.names.bind(name, binding) {
            return Ok(());
        }
        Err(self.error(line, format!("{name} is declared twice in one scope")))
    }

    fn new_label(&mut self) -> u32 {
        self.labels.push(u32::MAX);
        (self.labels.len() - 1) as u32
    }

    /// The statements of one scope; the caller has pushed it.
    fn statements(&mut self, statements: &[Statement]) -> Result<(), LoadError> {
        for statement in statements {
            match statement {
                Statement::Label { name, line } => {
                    let id = self.new_label();
                    self.bind(*line, name, Binding::Label(id))?;
                }
                Statement::BranchTargets { name, labels, line } => {
                    self.bind(*line, name, Binding::BranchTable(labels.clone()))?;
                }
                Statement::CallTable { name, line } => {
                    self.bind(*line, name, Binding::CallTable)?;
                }
                _ => {}
            }
        }
        for statement in statements {
            let Err(error) = self.statement(statement) else {
                continue;
            };
            match self.errors {
                Some(errors) if errors.borrow().len() < MAX_ERRORS => {
                    errors.borrow_mut().push(error)
                }
                _ => return Err(error),
            }
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), LoadError> {
        match statement {
            Statement::Reg {
                ty,
                vector,
                names,
                line,
            } => {
                for (name, count) in names {
                    self.declare(*line, *ty, *vector, name, *count)?;
                }
            }
            Statement::Variable(variable) => self.variable(variable)?,
            Statement::Label { name, .. } => {
                if let Some(&Binding::Label(id)) = self.names.find(name) {
                    self.labels[id as usize] = self.insts.len() as u32;
                }
            }
            Statement::Loc { file, line, .. } => {
                self.source = self.files.get(file).map(|file| SourceLine {
                    file: Arc::clone(file),
                    line: *line,
                });
            }
            Statement::BranchTargets { .. } | Statement::CallTable { .. } => {}
            Statement::Block(inner) => {
                self.names.push();
                self.statements(inner)?;
                self.names.pop();
            }
            Statement::Instruction(instruction) => self.instruction(instruction)?,
        }
        Ok(())
    }

    fn declare(
        &mut self,
        line: u32,
        ty: Type,
        vector: u32,
        name: &str,
        count: Option<u32>,
    ) -> Result<(), LoadError> {
        let names: Vec<String> = match count {
            Some(count) => (0..count).map(|index| format!("{name}{index}")).collect(),
            None => vec![name.to_owned()],
        };
        for name in names {
            if ty == Type::Pred {
                self.preds += 1;
                self.bind(line, &name, Binding::Pred(self.preds - 1))?;
            } else if vector == 1 {
                let slot = self.take_rows(line, ty)?;
                self.bind(line, &name, Binding::Register { slot, ty })?;
            } else {
                let slots = (0..vector)
                    .map(|_| self.take_rows(line, ty))
                    .collect::<Result<Vec<_>, LoadError>>()?;
                for (index, &slot) in slots.iter().enumerate().take(4) {
                    let component = format!("{name}.{}", &"xyzw"[index..=index]);
                    self.bind(line, &component, Binding::Register { slot, ty })?;
                }
                self.bind(line, &name, Binding::Vector { slots, ty })?;
            }
        }
        Ok(())
    }

    fn take_rows(&mut self, line: u32, ty: Type) -> Result<u32, LoadError> {
        let slot = self.rows;
        self.rows += u32::from(rows(ty));
        if self.rows > MAX_ROWS {
            return Err(self.error(line, format!("more than {MAX_ROWS} registers")));
        }
        Ok(slot)
    }

    fn variable(&mut self, variable: &Variable) -> Result<(), LoadError> {
        let binding = match variable.space {
            Space::Shared => Binding::Shared(self.shared_place(variable)),
            Space::Local | Space::Param => {
                let at = self.local.next_multiple_of(variable.align.max(1));
                self.local = at + variable.bytes();
                if self.local > 1 << 24 {
                    let message = format!(
                        "{} bytes of local memory a thread; 16 MiB at most",
                        self.local
                    );
                    return Err(self.error(variable.line, message));
                }
                Binding::Local(at as u32)
            }
            // Variables of a module that are declared in a body were lifted by the loader.
            Space::Global | Space::Const => return Ok(()),
            other => {
                let message = format!("a variable in {other:?} cannot be declared here");
                return Err(self.error(variable.line, message));
            }
        };
        self.bind(variable.line, &variable.name, binding)
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), LoadError> {
        if self.insts.len() >= MAX_INSTRUCTIONS {
            let message = format!("more than {MAX_INSTRUCTIONS} instructions after inlining");
            return Err(self.error(instruction.line, message));
        }
        if instruction.opcode == "call" && !exec::is_system_call(instruction) {
            return self.call(instruction);
        }
        let guard = match &instruction.guard {
            None => None,
            Some((name, negated)) => match self.names.find(name) {
                Some(&Binding::Pred(index)) => Some((index, *negated)),
                _ => {
                    let message = format!("guard {name} is not a declared predicate");
                    return Err(self.error(instruction.line, message));
                }
            },
        };
        let source = self.source.clone();
        let mut builder = Builder::new(self, instruction);
        let run = exec::decode(&mut builder)?;
        builder.finish()?;
        let moving = std::mem::take(&mut builder.moving);
        let run = if moving.is_empty() {
            run
        } else {
            exec::refresh_specials(moving, run)
        };
        let inst = Inst {
            run,
            guard,
            class: builder.class,
            target: builder.target,
            is_wgmma: instruction.opcode == "wgmma",
            reads: builder.reads.into(),
            pred_reads: builder.pred_reads.into(),
            strict: builder.strict.into(),
            writes: builder.writes.into(),
            pred_writes: builder.pred_writes.into(),
            definedness: builder.definedness,
            line: instruction.line,
            text: instruction.to_string().into(),
            source,
        };
        self.insts.push(inst);
        Ok(())
    }

    /// Inlines a call: the callee's parameters become names for the caller's.
    fn call(&mut self, call: &Instruction) -> Result<(), LoadError> {
        let (returns, name, arguments) = call_parts(call).ok_or_else(|| {
            self.error(call.line, "call (results), function, (arguments) expected")
        })?;
        let module = self.module;
        let Some(callee) = module
            .functions
            .iter()
            .find(|f| !f.is_entry && f.name == name && f.body.is_some())
        else {
            let indirect = self.names.find(name).is_some();
            let message = if indirect {
                format!("indirect call through {name}: function pointers are not supported")
            } else {
                format!("function {name} has no body in this module")
            };
            return Err(self.error(call.line, message));
        };
        if self.calls.iter().any(|active| active == name) || self.calls.len() >= MAX_DEPTH {
            return Err(self.error(
                call.line,
                format!("recursive call of {name} is not supported"),
            ));
        }
        if returns.len() != callee.returns.len() || arguments.len() != callee.params.len() {
            let message = format!(
                "{name} has {} results and {} parameters; the call gives {} and {}",
                callee.returns.len(),
                callee.params.len(),
                returns.len(),
                arguments.len()
            );
            return Err(self.error(call.line, message));
        }
        let after = self.new_label();
        let skip = match &call.guard {
            None => None,
            Some((predicate, negated)) => {
                // A guarded call branches around the body for the other lanes.
                let target = self.fresh_name("after");
                self.bind(call.line, &target, Binding::Label(after))?;
                Some(Instruction {
                    guard: Some((predicate.clone(), !negated)),
                    opcode: "bra".to_owned(),
                    modifiers: Vec::new(),
                    operands: vec![Operand::Name(target)],
                    line: call.line,
                })
            }
        };
        if let Some(skip) = skip {
            self.instruction(&skip)?;
        }
        let passed: Vec<(Binding, Option<&Operand>)> = callee
            .params
            .iter()
            .zip(arguments)
            .map(|(param, operand)| self.pass(call.line, param, operand))
            .collect::<Result<_, _>>()?;
        let returned: Vec<(Binding, Option<&Operand>)> = callee
            .returns
            .iter()
            .zip(returns)
            .map(|(param, operand)| self.pass(call.line, param, operand))
            .collect::<Result<_, _>>()?;
        for (param, (binding, operand)) in callee.params.iter().zip(&passed) {
            if let (Binding::Register { slot, ty }, Some(operand)) = (binding, operand) {
                let name = self.fresh_name("argument");
                self.bind(
                    call.line,
                    &name,
                    Binding::Register {
                        slot: *slot,
                        ty: *ty,
                    },
                )?;
                self.move_value(call.line, param.ty, Operand::Name(name), (*operand).clone())?;
            }
        }
        let source = self.source.clone();
        self.names.enter_function();
        for (param, (binding, _)) in callee
            .params
            .iter()
            .zip(&passed)
            .chain(callee.returns.iter().zip(&returned))
        {
            self.bind(callee.line, &param.name, binding.clone())?;
        }
        self.calls.push(name.to_owned());
        self.return_labels.push(after);
        self.statements(callee.body.as_deref().unwrap_or_default())?;
        self.return_labels.pop();
        self.calls.pop();
        self.names.leave_function();
        self.source = source;
        self.labels[after as usize] = self.insts.len() as u32;
        for (param, (binding, operand)) in callee.returns.iter().zip(&returned) {
            if let (Binding::Register { slot, ty }, Some(operand)) = (binding, operand) {
                let name = self.fresh_name("result");
                self.bind(
                    call.line,
                    &name,
                    Binding::Register {
                        slot: *slot,
                        ty: *ty,
                    },
                )?;
                self.move_value(call.line, param.ty, (*operand).clone(), Operand::Name(name))?;
            }
        }
        Ok(())
    }

    /// What a parameter of an inlined function is bound to: the caller's `.param` variable itself, or a
    /// new register that gets the operand's value.
    fn pass<'o>(
        &mut self,
        line: u32,
        param: &Param,
        operand: &'o Operand,
    ) -> Result<(Binding, Option<&'o Operand>), LoadError> {
        if param.space == Space::Reg {
            let slot = self.take_rows(line, param.ty)?;
            return Ok((Binding::Register { slot, ty: param.ty }, Some(operand)));
        }
        if let Operand::Name(name) = operand
            && let Some(binding @ Binding::Local(_)) = self.names.find(name)
        {
            return Ok((binding.clone(), None));
        }
        // A register or constant given for a `.param`: it goes through memory of the callee.
        let message = format!("`{operand}` is not a .param variable of this function");
        Err(self.error(line, message))
    }

    fn fresh_name(&self, what: &str) -> String {
        // A space cannot occur in a PTX name.
        format!("{what} {}", self.insts.len())
    }

    fn move_value(
        &mut self,
        line: u32,
        ty: Type,
        to: Operand,
        from: Operand,
    ) -> Result<(), LoadError> {
        let word = format!("b{}", ty.bytes() * 8);
        self.instruction(&Instruction {
            guard: None,
            opcode: "mov".to_owned(),
            modifiers: vec![word],
            operands: vec![to, from],
            line,
        })
    }

    /// The slot of a constant, the same for the same bits and size.
    pub(super) fn constant(&mut self, bits: u64, rows: u8) -> Src {
        let next = self.constants.len() as u32;
        let slot = *self.constant_slots.entry((bits, rows)).or_insert(next);
        if slot == next {
            match rows {
                1 => self.constants.push(Row([bits as u32; LANES])),
                2 => {
                    let halves = bytemuck::cast::<[u64; LANES], [Row; 2]>([bits; LANES]);
                    self.constants.extend(halves);
                }
                _ => {
                    let wide = [u128::from(bits); LANES];
                    self.constants
                        .extend(bytemuck::cast::<[u128; LANES], [Row; 4]>(wide));
                }
            }
        }
        Src {
            slot: slot | Src::CONSTANT,
            rows,
        }
    }

    /// The register of a special register.
    pub(super) fn special(&mut self, special: Special) -> u32 {
        let next = self.rows;
        let slot = *self.specials.entry(special).or_insert(next);
        if slot == next {
            self.rows += u32::from(special.rows());
        }
        slot
    }
}

/// The functions an entry can reach, itself first, and every name that occurs in them.
pub(super) struct Reached<'m> {
    pub(super) functions: Vec<&'m Function>,
    names: HashSet<&'m str>,
}

pub(super) fn reach<'m>(module: &'m Module, entry: &'m Function) -> Reached<'m> {
    let mut reached = Reached {
        functions: vec![entry],
        names: HashSet::new(),
    };
    let mut next = 0;
    while let Some(&function) = reached.functions.get(next) {
        collect_names(
            function.body.as_deref().unwrap_or_default(),
            &mut reached.names,
        );
        for other in &module.functions {
            let known = reached
                .functions
                .iter()
                .any(|function| std::ptr::eq(*function, other));
            if !other.is_entry && !known && reached.names.contains(&*other.name) {
                reached.functions.push(other);
            }
        }
        next += 1;
    }
    reached
}

fn collect_names<'m>(statements: &'m [Statement], names: &mut HashSet<&'m str>) {
    fn of_operand<'m>(operand: &'m Operand, names: &mut HashSet<&'m str>) {
        match operand {
            Operand::Name(name) | Operand::Not(name) | Operand::NameOffset(name, _) => {
                names.insert(name);
            }
            Operand::Pair(a, b) => {
                of_operand(a, names);
                of_operand(b, names);
            }
            Operand::Vector(items) | Operand::List(items) => {
                items.iter().for_each(|item| of_operand(item, names));
            }
            Operand::Address {
                base, coordinates, ..
            } => {
                of_operand(base, names);
                coordinates
                    .iter()
                    .for_each(|operand| of_operand(operand, names));
            }
            Operand::Int(_) | Operand::F32(_) | Operand::F64(_) | Operand::Sink => {}
        }
    }
    for statement in statements {
        match statement {
            Statement::Instruction(instruction) => {
                instruction
                    .operands
                    .iter()
                    .for_each(|operand| of_operand(operand, names));
            }
            Statement::Block(inner) => collect_names(inner, names),
            _ => {}
        }
    }
}

fn collect_shared<'m>(statements: &'m [Statement], all: &mut Vec<&'m Variable>) {
    for statement in statements {
        match statement {
            Statement::Variable(variable) if variable.space == Space::Shared => all.push(variable),
            Statement::Block(inner) => collect_shared(inner, all),
            _ => {}
        }
    }
}

type CallParts<'a> = (&'a [Operand], &'a str, &'a [Operand]);

/// Results, name and arguments of a call; a prototype behind them is of indirect calls only.
fn call_parts(call: &Instruction) -> Option<CallParts<'_>> {
    match call.operands.as_slice() {
        [
            Operand::List(returns),
            Operand::Name(name),
            Operand::List(arguments),
            ..,
        ] => Some((returns, name, arguments)),
        [Operand::Name(name), Operand::List(arguments), ..] => Some((&[], name, arguments)),
        [Operand::List(returns), Operand::Name(name)] => Some((returns, name, &[])),
        [Operand::Name(name)] => Some((&[], name, &[])),
        _ => None,
    }
}
