//! Instructions by which the lanes of a warp exchange values: shuffles, votes, matches, reductions,
//! elections, and `bar.warp.sync`.
//!
//! All but `activemask` wait until every live lane that their mask names is at the instruction, or for
//! `bar.warp.sync` at one of its kind. Lanes may name different masks as long as these are disjoint: each mask is a group of its own.

use super::{Core, Fault, Flow, Handler};
use crate::lane::{LANES, Value, lanes};
use crate::machine::{Split, Wait};
use crate::program::{Builder, Class, Definedness, Dst, LoadError, PredDst, Src};
use crate::ptx::ast::{Operand, Type};
use crate::report::Kind;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Warp;
    b.definedness = Definedness::Own;
    if b.opcode() == "activemask" {
        b.expect("b32")?;
        let d = b.dst(Type::B32)?;
        return Ok(Box::new(move |core, exec| {
            core.set(d, &[exec; LANES], exec);
            core.set_defined(d, exec, exec);
            Ok(Flow::Next)
        }));
    }
    if b.opcode() == "match" {
        return matches(b);
    }
    if !b.accept("sync") {
        let message = format!(
            "`{}` without .sync is not in PTX for sm_70 and later",
            b.opcode()
        );
        return Err(b.error(message));
    }
    match b.opcode() {
        "shfl" => shuffle(b),
        "vote" => vote(b),
        "redux" => redux(b),
        _ => elect(b),
    }
}

/// `bar.warp.sync`; the first word is taken.
pub(super) fn warp_barrier(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Barrier;
    b.expect("sync")?;
    let mask = member_mask(b)?;
    Ok(Box::new(move |core, exec| {
        let flow = together(core, mask, exec, |core, groups, _| {
            if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
                groups.each(|group| race.warp_sync(id, group));
            }
        })?;
        Ok(match flow {
            Flow::Converge(named) if meet_apart(core, named, exec) => Flow::Next,
            flow => flow,
        })
    }))
}

/// Lanes meet at different `bar.warp.sync` of the same mask, which need not be one instruction since
/// sm_70. Says whether all are there; then those elsewhere go on, too.
#[cold]
fn meet_apart(core: &mut Core<'_>, named: u32, exec: u32) -> bool {
    let insts = &core.env.program.insts;
    let is_there = |split: &Split| {
        matches!(split.wait, Some(Wait::Converge(mask)) if mask == named)
            && split.mask & !named == 0
            && insts[split.pc as usize].action().starts_with("bar.warp")
    };
    let splits = &mut core.warp.splits;
    let elsewhere = splits.iter().filter(|split| is_there(split));
    let met = elsewhere.fold(exec, |met, split| met | split.mask);
    if met & !named != 0 || named & core.warp.live & !met != 0 {
        return false;
    }
    for split in splits.iter_mut().filter(|split| is_there(split)) {
        split.wait = None;
        split.pc += 1;
    }
    if let (Some(race), Some(id)) = (&mut core.env.race, core.warp.race) {
        race.warp_sync(id, met);
    }
    true
}

fn member_mask(b: &mut Builder<'_, '_>) -> Result<Src, LoadError> {
    let mask = b.src(Type::B32)?;
    b.must_be_defined(mask);
    Ok(mask)
}

/// Executing lanes by the mask they name.
enum Groups {
    /// All of them name the same.
    One(u32),
    /// Several disjoint masks.
    Many(Vec<u32>),
}

impl Groups {
    #[inline(always)]
    fn each(&self, mut f: impl FnMut(u32)) {
        match self {
            Self::One(group) => f(*group),
            Self::Many(groups) => groups.iter().copied().for_each(f),
        }
    }

    /// The group of a lane that executes.
    fn of(&self, lane: usize) -> u32 {
        match self {
            Self::One(group) => *group,
            Self::Many(groups) => {
                let own = groups.iter().find(|group| *group >> lane & 1 != 0);
                own.copied().unwrap_or(0)
            }
        }
    }
}

