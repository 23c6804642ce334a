//! The arithmetic of constant expressions, at 64 bits as the PTX ISA defines it.

/// A constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constant {
    /// `.s64`
    Signed(i64),
    /// `.u64`
    Unsigned(u64),
    /// `.f64`
    Double(f64),
    /// Bits of an `0f` literal: exact, and therefore no part of any arithmetic.
    Single(u32),
}

use Constant::{Double, Signed, Single, Unsigned};

const SINGLE: &str = "a `0f` literal cannot be part of a constant expression";

impl Constant {
    /// The value as an integer of 64 bits.
    fn bits(self, operator: &str) -> Result<u64, String> {
        match self {
            Signed(value) => Ok(value as u64),
            Unsigned(value) => Ok(value),
            Double(_) | Single(_) => Err(format!("`{operator}` needs integers")),
        }
    }

    /// Applies a prefix operator.
    ///
    /// # Errors
    /// The operator does not take this kind of constant.
    pub fn unary(self, operator: &str) -> Result<Self, String> {
        Ok(match (operator, self) {
            ("+" | "-", Single(_)) => return Err(SINGLE.to_owned()),
            ("+", value) => value,
            ("-", Signed(value)) => Signed(value.wrapping_neg()),
            ("-", Unsigned(value)) => Unsigned(value.wrapping_neg()),
            ("-", Double(value)) => Double(-value),
            ("!", value) => Signed(i64::from(value.bits(operator)? == 0)),
            ("~", Signed(value)) => Signed(!value),
            ("~", value) => Unsigned(!value.bits(operator)?),
            _ => return Err(format!("`{operator}` is not a prefix operator")),
        })
    }

    /// Casts to `.s64` or `.u64`.
    ///
    /// # Errors
    /// Another type, or a value that is no integer.
    pub fn cast(self, ty: &str) -> Result<Self, String> {
        match ty {
            "s64" => Ok(Signed(self.bits("(.s64)")? as i64)),
            "u64" => Ok(Unsigned(self.bits("(.u64)")?)),
            _ => Err("a constant is cast to `.s64` or `.u64`".to_owned()),
        }
    }

    /// Applies an operator between two constants.
    ///
    /// # Errors
    /// A division by zero, or an operator that does not take these kinds of constants.
    pub fn binary(self, operator: &str, other: Self) -> Result<Self, String> {
        match (self, other) {
            (Single(_), _) | (_, Single(_)) => Err(SINGLE.to_owned()),
            (Double(a), Double(b)) => doubles(operator, a, b),
            (Double(_), _) | (_, Double(_)) => Err(format!(
                "`{operator}` between an integer and a floating-point constant"
            )),
            (Signed(a), Signed(b)) => signed(operator, a, b),
            // A shift keeps the type of what it shifts.
            (Signed(a), Unsigned(b)) if matches!(operator, "<<" | ">>") => {
                signed(operator, a, i64::try_from(b).unwrap_or(i64::MAX))
            }
            _ => unsigned(operator, self.bits(operator)?, other.bits(operator)?),
        }
    }

    /// `self ? yes : no`
    ///
    /// # Errors
    /// A condition that is no integer, or branches of different kinds.
    pub fn select(self, yes: Self, no: Self) -> Result<Self, String> {
        let condition = self.bits("?:")? != 0;
        match (yes, no) {
            (Single(_), _) | (_, Single(_)) => Err(SINGLE.to_owned()),
            (Double(_), Double(_)) | (Signed(_), Signed(_)) => Ok(if condition { yes } else { no }),
            (Double(_), _) | (_, Double(_)) => {
                Err("`?:` between an integer and a floating-point constant".to_owned())
            }
            _ => Ok(Unsigned(if condition { yes } else { no }.bits("?:")?)),
        }
    }
}

fn truth(value: bool) -> Result<Constant, String> {
    Ok(Signed(i64::from(value)))
}

fn doubles(operator: &str, a: f64, b: f64) -> Result<Constant, String> {
    Ok(Double(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "<" => return truth(a < b),
        ">" => return truth(a > b),
        "<=" => return truth(a <= b),
        ">=" => return truth(a >= b),
        "==" => return truth(a == b),
        "!=" => return truth(a != b),
        _ => return Err(format!("`{operator}` needs integers")),
    }))
}

fn nonzero<T: PartialEq + Default>(divisor: T) -> Result<T, String> {
    if divisor == T::default() {
        return Err("a constant expression divides by zero".to_owned());
    }
    Ok(divisor)
}

fn signed(operator: &str, a: i64, b: i64) -> Result<Constant, String> {
    Ok(Signed(match operator {
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" => a.wrapping_div(nonzero(b)?),
        "%" => a.wrapping_rem(nonzero(b)?),
        // A count of 64 and more, or a negative one, shifts everything out.
        "<<" => u32::try_from(b)
            .ok()
            .and_then(|count| a.checked_shl(count))
            .unwrap_or(0),
        ">>" => a >> u32::try_from(b).unwrap_or(63).min(63),
        "&" => a & b,
        "^" => a ^ b,
        "|" => a | b,
        "<" => return truth(a < b),
        ">" => return truth(a > b),
        "<=" => return truth(a <= b),
        ">=" => return truth(a >= b),
        "==" => return truth(a == b),
        "!=" => return truth(a != b),
        "&&" => return truth(a != 0 && b != 0),
        "||" => return truth(a != 0 || b != 0),
        _ => return Err(format!("`{operator}` is not an operator of constants")),
    }))
}

fn unsigned(operator: &str, a: u64, b: u64) -> Result<Constant, String> {
    let count = u32::try_from(b).unwrap_or(u32::MAX);
    Ok(Unsigned(match operator {
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" => a / nonzero(b)?,
        "%" => a % nonzero(b)?,
        "<<" => a.checked_shl(count).unwrap_or(0),
        ">>" => a.checked_shr(count).unwrap_or(0),
        "&" => a & b,
        "^" => a ^ b,
        "|" => a | b,
        "<" => return truth(a < b),
        ">" => return truth(a > b),
        "<=" => return truth(a <= b),
        ">=" => return truth(a >= b),
        "==" => return truth(a == b),
        "!=" => return truth(a != b),
        "&&" => return truth(a != 0 && b != 0),
        "||" => return truth(a != 0 || b != 0),
        _ => return Err(format!("`{operator}` is not an operator of constants")),
    }))
}

/// How strongly an operator between two constants binds, from 0; `None` for other symbols.
pub(super) fn precedence(operator: &str) -> Option<u8> {
    Some(match operator {
        "||" => 0,
        "&&" => 1,
        "|" => 2,
        "^" => 3,
        "&" => 4,
        "==" | "!=" => 5,
        "<" | ">" | "<=" | ">=" => 6,
        "<<" | ">>" => 7,
        "+" | "-" => 8,
        "*" | "/" | "%" => 9,
        _ => return None,
    })
}
