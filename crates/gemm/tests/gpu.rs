//! The operations on device memory: any alignment, ragged groups, sizes that only the device knows,
//! bad offsets, graphs, schedules.

mod common;

use common::memory::{Input, Output, Place, Skewed, clear_status};
use common::network::{OnGpu, Problem};
use common::{Device, gpus};
use half::{bf16, f16};
use tollgate_core::options::Activation;
use tollgate_core::{Cpu, Element, RowView, RowViewMut};
use tollgate_device::{Faults, Gpu, StatusBlock, VirtualOptions};
use tollgate_gemm::gpu::{DeviceStacked, Launcher};
use tollgate_gemm::{ExpertShape, GroupedGemm, Stacked};
use tollgate_testkit::{Data, assert_same};

/// The GPUs themselves.
fn devices() -> Vec<(&'static str, Gpu)> {
    let all = gpus().into_iter().map(|(name, device)| match device {
        Device::Gpu(gpu) => (name, gpu),
        Device::Cpu(_) => unreachable!("only GPUs were asked for"),
    });
    all.collect()
}

/// All three products of small integers, whose sums are exact, against the CPU, at one place.
fn ragged_products<T: Element>(gpu: &Gpu, sizes: &[usize], (n, k): (usize, usize), place: Place) {
    let mut offsets = vec![0i32];
    for &size in sizes {
        offsets.push(offsets[offsets.len() - 1] + size as i32);
    }
    let (experts, m) = (sizes.len(), offsets[sizes.len()] as usize);
    // The buffers have room for more rows than there are.
    let bound = m + 40;
    let mut data = Data::new(5);
    let (x, dy): (Vec<T>, Vec<T>) = (data.integers(m * k, 2), data.integers(m * n, 2));
    let b: Vec<T> = data.integers(experts * n * k, 2);
    let bias: Vec<T> = data.integers(experts * n, 2);
    let what = format!("{} n {n} k {k} {place:?}", T::DTYPE);

    let cpu = Cpu::new(1).unwrap();
    let stacked = Stacked {
        data: &b,
        experts,
        n,
        k,
    };
    let (x_view, dy_view) = (
        RowView::new(&x, m, k).unwrap(),
        RowView::new(&dy, m, n).unwrap(),
    );
    let (mut d, mut dx) = (vec![T::NAN; m * n], vec![T::NAN; m * k]);
    let before: Vec<f32> = data.integers(experts * n * k, 5);
    let (mut w, mut w_more) = (vec![f32::NAN; experts * n * k], before.clone());
    let out = RowViewMut::new(&mut d, m, n).unwrap();
    cpu.m_grouped(x_view, stacked, Some(&bias), &offsets, out)
        .unwrap();
    let out = RowViewMut::new(&mut dx, m, k).unwrap();
    cpu.m_grouped_transposed(dy_view, stacked, &offsets, out)
        .unwrap();
    cpu.k_grouped(dy_view, x_view, &offsets, false, &mut w)
        .unwrap();
    cpu.k_grouped(dy_view, x_view, &offsets, true, &mut w_more)
        .unwrap();

    let stream = gpu.default_stream();
    let x = Input::new(gpu, stream, &x, bound, k, place);
    let dy = Input::new(gpu, stream, &dy, bound, n, place);
    let b = Skewed::new(gpu, stream, &b, place.start);
    let bias = Skewed::new(gpu, stream, &bias, place.start);
    let offsets = gpu.upload(stream, &offsets).unwrap();
    let mut d_out = Output::<T>::new(gpu, stream, bound, n, place);
    let mut dx_out = Output::<T>::new(gpu, stream, bound, k, place);
    let mut w_out = Output::<f32>::new(gpu, stream, 1, experts * n * k, place);
    let mut more = Skewed::new(gpu, stream, &before, place.start);
    let mut status = clear_status(gpu, stream);
    let mut launcher = Launcher::new(gpu, stream, status.slice_mut()).unwrap();
    let stacked = DeviceStacked {
        data: b.slice(),
        experts,
        n,
        k,
    };
    let offsets = offsets.slice();
    launcher
        .m_grouped(
            x.view(),
            stacked,
            Some(bias.slice()),
            offsets,
            d_out.view_mut(),
        )
        .unwrap();
    launcher
        .m_grouped_transposed(dy.view(), stacked, offsets, dx_out.view_mut())
        .unwrap();
    let w_view = w_out.slice_mut();
    launcher
        .k_grouped(dy.view(), x.view(), offsets, false, w_view)
        .unwrap();
    launcher
        .k_grouped(dy.view(), x.view(), offsets, true, more.slice_mut())
        .unwrap();
    assert_same(&what, &d_out.values(stream, &what, m), &d);
    assert_same(&what, &dx_out.values(stream, &what, m), &dx);
    assert_same(&what, &w_out.values(stream, &what, 1), &w);
    assert_same(&what, &more.read(stream), &w_more);
    assert_eq!(status.read(stream).unwrap(), [StatusBlock::CLEAR]);
}

