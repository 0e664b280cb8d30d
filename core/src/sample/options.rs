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
/// transformers': temperature, top-k, top-p, min-p, each over what the one before has left (of equal logits at a
/// cut those with the lowest ids stay, where transformers leaves the highest). The penalties are llama.cpp's.
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
    /// those with the lowest ids first. 1: all; 0 leaves one token. 0, or 2^-24..=1.
    pub top_p: f32,
    /// Only tokens at least this times as probable as the most probable. 0: all. 0, or 2^-24..=1.
    pub min_p: f32,
    /// Logits of tokens among the last [`penalty_tokens`](Self::penalty_tokens) are divided by it if they are above
    /// 0, else multiplied. 2^-24..=65504; 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens among the last ones. 0: off. |v| as of a bias.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it is among the last ones. 0: off.
    pub frequency_penalty: f32,
    /// How many of the last tokens, the prompt's included, the three penalties look at; at most
    /// [`MAX_PENALTY_TOKENS`] (transformers looks at the whole text).
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
        // On bits: a compare of floats would read a subnormal, which some hardware takes for 0.
        let factor = |v: f32| in_range(v) && magnitude(v) != 0 && v.is_sign_positive();
        let share = |v: f32| magnitude(v) == 0 || factor(v) && v <= 1.0;
        let why = if magnitude(self.temperature) != 0 && !factor(self.temperature) {
            "temperature must be 0 (greedy) or lie within 2^-24..=65504"
        } else if !share(self.top_p) {
            "top_p must be 0 or lie within 2^-24..=1"
        } else if !share(self.min_p) {
            "min_p must be 0 or lie within 2^-24..=1"
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
    /// options that it refuses the answer is still some token of the row, but not one to rely on. An empty row gives 0.
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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::sample::argmax;
    use std::vec::Vec;

    fn warm() -> Sampling {
        Sampling {
            temperature: 1.0,
            ..Sampling::GREEDY
        }
    }

    #[test]
    fn each_option_has_a_range() {
        let g = || Sampling::GREEDY;
        assert_eq!(g().check(), Ok(()));
        let bias = |v| Sampling {
            bias: heapless::Vec::from_slice(&[(3, v)]).unwrap(),
            ..g()
        };
        let bad = [f32::NAN, -1.0, f32::INFINITY, 1e-30, 1e9];
        for v in bad {
            for (s, name) in [
                (
                    Sampling {
                        temperature: v,
                        ..g()
                    },
                    "temperature",
                ),
                (
                    Sampling {
                        repetition_penalty: v,
                        ..g()
                    },
                    "repetition_penalty",
                ),
            ] {
                let why = s.check().unwrap_err().why();
                assert!(why.starts_with(name), "{v}: {why}");
            }
        }
        for v in [f32::NAN, -0.1, 1.1, 1e-40] {
            assert!(
                Sampling { top_p: v, ..g() }
                    .check()
                    .unwrap_err()
                    .why()
                    .contains("top_p")
            );
            assert!(
                Sampling { min_p: v, ..g() }
                    .check()
                    .unwrap_err()
                    .why()
                    .contains("min_p")
            );
        }
        for v in [f32::NAN, f32::INFINITY, 1e-30, -1e9] {
            assert!(
                Sampling {
                    presence_penalty: v,
                    ..g()
                }
                .check()
                .is_err()
            );
            assert!(
                Sampling {
                    frequency_penalty: v,
                    ..g()
                }
                .check()
                .is_err()
            );
            assert!(bias(v).check().is_err());
        }
        assert_eq!(bias(f32::NEG_INFINITY).check(), Ok(()));
        assert_eq!(bias(-65504.0).check(), Ok(()));
        assert!(
            Sampling {
                penalty_tokens: 4097,
                ..g()
            }
            .check()
            .is_err()
        );
    }

    #[test]
    fn greedy_is_the_largest_after_bias_and_penalties() {
        let row = [1.0, 3.0, 3.0, -2.0];
        assert_eq!(
            Sampling::GREEDY.draw(&mut row.clone(), &[1], 9),
            argmax(&row)
        );
        assert!(Sampling::GREEDY.is_argmax() && !warm().is_argmax());
        let mut s = Sampling::GREEDY;
        s.bias.push((0, 2.5)).unwrap();
        assert!(!s.is_argmax());
        assert_eq!(s.draw(&mut row.clone(), &[], 0), 0);
        s.bias.push((0, -1.0)).unwrap();
        assert_eq!(s.draw(&mut row.clone(), &[], 0), 1);
        let s = Sampling {
            presence_penalty: 0.5,
            ..Sampling::GREEDY
        };
        assert_eq!(s.draw(&mut row.clone(), &[1, 9], 0), 2);
    }

    #[test]
    fn what_is_banned_or_not_finite_is_never_drawn() {
        let ban = |tokens: &[u32], temperature| {
            let mut s = Sampling {
                temperature,
                ..warm()
            };
            tokens
                .iter()
                .for_each(|t| s.bias.push((*t, f32::NEG_INFINITY)).unwrap());
            s
        };
        for temperature in [0.0, 0.8] {
            let s = ban(&[1, 2], temperature);
            for position in 0..200 {
                assert!([0, 3].contains(&s.draw(&mut [0.0, 9.0, 9.0, 0.5], &[], position)));
                let mut odd = [f32::NAN, f32::INFINITY, -f32::NAN, 0.5, f32::NEG_INFINITY];
                assert_eq!(s.draw(&mut odd, &[], position), 3);
                // Also with penalties on what is banned.
                let s = Sampling {
                    repetition_penalty: 0.5,
                    frequency_penalty: -2.0,
                    ..s.clone()
                };
                assert!([0, 3].contains(&s.draw(&mut [0.0, 9.0, 9.0, 0.5], &[1, 2, 2], position)));
            }
            assert_eq!(ban(&[0, 1], temperature).draw(&mut [1.0, 2.0], &[], 3), 0);
            assert_eq!(s.draw(&mut [], &[], 3), 0);
            assert_eq!(s.draw(&mut [f32::NAN; 4], &[], 3), 0);
        }
    }

    #[test]
    fn seed_and_position_decide_the_draw() {
        let row: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.1).collect();
        let text = |seed| -> Vec<u32> {
            let s = Sampling { seed, ..warm() };
            (0..40).map(|p| s.draw(&mut row.clone(), &[], p)).collect()
        };
        assert_eq!(text(5), text(5));
        let others: Vec<Vec<u32>> = (0..20).map(text).collect();
        for (i, a) in others.iter().enumerate() {
            assert!(others[..i].iter().all(|b| a != b));
        }
    }

    /// The first draw by hand: four equal logits, seed 0 and position 0. Random123's first words are
    /// 6627e8d5 and e169c58d, so the share is 0xe169c58d / 2^32 = 0.88: the last token.
    #[test]
    fn a_draw_by_hand() {
        assert_eq!(warm().draw(&mut [1.0; 4], &[], 0), 3);
        // ln 9 for the first: it has 0.9 of the whole.
        assert_eq!(warm().draw(&mut [2.197_224_6, 0.0], &[], 0), 0);
        assert_eq!(warm().draw(&mut [1.9, 0.0], &[], 0), 1);
    }

    /// Options that `check` refuses and rows of anything give a token of the row.
    #[test]
    fn draws_are_total() {
        let odd = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -1.0,
            1e-45,
            3e38,
            -3e38,
            0.5,
        ];
        for (i, v) in odd.into_iter().enumerate() {
            for w in odd {
                let s = Sampling {
                    temperature: v,
                    top_k: i as u32,
                    top_p: w,
                    min_p: v,
                    repetition_penalty: w,
                    presence_penalty: v,
                    frequency_penalty: w,
                    penalty_tokens: u32::MAX,
                    seed: 1,
                    bias: heapless::Vec::from_slice(&[(1, w), (99, v)]).unwrap(),
                };
                assert!(s.draw(&mut odd.clone(), &[0, 1, u32::MAX], 7) < odd.len() as u32);
            }
        }
    }
}
