//! Rounds, their medians, and bars.

use crate::verdict::Verdict;
use serde_json::{Value, json};

/// One number a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// The middle, or the mean of the two in the middle; NaN without any.
    pub fn median(&self) -> f64 {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        match (all.len(), all.len() / 2) {
            (0, _) => f64::NAN,
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
    /// Why this figure says nothing of its bar, whatever the run says.
    pub doubt: Option<String>,
}

impl Figure {
    /// A value, beside its bar.
    pub fn new(what: impl Into<String>, value: f64, bar: Bar) -> Self {
        Self {
            what: what.into(),
            value,
            bar,
            doubt: None,
        }
    }

    /// The same, with a reason to say nothing of the bar.
    pub fn doubted(self, why: impl Into<String>) -> Self {
        Self {
            doubt: Some(why.into()),
            ..self
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

    /// `decode, 2 threads, of llama.cpp's speed: 1.310, bar >= 1.25: reached`.
    pub fn line(&self, verdict: &Verdict) -> String {
        let (value, words) = (format!("{}: {:.3}", self.what, self.value), verdict.words());
        match self.bar {
            Bar::Least(bar) => format!("{value}, bar >= {bar}: {words}"),
            Bar::Most(bar) => format!("{value}, bar <= {bar}: {words}"),
            Bar::None if words.is_empty() => value,
            Bar::None => format!("{value}: {words}"),
        }
    }

    /// The same for scripts. `reached` is null unless there is a verdict.
    pub fn json(&self, verdict: &Verdict) -> Value {
        let (least, most) = match self.bar {
            Bar::Least(bar) => (Some(bar), None),
            Bar::Most(bar) => (None, Some(bar)),
            Bar::None => (None, None),
        };
        let reached = match verdict {
            Verdict::Reached => Some(true),
            Verdict::Missed => Some(false),
            Verdict::Reported | Verdict::Unknown(_) => None,
        };
        let mut all = json!({
            "what": self.what, "value": self.value, "at_least": least, "at_most": most, "reached": reached,
        });
        for (key, value) in verdict.json().as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let series = |v: &[f64]| Series(v.to_vec());
        assert!(series(&[]).median().is_nan());
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(
            series(&[4.0, 9.0]).over(&series(&[2.0, 3.0])),
            series(&[2.0, 3.0])
        );
    }

    #[test]
    fn bars() {
        let line = |value, bar, verdict: &Verdict| Figure::new("x", value, bar).line(verdict);
        let doubt = Verdict::Unknown("9 rounds".into());
        let least = Bar::Least(1.25);
        assert_eq!(
            line(1.31, least, &Verdict::Reached),
            "x: 1.310, bar >= 1.25: reached"
        );
        assert_eq!(
            line(1.2, least, &Verdict::Missed),
            "x: 1.200, bar >= 1.25: NOT reached"
        );
        assert_eq!(
            line(1.31, least, &doubt),
            "x: 1.310, bar >= 1.25: no verdict: 9 rounds"
        );
        assert_eq!(line(2.0, Bar::None, &Verdict::Reported), "x: 2.000");
        assert_eq!(
            line(2.0, Bar::None, &doubt),
            "x: 2.000: no verdict: 9 rounds"
        );
        let reached = |value, bar| Figure::new("x", value, bar).reached();
        assert_eq!(reached(0.7, Bar::Most(0.7)), Some(true));
        assert_eq!(reached(f64::NAN, Bar::Most(0.7)), Some(false));
        assert_eq!(reached(2.0, Bar::None), None);
    }

    #[test]
    fn scripts_see_the_verdict() {
        let figure = Figure::new("x", 1.5, Bar::Most(2.0));
        let of = |verdict: &Verdict| {
            let all = figure.json(verdict);
            (
                all["reached"].clone(),
                all["verdict"].clone(),
                all["why"].clone(),
            )
        };
        let null = Value::Null;
        assert_eq!(
            of(&Verdict::Missed),
            (json!(false), json!("missed"), null.clone())
        );
        assert_eq!(
            of(&Verdict::Unknown("busy".into())),
            (null, json!("no verdict"), json!("busy"))
        );
    }
}
