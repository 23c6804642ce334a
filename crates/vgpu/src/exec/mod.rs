//! The instructions: one file a family, each with its decoding and its execution side by side.
//!
//! A family's `decode` takes the words and operands of one instruction from a [`Builder`] and returns
//! a [`Handler`]: a closure that executes it for the lanes of a mask. What is not taken is an error of
//! the builder, so no modifier is ever skipped.

mod approximate;
#[cfg(test)]
mod arithmetic_tests;
mod asynchronous;
mod atomic;
mod barrier;
mod bits;
mod bulk;
mod carry;
mod compare;
mod conflict;
mod control;
mod convert;
mod core;
mod cp_async;
mod fence;
mod float;
mod fragments;
mod half;
mod integer;
mod logic;
mod map;
mod matrix;
mod matrix_move;
mod mbarrier;
mod memory;
mod misc_sync;
mod modifiers;
mod moves;
mod space;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
pub(crate) mod testing;
mod traffic;
mod warp_ops;
mod wgmma;

use self::modifiers::Domain;
use crate::program::{Builder, LoadError, Special};
use crate::ptx::ast::{Instruction, Operand};

pub use self::asynchronous::AsyncState;
pub use self::bulk::BulkGroups;
pub(crate) use self::conflict::Scene;
pub use self::core::{Core, Env, Fault, Flow};
pub use self::wgmma::Warpgroup;
pub(crate) use self::wgmma::watch_registers;
pub use map::{map1, map2, map3, map4};
pub use mbarrier::Mbarriers;
pub use space::{Place, Problem, Target};

/// Executes an instruction for the lanes of the mask.
///
/// # Errors
/// A [`Fault`] ends the launch.
pub type Handler = Box<dyn Fn(&mut Core<'_>, u32) -> Result<Flow, Box<Fault>> + Send + Sync>;

/// Decodes one instruction by its first word.
pub(crate) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    match b.opcode() {
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "call" | "pmevent" => {
            control::decode(b)
        }
        "atom" => atomic::decode(b),
        "red" if b.peek() != Some("async") => atomic::decode(b),
        "ld" | "ldu" | "cvta" | "isspacep" | "mapa" | "getctarank" | "prefetch" | "prefetchu"
        | "applypriority" | "discard" | "createpolicy" => memory::decode(b),
        "st" if b.peek() != Some("async") => memory::decode(b),
        "membar" | "fence" => fence::decode(b),
        "multimem" => Err(b.error("multimem works on multicast objects, which are not modelled")),
        "bar" | "barrier" => barrier::decode(b),
        "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => warp_ops::decode(b),
        "ldmatrix" | "stmatrix" | "movmatrix" => matrix_move::decode(b),
        "add" | "sub" | "mul" | "mad" | "div" | "abs" | "neg" | "min" | "max" => {
            match Domain::of(b) {
                Domain::Integer => integer::decode(b),
                Domain::Half => half::decode(b),
                Domain::Float => float::decode(b),
            }
        }
        "rem" | "sad" | "mul24" | "mad24" => integer::decode(b),
        "addc" | "subc" | "madc" => carry::decode(b),
        "fma" if Domain::of(b) == Domain::Half => half::decode(b),
        "fma" | "copysign" | "testp" => float::decode(b),
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => approximate::decode(b),
        "popc" | "clz" | "brev" | "bfind" | "fns" | "bfe" | "bfi" | "bmsk" | "szext" | "dp4a"
        | "dp2a" => bits::decode(b),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "prmt" => {
            logic::decode(b)
        }
        "mov" | "selp" | "slct" => moves::decode(b),
        "setp" | "set" => compare::decode(b),
        "cvt" => convert::decode(b),
        "mbarrier" => mbarrier::decode(b),
        "griddepcontrol" | "nanosleep" | "setmaxnreg" | "st" | "red" => misc_sync::decode(b),
        "cp" if !b.words().iter().any(|word| word == "bulk") => cp_async::decode(b),
        "cp" => bulk::decode(b),
        "mma" => matrix::decode(b),
        "wgmma" => wgmma::decode(b),
        other => Err(b.error(format!("instruction `{other}` is not supported"))),
    }
}

/// Whether a call goes to a function that the driver provides (`vprintf`, `__assertfail`).
pub(crate) fn is_system_call(call: &Instruction) -> bool {
    call.operands.iter().any(|operand| {
        matches!(operand, Operand::Name(name) if matches!(&**name, "vprintf" | "__assertfail"))
    })
}

/// Reads moving special registers (clocks) right before an instruction that names them.
pub(crate) fn refresh_specials(moving: Vec<(Special, u32)>, run: Handler) -> Handler {
    Box::new(move |core, mask| {
        for &(special, slot) in &moving {
            core.refresh_special(special, slot);
        }
        run(core, mask)
    })
}
