//! An expert file by itself: what it says without the model that it belongs to.

use super::{rank_range, records};
use crate::model::target_name;
use crate::output::{bytes, labelled};
use pleach::blob::format::{
    EXPERT_HEADER_BYTES, EXPERT_SITE_BYTES, ExpertHeader, ExpertSite, SectionKind, VERSION,
};
use pleach::hash::crc32;
use pleach::kernels::layout::{Dtype, Layout};
use pleach::{Error, ExpertFile};
use pleach_pack::Target;
use serde_json::{Value, json};
use std::fmt::Write;

const INDENT: usize = 12;

/// What an expert file holds. Shapes and the names of sites are its model's.
pub(crate) struct ExpertInspection<'b> {
    name: &'b str,
    key: &'b str,
    header: ExpertHeader,
    bytes: usize,
    /// Whose kernels its A panels are laid out for; `None` if layouts are mixed.
    target: Option<Target>,
    /// By the model's sites.
    sites: Vec<ExpertSite>,
    /// Panels by part, dtype and layout.
    panels: Vec<Panels>,
    /// What its checksum said.
    pub(crate) verified: Result<(), Error>,
}

/// Panels that are stored alike.
struct Panels {
    part: &'static str,
    dtype: Dtype,
    layout: Layout,
    count: usize,
    bytes: u64,
}

impl<'b> ExpertInspection<'b> {
    /// Reads the tables of a file whose header is sound.
    pub(crate) fn new(file: &ExpertFile<'b>) -> Self {
        let expert = file.expert();
        let (data, header) = (expert.data(), expert.header());
        let records =
            records::<EXPERT_SITE_BYTES>(data, EXPERT_HEADER_BYTES, header.sites as usize);
        let sites: Vec<ExpertSite> = records.map(ExpertSite::decode).collect();
        let mut panels = Vec::new();
        for s in sites.iter().filter(|s| s.rank > 0) {
            let a = (Dtype::from_tag(s.a_dtype), Layout::from_tag(s.a_layout));
            // B is laid out in tiles of 16 rows in every file.
            let b = (Dtype::from_tag(s.b_dtype), Some(Layout::R16K4));
            add(&mut panels, "A", a, s.a_length);
            add(&mut panels, "B", b, s.b_length);
        }
        let found = crc32(data.get(EXPERT_HEADER_BYTES..).unwrap_or_default());
        Self {
            name: expert.name(),
            key: expert.key(),
            bytes: data.len(),
            target: Target::of_layouts(panels.iter().filter(|p| p.part == "A").map(|p| p.layout)),
            verified: match found == header.body_crc {
                true => Ok(()),
                false => Err(Error::Crc {
                    section: Some(SectionKind::Expert),
                    expected: header.body_crc,
                    found,
                }),
            },
            header,
            sites,
            panels,
        }
    }

    fn ranks(&self) -> Vec<usize> {
        self.sites.iter().map(|s| usize::from(s.rank)).collect()
    }

    fn targeted(&self) -> usize {
        self.sites.iter().filter(|s| s.rank > 0).count()
    }

    /// Sites by rank and scale, in the order of their first.
    fn alike(&self) -> Vec<(u16, f32, Vec<usize>)> {
        let mut all: Vec<(u16, f32, Vec<usize>)> = Vec::new();
        for (n, s) in self.sites.iter().enumerate().filter(|(_, s)| s.rank > 0) {
            match all
                .iter_mut()
                .find(|(r, scale, _)| (*r, *scale) == (s.rank, s.scale))
            {
                Some((_, _, numbers)) => numbers.push(n),
                None => all.push((s.rank, s.scale, vec![n])),
            }
        }
        all
    }

