//! The reference against the papers: examples worked out by hand, finite differences, the named
//! edge cases and hostile inputs.

mod cases;
mod consistency;
mod dropout;
mod formulas;
mod gradients;
mod hostile;
mod support;
