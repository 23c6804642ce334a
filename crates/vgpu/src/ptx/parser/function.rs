//! Functions: signatures, directives and the statements of a body.

use super::{Parser, space};
use crate::ptx::ast::{Directives, Function, Param, Space, Statement, Type};
use crate::ptx::error::SyntaxError;
use crate::ptx::lexer::Token;

impl Parser<'_> {
    /// A function from its `.entry` or `.func` on.
    pub(super) fn function(&mut self, is_entry: bool) -> Result<Function, SyntaxError> {
        let line = self.bump()?.line;
        let returns = if !is_entry && self.at("(") {
            self.params()?
        } else {
            Vec::new()
        };
        let name = self.name("the name of a function")?.to_owned();
        let params = if self.at("(") {
            self.params()?
        } else {
            Vec::new()
        };
        let directives = self.directives()?;
        let body = if self.eat(";")? {
            None
        } else if self.at("{") {
            Some(self.block()?)
        } else {
            return Err(self.expected("a directive, `{` or `;`"));
        };
        Ok(Function {
            is_entry,
            name,
            returns,
            params,
            directives,
            body,
            line,
        })
    }

    /// Parameters in parentheses.
    fn params(&mut self) -> Result<Vec<Param>, SyntaxError> {
        self.expect("(")?;
        let mut params = Vec::new();
        if self.eat(")")? {
            return Ok(params);
        }
        loop {
            params.push(self.param()?);
            if !self.eat(",")? {
                break;
            }
        }
        if !self.eat(")")? {
            return Err(self.expected("`,` or `)`"));
        }
        Ok(params)
    }

    fn param(&mut self) -> Result<Param, SyntaxError> {
        let space = match self.token() {
            Token::Word("param") => Space::Param,
            Token::Word("reg") => Space::Reg,
            _ => return Err(self.expected("`.param` or `.reg`")),
        };
        self.bump()?;
        let mut align = None;
        let mut ty = None;
        while let Token::Word(word) = self.token() {
            let start = self.bump()?.start;
            match word {
                "align" if align.is_none() => align = Some(self.alignment()?),
                "ptr" if ty.is_some() => self.pointee()?,
                _ => match Type::parse(word) {
                    Some(found) if ty.is_none() => ty = Some(found),
                    _ => {
                        let message = format!("`.{word}` does not belong to a parameter here");
                        return Err(self.error_at(start, message));
                    }
                },
            }
        }
        let Some(ty) = ty else {
            return Err(self.expected("the type of a parameter"));
        };
        if ty == Type::Pred && space == Space::Param {
            return Err(self.error("a predicate has no memory to be passed in"));
        }
        // A call prototype names its parameters `_`.
        let name = match self.token() {
            Token::Name("_") => self.bump().map(|_| "_")?,
            _ => self.name("the name of a parameter")?,
        };
        let start = self.previous.0;
        let dimensions = self.dimensions()?;
        let elements = self.checked_size(ty, 1, &dimensions, start)?;
        let align = align.unwrap_or(ty.bytes().max(1) as u64);
        Ok(Param {
            space,
            ty,
            align,
            name: name.to_owned(),
            elements,
        })
    }

    /// What follows `.ptr`: the space and alignment of what a pointer points to. Hints only: the
    /// addresses of accesses are checked where they happen.
    fn pointee(&mut self) -> Result<(), SyntaxError> {
        if let Token::Word("const" | "global" | "shared" | "local" | "generic") = self.token() {
            self.bump()?;
        }
        if self.eat_word("align")? {
            self.alignment()?;
        }
        Ok(())
    }

    /// Directives between a signature and its body.
    fn directives(&mut self) -> Result<Directives, SyntaxError> {
        let mut directives = Directives::default();
        while let Token::Word(word) = self.token() {
            if word == "pragma" {
                self.pragma()?;
                continue;
            }
            let start = self.bump()?.start;
            match word {
                "maxntid" => directives.max_threads = Some(self.extent()?),
                "reqntid" => directives.required_threads = Some(self.extent()?),
                // The older name of the same request.
                "minnctapersm" | "maxnctapersm" => {
                    directives.min_blocks_per_sm = Some(self.integer("a number of blocks")?);
                }
                "maxnreg" => directives.max_registers = Some(self.integer("a register count")?),
                "reqnctapercluster" => directives.required_cluster = Some(self.extent()?),
                "explicitcluster" => directives.explicit_cluster = true,
                "maxclusterrank" => {
                    directives.max_cluster_rank = Some(self.integer("a number of blocks")?);
                }
                "noreturn" => directives.noreturn = true,
                _ => {
                    let message = format!("the function directive `.{word}` is not supported");
                    return Err(self.error_at(start, message));
                }
            }
        }
        Ok(directives)
    }

    /// One to three sizes; those left out are 1.
    fn extent(&mut self) -> Result<[u32; 3], SyntaxError> {
        let mut extent = [1; 3];
        for (axis, size) in extent.iter_mut().enumerate() {
            if axis > 0 && !self.eat(",")? {
                break;
            }
            *size = self.integer("a size")?;
            if *size == 0 {
                let start = self.previous.0;
                return Err(self.error_at(start, "a size cannot be 0"));
            }
        }
        Ok(extent)
    }

    /// `{ … }`: the statements of a body or of an inner scope.
    fn block(&mut self) -> Result<Vec<Statement>, SyntaxError> {
        let open = self.current.start;
        self.expect("{")?;
        let mut statements = Vec::new();
        while !self.at("}") {
            if self.token() == Token::End {
                return Err(self.error_at(open, "this `{` has no `}`"));
            }
            self.statement(&mut statements)?;
        }
        self.expect("}")?;
        Ok(statements)
    }

    fn statement(&mut self, statements: &mut Vec<Statement>) -> Result<(), SyntaxError> {
        match self.token() {
            Token::Symbol("{") => {
                let inner = self.nested(Self::block)?;
                statements.push(Statement::Block(inner));
            }
            Token::Symbol("@") => statements.push(Statement::Instruction(self.guarded()?)),
            Token::Name(name) if name != "_" => {
                let line = self.bump()?.line;
                statements.push(if self.eat(":")? {
                    self.labelled(name, line)?
                } else {
                    Statement::Instruction(self.instruction(name, line)?)
                });
            }
            Token::Word("loc") => statements.push(self.loc()?),
            Token::Word("pragma") => self.pragma()?,
            Token::Word("reg") => statements.push(self.registers()?),
            Token::Word(word) => {
                let linkage = self.linkage()?;
                let Token::Word(found) = self.token() else {
                    return Err(self.expected("a variable"));
                };
                match space(found) {
                    Some(space) if space != Space::Reg => {
                        let variables = self.variables(space, linkage)?;
                        statements.extend(variables.into_iter().map(Statement::Variable));
                    }
                    _ => {
                        return Err(self.error(format!("`.{word}` does not start a statement")));
                    }
                }
            }
            _ => return Err(self.expected("a statement")),
        }
        Ok(())
    }

    /// What a label names: a table, or the place of the next statement.
    fn labelled(&mut self, name: &str, line: u32) -> Result<Statement, SyntaxError> {
        let name = name.to_owned();
        let Token::Word(word) = self.token() else {
            return Ok(Statement::Label { name, line });
        };
        match word {
            "branchtargets" | "calltargets" => {
                self.bump()?;
                let mut labels = vec![self.name("a name")?.to_owned()];
                while self.eat(",")? {
                    labels.push(self.name("a name")?.to_owned());
                }
                self.end_of_statement(line, "`,` or ")?;
                Ok(if word == "branchtargets" {
                    Statement::BranchTargets { name, labels, line }
                } else {
                    Statement::CallTable { name, line }
                })
            }
            "callprototype" => {
                self.prototype()?;
                Ok(Statement::CallTable { name, line })
            }
            _ => Ok(Statement::Label { name, line }),
        }
    }

    /// `.callprototype (returns) _ (params) .noreturn;`
    fn prototype(&mut self) -> Result<(), SyntaxError> {
        let line = self.bump()?.line;
        if self.at("(") {
            self.params()?;
        }
        if self.token() != Token::Name("_") {
            return Err(self.expected("`_`"));
        }
        self.bump()?;
        if self.at("(") {
            self.params()?;
        }
        self.eat_word("noreturn")?;
        self.end_of_statement(line, "")
    }

    /// `.loc 1 20 3`, with `, function_name $L__info_string0+12, inlined_at 1 30 5` for inlined
    /// code, whose own place is the first one.
    fn loc(&mut self) -> Result<Statement, SyntaxError> {
        self.bump()?;
        let file = self.integer("the index of a file")?;
        let line = self.integer("a source line")?;
        let column = self.integer("a source column")?;
        while self.eat(",")? {
            match self.token() {
                Token::Name("function_name") => {
                    self.bump()?;
                    self.name("the label of a function's name")?;
                    self.offset()?;
                }
                Token::Name("inlined_at") => {
                    self.bump()?;
                    self.integer("the index of a file")?;
                    self.integer("a source line")?;
                    self.integer("a source column")?;
                }
                _ => return Err(self.expected("`function_name` or `inlined_at`")),
            }
        }
        Ok(Statement::Loc { file, line, column })
    }
}
