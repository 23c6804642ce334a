//! Tables, maps and guarded matrices in device memory.

use tollgate_core::{Element, RoutingTable};
use tollgate_device::{
    Buffer, DeviceRoutingTable, DeviceRows, DeviceRowsMut, DeviceSliceMut, Faults, Gpu, Result,
    StatusBlock, Stream, Workspace, WorkspaceLayout,
};
use tollgate_permute::PermuteMaps;
use tollgate_permute::gpu::{self, DevicePermuteMaps, SortPlan, SortShape};
use tollgate_testkit::assert_same;

/// A table and its maps in device memory whose bounds may be larger than what is used.
pub struct OnDevice {
    pub gpu: Gpu,
    pub stream: Stream,
    pub shape: SortShape,
    pub plan: SortPlan,
    layout: WorkspaceLayout,
    memory: Buffer<u8>,
    pub token_offsets: Buffer<i32>,
    pub expert_indices: Buffer<i32>,
    pub routing_weights: Buffer<f32>,
    pub expert_offsets: Buffer<i32>,
    pub status: Buffer<StatusBlock>,
}

impl OnDevice {
    /// The table, in buffers for `max_assignments`.
    pub fn new(
        gpu: &Gpu,
        table: &RoutingTable,
        max_assignments: usize,
        row_alignment: usize,
    ) -> Self {
        let shape = SortShape {
            num_tokens: table.num_tokens(),
            num_experts: table.num_experts(),
            max_assignments,
            row_alignment,
        };
        let mut layout = WorkspaceLayout::new();
        let plan = SortPlan::new(&mut layout, shape).unwrap();
        let stream = gpu.stream().unwrap();
        let mut on_device = Self {
            gpu: gpu.clone(),
            shape,
            plan,
            memory: gpu.alloc(layout.bytes()).unwrap(),
            layout,
            token_offsets: gpu.alloc(shape.num_tokens + 1).unwrap(),
            expert_indices: gpu.alloc(max_assignments).unwrap(),
            routing_weights: gpu.alloc(max_assignments).unwrap(),
            expert_offsets: gpu.alloc(shape.num_experts + 1).unwrap(),
            status: gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap(),
            stream,
        };
        on_device.write(table);
        on_device
    }

    /// Another table of the same shape. What is behind its assignments is bad: nobody may look at
    /// it.
    pub fn write(&mut self, table: &RoutingTable) {
        let stream = &self.stream;
        let unused = self.shape.max_assignments - table.num_assignments();
        let experts = [&table.expert_indices[..], &vec![i32::MIN; unused]].concat();
        let weights = [&table.routing_weights[..], &vec![f32::NAN; unused]].concat();
        self.token_offsets
            .write(stream, &table.token_offsets)
            .unwrap();
        self.expert_indices.write(stream, &experts).unwrap();
        self.routing_weights.write(stream, &weights).unwrap();
        self.expert_offsets
            .write(stream, &table.expert_offsets)
            .unwrap();
    }

    /// Puts the sort into the stream.
    pub fn sort(&mut self) -> Result<()> {
        let table = table(
            self.shape,
            &self.token_offsets,
            &self.expert_indices,
            &self.routing_weights,
            &self.expert_offsets,
        );
        let workspace = Workspace::new(self.memory.slice_mut(), &self.layout)?;
        let maps = self.plan.maps_mut(&workspace)?;
        let status = self.status.slice_mut();
        let (gpu, stream) = (&self.gpu, &self.stream);
        gpu::sort(gpu, stream, &self.plan, &workspace, &table, maps, status)
    }

    /// What the operations that move rows follow.
    pub fn table_and_maps(&mut self) -> (DeviceRoutingTable<'_>, DevicePermuteMaps<'_>) {
        let workspace = Workspace::new(self.memory.slice_mut(), &self.layout).unwrap();
        let maps = self.plan.maps(&workspace).unwrap();
        let table = table(
            self.shape,
            &self.token_offsets,
            &self.expert_indices,
            &self.routing_weights,
            &self.expert_offsets,
        );
        (table, maps)
    }

    /// All of the maps, to their bounds.
    pub fn read_maps(&mut self) -> PermuteMaps {
        let stream = self.stream.clone();
        let (_, maps) = self.table_and_maps();
        PermuteMaps {
            row_of_assignment: stream.read(maps.row_of_assignment).unwrap(),
            assignment_of_row: stream.read(maps.assignment_of_row).unwrap(),
            token_of_row: stream.read(maps.token_of_row).unwrap(),
            expert_offsets: stream.read(maps.expert_offsets).unwrap(),
        }
    }

    /// Spoils an entry of a map.
    pub fn write_row_of_assignment(&mut self, position: usize, value: i32) {
        let workspace = Workspace::new(self.memory.slice_mut(), &self.layout).unwrap();
        let map = self.plan.maps_mut(&workspace).unwrap().row_of_assignment;
        let entry = map.part("entry", position, 1).unwrap();
        self.stream.write(entry, &[value]).unwrap();
    }

