//! Constant expressions: C's operators and precedences over constants of 64 bits.

use super::Parser;
use crate::ptx::ast::Operand;
use crate::ptx::constant::{Constant, precedence};
use crate::ptx::error::SyntaxError;
use crate::ptx::lexer::Token;

/// `WARP_SZ`: lanes of a warp on every architecture so far.
const WARP_SIZE: i64 = 32;

impl Parser<'_> {
    /// Whether a constant expression starts here; a name does not start one, but for `WARP_SZ`.
    pub(super) fn at_constant(&self) -> bool {
        match self.token() {
            Token::Int { .. } | Token::F32(_) | Token::F64(_) | Token::Name("WARP_SZ") => true,
            Token::Symbol(symbol) => matches!(symbol, "(" | "+" | "-" | "!" | "~"),
            _ => false,
        }
    }

    /// A constant expression.
    pub(super) fn constant(&mut self) -> Result<Constant, SyntaxError> {
        self.nested(|parser| {
            let start = parser.current.start;
            let condition = parser.operation(0)?;
            if !parser.eat("?")? {
                return Ok(condition);
            }
            let yes = parser.constant()?;
            parser.expect(":")?;
            let no = parser.constant()?;
            condition
                .select(yes, no)
                .map_err(|message| parser.error_at(start, message))
        })
    }

    /// Operators that bind at least as strongly as `weakest`.
    fn operation(&mut self, weakest: u8) -> Result<Constant, SyntaxError> {
        let mut value = self.prefixed()?;
        while let Token::Symbol(operator) = self.token() {
            let Some(strength) = precedence(operator).filter(|&found| found >= weakest) else {
                break;
            };
            let start = self.bump()?.start;
            let right = self.operation(strength + 1)?;
            value = value
                .binary(operator, right)
                .map_err(|message| self.error_at(start, message))?;
        }
        Ok(value)
    }

    /// A value with its prefix operators and casts.
    fn prefixed(&mut self) -> Result<Constant, SyntaxError> {
        let start = self.current.start;
        let Token::Symbol(symbol) = self.token() else {
            return self.primary();
        };
        match symbol {
            "+" | "-" | "!" | "~" => {
                self.bump()?;
                // The least `.s64` has no positive counterpart to negate.
                let least = Token::Int {
                    value: 1 << 63,
                    unsigned: true,
                };
                if symbol == "-" && self.token() == least && !self.ends_in_u() {
                    self.bump()?;
                    return Ok(Constant::Signed(i64::MIN));
                }
                let value = self.nested(Self::prefixed)?;
                value
                    .unary(symbol)
                    .map_err(|message| self.error_at(start, message))
            }
            "(" => {
                self.bump()?;
                let Token::Word(ty) = self.token() else {
                    let value = self.constant()?;
                    self.expect(")")?;
                    return Ok(value);
                };
                self.bump()?;
                self.expect(")")?;
                let value = self.nested(Self::prefixed)?;
                value
                    .cast(ty)
                    .map_err(|message| self.error_at(start, message))
            }
            _ => self.primary(),
        }
    }

    /// Whether the literal in hand is written with the suffix of an unsigned one.
    fn ends_in_u(&self) -> bool {
        self.source[..self.current.end].ends_with('U')
    }

    fn primary(&mut self) -> Result<Constant, SyntaxError> {
        let value = match self.token() {
            Token::Int {
                value,
                unsigned: true,
            } => Constant::Unsigned(value),
            // Not unsigned: it fits.
            Token::Int {
                value,
                unsigned: false,
            } => Constant::Signed(value as i64),
            Token::F64(bits) => Constant::Double(f64::from_bits(bits)),
            Token::F32(bits) => Constant::Single(bits),
            Token::Name("WARP_SZ") => Constant::Signed(WARP_SIZE),
            _ => return Err(self.expected("a constant")),
        };
        self.bump()?;
        Ok(value)
    }

    /// The bytes that `+expression` or `-expression` adds to an address; 0 where neither stands.
    pub(super) fn offset(&mut self) -> Result<i64, SyntaxError> {
        let start = self.current.start;
        // A minus is left in place: it is the prefix of the first term.
        if !self.eat("+")? && !self.at("-") {
            return Ok(0);
        }
        let value = self.constant()?;
        let offset = match value {
            Constant::Signed(value) => Some(value),
            Constant::Unsigned(value) => i64::try_from(value).ok(),
            Constant::Double(_) | Constant::Single(_) => None,
        };
        offset.ok_or_else(|| self.error_at(start, "an offset is an integer that fits `.s64`"))
    }

    /// An array size: a constant from 1.
    pub(super) fn size(&mut self) -> Result<u64, SyntaxError> {
        let start = self.current.start;
        let size = match self.constant()? {
            Constant::Signed(value) => u64::try_from(value).ok(),
            Constant::Unsigned(value) => Some(value),
            Constant::Double(_) | Constant::Single(_) => None,
        };
        size.filter(|&size| size > 0)
            .ok_or_else(|| self.error_at(start, "the size of an array is an integer from 1"))
    }
}

/// A constant as an operand. A decimal is an `f64`; the instruction rounds it to its own type.
pub(super) fn operand(value: Constant) -> Operand {
    match value {
        Constant::Signed(value) => Operand::Int(i128::from(value)),
        Constant::Unsigned(value) => Operand::Int(i128::from(value)),
        Constant::Double(value) => Operand::F64(value.to_bits()),
        Constant::Single(bits) => Operand::F32(bits),
    }
}
