//! From the device to the host, for reports and tests.

use tollgate_core::{Element, Error, Result};
use tollgate_device::{DeviceSlice, Region, StatusBlock, Stream};
use tollgate_gating::GateState;
use tollgate_permute::PermuteMaps;

use super::DeviceLayerState;
use crate::Trace;
use crate::trace::Stage;
use crate::work::{Sizes, Work};

/// What a step decided, on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceStep {
    /// What the gate decided: routing table, scores, losses.
    pub gate: GateState,
    /// The maps between assignments and rows; empty where nothing was permuted.
    pub maps: PermuteMaps,
    /// `[T, E]`; empty for routers without a gate.
    pub router_logits: Vec<f32>,
    /// `[T, E]`; empty without a backward pass and for routers without a gate.
    pub router_logit_gradient: Vec<f32>,
    /// Stages with their operations and bytes, and what the gate decided. Seconds are NaN: an
    /// [`Observer`](super::Observer) may measure them.
    pub trace: Trace,
    /// Bad data that the gate met in this step, and kernels behind it since the state was laid out or
    /// cleared.
    pub status: StatusBlock,
}

impl Default for DeviceStep {
    /// No step.
    fn default() -> Self {
        Self {
            gate: GateState::default(),
            maps: PermuteMaps::default(),
            router_logits: Vec::new(),
            router_logit_gradient: Vec::new(),
            trace: Trace::default(),
            status: StatusBlock::CLEAR,
        }
    }
}

impl<T: Element> DeviceLayerState<'_, T> {
    /// Copies what the latest step decided to the host and waits for it.
    ///
    /// # Errors
    /// A state without a forward pass; what the driver says; on the virtual GPU what the checks
    /// found.
    pub fn download(&self, stream: &Stream) -> Result<DeviceStep> {
        if !self.filled {
            return Err(Error::Missing {
                what: "a state that a forward pass has filled",
                because: "its download".to_owned(),
            });
        }
        let gate = self.gate.download(stream)?;
        let dims = &self.plan.dims;
        let read = |region: Region<f32>, wanted: bool| match wanted {
            true => stream.read(self.memory.array(region)?.into_slice()),
            false => Ok(Vec::new()),
        };
        let regions = &self.plan.state;
        Ok(DeviceStep {
            maps: match dims.dense {
                true => PermuteMaps::default(),
                false => self.download_maps(stream, gate.table.num_assignments())?,
            },
            router_logits: read(regions.logits, dims.gate)?,
            router_logit_gradient: read(regions.dlogits, self.has_backward && dims.gate)?,
            trace: self.trace(&gate),
            status: self.download_status(stream)?,
            gate,
        })
    }

    /// The used part of the maps.
    fn download_maps(&self, stream: &Stream, assignments: usize) -> Result<PermuteMaps> {
        let maps = self.maps()?;
        let used = |map: DeviceSlice<'_, i32>| stream.read(map.part("maps", 0, assignments)?);
        Ok(PermuteMaps {
            row_of_assignment: used(maps.row_of_assignment)?,
            assignment_of_row: used(maps.assignment_of_row)?,
            token_of_row: used(maps.token_of_row)?,
            expert_offsets: stream.read(maps.expert_offsets)?,
        })
    }

    /// The faults that the gate met in the latest step, and those behind it.
    fn download_status(&self, stream: &Stream) -> Result<StatusBlock> {
        let mut all = StatusBlock::CLEAR;
        for status in [self.gate.status(), self.status()?] {
            for one in stream.read(status)? {
                all.faults |= one.faults;
                all.faulty_rows += one.faulty_rows;
                all.first_faulty_row = all.first_faulty_row.min(one.first_faulty_row);
                all.first_bad_index = all.first_bad_index.min(one.first_bad_index);
            }
        }
        Ok(all)
    }

    /// The trace of a step with these decisions.
    fn trace(&self, gate: &GateState) -> Trace {
        let mut trace = Trace {
            stages: self.stages(gate),
            dropped: gate.dropped,
            losses: gate.losses,
            status: gate.status,
            ..Trace::default()
        };
        trace.decisions(&gate.table, gate.selection.num_assignments());
        trace
    }

    /// The stages in the order in which they ran.
    fn stages(&self, gate: &GateState) -> Vec<Stage> {
        let dims = &self.plan.dims;
        let of_gate = Sizes::of::<T>(&dims.shape, dims.tokens, dims.gate, dims.noisy);
        let of_rows = of_gate.routed(&gate.table);
        let (permuted, back) = (!dims.dense, self.has_backward);
        let stages: [(&'static str, bool, Work); 12] = [
            ("router", dims.gate, of_gate.router()),
            ("gate", true, of_gate.gate()),
            ("permute", permuted, of_rows.permute()),
            ("up", true, of_rows.up()),
            ("down", true, of_rows.down()),
            ("unpermute", permuted, of_rows.unpermute()),
            (
                "unpermute_backward",
                back && permuted,
                of_rows.unpermute_backward(),
            ),
            ("down_backward", back, of_rows.down_backward()),
            ("up_backward", back, of_rows.up_backward()),
            ("gate_backward", back && dims.gate, of_gate.gate_backward()),
            (
                "router_backward",
                back && dims.gate,
                of_gate.router_backward(),
            ),
            (
                "permute_backward",
                back && permuted,
                of_rows.permute_backward(),
            ),
        ];
        let ran = stages.into_iter().filter(|&(_, ran, _)| ran);
        ran.map(|(name, _, work)| Stage {
            name,
            seconds: f64::NAN,
            flops: work.flops,
            bytes: work.bytes,
        })
        .collect()
    }
}
