//! `tollgate vgpu` as a user sees it: exit codes, reports that lead to the line, JSON, bad input.

mod common;

use common::{refuses, succeeds, tollgate, tollgate_with};
use serde_json::Value;

/// A file of `tests/vgpu`.
fn file(name: &str) -> String {
    format!("{}/tests/vgpu/{name}", env!("CARGO_MANIFEST_DIR"))
}

const RACY: &str = "--grid 2 --block 128 --arg buf:in=random:f32[256] --arg buf:out=zeros:f32[2]";

/// Two devices that write to each other and wait for each other.
const PEERS: &str = "--arg struct:u64=@v1,u64=@f1,u64=@v0,u64=@f0,u32=7 --arg buf:r0=uninit:u32[1] \
                     --launch --device 1 --arg struct:u64=@v0,u64=@f0,u64=@v1,u64=@f1,u32=9 \
                     --arg buf:r1=uninit:u32[1] --buffer v0=uninit:u32[1] --buffer f0=zeros:u32[1] \
                     --buffer v1@1=uninit:u32[1] --buffer f1@1=zeros:u32[1] --print r0 --print r1";

/// Runs it, demands exit code 3, and reads its JSON.
#[track_caller]
fn fires(arguments: &str) -> Value {
    let said = tollgate(&format!("{arguments} --json"));
    assert_eq!(
        (said.code, said.err.as_str()),
        (3, ""),
        "{arguments}\n{said:?}"
    );
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["fired"], true);
    json
}

#[track_caller]
fn silent(arguments: &str) -> Value {
    let json: Value = serde_json::from_str(&succeeds(&format!("{arguments} --json"))).unwrap();
    assert_eq!(
        (&json["fired"], &json["findings"]),
        (&false.into(), &Value::Array(Vec::new()))
    );
    json
}

#[test]
fn a_racy_kernel_is_reported_with_both_lines_of_ptx_and_source() {
    let said = tollgate(&format!("vgpu run {} {RACY}", file("racy.ptx")));
    assert_eq!((said.code, said.err.as_str()), (3, ""), "{said:?}");
    for part in [
        "data race: ",
        "kernel block_sum, device 0, seed 0",
        "racy.cu:17",
        "> 17 |         sum = lane < blockDim.x / 32 ? sums[lane] : 0.0f;",
        "racy.cu:14",
        "> 14 |         sums[warp] = sum;",
        "racy.ptx:",
        "st.shared.f32     [%r26], %f1;",
        "ld.shared.f32     %f25, [%r31];",
        "read by block (0,0,0) thread (1,0,0)",
        "write by block (0,0,0) thread (32,0,0)",
    ] {
        assert!(said.out.contains(part), "no '{part}' in\n{}", said.out);
    }
    assert!(
        said.out.lines().all(|line| line.chars().count() <= 110),
        "{}",
        said.out
    );
}

#[test]
fn every_schedule_finds_the_race_and_outputs_are_compared() {
    let json = fires(&format!(
        "vgpu run {} {RACY} --seeds 20 --seed 5",
        file("racy.ptx")
    ));
    assert_eq!(
        (&json["seeds"]["first"], &json["seeds"]["count"]),
        (&5.into(), &20.into())
    );
    assert_eq!(json["seeds"]["fired"].as_array().unwrap().len(), 20);
    let findings = json["findings"].as_array().unwrap();
    let race = findings.iter().find(|f| f["kind"] == "race").unwrap();
    assert_eq!(race["seeds"].as_array().unwrap().len(), 20);
    let mut lines =
        [&race["site"], &race["other"]].map(|site| site["source"]["line"].as_u64().unwrap());
    lines.sort_unstable();
    assert_eq!(lines, [14, 17]);
    assert_eq!(race["site"]["source"]["file"], "racy.cu");
    // A warp that comes late changes the sum.
    assert_eq!(json["differences"][0]["buffer"], "out");
    assert_ne!(
        json["differences"][0]["first_value"],
        json["differences"][0]["value"]
    );
    let text = tollgate(&format!("vgpu run {} {RACY} --seeds 20", file("racy.ptx")));
    assert!(text.out.contains("(20 of 20)"), "{}", text.out);
    assert!(
        text.out.contains("out depends on the schedule"),
        "{}",
        text.out
    );
}

#[test]
fn checks_can_be_chosen() {
    let racy = file("racy.ptx");
    let json = fires(&format!("vgpu run {racy} {RACY} --check races"));
    let kinds: Vec<&Value> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["kind"])
        .collect();
    assert_eq!(kinds, ["race"]);
    assert_eq!(json["checks"], serde_json::json!(["races"]));
    silent(&format!("vgpu run {racy} {RACY} --check none"));
}

