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

/// Largest dimensions that a blob may state. They keep every product of sizes within 64 bits and every
/// loop short of what its own bytes pay for.
const MAX_DIM: u32 = 1 << 24;
const MAX_LAYERS: u32 = 1 << 12;
const MAX_HEADS: u32 = 1 << 12;
const MAX_HEAD_DIM: u32 = 1 << 12;
const MAX_EXPERTS: u16 = 1 << 10;
const MAX_DEPTH: u32 = 1 << 6;

/// Smallest and largest magnitude of the factors in the config (arithmetic.md, *Elementwise*): 2^-24, 65504.
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
            first_expert: s.first_expert,
            replaced: &[],
            widest_ranks: 0,
            widest_classifier: 0,
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
        #[cfg(feature = "tokenizer")]
        if let Some(t) = model.tokenizer
            && let Err(e) = crate::tokenizer::Tokenizer::parse(t)
        {
            return Err(e);
        }
        model.widest_ranks = widest_ranks(&model);
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
            tri!(check_expert(&self, file.expert().raw(), class as u16));
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
        Ok(model)
    }
}

const fn file_header(bytes: &[u8]) -> Result<Header, Error> {
    let Some(b) = format::array::<{ format::HEADER_BYTES }>(bytes, 0) else {
        return Err(Error::Truncated {
            needed: format::HEADER_BYTES as u64,
            found: bytes.len() as u64,
        });
    };
    tri!(magic_and_version(b, format::MAGIC));
    tri!(header_crc(b, 60));
    let header = Header::decode(b);
    if header.length != bytes.len() as u64 {
        return Err(Error::Truncated {
            needed: header.length,
            found: bytes.len() as u64,
        });
    }
    Ok(header)
}

const fn magic_and_version(b: &[u8; 64], magic: [u8; 8]) -> Result<(), Error> {
    let Some((found, rest)) = b.split_first_chunk::<8>() else {
        return Err(Error::Magic);
    };
    if u64::from_le_bytes(*found) != u64::from_le_bytes(magic) {
        return Err(Error::Magic);
    }
    match rest.first_chunk::<2>() {
        Some(v) if u16::from_le_bytes(*v) == format::VERSION => Ok(()),
        Some(v) => Err(Error::Version {
            found: u16::from_le_bytes(*v),
        }),
        None => Err(Error::Magic),
    }
}

/// The CRC of `b[..at]`, which stands at `at`.
const fn header_crc(b: &[u8; 64], at: usize) -> Result<(), Error> {
    let (Some(head), expected) = (format::slice(b, 0, at), format::u32_at(b, at)) else {
        return Err(Error::Corrupt);
    };
    let found = crc32(head);
    if found != expected {
        return Err(Error::Crc {
            section: None,
            expected,
            found,
        });
    }
    Ok(())
}

/// The header of an expert file: magic, version, CRC, length.
pub(crate) const fn expert_header(bytes: &[u8]) -> Result<ExpertHeader, Error> {
    let Some(b) = format::array::<{ format::EXPERT_HEADER_BYTES }>(bytes, 0) else {
        return Err(Error::Truncated {
            needed: format::EXPERT_HEADER_BYTES as u64,
            found: bytes.len() as u64,
        });
    };
    tri!(magic_and_version(b, format::EXPERT_MAGIC));
    tri!(header_crc(b, 56));
    let header = ExpertHeader::decode(b);
    if header.length != bytes.len() as u64 {
        return Err(Error::Truncated {
            needed: header.length,
            found: bytes.len() as u64,
        });
    }
    Ok(header)
}

struct SectionSlices<'b> {
    config: Option<&'b [u8]>,
    base: Option<&'b [u8]>,
    sites: Option<&'b [u8]>,
    options: Option<&'b [u8]>,
    classifier: Option<&'b [u8]>,
    names: Option<&'b [u8]>,
    tokenizer: Option<&'b [u8]>,
    provenance: Option<&'b [u8]>,
    first_expert: usize,
    experts: u16,
}

