//! Every form of `mma.sync` through PTX, on whole numbers that all its types hold exactly.

use std::fmt::Write;

use super::super::testing::{Launch, buffer, contents, empty, load_error, params};
use crate::lane::LANES;
use crate::layout::elements::Element;
use crate::layout::legality::MmaForm;
use crate::layout::mma::{Fragment, MmaTables};
use crate::machine::Checks;
use crate::memory::Memory;
use crate::num::fp8;
use crate::report::Kind;

/// The bits of a whole number.
pub(in super::super) fn encode(element: Element, value: i32) -> u64 {
    let float = value as f32;
    u64::from(match element {
        Element::F16 => u32::from(half::f16::from_f32(float).to_bits()),
        Element::Bf16 => u32::from(half::bf16::from_f32(float).to_bits()),
        Element::Tf32 | Element::F32 => float.to_bits(),
        Element::E4m3 => u32::from(fp8::e4m3_from_f32::<false>(float.to_bits())),
        Element::E5m2 => u32::from(fp8::e5m2_from_f32::<false>(float.to_bits())),
        Element::S8 | Element::U8 => value as u32 & 0xff,
        Element::S4 | Element::U4 => value as u32 & 0xf,
        Element::S32 => value as u32,
        Element::F64 => return f64::from(value).to_bits(),
    })
}

/// A small whole number that an element type holds.
pub(in super::super) fn small(element: Element, number: usize) -> i32 {
    let value = (number * 7 + number / 5) as i32 % 7 - 3;
    match element {
        Element::U8 | Element::U4 => value + 3,
        _ => value,
    }
}

fn registers(fragment: &Fragment, at: impl Fn(usize, usize) -> i32) -> Vec<u8> {
    let wide = fragment.element() == Element::F64;
    let mut bytes = Vec::new();
    for register in 0..fragment.registers() {
        for lane in 0..LANES as u32 {
            let mut bits = 0;
            for sub in 0..fragment.subs() {
                let (row, col) = fragment.place(lane, register, sub).expect("an element");
                let value = encode(fragment.element(), at(row as usize, col as usize));
                bits |= value << (sub * fragment.element().bits() % 64);
            }
            bytes.extend_from_slice(&bits.to_le_bytes()[..if wide { 8 } else { 4 }]);
        }
    }
    bytes
}

fn kernel(form: MmaForm, satfinite: &str) -> String {
    let tables = MmaTables::new(form);
    let (m, n, k) = form.shape();
    let wide = form.d() == Element::F64;
    let kind = |element| match element {
        Element::F64 => "f64",
        Element::F32 => "f32",
        _ => "b32",
    };
    let mut text = String::from(
        ".version 8.7\n.target sm_90a\n.address_size 64\n\
         .visible .entry k(.param .u64 in, .param .u64 out)\n{\n\
         .reg .b64 %rd<5>;\n.reg .b32 %l;\nld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\n\
         mov.u32 %l, %laneid;\n",
    );
    let step = if wide { 8 } else { 4 };
    writeln!(
        text,
        "mul.wide.u32 %rd3, %l, {step};\nadd.s64 %rd1, %rd1, %rd3;"
    )
    .unwrap();
    writeln!(text, "add.s64 %rd2, %rd2, %rd3;").unwrap();
    let mut offset = 0;
    let mut lists = Vec::new();
    for (name, table) in [
        ("a", &tables.a),
        ("b", &tables.b),
        ("c", &tables.c),
        ("d", &tables.d),
    ] {
        let count = table.fragment.registers();
        let ty = kind(table.fragment.element());
        writeln!(text, ".reg .{ty} %{name}<{count}>;").unwrap();
        let names: Vec<String> = (0..count).map(|i| format!("%{name}{i}")).collect();
        if name != "d" {
            for register in &names {
                writeln!(text, "ld.global.{ty} {register}, [%rd1+{offset}];").unwrap();
                offset += step * LANES;
            }
        }
        lists.push(format!("{{{}}}", names.join(", ")));
    }
    let [d, a, b, c] = [form.d(), form.a(), form.b(), form.c()];
    writeln!(
        text,
        "mma.sync.aligned.m{m}n{n}k{k}.row.col{satfinite}{d}{a}{b}{c} {}, {}, {}, {};",
        lists[3], lists[0], lists[1], lists[2]
    )
    .unwrap();
    for register in 0..tables.d.fragment.registers() as usize {
        let ty = kind(d);
        writeln!(
            text,
            "st.global.{ty} [%rd2+{}], %d{register};",
            register * step * LANES
        )
        .unwrap();
    }
    text.push_str("ret;\n}\n");
    text
}

