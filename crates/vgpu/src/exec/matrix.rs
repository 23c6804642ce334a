//! `mma.sync`: a warp multiplies small matrices that its lanes hold in registers.

use std::marker::PhantomData;

use pulp::NullaryFnOnce;

use super::fragments::{
    floats, integers, join_f16, put_columns, put_pair, put_rows, split_f16, take_pair,
};
use super::{Core, Fault, Flow, Handler};
use crate::lane::Value;
use crate::layout::elements::Element;
use crate::layout::kernels::{Size, mma_f16, mma_f32, mma_f64, mma_s32, mma_s32_satfinite};
use crate::layout::legality::MmaForm;
use crate::layout::mma::{Fragment, MmaTables};
use crate::program::{Builder, Class, Dst, LoadError, Src};
use crate::ptx::ast::Type;
use crate::report::Kind;

/// Columns of B and D in every form.
const N: usize = 8;

/// One `mma.sync`.
struct Multiply {
    form: MmaForm,
    satfinite: bool,
    dst: Vec<Dst>,
    left: Vec<Src>,
    right: Vec<Src>,
    added: Vec<Src>,
}

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Matrix;
    b.expect("sync")?;
    b.expect("aligned")?;
    let shape = b.take().unwrap_or("");
    let Some(shape) = parse_shape(shape) else {
        return Err(b.error(format!("a shape like .m16n8k16 expected, .{shape} found")));
    };
    // Other orders of rows and columns exist for sm_70's form only.
    b.expect("row")?;
    b.expect("col")?;
    let satfinite = b.accept("satfinite");
    let rounding = b.accept_any(&["rn", "rz", "rm", "rp"]);
    let [d, a, second, c] = [element(b)?, element(b)?, element(b)?, element(b)?];
    let form = MmaForm::new(shape, d, a, second, c, b.target_sm())
        .map_err(|illegal| b.error(illegal.to_string()))?;
    if satfinite && d != Element::S32 {
        return Err(b.error(".satfinite is for integer accumulators"));
    }
    if rounding.is_some_and(|mode| mode != 0) {
        return Err(b.error("only rounding to nearest even is supported in mma"));
    }
    let tables = MmaTables::new(form);
    let what = Multiply {
        form,
        satfinite,
        dst: registers_to_write(b, &tables.d.fragment)?,
        left: registers_to_read(b, &tables.a.fragment)?,
        right: registers_to_read(b, &tables.b.fragment)?,
        added: registers_to_read(b, &tables.c.fragment)?,
    };
    let (m, _, k) = form.shape();
    Ok(match (d, m, k) {
        (Element::F64, 8, _) => handler::<Double<8, 4>>(what),
        (Element::F64, _, 4) => handler::<Double<16, 4>>(what),
        (Element::F64, _, 8) => handler::<Double<16, 8>>(what),
        (Element::F64, ..) => handler::<Double<16, 16>>(what),
        (Element::S32, 8, 16) => handler::<Integer<8, 16>>(what),
        (Element::S32, 8, _) => handler::<Integer<8, 32>>(what),
        (Element::S32, _, 16) => handler::<Integer<16, 16>>(what),
        (Element::S32, _, 32) => handler::<Integer<16, 32>>(what),
        (Element::S32, ..) => handler::<Integer<16, 64>>(what),
        (_, _, 4) => handler::<Float<4>>(what),
        (_, _, 8) => handler::<Float<8>>(what),
        (_, _, 16) => handler::<Float<16>>(what),
        _ => handler::<Float<32>>(what),
    })
}

fn handler<P: Product>(what: Multiply) -> Handler {
    let (m, n, k) = what.form.shape();
    let flops = 2 * u64::from(m) * u64::from(n) * u64::from(k);
    Box::new(move |core, mask| {
        if let Some(wait) = whole_warp(core, mask)? {
            return Ok(wait);
        }
        core.env.counters.tensor_flops += flops;
        core.arch.dispatch(Vectorised {
            core,
            what: &what,
            product: PhantomData::<P>,
        });
        Ok(Flow::Next)
    })
}

