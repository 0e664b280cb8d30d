//! One hash over the CPU's backends, 1 to 8 columns, 1 to 4 threads: and which kernels made it.

use crate::lockstep::{self, Here};
use crate::{File, Guesses, Mode, Setup, Text, mode, run};
use pleach::kernels::log::{self, Operation, has_run};
use pleach::{Kernels, KvType, Speculate};

/// Which of a backend's kernels have run.
pub struct Ran {
    kernels: Kernels,
    ran: Vec<(Operation, &'static str)>,
}

impl Ran {
    /// Nothing yet, on each backend that the CPU has.
    pub fn all() -> Vec<Ran> {
        let none = |kernels| Ran {
            kernels,
            ran: Vec::new(),
        };
        Kernels::available().map(none).collect()
    }

    /// Notes what has run since the log was cleared.
    fn note(&mut self) {
        for kernel in self.kernels() {
            if !self.ran.contains(&kernel) && has_run(kernel.0, kernel.1) {
                self.ran.push(kernel);
            }
        }
    }

    /// Operations and the backend's kernels for them: of `q8` rows those for odd numbers of columns first, or the scalar one,
    /// which reads every layout.
    fn kernels(&self) -> impl Iterator<Item = (Operation, &'static str)> + use<> {
        let kernels = self.kernels;
        let all = Operation::ALL.into_iter();
        all.flat_map(move |o| kernels.kernels_of(o).map(move |k| (o, k)))
    }

    /// Lines `operation kernel`, with a mark where it has not run.
    pub fn table(&self) -> String {
        let mut table = format!("  {}\n", self.kernels.name());
        for kernel in self.kernels() {
            let ran = match self.ran.contains(&kernel) {
                true => "",
                false => " (did not run)",
            };
            let (operation, kernel) = shown(kernel);
            table += &format!("    {operation:<15} {kernel}{ran}\n");
        }
        table
    }

    /// Kernels that have not run.
    pub fn missing(&self) -> Vec<String> {
        let missing = self.kernels().filter(|kernel| !self.ran.contains(kernel));
        missing.map(|m| shown(m).1).collect()
    }
}

/// An operation, with its layout, and the name of a kernel that runs it.
fn shown((operation, kernel): (Operation, &str)) -> (String, String) {
    match operation.name() {
        (name, Some(layout)) => (format!("{name} {}", layout.name()), kernel.to_owned()),
        (name, None) => (name.to_owned(), format!("{name}_{kernel}")),
    }
}

/// Runs a text on every backend in blocks of 1 to 8 columns, each with other threads and every other one with
/// guesses; returns the hash that all have.
///
/// Errors: the first mode whose bits are not those of scalar kernels token by token, and the first operation
/// that differs.
pub fn one_hash(file: &File, kv: KvType, text: &Text<'_>, ran: &mut [Ran]) -> Result<u64, String> {
    let (model, setup) = (file.model(), Setup::exact(kv));
    let go =
        |mode: &Mode| run(model, mode, &setup, text).map_err(|e| format!("{}: {e}", mode.name()));
    let naive = go(&Mode::NAIVE.on(Kernels::portable()))?;
    // Other threads for a number of columns in the next file.
    let turn = file.bytes().len() / 64 + usize::from(kv == KvType::F16);
    for on in ran {
        // What the naive run left.
        log::clear();
        for columns in 1..=8 {
            let mut mode = Mode::whole(columns)
                .threads(1 + (columns as usize + turn) % 4)
                .on(on.kernels);
            if columns % 2 == 0 && model.has_classifier() {
                mode = mode.speculating(Speculate::Held, Guesses::Natural);
            }
            let trace = go(&mode)?;
            if let Some(d) = naive.difference(&trace, model.n_experts()) {
                let first = first_difference(file, &mode, &setup, text, &naive.generated);
                return Err(format!("{}: {d}\n  {first}", mode.name()));
            }
        }
        on.note();
    }
    Ok(naive.hash())
}

/// Where a mode's backend first differs from the scalar one.
fn first_difference(
    file: &File,
    mode: &Mode,
    setup: &Setup<'_>,
    text: &Text<'_>,
    generated: &[u32],
) -> String {
    let model = file.model();
    let tokens = [text.prompt, generated].concat();
    let options = mode::options(mode, setup, text);
    let on = |kernels| Here {
        model,
        kernels,
        options: &options,
        tokens: &tokens,
    };
    let sides = [on(Kernels::portable()), on(mode.kernels())];
    match lockstep::first_difference(&sides[0], &sides[1], &model.arena_map(&options)) {
        Ok(Some(first)) => first,
        Ok(None) => "step by step on one thread the bits are the same".to_owned(),
        Err(e) => e,
    }
}
