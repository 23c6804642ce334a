//! From tokens to a [`Module`]: what every part of the grammar shares, and the module scope.
//!
//! A recursive descent with one token in hand. Nesting is counted, so that no text overflows the
//! stack; sizes are checked before memory is taken, so that a short text cannot ask for much.

mod expression;
mod function;
mod initialiser;
mod instruction;
mod variable;

use super::ast::{Module, Space};
use super::error::SyntaxError;
use super::lexer::{Lexer, Spanned, Token};

/// Scopes, parentheses and braces that may be open at once.
const MAX_DEPTH: u32 = 128;

/// Bytes that initialisers may take whatever the length of the text.
const INITIAL_BYTES: usize = 1 << 20;

/// The newest PTX version whose grammar this is.
const NEWEST: (u32, u32) = (9, 0);

/// Linkage directives in front of a declaration.
#[derive(Clone, Copy, Default)]
struct Linkage {
    is_extern: bool,
    is_visible: bool,
}

/// The state of a parse.
pub(super) struct Parser<'a> {
    source: &'a str,
    lexer: Lexer<'a>,
    /// The token in hand.
    current: Spanned<'a>,
    /// Where the token before it started, and its line: a forgotten `;` is reported there.
    previous: (usize, u32),
    depth: u32,
    /// Bytes that initialisers may still take.
    initial_budget: usize,
}

impl<'a> Parser<'a> {
    /// A parser at the first token.
    pub fn new(source: &'a str) -> Result<Self, SyntaxError> {
        let mut lexer = Lexer::new(source);
        let current = lexer.next()?;
        Ok(Self {
            source,
            lexer,
            current,
            previous: (current.start, current.line),
            depth: 0,
            // Every written element takes two characters and fills at most 16 bytes.
            initial_budget: INITIAL_BYTES.saturating_add(source.len().saturating_mul(16)),
        })
    }