    /// The inspection as lines of at most `width` columns, where words allow.
    pub(crate) fn text(&self, file: &str, width: usize) -> String {
        let mut out = String::new();
        let mut line = |label: &str, text: &str| {
            let _ = writeln!(out, "{}", labelled(label, INDENT, text, width));
        };
        let head = |n: usize, label: &'static str| if n == 0 { label } else { "" };
        let (size, target) = (bytes(self.bytes as u64), target_name(self.target));
        line(
            "file",
            &format!("{file}, {size}, an expert, laid out for {target}"),
        );
        line(
            "expert",
            &format!(
                "{} {} (key {}): rank {} at {} of {} sites; groups of {}",
                self.header.class,
                self.name,
                self.key,
                rank_range(&self.ranks()),
                self.targeted(),
                self.header.sites,
                self.header.group
            ),
        );
        for (n, (rank, scale, numbers)) in self.alike().iter().enumerate() {
            let numbers = spans(numbers);
            line(
                head(n, "sites"),
                &format!("rank {rank}, scale {scale}: {numbers}"),
            );
        }
        for (n, p) in self.panels.iter().enumerate() {
            line(
                head(n, "tensors"),
                &format!(
                    "{}: {} in {} {}, {}",
                    p.part,
                    p.count,
                    p.dtype.name(),
                    p.layout.name(),
                    bytes(p.bytes)
                ),
            );
        }
        let h = &self.header;
        line(
            "bindings",
            &format!(
                "base {:016x} sites {:016x} classifier {}",
                h.base_hash,
                h.site_hash,
                classifier(h).unwrap_or("none".into())
            ),
        );
        line(
            "verified",
            &match &self.verified {
                Ok(()) => "its checksums are sound; with its model (pleach inspect MODEL --expert FILE) bindings, \
                           shapes and values are verified, too"
                    .to_owned(),
                Err(e) => e.to_string(),
            },
        );
        out
    }

    /// The inspection as one JSON object.
    pub(crate) fn json(&self, file: &str) -> Value {
        let hash = |h: u64| format!("{h:016x}");
        json!({
            "file": file,
            "kind": "expert",
            "format": VERSION,
            "bytes": self.bytes,
            "for": self.target.map(Target::name),
            "class": self.header.class,
            "name": self.name,
            "key": self.key,
            "group": self.header.group,
            "sites": self.targeted(),
            "sites_of_model": self.header.sites,
            "ranks": self.ranks(),
            "scales": self.sites.iter().map(|s| (s.rank > 0).then(|| super::json::decimal(s.scale))).collect::<Vec<_>>(),
            "tensors": self.panels.iter().map(|p| json!({
                "part": p.part,
                "dtype": p.dtype.name(),
                "layout": p.layout.name(),
                "tensors": p.count,
                "bytes": p.bytes,
            })).collect::<Vec<_>>(),
            "bindings": {
                "base": hash(self.header.base_hash),
                "sites": hash(self.header.site_hash),
                "classifier": classifier(&self.header),
            },
            "verified": self.verified.is_ok(),
        })
    }
}

/// The hash of the classifier that the expert was packed with; `None` if its model had none.
fn classifier(h: &ExpertHeader) -> Option<String> {
    (h.classifier_hash != 0).then(|| format!("{:016x}", h.classifier_hash))
}

fn add(
    all: &mut Vec<Panels>,
    part: &'static str,
    kind: (Option<Dtype>, Option<Layout>),
    length: u32,
) {
    let (Some(dtype), Some(layout)) = kind else {
        return;
    };
    let key = (part, dtype, layout);
    let length = u64::from(length);
    match all.iter_mut().find(|p| (p.part, p.dtype, p.layout) == key) {
        Some(p) => {
            p.count += 1;
            p.bytes += length;
        }
        None => all.push(Panels {
            part,
            dtype,
            layout,
            count: 1,
            bytes: length,
        }),
    }
}

/// Rising numbers: `0 to 3, 5, 7, 8`.
fn spans(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let words = runs.map(|run| match run {
        [first, _, .., last] => format!("{first} to {last}"),
        few => few
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_spans() {
        assert_eq!(spans(&[0, 1, 2, 3, 5, 7, 8]), "0 to 3, 5, 7, 8");
        assert_eq!(spans(&[4]), "4");
        assert_eq!(spans(&[]), "");
    }
}
