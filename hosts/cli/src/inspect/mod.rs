//! What is inside a model file, or an expert file, read from its tables.

mod errors;
mod expert;
mod json;
mod text;

pub(crate) use expert::ExpertInspection;
pub(crate) use json::json;
pub(crate) use text::{tensors, text};

use crate::tensors;
use pleach::Model;
use pleach::blob::format;
use pleach::blob::format::{
    EXPERT_HEADER_BYTES, EXPERT_SITE_BYTES, ExpertSite, HEADER_BYTES, LayerRecord, Module,
    SECTION_ENTRY_BYTES, SectionEntry, SectionKind, TABLE_HEAD_BYTES, TENSOR_ENTRY_BYTES,
    TensorEntry,
};
use pleach::kernels::layout::{Dtype, Layout, groups};
use pleach_pack::Target;

/// What a model file is made of.
pub(crate) struct Inspection<'b> {
    pub(crate) model: Model<'b>,
    /// Whose kernels it is laid out for; `None` if layouts are mixed.
    pub(crate) target: Option<Target>,
    pub(crate) sections: Vec<SectionEntry>,
    /// Tensors by part, dtype and layout.
    pub(crate) tensors: Vec<Group>,
    pub(crate) experts: Vec<ExpertInfo<'b>>,
    pub(crate) sites: Vec<SiteInfo>,
    /// Header, tables and alignment: all that is neither tensor nor names, tokenizer or provenance.
    pub(crate) table_bytes: u64,
    /// Zeros within tensors, to which layouts round up.
    pub(crate) padding_bytes: u64,
    /// What storage cost.
    pub(crate) errors: errors::Errors,
    /// What verification of checksums, hashes and values said.
    pub(crate) verified: Result<(), pleach::Error>,
}

/// Tensors that are stored alike.
#[derive(Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) part: &'static str,
    pub(crate) dtype: Dtype,
    pub(crate) layout: Layout,
    pub(crate) tensors: usize,
    /// Weights.
    pub(crate) numbers: u64,
    pub(crate) bytes: u64,
    /// Of them, what is not padding.
    pub(crate) net_bytes: u64,
}

/// One expert.
pub(crate) struct ExpertInfo<'b> {
    pub(crate) name: &'b str,
    pub(crate) key: &'b str,
    pub(crate) bytes: usize,
    /// The hashes of base, sites and classifier that it was packed for.
    pub(crate) bound: [u64; 3],
    /// Whether they are the model's. `parse` refuses other bases and sites.
    pub(crate) matches: [bool; 3],
    /// Whether it comes from a file of its own.
    pub(crate) replaced: bool,
    /// Rank at each site; 0 where it is not targeted.
    pub(crate) ranks: Vec<usize>,
}

/// One site.
pub(crate) struct SiteInfo {
    pub(crate) name: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) embedding: bool,
}

impl<'b> Inspection<'b> {
    /// Reads the tables of `bytes`, which `model` was parsed from, and verifies the rest.
    pub(crate) fn new(model: Model<'b>, bytes: &'b [u8]) -> Self {
        let sections: Vec<SectionEntry> = records::<SECTION_ENTRY_BYTES>(
            bytes,
            HEADER_BYTES,
            usize::from(model.header().sections),
        )
        .map(SectionEntry::decode)
        .collect();
        let mut all = Tensors {
            groups: Vec::new(),
            group: model.config().group as usize,
        };
        for section in &sections {
            all.section(&model, section, part(bytes, section));
        }
        let stored: u64 = all.groups.iter().map(|g| g.bytes).sum();
        let net: u64 = all.groups.iter().map(|g| g.net_bytes).sum();
        let texts: u64 = sections
            .iter()
            .filter(|s| is_text(s))
            .map(|s| s.length)
            .sum();
        Self {
            table_bytes: (bytes.len() as u64).saturating_sub(stored + texts),
            padding_bytes: stored.saturating_sub(net),
            sections,
            tensors: all.groups,
            experts: (0..model.n_experts())
                .filter_map(|class| model.expert(class))
                .map(|e| ExpertInfo {
                    name: e.name(),
                    key: e.key(),
                    bytes: e.bytes(),
                    bound: bindings(&e.header()),
                    matches: matches(&e.header(), &model),
                    replaced: model.replaced().iter().any(|f| f.class() == e.class()),
                    ranks: (0..model.n_sites()).map(|s| e.rank(s)).collect(),
                })
                .collect(),
            sites: (0..model.n_sites())
                .filter_map(|n| model.site(n))
                .map(|s| SiteInfo {
                    name: tensors::site(&model, s.number),
                    inputs: s.inputs,
                    outputs: s.outputs,
                    embedding: s.module == Module::Embed,
                })
                .collect(),
            errors: errors::Errors::of(&model),
            verified: model.verify(),
            target: Target::of(&model),
            model,
        }
    }

    /// The numbers of the layers of which `f` holds.
    pub(crate) fn layers_where(&self, f: impl Fn(&LayerRecord) -> bool) -> Vec<usize> {
        let layers = (0..).map_while(|n| self.model.layer(n)).enumerate();
        layers.filter(|(_, l)| f(l)).map(|(n, _)| n).collect()
    }

    /// Weights of the base.
    pub(crate) fn base_numbers(&self) -> u64 {
        let base = self.tensors.iter().filter(|g| g.part == "base");
        base.map(|g| g.numbers).sum()
    }