const fn sections<'b>(bytes: &'b [u8], header: &Header) -> Result<SectionSlices<'b>, Error> {
    let n = header.sections as usize;
    let table_bytes = n * format::SECTION_ENTRY_BYTES;
    let Some(table) = format::slice(bytes, format::HEADER_BYTES, table_bytes) else {
        return Err(Error::Truncated {
            needed: (format::HEADER_BYTES + table_bytes) as u64,
            found: bytes.len() as u64,
        });
    };
    let found = crc32(table);
    if found != header.table_crc {
        return Err(Error::Crc {
            section: None,
            expected: header.table_crc,
            found,
        });
    }
    let mut s = SectionSlices {
        config: None,
        base: None,
        sites: None,
        options: None,
        classifier: None,
        names: None,
        tokenizer: None,
        provenance: None,
        first_expert: 0,
        experts: 0,
    };
    let mut end = (format::HEADER_BYTES + table_bytes) as u64;
    let mut last_kind = 0;
    let mut i = 0;
    while i < n {
        let index = i as u16;
        let Some(b) = format::array(table, i * format::SECTION_ENTRY_BYTES) else {
            return Err(Error::Corrupt);
        };
        let e = SectionEntry::decode(b);
        let Some(kind) = SectionKind::from_number(e.kind) else {
            return Err(Error::Section {
                index,
                why: "a kind of section that this build does not know",
            });
        };
        let is_expert = matches!(kind, SectionKind::Expert);
        if e.kind < last_kind || (e.kind == last_kind && !is_expert) {
            return Err(Error::Section {
                index,
                why: "sections are out of order",
            });
        }
        if e.index != if is_expert { s.experts } else { 0 } {
            return Err(Error::Section {
                index,
                why: "the class index is out of order",
            });
        }
        if e.offset != align_up(end, SECTION_ALIGN) {
            return Err(Error::Section {
                index,
                why: "the section does not begin where the one before it ends",
            });
        }
        end = e.offset.saturating_add(e.length);
        if end > bytes.len() as u64 {
            return Err(Error::Section {
                index,
                why: "the section ends outside the file",
            });
        }
        let Some(part) = format::slice(bytes, e.offset as usize, e.length as usize) else {
            return Err(Error::Section {
                index,
                why: "the section ends outside the file",
            });
        };
        match kind {
            SectionKind::Config => s.config = Some(part),
            SectionKind::Base => s.base = Some(part),
            SectionKind::Sites => s.sites = Some(part),
            SectionKind::Options => s.options = Some(part),
            SectionKind::Classifier => s.classifier = Some(part),
            SectionKind::Names => s.names = Some(part),
            SectionKind::Tokenizer => s.tokenizer = Some(part),
            SectionKind::Provenance => s.provenance = Some(part),
            SectionKind::Expert => {
                if s.experts == 0 {
                    s.first_expert = i;
                }
                if s.experts >= MAX_EXPERTS {
                    return Err(Error::Section {
                        index,
                        why: "more than 1024 experts",
                    });
                }
                s.experts += 1;
            }
        }
        last_kind = e.kind;
        i += 1;
    }
    if end != bytes.len() as u64 {
        return Err(Error::Section {
            index: header.sections,
            why: "bytes after the last section",
        });
    }
    Ok(s)
}

const fn section_bytes<'b>(model: &Model<'b>, n: usize) -> Option<&'b [u8]> {
    match model.section_entry(n) {
        Some(e) => format::slice(model.bytes, e.offset as usize, e.length as usize),
        None => None,
    }
}