#[test]
fn outputs_and_counters_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, text) = (folder.path().join("y.bin"), folder.path().join("y.txt"));
    let saxpy = format!(
        "vgpu run {} --entry saxpy --grid 8 --block 128 --arg 1000 --arg f32:2.5 \
         --arg buf:x=range:f32[1000] --arg buf:y=const:1:f32[1000] --print y:3 --out y={} \
         --out y={}",
        file("saxpy.ptx"),
        raw.display(),
        text.display()
    );
    let json = silent(&saxpy);
    let want: Vec<f32> = (0..1000).map(|i| 2.5 * i as f32 + 1.0).collect();
    let bytes: Vec<u8> = want.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(std::fs::read(&raw).unwrap(), bytes);
    let lines = std::fs::read_to_string(&text).unwrap();
    let read: Vec<f32> = lines.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(read, want);
    let y = json["buffers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|b| b["name"] == "y")
        .unwrap();
    assert_eq!(y["values"], serde_json::json!([1.0, 3.5, 6.0]));
    assert_eq!((&y["type"], &y["elements"]), (&"f32".into(), &1000.into()));
    let launch = &json["launches"][0];
    assert_eq!(
        (&launch["kernel"], &launch["complete"]),
        (&"saxpy".into(), &true.into())
    );
    let counters = &launch["counters"];
    assert_eq!(counters["global_read"]["requested_bytes"], 8000);
    assert_eq!(counters["global_read"]["moved_bytes"], 8000);
    assert_eq!(counters["global_write"]["moved_bytes"], 4000);
    assert_eq!(counters["warp_instructions"]["float"], 32);
    assert_eq!(counters["blocks"], 8);
    let shown = succeeds(&format!("{saxpy} --counters --trace 2"));
    for part in [
        "global reads",
        "moved/asked",
        "limited by",
        "nothing found",
        "the first 2 warp instructions",
        "ld.param.u32",
        "3.5",
    ] {
        assert!(shown.contains(part), "no '{part}' in\n{shown}");
    }
}

#[test]
fn a_file_goes_in_and_wasted_sectors_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let bytes: Vec<u8> = (0..64 * 64)
        .flat_map(|i| (i as f32).to_le_bytes())
        .collect();
    std::fs::write(&path, bytes).unwrap();
    let json = silent(&format!(
        "vgpu run {} --entry columns --block 64 --arg buf:m=file:{}:f32 \
         --arg buf:s=zeros:f32[64] --arg 64 --arg 64 --print s:2",
        file("saxpy.ptx"),
        path.display()
    ));
    // Eight columns from 0 and from 64 on.
    assert_eq!(
        json["buffers"][1]["values"],
        serde_json::json!([28.0, 540.0])
    );
    let read = &json["launches"][0]["counters"]["global_read"];
    assert_eq!(
        read["moved_bytes"],
        8 * read["requested_bytes"].as_u64().unwrap()
    );
}

