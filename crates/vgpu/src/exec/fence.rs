//! `membar` and `fence`.
//!
//! Memory here is sequentially consistent; a fence exists for the race detector. One-sided fences
//! (`.acquire`, `.release`) count as both sides, and `fence.mbarrier_init` as a fence of the cluster
//! and between the proxies for everything: less is reported than could be, never more.

use super::memory::scope;
use super::{Core, Flow, Handler};
use crate::lane::lanes;
use crate::program::{Builder, Class, LoadError};
use crate::ptx::ast::Space;
use crate::race::{FenceKind, Scope};

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Barrier;
    if b.opcode() == "membar" {
        return membar(b);
    }
    match b.peek() {
        Some("proxy") => {
            b.take();
            proxy(b)
        }
        Some("mbarrier_init") => {
            b.take();
            b.expect("release")?;
            b.expect("cluster")?;
            // It is for the copy engine as much as for the threads of other blocks.
            Ok(between_proxies(Some(Scope::Cluster)))
        }
        _ => {
            let kind = match b.accept_any(&["sc", "acq_rel", "acquire", "release"]) {
                Some(0) => FenceKind::Sc,
                Some(side @ (2 | 3)) => {
                    if restricted(b, side == 2)? {
                        return Ok(ordinary(b, Scope::Cluster, FenceKind::AcqRel));
                    }
                    FenceKind::AcqRel
                }
                Some(_) | None => FenceKind::AcqRel,
            };
            let scope = take_scope(b)?;
            Ok(ordinary(b, scope, kind))
        }
    }
}

fn membar(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let scope = match b.accept_any(&["cta", "gl", "sys", "proxy"]) {
        Some(0) => Scope::Cta,
        Some(1) => Scope::Gpu,
        Some(2) => Scope::Sys,
        Some(_) => {
            b.expect("alias")?;
            return Ok(nothing());
        }
        None => return Err(b.unknown_word()),
    };
    // Since sm_70 a synonym of `fence.sc`.
    Ok(ordinary(b, scope, FenceKind::Sc))
}

fn take_scope(b: &mut Builder<'_, '_>) -> Result<Scope, LoadError> {
    let found = b.peek().and_then(scope).ok_or_else(|| b.unknown_word())?;
    b.take();
    Ok(found)
}

/// `.sync_restrict::….cluster` of a one-sided fence; whether it is there.
fn restricted(b: &mut Builder<'_, '_>, acquire: bool) -> Result<bool, LoadError> {
    let word = if acquire {
        "sync_restrict::shared::cluster"
    } else {
        "sync_restrict::shared::cta"
    };
    let found = b.accept(word);
    if found {
        b.expect("cluster")?;
    }
    Ok(found)
}

fn nothing() -> Handler {
    Box::new(|_, _| Ok(Flow::Next))
}

fn ordinary(b: &mut Builder<'_, '_>, scope: Scope, kind: FenceKind) -> Handler {
    if scope >= Scope::Gpu {
        b.habits().talks_across_blocks = true;
    }
    Box::new(move |core: &mut Core<'_>, mask| {
        core.fence(mask, scope, kind);
        Ok(Flow::Next)
    })
}

impl Core<'_> {
    fn fence(&mut self, mask: u32, scope: Scope, kind: FenceKind) {
        if let (Some(race), Some(id)) = (&mut self.env.race, self.warp.race) {
            race.fence(id, mask, scope, kind);
        }
    }

    fn proxy_fence(&mut self, mask: u32) {
        if let (Some(race), Some(id)) = (&mut self.env.race, self.warp.race) {
            race.proxy_fence(id, mask);
        }
    }
}

fn proxy(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    match b.take() {
        // No two addresses name one byte here.
        Some("alias") => Ok(nothing()),
        Some("async") => {
            b.accept_any(&["global", "shared::cta", "shared::cluster"]);
            Ok(between_proxies(None))
        }
        Some("async::generic") => {
            let side = b.accept_any(&["acquire", "release"]);
            let side = side.ok_or_else(|| b.unknown_word())?;
            if !restricted(b, side == 0)? {
                return Err(b.unknown_word());
            }
            Ok(between_proxies(Some(Scope::Cluster)))
        }
        Some("tensormap::generic") => tensor_map(b),
        other => {
            let word = other.unwrap_or_default();
            Err(b.error(format!("the proxy `.{word}` is not known")))
        }
    }
}

/// A fence between proxies, and with a scope one between threads, too.
fn between_proxies(scope: Option<Scope>) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        if let Some(scope) = scope {
            core.fence(mask, scope, FenceKind::AcqRel);
        }
        core.proxy_fence(mask);
        Ok(Flow::Next)
    })
}

fn tensor_map(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let side = b.accept_any(&["acquire", "release"]);
    let acquire = side.ok_or_else(|| b.unknown_word())? == 0;
    let scope = take_scope(b)?;
    if scope >= Scope::Gpu {
        b.habits().talks_across_blocks = true;
    }
    if !acquire {
        return Ok(between_proxies(Some(scope)));
    }
    let address = b.address()?;
    if b.immediate()? != 128 {
        return Err(b.error("the size of a tensor map is 128"));
    }
    Ok(Box::new(move |core: &mut Core<'_>, mask| {
        let addresses = core.addresses(&address);
        for lane in lanes(mask) {
            core.env
                .place(Space::Generic, core.block, addresses[lane], 128)
                .map_err(|problem| core.address_fault(lane, 128, &problem))?;
        }
        core.fence(mask, scope, FenceKind::AcqRel);
        core.proxy_fence(mask);
        Ok(Flow::Next)
    }))
}

#[cfg(test)]
mod tests;
