//! `pleach inspect`: what is inside a model file.

use crate::failure::{Failure, Result};
use crate::inspect::{self, Inspection};
use crate::model;
use crate::output::{self, say};
use std::path::PathBuf;

/// Show what is inside a model file, and verify it
#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// The model file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<()> {
        let file = model::open(&self.file)?;
        let model = model::parse(&self.file, &file)?;
        let inspection = Inspection::new(model, file.bytes());
        let name = self.file.display().to_string();
        if self.json {
            say!("{:#}", inspect::json(&inspection, &name))?;
        } else {
            let width = if output::is_terminal() {
                output::width()
            } else {
                100
            };
            output::write(format_args!("{}", inspect::text(&inspection, &name, width)))?;
        }
        inspection.verified.map_err(|e| Failure::core(name, e))
    }
}
