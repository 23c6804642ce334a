//! The cases of `goldens/` on the virtual GPU: the same for every seed, silent under all checks, as
//! before, and as every GPU that was recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tollgate_vgpu::host::{Interleave, L2Promotion, OobFill, TensorElement, encode_tiled};
use tollgate_vgpu::layout::swizzle::Swizzle;
use tollgate_vgpu::machine::{Arch, Checks};
use tollgate_vgpu::{Config, LaunchConfig, Machine};

struct Case {
    name: String,
    words: BTreeMap<String, String>,
    body: String,
}

impl Case {
    fn word(&self, key: &str) -> &str {
        self.words
            .get(key)
            .unwrap_or_else(|| panic!("{}: {key} is missing", self.name))
    }

    fn number(&self, key: &str) -> usize {
        self.word(key)
            .parse()
            .unwrap_or_else(|_| panic!("{}: {key} is no number", self.name))
    }

    /// The whole module; `goldens/record.cpp` makes the same text.
    fn module(&self) -> String {
        let map = if self.words.contains_key("tensor") {
            ", .param .align 64 .b8 map[128]"
        } else {
            ""
        };
        let mut text = format!(
            ".version 8.4\n.target {}\n.address_size 64\n\
             .visible .entry golden(.param .u64 in, .param .u64 out{map})\n{{\n  \
             .reg .b32 i<32>;\n  .reg .b32 o<32>;\n  .reg .b32 r<16>;\n  .reg .b64 d<8>;\n  \
             .reg .b16 h<8>;\n  .reg .pred p<4>;\n  .reg .b64 from;\n  .reg .b64 to;\n  \
             .reg .b32 thread;\n  .shared .align 1024 .b8 smem[32768];\n  \
             .shared .align 8 .b64 bar;\n  ld.param.u64 from, [in];\n  ld.param.u64 to, [out];\n  \
             mov.u32 thread, %tid.x;\n  mad.wide.u32 from, thread, {}, from;\n  \
             mad.wide.u32 to, thread, {}, to;\n",
            self.word("target"),
            4 * self.number("in"),
            4 * self.number("out"),
        );
        for k in 0..self.number("in") {
            let _ = writeln!(text, "  ld.global.b32 i{k}, [from+{}];", 4 * k);
        }
        text.push_str(&self.body);
        for k in 0..self.number("out") {
            let _ = writeln!(text, "  st.global.b32 [to+{}], o{k};", 4 * k);
        }
        text.push_str("  ret;\n}\n");
        text
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("cases.txt")).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix('[') {
            let (name, words) = rest.split_once(']').expect("a case is [name] key=value …");
            let words = words
                .split_whitespace()
                .map(|word| word.split_once('=').expect("key=value"))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            cases.push(Case {
                name: name.to_owned(),
                words,
                body: String::new(),
            });
        } else if line.starts_with("  ")
            && let Some(case) = cases.last_mut()
        {
            case.body.push_str(line);
            case.body.push('\n');
        }
    }
    cases
}

struct Random(u64);

fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const EDGES32: [u32; 24] = [
    0x0000_0000,
    0x8000_0000,
    0x0000_0001,
    0x807f_ffff,
    0x0080_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fff_ffff,
    0x7f80_0001,
    0x3f00_0000,
    0x43e0_0000,
    0x43e8_0000,
    0x477f_e000,
    0x477f_f000,
    0x4f00_0000,
    0xcf00_0000,
    0x3380_0000,
    0x387f_c000,
    0x3f80_ffff,
    0x42fe_0000,
];
const EDGES64: [u64; 14] = [
    0,
    1 << 63,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x36a0_0000_0000_0000,
    0x47ef_ffff_ffff_ffff,
    0x43e0_0000_0000_0000,
    0x3ff0_0000_0000_0001,
];
const EDGES16: [u16; 18] = [
    0x0000, 0x8000, 0x0001, 0x03ff, 0x0400, 0x3c00, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x3f80,
    0x7f80, 0xff80, 0x7fc0, 0x007f, 0x0080, 0x7f7f,
];

fn edge<T: Copy>(table: &[T], random: u64) -> T {
    table[(random % table.len() as u64) as usize]
}

/// A word of small integers in a format, exactly.
fn small(ty: &str, random: &mut Random) -> u32 {
    let mut integer = || (random.next() % 9) as f32 - 4.0;
    match ty {
        "f32" => integer().to_bits(),
        "bf16" => {
            let low = integer().to_bits() >> 16;
            low | integer().to_bits() & 0xffff_0000
        }
        "f16" => {
            let low = u32::from(half::f16::from_f32(integer()).to_bits());
            low | u32::from(half::f16::from_f32(integer()).to_bits()) << 16
        }
        "fp8" => (0..4).fold(0, |word, k| {
            let bits = random.next();
            word | ((0x30 + bits % 24 + (bits >> 32 & 0x80)) as u32) << (8 * k)
        }),
        other => panic!("unknown element type {other}"),
    }
}

