//! PTX text: its syntax tree and the reader that makes one.
//!
//! [`parse`] reads what `nvcc` emits and what people write by hand, up to PTX 9.0. It knows the
//! grammar, not the instructions: an opcode is a list of words and a name is a string, and whoever
//! decodes the tree decides what they mean and refuses what is unknown. Constant expressions are
//! evaluated, initial values are flattened to bytes, and debugging sections and pragmas, which
//! change no result, are left out.
//!
//! Whatever the text, the reader ends with a tree or a [`SyntaxError`]: it does not panic, its time
//! and memory are linear in the length of the text, and its stack is bounded.
//!
//! ```
//! # use tollgate_vgpu::ptx;
//! let text = "
//!     .version 8.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry answer(.param .u64 out)
//!     {
//!         .reg .b64 %rd<2>;
//!         ld.param.u64 %rd1, [out];
//!         st.global.u32 [%rd1+4], 42
//!     }";
//! let error = ptx::parse(text).unwrap_err();
//! assert_eq!(error.line, 9);
//! assert_eq!(error.message, "expected `,` or `;`, found `}`");
//! ```

pub mod ast;
mod constant;
mod error;
#[doc(hidden)]
pub mod harness;
mod lexer;
mod number;
mod parser;
#[cfg(test)]
mod tests;

pub use ast::{
    Directives, Function, Init, Instruction, Module, Operand, Param, Space, Statement, Type,
    Variable,
};
pub use error::SyntaxError;

/// Reads a PTX module.
///
/// # Errors
/// The first place that is not PTX as this reader knows it, with its line.
pub fn parse(text: &str) -> Result<Module, SyntaxError> {
    parser::Parser::new(text)?.module()
}
