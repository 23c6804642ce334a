//! The operations on device memory that move rows: alignments, bounds, free rows, bad maps.

mod common;

use common::device::{DeviceMatrix, OnDevice};
use common::expected::{Expected, case};
use half::{bf16, f16};
use tollgate_core::Element;
use tollgate_device::testing::devices;
use tollgate_device::{Faults, Gpu, StatusBlock};
use tollgate_permute::gpu::{self, FreeRows};
use tollgate_permute::reference;
use tollgate_testkit::assert_same;

/// How matrices lie in memory: elements between rows, and beyond 16 bytes at the start.
#[derive(Debug, Clone, Copy)]
struct Lie {
    pad: usize,
    misalign: usize,
}

/// All operations on matrices that lie so, in the bits of the CPU; `spare` assignments are bound
/// but not used.
fn check<T: Element>(gpu: &Gpu, expected: &Expected<T>, hidden: usize, lie: Lie, spare: usize) {
    let Expected { table, .. } = expected;
    let (t, h, a) = (table.num_tokens(), hidden, table.num_assignments());
    let mut on_device = OnDevice::new(gpu, table, a + spare, 1);
    on_device.sort().unwrap();
    let stream = on_device.stream.clone();
    let Lie { pad, misalign } = lie;
    // Rows behind A are poison, and must stay it.
    let bound = a + spare;
    let behind = vec![T::NAN; spare * h];
    let with_spare = |values: &[T]| [values, &behind[..]].concat();
    let tokens = |values: &[T]| DeviceMatrix::of(gpu, &stream, values, (t, h), pad, misalign);
    let rows = |values: &[T]| DeviceMatrix::of(gpu, &stream, values, (bound, h), pad, misalign);
    let poison = vec![T::NAN; bound.max(t) * h];
    let (x, given) = (tokens(&expected.x), rows(&with_spare(&expected.rows)));
    let addend = DeviceMatrix::of(gpu, &stream, &expected.addend, (t, h), pad, misalign);
    let mut permuted = rows(&poison[..bound * h]);
    let mut drows = rows(&poison[..bound * h]);
    let (mut y, mut dx) = (tokens(&poison[..t * h]), tokens(&poison[..t * h]));
    let mut dweights = DeviceMatrix::<f32>::poisoned(gpu, &stream, (1, bound), 0, misalign);
    let mut status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
    {
        let (table, maps) = &on_device.table_and_maps();
        let (x, given) = (x.view(), given.view());
        let out = permuted.view_mut();
        let keep = FreeRows::Keep;
        gpu::permute(gpu, &stream, x, table, maps, out, keep, status.slice_mut()).unwrap();
        let out = y.view_mut();
        gpu::unpermute(gpu, &stream, given, table, maps, out, status.slice_mut()).unwrap();
        let (start, out) = (Some(addend.view()), dx.view_mut());
        let block = status.slice_mut();
        gpu::permute_backward(gpu, &stream, given, table, maps, start, out, block).unwrap();
        let (out, dots) = (drows.view_mut(), dweights.slice_mut());
        let block = status.slice_mut();
        gpu::unpermute_backward(gpu, &stream, x, given, table, maps, out, dots, block).unwrap();
    }
    assert_same(
        "permuted",
        &permuted.values("permuted"),
        &with_spare(&expected.permuted),
    );
    assert_same("y", &y.values("y"), &expected.y);
    assert_same("dx", &dx.values("dx"), &expected.dx);
    assert_same(
        "drows",
        &drows.values("drows"),
        &with_spare(&expected.drows),
    );
    let dots = dweights.values("dweights");
    assert_same("dweights", &dots[..a], &expected.dweights);
    assert!(dots[a..].iter().all(|d| d.is_nan()), "dweights behind A");
    assert_eq!(status.read(&stream).unwrap(), [StatusBlock::CLEAR]);
}

