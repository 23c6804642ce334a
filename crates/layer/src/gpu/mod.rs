//! The layer on a GPU, over the buffers of a framework.
//!
//! [`DeviceLayer`] plans one layer for a number of tokens: it says how many bytes of state and of
//! workspace a pass needs, and puts passes into a stream. The caller owns all memory. A pass
//! allocates nothing, waits for nothing and reads no size back, because sizes that follow from the
//! routing stay on the device: buffers are sized by the most assignments that there can be. So
//! forward and backward can be captured as one graph, which is replayed with the next step's draws
//! by writing another [`StepBlock`].
//!
//! ```text
//! let layer = DeviceLayer::<bf16>::new(&moe_layer, tokens, training)?;
//! let state = layer.state(&stream, state_memory)?;           // layer.state_bytes()
//! layer.forward(&stream, &inputs, &weights, y, &mut state, workspace)?;
//! layer.backward(&stream, &inputs, &weights, dy, &mut state, &mut grads, workspace)?;
//! stream.synchronize()?;
//! let step = state.download(&stream)?;                       // for reports and tests
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
