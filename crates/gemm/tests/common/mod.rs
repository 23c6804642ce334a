//! What the tests of this package share.
#![allow(dead_code, reason = "each test file uses its part")]

mod device;
pub mod memory;
pub mod network;

pub use device::Device;

use tollgate_core::options::Activation;
use tollgate_core::{DType, Element};
use tollgate_gemm::{ExpertShape, ExpertWeights};
use tollgate_testkit::{Case, Data, Tolerance, compare};

/// The CPU with one thread and with three, and all GPUs; the names go into failure messages.
pub fn implementations() -> Vec<(&'static str, Device)> {
    let mut all = vec![
        ("cpu, 1 thread", Device::cpu(1)),
        ("cpu, 3 threads", Device::cpu(3)),
    ];
    all.extend(gpus());
    all
}

/// The CPU with one thread, and all GPUs.
pub fn one_of_each() -> Vec<(&'static str, Device)> {
    let mut all = vec![("cpu, 1 thread", Device::cpu(1))];
    all.extend(gpus());
    all
}

/// All GPUs that tests run on.
pub fn gpus() -> Vec<(&'static str, Device)> {
    let devices = tollgate_device::testing::devices().iter();
    devices
        .map(|(name, gpu)| (name.as_str(), Device::Gpu(gpu.clone())))
        .collect()
}

/// Whether the CPU multiplies and adds in one rounding, as GPUs do: without it its bits are others.
pub fn cpu_is_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64")
}

/// Elements between two rows of every matrix.
pub const PAD: usize = 3;

pub fn f64s<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

pub fn abs(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// Panics unless every element is within the tolerance of its magnitude.
#[track_caller]
pub fn check<T: Element>(
    what: &str,
    actual: &[T],
    expected: &[f64],
    magnitude: &[f64],
    tolerance: Tolerance,
) {
    if let Err(mismatch) = compare(f64s(actual), expected, magnitude, tolerance) {
        panic!("{what}: {mismatch}");
    }
}

/// The groups of a case: the expert offsets of a table with at most two experts a token.
pub fn groups(case: &Case) -> (Vec<i32>, usize) {
    let offsets = case.routing_table(2).expert_offsets;
    let rows = offsets[offsets.len() - 1] as usize;
    (offsets, rows)
}

/// The experts of a case.
pub fn expert_shape(case: &Case, activation: Activation, gated: bool) -> ExpertShape {
    ExpertShape {
        experts: case.experts,
        hidden: case.hidden,
        intermediate: case.intermediate,
        activation,
        gated,
    }
}

/// Random weights of a shape, about of unit gain, with or without biases.
#[derive(Clone)]
pub struct Weights<T> {
    pub up: Vec<T>,
    pub up_bias: Option<Vec<T>>,
    pub down: Vec<T>,
    pub down_bias: Option<Vec<T>>,
}

impl<T: Element> Weights<T> {
    pub fn random(shape: &ExpertShape, bias: bool, data: &mut Data) -> Self {
        let (e, h, i) = (shape.experts, shape.hidden, shape.intermediate);
        let (h_gain, i_gain) = (1.0 / (h as f64).sqrt(), 1.0 / (i as f64).sqrt());
        let n1 = shape.up_rows();
        Self {
            up: data.normals(e * n1 * h, h_gain),
            up_bias: bias.then(|| data.normals(e * n1, 0.5)),
            down: data.normals(e * h * i, i_gain),
            down_bias: bias.then(|| data.normals(e * h, 0.5)),
        }
    }

    pub fn borrow(&self) -> ExpertWeights<'_, T> {
        ExpertWeights {
            up: &self.up,
            up_bias: self.up_bias.as_deref(),
            down: &self.down,
            down_bias: self.down_bias.as_deref(),
        }
    }

    pub fn to_f64(&self) -> Weights<f64> {
        Weights {
            up: f64s(&self.up),
            up_bias: self.up_bias.as_deref().map(f64s),
            down: f64s(&self.down),
            down_bias: self.down_bias.as_deref().map(f64s),
        }
    }
}

impl Weights<f64> {
    pub fn borrow64(&self) -> ExpertWeights<'_, f64> {
        ExpertWeights {
            up: &self.up,
            up_bias: self.up_bias.as_deref(),
            down: &self.down,
            down_bias: self.down_bias.as_deref(),
        }
    }

    /// The magnitudes, for error bounds.
    pub fn abs(&self) -> Self {
        Self {
            up: abs(&self.up),
            up_bias: self.up_bias.as_deref().map(abs),
            down: abs(&self.down),
            down_bias: self.down_bias.as_deref().map(abs),
        }
    }
}

/// The unit roundoff of f32, 2^-24.
pub fn u32_roundoff() -> f64 {
    DType::F32.unit_roundoff()
}
