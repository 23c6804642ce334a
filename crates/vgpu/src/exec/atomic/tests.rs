//! Tests of `atom` and `red`.

use crate::exec::memory::tests::{arguments, clean, kernel, outcome};
use crate::exec::testing::{Launch, buffer, contents, empty, load_error};
use crate::memory::Memory;
use crate::report::Kind;

/// What one lane's operation makes of a word.
type Step = fn(u64, u64) -> u64;

const INTEGERS: [(&str, Step); 21] = [
    ("add.u32", |a, b| {
        u64::from((a as u32).wrapping_add(b as u32))
    }),
    ("add.s32", |a, b| {
        u64::from((a as u32).wrapping_add(b as u32))
    }),
    ("add.u64", u64::wrapping_add),
    ("min.u32", |a, b| u64::from((a as u32).min(b as u32))),
    ("max.u32", |a, b| u64::from((a as u32).max(b as u32))),
    ("min.s32", |a, b| u64::from((a as i32).min(b as i32) as u32)),
    ("max.s32", |a, b| u64::from((a as i32).max(b as i32) as u32)),
    ("min.u64", u64::min),
    ("max.u64", u64::max),
    ("min.s64", |a, b| (a as i64).min(b as i64) as u64),
    ("max.s64", |a, b| (a as i64).max(b as i64) as u64),
    ("and.b32", |a, b| a & b),
    ("or.b32", |a, b| a | b),
    ("xor.b32", |a, b| a ^ b),
    ("and.b64", |a, b| a & b),
    ("or.b64", |a, b| a | b),
    ("xor.b64", |a, b| a ^ b),
    (
        "inc.u32",
        |a, b| if a as u32 >= b as u32 { 0 } else { a + 1 },
    ),
    ("dec.u32", |a, b| {
        if a as u32 == 0 || a as u32 > b as u32 {
            b & 0xffff_ffff
        } else {
            a - 1
        }
    }),
    ("exch.b32", |_, b| b & 0xffff_ffff),
    ("exch.b64", |_, b| b),
];

/// Operands of all signs, for 64 and (in their low half) 32 bits.
fn operands() -> Vec<u64> {
    (0..32_u64)
        .map(|lane| lane.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x8000_0000_0000_0003)
        .collect()
}

/// One word for all lanes (the first address), and one for each; in global, shared, and generic shared
/// memory; with and without a result.
#[test]
fn lanes_follow_one_another() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &operands());
    for (operation, step) in INTEGERS {
        let wide = operation.ends_with("64");
        let (ty, bytes) = if wide { ("b64", 8) } else { ("b32", 4) };
        let register = |index: u32| {
            if wide {
                format!("%d{index}")
            } else {
                format!("%r{index}")
            }
        };
        let (b, old) = (register(20), register(21));
        let mut places = vec![
            ("global", "add.u64 %d25, %d1, %d26;", "%d25"),
            ("", "add.u64 %d25, %d1, %d26;", "%d25"),
            (
                "shared",
                "mov.u64 %d25, sv; add.u64 %d25, %d25, %d26;",
                "%d25",
            ),
            (
                "",
                "mov.u64 %d25, sv; cvta.shared.u64 %d25, %d25; add.u64 %d25, %d25, %d26;",
                "%d25",
            ),
        ];
        places.dedup();
        for (space, address, base) in places {
            for contended in [true, false] {
                for returns in [true, false] {
                    if !returns && operation.starts_with("exch") {
                        continue;
                    }
                    let start =
                        0x8765_4321_7654_3210_u64 & if wide { u64::MAX } else { 0xffff_ffff };
                    let output = buffer(&memory, &[start; 128]);
                    let dot = if space.is_empty() { "" } else { "." };
                    let opcode = if returns {
                        format!("atom{dot}{space}.{operation} {old}, ")
                    } else {
                        format!("red{dot}{space}.{operation} ")
                    };
                    let in_shared = address.contains("sv");
                    let scale = if contended { 0 } else { bytes };
                    let body = format!(
                        "mul.wide.u32 %d26, %r0, 8;
                         add.u64 %d27, %d0, %d26;
                         ld.global.{ty} {b}, [%d27];
                         ld.global.{ty} {old}, [%d1];
                         mul.wide.u32 %d28, %r0, {bytes};
                         mov.u64 %d25, sv;
                         add.u64 %d25, %d25, %d28;
                         st.shared.{ty} [%d25], {old};
                         bar.warp.sync -1;
                         mul.wide.u32 %d26, %r0, {scale};
                         {address}
                         {opcode}[{base}], {b};
                         bar.warp.sync -1;
                         add.u64 %d24, %d1, %d28;
                         add.u64 %d24, %d24, 512;
                         st.global.{ty} [%d24], {old};
                         mov.u64 %d25, sv;
                         add.u64 %d25, %d25, %d28;
                         ld.shared.{ty} {old}, [%d25];
                         st.global.{ty} [%d24+256], {old};"
                    );
                    // Without the `.u32` words 8 bytes apart hold the start in their low half only.
                    if !wide && !contended && !in_shared {
                        output.write(0, bytemuck::cast_slice(&[start as u32; 64]));
                    }
                    // The shared copy is read before others write the word: only the warp's own.
                    clean(&memory, &body, &input, &output);
                    let mut words = vec![start; 32];
                    let mut olds = vec![start; 32];
                    for (lane, operand) in operands().into_iter().enumerate() {
                        let word = &mut words[if contended { 0 } else { lane }];
                        if returns {
                            olds[lane] = *word;
                        }
                        *word = step(*word, if wide { operand } else { operand & 0xffff_ffff });
                    }
                    let got = |offset: usize| -> Vec<u64> {
                        let all: Vec<u8> = contents(&output);
                        let each = all[offset..].chunks(bytes).take(32);
                        each.map(|chunk| {
                            let mut word = [0; 8];
                            word[..bytes].copy_from_slice(chunk);
                            u64::from_le_bytes(word)
                        })
                        .collect()
                    };
                    let place = format!("{operation} {space} {address} {contended} {returns}");
                    assert_eq!(got(512), olds, "old values, {place}");
                    let end = got(if in_shared { 768 } else { 0 });
                    if contended {
                        assert_eq!(end[0], words[0], "{place}");
                    } else {
                        assert_eq!(end, words, "{place}");
                    }
                }
            }
        }
    }
}

