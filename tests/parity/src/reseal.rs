//! A blob taken apart and put together again: sections as bytes, every checksum and hash recomputed.

use pleach::blob::format::{
    EXPERT_HEADER_BYTES, HEADER_BYTES, Header, SECTION_ALIGN, SECTION_ENTRY_BYTES, SectionEntry,
    SectionKind,
};
use pleach::hash::{crc32, fnv1a};
use std::ops::Range;

/// One section's bytes.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its kind.
    pub kind: SectionKind,
    /// Class index of an expert, else 0.
    pub index: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The rows of the section table that lie within the file, as they are: damaged ones too.
pub fn entries(blob: &[u8]) -> Vec<SectionEntry> {
    let count = match blob.first_chunk() {
        Some(h) => Header::decode(h).sections as usize,
        None => 0,
    };
    let table = blob.get(HEADER_BYTES..).unwrap_or_default();
    let rows = table.as_chunks::<SECTION_ENTRY_BYTES>().0;
    rows.iter().take(count).map(SectionEntry::decode).collect()
}

/// Where a section lies, if that is within the file.
pub fn range(blob: &[u8], entry: &SectionEntry) -> Option<Range<usize>> {
    let start = usize::try_from(entry.offset).ok()?;
    let end = start.checked_add(usize::try_from(entry.length).ok()?)?;
    blob.get(start..end).map(|_| start..end)
}

/// The sections of a sound blob.
pub fn sections(blob: &[u8]) -> Vec<Section> {
    let read = |e: &SectionEntry| Section {
        kind: SectionKind::from_number(e.kind).expect("a known kind"),
        index: e.index,
        bytes: blob[range(blob, e).expect("a section within the file")].to_vec(),
    };
    entries(blob).iter().map(read).collect()
}

/// The blob of these sections, in this order, sealed.
pub fn assemble(sections: &[Section]) -> Vec<u8> {
    let mut at = HEADER_BYTES + sections.len() * SECTION_ENTRY_BYTES;
    let mut table = Vec::new();
    let mut data = Vec::new();
    for s in sections {
        let offset = at.next_multiple_of(SECTION_ALIGN);
        data.resize(data.len() + offset - at, 0);
        data.extend_from_slice(&s.bytes);
        at = offset + s.bytes.len();
        let entry = SectionEntry {
            kind: s.kind as u16,
            index: s.index,
            crc: 0,
            offset: offset as u64,
            length: s.bytes.len() as u64,
        };
        table.extend(entry.encode());
    }
    let header = Header {
        sections: sections.len() as u16,
        length: at as u64,
        base_hash: 0,
        site_hash: 0,
        classifier_hash: 0,
        table_crc: 0,
    };
    let mut blob = header.encode().to_vec();
    blob.extend(table);
    blob.extend(data);
    bind(&mut blob);
    seal(&mut blob);
    blob
}

/// Recomputes the binding hashes of base, sites and classifier, in the header and in every expert.
pub fn bind(blob: &mut [u8]) {
    if blob.len() < HEADER_BYTES {
        return;
    }
    let entries = entries(blob);
    let hash = |kind: SectionKind| {
        let entry = entries.iter().find(|e| e.kind == kind as u16)?;
        Some(fnv1a(&blob[range(blob, entry)?]))
    };
    let hashes: Vec<u8> = [
        SectionKind::Base,
        SectionKind::Sites,
        SectionKind::Classifier,
    ]
    .into_iter()
    .flat_map(|kind| hash(kind).unwrap_or(0).to_le_bytes())
    .collect();
    blob[24..48].copy_from_slice(&hashes);
    for e in entries.iter().filter(is_expert) {
        if let Some(r) = range(blob, e).filter(|r| r.len() >= EXPERT_HEADER_BYTES) {
            blob[r][24..48].copy_from_slice(&hashes);
        }
    }
}

/// Recomputes every CRC: of experts, sections, section table and header.
pub fn seal(blob: &mut [u8]) {
    for (n, e) in entries(blob).into_iter().enumerate() {
        let Some(r) = range(blob, &e) else { continue };
        if is_expert(&&e) && r.len() >= EXPERT_HEADER_BYTES {
            seal_expert(&mut blob[r.clone()]);
        }
        let crc = crc32(&blob[r]);
        let at = HEADER_BYTES + n * SECTION_ENTRY_BYTES + 4;
        blob[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    seal_tables(blob);
}

/// Recomputes the CRCs that `parse` looks at: of the header, the section table and the experts' headers.
pub fn seal_tables(blob: &mut [u8]) {
    if blob.len() < HEADER_BYTES {
        return;
    }
    for e in entries(blob).iter().filter(is_expert) {
        if let Some(r) = range(blob, e).filter(|r| r.len() >= EXPERT_HEADER_BYTES) {
            seal_expert_header(&mut blob[r]);
        }
    }
    let count = u16::from_le_bytes([blob[10], blob[11]]) as usize;
    let table = HEADER_BYTES..HEADER_BYTES + count * SECTION_ENTRY_BYTES;
    if let Some(table) = blob.get(table) {
        let crc = crc32(table);
        blob[48..52].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32(&blob[..60]);
    blob[60..64].copy_from_slice(&crc.to_le_bytes());
}

/// Recomputes both CRCs of an expert, which has at least its header.
pub fn seal_expert(expert: &mut [u8]) {
    let body = crc32(&expert[EXPERT_HEADER_BYTES..]);
    expert[60..64].copy_from_slice(&body.to_le_bytes());
    seal_expert_header(expert);
}

fn seal_expert_header(section: &mut [u8]) {
    let crc = crc32(&section[..56]);
    section[56..60].copy_from_slice(&crc.to_le_bytes());
}

fn is_expert(e: &&SectionEntry) -> bool {
    e.kind == SectionKind::Expert as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Case, Storage};

    #[test]
    fn a_packed_file_is_put_together_as_it_was() {
        for storage in [Storage::F16, Storage::Q8] {
            let file = Case::open("case-layerwise-top2").pack(storage);
            assert!(assemble(&sections(file.bytes())) == file.bytes());
        }
    }
}
