//! The header, and the table of sections that follows it.

use super::bytes::{put, slice, u16_at, u32_at, u64_at};

/// The first 8 bytes of a model file.
pub const MAGIC: [u8; 8] = *b"PLEACH\x1a\n";
/// The format version that this build reads and writes.
pub const VERSION: u16 = 1;
/// Bytes of the [`Header`].
pub const HEADER_BYTES: usize = 64;
/// Bytes of a [`SectionEntry`].
pub const SECTION_ENTRY_BYTES: usize = 32;
/// Alignment of sections within the file, in bytes.
pub const SECTION_ALIGN: usize = 64;
/// Longest chat template, in bytes.
pub const MAX_TEMPLATE: usize = 1 << 16;

/// What a section holds. Sections lie in the order of these numbers, experts by class index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum SectionKind {
    /// [`ConfigRecord`](super::ConfigRecord), inverse frequencies, layer table.
    Config = 1,
    /// Tensor table and data of the base.
    Base = 2,
    /// Site table.
    Sites = 3,
    /// [`OptionsRecord`](super::OptionsRecord).
    Options = 4,
    /// Tensor table and data of the classifier. Absent without X-LoRA routing.
    Classifier = 5,
    /// One expert; as many sections as experts.
    Expert = 6,
    /// Module names of the sites. May be stripped.
    Names = 7,
    /// The tokenizer. May be absent.
    Tokenizer = 8,
    /// JSON for people: source names and versions. May be absent.
    Provenance = 9,
    /// The chat template: UTF-8 Jinja of at most [`MAX_TEMPLATE`] bytes. May be absent.
    Template = 10,
}

impl SectionKind {
    /// The kind with this number.
    pub const fn from_number(n: u16) -> Option<Self> {
        Some(match n {
            1 => SectionKind::Config,
            2 => SectionKind::Base,
            3 => SectionKind::Sites,
            4 => SectionKind::Options,
            5 => SectionKind::Classifier,
            6 => SectionKind::Expert,
            7 => SectionKind::Names,
            8 => SectionKind::Tokenizer,
            9 => SectionKind::Provenance,
            10 => SectionKind::Template,
            _ => return None,
        })
    }

    /// A word for messages.
    pub const fn name(self) -> &'static str {
        match self {
            SectionKind::Config => "config",
            SectionKind::Base => "base",
            SectionKind::Sites => "sites",
            SectionKind::Options => "options",
            SectionKind::Classifier => "classifier",
            SectionKind::Expert => "expert",
            SectionKind::Names => "names",
            SectionKind::Tokenizer => "tokenizer",
            SectionKind::Provenance => "provenance",
            SectionKind::Template => "template",
        }
    }

    /// Whether it holds text, which no forward pass reads, rather than tensors or tables.
    pub const fn is_text(self) -> bool {
        matches!(
            self,
            SectionKind::Names
                | SectionKind::Tokenizer
                | SectionKind::Provenance
                | SectionKind::Template
        )
    }
}

/// The first 64 bytes of a model file.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | 8 bytes | [`MAGIC`] |
/// | 8 | u16 | [`VERSION`] |
/// | 10 | u16 | number of sections |
/// | 12 | u32 | reserved |
/// | 16 | u64 | length of the file |
/// | 24 | u64 | base hash: [`fnv1a`](crate::hash::fnv1a) of the base section |
/// | 32 | u64 | site hash: the same of the site table |
/// | 40 | u64 | classifier hash: the same of the classifier section, 0 without one |
/// | 48 | u32 | CRC-32 of the section table |
/// | 52 | 8 bytes | reserved |
/// | 60 | u32 | CRC-32 of bytes 0..60 |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Number of sections.
    pub sections: u16,
    /// Length of the file.
    pub length: u64,
    /// Hash of the base section.
    pub base_hash: u64,
    /// Hash of the site table.
    pub site_hash: u64,
    /// Hash of the classifier section, or 0.
    pub classifier_hash: u64,
    /// CRC-32 of the section table.
    pub table_crc: u32,
}

impl Header {
    /// Reads the fields; magic, version and CRC are the parser's.
    pub const fn decode(b: &[u8; HEADER_BYTES]) -> Self {
        Self {
            sections: u16_at(b, 10),
            length: u64_at(b, 16),
            base_hash: u64_at(b, 24),
            site_hash: u64_at(b, 32),
            classifier_hash: u64_at(b, 40),
            table_crc: u32_at(b, 48),
        }
    }

    /// The record with magic, version and its own CRC.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        put(&mut b, 0, &MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(&mut b, 10, &self.sections.to_le_bytes());
        put(&mut b, 16, &self.length.to_le_bytes());
        put(&mut b, 24, &self.base_hash.to_le_bytes());
        put(&mut b, 32, &self.site_hash.to_le_bytes());
        put(&mut b, 40, &self.classifier_hash.to_le_bytes());
        put(&mut b, 48, &self.table_crc.to_le_bytes());
        let crc = crate::hash::crc32(slice(&b, 0, 60).unwrap_or(&[]));
        put(&mut b, 60, &crc.to_le_bytes());
        b
    }
}

/// One row of the section table, which follows the header.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u16 | [`SectionKind`] |
/// | 2 | u16 | class index of an expert, else 0 |
/// | 4 | u32 | CRC-32 of the section's bytes |
/// | 8 | u64 | offset in the file, a multiple of 64 |
/// | 16 | u64 | length in bytes, without the padding to the next section |
/// | 24 | 8 bytes | reserved |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SectionEntry {
    /// The kind's number; unknown ones are refused.
    pub kind: u16,
    /// Class index of an expert, else 0.
    pub index: u16,
    /// CRC-32 of the section's bytes.
    pub crc: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl SectionEntry {
    /// Reads the fields.
    pub const fn decode(b: &[u8; SECTION_ENTRY_BYTES]) -> Self {
        Self {
            kind: u16_at(b, 0),
            index: u16_at(b, 2),
            crc: u32_at(b, 4),
            offset: u64_at(b, 8),
            length: u64_at(b, 16),
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; SECTION_ENTRY_BYTES] {
        let mut b = [0; SECTION_ENTRY_BYTES];
        put(&mut b, 0, &self.kind.to_le_bytes());
        put(&mut b, 2, &self.index.to_le_bytes());
        put(&mut b, 4, &self.crc.to_le_bytes());
        put(&mut b, 8, &self.offset.to_le_bytes());
        put(&mut b, 16, &self.length.to_le_bytes());
        b
    }
}
