//! Layers under the names of published models, in every stored type, and the output file.

mod common;

use std::path::{Path, PathBuf};

use common::{File, Small, refuses, succeeds, tollgate};
use safetensors::SafeTensors;
use tollgate::DType;

/// The names of gate, and of gate, up and down map of an expert.
type Names = (&'static str, fn(usize) -> [String; 3]);

const MIXTRAL: Names = ("model.layers.3.block_sparse_moe.gate.weight", |e| {
    let name = |w: &str| format!("model.layers.3.block_sparse_moe.experts.{e}.{w}.weight");
    [name("w1"), name("w3"), name("w2")]
});

const QWEN3: Names = ("model.layers.3.mlp.gate.weight", |e| {
    let name = |w: &str| format!("model.layers.3.mlp.experts.{e}.{w}_proj.weight");
    [name("gate"), name("up"), name("down")]
});

/// A small layer whose tokens end in 1 and whose up map picks that 1: `act(gate) · up` is
/// `act(gate)` exactly, as in a dense FFN without biases.
fn like_dense() -> Small {
    let mut small = Small::new();
    for row in small.x.chunks_mut(Small::H) {
        row[Small::H - 1] = 1.0;
    }
    small
}

fn picks_the_one() -> Vec<f32> {
    let mut map = vec![0.0; Small::I * Small::H];
    for row in map.chunks_mut(Small::H) {
        row[Small::H - 1] = 1.0;
    }
    map
}

/// Appends a layer of equal experts; expert e's maps are scaled by `scale(e)`.
fn moe(mut file: File, small: &Small, names: Names, dtype: DType, scale: fn(usize) -> f32) -> File {
    let (gate, expert) = names;
    file = file.reals(gate, dtype, &[Small::E, Small::H], &small.router);
    for e in 0..Small::E {
        let scaled = |map: &[f32]| map.iter().map(|w| w * scale(e)).collect::<Vec<_>>();
        let [w1, w3, w2] = expert(e);
        file = file
            .reals(&w1, dtype, &[Small::I, Small::H], &scaled(&small.up))
            .reals(&w3, dtype, &[Small::I, Small::H], &picks_the_one())
            .reals(&w2, dtype, &[Small::H, Small::I], &scaled(&small.down));
    }
    file
}

/// Runs a layer and returns the bytes of some output tensors.
fn outputs(arguments: &str, out: &Path, names: &[&str]) -> Vec<Vec<u8>> {
    succeeds(&format!("{arguments} --repeat 1 --out {}", out.display()));
    let bytes = std::fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    names
        .iter()
        .map(|name| file.tensor(name).unwrap().data().to_vec())
        .collect()
}

#[test]
fn both_families_give_what_the_dense_route_gives() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let small = like_dense();
    for dtype in DType::ALL {
        let mut results = Vec::new();
        for (name, names) in [("mixtral", MIXTRAL), ("qwen3", QWEN3)] {
            let file = moe(small.tokens(*dtype), &small, names, *dtype, |_| 1.0).write(&path(name));
            results.push(file);
        }
        // The router of this file is stored in the same type as those of the others.
        let dense = small
            .tokens(*dtype)
            .reals("w_up", *dtype, &[Small::I, Small::H], &small.up)
            .reals("w_down", *dtype, &[Small::H, Small::I], &small.down)
            .reals(
                "router_weight",
                *dtype,
                &[Small::E, Small::H],
                &small.router,
            )
            .write(&path("dense"));
        for run in DType::ALL {
            let common = format!("--dtype {run} --router topk:3 --backward");
            let names = [
                "x",
                "expert_indices",
                "routing_weights",
                "y",
                "grad.router_weight",
                "grad.down",
            ];
            let of =
                |input: String| outputs(&format!("run {input} {common}"), &path("out"), &names);
            let dense = of(format!("--layer {dense} --upcycle copy --activation silu"));
            for file in &results {
                let moe = of(format!("--layer {file}"));
                for (i, name) in names.iter().enumerate() {
                    assert!(
                        moe[i] == dense[i],
                        "{name} of {file}, stored {dtype}, run {run}"
                    );
                }
            }
        }
    }
}

#[test]
fn experts_and_maps_are_not_mixed_up() {
    // Every expert differs; which family's names they have does not matter.
    let folder = tempfile::tempdir().unwrap();
    let small = like_dense();
    let scale = |e: usize| 1.0 + e as f32;
    let tokens = small
        .tokens(DType::F32)
        .write(&folder.path().join("tokens"));
    let ys: Vec<_> = [MIXTRAL, QWEN3]
        .into_iter()
        .map(|names| {
            let file = moe(File::default(), &small, names, DType::F32, scale);
            let file = file.write(&folder.path().join("layer"));
            let out = folder.path().join("out");
            outputs(
                &format!("run --layer {file} --tokens {tokens}"),
                &out,
                &["y"],
            )
        })
        .collect();
    assert!(ys[0] == ys[1]);
    let equal = moe(File::default(), &small, MIXTRAL, DType::F32, |_| 1.0);
    let equal = equal.write(&folder.path().join("equal"));
    let out = folder.path().join("out");
    let y = outputs(
        &format!("run --layer {equal} --tokens {tokens}"),
        &out,
        &["y"],
    );
    assert!(y != ys[0]);
}