#[test]
fn cas_of_every_width_compares_all_bits() {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    for (ty, registers, bytes) in [
        ("b16", ["%h0", "%h1", "%h2"], 2),
        ("b32", ["%r10", "%r11", "%r12"], 4),
        ("b64", ["%d20", "%d21", "%d22"], 8),
        ("b128", ["%q0", "%q1", "%q2"], 16),
    ] {
        let [old, expected, new] = registers;
        // The first two values are the same but for the top byte.
        let mut data = [[0x11_u8; 16], [0x11; 16], [0x33; 16], [0; 16]];
        data[1][bytes - 1] = 0x22;
        let output = buffer(&memory, &data);
        let body = format!(
            "setp.ne.u32 %p0, %r0, 0;
             @%p0 ret;
             ld.global.{ty} {expected}, [%d1+16];
             ld.global.{ty} {new}, [%d1+32];
             atom.global.cas.{ty} {old}, [%d1], {expected}, {new};
             st.global.{ty} [%d1+48], {old};
             ld.relaxed.gpu.global.{ty} {expected}, [%d1];
             atom.global.cas.{ty} {old}, [%d1], {expected}, {new};"
        );
        clean(&memory, &body, &input, &output);
        let got: Vec<[u8; 16]> = contents(&output);
        assert_eq!(got[3][..bytes], data[0][..bytes], "{ty}: the old value");
        assert_eq!(
            got[0][..bytes],
            data[2][..bytes],
            "{ty}: the second one fits"
        );
        assert_eq!(got[0][bytes..], data[0][bytes..], "{ty}: nothing beside it");
    }
}

#[test]
fn a_lock_by_cas_is_held_by_one_thread_at_a_time() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 2]);
    let output = empty(&memory, 4);
    // Every thread of four blocks adds to a plain counter under the lock.
    let body = "again:
        atom.acquire.gpu.global.cas.b32 %r9, [%d0], 0, 1;
        setp.ne.u32 %p0, %r9, 0;
        @%p0 bra again;
        ld.global.u32 %r10, [%d0+4];
        add.u32 %r10, %r10, 1;
        st.global.u32 [%d0+4], %r10;
        st.release.gpu.global.u32 [%d0], 0;";
    for seed in 0..20 {
        input.write(0, &[0; 8]);
        let launch = Launch {
            blocks: [4, 1, 1],
            threads: [48, 1, 1],
            seed,
            ..Launch::new(&memory)
        };
        let outcome = launch.run(&kernel(body), "k", &arguments(&input, &output));
        assert_eq!(
            (outcome.fault, outcome.reports),
            (None, vec![]),
            "seed {seed}"
        );
        assert_eq!(contents::<u32>(&input), [0, 4 * 48], "seed {seed}");
    }
    // A lock that is taken without acquire orders nothing.
    let weak = body.replace("acquire.gpu", "relaxed.gpu");
    let launch = Launch {
        blocks: [4, 1, 1],
        ..Launch::new(&memory)
    };
    let outcome = launch.run(&kernel(&weak), "k", &arguments(&input, &output));
    assert!(
        outcome
            .reports
            .iter()
            .any(|report| report.kind == Kind::Race)
    );
}