/// Rows of every length around pieces and lines, at every alignment: the same bits.
#[test]
fn any_length_and_alignment_gives_the_bits_of_the_cpu() {
    fn of_type<T: Element>(gpu: &Gpu, lengths: &[usize]) {
        let columns = 16 / size_of::<T>();
        for (i, &hidden) in lengths.iter().enumerate() {
            let expected = Expected::<T>::new(&case(11, 4, hidden), 3);
            for (pad, misalign) in [(0, 0), (columns, 0), (0, columns / 2), (1, 0), (3, 1)] {
                check(gpu, &expected, hidden, Lie { pad, misalign }, i % 3);
            }
        }
    }
    for (_, gpu) in devices() {
        of_type::<f32>(gpu, &[1, 4, 31, 128, 132, 516]);
        of_type::<f16>(gpu, &[2, 8, 65, 256, 264, 1032]);
        of_type::<bf16>(gpu, &[1, 8, 130, 248, 512, 1288]);
    }
}

/// More assignments a token than lanes or warps, and tokens without any.
#[test]
fn many_and_no_experts_a_token_are_summed_in_order() {
    for (_, gpu) in devices() {
        for (tokens, experts, max_k) in [(5, 80, 70), (40, 9, 9), (300, 16, 2), (1, 3, 3)] {
            let expected = Expected::<bf16>::new(&case(tokens, experts, 64), max_k);
            let lie = Lie {
                pad: 0,
                misalign: 0,
            };
            check(gpu, &expected, 64, lie, 2);
        }
    }
}

#[test]
fn rows_without_a_token_are_zeroed_where_asked() {
    fn of_type<T: Element>(gpu: &Gpu, hidden: usize, pad: usize) {
        let case = case(30, 7, hidden);
        let table = case.routing_table(3);
        let mut on_device = OnDevice::new(gpu, &table, table.num_assignments() + 40, 8);
        on_device.sort().unwrap();
        let stream = on_device.stream.clone();
        let maps = reference::sort_aligned(&table, 8).unwrap();
        let (used, bound) = (maps.token_of_row.len(), on_device.plan.max_rows());
        assert!(used < bound);
        let values: Vec<T> = case.data(1).normals(30 * hidden, 1.0);
        let x = DeviceMatrix::of(gpu, &stream, &values, (30, hidden), pad, 0);
        for free_rows in [FreeRows::Keep, FreeRows::ZeroBetween, FreeRows::ZeroAll] {
            let mut rows = DeviceMatrix::<T>::poisoned(gpu, &stream, (bound, hidden), pad, 0);
            let mut status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
            let (table, maps_here) = &on_device.table_and_maps();
            let (out, block) = (rows.view_mut(), status.slice_mut());
            gpu::permute(
                gpu,
                &stream,
                x.view(),
                table,
                maps_here,
                out,
                free_rows,
                block,
            )
            .unwrap();
            let rows = rows.values("rows");
            for (row, actual) in rows.chunks(hidden).enumerate() {
                let zeroed = match free_rows {
                    FreeRows::Keep => false,
                    FreeRows::ZeroBetween => row < used,
                    FreeRows::ZeroAll => true,
                };
                let free = if zeroed { T::default() } else { T::NAN };
                match maps.token_of_row.get(row) {
                    Some(&token) if token >= 0 => {
                        let token = token as usize;
                        let expected = &values[token * hidden..(token + 1) * hidden];
                        assert_same("row of a token", actual, expected);
                    }
                    _ => assert_same("row without a token", actual, &vec![free; hidden]),
                }
            }
            assert_eq!(status.read(&stream).unwrap(), [StatusBlock::CLEAR]);
        }
    }
    for (_, gpu) in devices() {
        of_type::<f32>(gpu, 12, 0);
        of_type::<bf16>(gpu, 300, 0);
        of_type::<f16>(gpu, 13, 2);
    }
}

