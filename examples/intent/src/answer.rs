//! One sentence: tokens, the call, the experts' shares, the hash of all scalings and logits.

use core::fmt::Write;
use heapless::{String, Vec};
use pleach::hash::Fnv1a;
use pleach::tokenizer::{AddedTokens, Decoder, EncodeOptions, SpecialTokens, Template, Tokenizer};
use pleach::{Error, Inline, Kernels, Model, Session, sample};
use pleach_mcu::count::Instructions;

/// Tokens of prompt and answer: one more than the context, since the last token is not pushed.
const TOKENS: usize = crate::OPTIONS.context as usize + 1;
/// Bytes of the longest word that is encoded.
const WORD: usize = 64;
/// Experts whose shares are summed.
const EXPERTS: usize = 8;

/// What the model answered.
pub(crate) struct Answer {
    tokens: Vec<u32, TOKENS>,
    /// Tokens of the prompt.
    prompt: usize,
    /// The call.
    pub(crate) text: String<128>,
    /// Per expert, its share of the effective scalings over all tokens and sites.
    pub(crate) shares: String<96>,
    /// Over, position by position, scalings and logits: `pleach trace --hash`.
    pub(crate) hash: u64,
    /// Instructions per token of the prompt.
    pub(crate) prefill: u64,
    /// Instructions per generated token.
    pub(crate) decode: u64,
}

/// Why a sentence was not answered.
pub(crate) enum Fault {
    /// The sentence does not fit; the session serves the next one.
    Refused(&'static str),
    /// The program is wrong, or the blob is not for it.
    Broken(&'static str),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Refused(e.why())
    }
}

/// Texts longer than that are no calls.
const FULL: Fault = Fault::Broken("a text is longer than its buffer");
/// What the hash needs and the blob lacks.
const UNROUTED: Fault = Fault::Broken("the blob has no classifier");

impl Answer {
    pub(crate) const fn new() -> Self {
        Self {
            tokens: Vec::new(),
            prompt: 0,
            text: String::new(),
            shares: String::new(),
            hash: 0,
            prefill: 0,
            decode: 0,
        }
    }

    /// Answers `sentence` with a session at length 0.
    pub(crate) fn to(
        &mut self,
        sentence: &str,
        session: &mut Session<'_, '_>,
        count: &Instructions,
    ) -> Result<(), Fault> {
        let model = session.model();
        let eos = model.config().eos;
        let tokenizer = model
            .tokenizer()
            .ok_or(Fault::Broken("the blob has no tokenizer"))?;
        let mut decoder = Decoder::new(tokenizer, SpecialTokens::Skip);
        encode(sentence, &tokenizer, &mut self.tokens)?;
        self.prompt = self.tokens.len();
        self.text.clear();

        let start = count.now();
        session.push(&self.tokens)?;
        session.run(Kernels::of_build(), &mut Inline)?;
        let prefilled = count.now();
        while let Some(logits) = session.logits() {
            let token = sample::argmax(logits);
            self.tokens.push(token).map_err(|_| FULL)?;
            write!(self.text, "{}", decoder.push(token)).map_err(|_| FULL)?;
            if eos.contains(&token) || session.len() >= crate::OPTIONS.context as usize {
                break;
            }
            session.push(&[token])?;
            session.run(Kernels::of_build(), &mut Inline)?;
        }
        let decoded = count.now();

        let steps = self.generated().len().saturating_sub(1);
        self.prefill = (prefilled - start) / self.prompt.max(1) as u64;
        self.decode = (decoded - prefilled) / steps.max(1) as u64;
        self.replay(session)
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt(&self) -> &[u32] {
        self.tokens.get(..self.prompt).unwrap_or(&[])
    }

    /// Tokens of the answer, with the one that ends it.
    pub(crate) fn generated(&self) -> &[u32] {
        self.tokens.get(self.prompt..).unwrap_or(&[])
    }

    /// Goes through all tokens again, one by one: hash and shares. The answer must be the same as before.
    fn replay(&mut self, session: &mut Session<'_, '_>) -> Result<(), Fault> {
        session.rewind(0)?;
        let mut hash = Fnv1a::new();
        let mut sums = [0.0; EXPERTS];
        let mut tokens = self.tokens.iter().enumerate().peekable();
        while let (Some((i, token)), Some((_, next))) = (tokens.next(), tokens.peek()) {
            session.push(&[*token])?;
            session.run(Kernels::of_build(), &mut Inline)?;
            let scalings = session.scalings_at(i).ok_or(UNROUTED)?;
            let effective = session.effective_at(i).ok_or(UNROUTED)?;
            for site in 0..session.model().n_sites() {
                hash.floats(scalings.row(0, site));
                sums.iter_mut()
                    .zip(effective.row(0, site))
                    .for_each(|(sum, v)| *sum += v);
            }
            let logits = session.logits().unwrap_or(&[]);
            hash.floats(logits);
            if i + 1 >= self.prompt && sample::argmax(logits) != **next {
                return Err(Fault::Broken(
                    "a prompt in one push and token by token differ",
                ));
            }
        }
        self.hash = hash.value();
        self.share(session.model(), &sums)
    }

    #[inline(never)]
    fn share(&mut self, model: &Model<'_>, sums: &[f32; EXPERTS]) -> Result<(), Fault> {
        let total: f32 = sums.iter().sum();
        self.shares.clear();
        for (class, sum) in sums.iter().enumerate().take(model.n_experts()) {
            let tenths = (sum / total * 1000.0 + 0.5) as u32;
            let name = model.expert(class).map_or("?", |e| e.name());
            write!(self.shares, " {} {}.{}%", name, tenths / 10, tenths % 10).map_err(|_| FULL)?;
        }
        Ok(())
    }
}

/// BOS as the tokenizer says, the sentence, one newline.
#[inline(never)] // its buffers are gone when the session runs
fn encode(
    sentence: &str,
    tokenizer: &Tokenizer<'_>,
    tokens: &mut Vec<u32, TOKENS>,
) -> Result<(), Fault> {
    let mut prompt: String<193> = String::new();
    prompt
        .push_str(sentence)
        .and_then(|()| prompt.push('\n'))
        .map_err(|_| FULL)?;
    let options = EncodeOptions {
        added: AddedTokens::None,
        template: Template::Apply,
    };
    let mut scratch = [0; Tokenizer::scratch_len(WORD)];
    tokens.resize_default(TOKENS).map_err(|_| FULL)?;
    let n = tokenizer
        .encode(&prompt, options, &mut scratch, tokens)
        .map_err(|_| Fault::Refused("more tokens than the context, or a word of over 64 bytes"))?;
    tokens.truncate(n);
    Ok(())
}
