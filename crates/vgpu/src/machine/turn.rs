//! A turn of a warp: instructions until its quantum ends or no lane can go on.
//!
//! Lanes that part at a branch become splits. The split with the lowest program counter runs first, so
//! that lanes meet again where their paths join; a split that keeps branching back while others could
//! run gives way now and then, so that lanes which wait for lanes of their own warp make progress.

use super::definedness;
use super::warp::{Split, Wait};
use crate::exec::{self, Core, Fault, Flow};
use crate::lane::lanes;

/// Backward branches of a split before the other splits of its warp have their turn.
const BURST: u32 = 16;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// It can go on at once.
    Ready,
    /// It polled or slept: others should run first.
    Polled,
    /// Its lanes wait.
    Waiting,
    /// All its lanes have exited.
    Done,
}

/// Runs the warp of `core` for at most `quantum` instructions; counts them down.
pub(super) fn turn(core: &mut Core<'_>, quantum: &mut u64) -> Result<TurnEnd, Box<Fault>> {
    core.warp.turns += 1;
    let mut burst = 0;
    let mut rotate = false;
    loop {
        let Some(current) = choose(core, rotate) else {
            return Ok(if core.warp.splits.is_empty() {
                TurnEnd::Done
            } else {
                TurnEnd::Waiting
            });
        };
        rotate = false;
        match run_split(core, current, quantum, &mut burst)? {
            SplitEnd::Reselect => {}
            SplitEnd::Rotate => {
                rotate = true;
                burst = 0;
            }
            SplitEnd::Quantum => return Ok(TurnEnd::Ready),
            SplitEnd::Polled => {
                // What it polls for may be up to other lanes of this warp: they go first.
                let (live, cluster) = (core.warp.live, &*core.env.cluster);
                let mut others = core.warp.splits.iter().enumerate();
                if !others.any(|(index, split)| index != current && split.is_ready(live, cluster)) {
                    return Ok(TurnEnd::Polled);
                }
                rotate = true;
                burst = 0;
            }
        }
        if *quantum == 0 {
            return Ok(TurnEnd::Ready);
        }
    }
}

enum SplitEnd {
    Reselect,
    Rotate,
    Quantum,
    Polled,
}

/// Merges splits that stand at the same instruction and picks the one to run.
fn choose(core: &mut Core<'_>, rotate: bool) -> Option<usize> {
    merge(&mut core.warp.splits);
    let live = core.warp.live;
    let splits = &core.warp.splits;
    let cluster = &*core.env.cluster;
    let ready = splits
        .iter()
        .enumerate()
        .filter(|(_, split)| split.is_ready(live, cluster));
    let (index, _) = if rotate {
        ready.min_by_key(|(_, split)| (split.last, split.pc))?
    } else {
        ready.min_by_key(|(_, split)| split.pc)?
    };
    // A wait that is over stays over: it is not asked again.
    core.warp.splits[index].wait = None;
    Some(index)
}

fn merge(splits: &mut Vec<Split>) {
    if splits.len() < 2 {
        return;
    }
    let joins = |split: &Split| matches!(split.wait, None | Some(Wait::Converge(_)));
    let mut index = 0;
    while index < splits.len() {
        let mut other = index + 1;
        while other < splits.len() {
            if splits[index].pc == splits[other].pc
                && joins(&splits[index])
                && joins(&splits[other])
            {
                let absorbed = splits.swap_remove(other);
                let split = &mut splits[index];
                split.mask |= absorbed.mask;
                split.last = split.last.max(absorbed.last);
                // Whoever waits for convergence asks again when it runs.
                if split.wait.is_none() || absorbed.wait.is_none() {
                    split.wait = None;
                } else if let (Some(Wait::Converge(a)), Some(Wait::Converge(b))) =
                    (&mut split.wait, absorbed.wait)
                {
                    *a |= b;
                }
            } else {
                other += 1;
            }
        }
        index += 1;
    }
}

