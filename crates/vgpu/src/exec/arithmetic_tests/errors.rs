//! What PTX does not have is refused with the line and a reason.

use super::testing::load_error;

fn refusal(target: &str, line: &str) -> String {
    let text = format!(
        ".version 8.8\n.target {target}\n.address_size 64\n.visible .entry k() {{\n\
         .reg .pred %p<4>;\n.reg .b16 %h<5>;\n.reg .b32 %r<5>;\n.reg .b64 %d<5>;\n\
         .reg .f32 %f<5>;\n.reg .f64 %g<5>;\n{line}\nret;\n}}\n"
    );
    let error = load_error(&text, "k");
    assert_eq!((error.line, &*error.text), (11, line));
    error.message
}

#[test]
fn illegal_forms() {
    for (line, message) in [
        ("add.ftz.s32 %r1, %r2, %r3;", "a type expected, .ftz found"),
        (
            "add.sat.u32 %r1, %r2, %r3;",
            ".u32 is not a type of this form of add; its types are .s32",
        ),
        ("add.f32x2 %d1, %d2, %d3;", ".f32x2 needs target sm_100"),
        ("add.rn.ftz.f64 %g1, %g2, %g3;", ".f64 has no .ftz"),
        (
            "fma.f32 %f1, %f2, %f3, %f4;",
            "a rounding mode (.rn, .rz, .rm, .rp) expected, .f32 found",
        ),
        ("div.f32 %f1, %f2, %f3;", "a rounding mode"),
        ("mul.s32 %r1, %r2, %r3;", "needs .lo, .hi or .wide"),
        (
            "mul.wide.u64 %d1, %d2, %d3;",
            ".wide is for 16- and 32-bit factors",
        ),
        (
            "mad.lo.sat.s32 %r1, %r2, %r3, %r4;",
            ".sat is for mad.hi.s32",
        ),
        (
            "add.cc.u16 %h1, %h2, %h3;",
            ".u16 is not a type of this form of add",
        ),
        ("add.rz.f16 %h1, %h2, %h3;", "rounds to nearest only"),
        (
            "add.ftz.bf16 %h1, %h2, %h3;",
            "bf16 has no .ftz and no .sat",
        ),
        (
            "fma.rn.sat.relu.f16 %h1, %h2, %h3, %h4;",
            ".sat and .relu exclude each other",
        ),
        (
            "fma.rn.oob.f16 %h1, %h2, %h3, %h4;",
            "fma.oob is not supported",
        ),
        (
            "div.rn.f16 %h1, %h2, %h3;",
            "div does not exist for 16-bit floating point",
        ),
        (
            "setp.lo.s32 %p1, %r1, %r2;",
            ".lo, .ls, .hi and .hs are for unsigned types",
        ),
        (
            "setp.gt.b32 %p1, %r1, %r2;",
            "bits can be compared with .eq and .ne only",
        ),
        (
            "setp.equ.s32 %p1, %r1, %r2;",
            "unordered comparisons are for floating point",
        ),
        (
            "setp.eq.f16x2 %p1, %r1, %r2;",
            "a comparison of pairs writes p|q",
        ),
        (
            "setp.bogus.s32 %p1, %r1, %r2;",
            ".bogus is not a comparison",
        ),
        (
            "set.lt.u16.s32 %h1, %r1, %r2;",
            "set has no such pair of types",
        ),
        (
            "lop3.b32 %r1, %r2, %r3, %r4, 256;",
            "a constant from 0 to 255",
        ),
        (
            "lop3.xor.b32 %r1|%p1, %r2, %r3, %r4, 1, %p2;",
            "lop3 has .or and .and only",
        ),
        ("shf.l.b32 %r1, %r2, %r3, %r4;", ".clamp or .wrap expected"),
        ("shl.u32 %r1, %r2, %r3;", "its types are .b16, .b32, .b64"),
        (
            "mov.b64 %d1, {%r1, %r2, %r3};",
            "does not consist of 3 parts",
        ),
        (
            "mov.b32 %r1, {%r2, %r3};",
            "%r2 has 32 bits where 16 are needed",
        ),
        ("mov.f16 %h1, %h2;", "mov has no such type"),
        (
            "cvt.f32.s32 %f1, %r1;",
            "there is no conversion from .s32 to .f32 with these modifiers",
        ),
        (
            "cvt.rn.s32.f32 %r1, %f1;",
            "there is no conversion from .f32 to .s32",
        ),
        (
            "cvt.rn.e4m3x2.f32 %h1, %f1, %f2;",
            ".satfinite is needed towards fp8",
        ),
        (
            "cvt.rn.relu.relu.f16.f32 %h1, %f1;",
            ".relu is not supported here",
        ),
        ("cvt.rn.satfinite.tf32.f32 %r1, %f1;", "needs target sm_100"),
        ("cvt.pack.sat.u32.s32 %r1, %r2, %r3;", "a type expected"),
        ("sin.f32 %f1, %f2;", ".approx expected, .f32 found"),
        ("sqrt.approx.f64 %g1, %g2;", ".f64 has no .ftz"),
        ("ex2.approx.bf16 %h1, %h2;", "ex2 of bf16 needs .ftz"),
        ("add.s32 %r1, %r2;", "operand 3 is missing"),
        (
            "add.s32 %r1, %r2, %r3, %r4;",
            "operand `%r4` is one too many",
        ),
        ("add.s32 %r1, %f2, %r3;", "%f2 is a F32; a S32 is needed"),
        (
            "add.s32 %r1, %d2, %r3;",
            "%d2 has 64 bits where 32 are needed",
        ),
        ("add.f32 %f1, %f2, 1;", "the constant `1` is not a F32"),
        (
            "add.s32 %r1, %r2, 0f3F800000;",
            "the constant `0f3F800000` is not a S32",
        ),
        (
            "frobnicate.s32 %r1;",
            "instruction `frobnicate` is not supported",
        ),
    ] {
        let found = refusal("sm_90a", line);
        assert!(found.contains(message), "{line}: {found}");
    }
}

#[test]
fn targets() {
    for (line, message) in [
        (
            "add.bf16 %h1, %h2, %h3;",
            "add, sub and mul of bf16 needs target sm_90",
        ),
        ("add.u16x2 %r1, %r2, %r3;", "needs target sm_90"),
        ("min.relu.s32 %r1, %r2, %r3;", ".relu needs target sm_90"),
        (
            "setp.lt.bf16 %p1, %h1, %h2;",
            "a comparison of bf16 needs target sm_90",
        ),
        (
            "cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2;",
            "fp8 needs target sm_89",
        ),
        (
            "cvt.rn.bf16.f16 %h1, %h2;",
            "cvt from .f16 to .bf16 needs target sm_90",
        ),
        (
            "max.xorsign.abs.f32 %f1, %f2, %f3;",
            ".xorsign.abs needs target sm_86",
        ),
        ("tanh.approx.bf16 %h1, %h2;", "needs target sm_90"),
    ] {
        let found = refusal("sm_80", line);
        assert!(found.contains(message), "{line}: {found}");
    }
}
