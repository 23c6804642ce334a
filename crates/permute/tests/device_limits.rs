//! The operations on device memory at their limits: far strides, and arguments that are refused.

mod common;

use common::device::{DeviceMatrix, OnDevice};
use common::expected::{Expected, case};
use half::bf16;
use tollgate_core::RoutingTable;
use tollgate_device::{Buffer, DeviceSliceMut, Gpu, StatusBlock, VirtualOptions};
use tollgate_permute::gpu::{self, FreeRows};
use tollgate_testkit::assert_same;

/// Two rows of every matrix, more than 2^32 bytes and 2^31 elements apart. Only the rows themselves
/// are memory: between them lies what was allocated and freed again, whose addresses the virtual
/// GPU never gives twice.
#[test]
fn offsets_have_64_bits() {
    let options = VirtualOptions {
        checks: false,
        ..VirtualOptions::default()
    };
    let gpu = &Gpu::virtual_gpu(&options).unwrap();
    let stream = gpu.stream().unwrap();
    let hidden = 40;
    let table = RoutingTable::from_rows(2, &[vec![(1, 0.5)], vec![(0, -2.0)]]).unwrap();
    let expected = Expected::<bf16>::of(&case(2, 2, hidden), table);
    // Five matrices, one behind the other: x, the experts' rows, and three outputs.
    let matrices = 5 * hidden;
    let first = gpu.alloc::<bf16>(matrices).unwrap();
    let ptr = |buffer: &Buffer<bf16>| buffer.slice().ptr().0;
    let mut second = gpu.alloc::<bf16>(matrices).unwrap();
    while ptr(&second) - ptr(&first) <= 1 << 32 {
        drop(gpu.alloc::<u8>(256 << 20).unwrap());
        second = gpu.alloc::<bf16>(matrices).unwrap();
    }
    let stride = (ptr(&second) - ptr(&first)) as usize / size_of::<bf16>();
    let raw = |index: usize| {
        let start = ptr(&first) + (index * hidden * size_of::<bf16>()) as u64;
        // SAFETY: the rows at both ends are allocated, nobody touches what lies between, and each
        // matrix is used by one launch at a time.
        unsafe { DeviceSliceMut::<bf16>::from_raw("matrix", start, stride + hidden) }.unwrap()
    };
    let view = |index| raw(index).rows("matrix", 2, hidden, stride).unwrap();
    for (index, values) in [(0, &expected.x), (1, &expected.rows)] {
        for (row, values) in values.chunks(hidden).enumerate() {
            let to = raw(index).part("row", row * stride, hidden).unwrap();
            stream.write(to, values).unwrap();
        }
    }
    let mut on_device = OnDevice::new(gpu, &expected.table, 2, 1);
    on_device.sort().unwrap();
    on_device.stream.synchronize().unwrap();
    let mut dweights = gpu.alloc::<f32>(2).unwrap();
    let mut status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
    {
        let (table, maps) = &on_device.table_and_maps();
        let (x, rows) = (view(0).into_rows(), view(1).into_rows());
        let all = FreeRows::ZeroAll;
        gpu::permute(
            gpu,
            &stream,
            x,
            table,
            maps,
            view(2),
            all,
            status.slice_mut(),
        )
        .unwrap();
        gpu::unpermute(gpu, &stream, rows, table, maps, view(3), status.slice_mut()).unwrap();
        let (out, dots, block) = (view(4), dweights.slice_mut(), status.slice_mut());
        gpu::unpermute_backward(gpu, &stream, x, rows, table, maps, out, dots, block).unwrap();
    }
    let read = |index: usize| -> Vec<bf16> {
        let row = |row| {
            raw(index)
                .into_slice()
                .part("row", row * stride, hidden)
                .unwrap()
        };
        [stream.read(row(0)).unwrap(), stream.read(row(1)).unwrap()].concat()
    };
    assert_same("permuted", &read(2), &expected.permuted);
    assert_same("y", &read(3), &expected.y);
    assert_same("drows", &read(4), &expected.drows);
    assert_same(
        "dweights",
        &dweights.read(&stream).unwrap(),
        &expected.dweights,
    );
    assert_eq!(status.read(&stream).unwrap(), [StatusBlock::CLEAR]);
}