fn every_place<T: Element>() {
    // 8 elements are 16 bytes of the narrow types: aligned, aligned with gaps, and not.
    let places = [
        Place::TIGHT,
        Place { start: 8, gap: 8 },
        Place { start: 1, gap: 0 },
        Place { start: 3, gap: 5 },
    ];
    for (_, gpu) in devices() {
        for place in places {
            ragged_products::<T>(&gpu, &[0, 1, 127, 0, 17, 129], (72, 40), place);
            ragged_products::<T>(&gpu, &[3, 0, 16], (65, 33), place);
        }
        ragged_products::<T>(&gpu, &[0, 0, 128, 0], (8, 16), Place::TIGHT);
        ragged_products::<T>(&gpu, &[1, 1, 1, 1, 1], (1, 1), Place::TIGHT);
        ragged_products::<T>(&gpu, &[0, 0], (5, 7), Place::TIGHT);
    }
}

#[test]
fn f32_at_every_place() {
    every_place::<f32>();
}

#[test]
fn f16_at_every_place() {
    every_place::<f16>();
}

#[test]
fn bf16_at_every_place() {
    every_place::<bf16>();
}

/// More groups than a warp has lanes, most of them empty.
#[test]
fn many_groups() {
    let sizes: Vec<usize> = (0..100)
        .map(|e| if e % 7 == 3 { e % 5 } else { 0 })
        .collect();
    for (_, gpu) in devices() {
        ragged_products::<f32>(&gpu, &sizes, (4, 8), Place::TIGHT);
    }
}

fn shape(gated: bool, activation: Activation) -> ExpertShape {
    ExpertShape {
        experts: 4,
        hidden: 24,
        intermediate: 40,
        activation,
        gated,
    }
}

/// The functions are the CPU's, operation by operation: so are the bits.
fn bits_are_the_cpu_s<T: Element>() {
    if !common::cpu_is_fused() {
        return;
    }
    let offsets = [0, 3, 3, 30, 49];
    for (name, gpu) in devices() {
        for &activation in Activation::ALL {
            for gated in [false, true] {
                for place in [Place::TIGHT, Place { start: 3, gap: 1 }] {
                    let problem = Problem::<T>::new(shape(gated, activation), 60);
                    let mut on_gpu = OnGpu::new(&problem, &gpu, &offsets, place);
                    on_gpu.launch(false).unwrap();
                    let what = format!("{name} {} {activation} gated {gated}", T::DTYPE);
                    on_gpu
                        .results(49)
                        .assert_same(&what, &problem.on_cpu(&offsets));
                    assert_eq!(on_gpu.faults(), 0, "{what}");
                }
            }
        }
    }
}

#[test]
fn f32_bits_are_the_cpu_s() {
    bits_are_the_cpu_s::<f32>();
}

#[test]
fn f16_bits_are_the_cpu_s() {
    bits_are_the_cpu_s::<f16>();
}

#[test]
fn bf16_bits_are_the_cpu_s() {
    bits_are_the_cpu_s::<bf16>();
}

