//! `atom` and `red`: read, change and write in one step.
//!
//! The lanes of a warp follow one another, lowest first; PTX leaves their order open.

use std::sync::atomic::AtomicUsize;

use super::memory::{
    Group, Region, Scalar, Use, changes, check_written, each_group, elements, once, scope,
    space_of, take_policy,
};
use super::{Core, Fault, Flow, Handler};
use crate::lane::{LANES, lanes};
use crate::memory::Allocation;
use crate::num::half::{Bf16, F16, Half};
use crate::num::{FTZ, KEEP, RN, f32, f64, half};
use crate::program::{Address, Builder, Class, Definedness, Dst, LoadError, Src};
use crate::ptx::ast::{Space, Type};
use crate::race::{Kind, Order, Scope};

/// What an operation does to the value in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Add,
    Inc,
    Dec,
    Min,
    Max,
}

impl Op {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            "exch" => Self::Exch,
            "cas" => Self::Cas,
            "add" => Self::Add,
            "inc" => Self::Inc,
            "dec" => Self::Dec,
            "min" => Self::Min,
            "max" => Self::Max,
            _ => return None,
        })
    }
}

/// An unsigned integer that memory changes in one step.
trait Cell: Scalar {
    /// Replaces the value at a checked, aligned offset by `f` of it; returns the old one.
    fn update(allocation: &Allocation, offset: u64, f: impl FnMut(Self) -> Self) -> Self;
}

macro_rules! cell {
    ($type:ty, $update:ident) => {
        impl Cell for $type {
            #[inline(always)]
            fn update(allocation: &Allocation, offset: u64, f: impl FnMut(Self) -> Self) -> Self {
                allocation.$update(offset, f)
            }
        }
    };
}

cell!(u16, update16);
cell!(u32, update32);
cell!(u64, update64);

/// Not one step for the CPU; but blocks that use atomics take turns on one thread.
impl Cell for u128 {
    fn update(allocation: &Allocation, offset: u64, mut f: impl FnMut(Self) -> Self) -> Self {
        let old = Self::fetch(allocation, offset);
        f(old).put(allocation, offset);
        old
    }
}

/// The words, each at most once.
#[derive(Default)]
struct Words {
    order: Option<Order>,
    scope: Option<Scope>,
    space: Option<Space>,
    op: Option<Op>,
    noftz: Option<()>,
    policy: Option<()>,
    vector: Option<usize>,
    ty: Option<Type>,
}

fn parse(b: &mut Builder<'_, '_>, returns: bool) -> Result<Words, LoadError> {
    let mut w = Words::default();
    while let Some(word) = b.peek() {
        match word {
            "relaxed" => once(b, &mut w.order, Order::Relaxed)?,
            "release" => once(b, &mut w.order, Order::Release)?,
            "acquire" if returns => once(b, &mut w.order, Order::Acquire)?,
            "acq_rel" if returns => once(b, &mut w.order, Order::AcqRel)?,
            "global" => once(b, &mut w.space, Space::Global)?,
            "shared" | "shared::cta" => once(b, &mut w.space, Space::Shared)?,
            "shared::cluster" => once(b, &mut w.space, Space::SharedCluster)?,
            "noftz" => once(b, &mut w.noftz, ())?,
            "L2::cache_hint" => once(b, &mut w.policy, ())?,
            "v2" => once(b, &mut w.vector, 2)?,
            "v4" => once(b, &mut w.vector, 4)?,
            "v8" => once(b, &mut w.vector, 8)?,
            _ => {
                if let Some(scope) = scope(word) {
                    once(b, &mut w.scope, scope)?;
                } else if let Some(op) = Op::parse(word) {
                    once(b, &mut w.op, op)?;
                } else if let Some(ty) = Type::parse(word) {
                    once(b, &mut w.ty, ty)?;
                } else {
                    return Err(b.unknown_word());
                }
            }
        }
    }
    Ok(w)
}

fn is_half(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::F16x2 | Type::BF16 | Type::BF16x2)
}

