//! A GGUF file whose header was checked; its tensors are read one at a time.

use super::metadata::Metadata;
use super::reader::Reader;
use super::types::Type;
use crate::error::{PackError, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Most tensors: what a model file can name.
const MAX_TENSORS: u64 = 65535;
/// Longest name of a tensor; llama.cpp reads 63 bytes.
const MAX_NAME: u64 = 256;
/// Alignment of a file that states none.
const DEFAULT_ALIGNMENT: u32 = 32;
/// The first four bytes.
const MAGIC: [u8; 4] = *b"GGUF";

/// Where a tensor lies. `cols` run fastest; a vector has one row.
#[derive(Debug)]
pub(crate) struct Info {
    /// Dimensions as GGUF has them, the fastest first.
    pub(crate) shape: Vec<u64>,
    /// How its numbers are stored.
    pub(crate) kind: &'static Type,
    /// Bytes of its data.
    pub(crate) bytes: u64,
    at: u64,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Gguf {
    /// Keys and values.
    pub(crate) metadata: Metadata,
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Info>,
}

impl Gguf {
    /// Opens a file and checks everything but the values of its tensors.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut r = Reader::open(path)?;
        let magic = r.bytes4()?;
        if magic != MAGIC {
            return Err(r.refuse_with(
                "it does not begin with GGUF",
                "pass a GGUF file, or the Hugging Face folder of the base",
            ));
        }
        let version = r.u32()?;
        check_version(&r, version)?;
        let (tensors, keys) = (r.u64()?, r.u64()?);
        // A tensor takes at least 8 + 4 + 8 + 4 + 8 bytes here.
        if tensors > MAX_TENSORS || tensors * 32 > r.left() {
            return Err(r.refuse(format!("{tensors} tensors; at most {MAX_TENSORS} are read")));
        }
        let metadata = Metadata::read(path, keys, &mut r)?;
        refuse_parts(&metadata)?;
        let alignment = alignment(&metadata)?;
        let tensors = table(&mut r, tensors, alignment)?;
        Ok(Self {
            metadata,
            path: path.into(),
            file: r.into_file(),
            tensors,
        })
    }

    /// The path it was opened with.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if it is there.
    pub(crate) fn tensor(&self, name: &str) -> Option<&Info> {
        self.tensors.get(name)
    }

    /// A tensor that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&Info> {
        self.tensor(name).ok_or_else(|| {
            PackError::refused(
                format!("{}: tensor {name} is missing", self.path.display()),
                "convert the model again, complete",
            )
        })
    }

    /// Checks that a tensor is there with `rows` rows of `cols` numbers, or one dimension when `rows` is 1.
    pub(crate) fn check(&self, name: &str, rows: usize, cols: usize) -> Result<&Info> {
        let info = self.required(name)?;
        let (r, c) = (rows as u64, cols as u64);
        let vector = rows == 1 && info.shape == [c];
        if (!vector && info.shape != [c, r]) || rows == 0 || cols == 0 {
            let wanted = if rows == 1 {
                format!("[{cols}]")
            } else {
                format!("[{cols}, {rows}]")
            };
            return Err(PackError::refused(
                format!(
                    "{}: tensor {name} has shape {:?}, the metadata asks for {wanted}",
                    self.path.display(),
                    info.shape
                ),
                "pass a file whose metadata and tensors belong together",
            ));
        }
        Ok(info)
    }

    /// Reads the bytes of a tensor, at most `piece` at a time.
    pub(crate) fn pieces(
        &mut self,
        name: &str,
        piece: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let (at, mut left) = {
            let info = self.required(name)?;
            (info.at, info.bytes as usize)
        };
        let io = |e| PackError::io("read", &self.path, e);
        self.file.seek(SeekFrom::Start(at)).map_err(io)?;
        let mut bytes = vec![0; left.min(piece.max(1))];
        while left > 0 {
            bytes.truncate(left);
            self.file.read_exact(&mut bytes).map_err(io)?;
            take(&bytes);
            left -= bytes.len();
        }
        Ok(())
    }
}

