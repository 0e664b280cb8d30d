//! Every check that safety needs, in const: `parse` touches tables only.

use crate::blob::Blob;
use crate::blob::expert::{ExpertFile, record_offset, site_record};
use crate::blob::format::{
    self, CacheKind, ConfigRecord, DATA_ALIGN, ExpertHeader, Header, LayerRecord, Module, NO_LAYER,
    OptionsRecord, Role, SECTION_ALIGN, SectionEntry, SectionKind, SiteRecord, TensorEntry,
};
use crate::blob::view::Model;
use crate::error::Error;
use crate::hash::crc32;
use crate::kernels::layout::{self, Dtype, Layout, packed_b_size, packed_size};

macro_rules! tri {
    ($e:expr) => {
        match $e {
            Ok(v) => v,
            Err(e) => return Err(e),
        }
    };
}

mod config;
mod experts;
mod file;
mod sites;
mod tensors;

use config::*;
use experts::*;
pub(crate) use file::expert_header;
use file::*;
use sites::*;
pub(crate) use tensors::scale_exp_is_legal;
use tensors::*;

/// Largest dimensions that a blob may state. They keep every product of sizes within 64 bits and every
/// loop short of what its own bytes pay for.
const MAX_DIM: u32 = 1 << 24;
const MAX_LAYERS: u32 = 1 << 12;
const MAX_HEADS: u32 = 1 << 12;
const MAX_HEAD_DIM: u32 = 1 << 12;
const MAX_EXPERTS: u16 = 1 << 10;
const MAX_DEPTH: u32 = 1 << 6;

/// Smallest and largest magnitude of the factors in the config (ARITHMETIC.md, *Elementwise*): 2^-24, 65504.
const MIN_FACTOR: f32 = 5.960_464_5e-8;
const MAX_FACTOR: f32 = 65504.0;
/// Smallest inverse frequency, 2^-28: below those of real models, and far above where a product of the cosine's
/// polynomial would be subnormal.
const MIN_FREQ: f32 = 3.725_290_3e-9;
const MIN_EPS: f32 = 1e-12;

/// Whether `v` is a positive factor of the config.
pub(crate) const fn is_factor(v: f32) -> bool {
    v >= MIN_FACTOR && v <= MAX_FACTOR
}

/// Whether `v` is 0 or a factor of either sign.
pub(crate) const fn is_signed_factor(v: f32) -> bool {
    v == 0.0 || is_factor(v) || is_factor(-v)
}

const fn align_up(n: u64, to: usize) -> u64 {
    n.saturating_add(to as u64 - 1) & !(to as u64 - 1)
}

impl<'b> Model<'b> {
    /// Checks all that safety depends on: every offset, length, shape, dtype, group, site,
    /// cross-reference and factor. Touches tables only; see [`Model::verify`] for CRCs and values.
    ///
    /// Errors: the first rule that is broken, with its place.
    pub const fn parse(blob: Blob<'b>) -> Result<Self, Error> {
        let bytes = blob.bytes();
        let header = tri!(file_header(bytes));
        let s = tri!(sections(bytes, &header));
        let (Some(config_bytes), Some(base), Some(sites), Some(options)) =
            (s.config, s.base, s.sites, s.options)
        else {
            return Err(Error::Section {
                index: header.sections,
                why: "config, base, sites and options must be there",
            });
        };
        let mut model = Self {
            bytes,
            header,
            config: tri!(config(config_bytes)),
            options: tri!(xlora_options(options)),
            config_bytes,
            base,
            sites,
            classifier: s.classifier,
            names: s.names,
            tokenizer: s.tokenizer,
            provenance: None,
            template: None,
            first_expert: s.first_expert,
            replaced: &[],
            widest_ranks: 0,
            widest_classifier: 0,
            has_m4: false,
        };
        tri!(layers(&model));
        tri!(base_tensors(&model));
        tri!(site_table(&model));
        if s.experts != model.options.experts {
            return Err(Error::Config {
                why: "the options name another number of experts than there are sections",
            });
        }
        match (model.classifier, header.classifier_hash) {
            (Some(c), _) => model.widest_classifier = tri!(classifier(&model, c)),
            (None, 0) => {}
            (None, _) => {
                return Err(Error::Config {
                    why: "a classifier hash without a classifier",
                });
            }
        }
        let mut class = 0;
        while class < model.n_experts() {
            match section_bytes(&model, model.first_expert + class) {
                Some(e) => tri!(check_expert(&model, e, class as u16)),
                None => return Err(Error::Corrupt),
            }
            class += 1;
        }
        tri!(names(&model));
        if let Some(p) = s.provenance {
            match core::str::from_utf8(p) {
                Ok(text) => model.provenance = Some(text),
                Err(_) => {
                    return Err(Error::Config {
                        why: "the provenance is not UTF-8",
                    });
                }
            }
        }
        if let Some(t) = s.template {
            if t.len() > format::MAX_TEMPLATE {
                return Err(Error::Config {
                    why: "the chat template is longer than 64 KiB",
                });
            }
            match core::str::from_utf8(t) {
                Ok(text) => model.template = Some(text),
                Err(_) => {
                    return Err(Error::Config {
                        why: "the chat template is not UTF-8",
                    });
                }
            }
        }
        #[cfg(feature = "tokenizer")]
        if let Some(t) = model.tokenizer
            && let Err(e) = crate::tokenizer::Tokenizer::parse(t)
        {
            return Err(e);
        }
        model.widest_ranks = widest_ranks(&model);
        model.has_m4 = has_m4(&model);
        Ok(model)
    }

    /// The same model with the experts of `files` in the place of those of their classes.
    ///
    /// Errors: [`Error::Expert`] if a file is bound to another base or site table, names a class that the
    /// model does not have, or breaks a rule; a class named twice. [`Error::Refused`] if experts were replaced
    /// before.
    pub const fn with_experts(self, files: &'b [ExpertFile<'b>]) -> Result<Self, Error> {
        if !self.replaced.is_empty() {
            return Err(Error::Refused {
                why: "experts were replaced before: pass all files at once",
            });
        }
        let mut rest = files;
        while let Some((file, tail)) = rest.split_first() {
            let class = file.class();
            if class >= self.n_experts() {
                return Err(Error::Expert {
                    class: class as u16,
                    site: None,
                    why: "the model has no such class: a new class needs a new classifier",
                });
            }
            tri!(check_expert(&self, file.expert().data(), class as u16));
            let mut others = tail;
            while let Some((other, more)) = others.split_first() {
                if other.class() == class {
                    return Err(Error::Expert {
                        class: class as u16,
                        site: None,
                        why: "two files replace the same class",
                    });
                }
                others = more;
            }
            rest = tail;
        }
        let mut model = self;
        model.replaced = files;
        model.widest_ranks = widest_ranks(&model);
        model.has_m4 = has_m4(&model);
        Ok(model)
    }
}
