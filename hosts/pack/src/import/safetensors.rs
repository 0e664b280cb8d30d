//! Reads safetensors files tensor by tensor. Nothing is allocated on the word of a header: lengths are
//! held against the size of the file first.

use super::Matrix;
use crate::error::{PackError, Result};
use crate::quant::LARGEST;
use safetensors::tensor::{Dtype, Metadata};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Longest header that is read, in bytes. The largest dense models need less than 1 MiB; a header of a
/// million tensors has more than 50.
const MAX_HEADER: u64 = 8 << 20;
/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;
/// How much of a tensor is read at once.
const PIECE: usize = 1 << 20;

const NEW_COPY: &str = "copy or download the file again";

/// An open file whose header was checked.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl TensorFile {
    /// Opens the file and checks that its tensors tile it, without gap or overlap.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |e| PackError::io("read", path, e);
        let name = path.display();
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; LENGTH_BYTES as usize];
        if size < LENGTH_BYTES {
            return Err(PackError::refused(
                format!("{name}: a safetensors file has at least 8 bytes, this one has {size}"),
                NEW_COPY,
            ));
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > size - LENGTH_BYTES {
            return Err(PackError::refused(
                format!(
                    "{name}: the header announces {length} bytes, the file has {} after the length",
                    size - LENGTH_BYTES
                ),
                format!("{NEW_COPY}: it is damaged, or not a safetensors file"),
            ));
        }
        if length > MAX_HEADER {
            return Err(PackError::refused(
                format!("{name}: a header of {length} bytes; at most {MAX_HEADER} are read"),
                "save the model without the tensors that are not its own",
            ));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| bad_header(path, &header, e))?;
        let data_start = LENGTH_BYTES + length;
        let expected = data_start.saturating_add(metadata.data_len() as u64);
        if expected != size {
            return Err(PackError::refused(
                format!("{name}: {expected} bytes expected, {size} found"),
                format!("{NEW_COPY}: it was cut, or something was appended"),
            ));
        }
        Ok(Self {
            path: path.into(),
            file,
            data_start,
            metadata,
        })
    }

    /// The path it was opened with.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort_unstable();
        names
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// The shape of a tensor, if it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|i| i.shape.as_slice())
    }

    /// The bytes of a tensor's data; 0 if it is not there.
    pub(crate) fn bytes(&self, name: &str) -> u64 {
        self.metadata
            .info(name)
            .map_or(0, |i| (i.data_offsets.1 - i.data_offsets.0) as u64)
    }

    /// Checks that a tensor is there with shape `[rows][cols]`, or with one dimension when `rows` is 1.
    pub(crate) fn check(&self, name: &str, rows: usize, cols: usize) -> Result<()> {
        let file = self.path.display();
        let Some(info) = self.metadata.info(name) else {
            return Err(PackError::refused(
                format!("{file}: tensor {name} is missing"),
                "save the checkpoint again, complete",
            ));
        };
        let vector = rows == 1 && info.shape == [cols];
        if (!vector && info.shape != [rows, cols]) || rows == 0 || cols == 0 {
            let wanted = if rows == 1 {
                format!("[{cols}]")
            } else {
                format!("[{rows}, {cols}]")
            };
            return Err(PackError::refused(
                format!(
                    "{file}: tensor {name} has shape {:?}, the configuration asks for {wanted}",
                    info.shape
                ),
                "pass a configuration and tensors that belong together",
            ));
        }
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(PackError::refused(
                format!("{file}: tensor {name} is stored as {:?}", info.dtype),
                "save it as F32, F16 or BF16: other dtypes are not read",
            ));
        }
        Ok(())
    }

    /// Reads a tensor that [`check`](TensorFile::check) accepts, as f32.
    ///
    /// Errors: as there, and a value that is not finite or above 65504.
    pub(crate) fn read(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.check(name, rows, cols)?;
        let Some(info) = self.metadata.info(name) else {
            return Ok(Matrix {
                rows,
                cols,
                data: Vec::new(),
            });
        };
        let convert: fn(&[u8], &mut Vec<f32>) = match info.dtype {
            Dtype::F32 => f32_values,
            Dtype::F16 => f16_values,
            _ => bf16_values,
        };
        let (start, end) = info.data_offsets;
        let mut data = Vec::with_capacity(rows * cols);
        let io = |e| PackError::io("read", &self.path, e);
        self.file
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .map_err(io)?;
        let mut left = end - start;
        let mut piece = vec![0; left.min(PIECE)];
        while left > 0 {
            piece.truncate(left);
            self.file.read_exact(&mut piece).map_err(io)?;
            convert(&piece, &mut data);
            left -= piece.len();
        }
        check_values(&self.path, name, cols, data.iter().copied())?;
        Ok(Matrix { rows, cols, data })
    }
}

fn f32_values(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
}

fn f16_values(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| half::f16::from_le_bytes(*b).to_f32()),
    );
}

fn bf16_values(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| half::bf16::from_le_bytes(*b).to_f32()),
    );
}

/// Refuses values that the file format cannot hold, by tensor and index.
pub(crate) fn check_values(
    path: &Path,
    name: &str,
    cols: usize,
    values: impl IntoIterator<Item = f32>,
) -> Result<()> {
    let bad = |v: f32| v.is_nan() || v.abs() > LARGEST;
    let Some((i, v)) = values.into_iter().enumerate().find(|(_, v)| bad(*v)) else {
        return Ok(());
    };
    let (file, row, col) = (path.display(), i / cols, i % cols);
    Err(if v.is_finite() {
        PackError::refused(
            format!("{file}: tensor {name}[{row}, {col}] is {v:e}, the limit is {LARGEST}"),
            "train again with smaller weights, or with clipped gradients: f16 ends at that value",
        )
    } else {
        PackError::refused(
            format!("{file}: tensor {name}[{row}, {col}] is {v}"),
            "use a checkpoint from before the training diverged",
        )
    })
}

fn bad_header(path: &Path, header: &[u8], e: serde_json::Error) -> PackError {
    use serde_json::error::Category;
    let file = path.display();
    let cause = match e.classify() {
        Category::Data => format!("{file}: the header is inconsistent: {e}"),
        _ => {
            let at = LENGTH_BYTES as usize + offset(header, e.line(), e.column());
            format!("{file}: the header is not JSON: {e} (byte {at} of the file)")
        }
    };
    PackError::refused(cause, format!("{NEW_COPY}: it is damaged")).with_source(e)
}

/// The byte that a line and column (both from 1) point at.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive(|b| *b == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    before + column.saturating_sub(1)
}
