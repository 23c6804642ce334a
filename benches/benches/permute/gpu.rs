//! The same operations on device memory: what the virtual GPU counts, and times where there is a
//! CUDA device.
//!
//! Counters do not depend on the machine. Times are between two events a launch, after a warm-up,
//! on random data in sets that take turns beyond L2; the share is that of a copy on the device of
//! as many bytes as are moved, measured in the same run.

use half::bf16;
use tollgate::RoutingTable;
use tollgate::device::{
    Buffer, DeviceRoutingTable, DeviceRows, DeviceRowsMut, DeviceSpec, Gpu, LaunchCounters, Result,
    StatusBlock, Stream, Workspace, WorkspaceLayout,
};
use tollgate::permute::gpu::{self, DevicePermuteMaps, FreeRows, SortPlan, SortShape};
use tollgate_benches::data::normals;
use tollgate_benches::gpu::{LAUNCHES, copy_rate, counting, sets_beyond_l2, sum, timed};
use tollgate_benches::harness::Scale;
use tollgate_benches::shapes::RowsShape;
use tollgate_benches::table::{median, time};
use tollgate_testkit::Data;

/// Prints both tables.
pub fn tables(scale: Scale) {
    counters(scale);
    if scale > Scale::Smoke
        && let Ok(gpu) = Gpu::open(DeviceSpec::Cuda(0))
    {
        times(&gpu).expect("shapes agree");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Sort,
    Permute,
    Unpermute,
    PermuteBackward,
    UnpermuteBackward,
}

impl Operation {
    const ALL: [Self; 5] = [
        Self::Sort,
        Self::Permute,
        Self::Unpermute,
        Self::PermuteBackward,
        Self::UnpermuteBackward,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Sort => "sort",
            Self::Permute => "permute",
            Self::Unpermute => "unpermute",
            Self::PermuteBackward => "permute_backward",
            Self::UnpermuteBackward => "unpermute_backward",
        }
    }

    /// Each tensor once, with offsets, maps and weights.
    fn needed_bytes(self, shape: RowsShape) -> usize {
        let (t, a) = (shape.tokens, shape.assignments());
        let (tokens, rows) = (2 * t * shape.hidden, 2 * a * shape.hidden);
        let followed = 4 * (t + 1) + 4 * a;
        match self {
            // Three maps out, and the offsets of the experts.
            Self::Sort => followed + 12 * a + 8 * (shape.experts + 1),
            Self::Permute | Self::PermuteBackward => tokens + rows + followed,
            Self::Unpermute => tokens + rows + followed + 4 * a,
            Self::UnpermuteBackward => tokens + 2 * rows + followed + 8 * a,
        }
    }
}

/// A table with its maps on a device, and one set of matrices or several.
struct OnDevice {
    gpu: Gpu,
    stream: Stream,
    shape: RowsShape,
    plan: SortPlan,
    layout: WorkspaceLayout,
    memory: Buffer<u8>,
    token_offsets: Buffer<i32>,
    expert_indices: Buffer<i32>,
    routing_weights: Buffer<f32>,
    expert_offsets: Buffer<i32>,
    status: Buffer<StatusBlock>,
    dweights: Buffer<f32>,
    sets: Vec<Set>,
}

struct Set {
    tokens: Buffer<bf16>,
    rows: Buffer<bf16>,
    tokens_out: Buffer<bf16>,
    rows_out: Buffer<bf16>,
}

