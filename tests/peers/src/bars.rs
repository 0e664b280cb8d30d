//! Which kernels ran, and the bars that hold for them.

use crate::series::{Bar, Figure};
use pleach::Kernels;
use pleach::kernels::log::{self, Operation};

/// The `q8` kernels that ran, by the operation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran(Vec<String>);

/// Kernels whose names end so, of a prompt of 128 tokens the least ratio to llama.cpp's speed, and of a second column the
/// most time.
const BARS: [(&str, f64, f64); 2] = [("x86_avx512vnni", 3.0, 1.08), ("x86_avx2", 2.0, 1.12)];

/// The same for aarch64: a token's and a prompt's instructions, of llama.cpp's.
const AARCH64: [(&str, f64); 2] = [("dotprod", 0.75), ("neon", 0.5)];

impl Ran {
    /// Forgets what has run so far.
    pub fn forget() {
        log::clear();
    }

    /// What has run since, which was all run by `kernels`.
    pub fn on(kernels: Kernels) -> Self {
        let q8 = |o: &Operation| matches!(o, Operation::GemvQ8(_));
        let mut names = Vec::new();
        for operation in Operation::ALL.into_iter().filter(q8) {
            let ran = kernels
                .kernels_of(operation)
                .filter(|k| log::has_run(operation, k));
            names.extend(ran.map(str::to_owned));
        }
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Their names.
    pub fn names(&self) -> String {
        match self.0.as_slice() {
            [] => "no q8 kernel".to_owned(),
            some => some.join(", "),
        }
    }

    /// The row of a table that fits all of them.
    fn row<T>(&self, table: &[T], end: impl Fn(&T) -> &'static str) -> Option<usize> {
        let fits = |row: &T| {
            let all = |name: &String| name.ends_with(&format!("_{}", end(row)));
            !self.0.is_empty() && self.0.iter().all(all)
        };
        table.iter().position(fits)
    }

    fn figure(&self, what: String, value: f64, bar: Option<Bar>) -> Figure {
        let figure = Figure::new(what, value, bar.unwrap_or(Bar::None));
        match bar {
            Some(_) => figure,
            None => figure.doubted(format!("no bar is set for {}", self.names())),
        }
    }

    /// A prompt's speed, of llama.cpp's.
    pub fn prompt(&self, what: String, value: f64) -> Figure {
        let row = self.row(&BARS, |row| row.0).and_then(|n| BARS.get(n));
        self.figure(what, value, row.map(|row| Bar::Least(row.1)))
    }

    /// The time of two columns, of one's.
    pub fn columns(&self, what: String, value: f64) -> Figure {
        let row = self.row(&BARS, |row| row.0).and_then(|n| BARS.get(n));
        self.figure(what, value, row.map(|row| Bar::Most(row.2)))
    }
}

/// Instructions on aarch64, of llama.cpp's, by kernels with the name that the emulated side says.
pub fn instructions(kernels: &str, what: String, value: f64) -> Figure {
    match AARCH64.iter().find(|row| row.0 == kernels) {
        Some(row) => Figure::new(what, value, Bar::Most(row.1)),
        None => Figure::new(what, value, Bar::None)
            .doubted(format!("no bar is set for {kernels:?} kernels")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Measure, Verdict};

    fn ran(names: &[&str]) -> Ran {
        Ran(names.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn bars_follow_the_kernels() {
        let vnni = ran(&[
            "gemv_q8_r16k4_x86_avx512vnni",
            "gemv_q8_r4k4_x86_avx512vnni",
        ]);
        let avx2 = ran(&["gemv_q8_r16k4_x86_avx2"]);
        let prompt = |ran: &Ran| ran.prompt("x".into(), 2.5).reached();
        let columns = |ran: &Ran| ran.columns("x".into(), 1.1).reached();
        assert_eq!((prompt(&vnni), columns(&vnni)), (Some(false), Some(false)));
        assert_eq!((prompt(&avx2), columns(&avx2)), (Some(true), Some(true)));
    }

    #[test]
    fn kernels_without_a_bar_have_no_verdict() {
        let others: [&[&str]; 4] = [
            &[],
            &["gemv_q8_scalar"],
            &["gemv_q8_r16k4_x86_avx2", "gemv_q8_scalar"],
            &["gemv_q8_r16k4_x86_avx2", "gemv_q8_r4k4_x86_avx512vnni"],
        ];
        for names in others {
            let figure = ran(names).prompt("x".into(), 9.0);
            let verdict = Verdict::of(&figure, &Measure::Counted);
            assert!(matches!(verdict, Verdict::Unknown(_)), "{names:?}");
        }
    }

    #[test]
    fn without_a_sweep_no_kernel_ran() {
        Ran::forget();
        assert_eq!(Ran::on(Kernels::detect()).names(), "no q8 kernel");
    }

    #[test]
    fn aarch64() {
        let reached = |kernels, value| instructions(kernels, "x".into(), value).reached();
        assert_eq!(reached("dotprod", 0.7), Some(true));
        assert_eq!(reached("neon", 0.7), Some(false));
        assert_eq!(reached("scalar", 0.1), None);
    }
}