const fn config(b: &[u8]) -> Result<ConfigRecord, Error> {
    let Some(head) = format::array(b, 0) else {
        return Err(Error::Config {
            why: "the section is too short",
        });
    };
    let c = ConfigRecord::decode(head);
    let why = if c.hidden == 0 || c.hidden > MAX_DIM {
        "hidden is outside 1..=2^24"
    } else if c.vocab == 0 || c.vocab > MAX_DIM {
        "vocab is outside 1..=2^24"
    } else if c.intermediate == 0 || c.intermediate > MAX_DIM {
        "intermediate is outside 1..=2^24"
    } else if c.layers == 0 || c.layers > MAX_LAYERS {
        "layers is outside 1..=4096"
    } else if c.kv_heads == 0
        || c.heads > MAX_HEADS
        || !c.heads.is_multiple_of(c.kv_heads)
        || c.heads == 0
    {
        "heads must be a multiple of kv_heads, at most 4096"
    } else if c.head_dim == 0 || c.head_dim > MAX_HEAD_DIM {
        "head_dim is outside 1..=4096"
    } else if c.rope_dim != 0 && (c.rope_dim != c.head_dim || !c.head_dim.is_multiple_of(2)) {
        "rope_dim must be 0 or an even head_dim"
    } else if c.max_position == 0 {
        "max_position is 0"
    } else if !matches!(c.group, 32 | 64 | 128 | 256) {
        "group must be 32, 64, 128 or 256"
    } else if !(c.rms_eps >= MIN_EPS && c.rms_eps <= 1.0) {
        "rms_eps is outside 1e-12..=1"
    } else if !is_factor(c.attn_scale) {
        "attn_scale is outside 2^-24..=65504"
    } else if !is_factor(c.embed_scale) {
        "embed_scale is outside 2^-24..=65504"
    } else if !is_factor(c.residual_scale) {
        "residual_scale is outside 2^-24..=65504"
    } else if b.len()
        != format::CONFIG_BYTES
            + (c.rope_dim as usize / 2) * 4
            + c.layers as usize * format::LAYER_BYTES
    {
        "the section's length does not fit layers and rope_dim"
    } else {
        let mut i = 0;
        while i < c.rope_dim as usize / 2 {
            let f = match format::array::<4>(b, format::CONFIG_BYTES + 4 * i) {
                Some(v) => f32::from_le_bytes(*v),
                None => 0.0,
            };
            if !(f >= MIN_FREQ && f <= 1.0) {
                return Err(Error::Config {
                    why: "an inverse frequency is outside 2^-28..=1",
                });
            }
            i += 1;
        }
        return Ok(c);
    };
    Err(Error::Config { why })
}

const fn layers(model: &Model<'_>) -> Result<(), Error> {
    let mut tensor = if model.config.tied { 2 } else { 3 };
    let mut site = if model.embed_site().is_some() { 1 } else { 0 };
    let mut i = 0;
    while i < model.config.layers as usize {
        let Some(l) = model.layer(i) else {
            return Err(Error::Corrupt);
        };
        let LayerRecord {
            norm,
            norm_flags,
            act,
            cache,
            bias_mask,
            site_mask,
            rope,
            causal,
            window,
            ..
        } = l;
        let why = if norm != 1 || norm_flags != 0 {
            "a layer's norm is of a kind that this build does not know"
        } else if act != 1 {
            "a layer's activation is of a kind that this build does not know"
        } else if cache != CacheKind::Full as u8 || window != 0 {
            "a layer's cache is of a kind that this build does not know"
        } else if causal != 1 {
            "a layer's attention is not causal"
        } else if rope > 1 || (rope == 1) != (model.config.rope_dim != 0) {
            "a layer's rotary embedding does not fit rope_dim"
        } else if bias_mask > 127 || site_mask > 127 {
            "a layer's mask names a module that there is not"
        } else if l.first_tensor as usize != tensor {
            "a layer's first tensor is not the one after the layer before"
        } else if l.first_site as usize != site {
            "a layer's first site is not the one after the layer before"
        } else {
            tensor += format::LAYER_TENSORS.len() + bias_mask.count_ones() as usize;
            site += site_mask.count_ones() as usize;
            if tensor > u16::MAX as usize || site > u16::MAX as usize {
                return Err(Error::Config {
                    why: "more than 65535 tensors or sites",
                });
            }
            i += 1;
            continue;
        };
        return Err(Error::Config { why });
    }
    Ok(())
}

/// Output and input features of a layer's module.
pub(crate) const fn module_shape(c: &ConfigRecord, module: Module) -> (u32, u32) {
    let q = c.heads * c.head_dim;
    let kv = c.kv_heads * c.head_dim;
    match module {
        Module::Q => (q, c.hidden),
        Module::K | Module::V => (kv, c.hidden),
        Module::O => (c.hidden, q),
        Module::Gate | Module::Up => (c.intermediate, c.hidden),
        Module::Down => (c.hidden, c.intermediate),
        Module::Embed => (c.hidden, c.vocab),
    }
}

/// A walk over a section's tensor table that checks that data tile the section.
struct TableWalk<'b> {
    section: &'b [u8],
    kind: SectionKind,
    group: usize,
    next: usize,
    end: u64,
}

