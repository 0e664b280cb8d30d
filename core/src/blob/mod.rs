//! The blob: one file, read in place from flash or a mapping. This page and [`format`](mod@format) are its
//! specification (*blob format 1*).
//!
//! ```text
//! Header                64 bytes
//! SectionEntry x n      32 bytes each
//! sections              each at the next multiple of 64, in the order of SectionKind
//! ```
//!
//! Rules that [`Model::parse`] checks, beside the fields' own:
//!
//! * Sections tile the file: the first begins at the first multiple of 64 after the section table, each
//!   next one at the first multiple of 64 after the end of the one before, and the file ends where the last
//!   one does. Kinds ascend; experts ascend by class index from 0. Config, base, sites and options must be
//!   there, and exactly as many experts as the options say.
//! * **Base and classifier** begin with a 16-byte head (`u32` count, `u32` flags, 8 reserved bytes) and the
//!   tensor table. Data tile the rest: the first tensor at the end of the table, each next one at the first
//!   multiple of 16 after the end of the one before, the section ends with the last. The base holds
//!   `Embed`, `Head` (unless tied), `FinalNorm`, then per layer the
//!   [`LAYER_TENSORS`](format::LAYER_TENSORS), [`QK_TENSORS`](format::QK_TENSORS) where its flags name the
//!   QK norm, and the biases of its `bias_mask` in module order. Weights
//!   are `q8`, `f16` or `f32` in layout `rows` or `r16k4`, or `q8` in `m4` or `r4k16`; vectors are `f32`,
//!   `rows`, one row. Layouts may be mixed: [`layout`](crate::kernels::layout) says where each number lies. The
//!   classifier holds weight and bias per layer, `f16` or `f32`; bit 0 of its flags says that a ReLU stands
//!   between layers; widths chain from `hidden` to `experts` (times `sites` when layerwise).
//! * **Sites**: `u32` count, 12 reserved bytes, one [`SiteRecord`](format::SiteRecord) each: `Embed` first
//!   if it is one, then each layer's `site_mask` in module order.
//! * **Experts**: an [`ExpertHeader`](format::ExpertHeader), one [`ExpertSite`](format::ExpertSite) per
//!   site, name and key, then the panels in site order, A before B, tiled as above. The bytes of an expert
//!   section are the bytes of an expert file (usual ending `.pleachx`). Base and site hashes must be the model's.
//! * **Names**: `u32` count (= sites), `count + 1` ascending `u32` offsets into the UTF-8 bytes that follow.
//! * **Tokenizer**: see [`tokenizer`](crate::tokenizer). **Provenance**: UTF-8 JSON. **Template**:
//!   UTF-8 Jinja, at most 64 KiB.
//!
//! `parse` reads tables and texts only, and proves all that safety needs. CRCs of the sections (which cover padding within them), the zeros between them and
//! the values of weights and scales are [`Model::verify`]'s: an unverified file is safe, but only a verified one has the
//! same answer on every target.

mod expert;
pub mod format;
mod include;
mod parse;
mod tensor;
mod verify;
mod view;

pub use expert::{Expert, ExpertFile, Lora};
pub use include::expect_model;
pub(crate) use parse::{is_factor, is_signed_factor};
pub use tensor::{BPanel, Tensor};
pub use view::{Model, Sections, Site};

use crate::error::Error;

/// Bytes at the alignment that a blob's sections have in the file.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Aligned<B: ?Sized>(pub B);

/// Bytes that claim to be a blob, at an alignment at which they can be used in place.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'b> {
    bytes: &'b [u8],
}

impl<'b> Blob<'b> {
    /// A claim over aligned bytes; nothing is checked yet.
    pub const fn aligned(bytes: &'b Aligned<[u8]>) -> Self {
        Self { bytes: &bytes.0 }
    }

    /// A claim over bytes that came from elsewhere (a mapping, a buffer).
    ///
    /// Errors: [`Error::Misaligned`] unless the bytes start at a multiple of 16.
    ///
    /// ```
    /// let page = pleach::Aligned([0u8; 64]);
    /// assert!(pleach::Blob::new(&page.0).is_ok());
    /// assert!(pleach::Blob::new(&page.0[1..]).is_err());
    /// ```
    pub fn new(bytes: &'b [u8]) -> Result<Self, Error> {
        if (bytes.as_ptr() as usize) & (format::DATA_ALIGN - 1) != 0 {
            return Err(Error::Misaligned {
                needed: format::DATA_ALIGN as u16,
            });
        }
        Ok(Self { bytes })
    }

    /// The bytes.
    pub const fn bytes(&self) -> &'b [u8] {
        self.bytes
    }
}
