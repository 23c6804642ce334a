//! Bad input: exit code 2, one readable line that names value and bound, never a panic.

mod common;

use common::{File, Small, refuses, tollgate_with};
use tollgate::DType::{Bf16, F32};

#[test]
fn options_out_of_range_name_value_and_bound() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--router", "topk:17"], &["k is 17, must be in 1..=16"]),
        (&["--router", "topk:0"], &["k is 0, must be in 1..=16"]),
        (&["--router", "noisy:99"], &["k is 99", "1..=16"]),
        (
            &["--router", "adaptive:1.5"],
            &["adaptive τ is 1.5, must be in [0, 1]"],
        ),
        (
            &["--router", "adaptive:NaN"],
            &["adaptive τ is NaN, must be in [0, 1]"],
        ),
        (
            &["--router", "forced:-0.1"],
            &["forced share is -0.1", "[0, 1]"],
        ),
        (
            &["--router", "second:random:2"],
            &["second-expert τ is 2, must be in [0, 1]"],
        ),
        (
            &["--router", "grouped:2:3:1"],
            &["groups 3", "16 experts", "divide"],
        ),
        (
            &["--router", "grouped:2:4:5"],
            &["top groups is 5, must be in 1..=4"],
        ),
        (
            &["--router", "grouped:9:4:2"],
            &["k is 9, must be in 1..=8"],
        ),
        (
            &["--router", "expert-choice:2147483648"],
            &["is 2147483648, must be in 0..=2147483647"],
        ),
        (
            &["--router", "expert-choice:-1x"],
            &["factor is -1, must be in [0, 16]"],
        ),
        (
            &["--router", "best"],
            &["unknown router 'best'", "adaptive:TAU"],
        ),
        (&["--router", "topk:two"], &["K is 'two'"]),
        (&["--router", ""], &["--router"]),
        (&["--weights", "most"], &["'most'", "prob, selected, top2"]),
        (
            &["--weights", "top2", "--router", "topk:3"],
            &["weights top2", "topk:3"],
        ),
        (
            &["--weights", "selected", "--router", "hash"],
            &["weights selected", "hash"],
        ),
        (&["--weight-scale", "inf"], &["weight_scale is inf"]),
        (
            &["--balance-alpha", "-1"],
            &["balance_alpha is -1, must be in [0"],
        ),
        (&["--z-coefficient", "nan"], &["z_coefficient is NaN"]),
        (&["--capacity", "-0.5"], &["capacity factor is -0.5"]),
        (&["--drop-order", "position"], &["--capacity"]),
        (&["--jitter", "1.01"], &["jitter is 1.0", "[0, 1]"]),
        (
            &["--gating-dropout", "1.2"],
            &["gating dropout p is 1.2", "[0, 1]"],
        ),
        (&["--gating-dropout", "much"], &["'much'", "[0, 1]"]),
        (
            &["--gating-dropout", "0.2:now"],
            &["'now'", "gate, gate-expert"],
        ),
        (&["--local-choice", "modulo"], &["--gating-dropout"]),
        (
            &["--gating-dropout", "0.2", "--local-experts", "4"],
            &["'4'", "A..B"],
        ),
        (
            &["--gating-dropout", "0.2", "--local-experts", "4..17"],
            &["is 17, must be in 1..=16"],
        ),
        (
            &["--gating-dropout", "0.2", "--local-experts", "5..5"],
            &["is 5, must be in 0..=4"],
        ),
        (&["--dtype", "fp8"], &["'fp8'", "f32, f16, bf16"]),
        (&["--threads", "0"], &["threads is 0, must be in 1..=1024"]),
        (&["--threads", "1025"], &["threads is 1025"]),
        (&["--steps", "0"], &["'0'", "--steps", "1.."]),
        (&["--repeat", "0"], &["'0'", "--repeat"]),
        (&["--seed", "-1"], &["--seed"]),
        (
            &["--upcycle", "split"],
            &["'split'", "copy, noise, partition"],
        ),
        (&["--sigma", "-0.1"], &["--sigma is -0.1", "at least 0"]),
        (&["--sigma", "1e300"], &["beyond the range"]),
        (
            &["--sigma", "0.1", "--upcycle", "copy"],
            &["--sigma", "leave them out"],
        ),
        (
            &["--activation", "tanh"],
            &["'tanh'", "relu, gelu, gelu_tanh, silu"],
        ),
        (&["--nonsense"], &["--nonsense"]),
        (&["--out", "/"], &["cannot write /", "folder"]),
        (
            &["--out", "/no/such/folder/x"],
            &["no folder '/no/such/folder'"],
        ),
    ];
    for (options, words) in cases {
        let arguments: Vec<&str> = ["run"].iter().chain(*options).copied().collect();
        refuses(&arguments, words);
    }
    refuses(&["fly"], &["fly"]);
    refuses(&["curriculum", "--depth", "0"], &["--depth", "1..=4096"]);
}

