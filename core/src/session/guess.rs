//! Guesses of the tokens after the text, and the rule of `Speculate::Auto`.
//!
//! # What a guesser is worth
//!
//! Two guessers: *base*, the logits of the scaling pass, which are there anyway; *held*, a third column with the
//! scalings of the token before. With a share `a` of right guesses a token takes 2 - a sweeps, and these columns:
//!
//! | | sweeps | columns | in eighths of a sweep |
//! |---|---|---|---|
//! | none | 2 | 2 | 18 |
//! | base | 2 - a | 3 - a | 19 - 9 a |
//! | held | 2 - h | 5 - 2 h | 21 - 10 h |
//!
//! taking a column to cost an eighth of the sweep that carries it: where reading weights is what takes time, as on
//! every machine that should speculate. What the columns' heads compute is left out. (A part that computes rather than waits leaves speculation off.) `auto` takes
//! the cheapest; of equal ones none before base before held. So base needs more than 1 in 9 right, held more than 3
//! in 10, and held is taken over base if h > 0.2 + 0.9 a.
//!
//! # What is known
//!
//! Of the first token of each of the last 64 pushes, and of each guesser: whether it had a guess, and
//! whether that was right. The share is (right + 2) / (guessed + 2): a guesser that has not been seen
//! lately counts as good, and two failures alone do not condemn one. So the rule explores on its own: base is
//! tried first (it is cheaper), held once base fails, none once both have, and what has been condemned is tried again
//! when its failures are more than 64 tokens old. No probing schedule, no hysteresis: to switch costs nothing, a guess
//! that was already computed is used whoever made it, and two guessers between which the rule wavers cost the
//! same. While held is in use, the base's guess is computed at every fifth position (texts that repeat tend to repeat with even
//! periods), where it costs a head's column.
//!
//! All of that is a function of the pushed tokens and the guesses, both the same on every target; time plays no part.
//! It decides which columns a sweep carries, never a bit of a result. `rewind` (and an error) forgets, so that a
//! text costs the same whatever was there before.
//!
//! Worst case: two guessers that are never right. In 64 tokens base is tried for 16 and held for 5: 16 + 15
//! columns, 2.7 % of what naive decoding costs. The worst single mistake is a good guesser that fails at its first
//! tries: it is not tried again for up to 64 tokens.

use crate::error::Pass;
use crate::sample::{History, Row, Sampling};
use crate::session::options::{Counters, Speculate};

/// Sweeps are weighed in eighths.
const SWEEP: u32 = 8;
/// Guesses taken for right before any has been seen.
const PRIOR: u32 = 2;
/// While held guesses are used, base guesses are computed at positions that are multiples of this.
const OBSERVED: u32 = 5;

/// What the speculative pass guesses with. The caller still chooses and pushes every token.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// How the caller will choose: the guess is the whole draw, with the random bits and the penalties that its
    /// position will really have.
    pub sampling: Sampling,
    /// Tokens after which nothing follows: never worth a column.
    pub stop: heapless::Vec<u32, 8>,
    /// No guess for this position and later ones. It stays until another guess is set.
    pub limit: u32,
    /// Guess always this token; to measure what wrong guesses cost. It changes no bits.
    pub force: Option<u32>,
}

impl Default for Guess {
    fn default() -> Self {
        Self {
            sampling: Sampling::GREEDY,
            stop: heapless::Vec::new(),
            limit: u32::MAX,
            force: None,
        }
    }
}

/// Who guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guesser {
    /// The logits of the scaling pass.
    Base,
    /// The routed pass under the scalings of the token before.
    Held,
}

impl Guesser {
    /// Whose guess a column's logits make that is not the routed pass itself.
    pub(crate) fn of(pass: Pass) -> Self {
        match pass {
            Pass::Scaling => Guesser::Base,
            Pass::Routed => Guesser::Held,
        }
    }
}

/// What each guesser says about one position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guessed {
    base: Option<u32>,
    held: Option<u32>,
}

impl Guessed {
    pub(crate) fn set(&mut self, guesser: Guesser, token: u32) {
        match guesser {
            Guesser::Base => self.base = Some(token),
            Guesser::Held => self.held = Some(token),
        }
    }

    /// The guess to work on: the preferred guesser's, or else the other's.
    fn by(&self, preferred: Guesser) -> Option<(Guesser, u32)> {
        let base = self.base.map(|t| (Guesser::Base, t));
        let held = self.held.map(|t| (Guesser::Held, t));
        match preferred {
            Guesser::Base => base.or(held),
            Guesser::Held => held.or(base),
        }
    }
}

