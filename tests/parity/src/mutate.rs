//! Damage to blobs, from a seed: bytes and fields of every table, sections added, dropped and rebuilt.
//!
//! What comes out is sealed by [`reseal`]: the checksums never stand in the way of the damage.

use crate::random::Random;
use crate::reseal::{self, Section};
use pleach::blob::format::{
    CONFIG_BYTES, ConfigRecord, EXPERT_HEADER_BYTES, EXPERT_SITE_BYTES, ExpertHeader, HEADER_BYTES,
    LAYER_BYTES, LayerRecord, OPTIONS_BYTES, OptionsRecord, SECTION_ENTRY_BYTES, SectionKind,
    TABLE_HEAD_BYTES, TENSOR_ENTRY_BYTES,
};
use std::ops::Range;

/// What a range of a blob's bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Header and section table.
    Head,
    /// The tables of a section.
    Table(SectionKind),
    /// Weights.
    Data(SectionKind),
}

/// The regions of a sound blob, in order, without padding between sections.
pub fn regions(blob: &[u8]) -> Vec<(Region, Range<usize>)> {
    let entries = reseal::entries(blob);
    let table = HEADER_BYTES + entries.len() * SECTION_ENTRY_BYTES;
    let mut all = vec![(Region::Head, 0..table)];
    for e in &entries {
        let kind = SectionKind::from_number(e.kind).expect("a known kind");
        let range = reseal::range(blob, e).expect("a section within the file");
        let cut = range.start + table_bytes(kind, &blob[range.clone()]);
        all.push((Region::Table(kind), range.start..cut));
        if cut < range.end {
            all.push((Region::Data(kind), cut..range.end));
        }
    }
    all
}

/// Bytes of a section before its weights.
fn table_bytes(kind: SectionKind, section: &[u8]) -> usize {
    match kind {
        SectionKind::Base | SectionKind::Classifier => {
            let count = u32::from_le_bytes(*section.first_chunk().expect("a table"));
            TABLE_HEAD_BYTES + count as usize * TENSOR_ENTRY_BYTES
        }
        SectionKind::Expert => {
            let h = ExpertHeader::decode(section.first_chunk().expect("a header"));
            let names = h.name_len as usize + h.key_len as usize;
            EXPERT_HEADER_BYTES + h.sites as usize * EXPERT_SITE_BYTES + names
        }
        _ => section.len(),
    }
}

/// A damaged copy of `blob`, not sealed yet: now and then rebuilt from changed sections, then with up to six
/// fields of its tables, or bytes of its weights, overwritten.
pub fn mutate(blob: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = match random.below(4) {
        0 => rebuilt(blob, random),
        _ => blob.to_vec(),
    };
    let regions = regions(&bytes);
    for _ in 0..random.below(7) {
        let (region, range) = regions[random.below(regions.len())].clone();
        if range.is_empty() {
            continue;
        }
        let width = match region {
            Region::Data(_) => random.pick(&[1, 2, 4]),
            _ => random.pick(&[1, 2, 4, 4, 8]),
        };
        let at = range.start + random.below(range.len()) / width * width;
        let Some(field) = bytes.get_mut(at..(at + width).min(range.end)) else {
            continue;
        };
        let mut old = [0; 8];
        old[..field.len()].copy_from_slice(field);
        let new = value(u64::from_le_bytes(old), random).to_le_bytes();
        field.copy_from_slice(&new[..field.len()]);
    }
    bytes
}

/// A value that a field of value `old` may become.
fn value(old: u64, random: &mut Random) -> u64 {
    let factor = random.normal(1.0).to_bits();
    match random.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => old.wrapping_mul(2),
        5 => old / 2,
        6 => 1 << random.below(64),
        7 => old ^ 1 << random.below(64),
        8 => random.below(40) as u64,
        9 => u64::from(factor) << 32 | u64::from(factor),
        10 => {
            let special = [
                f32::NAN,
                f32::INFINITY,
                -0.0,
                f32::MIN_POSITIVE,
                65504.0,
                1e38,
            ];
            u64::from(random.pick(&special).to_bits())
        }
        _ => random.bits(),
    }
}

/// The blob with its sections changed so that most of them still fit together.
fn rebuilt(blob: &[u8], random: &mut Random) -> Vec<u8> {
    let mut s = reseal::sections(blob);
    match random.below(9) {
        0 => without_rope(&mut s),
        1 => {
            let copies = 1 + random.below(20);
            more_experts(&mut s, copies);
        }
        2 => base_only(&mut s),
        3 => narrow_heads(&mut s),
        4 => s.retain(|s| s.kind != SectionKind::Classifier),
        5 => s.retain(|s| (s.kind as u16) < SectionKind::Names as u16),
        6 => {
            let (a, b) = (random.below(s.len()), random.below(s.len()));
            s.swap(a, b);
        }
        7 => {
            let n = random.below(s.len());
            let keep = random.below(s[n].bytes.len() + 1);
            s[n].bytes.truncate(keep);
            if s[n].kind == SectionKind::Base || s[n].kind == SectionKind::Expert {
                s.remove(n);
            }
        }
        _ => options(&mut s, random),
    }
    if s.iter().any(|s| s.bytes.len() < minimum(s.kind)) {
        return blob.to_vec();
    }
    reseal::assemble(&s)
}

