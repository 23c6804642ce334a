//! Scratch.
use half::bf16;
use tollgate_core::Element;
use tollgate_device::*;
use tollgate_gemm::gpu::*;
fn run<T: Element>(checks: bool) {
    let gpu = Gpu::virtual_gpu(&VirtualOptions {
        checks,
        ..Default::default()
    })
    .unwrap();
    let s = gpu.default_stream();
    let (m, n, k, e) = (512usize, 256usize, 512usize, 2usize);
    let ones = |len: usize| vec![T::from_f32(1.0); len];
    let a = gpu.upload(s, &ones(m * k)).unwrap();
    let b = gpu.upload(s, &ones(e * n * k)).unwrap();
    let dy = gpu.upload(s, &ones(m * n)).unwrap();
    let mut d = gpu.alloc::<T>(m * n).unwrap();
    let mut dx = gpu.alloc::<T>(m * k).unwrap();
    let mut w = gpu.alloc::<f32>(e * n * k).unwrap();
    let off = gpu.upload(s, &[0i32, 256, 512]).unwrap();
    let mut st = gpu.upload(s, &[StatusBlock::CLEAR]).unwrap();
    let mut l = Launcher::new(&gpu, s, st.slice_mut()).unwrap();
    let bs = DeviceStacked {
        data: b.slice(),
        experts: e,
        n,
        k,
    };
    for i in 0..4 {
        let t = std::time::Instant::now();
        match i {
            0 | 1 => l
                .m_grouped(
                    a.slice().rows("a", m, k, k).unwrap(),
                    bs,
                    None,
                    off.slice(),
                    d.slice_mut().rows("d", m, n, n).unwrap(),
                )
                .unwrap(),
            2 => l
                .m_grouped_transposed(
                    dy.slice().rows("a", m, n, n).unwrap(),
                    bs,
                    off.slice(),
                    dx.slice_mut().rows("d", m, k, k).unwrap(),
                )
                .unwrap(),
            _ => l
                .k_grouped(
                    dy.slice().rows("a", m, n, n).unwrap(),
                    a.slice().rows("a", m, k, k).unwrap(),
                    off.slice(),
                    false,
                    w.slice_mut(),
                )
                .unwrap(),
        }
        s.synchronize().unwrap();
        let dt = t.elapsed().as_secs_f64();
        let flop = 2.0 * (m * n * k) as f64;
        for r in gpu.take_launches() {
            let c = r.counters;
            println!(
                "{} checks {checks} {} {:.3} s {:.2} GFLOP/s fma share {:.3} thread inst/s {:.2e} {:?}",
                T::DTYPE,
                r.kernel,
                dt,
                flop / dt / 1e9,
                flop / 2.0 / c.thread_instructions as f64,
                c.thread_instructions as f64 / dt,
                c
            );
        }
    }
}
#[test]
fn perf() {
    run::<f32>(false);
    run::<bf16>(false);
}