#[test]
fn blocks_share_counters() {
    let memory = Memory::new(1, true);
    let input = buffer(&memory, &[0_u32; 1]);
    let output = buffer(&memory, &[0_u32; 8 * 64]);
    // Each thread takes a ticket and marks its place.
    let body = "atom.global.add.u32 %r9, [%d0], 1;
        mul.wide.u32 %d10, %r9, 4;
        add.u64 %d10, %d1, %d10;
        st.global.u32 [%d10], 1;";
    let launch = Launch {
        blocks: [8, 1, 1],
        threads: [64, 1, 1],
        ..Launch::new(&memory)
    };
    let outcome = launch.run(&kernel(body), "k", &arguments(&input, &output));
    assert_eq!((outcome.fault, outcome.reports), (None, vec![]));
    assert_eq!(contents::<u32>(&input), [512]);
    assert_eq!(contents::<u32>(&output), [1; 512]);
}

fn floats(body: &str, start: &[u32]) -> Vec<u32> {
    let memory = Memory::new(1, true);
    let input = empty(&memory, 4);
    let output = buffer(&memory, start);
    let body = format!("setp.ne.u32 %p0, %r0, 0;\n@%p0 ret;\n{body}");
    clean(&memory, &body, &input, &output);
    contents(&output)
}

#[test]
fn floating_point_sums_round_and_flush_as_documented() {
    let one_third = (1.0_f32 / 3.0).to_bits();
    let got = floats("red.global.add.f32 [%d1], 0f3eaaaaab;", &[one_third]);
    assert_eq!(got, [(1.0_f32 / 3.0 + 1.0_f32 / 3.0).to_bits()]);
    // A subnormal sum: flushed in global memory, kept in shared memory.
    let got = floats("red.global.add.f32 [%d1], 0f00000001;", &[3]);
    assert_eq!(got, [0]);
    let got = floats(
        "mov.b32 %r9, 3; st.shared.u32 [sv], %r9; red.shared.add.f32 [sv], 0f00000001;
         ld.shared.u32 %r9, [sv]; st.global.u32 [%d1], %r9;",
        &[0],
    );
    assert_eq!(got, [4]);
    let sum = (1e-300_f64 + 0.1).to_bits();
    let halves = |bits: u64| [bits as u32, (bits >> 32) as u32];
    let got = floats(
        &format!("red.global.add.f64 [%d1], 0d{:016X};", 1e-300_f64.to_bits()),
        &halves(0.1_f64.to_bits()),
    );
    assert_eq!(got, halves(sum));
}

#[test]
fn sums_of_sixteen_bits_keep_subnormals_and_their_neighbours() {
    // f16: 1 + 2 beside 1.5 + 0.25; subnormal 1 + 1 ulp.
    let got = floats(
        "mov.b32 %r9, 0x34004000; red.global.add.noftz.f16x2 [%d1], %r9;
         mov.b32 %r9, 1; cvt.u16.u32 %h0, %r9;
         atom.global.add.noftz.f16 %h1, [%d1+4], %h0;",
        &[0x3e00_3c00, 0xabcd_0001],
    );
    assert_eq!(got, [0x3f00_4200, 0xabcd_0002]);
    // bf16: 1 + 2 beside -1 + 1.
    let got = floats(
        "mov.b32 %r9, 0x3f804000; red.global.add.noftz.bf16x2 [%d1], %r9;
         mov.b32 %r9, 0x4000; cvt.u16.u32 %h0, %r9;
         red.global.add.noftz.bf16 [%d1+6], %h0;",
        &[0xbf80_3f80, 0x3f80_1234],
    );
    assert_eq!(got, [0x0000_4040, 0x4040_1234]);
}

