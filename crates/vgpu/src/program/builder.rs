//! What an instruction family sees when it decodes one instruction: its words and operands, taken in
//! order, each resolved to slots. What is left over at the end is an error, so nothing is skipped.

use super::assemble::Assembler;
use super::scope::Binding;
use super::{Class, Definedness, Dst, LoadError, Pred, PredDst, Special, Src};
use crate::ptx::ast::{Instruction, Operand, Type};

/// The memory a named address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// `.global`
    Global,
    /// `.const`
    Const,
    /// `.shared`
    Shared,
    /// `.local`, or a `.param` of a call
    Local,
    /// The parameter block of the entry
    KernelParam,
}

/// `[base + offset]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Register or constant; one row (32-bit shared and local addresses) or two.
    pub base: Src,
    /// Bytes added.
    pub offset: i64,
    /// Set where a variable's name says where it is.
    pub home: Option<Home>,
}

/// Decodes one instruction.
pub struct Builder<'a, 'm> {
    pub(super) assembler: &'a mut Assembler<'m>,
    pub(super) instruction: &'a Instruction,
    word: usize,
    operand: usize,
    /// Class for the counters; a family sets it (default: integer).
    pub class: Class,
    /// How definedness flows; a family that loads or selects sets [`Definedness::Own`].
    pub definedness: Definedness,
    /// Label id of a direct branch, for whoever looks for loops.
    pub target: Option<u32>,
    pub(super) reads: Vec<Src>,
    pub(super) pred_reads: Vec<u32>,
    pub(super) strict: Vec<Src>,
    pub(super) writes: Vec<Dst>,
    pub(super) pred_writes: Vec<u32>,
    pub(super) moving: Vec<(Special, u32)>,
}

impl<'a, 'm> Builder<'a, 'm> {
    pub(super) fn new(assembler: &'a mut Assembler<'m>, instruction: &'a Instruction) -> Self {
        Self {
            assembler,
            instruction,
            word: 0,
            operand: 0,
            class: Class::Integer,
            definedness: Definedness::Propagate,
            target: None,
            reads: Vec::new(),
            pred_reads: Vec::new(),
            strict: Vec::new(),
            writes: Vec::new(),
            pred_writes: Vec::new(),
            moving: Vec::new(),
        }
    }

