//! The whole chain on device memory: the same bits under any schedule, and captured once, replayed
//! with other tables.

mod common;

use common::device::{DeviceMatrix, OnDevice};
use common::sorted;
use half::bf16;
use tollgate_core::{Cpu, RoutingTable, RowView, RowViewMut};
use tollgate_device::testing::devices;
use tollgate_device::{Error, Gpu, StatusBlock, VirtualOptions};
use tollgate_permute::Permute;
use tollgate_permute::gpu::{self, FreeRows};
use tollgate_testkit::{Case, Data, LogitKind, assert_same};

const TOKENS: usize = 45;
const EXPERTS: usize = 5;
const HIDDEN: usize = 48;
const MAX_K: usize = 3;
/// The bound of A.
const BOUND: usize = TOKENS * MAX_K;

/// Tables of one shape with different numbers of assignments.
fn table(seed: u64, max_k: usize) -> RoutingTable {
    let case = Case {
        name: "chain",
        tokens: TOKENS,
        experts: EXPERTS,
        hidden: HIDDEN,
        intermediate: 1,
        logits: LogitKind::Random,
        seed,
    };
    case.routing_table(max_k)
}

/// sort → permute → unpermute, and backward; the rows are the experts' output as they are.
struct Chain {
    on_device: OnDevice,
    x: DeviceMatrix<bf16>,
    rows: DeviceMatrix<bf16>,
    y: DeviceMatrix<bf16>,
    drows: DeviceMatrix<bf16>,
    dweights: DeviceMatrix<f32>,
    dx: DeviceMatrix<bf16>,
    status: tollgate_device::Buffer<StatusBlock>,
}

/// What comes out of it: the results of the tokens, and the gradients of the A weights.
#[derive(Debug, PartialEq)]
struct Outputs {
    y: Vec<bf16>,
    dx: Vec<bf16>,
    dweights: Vec<f32>,
}

fn x() -> Vec<bf16> {
    Data::new(9).normals(TOKENS * HIDDEN, 1.0)
}

impl Chain {
    fn new(gpu: &Gpu, table: &RoutingTable) -> Self {
        let on_device = OnDevice::new(gpu, table, BOUND, 4);
        let stream = &on_device.stream;
        let rows = on_device.plan.max_rows();
        let tokens = || DeviceMatrix::poisoned(gpu, stream, (TOKENS, HIDDEN), 0, 0);
        let of_rows = || DeviceMatrix::poisoned(gpu, stream, (rows, HIDDEN), 8, 0);
        Self {
            x: DeviceMatrix::of(gpu, stream, &x(), (TOKENS, HIDDEN), 0, 0),
            rows: of_rows(),
            y: tokens(),
            drows: of_rows(),
            dweights: DeviceMatrix::poisoned(gpu, stream, (1, BOUND), 0, 0),
            dx: tokens(),
            status: gpu.upload(stream, &[StatusBlock::CLEAR]).unwrap(),
            on_device,
        }
    }

    /// Puts all of it into the stream.
    fn run(&mut self) -> Result<(), Error> {
        self.on_device.sort()?;
        let (gpu, stream) = (self.on_device.gpu.clone(), self.on_device.stream.clone());
        let (gpu, stream, status) = (&gpu, &stream, &mut self.status);
        let (table, maps) = &self.on_device.table_and_maps();
        let (x, zero) = (self.x.view(), FreeRows::ZeroBetween);
        let (out, block) = (self.rows.view_mut(), status.slice_mut());
        gpu::permute(gpu, stream, x, table, maps, out, zero, block)?;
        let (rows, y) = (self.rows.view(), self.y.view_mut());
        gpu::unpermute(gpu, stream, rows, table, maps, y, status.slice_mut())?;
        let (dy, out, dots) = (
            self.y.view(),
            self.drows.view_mut(),
            self.dweights.slice_mut(),
        );
        let block = status.slice_mut();
        gpu::unpermute_backward(gpu, stream, dy, rows, table, maps, out, dots, block)?;
        let (drows, dx, block) = (self.drows.view(), self.dx.view_mut(), status.slice_mut());
        gpu::permute_backward(gpu, stream, drows, table, maps, None, dx, block)
    }

