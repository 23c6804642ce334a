//! Functions by name and version.

use std::ffi::{c_int, c_uint, c_void};

use crate::boundary::{Export, Out, Text, exports};
use crate::driver::VERSION;
use crate::failure::{Failure, Outcome, code};

exports! {
    cuGetProcAddress(name: Text, out: Out<*const c_void>, version: c_int, flags: u64) => get_v1;
    cuGetProcAddress_v2(name: Text, out: Out<*const c_void>, version: c_int, flags: u64,
        status: Out<c_uint>) => get;
    cuGetProcAddress_v2_ptsz(name: Text, out: Out<*const c_void>, version: c_int, flags: u64,
        status: Out<c_uint>) => get_per_thread;
}

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`.
const PER_THREAD: u64 = 2;
/// `CU_GET_PROC_ADDRESS_SUCCESS`, `_SYMBOL_NOT_FOUND` and `_VERSION_NOT_SUFFICIENT`.
const FOUND: c_uint = 0;
const NO_SUCH_NAME: c_uint = 1;
const TOO_OLD: c_uint = 2;

/// The functions of CUDA 13.0: exported name, and the version since which it is found.
pub(super) fn symbols() -> impl Iterator<Item = (&'static str, c_int)> {
    include_str!("symbols.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, version) = line.split_once(' ')?;
            Some((name, version.parse().ok()?))
        })
}

/// All that the library exports.
pub(super) fn exports() -> impl Iterator<Item = Export> {
    [
        super::capture::EXPORTS,
        super::contexts::EXPORTS,
        super::copies::EXPORTS,
        super::devices::EXPORTS,
        super::errors::EXPORTS,
        super::event::EXPORTS,
        super::fills::EXPORTS,
        super::functions::EXPORTS,
        super::graphs::EXPORTS,
        super::launches::EXPORTS,
        super::libraries::EXPORTS,
        super::links::EXPORTS,
        super::memory::EXPORTS,
        super::module::EXPORTS,
        super::nodes::EXPORTS,
        super::occupancy::EXPORTS,
        super::peers::EXPORTS,
        super::pointers::EXPORTS,
        super::pools::EXPORTS,
        super::streams::EXPORTS,
        super::tensor_maps::EXPORTS,
        super::unsupported::EXPORTS,
        super::values::EXPORTS,
        EXPORTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The name that all versions of a function share, and whether this one is for the default stream
/// of a thread: `cuMemcpyHtoD_v2_ptds` is a version of `cuMemcpyHtoD`.
fn split(symbol: &str) -> (&str, bool) {
    let legacy = symbol
        .strip_suffix("_ptsz")
        .or_else(|| symbol.strip_suffix("_ptds"));
    let versioned = legacy.unwrap_or(symbol);
    let base = match versioned.rsplit_once("_v") {
        Some((base, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => versioned,
    };
    (base, legacy.is_some())
}

/// The exported name that `base` means to a program made for `version`: the newest that is not
/// newer.
fn choose(base: &str, version: c_int, per_thread: bool) -> Result<&'static str, c_uint> {
    let of_base = symbols().filter(|(symbol, _)| split(symbol).0 == base);
    let candidates: Vec<_> = of_base
        .map(|(symbol, since)| (split(symbol).1, since, symbol))
        .collect();
    if candidates.is_empty() {
        return Err(NO_SUCH_NAME);
    }
    let newest = |own: bool| {
        let fit = candidates
            .iter()
            .filter(|(is_own, since, _)| *is_own == own && *since <= version);
        fit.max_by_key(|(_, since, _)| *since)
            .map(|(.., symbol)| *symbol)
    };
    let own = if per_thread { newest(true) } else { None };
    own.or_else(|| newest(false)).ok_or(TOO_OLD)
}

fn get_v1(name: Text, out: Out<*const c_void>, version: c_int, flags: u64) -> Outcome {
    let mut status = FOUND;
    find(name, out, version, flags, &mut status)?;
    // Without a status, a missing function is an error.
    if status == FOUND {
        Ok(())
    } else {
        Err(Failure::quiet(code::NOT_FOUND))
    }
}

fn get(
    name: Text,
    out: Out<*const c_void>,
    version: c_int,
    flags: u64,
    status: Out<c_uint>,
) -> Outcome {
    let mut found = FOUND;
    find(name, out, version, flags, &mut found)?;
    status.set_if_wanted(found);
    Ok(())
}

fn get_per_thread(
    name: Text,
    out: Out<*const c_void>,
    version: c_int,
    flags: u64,
    status: Out<c_uint>,
) -> Outcome {
    get(
        name,
        out,
        version,
        if flags == 0 { PER_THREAD } else { flags },
        status,
    )
}

fn find(
    name: Text,
    out: Out<*const c_void>,
    version: c_int,
    flags: u64,
    status: &mut c_uint,
) -> Outcome {
    let name = name.get()?;
    out.check()?;
    if version > VERSION || flags > PER_THREAD {
        return Err(Failure::value(format!(
            "`{name}` of version {version} with flags {flags}; the driver is {VERSION}"
        )));
    }
    let address = match choose(&name, version, flags == PER_THREAD) {
        Ok(symbol) => exports()
            .find(|export| export.name == symbol)
            .map(|export| export.address),
        Err(why) => {
            *status = why;
            None
        }
    };
    out.set(address.map_or(std::ptr::null(), <*const ()>::cast))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_not_newer_is_chosen() {
        assert_eq!(choose("cuMemAlloc", 13_000, false), Ok("cuMemAlloc_v2"));
        assert_eq!(choose("cuMemAlloc", 3_000, false), Ok("cuMemAlloc"));
        assert_eq!(choose("cuCtxCreate", 11_030, false), Ok("cuCtxCreate_v2"));
        assert_eq!(choose("cuCtxCreate", 13_000, false), Ok("cuCtxCreate_v4"));
        assert_eq!(
            choose("cuMemcpyHtoD", 13_000, true),
            Ok("cuMemcpyHtoD_v2_ptds")
        );
        assert_eq!(
            choose("cuLaunchKernel", 13_000, true),
            Ok("cuLaunchKernel_ptsz")
        );
        assert_eq!(choose("cuEventCreate", 13_000, true), Ok("cuEventCreate"));
        assert_eq!(choose("cuLaunchKernelEx", 11_000, false), Err(TOO_OLD));
        assert_eq!(choose("cuFly", 13_000, false), Err(NO_SUCH_NAME));
    }
}