    /// The first word of the opcode.
    pub fn opcode(&self) -> &'a str {
        &self.instruction.opcode
    }

    /// All words after the opcode.
    pub fn words(&self) -> &'a [String] {
        &self.instruction.modifiers
    }

    /// The next word, not taken.
    pub fn peek(&self) -> Option<&'a str> {
        self.instruction
            .modifiers
            .get(self.word)
            .map(String::as_str)
    }

    /// Takes the next word.
    pub fn take(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.word += 1;
        Some(word)
    }

    /// Takes the next word if it is `word`.
    pub fn accept(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.word += usize::from(found);
        found
    }

    /// Takes the next word if it is one of `words`; returns which.
    pub fn accept_any(&mut self, words: &[&str]) -> Option<usize> {
        let next = self.peek()?;
        let found = words.iter().position(|&word| word == next)?;
        self.word += 1;
        Some(found)
    }

    /// Takes `word` or fails.
    ///
    /// # Errors
    /// Names what stands there instead.
    pub fn expect(&mut self, word: &str) -> Result<(), LoadError> {
        if self.accept(word) {
            return Ok(());
        }
        Err(self.error(format!(".{word} expected, {} found", self.describe_next())))
    }

    /// Takes a type.
    ///
    /// # Errors
    /// Names what stands there instead.
    pub fn ty(&mut self) -> Result<Type, LoadError> {
        self.maybe_ty()
            .ok_or_else(|| self.error(format!("a type expected, {} found", self.describe_next())))
    }

    /// Takes a type if one is next.
    pub fn maybe_ty(&mut self) -> Option<Type> {
        let ty = Type::parse(self.peek()?)?;
        self.word += 1;
        Some(ty)
    }

    fn describe_next(&self) -> String {
        self.peek().map_or_else(
            || "the end of the opcode".to_owned(),
            |word| format!(".{word}"),
        )
    }

    /// An error about this instruction.
    pub fn error(&self, message: impl Into<String>) -> LoadError {
        self.assembler.error(self.instruction.line, message)
    }

    /// "Not supported", about the next word.
    pub fn unknown_word(&self) -> LoadError {
        self.error(format!("{} is not supported here", self.describe_next()))
    }

    /// Bytes of the register that an operand names, if it names one.
    pub fn register_bytes(&self, operand: &Operand) -> Option<usize> {
        let Operand::Name(name) = operand else {
            return None;
        };
        match self.assembler.names.find(name) {
            Some(Binding::Register { ty, .. }) => Some(ty.bytes()),
            _ => None,
        }
    }

    /// Operands that are left.
    pub fn operands_left(&self) -> usize {
        self.instruction.operands.len() - self.operand
    }

    /// The next operand, not taken.
    pub fn peek_operand(&self) -> Option<&'a Operand> {
        self.instruction.operands.get(self.operand)
    }

    /// Takes the next operand as it is written.
    ///
    /// # Errors
    /// There is none.
    pub fn operand(&mut self) -> Result<&'a Operand, LoadError> {
        let operand = self
            .peek_operand()
            .ok_or_else(|| self.error(format!("operand {} is missing", self.operand + 1)))?;
        self.operand += 1;
        Ok(operand)
    }

    /// Takes the next operand to be read as a `ty`.
    ///
    /// # Errors
    /// Not a register, immediate or symbol that fits.
    pub fn src(&mut self, ty: Type) -> Result<Src, LoadError> {
        let operand = self.operand()?;
        self.src_of(operand, ty, false)
    }

    /// As [`Self::src`], for instructions that take registers wider than their type (`st`, `cvt`).
    ///
    /// # Errors
    /// As [`Self::src`].
    pub fn src_wide(&mut self, ty: Type) -> Result<Src, LoadError> {
        let operand = self.operand()?;
        self.src_of(operand, ty, true)
    }

    /// Resolves an operand to be read as a `ty`; `wide` admits a register wider than it.
    ///
    /// # Errors
    /// As [`Self::src`].
    pub fn src_of(&mut self, operand: &Operand, ty: Type, wide: bool) -> Result<Src, LoadError> {
        let literal = matches!(operand, Operand::F32(_) | Operand::F64(_));
        if literal && (is_integer(ty) || ty.bytes() < 4)
            || matches!(operand, Operand::Int(_)) && is_float(ty)
        {
            return Err(self.error(format!("the constant `{operand}` is not a {ty:?}")));
        }
        let constant = match operand {
            Operand::Int(value) => *value as u64,
            Operand::F32(bits) => match ty {
                Type::F64 => f64::from(f32::from_bits(*bits)).to_bits(),
                _ => u64::from(*bits),
            },
            Operand::F64(bits) => match ty {
                Type::F64 | Type::B64 | Type::U64 | Type::S64 => *bits,
                _ => u64::from((f64::from_bits(*bits) as f32).to_bits()),
            },
            Operand::Name(name) => return self.named_src(name, 0, ty, wide),
            Operand::NameOffset(name, offset) => return self.named_src(name, *offset, ty, wide),
            other => return Err(self.error(format!("a value expected, `{other}` found"))),
        };
        Ok(self.assembler.constant(constant, rows(ty)))
    }

    fn named_src(
        &mut self,
        name: &str,
        offset: i64,
        ty: Type,
        wide: bool,
    ) -> Result<Src, LoadError> {
        if name == "WARP_SZ" {
            return Ok(self.assembler.constant(32, rows(ty)));
        }
        if name.starts_with('%')
            && self.assembler.names.find(name).is_none()
            && let Some(special) = Special::parse(name)
        {
            let slot = self.assembler.special(special);
            if special.is_moving() {
                self.moving.push((special, slot));
            }
            return Ok(Src {
                slot,
                rows: special.rows(),
            });
        }
        let binding = self.assembler.names.find(name).cloned();
        let address = match binding {
            Some(Binding::Register { slot, ty: declared }) => {
                self.check_width(name, declared, ty, wide)?;
                let src = Src {
                    slot,
                    rows: rows(declared),
                };
                self.reads.push(src);
                return Ok(src);
            }
            Some(Binding::Global(address) | Binding::Const(address)) => address,
            Some(Binding::Shared(at) | Binding::Local(at) | Binding::KernelParam(at)) => {
                u64::from(at)
            }
            Some(Binding::Pred(_)) => {
                return Err(self.error(format!("{name} is a predicate; a {ty:?} is needed")));
            }
            Some(_) => return Err(self.error(format!("{name} is not a value"))),
            None => return Err(self.error(format!("{name} is not declared"))),
        };
        Ok(self
            .assembler
            .constant(address.wrapping_add_signed(offset), rows(ty)))
    }

    fn check_width(
        &self,
        name: &str,
        declared: Type,
        ty: Type,
        wide: bool,
    ) -> Result<(), LoadError> {
        if is_float(declared) && is_integer(ty) || is_integer(declared) && is_float(ty) {
            return Err(self.error(format!("{name} is a {declared:?}; a {ty:?} is needed")));
        }
        let (have, want) = (declared.bytes(), ty.bytes());
        if have == want || (wide && have > want) || (want == 1 && have == 2) {
            return Ok(());
        }
        Err(self.error(format!(
            "{name} has {} bits where {} are needed",
            have * 8,
            want * 8
        )))
    }

    /// Takes the next operand as a register to be written with a `ty`, or `_`.
    ///
    /// # Errors
    /// Not a register of that width.
    pub fn dst(&mut self, ty: Type) -> Result<Dst, LoadError> {
        let operand = self.operand()?;
        self.dst_of(operand, ty, false)
    }

    /// As [`Self::dst`], for instructions that write registers wider than their type (`ld`, `cvt`).
    ///
    /// # Errors
    /// As [`Self::dst`].
    pub fn dst_wide(&mut self, ty: Type) -> Result<Dst, LoadError> {
        let operand = self.operand()?;
        self.dst_of(operand, ty, true)
    }

    /// Resolves an operand to be written.
    ///
    /// # Errors
    /// As [`Self::dst`].
    pub fn dst_of(&mut self, operand: &Operand, ty: Type, wide: bool) -> Result<Dst, LoadError> {
        match operand {
            Operand::Sink => Ok(Dst {
                slot: None,
                rows: rows(ty),
            }),
            Operand::Name(name) => match self.assembler.names.find(name).cloned() {
                Some(Binding::Register { slot, ty: declared }) => {
                    self.check_width(name, declared, ty, wide)?;
                    let dst = Dst {
                        slot: Some(slot),
                        rows: rows(declared),
                    };
                    self.writes.push(dst);
                    Ok(dst)
                }
                Some(_) => Err(self.error(format!("{name} is not a register"))),
                None => Err(self.error(format!("{name} is not declared"))),
            },
            other => Err(self.error(format!("a register expected, `{other}` found"))),
        }
    }

    /// The operands of `{a, b, …}`, or the one operand that stands alone; a vector register gives its
    /// components.
    ///
    /// # Errors
    /// There is no operand.
    pub fn elements(&mut self) -> Result<Vec<Operand>, LoadError> {
        let operand = self.operand()?;
        Ok(self.elements_of(operand))
    }

    /// As [`Self::elements`], of a given operand.
    pub fn elements_of(&self, operand: &Operand) -> Vec<Operand> {
        match operand {
            Operand::Vector(items) => items.clone(),
            Operand::Name(name) => match self.assembler.names.find(name) {
                Some(Binding::Vector { slots, .. }) => (0..slots.len())
                    .map(|index| Operand::Name(format!("{name}.{}", &"xyzw"[index..=index])))
                    .collect(),
                _ => vec![operand.clone()],
            },
            other => vec![other.clone()],
        }
    }

    /// Takes a vector (or a lone register) of registers to read.
    ///
    /// # Errors
    /// As [`Self::src`].
    pub fn vector_src(&mut self, ty: Type, wide: bool) -> Result<Vec<Src>, LoadError> {
        let items = self.elements()?;
        items
            .iter()
            .map(|item| self.src_of(item, ty, wide))
            .collect()
    }

    /// Takes a vector (or a lone register) of registers to write.
    ///
    /// # Errors
    /// As [`Self::dst`].
    pub fn vector_dst(&mut self, ty: Type, wide: bool) -> Result<Vec<Dst>, LoadError> {
        let items = self.elements()?;
        items
            .iter()
            .map(|item| self.dst_of(item, ty, wide))
            .collect()
    }

    /// Takes a predicate to read.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn pred(&mut self) -> Result<Pred, LoadError> {
        let operand = self.operand()?;
        self.pred_of(operand)
    }

    /// Resolves a predicate to read.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn pred_of(&mut self, operand: &Operand) -> Result<Pred, LoadError> {
        let (name, negated) = match operand {
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            Operand::Int(value) => return Ok(Pred::Constant(*value != 0)),
            other => return Err(self.error(format!("a predicate expected, `{other}` found"))),
        };
        match self.assembler.names.find(name) {
            Some(&Binding::Pred(index)) => {
                self.pred_reads.push(index);
                Ok(Pred::Register { index, negated })
            }
            Some(_) => Err(self.error(format!("{name} is not a predicate"))),
            None => Err(self.error(format!("{name} is not declared"))),
        }
    }

    /// Takes a predicate to write, or `_`.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn pred_dst(&mut self) -> Result<PredDst, LoadError> {
        let operand = self.operand()?;
        self.pred_dst_of(operand)
    }

    /// Resolves a predicate to write.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn pred_dst_of(&mut self, operand: &Operand) -> Result<PredDst, LoadError> {
        match operand {
            Operand::Sink => Ok(PredDst(None)),
            Operand::Name(name) => match self.assembler.names.find(name) {
                Some(&Binding::Pred(index)) => {
                    self.pred_writes.push(index);
                    Ok(PredDst(Some(index)))
                }
                Some(_) => Err(self.error(format!("{name} is not a predicate"))),
                None => Err(self.error(format!("{name} is not declared"))),
            },
            other => Err(self.error(format!("a predicate expected, `{other}` found"))),
        }
    }

    /// The type with which the register that an operand names was declared.
    pub fn register_type(&self, operand: &Operand) -> Option<Type> {
        match operand {
            Operand::Name(name) => match self.assembler.names.find(name) {
                Some(&Binding::Register { ty, .. }) => Some(ty),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the operand names a predicate register.
    pub fn is_pred(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Name(name) | Operand::Not(name)
            if matches!(self.assembler.names.find(name), Some(Binding::Pred(_))))
    }

    /// Takes an integer immediate.
    ///
    /// # Errors
    /// Not an immediate.
    pub fn immediate(&mut self) -> Result<i64, LoadError> {
        match self.operand()? {
            Operand::Int(value) => Ok(*value as i64),
            other => Err(self.error(format!("an integer constant expected, `{other}` found"))),
        }
    }

    /// Takes `[base+offset]`; its registers must be defined when it runs. Tensor coordinates inside
    /// the bracket are an error here: see [`Self::tensor_address`].
    ///
    /// # Errors
    /// Not an address.
    pub fn address(&mut self) -> Result<Address, LoadError> {
        let operand = self.operand()?;
        self.address_of(operand)
    }

    /// Resolves `[base+offset]`.
    ///
    /// # Errors
    /// Not an address.
    pub fn address_of(&mut self, operand: &Operand) -> Result<Address, LoadError> {
        match operand {
            Operand::Address {
                base,
                offset,
                coordinates: None,
            } => self.address_parts(base, *offset),
            other => Err(self.error(format!("an address in brackets expected, `{other}` found"))),
        }
    }

    /// Takes `[map, {x, y, …}]`: the address and the coordinates.
    ///
    /// # Errors
    /// Not such an address.
    pub fn tensor_address(&mut self) -> Result<(Address, Vec<Src>), LoadError> {
        match self.operand()? {
            Operand::Address {
                base,
                offset,
                coordinates: Some(coordinates),
            } => {
                let address = self.address_parts(base, *offset)?;
                let items = self.elements_of(coordinates);
                let coordinates = items
                    .iter()
                    .map(|item| {
                        let src = self.src_of(item, Type::S32, false)?;
                        self.must_be_defined(src);
                        Ok(src)
                    })
                    .collect::<Result<_, LoadError>>()?;
                Ok((address, coordinates))
            }
            other => Err(self.error(format!("[map, {{coordinates}}] expected, `{other}` found"))),
        }
    }

    fn address_parts(&mut self, base: &Operand, offset: i64) -> Result<Address, LoadError> {
        let home = match base {
            Operand::Name(name) => match self.assembler.names.find(name) {
                Some(Binding::Global(_)) => Some(Home::Global),
                Some(Binding::Const(_)) => Some(Home::Const),
                Some(Binding::Shared(_)) => Some(Home::Shared),
                Some(Binding::Local(_)) => Some(Home::Local),
                Some(Binding::KernelParam(_)) => Some(Home::KernelParam),
                _ => None,
            },
            _ => None,
        };
        let narrow = matches!(base, Operand::Name(name)
            if matches!(self.assembler.names.find(name), Some(Binding::Register { ty, .. }) if ty.bytes() == 4));
        let ty = if narrow { Type::B32 } else { Type::B64 };
        let base = self.src_of(base, ty, false)?;
        self.must_be_defined(base);
        Ok(Address { base, offset, home })
    }

    /// Says that an operand decides something (an address, a mask, a stored value): a lane in which it
    /// was never set is reported.
    pub fn must_be_defined(&mut self, src: Src) {
        if !src.is_constant() {
            self.strict.push(src);
            self.reads.retain(|other| *other != src);
        }
    }

    /// The id of a label named by an operand.
    ///
    /// # Errors
    /// Not a label.
    pub fn label(&mut self) -> Result<u32, LoadError> {
        let operand = self.operand()?;
        match operand {
            Operand::Name(name) => self.label_named(name),
            other => Err(self.error(format!("a label expected, `{other}` found"))),
        }
    }

    fn label_named(&self, name: &str) -> Result<u32, LoadError> {
        match self.assembler.names.find(name) {
            Some(&Binding::Label(id)) => Ok(id),
            Some(_) => Err(self.error(format!("{name} is not a label"))),
            None => Err(self.error(format!("label {name} is not in this function"))),
        }
    }

    /// The labels of the `.branchtargets` table named by the next operand.
    ///
    /// # Errors
    /// Not such a table.
    pub fn branch_table(&mut self) -> Result<Vec<u32>, LoadError> {
        match self.operand()? {
            Operand::Name(name) => match self.assembler.names.find(name).cloned() {
                Some(Binding::BranchTable(labels)) => {
                    labels.iter().map(|label| self.label_named(label)).collect()
                }
                _ => Err(self.error(format!("{name} is not a .branchtargets table"))),
            },
            other => Err(self.error(format!("a .branchtargets table expected, `{other}` found"))),
        }
    }

    /// Where `ret` goes inside an inlined function; `None` in the entry itself.
    pub fn return_label(&self) -> Option<u32> {
        self.assembler.return_labels.last().copied()
    }

    /// The number in the module's `.target`: 90 of `sm_90a`.
    pub fn target_sm(&self) -> u32 {
        let digits = |c: char| !c.is_ascii_digit();
        self.assembler
            .module
            .target
            .replace(digits, "")
            .parse()
            .unwrap_or(0)
    }

    /// Whether the module's `.target` has the suffix `a`.
    pub fn target_is_specific(&self) -> bool {
        self.assembler.module.target.ends_with('a')
    }

    /// Marks the program's [`super::Habits`].
    pub fn habits(&mut self) -> &mut super::Habits {
        &mut self.assembler.habits
    }

    pub(super) fn finish(&self) -> Result<(), LoadError> {
        if self.peek().is_some() {
            return Err(self.unknown_word());
        }
        match self.peek_operand() {
            Some(operand) => Err(self.error(format!("operand `{operand}` is one too many"))),
            None => Ok(()),
        }
    }
}

/// Rows of a register of a type.
pub(super) fn rows(ty: Type) -> u8 {
    match ty.bytes() {
        8 => 2,
        16 => 4,
        _ => 1,
    }
}

/// Floating point and integers do not mix; untyped bits go with both.
fn is_float(ty: Type) -> bool {
    matches!(
        ty,
        Type::F16 | Type::BF16 | Type::F16x2 | Type::BF16x2 | Type::F32 | Type::F64
    )
}

fn is_integer(ty: Type) -> bool {
    ty.is_signed()
        || matches!(
            ty,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::U16x2
        )
}
