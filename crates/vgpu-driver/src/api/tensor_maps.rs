//! Tensor maps.

use std::ffi::c_uint;

use tollgate_vgpu::layout::tma::{
    Interleave, L2Promotion, OobFill, TensorElement, TensorMap, TmaError, encode_tiled,
    swizzle_from_raw,
};

use crate::abi::{CuDevicePtr, TensorMapBytes};
use crate::boundary::{In, Out, exports};
use crate::driver::driver;
use crate::failure::{Failure, Outcome, code};

exports! {
    cuTensorMapEncodeTiled(map: Out<TensorMapBytes>, element: c_uint, rank: u32,
        address: CuDevicePtr, dims: In<u64>, strides: In<u64>, extent: In<u32>,
        element_strides: In<u32>, interleave: c_uint, swizzle: c_uint, promotion: c_uint,
        fill: c_uint) => encode;
    cuTensorMapReplaceAddress(map: Out<TensorMapBytes>, address: CuDevicePtr) => replace_address;
}

impl From<TmaError> for Failure {
    fn from(error: TmaError) -> Self {
        let code = match error {
            TmaError::NotSupported(_) => code::NOT_SUPPORTED,
            _ => code::INVALID_VALUE,
        };
        Self::new(code, error.to_string())
    }
}

fn encode(
    map: Out<TensorMapBytes>,
    element: c_uint,
    rank: u32,
    address: CuDevicePtr,
    dims: In<u64>,
    strides: In<u64>,
    extent: In<u32>,
    element_strides: In<u32>,
    interleave: c_uint,
    swizzle: c_uint,
    promotion: c_uint,
    fill: c_uint,
) -> Outcome {
    driver()?;
    map.check()?;
    if !(1..=5).contains(&rank) {
        return Err(TmaError::Rank(rank).into());
    }
    let rank_entries = rank as usize;
    let bytes = encode_tiled(
        TensorElement::from_raw(element)?,
        rank,
        address,
        &dims.list(rank_entries)?,
        &strides.list(rank_entries - 1)?,
        &extent.list(rank_entries)?,
        &element_strides.list(rank_entries)?,
        Interleave::from_raw(interleave)?,
        swizzle_from_raw(swizzle)?,
        L2Promotion::from_raw(promotion)?,
        OobFill::from_raw(fill)?,
    )?;
    map.set(TensorMapBytes(bytes))
}

fn replace_address(map: Out<TensorMapBytes>, address: CuDevicePtr) -> Outcome {
    driver()?;
    let mut decoded = TensorMap::decode(&map.as_in().get()?.0)?;
    decoded.address = address;
    decoded.check()?;
    map.set(TensorMapBytes(decoded.encode()))
}
