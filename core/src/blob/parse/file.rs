//! The file's shape: headers, checksums of tables, sections.

use super::*;
use crate::kernels::layout::is_group;

pub(super) const fn file_header(bytes: &[u8]) -> Result<Header, Error> {
    let Some(b) = format::array::<{ format::HEADER_BYTES }>(bytes, 0) else {
        return Err(Error::Truncated {
            needed: format::HEADER_BYTES as u64,
            found: bytes.len() as u64,
        });
    };
    tri!(magic_and_version(b, format::MAGIC));
    tri!(header_crc(b, 60));
    if !format::is_zero(b, 12, 4) || !format::is_zero(b, 52, 8) {
        return Err(Error::Config {
            why: "reserved bytes of the file's header are not 0",
        });
    }
    let header = Header::decode(b);
    if header.length != bytes.len() as u64 {
        return Err(Error::Truncated {
            needed: header.length,
            found: bytes.len() as u64,
        });
    }
    Ok(header)
}

pub(super) const fn magic_and_version(b: &[u8; 64], magic: [u8; 8]) -> Result<(), Error> {
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
pub(super) const fn header_crc(b: &[u8; 64], at: usize) -> Result<(), Error> {
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
    if !format::is_zero(b, 52, 4) {
        return Err(Error::Expert {
            class: header.class,
            site: None,
            why: "reserved bytes of its header are not 0",
        });
    }
    if !is_group(header.group as usize) {
        return Err(Error::Expert {
            class: header.class,
            site: None,
            why: "its group is none of 32, 64, 128, 256",
        });
    }
    if header.length != bytes.len() as u64 {
        return Err(Error::Truncated {
            needed: header.length,
            found: bytes.len() as u64,
        });
    }
    Ok(header)
}

pub(super) struct SectionSlices<'b> {
    pub(super) config: Option<&'b [u8]>,
    pub(super) base: Option<&'b [u8]>,
    pub(super) sites: Option<&'b [u8]>,
    pub(super) options: Option<&'b [u8]>,
    pub(super) classifier: Option<&'b [u8]>,
    pub(super) names: Option<&'b [u8]>,
    pub(super) tokenizer: Option<&'b [u8]>,
    pub(super) provenance: Option<&'b [u8]>,
    pub(super) template: Option<&'b [u8]>,
    pub(super) first_expert: usize,
    pub(super) experts: u16,
}

pub(super) const fn sections<'b>(
    bytes: &'b [u8],
    header: &Header,
) -> Result<SectionSlices<'b>, Error> {
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
        template: None,
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
        if !format::is_zero(b, 24, 8) {
            return Err(Error::Section {
                index,
                why: "reserved bytes of its entry are not 0",
            });
        }
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
            SectionKind::Template => s.template = Some(part),
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

pub(super) const fn section_bytes<'b>(model: &Model<'b>, n: usize) -> Option<&'b [u8]> {
    match model.section_entry(n) {
        Some(e) => format::slice(model.bytes, e.offset as usize, e.length as usize),
        None => None,
    }
}
