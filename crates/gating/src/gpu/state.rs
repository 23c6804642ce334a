//! Everything that the gate decided, in device memory of the caller.

use tollgate_core::options::{GateOptions, LocalWeight, Weights};
use tollgate_core::{DropMode, RoutingTable};
use tollgate_device::{
    DeviceRoutingTable, DeviceSlice, DeviceSliceMut, Region, Result, StatusBlock, Stream,
    Workspace, WorkspaceLayout,
};

use super::plan::GatePlan;
use super::table::TableMut;
use crate::{GateState, GateStatus, Losses};

/// Where the arrays of a state stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StateLayout {
    selection: TableLayout,
    /// With a capacity; otherwise the table is the selection.
    table: Option<TableLayout>,
    kept: Region<i32>,
    scores: Region<f32>,
    lse: Region<f32>,
    noisy_logits: Region<f32>,
    noise: Region<f32>,
    first_choice: Region<i32>,
    runner_up: Region<i32>,
    load: Region<f64>,
    losses: Region<f64>,
    dropped: Region<u32>,
    status: Region<StatusBlock>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct TableLayout {
    token_offsets: Region<i32>,
    expert_indices: Region<i32>,
    routing_weights: Region<f32>,
    expert_offsets: Region<i32>,
}

impl TableLayout {
    fn new(layout: &mut WorkspaceLayout, t: usize, e: usize, a: usize) -> Result<Self> {
        Ok(Self {
            token_offsets: layout.array("token_offsets", t + 1)?,
            expert_indices: layout.array("expert_indices", a)?,
            routing_weights: layout.array("routing_weights", a)?,
            expert_offsets: layout.array("expert_offsets", e + 1)?,
        })
    }

    fn lay<'m>(&self, memory: &Workspace<'m>) -> Result<TableMut<'m>> {
        Ok(TableMut {
            token_offsets: memory.array(self.token_offsets)?,
            expert_indices: memory.array(self.expert_indices)?,
            routing_weights: memory.array(self.routing_weights)?,
            expert_offsets: memory.array(self.expert_offsets)?,
        })
    }
}

impl StateLayout {
    /// `sizes`: T, E and the most experts of a token.
    pub(super) fn new(
        layout: &mut WorkspaceLayout,
        options: &GateOptions,
        (t, e, k_max): (usize, usize, usize),
        training: bool,
        keep_scores: bool,
    ) -> Result<Self> {
        let gate = options.router.has_gate();
        let noisy = training && options.router.is_noisy();
        let only = |wanted: bool, len: usize| if wanted { len } else { 0 };
        // The options were checked: the products do not overflow usize where they are wanted.
        let elems = t.saturating_mul(e);
        let selection = TableLayout::new(layout, t, e, t * k_max)?;
        let table = match options.capacity {
            Some(_) => Some(TableLayout::new(layout, t, e, t * k_max)?),
            None => None,
        };
        let top2 = gate && options.weights() == Weights::Top2;
        let balance = gate && options.balance_alpha > 0.0;
        let drops = training && options.gating_dropout.is_some();
        Ok(Self {
            selection,
            table,
            kept: layout.array("kept", only(table.is_some(), t * k_max))?,
            scores: layout.array("scores", only(keep_scores, elems))?,
            lse: layout.array("lse", only(gate, t))?,
            noisy_logits: layout.array("noisy_logits", only(noisy, elems))?,
            noise: layout.array("noise", only(noisy, elems))?,
            first_choice: layout.array("first_choice", only(gate, t))?,
            runner_up: layout.array("runner_up", only(top2, t))?,
            load: layout.array("load", only(balance, e))?,
            losses: layout.array("losses", only(gate, 2))?,
            dropped: layout.array("dropped", only(drops, 1))?,
            status: layout.array("status", 1)?,
        })
    }
}

/// What [`super::gate`](fn@super::gate) decided, in device memory that the caller owns. The device
/// fills it in the order of the stream; what is documented at [`GateState`] holds here.
#[derive(Debug)]
pub struct DeviceGateState<'m> {
    pub(super) layout: StateLayout,
    pub(super) num_tokens: usize,
    pub(super) num_experts: usize,
    max_assignments: usize,
    drop_mode: Option<DropMode>,
    original_weight: bool,
    pub(super) selection: TableMut<'m>,
    /// With a capacity.
    pub(super) limited: Option<TableMut<'m>>,
    pub(super) kept: DeviceSliceMut<'m, i32>,
    pub(super) scores: DeviceSliceMut<'m, f32>,
    pub(super) lse: DeviceSliceMut<'m, f32>,
    pub(super) noisy_logits: DeviceSliceMut<'m, f32>,
    pub(super) noise: DeviceSliceMut<'m, f32>,
    pub(super) first_choice: DeviceSliceMut<'m, i32>,
    pub(super) runner_up: DeviceSliceMut<'m, i32>,
    pub(super) load: DeviceSliceMut<'m, f64>,
    pub(super) losses: DeviceSliceMut<'m, f64>,
    pub(super) dropped: DeviceSliceMut<'m, u32>,
    pub(super) status: DeviceSliceMut<'m, StatusBlock>,
}

