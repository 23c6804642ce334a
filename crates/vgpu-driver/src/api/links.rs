//! The linker: takes one PTX text, and gives it back as what a module is loaded from.
//!
//! Several inputs would have to be merged with their visibility and their externals, which is not
//! modelled; programs that only want their one text compiled with a log are served.

use std::ffi::{c_uint, c_void};
use std::sync::{Arc, Mutex};

use crate::abi::CuLink;
use crate::boundary::{Buffer, In, Out, Text, exports};
use crate::context::current;
use crate::driver::{driver, lock};
use crate::failure::{Failure, Outcome};
use crate::image;
use crate::jit::Logs;

exports! {
    cuLinkCreate | cuLinkCreate_v2(count: c_uint, options: In<c_uint>, values: Out<usize>,
        out: Out<CuLink>) => create;
    cuLinkAddData | cuLinkAddData_v2(link: CuLink, kind: c_uint, data: Buffer, bytes: usize,
        name: In<u8>, count: c_uint, options: In<c_uint>, values: Out<usize>) => add_data;
    cuLinkAddFile | cuLinkAddFile_v2(link: CuLink, kind: c_uint, path: Text, count: c_uint,
        options: In<c_uint>, values: Out<usize>) => add_file;
    cuLinkComplete(link: CuLink, image: Out<*const c_void>, bytes: Out<usize>) => complete;
    cuLinkDestroy(link: CuLink) => destroy;
}

/// `CU_JIT_INPUT_PTX`.
const PTX: c_uint = 1;

struct Link {
    /// The text, NUL at its end. It does not move once it is there.
    text: Mutex<Option<Box<[u8]>>>,
}

fn create(count: c_uint, options: In<c_uint>, values: Out<usize>, out: Out<CuLink>) -> Outcome {
    let (driver, context) = current()?;
    out.check()?;
    Logs::read(count, options, values)?.fill(Ok(()))?;
    let link = Arc::new(Link {
        text: Mutex::default(),
    });
    out.set(driver.handles.insert(link, Some(context.id)))
}

fn add(link: CuLink, kind: c_uint, bytes: &[u8]) -> Outcome {
    let link = driver()?.handles.get::<Link>(link)?;
    if kind > 5 {
        return Err(Failure::value(format!("{kind} is no kind of input")));
    }
    if kind != PTX {
        return Err(Failure::not_supported("linking anything but PTX"));
    }
    let mut text = image::ptx_in(bytes)?.into_bytes();
    text.push(0);
    let mut place = lock(&link.text);
    if place.is_some() {
        return Err(Failure::not_supported("linking several inputs"));
    }
    *place = Some(text.into());
    Ok(())
}

fn add_data(
    link: CuLink,
    kind: c_uint,
    data: Buffer,
    bytes: usize,
    _name: In<u8>,
    count: c_uint,
    options: In<c_uint>,
    values: Out<usize>,
) -> Outcome {
    driver()?.handles.get::<Link>(link)?;
    let logs = Logs::read(count, options, values)?;
    logs.fill(data.read(bytes).and_then(|bytes| add(link, kind, bytes)))
}

fn add_file(
    link: CuLink,
    kind: c_uint,
    path: Text,
    count: c_uint,
    options: In<c_uint>,
    values: Out<usize>,
) -> Outcome {
    driver()?.handles.get::<Link>(link)?;
    let logs = Logs::read(count, options, values)?;
    logs.fill(super::module::read_file(path).and_then(|text| add(link, kind, text.as_bytes())))
}

fn complete(link: CuLink, image: Out<*const c_void>, bytes: Out<usize>) -> Outcome {
    let link = driver()?.handles.get::<Link>(link)?;
    let text = lock(&link.text);
    let text = text
        .as_ref()
        .ok_or_else(|| Failure::value("nothing was added to link"))?;
    // Good until the link is destroyed, as documented.
    image.set(text.as_ptr().cast())?;
    bytes.set_if_wanted(text.len());
    Ok(())
}

fn destroy(link: CuLink) -> Outcome {
    driver()?.handles.remove::<Link>(link).map(|_| ())
}
