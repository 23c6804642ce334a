//! Instructions and their operands.

use super::{Parser, expression};
use crate::ptx::ast::{Instruction, Operand};
use crate::ptx::error::SyntaxError;
use crate::ptx::lexer::Token;

/// Why `name[1]` is refused.
const INDEXED: &str = "indexing a variable is not supported; write `[name+bytes]` or `name+bytes`";

impl Parser<'_> {
    /// `@p` or `@!p` and the instruction it guards.
    pub(super) fn guarded(&mut self) -> Result<Instruction, SyntaxError> {
        let line = self.bump()?.line;
        let negated = self.eat("!")?;
        let register = self.name("a predicate register")?.to_owned();
        let opcode = self.name("an instruction")?;
        let mut instruction = self.instruction(opcode, line)?;
        instruction.guard = Some((register, negated));
        Ok(instruction)
    }

    /// An instruction whose first word has been taken.
    pub(super) fn instruction(
        &mut self,
        opcode: &str,
        line: u32,
    ) -> Result<Instruction, SyntaxError> {
        if !opcode.starts_with(|first: char| first.is_ascii_lowercase()) {
            let start = self.previous.0;
            return Err(self.error_at(start, format!("expected an instruction, found `{opcode}`")));
        }
        let mut modifiers = Vec::new();
        while let Token::Word(word) = self.token() {
            modifiers.push(word.to_owned());
            self.bump()?;
        }
        let mut operands = Vec::new();
        if self.at_operand() {
            let is_call = opcode == "call";
            loop {
                operands.push(self.operand(is_call)?);
                if !self.eat(",")? {
                    break;
                }
            }
        }
        let alternatives = if operands.is_empty() {
            "an operand or "
        } else {
            "`,` or "
        };
        self.end_of_statement(line, alternatives)?;
        let opcode = opcode.to_owned();
        Ok(Instruction {
            guard: None,
            opcode,
            modifiers,
            operands,
            line,
        })
    }

    /// Whether an operand starts here.
    fn at_operand(&self) -> bool {
        matches!(self.token(), Token::Name(_) | Token::Symbol("{" | "[")) || self.at_constant()
    }

    /// An operand; only those of `call` can be lists in parentheses.
    fn operand(&mut self, is_call: bool) -> Result<Operand, SyntaxError> {
        match self.token() {
            Token::Symbol("{") => self.vector(),
            Token::Symbol("[") => self.address(),
            Token::Symbol("(") if is_call => self.list(),
            _ => self.plain(),
        }
    }

    /// Whether a name follows the token in hand: `!p`, where `!0` and `!WARP_SZ` are constants.
    fn at_negated_name(&self) -> Result<bool, SyntaxError> {
        Ok(matches!(self.peek()?, Token::Name(name) if name != "WARP_SZ"))
    }

    /// An operand without brackets.
    fn plain(&mut self) -> Result<Operand, SyntaxError> {
        match self.token() {
            Token::Symbol("!") if self.at_negated_name()? => {
                self.bump()?;
                let name = self.name("a predicate register")?;
                Ok(Operand::Not(name.to_owned()))
            }
            _ if self.at_constant() => self.constant().map(expression::operand),
            Token::Name(_) => {
                let first = self.destination()?;
                if self.eat("|")? {
                    let second = self.destination()?;
                    return Ok(Operand::Pair(Box::new(first), Box::new(second)));
                }
                let Operand::Name(name) = first else {
                    return Ok(first);
                };
                if self.at("[") {
                    return Err(self.error(INDEXED));
                }
                Ok(match self.offset()? {
                    0 => Operand::Name(name),
                    offset => Operand::NameOffset(name, offset),
                })
            }
            _ => Err(self.expected("an operand")),
        }
    }

    /// `_`, or a name with its suffix (`%tid.x`, `v.y`, and `r.b0` of the video instructions).
    fn destination(&mut self) -> Result<Operand, SyntaxError> {
        if self.token() == Token::Name("_") {
            self.bump()?;
            return Ok(Operand::Sink);
        }
        let mut name = self.name("a register")?.to_owned();
        if let Token::Word(suffix) = self.token() {
            self.bump()?;
            name.push('.');
            name.push_str(suffix);
        }
        Ok(Operand::Name(name))
    }

    /// `{a, b, c}`
    fn vector(&mut self) -> Result<Operand, SyntaxError> {
        self.expect("{")?;
        let mut items = Vec::new();
        loop {
            if self.at("{") {
                return Err(self.error("a vector holds registers and constants, not vectors"));
            }
            items.push(self.plain()?);
            if !self.eat(",")? {
                break;
            }
        }
        if !self.eat("}")? {
            return Err(self.expected("`,` or `}`"));
        }
        Ok(Operand::Vector(items))
    }

    /// `(a, b)` of a call; `()` is an empty list.
    fn list(&mut self) -> Result<Operand, SyntaxError> {
        self.expect("(")?;
        let mut items = Vec::new();
        if !self.at(")") {
            loop {
                items.push(self.operand(false)?);
                if !self.eat(",")? {
                    break;
                }
            }
        }
        if !self.eat(")")? {
            return Err(self.expected("`,` or `)`"));
        }
        Ok(Operand::List(items))
    }

    /// `[base+offset]`, with `, {x, y}` for a tensor.
    fn address(&mut self) -> Result<Operand, SyntaxError> {
        self.expect("[")?;
        let start = self.current.start;
        let (base, offset) = if self.at_constant() {
            match expression::operand(self.constant()?) {
                base @ Operand::Int(_) => (base, 0),
                _ => return Err(self.error_at(start, "an address is an integer")),
            }
        } else {
            match self.token() {
                Token::Name(name) if name != "_" => (self.destination()?, self.offset()?),
                _ => return Err(self.expected("a register, a variable or an address")),
            }
        };
        let coordinates = if self.eat(",")? {
            if !self.at("{") {
                return Err(self.expected("coordinates in `{…}`"));
            }
            Some(Box::new(self.vector()?))
        } else {
            None
        };
        if !self.eat("]")? {
            return Err(self.expected("`]`"));
        }
        Ok(Operand::Address {
            base: Box::new(base),
            offset,
            coordinates,
        })
    }
}
