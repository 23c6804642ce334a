//! The syntax tree of a PTX module: what the text says, before anything is resolved.

use std::fmt;

/// A state space as it is written on a variable or an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// `.reg`
    Reg,
    /// `.param` of an entry (constant) or of a call (per thread).
    Param,
    /// `.const`
    Const,
    /// `.global`
    Global,
    /// `.shared` (also `.shared::cta`)
    Shared,
    /// `.shared::cluster`
    SharedCluster,
    /// `.local`
    Local,
    /// No space named: a generic address.
    Generic,
}

/// A fundamental type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the PTX ISA")]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    F32,
    F64,
    TF32,
    E4M3x2,
    E5M2x2,
    U16x2,
    S16x2,
    F32x2,
}

impl Type {
    /// Reads a type as it is written, without its leading dot (`"u32"`).
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pred" => Self::Pred,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "b128" => Self::B128,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::BF16,
            "bf16x2" => Self::BF16x2,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "tf32" => Self::TF32,
            "e4m3x2" => Self::E4M3x2,
            "e5m2x2" => Self::E5M2x2,
            "u16x2" => Self::U16x2,
            "s16x2" => Self::S16x2,
            "f32x2" => Self::F32x2,
            _ => return None,
        })
    }

    /// Bytes of one value in memory; a predicate has none and says 0.
    pub fn bytes(self) -> usize {
        match self {
            Self::Pred => 0,
            Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16
            | Self::U16
            | Self::S16
            | Self::F16
            | Self::BF16
            | Self::E4M3x2
            | Self::E5M2x2 => 2,
            Self::B32
            | Self::U32
            | Self::S32
            | Self::F16x2
            | Self::BF16x2
            | Self::F32
            | Self::TF32
            | Self::U16x2
            | Self::S16x2 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 | Self::F32x2 => 8,
            Self::B128 => 16,
        }
    }

    /// Whether the type is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(
            self,
            Self::S8 | Self::S16 | Self::S32 | Self::S64 | Self::S16x2
        )
    }
}

/// A module: one PTX file.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// `.version`, as (major, minor).
    pub version: (u32, u32),
    /// `.target`'s architecture, e.g. `sm_90a`.
    pub target: String,
    /// `.address_size`; only 64 is accepted.
    pub address_size: u32,
    /// `.file` table: (index, path).
    pub files: Vec<(u32, String)>,
    /// Variables at module scope.
    pub variables: Vec<Variable>,
    /// Entries and device functions, in the order of the text; a declaration without a body has
    /// `body: None`.
    pub functions: Vec<Function>,
}

/// A variable declaration at module or function scope.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Where it lives.
    pub space: Space,
    /// Its element type.
    pub ty: Type,
    /// Elements of a `.v2`/`.v4` declaration; 1 without.
    pub vector: u32,
    /// Bytes of alignment: `.align`, or the natural one.
    pub align: u64,
    /// Its name; for `name<N>` of a register see [`Statement::Reg`].
    pub name: String,
    /// Elements of all array dimensions together; 1 for a scalar, 0 for `[]`.
    pub elements: u64,
    /// Initial value, if any.
    pub init: Option<Init>,
    /// `.extern`: for `.shared` the dynamic shared memory, for others an unresolved symbol.
    pub is_extern: bool,
    /// `.visible` or `.weak`: the host can look it up.
    pub is_visible: bool,
    /// Line in the text, from 1.
    pub line: u32,
}

impl Variable {
    /// Bytes of the whole variable.
    pub fn bytes(&self) -> u64 {
        self.ty.bytes() as u64 * u64::from(self.vector) * self.elements
    }
}

/// An initialiser, flattened to bytes (little endian) and the addresses that go into them.
#[derive(Clone, Debug, Default)]
pub struct Init {
    /// Values from the start of the variable; the rest is zero.
    pub bytes: Vec<u8>,
    /// `(offset, symbol, addend, generic)`: the address of a symbol goes to `offset` (8 bytes).
    pub addresses: Vec<(u64, String, i64, bool)>,
}

/// A parameter or return value of a function.
#[derive(Clone, Debug)]
pub struct Param {
    /// [`Space::Param`], or [`Space::Reg`] for register parameters of device functions.
    pub space: Space,
    /// Element type.
    pub ty: Type,
    /// Bytes of alignment.
    pub align: u64,
    /// Name.
    pub name: String,
    /// Elements (array parameters are by-value structs); 1 for a scalar.
    pub elements: u64,
}

impl Param {
    /// Bytes of the parameter.
    pub fn bytes(&self) -> u64 {
        self.ty.bytes() as u64 * self.elements
    }
}

/// An `.entry` or a `.func`.
#[derive(Clone, Debug)]
pub struct Function {
    /// True for `.entry`.
    pub is_entry: bool,
    /// Name.
    pub name: String,
    /// Return values of a `.func`.
    pub returns: Vec<Param>,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Directives between the signature and the body.
    pub directives: Directives,
    /// The body; `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// Line of the declaration.
    pub line: u32,
}

