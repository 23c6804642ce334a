//! What the kernels move, counted by the virtual GPU: each tensor once and little more, no bank
//! conflicts, no local memory.

mod common;

use common::device::{DeviceMatrix, OnDevice};
use half::bf16;
use tollgate_core::RoutingTable;
use tollgate_device::{Gpu, LaunchCounters, StatusBlock, Stream, VirtualOptions};
use tollgate_permute::gpu::{self, FreeRows};
use tollgate_testkit::Data;

/// Bytes moved over bytes needed at most.
const MOST: f64 = 1.03;

/// T, H: enough tokens that a warp takes four lines at a time, as on a large batch.
const SHAPES: [(usize, usize); 3] = [(1088, 768), (544, 2048), (160, 7168)];

const K: [usize; 3] = [1, 2, 8];

const EXPERTS: usize = 64;

/// k different experts for every token.
fn table(tokens: usize, k: usize) -> RoutingTable {
    let mut data = Data::new(3);
    let row = |first: usize| -> Vec<(i32, f32)> {
        let expert = |i: usize| ((first + 7 * i) % EXPERTS) as i32;
        (0..k).map(|i| (expert(i), 0.5 + i as f32)).collect()
    };
    let rows: Vec<_> = (0..tokens).map(|_| row(data.below(EXPERTS))).collect();
    RoutingTable::from_rows(EXPERTS, &rows).unwrap()
}

/// The counters of the only launch since the last call.
#[track_caller]
fn single(gpu: &Gpu, stream: &Stream) -> LaunchCounters {
    stream.synchronize().unwrap();
    let launches = gpu.take_launches();
    assert_eq!(launches.len(), 1, "{launches:?}");
    launches[0].counters
}

#[track_caller]
fn assert_tight(what: &str, counters: LaunchCounters, needed: usize) {
    let ratio = counters.moved_bytes() as f64 / needed as f64;
    println!(
        "{what}: moved {} needed {needed} ratio {ratio:.4}, {:.1} bytes an instruction",
        counters.moved_bytes(),
        counters.requested_bytes as f64 / counters.global_instructions as f64,
    );
    assert!(ratio <= MOST, "{what}: {ratio:.4} of the bytes needed");
    assert_eq!(counters.bank_conflicts, 0, "{what}: bank conflicts");
    assert_eq!(counters.local_sectors, 0, "{what}: local memory");
}

fn moves_little(tokens: usize, hidden: usize, k: usize) {
    // Counting needs no checks, and without them blocks run side by side.
    let gpu = Gpu::virtual_gpu(&VirtualOptions {
        checks: false,
        ..VirtualOptions::default()
    })
    .unwrap();
    let table = table(tokens, k);
    let a = table.num_assignments();
    let mut on_device = OnDevice::new(&gpu, &table, a, 1);
    on_device.sort().unwrap();
    on_device.stream.synchronize().unwrap();
    gpu.take_launches();
    let stream = on_device.stream.clone();
    let ones = vec![bf16::ONE; a * hidden];
    let x = DeviceMatrix::of(
        &gpu,
        &stream,
        &ones[..tokens * hidden],
        (tokens, hidden),
        0,
        0,
    );
    let rows = DeviceMatrix::of(&gpu, &stream, &ones, (a, hidden), 0, 0);
    let starts = vec![1f32; tokens * hidden];
    let addend = DeviceMatrix::of(&gpu, &stream, &starts, (tokens, hidden), 0, 0);
    let mut rows_out = DeviceMatrix::<bf16>::poisoned(&gpu, &stream, (a, hidden), 0, 0);
    let mut tokens_out = DeviceMatrix::<bf16>::poisoned(&gpu, &stream, (tokens, hidden), 0, 0);
    let mut dweights = gpu.alloc::<f32>(a).unwrap();
    let mut status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
    let what = |name: &str| format!("{name}, T {tokens}, H {hidden}, k {k}");
    let (t_bytes, a_bytes) = (2 * tokens * hidden, 2 * a * hidden);
    let offsets = 4 * (tokens + 1);

    let (table, maps) = on_device.table_and_maps();
    let (table, maps) = (&table, &maps);
    let out = rows_out.view_mut();
    let x = x.view();
    gpu::permute(
        &gpu,
        &stream,
        x,
        table,
        maps,
        out,
        FreeRows::Keep,
        status.slice_mut(),
    )
    .unwrap();
    let counters = single(&gpu, &stream);
    assert_tight(
        &what("permute"),
        counters,
        t_bytes + a_bytes + offsets + 4 * a,
    );

    let rows = rows.view();
    let out = tokens_out.view_mut();
    gpu::unpermute(&gpu, &stream, rows, table, maps, out, status.slice_mut()).unwrap();
    let counters = single(&gpu, &stream);
    assert_tight(
        &what("unpermute"),
        counters,
        t_bytes + a_bytes + offsets + 8 * a,
    );

    for addend in [None, Some(addend.view())] {
        let needed = t_bytes * if addend.is_some() { 3 } else { 1 } + a_bytes + offsets + 4 * a;
        let out = tokens_out.view_mut();
        let status = status.slice_mut();
        gpu::permute_backward(&gpu, &stream, rows, table, maps, addend, out, status).unwrap();
        assert_tight(&what("permute_backward"), single(&gpu, &stream), needed);
    }

    let (out, dots) = (rows_out.view_mut(), dweights.slice_mut());
    let block = status.slice_mut();
    gpu::unpermute_backward(&gpu, &stream, x, rows, table, maps, out, dots, block).unwrap();
    let needed = t_bytes + 2 * a_bytes + offsets + 12 * a;
    assert_tight(&what("unpermute_backward"), single(&gpu, &stream), needed);
    assert_eq!(status.read(&stream).unwrap(), [StatusBlock::CLEAR]);
}

#[test]
fn rows_are_moved_once() {
    for (tokens, hidden) in SHAPES {
        for k in K {
            moves_little(tokens, hidden, k);
        }
    }
}
