//! Loads, stores, and what is done with addresses.

mod address;
mod data;
mod hints;
mod lanes;
mod load;
mod qualifiers;
mod store;
#[cfg(test)]
pub(super) mod tests;

use super::Handler;
use crate::program::{Builder, LoadError};

pub(super) use data::{Scalar, check_written};
pub(super) use lanes::{Group, Region, Shape, Use, each_group};
pub(super) use load::changes;
pub(super) use qualifiers::{elements, once, scope, space_of, take_policy};

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    match b.opcode() {
        "ld" | "ldu" => load::decode(b),
        "st" => store::decode(b),
        "cvta" | "isspacep" | "mapa" | "getctarank" => address::decode(b),
        _ => hints::decode(b),
    }
}
