//! Initial values: numbers and addresses, flattened to the bytes of a variable.

use super::Parser;
use crate::ptx::ast::{Init, Type};
use crate::ptx::constant::Constant;
use crate::ptx::error::SyntaxError;

/// Bytes of an address.
const ADDRESS: u64 = 8;

/// The address of a symbol as an initialiser names it.
#[derive(Clone, PartialEq)]
struct Address {
    symbol: String,
    addend: i64,
    generic: bool,
}

/// An address that is written byte by byte: `0xff(p), 0xff00(p), …`.
struct Partial {
    /// Where its first byte goes.
    offset: u64,
    /// Bytes so far.
    count: u64,
    address: Address,
}

/// The value being put together.
struct Writer {
    ty: Type,
    init: Init,
    partial: Option<Partial>,
}

impl Parser<'_> {
    /// The value behind `=`; also the number of items of the outermost braces, which is the size
    /// of an array declared as `[]`.
    pub(super) fn initialiser(
        &mut self,
        ty: Type,
        vector: u32,
        dimensions: &[u64],
    ) -> Result<(Init, u64), SyntaxError> {
        let mut dimensions = dimensions.to_vec();
        if vector > 1 {
            dimensions.push(u64::from(vector));
        }
        let mut writer = Writer {
            ty,
            init: Init::default(),
            partial: None,
        };
        let start = self.current.start;
        let count = self.level(&mut writer, &dimensions, 0)?;
        if writer.partial.is_some() {
            return Err(self.error_at(start, "not all eight bytes of an address are written"));
        }
        Ok((writer.init, count))
    }

    /// One level of braces, whose first element is the `first` one of the variable.
    fn level(
        &mut self,
        writer: &mut Writer,
        dimensions: &[u64],
        first: u64,
    ) -> Result<u64, SyntaxError> {
        let Some((&size, inner)) = dimensions.split_first() else {
            self.value(writer, first.saturating_mul(writer.ty.bytes() as u64))?;
            return Ok(1);
        };
        self.expect("{")?;
        // The sizes written out were checked together; an open one can still be filled with more
        // than fits, and saturates until its size is checked too.
        let stride: u64 = inner.iter().product();
        let mut count = 0;
        if !self.at("}") {
            loop {
                if size > 0 && count == size {
                    return Err(self.error(format!("more values than the {size} of the array")));
                }
                self.level(
                    writer,
                    inner,
                    first.saturating_add(stride.saturating_mul(count)),
                )?;
                count += 1;
                if !self.eat(",")? {
                    break;
                }
            }
        }
        if !self.eat("}")? {
            return Err(self.expected("`,` or `}`"));
        }
        Ok(count)
    }

    /// One element, which goes to byte `offset`.
    fn value(&mut self, writer: &mut Writer, offset: u64) -> Result<(), SyntaxError> {
        let start = self.current.start;
        if !self.at_constant() {
            let address = self.symbol()?;
            if writer.ty.bytes() as u64 != ADDRESS {
                return Err(self.error_at(start, "an address needs an element of 64 bits"));
            }
            return self.put_address(writer, offset, address, start);
        }
        let constant = self.constant()?;
        if self.at("(") {
            return self.masked(writer, offset, constant, start);
        }
        if writer.partial.is_some() {
            return Err(self.error_at(start, "not all eight bytes of an address are written"));
        }
        let bytes = encode(writer.ty, constant).map_err(|what| self.error_at(start, what))?;
        self.put(writer, offset, &bytes[..writer.ty.bytes()], start)
    }

    /// `symbol`, `symbol+4`, `generic(symbol)` or `generic(symbol)+4`.
    fn symbol(&mut self) -> Result<Address, SyntaxError> {
        let mut symbol = self.name("a value")?;
        let generic = symbol == "generic" && self.eat("(")?;
        if generic {
            symbol = self.name("a symbol")?;
            self.expect(")")?;
        }
        let addend = self.offset()?;
        Ok(Address {
            symbol: symbol.to_owned(),
            addend,
            generic,
        })
    }

    /// `0xff00(symbol)`: one byte of an address, in an array of bytes. All eight stand in order,
    /// and become one address.
    fn masked(
        &mut self,
        writer: &mut Writer,
        offset: u64,
        mask: Constant,
        start: usize,
    ) -> Result<(), SyntaxError> {
        if writer.ty.bytes() != 1 {
            return Err(self.error_at(start, "a byte of an address needs an element of 8 bits"));
        }
        self.expect("(")?;
        let address = self.symbol()?;
        self.expect(")")?;
        let (count, begin) = match &writer.partial {
            None => (0, offset),
            Some(partial) if partial.address == address => (partial.count, partial.offset),
            Some(_) => {
                return Err(self.error_at(start, "not all eight bytes of an address are written"));
            }
        };
        let mask = match mask {
            Constant::Signed(mask) => mask as u64,
            Constant::Unsigned(mask) => mask,
            Constant::Double(_) | Constant::Single(_) => 0,
        };
        if mask != 0xff << (8 * count) || offset != begin + count {
            let expected = 0xff_u64 << (8 * count);
            return Err(self.error_at(start, format!("expected the mask {expected:#x}")));
        }
        if count + 1 < ADDRESS {
            writer.partial = Some(Partial {
                offset: begin,
                count: count + 1,
                address,
            });
            return Ok(());
        }
        writer.partial = None;
        self.put_address(writer, begin, address, start)
    }

    /// Notes an address, with zeros in its place.
    fn put_address(
        &mut self,
        writer: &mut Writer,
        offset: u64,
        address: Address,
        start: usize,
    ) -> Result<(), SyntaxError> {
        self.put(writer, offset, &[0; ADDRESS as usize], start)?;
        let Address {
            symbol,
            addend,
            generic,
        } = address;
        writer
            .init
            .addresses
            .push((offset, symbol, addend, generic));
        Ok(())
    }

    /// Writes bytes at `offset`, which never is before the end of what is there.
    fn put(
        &mut self,
        writer: &mut Writer,
        offset: u64,
        bytes: &[u8],
        start: usize,
    ) -> Result<(), SyntaxError> {
        let old = writer.init.bytes.len();
        let budget = usize::try_from(offset)
            .ok()
            .and_then(|offset| offset.checked_add(bytes.len())?.checked_sub(old))
            .and_then(|growth| self.initial_budget.checked_sub(growth));
        let Some(budget) = budget else {
            return Err(self.error_at(start, "the initial values take too much memory"));
        };
        self.initial_budget = budget;
        writer.init.bytes.resize(offset as usize, 0);
        writer.init.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// The bytes of a constant in an element; those beyond the element's size do not count. Integers
/// are truncated, as the assembler does.
fn encode(ty: Type, constant: Constant) -> Result<[u8; 16], String> {
    let bits = match (ty, constant) {
        (Type::F64, Constant::Double(value)) => u128::from(value.to_bits()),
        (Type::F32, Constant::Double(value)) => u128::from((value as f32).to_bits()),
        (Type::F32, Constant::Single(bits)) => u128::from(bits),
        (Type::F64, _) => return Err("an `.f64` starts with a decimal or `0d…`".to_owned()),
        (Type::F32, _) => return Err("an `.f32` starts with a decimal or `0f…`".to_owned()),
        (_, Constant::Double(_) | Constant::Single(_)) => {
            return Err("an integer is expected as this initial value".to_owned());
        }
        (ty, _) if !is_integer(ty) => {
            return Err("a variable of this type has no initial value".to_owned());
        }
        (_, Constant::Signed(value)) => i128::from(value) as u128,
        (_, Constant::Unsigned(value)) => u128::from(value),
    };
    Ok(bits.to_le_bytes())
}

/// Whether integers are the values of a type; the untyped bits are among them.
fn is_integer(ty: Type) -> bool {
    use Type::{B8, B16, B32, B64, B128, S8, S16, S32, S64, U8, U16, U32, U64};
    matches!(
        ty,
        B8 | B16 | B32 | B64 | B128 | U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64
    )
}
