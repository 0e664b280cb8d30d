//! What a command found: lines about what ran, a table, figures beside their bars.

use crate::Rounds;
use peers::llama::Llama;
use peers::machine::{Cpu, MANY};
use peers::series::Figure;
use peers::verdict::{self, Measure, Verdict};
use serde_json::{Map, Value, json};

/// One command's findings.
pub(crate) struct Report {
    measure: Measure,
    about: Vec<String>,
    table: Vec<Vec<String>>,
    figures: Vec<Figure>,
    data: Map<String, Value>,
}

impl Report {
    /// Of what is timed, beside the peer where there is one.
    pub(crate) fn timed(rounds: Rounds, llama: Option<&Llama>) -> Self {
        let (rounds, others) = (rounds.count, None);
        let mut report = Self::of(Measure::Timed { rounds, others });
        for line in llama.iter().flat_map(|l| l.lines()) {
            report.about(line);
        }
        report.data("rounds", json!(rounds));
        report
    }

    /// Of what an emulator counts.
    pub(crate) fn counted() -> Self {
        Self::of(Measure::Counted)
    }

    /// Begins with the machine.
    fn of(measure: Measure) -> Self {
        let mut report = Self {
            measure,
            about: vec![],
            table: vec![],
            figures: vec![],
            data: Map::new(),
        };
        report.about(Cpu::of_machine().line());
        report
    }

    /// Says how much of the processors' time others had meanwhile.
    pub(crate) fn others(&mut self, share: Option<f64>) {
        if let Measure::Timed { others, .. } = &mut self.measure {
            *others = share;
        }
        let Some(share) = share else {
            return self.about("nobody knows what other programs had of the processors' time");
        };
        let meanwhile = format!(
            "other programs had {:.0} % of the processors' time meanwhile",
            100.0 * share
        );
        self.about(match share > MANY {
            true => format!("BUSY: {meanwhile}; stop them: these figures mean little"),
            false => meanwhile,
        });
        self.data("others", json!(share));
    }

    /// A line about what ran.
    pub(crate) fn about(&mut self, line: impl Into<String>) {
        self.about.push(line.into());
    }

    /// A row of the table; the first one names the columns.
    pub(crate) fn row(&mut self, cells: &[String]) {
        self.table.push(cells.to_vec());
    }

    /// The first row.
    pub(crate) fn columns(&mut self, names: &[&str]) {
        self.row(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    }

    /// A figure.
    pub(crate) fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// What only scripts see.
    pub(crate) fn data(&mut self, key: impl Into<String>, value: Value) {
        self.data.insert(key.into(), value);
    }

    /// What is said of each figure.
    fn verdicts(&self) -> Vec<Verdict> {
        let of = |figure| Verdict::of(figure, &self.measure);
        self.figures.iter().map(of).collect()
    }

    /// The exit code of the run.
    pub(crate) fn exit_code(&self) -> u8 {
        verdict::exit_code(&self.verdicts())
    }

    /// For people, or for scripts.
    pub(crate) fn print(&self, as_json: bool) {
        let verdicts = self.verdicts();
        let figures = self.figures.iter().zip(&verdicts);
        if as_json {
            let figures: Vec<Value> = figures.map(|(f, v)| f.json(v)).collect();
            let mut all = json!({ "about": self.about, "figures": figures });
            for (key, value) in &self.data {
                all[key] = value.clone();
            }
            println!("{all:#}");
            return;
        }
        for line in &self.about {
            println!("{line}");
        }
        println!();
        for line in aligned(&self.table) {
            println!("{line}");
        }
        println!();
        for (figure, verdict) in figures {
            println!("{}", figure.line(verdict));
        }
    }
}

/// Columns as wide as their widest cell, the first to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c));
        cells.map(|t| t.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(c, (text, w))| match c {
                0 => format!("{text:<w$}"),
                _ => format!("{text:>w$}"),
            })
            .collect();
        cells.join("  ")
    };
    rows.iter().map(line).collect()
}

/// `1,234`.
pub(crate) fn grouped(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), "d".into()],
        ];
        assert_eq!(aligned(&rows), ["a    bb", "ccc   d"]);
    }

    #[test]
    fn thousands() {
        assert_eq!(
            [grouped(7), grouped(1234), grouped(1234567)],
            ["7", "1,234", "1,234,567"]
        );
    }
}
