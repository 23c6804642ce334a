//! The words of `ld`, `ldu` and `st` between the opcode and the type.

use crate::program::{Address, Builder, Home, LoadError};
use crate::ptx::ast::{Operand, Space, Type};
use crate::race::{Order, Scope};

/// What the words say.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Qualifiers {
    /// `.weak` if nothing is said.
    pub order: Order,
    /// Of meaning where the order is not weak.
    pub scope: Scope,
    /// [`Space::Generic`] if nothing is said.
    pub space: Space,
    /// Elements of the vector, 1 without.
    pub vector: usize,
    /// Type of an element.
    pub ty: Type,
    /// Whether a cache policy is the last operand.
    pub policy: bool,
}

/// The opcode whose words are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Ld,
    Ldu,
    St,
}

/// The words as they are met, each at most once.
#[derive(Default)]
struct Words<'a> {
    order: Option<&'a str>,
    mmio: Option<()>,
    scope: Option<Scope>,
    space: Option<Space>,
    cache: Option<()>,
    non_coherent: Option<()>,
    level1: Option<()>,
    policy: Option<()>,
    prefetch: Option<()>,
    vector: Option<usize>,
    ty: Option<Type>,
}

/// `.cta`, `.cluster`, `.gpu`, `.sys`.
pub(in crate::exec) fn scope(word: &str) -> Option<Scope> {
    Some(match word {
        "cta" => Scope::Cta,
        "cluster" => Scope::Cluster,
        "gpu" => Scope::Gpu,
        "sys" => Scope::Sys,
        _ => return None,
    })
}

/// Sets what may be said once, and takes the word.
pub(in crate::exec) fn once<T>(
    b: &mut Builder<'_, '_>,
    place: &mut Option<T>,
    value: T,
) -> Result<(), LoadError> {
    if place.replace(value).is_some() {
        let word = b.peek().unwrap_or_default();
        return Err(b.error(format!(
            ".{word}: something of this kind was said before it"
        )));
    }
    b.take();
    Ok(())
}

/// Reads all words. Their order is the reader's matter: ptxas takes any.
pub(super) fn parse(b: &mut Builder<'_, '_>, opcode: Opcode) -> Result<Qualifiers, LoadError> {
    let load = opcode == Opcode::Ld;
    let store = opcode == Opcode::St;
    let mut w = Words::default();
    while let Some(word) = b.peek() {
        match word {
            "weak" | "volatile" | "relaxed" if opcode != Opcode::Ldu => {
                once(b, &mut w.order, word)?;
            }
            "acquire" if load => once(b, &mut w.order, word)?,
            "release" if store => once(b, &mut w.order, word)?,
            "mmio" if opcode != Opcode::Ldu => once(b, &mut w.mmio, ())?,
            "global" => once(b, &mut w.space, Space::Global)?,
            "const" if load => once(b, &mut w.space, Space::Const)?,
            "local" if opcode != Opcode::Ldu => once(b, &mut w.space, Space::Local)?,
            "param" | "param::func" if opcode != Opcode::Ldu => {
                once(b, &mut w.space, Space::Param)?;
            }
            "param::entry" if load => once(b, &mut w.space, Space::Param)?,
            "shared" | "shared::cta" if opcode != Opcode::Ldu => {
                once(b, &mut w.space, Space::Shared)?;
            }
            "shared::cluster" if opcode != Opcode::Ldu => {
                once(b, &mut w.space, Space::SharedCluster)?;
            }
            "ca" | "lu" | "cv" if load => once(b, &mut w.cache, ())?,
            "wb" | "wt" if store => once(b, &mut w.cache, ())?,
            "cg" | "cs" if opcode != Opcode::Ldu => once(b, &mut w.cache, ())?,
            "nc" if load => once(b, &mut w.non_coherent, ())?,
            "L1::evict_normal"
            | "L1::evict_unchanged"
            | "L1::evict_first"
            | "L1::evict_last"
            | "L1::no_allocate"
                if opcode != Opcode::Ldu =>
            {
                once(b, &mut w.level1, ())?;
            }
            "L2::cache_hint" if opcode != Opcode::Ldu => once(b, &mut w.policy, ())?,
            "L2::64B" | "L2::128B" | "L2::256B" if load => once(b, &mut w.prefetch, ())?,
            "v2" => once(b, &mut w.vector, 2)?,
            "v4" => once(b, &mut w.vector, 4)?,
            "v8" => return Err(b.error(".v8: accesses of 256 bits need sm_100 or later")),
            _ => {
                if let Some(scope) = scope(word) {
                    once(b, &mut w.scope, scope)?;
                } else if let Some(ty) = Type::parse(word) {
                    once(b, &mut w.ty, ty)?;
                } else {
                    return Err(b.unknown_word());
                }
            }
        }
    }
    finish(b, &w)
}

