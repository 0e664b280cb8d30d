//! Rounds, their medians, and bars.

use serde_json::{Value, json};

/// One number a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// The middle, or the mean of the two in the middle; 0 without any.
    pub fn median(&self) -> f64 {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        match (all.len(), all.len() / 2) {
            (0, _) => 0.0,
            (n, half) if n.is_multiple_of(2) => (all[half - 1] + all[half]) / 2.0,
            (_, half) => all[half],
        }
    }

    /// A function of each round of this and of another series.
    pub fn with(&self, other: &Series, f: impl Fn(f64, f64) -> f64) -> Series {
        let both = self.0.iter().zip(&other.0);
        Series(both.map(|(a, b)| f(*a, *b)).collect())
    }

    /// A function of each round.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Series {
        Series(self.0.iter().map(|v| f(*v)).collect())
    }

    /// This over another, round by round.
    pub fn over(&self, other: &Series) -> Series {
        self.with(other, |a, b| a / b)
    }

    /// All rounds, and their median.
    pub fn json(&self) -> Value {
        json!({ "median": self.median(), "rounds": self.0 })
    }
}

/// What must be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At least this.
    Least(f64),
    /// At most this.
    Most(f64),
    /// Nothing: the figure is reported.
    None,
}

/// A figure beside its bar.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// What was reached.
    pub value: f64,
    /// What must be reached.
    pub bar: Bar,
}

impl Figure {
    /// The median of a series, beside its bar.
    pub fn new(what: impl Into<String>, value: f64, bar: Bar) -> Self {
        Self {
            what: what.into(),
            value,
            bar,
        }
    }

    /// Whether the bar is reached; `None` without one.
    pub fn reached(&self) -> Option<bool> {
        match self.bar {
            Bar::Least(bar) => Some(self.value >= bar),
            Bar::Most(bar) => Some(self.value <= bar),
            Bar::None => None,
        }
    }

    /// `decode, 1 thread, of llama.cpp's speed: 1.31, bar >= 1.25: reached`.
    pub fn line(&self) -> String {
        let (sign, bar) = match self.bar {
            Bar::Least(bar) => (">=", bar),
            Bar::Most(bar) => ("<=", bar),
            Bar::None => return format!("{}: {:.3}", self.what, self.value),
        };
        let end = if self.reached() == Some(true) {
            "reached"
        } else {
            "NOT reached"
        };
        format!("{}: {:.3}, bar {sign} {bar}: {end}", self.what, self.value)
    }

    /// The same for scripts.
    pub fn json(&self) -> Value {
        let (least, most) = match self.bar {
            Bar::Least(bar) => (Some(bar), None),
            Bar::Most(bar) => (None, Some(bar)),
            Bar::None => (None, None),
        };
        json!({
            "what": self.what, "value": self.value, "at_least": least, "at_most": most, "reached": self.reached(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let series = |v: &[f64]| Series(v.to_vec());
        assert_eq!(series(&[]).median(), 0.0);
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(
            series(&[4.0, 9.0]).over(&series(&[2.0, 3.0])),
            series(&[2.0, 3.0])
        );
    }

    #[test]
    fn bars() {
        let figure = |value, bar| Figure::new("x", value, bar);
        assert_eq!(
            figure(1.31, Bar::Least(1.25)).line(),
            "x: 1.310, bar >= 1.25: reached"
        );
        assert_eq!(
            figure(1.2, Bar::Least(1.25)).line(),
            "x: 1.200, bar >= 1.25: NOT reached"
        );
        assert_eq!(figure(0.7, Bar::Most(0.7)).reached(), Some(true));
        assert_eq!(figure(f64::NAN, Bar::Most(0.7)).reached(), Some(false));
        assert_eq!(figure(2.0, Bar::None).line(), "x: 2.000");
    }
}
