//! Text to tokens, in buffers of the caller.

use super::FULL;
use super::added::{Matching, Piece, Pieces, Rows};
use super::bpe::{SCRATCH_PER_BYTE, merge};
use super::format::{ADD_PREFIX_SPACE, IGNORE_MERGES, Normalizer, PREFIX_EVERY, PREFIX_FIRST};
use super::nfc::{is_nfc, nfc};
use super::section::Tokenizer;
use super::span::Span;
use super::words::Words;
use crate::error::Error;
use zerocopy::IntoBytes;

/// Which added tokens are recognised when they are spelled out in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedTokens {
    /// All of them, as `tokenizers` does unless told.
    All,
    /// All but the special ones, which are text like any other (`encode_special_tokens`): for words of
    /// someone who must not be able to write control tokens.
    Ordinary,
    /// None.
    None,
}

/// Whether the tokens that the post-processor's template puts around a text are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// [`Tokenizer::bos`] before and [`Tokenizer::eos`] after the text, if there are any
    /// (`add_special_tokens`).
    Apply,
    /// Only the text.
    Omit,
}

/// How a text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Which added tokens are recognised in the text.
    pub added: AddedTokens,
    /// Whether BOS and EOS are added.
    pub template: Template,
}

impl EncodeOptions {
    /// All added tokens, no template.
    pub const DEFAULT: Self = Self {
        added: AddedTokens::All,
        template: Template::Omit,
    };
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'b> Tokenizer<'b> {
    /// The `u32`s of scratch that encoding needs where no word is longer than `word_bytes` and no normaliser
    /// changes the text.
    ///
    /// Words are what the [`PreTokenizer`](super::PreTokenizer) cuts, with the space before them; SentencePiece's
    /// are the whole text. [`scratch_for`](Self::scratch_for) is always enough.
    pub const fn scratch_len(word_bytes: usize) -> usize {
        word_bytes.saturating_mul(SCRATCH_PER_BYTE)
    }

    /// The `u32`s of scratch that are enough for any text of `text_bytes`. Most texts need far less, and
    /// [`encode`](Self::encode) says how much.
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// assert_eq!(tokenizer.scratch_for(10), Tokenizer::scratch_len(11)); // a space may be put before it
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub const fn scratch_for(&self, text_bytes: usize) -> usize {
        let bytes = self.normal_bytes(text_bytes);
        let buffer = match self.normalizer() {
            Normalizer::Nfc => bytes.div_ceil(4),
            _ => 0,
        };
        buffer.saturating_add(Self::scratch_len(bytes.saturating_add(1)))
    }

    /// The tokens that are enough for any text of `text_bytes`, with the template's.
    ///
    /// ```
    /// # use pleach::tokenizer::{Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// assert_eq!(tokenizer.tokens_for(10), 12);
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub const fn tokens_for(&self, text_bytes: usize) -> usize {
        let bytes = self.normal_bytes(text_bytes);
        // A space before each piece; between two pieces there is a byte of an added token at least.
        let spaces = match self.has(ADD_PREFIX_SPACE | PREFIX_FIRST | PREFIX_EVERY) {
            true => bytes.div_ceil(2),
            false => 0,
        };
        bytes.saturating_add(spaces).saturating_add(2)
    }

    /// The most bytes that the normaliser makes of a text.
    const fn normal_bytes(&self, text_bytes: usize) -> usize {
        match self.normalizer() {
            Normalizer::Nfc => text_bytes.saturating_mul(3),
            _ => text_bytes,
        }
    }

    /// Encodes `text` into `out` and returns the number of tokens. No heap; bounded work (see
    /// [the module](super)).
    ///
    /// Scratch: [`scratch_len`](Self::scratch_len) of the longest word, or [`scratch_for`](Self::scratch_for).
    /// Errors: [`Error::Shape`] with the size that is needed, if `scratch` or `out` is too small; what
    /// they then hold means nothing.
    ///
    /// ```
    /// # use pleach::tokenizer::{AddedTokens, EncodeOptions, Template, Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// let (mut scratch, mut out) = ([0; 64], [0; 8]);
    /// let options = EncodeOptions { template: Template::Apply, ..EncodeOptions::DEFAULT };
    /// let n = tokenizer.encode("hello hello</s>", options, &mut scratch, &mut out)?;
    /// assert_eq!(&out[..n], [0, 261, 262, 1]); // BOS, "hello", " hello", "</s>"
    ///
    /// let options = EncodeOptions { added: AddedTokens::Ordinary, ..EncodeOptions::DEFAULT };
    /// let n = tokenizer.encode("<s>", options, &mut scratch, &mut out)?;
    /// assert_eq!(&out[..n], [2 + 60, 2 + 115, 2 + 62]); // "<", "s", ">"
    ///
    /// let error = tokenizer.encode("hello hello", options, &mut scratch, &mut out[..1]);
    /// assert_eq!(error, Err(pleach::Error::Shape { what: "tokens", expected: 2, found: 1 }));
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn encode(
        &self,
        text: &str,
        options: EncodeOptions,
        scratch: &mut [u32],
        out: &mut [u32],
    ) -> Result<usize, Error> {
        self.encode_bytes(text.as_bytes(), options, scratch, out)
    }

    /// [`encode`](Self::encode) for any bytes: those that are not UTF-8 are encoded as they are, so that
    /// the tokens' bytes give `text` back wherever every byte has a token.
    ///
    /// ```
    /// # use pleach::tokenizer::{EncodeOptions, Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// let (mut scratch, mut out) = ([0; 64], [0; 8]);
    /// let n = tokenizer.encode_bytes(b"hello\xff", EncodeOptions::DEFAULT, &mut scratch, &mut out)?;
    /// assert_eq!(&out[..n], [261, 2 + 0xff]);
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn encode_bytes(
        &self,
        text: &[u8],
        options: EncodeOptions,
        scratch: &mut [u32],
        out: &mut [u32],
    ) -> Result<usize, Error> {
        self.encode_guarded(text, options, &[], scratch, out)
    }

    /// [`encode_bytes`](Self::encode_bytes) of a text that is only in parts one's own: at the places `guarded`
    /// (byte offsets, ascending) no added token is found, whatever is spelled out there. So the words of
    /// someone who must not write control tokens can stand in a text that has some.
    ///
    /// ```
    /// # use pleach::tokenizer::{EncodeOptions, Tokenizer, example};
    /// let tokenizer = Tokenizer::parse(&example::SECTION)?;
    /// let (mut scratch, mut out) = ([0; 64], [0; 8]);
    /// let mut encode = |guarded: &[usize]| {
    ///     let text = b"<s>hello<s>";
    ///     tokenizer.encode_guarded(text, EncodeOptions::DEFAULT, guarded, &mut scratch, &mut out)
    /// };
    /// assert_eq!((encode(&[])?, encode(&[8])?), (3, 5)); // the last "<s>" is "<", "s", ">"
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn encode_guarded(
        &self,
        text: &[u8],
        options: EncodeOptions,
        guarded: &[usize],
        scratch: &mut [u32],
        out: &mut [u32],
    ) -> Result<usize, Error> {
        let matching = match options.added {
            AddedTokens::Ordinary => Matching::Plain,
            AddedTokens::All | AddedTokens::None => Matching::But(guarded),
        };
        let [first, second] = match options.added {
            AddedTokens::All | AddedTokens::Ordinary => self.added_groups(),
            AddedTokens::None => [(0, 0); 2],
        }
        .map(|rows| Rows::new(self, rows, matching));
        let (bos, eos) = match options.template {
            Template::Apply => (self.bos(), self.eos()),
            Template::Omit => (None, None),
        };
        let mut encoder = Encoder {
            tokenizer: *self,
            second,
            sink: Sink {
                out,
                len: 0,
                scratch_needed: 0,
            },
        };
        encoder.sink.extend(bos);
        for piece in Pieces::new(*self, first, Span::new(text), 0) {
            match piece {
                Piece::Token(id) => encoder.sink.emit(id),
                Piece::Text(span, start) => encoder.normalise(span, start, scratch),
            }
        }
        encoder.sink.extend(eos);
        encoder.sink.finish(scratch.len())
    }
}

struct Encoder<'g, 'o, 'b> {
    tokenizer: Tokenizer<'b>,
    second: Rows<'g>,
    sink: Sink<'o>,
}