fn inputs(case: &Case) -> Vec<u32> {
    let per = case.number("in");
    let kind: Vec<&str> = case.word("input").split(':').collect();
    let mut random = Random(fnv(case.name.bytes()));
    let mut words = Vec::new();
    while words.len() < case.number("threads") * per {
        let at = words.len();
        match kind[0] {
            "bits" => words.push((random.next() >> 32) as u32),
            "f32" => {
                let bits = random.next();
                let random_word = (bits >> 32) as u32;
                words.push(if at % 4 == 3 {
                    edge(&EDGES32, bits)
                } else {
                    random_word
                });
            }
            "f32small" => {
                let value = (random.next() >> 44) as i32 - (1 << 19);
                words.push(((3 * value) as f32 / (1 << 19) as f32).to_bits());
            }
            "f64" => {
                let bits = random.next();
                let value = if at / 2 % 4 == 3 {
                    edge(&EDGES64, bits)
                } else {
                    bits
                };
                words.extend([value as u32, (value >> 32) as u32]);
            }
            "f16x2" | "bf16x2" => {
                let mut half = || {
                    let bits = random.next();
                    if bits % 4 == 3 {
                        edge(&EDGES16, bits >> 8)
                    } else {
                        (bits >> 48) as u16
                    }
                };
                let low = half();
                words.push(u32::from(low) | u32::from(half()) << 16);
            }
            "bf16small" => words.push(small("bf16", &mut random)),
            "mma" => {
                let multiplicands: usize = kind[2].parse().unwrap();
                let ty = if at % per < multiplicands {
                    kind[1]
                } else {
                    kind[3]
                };
                words.push(small(ty, &mut random));
            }
            other => panic!("{}: unknown input {other}", case.name),
        }
    }
    words
}

fn run(case: &Case, seed: u64) -> Vec<u32> {
    let text = case.module();
    let arch: Arch = match case.word("target") {
        "sm_90" => Arch::SM_90A,
        other => other.parse().unwrap(),
    };
    let machine = Machine::new(Config {
        arch,
        seed,
        checks: Checks::ALL,
        threads: 1,
        ..Config::default()
    })
    .unwrap();
    let module = machine
        .load(0, &text)
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let function = module.function("golden").unwrap();
    let input: Vec<u8> = inputs(case)
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let threads = case.number("threads");
    let bytes = 4 * threads * case.number("out");
    let from = machine.alloc(0, input.len() as u64 + 4).unwrap();
    let to = machine.alloc(0, bytes as u64).unwrap();
    if !input.is_empty() {
        machine.write(from, &input).unwrap();
    }
    let mut params: Vec<u8> = [from, to].into_iter().flat_map(u64::to_le_bytes).collect();
    let mut tensor = None;
    if let Some(shape) = case.words.get("tensor") {
        let pair = |text: &str| {
            let (a, b) = text.split_once('x').expect("AxB");
            (a.parse::<u32>().unwrap(), b.parse::<u32>().unwrap())
        };
        let (columns, rows) = pair(shape.trim_start_matches("u32:"));
        let values: Vec<u8> = (0..columns * rows).flat_map(u32::to_le_bytes).collect();
        let ptr = machine.alloc(0, values.len() as u64).unwrap();
        machine.write(ptr, &values).unwrap();
        tensor = Some(ptr);
        let (width, height) = pair(case.word("box"));
        let swizzle = match case.word("swizzle") {
            "32" => Swizzle::B32,
            "64" => Swizzle::B64,
            "128" => Swizzle::B128,
            _ => Swizzle::None,
        };
        let map = encode_tiled(
            TensorElement::U32,
            2,
            ptr,
            &[columns.into(), rows.into()],
            &[u64::from(columns) * 4],
            &[width, height],
            &[1, 1],
            Interleave::None,
            swizzle,
            L2Promotion::None,
            OobFill::Zero,
        )
        .unwrap();
        params.resize(64, 0);
        params.extend(map);
    }
    let stream = machine.default_stream(0).unwrap();
    let config = LaunchConfig::new([1, 1, 1], [threads as u32, 1, 1]);
    machine.launch(stream, &function, &config, &params).unwrap();
    let end = machine.synchronize(stream);
    let reports = machine.take_reports();
    assert!(reports.is_empty(), "{}: {}", case.name, reports[0]);
    end.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let mut out = vec![0; bytes];
    machine.read(to, &mut out).unwrap();
    for ptr in [Some(from), Some(to), tensor].into_iter().flatten() {
        machine.free(ptr).unwrap();
    }
    out.as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect()
}

