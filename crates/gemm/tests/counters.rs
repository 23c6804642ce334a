//! What the kernels move and execute, counted by the virtual GPU: whole sectors, sixteen bytes a
//! lane, no bank conflicts, no local memory, and mostly multiply-adds.

mod common;

use common::memory::{Input, Output, Place, Skewed, clear_status};
use half::{bf16, f16};
use tollgate_core::Element;
use tollgate_core::options::Activation;
use tollgate_device::{Gpu, LaunchCounters, Stream, VirtualOptions};
use tollgate_gemm::ExpertShape;
use tollgate_gemm::gpu::{DeviceExpertGrads, DeviceExpertWeights, DeviceStacked, Launcher};

const EXPERTS: usize = 2;
/// Rows: two whole tiles, one a group.
const M: usize = 256;
const HIDDEN: usize = 256;
const INTERMEDIATE: usize = 128;

/// A tile of a product, as `tollgate/gemm/tile.cuh` has it.
const TILE: (usize, usize) = (128, 64);

/// The counters of the launches since the last call.
#[track_caller]
fn counters<const N: usize>(gpu: &Gpu, stream: &Stream) -> [LaunchCounters; N] {
    stream.synchronize().unwrap();
    let launches = gpu.take_launches();
    let counters: Vec<_> = launches.iter().map(|launch| launch.counters).collect();
    counters.try_into().expect("as many launches")
}

/// A product of `[rows, depth]` by `[depth, cols]`: each tile reads its operands once.
#[track_caller]
fn assert_product<T: Element>(
    what: &str,
    c: LaunchCounters,
    (rows, cols, depth): (usize, usize, usize),
    least_share: f64,
) {
    let what = format!("{what} {}", T::DTYPE);
    let multiplications = (rows * cols * depth) as f64;
    let share = multiplications / c.thread_instructions as f64;
    let per_instruction = c.requested_bytes as f64 / c.global_instructions as f64;
    let tiles = rows.div_ceil(TILE.0) * cols.div_ceil(TILE.1);
    let operands = (tiles * (TILE.0 + TILE.1) * depth * size_of::<T>()) as f64;
    println!(
        "{what}: {share:.3} of the instructions multiply, {per_instruction:.0} bytes an access of \
         a warp, {} moved, {operands} of operands",
        c.moved_bytes()
    );
    assert_eq!(c.bank_conflicts, 0, "{what}: bank conflicts");
    assert_eq!(c.local_sectors, 0, "{what}: local memory");
    // 32 lanes of 16 bytes are 512. The offsets, and biases, are read by 4 bytes.
    assert!(per_instruction > 460.0, "{what}: {per_instruction} bytes");
    // No byte is moved that was not asked for, but around the offsets.
    let excess = c.moved_bytes() as f64 / c.requested_bytes as f64;
    assert!(excess < 1.02, "{what}: {excess} of the bytes asked for");
    assert!(c.read_bytes as f64 >= operands, "{what}: not all was read");
    assert!(share > least_share, "{what}: {share}");
}

fn count<T: Element>(least_share: f64) {
    // Counting needs no checks; the other tests have them.
    let options = VirtualOptions {
        checks: false,
        ..VirtualOptions::default()
    };
    let gpu = Gpu::virtual_gpu(&options).unwrap();
    let stream = gpu.default_stream();
    let shape = ExpertShape {
        experts: EXPERTS,
        hidden: HIDDEN,
        intermediate: INTERMEDIATE,
        activation: Activation::Silu,
        gated: true,
    };
    let (h, i, n1) = (HIDDEN, INTERMEDIATE, shape.up_rows());
    let ones = |len: usize| vec![T::from_f32(1.0); len];
    let input = |cols: usize| Input::new(&gpu, stream, &ones(M * cols), M, cols, Place::TIGHT);
    let output = |cols: usize| Output::<T>::new(&gpu, stream, M, cols, Place::TIGHT);
    let gradient = |len: usize| Output::<f32>::new(&gpu, stream, 1, len, Place::TIGHT);
    let [up, up_bias, down, down_bias] =
        [EXPERTS * n1 * h, EXPERTS * n1, EXPERTS * h * i, EXPERTS * h]
            .map(|len| Skewed::new(&gpu, stream, &ones(len), 0));
    let weights = DeviceExpertWeights {
        up: up.slice(),
        up_bias: Some(up_bias.slice()),
        down: down.slice(),
        down_bias: Some(down_bias.slice()),
    };
    let (x, pre, act, dy) = (input(h), input(n1), input(i), input(h));
    let [mut pre_out, mut act_out, mut y, mut dpre] = [n1, i, h, n1].map(output);
    let [mut dup, mut dup_bias, mut ddown, mut ddown_bias] =
        [EXPERTS * n1 * h, EXPERTS * n1, EXPERTS * h * i, EXPERTS * h].map(gradient);
    let offsets = gpu.upload(stream, &[0, M as i32 / 2, M as i32]).unwrap();
    let offsets = offsets.slice();
    let mut status = clear_status(&gpu, stream);
    let mut to = Launcher::new(&gpu, stream, status.slice_mut()).unwrap();
    stream.synchronize().unwrap();
    gpu.take_launches();

    let (x, dy) = (x.view(), dy.view());
    to.up(
        &shape,
        &weights,
        x,
        offsets,
        pre_out.view_mut(),
        act_out.view_mut(),
    )
    .unwrap();
    let [c] = counters(&gpu, stream);
    assert_product::<T>("experts_up", c, (M, n1, h), least_share);

    to.down(&shape, &weights, act.view(), offsets, y.view_mut())
        .unwrap();
    let [c] = counters(&gpu, stream);
    assert_product::<T>("m_grouped", c, (M, h, i), least_share);

    let mut grads = DeviceExpertGrads {
        up: dup.slice_mut(),
        up_bias: Some(dup_bias.slice_mut()),
        down: ddown.slice_mut(),
        down_bias: Some(ddown_bias.slice_mut()),
        accumulate: true,
    };
    let (pre, act) = (pre.view(), act.view());
    to.down_backward(
        &shape,
        &weights,
        pre,
        act,
        dy,
        offsets,
        dpre.view_mut(),
        &mut grads,
    )
    .unwrap();
    let [backward, wgrad, sums] = counters(&gpu, stream);
    assert_product::<T>("experts_down_backward", backward, (M, i, h), least_share);
    assert_product::<T>("k_grouped", wgrad, (h, i, M), least_share);
    // A sum reads A once, whole sectors of it, and adds once to what is there.
    let needed = M * h * size_of::<T>() + 2 * 4 * EXPERTS * h;
    let ratio = sums.moved_bytes() as f64 / needed as f64;
    assert!(ratio < 1.02, "column_sums {}: {ratio}", T::DTYPE);
    assert_eq!(sums.local_sectors, 0);

    let stacked = DeviceStacked {
        data: weights.down,
        experts: EXPERTS,
        n: h,
        k: i,
    };
    to.m_grouped_transposed(dy, stacked, offsets, act_out.view_mut())
        .unwrap();
    let [c] = counters(&gpu, stream);
    assert_product::<T>("m_grouped_transposed", c, (M, i, h), least_share);
}

#[test]
fn f32_kernels_move_and_execute_little() {
    count::<f32>(0.65);
}

#[test]
fn narrow_kernels_move_and_execute_little() {
    count::<bf16>(0.6);
    count::<f16>(0.6);
}