impl OnDevice {
    fn new(gpu: &Gpu, table: &RoutingTable, shape: RowsShape, sets: usize) -> Result<Self> {
        let stream = gpu.stream()?;
        let mut layout = WorkspaceLayout::new();
        let plan = SortPlan::new(
            &mut layout,
            SortShape {
                num_tokens: shape.tokens,
                num_experts: shape.experts,
                max_assignments: shape.assignments(),
                row_alignment: 1,
            },
        )?;
        let (t, a) = (
            shape.tokens * shape.hidden,
            shape.assignments() * shape.hidden,
        );
        let values = normals::<bf16>(a, 1.0, 1);
        let set = |_| -> Result<Set> {
            Ok(Set {
                tokens: gpu.upload(&stream, &values[..t])?,
                rows: gpu.upload(&stream, &values)?,
                tokens_out: gpu.alloc(t)?,
                rows_out: gpu.alloc(a)?,
            })
        };
        let sets = (0..sets).map(set).collect::<Result<_>>()?;
        let mut on_device = Self {
            gpu: gpu.clone(),
            shape,
            plan,
            memory: gpu.alloc(layout.bytes())?,
            layout,
            token_offsets: gpu.upload(&stream, &table.token_offsets)?,
            expert_indices: gpu.upload(&stream, &table.expert_indices)?,
            routing_weights: gpu.upload(&stream, &table.routing_weights)?,
            expert_offsets: gpu.upload(&stream, &table.expert_offsets)?,
            status: gpu.upload(&stream, &[StatusBlock::CLEAR])?,
            dweights: gpu.alloc(shape.assignments())?,
            sets,
            stream,
        };
        // The other operations follow its maps.
        on_device.launch(Operation::Sort, 0)?;
        on_device.stream.synchronize()?;
        Ok(on_device)
    }

    /// Puts an operation on one of the sets into the stream.
    fn launch(&mut self, operation: Operation, set: usize) -> Result<()> {
        let (gpu, stream, shape) = (&self.gpu, &self.stream, self.shape);
        let (t, a, h) = (shape.tokens, shape.assignments(), shape.hidden);
        let table = DeviceRoutingTable {
            num_tokens: t,
            num_experts: shape.experts,
            max_assignments: a,
            token_offsets: self.token_offsets.slice(),
            expert_indices: self.expert_indices.slice(),
            routing_weights: self.routing_weights.slice(),
            expert_offsets: self.expert_offsets.slice(),
        };
        let workspace = Workspace::new(self.memory.slice_mut(), &self.layout)?;
        let status = self.status.slice_mut();
        if operation == Operation::Sort {
            let maps = self.plan.maps_mut(&workspace)?;
            return gpu::sort(gpu, stream, &self.plan, &workspace, &table, maps, status);
        }
        let maps: &DevicePermuteMaps<'_> = &self.plan.maps(&workspace)?;
        let table = &table;
        let count = self.sets.len();
        let set = &mut self.sets[set % count];
        let tokens: DeviceRows<'_, bf16> = set.tokens.slice().rows("tokens", t, h, h)?;
        let rows: DeviceRows<'_, bf16> = set.rows.slice().rows("rows", a, h, h)?;
        let y: DeviceRowsMut<'_, bf16> = set.tokens_out.slice_mut().rows("tokens", t, h, h)?;
        let out: DeviceRowsMut<'_, bf16> = set.rows_out.slice_mut().rows("rows", a, h, h)?;
        match operation {
            Operation::Sort => Ok(()),
            Operation::Permute => {
                let keep = FreeRows::Keep;
                gpu::permute(gpu, stream, tokens, table, maps, out, keep, status)
            }
            Operation::Unpermute => gpu::unpermute(gpu, stream, rows, table, maps, y, status),
            Operation::PermuteBackward => {
                gpu::permute_backward(gpu, stream, rows, table, maps, None, y, status)
            }
            Operation::UnpermuteBackward => {
                let dots = self.dweights.slice_mut();
                gpu::unpermute_backward(gpu, stream, tokens, rows, table, maps, out, dots, status)
            }
        }
    }
}

/// k different experts for every token.
fn table(shape: RowsShape) -> RoutingTable {
    let mut data = Data::new(3);
    let mut table = RoutingTable::default();
    table.reset(shape.experts);
    for _ in 0..shape.tokens {
        let first = table.expert_indices.len();
        while table.expert_indices.len() < first + shape.k {
            let expert = data.below(shape.experts) as i32;
            if !table.expert_indices[first..].contains(&expert) {
                table.expert_indices.push(expert);
                table.routing_weights.push(data.uniform() as f32);
            }
        }
        table.end_token();
    }
    table.finish();
    table
}

