//! The view over a tokenizer section and the checks that make it safe.

use super::FULL;
use super::format::{
    ADD_PREFIX_SPACE, ADDED_BYTES, FLAGS, HEADER_BYTES, Header, IGNORE_MERGES, LSTRIP, MAX_ADDED,
    MODEL_BYTE_BPE, MODEL_CHAR_BPE, NO_TOKEN, Normalizer, PREFIX_EVERY, PREFIX_FIRST, PreTokenizer,
    RSTRIP, SPECIAL, VERSION,
};
use crate::blob::format::{array, slice};
use crate::error::Error;

/// A BPE tokenizer: views over a blob's section, nothing else.
///
/// Every access stays bounds-checked: bytes that change after [`parse`](Self::parse) give other tokens,
/// never a fault.
#[derive(Clone, Copy)]
pub struct Tokenizer<'b> {
    header: Header,
    starts: &'b [u8],
    added: &'b [u8],
    byte_ids: &'b [u8],
    pairs: &'b [u8],
    merged: &'b [u8],
    index: &'b [u8],
    text: &'b [u8],
}

/// A row of the added tokens.
#[derive(Clone, Copy)]
pub(super) struct Added<'b> {
    pub(super) id: u32,
    pub(super) content: &'b [u8],
    /// White space before the content, or after it, belongs to the token.
    pub(super) lstrip: bool,
    pub(super) rstrip: bool,
}

const NEEDS_FULL: &str = "a tokenizer that needs the feature `tokenizer-full` of the core";

const fn fail<T>(why: &'static str) -> Result<T, Error> {
    Err(Error::Tokenizer { why })
}

impl<'b> Tokenizer<'b> {
    /// Checks a tokenizer section: all that safety and termination need, in time proportional to its size.
    ///
    /// Errors: [`Error::Tokenizer`] with the rule that is broken.
    ///
    /// ```
    /// use pleach::tokenizer::{Tokenizer, example};
    /// const TOKENIZER: Tokenizer<'static> = match Tokenizer::parse(&example::SECTION) {
    ///     Ok(t) => t,
    ///     Err(e) => panic!("{}", e.why()),
    /// };
    /// assert_eq!(TOKENIZER.vocab(), 263);
    /// assert!(Tokenizer::parse(&example::SECTION[1..]).is_err());
    /// ```
    pub const fn parse(section: &'b [u8]) -> Result<Self, Error> {
        let tokenizer = match Self::view(section) {
            Ok(t) => t,
            Err(e) => return Err(e),
        };
        match tokenizer.check() {
            Ok(()) => Ok(tokenizer),
            Err(e) => Err(e),
        }
    }

    /// Cuts the tables of a section that `parse` checked, in constant time.
    pub(crate) const fn view(section: &'b [u8]) -> Result<Self, Error> {
        let Some((first, tables)) = section.split_first_chunk::<HEADER_BYTES>() else {
            return fail("the section is shorter than its header");
        };
        let Some(h) = Header::decode(first) else {
            return fail("a reserved byte of the header is not 0");
        };
        if h.version != VERSION {
            return fail("a version that this build does not read");
        }
        if let Err(e) = check_kind(&h) {
            return Err(e);
        }
        let narrow = h.vocab <= u16::MAX as u32 && h.merges <= u16::MAX as u32;
        if !(h.width == 4 || h.width == 2 && narrow) {
            return fail("the width of an id is not 4, nor 2 with at most 65535 tokens and merges");
        }
        if h.text >= SPECIAL {
            return fail("the text is not shorter than 2^31 bytes");
        }
        let width = h.width as u64;
        let starts = (h.vocab as u64 + 1) * 4;
        let added = (h.added_first as u64 + h.added_second as u64) * ADDED_BYTES as u64;
        let ids = 256 * width;
        let pairs = h.merges as u64 * 3 * width;
        let merged = h.merges as u64 * width;
        let index = h.index as u64 * width;
        if starts + added + ids + pairs + merged + index + h.text as u64 != tables.len() as u64 {
            return fail("the tables do not add up to the section's length");
        }
        // Each fits in usize: their sum is the length of a slice.
        if let Some((starts, rest)) = tables.split_at_checked(starts as usize)
            && let Some((added, rest)) = rest.split_at_checked(added as usize)
            && let Some((byte_ids, rest)) = rest.split_at_checked(ids as usize)
            && let Some((pairs, rest)) = rest.split_at_checked(pairs as usize)
            && let Some((merged, rest)) = rest.split_at_checked(merged as usize)
            && let Some((index, text)) = rest.split_at_checked(index as usize)
        {
            return Ok(Self {
                header: h,
                starts,
                added,
                byte_ids,
                pairs,
                merged,
                index,
                text,
            });
        }
        fail("the tables do not add up to the section's length")
    }

