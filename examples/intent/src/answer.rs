//! One sentence: tokens, the call, the experts' shares, the hash of all scalings and logits.

use crate::{Inline, Kernels};
use core::fmt::Write;
use heapless::{String, Vec};
use pleach::hash::Fnv1a;
use pleach::tokenizer::{AddedTokens, Decoder, EncodeOptions, SpecialTokens, Template, Tokenizer};
use pleach::{Error, Model, Session, sample};
use pleach_mcu::count::Instructions;
use pleach_mcu::input::InputError;

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
    pub(crate) text: String<256>,
    /// Per expert, its share of the effective scalings over all tokens and sites.
    pub(crate) shares: String<128>,
    /// Over, position by position, scalings and logits: `pleach trace --hash`.
    pub(crate) hash: u64,
    /// Instructions per token of the prompt.
    pub(crate) prefill: u64,
    /// Instructions per generated token.
    pub(crate) decode: u64,
}

/// What stops the firmware or a sentence.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) enum Fault {
    /// Another part of the program has taken SysTick.
    Peripherals,
    /// The blob has no tokenizer, or more experts than this program has room for.
    Unfit,
    /// The answers of two ways through the model differ.
    Unequal,
    /// A line could not be read.
    Input(InputError),
    /// The core refused.
    Core(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Core(e)
    }
}

impl From<InputError> for Fault {
    fn from(e: InputError) -> Self {
        Fault::Input(e)
    }
}

impl Answer {
    /// Answers `sentence` with a session at length 0.
    pub(crate) fn to(
        sentence: &str,
        model: &Model<'_>,
        session: &mut Session<'_, '_>,
        count: &Instructions,
    ) -> Result<Self, Fault> {
        let tokenizer = model.tokenizer().ok_or(Fault::Unfit)?;
        let mut tokens = encode(sentence, &tokenizer)?;
        let prompt = tokens.len();

        let start = count.now();
        session.push(&tokens)?;
        session.run(Kernels::of_build(), &mut Inline)?;
        let prefilled = count.now();
        let mut text = String::new();
        let mut decoder = Decoder::new(tokenizer, SpecialTokens::Skip);
        while let Some(logits) = session.logits() {
            let token = sample::argmax(logits);
            // Neither buffer can be full: both outlast the context.
            let _ = tokens.push(token);
            let _ = write!(text, "{}", decoder.push(token));
            if model.config().eos.contains(&token) || session.len() >= crate::OPTIONS.context {
                break;
            }
            session.push(&[token])?;
            session.run(Kernels::of_build(), &mut Inline)?;
        }
        let decoded = count.now();

        let generated = tokens.len().saturating_sub(prompt);
        let mut answer = Self {
            tokens,
            prompt,
            text,
            shares: String::new(),
            hash: 0,
            prefill: (prefilled - start) / prompt.max(1) as u64,
            decode: (decoded - prefilled) / generated.saturating_sub(1).max(1) as u64,
        };
        answer.replay(model, session)?;
        Ok(answer)
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt(&self) -> &[u32] {
        self.tokens.get(..self.prompt).unwrap_or(&[])
    }

    /// Tokens of the answer, with the one that ends it.
    pub(crate) fn generated(&self) -> &[u32] {
        self.tokens.get(self.prompt..).unwrap_or(&[])
    }

    /// Goes through all tokens again, one by one: hash and shares. The next token must be the same as before.
    fn replay(&mut self, model: &Model<'_>, session: &mut Session<'_, '_>) -> Result<(), Fault> {
        session.rewind(0)?;
        let mut hash = Fnv1a::new();
        let mut sums = [0.0; EXPERTS];
        let pushed = self.tokens.len().saturating_sub(1);
        for (i, token) in self.tokens.iter().enumerate().take(pushed) {
            session.push(&[*token])?;
            session.run(Kernels::of_build(), &mut Inline)?;
            let position = session.len().saturating_sub(1);
            if let Some(scalings) = session.scalings_at(position) {
                hash.floats(scalings.values());
            }
            if let Some(effective) = session.effective_at(position) {
                for row in effective.values().chunks_exact(model.n_experts().max(1)) {
                    sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
                }
            }
            let logits = session.logits().ok_or(Fault::Unequal)?;
            hash.floats(logits);
            let next = self.tokens.get(i + 1);
            if i + 1 >= self.prompt && next != Some(&sample::argmax(logits)) {
                return Err(Fault::Unequal);
            }
        }
        self.hash = hash.value();
        self.share(model, &sums)
    }

    fn share(&mut self, model: &Model<'_>, sums: &[f32; EXPERTS]) -> Result<(), Fault> {
        let total: f32 = sums.iter().sum();
        for class in 0..model.n_experts() {
            let (Some(expert), Some(sum)) = (model.expert(class), sums.get(class)) else {
                return Err(Fault::Unfit);
            };
            let tenths = (sum / total * 1000.0 + 0.5) as u32;
            let _ = write!(self.shares, " {} {}.{}%", expert.name(), tenths / 10, tenths % 10);
        }
        Ok(())
    }
}

/// BOS as the tokenizer says, the sentence, one newline.
fn encode(sentence: &str, tokenizer: &Tokenizer<'_>) -> Result<Vec<u32, TOKENS>, Fault> {
    let mut prompt: String<257> = String::new();
    // A line has at most 256 bytes.
    let _ = write!(prompt, "{sentence}\n");
    let options = EncodeOptions { added: AddedTokens::None, template: Template::Apply };
    let mut scratch = [0; Tokenizer::scratch_len(WORD)];
    let mut tokens = Vec::new();
    let _ = tokens.resize_default(TOKENS);
    let n = tokenizer.encode(&prompt, options, &mut scratch, &mut tokens)?;
    tokens.truncate(n);
    Ok(tokens)
}