/// Waits until all 32 lanes execute the instruction together, as those on matrices demand.
///
/// # Errors
/// Lanes have exited, or the block never had them.
#[inline(always)]
pub(super) fn whole_warp(core: &Core<'_>, mask: u32) -> Result<Option<Flow>, Box<Fault>> {
    if mask == u32::MAX {
        return Ok(None);
    }
    if core.live() == u32::MAX {
        return Ok(Some(Flow::Converge(u32::MAX)));
    }
    let missing = (!core.live()).count_ones();
    let message = format!("all 32 lanes must execute this, but {missing} do not exist any more");
    Err(core.fault(Kind::Undefined, mask.trailing_zeros() as usize, message))
}

pub(super) fn parse_shape(text: &str) -> Option<(u32, u32, u32)> {
    let (m, rest) = text.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

pub(super) fn element(b: &mut Builder<'_, '_>) -> Result<Element, LoadError> {
    let word = b.take().unwrap_or("");
    Element::from_name(word)
        .ok_or_else(|| b.error(format!("a matrix element type expected, .{word} found")))
}

/// The type of the registers that hold elements of a type.
fn register_type(element: Element) -> Type {
    match element {
        Element::F64 => Type::F64,
        Element::F32 => Type::F32,
        _ => Type::B32,
    }
}

fn registers_to_read(b: &mut Builder<'_, '_>, of: &Fragment) -> Result<Vec<Src>, LoadError> {
    let registers = b.vector_src(register_type(of.element()), false)?;
    count(b, registers.len(), of)?;
    Ok(registers)
}

fn registers_to_write(b: &mut Builder<'_, '_>, of: &Fragment) -> Result<Vec<Dst>, LoadError> {
    let registers = b.vector_dst(register_type(of.element()), false)?;
    count(b, registers.len(), of)?;
    Ok(registers)
}

fn count(b: &Builder<'_, '_>, have: usize, of: &Fragment) -> Result<(), LoadError> {
    let need = of.registers() as usize;
    if have == need {
        return Ok(());
    }
    Err(b.error(format!("{have} registers where the fragment has {need}")))
}

/// The product of one kind of numbers and one size.
trait Product: Send + Sync + 'static {
    /// Computes it.
    fn multiply(core: &mut Core<'_>, what: &Multiply);
}

/// Compiles a product for the vector extensions of this CPU. A closure would not do: it is called
/// through a shim that is not inlined, so that its body stays without them.
struct Vectorised<'a, 'm, P> {
    core: &'a mut Core<'m>,
    what: &'a Multiply,
    product: PhantomData<P>,
}

impl<P: Product> NullaryFnOnce for Vectorised<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        P::multiply(self.core, self.what);
    }
}

/// With f32 or f16 accumulators; M is 16.
struct Float<const K: usize>;

impl<const K: usize> Product for Float<K> {
    #[inline(always)]
    fn multiply(core: &mut Core<'_>, what: &Multiply) {
        const M: usize = 16;
        let [first, second] = [what.form.a(), what.form.b()];
        let narrow = what.form.d() == Element::F16;
        let mut a = [[0.0; K]; M];
        for (register, src) in what.left.iter().enumerate() {
            floats(&core.get(*src), first, |values| {
                put_rows(&mut a, register, values)
            });
        }
        let mut b = [[0.0; N]; K];
        for (register, src) in what.right.iter().enumerate() {
            floats(&core.get(*src), second, |values| {
                put_columns(&mut b, register, values)
            });
        }
        let mut d = [0.0; M * N];
        for pair in 0..2 {
            let [low, high] = if narrow {
                split_f16(&core.get(what.added[pair]))
            } else {
                [2 * pair, 2 * pair + 1].map(|index| core.get(what.added[index]))
            };
            put_pair(&mut d, N, 2, pair, [&low, &high]);
        }
        let size = Size { m: M, n: N, k: K };
        // The slices have the sizes of the form, so the product cannot refuse them.
        let done = if narrow {
            mma_f16(size, a.as_flattened(), b.as_flattened(), &mut d)
        } else {
            mma_f32(size, a.as_flattened(), b.as_flattened(), &mut d)
        };
        debug_assert!(done.is_ok());
        for pair in 0..2 {
            let values = take_pair(&d, N, 2, pair);
            if narrow {
                core.set(what.dst[pair], &join_f16(&values), u32::MAX);
            } else {
                core.set(what.dst[2 * pair], &values[0], u32::MAX);
                core.set(what.dst[2 * pair + 1], &values[1], u32::MAX);
            }
        }
    }
}

