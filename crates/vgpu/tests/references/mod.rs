//! What the kernels of `../kernels/` compute, in plain Rust that shares nothing with the virtual
//! GPU.
//!
//! Integers and everything else whose bits are defined are exact; the rest is f64, with the
//! tolerance told in `../kernels/README.md`. Matrices are row-major slices. bf16 is `half::bf16`,
//! fp8 is `u8` bits. The functions panic on shapes that do not fit: they are called by tests alone.

// Every test binary that includes this module uses a part of it.
#![allow(dead_code)]

mod fp8;
mod language;
mod philox;
mod product;
mod routing;
mod tensor;
mod warp;

pub use fp8::*;
pub use language::*;
pub use philox::*;
pub use product::*;
pub use routing::*;
pub use tensor::*;
pub use warp::*;

/// `block_scan_u32`: the inclusive prefix sums of each segment, and the sum of each.
pub fn segment_scan(values: &[u32], segment_len: usize) -> (Vec<u32>, Vec<u32>) {
    let mut scanned = Vec::with_capacity(values.len());
    let mut totals = Vec::new();
    for segment in values.chunks(segment_len) {
        let mut sum = 0u32;
        for &v in segment {
            sum = sum.wrapping_add(v);
            scanned.push(sum);
        }
        totals.push(sum);
    }
    (scanned, totals)
}

/// `named_barrier_sums`: the sum of squares of each segment, modulo 2^32.
pub fn segment_square_sums(values: &[u32], segment_len: usize) -> Vec<u32> {
    values
        .chunks(segment_len)
        .map(|segment| {
            segment
                .iter()
                .fold(0u32, |sum, v| sum.wrapping_add(v.wrapping_mul(*v)))
        })
        .collect()
}

/// `histogram_shared`, `histogram_match`: how often each key below `bins` occurs.
pub fn histogram(keys: &[u32], bins: usize) -> Vec<u32> {
    let mut counts = vec![0; bins];
    for &key in keys {
        if let Some(count) = counts.get_mut(key as usize) {
            *count += 1;
        }
    }
    counts
}

/// `transpose_f32`: `out[c, r] = values[r, c]`.
pub fn transpose<T: Copy>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    assert_eq!(values.len(), rows * cols);
    (0..cols * rows)
        .map(|i| values[i % rows * cols + i / rows])
        .collect()
}

/// `grid_barrier_stencil`: after `steps` steps of `y[i] = x[i - 1] + 3 x[i] + x[i + 1]` on a ring.
pub fn ring_stencil(values: &[u32], steps: usize) -> Vec<u32> {
    let n = values.len();
    let mut x = values.to_vec();
    for _ in 0..steps {
        x = (0..n)
            .map(|i| {
                let sides = x[(i + n - 1) % n].wrapping_add(x[(i + 1) % n]);
                sides.wrapping_add(x[i].wrapping_mul(3))
            })
            .collect();
    }
    x
}

/// `all_to_all`: the digest `[world, slot_words]` of `rank` after one launch, from what every rank
/// sends, `sends[r]` `[num_epochs, world, slot_words]`.
pub fn all_to_all_digest(
    sends: &[Vec<u32>],
    rank: usize,
    num_epochs: usize,
    slot_words: usize,
) -> Vec<u32> {
    let world = sends.len();
    let mut digest = vec![0u32; world * slot_words];
    for (source, send) in sends.iter().enumerate() {
        assert_eq!(send.len(), num_epochs * world * slot_words);
        for epoch in 0..num_epochs {
            for word in 0..slot_words {
                let sum = &mut digest[source * slot_words + word];
                *sum = sum.wrapping_add(send[(epoch * world + rank) * slot_words + word]);
            }
        }
    }
    digest
}

/// The three kernels of `cluster_reduce_sm90a`: the sum of each row, bit for bit, by clusters of
/// `CLUSTER` blocks of `THREADS`.
pub fn cluster_sums(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    const CLUSTER: usize = 4;
    const THREADS: usize = 128;
    assert_eq!(values.len(), rows * cols);

    // (0 + 1) + (2 + 3), of warps as of blocks.
    let of_four = |parts: [f32; 4]| (parts[0] + parts[1]) + (parts[2] + parts[3]);
    let of_warp = |row: &[f32], first_col: usize| {
        let mut lanes: [f32; 32] = std::array::from_fn(|lane| {
            row.iter()
                .skip(first_col + lane)
                .step_by(CLUSTER * THREADS)
                .fold(0.0, |sum, v| sum + v)
        });
        for offset in [16, 8, 4, 2, 1] {
            for lane in 0..offset {
                lanes[lane] += lanes[lane + offset];
            }
        }
        lanes[0]
    };
    (0..rows)
        .map(|r| {
            let row = &values[r * cols..(r + 1) * cols];
            of_four(std::array::from_fn(|block| {
                of_four(std::array::from_fn(|warp| {
                    of_warp(row, block * THREADS + warp * 32)
                }))
            }))
        })
        .collect()
}
