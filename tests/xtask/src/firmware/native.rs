//! The same model and tokens through the command-line tool on this machine, from the file that is laid out for it.

use super::log::Answer;
use crate::blobs::DEMO;
use crate::context::{Context, capture, stream};
use std::path::PathBuf;

/// The tool, built.
pub(crate) struct Native<'c> {
    cx: &'c Context,
    tool: PathBuf,
}

impl<'c> Native<'c> {
    pub(crate) fn build(cx: &'c Context) -> Result<Self, String> {
        stream(cx.cargo(["build", "--release", "--package", "pleach-cli"]))?;
        Ok(Self {
            cx,
            tool: cx.built("release", "pleach"),
        })
    }

    /// The same hash for the same tokens, and the same text for the sentence, through the tool's own
    /// tokenizer. Errors: what differs.
    pub(crate) fn agrees(&self, a: &Answer) -> Result<(), String> {
        let list: Vec<String> = a.prompt.iter().map(u32::to_string).collect();
        let (list, n) = (list.join(","), a.answer.len().to_string());
        let trace = self.pleach(&["trace", "--tokens", &list, "--generate", &n, "--hash"])?;
        let native = trace
            .lines()
            .find_map(|l| l.strip_prefix("hash "))
            .unwrap_or("(none)");
        if native != a.hash {
            return Err(format!(
                "{:?}: hash {} on the M4F, {native} natively",
                a.sentence, a.hash
            ));
        }
        let prompt = format!("{}\n", a.sentence);
        let text = self.pleach(&["run", "--prompt", &prompt, "-n", &n])?;
        if text.trim_end_matches('\n') != a.text {
            return Err(format!(
                "{:?}: {:?} on the M4F, {text:?} natively",
                a.sentence, a.text
            ));
        }
        Ok(())
    }

    fn pleach(&self, args: &[&str]) -> Result<String, String> {
        let mut c = self.cx.command(&self.tool);
        c.args(args).args(["--kv", "f16", "--context", "64", DEMO]);
        capture(c)
    }
}
