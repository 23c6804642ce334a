//! The comparison operators of `set` and `setp`.
//!
//! `lo`, `ls`, `hi` and `hs` are `lt`, `le`, `gt` and `ge` of unsigned operands.

/// Equal.
pub const EQ: u8 = 0;
/// Not equal.
pub const NE: u8 = 1;
/// Less.
pub const LT: u8 = 2;
/// Less or equal.
pub const LE: u8 = 3;
/// Greater.
pub const GT: u8 = 4;
/// Greater or equal.
pub const GE: u8 = 5;
/// Equal or unordered.
pub const EQU: u8 = 6;
/// Not equal or unordered.
pub const NEU: u8 = 7;
/// Less or unordered.
pub const LTU: u8 = 8;
/// Less, equal or unordered.
pub const LEU: u8 = 9;
/// Greater or unordered.
pub const GTU: u8 = 10;
/// Greater, equal or unordered.
pub const GEU: u8 = 11;
/// Both are numbers.
pub const NUM: u8 = 12;
/// At least one is NaN.
pub const NAN: u8 = 13;

/// Compares. The operators `eq` to `ge` are false if an operand is NaN, `ne` included, as the
/// ISA has it (an ordered comparison), `equ` to `geu` are true then.
#[inline(always)]
// "Not less" is what "greater, equal or unordered" means.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
pub fn compare<const OP: u8, T: PartialOrd>(a: T, b: T) -> bool {
    const { assert!(OP <= NAN) };
    match OP {
        EQ => a == b,
        NE => (a < b) | (a > b),
        LT => a < b,
        LE => a <= b,
        GT => a > b,
        GE => a >= b,
        EQU => !((a < b) | (a > b)),
        NEU => a != b,
        LTU => !(a >= b),
        LEU => !(a > b),
        GTU => !(a <= b),
        GEU => !(a < b),
        NUM => (a <= b) | (a > b),
        _ => !((a <= b) | (a > b)),
    }
}