/// Of the last 64 tokens, newest in bit 0: which were guessed, and which of these rightly.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    guessed: u64,
    right: u64,
}

impl Record {
    fn note(&mut self, guess: Option<u32>, token: u32) {
        self.guessed = self.guessed << 1 | u64::from(guess.is_some());
        self.right = self.right << 1 | u64::from(guess == Some(token));
    }

    /// The share of right guesses, as numerator and denominator.
    #[inline(never)] // small cores have no instruction that counts ones
    fn rate(&self) -> (u32, u32) {
        (
            self.right.count_ones() + PRIOR,
            self.guessed.count_ones() + PRIOR,
        )
    }
}

/// [`Sampling::draw_row`].
type Draw = fn(&Sampling, &mut Row<'_>, &History<'_>, u32) -> u32;

/// What is known about the tokens after the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuessState {
    pub(crate) rule: Guess,
    /// Draws by the rule; greedy until a rule is set. Through a pointer, so that firmware that never sets one
    /// carries no sampler: 3 KB.
    draw: Option<Draw>,
    /// What is guessed for the position after the text.
    pub(crate) next: Guessed,
    /// The guess of `next` that a sweep has worked on, or works on: its scaling pass is in the cache and its row
    /// once `scaled` is set.
    placed: Option<(Guesser, u32)>,
    scaled: bool,
    /// What is guessed for the position after that, given `placed`.
    after: Guessed,
    base: Record,
    held: Record,
}

impl GuessState {
    pub(crate) fn set(&mut self, rule: Guess) {
        self.draw = Some(Sampling::draw_row);
        self.rule = rule;
    }

    /// The guess for `position` that a row of logits makes; the row is scratch.
    pub(crate) fn draw(&self, row: &mut Row<'_>, history: &History<'_>, position: u32) -> u32 {
        match (self.rule.force, self.draw) {
            (Some(token), _) => token,
            (None, Some(draw)) if !self.rule.sampling.is_argmax() => {
                draw(&self.rule.sampling, row, history, position)
            }
            _ => row.argmax(),
        }
    }

    /// Forgets the guesses, not how good they have been.
    #[inline(never)] // five callers
    pub(crate) fn forget(&mut self) {
        self.next = Guessed::default();
        self.placed = None;
        self.scaled = false;
        self.after = Guessed::default();
    }

    /// Forgets everything about the text.
    pub(crate) fn forget_text(&mut self) {
        self.forget();
        self.base = Record::default();
        self.held = Record::default();
    }

    /// Who guesses in the next sweep, under `speculate`.
    pub(crate) fn guesser(&self, speculate: Speculate) -> Option<Guesser> {
        match speculate {
            Speculate::Off => None,
            Speculate::Base => Some(Guesser::Base),
            Speculate::Held => Some(Guesser::Held),
            Speculate::Auto => self.cheapest(),
        }
    }

    /// The least of 18, 19 - 9 a and 21 - 10 h, multiplied by both denominators.
    fn cheapest(&self) -> Option<Guesser> {
        let ((base_right, a), (held_right, h)) = (self.base.rate(), self.held.rate());
        let none = (2 * SWEEP + 2) * a * h;
        let base = ((2 * SWEEP + 3) * a - (SWEEP + 1) * base_right) * h;
        let held = ((2 * SWEEP + 5) * h - (SWEEP + 2) * held_right) * a;
        if none <= base && none <= held {
            None
        } else if base <= held {
            Some(Guesser::Base)
        } else {
            Some(Guesser::Held)
        }
    }

    /// Whether the base's guess for `position` is computed though the held one is used.
    pub(crate) fn observes(&self, speculate: Speculate, position: u32) -> bool {
        speculate == Speculate::Auto && position.is_multiple_of(OBSERVED)
    }

    /// The guess for the position after the text that a sweep works on from now on.
    pub(crate) fn place(&mut self, preferred: Guesser, vocab: u32) -> Option<u32> {
        let (guesser, token) = self.next.by(preferred)?;
        if self.rule.stop.contains(&token) || token >= vocab {
            return None;
        }
        self.placed = Some((guesser, token));
        Some(token)
    }

    /// Takes over what a sweep has found: whether the scaling pass of the placed guess is done, and the guesses.
    pub(crate) fn found(&mut self, scaled: bool, next: Guessed, after: Guessed) {
        if scaled {
            self.scaled = true;
            self.after = after;
        } else {
            self.forget();
            self.next = next;
        }
    }

