//! Bad arguments of the layer that stays on a device: an error that names value and bound, before
//! anything is launched.

mod common;

use common::resident::{Outputs, Resident, Tensors};
use common::{Problem, sized};
use tollgate::device::testing::devices;
use tollgate::device::{DeviceSlice, Gpu};
use tollgate::gemm::gpu::DeviceExpertWeights;
use tollgate::gpu::{DeviceLayer, DeviceLayerInputs, DeviceLayerWeights};
use tollgate::options::{Activation, GateOptions};

fn problem(router: &str) -> Problem<f32> {
    let options = GateOptions::new(router.parse().unwrap());
    Problem::new(&sized(6, 4, 8, 8), options, Activation::Gelu, false)
}

/// What the forward pass of altered arguments says; y must stay poison, and nothing may run.
fn refused(
    router: &str,
    gpu: &Gpu,
    alter: impl FnOnce(&mut DeviceLayerInputs<'_, f32>, &mut DeviceLayerWeights<'_, f32>),
) -> String {
    let p = problem(router);
    let mut r = Resident::new(&p, gpu);
    let (mut inputs, mut weights) = (r.tensors.inputs(), r.tensors.weights());
    alter(&mut inputs, &mut weights);
    let mut state = r.layer.state(&r.stream, r.state.slice_mut()).unwrap();
    let (y, memory) = (r.outputs.y.view_mut(), r.workspace.slice_mut());
    let error = r
        .layer
        .forward(&r.stream, &inputs, &weights, y, &mut state, memory)
        .unwrap_err();
    let error = error.to_string();
    assert!(
        state.download(&r.stream).is_err(),
        "the state holds a pass after: {error}"
    );
    let y = r.outputs.y.values(&r.stream, "y");
    assert!(y.iter().all(|v| v.is_nan()), "y was written: {error}");
    error
}

#[test]
fn shapes_and_missing_tensors_are_named() {
    for (_, gpu) in devices() {
        let stream = gpu.default_stream();
        // They outlive every view that is altered.
        let other = &*Box::leak(Box::new(gpu.upload(stream, &[0f32; 48]).unwrap()));
        let ids = &*Box::leak(Box::new(gpu.upload(stream, &[0i32; 5]).unwrap()));
        let refuse = |router: &str, alter: fn(&mut DeviceLayerInputs<'_, f32>)| {
            refused(router, gpu, |inputs, _| alter(inputs))
        };
        let error = refused("top1", gpu, |inputs, _| {
            inputs.x = other.slice().rows("x", 6, 7, 7).unwrap();
        });
        assert_eq!(error, "columns of x (H) is 7, expected 8");
        let error = refused("top1", gpu, |inputs, _| {
            inputs.x = other.slice().rows("x", 5, 8, 8).unwrap();
        });
        assert_eq!(error, "rows of x (T) is 5, expected 6");
        let error = refuse("hash", |inputs| inputs.token_ids = None);
        assert_eq!(
            error,
            "token_ids is required by router hash, but was not given"
        );
        let error = refused("hash", gpu, |inputs, _| {
            inputs.token_ids = Some(ids.slice())
        });
        assert_eq!(error, "token_ids is 5, expected 6");
        let error = refuse("thor:sentence", |inputs| inputs.sequence_offsets = None);
        assert!(
            error.starts_with("sequence_offsets is required by"),
            "{error}"
        );
        let error = refused("adaptive:0.1", gpu, |_, weights| weights.router = None);
        assert!(
            error.starts_with("router weight (E·H) is required by"),
            "{error}"
        );
        let error = refused("noisy:2", gpu, |_, weights| weights.router_noise = None);
        assert!(
            error.starts_with("router noise weight (E·H) is required"),
            "{error}"
        );
        let error = refused("top1", gpu, |_, weights| {
            let bias = other.slice().part("bias", 0, 4).unwrap();
            weights.selection_bias = Some(bias);
        });
        assert!(error.contains("bias"), "{error}");
        let error = refused("top1", gpu, |_, weights| {
            let experts = weights.experts;
            let down = experts
                .down
                .part("down", 1, experts.down.len() - 1)
                .unwrap();
            weights.experts = DeviceExpertWeights { down, ..experts };
        });
        assert_eq!(error, "down weights (E·H·I) is 255, expected 256");
    }
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let p = problem("adaptive:0.1");
    for (_, gpu) in devices() {
        let mut r = Resident::new(&p, gpu);
        let (state_bytes, forward_bytes) = (r.state.len(), r.layer.forward_workspace_bytes());
        assert!(forward_bytes > 0 && forward_bytes < r.workspace.len());
        let short = r
            .state
            .slice_mut()
            .part("state", 0, state_bytes - 1)
            .unwrap();
        let error = r.layer.state(&r.stream, short).unwrap_err().to_string();
        assert!(error.contains(&format!("{state_bytes}")), "{error}");
        let mut large = gpu.alloc::<u8>(state_bytes + 4).unwrap();
        let odd = large.slice_mut().part("state", 4, state_bytes).unwrap();
        let error = r.layer.state(&r.stream, odd).unwrap_err().to_string();
        assert!(error.contains("multiple of 256"), "{error}");

        let (inputs, weights) = (r.tensors.inputs(), r.tensors.weights());
        let mut state = r.layer.state(&r.stream, r.state.slice_mut()).unwrap();
        let short = r
            .workspace
            .slice_mut()
            .part("w", 0, forward_bytes - 1)
            .unwrap();
        let y = r.outputs.y.view_mut();
        let error = r
            .layer
            .forward(&r.stream, &inputs, &weights, y, &mut state, short)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("{forward_bytes}")), "{error}");

        // SAFETY: nothing is read or written through a view that is refused.
        let null = unsafe { DeviceSlice::<f32>::from_raw("x", 0, 48) };
        assert!(null.unwrap_err().to_string().contains("null"));
        // SAFETY: as above.
        let odd = unsafe { DeviceSlice::<f32>::from_raw("x", 0x1002, 48) };
        assert!(odd.unwrap_err().to_string().contains("multiple of 4"));
    }
}