/// Shorter sections have no regions of their own.
fn minimum(kind: SectionKind) -> usize {
    match kind {
        SectionKind::Base | SectionKind::Classifier => TABLE_HEAD_BYTES,
        SectionKind::Expert => EXPERT_HEADER_BYTES,
        _ => 0,
    }
}

fn find(sections: &mut [Section], kind: SectionKind) -> Option<&mut Section> {
    sections.iter_mut().find(|s| s.kind == kind)
}

/// Rewrites the config section from its parts.
fn config(
    sections: &mut [Section],
    change: impl FnOnce(&mut ConfigRecord, &mut Vec<u8>, &mut Vec<LayerRecord>),
) {
    let Some(section) = find(sections, SectionKind::Config) else {
        return;
    };
    let mut record = ConfigRecord::decode(section.bytes.first_chunk().expect("a config"));
    let at = CONFIG_BYTES + record.rope_dim as usize / 2 * 4;
    let mut freqs = section.bytes[CONFIG_BYTES..at].to_vec();
    let rows = section.bytes[at..].as_chunks::<LAYER_BYTES>().0;
    let mut layers: Vec<_> = rows.iter().map(LayerRecord::decode).collect();
    change(&mut record, &mut freqs, &mut layers);
    section.bytes = record.encode().to_vec();
    section.bytes.extend(freqs);
    section
        .bytes
        .extend(layers.iter().flat_map(LayerRecord::encode));
}

fn without_rope(sections: &mut [Section]) {
    config(sections, |c, freqs, layers| {
        c.rope_dim = 0;
        freqs.clear();
        layers.iter_mut().for_each(|l| l.rope = 0);
    });
}

/// Twice the heads, half as wide.
fn narrow_heads(sections: &mut [Section]) {
    config(sections, |c, freqs, _| {
        c.heads *= 2;
        c.kv_heads *= 2;
        c.head_dim /= 2;
        c.rope_dim = c.head_dim / 2 * 2;
        freqs.truncate(c.rope_dim as usize / 2 * 4);
    });
}

/// The first expert again and again; the classifier, which would not fit, goes.
fn more_experts(sections: &mut Vec<Section>, copies: usize) {
    sections.retain(|s| s.kind != SectionKind::Classifier);
    let experts = sections
        .iter()
        .filter(|s| s.kind == SectionKind::Expert)
        .count();
    let Some(first) = sections.iter().position(|s| s.kind == SectionKind::Expert) else {
        return;
    };
    for n in 0..copies {
        let class = (experts + n) as u16;
        let mut copy = sections[first].clone();
        copy.index = class;
        copy.bytes[10..12].copy_from_slice(&class.to_le_bytes());
        sections.insert(first + experts + n, copy);
    }
    set_experts(sections, (experts + copies) as u16);
}

fn set_experts(sections: &mut [Section], experts: u16) {
    if let Some(o) = find(sections, SectionKind::Options) {
        o.bytes[..2].copy_from_slice(&experts.to_le_bytes());
        o.bytes[2..4].fill(0);
    }
}

/// No expert, no site, no classifier, no name.
fn base_only(sections: &mut Vec<Section>) {
    let kept = |s: &Section| {
        !matches!(
            s.kind,
            SectionKind::Expert | SectionKind::Classifier | SectionKind::Names
        )
    };
    sections.retain(kept);
    config(sections, |_, _, layers| {
        for l in layers {
            (l.site_mask, l.first_site) = (0, 0);
        }
    });
    if let Some(s) = find(sections, SectionKind::Sites) {
        s.bytes = vec![0; TABLE_HEAD_BYTES];
    }
    set_experts(sections, 0);
}

/// Other X-LoRA options, most of them legal.
fn options(sections: &mut [Section], random: &mut Random) {
    let Some(section) = find(sections, SectionKind::Options) else {
        return;
    };
    let Some(bytes) = section.bytes.first_chunk::<OPTIONS_BYTES>() else {
        return;
    };
    let old = OptionsRecord::decode(bytes);
    let top_k_lora = random.below(old.experts as usize + 1) as u16;
    let new = OptionsRecord {
        top_k_lora,
        enable_softmax: random.below(2) == 0,
        enable_softmax_topk: random.below(2) == 0,
        softmax_temperature: random.pick(&[1.0, 2f32.powi(-24), 65504.0, 1e-3]),
        scaling_pass_value: match top_k_lora {
            0 => random.pick(&[0.0, 1.0, -65504.0, 2f32.powi(-24)]),
            _ => 0.0,
        },
        global_scaling_weight: random.pick(&[1.0, 0.0, -1.0, 65504.0, 2f32.powi(-24)]),
        ..old
    };
    section.bytes = new.encode().to_vec();
}
