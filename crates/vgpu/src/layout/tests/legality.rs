//! The lists of PTX ISA 9.7.14.5.14, 9.7.15.2 and 9.7.14.5.15 – 9.7.14.5.16.

use crate::layout::elements::Element::{self, *};
use crate::layout::legality::{MmaForm, WgmmaForm, check_ldmatrix, check_stmatrix};

fn mma(shape: (u32, u32, u32), d: Element, a: Element, b: Element, sm: u32) -> Result<(), String> {
    MmaForm::new(shape, d, a, b, d, sm)
        .map(|_| ())
        .map_err(|e| e.to_string())
}

fn wgmma(shape: (u32, u32, u32), d: Element, a: Element, b: Element) -> Result<(), String> {
    WgmmaForm::new(shape, d, a, b, 90, true)
        .map(|_| ())
        .map_err(|e| e.to_string())
}

#[test]
fn refusals_say_what_is_wrong() {
    for (result, words) in [
        (
            mma((16, 8, 32), F32, F16, F16, 90),
            "the shapes are .m16n8k8, .m16n8k16",
        ),
        (
            mma((8, 8, 4), F32, F16, F16, 90),
            "four products by quarter-warps",
        ),
        (mma((16, 8, 16), F32, F16, Bf16, 90), ".f16 and .bf16"),
        (
            mma((16, 8, 16), F16, Bf16, Bf16, 90),
            "the accumulator is .f16",
        ),
        (
            mma((16, 8, 32), F32, E4m3, E5m2, 80),
            "needs sm_89 or higher; the target is sm_80",
        ),
        (mma((16, 8, 8), F64, F64, F64, 80), "needs sm_90"),
        (mma((16, 8, 32), S32, S8, S4, 90), ".s8 and .s4"),
        (
            mma((16, 8, 8), F32, F32, F32, 90),
            "not a multiplicand type",
        ),
        (wgmma((128, 64, 16), F32, F16, F16), "M is 128, must be 64"),
        (wgmma((64, 64, 8), F32, F16, F16), "K is 8, must be 16"),
        (
            wgmma((64, 12, 16), F32, F16, F16),
            "N is 12, must be a multiple of 8",
        ),
        (wgmma((64, 0, 16), F32, F16, F16), "N is 0"),
        (wgmma((64, 264, 16), F32, F16, F16), "N is 264"),
        (wgmma((64, 40, 32), S32, S8, S8), "multiple of 16 for .s8"),
        (wgmma((64, 64, 16), F32, F16, Bf16), "do not go together"),
        (
            wgmma((64, 64, 8), F16, Tf32, Tf32),
            "the accumulator is .f16",
        ),
        (
            wgmma((64, 64, 4), F64, F64, F64),
            "not a multiplicand type of wgmma",
        ),
    ] {
        let text = result.expect_err(words);
        assert!(text.contains(words), "{text:?} should contain {words:?}");
    }
    let old = WgmmaForm::new((64, 64, 16), F32, F16, F16, 90, false);
    assert!(
        old.unwrap_err()
            .to_string()
            .contains("needs the target sm_90a")
    );
    let mixed = MmaForm::new((16, 8, 16), F32, F16, F16, F16, 80);
    assert!(
        mixed
            .unwrap_err()
            .to_string()
            .contains("C is .f16 but D is .f32")
    );
}

#[test]
fn targets_gain_forms() {
    let count = |sm| MmaForm::all(sm).len();
    // sm_89 adds fp8 (16), sm_90 three shapes of .f64.
    assert_eq!((count(80), count(89), count(90)), (33, 49, 52));
    assert!(mma((16, 8, 32), S32, S8, U8, 80).is_ok());
    assert!(mma((16, 8, 32), F16, E4m3, E5m2, 90).is_ok());
    assert!(wgmma((64, 256, 32), F16, E5m2, E4m3).is_ok());
    assert!(wgmma((64, 24, 32), S32, U8, S8).is_ok());
}

#[test]
fn only_sixteen_bit_types_transpose() {
    for (a, k, d, may) in [
        (F16, 16, F32, true),
        (Bf16, 16, F32, true),
        (Tf32, 8, F32, false),
    ] {
        let form = WgmmaForm::new((64, 8, k), d, a, a, 90, true).unwrap();
        assert_eq!(form.check_transpose().is_ok(), may, "{a}");
    }
}

#[test]
fn matrix_loads_and_stores() {
    for count in [1, 2, 4] {
        assert!(check_ldmatrix("m8n8", count, "b16").is_ok());
        assert!(check_stmatrix("m8n8", count, "b16", 90).is_ok());
    }
    for (result, words) in [
        (check_ldmatrix("m16n16", 1, "b8"), "needs sm_100a"),
        (check_ldmatrix("m8n8", 3, "b16"), ".x3 is not a count"),
        (check_ldmatrix("m8n8", 4, "b8"), "must be .b16"),
        (check_ldmatrix("m4n4", 4, "b16"), "not a shape"),
        (check_stmatrix("m8n8", 4, "b16", 80), "needs sm_90"),
    ] {
        let text = result.expect_err(words).to_string();
        assert!(text.contains(words), "{text:?} should contain {words:?}");
    }
}