/// With s32 accumulators.
struct Integer<const M: usize, const K: usize>;

impl<const M: usize, const K: usize> Product for Integer<M, K> {
    #[inline(always)]
    fn multiply(core: &mut Core<'_>, what: &Multiply) {
        let [first, second] = [what.form.a(), what.form.b()];
        let mut a = [[0; K]; M];
        for (register, src) in what.left.iter().enumerate() {
            integers(&core.get(*src), first, |values| {
                put_rows(&mut a, register, values)
            });
        }
        let mut b = [[0; N]; K];
        for (register, src) in what.right.iter().enumerate() {
            integers(&core.get(*src), second, |values| {
                put_columns(&mut b, register, values)
            });
        }
        let mut d = [[0; N]; M];
        let d = d.as_flattened_mut();
        add_pairs::<i32, M>(core, what, d);
        let size = Size { m: M, n: N, k: K };
        let done = if what.satfinite {
            mma_s32_satfinite(size, a.as_flattened(), b.as_flattened(), d)
        } else {
            mma_s32(size, a.as_flattened(), b.as_flattened(), d)
        };
        debug_assert!(done.is_ok());
        set_pairs::<i32, M>(core, what, d);
    }
}

/// With f64 everything.
struct Double<const M: usize, const K: usize>;

impl<const M: usize, const K: usize> Product for Double<M, K> {
    #[inline(always)]
    fn multiply(core: &mut Core<'_>, what: &Multiply) {
        let mut a = [[0.0; K]; M];
        for (register, src) in what.left.iter().enumerate() {
            put_rows(&mut a, register, &core.get::<f64>(*src));
        }
        let mut b = [[0.0; N]; K];
        for (register, src) in what.right.iter().enumerate() {
            put_columns(&mut b, register, &core.get::<f64>(*src));
        }
        let mut d = [[0.0; N]; M];
        let d = d.as_flattened_mut();
        add_pairs::<f64, M>(core, what, d);
        let size = Size { m: M, n: N, k: K };
        let done = mma_f64(size, a.as_flattened(), b.as_flattened(), d, f64::mul_add);
        debug_assert!(done.is_ok());
        set_pairs::<f64, M>(core, what, d);
    }
}

/// C, one element a register.
#[inline(always)]
fn add_pairs<T: Value, const M: usize>(core: &Core<'_>, what: &Multiply, d: &mut [T]) {
    let halves = M / 8;
    for pair in 0..halves {
        let [low, high] = [2 * pair, 2 * pair + 1].map(|index| core.get(what.added[index]));
        put_pair(d, N, halves, pair, [&low, &high]);
    }
}

/// D, one element a register.
#[inline(always)]
fn set_pairs<T: Value, const M: usize>(core: &mut Core<'_>, what: &Multiply, d: &[T]) {
    let halves = M / 8;
    for pair in 0..halves {
        let [low, high] = take_pair(d, N, halves, pair);
        core.set(what.dst[2 * pair], &low, u32::MAX);
        core.set(what.dst[2 * pair + 1], &high, u32::MAX);
    }
}

#[cfg(test)]
pub(super) mod tests;
