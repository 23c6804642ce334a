//! What goes over the border between host and device, byte by byte.
//!
//! `abi_struct!` declares a `#[repr(C)]` Pod struct without padding and remembers its layout;
//! [`headers`] writes the C side of all of them.

mod common;
pub mod gating;
pub mod gemm;
mod header;
pub mod permute;
pub mod selection;

pub use common::{DevicePtr, Faults, StatusBlock, StepBlock};
pub use header::{Field, Header, Struct, headers};

/// A struct that crosses the border: declared by `abi_struct!`.
pub trait Abi: bytemuck::Pod {
    /// Its layout.
    const STRUCT: Struct;
}

/// Declares structs that kernels take: Rust fields with the type that each has in C.
///
/// ```text
/// abi_struct! {
///     /// Parameters of `tg_scale`.
///     pub struct ScaleParams {
///         /// `[N]`, f32.
///         pub values: DevicePtr = "float*",
///         /// N.
///         pub count: u64 = "uint64_t",
///     }
/// }
/// ```
/// Padding is refused by `bytemuck`: order fields by size, or add fields named `reserved`.
macro_rules! abi_struct {
    ($(
        $(#[$outer:meta])*
        pub struct $name:ident {
            $( $(#[$inner:meta])* pub $field:ident : $rust:ty = $c:literal ),+ $(,)?
        }
    )+) => {$(
        $(#[$outer])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            $( $(#[$inner])* pub $field: $rust, )+
        }

        impl $crate::abi::Abi for $name {
            const STRUCT: $crate::abi::Struct = $crate::abi::Struct {
                name: stringify!($name),
                size: size_of::<$name>(),
                align: align_of::<$name>(),
                fields: &[$(
                    $crate::abi::Field {
                        name: stringify!($field),
                        c_type: $c,
                        offset: std::mem::offset_of!($name, $field),
                        size: size_of::<$rust>(),
                    },
                )+],
            };
        }
    )+};
}
use abi_struct;