impl<'m> DeviceGateState<'m> {
    /// Lays a state over [`GatePlan::state_bytes`] of memory. What is in it means nothing until a
    /// gate call has run, unless it is the memory of an earlier state of the same plan.
    ///
    /// # Errors
    /// Memory that is too small, or not aligned to [`WorkspaceLayout::ALIGNMENT`].
    pub fn new(plan: &GatePlan, memory: DeviceSliceMut<'m, u8>) -> Result<Self> {
        let layout = &plan.state;
        let memory = Workspace::new(memory, &plan.state_layout)?;
        let dropout = plan.options.gating_dropout.filter(|_| plan.training);
        Ok(Self {
            layout: plan.state,
            num_tokens: plan.num_tokens,
            num_experts: plan.num_experts,
            max_assignments: plan.max_assignments(),
            drop_mode: dropout.map(|d| d.mode),
            original_weight: dropout.is_some_and(|d| d.local_weight == LocalWeight::Original),
            selection: layout.selection.lay(&memory)?,
            limited: match &layout.table {
                Some(table) => Some(table.lay(&memory)?),
                None => None,
            },
            kept: memory.array(layout.kept)?,
            scores: memory.array(layout.scores)?,
            lse: memory.array(layout.lse)?,
            noisy_logits: memory.array(layout.noisy_logits)?,
            noise: memory.array(layout.noise)?,
            first_choice: memory.array(layout.first_choice)?,
            runner_up: memory.array(layout.runner_up)?,
            load: memory.array(layout.load)?,
            losses: memory.array(layout.losses)?,
            dropped: memory.array(layout.dropped)?,
            status: memory.array(layout.status)?,
        })
    }

    /// What the experts run.
    pub fn table(&self) -> DeviceRoutingTable<'_> {
        let table = self.limited.as_ref().unwrap_or(&self.selection);
        view(
            table,
            self.num_tokens,
            self.num_experts,
            self.max_assignments,
        )
    }

    /// What the layer was to run, before capacity.
    pub fn selection(&self) -> DeviceRoutingTable<'_> {
        let (t, e) = (self.num_tokens, self.num_experts);
        view(&self.selection, t, e, self.max_assignments)
    }

    /// `[A]` position in the selection of each assignment of the table; empty without a capacity.
    pub fn kept(&self) -> DeviceSlice<'_, i32> {
        self.kept.as_slice()
    }

    /// `[T, E]`; empty unless they are kept.
    pub fn scores(&self) -> DeviceSlice<'_, f32> {
        self.scores.as_slice()
    }

    /// `[T]`; empty without a gate.
    pub fn lse(&self) -> DeviceSlice<'_, f32> {
        self.lse.as_slice()
    }

    /// `[T, E]`; empty unless noise was added.
    pub fn noisy_logits(&self) -> DeviceSlice<'_, f32> {
        self.noisy_logits.as_slice()
    }

    /// `[T, E]`; empty unless noise was added.
    pub fn noise(&self) -> DeviceSlice<'_, f32> {
        self.noise.as_slice()
    }

    /// `[T]`; empty without a gate.
    pub fn first_choice(&self) -> DeviceSlice<'_, i32> {
        self.first_choice.as_slice()
    }

    /// `[T]`; empty unless the weights in force are `top2`.
    pub fn runner_up(&self) -> DeviceSlice<'_, i32> {
        self.runner_up.as_slice()
    }

    /// `[T]` the expert whose score is the weight, where a dropped step may make that another than
    /// the one that runs: Gating Dropout with the local weight `original`. On a step that was not
    /// dropped it means nothing.
    pub fn weight_source(&self) -> Option<DeviceSlice<'_, i32>> {
        let may = self.original_weight && self.drop_mode == Some(DropMode::Gate);
        may.then(|| self.first_choice.as_slice())
    }

    /// `[E]`; empty without a gate or a balance loss.
    pub fn load(&self) -> DeviceSlice<'_, f64> {
        self.load.as_slice()
    }

    /// `[2]`: balance loss and z-loss; empty without a gate.
    pub fn losses(&self) -> DeviceSlice<'_, f64> {
        self.losses.as_slice()
    }

    /// `[1]`: 1 when Gating Dropout dropped the step; empty unless it may act.
    pub fn dropped(&self) -> DeviceSlice<'_, u32> {
        self.dropped.as_slice()
    }

    /// `[1]` bad data that the step met.
    pub fn status(&self) -> DeviceSlice<'_, StatusBlock> {
        self.status.as_slice()
    }

    /// Fills the state from one of the host, which fits the plan.
    pub(super) fn upload(&mut self, stream: &Stream, state: &GateState) -> Result<()> {
        upload_table(stream, &mut self.selection, &state.selection)?;
        if let Some(table) = &mut self.limited {
            upload_table(stream, table, &state.table)?;
            let assignments = state.table.num_assignments();
            if state.kept.is_empty() {
                // Nothing was dropped, or everything was.
                let all: Vec<i32> = (0..assignments as i32).collect();
                stream.write(self.kept.reborrow(), &all)?;
            } else {
                stream.write(self.kept.reborrow(), &state.kept)?;
            }
        }
        stream.write(self.scores.reborrow(), &state.scores)?;
        stream.write(self.lse.reborrow(), &state.lse)?;
        stream.write(self.noisy_logits.reborrow(), &state.noisy_logits)?;
        stream.write(self.noise.reborrow(), &state.noise)?;
        stream.write(self.first_choice.reborrow(), &state.first_choice)?;
        stream.write(self.runner_up.reborrow(), &state.runner_up)?;
        stream.write(self.load.reborrow(), &state.load)?;
        if !self.dropped.is_empty() {
            let dropped = u32::from(state.dropped.is_some());
            stream.write(self.dropped.reborrow(), &[dropped])?;
        }
        Ok(())
    }

    /// Copies everything to the host and waits for it: the state as [`crate::Gating::gate`] fills
    /// it. For inspection and tests; a layer keeps what it needs on the device.
    ///
    /// # Errors
    /// What the driver says; on the virtual GPU what its checks found.
    pub fn download(&self, stream: &Stream) -> Result<GateState> {
        let selection = download_table(stream, &self.selection())?;
        let (table, kept) = match &self.limited {
            None => (selection.clone(), Vec::new()),
            Some(_) => {
                let table = download_table(stream, &self.table())?;
                let assignments = table.expert_indices.len();
                let dropped_some = assignments < selection.expert_indices.len();
                let kept = if dropped_some { assignments } else { 0 };
                let kept = self.kept.as_slice().part("kept", 0, kept)?;
                (table, stream.read(kept)?)
            }
        };
        let dropped = stream.read(self.dropped.as_slice())?.first() == Some(&1);
        let dropped = self.drop_mode.filter(|_| dropped);
        let first_choice = stream.read(self.first_choice.as_slice())?;
        let sourced = self.original_weight && dropped == Some(DropMode::Gate);
        let losses = stream.read(self.losses.as_slice())?;
        let status = stream.read(self.status.as_slice())?[0];
        Ok(GateState {
            scores: stream.read(self.scores.as_slice())?,
            lse: stream.read(self.lse.as_slice())?,
            noisy_logits: stream.read(self.noisy_logits.as_slice())?,
            noise: stream.read(self.noise.as_slice())?,
            weight_source: if sourced {
                first_choice.clone()
            } else {
                Vec::new()
            },
            first_choice,
            runner_up: stream.read(self.runner_up.as_slice())?,
            selection,
            table,
            kept,
            load: stream.read(self.load.as_slice())?,
            dropped,
            losses: match losses[..] {
                [balance, z] => Losses { balance, z },
                _ => Losses::default(),
            },
            status: GateStatus {
                faulty_rows: status.faulty_rows as usize,
                first_faulty_row: (status.first_faulty_row != u32::MAX)
                    .then_some(status.first_faulty_row as usize),
            },
        })
    }
}

