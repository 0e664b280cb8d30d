//! One hash over the CPU's backends, 1 to 8 columns, 1 to 4 threads: and which kernels made it.

use crate::lockstep::{self, Side};
use crate::{File, Guesses, Mode, Setup, Text, mode, run};
use pleach::kernels::log::{Operation, take_ran};
use pleach::{Kernels, KvType, Speculate};

/// What has run on one backend.
pub struct Ran {
    kernels: Kernels,
    operations: Vec<Operation>,
}

/// The kernels of an operation: the backend's own, for odd numbers of columns first, or the scalar one that reads every
/// layout.
fn kernel(kernels: Kernels, operation: Operation) -> (bool, String) {
    let backend = kernels.name();
    match operation.name() {
        (_, Some(layout)) => {
            let own: Vec<&str> = kernels.q8_kernels(layout).collect();
            match own.as_slice() {
                [] => (false, "gemv_q8_scalar".to_owned()),
                [one] => (true, (*one).to_owned()),
                some => (true, format!("1, 3 columns {}", some.join(", else "))),
            }
        }
        (name, None) => (true, format!("{name}_{backend}")),
    }
}

impl Ran {
    /// Nothing yet, on each backend that the CPU has.
    pub fn all() -> Vec<Ran> {
        let none = |kernels| Ran {
            kernels,
            operations: Vec::new(),
        };
        Kernels::available().map(none).collect()
    }

    /// Lines `operation kernel`, with a mark where it has not run.
    pub fn table(&self) -> String {
        let mut table = format!("  {}\n", self.kernels.name());
        for operation in Operation::ALL {
            let (name, layout) = operation.name();
            let what = match layout {
                Some(layout) => format!("{name} {}", layout.name()),
                None => name.to_owned(),
            };
            let (_, kernel) = kernel(self.kernels, operation);
            let ran = match self.operations.contains(&operation) {
                true => "",
                false => " (did not run)",
            };
            table += &format!("    {what:<15} {kernel}{ran}\n");
        }
        table
    }

    /// Own kernels of the backend that have not run.
    pub fn missing(&self) -> Vec<String> {
        let all = Operation::ALL.into_iter();
        all.filter(|o| !self.operations.contains(o))
            .map(|o| kernel(self.kernels, o))
            .filter_map(|(own, name)| own.then_some(name))
            .collect()
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
        take_ran().for_each(drop);
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
        for operation in take_ran() {
            if !on.operations.contains(&operation) {
                on.operations.push(operation);
            }
        }
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
    let side = |kernels| Side { model, kernels };
    let tokens = [text.prompt, generated].concat();
    let options = mode::options(mode, setup, text);
    let sides = [side(Kernels::portable()), side(mode.kernels())];
    match lockstep::first_difference(sides[0], sides[1], &options, &tokens) {
        Ok(Some(first)) => first,
        Ok(None) => "step by step on one thread the bits are the same".to_owned(),
        Err(e) => e.to_string(),
    }
}
