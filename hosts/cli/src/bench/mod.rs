//! How fast a model runs here, beside how fast this machine could read what it reads.

mod measure;
mod report;

pub(crate) use measure::{Counted, Measurement, Work, measure};
pub(crate) use report::{json, text};

/// Rates of several rounds of the same work, per second.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates(Vec<f64>);

/// Rounds further apart than this share of their median say more about the machine's other work than about ours.
const NOISE: f64 = 0.2;

impl Rates {
    /// Sorts them.
    pub(crate) fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    pub(crate) fn median(&self) -> f64 {
        match (self.0.len(), self.0.len() / 2) {
            (0, _) => 0.0,
            (n, half) if n.is_multiple_of(2) => (self.0[half - 1] + self.0[half]) / 2.0,
            (_, half) => self.0[half],
        }
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.0.first().copied().unwrap_or(0.0)
    }

    pub(crate) fn highest(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }

    /// Highest less lowest, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        match self.median() {
            0.0 => 0.0,
            median => (self.highest() - self.lowest()) / median,
        }
    }

    /// Whether the rounds are too far apart for the median to mean much.
    pub(crate) fn noisy(&self) -> bool {
        self.spread() > NOISE
    }
}

/// Token ids that look like nothing in particular, the same in every run.
pub(crate) fn ids(seed: u64, count: usize, vocab: u32) -> Vec<u32> {
    // Knuth's MMIX generator; its upper bits are good enough for picking tokens.
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % u64::from(vocab.max(1))) as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_spread() {
        let r = Rates::new(vec![3.0, 1.0, 2.0]);
        assert_eq!(
            (r.median(), r.lowest(), r.highest(), r.spread()),
            (2.0, 1.0, 3.0, 1.0)
        );
        assert!(r.noisy());
        let r = Rates::new(vec![10.0, 11.0]);
        assert_eq!(r.median(), 10.5);
        assert!(!r.noisy());
        assert_eq!(Rates::new(vec![]).spread(), 0.0);
    }

    #[test]
    fn ids_lie_in_the_vocabulary_and_repeat() {
        let a = ids(1, 100, 50);
        assert!(a.iter().all(|t| *t < 50));
        assert_eq!(a, ids(1, 100, 50));
        assert_ne!(a, ids(2, 100, 50));
    }
}
