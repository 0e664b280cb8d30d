//! The header of a tokenizer section; [the parent](super) describes the tables.

use crate::blob::format::bytes::{u16_at, u32_at};

/// The version that this build reads and writes.
pub const VERSION: u16 = 1;
/// Bytes of the [`Header`].
pub const HEADER_BYTES: usize = 48;
/// [`Header::model`]: byte-level BPE; symbols begin as bytes.
pub const MODEL_BYTE_BPE: u8 = 1;
/// [`Header::model`]: SentencePiece's BPE; symbols begin as characters, `▁` is a space.
pub const MODEL_CHAR_BPE: u8 = 2;
/// [`Header::flags`]: a piece that does not begin with a space gets one.
pub const ADD_PREFIX_SPACE: u16 = 1;
/// [`Header::flags`]: a piece at the start of the text that does not begin with a space gets one.
pub const PREFIX_FIRST: u16 = 1 << 1;
/// [`Header::flags`]: every piece gets a space, even one that begins with one.
pub const PREFIX_EVERY: u16 = 1 << 2;
/// [`Header::flags`]: decoding drops a space at the start of the text.
pub const STRIP_SPACE: u16 = 1 << 3;
/// [`Header::flags`]: a word that is a token is that token, whatever the merges say.
pub const IGNORE_MERGES: u16 = 1 << 4;
/// All flags.
pub const FLAGS: u16 = (IGNORE_MERGES << 1) - 1;
/// "No token" in the header and in 4-byte ids; 2-byte ids have `u16::MAX`.
pub const NO_TOKEN: u32 = u32::MAX;
/// The bit of a token start that marks a special token.
pub const SPECIAL: u32 = 1 << 31;
/// The longest content of an added token, in bytes: searching them costs that much at each byte of a text.
pub const MAX_ADDED: usize = 256;
/// Bytes of a row of the added tokens.
pub const ADDED_BYTES: usize = 12;
/// The bit of an added token's length that says: white space before it belongs to it.
pub const LSTRIP: u32 = 1 << 31;
/// The bit of an added token's length that says: white space after it belongs to it.
pub const RSTRIP: u32 = 1 << 30;

/// How text is cut into words before BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PreTokenizer {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2 = 1,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3 = 2,
    /// As `Llama3`, but `\p{N}` is a word of its own. Qwen2, 2.5 and 3.
    Qwen2 = 3,
    /// Each `\p{N}` is a word; what is between them is cut as by `Gpt2`. SmolLM, StarCoder.
    Digits = 4,
    /// A piece is one word. SentencePiece.
    Whole = 5,
    /// A word begins at each space. SentencePiece with Metaspace's `split`.
    Spaces = 6,
}

impl PreTokenizer {
    /// The pre-tokeniser with this number.
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            1 => Some(PreTokenizer::Gpt2),
            2 => Some(PreTokenizer::Llama3),
            3 => Some(PreTokenizer::Qwen2),
            4 => Some(PreTokenizer::Digits),
            5 => Some(PreTokenizer::Whole),
            6 => Some(PreTokenizer::Spaces),
            _ => None,
        }
    }
}

/// What happens to a text (what the first group of added tokens leaves of it) before the second group is
/// looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Normalizer {
    /// Nothing.
    None = 0,
    /// Unicode's Normalization Form C.
    Nfc = 1,
    /// The prefix is put before it, and `▁` is the same as a space. SentencePiece's.
    Spaces = 2,
}

impl Normalizer {
    /// The normaliser with this number.
    pub const fn from_number(n: u8) -> Option<Self> {
        match n {
            0 => Some(Normalizer::None),
            1 => Some(Normalizer::Nfc),
            2 => Some(Normalizer::Spaces),
            _ => None,
        }
    }
}

/// The first 48 bytes of a tokenizer section.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u16 | [`VERSION`] |
/// | 2 | u8 | model: [`MODEL_BYTE_BPE`] or [`MODEL_CHAR_BPE`] |
/// | 3 | u8 | [`PreTokenizer`] |
/// | 4 | u16 | flags, see the constants; at most one of the three that add a space |
/// | 6 | u16 | width of an id in bytes: 2, only if V and M are at most 65535, or 4 |
/// | 8 | u32 | V: one more than the largest token |
/// | 12 | u32 | M: merges |
/// | 16 | u32 | A1: added tokens that are looked for first (`normalized: false`) |
/// | 20 | u32 | A2: added tokens that are looked for in the rest (`normalized: true`) |
/// | 24 | u32 | T: bytes of text, below 2^31 |
/// | 28 | u32 | the token that the template puts before the text, or [`NO_TOKEN`] |
/// | 32 | u32 | the token that the template puts after the text, or [`NO_TOKEN`] |
/// | 36 | u32 | I: rows of the index |
/// | 40 | u8 | [`Normalizer`] |
/// | 41 | 7 bytes | reserved, 0 |
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
    /// Rows of the index.
    pub index: u32,
    /// Number of the [`Normalizer`].
    pub normalizer: u8,
}

impl Header {
    /// Reads the fields; the rules are the parser's. `None`: a reserved byte is not 0.
    pub const fn decode(b: &[u8; HEADER_BYTES]) -> Option<Self> {
        let normalizer = u32_at(b, 40);
        if normalizer > 0xff || u32_at(b, 44) != 0 {
            return None;
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
            index: u32_at(b, 36),
            normalizer: normalizer as u8,
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
            self.index,
            self.normalizer as u32,
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