fn run_split(
    core: &mut Core<'_>,
    current: usize,
    quantum: &mut u64,
    burst: &mut u32,
) -> Result<SplitEnd, Box<Fault>> {
    let program = core.env.program;
    let turn = core.warp.turns;
    let (mut pc, mask) = {
        let split = &mut core.warp.splits[current];
        split.last = turn << 32 | u64::from(u32::MAX - *quantum as u32);
        (split.pc, split.mask)
    };
    let alone = core.warp.splits.len() == 1;
    // Where this split meets another one.
    let limit = core
        .warp
        .splits
        .iter()
        .filter(|split| split.pc > pc && matches!(split.wait, None | Some(Wait::Converge(_))))
        .map(|split| split.pc)
        .min()
        .unwrap_or(u32::MAX);
    let check_registers = core.env.checks.registers;
    let uses_wgmma = program.habits.uses_wgmma && core.env.checks.barriers;
    core.split = mask;
    loop {
        if *quantum == 0 {
            core.warp.splits[current].pc = pc;
            return Ok(SplitEnd::Quantum);
        }
        *quantum -= 1;
        let inst = &program.insts[pc as usize];
        let lanes_on = match inst.guard {
            None => mask,
            Some((guard, negated)) => {
                let bits = core.warp.preds[guard as usize];
                mask & if negated { !bits } else { bits }
            }
        };
        core.pc = pc;
        core.env.now += 1;
        let counters = &mut *core.env.counters;
        counters.warp_instructions[inst.class as usize] += 1;
        counters.thread_instructions += u64::from(lanes_on.count_ones());
        if let Some(trace) = &mut core.env.trace {
            trace.step(core.warp, core.block, pc, lanes_on);
        }
        if check_registers {
            definedness::check(core, mask, lanes_on)?;
        }
        if lanes_on == 0 {
            pc += 1;
            if pc >= limit {
                core.warp.splits[current].pc = pc;
                return Ok(SplitEnd::Reselect);
            }
            continue;
        }
        if uses_wgmma && !inst.is_wgmma {
            exec::watch_registers(core, inst);
        }
        let flow = (inst.run)(core, lanes_on)?;
        if check_registers {
            definedness::propagate(core, lanes_on);
        }
        match flow {
            Flow::Next => {
                pc += 1;
                if pc >= limit {
                    core.warp.splits[current].pc = pc;
                    return Ok(SplitEnd::Reselect);
                }
            }
            Flow::Jump(label) => {
                let target = program.labels[label as usize];
                let backward = target <= pc;
                core.env.counters.branches += 1;
                if lanes_on == mask {
                    pc = target;
                    if alone {
                        continue;
                    }
                    core.warp.splits[current].pc = pc;
                } else {
                    core.env.counters.divergent_branches += 1;
                    part(core, current, lanes_on, target, None);
                    core.warp.splits[current].pc = pc + 1;
                }
                *burst += u32::from(backward);
                return Ok(if *burst >= BURST {
                    SplitEnd::Rotate
                } else {
                    SplitEnd::Reselect
                });
            }
            Flow::Yield => {
                core.warp.splits[current].pc = pc + 1;
                return Ok(SplitEnd::Polled);
            }
            other => {
                redirect(core, current, lanes_on, pc, other);
                return Ok(SplitEnd::Reselect);
            }
        }
    }
}

/// Takes `lanes` out of a split into a new one at `pc`; a split that loses all its lanes is reused.
fn part(core: &mut Core<'_>, current: usize, lanes: u32, pc: u32, wait: Option<Wait>) {
    let split = &mut core.warp.splits[current];
    let last = split.last;
    let behind = matches!(wait, Some(Wait::For { .. })) && pc == core.pc + 1;
    if split.mask == lanes {
        split.pc = pc;
        split.wait = wait;
        split.behind = behind;
    } else {
        split.mask &= !lanes;
        core.warp.splits.push(Split {
            pc,
            mask: lanes,
            wait,
            behind,
            last,
        });
    }
}

fn redirect(core: &mut Core<'_>, current: usize, lanes_on: u32, pc: u32, flow: Flow) {
    // The lanes whose guard was false go on; the others are taken out below.
    core.warp.splits[current].pc = pc + 1;
    let whole = core.warp.splits[current].mask == lanes_on;
    match flow {
        Flow::Exit => {
            core.warp.live &= !lanes_on;
            core.exit_lanes(lanes_on);
            if whole {
                core.warp.splits.swap_remove(current);
            } else {
                core.warp.splits[current].mask &= !lanes_on;
            }
        }
        Flow::Scatter => {
            core.env.counters.branches += 1;
            let mut left = lanes_on;
            let mut ways = u64::from(!whole);
            while left != 0 {
                let label = core.scatter[left.trailing_zeros() as usize];
                let same = lanes(left)
                    .filter(|&lane| core.scatter[lane] == label)
                    .fold(0, |m, l| m | 1 << l);
                let target = core.env.program.labels[label as usize];
                part(core, current, same, target, None);
                left &= !same;
                ways += 1;
            }
            core.env.counters.divergent_branches += u64::from(ways > 1);
        }
        Flow::Converge(needed) => part(core, current, lanes_on, pc, Some(Wait::Converge(needed))),
        Flow::Block(wait) => {
            core.env.counters.barrier_waits += 1;
            part(core, current, lanes_on, pc + 1, Some(wait));
        }
        Flow::Retry(wait) => part(core, current, lanes_on, pc, Some(wait)),
        Flow::Only(these, flow) => {
            let rest = lanes_on & !these;
            if rest != 0 {
                part(core, current, rest, pc, None);
            }
            redirect(core, current, lanes_on & these, pc, *flow);
        }
        Flow::Next | Flow::Yield | Flow::Jump(_) => {}
    }
}
