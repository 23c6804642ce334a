//! Control flow: branches, exits, traps. Direct calls are inlined before anything reaches here.

use super::{Flow, Handler};
use crate::lane::lanes;
use crate::program::{Builder, Class, LoadError};
use crate::ptx::ast::{Operand, Type};
use crate::report::Kind;

pub(super) fn decode(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.class = Class::Control;
    match b.opcode() {
        "bra" => {
            b.accept("uni");
            let label = b.label()?;
            b.target = Some(label);
            Ok(Box::new(move |_, _| Ok(Flow::Jump(label))))
        }
        "brx" => indexed_branch(b),
        "ret" => {
            b.accept("uni");
            Ok(match b.return_label() {
                Some(label) => Box::new(move |_, _| Ok(Flow::Jump(label))),
                None => Box::new(|_, _| Ok(Flow::Exit)),
            })
        }
        "exit" => Ok(Box::new(|_, _| Ok(Flow::Exit))),
        "trap" | "brkpt" => Ok(Box::new(|core, mask| {
            let lane = mask.trailing_zeros() as usize;
            Err(core.fault(Kind::Trap, lane, "the kernel stopped itself"))
        })),
        // Triggers a profiler that is not there.
        "pmevent" => {
            b.accept("mask");
            b.immediate()?;
            Ok(Box::new(|_, _| Ok(Flow::Next)))
        }
        _ => system_call(b),
    }
}

/// `brx.idx`: an index beyond the table is undefined in PTX; here it is reported.
fn indexed_branch(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.expect("idx")?;
    b.accept("uni");
    let index = b.src(Type::U32)?;
    b.must_be_defined(index);
    let table = b.branch_table()?;
    Ok(Box::new(move |core, mask| {
        let indices = core.get::<u32>(index);
        for lane in lanes(mask) {
            let Some(&label) = table.get(indices[lane] as usize) else {
                let message = format!(
                    "branch index {} of a table of {}",
                    indices[lane],
                    table.len()
                );
                return Err(core.fault(Kind::Undefined, lane, message));
            };
            core.scatter[lane] = label;
        }
        Ok(Flow::Scatter)
    }))
}

/// `__assertfail` ends the launch like `trap`.
fn system_call(b: &mut Builder<'_, '_>) -> Result<Handler, LoadError> {
    b.accept("uni");
    let mut name = "";
    while b.operands_left() > 0 {
        if let Operand::Name(found) = b.operand()? {
            name = if name.is_empty() { found } else { name };
        }
    }
    match name {
        "__assertfail" => Ok(Box::new(|core, mask| {
            let lane = mask.trailing_zeros() as usize;
            Err(core.fault(Kind::Trap, lane, "an assertion of the kernel failed"))
        })),
        other => Err(b.error(format!(
            "device function {other} of the driver is not supported"
        ))),
    }
}