    /// Tables and padding as a share of the file.
    pub(crate) fn table_and_padding_share(&self) -> f64 {
        let all = self.model.file_len().max(1) as f64;
        (self.table_bytes + self.padding_bytes) as f64 / all
    }
}

impl ExpertInfo<'_> {
    /// Sites that it targets.
    pub(crate) fn sites(&self) -> usize {
        self.ranks.iter().filter(|r| **r > 0).count()
    }
}

/// The lowest and the highest rank where there is one: `4..8`, or `8` if they are the same.
fn rank_range(ranks: &[usize]) -> String {
    let targeted = || ranks.iter().copied().filter(|r| *r > 0);
    match (targeted().min().unwrap_or(0), targeted().max().unwrap_or(0)) {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low}..{high}"),
    }
}

fn bindings(e: &format::ExpertHeader) -> [u64; 3] {
    [e.base_hash, e.site_hash, e.classifier_hash]
}

fn matches(e: &format::ExpertHeader, model: &Model<'_>) -> [bool; 3] {
    let m = model.header();
    [
        e.base_hash == m.base_hash,
        e.site_hash == m.site_hash,
        e.classifier_hash == m.classifier_hash,
    ]
}

/// The word for a section.
pub(crate) fn kind(section: &SectionEntry) -> &'static str {
    SectionKind::from_number(section.kind).map_or("?", SectionKind::name)
}

fn is_text(section: &SectionEntry) -> bool {
    SectionKind::from_number(section.kind).is_some_and(SectionKind::is_text)
}

fn part<'b>(bytes: &'b [u8], section: &SectionEntry) -> &'b [u8] {
    let start = section.offset as usize;
    bytes
        .get(start..start.saturating_add(section.length as usize))
        .unwrap_or(&[])
}

/// `count` records of N bytes from `at`.
fn records<const N: usize>(
    bytes: &[u8],
    at: usize,
    count: usize,
) -> impl Iterator<Item = &[u8; N]> {
    let (all, _) = bytes.get(at..).unwrap_or(&[]).as_chunks::<N>();
    all.iter().take(count)
}

struct Tensors {
    groups: Vec<Group>,
    group: usize,
}

impl Tensors {
    fn section(&mut self, model: &Model<'_>, section: &SectionEntry, bytes: &[u8]) {
        let name = kind(section);
        match SectionKind::from_number(section.kind) {
            Some(SectionKind::Base | SectionKind::Classifier) => {
                let count = bytes.first_chunk().map_or(0, |n| u32::from_le_bytes(*n));
                let entries =
                    records::<TENSOR_ENTRY_BYTES>(bytes, TABLE_HEAD_BYTES, count as usize);
                for e in entries.map(TensorEntry::decode) {
                    if let (Some(d), Some(l)) =
                        (Dtype::from_tag(e.dtype), Layout::from_tag(e.layout))
                    {
                        let net = net_bytes(d, e.rows as usize, e.cols as usize, self.group);
                        let numbers = u64::from(e.rows) * u64::from(e.cols);
                        self.add(name, d, l, numbers, e.length, net);
                    }
                }
            }
            Some(SectionKind::Expert) => {
                let sites =
                    records::<EXPERT_SITE_BYTES>(bytes, EXPERT_HEADER_BYTES, model.n_sites());
                for (n, e) in sites.map(ExpertSite::decode).enumerate() {
                    if let Some(site) = model.site(n).filter(|_| e.rank > 0) {
                        self.lora(site, &e);
                    }
                }
            }
            _ => {}
        }
    }

    fn lora(&mut self, site: pleach::Site, e: &ExpertSite) {
        let rank = usize::from(e.rank);
        if let (Some(d), Some(l)) = (Dtype::from_tag(e.a_dtype), Layout::from_tag(e.a_layout)) {
            let (rows, cols) = match site.module {
                Module::Embed => (site.inputs, rank),
                _ => (rank, site.inputs),
            };
            let numbers = (rows * cols) as u64;
            let net = net_bytes(d, rows, cols, self.group);
            self.add("experts, A", d, l, numbers, u64::from(e.a_length), net);
        }
        if let Some(d) = Dtype::from_tag(e.b_dtype) {
            let numbers = (rank * site.outputs) as u64;
            let scales = if d == Dtype::Q8 { 2 * rank as u64 } else { 0 };
            let net = numbers * d.bytes() as u64 + scales;
            // B is laid out in tiles of 16 rows in every file.
            self.add(
                "experts, B",
                d,
                Layout::R16K4,
                numbers,
                u64::from(e.b_length),
                net,
            );
        }
    }

    fn add(
        &mut self,
        part: &'static str,
        dtype: Dtype,
        layout: Layout,
        numbers: u64,
        bytes: u64,
        net_bytes: u64,
    ) {
        let found = self
            .groups
            .iter_mut()
            .find(|g| (g.part, g.dtype, g.layout) == (part, dtype, layout));
        match found {
            Some(g) => {
                g.tensors += 1;
                g.numbers += numbers;
                g.bytes += bytes;
                g.net_bytes += net_bytes;
            }
            None => self.groups.push(Group {
                part,
                dtype,
                layout,
                tensors: 1,
                numbers,
                bytes,
                net_bytes,
            }),
        }
    }
}

/// Bytes of a tensor and its scales without any padding.
fn net_bytes(dtype: Dtype, rows: usize, cols: usize, group: usize) -> u64 {
    let scales = if dtype == Dtype::Q8 {
        2 * rows * groups(cols, group)
    } else {
        0
    };
    (rows * cols * dtype.bytes() + scales) as u64
}
