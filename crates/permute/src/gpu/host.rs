//! The trait for data on the host: staged to the device, computed there, and brought back.
//!
//! Every call allocates, copies and waits: this is for tests and for trying things out. Arguments
//! are checked on the host as for every device, so that the errors are the same.

use tollgate_core::{Element, Error, Result, RoutingTable, RowView, RowViewMut};
use tollgate_device::{
    Buffer, DeviceRoutingTable, DeviceRows, DeviceRowsMut, Gpu, StatusBlock, Stream, Workspace,
    WorkspaceLayout,
};

use super::{DevicePermuteMaps, FreeRows, SortPlan, SortShape};
use crate::{Permute, PermuteMaps, check};

impl Permute for Gpu {
    fn sort(&self, table: &RoutingTable, maps: &mut PermuteMaps) -> Result<()> {
        check::table(table)?;
        table.validate()?;
        let stream = self.default_stream();
        let staged = StagedTable::new(self, table)?;
        let shape = SortShape {
            num_tokens: table.num_tokens(),
            num_experts: table.num_experts(),
            max_assignments: table.num_assignments(),
            row_alignment: 1,
        };
        let mut layout = WorkspaceLayout::new();
        let plan = SortPlan::new(&mut layout, shape)?;
        let mut memory = self.alloc::<u8>(layout.bytes())?;
        let workspace = Workspace::new(memory.slice_mut(), &layout)?;
        let mut status = Status::new(self)?;
        let on_device = plan.maps_mut(&workspace)?;
        super::sort(
            self,
            stream,
            &plan,
            &workspace,
            &staged.table(table),
            on_device,
            status.block.slice_mut(),
        )?;
        status.check(stream)?;
        let on_device = plan.maps(&workspace)?;
        *maps = PermuteMaps {
            row_of_assignment: stream.read(on_device.row_of_assignment)?,
            assignment_of_row: stream.read(on_device.assignment_of_row)?,
            token_of_row: stream.read(on_device.token_of_row)?,
            expert_offsets: stream.read(on_device.expert_offsets)?,
        };
        Ok(())
    }

    fn permute<T: Element>(
        &self,
        x: RowView<'_, T>,
        maps: &PermuteMaps,
        rows: RowViewMut<'_, T>,
    ) -> Result<()> {
        check::permute((x.rows(), x.cols()), maps, (rows.rows(), rows.cols()))?;
        if rows.rows() == 0 || rows.cols() == 0 {
            return Ok(());
        }
        let stream = self.default_stream();
        // The kernel follows tokens; without a table, the rows of each come from the map alone.
        let (token_offsets, row_of_assignment) = rows_of_tokens(maps, x.rows());
        let offsets = self.upload(stream, &token_offsets)?;
        let row_of = self.upload(stream, &row_of_assignment)?;
        let none = self.alloc::<i32>(0)?;
        let no_weights = self.alloc::<f32>(0)?;
        let table = DeviceRoutingTable {
            num_tokens: x.rows(),
            num_experts: 0,
            max_assignments: rows.rows(),
            token_offsets: offsets.slice(),
            expert_indices: none.slice(),
            routing_weights: no_weights.slice(),
            expert_offsets: none.slice(),
        };
        let x = Staged::new(self, x)?;
        let mut out = Returned::new(self, rows)?;
        let mut status = Status::new(self)?;
        super::permute(
            self,
            stream,
            x.rows()?,
            &table,
            &row_map(&row_of, &none),
            out.rows()?,
            FreeRows::Keep,
            status.block.slice_mut(),
        )?;
        status.check(stream)?;
        out.fetch(stream)
    }