#[derive(Clone, Copy)]
struct Want {
    role: u16,
    layer: u16,
    rows: u32,
    cols: u32,
    /// A vector is f32 in plain rows.
    vector: bool,
    /// Whether a weight may be q8.
    q8: bool,
}

impl TableWalk<'_> {
    const fn error(&self, why: &'static str) -> Error {
        Error::Tensor {
            section: self.kind,
            index: self.next as u16,
            why,
        }
    }

    /// Checks the next entry.
    const fn expect(&mut self, want: Want) -> Result<(), Error> {
        let at = format::TABLE_HEAD_BYTES + self.next * format::TENSOR_ENTRY_BYTES;
        let Some(b) = format::array(self.section, at) else {
            return Err(self.error("the tensor table ends early"));
        };
        let e = TensorEntry::decode(b);
        if e.role != want.role || e.layer != want.layer {
            return Err(self.error("another tensor is expected here"));
        }
        if e.rows != want.rows || e.cols != want.cols {
            return Err(self.error("rows and columns do not fit the config"));
        }
        let (Some(dtype), Some(layout)) = (Dtype::from_tag(e.dtype), Layout::from_tag(e.layout))
        else {
            return Err(self.error("a dtype or layout that this build does not know"));
        };
        let legal = if want.vector {
            matches!((dtype, layout), (Dtype::F32, Layout::Rows))
        } else {
            matches!(layout, Layout::Rows | Layout::R16K4)
                && (want.q8 || !matches!(dtype, Dtype::Q8))
        };
        if !legal {
            return Err(self.error("a dtype or layout that is not legal here"));
        }
        if !scale_exp_is_legal(dtype, e.scale_exp) || e.flags != 0 {
            return Err(self.error("scale_exp or flags outside their range"));
        }
        let size = packed_size(dtype, layout, e.rows as usize, e.cols as usize, self.group);
        if e.offset != align_up(self.end, DATA_ALIGN) {
            return Err(self.error("its data do not begin where those before end"));
        }
        if e.length != size as u64 {
            return Err(self.error("its length does not fit its shape"));
        }
        self.end = e.offset.saturating_add(e.length);
        if self.end > self.section.len() as u64 {
            return Err(self.error("its data end outside the section"));
        }
        self.next += 1;
        Ok(())
    }

    /// Checks that nothing follows.
    const fn finish(self) -> Result<(), Error> {
        if self.end != self.section.len() as u64 {
            return Err(self.error("bytes after the last tensor"));
        }
        Ok(())
    }
}

const fn scale_exp_is_legal(dtype: Dtype, e: i8) -> bool {
    match dtype {
        Dtype::Q8 => e >= -10 && e <= 0,
        _ => e == 0,
    }
}

/// Begins a walk; the table must hold `count` entries.
const fn table<'b>(
    section: &'b [u8],
    kind: SectionKind,
    group: u32,
    count: usize,
) -> Result<TableWalk<'b>, Error> {
    let walk = TableWalk {
        section,
        kind,
        group: group as usize,
        next: 0,
        end: (format::TABLE_HEAD_BYTES as u64)
            .saturating_add((count as u64).saturating_mul(format::TENSOR_ENTRY_BYTES as u64)),
    };
    match format::array::<4>(section, 0) {
        Some(n) if u32::from_le_bytes(*n) as usize == count => Ok(walk),
        _ => {
            Err(walk
                .error("the tensor table has another number of entries than the config asks for"))
        }
    }
}

