//! From sections to a file: places, checksums, hashes; and to the disk, all or nothing.

use crate::error::{PackError, Result};
use pleach::blob::format::{
    DATA_ALIGN, HEADER_BYTES, Header, SECTION_ALIGN, SECTION_ENTRY_BYTES, SectionEntry, SectionKind,
};
use pleach::hash::{crc32, fnv1a};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A model file in the making. Sections are written in order, in place.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    bytes: Vec<u8>,
    entries: Vec<SectionEntry>,
    header: Header,
}

impl BlobWriter {
    /// Begins a file of `sections` sections.
    pub(crate) fn new(sections: usize) -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES + sections * SECTION_ENTRY_BYTES],
            entries: Vec::with_capacity(sections),
            header: Header {
                sections: sections as u16,
                length: 0,
                base_hash: 0,
                site_hash: 0,
                classifier_hash: 0,
                table_crc: 0,
            },
        }
    }

    /// The header so far: the hashes of the sections that are written.
    pub(crate) fn header(&self) -> Header {
        self.header
    }

    /// Adds the next section; `fill` appends its bytes.
    pub(crate) fn section(
        &mut self,
        kind: SectionKind,
        index: u16,
        fill: impl FnOnce(&mut Section<'_>) -> Result<()>,
    ) -> Result<()> {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(SECTION_ALIGN), 0);
        let start = self.bytes.len();
        fill(&mut Section {
            bytes: &mut self.bytes,
            start,
        })?;
        let part = self.bytes.get(start..).unwrap_or_default();
        match kind {
            SectionKind::Base => self.header.base_hash = fnv1a(part),
            SectionKind::Sites => self.header.site_hash = fnv1a(part),
            SectionKind::Classifier => self.header.classifier_hash = fnv1a(part),
            _ => {}
        }
        self.entries.push(SectionEntry {
            kind: kind as u16,
            index,
            crc: crc32(part),
            offset: start as u64,
            length: part.len() as u64,
        });
        Ok(())
    }

    /// Writes header and section table.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<SectionEntry>) {
        let table: Vec<u8> = self.entries.iter().flat_map(SectionEntry::encode).collect();
        self.header.length = self.bytes.len() as u64;
        self.header.table_crc = crc32(&table);
        let head = self.header.encode().into_iter().chain(table);
        for (slot, byte) in self.bytes.iter_mut().zip(head) {
            *slot = byte;
        }
        (self.bytes, self.entries)
    }
}

/// The bytes of one section, without a file around it.
pub(crate) fn alone(fill: impl FnOnce(&mut Section<'_>) -> Result<()>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fill(&mut Section {
        bytes: &mut bytes,
        start: 0,
    })?;
    Ok(bytes)
}

/// The section that is being written. Positions count from its start.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl Section<'_> {
    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Pads to the alignment of tensor data and returns the position.
    pub(crate) fn align(&mut self) -> usize {
        // Sections begin at multiples of 64, so the file's position serves.
        self.bytes
            .resize(self.bytes.len().next_multiple_of(DATA_ALIGN), 0);
        self.len()
    }

    /// Overwrites bytes that were kept free.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(self.start + at).zip(bytes) {
            *slot = *byte;
        }
    }

    /// What was written from a position on.
    pub(crate) fn tail(&self, at: usize) -> &[u8] {
        self.bytes.get(self.start + at..).unwrap_or_default()
    }
}

/// Writes a file so that either all of it is there under its name, or nothing of it: first under a temporary
/// name in the same folder, then renamed.
///
/// What `path` is stays: of a symbolic link the target is written, a file keeps its permissions, and a pipe or a
/// device is written to as it is.
///
/// Errors: whatever the disk says; the temporary file is removed.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.pleach");
/// pleach_pack::write_atomically(&path, b"all of it")?;
/// assert_eq!(std::fs::read(path)?, b"all of it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes).map_err(|e| PackError::io("write", path, e))
}

fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(old) if old.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(old) if !old.is_file() => return fs::write(path, bytes),
        Ok(old) => Some(old.permissions()),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let path = target_of_link(path);
    let (temporary, file) = create_beside(&path)?;
    let done = fill(file, bytes, old).and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        // The first error is the one to report; what cannot be removed either stays.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Where the links of `path` end, whether something is there or not.
fn target_of_link(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    // Links without an end were refused when the file's kind was looked up.
    while let Ok(target) = fs::read_link(&path) {
        path = match path.parent() {
            Some(folder) => folder.join(target),
            None => target,
        };
    }
    path
}

/// Permissions first: nobody reads what the old file did not let them read.
fn fill(mut file: File, bytes: &[u8], permissions: Option<Permissions>) -> std::io::Result<()> {
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new file beside `path`, under a name that nobody has.
fn create_beside(path: &Path) -> std::io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut n = 0u32;
    loop {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{n}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
        {
            Ok(file) => return Ok((temporary, file)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && n < 1000 => n += 1,
            Err(e) => return Err(e),
        }
    }
}