    const fn check(&self) -> Result<(), Error> {
        let h = &self.header;
        if !self.known_or_none(h.bos) || !self.known_or_none(h.eos) {
            return fail("a token of the template is not in the vocabulary");
        }
        if let Err(e) = self.check_starts() {
            return Err(e);
        }
        let mut i = 0;
        while i < 256 {
            if !self.known_or_none(self.id(self.byte_ids, i)) {
                return fail("a byte's token is not in the vocabulary");
            }
            i += 1;
        }
        if let Err(e) = self.check_merges() {
            return Err(e);
        }
        if let Err(e) = self.check_index() {
            return Err(e);
        }
        let first = h.added_first as usize;
        match self.check_added(0, first) {
            Ok(()) => self.check_added(first, first + h.added_second as usize),
            Err(e) => Err(e),
        }
    }

    const fn known_or_none(&self, id: u32) -> bool {
        id < self.header.vocab || id == NO_TOKEN
    }

    const fn check_starts(&self) -> Result<(), Error> {
        let mut rest = self.starts;
        let mut before = 0;
        let mut first = true;
        while let Some((b, tail)) = rest.split_first_chunk::<4>() {
            let entry = u32::from_le_bytes(*b);
            let start = entry & !SPECIAL;
            if start < before || first && start != 0 {
                return fail("the token starts are not ascending from 0");
            }
            if tail.is_empty() && entry > self.header.text {
                return fail("the last token ends outside the text");
            }
            before = start;
            first = false;
            rest = tail;
        }
        Ok(())
    }

    const fn check_merges(&self) -> Result<(), Error> {
        let (vocab, merges) = (self.header.vocab, self.header.merges);
        let mut before = None;
        let mut i = 0;
        while i < merges as usize {
            let (left, right, rank) = self.pair(i);
            if left >= vocab || right >= vocab || self.id(self.merged, i) >= vocab {
                return fail("a token of a merge is not in the vocabulary");
            }
            if rank >= merges {
                return fail("the rank of a merge is not below their number");
            }
            let key = pair_key(left, right);
            if let Some(before) = before
                && key <= before
            {
                return fail("the merges are not strictly ascending");
            }
            before = Some(key);
            i += 1;
        }
        Ok(())
    }

    /// Tokens have bytes of their own, so that the comparisons take time proportional to the text.
    const fn check_index(&self) -> Result<(), Error> {
        let mut before: &[u8] = &[];
        let mut space = !self.model_is_chars();
        let mut i = 0;
        while i < self.header.index as usize {
            let Some(bytes) = self.token_bytes(self.id(self.index, i)) else {
                return fail("a token of the index is not in the vocabulary");
            };
            if !less(before, bytes) {
                return fail("the index is not strictly ascending");
            }
            space |= matches!(bytes, [b' ']);
            before = bytes;
            i += 1;
        }
        if !space {
            return fail("no token for a space");
        }
        Ok(())
    }

    const fn check_added(&self, from: usize, to: usize) -> Result<(), Error> {
        let mut before: &[u8] = &[];
        // Contents may share bytes; without this bound the comparisons would take quadratic time.
        let mut left = self.header.text as usize;
        let mut i = from;
        while i < to {
            let Some(row) = self.added(i) else {
                return fail("the content of an added token lies outside the text");
            };
            if row.content.is_empty() {
                return fail("the content of an added token is empty");
            }
            if row.content.len() > MAX_ADDED {
                return fail("the content of an added token is longer than 256 bytes");
            }
            if row.id >= self.header.vocab {
                return fail("an added token is not in the vocabulary");
            }
            if !FULL && (row.lstrip || row.rstrip) {
                return fail(NEEDS_FULL);
            }
            left = match left.checked_sub(row.content.len()) {
                Some(left) => left,
                None => return fail("the added tokens of a group are longer than the text"),
            };
            if !less(before, row.content) {
                return fail("the added tokens are not strictly ascending");
            }
            before = row.content;
            i += 1;
        }
        Ok(())
    }

    /// One more than the largest token. The model's embedding may have more rows.
    pub const fn vocab(&self) -> u32 {
        self.header.vocab
    }

    /// How text is cut into words.
    pub const fn pre_tokenizer(&self) -> PreTokenizer {
        match PreTokenizer::from_number(self.header.pre_tokenizer) {
            Some(p) => p,
            None => PreTokenizer::Gpt2, // `view` lets only known numbers pass
        }
    }

