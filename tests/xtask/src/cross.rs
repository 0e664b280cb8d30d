//! Other targets: the core builds, and an emulated aarch64 gives the native bits.

use crate::backends::{self, Emulated};
use crate::context::{Context, capture, echoed, shown, side_by_side, stream};
use crate::smol;
use std::io::Write;
use std::process::Stdio;

pub(crate) const X86_64: &str = "x86_64-unknown-linux-gnu";
pub(crate) const M0: &str = "thumbv6m-none-eabi";
pub(crate) const M3: &str = "thumbv7m-none-eabi";
pub(crate) const M4: &str = "thumbv7em-none-eabihf";
/// With `-Ctarget-cpu=cortex-m55`.
pub(crate) const M55: &str = "thumbv8m.main-none-eabihf";
pub(crate) const RV32: &str = "riscv32imac-unknown-none-elf";
pub(crate) const AARCH64: &str = "aarch64-unknown-linux-gnu";

/// What runs a program that cargo built for it.
const RUNNER: &str = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER";

/// Pi 3 and 4; Pi 5 and Orin (dotprod, fp16); everything that QEMU has (i8mm).
const CPUS: [&str; 4] = ["cortex-a53", "cortex-a72", "cortex-a76", "max"];

/// The core for each target: without features, with the default ones, with all that the target allows
/// (`std` needs an operating system). Unoptimised, which takes a minute instead of ten: steps `fma`, `nopanic`, `kernels` and
/// `firmware` build it as it ships.
pub(crate) fn core_builds(cx: &Context) -> Result<(), String> {
    const FIRMWARE: &[&str] = &[M0, M4, RV32];
    const ALL: &[&str] = &[M0, M4, RV32, AARCH64];
    for (targets, features) in [
        (ALL, Some("--no-default-features")),
        (ALL, None),
        (FIRMWARE, Some("--features=defmt")),
        (&[AARCH64], Some("--all-features")),
    ] {
        // Several targets in one command, which builds them side by side.
        let args = "build -p pleach --config profile.dev.opt-level=0".split(' ');
        let targets = targets.iter().flat_map(|t| ["--target", *t]);
        stream(cx.cargo(args.chain(features).chain(targets)))?;
    }
    // No board of step `kernels`, which builds it for M3 and M55, has this CPU.
    let m33 = "build -p pleach --no-default-features --config profile.dev.opt-level=0 \
               --config build.rustflags=['-Ctarget-cpu=cortex-m33'] --target";
    stream(cx.cargo(m33.split_whitespace().chain([M55])))
}

/// Rustdoc, every warning an error.
pub(crate) fn docs(cx: &Context) -> Result<(), String> {
    // The tool `pleach` and the library `pleach` would be written to the same place.
    for args in [
        "doc --no-deps --workspace --exclude pleach-cli",
        "doc --no-deps -p pleach --all-features",
        "doc --no-deps --manifest-path hosts/mcu/Cargo.toml --target thumbv7em-none-eabihf",
    ] {
        let mut c = cx.cargo(args.split(' '));
        c.env("RUSTDOCFLAGS", "-D warnings");
        stream(c)?;
    }
    Ok(())
}

/// What `cargo run --release` builds.
pub(crate) fn default_binary_is_small(cx: &Context) -> Result<(), String> {
    let tree = capture(cx.cargo(
        "tree --package pleach-cli --edges normal,build --prefix none --format {p}".split(' '),
    ))?;
    let mut crates: Vec<&str> = tree
        .lines()
        .map(|l| l.trim_end_matches(" (*)"))
        .filter(|l| !l.is_empty())
        .collect();
    crates.sort_unstable();
    crates.dedup();
    println!("{} crates", crates.len());
    if crates.len() > 150 {
        return Err(format!("{} crates, more than 150", crates.len()));
    }
    let builds_c = |c: &&&str| {
        let name = c.split(' ').next().unwrap_or_default();
        matches!(name, "cc" | "cmake" | "bindgen" | "pkg-config" | "vcpkg")
    };
    match crates.iter().find(builds_c) {
        Some(c) => Err(format!(
            "{c} builds C: a fresh machine has no compiler for it"
        )),
        None => Ok(()),
    }
}