const fn base_tensors(model: &Model<'_>) -> Result<(), Error> {
    let c = &model.config;
    let mut count = if c.tied { 2 } else { 3 };
    let mut i = 0;
    while i < c.layers as usize {
        if let Some(l) = model.layer(i) {
            count += format::LAYER_TENSORS.len() + l.bias_mask.count_ones() as usize;
        }
        i += 1;
    }
    let mut walk = tri!(table(model.base, SectionKind::Base, c.group, count));
    tri!(walk.expect(weight(Role::Embed as u16, NO_LAYER, c.vocab, c.hidden)));
    if !c.tied {
        tri!(walk.expect(weight(Role::Head as u16, NO_LAYER, c.vocab, c.hidden)));
    }
    tri!(walk.expect(vector(Role::FinalNorm as u16, NO_LAYER, c.hidden)));
    let mut i = 0;
    while i < c.layers as usize {
        let Some(l) = model.layer(i) else {
            return Err(Error::Corrupt);
        };
        let layer = i as u16;
        tri!(walk.expect(vector(Role::AttnNorm as u16, layer, c.hidden)));
        let mut m = 0;
        while m < 7 {
            if m == Module::Gate as u16 {
                tri!(walk.expect(vector(Role::MlpNorm as u16, layer, c.hidden)));
            }
            if let Some(module) = Module::from_number(m) {
                let (rows, cols) = module_shape(c, module);
                tri!(walk.expect(weight(Role::Weight as u16 + m, layer, rows, cols)));
            }
            m += 1;
        }
        let mut m = 0;
        while m < 7 {
            if let Some(module) = Module::from_number(m)
                && l.bias_mask & module.bit() != 0
            {
                let (rows, _) = module_shape(c, module);
                tri!(walk.expect(vector(Role::Bias as u16 + m, layer, rows)));
            }
            m += 1;
        }
        i += 1;
    }
    walk.finish()
}

const fn weight(role: u16, layer: u16, rows: u32, cols: u32) -> Want {
    Want {
        role,
        layer,
        rows,
        cols,
        vector: false,
        q8: true,
    }
}

const fn vector(role: u16, layer: u16, cols: u32) -> Want {
    Want {
        role,
        layer,
        rows: 1,
        cols,
        vector: true,
        q8: false,
    }
}

const fn site_table(model: &Model<'_>) -> Result<(), Error> {
    let n = match format::array::<4>(model.sites, 0) {
        Some(n) => u32::from_le_bytes(*n) as usize,
        None => {
            return Err(Error::Config {
                why: "the site table is too short",
            });
        }
    };
    if n > u16::MAX as usize
        || model.sites.len() != format::TABLE_HEAD_BYTES + n * format::SITE_BYTES
    {
        return Err(Error::Config {
            why: "the site table's length does not fit its count",
        });
    }
    let mut site = 0;
    if model.embed_site().is_some() {
        tri!(expect_site(model, 0, Module::Embed, NO_LAYER));
        site = 1;
    }
    let mut i = 0;
    while i < model.config.layers as usize {
        let Some(l) = model.layer(i) else {
            return Err(Error::Corrupt);
        };
        let mut m = 0;
        while m < 7 {
            if let Some(module) = Module::from_number(m)
                && l.site_mask & module.bit() != 0
            {
                tri!(expect_site(model, site, module, i as u16));
                site += 1;
            }
            m += 1;
        }
        i += 1;
    }
    if site != n {
        return Err(Error::Config {
            why: "the site table has more rows than the layer table names",
        });
    }
    if (n == 0) != (model.options.experts == 0) {
        return Err(Error::Config {
            why: "experts without sites, or sites without experts",
        });
    }
    Ok(())
}

const fn expect_site(model: &Model<'_>, n: usize, module: Module, layer: u16) -> Result<(), Error> {
    let Some(b) = format::array(
        model.sites,
        format::TABLE_HEAD_BYTES + n * format::SITE_BYTES,
    ) else {
        return Err(Error::Site {
            site: n as u16,
            why: "the site table ends early",
        });
    };
    let s = SiteRecord::decode(b);
    let (outputs, inputs) = module_shape(&model.config, module);
    let kind = if matches!(module, Module::Embed) {
        1
    } else {
        0
    };
    if s.module != module as u16 || s.layer != layer {
        return Err(Error::Site {
            site: n as u16,
            why: "another module is expected here",
        });
    }
    if s.inputs != inputs || s.outputs != outputs || s.kind != kind {
        return Err(Error::Site {
            site: n as u16,
            why: "features or kind do not fit the config",
        });
    }
    Ok(())
}

const fn xlora_options(b: &[u8]) -> Result<OptionsRecord, Error> {
    let (Some(head), true) = (format::array(b, 0), b.len() == format::OPTIONS_BYTES) else {
        return Err(Error::Config {
            why: "the options' length is not 32",
        });
    };
    let o = OptionsRecord::decode(head);
    let why = if o.top_k_lora > o.experts {
        "top_k_lora is larger than the number of experts"
    } else if o.top_k_lora != 0 && o.scaling_pass_value != 0.0 {
        "top_k_lora with a scaling_pass_value: every value ties"
    } else if !is_factor(o.softmax_temperature) {
        "softmax_temperature is outside 2^-24..=65504"
    } else if !is_signed_factor(o.scaling_pass_value) {
        "scaling_pass_value is neither 0 nor within 2^-24..=65504"
    } else if !is_signed_factor(o.global_scaling_weight) {
        "global_scaling_weight is neither 0 nor within 2^-24..=65504"
    } else {
        return Ok(o);
    };
    Err(Error::Config { why })
}