fn finish(b: &Builder<'_, '_>, w: &Words<'_>) -> Result<Qualifiers, LoadError> {
    let ty = w.ty.ok_or_else(|| b.error("the type is missing"))?;
    let fundamental = matches!(
        ty,
        Type::B8 | Type::B16 | Type::B32 | Type::B64 | Type::B128 | Type::F32 | Type::F64
    ) || matches!(ty, Type::U8 | Type::U16 | Type::U32 | Type::U64)
        || matches!(ty, Type::S8 | Type::S16 | Type::S32 | Type::S64);
    if !fundamental {
        return Err(b.error(format!(
            "{ty:?} is no type of memory accesses; use a .b type of its size"
        )));
    }
    let vector = w.vector.unwrap_or(1);
    if vector * ty.bytes() > 16 {
        return Err(b.error("accesses of more than 128 bits need sm_100 or later"));
    }
    let (order, scope) = strength(b, w)?;
    let space = w.space.unwrap_or(Space::Generic);
    let strong = order != Order::Weak;
    if strong && matches!(space, Space::Const | Space::Param | Space::Local) {
        return Err(b.error("only .global, .shared and generic accesses can be strong"));
    }
    if strong && w.cache.is_some() {
        return Err(b.error("a cache operator needs a weak access"));
    }
    if w.non_coherent.is_some() && (strong || space != Space::Global) {
        return Err(b.error(".nc needs a weak access of .global"));
    }
    let cached = matches!(space, Space::Global | Space::Generic);
    if !cached && (w.level1.is_some() || w.policy.is_some() || w.prefetch.is_some()) {
        return Err(b.error("eviction and prefetch hints need .global or a generic address"));
    }
    Ok(Qualifiers {
        order,
        scope,
        space,
        vector,
        ty,
        policy: w.policy.is_some(),
    })
}

fn strength(b: &Builder<'_, '_>, w: &Words<'_>) -> Result<(Order, Scope), LoadError> {
    if w.mmio.is_some() && (w.order != Some("relaxed") || w.scope != Some(Scope::Sys)) {
        return Err(b.error(".mmio needs .relaxed.sys"));
    }
    let order = match w.order {
        None | Some("weak") => Order::Weak,
        // As if relaxed with the widest scope, says the memory consistency model.
        Some("volatile") => {
            return match w.scope {
                None => Ok((Order::Relaxed, Scope::Sys)),
                Some(_) => Err(b.error(".volatile takes no scope")),
            };
        }
        Some("acquire") => Order::Acquire,
        Some("release") => Order::Release,
        Some(_) => Order::Relaxed,
    };
    match (order, w.scope) {
        (Order::Weak, None) => Ok((order, Scope::Cta)),
        (Order::Weak, Some(_)) => Err(b.error("a weak access takes no scope")),
        (_, Some(scope)) => Ok((order, scope)),
        (_, None) => Err(b.error("a scope is missing: .cta, .cluster, .gpu or .sys")),
    }
}

/// The space that an access goes to, from its words and the name in its address.
///
/// `.param` is the parameter block for an entry, and memory of the thread for a call. An address in a
/// register does not tell; it is the former in an entry and the latter in a device function, because
/// only there may the address of a parameter be taken.
pub(in crate::exec) fn space_of(
    b: &Builder<'_, '_>,
    written: Space,
    address: &Address,
) -> Result<Space, LoadError> {
    let home = address.home.map(|home| match home {
        Home::Global => Space::Global,
        Home::Const => Space::Const,
        Home::Shared => Space::Shared,
        Home::Local => Space::Local,
        Home::KernelParam => Space::Param,
    });
    match (written, home) {
        (Space::Param, None) if b.return_label().is_some() => Ok(Space::Local),
        (written, None) => Ok(written),
        (Space::Param, Some(home @ (Space::Param | Space::Local))) => Ok(home),
        (Space::SharedCluster, Some(Space::Shared)) => Ok(Space::SharedCluster),
        // Without a space a name says it all.
        (Space::Generic, Some(home)) => Ok(home),
        (written, Some(home)) if written == home => Ok(home),
        (written, Some(home)) => Err(b.error(format!(
            "the instruction accesses {written:?} memory, the variable is in {home:?} memory"
        ))),
    }
}

/// Takes the cache policy where a word announced one: an opaque value that changes nothing here.
pub(in crate::exec) fn take_policy(
    b: &mut Builder<'_, '_>,
    announced: bool,
) -> Result<(), LoadError> {
    if announced {
        let policy = b.src(Type::B64)?;
        b.must_be_defined(policy);
    }
    Ok(())
}

/// Takes an operand that must be a vector of `count` elements, or one plain operand.
pub(in crate::exec) fn elements(
    b: &mut Builder<'_, '_>,
    count: usize,
) -> Result<Vec<Operand>, LoadError> {
    let items = b.elements()?;
    if items.len() == count {
        return Ok(items);
    }
    Err(b.error(format!(
        "{} elements where the vector has {count}",
        items.len()
    )))
}
