//! `pleach repack`: a packed file for another machine.

use super::pack::target;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Busy};
use crate::model;
use crate::output::{self, Bar, say};
use crate::written;
use pleach::Model;
use pleach_linux::ModelFile;
use pleach_pack::{Repacked, Target};
use std::path::{Path, PathBuf};

/// Lay a packed file out for another machine's kernels
///
/// Every file runs everywhere and gives the same bits; where it is laid out for the machine's kernels, it runs
/// faster. Nothing is quantised again: weights and scales keep their values, and the result is byte for byte what
/// `pleach pack --for` makes of the checkpoint. OUT may be IN.
///
/// Experts are bound to the base as it lies in the model file. Those in the model file are bound anew; expert files
/// (--expert) have to be repacked, too: `pleach repack EXPERT OUT --for TARGET --model MODEL`.
#[derive(clap::Args)]
pub(crate) struct Repack {
    /// The model file, or the expert file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Whose kernels the rows are laid out for: linux is x86-64 and aarch64, cortex-m is M4, M7 and M33, mve is M55
    /// and M85 (Helium), portable is all others
    #[arg(long = "for", value_name = "TARGET", value_parser = target())]
    target: Target,
    /// With an expert file: the model file that it belongs to, laid out for any target
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

impl Repack {
    pub(crate) fn run(self) -> Result<()> {
        let mut bar = Bar::new("repacking");
        let busy = Busy::new();
        let done = self.repack(&mut bar);
        bar.clear();
        let (repacked, unchanged) = done?;
        // The last place to stop: nothing is written yet.
        if interrupt::asked() {
            return Err(Failure::interrupted("no file was written"));
        }
        pleach_pack::write_atomically(&self.output, &repacked.bytes)?;
        drop(busy);
        if unchanged {
            output::note(&format!(
                "{} was laid out for {} already: nothing has changed",
                self.input.display(),
                self.target.name()
            ));
        }
        say!(
            "{}: {}, laid out for {} (before: {})",
            self.output.display(),
            output::bytes(repacked.bytes.len() as u64),
            self.target.name(),
            model::target_name(repacked.from)
        )
    }

    /// The new file, verified, and whether it is the old one. Mappings end here: OUT may be IN.
    fn repack(&self, bar: &mut Bar) -> Result<(Repacked, bool)> {
        let file = model::open(&self.input)?;
        let expert = model::is_expert(file.bytes());
        let repacked = match (&self.model, expert) {
            (Some(path), true) => self.expert((path, &model::open(path)?), &file, bar)?,
            (None, false) => {
                let model = model::parse(&self.input, &file)?;
                pleach_pack::repack(&self.input, &model, self.target, bar)?
            }
            (None, true) => {
                return Err(Failure::refused(
                    format!(
                        "{}: an expert file, which is bound to its base",
                        self.input.display()
                    ),
                    "pass the model file that it belongs to, laid out for any target: --model FILE",
                ));
            }
            (Some(_), false) => {
                // What else it is, if it is no model file either.
                model::parse(&self.input, &file)?;
                return Err(Failure::refused(
                    format!("--model: {} is no expert file", self.input.display()),
                    "leave --model out: a model file needs no other",
                ));
            }
        };
        match expert {
            true => written::expert(&self.output, &repacked.bytes)?,
            false => written::model(&self.output, &repacked.bytes)?,
        }
        let unchanged = repacked.bytes == file.bytes();
        Ok((repacked, unchanged))
    }

    fn expert(
        &self,
        (path, file): (&Path, &ModelFile),
        expert: &ModelFile,
        bar: &mut Bar,
    ) -> Result<Repacked> {
        let model: Model<'_> = model::parse(path, file)?;
        let expert = model::expert_file(&self.input, expert)?;
        let place = (self.input.as_path(), &expert);
        Ok(pleach_pack::repack_expert(
            place,
            (path, &model),
            self.target,
            bar,
        )?)
    }
}
