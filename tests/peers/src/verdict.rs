//! What a run says of its bars, and with which exit code.

use crate::machine::MANY;
use crate::series::Figure;
use serde_json::{Value, json};

/// Rounds without which a median is no verdict.
pub const ROUNDS: u32 = 10;

/// What is said of a figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no bar: it is only reported.
    Reported,
    /// Its bar is reached.
    Reached,
    /// Its bar is missed.
    Missed,
    /// It was not measured so that one could say.
    Unknown(String),
}

/// How the figures of a run were measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// In alternated rounds, while others had this share of the processors' time; `None` if nobody knows.
    Timed {
        /// Rounds.
        rounds: u32,
        /// The share, from 0 to 1.
        others: Option<f64>,
    },
    /// Counted by an emulator: the same on any load.
    Counted,
}

impl Measure {
    /// Why no figure of the run says anything of its bar.
    pub fn doubt(&self) -> Option<String> {
        match *self {
            Measure::Counted => None,
            Measure::Timed { rounds, .. } if rounds < ROUNDS => {
                Some(format!("{rounds} rounds, a verdict takes {ROUNDS}"))
            }
            Measure::Timed { others: None, .. } => {
                Some("nobody knows what other programs had of the processors' time".into())
            }
            Measure::Timed {
                others: Some(share),
                ..
            } if share.is_nan() || share > MANY => Some(format!(
                "the machine was busy with other programs for {:.0} % of the time",
                100.0 * share
            )),
            Measure::Timed { .. } => None,
        }
    }
}

impl Verdict {
    /// On a figure of a run that was measured so.
    pub fn of(figure: &Figure, measure: &Measure) -> Self {
        let Some(reached) = figure.reached() else {
            return match &figure.doubt {
                Some(why) => Verdict::Unknown(why.clone()),
                None => Verdict::Reported,
            };
        };
        let doubt = figure.doubt.clone().or_else(|| measure.doubt());
        match (doubt, figure.value.is_finite(), reached) {
            (Some(why), _, _) => Verdict::Unknown(why),
            (None, false, _) => Verdict::Unknown("nothing was measured".into()),
            (None, true, true) => Verdict::Reached,
            (None, true, false) => Verdict::Missed,
        }
    }

    /// The end of a figure's line; empty for one without a bar.
    pub fn words(&self) -> String {
        match self {
            Verdict::Reported => String::new(),
            Verdict::Reached => "reached".into(),
            Verdict::Missed => "NOT reached".into(),
            Verdict::Unknown(why) => format!("no verdict: {why}"),
        }
    }

    /// For scripts: `verdict` is null without a bar.
    pub fn json(&self) -> Value {
        match self {
            Verdict::Reported => json!({ "verdict": null }),
            Verdict::Reached => json!({ "verdict": "reached" }),
            Verdict::Missed => json!({ "verdict": "missed" }),
            Verdict::Unknown(why) => json!({ "verdict": "no verdict", "why": why }),
        }
    }
}

/// The exit code of a run that came to its end: `EXIT_CODES` explains it.
pub fn exit_code(verdicts: &[Verdict]) -> u8 {
    let any = |f: fn(&Verdict) -> bool| verdicts.iter().any(f);
    if any(|v| *v == Verdict::Missed) {
        3
    } else if any(|v| matches!(v, Verdict::Unknown(_))) {
        4
    } else {
        0
    }
}

/// For `--help`.
pub const EXIT_CODES: &str = "\
Exit codes: 0 every bar of the run was measured and is reached (or the command has none) · 1 the run failed · 2 usage ·
3 a bar is missed · 4 none is missed, but a bar has no verdict: other programs had more than 5 % of the processors' time,
fewer than 10 rounds, or no bar is set for the kernels that ran";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Bar;

    const QUIET: Measure = Measure::Timed {
        rounds: ROUNDS,
        others: Some(0.01),
    };

    fn figure(value: f64) -> Figure {
        Figure::new("x", value, Bar::Least(2.0))
    }

    fn unknown(v: &Verdict) -> bool {
        matches!(v, Verdict::Unknown(_))
    }

    #[test]
    fn a_bar_is_reached_or_missed_on_a_quiet_machine() {
        assert_eq!(Verdict::of(&figure(2.0), &QUIET), Verdict::Reached);
        assert_eq!(Verdict::of(&figure(1.9), &QUIET), Verdict::Missed);
        let most = |v| Figure::new("x", v, Bar::Most(1.1));
        assert_eq!(Verdict::of(&most(1.1), &QUIET), Verdict::Reached);
        assert_eq!(Verdict::of(&most(1.11), &QUIET), Verdict::Missed);
        let none = Figure::new("x", 1.0, Bar::None);
        assert_eq!(Verdict::of(&none, &QUIET), Verdict::Reported);
    }

    #[test]
    fn few_rounds_a_busy_machine_and_nothing_measured_give_no_verdict() {
        let timed = |rounds, others| Measure::Timed { rounds, others };
        let doubtful = [
            timed(9, Some(0.0)),
            timed(10, Some(0.06)),
            timed(10, Some(f64::NAN)),
            timed(10, None),
        ];
        for measure in doubtful {
            // Neither is a bar reached so, nor missed.
            for value in [1.0, 3.0] {
                assert!(unknown(&Verdict::of(&figure(value), &measure)));
            }
        }
        for value in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
            assert!(unknown(&Verdict::of(&figure(value), &QUIET)));
        }
        // What an emulator counts needs neither rounds nor rest.
        assert_eq!(
            Verdict::of(&figure(3.0), &Measure::Counted),
            Verdict::Reached
        );
    }

    #[test]
    fn a_doubt_about_one_figure_is_its_own() {
        let doubtful = figure(3.0).doubted("other kernels");
        assert_eq!(
            Verdict::of(&doubtful, &QUIET),
            Verdict::Unknown("other kernels".into())
        );
        let without_bar = Figure::new("x", 1.0, Bar::None).doubted("no bar for these");
        assert!(unknown(&Verdict::of(&without_bar, &QUIET)));
    }

    #[test]
    fn exit_codes() {
        let unknown = || Verdict::Unknown(String::new());
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[Verdict::Reported, Verdict::Reached]), 0);
        assert_eq!(exit_code(&[Verdict::Reached, unknown()]), 4);
        assert_eq!(exit_code(&[unknown(), Verdict::Missed]), 3);
        for code in ["0 every", "1 the run", "2 usage", "3 a bar", "4 none"] {
            assert!(EXIT_CODES.contains(code), "{code}");
        }
        assert!(EXIT_CODES.contains(&format!("{:.0} %", 100.0 * MANY)));
        assert!(EXIT_CODES.contains(&format!("than {ROUNDS} rounds")));
    }
}
