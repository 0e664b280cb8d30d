//! One hash over the backends of this CPU, and of CPUs that have fewer.

use crate::context::{Context, capture, side_by_side, stream};
use crate::cross::{AARCH64, first_difference};
use crate::smol;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What emulated CPUs run: odd sizes in every dtype and layout, which reach every kernel, and the demo and a Qwen2 as they are
/// packed for Linux.
const SMALL: [&str; 3] = [
    "adversarial-odd",
    "intent-q8-q8-64.linux",
    "case-qwen2-embedding-q8-q8-64.linux",
];

/// Emulated x86 CPUs, and the backends that they must have and no others.
const CPUS: [(&str, &str); 2] = [("Nehalem", "scalar"), ("Haswell", "avx2 scalar")];

/// The same of aarch64: Pi 3, Pi 4, Pi 5 and Orin, all that QEMU has.
const ARM: [(&str, &str); 4] = [
    ("cortex-a53", "neon scalar"),
    ("cortex-a72", "neon scalar"),
    ("cortex-a76", "dotprod neon scalar"),
    ("max", "i8mm dotprod neon scalar"),
];

/// Where [`build`] puts this machine's programs.
pub(crate) const NATIVE: &str = "debug";

/// Builds `tests/parity`'s tools for this machine: with a test, so that they are those that step `test` built already. By themselves
/// they would get other features.
pub(crate) fn build(cx: &Context) -> Result<(), String> {
    let build = "test --workspace --no-run --test lockstep";
    stream(cx.cargo(build.split(' ')))
}

/// Builds them for aarch64, and with them the test of step `flags`: by itself it would build what it depends on once more, with
/// other features.
pub(crate) fn build_aarch64(cx: &Context) -> Result<(), String> {
    let build = "build --release -p parity --bin hashes --bin difference --test flags --target";
    stream(cx.cargo(build.split(' ').chain([AARCH64])))
}

/// `hashes`, built for this machine.
fn tool(cx: &Context) -> Result<PathBuf, String> {
    build(cx)?;
    Ok(cx.built(NATIVE, "hashes"))
}

/// A CPU of QEMU's.
pub(crate) struct Emulated {
    /// The program, and what it needs beside the CPU.
    qemu: &'static [&'static str],
    pub(crate) cpu: &'static str,
    /// Where cargo puts what runs there.
    folder: String,
}

impl Emulated {
    pub(crate) fn aarch64(cpu: &'static str) -> Self {
        Self {
            qemu: &["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
            cpu,
            folder: format!("{AARCH64}/release"),
        }
    }

    fn x86_64(cpu: &'static str) -> Self {
        Self {
            qemu: &["qemu-x86_64"],
            cpu,
            folder: NATIVE.into(),
        }
    }

    /// The emulator, about to run one of `tests/parity`'s tools.
    pub(crate) fn tool(&self, cx: &Context, name: &str) -> Command {
        let (program, args) = self.qemu.split_first().unwrap_or((&"", &[]));
        let mut c = cx.command(program);
        let tool = cx.built(&self.folder, name);
        c.args(args).args(["-cpu", self.cpu]).arg(tool);
        c
    }

    /// An error if the lines of `hashes` over the files in `dir` are not the native ones: with the first place where the
    /// bits part.
    pub(crate) fn same(
        &self,
        cx: &Context,
        dir: &Path,
        (native, emulated): (&str, &str),
    ) -> Result<(), String> {
        let Some((n, e)) = first_difference(native, emulated) else {
            return Ok(());
        };
        let cpu = self.cpu;
        let place = self.first_place(cx, dir, n).unwrap_or_else(|e| e);
        Err(format!(
            "-cpu {cpu} differs\n  native  {n}\n  {cpu} {e}\n  {}",
            place.trim_end()
        ))
    }

    /// Where a file's bits part, by the line of `hashes` that differs: its name, what was run, the KV type if it says so.
    fn first_place(&self, cx: &Context, dir: &Path, line: &str) -> Result<String, String> {
        let name = line.split(' ').next().unwrap_or_default();
        let file = dir.join(format!("{name}.pleach"));
        let says = |kv: &str| line.split(' ').any(|w| w.eq_ignore_ascii_case(kv));
        let kv = if says("f32") { "f32" } else { "f16" };
        let other = self.tool(cx, "difference");
        let mut c = cx.command(cx.built(NATIVE, "difference"));
        c.arg(&file).arg(kv).arg(other.get_program());
        c.args(other.get_args()).arg("--state").arg(&file).arg(kv);
        capture(c)
    }
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
    let tool = cx.built(NATIVE, "hashes");
    print!("{}", run(cx.command(&tool), &dir, &[])?);
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let native = hashes(&run(cx.command(&tool), &dir, &SMALL)?);
    side_by_side(&CPUS, |&(cpu, backends)| {
        emulated(cx, &Emulated::x86_64(cpu), &dir, &native, backends)
    })
}

/// The same under qemu-aarch64, whose `hashes` was built, and the native one.
pub(crate) fn arm(cx: &Context) -> Result<(), String> {
    let dir = files(cx)?;
    let tool = cx.built(NATIVE, "hashes");
    let native = hashes(&run(cx.command(&tool), &dir, &SMALL)?);
    side_by_side(&ARM, |&(cpu, backends)| {
        emulated(cx, &Emulated::aarch64(cpu), &dir, &native, backends)
    })
}

/// Runs an emulated CPU: it must have these backends, and the native hashes.
fn emulated(
    cx: &Context,
    on: &Emulated,
    dir: &Path,
    native: &str,
    backends: &str,
) -> Result<(), String> {
    let cpu = on.cpu;
    let emulated = run(on.tool(cx, "hashes"), dir, &SMALL)?;
    let first = emulated.lines().next().unwrap_or_default();
    if first != format!("backends: {backends}") {
        return Err(format!("-cpu {cpu} must have {backends}, not {first}"));
    }
    on.same(cx, dir, (native, &hashes(&emulated)))?;
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