/// Sums of several chains, whose ends are no multiples of what is in shared memory.
#[test]
fn long_sums_have_the_cpu_s_bits() {
    if !common::cpu_is_fused() {
        return;
    }
    for (_, gpu) in devices() {
        for k in [384, 385, 800, 1024] {
            let mut data = Data::new(k as u64);
            let (m, n) = (5, 9);
            let (a, b): (Vec<f32>, Vec<f32>) = (data.normals(m * k, 1.0), data.normals(n * k, 1.0));
            let stacked = |n, k| Stacked {
                data: &b[..],
                experts: 1,
                n,
                k,
            };
            let run = |device: &Device| {
                let [mut d, mut dx] = [m * n; 2].map(|len| vec![f32::NAN; len]);
                let mut w = vec![f32::NAN; m * n];
                let offsets = [0, m as i32];
                let rows = RowView::new(&a, m, k).unwrap();
                let out = RowViewMut::new(&mut d, m, n).unwrap();
                device
                    .m_grouped(rows, stacked(n, k), None, &offsets, out)
                    .unwrap();
                let out = RowViewMut::new(&mut dx, m, n).unwrap();
                device
                    .m_grouped_transposed(rows, stacked(k, n), &offsets, out)
                    .unwrap();
                let (a, b) = (
                    RowView::new(&a, k, m).unwrap(),
                    RowView::new(&b, k, n).unwrap(),
                );
                device
                    .k_grouped(a, b, &[0, k as i32], false, &mut w)
                    .unwrap();
                [d, dx, w]
            };
            let (on_gpu, on_cpu) = (run(&Device::Gpu(gpu.clone())), run(&Device::cpu(1)));
            for (gpu, cpu) in on_gpu.iter().zip(&on_cpu) {
                assert_same(&format!("k {k}"), gpu, cpu);
            }
        }
    }
}

/// Offsets that are no prefix sums within the bound raise the fault, and nothing is written.
#[test]
fn bad_offsets_raise_a_fault_and_write_nothing() {
    let bound = 60;
    for (name, gpu) in devices() {
        for offsets in [
            [1, 3, 3, 30, 49],
            [0, 30, 3, 30, 49],
            [0, 3, 3, 30, 61],
            [0, 3, 3, 61, 49],
            [-1, 3, 3, 30, 49],
            [0, -3, 3, 30, 49],
            [0, 3, 3, 30, -1],
            [0, i32::MAX, i32::MIN, 30, 49],
            [0, 0, 0, i32::MIN, i32::MAX],
            [0, 0, 0, 0, i32::MAX],
        ] {
            for accumulate in [false, true] {
                let problem = Problem::<f32>::new(shape(true, Activation::Silu), bound);
                let mut on_gpu = OnGpu::new(&problem, &gpu, &offsets, Place::TIGHT);
                on_gpu.launch(accumulate).unwrap();
                let what = format!("{name} {offsets:?}");
                assert_eq!(on_gpu.faults(), Faults::EXPERT_OFFSETS, "{what}");
                // Every tensor and gradient is all canaries: no row was written.
                for tensor in &on_gpu.tensors {
                    tensor.values(&on_gpu.stream, &what, 0);
                }
                for gradient in &on_gpu.gradients {
                    gradient.values(&on_gpu.stream, &what, 0);
                }
            }
        }
        // No groups, no rows.
        let stream = gpu.default_stream();
        let nothing = gpu.alloc::<f32>(0).unwrap();
        let none = DeviceStacked {
            data: nothing.slice(),
            experts: 0,
            n: 3,
            k: 2,
        };
        for (first, faults) in [(0, 0), (1, Faults::EXPERT_OFFSETS)] {
            let offsets = gpu.upload(stream, &[first]).unwrap();
            let mut status = clear_status(&gpu, stream);
            let x = Input::<f32>::new(&gpu, stream, &[], 0, 2, Place::TIGHT);
            let mut d = Output::<f32>::new(&gpu, stream, 0, 3, Place::TIGHT);
            let mut to = Launcher::new(&gpu, stream, status.slice_mut()).unwrap();
            to.m_grouped(x.view(), none, None, offsets.slice(), d.view_mut())
                .unwrap();
            assert_eq!(status.read(stream).unwrap()[0].faults, faults, "{name}");
        }
    }
}