    fn outputs(&mut self, assignments: usize) -> Outputs {
        self.on_device.assert_no_fault();
        let status = self.status.read(&self.on_device.stream).unwrap();
        assert_eq!(status, [StatusBlock::CLEAR]);
        self.rows.values("rows");
        self.drows.values("drows");
        let mut dweights = self.dweights.values("dweights");
        dweights.truncate(assignments);
        Outputs {
            y: self.y.values("y"),
            dx: self.dx.values("dx"),
            dweights,
        }
    }
}

fn on_cpu(table: &RoutingTable) -> Outputs {
    let cpu = Cpu::new(1).unwrap();
    let maps = sorted(table);
    let a = table.num_assignments();
    let x = x();
    let x = RowView::new(&x, TOKENS, HIDDEN).unwrap();
    let (mut rows, mut drows) = (vec![bf16::ZERO; a * HIDDEN], vec![bf16::ZERO; a * HIDDEN]);
    let (mut y, mut dx) = (
        vec![bf16::ZERO; TOKENS * HIDDEN],
        vec![bf16::ZERO; TOKENS * HIDDEN],
    );
    let mut dweights = vec![0.0; a];
    let out = RowViewMut::new(&mut rows, a, HIDDEN).unwrap();
    cpu.permute(x, &maps, out).unwrap();
    let rows = RowView::new(&rows, a, HIDDEN).unwrap();
    let out = RowViewMut::new(&mut y, TOKENS, HIDDEN).unwrap();
    cpu.unpermute(rows, table, &maps, out).unwrap();
    let dy = RowView::new(&y, TOKENS, HIDDEN).unwrap();
    let out = RowViewMut::new(&mut drows, a, HIDDEN).unwrap();
    cpu.unpermute_backward(dy, rows, table, &maps, out, &mut dweights)
        .unwrap();
    let drows = RowView::new(&drows, a, HIDDEN).unwrap();
    let out = RowViewMut::new(&mut dx, TOKENS, HIDDEN).unwrap();
    cpu.permute_backward(drows, table, &maps, None, out)
        .unwrap();
    Outputs { y, dx, dweights }
}

#[track_caller]
fn assert_outputs(actual: &Outputs, expected: &Outputs) {
    assert_same("y", &actual.y, &expected.y);
    assert_same("dx", &actual.dx, &expected.dx);
    assert_same("dweights", &actual.dweights, &expected.dweights);
}

#[test]
fn fifty_schedules_give_the_same_bits() {
    let table = table(1, MAX_K);
    let expected = on_cpu(&table);
    for seed in 0..50 {
        let gpu = Gpu::virtual_gpu(&VirtualOptions {
            seed,
            ..VirtualOptions::default()
        });
        let mut chain = Chain::new(&gpu.unwrap(), &table);
        chain.run().unwrap();
        assert_outputs(&chain.outputs(table.num_assignments()), &expected);
    }
}

#[test]
fn a_captured_chain_follows_whatever_table_lies_there() {
    let tables = [
        table(1, 2),
        table(2, MAX_K),
        table(3, 1),
        table(4, 0),
        table(5, MAX_K),
    ];
    let sizes = tables.each_ref().map(RoutingTable::num_assignments);
    assert!(sizes.iter().any(|&a| a > sizes[0]) && sizes[3] == 0);
    for (_, gpu) in devices() {
        let mut chain = Chain::new(gpu, &tables[0]);
        let stream = chain.on_device.stream.clone();
        let graph = stream.capture(|_| chain.run()).unwrap();
        for table in &tables {
            chain.on_device.write(table);
            graph.launch(&stream).unwrap();
            let outputs = chain.outputs(table.num_assignments());
            assert_outputs(&outputs, &on_cpu(table));
        }
    }
}