#[test]
fn wrong_shapes_and_small_buffers_are_refused_before_a_launch() {
    // One of its own: others' launches are not counted.
    let gpu = &Gpu::virtual_gpu(&VirtualOptions::default()).unwrap();
    let case = case(10, 4, 8);
    let table = case.routing_table(2);
    let a = table.num_assignments();
    let mut on_device = OnDevice::new(gpu, &table, a, 1);
    on_device.sort().unwrap();
    let stream = on_device.stream.clone();
    stream.synchronize().unwrap();
    gpu.take_launches();
    let matrix = |rows, cols| DeviceMatrix::<f32>::poisoned(gpu, &stream, (rows, cols), 0, 0);
    let (x, rows) = (matrix(10, 8), matrix(a, 8));
    let (short, narrow) = (matrix(a - 1, 8), matrix(a, 7));
    let nine = matrix(9, 8);
    let (mut out, mut few) = (matrix(a, 8), matrix(a - 1, 8));
    let (mut y, mut slim) = (matrix(10, 8), matrix(10, 7));
    let mut status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
    let mut none = gpu.alloc::<StatusBlock>(0).unwrap();
    let mut dweights = gpu.alloc::<f32>(a).unwrap();
    let mut few_dweights = gpu.alloc::<f32>(a - 1).unwrap();
    let (table, maps) = &on_device.table_and_maps();
    let refused = |result: tollgate_device::Result<()>, expected: &str| {
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "'{error}' should say '{expected}'"
        );
    };
    let keep = FreeRows::Keep;
    let s = &stream;
    let (x, rows) = (x.view(), rows.view());
    refused(
        gpu::permute(
            gpu,
            s,
            nine.view(),
            table,
            maps,
            out.view_mut(),
            keep,
            status.slice_mut(),
        ),
        "rows of the token matrix (T) is 9, expected 10",
    );
    refused(
        gpu::permute(
            gpu,
            s,
            x,
            table,
            maps,
            few.view_mut(),
            keep,
            status.slice_mut(),
        ),
        "the permuted matrix, in rows, holds",
    );
    refused(
        gpu::permute(
            gpu,
            s,
            x,
            table,
            maps,
            out.view_mut(),
            keep,
            none.slice_mut(),
        ),
        "the status, in blocks, holds 0",
    );
    refused(
        gpu::unpermute(
            gpu,
            s,
            short.view(),
            table,
            maps,
            y.view_mut(),
            status.slice_mut(),
        ),
        "the permuted matrix, in rows, holds",
    );
    refused(
        gpu::unpermute(
            gpu,
            s,
            narrow.view(),
            table,
            maps,
            y.view_mut(),
            status.slice_mut(),
        ),
        "columns of the permuted matrix (H) is 7, expected 8",
    );
    let mut no_weights = *table;
    no_weights.routing_weights = table.routing_weights.part("weights", 0, a - 1).unwrap();
    refused(
        gpu::unpermute(
            gpu,
            s,
            rows,
            &no_weights,
            maps,
            y.view_mut(),
            status.slice_mut(),
        ),
        "routing_weights, in elements, holds",
    );
    let mut no_offsets = *table;
    no_offsets.token_offsets = table.token_offsets.part("offsets", 0, 10).unwrap();
    refused(
        gpu::unpermute(
            gpu,
            s,
            rows,
            &no_offsets,
            maps,
            y.view_mut(),
            status.slice_mut(),
        ),
        "token_offsets, in elements, holds 10, but 11 are needed",
    );
    let mut no_map = *maps;
    no_map.row_of_assignment = maps.row_of_assignment.part("map", 0, a - 1).unwrap();
    refused(
        gpu::unpermute(
            gpu,
            s,
            rows,
            table,
            &no_map,
            y.view_mut(),
            status.slice_mut(),
        ),
        "row_of_assignment, in elements, holds",
    );
    let start = Some(slim.view());
    let block = status.slice_mut();
    refused(
        gpu::permute_backward(gpu, s, rows, table, maps, start, y.view_mut(), block),
        "columns of the addend (H) is 7, expected 8",
    );
    refused(
        gpu::unpermute(
            gpu,
            s,
            rows,
            table,
            maps,
            slim.view_mut(),
            status.slice_mut(),
        ),
        "columns of the permuted matrix (H) is 8, expected 7",
    );
    let (drows, dots, block) = (few.view_mut(), dweights.slice_mut(), status.slice_mut());
    refused(
        gpu::unpermute_backward(gpu, s, x, rows, table, maps, drows, dots, block),
        "the gradient of the permuted matrix, in rows, holds",
    );
    let (drows, dots, block) = (out.view_mut(), few_dweights.slice_mut(), status.slice_mut());
    refused(
        gpu::unpermute_backward(gpu, s, x, rows, table, maps, drows, dots, block),
        "dweights, in elements, holds",
    );
    // SAFETY: refused before anybody uses it.
    let null = unsafe { DeviceSliceMut::<f32>::from_raw("dweights", 0, a) };
    refused(null.map(|_| ()), "dweights is 0x0: null");
    // SAFETY: as above.
    let odd = unsafe { DeviceSliceMut::<f32>::from_raw("dweights", 4098, a) };
    refused(odd.map(|_| ()), "must be a multiple of 4 bytes");
    stream.synchronize().unwrap();
    assert!(gpu.take_launches().is_empty());
}
