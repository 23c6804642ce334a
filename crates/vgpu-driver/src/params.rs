//! Kernel parameters: from the pointers of a launch to the bytes a kernel reads.

use tollgate_vgpu::host::Function;

use crate::boundary::{Buffer, In};
use crate::failure::{Failure, Outcome};

/// `CU_LAUNCH_PARAM_BUFFER_POINTER`.
const BUFFER_POINTER: usize = 1;
/// `CU_LAUNCH_PARAM_BUFFER_SIZE`.
const BUFFER_SIZE: usize = 2;
/// Names in an `extra` list at most; a list without its end is not followed for ever.
const MOST_NAMES: usize = 16;

/// Bytes of the parameter block of a kernel.
pub(crate) fn block_bytes(function: &Function) -> usize {
    let end = |param: &tollgate_vgpu::program::EntryParam| (param.offset + param.bytes) as usize;
    function.params().iter().map(end).max().unwrap_or(0)
}

/// The parameter block: from one pointer a parameter, or from a ready block in `extra`.
///
/// # Errors
/// `INVALID_VALUE` when pointers are missing, both forms are used, or the block has another size.
pub(crate) fn pack(function: &Function, params: In<In<u8>>, extra: In<usize>) -> Outcome<Vec<u8>> {
    let bytes = block_bytes(function);
    if !extra.is_null() {
        if !params.is_null() {
            return Err(Failure::value("both kernelParams and extra are given"));
        }
        return ready_block(function, bytes, extra);
    }
    let mut block = vec![0; bytes];
    for (index, param) in function.params().iter().enumerate() {
        let missing = || {
            Failure::value(format!(
                "kernel `{}` has {} parameters; the pointer to parameter {index} is null",
                function.name(),
                function.params().len()
            ))
        };
        let from = params.at(index).map_err(|_| missing())?;
        if from.is_null() {
            return Err(missing());
        }
        let at = param.offset as usize;
        let size = param.bytes as usize;
        block[at..at + size].copy_from_slice(Buffer::from_address(from.address()).read(size)?);
    }
    Ok(block)
}

fn ready_block(function: &Function, bytes: usize, extra: In<usize>) -> Outcome<Vec<u8>> {
    let (mut buffer, mut size) = (0, None);
    for index in 0..MOST_NAMES {
        match extra.at(2 * index)? {
            0 => break,
            BUFFER_POINTER => buffer = extra.at(2 * index + 1)?,
            BUFFER_SIZE => size = Some(In::from_address(extra.at(2 * index + 1)?).get()?),
            other => {
                return Err(Failure::value(format!(
                    "extra has the unknown name {other}"
                )));
            }
        }
    }
    let given: usize = size.unwrap_or(0);
    // A block may be padded at its end.
    if given < bytes || given > bytes.next_multiple_of(16) {
        return Err(Failure::value(format!(
            "kernel `{}` takes {bytes} bytes of parameters; the buffer in extra has {given}",
            function.name()
        )));
    }
    Ok(Buffer::from_address(buffer as u64).read(bytes)?.to_vec())
}
