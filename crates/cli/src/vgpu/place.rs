//! `NAME` or `NAME+OFFSET`: an address inside a buffer.

use super::buffer::buffer_name;
use super::element::whole;

/// An address inside a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// The buffer.
    pub name: String,
    /// Bytes from its start; may lead out of it.
    pub offset: i64,
}

impl Pointer {
    /// Reads `NAME`, `NAME+BYTES` or `NAME-BYTES`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['+', '-']).unwrap_or(text.len());
        let (name, offset) = text.split_at(at);
        let offset = match offset.is_empty() {
            true => 0,
            false => whole(offset.strip_prefix('+').unwrap_or(offset))
                .and_then(|offset| i64::try_from(offset).ok())
                .ok_or_else(|| {
                    format!("'{text}' is not of the form NAME+BYTES, for example x+16")
                })?,
        };
        Ok(Self {
            name: buffer_name(name)?.to_owned(),
            offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_a_sign() {
        let at = |text| Pointer::parse(text).map(|p| (p.name, p.offset));
        assert_eq!(at("x"), Ok(("x".to_owned(), 0)));
        assert_eq!(at("x+16"), Ok(("x".to_owned(), 16)));
        assert_eq!(at("x-0x10"), Ok(("x".to_owned(), -16)));
        assert!(at("x+").unwrap_err().contains("x+16"));
        assert!(at("+4").unwrap_err().contains("name"));
    }
}
