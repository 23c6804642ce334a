//! Threads are those of the given [`Cpu`]. This test has a process to itself: whoever touches
//! rayon's global pool anywhere in it starts that pool.

use tollgate_core::options::Activation;
use tollgate_core::{Cpu, RowView, RowViewMut};
use tollgate_gemm::{ExpertGrads, ExpertShape, ExpertWeights, Experts};

/// A forward and backward pass of two experts on `rows` rows, biases included.
fn pass(cpu: &Cpu, rows: usize, width: usize) {
    let shape = ExpertShape {
        experts: 2,
        hidden: width,
        intermediate: width,
        activation: Activation::Relu,
        gated: false,
    };
    let ones = vec![1f32; (rows * width).max(2 * width * width)];
    let weights = ExpertWeights {
        up: &ones[..2 * width * width],
        up_bias: Some(&ones[..2 * width]),
        down: &ones[..2 * width * width],
        down_bias: Some(&ones[..2 * width]),
    };
    let x = RowView::new(&ones, rows, width).unwrap();
    let offsets = [0, rows as i32 / 2, rows as i32];
    let [mut pre, mut act, mut y, mut dpre, mut dx] = [(); 5].map(|()| vec![0f32; rows * width]);
    fn out(data: &mut [f32], rows: usize, width: usize) -> RowViewMut<'_, f32> {
        RowViewMut::new(data, rows, width).unwrap()
    }
    let (pre, act) = (out(&mut pre, rows, width), out(&mut act, rows, width));
    cpu.up(&shape, &weights, x, &offsets, pre, act).unwrap();
    let y = out(&mut y, rows, width);
    cpu.down(&shape, &weights, x, &offsets, y).unwrap();

    let [mut up, mut down] = [(); 2].map(|()| vec![0f32; 2 * width * width]);
    let [mut up_bias, mut down_bias] = [(); 2].map(|()| vec![0f32; 2 * width]);
    let mut grads = ExpertGrads {
        up: &mut up,
        up_bias: Some(&mut up_bias),
        down: &mut down,
        down_bias: Some(&mut down_bias),
        accumulate: false,
    };
    let dpre = out(&mut dpre, rows, width);
    cpu.down_backward(&shape, &weights, x, x, x, &offsets, dpre, &mut grads)
        .unwrap();
    let dx = out(&mut dx, rows, width);
    cpu.up_backward(&shape, &weights, x, x, &offsets, dx, &mut grads)
        .unwrap();
    // Sums of ones: the rows of each expert.
    let (first, second) = ((rows / 2) as f32, (rows - rows / 2) as f32);
    for bias in [&up_bias, &down_bias] {
        assert!(bias[..width].iter().all(|&b| b == first));
        assert!(bias[width..].iter().all(|&b| b == second));
    }
}

#[test]
fn the_global_pool_is_never_started() {
    for threads in [1, 2] {
        let cpu = Cpu::new(threads).unwrap();
        // Inline, and large enough for threads; more columns than one range of a bias sum.
        pass(&cpu, 5, 300);
        pass(&cpu, 1200, 300);
    }
    let global = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global();
    assert!(global.is_ok(), "{global:?}");
}
