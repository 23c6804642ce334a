//! Handlers of instructions that map lanes to lanes: the same loop for every operation.

use pulp::NullaryFnOnce;

use super::{Core, Flow, Handler};
use crate::lane::{LANES, Value};
use crate::program::{Dst, Src};
use crate::vector::Vector;

/// Runs `f` compiled for the vector extensions of this CPU.
///
/// `f` must be a closure with `#[inline(always)]`, else it is compiled once for all CPUs and only
/// called from here.
#[inline(always)]
pub(super) fn vectorise<R>(arch: Vector, f: impl FnMut() -> R) -> R {
    /// Calls the closure's body: its `FnOnce` would be a shim that the attribute does not reach.
    struct Body<F>(F);

    impl<R, F: FnMut() -> R> NullaryFnOnce for Body<F> {
        type Output = R;

        #[inline(always)]
        fn call(mut self) -> R {
            (self.0)()
        }
    }

    arch.dispatch(Body(f))
}

/// `d = f(a)` in every lane.
pub fn map1<A: Value, D: Value>(
    d: Dst,
    a: Src,
    f: impl Fn(A) -> D + Copy + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                let mut out = [D::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = f(a[lane]);
                }
                core.set(d, &out, mask);
            },
        );
        Ok(Flow::Next)
    })
}

/// `d = f(a, b)` in every lane.
pub fn map2<A: Value, B: Value, D: Value>(
    d: Dst,
    [a, b]: [Src; 2],
    f: impl Fn(A, B) -> D + Copy + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                let b = core.get::<B>(b);
                let mut out = [D::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = f(a[lane], b[lane]);
                }
                core.set(d, &out, mask);
            },
        );
        Ok(Flow::Next)
    })
}

/// `d = f(a, b, c)` in every lane.
pub fn map3<A: Value, B: Value, C: Value, D: Value>(
    d: Dst,
    [a, b, c]: [Src; 3],
    f: impl Fn(A, B, C) -> D + Copy + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                let b = core.get::<B>(b);
                let c = core.get::<C>(c);
                let mut out = [D::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = f(a[lane], b[lane], c[lane]);
                }
                core.set(d, &out, mask);
            },
        );
        Ok(Flow::Next)
    })
}

/// `d = f(a, b, c, e)` in every lane; two types of sources are enough for what PTX has.
pub fn map4<A: Value, C: Value, D: Value>(
    d: Dst,
    [a, b, c, e]: [Src; 4],
    f: impl Fn(A, A, C, C) -> D + Copy + Send + Sync + 'static,
) -> Handler {
    Box::new(move |core: &mut Core<'_>, mask| {
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                let b = core.get::<A>(b);
                let c = core.get::<C>(c);
                let e = core.get::<C>(e);
                let mut out = [D::default(); LANES];
                for lane in 0..LANES {
                    out[lane] = f(a[lane], b[lane], c[lane], e[lane]);
                }
                core.set(d, &out, mask);
            },
        );
        Ok(Flow::Next)
    })
}

/// A condition on registers: two masks of lanes, for the two predicates that an instruction sets.
pub type Test = Box<dyn Fn(&Core<'_>) -> (u32, u32) + Send + Sync>;

/// The lanes in which `f(a)` holds, and the others.
pub fn test1<A: Value>(a: Src, f: impl Fn(A) -> bool + Copy + Send + Sync + 'static) -> Test {
    Box::new(move |core: &Core<'_>| {
        let bits = vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                gather(|lane| f(a[lane]))
            },
        );
        (bits, !bits)
    })
}

/// The lanes in which `f(a, b)` holds, and the others.
pub fn test2<A: Value, B: Value>(
    [a, b]: [Src; 2],
    f: impl Fn(A, B) -> bool + Copy + Send + Sync + 'static,
) -> Test {
    Box::new(move |core: &Core<'_>| {
        let bits = vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<A>(a);
                let b = core.get::<B>(b);
                gather(|lane| f(a[lane], b[lane]))
            },
        );
        (bits, !bits)
    })
}

/// The lanes in which `f` holds for the low halves of two words, and those for the high halves.
pub fn test_halves(
    [a, b]: [Src; 2],
    f: impl Fn(u16, u16) -> bool + Copy + Send + Sync + 'static,
) -> Test {
    Box::new(move |core: &Core<'_>| {
        vectorise(
            core.arch,
            #[inline(always)]
            || {
                let a = core.get::<u32>(a);
                let b = core.get::<u32>(b);
                let low = gather(|lane| f(a[lane] as u16, b[lane] as u16));
                let high = gather(|lane| f((a[lane] >> 16) as u16, (b[lane] >> 16) as u16));
                (low, high)
            },
        )
    })
}

/// A bit a lane, as a sum of shifted flags: what the compiler makes vector code of.
#[inline(always)]
fn gather(f: impl Fn(usize) -> bool) -> u32 {
    let mut flags = [0_u32; LANES];
    for lane in 0..LANES {
        flags[lane] = u32::from(f(lane)) << lane;
    }
    flags.iter().fold(0, |all, flag| all | flag)
}