#[test]
fn one_of_several_layers_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let small = like_dense();
    let other: Names = ("model.layers.12.block_sparse_moe.gate.weight", |e| {
        MIXTRAL.1(e).map(|name| name.replace("layers.3.", "layers.12."))
    });
    let file = moe(
        small.tokens(DType::F32),
        &small,
        MIXTRAL,
        DType::F32,
        |_| 1.0,
    );
    let file = moe(file, &small, other, DType::F32, |_| 2.0);
    let file = file.write(&folder.path().join("two.safetensors"));
    let run = |choice: &str| {
        let out = folder.path().join("out");
        outputs(&format!("run --layer {file} {choice}"), &out, &["y"])
    };
    assert!(run("--layer-index 3") == run("--layer-prefix model.layers.3"));
    assert!(run("--layer-index 12") == run("--layer-prefix model.layers.12."));
    assert!(run("--layer-index 3") != run("--layer-index 12"));
    refuses(
        &["run", "--layer", &file],
        &[
            "has 2 layers: 'model.layers.12.', 'model.layers.3.'",
            "--layer-index",
        ],
    );
    refuses(
        &["run", "--layer", &file, "--layer-index", "4"],
        &["no layer with the number 4"],
    );
    refuses(
        &["run", "--layer", &file, "--layer-prefix", "x"],
        &["no layer with the prefix 'x'"],
    );
    refuses(
        &[
            "run",
            "--layer",
            &file,
            "--layer-index",
            "3",
            "--upcycle",
            "copy",
        ],
        &["--upcycle copy", "Mixtral"],
    );
}

#[test]
fn tensors_that_are_not_computed_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let small = like_dense();
    let file = moe(small.tokens(DType::F32), &small, QWEN3, DType::F32, |_| 1.0)
        .reals(
            "model.layers.3.mlp.shared_expert.up_proj.weight",
            DType::F32,
            &[1],
            &[0.5],
        )
        .reals(
            "model.layers.3.mlp.gate.e_score_correction_bias",
            DType::F32,
            &[8],
            &[0.5; 8],
        )
        .reals(
            "model.layers.3.input_layernorm.weight",
            DType::F32,
            &[1],
            &[0.5],
        )
        .write(&folder.path().join("shared.safetensors"));
    let text = tollgate(&format!("run --layer {file} --router sigmoid:2")).out;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        line.contains(
            "not part of this computation: 'model.layers.3.mlp.shared_expert.up_proj.weight'"
        ),
        "{text}"
    );
}

#[test]
fn tokens_may_be_the_only_matrix_under_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let small = Small::new();
    let layer = small.dense(DType::F32).write(&folder.path().join("layer"));
    let tokens = File::default()
        .whole("list", &[1, 2, 3])
        .reals("activations", DType::F16, &[Small::T, Small::H], &small.x)
        .write(&folder.path().join("tokens"));
    let text = succeeds(&format!("run --layer {layer} --tokens {tokens}"));
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("tokens 40, H 12"), "{text}");
    assert!(
        words.contains(&format!("seed 2023) from {layer} ")),
        "{text}"
    );
    let none = File::default()
        .reals("hidden", DType::F32, &[0, Small::H], &[])
        .whole("token_ids", &[])
        .write(&folder.path().join("none"));
    for router in ["top1", "hash", "thor", "expert-choice:0", "ensemble"] {
        let run = format!("run --layer {layer} --tokens {none} --router {router} --backward");
        let text = succeeds(&run);
        assert!(text.contains("there are no tokens"), "{text}");
    }
}

#[test]
fn the_output_file_reloads_with_the_right_names_types_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let small = Small::new();
    let file = small.dense(DType::F32).write(&folder.path().join("layer"));
    let out = folder.path().join("out.safetensors");
    let out_text = out.to_str().unwrap();
    succeeds(&format!(
        "run --layer {file} --backward --dtype bf16 --router noisy:2 --upcycle partition \
         --gating-dropout 0.25 --steps 3 --out {out_text}"
    ));
    let bytes = std::fs::read(&out).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<String> = tensors
        .tensors()
        .into_iter()
        .map(|(name, t)| format!("{name} {} {:?}", t.dtype(), t.shape()))
        .collect();
    found.sort();
    let counted = tensors.tensor("expert_indices").unwrap().shape()[0];
    let mut expected = vec![
        "dy BF16 [40, 12]".to_owned(),
        "grad.down F32 [8, 12, 2]".to_owned(),
        "grad.down_bias F32 [8, 12]".to_owned(),
        "grad.router_logits F32 [40, 8]".to_owned(),
        "grad.router_noise F32 [8, 12]".to_owned(),
        "grad.router_weight F32 [8, 12]".to_owned(),
        "grad.up F32 [8, 2, 12]".to_owned(),
        "grad.up_bias F32 [8, 2]".to_owned(),
        "grad.x BF16 [40, 12]".to_owned(),
        "noisy_logits F32 [40, 8]".to_owned(),
        "router_logits F32 [40, 8]".to_owned(),
        "router_probs F32 [40, 8]".to_owned(),
        "token_offsets I32 [41]".to_owned(),
        "expert_offsets I32 [9]".to_owned(),
        format!("expert_indices I32 [{counted}]"),
        format!("routing_weights F32 [{counted}]"),
        "x BF16 [40, 12]".to_owned(),
        "y BF16 [40, 12]".to_owned(),
    ];
    expected.sort();
    assert_eq!(found, expected);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    for (key, value) in [
        ("router", "noisy:2"),
        ("dtype", "bf16"),
        ("upcycle", "partition"),
        ("upcycle_seed", "2023"),
        ("sigma", "0.05"),
        ("seed", "0"),
        ("step", "2"),
        ("training", "true"),
        ("weights", "prob"),
        ("balance_alpha", "0.01"),
        ("z_coefficient", "0.001"),
        ("gating_dropout", "0.25:gate"),
        ("local_experts", "0..8"),
    ] {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    // Data are aligned to their types.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(header % 8, 0);
}
