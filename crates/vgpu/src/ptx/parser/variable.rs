//! Declarations of variables and registers.

use super::{Linkage, Parser};
use crate::ptx::ast::{Space, Statement, Type, Variable};
use crate::ptx::error::SyntaxError;
use crate::ptx::lexer::Token;

/// The largest `name<N>` of a declaration.
const MAX_REGISTERS: u32 = 1 << 20;

/// Bytes of the largest variable or parameter: 1 TiB, beyond any device.
const MAX_BYTES: u64 = 1 << 40;

/// Dimensions of an array.
const MAX_DIMENSIONS: usize = 16;

/// What stands between the space and the names of a declaration.
struct Shape {
    ty: Type,
    vector: u32,
    align: Option<u64>,
}

impl Parser<'_> {
    /// A declaration of variables from its space on: `.global .align 4 .u32 a[2] = {1, 2}, b;`.
    pub(super) fn variables(
        &mut self,
        space: Space,
        linkage: Linkage,
    ) -> Result<Vec<Variable>, SyntaxError> {
        let line = self.bump()?.line;
        let Shape { ty, vector, align } = self.shape()?;
        if ty == Type::Pred {
            return Err(self.error("a predicate can only be a register"));
        }
        let mut variables = Vec::new();
        loop {
            let name = self.name("the name of a variable")?.to_owned();
            let start = self.previous.0;
            if self.at("<") {
                return Err(self.error("only registers are declared as `name<count>`"));
            }
            let mut dimensions = self.dimensions()?;
            let mut init = None;
            if self.at("=") {
                if !matches!(space, Space::Global | Space::Const) || linkage.is_extern {
                    return Err(self.error(
                        "only `.global` and `.const` variables of this module have initial values",
                    ));
                }
                self.bump()?;
                self.checked_size(ty, vector, &dimensions, start)?;
                let (value, count) = self.initialiser(ty, vector, &dimensions)?;
                if let Some(first @ 0) = dimensions.first_mut() {
                    *first = count;
                }
                init = Some(value);
            }
            let elements = self.checked_size(ty, vector, &dimensions, start)?;
            if elements == 0 && !linkage.is_extern {
                return Err(self.error_at(start, format!("the array `{name}` needs a size")));
            }
            let natural = ty.bytes() as u64 * u64::from(vector);
            variables.push(Variable {
                space,
                ty,
                vector,
                align: align.unwrap_or(natural),
                name,
                elements,
                init,
                is_extern: linkage.is_extern,
                is_visible: linkage.is_visible,
                line,
            });
            if !self.eat(",")? {
                break;
            }
        }
        self.end_of_statement(line, "`,` or ")?;
        Ok(variables)
    }

    /// `.reg .b32 %r<8>, x;`
    pub(super) fn registers(&mut self) -> Result<Statement, SyntaxError> {
        let line = self.bump()?.line;
        let Shape { ty, vector, align } = self.shape()?;
        if align.is_some() {
            return Err(self.error("a register has no alignment"));
        }
        let mut names = Vec::new();
        loop {
            let name = self.name("the name of a register")?.to_owned();
            let count = if self.eat("<")? {
                let start = self.current.start;
                let count = self.integer("a number of registers")?;
                if count > MAX_REGISTERS {
                    let message = format!("{count} registers are more than {MAX_REGISTERS}");
                    return Err(self.error_at(start, message));
                }
                self.expect(">")?;
                Some(count)
            } else {
                None
            };
            names.push((name, count));
            if !self.eat(",")? {
                break;
            }
        }
        self.end_of_statement(line, "`,` or ")?;
        Ok(Statement::Reg {
            ty,
            vector,
            names,
            line,
        })
    }

    /// Attributes, alignment, vector width and type.
    fn shape(&mut self) -> Result<Shape, SyntaxError> {
        let (mut ty, mut vector, mut align) = (None, None, None);
        while let Token::Word(word) = self.token() {
            let start = self.bump()?.start;
            match word {
                "align" if align.is_none() => align = Some(self.alignment()?),
                "v2" if vector.is_none() => vector = Some(2),
                "v4" if vector.is_none() => vector = Some(4),
                "attribute" => self.attribute()?,
                _ => match Type::parse(word) {
                    Some(found) if ty.is_none() => ty = Some(found),
                    Some(_) => {
                        return Err(self.error_at(start, format!("a second type: `.{word}`")));
                    }
                    None => {
                        let message = format!("expected a type, found `.{word}`");
                        return Err(self.error_at(start, message));
                    }
                },
            }
        }
        let ty = ty.ok_or_else(|| self.expected("a type"))?;
        Ok(Shape {
            ty,
            vector: vector.unwrap_or(1),
            align,
        })
    }

    /// `.attribute(.managed)`: memory of one address for host and device, which is what every
    /// address here is.
    fn attribute(&mut self) -> Result<(), SyntaxError> {
        self.expect("(")?;
        if !self.eat_word("managed")? {
            return Err(self.expected("`.managed`, the only attribute supported"));
        }
        self.expect(")")
    }

    /// The operand of `.align`.
    pub(super) fn alignment(&mut self) -> Result<u64, SyntaxError> {
        let start = self.current.start;
        let align = self.integer("an alignment")?;
        if !align.is_power_of_two() {
            return Err(self.error_at(start, "an alignment is a power of two"));
        }
        Ok(u64::from(align))
    }

    /// `[2][3]`; `[]`, which can only come first, is 0.
    pub(super) fn dimensions(&mut self) -> Result<Vec<u64>, SyntaxError> {
        let mut dimensions = Vec::new();
        while self.at("[") {
            if dimensions.len() == MAX_DIMENSIONS {
                let message = format!("an array has at most {MAX_DIMENSIONS} dimensions");
                return Err(self.error(message));
            }
            self.bump()?;
            let open = dimensions.is_empty() && self.at("]");
            dimensions.push(if open { 0 } else { self.size()? });
            self.expect("]")?;
        }
        Ok(dimensions)
    }

    /// Elements of an array, after a check that its bytes are a sensible number.
    pub(super) fn checked_size(
        &self,
        ty: Type,
        vector: u32,
        dimensions: &[u64],
        start: usize,
    ) -> Result<u64, SyntaxError> {
        // An open dimension counts as one here, so that it does not hide the others; and so does
        // a predicate, which has no bytes.
        let element = ty.bytes().max(1) as u64 * u64::from(vector);
        let bytes = dimensions.iter().try_fold(element, |size, &dimension| {
            size.checked_mul(dimension.max(1))
        });
        if bytes.is_none_or(|bytes| bytes > MAX_BYTES) {
            return Err(self.error_at(start, format!("larger than {MAX_BYTES} bytes")));
        }
        Ok(dimensions.iter().product())
    }
}
