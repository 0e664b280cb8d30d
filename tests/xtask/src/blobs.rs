//! The blobs of the intent model that are checked in.

use crate::context::{Context, stream};

/// The checkpoint that all of them come from.
const CHECKPOINT: [&str; 4] = [
    "--base",
    "tests/fixtures/xlora-intent/base",
    "--xlora",
    "tests/fixtures/xlora-intent/xlora",
];

/// The demo's blob, inside the command-line tool.
pub(crate) const DEMO: &str = "hosts/cli/intent.pleach";
/// The firmware's blob: plain rows.
pub(crate) const PORTABLE: &str = "examples/intent/intent-portable.pleach";

/// Packs both again. `pleach-pack` has a test that the checked-in bytes are those of the checkpoint.
pub(crate) fn pack_all(cx: &Context) -> Result<(), String> {
    for (file, layout) in [(DEMO, "linux"), (PORTABLE, "portable")] {
        let run = ["run", "--release", "--package", "pleach-cli", "--", "pack"];
        let options = ["--quant", "q8", "--for", layout, "-o", file];
        stream(cx.cargo(run.iter().chain(&CHECKPOINT).chain(&options)))?;
    }
    Ok(())
}