fn check_version(r: &Reader<'_>, version: u32) -> Result<()> {
    match version {
        2 | 3 => Ok(()),
        1 => Err(r.refuse_with(
            "GGUF version 1",
            "convert the model again: versions 2 and 3 are read",
        )),
        // A big-endian file has its version's bytes the other way round.
        v if v & 0xffff == 0 && v != 0 => Err(r.refuse_with(
            "a big-endian GGUF file",
            "convert it without --bigendian: little-endian files are read",
        )),
        v => Err(r.refuse_with(
            format!("GGUF version {v}"),
            "use a file of version 2 or 3, or a newer pleach",
        )),
    }
}

/// Refuses the parts of a split model.
fn refuse_parts(metadata: &Metadata) -> Result<()> {
    match metadata.u32("split.count")? {
        None | Some(0 | 1) => Ok(()),
        Some(n) => Err(metadata.refuse(
            format!(
                "part {} of a model in {n} files",
                metadata.u32("split.no")?.unwrap_or(0) + 1
            ),
            "join the files with llama-gguf-split --merge",
        )),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let n = metadata
        .u32("general.alignment")?
        .unwrap_or(DEFAULT_ALIGNMENT);
    if !n.is_power_of_two() || n > 1 << 20 {
        return Err(metadata.refuse(
            format!(
                "metadata general.alignment is {n}, a power of two of at most 2^20 is expected"
            ),
            "convert the model again",
        ));
    }
    Ok(u64::from(n))
}

/// Reads the table of tensors and checks that each lies in the file, aligned, and none on another.
fn table(r: &mut Reader<'_>, count: u64, alignment: u64) -> Result<BTreeMap<String, Info>> {
    let mut tensors = BTreeMap::new();
    for n in 0..count {
        r.now(format!("the table's tensor number {n}"));
        let name = r.text(MAX_NAME)?;
        r.now(format!("tensor {name}"));
        let info = info(r, alignment)?;
        if tensors.insert(name, info).is_some() {
            return Err(r.refuse("the name is there twice"));
        }
    }
    let start = r.position().next_multiple_of(alignment);
    let mut ranges = Vec::with_capacity(tensors.len());
    for (name, info) in &mut tensors {
        r.now(format!("tensor {name}"));
        let end = start.checked_add(info.at).and_then(|at| {
            info.at = at;
            at.checked_add(info.bytes)
        });
        match end.filter(|end| *end <= r.size()) {
            Some(end) => ranges.push((info.at, end, name.as_str())),
            None => {
                return Err(r.refuse(format!(
                    "it takes {} bytes from byte {}, the file has {}",
                    info.bytes,
                    info.at,
                    r.size()
                )));
            }
        }
    }
    ranges.sort_unstable();
    for ((_, end, first), (at, _, second)) in ranges.iter().zip(ranges.iter().skip(1)) {
        if at < end {
            r.now(format!("tensor {second}"));
            return Err(r.refuse(format!("it overlaps tensor {first}")));
        }
    }
    Ok(tensors)
}

/// Shape, type and place of a tensor; the place counts from the start of the data.
fn info(r: &mut Reader<'_>, alignment: u64) -> Result<Info> {
    let dims = r.u32()?;
    if !(1..=4).contains(&dims) {
        return Err(r.refuse(format!("{dims} dimensions; 1 to 4 are possible")));
    }
    let shape: Vec<u64> = (0..dims).map(|_| r.u64()).collect::<Result<_>>()?;
    let number = r.u32()?;
    let Some(kind) = Type::of(number) else {
        return Err(r.refuse_with(
            format!("stored as {}", Type::other(number)),
            format!("use a file of {}", Type::list()),
        ));
    };
    let at = r.u64()?;
    if !at.is_multiple_of(alignment) {
        return Err(r.refuse(format!("at {at}, which is not a multiple of {alignment}")));
    }
    let cols = shape.first().copied().unwrap_or(0);
    if !cols.is_multiple_of(kind.values as u64) {
        return Err(r.refuse(format!(
            "rows of {cols} numbers as {}, whose blocks have {}",
            kind.name, kind.values
        )));
    }
    let values = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let bytes = values
        .filter(|n| *n > 0)
        .and_then(|n| (n / kind.values as u64).checked_mul(kind.bytes as u64));
    let Some(bytes) = bytes.filter(|b| *b <= r.size()) else {
        return Err(r.refuse(format!("shape {shape:?}, the file has {} bytes", r.size())));
    };
    Ok(Info {
        shape,
        kind,
        bytes,
        at,
    })
}
