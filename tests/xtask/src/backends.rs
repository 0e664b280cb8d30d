//! One hash over the backends of this CPU, and of CPUs that have fewer.

use crate::context::{Context, capture, side_by_side, stream};
use crate::cross::{AARCH64, first_difference};
use crate::smol;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What emulated CPUs run: odd sizes in every dtype and layout, which reach every kernel, and the demo as it is packed
/// for Linux.
const SMALL: [&str; 2] = ["adversarial-odd", "intent-q8-q8-64.linux"];

/// Emulated x86 CPUs, and the backends that they must have and no others.
const CPUS: [(&str, &str); 2] = [("Nehalem", "scalar"), ("Haswell", "avx2 scalar")];

/// The same of aarch64: Pi 3, Pi 4, Pi 5 and Orin, all that QEMU has.
const ARM: [(&str, &str); 4] = [
    ("cortex-a53", "neon scalar"),
    ("cortex-a72", "neon scalar"),
    ("cortex-a76", "dotprod neon scalar"),
    ("max", "i8mm dotprod neon scalar"),
];

/// Builds `tests/parity`'s `hashes`, for this machine or another, and with it the tests of steps `smol` and `flags`: each by itself
/// would build what it depends on once more, with other features.
pub(crate) fn build(cx: &Context, target: Option<&str>) -> Result<(), String> {
    let build = "build --release -p parity --bin hashes --test smol --test flags".split(' ');
    let target = target.into_iter().flat_map(|t| ["--target", t]);
    stream(cx.cargo(build.chain(target)))
}

/// `hashes`, built for this machine.
fn tool(cx: &Context) -> Result<PathBuf, String> {
    build(cx, None)?;
    Ok(cx.built("release", "hashes"))
}

/// A folder of model files in every layout, made anew.
pub(crate) fn files(cx: &Context) -> Result<PathBuf, String> {
    let tool = tool(cx)?;
    let dir = cx.target.join("hashes-layouts");
    let _ = std::fs::remove_dir_all(&dir);
    let mut pack = cx.command(&tool);
    pack.arg("--prepare-layouts").arg(&dir);
    stream(pack)?;
    Ok(dir)
}

/// Every backend, layout, number of columns and threads has one hash; every kernel runs; a CPU that lacks a
/// feature never runs its kernel.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    let dir = files(cx)?;
    let tool = cx.built("release", "hashes");
    print!("{}", run(cx.command(&tool), &dir, &[])?);
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let native = hashes(&run(cx.command(&tool), &dir, &SMALL)?);
    side_by_side(&CPUS, |&(cpu, backends)| {
        let mut c = cx.command("qemu-x86_64");
        c.args(["-cpu", cpu]).arg(&tool);
        emulated(c, &dir, &native, (cpu, backends))
    })
}

/// The same under qemu-aarch64, whose `hashes` was built, and the native one.
pub(crate) fn arm(cx: &Context) -> Result<(), String> {
    let dir = files(cx)?;
    let tool = cx.built("release", "hashes");
    let native = hashes(&run(cx.command(&tool), &dir, &SMALL)?);
    side_by_side(&ARM, |&(cpu, backends)| {
        let mut c = cx.command("qemu-aarch64");
        c.args(["-cpu", cpu, "-L", "/usr/aarch64-linux-gnu"])
            .arg(cx.built(&format!("{AARCH64}/release"), "hashes"));
        emulated(c, &dir, &native, (cpu, backends))
    })
}

/// Runs an emulated CPU: it must have these backends, and the native hashes.
fn emulated(
    tool: Command,
    dir: &Path,
    native: &str,
    (cpu, backends): (&str, &str),
) -> Result<(), String> {
    let emulated = run(tool, dir, &SMALL)?;
    let first = emulated.lines().next().unwrap_or_default();
    if first != format!("backends: {backends}") {
        return Err(format!("-cpu {cpu} must have {backends}, not {first}"));
    }
    if let Some((n, e)) = first_difference(native, &hashes(&emulated)) {
        return Err(format!("-cpu {cpu} differs\n  native  {n}\n  {cpu} {e}"));
    }
    let kernels = emulated.lines().filter(|l| l.starts_with(' '));
    let lines = kernels.fold(String::new(), |lines, l| lines + l + "\n");
    // In one go: others print beside it.
    print!("-cpu {cpu}: {first}, the native hashes\n{lines}");
    Ok(())
}

/// The same of SmolLM2 cut to four layers.
pub(crate) fn smol(cx: &Context) -> Result<(), String> {
    let tool = tool(cx)?;
    let dir = cx.target.join("hashes-smol-backends");
    let _ = std::fs::remove_dir_all(&dir);
    let mut pack = cx.command(&tool);
    pack.arg("--prepare-smol")
        .arg(&dir)
        .env(smol::BASE, smol::base(cx));
    stream(pack)?;
    print!("{}", run(cx.command(&tool), &dir, &["smol-cut"])?);
    Ok(())
}

fn run(mut tool: Command, dir: &Path, names: &[&str]) -> Result<String, String> {
    tool.arg("--backends").arg(dir).args(names);
    capture(tool)
}

/// The lines with hashes, which do not depend on the CPU.
fn hashes(output: &str) -> String {
    let lines = output.lines().skip(1).filter(|l| !l.starts_with(' '));
    lines.map(|l| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_only() {
        let output = "backends: avx2 scalar\nm F32 01\n  avx2\n    mix mix_avx2\n";
        assert_eq!(super::hashes(output), "m F32 01\n");
    }
}
