//! `tests/cross/nopanic`: a program that links only if no panic can be reached.

use crate::context::{Context, shown, stream};
use crate::cross::{M0, M4};
use crate::scan;
use std::process::Stdio;

/// The symbol that its panic handler calls and nobody defines.
const REACHED: &str = "pleach_panic_reached";

/// A program that calls the whole core cannot be smaller; if it is, the calls were optimised away.
const LEAST_CODE: u64 = 24 * 1024;

/// It links for both targets, and with the feature `bad` (an index out of bounds) for neither.
pub(crate) fn links(cx: &Context) -> Result<(), String> {
    for target in [M0, M4] {
        let build = [
            "build",
            "--release",
            "--manifest-path",
            "tests/cross/nopanic/Cargo.toml",
            "--target",
            target,
        ];
        stream(cx.cargo(build))?;
        let code = scan::code(&cx.built(&format!("{target}/release"), "nopanic"))?;
        println!("{target}: no panic path in {} bytes of code", code.text);
        if code.text < LEAST_CODE {
            return Err(format!(
                "{target}: only {} bytes of code: the calls are gone",
                code.text
            ));
        }

        let mut bad = cx.cargo(build.iter().chain(&["--features", "bad"]));
        println!("$ {}   (must fail to link)", shown(&bad));
        let out = bad
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| format!("cargo: {e}"))?;
        if out.status.success() {
            return Err(format!("{target}: the control with a panic path links"));
        }
        let text = String::from_utf8_lossy(&out.stderr);
        if !text.contains(REACHED) {
            return Err(format!(
                "{target}: the control fails for another reason\n{text}"
            ));
        }
        println!("{target}: the control with a panic path does not link");
    }
    Ok(())
}