/// Refuses what ptxas refuses.
fn check(b: &Builder<'_, '_>, w: &Words, returns: bool) -> Result<(Op, Type, usize), LoadError> {
    let op = w.op.ok_or_else(|| b.error("the operation is missing"))?;
    let ty = w.ty.ok_or_else(|| b.error("the type is missing"))?;
    let vector = w.vector.unwrap_or(1);
    let fits = match op {
        Op::And | Op::Or | Op::Xor => matches!(ty, Type::B32 | Type::B64),
        Op::Exch => matches!(ty, Type::B32 | Type::B64 | Type::B128),
        Op::Cas => matches!(ty, Type::B16 | Type::B32 | Type::B64 | Type::B128),
        Op::Inc | Op::Dec => ty == Type::U32,
        Op::Add => {
            matches!(
                ty,
                Type::U32 | Type::S32 | Type::U64 | Type::F32 | Type::F64
            ) || is_half(ty)
        }
        Op::Min | Op::Max => {
            matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64)
                || (is_half(ty) && vector > 1)
        }
    };
    if !fits {
        return Err(b.error(format!("{op:?} is not an operation on {ty:?}")));
    }
    if !returns && matches!(op, Op::Exch | Op::Cas) {
        return Err(b.error("red has no operation that only makes sense with a result"));
    }
    if is_half(ty) != w.noftz.is_some() {
        return Err(b.error(".noftz belongs to the types of 16 bits, and they need it"));
    }
    if w.policy.is_some() && op == Op::Cas {
        return Err(b.error("cas takes no cache policy"));
    }
    if vector > 1 {
        let shape = match ty {
            Type::F32 => op == Op::Add && vector <= 4,
            Type::F16x2 | Type::BF16x2 => vector <= 4,
            Type::F16 | Type::BF16 => true,
            _ => false,
        };
        if !shape {
            return Err(b.error(format!("vectors of {vector} {ty:?} have no such operation")));
        }
        if !matches!(w.space, None | Some(Space::Global)) {
            return Err(b.error("vectors need global memory"));
        }
        if b.target_sm() < 90 {
            return Err(b.error("vectors need sm_90 or later"));
        }
    }
    Ok((op, ty, vector))
}

/// A decoded instruction.
struct Plan {
    usage: Use,
    address: Address,
    /// Nothing for `red`.
    into: Vec<Dst>,
    /// The operand, and the second one of `cas` (otherwise the first again).
    from: Vec<[Src; 2]>,
}

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Atomic;
    b.definedness = Definedness::Own;
    let returns = b.opcode() == "atom";
    let w = parse(b, returns)?;
    let (op, ty, vector) = check(b, &w, returns)?;
    let mut into = Vec::new();
    if returns {
        for item in elements(b, vector)? {
            into.push(b.dst_of(&item, ty, false)?);
        }
    }
    let address = b.address()?;
    let mut from = Vec::new();
    for item in elements(b, vector)? {
        let src = b.src_of(&item, ty, false)?;
        b.must_be_defined(src);
        from.push([src; 2]);
    }
    if op == Op::Cas {
        let src = b.src(ty)?;
        b.must_be_defined(src);
        from[0][1] = src;
    }
    take_policy(b, w.policy.is_some())?;
    let space = space_of(b, w.space.unwrap_or(Space::Generic), &address)?;
    match space {
        Space::Shared | Space::SharedCluster => {}
        Space::Global | Space::Generic => {
            b.habits().talks_across_blocks |= returns || !commutes(op, ty) || !is_relaxed(&w);
        }
        other => return Err(b.error(format!("no atomics in {other:?} memory"))),
    }
    let plan = Plan {
        usage: Use {
            space,
            kind: Kind::Rmw,
            order: w.order.unwrap_or(Order::Relaxed),
            scope: w.scope.unwrap_or(Scope::Gpu),
            bytes: (vector * ty.bytes()) as u32,
            unit: ty.bytes() as u32,
            hint: AtomicUsize::default(),
        },
        address,
        into,
        from,
    };
    Ok(operation(plan, op, ty, vector))
}

/// Whether the result of several such operations on a place is the same in every order.
fn commutes(op: Op, ty: Type) -> bool {
    let is_integer = matches!(
        ty,
        Type::B32 | Type::B64 | Type::S32 | Type::S64 | Type::U32 | Type::U64
    );
    let in_any_order = matches!(op, Op::And | Op::Or | Op::Xor | Op::Add | Op::Min | Op::Max);
    is_integer && in_any_order
}

/// Whether it orders nothing else.
fn is_relaxed(w: &Words) -> bool {
    w.order.is_none_or(|order| order == Order::Relaxed)
}

