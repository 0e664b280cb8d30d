//! The table at the end, and the exit code.

use std::fmt::Write as _;
use std::time::Duration;

/// How a step ended.
pub(crate) enum Outcome {
    Passed,
    /// The reason.
    Failed(String),
    /// The line that would install what is missing.
    Skipped(String),
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) step: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) time: Duration,
}

/// The table and the closing line.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut t = format!("\n{:<12} {:<8} {:>7}\n", "step", "result", "seconds");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for r in rows {
        let (word, note) = match &r.outcome {
            Outcome::Passed => {
                passed += 1;
                ("passed", "")
            }
            Outcome::Failed(why) => {
                failed += 1;
                ("FAILED", why.as_str())
            }
            Outcome::Skipped(line) => {
                skipped += 1;
                ("SKIPPED", line.as_str())
            }
        };
        let secs = r.time.as_secs_f64();
        let line = format!("{:<12} {word:<8} {secs:>7.1}  {note}", r.step);
        let _ = writeln!(t, "{}", line.trim_end());
    }
    let _ = write!(t, "\n{passed} passed, {failed} failed, {skipped} skipped");
    t
}

/// 1 if a step failed, 3 if one was skipped, else 0.
pub(crate) fn exit_code(rows: &[Row]) -> u8 {
    if rows.iter().any(|r| matches!(r.outcome, Outcome::Failed(_))) {
        1
    } else if rows
        .iter()
        .any(|r| matches!(r.outcome, Outcome::Skipped(_)))
    {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: &'static str, outcome: Outcome) -> Row {
        Row {
            step,
            outcome,
            time: Duration::from_millis(1500),
        }
    }

    #[test]
    fn closing_line_stands_alone() {
        let rows = [
            row("format", Outcome::Passed),
            row("firmware", Outcome::Skipped("apt-get install -y q".into())),
            row(
                "docs",
                Outcome::Failed("cargo doc (exit status: 101)".into()),
            ),
        ];
        let t = table(&rows);
        assert_eq!(t.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
        assert!(t.contains("firmware     SKIPPED      1.5  apt-get install -y q\n"));
    }

    #[test]
    fn failed_outranks_skipped() {
        let skip = || row("a", Outcome::Skipped(String::new()));
        let fail = || row("b", Outcome::Failed(String::new()));
        let pass = || row("c", Outcome::Passed);
        assert_eq!(exit_code(&[pass(), pass()]), 0);
        assert_eq!(exit_code(&[pass(), skip()]), 3);
        assert_eq!(exit_code(&[skip(), fail(), pass()]), 1);
    }
}