#[test]
fn every_form_multiplies() {
    let mut tried = 0;
    for form in MmaForm::all(90) {
        let tables = MmaTables::new(form);
        let (m, n, k) = form.shape();
        let [m, n, k] = [m, n, k].map(|x| x as usize);
        let a = |i: usize, x: usize| small(form.a(), i * k + x);
        let b = |x: usize, j: usize| small(form.b(), 11 + 3 * x * n + j);
        let c = |i: usize, j: usize| (i * n + j) as i32 - 40;
        let mut input = registers(&tables.a.fragment, a);
        input.extend(registers(&tables.b.fragment, b));
        input.extend(registers(&tables.c.fragment, c));
        let memory = Memory::new(1, true);
        let input = buffer(&memory, &input);
        let want = registers(&tables.d.fragment, |i, j| {
            c(i, j) + (0..k).map(|x| a(i, x) * b(x, j)).sum::<i32>()
        });
        let output = empty(&memory, want.len() as u64);
        let outcome = Launch::new(&memory).run(
            &kernel(form, ""),
            "k",
            &params(&[input.base(), output.base()]),
        );
        assert!(
            outcome.fault.is_none() && outcome.reports.is_empty(),
            "{outcome:?}"
        );
        assert_eq!(contents::<u8>(&output), want, "{form:?}");
        assert_eq!(outcome.counters.tensor_flops, 2 * (m * n * k) as u64);
        tried += 1;
    }
    assert_eq!(tried, MmaForm::all(90).len());
    assert!(tried > 40, "{tried}");
}

#[test]
fn satfinite_limits_the_exact_sum() {
    let form = MmaForm::new(
        (16, 8, 32),
        Element::S32,
        Element::S8,
        Element::S8,
        Element::S32,
        90,
    )
    .expect("a form");
    let tables = MmaTables::new(form);
    let mut input = registers(&tables.a.fragment, |_, _| 127);
    input.extend(registers(&tables.b.fragment, |_, j| {
        if j == 0 { 127 } else { -128 }
    }));
    input.extend(registers(&tables.c.fragment, |_, j| {
        if j == 0 { i32::MAX - 5 } else { i32::MIN + 7 }
    }));
    let run = |satfinite| {
        let memory = Memory::new(1, true);
        let input = buffer(&memory, &input);
        let output = empty(&memory, 16 * 8 * 4);
        let at = params(&[input.base(), output.base()]);
        let outcome = Launch::new(&memory).run(&kernel(form, satfinite), "k", &at);
        assert!(outcome.reports.is_empty(), "{outcome:?}");
        contents::<i32>(&output)
    };
    // Lane 0 holds columns 0 and 1 in its first two registers.
    let limited = run(".satfinite");
    assert_eq!([limited[0], limited[LANES]], [i32::MAX, i32::MIN]);
    let wrapped = run("");
    let sum = 127 * 127 * 32;
    assert_eq!(wrapped[0], (i32::MAX - 5).wrapping_add(sum));
    assert_eq!(wrapped[LANES], (i32::MIN + 7).wrapping_sub(127 * 128 * 32));
}

#[test]
fn what_cannot_be_is_refused_when_it_is_loaded() {
    let form = MmaForm::all(90)
        .into_iter()
        .find(|form| form.a() == Element::F16 && form.d() == Element::F32)
        .expect("a form");
    let text = kernel(form, "");
    for (from, to, words) in [
        (
            "mma.sync.aligned.m16n8k8",
            "mma.sync.aligned.m16n8k12",
            "m16n8k12",
        ),
        (".row.col", ".col.row", ".row expected"),
        (".row.col", ".row.col.satfinite", ".satfinite"),
        (".row.col", ".row.col.rz", "rounding"),
        ("{%b0}", "{%b0, %b0}", "2 registers"),
        (".f32.f16", ".f64.f16", "must be the same"),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        let error = load_error(&text.replace(from, to), "k");
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn lanes_that_are_gone_are_missed() {
    let form = MmaForm::all(90)[0];
    let memory = Memory::new(1, true);
    let launch = Launch {
        threads: [16, 1, 1],
        checks: Checks::NONE,
        ..Launch::new(&memory)
    };
    let input = buffer(&memory, &[0_u8; 1 << 14]);
    let at = params(&[input.base(), input.base()]);
    let fault = launch
        .run(&kernel(form, ""), "k", &at)
        .fault
        .expect("a fault");
    assert_eq!(fault.kind, Kind::Undefined);
    assert!(fault.message.contains("16 do not exist"), "{fault}");
}