    /// Compares a pushed token with the guesses. Whether its scaling pass is done: then the guesses of the
    /// position after it come up.
    pub(crate) fn meet(&mut self, token: u32, counters: &mut Counters) -> bool {
        self.base.note(self.next.base, token);
        self.held.note(self.next.held, token);
        let Some((guesser, guess)) = self.placed.filter(|_| self.scaled) else {
            self.forget();
            return false;
        };
        let hit = guess == token;
        counters.guesses += 1;
        counters.hits += u64::from(hit);
        if guesser == Guesser::Held {
            counters.held_guesses += 1;
            counters.held_hits += u64::from(hit);
        }
        let after = self.after;
        self.forget();
        if hit {
            self.next = after;
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// A state after tokens of which each guesser had a guess or not, right or wrong.
    fn after(base: &[Option<bool>], held: &[Option<bool>]) -> Option<Guesser> {
        let record = |seen: &[Option<bool>]| {
            let mut record = Record::default();
            let guess = |right: bool| if right { 1 } else { 2 };
            seen.iter().for_each(|s| record.note(s.map(guess), 1));
            record
        };
        let state = GuessState {
            base: record(base),
            held: record(held),
            ..GuessState::default()
        };
        state.guesser(Speculate::Auto)
    }

    const HIT: Option<bool> = Some(true);
    const MISS: Option<bool> = Some(false);

    /// The costs of the table, by hand: none 18, base 19 - 9 a, held 21 - 10 h.
    #[test]
    fn the_cheapest_by_hand() {
        let (base, held) = (Some(Guesser::Base), Some(Guesser::Held));
        // a = h = 1: 10 against 11.
        assert_eq!(after(&[], &[]), base);
        // a = 2/3: 13 against 11.
        assert_eq!(after(&[MISS], &[]), held);
        // h = 2/3 too: 13 against 14.3.
        assert_eq!(after(&[MISS], &[MISS]), base);
        // a = 18/20: 10.9; a = 16/18 = 8/9: 11, a tie with h = 1.
        assert_eq!(
            after(&[[HIT; 16].as_slice(), &[MISS; 2]].concat(), &[]),
            base
        );
        assert_eq!(
            after(&[[HIT; 14].as_slice(), &[MISS; 2]].concat(), &[]),
            base
        );
        assert_eq!(
            after(&[[HIT; 13].as_slice(), &[MISS; 2]].concat(), &[]),
            held
        );
        // a = 2/18 = 1/9: 18, as none; h = 2/7: 18.1; h = 2/6: 17.7.
        assert_eq!(after(&[MISS; 16], &[MISS; 5]), None);
        assert_eq!(after(&[MISS; 15], &[MISS; 5]), base);
        assert_eq!(after(&[MISS; 16], &[MISS; 4]), held);
        // Measured on xlora-smol: base 38 %, held 96 %.
        let base_rate: std::vec::Vec<_> = (0..64).map(|i| Some(i * 38 % 100 < 38)).collect();
        let held_rate: std::vec::Vec<_> = (0..64).map(|i| Some(i % 25 != 0)).collect();
        assert_eq!(after(&base_rate, &held_rate), held);
    }

    #[test]
    fn what_is_older_than_64_tokens_is_forgotten() {
        // 16 of the failures are left after 48 tokens, 15 after 49: base is tried again.
        let mut seen = std::vec![MISS; 40];
        seen.extend([None; 48]);
        assert_eq!(after(&seen, &seen), None);
        seen.push(None);
        assert_eq!(after(&seen, &seen), Some(Guesser::Base));
        // Held alone: h = 2/6 after 60 tokens.
        let held = [[MISS; 40].as_slice(), &[None; 60]].concat();
        assert_eq!(after(&[MISS; 64], &held), Some(Guesser::Held));
        assert_eq!(after(&[MISS; 64], &held[..99]), None);
    }

    #[test]
    fn the_other_options_do_not_choose() {
        let state = GuessState {
            base: Record {
                guessed: u64::MAX,
                right: 0,
            },
            ..GuessState::default()
        };
        assert_eq!(state.guesser(Speculate::Off), None);
        assert_eq!(state.guesser(Speculate::Base), Some(Guesser::Base));
        assert_eq!(state.guesser(Speculate::Held), Some(Guesser::Held));
        assert!(!state.observes(Speculate::Held, 0) && state.observes(Speculate::Auto, 10));
        assert!(!state.observes(Speculate::Auto, 9));
    }
}