#[test]
fn launches_on_two_devices_run_at_the_same_time() {
    let json = silent(&format!(
        "vgpu run {} {PEERS} --seeds 20",
        file("peers.ptx")
    ));
    assert_eq!(
        (&json["devices"], &json["differences"]),
        (&2.into(), &Value::Array(Vec::new()))
    );
    let value = |name: &str| {
        let buffers = json["buffers"].as_array().unwrap();
        buffers.iter().find(|b| b["name"] == name).unwrap()["values"][0].clone()
    };
    assert_eq!((value("r0"), value("r1")), (9.into(), 7.into()));
    let devices: Vec<&Value> = json["launches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["device"])
        .collect();
    assert_eq!(devices, [0, 1]);
    // Alone, one waits for ever.
    let alone = fires(&format!(
        "vgpu run {} --budget 20000 --arg struct:u64=@v,u64=@f,u64=@v,u64=@g,u32=7 \
         --arg buf:r=zeros:u32[1] --buffer v=zeros:u32[1] --buffer f=zeros:u32[1] \
         --buffer g=zeros:u32[1] --print r",
        file("peers.ptx")
    ));
    assert_eq!(alone["findings"][0]["kind"], "livelock");
    assert_eq!(alone["buffers"][0]["lost"], true);
}

#[test]
fn faults_and_illegal_launches_are_findings() {
    let saxpy = file("saxpy.ptx");
    let json = fires(&format!(
        "vgpu run {saxpy} --entry saxpy --grid 8 --block 128 --arg 1000 --arg 1 \
         --arg buf:x=range:f32[999] --arg buf:y=zeros:f32[1000]"
    ));
    assert_eq!(json["findings"][0]["kind"], "out-of-bounds");
    assert_eq!(json["findings"][0]["site"]["source"]["line"], 7);
    assert_eq!(json["launches"][0]["complete"], false);
    let json = fires(&format!(
        "vgpu run {saxpy} --entry saxpy --grid 8 --block 2000 --arg 1 --arg 1 \
         --arg buf:x=range:f32[1] --arg buf:y=zeros:f32[1]"
    ));
    assert_eq!(json["findings"][0]["kind"], "launch");
    let message = json["findings"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("2000") && message.contains("1024"),
        "{message}"
    );
    let json = fires(&format!(
        "vgpu run {saxpy} --entry saxpy --block 32 --arg 32 --arg 1 --arg buf:x=uninit:f32[32] \
         --arg buf:y=zeros:f32[32]"
    ));
    assert_eq!(json["findings"][0]["kind"], "uninitialised-read");
}

#[test]
fn opcodes_are_listed_and_unknown_ones_told() {
    let text = succeeds(&format!("vgpu ops {}", file("racy.ptx")));
    assert!(text.contains("22 opcodes, 0 not supported"), "{text}");
    assert!(text.contains("shfl.sync.down.b32"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.ptx");
    let odd = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\n\
               .reg .b32 %r<2>;\nmov.b32 %r0, 1;\nfrobnicate.b32 %r1, %r0;\nexit;\n}\n";
    std::fs::write(&path, odd).unwrap();
    let path = path.to_str().unwrap();
    let said = tollgate_with(&["vgpu", "ops", path]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.out.contains("not supported at line 7"), "{}", said.out);
    let json = tollgate_with(&["vgpu", "ops", path, "--json"]);
    assert_eq!(json.code, 3);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["supported"], &json["target"]),
        (&false.into(), &"sm_80".into())
    );
    let odd: Vec<&Value> = json["opcodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|o| o["supported"] == false)
        .collect();
    assert_eq!(odd.len(), 1);
    assert_eq!(
        (&odd[0]["root"], &odd[0]["errors"][0]["line"]),
        (&"frobnicate".into(), &7.into())
    );
    refuses(&["vgpu", "run", path], &["PTX line 7", "frobnicate"]);
}

#[test]
fn bad_input_is_one_line_that_says_what_would_be_right() {
    let (saxpy, racy) = (file("saxpy.ptx"), file("racy.ptx"));
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["/no/such.ptx"],
            &["/no/such.ptx: cannot read it", "nvcc -ptx"],
        ),
        (&[&saxpy], &["--entry is missing", "columns, saxpy"]),
        (&[&saxpy, "--entry", "axpy"], &["axpy", "saxpy"]),
        (
            &[&racy],
            &["takes 2 arguments, 0 are given", "block_sum_param_1 (u64)"],
        ),
        (
            &[&racy, "--arg", "1.5", "--arg", "1"],
            &["block_sum_param_0", "'1.5' is no u64"],
        ),
        (
            &[&racy, "--arg", "u32:1", "--arg", "1"],
            &["4 bytes, the parameter 8", "u64:VALUE"],
        ),
        (
            &[&racy, "--arg", "buf:x"],
            &["no buffer is named 'x'", "buf:x=FILL"],
        ),
        (
            &[&racy, "--arg", "buf:x=ones:f32[2]"],
            &["'ones:f32[2]'", "zeros:T[N]"],
        ),
        (
            &[
                &racy,
                "--arg",
                "buf:x=zeros:f32[2]",
                "--buffer",
                "x=zeros:u8[1]",
            ],
            &["twice"],
        ),
        (&[&racy, "--print", "y"], &["'y'", "none are"]),
        (&[&racy, "--out", "y"], &["NAME=PATH"]),
        (&[&racy, "--check", "everything"], &["everything", "races"]),
        (&[&racy, "--arch", "sm_70"], &["sm_70", "sm_80"]),
        (&[&racy, "--grid", "0"], &["'0'", "X,Y,Z"]),
        (
            &[&racy, "--device", "3", "--devices", "2"],
            &["device 3", "--devices 2"],
        ),
        (&[&racy, "--devices", "0"], &["--devices is 0"]),
        (&[&racy, "--seeds", "0"], &["'0'", "--seeds"]),
        (
            &[&racy, "--entry", "a", "--entry", "b"],
            &["twice for one launch", "--launch"],
        ),
        (&["--grid", "1"], &["FILE", "tollgate vgpu run --help"]),
    ];
    for (options, words) in cases {
        let arguments: Vec<&str> = ["vgpu", "run"].iter().chain(*options).copied().collect();
        refuses(&arguments, words);
    }
    let folder = tempfile::tempdir().unwrap();
    let cubin = folder.path().join("k.cubin");
    std::fs::write(&cubin, b"\x7fELF\x02\x01").unwrap();
    refuses(
        &["vgpu", "run", cubin.to_str().unwrap()],
        &["machine code", "nvcc -ptx"],
    );
    std::fs::write(&cubin, "not PTX").unwrap();
    refuses(&["vgpu", "ops", cubin.to_str().unwrap()], &["PTX line 1"]);
}

#[test]
fn help_has_the_grammar_of_arguments() {
    let help = succeeds("vgpu run --help");
    for part in [
        "buf:NAME=FILL",
        "random:T[N][:seed=S]",
        "map:NAME,bf16",
        "Exit code 0",
    ] {
        assert!(help.contains(part), "no '{part}' in\n{help}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
}