/// Performance and launch directives of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `.maxntid`
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`
    pub min_blocks_per_sm: Option<u32>,
    /// `.maxnreg`
    pub max_registers: Option<u32>,
    /// `.reqnctapercluster`
    pub required_cluster: Option<[u32; 3]>,
    /// `.explicitcluster`
    pub explicit_cluster: bool,
    /// `.maxclusterrank`
    pub max_cluster_rank: Option<u32>,
    /// `.noreturn`
    pub noreturn: bool,
}

/// One statement of a body.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `.reg .b32 %r<8>;` declares `%r0` … `%r7`; `.reg .pred p, q;` declares two names.
    Reg {
        /// Type of each.
        ty: Type,
        /// `.v2` / `.v4`, else 1.
        vector: u32,
        /// `(name, Some(count))` for a range, `(name, None)` for one register.
        names: Vec<(String, Option<u32>)>,
        /// Line.
        line: u32,
    },
    /// A `.shared`, `.local`, `.param`, `.const` or `.global` variable in the body.
    Variable(Variable),
    /// `name:`
    Label {
        /// Name.
        name: String,
        /// Line.
        line: u32,
    },
    /// `.loc file line column …`: the source line of what follows. For inlined code
    /// (`function_name …, inlined_at …`) the innermost place.
    Loc {
        /// Index into [`Module::files`].
        file: u32,
        /// Source line.
        line: u32,
        /// Source column.
        column: u32,
    },
    /// `name: .branchtargets a, b, c;` (the label is the table's name).
    BranchTargets {
        /// Name of the table.
        name: String,
        /// Labels in order.
        labels: Vec<String>,
        /// Line.
        line: u32,
    },
    /// `.callprototype`, `.calltargets`: names of indirect calls; kept so that the decoder can
    /// refuse an indirect call with its line.
    CallTable {
        /// Name.
        name: String,
        /// Line.
        line: u32,
    },
    /// `{ … }`: a scope of names.
    Block(Vec<Statement>),
    /// An instruction.
    Instruction(Instruction),
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// `@p` or `@!p`: (register, negated).
    pub guard: Option<(String, bool)>,
    /// The first word of the opcode: `ld` of `ld.global.u32`.
    pub opcode: String,
    /// The other words, in order, without dots; `::` stays inside a word (`shared::cta`).
    pub modifiers: Vec<String>,
    /// Operands in order of the text.
    pub operands: Vec<Operand>,
    /// Line in the text, from 1.
    pub line: u32,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A name: a register, a variable, a label, a special register (`%tid.x`, with its suffix) or a
    /// function. Which one it is depends on the scope; the decoder resolves it.
    Name(String),
    /// `!name`: a negated predicate.
    Not(String),
    /// `a|b`: two destinations (`shfl`, `setp`, `elect`).
    Pair(Box<Operand>, Box<Operand>),
    /// An integer; unsigned values above `i64::MAX` keep their bits in the low 64.
    Int(i128),
    /// A decimal or `0f…` f32 / `0d…` f64 literal. `0f` keeps its exact bits in `F32`.
    F32(u32),
    /// Bits of an f64 literal (`0d…` or decimal).
    F64(u64),
    /// `{a, b, c}`
    Vector(Vec<Operand>),
    /// `[base+offset]`; `[imm]` has `Int` as its base. `[a, {x, y}]` has `coordinates`.
    Address {
        /// `Name` or `Int`.
        base: Box<Operand>,
        /// Bytes added.
        offset: i64,
        /// What follows the base inside the bracket (tensor coordinates).
        coordinates: Option<Box<Operand>>,
    },
    /// `name+offset` outside brackets (`mov.u64 %rd1, table+8`).
    NameOffset(String, i64),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
    /// `_`: a destination nobody wants.
    Sink,
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((register, negated)) = &self.guard {
            write!(f, "@{}{register} ", if *negated { "!" } else { "" })?;
        }
        f.write_str(&self.opcode)?;
        for word in &self.modifiers {
            write!(f, ".{word}")?;
        }
        for (index, operand) in self.operands.iter().enumerate() {
            f.write_str(if index == 0 { " " } else { ", " })?;
            write!(f, "{operand}")?;
        }
        f.write_str(";")
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Operand]| {
            items.iter().enumerate().try_for_each(|(index, item)| {
                write!(f, "{}{item}", if index == 0 { "" } else { ", " })
            })
        };
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Not(name) => write!(f, "!{name}"),
            Self::Pair(a, b) => write!(f, "{a}|{b}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::F32(bits) => write!(f, "0f{bits:08X}"),
            Self::F64(bits) => write!(f, "0d{bits:016X}"),
            Self::Vector(items) => {
                f.write_str("{")?;
                list(f, items)?;
                f.write_str("}")
            }
            Self::Address {
                base,
                offset,
                coordinates,
            } => {
                write!(f, "[{base}")?;
                if *offset != 0 {
                    write!(f, "{offset:+}")?;
                }
                if let Some(coordinates) = coordinates {
                    write!(f, ", {coordinates}")?;
                }
                f.write_str("]")
            }
            Self::NameOffset(name, offset) => write!(f, "{name}{offset:+}"),
            Self::List(items) => {
                f.write_str("(")?;
                list(f, items)?;
                f.write_str(")")
            }
            Self::Sink => f.write_str("_"),
        }
    }
}