/// A table of a plan's sizes, to be read.
pub(super) fn table_view<'a>(plan: &GatePlan, table: &'a TableMut<'_>) -> DeviceRoutingTable<'a> {
    let (t, e) = (plan.num_tokens, plan.num_experts);
    view(table, t, e, plan.max_assignments())
}

fn view<'a>(table: &'a TableMut<'_>, t: usize, e: usize, most: usize) -> DeviceRoutingTable<'a> {
    DeviceRoutingTable {
        num_tokens: t,
        num_experts: e,
        max_assignments: most,
        token_offsets: table.token_offsets.as_slice(),
        expert_indices: table.expert_indices.as_slice(),
        routing_weights: table.routing_weights.as_slice(),
        expert_offsets: table.expert_offsets.as_slice(),
    }
}

fn upload_table(stream: &Stream, to: &mut TableMut<'_>, table: &RoutingTable) -> Result<()> {
    stream.write(to.token_offsets.reborrow(), &table.token_offsets)?;
    stream.write(to.expert_indices.reborrow(), &table.expert_indices)?;
    stream.write(to.routing_weights.reborrow(), &table.routing_weights)?;
    stream.write(to.expert_offsets.reborrow(), &table.expert_offsets)
}

/// The used part of a table.
fn download_table(stream: &Stream, table: &DeviceRoutingTable<'_>) -> Result<RoutingTable> {
    let token_offsets = stream.read(table.token_offsets)?;
    let last = token_offsets.last().copied().unwrap_or(0);
    let assignments = usize::try_from(last).unwrap_or(0);
    let indices = table
        .expert_indices
        .part("expert_indices", 0, assignments)?;
    let weights = table
        .routing_weights
        .part("routing_weights", 0, assignments)?;
    Ok(RoutingTable {
        token_offsets,
        expert_indices: stream.read(indices)?,
        routing_weights: stream.read(weights)?,
        expert_offsets: stream.read(table.expert_offsets)?,
    })
}
