//! `pleach inspect`: what is inside a model file.

use crate::failure::{Failure, Result};
use crate::inspect::{self, Inspection};
use crate::model::{self, Files};
use crate::output::{self, harmless, say};
use std::path::PathBuf;

/// Show what is inside a model file, and verify it
#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// The model file
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
            let width = if output::is_terminal() {
                output::width()
            } else {
                100
            };
            let text = inspect::text(&inspection, &name, width);
            output::write(format_args!("{}", harmless(&text)))?;
        }
        inspection.verified.map_err(|e| Failure::core(name, e))
    }
}