impl<'g> Encoder<'g, '_, '_> {
    /// Encodes what the first group of added tokens leaves of the text, which begins at `start`.
    fn normalise(&mut self, mut piece: Span<'_>, start: usize, scratch: &mut [u32]) {
        let rows = self.second;
        if !FULL {
            return self.pieces(piece, start, rows, 0, scratch);
        }
        match self.tokenizer.normalizer() {
            Normalizer::None => self.pieces(piece, start, rows, 0, scratch),
            Normalizer::Spaces => {
                piece.space = self.tokenizer.has(PREFIX_EVERY);
                piece.fold = true;
                self.pieces(piece, start, rows, 0, scratch);
            }
            Normalizer::Nfc => match is_nfc(piece.text) {
                Ok(()) => self.pieces(piece, start, rows, 0, scratch),
                Err(len) => self.nfc(piece.text, len, start, scratch),
            },
        }
    }

    /// Encodes a text that NFC changes, to `len` bytes.
    fn nfc(&mut self, text: &[u8], len: usize, start: usize, scratch: &mut [u32]) {
        let front = len.div_ceil(4);
        let most = front.saturating_add(Tokenizer::scratch_len(len.saturating_add(1)));
        let Some((buffer, scratch)) = scratch.split_at_mut_checked(front) else {
            return self.sink.need(most);
        };
        let buffer = buffer.as_mut_bytes();
        let Ok(len) = nfc(text, buffer) else {
            return self.sink.need(most);
        };
        let mut rows = self.second;
        // Places are no longer those of the text: a guarded one guards all of it.
        let end = start.saturating_add(text.len());
        if let guarded @ Matching::But(_) = rows.matching
            && !guarded.admits(true, start, end)
        {
            rows.matching = Matching::None;
        }
        let text = Span::new(buffer.get(..len).unwrap_or(&[]));
        self.pieces(text, start, rows, front, scratch);
    }