/// Results of all cases that an architecture runs.
fn all() -> BTreeMap<String, Vec<u32>> {
    let cases = cases();
    assert!(cases.len() > 200, "{} cases", cases.len());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let chunk = cases.len().div_ceil(workers);
    std::thread::scope(|scope| {
        let handles: Vec<_> = cases
            .chunks(chunk)
            .map(|cases| {
                scope.spawn(move || {
                    cases
                        .iter()
                        .map(|case| {
                            let first = run(case, 0);
                            for seed in 1..4 {
                                assert_eq!(
                                    first,
                                    run(case, seed),
                                    "{} with seed {seed}",
                                    case.name
                                );
                            }
                            (case.name.clone(), first)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap())
            .collect()
    })
}

/// Compares results after a case's rule; says where they differ.
fn differs(rule: &str, ours: &[u32], theirs: &[u32]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} words against {}", ours.len(), theirs.len()));
    }
    let (kind, bound) = rule.split_once(':').unwrap_or((rule, "0"));
    let bound: f64 = bound.parse().unwrap();
    let ordered = |bits: i64, sign: i64| if bits & sign != 0 { sign - bits } else { bits };
    let close = |a: u32, b: u32| -> bool {
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let (wide_x, wide_y) = (f64::from(x), f64::from(y));
        let nan_or_equal = a == b || (x.is_nan() && y.is_nan());
        match kind {
            "bits" => a == b,
            "ulp" => {
                let sign = 1 << 31;
                let distance = ordered(a.into(), sign) - ordered(b.into(), sign);
                nan_or_equal || (distance.abs() as f64) <= bound
            }
            "abs" => nan_or_equal || (wide_x - wide_y).abs() <= bound,
            "rel" => nan_or_equal || (wide_x - wide_y).abs() <= bound * wide_y.abs(),
            "f16ulp" => [0, 16].into_iter().all(|shift| {
                let (a, b) = ((a >> shift) as u16, (b >> shift) as u16);
                let nan = |bits: u16| half::f16::from_bits(bits).is_nan();
                let distance = ordered(a.into(), 1 << 15) - ordered(b.into(), 1 << 15);
                a == b || (nan(a) && nan(b)) || (distance.abs() as f64) <= bound
            }),
            other => panic!("unknown rule {other}"),
        }
    };
    let at = (0..ours.len()).find(|&at| !close(ours[at], theirs[at]))?;
    Some(format!(
        "word {at}: {:08x} against {:08x} ({rule})",
        ours[at], theirs[at]
    ))
}

#[test]
fn cases_do_what_they_did_and_what_gpus_do() {
    let results = all();
    // What the virtual GPU said when the case was last looked at: a change shows in the diff.
    let lines: String = results
        .iter()
        .map(|(name, words)| {
            let hash = fnv(words.iter().flat_map(|word| word.to_le_bytes()));
            format!("{name} {hash:016x}\n")
        })
        .collect();
    let kept = folder().join("virtual.txt");
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        std::fs::write(&kept, &lines).unwrap();
    }
    let before = std::fs::read_to_string(&kept).unwrap_or_default();
    let changed: Vec<&str> = lines
        .lines()
        .filter(|line| !before.lines().any(|l| l == *line))
        .collect();
    assert!(
        changed.is_empty() && before.lines().count() == results.len(),
        "results changed (TOLLGATE_BLESS=1 keeps the new ones if they are right): {changed:?}"
    );

    let rules: BTreeMap<String, String> = cases()
        .into_iter()
        .map(|case| (case.name.clone(), case.word("compare").to_owned()))
        .collect();
    let mut recordings = 0;
    let recorded = std::fs::read_dir(folder().join("recorded"))
        .into_iter()
        .flatten();
    for file in recorded.map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        recordings += 1;
        for line in std::fs::read_to_string(&file)
            .unwrap()
            .lines()
            .filter(|l| !l.starts_with('#'))
        {
            let mut words = line.split(' ');
            let name = words.next().unwrap();
            let theirs: Vec<u32> = words
                .map(|word| u32::from_str_radix(word, 16).unwrap())
                .collect();
            let ours = &results[name];
            if let Some(difference) = differs(&rules[name], ours, &theirs) {
                panic!("{}: {name}: {difference}", file.display());
            }
        }
    }
    println!(
        "{} cases; compared with {recordings} recordings of GPUs",
        results.len()
    );
}

#[test]
fn rules_tell_differences() {
    let one = 1.0_f32.to_bits();
    assert!(differs("bits", &[one], &[one]).is_none());
    assert!(differs("bits", &[one], &[one + 1]).is_some());
    assert!(differs("ulp:1", &[one], &[one + 1]).is_none());
    assert!(differs("ulp:1", &[one], &[one + 2]).is_some());
    // Across zero: the least negative and the least positive number are two apart.
    assert!(differs("ulp:2", &[1], &[0x8000_0001]).is_none());
    assert!(differs("abs:0.1", &[f32::NAN.to_bits()], &[one]).is_some());
    assert!(differs("rel:0.1", &[1.05_f32.to_bits()], &[one]).is_none());
    assert!(differs("f16ulp:1", &[0x3c00_3c00], &[0x3c01_3c00]).is_none());
    assert!(differs("f16ulp:1", &[0x3c00_3c00], &[0x3c02_3c00]).is_some());
}
