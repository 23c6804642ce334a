//! To a machine with a GPU and back: a bundle of programs, and the record of what they said there.

mod archive;
pub mod bundle;
pub mod programs;
pub mod record;
mod script;
