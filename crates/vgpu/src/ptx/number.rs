//! Numeric literals: decimal, hexadecimal, octal and binary integers with an optional `U`, decimal
//! fractions, and floats written as their bits (`0f3F800000`, `0d3FF0000000000000`).

use super::lexer::{Token, is_name_byte};

/// Whether the text behind a dot is the rest of a decimal fraction (`5`, `5e3`) and not a word that
/// starts with a digit (`2d`, `16x64b`). The text starts with a digit.
pub(super) fn is_fraction(text: &str) -> bool {
    let digits = digits(text.as_bytes());
    let end = digits + exponent(&text.as_bytes()[digits..]);
    !text
        .as_bytes()
        .get(end)
        .is_some_and(|&byte| is_name_byte(byte))
}

/// Decimal digits at the start of a text.
fn digits(text: &[u8]) -> usize {
    text.iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len())
}

/// Bytes of an exponent (`e3`, `E-12`) at the start of a text; 0 when there is none.
fn exponent(text: &[u8]) -> usize {
    let [b'e' | b'E', rest @ ..] = text else {
        return 0;
    };
    let sign = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
    match digits(&rest[sign..]) {
        0 => 0,
        count => 1 + sign + count,
    }
}

/// Reads the literal at the start of `text`, which starts with a digit or with a dot and a digit;
/// returns it with its length in bytes, or says what is wrong with it.
pub(super) fn scan<'a>(text: &str) -> Result<(Token<'a>, usize), String> {
    let bytes = text.as_bytes();
    let mut end = digits(bytes);
    let mut is_decimal = false;
    if bytes.get(end) == Some(&b'.') {
        let behind = &bytes[end + 1..];
        let fraction = digits(behind);
        let letter = behind.get(fraction).is_some_and(|&byte| is_name_byte(byte));
        if !letter || exponent(&behind[fraction..]) > 0 {
            is_decimal = true;
            end += 1 + fraction;
        }
    }
    // `0e1` could only be a decimal: hexadecimal digits need `0x`.
    let power = exponent(&bytes[end..]);
    is_decimal |= power > 0;
    if is_decimal {
        end += power;
        if bytes.get(end).is_some_and(|&byte| is_name_byte(byte)) {
            return Err(malformed(text));
        }
        let value: f64 = text[..end].parse().map_err(|_| malformed(text))?;
        return Ok((Token::F64(value.to_bits()), end));
    }
    let length = bytes
        .iter()
        .position(|&byte| !is_name_byte(byte))
        .unwrap_or(bytes.len());
    Ok((literal(&text[..length])?, length))
}

/// A literal without a dot or exponent.
fn literal<'a>(text: &str) -> Result<Token<'a>, String> {
    let (prefix, rest) = text.split_at(2.min(text.len()));
    let bits = |count: usize| {
        let exact = rest.len() == count && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = if exact {
            u64::from_str_radix(rest, 16).ok()
        } else {
            None
        };
        bits.ok_or_else(|| format!("`{prefix}` needs exactly {count} hexadecimal digits"))
    };
    match prefix {
        // Eight digits always fit.
        "0f" | "0F" => return Ok(Token::F32(bits(8)? as u32)),
        "0d" | "0D" => return Ok(Token::F64(bits(16)?)),
        _ => {}
    }
    let (radix, written) = match prefix {
        "0x" | "0X" => (16, rest),
        "0b" | "0B" => (2, rest),
        _ if text.len() > 1 && text.starts_with('0') && text != "0U" => (8, &text[1..]),
        _ => (10, text),
    };
    let (written, suffix) = match written.strip_suffix('U') {
        Some(written) => (written, true),
        None => (written, false),
    };
    if written.is_empty() || !written.chars().all(|digit| digit.is_digit(radix)) {
        return Err(malformed(text));
    }
    let value = u64::from_str_radix(written, radix)
        .map_err(|_| format!("the integer `{}` does not fit 64 bits", shorten(text)))?;
    Ok(Token::Int {
        value,
        unsigned: suffix || i64::try_from(value).is_err(),
    })
}

fn malformed(text: &str) -> String {
    let end = text
        .bytes()
        .position(|byte| !is_name_byte(byte) && byte != b'.')
        .unwrap_or(text.len());
    format!("`{}` is not a number", shorten(&text[..end]))
}

/// The start of a literal, short enough for a message; literals are ASCII.
fn shorten(text: &str) -> &str {
    text.get(..40).unwrap_or(text)
}
