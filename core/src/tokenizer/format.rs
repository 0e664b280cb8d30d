//! The header of a tokenizer section; [the parent](super) describes the tables.

use crate::blob::format::array;

/// The version that this build reads and writes.
pub const VERSION: u16 = 1;
/// Bytes of the [`Header`].
pub const HEADER_BYTES: usize = 48;
/// [`Header::model`]: byte-level BPE.
pub const MODEL_BYTE_BPE: u8 = 1;
/// [`Header::flags`]: a piece that does not begin with a space gets one.
pub const ADD_PREFIX_SPACE: u16 = 1;
/// "No token" in the header and in 4-byte ids; 2-byte ids have `u16::MAX`.
pub const NO_TOKEN: u32 = u32::MAX;
/// The bit of a token start that marks a special token.
pub const SPECIAL: u32 = 1 << 31;
/// Bytes of a row of the added tokens.
pub const ADDED_BYTES: usize = 12;

/// How text is cut into words before BPE.
///
/// The numbers 2 (Llama 3) and 3 (Qwen2) are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PreTokenizer {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2 = 1,
}

impl PreTokenizer {
    /// The pre-tokeniser with this number.
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            1 => Some(PreTokenizer::Gpt2),
            _ => None,
        }
    }
}

/// The first 48 bytes of a tokenizer section.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u16 | [`VERSION`] |
/// | 2 | u8 | model: [`MODEL_BYTE_BPE`] |
/// | 3 | u8 | [`PreTokenizer`] |
/// | 4 | u16 | flags: [`ADD_PREFIX_SPACE`], others 0 |
/// | 6 | u16 | width of an id in bytes: 2, only if V and M are at most 65535, or 4 |
/// | 8 | u32 | V: one more than the largest token |
/// | 12 | u32 | M: merges |
/// | 16 | u32 | A1: added tokens that are looked for first (`normalized: false`) |
/// | 20 | u32 | A2: added tokens that are looked for in the rest (`normalized: true`) |
/// | 24 | u32 | T: bytes of text, below 2^31 |
/// | 28 | u32 | the token that the template puts before the text, or [`NO_TOKEN`] |
/// | 32 | u32 | the token that the template puts after the text, or [`NO_TOKEN`] |
/// | 36 | 12 bytes | reserved, 0 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the section.
    pub version: u16,
    /// Kind of model.
    pub model: u8,
    /// Number of the [`PreTokenizer`].
    pub pre_tokenizer: u8,
    /// Flags.
    pub flags: u16,
    /// Bytes of an id.
    pub width: u16,
    /// One more than the largest token.
    pub vocab: u32,
    /// Number of merges.
    pub merges: u32,
    /// Number of added tokens of the first group.
    pub added_first: u32,
    /// Number of added tokens of the second group.
    pub added_second: u32,
    /// Bytes of text.
    pub text: u32,
    /// The token before the text.
    pub bos: u32,
    /// The token after the text.
    pub eos: u32,
}

impl Header {
    /// Reads the fields; the rules are the parser's. `None`: a reserved byte is not 0.
    pub const fn decode(b: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut reserved = match b.split_at_checked(36) {
            Some((_, tail)) => tail,
            None => &[],
        };
        while let Some((byte, rest)) = reserved.split_first() {
            if *byte != 0 {
                return None;
            }
            reserved = rest;
        }
        Some(Self {
            version: u16_at(b, 0),
            model: u16_at(b, 2) as u8,
            pre_tokenizer: (u16_at(b, 2) >> 8) as u8,
            flags: u16_at(b, 4),
            width: u16_at(b, 6),
            vocab: u32_at(b, 8),
            merges: u32_at(b, 12),
            added_first: u32_at(b, 16),
            added_second: u32_at(b, 20),
            text: u32_at(b, 24),
            bos: u32_at(b, 28),
            eos: u32_at(b, 32),
        })
    }

    /// The record's bytes.
    ///
    /// ```
    /// use pleach::tokenizer::{example, format::Header};
    /// let bytes = example::SECTION.first_chunk().unwrap();
    /// assert_eq!(&Header::decode(bytes).unwrap().encode(), bytes);
    /// ```
    pub const fn encode(&self) -> [u8; HEADER_BYTES] {
        let [v0, v1] = self.version.to_le_bytes();
        let [f0, f1] = self.flags.to_le_bytes();
        let [w0, w1] = self.width.to_le_bytes();
        let mut b = [0; HEADER_BYTES];
        let head = [v0, v1, self.model, self.pre_tokenizer, f0, f1, w0, w1];
        let words = [
            self.vocab,
            self.merges,
            self.added_first,
            self.added_second,
            self.text,
            self.bos,
            self.eos,
        ];
        let mut rest: &mut [u8] = &mut b;
        if let Some((start, tail)) = rest.split_first_chunk_mut::<8>() {
            *start = head;
            rest = tail;
            let mut words: &[u32] = &words;
            while let (Some((word, more)), Some((field, tail))) =
                (words.split_first(), rest.split_first_chunk_mut::<4>())
            {
                *field = word.to_le_bytes();
                words = more;
                rest = tail;
            }
        }
        b
    }
}

const fn u16_at(b: &[u8; HEADER_BYTES], at: usize) -> u16 {
    match array::<2>(b, at) {
        Some(a) => u16::from_le_bytes(*a),
        None => 0,
    }
}

const fn u32_at(b: &[u8; HEADER_BYTES], at: usize) -> u32 {
    match array::<4>(b, at) {
        Some(a) => u32::from_le_bytes(*a),
        None => 0,
    }
}
