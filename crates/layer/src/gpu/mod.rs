//! The layer on a GPU, over the buffers of a framework.
//!
//! [`DeviceLayer`] plans one layer for a number of tokens: it says how many bytes of state and of
//! workspace a pass needs, and puts passes into a stream. The caller owns all memory. A pass
//! allocates nothing, waits for nothing and reads no size back, because sizes that follow from the
//! routing stay on the device: buffers are sized by the most assignments that there can be. So
//! forward and backward can be captured as one graph, which is replayed with the next step's draws
//! by writing another [`StepBlock`].
//!
//! ```
//! # #[cfg(feature = "virtual")]
//! # fn main() -> Result<(), tollgate::Error> {
//! use tollgate::device::{DeviceSpec, Gpu};
//! use tollgate::gemm::gpu::DeviceExpertWeights;
//! use tollgate::gpu::{DeviceLayer, DeviceLayerInputs, DeviceLayerWeights, step_block};
//! use tollgate::{MoeLayer, StepContext};
//!
//! let (t, h, i, e) = (3, 4, 8, 2);
//! let gpu = Gpu::open(DeviceSpec::Virtual)?;
//! let stream = gpu.stream()?;
//! let layer = MoeLayer::builder(h, i, e).build(gpu.clone())?;
//! let layer = DeviceLayer::<f32>::new(&layer, t, true)?;
//!
//! // A framework brings its own memory: DeviceSlice::from_raw.
//! let mut memory = gpu.alloc(layer.state_bytes())?;
//! let mut workspace = gpu.alloc(layer.workspace_bytes())?;
//! let x = gpu.upload(&stream, &vec![0.5; t * h])?;
//! let step = gpu.upload(&stream, &[step_block(&StepContext::default())])?;
//! let router = gpu.upload(&stream, &vec![0.1; e * h])?;
//! let up = gpu.upload(&stream, &vec![0.2; e * i * h])?;
//! let down = gpu.upload(&stream, &vec![0.3; e * h * i])?;
//! let mut y = gpu.alloc::<f32>(t * h)?;
//!
//! let mut state = layer.state(&stream, memory.slice_mut())?;
//! let inputs = DeviceLayerInputs {
//!     x: x.slice().rows("x", t, h, h)?,
//!     token_ids: None,
//!     hash_table: None,
//!     sequence_offsets: None,
//!     step: step.slice(),
//! };
//! let weights = DeviceLayerWeights {
//!     router: Some(router.slice()),
//!     router_noise: None,
//!     selection_bias: None,
//!     experts: DeviceExpertWeights::new(up.slice(), down.slice()),
//! };
//! let rows = y.slice_mut().rows("y", t, h, h)?;
//! layer.forward(&stream, &inputs, &weights, rows, &mut state, workspace.slice_mut())?;
//! stream.synchronize()?;
//! assert!(y.read(&stream)?.iter().all(|v| v.is_finite()));
//! assert_eq!(state.download(&stream)?.gate.table.num_tokens(), t);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "virtual"))]
//! # fn main() {}
//! ```
//!
//! The other form of the layer on a GPU is [`MoeLayer`](crate::MoeLayer) over a
//! [`Gpu`](tollgate_device::Gpu): host slices in and out, the same call as on the CPU. It copies
//! everything to and fro, and is there for tests and tools.

mod backward;
mod forward;
mod observer;
mod plan;
mod state;
mod tensors;
mod transfer;

use tollgate_core::StepContext;
use tollgate_device::StepBlock;

pub use observer::Observer;
pub use plan::DeviceLayer;
pub use state::DeviceLayerState;
pub use tensors::{DeviceLayerGrads, DeviceLayerInputs, DeviceLayerWeights};
pub use transfer::DeviceStep;

/// Where in training a step stands, as kernels read it. Whether it is training is part of the plan.
pub fn step_block(ctx: &StepContext) -> StepBlock {
    StepBlock {
        seed: ctx.seed,
        layer: ctx.layer,
        step: ctx.step,
        pass: ctx.pass,
        first_token: ctx.first_token,
    }
}
