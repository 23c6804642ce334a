//! `tollgate compare` and `tollgate curriculum` as a user sees them.

mod common;

use common::{Small, json, refuses, succeeds};
use tollgate::DType;

#[test]
fn compare_sets_routers_beside_top2() {
    let report = json("compare --upcycle partition --rounds 3 --backward");
    let rows = report["routers"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["router"].as_str().unwrap()).collect();
    assert_eq!(
        names[..5],
        ["top2", "forced:0.2", "forced:0.5", "forced:0.8", "top1"]
    );
    assert_eq!(names.len(), 10);
    let paper: Vec<f64> = rows.iter().filter_map(|r| r["paper"].as_f64()).collect();
    assert_eq!(paper, [1.0, 0.97, 0.92, 0.76, 0.67]);
    assert_eq!(
        (&rows[0]["computation"], &rows[0]["time"]),
        (&1.0.into(), &1.0.into())
    );
    assert_eq!(rows[4]["computation"], 0.5);
    let adaptive = rows.iter().find(|r| r["router"] == "adaptive:0.1").unwrap();
    assert_eq!(adaptive["computation"], 2458.0 / 4096.0);
    assert_eq!(adaptive["two_expert_share"], 410.0 / 2048.0);
    for row in rows {
        // A share drawn for each of 2048 tokens: standard deviation at most 0.011; five of them.
        if let Some(share) = row["router"].as_str().unwrap().strip_prefix("forced:") {
            let two = 1.0 - share.parse::<f64>().unwrap();
            assert!(
                (row["two_expert_share"].as_f64().unwrap() - two).abs() < 0.056,
                "{row}"
            );
            assert!((row["computation"].as_f64().unwrap() - (1.0 + two) / 2.0).abs() < 0.028);
        }
        assert!(row["time"].as_f64().unwrap() > 0.0 && row["ms"].as_f64().unwrap() > 0.0);
        assert_eq!(
            row["balance"].is_null(),
            ["thor", "hash"].contains(&row["router"].as_str().unwrap())
        );
    }
}

#[test]
fn the_comparison_is_a_table() {
    let text = succeeds("compare --upcycle partition --rounds 1 --router top1 --router thor:token");
    let table: Vec<&str> = text.lines().filter(|l| l.contains(" %")).collect();
    assert_eq!(table.len(), 3, "{text}");
    assert!(
        table[0].starts_with("  top2        1.00  1.00   1.00"),
        "{text}"
    );
    assert!(table[2].contains("  –  "), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    refuses(
        &["compare", "--router", "thor", "--gating-dropout", "0.1"],
        &["gating dropout cannot be combined with router thor"],
    );
    refuses(&["compare", "--rounds", "0"], &["'0'", "--rounds", "1.."]);
}

#[test]
fn curriculum_orders_the_shipped_sequences() {
    let report = json("curriculum --upcycle partition --depth 3");
    assert_eq!(report["layers"], 3);
    let samples = report["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 18);
    let fewest = samples
        .iter()
        .map(|s| s["two_expert_tokens"].as_u64().unwrap())
        .min();
    assert_eq!(samples[0]["two_expert_tokens"].as_u64(), fewest);
    // A cosine is a quotient of rounded sums.
    assert!((samples[0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-15);
    let mut seen: Vec<u64> = samples
        .iter()
        .map(|s| s["sample"].as_u64().unwrap())
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..18).collect::<Vec<u64>>());
    let similarity: Vec<f64> = samples
        .iter()
        .map(|s| s["similarity"].as_f64().unwrap())
        .collect();
    assert!(
        similarity.windows(2).all(|w| w[0] >= w[1]),
        "{similarity:?}"
    );
    // Layer 0 sees the stored tokens, of which 410 take two experts.
    let first: f64 = samples
        .iter()
        .map(|s| s["complexity"][0].as_f64().unwrap() * s["tokens"].as_f64().unwrap())
        .sum();
    assert!((first - 410.0).abs() < 1e-9, "{first}");
    let text = succeeds("curriculum --upcycle partition");
    for part in [
        "applied 4 times",
        "LayerNorm(x + y)",
        "r_0",
        "r_3",
        "similarity",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    let text = succeeds("curriculum --upcycle partition --depth 9");
    assert!(text.contains("mean r"), "{text}");
}

#[test]
fn curriculum_takes_several_layers() {
    let folder = tempfile::tempdir().unwrap();
    let small = Small::new();
    let a = small
        .dense(DType::F32)
        .write(&folder.path().join("a.safetensors"));
    let mut other = small.clone();
    other.router.reverse();
    let b = other
        .dense(DType::F32)
        .write(&folder.path().join("b.safetensors"));
    let report = json(&format!(
        "curriculum --layer {a} --layer {b} --router adaptive:0.3"
    ));
    assert_eq!(report["layers"], 2);
    // A sample without tokens has complexity 0: it is the anchor.
    assert_eq!(report["samples"][0]["sample"], 1);
    assert_eq!(report["samples"][0]["tokens"], 0);
    refuses(
        &["curriculum", "--layer", &a, "--layer", &b, "--depth", "3"],
        &["--depth 3", "given 2 times"],
    );
    refuses(
        &["run", "--layer", &a, "--layer", &b],
        &["--layer is given 2 times"],
    );
    // The same file, the name of one tensor changed.
    let mut nameless = small.dense(DType::F32).bytes();
    let name = b"sequence_offsets";
    let at = nameless.windows(name.len()).position(|w| w == name);
    nameless[at.unwrap()] = b'S';
    let file = folder.path().join("bare.safetensors");
    std::fs::write(&file, nameless).unwrap();
    let file = file.to_str().unwrap();
    refuses(
        &["curriculum", "--layer", file],
        &["has no tensor 'sequence_offsets'"],
    );
}
