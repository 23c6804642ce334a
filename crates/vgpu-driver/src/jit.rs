//! Options of the PTX compiler: only the logs mean something here.

use std::ffi::c_uint;

use crate::boundary::{Buffer, In, Out};
use crate::failure::{Failure, Outcome};

const INFO_BUFFER: c_uint = 3;
const INFO_BYTES: c_uint = 4;
const ERROR_BUFFER: c_uint = 5;
const ERROR_BYTES: c_uint = 6;
/// `CU_JIT_NUM_OPTIONS`, with the internal ones that the runtime passes.
const MOST_OPTIONS: c_uint = 64;

/// A log: where it goes, its size, and the option that tells the program how much was used.
#[derive(Clone, Copy, Default)]
struct Log {
    buffer: u64,
    bytes: usize,
    used: Option<usize>,
}

/// The logs that a program asked for.
#[derive(Clone, Copy)]
pub(crate) struct Logs {
    values: Out<usize>,
    info: Log,
    error: Log,
}

impl Logs {
    /// Reads the options of a load.
    ///
    /// # Errors
    /// `INVALID_VALUE` for missing arrays and for numbers that are no options.
    pub fn read(count: c_uint, options: In<c_uint>, values: Out<usize>) -> Outcome<Self> {
        let (mut info, mut error) = (Log::default(), Log::default());
        for index in 0..count as usize {
            let value = values.as_in().at(index)?;
            match options.at(index)? {
                INFO_BUFFER => info.buffer = value as u64,
                INFO_BYTES => (info.bytes, info.used) = (value as u32 as usize, Some(index)),
                ERROR_BUFFER => error.buffer = value as u64,
                ERROR_BYTES => (error.bytes, error.used) = (value as u32 as usize, Some(index)),
                other if other < MOST_OPTIONS => {}
                other => return Err(Failure::value(format!("{other} is no JIT option"))),
            }
        }
        Ok(Self {
            values,
            info,
            error,
        })
    }

    /// Fills the logs: nothing to tell when the load went well, else why it did not. Words that no
    /// log takes stay in the failure, and go to stderr.
    pub fn fill<T>(&self, result: Outcome<T>) -> Outcome<T> {
        self.write(self.info, "")?;
        match result {
            Ok(value) => {
                self.write(self.error, "")?;
                Ok(value)
            }
            Err(Failure {
                code,
                message: Some(message),
            }) => {
                if self.write(self.error, &message)? {
                    return Err(Failure::quiet(code));
                }
                Err(Failure {
                    code,
                    message: Some(message),
                })
            }
            Err(quiet) => Err(quiet),
        }
    }

    fn write(&self, log: Log, text: &str) -> Outcome<bool> {
        if log.buffer == 0 || log.bytes == 0 {
            return Ok(false);
        }
        let used = Buffer::from_address(log.buffer).set_text(text, log.bytes)?;
        if let Some(index) = log.used {
            self.values
                .set_at(index, if text.is_empty() { 0 } else { used })?;
        }
        Ok(true)
    }
}
