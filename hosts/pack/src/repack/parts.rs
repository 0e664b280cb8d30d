//! The sections that hold weights: tables rewritten, tensors moved.

use super::damaged;
use crate::error::{PackError, Result};
use crate::layout::{Packed, move_floats, pack_q8, unpack_q8};
use crate::options::Progress;
use crate::section::Table;
use crate::section::base::layout_of;
use crate::target::Target;
use crate::write::Section;
use pleach::blob::format::{
    DATA_ALIGN, EXPERT_HEADER_BYTES, EXPERT_SITE_BYTES, ExpertHeader, ExpertSite, Header, Module,
    TABLE_HEAD_BYTES, TENSOR_ENTRY_BYTES, TensorEntry,
};
use pleach::hash::crc32;
use pleach::kernels::layout::{Dtype, Layout};
use pleach::{Error, Model};
use std::path::Path;

/// `len` bytes from `at`.
pub(super) fn slice(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

/// A matrix as it lies in a file.
struct Stored<'a> {
    dtype: u8,
    layout: u8,
    scale_exp: i8,
    shape: (usize, usize),
    bytes: Option<&'a [u8]>,
}

impl Stored<'_> {
    /// The same numbers in another layout, or in rows if that does not hold them; `what` it is, for messages.
    fn moved(&self, to: Layout, model: &Model<'_>, path: &Path, what: &str) -> Result<Packed> {
        let (Some(dtype), Some(from), Some(bytes)) = (
            Dtype::from_tag(self.dtype),
            Layout::from_tag(self.layout),
            self.bytes,
        ) else {
            return Err(damaged(path, Error::Corrupt));
        };
        let group = model.config().group as usize;
        let moved = match dtype {
            Dtype::Q8 => unpack_q8(bytes, from, self.shape, self.scale_exp, group)
                .map(|t| pack_q8(&t, self.shape, to, group)),
            Dtype::F16 | Dtype::F32 => move_floats(bytes, dtype, (from, to), self.shape),
        };
        // `parse` has seen that the bytes are as many as the shape asks for.
        moved.ok_or_else(|| {
            refused(
                path,
                what,
                "a weight is 128, which only m4 can hold and no packer writes",
            )
        })
    }
}

fn refused(path: &Path, what: &str, why: &str) -> PackError {
    PackError::refused(
        format!("{}: {what}: {why}", path.display()),
        "pack the checkpoint again with --for",
    )
}

/// The tensors of base or classifier: the table, and the data behind it.
pub(super) fn tensors(
    out: &mut Section<'_>,
    (path, model): (&Path, &Model<'_>),
    bytes: &[u8],
    target: Target,
    progress: &mut dyn Progress,
) -> Result<()> {
    let corrupt = || damaged(path, Error::Corrupt);
    let head: &[u8; 8] = bytes.first_chunk().ok_or_else(corrupt)?;
    let words = head.as_chunks::<4>().0.iter();
    let mut words = words.map(|w| u32::from_le_bytes(*w));
    let (count, flags) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
    let rows = bytes.get(TABLE_HEAD_BYTES..).ok_or_else(corrupt)?;
    let rows = rows.as_chunks::<TENSOR_ENTRY_BYTES>().0;
    let rows = rows.get(..count as usize).ok_or_else(corrupt)?;
    let mut table = Table::begin(out, rows.len(), flags);
    let tied = model.config().tied;
    for (n, row) in rows.iter().enumerate() {
        let e = TensorEntry::decode(row);
        let stored = Stored {
            dtype: e.dtype,
            layout: e.layout,
            scale_exp: e.scale_exp,
            shape: (e.rows as usize, e.cols as usize),
            bytes: slice(bytes, e.offset as usize, e.length as usize),
        };
        let to = layout_of(e.role, tied, target.weights());
        let t = stored.moved(to, model, path, &format!("base tensor {n}"))?;
        table.push(out, e.role, e.layer, &t);
        progress.advance(e.length);
    }
    Ok(())
}

/// The section of an expert: A panels move, B panels are the same everywhere.
pub(super) fn panels(
    out: &mut Section<'_>,
    (path, model): (&Path, &Model<'_>),
    bytes: &[u8],
    bound: Header,
    target: Target,
    progress: &mut dyn Progress,
) -> Result<()> {
    let corrupt = || damaged(path, Error::Corrupt);
    let mut header = ExpertHeader::decode(bytes.first_chunk().ok_or_else(corrupt)?);
    let tables = EXPERT_HEADER_BYTES + model.n_sites() * EXPERT_SITE_BYTES;
    let texts = tables + usize::from(header.name_len) + usize::from(header.key_len);
    out.push(bytes.get(..texts).ok_or_else(corrupt)?);
    let records = bytes.get(EXPERT_HEADER_BYTES..tables).ok_or_else(corrupt)?;
    let records = records.as_chunks::<EXPERT_SITE_BYTES>().0;
    for (n, record) in records.iter().enumerate() {
        let mut r = ExpertSite::decode(record);
        if r.rank == 0 {
            continue;
        }
        let site = model.site(n).ok_or_else(corrupt)?;
        let rank = usize::from(r.rank);
        let panel = |at: u32, len: u32| slice(bytes, at as usize * DATA_ALIGN, len as usize);
        let (shape, to) = match site.module {
            Module::Embed => ((site.inputs, rank), Layout::Rows),
            _ => ((rank, site.inputs), target.a_panels()),
        };
        let stored = Stored {
            dtype: r.a_dtype,
            layout: r.a_layout,
            scale_exp: r.a_scale_exp,
            shape,
            bytes: panel(r.a_offset, r.a_length),
        };
        let what = format!("A of expert {} at site {n}", header.class);
        let a = stored.moved(to, model, path, &what)?;
        let b = panel(r.b_offset, r.b_length).ok_or_else(corrupt)?;
        let fits = |n: usize| {
            u32::try_from(n).map_err(|_| refused(path, &what, "it is too large in this layout"))
        };
        progress.advance(u64::from(r.a_length) + u64::from(r.b_length));
        r.a_offset = fits(out.align() / DATA_ALIGN)?;
        r.a_length = fits(a.bytes.len())?;
        r.a_layout = a.layout as u8;
        out.push(&a.bytes);
        r.b_offset = fits(out.align() / DATA_ALIGN)?;
        out.push(b);
        out.patch(EXPERT_HEADER_BYTES + n * EXPERT_SITE_BYTES, &r.encode());
    }
    header.length = out.len() as u64;
    header.base_hash = bound.base_hash;
    header.site_hash = bound.site_hash;
    header.classifier_hash = bound.classifier_hash;
    header.body_crc = crc32(out.tail(EXPERT_HEADER_BYTES));
    out.patch(0, &header.encode());
    Ok(())
}