#[test]
fn vectors_update_every_element() {
    let of = |values: [f32; 4]| values.map(f32::to_bits);
    let start = of([1.0, 2.0, 3.0, 4.0]);
    let load = "ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%d1];";
    for opcode in [
        "red.global.add.v4.f32",
        "red.global.v4.f32.add",
        "red.relaxed.gpu.add.v4.f32",
    ] {
        let got = floats(
            &format!("{load} {opcode} [%d1], {{%f0, %f1, %f2, %f3}};"),
            &start,
        );
        assert_eq!(got, of([2.0, 4.0, 6.0, 8.0]), "{opcode}");
    }
    let got = floats(
        &format!(
            "{load} atom.global.add.v2.f32 {{%f4, %f5}}, [%d1], {{%f2, %f3}};
             st.global.v2.f32 [%d1+8], {{%f4, %f5}};"
        ),
        &start,
    );
    assert_eq!(got, of([4.0, 6.0, 1.0, 2.0]));
    let halves = "ld.global.v4.u16 {%h0, %h1, %h2, %h3}, [%d1];";
    let got = floats(
        &format!(
            "{halves} red.global.add.noftz.v4.f16 [%d1], {{%h0, %h1, %h2, %h3}};
             red.global.max.noftz.v2.f16x2 [%d1+8], {{%r31, %r31}};"
        )
        .replacen("ld.global", "mov.b32 %r31, 0x40003c00; ld.global", 1),
        &[0x4000_3c00, 0x4400_4200, 0x3c00_4200, 0xbc00_bc00],
    );
    assert_eq!(got, [0x4400_4000, 0x4800_4600, 0x4000_4200, 0x4000_3c00]);
    let eight = "{%h0, %h0, %h0, %h0, %h0, %h0, %h0, %h0}";
    let got = floats(
        &format!("ld.global.u16 %h0, [%d1]; red.global.add.noftz.v8.bf16 [%d1], {eight};"),
        &[0x3f80_3f80; 4],
    );
    assert_eq!(got, [0x4000_4000; 4]);
}

#[test]
fn a_result_nobody_wants_goes_nowhere() {
    let got = floats("atom.global.add.u32 _, [%d1], 5;", &[1]);
    assert_eq!(got, [6]);
}

#[test]
fn undefined_operands_are_told() {
    let memory = Memory::new(1, true);
    let output = buffer(&memory, &[0_u32; 32]);
    let outcome = outcome(&memory, "red.global.add.u32 [%d4], %r20;", &output, &output);
    assert_eq!(outcome.reports.len(), 1);
    assert_eq!(outcome.reports[0].kind, Kind::UninitialisedRegister);
}

#[test]
fn what_ptxas_refuses_is_refused() {
    for (instruction, part) in [
        ("atom.global.add.s64 %d9, [%d0], %d2;", "S64"),
        ("atom.global.add.b32 %r9, [%d0], %r1;", "B32"),
        ("atom.global.exch.u32 %r9, [%d0], %r1;", "Exch"),
        ("atom.global.and.u32 %r9, [%d0], %r1;", "And"),
        ("atom.global.cas.u32 %r9, [%d0], %r1, %r2;", "Cas"),
        ("atom.global.exch.b16 %h0, [%d0], %h1;", "Exch"),
        ("atom.global.inc.u64 %d9, [%d0], %d2;", "Inc"),
        ("atom.global.min.f32 %f0, [%d0], %f1;", "Min"),
        ("atom.global.add.f16 %h0, [%d0], %h1;", ".noftz"),
        ("atom.global.add.noftz.f32 %f0, [%d0], %f1;", ".noftz"),
        ("atom.global.sub.u32 %r9, [%d0], %r1;", "sub"),
        ("atom.weak.global.add.u32 %r9, [%d0], %r1;", "weak"),
        ("red.acquire.gpu.global.add.u32 [%d0], %r1;", "acquire"),
        ("red.global.exch.b32 [%d0], %r1;", "result"),
        ("red.shared.add.v2.f32 [sv], {%f0, %f1};", "global"),
        (
            "red.global.add.v8.f32 [%d0], {%f0, %f1, %f2, %f3, %f4, %f5, %f6, %f7};",
            "vectors",
        ),
        ("atom.const.add.u32 %r9, [cv], %r1;", "const"),
        ("atom.local.add.u32 %r9, [lv], %r1;", "local"),
        ("atom.add.u32 %r9, [lv], %r1;", "Local"),
        (
            "atom.global.cas.L2::cache_hint.b32 %r9, [%d0], %r1, %r2, %d9;",
            "policy",
        ),
        ("atom.global.add.u32 %r9, [%d0];", "missing"),
        ("atom.global.cas.b32 %r9, [%d0], %r1;", "missing"),
        ("red.global.add.u32 [%d0], %r1, %r2;", "too many"),
    ] {
        let error = load_error(&kernel(instruction), "k");
        assert!(error.message.contains(part), "{instruction}: {error}");
        assert_eq!(error.text, instruction);
    }
}