    fn token(&self) -> Token<'a> {
        self.current.token
    }

    /// Takes the token in hand.
    fn bump(&mut self) -> Result<Spanned<'a>, SyntaxError> {
        let next = self.lexer.next()?;
        self.previous = (self.current.start, self.current.line);
        Ok(std::mem::replace(&mut self.current, next))
    }

    /// The token behind the one in hand.
    fn peek(&self) -> Result<Token<'a>, SyntaxError> {
        let mut ahead = self.lexer;
        Ok(ahead.next()?.token)
    }

    fn error_at(&self, start: usize, message: impl Into<String>) -> SyntaxError {
        SyntaxError::at(self.source, start, message)
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        self.error_at(self.current.start, message)
    }

    fn expected(&self, what: &str) -> SyntaxError {
        self.error(format!("expected {what}, found {}", self.token()))
    }

    fn at(&self, symbol: &str) -> bool {
        matches!(self.token(), Token::Symbol(found) if found == symbol)
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Word(found) if found == word)
    }

    fn eat(&mut self, symbol: &str) -> Result<bool, SyntaxError> {
        let found = self.at(symbol);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn eat_word(&mut self, word: &str) -> Result<bool, SyntaxError> {
        let found = self.at_word(word);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), SyntaxError> {
        if self.eat(symbol)? {
            return Ok(());
        }
        Err(self.expected(&format!("`{symbol}`")))
    }

    /// The `;` of a statement that started in `line`. When the next token is on another line, the
    /// statement without its end is the culprit, so the error points there.
    fn end_of_statement(&mut self, line: u32, alternatives: &str) -> Result<(), SyntaxError> {
        if self.eat(";")? {
            return Ok(());
        }
        let mut message = format!("expected {alternatives}`;`, found {}", self.token());
        let (previous_start, previous_line) = self.previous;
        if previous_line != self.current.line {
            return Err(self.error_at(previous_start, message));
        }
        if line != self.current.line {
            // `ret` without `;` reads the next line's opcode as its operand.
            message.push_str(&format!(", in the statement that starts in line {line}"));
        }
        Err(self.error(message))
    }

    /// Runs `inner` one level deeper.
    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// A name that declares or refers to something; `_` does neither.
    fn name(&mut self, what: &str) -> Result<&'a str, SyntaxError> {
        match self.token() {
            Token::Name(name) if name != "_" => {
                self.bump()?;
                Ok(name)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// An integer literal that fits 32 bits.
    fn integer(&mut self, what: &str) -> Result<u32, SyntaxError> {
        let Token::Int { value, .. } = self.token() else {
            return Err(self.expected(what));
        };
        let value = u32::try_from(value)
            .map_err(|_| self.error(format!("{what} cannot be as large as {value}")))?;
        self.bump()?;
        Ok(value)
    }

    /// A string.
    fn string(&mut self, what: &str) -> Result<&'a str, SyntaxError> {
        let Token::Text(text) = self.token() else {
            return Err(self.expected(what));
        };
        self.bump()?;
        Ok(text)
    }

    /// The whole text.
    pub fn module(mut self) -> Result<Module, SyntaxError> {
        let mut module = Module::default();
        self.header(&mut module)?;
        while self.token() != Token::End {
            let Token::Word(word) = self.token() else {
                return Err(self.expected("a directive"));
            };
            match word {
                "file" => self.file(&mut module)?,
                "section" => self.section()?,
                "pragma" => self.pragma()?,
                "version" | "target" | "address_size" => {
                    return Err(self.error(format!("`.{word}` stands once, at the start")));
                }
                "alias" => return Err(self.error("`.alias` is not supported")),
                "reg" => {
                    return Err(self.error("a register is declared inside a function"));
                }
                _ => self.declaration(&mut module)?,
            }
        }
        Ok(module)
    }

    /// `.version`, `.target` and `.address_size`, in this order.
    fn header(&mut self, module: &mut Module) -> Result<(), SyntaxError> {
        if !self.eat_word("version")? {
            return Err(self.expected("`.version`"));
        }
        let written = &self.source[self.current.start..self.current.end];
        let version = written.split_once('.').and_then(|(major, minor)| {
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        module.version = version.ok_or_else(|| self.expected("a version such as `8.0`"))?;
        if module.version > NEWEST {
            let (major, minor) = NEWEST;
            return Err(self.error(format!(
                "PTX {written} is newer than {major}.{minor}, the newest version known here"
            )));
        }
        self.bump()?;

        if !self.eat_word("target")? {
            return Err(self.expected("`.target`"));
        }
        if !matches!(self.token(), Token::Name(name) if name.starts_with("sm_")) {
            return Err(self.expected("an architecture such as `sm_80`"));
        }
        module.target = self.name("an architecture")?.to_owned();
        while self.eat(",")? {
            let option = self.name("a target option")?;
            // Textures are refused where they are used; a debug module runs like any other.
            if !matches!(option, "debug" | "texmode_unified" | "texmode_independent") {
                let start = self.previous.0;
                return Err(
                    self.error_at(start, format!("the target option `{option}` is unknown"))
                );
            }
        }

        if !self.eat_word("address_size")? {
            // Without it the ISA says 32.
            return Err(self.expected("`.address_size 64`"));
        }
        if self.token()
            != (Token::Int {
                value: 64,
                unsigned: false,
            })
        {
            return Err(self.expected("64, the only address size supported"));
        }
        module.address_size = self.integer("an address size")?;
        Ok(())
    }

    /// A variable or a function, with its linkage.
    fn declaration(&mut self, module: &mut Module) -> Result<(), SyntaxError> {
        let linkage = self.linkage()?;
        match self.token() {
            Token::Word("entry") => module.functions.push(self.function(true)?),
            Token::Word("func") => module.functions.push(self.function(false)?),
            Token::Word(word) => match space(word) {
                Some(Space::Reg) => {
                    return Err(self.error("a register is declared inside a function"));
                }
                Some(Space::Local | Space::Param) => {
                    return Err(self.error(format!("`.{word}` is declared inside a function")));
                }
                Some(space) => module.variables.extend(self.variables(space, linkage)?),
                None => return Err(self.error(format!("the directive `.{word}` is unknown"))),
            },
            _ => return Err(self.expected("a variable, `.func` or `.entry`")),
        }
        Ok(())
    }

    /// `.extern`, `.visible`, `.weak` or `.common`, if there is one.
    fn linkage(&mut self) -> Result<Linkage, SyntaxError> {
        let linkage = match self.token() {
            Token::Word("extern") => Linkage {
                is_extern: true,
                is_visible: false,
            },
            Token::Word("visible" | "weak" | "common") => Linkage {
                is_extern: false,
                is_visible: true,
            },
            _ => return Ok(Linkage::default()),
        };
        self.bump()?;
        Ok(linkage)
    }

    /// `.file 1 "a.cu"` with an optional time and size.
    fn file(&mut self, module: &mut Module) -> Result<(), SyntaxError> {
        self.bump()?;
        let index = self.integer("the index of a file")?;
        let path = self.string("the path of a file")?;
        module.files.push((index, path.to_owned()));
        if self.eat(",")? {
            self.file_detail("a time")?;
            self.expect(",")?;
            self.file_detail("a size")?;
        }
        Ok(())
    }

    /// A time stamp or size; either may need 64 bits.
    fn file_detail(&mut self, what: &str) -> Result<(), SyntaxError> {
        if !matches!(self.token(), Token::Int { .. }) {
            return Err(self.expected(what));
        }
        self.bump()?;
        Ok(())
    }

    /// `.section .debug_info { … }`: debugging data, which has no effect on execution.
    fn section(&mut self) -> Result<(), SyntaxError> {
        self.bump()?;
        match self.token() {
            Token::Word(name) if name.starts_with("debug_") => self.bump()?,
            _ => return Err(self.expected("a section of debugging data such as `.debug_str`")),
        };
        let open = self.current.start;
        self.expect("{")?;
        while !self.at("}") {
            if self.token() == Token::End || self.at("{") {
                return Err(self.error_at(open, "the section has no `}`"));
            }
            self.bump()?;
        }
        self.expect("}")
    }

    /// `.pragma "…", "…";`: hints for the assembler, which change no result.
    fn pragma(&mut self) -> Result<(), SyntaxError> {
        let line = self.bump()?.line;
        self.string("a string")?;
        while self.eat(",")? {
            self.string("a string")?;
        }
        self.end_of_statement(line, "`,` or ")
    }
}

/// The state space that a word names in a declaration.
fn space(word: &str) -> Option<Space> {
    Some(match word {
        "reg" => Space::Reg,
        "param" => Space::Param,
        "const" => Space::Const,
        "global" => Space::Global,
        "shared" => Space::Shared,
        "local" => Space::Local,
        _ => return None,
    })
}