/// Checks the classifier; returns its widest layer.
const fn classifier(model: &Model<'_>, section: &[u8]) -> Result<usize, Error> {
    let kind = SectionKind::Classifier;
    let out = model.scalings_width();
    let error = Error::Tensor {
        section: kind,
        index: 0,
        why: "a classifier has 1 to 64 layers, and needs experts",
    };
    let Some(head) = format::array::<8>(section, 0) else {
        return Err(error);
    };
    let (count, flags) = (format::u32_at(head, 0), format::u32_at(head, 4));
    if count == 0 || !count.is_multiple_of(2) || count / 2 > MAX_DEPTH || flags > 1 || out == 0 {
        return Err(error);
    }
    let mut walk = tri!(table(section, kind, model.config.group, count as usize));
    let depth = count as usize / 2;
    let mut cols = model.config.hidden;
    let mut widest = 0;
    let mut i = 0;
    while i < depth {
        let at = format::TABLE_HEAD_BYTES + 2 * i * format::TENSOR_ENTRY_BYTES;
        let rows = match format::array(section, at) {
            Some(b) => TensorEntry::decode(b).rows,
            None => 0,
        };
        let last = i + 1 == depth;
        if rows == 0 || rows > MAX_DIM || (last && rows as usize != out) {
            return Err(
                walk.error("the last layer must have a row per expert (and site when layerwise)")
            );
        }
        let mut want = weight(Role::ClassifierWeight as u16, i as u16, rows, cols);
        want.q8 = false;
        tri!(walk.expect(want));
        tri!(walk.expect(vector(Role::ClassifierBias as u16, i as u16, rows)));
        if rows as usize > widest {
            widest = rows as usize;
        }
        cols = rows;
        i += 1;
    }
    tri!(walk.finish());
    Ok(widest)
}

/// Checks an expert against the model's sites.
const fn check_expert(model: &Model<'_>, bytes: &[u8], class: u16) -> Result<(), Error> {
    let header = tri!(expert_header(bytes));
    let n_sites = model.n_sites();
    let why = if header.class != class {
        "its header names another class"
    } else if header.base_hash != model.header.base_hash {
        "it is bound to another base"
    } else if header.site_hash != model.header.site_hash || header.sites as usize != n_sites {
        "it is bound to another site table"
    } else if header.group as u32 != model.config.group {
        "its group is not the model's"
    } else {
        ""
    };
    if !why.is_empty() {
        return Err(Error::Expert {
            class,
            site: None,
            why,
        });
    }
    let text_at = record_offset(n_sites);
    let text_len = header.name_len as usize + header.key_len as usize;
    let named = match format::slice(bytes, text_at, text_len) {
        Some(t) => core::str::from_utf8(t).is_ok(),
        None => false,
    };
    if !named {
        return Err(Error::Expert {
            class,
            site: None,
            why: "name or key is missing or not UTF-8",
        });
    }
    let mut end = (text_at + text_len) as u64;
    let mut n = 0;
    while n < n_sites {
        let (Some(r), Some(site)) = (site_record(bytes, n_sites, n), model.site(n)) else {
            return Err(Error::Expert {
                class,
                site: Some(n as u16),
                why: "the table of sites ends early",
            });
        };
        if r.rank != 0 {
            let embed = matches!(site.module, Module::Embed);
            let why = match (r.a_kind(), Dtype::from_tag(r.b_dtype)) {
                (Some((a, layout)), Some(b)) => {
                    let rank = r.rank as usize;
                    let (rows, cols) = if embed {
                        (site.inputs, rank)
                    } else {
                        (rank, site.inputs)
                    };
                    let group = model.config.group as usize;
                    let a_size = packed_size(a, layout, rows, cols, group) as u64;
                    let b_size = packed_b_size(b, site.outputs, rank) as u64;
                    let a_at = r.a_offset as u64 * DATA_ALIGN as u64;
                    let b_at = r.b_offset as u64 * DATA_ALIGN as u64;
                    let a_end = a_at.saturating_add(a_size);
                    let why =
                        if embed && (!matches!(layout, Layout::Rows) || matches!(a, Dtype::Q8)) {
                            "A of an embedding site must be f16 or f32 in plain rows"
                        } else if !matches!(layout, Layout::Rows | Layout::R4K4) {
                            "the layout of A must be rows or r4k4"
                        } else if !scale_exp_is_legal(a, r.a_scale_exp)
                            || !scale_exp_is_legal(b, r.b_scale_exp)
                        {
                            "scale_exp is outside its range"
                        } else if !is_factor(r.scale) {
                            "the LoRA scale is outside 2^-24..=65504"
                        } else if r.a_length as u64 != a_size || r.b_length as u64 != b_size {
                            "a panel's length does not fit its shape"
                        } else if a_at != align_up(end, DATA_ALIGN)
                            || b_at != align_up(a_end, DATA_ALIGN)
                        {
                            "a panel does not begin where the one before it ends"
                        } else if b_at.saturating_add(b_size) > bytes.len() as u64 {
                            "a panel ends outside the expert"
                        } else {
                            ""
                        };
                    end = b_at.saturating_add(b_size);
                    why
                }
                _ => "a dtype or layout that this build does not know",
            };
            if !why.is_empty() {
                return Err(Error::Expert {
                    class,
                    site: Some(n as u16),
                    why,
                });
            }
        }
        n += 1;
    }
    if end != bytes.len() as u64 {
        return Err(Error::Expert {
            class,
            site: None,
            why: "bytes after the last panel",
        });
    }
    Ok(())
}

