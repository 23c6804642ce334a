//! Bulk copies: `cp.async.bulk`, `cp.async.bulk.tensor`, `cp.reduce.async.bulk` and their groups.
//!
//! Each lane that executes such an instruction starts an operation of its own. It is checked and
//! announced to the race detector at once, but moves its bytes later: a load at one delivery, a store
//! at two, since its source is free (`wait_group.read`) before its destination is complete.

mod copy;
mod group;
mod linear;
mod start;
mod tensor;

use super::Handler;
use crate::program::{Builder, Class, LoadError, Src};
use crate::ptx::ast::{Space, Type};

pub use self::group::BulkGroups;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Async;
    if b.target_sm() < 90 {
        return Err(b.error("bulk copies need the target sm_90 or higher"));
    }
    let reduce = b.accept("reduce");
    b.expect("async")?;
    b.expect("bulk")?;
    if !reduce {
        match b.accept_any(&["commit_group", "wait_group", "prefetch"]) {
            Some(0) => return Ok(group::commit()),
            Some(1) => return group::wait(b),
            Some(_) if b.accept("tensor") => return tensor::prefetch(b),
            Some(_) => return linear::prefetch(b),
            None => {}
        }
    }
    let tensor = b.accept("tensor");
    match (tensor, reduce) {
        (true, false) => tensor::copy(b),
        (true, true) => tensor::reduce(b),
        (false, false) => linear::copy(b),
        (false, true) => linear::reduce(b),
    }
}

/// The memory that a word of the opcode names.
fn space(b: &mut Builder<'_, '_>) -> Result<Space, LoadError> {
    match b.accept_any(&["global", "shared::cta", "shared::cluster"]) {
        Some(0) => Ok(Space::Global),
        Some(1) => Ok(Space::Shared),
        Some(_) => Ok(Space::SharedCluster),
        None => Err(b.unknown_word()),
    }
}

/// Takes `.L2::cache_hint`: a hint, like the policy operand that comes with it.
fn cache_hint(b: &mut Builder<'_, '_>) -> bool {
    b.accept("L2::cache_hint")
}

fn cache_policy(b: &mut Builder<'_, '_>, hint: bool) -> Result<(), LoadError> {
    if hint {
        b.src(Type::B64)?;
    }
    Ok(())
}

/// Takes the `ctaMask` of a multicast.
fn cta_mask(b: &mut Builder<'_, '_>, multicast: bool) -> Result<Option<Src>, LoadError> {
    if !multicast {
        return Ok(None);
    }
    let mask = b.src(Type::B16)?;
    b.must_be_defined(mask);
    Ok(Some(mask))
}

/// Takes a number of bytes.
fn size(b: &mut Builder<'_, '_>) -> Result<Src, LoadError> {
    let size = b.src(Type::U32)?;
    b.must_be_defined(size);
    Ok(size)
}

#[cfg(test)]
mod tests;