/// A change to a good file, the options to run it with, and what the error must say.
type Case = (File, &'static str, &'static [&'static str]);

#[test]
fn files_that_make_no_sense_are_refused_by_name() {
    let small = Small::new();
    let (t, h, e, i) = (Small::T, Small::H, Small::E, Small::I);
    let good = || small.dense(F32);
    let tokens = || small.tokens(F32);
    let up = |file: File| file.reals("w_up", F32, &[i, h], &small.up);
    let down = |file: File| file.reals("w_down", F32, &[h, i], &small.down);
    let router = |file: File| file.reals("router_weight", F32, &[e, h], &small.router);
    let with = |values: &[f32], at: usize, value: f32| {
        let mut values = values.to_vec();
        values[at] = value;
        values
    };
    let cases: Vec<Case> = vec![
        (
            File::default(),
            "",
            &["no layer that is known here", "no tensors at all"],
        ),
        (tokens(), "", &["no layer that is known here", "'hidden'"]),
        (down(router(tokens())), "", &["no tensor 'w_up'"]),
        (up(router(tokens())), "", &["no tensor 'w_down'"]),
        (up(down(tokens())), "", &["no tensor 'router_weight'"]),
        (
            up(down(router(File::default()))),
            "",
            &["has no tokens", "--tokens"],
        ),
        (
            up(down(router(tokens()))),
            "--upcycle partition",
            &["no tensor 'neuron_expert'"],
        ),
        (
            down(router(tokens())).reals("w_up", F32, &[i * h], &small.up),
            "",
            &["'w_up' has shape [192], must be a matrix"],
        ),
        (
            up(router(tokens())).reals("w_down", F32, &[i, h], &small.down),
            "",
            &["'w_down' has shape [16, 12], must be [12, 16] = [H, I]"],
        ),
        (
            up(down(tokens())).reals("router_weight", F32, &[h, e], &small.router),
            "",
            &["'router_weight' has shape [12, 8], must be [12, 12] = [E, H]"],
        ),
        (
            up(down(router(tokens()))).reals("b_up", F32, &[3], &[0.0; 3]),
            "",
            &["'b_up' has shape [3], must be [16] = [I]"],
        ),
        (
            up(down(router(tokens()))).whole("b_down", &[0; 12]),
            "",
            &["'b_down' has dtype I32, must be F32, F16 or BF16"],
        ),
        (
            up(down(tokens())).raw("router_weight", "F64", &[e, h], &[0; 8 * 12 * 8]),
            "",
            &["'router_weight' has dtype F64"],
        ),
        (
            down(router(tokens())).reals("w_up", F32, &[i, h], &with(&small.up, 25, f32::NAN)),
            "",
            &["'w_up' has NaN at [2, 1], must be finite"],
        ),
        (
            up(router(tokens())).reals(
                "w_down",
                Bf16,
                &[h, i],
                &with(&small.down, 17, f32::INFINITY),
            ),
            "",
            &["'w_down' has inf at [1, 1], must be finite"],
        ),
        (
            up(down(router(File::default()))).reals(
                "hidden",
                F32,
                &[t, h],
                &with(&small.x, 479, 1e6),
            ),
            "--dtype f16",
            &[
                "'hidden' has 1e6 at [39, 11], beyond the range of f16",
                "--dtype",
            ],
        ),
        (
            up(down(router(File::default()))).reals("hidden", F32, &[t / 2, 2 * h], &small.x),
            "",
            &["tokens have H = 24", "has H = 12"],
        ),
        (
            up(down(router(tokens()))).whole("selection_bias", &[0; 8]),
            "",
            &["'selection_bias' has dtype I32"],
        ),
        (
            up(down(router(tokens()))).reals("router_noise", F32, &[e], &[0.0; 8]),
            "",
            &["'router_noise' has shape [8], must be [8, 12]"],
        ),
        (
            up(down(router(tokens()))).whole("hash_table", &[1, 8]),
            "",
            &["'hash_table' has 8 at [1], must be in 0..8"],
        ),
        (
            up(down(router(tokens()))).whole("hash_table", &[1, 2]),
            "--router hash",
            &["token_ids[1] is 7, must be in 0..2"],
        ),
        (
            up(down(router(tokens()))).whole("neuron_expert", &[9; 16]),
            "--upcycle partition",
            &["'neuron_expert' has 9 at [0], must be in 0..8"],
        ),
        (
            up(down(router(tokens()))).whole("neuron_expert", &[1; 16]),
            "--upcycle partition",
            &["gives expert 0 0 of 16 neurons"],
        ),
        (
            up(down(router(tokens()))).whole("neuron_expert", &[1; 3]),
            "--upcycle partition",
            &["'neuron_expert' has shape [3], must be [16]"],
        ),
        (
            File::default()
                .reals("w_up", F32, &[0, 0], &[])
                .reals("w_down", F32, &[0, 0], &[])
                .reals("router_weight", F32, &[0, 0], &[])
                .reals("hidden", F32, &[0, 0], &[]),
            "",
            &["0 experts (E), must have at least 1"],
        ),
        (
            good().raw("x", "F32", &[2], &[0; 4]),
            "",
            &["'x' of F32 [2] needs 8 bytes", "give it 4"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (n, (file, options, words)) in cases.iter().enumerate() {
        let path = file.write(&folder.path().join(format!("{n}.safetensors")));
        let mut arguments = vec!["run", "--layer", &path];
        arguments.extend(options.split(' ').filter(|o| !o.is_empty()));
        refuses(&arguments, words);
        // The file is named.
        refuses(
            &arguments,
            if options.contains("hash") {
                words
            } else {
                &[".safetensors"]
            },
        );
    }
    let layer = good().write(&folder.path().join("good"));
    let hidden = || File::default().reals("hidden", F32, &[t, h], &small.x);
    let cases: Vec<Case> = vec![
        (File::default(), "", &["0 matrices"]),
        (
            File::default()
                .reals("a", F32, &[1, 1], &[0.])
                .reals("b", F32, &[1, 1], &[0.]),
            "",
            &["2 matrices instead of one"],
        ),
        (
            hidden().whole("token_ids", &[1, 2]),
            "",
            &["'token_ids' has shape [2], must be [40]"],
        ),
        (
            hidden().whole("token_ids", &[-1; 40]),
            "",
            &["'token_ids' has -1 at [0], must be in 0.."],
        ),
        (
            hidden(),
            "--router hash",
            &["token_ids is required by router hash"],
        ),
        (
            hidden(),
            "--router thor:sentence",
            &["sequence_offsets is required by router thor:sentence"],
        ),
        (
            hidden().whole("sequence_offsets", &[]),
            "",
            &["'sequence_offsets' is empty"],
        ),
        (
            hidden().whole("sequence_offsets", &[0, 39]),
            "",
            &["goes from 0 to 39", "0 to 40 (T)"],
        ),
        (
            hidden().whole("sequence_offsets", &[1, 40]),
            "",
            &["goes from 1 to 40"],
        ),
        (
            hidden().whole("sequence_offsets", &[0, 20, 10, 40]),
            "",
            &["descends"],
        ),
        (
            hidden().whole("sequence_offsets", &[0, 41]),
            "",
            &["has 41 at [1], must be in 0..41"],
        ),
    ];
    for (n, (file, options, words)) in cases.iter().enumerate() {
        let path = file.write(&folder.path().join(format!("tokens-{n}")));
        let mut arguments = vec!["run", "--layer", &layer, "--tokens", &path];
        arguments.extend(options.split(' ').filter(|o| !o.is_empty()));
        refuses(&arguments, words);
    }
}

#[test]
fn experts_that_are_missing_or_misshapen_are_refused() {
    let small = Small::new();
    let (h, i) = (Small::H, Small::I);
    let name = |e: usize, w: &str| format!("block_sparse_moe.experts.{e}.{w}.weight");
    let expert = |mut file: File, e: usize, [w1, w3, w2]: [[usize; 2]; 3]| {
        for (w, shape) in [("w1", w1), ("w3", w3), ("w2", w2)] {
            let values = vec![0.5; shape[0] * shape[1]];
            file = file.reals(&name(e, w), F32, &shape, &values);
        }
        file
    };
    let gate = |rows: usize| {
        let values = &small.router[..rows * h];
        small
            .tokens(F32)
            .reals("block_sparse_moe.gate.weight", F32, &[rows, h], values)
    };
    let right = [[i, h], [i, h], [h, i]];
    let cases: Vec<Case> = vec![
        (
            gate(2),
            "",
            &["no tensor 'block_sparse_moe.experts.0.w1.weight'"],
        ),
        (
            expert(gate(2), 0, right),
            "",
            &["no tensor 'block_sparse_moe.experts.1.w1.weight'"],
        ),
        (
            expert(expert(gate(2), 0, right), 1, [[i, h], [i, h], [i, h]]),
            "",
            &["'block_sparse_moe.experts.1.w2.weight' has shape [16, 12], must be [12, 16]"],
        ),
        (
            expert(expert(gate(2), 0, right), 1, [[i + 1, h], [i, h], [h, i]]),
            "",
            &["experts.1.w1.weight' has shape [17, 12], must be [16, 12]"],
        ),
        (
            expert(expert(gate(1), 0, right), 1, right),
            "",
            &["has 1 rows, one an expert", "experts.1.w1.weight"],
        ),
        (gate(0), "", &["has 0 rows"]),
        (
            expert(gate(1), 0, [[0, h], [0, h], [h, 0]]),
            "",
            &["0 intermediate (I), must have at least 1"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (n, (file, _, words)) in cases.iter().enumerate() {
        let path = file.write(&folder.path().join(n.to_string()));
        refuses(&["run", "--layer", &path], words);
    }
}

#[test]
fn what_is_no_safetensors_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(path(name), bytes).unwrap();
        path(name)
    };
    let good = Small::new().dense(F32).bytes();
    let mut longer = good.clone();
    longer.extend([0; 3]);
    let named = File::default().raw("a\n\u{1b}[31m", "F32", &[9], &[0; 4]);
    let cases = [
        (path("none"), "cannot be opened"),
        (
            folder.path().to_str().unwrap().to_owned(),
            "is not a regular file",
        ),
        ("/dev/null".to_owned(), "is not a regular file"),
        (file("empty", &[]), "is empty (0 bytes)"),
        (file("short", &[1, 2, 3]), "holds 3 bytes"),
        (file("text", b"once upon a time"), "its header claims"),
        (
            file("cut", &good[..good.len() - 1]),
            "truncated, or its header lies",
        ),
        (file("head", &good[..100]), "its header claims"),
        (file("longer", &longer), "3 bytes follow its last tensor"),
        (
            named.write(&folder.path().join("named")),
            "tensor 'a\\n\\u{1b}[31m' of F32 [9]",
        ),
    ];
    for (path, words) in &cases {
        refuses(&["run", "--layer", path], &[words]);
        refuses(&["curriculum", "--tokens", path], &[words]);
        refuses(&["compare", "--tokens", path], &[words]);
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let odd = std::ffi::OsStr::from_bytes(b"/no/\xff\n/file");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["run", "--layer"])
            .arg(odd)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn sizes_that_overflow_memory_are_refused_not_attempted() {
    // 2^23 experts of 2^23 weights from a file of 80 MiB: 256 TiB in f32, twice the address space.
    let folder = tempfile::tempdir().unwrap();
    let (e, h) = (1 << 23, 1);
    let i = 1 << 23;
    let zeros = vec![0u8; 2 * e * h];
    let wide = vec![0u8; 2 * i * h];
    let file = File::default()
        .raw("hidden", "BF16", &[1, h], &[0; 2])
        .raw("router_weight", "BF16", &[e, h], &zeros)
        .raw("w_up", "BF16", &[i, h], &wide)
        .raw("w_down", "BF16", &[h, i], &wide)
        .write(&folder.path().join("huge"));
    let said = tollgate_with(&["run", "--layer", &file, "--upcycle", "copy", "--no-check"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.err
            .contains("upcycling to 8388608 experts of 8388608 weights"),
        "{}",
        said.err
    );
}
