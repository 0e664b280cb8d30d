//! Text to tokens, in buffers of the caller.

use super::added::{Piece, Pieces, Specials};
use super::bpe::{SCRATCH_PER_BYTE, merge};
use super::section::Tokenizer;
use super::words::Words;
use crate::error::Error;

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
    /// The `u32`s of scratch that encoding needs where no word is longer than `word_bytes`.
    ///
    /// Words are what the [`PreTokenizer`](super::PreTokenizer) cuts, with the space before them. One
    /// more than the text's length is always enough.
    pub const fn scratch_len(word_bytes: usize) -> usize {
        word_bytes.saturating_mul(SCRATCH_PER_BYTE)
    }

    /// Encodes `text` into `out` and returns the number of tokens. No heap; bounded work (see
    /// [the module](super)).
    ///
    /// Scratch: [`scratch_len`](Self::scratch_len) of the longest word.
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
    /// (byte offsets, ascending) no special token begins, whatever is spelled out there. So the words of
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
        let [first, second] = match options.added {
            AddedTokens::All | AddedTokens::Ordinary => self.added_groups(),
            AddedTokens::None => [(0, 0); 2],
        };
        let special = match options.added {
            AddedTokens::Ordinary => Specials::None,
            AddedTokens::All | AddedTokens::None => Specials::But(guarded),
        };
        let (bos, eos) = match options.template {
            Template::Apply => (self.bos(), self.eos()),
            Template::Omit => (None, None),
        };
        let mut sink = Sink {
            out,
            len: 0,
            scratch_needed: 0,
        };
        sink.extend(bos);
        for piece in Pieces::new(*self, first, special, text, 0) {
            let (text, start) = match piece {
                Piece::Token(id) => {
                    sink.emit(id);
                    continue;
                }
                Piece::Text(t, start) => (t, start),
            };
            for piece in Pieces::new(*self, second, special, text, start) {
                match piece {
                    Piece::Token(id) => sink.emit(id),
                    Piece::Text(t, _) => self.encode_piece(t, scratch, &mut sink),
                }
            }
        }
        sink.extend(eos);
        sink.finish(scratch.len())
    }

    /// Encodes a text without added tokens.
    fn encode_piece(&self, text: &[u8], scratch: &mut [u32], sink: &mut Sink<'_>) {
        for word in Words::new(text, self.has(super::format::ADD_PREFIX_SPACE)) {
            match merge(self, word, scratch) {
                Ok(tokens) => sink.extend(tokens),
                Err(needed) => sink.scratch_needed = sink.scratch_needed.max(needed),
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