/// Without arguments, at the root, from a pipe: one line of five fields per sentence.
pub(crate) fn demo(cx: &Context) -> Result<(), String> {
    let mut c = cx.cargo(["run", "--release"]);
    println!("$ echo 'licht an' | {}", shown(&c));
    let mut child = c
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cargo: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Dropped here: the end of the input.
        stdin
            .write_all(b"licht an\n")
            .map_err(|e| format!("cargo run: {e}"))?;
    }
    let out = child
        .wait_with_output()
        .map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    print!("{text}");
    if !out.status.success() {
        return Err(format!("cargo run --release ({})", out.status));
    }
    let fields: Vec<usize> = text.lines().map(|l| l.split('\t').count()).collect();
    if fields == [5] {
        Ok(())
    } else {
        Err(format!("one line of five fields expected: {text:?}"))
    }
}

/// aarch64 gives the native bits: `tests/parity`'s `hashes` prints a hash per blob and mode, and each emulated CPU
/// must print the same; then every backend of each CPU, and the kernels' own tests.
pub(crate) fn hashes(cx: &Context) -> Result<(), String> {
    same_hashes(cx, "hashes", "--prepare", None, &CPUS)?;
    backends::arm(cx)?;
    kernels(cx)
}

/// The kernels' own tests, guard pages included, on the CPU that has every backend.
fn kernels(cx: &Context) -> Result<(), String> {
    let test = "test --package pleach --features std --lib --target";
    let mut c = cx.cargo(test.split(' ').chain([AARCH64, "kernels::"]));
    c.env(RUNNER, "qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu");
    let output = echoed(c)?;
    // A filter that finds nothing passes too.
    if output.contains("kernels::tests::guard::a_byte_too_far_is_a_fault ... ok") {
        Ok(())
    } else {
        Err("the kernels' tests did not run".into())
    }
}

/// The same of SmolLM2, cut to four layers: 32 tokens drawn with a seed.
pub(crate) fn sampled_hashes(cx: &Context) -> Result<(), String> {
    // A backend each: an A72 has the A53's.
    let cpus = ["cortex-a53", "cortex-a76", "max"];
    same_hashes(
        cx,
        "hashes-smol",
        "--prepare-smol",
        Some("--sampled"),
        &cpus,
    )
}

/// Packs blobs into a folder, then runs them natively and on each emulated CPU.
fn same_hashes(
    cx: &Context,
    folder: &str,
    prepare: &str,
    what: Option<&str>,
    cpus: &[&'static str],
) -> Result<(), String> {
    backends::build(cx)?;
    backends::build_aarch64(cx)?;
    let dir = cx.target.join(folder);
    // A blob of an earlier run must not stand in for one that is no longer made.
    let _ = std::fs::remove_dir_all(&dir);
    let tool = cx.built(backends::NATIVE, "hashes");
    let mut pack = cx.command(&tool);
    pack.arg(prepare).arg(&dir).env(smol::BASE, smol::base(cx));
    stream(pack)?;
    let mut native = cx.command(&tool);
    native.args(what).arg(&dir);
    let native = capture(native)?;
    print!("{native}");
    if native.trim().is_empty() {
        return Err("tests/parity's hashes printed nothing".into());
    }
    side_by_side(cpus, |cpu| {
        let on = Emulated::aarch64(cpu);
        let mut c = on.tool(cx, "hashes");
        c.args(what).arg(&dir);
        on.same(cx, &dir, (&native, &capture(c)?))?;
        println!(
            "qemu-aarch64 -cpu {cpu}: {} lines, all as native",
            native.lines().count()
        );
        Ok(())
    })
}

/// The test that no subnormal takes part, with aarch64's float status register.
pub(crate) fn flags(cx: &Context) -> Result<(), String> {
    let test = "test --release --package parity --test flags --target";
    let mut c = cx.cargo(test.split(' ').chain([AARCH64]));
    c.env(RUNNER, "qemu-aarch64 -L /usr/aarch64-linux-gnu");
    stream(c)
}

/// The first line in which two texts differ, one side empty where it ends early.
pub(crate) fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    let (mut a, mut b) = (a.lines(), b.lines());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (x, y) if x == y => {}
            (x, y) => return Some((x.unwrap_or(""), y.unwrap_or(""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn differences() {
        assert_eq!(first_difference("a\nb\n", "a\nb"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(("b", "c")));
        assert_eq!(first_difference("a\n", "a\nc\n"), Some(("", "c")));
    }
}
