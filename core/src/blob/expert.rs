//! Experts: views of an expert section, which is also an expert file.

use crate::blob::Blob;
use crate::blob::format::{self, ExpertHeader, ExpertSite};
use crate::blob::tensor::{BPanel, Tensor};
use crate::blob::view::{Model, Site};
use crate::error::Error;
use crate::kernels::layout::Dtype;

/// One expert of a model.
#[derive(Clone, Copy, Debug)]
pub struct Expert<'b> {
    bytes: &'b [u8],
    header: ExpertHeader,
}

/// What an expert adds at one site: `y += scale * s * B (A x)`.
#[derive(Clone, Copy, Debug)]
pub struct Lora<'b> {
    /// `[rank][inputs]`; at an embedding site `[vocab][rank]`.
    pub a: Tensor<'b>,
    /// `[outputs][rank]`.
    pub b: BPanel<'b>,
    /// alpha / r, or alpha / sqrt(r).
    pub scale: f32,
}

impl<'b> Expert<'b> {
    /// A view over a section that `parse` or [`ExpertFile::parse`] checked.
    pub(crate) const fn view(bytes: &'b [u8]) -> Option<Self> {
        match format::array(bytes, 0) {
            Some(h) => Some(Self {
                bytes,
                header: ExpertHeader::decode(h),
            }),
            None => None,
        }
    }

    /// Class index: the column of the scalings that gates this expert.
    pub const fn class(&self) -> usize {
        self.header.class as usize
    }

    /// Its name: the last component of the adapter's folder.
    pub fn name(&self) -> &'b str {
        self.text(0, self.header.name_len as usize)
    }

    /// Its key in the X-LoRA config's `adapters`.
    pub fn key(&self) -> &'b str {
        self.text(self.header.name_len as usize, self.header.key_len as usize)
    }

    fn text(&self, skip: usize, len: usize) -> &'b str {
        let at = record_offset(self.header.sites as usize).saturating_add(skip);
        format::slice(self.bytes, at, len)
            .and_then(|s| core::str::from_utf8(s).ok())
            .unwrap_or("")
    }

    /// Bytes of the section.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its header: the hashes of what it is bound to, and its group.
    pub const fn header(&self) -> ExpertHeader {
        self.header
    }

    /// The record of site `n`; `None` if the expert does not target it.
    pub(crate) const fn record(&self, n: usize) -> Option<ExpertSite> {
        match site_record(self.bytes, self.header.sites as usize, n) {
            Some(r) if r.rank != 0 => Some(r),
            _ => None,
        }
    }

    /// Rank at site `n`; 0 if the expert does not target it.
    pub const fn rank(&self, n: usize) -> usize {
        match self.record(n) {
            Some(r) => r.rank as usize,
            None => 0,
        }
    }

    /// LoRA scale at site `n`.
    pub const fn scale(&self, n: usize) -> Option<f32> {
        match self.record(n) {
            Some(r) => Some(r.scale),
            None => None,
        }
    }

    /// The panels at `site`; `None` if the expert does not target it.
    pub const fn lora(&self, site: &Site) -> Option<Lora<'b>> {
        let Some(r) = self.record(site.number) else {
            return None;
        };
        let (Some(a_kind), Some(a), Some(b)) = (
            r.a_kind(),
            self.panel(r.a_offset, r.a_length),
            self.b_panel(&r, site),
        ) else {
            return None;
        };
        let rank = r.rank as usize;
        let (rows, cols) = match site.module {
            format::Module::Embed => (site.inputs, rank),
            _ => (rank, site.inputs),
        };
        let Some(a) = Tensor::packed(
            a_kind,
            (rows, cols),
            self.header.group as usize,
            r.a_scale_exp,
            a,
        ) else {
            return None;
        };
        Some(Lora {
            a,
            b,
            scale: r.scale,
        })
    }

    /// B alone: less to compute than both.
    pub(crate) const fn b(&self, site: &Site) -> Option<BPanel<'b>> {
        match self.record(site.number) {
            Some(r) => self.b_panel(&r, site),
            None => None,
        }
    }

    const fn b_panel(&self, r: &ExpertSite, site: &Site) -> Option<BPanel<'b>> {
        match (
            Dtype::from_tag(r.b_dtype),
            self.panel(r.b_offset, r.b_length),
        ) {
            (Some(dtype), Some(data)) => {
                let (rows, rank) = (site.outputs, r.rank as usize);
                Some(BPanel::packed(dtype, r.b_scale_exp, rows, rank, data))
            }
            _ => None,
        }
    }

    /// Bytes at an offset of a site record, which counts in units of 16.
    const fn panel(&self, offset: u32, length: u32) -> Option<&'b [u8]> {
        let start = (offset as usize).saturating_mul(format::DATA_ALIGN);
        format::slice(self.bytes, start, length as usize)
    }

    /// The section, or the file, as it lies.
    pub const fn data(&self) -> &'b [u8] {
        self.bytes
    }
}

/// Offset of site record `n` within an expert; the name begins where a record after the last one would.
pub(crate) const fn record_offset(n: usize) -> usize {
    format::EXPERT_HEADER_BYTES.saturating_add(n.saturating_mul(format::EXPERT_SITE_BYTES))
}

/// The record of site `n`, as it lies.
pub(crate) const fn site_record(bytes: &[u8], sites: usize, n: usize) -> Option<ExpertSite> {
    if n >= sites {
        return None;
    }
    match format::array(bytes, record_offset(n)) {
        Some(b) => Some(ExpertSite::decode(b)),
        None => None,
    }
}

/// An expert in a file of its own, bound to a base by hashes, to replace the one of its class.
#[derive(Clone, Copy, Debug)]
pub struct ExpertFile<'b> {
    expert: Expert<'b>,
}

impl<'b> ExpertFile<'b> {
    /// Reads the header. Its panels are checked against a model's sites by [`Model::with_experts`].
    ///
    /// Errors: [`Error::Magic`], [`Error::Version`], [`Error::Truncated`], [`Error::Crc`].
    pub const fn parse(blob: Blob<'b>) -> Result<Self, Error> {
        match crate::blob::parse::expert_header(blob.bytes()) {
            Ok(header) => Ok(Self {
                expert: Expert {
                    bytes: blob.bytes(),
                    header,
                },
            }),
            Err(e) => Err(e),
        }
    }

    /// The class whose expert it replaces.
    pub const fn class(&self) -> usize {
        self.expert.class()
    }

    /// The expert.
    pub const fn expert(&self) -> Expert<'b> {
        self.expert
    }

    /// Whether the expert was packed with this model's classifier. A replaced expert under the old
    /// classifier is legal: the router then judges an expert that it has not seen.
    pub const fn knows_classifier(&self, model: &Model<'_>) -> bool {
        self.expert.header.classifier_hash == model.header.classifier_hash
    }
}