    /// The status, which is cleared.
    pub fn take_status(&mut self) -> StatusBlock {
        let status = self.status.read(&self.stream).unwrap()[0];
        self.status
            .write(&self.stream, &[StatusBlock::CLEAR])
            .unwrap();
        status
    }

    #[track_caller]
    pub fn assert_no_fault(&mut self) {
        assert_eq!(self.take_status(), StatusBlock::CLEAR);
    }

    /// Exactly these faults, and the lowest position.
    #[track_caller]
    pub fn assert_fault(&mut self, faults: u32, first_bad_index: u32) {
        let status = self.take_status();
        assert_eq!(
            (status.faults, status.first_bad_index),
            (faults, first_bad_index),
            "faults and first bad index; bits: expert {}, offsets {}, map {}",
            Faults::EXPERT_INDEX,
            Faults::TOKEN_OFFSETS,
            Faults::MAP_INDEX,
        );
    }
}

fn table<'a>(
    shape: SortShape,
    token_offsets: &'a Buffer<i32>,
    expert_indices: &'a Buffer<i32>,
    routing_weights: &'a Buffer<f32>,
    expert_offsets: &'a Buffer<i32>,
) -> DeviceRoutingTable<'a> {
    DeviceRoutingTable {
        num_tokens: shape.num_tokens,
        num_experts: shape.num_experts,
        max_assignments: shape.max_assignments,
        token_offsets: token_offsets.slice(),
        expert_indices: expert_indices.slice(),
        routing_weights: routing_weights.slice(),
        expert_offsets: expert_offsets.slice(),
    }
}

/// A strided matrix between canaries in device memory, poisoned or filled; its address is a
/// multiple of 16 bytes and `misalign` elements.
pub struct DeviceMatrix<T> {
    memory: Buffer<T>,
    host: Vec<T>,
    start: usize,
    elems: usize,
    rows: usize,
    cols: usize,
    stride: usize,
    stream: Stream,
}

/// Canary elements before and behind the matrix.
const CANARY: usize = 64;

impl<T: Element> DeviceMatrix<T> {
    pub fn poisoned(
        gpu: &Gpu,
        stream: &Stream,
        (rows, cols): (usize, usize),
        pad: usize,
        misalign: usize,
    ) -> Self {
        Self::of(
            gpu,
            stream,
            &vec![T::NAN; rows * cols],
            (rows, cols),
            pad,
            misalign,
        )
    }

    pub fn of(
        gpu: &Gpu,
        stream: &Stream,
        values: &[T],
        (rows, cols): (usize, usize),
        pad: usize,
        misalign: usize,
    ) -> Self {
        assert_eq!(values.len(), rows * cols);
        let stride = cols + pad;
        let elems = if rows == 0 {
            0
        } else {
            (rows - 1) * stride + cols
        };
        let start = CANARY + misalign;
        let end = start + elems;
        let mut host: Vec<T> = (0..end + CANARY)
            .map(|i| T::from_f32(((i * 37) % 101) as f32 - 50.0))
            .collect();
        host[start..end].fill(T::NAN);
        for row in 0..rows {
            let at = start + row * stride;
            host[at..at + cols].copy_from_slice(&values[row * cols..(row + 1) * cols]);
        }
        Self {
            memory: gpu.upload(stream, &host).unwrap(),
            host,
            start,
            elems,
            rows,
            cols,
            stride,
            stream: stream.clone(),
        }
    }

    pub fn view(&self) -> DeviceRows<'_, T> {
        let part = self
            .memory
            .slice()
            .part("matrix", self.start, self.elems)
            .unwrap();
        part.rows("matrix", self.rows, self.cols, self.stride)
            .unwrap()
    }

    pub fn view_mut(&mut self) -> DeviceRowsMut<'_, T> {
        let slice = self.memory.slice_mut();
        let part = slice.part("matrix", self.start, self.elems).unwrap();
        part.rows("matrix", self.rows, self.cols, self.stride)
            .unwrap()
    }

    /// All of a matrix of one row.
    pub fn slice_mut(&mut self) -> DeviceSliceMut<'_, T> {
        assert_eq!(self.rows, 1);
        let slice = self.memory.slice_mut();
        slice.part("matrix", self.start, self.elems).unwrap()
    }

    /// The values, contiguous, after what lies around and between the rows was found as it was.
    #[track_caller]
    pub fn values(&self, what: &str) -> Vec<T> {
        let now = self.memory.read(&self.stream).unwrap();
        let (was, start) = (&self.host, self.start);
        let end = start + self.elems;
        assert_same(&format!("{what}: before"), &now[..start], &was[..start]);
        assert_same(&format!("{what}: behind"), &now[end..], &was[end..]);
        let mut values = Vec::with_capacity(self.rows * self.cols);
        for row in 0..self.rows {
            let at = start + row * self.stride;
            values.extend_from_slice(&now[at..at + self.cols]);
            let gap = at + self.cols..end.min(at + self.stride);
            assert_same(
                &format!("{what}: gap after row {row}"),
                &now[gap.clone()],
                &was[gap],
            );
        }
        values
    }
}