    fn unpermute<T: Element>(
        &self,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        y: RowViewMut<'_, T>,
    ) -> Result<()> {
        let shape = (y.rows(), y.cols());
        check::unpermute((rows.rows(), rows.cols()), table, maps, shape)?;
        let stream = self.default_stream();
        let staged = StagedTable::new(self, table)?;
        let (row_of, none) = (
            self.upload(stream, &maps.row_of_assignment)?,
            self.alloc(0)?,
        );
        let rows = Staged::new(self, rows)?;
        let mut out = Returned::new(self, y)?;
        let mut status = Status::new(self)?;
        super::unpermute(
            self,
            stream,
            rows.rows()?,
            &staged.table(table),
            &row_map(&row_of, &none),
            out.rows()?,
            status.block.slice_mut(),
        )?;
        status.check(stream)?;
        out.fetch(stream)
    }

    fn permute_backward<T: Element>(
        &self,
        drows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        addend: Option<RowView<'_, f32>>,
        dx: RowViewMut<'_, T>,
    ) -> Result<()> {
        let shape = (dx.rows(), dx.cols());
        check::unpermute((drows.rows(), drows.cols()), table, maps, shape)?;
        if let Some(addend) = addend {
            check::addend((addend.rows(), addend.cols()), shape)?;
        }
        let stream = self.default_stream();
        let staged = StagedTable::new(self, table)?;
        let (row_of, none) = (
            self.upload(stream, &maps.row_of_assignment)?,
            self.alloc(0)?,
        );
        let drows = Staged::new(self, drows)?;
        let addend = addend.map(|a| Staged::new(self, a)).transpose()?;
        let addend = addend.as_ref().map(Staged::rows).transpose()?;
        let mut out = Returned::new(self, dx)?;
        let mut status = Status::new(self)?;
        super::permute_backward(
            self,
            stream,
            drows.rows()?,
            &staged.table(table),
            &row_map(&row_of, &none),
            addend,
            out.rows()?,
            status.block.slice_mut(),
        )?;
        status.check(stream)?;
        out.fetch(stream)
    }

    fn unpermute_backward<T: Element>(
        &self,
        dy: RowView<'_, T>,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        drows: RowViewMut<'_, T>,
        dweights: &mut [f32],
    ) -> Result<()> {
        check::unpermute_backward(
            (dy.rows(), dy.cols()),
            (rows.rows(), rows.cols()),
            table,
            maps,
            (drows.rows(), drows.cols()),
            dweights.len(),
        )?;
        let stream = self.default_stream();
        let staged = StagedTable::new(self, table)?;
        let (row_of, none) = (
            self.upload(stream, &maps.row_of_assignment)?,
            self.alloc(0)?,
        );
        let (dy, rows) = (Staged::new(self, dy)?, Staged::new(self, rows)?);
        let mut out = Returned::new(self, drows)?;
        let mut dots = self.alloc::<f32>(dweights.len())?;
        let mut status = Status::new(self)?;
        super::unpermute_backward(
            self,
            stream,
            dy.rows()?,
            rows.rows()?,
            &staged.table(table),
            &row_map(&row_of, &none),
            out.rows()?,
            dots.slice_mut(),
            status.block.slice_mut(),
        )?;
        status.check(stream)?;
        out.fetch(stream)?;
        Ok(stream.read_into(dots.slice(), dweights)?)
    }
}

/// The rows of each token in ascending order, as offsets `[tokens+1]` and rows. All tokens of the
/// map are in range.
fn rows_of_tokens(maps: &PermuteMaps, tokens: usize) -> (Vec<i32>, Vec<i32>) {
    let mut offsets = vec![0i32; tokens + 1];
    for &token in &maps.token_of_row {
        offsets[token as usize + 1] += 1;
    }
    for token in 0..tokens {
        offsets[token + 1] += offsets[token];
    }
    let mut next = offsets.clone();
    let mut rows = vec![0i32; maps.token_of_row.len()];
    for (row, &token) in maps.token_of_row.iter().enumerate() {
        let at = &mut next[token as usize];
        rows[*at as usize] = row as i32;
        *at += 1;
    }
    (offsets, rows)
}

/// Maps of which only the rows of the assignments are followed.
fn row_map<'a>(row_of: &'a Buffer<i32>, none: &'a Buffer<i32>) -> DevicePermuteMaps<'a> {
    DevicePermuteMaps {
        max_rows: row_of.len(),
        row_of_assignment: row_of.slice(),
        assignment_of_row: none.slice(),
        token_of_row: none.slice(),
        expert_offsets: none.slice(),
    }
}