fn shape(tokens: usize, hidden: usize, experts: usize, k: usize) -> RowsShape {
    RowsShape {
        tokens,
        hidden,
        experts,
        k,
    }
}

/// What the virtual GPU counts of each kernel.
fn counters(scale: Scale) {
    let shapes = match scale {
        Scale::Smoke => vec![shape(40, 64, 8, 2)],
        // Enough tokens that a warp takes as much of a row as on a large batch.
        _ => vec![
            shape(1088, 768, 64, 1),
            shape(1088, 768, 64, 2),
            shape(544, 2048, 64, 8),
            shape(160, 7168, 256, 8),
        ],
    };
    println!(
        "Virtual GPU, bf16 (T x E x k x H): counted, the same on every machine\n\
         {:<20} {:<16} {:>11} {:>11} {:>6} {:>9} {:>9} {:>6} {:>6} {:>9}",
        "operation",
        "shape",
        "moved",
        "needed",
        "ratio",
        "B/access",
        "sect/acc",
        "banks",
        "local",
        "warp inst"
    );
    let gpu = counting();
    for shape in shapes {
        count(&gpu, shape).expect("shapes agree");
    }
    println!("sort also fills its maps, and counts in tiles; its 3 launches are added up.\n");
}

fn count(gpu: &Gpu, shape: RowsShape) -> Result<()> {
    let mut on_device = OnDevice::new(gpu, &table(shape), shape, 1)?;
    for operation in Operation::ALL {
        gpu.take_launches();
        on_device.launch(operation, 0)?;
        on_device.stream.synchronize()?;
        let launches = gpu.take_launches();
        let sum = |of| sum(&launches, of);
        let (moved, needed) = (
            sum(LaunchCounters::moved_bytes),
            operation.needed_bytes(shape),
        );
        let accesses = sum(|c| c.global_instructions) as f64;
        println!(
            "{:<20} {:<16} {moved:>11} {needed:>11} {:>6.3} {:>9.0} {:>9.1} {:>6} {:>6} {:>9}",
            operation.name(),
            name(shape),
            moved as f64 / needed as f64,
            sum(|c| c.requested_bytes) as f64 / accesses,
            moved as f64 / 32.0 / accesses,
            sum(|c| c.bank_conflicts),
            sum(|c| c.local_sectors),
            sum(|c| c.warp_instructions),
        );
    }
    Ok(())
}

fn name(shape: RowsShape) -> String {
    format!(
        "{}x{}x{}x{}",
        shape.tokens, shape.experts, shape.k, shape.hidden
    )
}

/// Times on a CUDA device.
fn times(gpu: &Gpu) -> Result<()> {
    let copied = copy_rate(gpu)?;
    println!(
        "{}, bf16 (T x E x k x H): time by events, {LAUNCHES} launches; a copy on the device moves \
         {:.0} GB/s\n{:<20} {:<16} {:>10} {:>10} {:>9} {:>8}",
        gpu.facts().name,
        copied / 1e9,
        "operation",
        "shape",
        "median",
        "best",
        "GB/s",
        "of copy"
    );
    for shape in [
        shape(4096, 7168, 256, 8),
        shape(65_536, 1024, 16, 2),
        shape(65_536, 768, 64, 1),
        shape(64, 7168, 256, 8),
    ] {
        let bytes = 2 * shape.hidden * (shape.tokens + shape.assignments());
        let sets = sets_beyond_l2(gpu, 2 * bytes);
        let mut on_device = OnDevice::new(gpu, &table(shape), shape, sets)?;
        for operation in Operation::ALL {
            let stream = on_device.stream.clone();
            let seconds = timed(&stream, |set| on_device.launch(operation, set))?;
            let needed = operation.needed_bytes(shape) as f64;
            let rate = needed / median(&seconds);
            let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "{:<20} {:<16} {:>10} {:>10} {:>9.0} {:>7.0}%",
                operation.name(),
                name(shape),
                time(median(&seconds)),
                time(best),
                rate / 1e9,
                100.0 * rate / copied
            );
        }
    }
    println!();
    Ok(())
}
