//! Miri over the scalar core: no undefined behaviour in what every target runs.

use crate::backends;
use crate::context::{Context, stream};
use std::process::Command;

/// The core's unit tests that it runs: kernels between exact buffers, blob views, the arena and its parts.
const UNITS: [&str; 5] = ["kernels::", "blob::", "carve::", "session::", "xlora::"];

/// A whole model that is small enough.
const MODEL: &str = "adversarial-odd-q8-q8-32";

/// Runs them. Backends with intrinsics take no part: Miri reports a CPU without features.
pub(crate) fn run(cx: &Context) -> Result<(), String> {
    let folder = backends::files(cx)?;
    let mut units = miri(cx);
    // All pairs of int8 would take an hour.
    units
        .args(["--lib", "--", "--skip", "panel::tests::expansion"])
        .args(UNITS);
    stream(units)?;
    for layout in ["linux", "portable"] {
        let mut whole = miri(cx);
        let blob = folder.join(format!("{MODEL}.{layout}.pleach"));
        whole.args(["--test", "whole"]).env("PLEACH_BLOB", blob);
        stream(whole)?;
    }
    Ok(())
}

/// `cargo miri test` over the core.
fn miri(cx: &Context) -> Command {
    let mut c = cx.command("rustup");
    c.args("run nightly cargo miri test --package pleach".split(' '))
        // `sqrt` is assembly on x86, which Miri does not run.
        .args(["--features", "libm/force-soft-floats"])
        .env("CARGO_TARGET_DIR", &cx.target)
        // Files are read.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    c
}
