//! Miri over the scalar core, and the threads: no undefined behaviour in what every target runs, no data race on hosts.

use crate::backends;
use crate::context::{Context, echoed};
use std::process::Command;

/// Modules whose unit tests it runs: kernels between exact buffers, the arena's sizes, top-k and scalings.
const UNITS: [&str; 3] = ["kernels::", "session::", "xlora::"];

/// How threads share a job.
const THREADS: &str = "threads::team::";

/// A whole model that is small enough: blob views, the arena and its parts.
const MODEL: &str = "adversarial-odd-q8-q8-32";

/// Runs them. Backends with intrinsics take no part: Miri reports a CPU without features.
pub(crate) fn run(cx: &Context) -> Result<(), String> {
    let mut threads = miri(cx, "pleach-linux");
    // What panics carry is leaked, since its drop may panic as well.
    threads.env("MIRIFLAGS", "-Zmiri-ignore-leaks");
    threads.args(["--lib", "--", THREADS]);
    all_ran(&echoed(threads)?, &[THREADS])?;
    let folder = backends::files(cx)?;
    let mut units = core(cx);
    // All pairs of int8 would take an hour.
    units
        .args(["--lib", "--", "--skip", "panel::tests::expansion"])
        .args(UNITS);
    all_ran(&echoed(units)?, &UNITS)?;
    for layout in ["linux", "portable"] {
        let mut whole = core(cx);
        let blob = folder.join(format!("{MODEL}.{layout}.pleach"));
        whole.args(["--test", "whole"]).env("PLEACH_BLOB", blob);
        all_ran(&echoed(whole)?, &[""])?;
    }
    Ok(())
}

/// `cargo miri test` over the core.
fn core(cx: &Context) -> Command {
    let mut c = miri(cx, "pleach");
    // `sqrt` is assembly on x86, which Miri does not run.
    c.args(["--features", "libm/force-soft-floats"]);
    c
}

/// `cargo miri test` over a package.
fn miri(cx: &Context, package: &str) -> Command {
    let mut c = cx.command("rustup");
    c.args("run nightly cargo miri test --package".split(' '))
        .arg(package)
        .env("CARGO_TARGET_DIR", &cx.target)
        // Files are read.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    c
}

/// For each start of a name, a test of that name passed: a filter that finds nothing passes too.
fn all_ran(output: &str, starts: &[&str]) -> Result<(), String> {
    let passed = |line: &str, start: &str| {
        let name = line.strip_prefix("test ");
        name.is_some_and(|n| n.starts_with(start) && n.ends_with(" ... ok"))
    };
    let ran = |start: &&&str| output.lines().any(|l| passed(l, start));
    match starts.iter().find(|s| !ran(s)) {
        Some(start) => Err(format!("no test passed whose name begins with {start:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::all_ran;

    #[test]
    fn a_filter_that_finds_nothing_fails() {
        let output = "\nrunning 3 tests\ntest kernels::tests::rows ... ok\n\
                      test hash::tests::x ... ignored\ntest session::kinds::y ... ok\n\n\
                      test result: ok. 2 passed; 0 failed; 1 ignored\n";
        assert_eq!(all_ran(output, &["kernels::", "session::"]), Ok(()));
        assert_eq!(all_ran(output, &[""]), Ok(()));
        for start in ["kinds::", "hash::", "result"] {
            let refused = all_ran(output, &["kernels::", start]).unwrap_err();
            assert!(refused.contains(start), "{refused}");
        }
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 9 filtered out\n";
        assert!(all_ran(none, &[""]).is_err());
    }
}