    /// What happens to a text before it is cut.
    pub const fn normalizer(&self) -> Normalizer {
        match Normalizer::from_number(self.header.normalizer) {
            Some(n) => n,
            None => Normalizer::None, // as above
        }
    }

    /// Whether symbols begin as characters (SentencePiece), not as bytes.
    pub(super) const fn model_is_chars(&self) -> bool {
        FULL && self.header.model == MODEL_CHAR_BPE
    }

    /// The token that the template puts before a text.
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), None));
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub const fn bos(&self) -> Option<u32> {
        match self.header.bos {
            NO_TOKEN => None,
            id => Some(id),
        }
    }

    /// The token that the template puts after a text. What ends an answer is the model's config to say.
    pub const fn eos(&self) -> Option<u32> {
        match self.header.eos {
            NO_TOKEN => None,
            id => Some(id),
        }
    }

    /// The bytes of a token: any bytes, not only whole characters. `None`: there is no such token.
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// assert_eq!(tokenizer.token_bytes(261), Some(&b"hello"[..]));
    /// assert_eq!(tokenizer.token_bytes(2 + 0xff), Some(&[0xff][..]));
    /// assert_eq!(tokenizer.token_bytes(263), None);
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub const fn token_bytes(&self, id: u32) -> Option<&'b [u8]> {
        if id >= self.header.vocab {
            return None;
        }
        let at = id as usize * 4;
        let (Some(start), Some(end)) = (u32_in(self.starts, at), u32_in(self.starts, at + 4))
        else {
            return None;
        };
        let (start, end) = (start & !SPECIAL, end & !SPECIAL);
        match slice(
            self.text,
            start as usize,
            end.saturating_sub(start) as usize,
        ) {
            Some([]) | None => None,
            bytes => bytes,
        }
    }

    /// Whether a token is special: skipped by [`SpecialTokens::Skip`](super::SpecialTokens::Skip).
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// assert!(tokenizer.is_special(0));
    /// assert!(!tokenizer.is_special(261));
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub const fn is_special(&self, id: u32) -> bool {
        if id >= self.header.vocab {
            return false;
        }
        match u32_in(self.starts, id as usize * 4) {
            Some(entry) => entry & SPECIAL != 0,
            None => false,
        }
    }

    /// The id in an entry of a table of ids.
    const fn id(&self, table: &[u8], index: usize) -> u32 {
        if self.header.width == 2 {
            match array::<2>(table, index.saturating_mul(2)) {
                Some(&[0xff, 0xff]) | None => NO_TOKEN,
                Some(b) => u16::from_le_bytes(*b) as u32,
            }
        } else {
            match u32_in(table, index.saturating_mul(4)) {
                Some(id) => id,
                None => NO_TOKEN,
            }
        }
    }

    /// (left, right, rank) of a row of the merges.
    const fn pair(&self, index: usize) -> (u32, u32, u32) {
        let at = index.saturating_mul(3);
        let left = self.id(self.pairs, at);
        let right = self.id(self.pairs, at.saturating_add(1));
        (left, right, self.id(self.pairs, at.saturating_add(2)))
    }

    /// The rank of a pair, if it merges.
    pub(super) fn rank(&self, left: u32, right: u32) -> Option<u32> {
        let field =
            |row: usize, n: usize| self.id(self.pairs, row.saturating_mul(3).saturating_add(n));
        let (mut low, mut high) = (0, self.header.merges as usize);
        while low < high {
            let mid = low.midpoint(high);
            let order = field(mid, 0).cmp(&left);
            match order.then_with(|| field(mid, 1).cmp(&right)) {
                core::cmp::Ordering::Equal => return Some(field(mid, 2)),
                core::cmp::Ordering::Less => low = mid + 1,
                core::cmp::Ordering::Greater => high = mid,
            }
        }
        None
    }

    /// The token that the pair of this rank becomes.
    pub(super) const fn merged(&self, rank: u32) -> u32 {
        self.id(self.merged, rank as usize)
    }

    /// The token of one byte.
    pub(super) const fn byte_id(&self, byte: u8) -> Option<u32> {
        match self.id(self.byte_ids, byte as usize) {
            NO_TOKEN => None,
            id => Some(id),
        }
    }

    /// Rows of the two groups of added tokens: (from, to) each.
    pub(super) const fn added_groups(&self) -> [(usize, usize); 2] {
        let first = self.header.added_first as usize;
        let second = self.header.added_second as usize;
        [(0, first), (first, first.saturating_add(second))]
    }

    /// A row of the added tokens.
    pub(super) const fn added(&self, index: usize) -> Option<Added<'b>> {
        let at = index.saturating_mul(ADDED_BYTES);
        if let Some(id) = u32_in(self.added, at)
            && let Some(start) = u32_in(self.added, at.saturating_add(4))
            && let Some(length) = u32_in(self.added, at.saturating_add(8))
            && let Some(content) = slice(
                self.text,
                start as usize,
                (length & !(LSTRIP | RSTRIP)) as usize,
            )
        {
            return Some(Added {
                id,
                content,
                lstrip: length & LSTRIP != 0,
                rstrip: length & RSTRIP != 0,
            });
        }
        None
    }

    /// The token of the index whose bytes these are.
    pub(super) fn find(&self, bytes: impl Iterator<Item = u8> + Clone) -> Option<u32> {
        let (mut low, mut high) = (0, self.header.index as usize);
        while low < high {
            let mid = low.midpoint(high);
            let id = self.id(self.index, mid);
            let token = self.token_bytes(id).unwrap_or(&[]);
            match token.iter().copied().cmp(bytes.clone()) {
                core::cmp::Ordering::Equal => return Some(id),
                core::cmp::Ordering::Less => low = mid + 1,
                core::cmp::Ordering::Greater => high = mid,
            }
        }
        None
    }

    /// Whether a token stands for a byte that has no character (SentencePiece's `<0x0A>`).
    pub(super) fn is_byte(&self, id: u32) -> bool {
        match self.token_bytes(id) {
            Some([byte]) => self.byte_id(*byte) == Some(id),
            _ => false,
        }
    }

    pub(super) const fn has(&self, flag: u16) -> bool {
        self.header.flags & flag != 0
    }
}