/// A table in device memory.
struct StagedTable {
    token_offsets: Buffer<i32>,
    expert_indices: Buffer<i32>,
    routing_weights: Buffer<f32>,
    expert_offsets: Buffer<i32>,
}

impl StagedTable {
    fn new(gpu: &Gpu, table: &RoutingTable) -> Result<Self> {
        let stream = gpu.default_stream();
        Ok(Self {
            token_offsets: gpu.upload(stream, &table.token_offsets)?,
            expert_indices: gpu.upload(stream, &table.expert_indices)?,
            routing_weights: gpu.upload(stream, &table.routing_weights)?,
            expert_offsets: gpu.upload(stream, &table.expert_offsets)?,
        })
    }

    fn table(&self, table: &RoutingTable) -> DeviceRoutingTable<'_> {
        DeviceRoutingTable {
            num_tokens: table.num_tokens(),
            num_experts: table.num_experts(),
            max_assignments: table.num_assignments(),
            token_offsets: self.token_offsets.slice(),
            expert_indices: self.expert_indices.slice(),
            routing_weights: self.routing_weights.slice(),
            expert_offsets: self.expert_offsets.slice(),
        }
    }
}

/// A matrix that is read, in device memory with the stride that it has on the host.
struct Staged<T> {
    memory: Buffer<T>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<T: Element> Staged<T> {
    fn new(gpu: &Gpu, view: RowView<'_, T>) -> Result<Self> {
        Ok(Self {
            memory: gpu.upload(gpu.default_stream(), view.raw())?,
            rows: view.rows(),
            cols: view.cols(),
            stride: view.stride(),
        })
    }

    fn rows(&self) -> Result<DeviceRows<'_, T>> {
        let slice = self.memory.slice();
        Ok(slice.rows("a staged matrix", self.rows, self.cols, self.stride)?)
    }
}

/// A matrix that is written: computed in device memory, then copied row by row to where it belongs.
struct Returned<'a, T> {
    memory: Buffer<T>,
    view: RowViewMut<'a, T>,
}

impl<'a, T: Element> Returned<'a, T> {
    fn new(gpu: &Gpu, mut view: RowViewMut<'a, T>) -> Result<Self> {
        let mut memory = gpu.alloc::<T>(view.raw_mut().len())?;
        // All of it is read back, and between the rows nothing is written.
        gpu.default_stream().fill(memory.slice_mut(), 0)?;
        Ok(Self { memory, view })
    }

    fn rows(&mut self) -> Result<DeviceRowsMut<'_, T>> {
        let (rows, cols, stride) = (self.view.rows(), self.view.cols(), self.view.stride());
        let slice = self.memory.slice_mut();
        Ok(slice.rows("a matrix to be written", rows, cols, stride)?)
    }

    fn fetch(mut self, stream: &Stream) -> Result<()> {
        let values = self.memory.read(stream)?;
        let (rows, cols, stride) = (self.view.rows(), self.view.cols(), self.view.stride());
        if cols == 0 {
            return Ok(());
        }
        for row in 0..rows {
            let from = &values[row * stride..row * stride + cols];
            self.view.row_mut(row).copy_from_slice(from);
        }
        Ok(())
    }
}

/// The status block of one call. Arguments were checked on the host, so that a fault is a mistake
/// here or in the device.
struct Status {
    block: Buffer<StatusBlock>,
}

impl Status {
    fn new(gpu: &Gpu) -> Result<Self> {
        let block = gpu.upload(gpu.default_stream(), &[StatusBlock::CLEAR])?;
        Ok(Self { block })
    }

    fn check(&self, stream: &Stream) -> Result<()> {
        let status = self.block.read(stream)?;
        match status[0] {
            StatusBlock::CLEAR => Ok(()),
            raised => Err(Error::Device {
                reason: format!("the device found faults in checked arguments: {raised:?}"),
            }),
        }
    }
}
