//! What lies between C and the rest of the crate: panics stop here, pointers become values here.
//!
//! The pointer types below are made by C only: they are parameters of exported functions. That
//! their pointers are null, or good for what the CUDA documentation says about the parameter, is
//! the one thing that the caller of a C function vouches for and that nobody here can check.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::CuResult;
use crate::failure::{Failure, Outcome, code};

thread_local! {
    /// Whether the null stream means the thread's own one: in functions that end in `_ptsz`,
    /// `_ptds`.
    static PER_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the call under way takes the null stream for the thread's own one.
pub(crate) fn null_stream_is_per_thread() -> bool {
    PER_THREAD.get()
}

/// Runs the body of the exported function `name`; returns its result code.
pub(crate) fn entry(name: &'static str, body: impl FnOnce() -> Outcome) -> CuResult {
    let before = PER_THREAD.replace(name.ends_with("_ptsz") || name.ends_with("_ptds"));
    let result = catch_unwind(AssertUnwindSafe(body));
    PER_THREAD.set(before);
    match result {
        Ok(Ok(())) => code::SUCCESS,
        Ok(Err(Failure { code, message })) => {
            if let Some(message) = message {
                say(&format!("{name}: {message}"));
            }
            code
        }
        Err(panic) => {
            say(&format!("{name}: internal error: {}", words(&*panic)));
            code::UNKNOWN
        }
    }
}

/// One message on stderr; a closed stderr is no reason to fail.
pub(crate) fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tollgate-vgpu: {message}");
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Declares exported functions: the names a function has, its parameters as C passes them, and the
/// Rust function behind it, which returns an [`Outcome`].
macro_rules! exports {
    ($($($name:ident)|+ ($($parameters:tt)*) => $body:path;)*) => {
        $($crate::boundary::exports!(@names [$($name)+] ($($parameters)*) $body);)*

        /// Everything that is exported here.
        pub(super) const EXPORTS: &[$crate::boundary::Export] =
            &[$($($crate::boundary::Export::new(stringify!($name), $name as *const ()),)+)*];
    };
    (@names [$($name:ident)+] $parameters:tt $body:path) => {
        $($crate::boundary::exports!(@one $name $parameters $body);)+
    };
    (@one $name:ident ($($parameter:ident: $type:ty),* $(,)?) $body:path) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($parameter: $type),*) -> $crate::abi::CuResult {
            $crate::boundary::entry(stringify!($name), || $body($($parameter),*))
        }
    };
}
pub(crate) use exports;

/// A function that the library exports.
#[derive(Clone, Copy)]
pub(crate) struct Export {
    pub name: &'static str,
    pub address: *const (),
}

impl Export {
    pub const fn new(name: &'static str, address: *const ()) -> Self {
        Self { name, address }
    }
}

/// Where a result goes: `T*`.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    pub const NULL: Self = Self(std::ptr::null_mut());

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Stores the result.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a null pointer.
    pub fn set(self, value: T) -> Outcome {
        self.check()?;
        // SAFETY: not null; the caller of the C function vouches for the rest.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Stores the result if there is a place for it.
    pub fn set_if_wanted(self, value: T) {
        if !self.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write_unaligned(value) }
        }
    }

    /// Checks for null before work is done whose result would be lost.
    pub fn check(self) -> Outcome {
        if self.is_null() {
            return Err(Failure::quiet(code::INVALID_VALUE));
        }
        Ok(())
    }

    /// Stores the result in element `index` of an array.
    pub fn set_at(self, index: usize, value: T) -> Outcome {
        self.check()?;
        // SAFETY: as in `set`; the callers stay within the size they were told.
        unsafe { self.0.add(index).write_unaligned(value) };
        Ok(())
    }

    /// Stores several results, one after the other.
    pub fn set_all(self, values: impl IntoIterator<Item = T>) -> Outcome {
        values
            .into_iter()
            .enumerate()
            .try_for_each(|(index, value)| self.set_at(index, value))
    }

    /// The same place for a value of another type: `void*`, whose meaning another parameter tells.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// The same place as an argument: parameters that go both ways.
    pub fn as_in(self) -> In<T> {
        In(self.0)
    }
}

/// Where an argument lies: `const T*`.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// The argument.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a null pointer.
    pub fn get(self) -> Outcome<T> {
        if self.is_null() {
            return Err(Failure::quiet(code::INVALID_VALUE));
        }
        // SAFETY: not null; the caller of the C function vouches for the rest.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// An array of `count` arguments; it may be null when there are none.
    pub fn list(self, count: usize) -> Outcome<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.get()?;
        // SAFETY: as in `get`, for each of the elements that the caller counted.
        Ok((0..count)
            .map(|i| unsafe { self.0.add(i).read_unaligned() })
            .collect())
    }

    /// Element `index` of an array.
    pub fn at(self, index: usize) -> Outcome<T> {
        self.get()?;
        // SAFETY: as in `list`.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }
}

impl<T> In<T> {
    pub const NULL: Self = Self(std::ptr::null());

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub fn address(self) -> u64 {
        self.0 as u64
    }

    pub fn cast<U>(self) -> In<U> {
        In(self.0.cast())
    }

    /// The argument at an address that another argument holds.
    pub fn from_address(address: usize) -> Self {
        Self(address as *const T)
    }
}

/// A string: `const char*`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    /// A copy of the string.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a null pointer and for what is not UTF-8.
    pub fn get(self) -> Outcome<String> {
        if self.0.is_null() {
            return Err(Failure::quiet(code::INVALID_VALUE));
        }
        // SAFETY: not null; the caller of the C function vouches for the NUL at the end.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str()
            .map(str::to_owned)
            .map_err(|_| Failure::value("the name is not UTF-8"))
    }
}

/// Memory of the program: `void*`.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Buffer(*mut u8);

impl Buffer {
    pub fn from_address(address: u64) -> Self {
        Self(address as *mut u8)
    }

    pub fn address(self) -> u64 {
        self.0 as u64
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// `bytes` of it to read.
    pub fn read<'a>(self, bytes: usize) -> Outcome<&'a [u8]> {
        if bytes == 0 {
            return Ok(&[]);
        }
        self.check(bytes)?;
        // SAFETY: not null; the caller of the C function vouches for the bytes, and that nobody
        // writes them during the call. The slice lives no longer than the call.
        Ok(unsafe { std::slice::from_raw_parts(self.0, bytes) })
    }

    /// `bytes` of it to write.
    pub fn write<'a>(self, bytes: usize) -> Outcome<&'a mut [u8]> {
        if bytes == 0 {
            return Ok(&mut []);
        }
        self.check(bytes)?;
        // SAFETY: as in `read`; nobody else uses the bytes during the call.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0, bytes) })
    }

    fn check(self, bytes: usize) -> Outcome {
        if self.is_null() || isize::try_from(bytes).is_err() {
            return Err(Failure::quiet(code::INVALID_VALUE));
        }
        Ok(())
    }

    /// Stores `text` with a NUL at its end, cut to `capacity` bytes with it. Returns the bytes
    /// used.
    pub fn set_text(self, text: &str, capacity: usize) -> Outcome<usize> {
        if capacity == 0 {
            return Err(Failure::quiet(code::INVALID_VALUE));
        }
        let used = text.len().min(capacity - 1);
        let out = self.write(used + 1)?;
        out[..used].copy_from_slice(&text.as_bytes()[..used]);
        out[used] = 0;
        Ok(used + 1)
    }
}
