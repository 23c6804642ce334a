//! What a forward pass leaves in device memory.

use std::sync::Arc;

use tollgate_core::{Element, Error, Result};
use tollgate_device::{
    DeviceRoutingTable, DeviceRows, DeviceRowsMut, DeviceSlice, DeviceSliceMut, Region,
    StatusBlock, StepBlock, Stream, Workspace,
};
use tollgate_gating::gpu::DeviceGateState;
use tollgate_permute::gpu::DevicePermuteMaps;

use super::DeviceLayer;
use super::plan::Plan;

/// What a forward pass leaves in device memory for its backward pass, and for those who want to look
/// at it. The memory is the caller's; use it for one step after the other.
#[derive(Debug)]
pub struct DeviceLayerState<'a, T> {
    pub(super) plan: Arc<Plan<T>>,
    /// Whether a forward pass was put into a stream,
    pub(super) filled: bool,
    /// and a backward pass behind it.
    pub(super) has_backward: bool,
    pub(super) memory: Workspace<'a>,
    pub(super) gate: DeviceGateState<'a>,
}

impl<'a, T: Element> DeviceLayerState<'a, T> {
    pub(super) fn new(
        layer: &DeviceLayer<T>,
        stream: &Stream,
        memory: DeviceSliceMut<'a, u8>,
    ) -> Result<Self> {
        let plan = layer.plan.clone();
        let regions = &plan.state;
        let memory = Workspace::new(memory, &regions.layout)?;
        let tokens = plan.dims.tokens as i32;
        stream.write(memory.array(regions.one_group)?, &[0, tokens])?;
        if !regions.numbers.is_empty() {
            let numbers: Vec<i32> = (0..=tokens).collect();
            stream.write(memory.array(regions.numbers)?, &numbers)?;
        }
        stream.write(memory.array(regions.status)?, &[StatusBlock::CLEAR])?;
        Ok(Self {
            filled: false,
            has_backward: false,
            gate: DeviceGateState::new(&plan.gate, memory.array(regions.gate)?)?,
            memory,
            plan,
        })
    }

    /// Refuses the state of another layer.
    pub(super) fn check(&self, layer: &DeviceLayer<T>) -> Result<()> {
        if Arc::ptr_eq(&self.plan, &layer.plan) {
            return Ok(());
        }
        Err(Error::Incompatible {
            what: format!("a layer with router {}", layer.plan.options.router),
            with: format!(
                "the state of another layer, with router {} and {} tokens",
                self.plan.options.router, self.plan.dims.tokens
            ),
            reason: "a state is laid out by DeviceLayer::state of its own layer",
        })
    }

    /// Bad data that kernels behind the gate met since the state was laid out or cleared: offsets and
    /// indices out of range. Read it when you like; nothing in a pass waits for it. What the gate
    /// met is in the gate's own status.
    ///
    /// # Errors
    /// None in a state that was laid out.
    pub fn status(&self) -> Result<DeviceSlice<'_, StatusBlock>> {
        Ok(self.memory.array(self.plan.state.status)?.into_slice())
    }

    /// Forgets the bad data that was met.
    ///
    /// # Errors
    /// What the driver says.
    pub fn clear_status(&mut self, stream: &Stream) -> Result<()> {
        let status = self.memory.array(self.plan.state.status)?;
        Ok(stream.write(status, &[StatusBlock::CLEAR])?)
    }

    /// What the gate of the latest forward pass decides, on the device.
    pub fn gate(&self) -> &DeviceGateState<'a> {
        &self.gate
    }

    /// The group of all tokens, `[2]`.
    pub(super) fn one_group(&self) -> Result<DeviceSlice<'a, i32>> {
        Ok(self.memory.array(self.plan.state.one_group)?.into_slice())
    }

    /// Where the step stands.
    pub(super) fn step(&self) -> Result<DeviceSlice<'a, StepBlock>> {
        Ok(self.memory.array(self.plan.state.step)?.into_slice())
    }

    /// Where kernels raise faults.
    pub(super) fn raised(&self) -> Result<DeviceSliceMut<'a, StatusBlock>> {
        Ok(self.memory.array(self.plan.state.status)?)
    }

    /// The table behind the gate, by this plan's bound.
    pub(super) fn table(&self) -> DeviceRoutingTable<'_> {
        DeviceRoutingTable {
            max_assignments: self.plan.dims.rows,
            ..self.gate.table()
        }
    }

    /// The maps, as the sort left them.
    pub(super) fn maps(&self) -> Result<DevicePermuteMaps<'a>> {
        Ok(self.plan.sort.maps(&self.memory)?)
    }

    /// Where each expert's rows start, `[E+1]`.
    pub(super) fn offsets(&self) -> Result<DeviceSlice<'_, i32>> {
        Ok(match self.plan.dims.dense {
            true => self.gate.table().expert_offsets,
            false => self.maps()?.expert_offsets,
        })
    }

    /// A matrix of the state, to be read.
    pub(super) fn rows<U: Element>(
        &self,
        what: &'static str,
        region: Region<U>,
        cols: usize,
    ) -> Result<DeviceRows<'a, U>> {
        Ok(self.rows_mut(what, region, cols)?.into_rows())
    }

    /// The same, to be written. What is read and written at the same time is another matrix.
    pub(super) fn rows_mut<U: Element>(
        &self,
        what: &'static str,
        region: Region<U>,
        cols: usize,
    ) -> Result<DeviceRowsMut<'a, U>> {
        matrix(&self.memory, what, region, cols)
    }
}

/// A region of a workspace as contiguous rows. `cols` is not 0.
pub(super) fn matrix<'a, U: Element>(
    memory: &Workspace<'a>,
    what: &'static str,
    region: Region<U>,
    cols: usize,
) -> Result<DeviceRowsMut<'a, U>> {
    let rows = region.len() / cols;
    Ok(memory.array(region)?.rows(what, rows, cols, cols)?)
}
