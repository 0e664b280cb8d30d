//! The options of a draw.

use crate::error::Error;
use crate::math::{in_range, magnitude};
use crate::sample::keep::Row;
use crate::sample::penalties::{self, History};

/// The longest look back at tokens: it bounds the work of the penalties.
pub const MAX_PENALTY_TOKENS: u32 = 4096;

/// How the next token is chosen.
///
/// Every draw is a function of the logits, the last tokens, the position and these: no state. The order is
/// transformers' (the temperature before top-k and top-p, each over what the one before has left), the
/// penalties are llama.cpp's.
///
/// ```
/// use pleach::sample::Sampling;
/// let warm = Sampling { temperature: 0.8, top_p: 0.95, seed: 7, ..Sampling::GREEDY };
/// warm.check()?;
/// let logits = [1.0, 3.0, 2.5, -4.0];
/// let first = warm.draw(&mut logits.clone(), &[], 0);
/// assert_eq!(warm.draw(&mut logits.clone(), &[], 0), first);
/// # Ok::<(), pleach::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// T: logits are divided by it. 0: greedy, the largest logit after bias and penalties. 0, or 2^-24..=65504.
    pub temperature: f32,
    /// Only the k tokens with the largest logits; of equal ones those with the lowest ids. 0: all.
    pub top_k: u32,
    /// Only the smallest set of the most probable tokens whose probabilities sum to at least this; of equal ones
    /// those with the lowest ids first. 0..=1; 1: all; 0 leaves one token.
    pub top_p: f32,
    /// Only tokens at least this times as probable as the most probable. 0..=1; 0: all.
    pub min_p: f32,
    /// Logits of tokens among the last [`penalty_tokens`](Self::penalty_tokens) are divided by it if they are above
    /// 0, else multiplied. 2^-24..=65504; 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens among the last ones. 0: off. |v| as of a bias.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it is among the last ones. 0: off.
    pub frequency_penalty: f32,
    /// How many of the last tokens, the prompt's included, the three penalties look at; at most
    /// [`MAX_PENALTY_TOKENS`].
    pub penalty_tokens: u32,
    /// Which of the texts that could be drawn.
    pub seed: u64,
    /// (token, what is added to its logit): 0, 2^-24..=65504 of either sign, or -infinity for "never". If every
    /// token is at -infinity, 0 is drawn. A token that stands here twice gets both.
    pub bias: heapless::Vec<(u32, f32), 16>,
}

impl Sampling {
    /// The largest logit; nothing else is on.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        penalty_tokens: 64,
        seed: 0,
        bias: heapless::Vec::new(),
    };

    /// Whether all options lie within their ranges.
    ///
    /// Errors: [`Error::Option`] naming the option.
    pub fn check(&self) -> Result<(), Error> {
        let share = |v: f32| (0.0..=1.0).contains(&v);
        let factor = |v: f32| v > 0.0 && in_range(v);
        let why = if self.temperature != 0.0 && !factor(self.temperature) {
            "temperature must be 0 (greedy) or lie within 2^-24..=65504"
        } else if !share(self.top_p) {
            "top_p must lie within 0..=1"
        } else if !share(self.min_p) {
            "min_p must lie within 0..=1"
        } else if !factor(self.repetition_penalty) {
            "repetition_penalty must lie within 2^-24..=65504"
        } else if !in_range(self.presence_penalty) {
            "presence_penalty must be 0 or lie within 2^-24..=65504, of either sign"
        } else if !in_range(self.frequency_penalty) {
            "frequency_penalty must be 0 or lie within 2^-24..=65504, of either sign"
        } else if self.penalty_tokens > MAX_PENALTY_TOKENS {
            "penalty_tokens must be at most 4096"
        } else if !self
            .bias
            .iter()
            .all(|(_, v)| in_range(*v) || *v == f32::NEG_INFINITY)
        {
            "a bias must be 0, lie within 2^-24..=65504 of either sign, or be -infinity"
        } else {
            return Ok(());
        };
        Err(Error::Option { why })
    }

    /// Draws for `position` from a row of logits, which serves as scratch.
    ///
    /// Shape: `logits` `[vocab]`. `history`: the text so far, or at least its last
    /// [`penalty_tokens`](Self::penalty_tokens); tokens beyond the row, here and in the bias, leave no trace. A logit
    /// that is not finite is never drawn; if no other is left, 0 is. Call [`check`](Self::check) once before: with
    /// options that it refuses the answer is still some token of the row, but not one to rely on.
    ///
    /// ```
    /// use pleach::sample::Sampling;
    /// let mut sampling = Sampling { repetition_penalty: 2.0, ..Sampling::GREEDY };
    /// assert_eq!(sampling.draw(&mut [3.0, 2.0, 1.0], &[0], 1), 1);
    /// sampling.bias.push((1, f32::NEG_INFINITY)).unwrap();
    /// assert_eq!(sampling.draw(&mut [3.0, 2.0, 1.0], &[0], 1), 0);
    /// ```
    pub fn draw(&self, logits: &mut [f32], history: &[u32], position: u32) -> u32 {
        let history = History {
            tokens: history,
            marks: 0,
            guess: None,
        };
        self.draw_row(&mut Row::new(logits), &history, position)
    }

    /// Whether the draw is the largest of the logits as they are.
    pub(crate) fn is_argmax(&self) -> bool {
        magnitude(self.temperature) == 0 && self.bias.is_empty() && !self.penalises()
    }

    /// Whether a penalty is on.
    pub(crate) fn penalises(&self) -> bool {
        self.penalty_tokens != 0
            && (self.repetition_penalty != 1.0
                || magnitude(self.presence_penalty) != 0
                || magnitude(self.frequency_penalty) != 0)
    }

    /// [`draw`](Self::draw) over any row.
    pub(crate) fn draw_row(&self, row: &mut Row<'_>, history: &History<'_>, position: u32) -> u32 {
        row.clean();
        penalties::apply(self, row, history);
        row.draw(self, position)
    }
}

impl Default for Sampling {
    /// [`Sampling::GREEDY`].
    fn default() -> Self {
        Self::GREEDY
    }
}
