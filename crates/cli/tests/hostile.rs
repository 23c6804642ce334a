//! Damaged and invented safetensors bytes through the loader: an error or a layer that fits, never
//! a panic.

mod common;

use common::{File, Small, run_args};
use proptest::prelude::*;
use tollgate::DType;
use tollgate_cli::error::one_line;
use tollgate_cli::load::{Container, Model, Tokens};

/// Reads the bytes as everything that they could be, and checks what comes out.
fn read(bytes: &[u8]) -> Result<(), String> {
    let said = |e: tollgate_cli::Failure| {
        let text = one_line(&e.to_string());
        assert!(text.len() > 10 && text.lines().count() == 1, "{text}");
        text
    };
    let container = Container::parse("hostile", bytes).map_err(said)?;
    let tokens = Tokens::<f32>::read(&container).map_err(said);
    if let Ok(tokens) = &tokens {
        assert_eq!(tokens.x.len(), tokens.count * tokens.hidden);
        assert!(tokens.x.iter().all(|v| v.is_finite()));
        assert!(
            tokens
                .ids
                .as_ref()
                .is_none_or(|ids| ids.len() == tokens.count)
        );
    }
    for how in ["copy", "noise", "partition"] {
        let args = run_args(&format!("--upcycle {how}")).input;
        fits(&Model::<f32>::read(&container, &args).map_err(said));
        fits(&Model::<half::f16>::read(&container, &args).map_err(said));
    }
    let model = Model::<f32>::read(&container, &run_args("").input).map_err(said);
    fits(&model);
    tokens.and(model).map(|_| ())
}

fn fits<T: tollgate::Element>(model: &Result<Model<T>, String>) {
    let Ok(m) = model else { return };
    let n1 = if m.gated {
        2 * m.intermediate
    } else {
        m.intermediate
    };
    assert!(m.experts > 0 && m.hidden > 0 && m.intermediate > 0);
    assert_eq!(m.router.len(), m.experts * m.hidden);
    assert_eq!(m.up.len(), m.experts * n1 * m.hidden);
    assert_eq!(m.down.len(), m.experts * m.hidden * m.intermediate);
    assert!(m.up_bias.as_ref().is_none_or(|b| b.len() == m.experts * n1));
    assert!(
        m.down_bias
            .as_ref()
            .is_none_or(|b| b.len() == m.experts * m.hidden)
    );
    assert!(m.up.iter().chain(&m.down).all(|v| v.to_f32().is_finite()));
}

/// A Mixtral-style layer of two experts with tokens.
fn mixtral() -> Vec<u8> {
    let small = Small::new();
    let mut file = small.tokens(DType::Bf16).reals(
        "block_sparse_moe.gate.weight",
        DType::F32,
        &[2, Small::H],
        &small.router[..2 * Small::H],
    );
    for e in 0..2 {
        for (w, shape) in [("w1", [3, 12]), ("w2", [12, 3]), ("w3", [3, 12])] {
            let name = format!("block_sparse_moe.experts.{e}.{w}.weight");
            file = file.reals(&name, DType::F16, &shape, &[0.25; 36]);
        }
    }
    file.bytes()
}

#[test]
fn the_undamaged_files_are_read() {
    assert_eq!(read(&Small::new().dense(DType::F16).bytes()), Ok(()));
    assert_eq!(read(&mixtral()), Ok(()));
    assert!(read(b"").is_err());
}

/// Every truncation of a small file.
#[test]
fn every_truncation_is_refused() {
    let bytes = mixtral();
    for len in 0..bytes.len() {
        assert!(
            Container::parse("cut", &bytes[..len]).is_err(),
            "{len} bytes"
        );
    }
}

/// JSON values that a header should not hold, and some that it may.
fn entry() -> impl Strategy<Value = serde_json::Value> {
    let size = prop_oneof![
        (0u64..20).prop_map(serde_json::Value::from),
        Just(u64::MAX.into()),
        Just((1u64 << 61).into()),
        Just((1u64 << 32).into()),
        Just(serde_json::json!(-1)),
        Just(serde_json::json!(1.5)),
        Just(serde_json::json!("8")),
        Just(serde_json::Value::Null),
    ];
    let dtype = prop::sample::select(vec!["F32", "F16", "BF16", "I32", "I64", "U8", "F4", "?"]);
    let list = prop::collection::vec(size, 0..4);
    (dtype, list.clone(), list).prop_map(|(dtype, shape, offsets)| {
        serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets})
    })
}

/// Nothing is written beside the sources.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn changed_bytes_never_panic(
        dense in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = if dense { Small::new().dense(DType::F16).bytes() } else { mixtral() };
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let reach = if in_header { 8 + header } else { bytes.len() };
        for (at, value) in changes {
            bytes[at.index(reach)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(&bytes);
    }

    #[test]
    fn swapped_sizes_never_panic(
        dense in any::<bool>(),
        from in "[0-9]{1,2}",
        to in prop_oneof!["[0-9]{1,20}".boxed(), Just("18446744073709551615".to_owned()).boxed()],
    ) {
        let bytes = if dense { Small::new().dense(DType::F16).bytes() } else { mixtral() };
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + len].to_vec()).unwrap().replace(&from, &to);
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header.as_bytes());
        changed.extend(&bytes[8 + len..]);
        let _ = read(&changed);
    }

    #[test]
    fn invented_headers_never_panic(
        names in prop::collection::vec(
            prop::sample::select(vec![
                "hidden", "w_up", "w_down", "b_up", "router_weight", "neuron_expert", "token_ids",
                "sequence_offsets", "mlp.gate.weight", "mlp.experts.0.gate_proj.weight",
                "__metadata__",
            ]),
            1..6,
        ),
        entries in prop::collection::vec(entry(), 6),
        data in 0usize..64,
    ) {
        let header: serde_json::Map<String, serde_json::Value> =
            names.into_iter().map(str::to_owned).zip(entries).collect();
        let header = serde_json::Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        let _ = read(&bytes);
    }

    #[test]
    fn values_of_any_bits_never_panic(
        bits in prop::collection::vec(any::<u32>(), 12),
        sigma in any::<f64>(),
    ) {
        let values: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let file = File::default()
            .reals("hidden", DType::F32, &[3, 4], &values)
            .reals("w_up", DType::F32, &[2, 4], &values[..8])
            .reals("w_down", DType::F32, &[4, 2], &values[4..])
            .reals("router_weight", DType::F32, &[2, 4], &values[2..10])
            .whole("neuron_expert", &[1, 0]);
        let bytes = file.bytes();
        let _ = read(&bytes);
        let mut args = run_args("").input;
        args.sigma = Some(sigma);
        let container = Container::parse("hostile", &bytes).unwrap();
        fits(&Model::<half::bf16>::read(&container, &args).map_err(|e| e.to_string()));
    }
}
