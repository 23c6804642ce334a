//! The enumerations of `cuTensorMapEncodeTiled`, and its errors.

use super::super::swizzle::Swizzle;

/// Element type of a tensor map. The numbers are those of `CUtensorMapDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TensorElement {
    /// 8 bits.
    U8 = 0,
    /// 16 bits.
    U16 = 1,
    /// Unsigned 32 bits.
    U32 = 2,
    /// Signed 32 bits.
    S32 = 3,
    /// Unsigned 64 bits.
    U64 = 4,
    /// Signed 64 bits.
    S64 = 5,
    /// IEEE half.
    F16 = 6,
    /// IEEE single.
    F32 = 7,
    /// IEEE double.
    F64 = 8,
    /// bfloat16.
    Bf16 = 9,
    /// IEEE single; subnormals become zero on the way.
    F32Ftz = 10,
    /// IEEE single, rounded to tf32 on the way.
    Tf32 = 11,
    /// As `Tf32`; subnormals become zero.
    Tf32Ftz = 12,
}

impl TensorElement {
    /// Every type.
    pub const ALL: [TensorElement; 13] = [
        TensorElement::U8,
        TensorElement::U16,
        TensorElement::U32,
        TensorElement::S32,
        TensorElement::U64,
        TensorElement::S64,
        TensorElement::F16,
        TensorElement::F32,
        TensorElement::F64,
        TensorElement::Bf16,
        TensorElement::F32Ftz,
        TensorElement::Tf32,
        TensorElement::Tf32Ftz,
    ];

    /// The type with the driver API's number `raw`.
    ///
    /// # Errors
    /// For the packed 4- and 6-bit types, which are not supported, and for unknown numbers.
    pub fn from_raw(raw: u32) -> Result<TensorElement, TmaError> {
        match (TensorElement::ALL.get(raw as usize), raw) {
            (Some(&element), _) => Ok(element),
            (None, 13..=15) => Err(TmaError::NotSupported(
                "a packed 4- or 6-bit tensorDataType (sm_100 and later)",
            )),
            _ => Err(TmaError::UnknownValue {
                parameter: "tensorDataType",
                value: raw,
            }),
        }
    }

    /// Bytes of an element.
    pub const fn bytes(self) -> u32 {
        match self {
            TensorElement::U8 => 1,
            TensorElement::U16 | TensorElement::F16 | TensorElement::Bf16 => 2,
            TensorElement::U64 | TensorElement::S64 | TensorElement::F64 => 8,
            _ => 4,
        }
    }

    /// Is it a floating-point type, which can be filled with NaN?
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            TensorElement::F16
                | TensorElement::F32
                | TensorElement::F64
                | TensorElement::Bf16
                | TensorElement::F32Ftz
                | TensorElement::Tf32
                | TensorElement::Tf32Ftz
        )
    }
}

/// The swizzling mode with the driver API's number `raw`.
///
/// # Errors
/// For the modes with other atoms than 16 bytes (`sm_100` and later), and for unknown numbers.
pub fn swizzle_from_raw(raw: u32) -> Result<Swizzle, TmaError> {
    match raw {
        0 => Ok(Swizzle::None),
        1 => Ok(Swizzle::B32),
        2 => Ok(Swizzle::B64),
        3 => Ok(Swizzle::B128),
        4..=6 => Err(TmaError::NotSupported(
            "a 128-byte swizzle with atoms of 32 or 64 bytes (sm_100 and later)",
        )),
        _ => Err(TmaError::UnknownValue {
            parameter: "swizzle",
            value: raw,
        }),
    }
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $parameter:literal:
     $($(#[$variant_doc:meta])* $variant:ident = $raw:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $raw),+
        }

        impl $name {
            /// The value with the driver API's number `raw`.
            ///
            /// # Errors
            /// For an unknown number.
            pub fn from_raw(raw: u32) -> Result<$name, TmaError> {
                match raw {
                    $($raw => Ok($name::$variant),)+
                    _ => Err(TmaError::UnknownValue { parameter: $parameter, value: raw }),
                }
            }
        }
    };
}

