//! `pleach inspect`: what is inside a model file or an expert file.

use crate::failure::{Failure, Result};
use crate::inspect::{self, ExpertInspection, Inspection};
use crate::model::{self, Files};
use crate::output::{self, harmless, say};
use pleach_linux::ModelFile;
use std::path::PathBuf;

/// Show what is inside a model file or an expert file, and verify it
#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// The model file, or an expert file by itself
    file: PathBuf,
    /// Expert file in the place of the model's expert of its class; may be repeated
    #[arg(long = "expert", value_name = "FILE")]
    experts: Vec<PathBuf>,
    /// Print the storage error of every tensor
    #[arg(long, conflicts_with = "json")]
    tensors: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<()> {
        let file = model::open(&self.file)?;
        if model::is_expert(file.bytes()) {
            return self.expert(&file);
        }
        let files = Files::open(&self.file, &self.experts)?;
        let experts = files.experts()?;
        let model = files.model(&experts)?;
        model::notes(&model).iter().for_each(|n| output::note(n));
        let inspection = Inspection::new(model, files.bytes());
        let name = self.file.display().to_string();
        if self.json {
            say!("{:#}", inspect::json(&inspection, &name))?;
        } else if self.tensors {
            output::write(format_args!("{}", harmless(&inspect::tensors(&inspection))))?;
        } else {
            let text = inspect::text(&inspection, &name, width());
            output::write(format_args!("{}", harmless(&text)))?;
        }
        inspection.verified.map_err(|e| Failure::core(name, e))
    }

    /// An expert file without its model.
    fn expert(self, file: &ModelFile) -> Result<()> {
        let name = self.file.display().to_string();
        let refused = |option: &str, cure: &str| {
            Err(Failure::refused(
                format!("{option}: {name} is an expert file"),
                cure,
            ))
        };
        if !self.experts.is_empty() {
            return refused(
                "--expert",
                "pass the model file that the experts belong to, and each of them with --expert FILE",
            );
        }
        if self.tensors {
            return refused(
                "--tensors",
                "leave it out: storage errors are noted in model files only",
            );
        }
        let expert = model::expert_file(&self.file, file)?;
        let inspection = ExpertInspection::new(&expert);
        if self.json {
            say!("{:#}", inspection.json(&name))?;
        } else {
            let text = inspection.text(&name, width());
            output::write(format_args!("{}", harmless(&text)))?;
        }
        inspection.verified.map_err(|e| Failure::core(name, e))
    }
}

/// Columns of a text.
fn width() -> usize {
    match output::is_terminal() {
        true => output::width(),
        false => 100,
    }
}