#[test]
fn backward_needs_the_forward_pass_of_its_own_layer() {
    let p = problem("adaptive:0.1");
    for (_, gpu) in devices() {
        let mut r = Resident::new(&p, gpu);
        let tensors = Tensors::new(&p, gpu, &r.stream);
        let mut outputs = Outputs::new(&p, gpu, &r.stream);
        let (inputs, weights) = (tensors.inputs(), tensors.weights());
        let stream = r.stream.clone();
        let mut state = r.layer.state(&stream, r.state.slice_mut()).unwrap();
        let mut grads = outputs.grads(&p);
        let memory = r.workspace.slice_mut();
        let dy = tensors.dy();
        let error = r
            .layer
            .backward(
                &stream, &inputs, &weights, dy, &mut state, &mut grads, memory,
            )
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("a state that a forward pass has filled")
        );

        let y = r.outputs.y.view_mut();
        let memory = r.workspace.slice_mut();
        r.layer
            .forward(&stream, &inputs, &weights, y, &mut state, memory)
            .unwrap();
        grads.experts.down_bias = None;
        let memory = r.workspace.slice_mut();
        let error = r
            .layer
            .backward(
                &stream, &inputs, &weights, dy, &mut state, &mut grads, memory,
            )
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("gradient of down_bias (E·H) is required by"),
            "{error}"
        );

        let on_gpu = p.layer.on(gpu.clone());
        let inference = DeviceLayer::<f32>::new(&on_gpu, 6, false).unwrap();
        let mut workspace = gpu.alloc(inference.workspace_bytes()).unwrap();
        let error = inference
            .forward(
                &stream,
                &inputs,
                &weights,
                r.outputs.y.view_mut(),
                &mut state,
                workspace.slice_mut(),
            )
            .unwrap_err()
            .to_string();
        assert!(error.contains("the state of another layer"), "{error}");
        stream.synchronize().unwrap();
    }
}