/// One operation at a time on maps or offsets that were spoilt on the device: the fault is raised,
/// with the lowest position, and the canaries hold.
#[test]
fn spoilt_maps_and_offsets_are_faults_and_nothing_is_written_outside() {
    let (tokens, hidden) = (40, 24);
    let case = case(tokens, 6, hidden);
    let table = case.routing_table(3);
    let a = table.num_assignments();
    let first_of = |token: usize| table.token_offsets[token] as u32;
    assert!(first_of(20) > 7 && a > 30);
    type Spoil<'a> = Box<dyn Fn(&mut OnDevice) + 'a>;
    let map_entry = |position: usize, value: i32| -> Spoil<'_> {
        Box::new(move |d: &mut OnDevice| d.write_row_of_assignment(position, value))
    };
    let offset = |token: usize, value: i32| -> Spoil<'_> {
        let mut offsets = table.token_offsets.clone();
        offsets[token] = value;
        Box::new(move |d: &mut OnDevice| d.token_offsets.write(&d.stream, &offsets).unwrap())
    };
    let cases: [(Spoil<'_>, u32, u32); 7] = [
        (map_entry(7, -1), Faults::MAP_INDEX, 7),
        (map_entry(30, a as i32), Faults::MAP_INDEX, 30),
        (map_entry(0, i32::MAX), Faults::MAP_INDEX, 0),
        (map_entry(a - 1, i32::MIN), Faults::MAP_INDEX, a as u32 - 1),
        (offset(20, -3), Faults::TOKEN_OFFSETS, 19),
        (offset(40, a as i32 + 1), Faults::TOKEN_OFFSETS, 39),
        (offset(11, i32::MAX), Faults::TOKEN_OFFSETS, 10),
    ];
    for (_, gpu) in devices() {
        for (spoil, faults, position) in &cases {
            for operation in 0..4 {
                let mut on_device = OnDevice::new(gpu, &table, a, 1);
                on_device.sort().unwrap();
                spoil(&mut on_device);
                let stream = on_device.stream.clone();
                let ones = vec![bf16::ONE; a.max(tokens) * hidden];
                let given = |rows: usize| {
                    let values = &ones[..rows * hidden];
                    DeviceMatrix::of(gpu, &stream, values, (rows, hidden), 0, 0)
                };
                let out = |rows: usize| {
                    DeviceMatrix::<bf16>::poisoned(gpu, &stream, (rows, hidden), 0, 0)
                };
                let (x, rows) = (given(tokens), given(a));
                let (mut tokens_out, mut rows_out) = (out(tokens), out(a));
                let mut dweights = DeviceMatrix::<f32>::poisoned(gpu, &stream, (1, a), 0, 0);
                let mut status = gpu.upload(&stream, &[StatusBlock::CLEAR]).unwrap();
                {
                    let (table, maps) = &on_device.table_and_maps();
                    let (x, rows, block) = (x.view(), rows.view(), status.slice_mut());
                    let (t_out, r_out) = (tokens_out.view_mut(), rows_out.view_mut());
                    let keep = FreeRows::Keep;
                    match operation {
                        0 => gpu::permute(gpu, &stream, x, table, maps, r_out, keep, block),
                        1 => gpu::unpermute(gpu, &stream, rows, table, maps, t_out, block),
                        2 => gpu::permute_backward(
                            gpu, &stream, rows, table, maps, None, t_out, block,
                        ),
                        _ => {
                            let dots = dweights.slice_mut();
                            gpu::unpermute_backward(
                                gpu, &stream, x, rows, table, maps, r_out, dots, block,
                            )
                        }
                    }
                    .unwrap();
                }
                // The virtual GPU finds accesses outside; the canaries tell everywhere.
                tokens_out.values("tokens");
                rows_out.values("rows");
                dweights.values("dweights");
                let raised = status.read(&stream).unwrap()[0];
                assert_eq!(raised.faults, *faults, "operation {operation}");
                assert_eq!(raised.first_bad_index, *position, "operation {operation}");
            }
        }
    }
}