/// A graph holds no sizes: with other offsets it computes other groups.
#[test]
fn a_captured_graph_follows_the_offsets() {
    if !common::cpu_is_fused() {
        return;
    }
    for (name, gpu) in devices() {
        let problem = Problem::<bf16>::new(shape(true, Activation::GeluTanh), 60);
        let first = [0, 3, 3, 30, 49];
        let mut on_gpu = OnGpu::new(&problem, &gpu, &first, Place { start: 8, gap: 8 });
        let stream = on_gpu.stream.clone();
        let graph = stream.capture(|_| on_gpu.launch(false)).unwrap();
        for offsets in [first, [0, 0, 1, 1, 17], [0, 20, 40, 60, 60], [0; 5]] {
            // Canaries again, in the same memory: the graph remembers addresses.
            for tensor in &mut on_gpu.tensors {
                tensor.clear(&stream);
            }
            for gradient in &mut on_gpu.gradients {
                gradient.clear(&stream);
            }
            stream.write(on_gpu.offsets.slice_mut(), &offsets).unwrap();
            graph.launch(&stream).unwrap();
            let what = format!("{name} {offsets:?}");
            on_gpu
                .results(offsets[4] as usize)
                .assert_same(&what, &problem.on_cpu(&offsets));
            assert_eq!(on_gpu.faults(), 0, "{what}");
        }
    }
}

/// No bit depends on the order in which warps and blocks run.
#[test]
fn fifty_schedules_give_the_same_bits() {
    let problem = Problem::<f16>::new(shape(true, Activation::Gelu), 25);
    let offsets = [0, 3, 3, 12, 21];
    let run = |seed| {
        let options = VirtualOptions {
            seed,
            ..VirtualOptions::default()
        };
        let gpu = Gpu::virtual_gpu(&options).unwrap();
        let mut on_gpu = OnGpu::new(&problem, &gpu, &offsets, Place::TIGHT);
        on_gpu.launch(false).unwrap();
        on_gpu.results(21)
    };
    let first = run(0);
    for seed in 1..50 {
        run(seed).assert_same(&format!("seed {seed}"), &first);
    }
}

/// What does not fit is an error before the launch.
#[test]
fn shapes_that_differ_are_errors() {
    for (_, gpu) in devices() {
        let stream = gpu.default_stream();
        let x = Input::<f32>::new(&gpu, stream, &[], 4, 3, Place::TIGHT);
        let wide = Input::<f32>::new(&gpu, stream, &[], 4, 5, Place::TIGHT);
        let b = gpu.alloc::<f32>(2 * 5 * 3).unwrap();
        let offsets = gpu.upload(stream, &[0, 2, 4]).unwrap();
        let mut d = Output::<f32>::new(&gpu, stream, 4, 5, Place::TIGHT);
        let mut status = clear_status(&gpu, stream);
        let mut none = gpu.alloc::<StatusBlock>(0).unwrap();
        let error = Launcher::new(&gpu, stream, none.slice_mut()).unwrap_err();
        assert!(error.to_string().contains("the status"), "{error}");

        let mut to = Launcher::new(&gpu, stream, status.slice_mut()).unwrap();
        let stacked = |experts, n, k| DeviceStacked {
            data: b.slice(),
            experts,
            n,
            k,
        };
        let offsets = offsets.slice();
        let short = offsets.part("offsets", 0, 2).unwrap();
        let bias = b.slice().part("bias", 0, 9).unwrap();
        let good = stacked(2, 5, 3);
        let mut error = |x: &Input<f32>, b, bias, offsets| {
            let error = to.m_grouped(x.view(), b, bias, offsets, d.view_mut());
            error.unwrap_err().to_string()
        };
        for (error, expected) in [
            (
                error(&wide, good, None, offsets),
                "columns of A (K) is 5, expected 3",
            ),
            (
                error(&x, stacked(2, 5, 4), None, offsets),
                "elements of B (E·N·K) is 30, expected 40",
            ),
            (
                error(&x, good, Some(bias), offsets),
                "elements of bias (E·N) is 9, expected 10",
            ),
            (
                error(&x, good, None, short),
                "entries of offsets (E+1) is 2, expected 3",
            ),
        ] {
            assert!(
                error.contains(expected),
                "'{error}' should contain '{expected}'"
            );
        }
        d.values(stream, "after errors", 0);
    }
}
