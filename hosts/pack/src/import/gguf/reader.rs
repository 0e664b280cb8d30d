//! Reads the header of a file field by field. Every length is held against what is left of the file before
//! anything is allocated for it.

use crate::error::{PackError, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Longest header that is read: larger vocabularies than any known need less than 32 MiB.
const MAX_HEADER: u64 = 64 << 20;

const NEW_COPY: &str = "copy or download the file again: it is damaged";

/// A file that is read from its start.
pub(super) struct Reader<'p> {
    path: &'p Path,
    file: BufReader<File>,
    at: u64,
    size: u64,
    /// What is being read, for messages.
    what: String,
}

impl<'p> Reader<'p> {
    pub(super) fn open(path: &'p Path) -> Result<Self> {
        let io = |e| PackError::io("read", path, e);
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(PackError::refused(
                format!("{}: not a file", path.display()),
                "pass a GGUF file, or the Hugging Face folder of the base",
            ));
        }
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        Ok(Self {
            path,
            file: BufReader::new(file),
            at: 0,
            size,
            what: "the header".into(),
        })
    }

    /// Says what the next fields are, for messages.
    pub(super) fn now(&mut self, what: impl Into<String>) {
        self.what = what.into();
    }

    /// Bytes that were read.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.size - self.at
    }

    /// A refusal that names the file, what is read, and where.
    pub(super) fn refuse(&self, cause: impl std::fmt::Display) -> PackError {
        self.refuse_with(cause, NEW_COPY)
    }

    /// The same with another cure.
    pub(super) fn refuse_with(
        &self,
        cause: impl std::fmt::Display,
        cure: impl Into<String>,
    ) -> PackError {
        let (path, what) = (self.path.display(), &self.what);
        PackError::refused(format!("{path}: {what}: {cause}"), cure)
    }

    /// Checks that `bytes` more are there and within the longest header.
    fn claim(&self, bytes: u64) -> Result<()> {
        if bytes > self.left() {
            return Err(self.refuse(format!(
                "{bytes} bytes expected at byte {}, the file has {} more",
                self.at,
                self.left()
            )));
        }
        if self.at + bytes > MAX_HEADER {
            return Err(self.refuse_with(
                format!("a header of more than {MAX_HEADER} bytes"),
                "check that it is the model's file: no such header is that long",
            ));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .map_err(|e| PackError::io("read", self.path, e))?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub(super) fn bytes4(&mut self) -> Result<[u8; 4]> {
        self.array()
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of at most 8 bytes, little-endian, in the low ones.
    pub(super) fn scalar(&mut self, bytes: usize) -> Result<u64> {
        Ok(match bytes {
            1 => u64::from(u8::from_le_bytes(self.array()?)),
            2 => u64::from(u16::from_le_bytes(self.array()?)),
            4 => u64::from(self.u32()?),
            _ => self.u64()?,
        })
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<()> {
        self.claim(bytes)?;
        self.file
            .seek_relative(bytes as i64)
            .map_err(|e| PackError::io("read", self.path, e))?;
        self.at += bytes;
        Ok(())
    }

    /// Bytes as they are.
    pub(super) fn take(&mut self, bytes: u64) -> Result<Vec<u8>> {
        self.claim(bytes)?;
        let mut taken = vec![0; bytes as usize];
        self.file
            .read_exact(&mut taken)
            .map_err(|e| PackError::io("read", self.path, e))?;
        self.at += bytes;
        Ok(taken)
    }

    /// A text with its length before it, of at most `most` bytes.
    pub(super) fn text(&mut self, most: u64) -> Result<String> {
        let length = self.u64()?;
        if length > most && length <= self.left() {
            return Err(self.refuse(format!("a text of {length} bytes; at most {most} are read")));
        }
        let bytes = self.take(length)?;
        String::from_utf8(bytes).map_err(|e| self.refuse("not UTF-8").with_source(e))
    }

    /// Goes to a byte that was passed before.
    pub(super) fn back_to(&mut self, at: u64) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(at))
            .map_err(|e| PackError::io("read", self.path, e))?;
        self.at = at;
        Ok(())
    }

    /// The file, for its tensors.
    pub(super) fn into_file(self) -> File {
        self.file.into_inner()
    }
}
