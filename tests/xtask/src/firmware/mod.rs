//! The intent firmware: sentences picked by a seed go in at run time, every bit that comes out is compared
//! with the native run of the same model. Neither the layout of the weights nor the kernels are the same there.

mod log;
mod native;
mod sentences;

use crate::context::{Context, both, stream};
use crate::cross::{M4, first_difference};
use crate::{instructions, qemu, scan};
use log::{answers, numbers, stable};
use native::Native;
use sentences::{EVAL, held_back, pick};
use std::path::{Path, PathBuf};

/// Sentences of the test.
pub(crate) const COUNT: usize = 20;
/// The seed of the checked-in output.
pub(crate) const SEED: u64 = 4;

/// Bytes of RAM: .data + .bss + painted stack, without the log.
const RAM_LIMIT: u64 = 100 * 1024;
/// Bytes of the core's code.
const CODE_LIMIT: u64 = 64 * 1024;

const EXPECTED: &str = "examples/intent/expected.txt";

/// The step of `cargo xtask test`.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    run(cx, COUNT, SEED, false)?;
    if cx.full {
        run(cx, 100, SEED + 1, false)
    } else {
        Ok(())
    }
}

/// Runs `count` sentences. The snapshot is compared, or written, for the default choice only.
pub(crate) fn run(cx: &Context, count: usize, seed: u64, bless: bool) -> Result<(), String> {
    let native = Native::build(cx)?;
    let (logged_elf, plain_elf) = (build(cx, true)?, build(cx, false)?);

    for line in instructions::check(M4, &scan::disassembly(cx, &plain_elf)?)? {
        println!("{line}");
    }

    let sentences = pick(&held_back(cx)?, count, seed);
    let input: String = sentences
        .iter()
        .map(|s| format!("{}\n", s.sentence))
        .collect();
    // The same lines come from both: only one of them is shown.
    let (plain, logged) = both(
        || emulate(&plain_elf, &input, |_| {}),
        || emulate(&logged_elf, &input, |line| println!("{line}")),
    )?;
    if let Some((a, b)) = first_difference(&stable(&logged), &stable(&plain)) {
        return Err(format!(
            "defmt and plain text differ\n  defmt {a}\n  text  {b}"
        ));
    }

    let answers = answers(&logged)?;
    let read: Vec<&str> = answers.iter().map(|a| a.sentence.as_str()).collect();
    let sent: Vec<&str> = sentences.iter().map(|s| s.sentence.as_str()).collect();
    if read != sent {
        return Err(format!("sent {sent:?}, the firmware answered {read:?}"));
    }
    answers.iter().try_for_each(|a| native.agrees(a))?;
    println!("{} hashes and texts equal the native run's", answers.len());
    let right = answers
        .iter()
        .zip(&sentences)
        .filter(|(a, s)| a.text == s.call)
        .count();
    println!(
        "{right} of {} calls are the ones that {EVAL} names",
        answers.len()
    );

    sizes(&logged, &plain, &plain_elf)?;
    if (count, seed) == (COUNT, SEED) {
        snapshot(cx, &stable(&logged), bless)
    } else {
        Ok(())
    }
}

/// Builds a variant: with defmt, or with the log as text.
fn build(cx: &Context, defmt: bool) -> Result<PathBuf, String> {
    let build = "build --release --manifest-path examples/intent/Cargo.toml --target";
    let plain: &[&str] = if defmt {
        &[]
    } else {
        &["--no-default-features"]
    };
    stream(cx.cargo(build.split(' ').chain([M4]).chain(plain.iter().copied())))?;
    // Both variants are built to the same place: keep this one.
    let folder = format!("{M4}/release");
    let elf = cx.built(&folder, if defmt { "intent-defmt" } else { "intent-text" });
    let built = cx.built(&folder, "intent");
    std::fs::copy(&built, &elf).map_err(|e| format!("{}: {e}", built.display()))?;
    Ok(elf)
}

/// The lines of a run.
fn emulate(elf: &Path, input: &str, mut show: impl FnMut(&str)) -> Result<Vec<String>, String> {
    let mut lines = vec![];
    let status = qemu::run(elf, qemu::Input::Bytes(input.into()), &mut |line| {
        show(line);
        lines.push(line.to_owned());
    })?;
    if status == 0 {
        Ok(lines)
    } else {
        Err(format!("the firmware exited with {status}"))
    }
}

/// Prints what the firmware needs, and holds it to the limits.
fn sizes(logged: &[String], plain: &[String], elf: &Path) -> Result<(), String> {
    for phase in ["prefill", "decode"] {
        let n = numbers(logged, "instructions:", phase)?;
        let (least, most) = (n.iter().min().unwrap_or(&0), n.iter().max().unwrap_or(&0));
        println!("{phase}: {least} to {most} instructions a token");
    }
    let ram: u64 = numbers(plain, "memory:", "total")?.iter().sum();
    let code = scan::code(elf)?;
    println!("RAM {ram} bytes of {RAM_LIMIT} (.data + .bss + painted stack, no log)");
    println!(
        "code {} bytes, of which the core {} of {CODE_LIMIT}",
        code.text, code.core
    );
    if ram > RAM_LIMIT {
        return Err(format!("{ram} bytes of RAM, more than {RAM_LIMIT}"));
    }
    if code.core > CODE_LIMIT {
        return Err(format!(
            "{} bytes of the core's code, more than {CODE_LIMIT}",
            code.core
        ));
    }
    Ok(())
}

fn snapshot(cx: &Context, text: &str, bless: bool) -> Result<(), String> {
    let path = cx.root.join(EXPECTED);
    if bless {
        return std::fs::write(&path, text).map_err(|e| format!("{EXPECTED}: {e}"));
    }
    let expected = std::fs::read_to_string(&path).map_err(|e| format!("{EXPECTED}: {e}"))?;
    match first_difference(&expected, text) {
        None => Ok(()),
        Some((e, f)) => Err(format!(
            "{EXPECTED} differs (if meant: cargo xtask firmware --bless)\n  expected {e}\n  found    {f}"
        )),
    }
}