const fn names(model: &Model<'_>) -> Result<(), Error> {
    let Some(names) = model.names else {
        return Ok(());
    };
    let error = Error::Config {
        why: "the table of names is broken",
    };
    let n = model.n_sites();
    match format::array::<4>(names, 0) {
        Some(count) if u32::from_le_bytes(*count) as usize == n => {}
        _ => return Err(error),
    }
    let text = 4 + (n + 1) * 4;
    let mut last = 0;
    let mut i = 0;
    while i <= n {
        let at = match format::array::<4>(names, 4 + i * 4) {
            Some(b) => u32::from_le_bytes(*b) as usize,
            None => return Err(error),
        };
        if (i == 0 && at != 0) || at < last || at > names.len() {
            return Err(error);
        }
        if i > 0 && model.site_name(i - 1).is_none() {
            return Err(error);
        }
        last = at;
        i += 1;
    }
    if names.len() != text.saturating_add(last) {
        return Err(error);
    }
    Ok(())
}

/// Rows of the r-vector of the widest group of sites that share an input (q/k/v, o, gate/up, down,
/// embedding): each expert's rank rounded up to a tile of 4.
const fn widest_ranks(model: &Model<'_>) -> usize {
    let mut widest = 0;
    let mut sum = 0usize;
    let mut group = (NO_LAYER, 0);
    let mut n = 0;
    while n < model.n_sites() {
        if let Some(site) = model.site(n) {
            let this = (
                site.layer,
                match site.module {
                    Module::Q | Module::K | Module::V => 1,
                    Module::O => 2,
                    Module::Gate | Module::Up => 3,
                    Module::Down => 4,
                    Module::Embed => 5,
                },
            );
            if this.0 != group.0 || this.1 != group.1 {
                group = this;
                sum = 0;
            }
            let mut class = 0;
            while class < model.n_experts() {
                sum = sum.saturating_add(layout::round_up(rank(model, class, n), 4));
                class += 1;
            }
            if sum > widest {
                widest = sum;
            }
        }
        n += 1;
    }
    widest
}

/// Rank of an expert at a site, the replaced one's if there is one.
const fn rank(model: &Model<'_>, class: usize, site: usize) -> usize {
    let mut rest = model.replaced;
    while let Some((file, tail)) = rest.split_first() {
        if file.class() == class {
            return file.expert().rank(site);
        }
        rest = tail;
    }
    match section_bytes(model, model.first_expert + class) {
        Some(b) => match site_record(b, model.n_sites(), site) {
            Some(r) => r.rank as usize,
            None => 0,
        },
        None => 0,
    }
}
