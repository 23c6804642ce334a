//! Tokens of a PTX text.
//!
//! The lexer knows nothing of its surroundings: the same bytes are the same tokens everywhere. Two
//! rules make that work. `%` starts a name when a name's character follows it, so a remainder is
//! written `7 % 3` (as for `ptxas`). `.` starts a word (`.global`, `.2d`, `.shared::cta`) unless
//! what follows reads as a decimal fraction (`.5`, `.5e3`).

use std::fmt;

use super::error::SyntaxError;
use super::number;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier, with its leading `%`, `$` or `_`; `_` alone is a name too.
    Name(&'a str),
    /// A directive or a modifier, without its dot; `::` stays inside.
    Word(&'a str),
    /// An integer literal.
    Int {
        /// Its value.
        value: u64,
        /// Written with `U`, or too large for a signed one.
        unsigned: bool,
    },
    /// `0f` and eight digits: the bits of an `f32`.
    F32(u32),
    /// `0d` and sixteen digits, or a decimal: the bits of an `f64`.
    F64(u64),
    /// A string, without its quotes.
    Text(&'a str),
    /// Punctuation or an operator.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{}`", shorten(name)),
            Self::Word(word) => write!(f, "`.{}`", shorten(word)),
            Self::Int { value, .. } => write!(f, "`{value}`"),
            Self::F32(bits) => write!(f, "`0f{bits:08X}`"),
            Self::F64(bits) => write!(f, "`{}`", f64::from_bits(*bits)),
            Self::Text(_) => f.write_str("a string"),
            Self::Symbol(symbol) => write!(f, "`{symbol}`"),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

/// The start of a name, short enough for a message; names are ASCII.
fn shorten(name: &str) -> &str {
    name.get(..64).unwrap_or(name)
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spanned<'a> {
    /// The token.
    pub token: Token<'a>,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset behind its last byte.
    pub end: usize,
    /// Line of its first byte, from 1.
    pub line: u32,
}

/// Reads tokens from a text; a clone looks ahead.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    source: &'a str,
    position: usize,
    line: u32,
}

/// Whether a byte can stand inside a name.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// Whether a byte can stand inside a word.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of a text.
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            position: 0,
            line: 1,
        }
    }

    /// The byte `ahead` of the position; 0 behind the end, which no token contains.
    fn byte(&self, ahead: usize) -> u8 {
        self.source
            .as_bytes()
            .get(self.position + ahead)
            .copied()
            .unwrap_or(0)
    }

    /// The end of a run of bytes that starts `ahead` of the position.
    fn run(&self, ahead: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = &self.source.as_bytes()[self.position + ahead..];
        let length = rest
            .iter()
            .position(|&byte| !belongs(byte))
            .unwrap_or(rest.len());
        self.position + ahead + length
    }

    /// Moves behind white space and comments.
    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            match self.byte(0) {
                b'\n' => {
                    self.line = self.line.saturating_add(1);
                    self.position += 1;
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => self.position += 1,
                b'/' if self.byte(1) == b'/' => self.position = self.run(2, |byte| byte != b'\n'),
                b'/' if self.byte(1) == b'*' => {
                    let body = self.position + 2;
                    let Some(length) = self.source[body..].find("*/") else {
                        return Err(self.error("the comment has no `*/`"));
                    };
                    let comment = &self.source.as_bytes()[body..body + length];
                    let lines = comment.iter().filter(|&&byte| byte == b'\n').count();
                    self.line = self
                        .line
                        .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
                    self.position = body + length + 2;
                }
                _ => return Ok(()),
            }
        }
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::at(self.source, self.position, message)
    }

    /// Reads the next token.
    ///
    /// # Errors
    /// A comment or string without end, a malformed number, a character that PTX does not use.
    pub fn next(&mut self) -> Result<Spanned<'a>, SyntaxError> {
        self.skip_blank()?;
        let (start, line) = (self.position, self.line);
        let (token, end) = self.scan()?;
        self.position = end;
        Ok(Spanned {
            token,
            start,
            end,
            line,
        })
    }

    /// The token at the position and the offset behind it.
    fn scan(&self) -> Result<(Token<'a>, usize), SyntaxError> {
        let (start, source) = (self.position, self.source);
        if start >= source.len() {
            return Ok((Token::End, start));
        }
        let (first, second) = (self.byte(0), self.byte(1));
        match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let end = self.run(1, is_name_byte);
                Ok((Token::Name(&source[start..end]), end))
            }
            b'%' | b'$' if is_name_byte(second) => {
                let end = self.run(2, is_name_byte);
                Ok((Token::Name(&source[start..end]), end))
            }
            b'0'..=b'9' => self.number(),
            b'.' if second.is_ascii_digit() && number::is_fraction(&source[start + 1..]) => {
                self.number()
            }
            b'.' if is_word_byte(second) => {
                let end = self.word_end();
                Ok((Token::Word(&source[start + 1..end]), end))
            }
            b'.' => Err(self.error("expected a word behind `.`")),
            b'"' => match source[start + 1..].find(['"', '\n']) {
                Some(length) if source.as_bytes()[start + 1 + length] == b'"' => {
                    let end = start + 1 + length;
                    Ok((Token::Text(&source[start + 1..end]), end + 1))
                }
                _ => Err(self.error("the string has no closing quote on its line")),
            },
            b'#' => Err(self.error("preprocessor lines (`#`) are not part of PTX")),
            _ => match symbol(first, second) {
                Some(symbol) => Ok((Token::Symbol(symbol), start + symbol.len())),
                None => {
                    let found = source[start..].chars().next().unwrap_or('\0');
                    Err(self.error(format!("the character {found:?} is not part of PTX")))
                }
            },
        }
    }

    fn number(&self) -> Result<(Token<'a>, usize), SyntaxError> {
        number::scan(&self.source[self.position..])
            .map(|(token, length)| (token, self.position + length))
            .map_err(|message| self.error(message))
    }

    /// The end of the word at the position: runs of letters and digits joined by `::`.
    fn word_end(&self) -> usize {
        let bytes = self.source.as_bytes();
        let mut end = self.run(1, is_word_byte);
        while bytes[end..].starts_with(b"::")
            && bytes.get(end + 2).is_some_and(|&byte| is_word_byte(byte))
        {
            end = self.run(end + 2 - self.position, is_word_byte);
        }
        end
    }
}

/// The longest symbol that starts with these two bytes.
fn symbol(first: u8, second: u8) -> Option<&'static str> {
    Some(match (first, second) {
        (b'<', b'<') => "<<",
        (b'>', b'>') => ">>",
        (b'<', b'=') => "<=",
        (b'>', b'=') => ">=",
        (b'=', b'=') => "==",
        (b'!', b'=') => "!=",
        (b'&', b'&') => "&&",
        (b'|', b'|') => "||",
        (b',', _) => ",",
        (b';', _) => ";",
        (b':', _) => ":",
        (b'[', _) => "[",
        (b']', _) => "]",
        (b'{', _) => "{",
        (b'}', _) => "}",
        (b'(', _) => "(",
        (b')', _) => ")",
        (b'<', _) => "<",
        (b'>', _) => ">",
        (b'=', _) => "=",
        (b'@', _) => "@",
        (b'!', _) => "!",
        (b'|', _) => "|",
        (b'&', _) => "&",
        (b'^', _) => "^",
        (b'~', _) => "~",
        (b'?', _) => "?",
        (b'+', _) => "+",
        (b'-', _) => "-",
        (b'*', _) => "*",
        (b'/', _) => "/",
        (b'%', _) => "%",
        _ => return None,
    })
}
