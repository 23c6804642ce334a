use tollgate_core::{Element, Error, Result};
use tollgate_device::{DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Gpu, StepBlock, Stream};
use tollgate_gating::gpu::{DeviceGateInputs, DeviceGateState, GatePlan};
fn no<T>() -> Result<T> { Err(Error::Device { reason: "no kernel yet".into() }) }
pub(super) fn jitter<T: Element>(_: &Gpu, _: &Stream, _: f32, _: DeviceSlice<'_, StepBlock>, _: DeviceRows<'_, T>, _: DeviceRowsMut<'_, f32>) -> Result<()> { no() }
pub(super) fn gate_backward(_: &Gpu, _: &Stream, _: &GatePlan, _: &DeviceGateInputs<'_>, _: &DeviceGateState<'_>, _: DeviceSlice<'_, f32>, _: DeviceRowsMut<'_, f32>, _: Option<DeviceRowsMut<'_, f32>>, _: DeviceSliceMut<'_, u8>) -> Result<()> { no() }