/// The handler of an operation that was checked.
fn operation(plan: Plan, op: Op, ty: Type, vector: usize) -> Handler {
    match ty {
        Type::F32 => match vector {
            1 => plan.handler::<u32, 1>(add_f32),
            2 => plan.handler::<u32, 2>(add_f32),
            _ => plan.handler::<u32, 4>(add_f32),
        },
        Type::F64 => plan.handler::<u64, 1>(|_, a, b, _| f64::add::<RN>(a, b)),
        Type::F16 => halves(plan, vector, half_op::<F16>(op)),
        Type::BF16 => halves(plan, vector, half_op::<Bf16>(op)),
        Type::F16x2 => pairs(plan, vector, half_op::<F16>(op)),
        Type::BF16x2 => pairs(plan, vector, half_op::<Bf16>(op)),
        Type::S32 => match op {
            Op::Min => plan.handler::<u32, 1>(|_, a, b, _| (a as i32).min(b as i32) as u32),
            Op::Max => plan.handler::<u32, 1>(|_, a, b, _| (a as i32).max(b as i32) as u32),
            _ => plan.handler::<u32, 1>(|_, a, b, _| a.wrapping_add(b)),
        },
        Type::S64 => match op {
            Op::Min => plan.handler::<u64, 1>(|_, a, b, _| (a as i64).min(b as i64) as u64),
            _ => plan.handler::<u64, 1>(|_, a, b, _| (a as i64).max(b as i64) as u64),
        },
        _ => match (op, ty.bytes()) {
            (Op::Cas, 2) => plan.handler::<u16, 1>(cas),
            (Op::Cas, 4) => plan.handler::<u32, 1>(cas),
            (Op::Cas, 8) => plan.handler::<u64, 1>(cas),
            (Op::Cas, _) => plan.handler::<u128, 1>(cas),
            (Op::Exch, 16) => plan.handler::<u128, 1>(|_, _, b, _| b),
            (op, 8) => bits64(plan, op),
            (op, _) => bits32(plan, op),
        },
    }
}

fn bits32(plan: Plan, op: Op) -> Handler {
    match op {
        Op::And => plan.handler::<u32, 1>(|_, a, b, _| a & b),
        Op::Or => plan.handler::<u32, 1>(|_, a, b, _| a | b),
        Op::Xor => plan.handler::<u32, 1>(|_, a, b, _| a ^ b),
        Op::Add => plan.handler::<u32, 1>(|_, a, b, _| a.wrapping_add(b)),
        Op::Inc => plan.handler::<u32, 1>(|_, a, b, _| if a >= b { 0 } else { a + 1 }),
        Op::Dec => plan.handler::<u32, 1>(|_, a, b, _| if a == 0 || a > b { b } else { a - 1 }),
        Op::Min => plan.handler::<u32, 1>(|_, a, b, _| a.min(b)),
        Op::Max => plan.handler::<u32, 1>(|_, a, b, _| a.max(b)),
        Op::Exch => plan.handler::<u32, 1>(|_, _, b, _| b),
        Op::Cas => plan.handler::<u32, 1>(cas),
    }
}

/// `inc` and `dec` have no 64-bit form.
fn bits64(plan: Plan, op: Op) -> Handler {
    match op {
        Op::And => plan.handler::<u64, 1>(|_, a, b, _| a & b),
        Op::Or => plan.handler::<u64, 1>(|_, a, b, _| a | b),
        Op::Xor => plan.handler::<u64, 1>(|_, a, b, _| a ^ b),
        Op::Min => plan.handler::<u64, 1>(|_, a, b, _| a.min(b)),
        Op::Max => plan.handler::<u64, 1>(|_, a, b, _| a.max(b)),
        Op::Exch => plan.handler::<u64, 1>(|_, _, b, _| b),
        Op::Cas => plan.handler::<u64, 1>(cas),
        Op::Add | Op::Inc | Op::Dec => plan.handler::<u64, 1>(|_, a, b, _| a.wrapping_add(b)),
    }
}

fn cas<E: PartialEq>(_: bool, old: E, expected: E, new: E) -> E {
    if old == expected { new } else { old }
}

/// In global memory subnormal numbers are flushed, in shared memory they are kept.
fn add_f32(global: bool, a: u32, b: u32, _: u32) -> u32 {
    if global {
        f32::add::<RN, FTZ>(a, b)
    } else {
        f32::add::<RN, KEEP>(a, b)
    }
}