numbered! {
    /// Interleaved layouts; only `None` is supported.
    Interleave, "interleave":
    /// Dimension 0 is dense.
    None = 0,
    /// Slices of 16 bytes.
    B16 = 1,
    /// Slices of 32 bytes.
    B32 = 2,
}

numbered! {
    /// How much a load asks L2 to fetch.
    L2Promotion, "l2Promotion":
    /// What was asked for.
    None = 0,
    /// 64 bytes.
    B64 = 1,
    /// 128 bytes.
    B128 = 2,
    /// 256 bytes.
    B256 = 3,
}

numbered! {
    /// What a load writes for elements outside the tensor.
    OobFill, "oobFill":
    /// Zero.
    Zero = 0,
    /// The special NaN of `CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA`.
    Nan = 1,
}

/// Why a tensor map cannot be made, read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TmaError {
    /// A number that the driver API does not define.
    #[error("{parameter} is {value}, which is no value of its type")]
    UnknownValue {
        /// Name of the parameter.
        parameter: &'static str,
        /// What was given.
        value: u32,
    },
    /// Something that exists but that this machine does not model.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// A rank outside 1 to 5.
    #[error("tensorRank is {0}, must be from 1 to 5")]
    Rank(u32),
    /// An array with too few entries for the rank.
    #[error("{parameter} has {have} entries, needs {need}")]
    Entries {
        /// Name of the parameter.
        parameter: &'static str,
        /// Entries it has.
        have: usize,
        /// Entries the rank needs.
        need: usize,
    },
    /// A value outside its range.
    #[error("{parameter}[{index}] is {value}, must be from {low} to {high}")]
    Range {
        /// Name of the parameter.
        parameter: &'static str,
        /// Dimension.
        index: usize,
        /// What was given.
        value: u64,
        /// Smallest legal value.
        low: u64,
        /// Largest legal value.
        high: u64,
    },
    /// The global address is not aligned.
    #[error("globalAddress is {address:#x}, must be a multiple of {alignment}")]
    Address {
        /// What was given.
        address: u64,
        /// Bytes it must be a multiple of.
        alignment: u64,
    },
    /// A stride that is not a multiple of 16 bytes.
    #[error("globalStrides[{index}] is {stride} bytes, must be a multiple of 16")]
    Stride {
        /// Index in the array.
        index: usize,
        /// What was given.
        stride: u64,
    },
    /// Rows of the box that are not whole chunks.
    #[error("boxDim[0] is {bytes} bytes, must be a multiple of 16 bytes")]
    RowMultiple {
        /// Bytes of a row of the box.
        bytes: u32,
    },
    /// Rows of the box that do not fit the swizzle.
    #[error("boxDim[0] is {bytes} bytes, must be at most {span} bytes with this swizzle")]
    RowTooWide {
        /// Bytes of a row of the box.
        bytes: u32,
        /// Bytes of a row of the pattern.
        span: u32,
    },
    /// NaN fill of integers.
    #[error("oobFill asks for NaN, but tensorDataType {0:?} is not a floating-point type")]
    NanFill(TensorElement),
    /// A tensor that ends beyond the 64-bit address space.
    #[error("the tensor at {address:#x} ends beyond the address space")]
    Extent {
        /// Its global address.
        address: u64,
    },
    /// The 128 bytes are not a tensor map.
    #[error("not a tensor map: {0}")]
    Corrupt(&'static str),
    /// A copy with the wrong number of coordinates.
    #[error("{have} coordinates for a tensor map of rank {rank}")]
    Coordinates {
        /// Coordinates of the instruction.
        have: usize,
        /// Rank of the map.
        rank: u32,
    },
    /// The shared-memory address of a copy is not aligned.
    #[error("shared address {0:#x} of a tensor copy must be a multiple of 128")]
    Shared(u32),
    /// A box that no shared memory can hold.
    #[error("the box takes {0} bytes of shared memory, more than there can be")]
    Box(u64),
    /// A reduction that the element type does not have.
    #[error("reduction .{operation} does not exist for tensorDataType {element:?}")]
    Reduction {
        /// The operation's modifier.
        operation: &'static str,
        /// The element type.
        element: TensorElement,
    },
}
