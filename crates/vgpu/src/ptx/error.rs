//! What a text that is not PTX gets told.

use std::fmt;

/// Characters of a source line that an error quotes; minified text can have very long lines.
const QUOTED: usize = 160;

/// A place where the text is not the PTX that the reader knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line in the text, from 1.
    pub line: u32,
    /// The source line without surrounding white space; a long one is cut.
    pub text: String,
    /// What was expected, or what is wrong.
    pub message: String,
}

impl SyntaxError {
    /// An error about the byte at `offset` of `source`.
    pub(super) fn at(source: &str, offset: usize, message: impl Into<String>) -> Self {
        let bytes = source.as_bytes();
        let offset = offset.min(bytes.len());
        let start = bytes[..offset]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let end = bytes[offset..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(bytes.len(), |length| offset + length);
        // Both ends touch a newline or the text's end, so they are character boundaries.
        let text = source[start..end].trim();
        let text = match text.char_indices().nth(QUOTED) {
            Some((cut, _)) => format!("{}…", &text[..cut]),
            None => text.to_owned(),
        };
        let lines = bytes[..start].iter().filter(|&&byte| byte == b'\n').count();
        Self {
            line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
            text,
            message: message.into(),
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)?;
        if !self.text.is_empty() {
            write!(f, "\n    {}", self.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for SyntaxError {}