impl core::fmt::Debug for Tokenizer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.header.fmt(f)
    }
}

/// The rules of model, pre-tokeniser, normaliser and flags.
const fn check_kind(h: &Header) -> Result<(), Error> {
    if h.flags & !FLAGS != 0 {
        return fail("a flag that this build does not know");
    }
    let Some(pre) = PreTokenizer::from_number(h.pre_tokenizer) else {
        return fail("a pre-tokeniser that this build does not know");
    };
    let Some(normalizer) = Normalizer::from_number(h.normalizer) else {
        return fail("a normaliser that this build does not know");
    };
    let every = h.flags & PREFIX_EVERY != 0;
    match h.model {
        MODEL_BYTE_BPE => {
            if matches!(pre, PreTokenizer::Whole | PreTokenizer::Spaces)
                || matches!(normalizer, Normalizer::Spaces)
                || h.flags & !(ADD_PREFIX_SPACE | IGNORE_MERGES) != 0
            {
                return fail("byte-level BPE with a part of SentencePiece");
            }
            if !matches!(pre, PreTokenizer::Gpt2) && h.flags & ADD_PREFIX_SPACE != 0 {
                return fail("a prefix that does not go with the pre-tokeniser");
            }
        }
        MODEL_CHAR_BPE => {
            if !matches!(pre, PreTokenizer::Whole | PreTokenizer::Spaces)
                || matches!(normalizer, Normalizer::Nfc)
            {
                return fail("SentencePiece with a part of byte-level BPE");
            }
            if every != (h.flags & (PREFIX_EVERY | ADD_PREFIX_SPACE | PREFIX_FIRST) != 0)
                && matches!(normalizer, Normalizer::Spaces)
                || every && !matches!(normalizer, Normalizer::Spaces)
            {
                return fail("a prefix that does not go with the normaliser");
            }
        }
        _ => return fail("a model that this build does not know"),
    }
    let prefixes = h.flags & (ADD_PREFIX_SPACE | PREFIX_FIRST | PREFIX_EVERY);
    if prefixes & prefixes.wrapping_sub(1) != 0 {
        return fail("more than one kind of prefix");
    }
    let full = h.model != MODEL_BYTE_BPE
        || !matches!(pre, PreTokenizer::Gpt2)
        || !matches!(normalizer, Normalizer::None)
        || h.flags & IGNORE_MERGES != 0;
    if full && !FULL {
        return fail(NEEDS_FULL);
    }
    Ok(())
}

const fn u32_in(table: &[u8], at: usize) -> Option<u32> {
    match array::<4>(table, at) {
        Some(b) => Some(u32::from_le_bytes(*b)),
        None => None,
    }
}

const fn pair_key(left: u32, right: u32) -> u64 {
    (left as u64) << 32 | right as u64
}

/// `a < b`, bytewise.
const fn less(mut a: &[u8], mut b: &[u8]) -> bool {
    loop {
        match (a.split_first(), b.split_first()) {
            (Some((x, _)), Some((y, _))) if *x != *y => return *x < *y,
            (Some((_, ta)), Some((_, tb))) => (a, b) = (ta, tb),
            (None, Some(_)) => return true,
            _ => return false,
        }
    }
}
