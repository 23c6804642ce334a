//! Which registers were ever set, lane by lane.
//!
//! An unset value may be moved about and even computed with; it is reported where it decides
//! something: an address, a branch, a guard, a mask, a stored value. That is what compilers rely on
//! when they leave a register unset on the path that does not use it.

use crate::exec::{Core, Fault};
use crate::lane::lanes;
use crate::program::Definedness;
use crate::report::Kind;

/// Before an instruction: reports operands that decide something and are undefined in lanes of `mask`.
pub(super) fn check(core: &mut Core<'_>, guard_lanes: u32, mask: u32) -> Result<(), Box<Fault>> {
    let program = core.env.program;
    let inst = &program.insts[core.pc as usize];
    if let Some((guard, _)) = inst.guard {
        let missing = guard_lanes & !core.warp.pred_defined[guard as usize];
        if missing != 0 {
            complain(core, missing, "its guard predicate");
        }
    }
    for src in &inst.strict {
        let missing = mask & !core.defined(*src);
        if missing != 0 {
            complain(
                core,
                missing,
                "an operand that decides an address, a mask or memory",
            );
            // Once is enough: what it leads to is not told again.
            core.warp.defined[src.slot as usize] |= missing;
        }
    }
    Ok(())
}

fn complain(core: &mut Core<'_>, missing: u32, what: &str) {
    let lane = lanes(missing).next().unwrap_or(0);
    let message = format!(
        "{what} was never set in {} of the lanes",
        missing.count_ones()
    );
    let report = core.report(Kind::UninitialisedRegister, lane, message);
    core.note(report);
}

/// After an instruction: results are defined where every operand is.
pub(super) fn propagate(core: &mut Core<'_>, mask: u32) {
    let program = core.env.program;
    let inst = &program.insts[core.pc as usize];
    if inst.definedness == Definedness::Own
        || (inst.writes.is_empty() && inst.pred_writes.is_empty())
    {
        return;
    }
    let mut all = inst
        .reads
        .iter()
        .fold(u32::MAX, |all, src| all & core.defined(*src));
    all = inst
        .pred_reads
        .iter()
        .fold(all, |all, &p| all & core.warp.pred_defined[p as usize]);
    for dst in &inst.writes {
        core.set_defined(*dst, all, mask);
    }
    for &pred in &inst.pred_writes {
        let place = &mut core.warp.pred_defined[pred as usize];
        *place = *place & !mask | all & mask;
    }
}