fn half_op<H: Half>(op: Op) -> fn(u16, u16) -> u16 {
    match op {
        Op::Min => half::min::<H, KEEP, KEEP>,
        Op::Max => half::max::<H, KEEP, KEEP>,
        _ => half::add::<H, KEEP>,
    }
}

fn halves(plan: Plan, vector: usize, f: fn(u16, u16) -> u16) -> Handler {
    let f = move |_, a, b, _| f(a, b);
    match vector {
        1 => plan.handler::<u16, 1>(f),
        2 => plan.handler::<u16, 2>(f),
        4 => plan.handler::<u16, 4>(f),
        _ => plan.handler::<u16, 8>(f),
    }
}

fn pairs(plan: Plan, vector: usize, f: fn(u16, u16) -> u16) -> Handler {
    let f = move |_, a: u32, b: u32, _| {
        let high = f((a >> 16) as u16, (b >> 16) as u16);
        u32::from(f(a as u16, b as u16)) | u32::from(high) << 16
    };
    match vector {
        1 => plan.handler::<u32, 1>(f),
        2 => plan.handler::<u32, 2>(f),
        _ => plan.handler::<u32, 4>(f),
    }
}

impl Plan {
    /// `f` gets: whether the memory is global, the old value, the operand, and the second one.
    fn handler<E: Cell, const V: usize>(
        self,
        f: impl Fn(bool, E, E, E) -> E + Copy + Send + Sync + 'static,
    ) -> Handler {
        let Self {
            usage,
            address,
            into,
            from,
        } = self;
        let from: [[Src; 2]; V] = std::array::from_fn(|v| from[v]);
        Box::new(move |core: &mut Core<'_>, mask| {
            let addresses = core.addresses(&address);
            let operands = from.map(|pair| pair.map(|src| core.get::<E>(src)));
            let mut old = [[E::default(); LANES]; V];
            each_group(core, &usage, &addresses, mask, |core, group| {
                check_written(core, group, usage.bytes);
                update(core, group, &operands, &mut old, f);
                Ok::<(), Box<Fault>>(())
            })?;
            if into.is_empty() {
                return Ok(Flow::Next);
            }
            let news = into
                .iter()
                .zip(&old)
                .any(|(dst, row)| changes(core, *dst, row, mask));
            for (dst, row) in into.iter().zip(&old) {
                core.set(*dst, row, mask);
                core.set_defined(*dst, u32::MAX, mask);
            }
            // What came back is what came back the last time: a lock that is taken, a flag that is
            // not set. Others run first.
            Ok(if news { Flow::Next } else { Flow::Yield })
        })
    }
}

/// Changes what the lanes of a group name, lane after lane.
#[inline(always)]
fn update<E: Cell, const V: usize>(
    core: &mut Core<'_>,
    group: &Group<'_>,
    operands: &[[[E; LANES]; 2]; V],
    old: &mut [[E; LANES]; V],
    f: impl Fn(bool, E, E, E) -> E,
) {
    let size = size_of::<E>() as u64;
    match group.region {
        Region::Allocation(index) => {
            let allocation = core.env.memory.get(index);
            for lane in lanes(group.lanes) {
                let offset = group.offset(lane);
                for v in 0..V {
                    let [b, c] = [operands[v][0][lane], operands[v][1][lane]];
                    old[v][lane] =
                        E::update(allocation, offset + v as u64 * size, |a| f(true, a, b, c));
                }
                allocation.mark_written(offset, V as u64 * size);
            }
        }
        Region::Shared(rank) => {
            let shared = &mut core.env.cluster.blocks[rank].shared;
            for lane in lanes(group.lanes) {
                for v in 0..V {
                    let offset = (group.offset(lane) + v as u64 * size) as u32;
                    let a: E = bytemuck::pod_read_unaligned(shared.bytes(offset, size as u32));
                    let [b, c] = [operands[v][0][lane], operands[v][1][lane]];
                    old[v][lane] = a;
                    shared.write(offset, bytemuck::bytes_of(&f(false, a, b, c)));
                }
            }
        }
        Region::Local | Region::Param => {}
    }
}

#[cfg(test)]
mod reductions;
#[cfg(test)]
mod tests;