    /// Encodes normalised text; `used`: what the normaliser took of the scratch.
    fn pieces(
        &mut self,
        text: Span<'_>,
        start: usize,
        rows: Rows<'g>,
        used: usize,
        scratch: &mut [u32],
    ) {
        for piece in Pieces::new(self.tokenizer, rows, text, start) {
            match piece {
                Piece::Token(id) => self.sink.emit(id),
                Piece::Text(span, start) => self.words(span, start, used, scratch),
            }
        }
    }

    /// Encodes text without added tokens.
    fn words(&mut self, mut text: Span<'_>, start: usize, used: usize, scratch: &mut [u32]) {
        let tokenizer = self.tokenizer;
        text.fold = tokenizer.model_is_chars();
        let prefix = match start {
            0 if FULL => ADD_PREFIX_SPACE | PREFIX_FIRST,
            _ => ADD_PREFIX_SPACE,
        };
        if tokenizer.has(prefix) && !text.spaced() {
            text.space = true;
        }
        for word in Words::new(tokenizer.pre_tokenizer(), text) {
            if FULL
                && tokenizer.has(IGNORE_MERGES)
                && let Some(id) = tokenizer.find(word)
            {
                self.sink.emit(id);
                continue;
            }
            match merge(&tokenizer, word, scratch) {
                Ok(tokens) => self.sink.extend(tokens),
                Err(needed) => self.sink.need(needed.saturating_add(used)),
            }
        }
    }
}

/// Counts the tokens, and keeps those for which there is room.
struct Sink<'o> {
    out: &'o mut [u32],
    len: usize,
    /// The most scratch that a word lacked.
    scratch_needed: usize,
}

impl Sink<'_> {
    fn emit(&mut self, id: u32) {
        if let Some(slot) = self.out.get_mut(self.len) {
            *slot = id;
        }
        self.len = self.len.saturating_add(1);
    }

    fn extend(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            self.emit(id);
        }
    }

    fn need(&mut self, scratch: usize) {
        self.scratch_needed = self.scratch_needed.max(scratch);
    }

    fn finish(self, scratch: usize) -> Result<usize, Error> {
        let shape = |what, expected: usize, found: usize| Error::Shape {
            what,
            expected: expected as u64,
            found: found as u64,
        };
        if self.scratch_needed > 0 {
            return Err(shape("tokenizer scratch", self.scratch_needed, scratch));
        }
        if self.len > self.out.len() {
            return Err(shape("tokens", self.len, self.out.len()));
        }
        Ok(self.len)
    }
}