/// Executes an instruction group by group, each once all its live lanes are here.
#[inline(always)]
fn together(
    core: &mut Core<'_>,
    mask: Src,
    exec: u32,
    run: impl FnOnce(&mut Core<'_>, &Groups, u32),
) -> Result<Flow, Box<Fault>> {
    let masks = core.get::<u32>(mask);
    let first = masks[exec.trailing_zeros() as usize];
    let mut differ = 0;
    for lane in 0..LANES {
        differ |= (masks[lane] ^ first) & 0_u32.wrapping_sub(exec >> lane & 1);
    }
    if differ == 0 && exec & !first == 0 {
        if first & core.live() & !exec != 0 {
            return Ok(Flow::Converge(first));
        }
        run(core, &Groups::One(exec), exec);
        return Ok(Flow::Next);
    }
    let (groups, ready, missing) = by_mask(core, &masks, exec);
    if ready == 0 {
        return Ok(Flow::Converge(missing));
    }
    run(core, &Groups::Many(groups), ready);
    Ok(if ready == exec {
        Flow::Next
    } else {
        Flow::Only(ready, Box::new(Flow::Next))
    })
}

/// The groups that are complete, their lanes, and the lanes of one that is not. Reports masks that
/// leave out a lane that names them, or overlap.
#[cold]
fn by_mask(core: &mut Core<'_>, masks: &[u32; LANES], exec: u32) -> (Vec<u32>, u32, u32) {
    let (mut ready, mut missing) = (0, 0);
    let mut groups = Vec::new();
    let mut left = exec;
    while left != 0 {
        let named = masks[left.trailing_zeros() as usize];
        let group = lanes(left)
            .filter(|&l| masks[l] == named)
            .fold(0, |all, l| all | 1 << l);
        left &= !group;
        if named & core.live() & !exec != 0 {
            missing = named | group;
            continue;
        }
        groups.push(group);
        ready |= group;
        let (outside, foreign) = (group & !named, named & exec & !group);
        if outside != 0 {
            let lane = outside.trailing_zeros() as usize;
            let message = format!("lane {lane} is not in the mask {named:#010x} that it names");
            wrong_mask(core, lane, message);
        } else if foreign != 0 {
            let (lane, other) = (group.trailing_zeros() as usize, foreign.trailing_zeros());
            let message = format!(
                "lane {lane} names the mask {named:#010x}, and lane {other}, which is in it, \
                 {:#010x}",
                masks[other as usize]
            );
            wrong_mask(core, lane, message);
        }
    }
    (groups, ready, missing)
}

fn wrong_mask(core: &mut Core<'_>, lane: usize, message: String) {
    if core.env.checks.barriers {
        core.note(core.report(Kind::WrongMask, lane, message));
    }
}

/// Says in which lanes a result and a predicate are defined.
fn define(core: &mut Core<'_>, d: Option<Dst>, p: PredDst, defined: u32, exec: u32) {
    if let Some(d) = d {
        core.set_defined(d, defined, exec);
    }
    if let Some(index) = p.0 {
        let place = &mut core.warp.pred_defined[index as usize];
        *place = *place & !exec | defined & exec;
    }
}

/// The lanes of the groups whose members all have a defined operand: a result that all lanes decide is
/// defined if all of them are.
fn unanimous(groups: &Groups, defined: u32) -> u32 {
    let mut all = 0;
    groups.each(|group| all |= if group & !defined == 0 { group } else { 0 });
    all
}

/// `d` or `d|p`.
fn destination(b: &mut Builder<'_, '_>) -> Result<(Dst, PredDst), LoadError> {
    match b.operand()? {
        Operand::Pair(d, p) => Ok((b.dst_of(d, Type::B32, false)?, b.pred_dst_of(p)?)),
        d => Ok((b.dst_of(d, Type::B32, false)?, PredDst(None))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

/// The lane that `lane` reads, if it lies in the lane's segment.
///
/// `c` holds a clamp value in bits 0 to 4 and, in bits 8 to 12, the bits of a lane's number that make
/// its segment.
fn source(mode: Shuffle, lane: u32, b: u32, c: u32) -> Option<u32> {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let first = lane & segment;
    let limit = first | clamp & !segment;
    let (source, inside) = match mode {
        Shuffle::Up => {
            let source = lane as i32 - b as i32;
            (source as u32, source >= limit as i32)
        }
        Shuffle::Down => (lane + b, lane + b <= limit),
        Shuffle::Bfly => (lane ^ b, lane ^ b <= limit),
        Shuffle::Idx => {
            let source = first | b & !segment;
            (source, source <= limit)
        }
    };
    inside.then_some(source)
}

/// Whom every lane reads, itself where its source is outside; and the lanes whose source is inside.
fn sources(mode: Shuffle, b: &[u32; LANES], c: &[u32; LANES]) -> ([u8; LANES], u32) {
    let mut inside = 0;
    let from = std::array::from_fn(|lane| match source(mode, lane as u32, b[lane], c[lane]) {
        Some(source) => {
            inside |= 1 << lane;
            source as u8
        }
        None => lane as u8,
    });
    (from, inside)
}

fn shuffle(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let mode = match b.take() {
        Some("up") => Shuffle::Up,
        Some("down") => Shuffle::Down,
        Some("bfly") => Shuffle::Bfly,
        Some("idx") => Shuffle::Idx,
        _ => return Err(b.error("a mode of shfl expected: .up, .down, .bfly or .idx")),
    };
    b.expect("b32")?;
    let (d, p) = destination(b)?;
    let a = b.src(Type::B32)?;
    let fixed = |operand: Option<&Operand>| match operand {
        Some(Operand::Int(value)) => Some(*value as u32),
        _ => None,
    };
    let lane = fixed(b.peek_operand());
    let lane_src = b.src(Type::B32)?;
    b.must_be_defined(lane_src);
    let bound = fixed(b.peek_operand());
    let bound_src = b.src(Type::B32)?;
    b.must_be_defined(bound_src);
    let mask = member_mask(b)?;
    if let (Some(lane), Some(bound)) = (lane, bound) {
        let table = sources(mode, &[lane; LANES], &[bound; LANES]);
        return Ok(Box::new(move |core, exec| {
            exchange(core, exec, mask, a, d, p, &table)
        }));
    }
    Ok(Box::new(move |core, exec| {
        let table = sources(mode, &core.get(lane_src), &core.get(bound_src));
        exchange(core, exec, mask, a, d, p, &table)
    }))
}

#[inline(always)]
fn exchange(
    core: &mut Core<'_>,
    exec: u32,
    mask: Src,
    a: Src,
    d: Dst,
    p: PredDst,
    (from, inside): &([u8; LANES], u32),
) -> Result<Flow, Box<Fault>> {
    together(core, mask, exec, |core, groups, exec| {
        let values = core.get::<u32>(a);
        let mut out = [0; LANES];
        for lane in 0..LANES {
            out[lane] = values[usize::from(from[lane] & 31)];
        }
        let registers = core.env.checks.registers;
        // Read before the destination changes, which may be the same register.
        let given = if registers { core.defined(a) } else { u32::MAX };
        core.set(d, &out, exec);
        core.set_pred(p, *inside, exec);
        if exec != u32::MAX || registers || matches!(groups, Groups::Many(_)) {
            let mut good = 0;
            for lane in lanes(exec) {
                let source = usize::from(from[lane]);
                if groups.of(lane) >> source & 1 == 0 {
                    read_of_stranger(core, lane, source);
                } else {
                    good |= (given >> source & 1) << lane;
                }
            }
            define(core, Some(d), PredDst(None), good, exec);
            define(core, None, p, exec, exec);
        }
    })
}

/// A lane reads from one that does not take part: the value is undefined. That alone is harmless, and
/// usual where a warp is not full; it is a mistake if the other lane lives and was left out.
#[cold]
fn read_of_stranger(core: &mut Core<'_>, lane: usize, source: usize) {
    if core.live() >> source & 1 != 0 {
        let message = format!(
            "lane {lane} reads from lane {source}, which does not take part: the value is undefined"
        );
        wrong_mask(core, lane, message);
    }
}

fn vote(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let mode = b
        .accept_any(&["any", "all", "uni", "ballot"])
        .ok_or_else(|| b.error("a mode of vote expected: .any, .all, .uni or .ballot"))?;
    let ballot = mode == 3;
    b.expect(if ballot { "b32" } else { "pred" })?;
    let (d, p) = if ballot {
        (Some(b.dst(Type::B32)?), PredDst(None))
    } else {
        (None, b.pred_dst()?)
    };
    let a = b.pred()?;
    let mask = member_mask(b)?;
    Ok(Box::new(move |core, exec| {
        together(core, mask, exec, |core, groups, exec| {
            let votes = core.pred(a);
            let mut result = 0;
            let mut ballots = [0; LANES];
            groups.each(|group| {
                let yes = votes & group;
                let holds = match mode {
                    0 => yes != 0,
                    1 => yes == group,
                    _ => yes == 0 || yes == group,
                };
                result |= if holds { group } else { 0 };
                if ballot {
                    for lane in 0..LANES {
                        ballots[lane] |= yes & 0_u32.wrapping_sub(group >> lane & 1);
                    }
                }
            });
            let known = match a {
                crate::program::Pred::Register { index, .. } => {
                    core.warp.pred_defined[index as usize]
                }
                crate::program::Pred::Constant(_) => u32::MAX,
            };
            if let Some(d) = d {
                core.set(d, &ballots, exec);
            }
            core.set_pred(p, result, exec);
            if core.env.checks.registers {
                define(core, d, p, unanimous(groups, known), exec);
            }
        })
    }))
}

fn matches(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let all = match b.take() {
        Some("any") => false,
        Some("all") => true,
        _ => return Err(b.error("a mode of match expected: .any or .all")),
    };
    b.expect("sync")?;
    let ty = b.ty()?;
    if !matches!(ty, Type::B32 | Type::B64) {
        return Err(b.error("match takes .b32 or .b64"));
    }
    let (d, p) = destination(b)?;
    if !all && p.0.is_some() {
        return Err(b.error("only match.all has a predicate"));
    }
    let a = b.src(ty)?;
    let mask = member_mask(b)?;
    Ok(Box::new(move |core, exec| {
        together(core, mask, exec, |core, groups, exec| {
            let values = core.get::<u64>(a);
            let mut out = [0; LANES];
            let mut agreed = 0;
            groups.each(|group| {
                let mut left = group;
                while left != 0 {
                    let value = values[left.trailing_zeros() as usize];
                    let same = lanes(left)
                        .filter(|&l| values[l] == value)
                        .fold(0, |same, l| same | 1 << l);
                    left &= !same;
                    if same == group {
                        agreed |= group;
                    }
                    if !all || same == group {
                        lanes(same).for_each(|lane| out[lane] = same);
                    }
                }
            });
            let known = core.defined(a);
            core.set(d, &out, exec);
            core.set_pred(p, agreed, exec);
            if core.env.checks.registers {
                define(core, Some(d), p, unanimous(groups, known), exec);
            }
        })
    }))
}

fn redux(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let op = b.take().unwrap_or("");
    let ty = b.ty()?;
    match (op, ty) {
        ("add", Type::U32 | Type::S32) => reduction(b, ty, u32::wrapping_add),
        ("min", Type::U32) => reduction(b, ty, u32::min),
        ("max", Type::U32) => reduction(b, ty, u32::max),
        ("min", Type::S32) => reduction(b, ty, i32::min),
        ("max", Type::S32) => reduction(b, ty, i32::max),
        ("and", Type::B32) => reduction(b, ty, |x: u32, y| x & y),
        ("or", Type::B32) => reduction(b, ty, |x: u32, y| x | y),
        ("xor", Type::B32) => reduction(b, ty, |x: u32, y| x ^ y),
        ("min" | "max", Type::F32) => Err(b.error("redux.sync of .f32 needs sm_100")),
        _ => Err(b.error(format!("redux.sync.{op} of this type is not in PTX"))),
    }
}

fn reduction<T: Value>(
    b: &mut Builder<'_, '_>,
    ty: Type,
    f: impl Fn(T, T) -> T + Copy + Send + Sync + 'static,
) -> Result<Handler, LoadError> {
    let d = b.dst(ty)?;
    let a = b.src(ty)?;
    let mask = member_mask(b)?;
    Ok(Box::new(move |core, exec| {
        together(core, mask, exec, |core, groups, exec| {
            let values = core.get::<T>(a);
            let mut out = [T::default(); LANES];
            groups.each(|group| {
                if let Some(all) = lanes(group).map(|lane| values[lane]).reduce(f) {
                    lanes(group).for_each(|lane| out[lane] = all);
                }
            });
            let known = core.defined(a);
            core.set(d, &out, exec);
            if core.env.checks.registers {
                define(core, Some(d), PredDst(None), unanimous(groups, known), exec);
            }
        })
    }))
}

/// The leader is the lowest lane: the same for the same lanes, as PTX asks.
fn elect(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    let (d, p) = match b.operand()? {
        Operand::Pair(d, p) => (b.dst_of(d, Type::B32, false)?, b.pred_dst_of(p)?),
        other => return Err(b.error(format!("d|p expected, `{other}` found"))),
    };
    let mask = member_mask(b)?;
    Ok(Box::new(move |core, exec| {
        together(core, mask, exec, |core, groups, exec| {
            let mut leaders = 0;
            let mut out = [0; LANES];
            groups.each(|group| {
                let leader = group.trailing_zeros();
                leaders |= 1 << leader;
                lanes(group).for_each(|lane| out[lane] = leader);
            });
            core.set(d, &out, exec);
            core.set_pred(p, leaders, exec);
            define(core, Some(d), p, exec, exec);
        })
    }))
}
