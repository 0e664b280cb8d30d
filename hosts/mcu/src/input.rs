//! What the host sends at run time: lines of standard input or of a file.

use core::ffi::CStr;
use semihosting::experimental::env::{Args, args};
use semihosting::fs::File;
use semihosting::io::{self, Read, Stdin};

/// Where lines come from.
enum Source {
    Stdin(Stdin),
    File(File),
}

/// Reads lines into one buffer of `N` bytes.
pub struct Lines<const N: usize> {
    source: Source,
    buffer: [u8; N],
    /// Bytes of `buffer` that are filled.
    filled: usize,
    /// Bytes of `buffer` that were handed out.
    taken: usize,
}

/// Why a line could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// The host refused to open or read.
    Host,
    /// A line, a path or a file is longer than its buffer.
    TooLong,
    /// A line is not UTF-8.
    Utf8,
}

impl InputError {
    /// The cause.
    pub const fn why(self) -> &'static str {
        match self {
            InputError::Host => "the host refused to open or read the input",
            InputError::TooLong => "a line or file is longer than its buffer",
            InputError::Utf8 => "a line is not UTF-8",
        }
    }
}

impl<const N: usize> Lines<N> {
    /// Lines of standard input.
    pub fn stdin() -> Result<Self, InputError> {
        Ok(Self::new(Source::Stdin(
            io::stdin().map_err(|_| InputError::Host)?,
        )))
    }

    /// Lines of a file on the host.
    pub fn file(path: &CStr) -> Result<Self, InputError> {
        Ok(Self::new(Source::File(
            File::open(path).map_err(|_| InputError::Host)?,
        )))
    }

    /// Lines of the file that the first argument names, else of standard input.
    #[inline(never)] // its buffers are not the caller's
    pub fn from_args() -> Result<Self, InputError> {
        let mut path = [0; 256];
        match first_arg(&mut path) {
            Some(path) => Self::file(path),
            None => Self::stdin(),
        }
    }

    const fn new(source: Source) -> Self {
        Self {
            source,
            buffer: [0; N],
            filled: 0,
            taken: 0,
        }
    }

    /// The next line without its end, or `None` after the last. A line that is refused is skipped: the next
    /// call reads the one after it.
    pub fn next_line(&mut self) -> Result<Option<&str>, InputError> {
        self.buffer
            .copy_within(self.taken.min(self.filled)..self.filled.min(N), 0);
        self.filled -= self.taken;
        self.taken = 0;
        let mut searched = 0;
        let end = loop {
            let new = self.buffer.get(searched..self.filled).unwrap_or(&[]);
            if let Some(at) = new.iter().position(|&b| b == b'\n') {
                self.taken = searched + at + 1;
                break searched + at;
            }
            searched = self.filled;
            if searched == N {
                self.skip_line()?;
                return Err(InputError::TooLong);
            }
            match self.read()? {
                0 if self.filled == 0 => return Ok(None),
                0 => {
                    self.taken = self.filled;
                    break self.filled;
                }
                n => self.filled += n,
            }
        };
        let line = self.buffer.get(..end).unwrap_or(&[]);
        let line = core::str::from_utf8(line).map_err(|_| InputError::Utf8)?;
        Ok(Some(line.strip_suffix('\r').unwrap_or(line)))
    }

    /// Drops what is buffered and the rest of the line.
    fn skip_line(&mut self) -> Result<(), InputError> {
        loop {
            self.filled = 0;
            self.filled = self.read()?;
            let new = self.buffer.get(..self.filled).unwrap_or(&[]);
            if let Some(at) = new.iter().position(|&b| b == b'\n') {
                self.taken = at + 1;
                return Ok(());
            }
            if new.is_empty() {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> Result<usize, InputError> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or(&mut []);
        match &mut self.source {
            Source::Stdin(s) => s.read(room),
            Source::File(f) => f.read(room),
        }
        .map_err(|_| InputError::Host)
    }
}

/// Reads a whole file of the host into `out` and returns its length.
pub fn read_file(path: &str, out: &mut [u8]) -> Result<usize, InputError> {
    let mut name = [0; 256];
    // The last byte stays 0.
    let room = name.get_mut(..path.len()).filter(|r| r.len() < 256);
    room.ok_or(InputError::TooLong)?
        .copy_from_slice(path.as_bytes());
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| InputError::TooLong)?;
    let mut file = File::open(name).map_err(|_| InputError::Host)?;
    let mut filled = 0;
    loop {
        let room = out.get_mut(filled..).unwrap_or(&mut []);
        if room.is_empty() {
            return Err(InputError::TooLong);
        }
        match file.read(room).map_err(|_| InputError::Host)? {
            0 => return Ok(filled),
            n => filled += n,
        }
    }
}

/// The first argument after the program's name (QEMU: `-semihosting-config arg=intent,arg=FILE`).
fn first_arg(out: &mut [u8; 256]) -> Option<&CStr> {
    let args: Args<256> = args().ok()?;
    let arg = (&args).into_iter().nth(1)?.ok()?;
    out.get_mut(..arg.len())?.copy_from_slice(arg.as_bytes());
    CStr::from_bytes_until_nul(out).ok()
}
