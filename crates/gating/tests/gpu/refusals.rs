//! What is refused, with value and bound, before anything is launched.

use tollgate_core::options::GateOptions;
use tollgate_core::{Router, StepContext};
use tollgate_device::testing::devices;
use tollgate_device::{Gpu, StepBlock};
use tollgate_gating::gpu::{self, DeviceGateInputs, DeviceGateState, GatePlan};

use crate::memory::step_block;

const T: usize = 6;
const E: usize = 8;

fn plan(router: &str) -> GatePlan {
    GatePlan::new(
        &GateOptions::new(router.parse().unwrap()),
        T,
        E,
        true,
        false,
    )
    .unwrap()
}

#[test]
fn options_and_sizes_are_checked_by_the_plan() {
    let refused = |router: &str, t: usize, e: usize| {
        GatePlan::new(
            &GateOptions::new(router.parse().unwrap()),
            t,
            e,
            true,
            false,
        )
        .unwrap_err()
        .to_string()
    };
    assert_eq!(refused("topk:9", 4, 8), "k is 9, must be in 1..=8");
    assert_eq!(
        refused("top1", 4, 8193),
        "experts (E) of a gate on a GPU is 8193, must be in 1..=8192"
    );
    assert!(refused("grouped:2:4096:2", 4, 8192).starts_with("words of shared memory"));
    assert!(refused("topk:8", 1 << 30, 8).starts_with("assignments (T·k)"));
    assert!(GatePlan::new(&GateOptions::new(Router::Hash), 4, 100_000, true, false).is_ok());
}

/// A call with everything in place but what `spoil` changes; returns the error.
fn refused(
    gpu: &Gpu,
    plan: &GatePlan,
    state_of: &GatePlan,
    workspace_bytes: usize,
    spoil: impl FnOnce(&mut DeviceGateInputs<'_>),
) -> String {
    let stream = gpu.default_stream();
    let logits = gpu.upload(stream, &[0f32; T * E]).unwrap();
    let step: [StepBlock; 1] = [step_block(&StepContext::default())];
    let step = gpu.upload(stream, &step).unwrap();
    let mut memory = gpu.alloc::<u8>(state_of.state_bytes()).unwrap();
    let mut workspace = gpu.alloc::<u8>(workspace_bytes).unwrap();
    let mut state = DeviceGateState::new(state_of, memory.slice_mut()).unwrap();
    let rows = logits.slice().rows("logits", T, E, E).unwrap();
    let mut inputs = DeviceGateInputs::new(rows, step.slice());
    spoil(&mut inputs);
    let workspace = workspace.slice_mut();
    gpu::gate(gpu, stream, plan, &inputs, &mut state, workspace)
        .unwrap_err()
        .to_string()
}

#[test]
fn inputs_states_and_workspaces_are_checked_before_anything_is_launched() {
    let of = plan("top2");
    let bytes = of.workspace_bytes();
    for (_, gpu) in devices() {
        gpu.default_stream().synchronize().unwrap();
        let error = refused(gpu, &of, &of, bytes, |inputs| inputs.logits = None);
        assert_eq!(
            error,
            "logits is required by router top2, but was not given"
        );
        let error = refused(gpu, &of, &of, bytes, |inputs| inputs.num_tokens = T + 1);
        assert_eq!(error, "tokens (T) of the inputs is 7, expected 6");
        let error = refused(gpu, &of, &of, bytes, |inputs| {
            inputs.local_experts = 3..E + 1
        });
        assert_eq!(error, "end of local_experts is 9, must be in 0..=8");
        let noisy = plan("noisy:2");
        let error = refused(gpu, &noisy, &noisy, noisy.workspace_bytes(), |_| {});
        assert!(error.starts_with("noise_logits is required"), "{error}");
        let hash = plan("hash");
        let error = refused(gpu, &hash, &hash, hash.workspace_bytes(), |_| {});
        assert!(error.starts_with("token_ids is required"), "{error}");
        let error = refused(gpu, &of, &plan("top1"), bytes, |_| {});
        assert!(error.starts_with("the state cannot be combined"), "{error}");
        let error = refused(gpu, &of, &of, bytes - 1, |_| {});
        let expected = format!("the workspace, in bytes, holds {} elements", bytes - 1);
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_state_too_small_is_refused() {
    let plan = plan("top2");
    for (_, gpu) in devices() {
        let mut memory = gpu.alloc::<u8>(plan.state_bytes() - 1).unwrap();
        let error = DeviceGateState::new(&plan, memory.slice_mut()).unwrap_err();
        assert!(error.to_string().contains("are needed"), "{error}");
    }
}
