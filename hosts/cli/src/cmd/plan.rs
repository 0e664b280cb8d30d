//! `pleach plan`: what a model needs before it runs.

use crate::failure::{BadValue, Result};
use crate::model::Files;
use crate::options::SessionArgs;
use crate::output::{self, say};
use crate::plan::{self, Figures};
use std::path::PathBuf;

/// Show what a session will take: bytes by section, RAM by part, the cost of a token
///
/// Nothing is computed: every figure follows from the model file's tables and the options, and is exact. The RAM is
/// the arena's, the one slice that a session lives in; firmware finds the same in `Model::arena_bytes` and
/// `Model::arena_map`, at compile time.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pleach plan m.pleach --context 64 --chunk 1 --kv f16 --speculate off   as firmware would run it
  pleach plan m.pleach --ram 96K --chunk 1 --kv f16                      the largest context for 96 KiB
  pleach plan m.pleach --routing every:4                                 what a routing costs")]
pub(crate) struct Plan {
    /// The model file
    file: PathBuf,
    /// Say which context this much RAM holds: bytes, or with K, M or G for 1024, 1024^2, 1024^3
    #[arg(long, value_name = "BYTES", value_parser = size)]
    ram: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionArgs,
}

fn size(text: &str) -> std::result::Result<u64, BadValue> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1u64),
    };
    let number: Option<u64> = digits.parse().ok();
    number.and_then(|n| n.checked_mul(unit)).ok_or_else(|| {
        BadValue::new(
            "not a number of bytes",
            "use a whole number, as it is or with K, M or G: 65536, 64K, 2M",
        )
    })
}

impl Plan {
    pub(crate) fn run(self) -> Result<()> {
        let files = Files::open(&self.file, &self.session.experts)?;
        let experts = files.experts()?;
        let model = files.model(&experts)?;
        let plan = self.session.plan_each(&self.file, &model)?;
        plan.notes.iter().for_each(|n| output::note(n));
        if self.session.thread_counts().is_some() {
            output::note("--threads has no effect on a plan");
        }
        let figures = Figures::new(model, plan.session, &plan.setup, self.ram);
        let name = self.file.display().to_string();
        if self.json {
            return say!("{:#}", plan::json(&figures, &name));
        }
        let width = if output::is_terminal() {
            output::width()
        } else {
            100
        };
        let text = plan::text(&figures, &name, width);
        output::write(format_args!("{}", output::harmless(&text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64K"), Ok(65536));
        assert_eq!(size("2M"), Ok(2 << 20));
        assert_eq!(size("1g"), Ok(1 << 30));
        for bad in ["", "K", "-1", "1.5M", "64KB", "99999999999G", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
