//! Literals and constant expressions.

use super::{Operand, operand, text};
use crate::ptx::parse;

#[track_caller]
fn integer(written: &str, value: i128) {
    assert_eq!(operand(written), Operand::Int(value), "{written}");
}

#[track_caller]
fn refused(written: &str, message: &str) {
    let error = parse(&text("", &format!("op {written};"))).expect_err(written);
    assert_eq!(error.message, message, "{written}");
}

#[test]
fn integer_literals() {
    integer("0", 0);
    integer("0U", 0);
    integer("42", 42);
    integer("42U", 42);
    integer("0x1fU", 31);
    integer("0XfF", 255);
    integer("017", 15);
    integer("00", 0);
    integer("0b101", 5);
    integer("0B11U", 3);
    integer("9223372036854775807", i128::from(i64::MAX));
    integer("9223372036854775808", 1 << 63);
    integer("18446744073709551615", i128::from(u64::MAX));
    integer("0xFFFFFFFFFFFFFFFF", i128::from(u64::MAX));
    integer("-5", -5);
    integer("-9223372036854775808", i128::from(i64::MIN));
    integer("-0x8000000000000000", i128::from(i64::MIN));
    integer("-9223372036854775808U", 1 << 63);
    integer("WARP_SZ", 32);
}

#[test]
fn floating_point_literals() {
    let double = |written: &str, value: f64| {
        assert_eq!(operand(written), Operand::F64(value.to_bits()), "{written}");
    };
    double("1.0", 1.0);
    double("1.", 1.0);
    double(".5", 0.5);
    double(".5e3", 500.0);
    double("1e3", 1000.0);
    double("1.5E-3", 0.0015);
    double("-2.5", -2.5);
    double("017.5", 17.5);
    double("0d3FF0000000000000", 1.0);
    double("-0D3FF0000000000000", -1.0);
    double("1.0 + 2.0 * 4.0", 9.0);
    double("1 < 2 ? 1.5 : 2.5", 1.5);
    assert_eq!(operand("0f3F800000"), Operand::F32(0x3f80_0000));
    assert_eq!(operand("0F7fC00001"), Operand::F32(0x7fc0_0001));
}

#[test]
fn malformed_literals() {
    refused("089", "`089` is not a number");
    refused("0x", "`0x` is not a number");
    refused("0b12", "`0b12` is not a number");
    refused("5u", "`5u` is not a number");
    refused("12ab", "`12ab` is not a number");
    refused("1.5f", "expected `,` or `;`, found `.5f`");
    refused("1e5x", "`1e5x` is not a number");
    refused("0f3F8", "`0f` needs exactly 8 hexadecimal digits");
    refused("0f3F80000G", "`0f` needs exactly 8 hexadecimal digits");
    refused("0d3FF", "`0d` needs exactly 16 hexadecimal digits");
    refused(
        "0x1ffffffffffffffff",
        "the integer `0x1ffffffffffffffff` does not fit 64 bits",
    );
    refused(
        "18446744073709551616",
        "the integer `18446744073709551616` does not fit 64 bits",
    );
}

#[test]
fn operators_and_precedence() {
    integer("3+4*2", 11);
    integer("(3+4)*2", 14);
    integer("3-4", -1);
    integer("10-4-3", 3);
    integer("7 % 3", 1);
    integer("-7 / 2", -3);
    integer("-7 % 2", -1);
    integer("1<<4+1", 32);
    integer("-16>>2", -4);
    integer("-16U>>60", 15);
    integer("1<<64", 0);
    integer("-1>>64", -1);
    integer("-1>>100U", -1);
    integer("0xffU>>64", 0);
    integer("1<2", 1);
    integer("2<=1", 0);
    integer("-1<0", 1);
    integer("-1<0U", 0);
    integer("2>1", 1);
    integer("2>=3", 0);
    integer("1==1 && 2!=2", 0);
    integer("0 || 5", 1);
    integer("6&3|8^1", 11);
    integer("1|2==2", 1);
    integer("!5", 0);
    integer("!0", 1);
    integer("!!7", 1);
    integer("~0", -1);
    integer("~0U", i128::from(u64::MAX));
    integer("- - 3", 3);
    integer("+3", 3);
    integer("WARP_SZ-1", 31);
    integer("-WARP_SZ", -32);
    integer("!WARP_SZ", 0);
    integer("(.u64)-1", i128::from(u64::MAX));
    integer("(.s64)0xFFFFFFFFFFFFFFFF", -1);
    integer("1 ? 2 : 0 ? 3 : 4", 2);
    integer("0 ? 2 : 0 ? 3 : 4", 4);
    integer("2.0 < 3.0", 1);
    integer("1 ? -1 : 1U", i128::from(u64::MAX));
    integer("9223372036854775807+1", i128::from(i64::MIN));
    integer("(.s64)0x8000000000000000 / -1", i128::from(i64::MIN));
}

#[test]
fn refused_expressions() {
    refused("1/0", "a constant expression divides by zero");
    refused("1 % 0U", "a constant expression divides by zero");
    refused(
        "-0f3F800000",
        "a `0f` literal cannot be part of a constant expression",
    );
    refused(
        "0f3F800000+1.0",
        "a `0f` literal cannot be part of a constant expression",
    );
    refused(
        "1+1.0",
        "`+` between an integer and a floating-point constant",
    );
    refused("1.0 % 2.0", "`%` needs integers");
    refused("~1.0", "`~` needs integers");
    refused("1.0 ? 1 : 2", "`?:` needs integers");
    refused(
        "1 ? 1 : 2.0",
        "`?:` between an integer and a floating-point constant",
    );
    refused("(.u32)1", "a constant is cast to `.s64` or `.u64`");
    refused("(1+2", "expected `)`, found `;`");
    refused("1 ? 2", "expected `:`, found `;`");
    refused("1+", "expected a constant, found `;`");
    refused("1+%r1", "expected a constant, found `%r1`");
    refused("7%3", "expected `,` or `;`, found `%3`");
}
