//! An expert: its header, and its panels at each site.

use super::VERSION;
use super::bytes::{f32_at, put, slice, u8_at, u16_at, u32_at, u64_at};
use crate::kernels::layout::{Dtype, Layout};

/// The first 8 bytes of an expert section, which is also an expert file.
pub const EXPERT_MAGIC: [u8; 8] = *b"PLEXPERT";
/// Bytes of an [`ExpertHeader`].
pub const EXPERT_HEADER_BYTES: usize = 64;
/// Bytes of an [`ExpertSite`].
pub const EXPERT_SITE_BYTES: usize = 32;

/// The first 64 bytes of an expert. [`ExpertSite`] records follow, one per site; then the name and the
/// key (UTF-8, no terminator), padded to 16; then the panels in site order, A before B, each at a
/// multiple of 16.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | 8 bytes | [`EXPERT_MAGIC`] |
/// | 8 | u16 | [`VERSION`] |
/// | 10 | u16 | class index |
/// | 12 | u32 | sites of the model |
/// | 16 | u64 | length of the section |
/// | 24 | u64 | base hash |
/// | 32 | u64 | site hash |
/// | 40 | u64 | classifier hash that the expert was packed with, 0 for none |
/// | 48 | u16 | group |
/// | 50 | u8 | bytes of the name |
/// | 51 | u8 | bytes of the key in the X-LoRA config's `adapters` |
/// | 52 | u32 | reserved |
/// | 56 | u32 | CRC-32 of bytes 0..56 |
/// | 60 | u32 | CRC-32 of bytes 64.. |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertHeader {
    /// Class index.
    pub class: u16,
    /// Sites of the model.
    pub sites: u32,
    /// Length of the section.
    pub length: u64,
    /// Hash of the base.
    pub base_hash: u64,
    /// Hash of the site table.
    pub site_hash: u64,
    /// Hash of the classifier.
    pub classifier_hash: u64,
    /// Quantisation group.
    pub group: u16,
    /// Bytes of the name.
    pub name_len: u8,
    /// Bytes of the key.
    pub key_len: u8,
    /// CRC-32 of what follows the header.
    pub body_crc: u32,
}

impl ExpertHeader {
    /// Reads the fields.
    pub const fn decode(b: &[u8; EXPERT_HEADER_BYTES]) -> Self {
        Self {
            class: u16_at(b, 10),
            sites: u32_at(b, 12),
            length: u64_at(b, 16),
            base_hash: u64_at(b, 24),
            site_hash: u64_at(b, 32),
            classifier_hash: u64_at(b, 40),
            group: u16_at(b, 48),
            name_len: u8_at(b, 50),
            key_len: u8_at(b, 51),
            body_crc: u32_at(b, 60),
        }
    }

    /// The record with magic, version and its own CRC.
    pub fn encode(&self) -> [u8; EXPERT_HEADER_BYTES] {
        let mut b = [0; EXPERT_HEADER_BYTES];
        put(&mut b, 0, &EXPERT_MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(&mut b, 10, &self.class.to_le_bytes());
        put(&mut b, 12, &self.sites.to_le_bytes());
        put(&mut b, 16, &self.length.to_le_bytes());
        put(&mut b, 24, &self.base_hash.to_le_bytes());
        put(&mut b, 32, &self.site_hash.to_le_bytes());
        put(&mut b, 40, &self.classifier_hash.to_le_bytes());
        put(&mut b, 48, &self.group.to_le_bytes());
        put(&mut b, 50, &[self.name_len, self.key_len]);
        let crc = crate::hash::crc32(slice(&b, 0, 56).unwrap_or(&[]));
        put(&mut b, 56, &crc.to_le_bytes());
        put(&mut b, 60, &self.body_crc.to_le_bytes());
        b
    }
}

/// What an expert has at one site. `rank` 0: nothing.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u32 | offset of A from the expert's start, in units of 16 bytes |
/// | 4 | u32 | offset of B, likewise |
/// | 8 | u32 | bytes of A: [`packed_size`](crate::kernels::layout::packed_size) of `[rank][inputs]` (embedding site: `[vocab][rank]`) |
/// | 12 | u32 | bytes of B: [`packed_b_size`](crate::kernels::layout::packed_b_size) of `[outputs][rank]` |
/// | 16 | f32 | scale: alpha / r, or alpha / sqrt(r) |
/// | 20 | u16 | rank |
/// | 22 | u8 | dtype of A |
/// | 23 | u8 | layout of A (embedding site: `rows`) |
/// | 24 | i8 | `scale_exp` of A |
/// | 25 | u8 | dtype of B |
/// | 26 | i8 | `scale_exp` of B |
/// | 27 | 5 bytes | reserved |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertSite {
    /// Offset of A, in units of 16 bytes.
    pub a_offset: u32,
    /// Offset of B, in units of 16 bytes.
    pub b_offset: u32,
    /// Bytes of A.
    pub a_length: u32,
    /// Bytes of B.
    pub b_length: u32,
    /// LoRA scale.
    pub scale: f32,
    /// Rank; 0 if the expert does not target the site.
    pub rank: u16,
    /// Tag of A's dtype.
    pub a_dtype: u8,
    /// Tag of A's layout.
    pub a_layout: u8,
    /// Power of two on A's scales.
    pub a_scale_exp: i8,
    /// Tag of B's dtype.
    pub b_dtype: u8,
    /// Power of two on B's scales.
    pub b_scale_exp: i8,
}

impl ExpertSite {
    /// A site that the expert does not target: 32 zero bytes.
    pub const NONE: ExpertSite = ExpertSite {
        a_offset: 0,
        b_offset: 0,
        a_length: 0,
        b_length: 0,
        scale: 0.0,
        rank: 0,
        a_dtype: 0,
        a_layout: 0,
        a_scale_exp: 0,
        b_dtype: 0,
        b_scale_exp: 0,
    };

    /// Reads the fields.
    pub const fn decode(b: &[u8; EXPERT_SITE_BYTES]) -> Self {
        Self {
            a_offset: u32_at(b, 0),
            b_offset: u32_at(b, 4),
            a_length: u32_at(b, 8),
            b_length: u32_at(b, 12),
            scale: f32_at(b, 16),
            rank: u16_at(b, 20),
            a_dtype: u8_at(b, 22),
            a_layout: u8_at(b, 23),
            a_scale_exp: u8_at(b, 24) as i8,
            b_dtype: u8_at(b, 25),
            b_scale_exp: u8_at(b, 26) as i8,
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> [u8; EXPERT_SITE_BYTES] {
        let mut b = [0; EXPERT_SITE_BYTES];
        put(&mut b, 0, &self.a_offset.to_le_bytes());
        put(&mut b, 4, &self.b_offset.to_le_bytes());
        put(&mut b, 8, &self.a_length.to_le_bytes());
        put(&mut b, 12, &self.b_length.to_le_bytes());
        put(&mut b, 16, &self.scale.to_le_bytes());
        put(&mut b, 20, &self.rank.to_le_bytes());
        put(
            &mut b,
            22,
            &[
                self.a_dtype,
                self.a_layout,
                self.a_scale_exp as u8,
                self.b_dtype,
                self.b_scale_exp as u8,
            ],
        );
        b
    }

    /// Dtype and layout of A, if both are known.
    pub(crate) const fn a_kind(&self) -> Option<(Dtype, Layout)> {
        match (
            Dtype::from_tag(self.a_dtype),
            Layout::from_tag(self.a_layout),
        ) {
            (Some(d), Some(l)) => Some((d, l)),
            _ => None,
        }
    }
}
