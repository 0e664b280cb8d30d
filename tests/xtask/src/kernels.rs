//! `tests/cross/kernels` on five boards: the bits of the specification, the instructions that kernels are named after,
//! how many are executed, and how many by other libraries.

use crate::context::{Context, both, capture, limited, side_by_side, stream};
use crate::cross::{M0, M3, M4, M55, RV32, first_difference};
use crate::{instructions, kernel_peers, qemu, replay, scan};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of `fixtures/peft`: a model that fits into the RAM of the boards where it runs.
const MODEL: &str = "case-layerwise-top2";

const MANIFEST: &str = "tests/cross/kernels/Cargo.toml";

/// A board of QEMU's.
struct Board {
    cpu: &'static str,
    target: &'static str,
    /// What the target does not say to the compiler.
    flags: &'static str,
    machine: &'static str,
    /// Of the harness's memory.
    size: &'static str,
    /// For what a whole model is packed, where one runs.
    model: Option<&'static str>,
    /// Thousandths of an instruction per multiply-accumulate of `q8` rows that may be executed, by the side of the matrix.
    bars: &'static [(u64, u64)],
}

/// Groups of 64. Boards without a kernel of their own are only reported.
const BOARDS: [Board; 5] = [
    Board {
        cpu: "Cortex-M4F",
        target: M4,
        flags: "",
        machine: "mps2-an386",
        size: "large",
        model: Some("cortex-m"),
        bars: &[(64, 1150), (128, 1150), (256, 1050), (512, 1150)],
    },
    Board {
        cpu: "Cortex-M55",
        target: M55,
        flags: "-Ctarget-cpu=cortex-m55",
        machine: "mps3-an547",
        size: "large",
        model: Some("mve"),
        bars: &[(64, 230), (128, 200), (256, 200), (512, 200)],
    },
    Board {
        cpu: "RV32",
        target: RV32,
        flags: "",
        machine: "virt",
        size: "large",
        model: Some("portable"),
        bars: &[],
    },
    Board {
        cpu: "Cortex-M3",
        target: M3,
        flags: "",
        machine: "mps2-an385",
        size: "large",
        model: None,
        bars: &[],
    },
    Board {
        cpu: "Cortex-M0",
        target: M0,
        flags: "",
        machine: "microbit",
        size: "small",
        model: None,
        bars: &[],
    },
];

/// The step of `cargo xtask test`. A program is one thread's work, and so is a board's run: what can goes side by side.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    let ((small, large), ()) = both(
        || Ok((harness(cx, "small")?, harness(cx, "large")?)),
        || build_all(cx),
    )?;
    let native = Native {
        small,
        large,
        model: native_model(cx)?,
    };
    side_by_side(&BOARDS, |board| {
        check(cx, board, &native).map_err(|e| format!("{}: {e}", board.cpu))
    })
}

/// What the boards must give.
struct Native {
    /// The harness's hashes, by its size.
    small: String,
    large: String,
    /// The model's.
    model: String,
}

/// The harness's hashes on this machine. Built in a folder of its own, so that cargo does not wait for the boards' programs,
/// and unoptimised: x86 has so many backends that a build as for the boards takes two minutes, to run for a second.
fn harness(cx: &Context, size: &str) -> Result<String, String> {
    let run = ["run", "--manifest-path", MANIFEST, "--", size];
    let mut c = cx.cargo(run);
    c.env("CARGO_TARGET_DIR", cx.target.join("kernels-native"));
    Ok(bits(&capture(c)?))
}

fn native_model(cx: &Context) -> Result<String, String> {
    let trace = "run --quiet --release --package pleach-cli -- trace --tokens 1,2,3,4,5,6,7,8 \
                 --generate 8 --hash --kv f16 --context 16";
    let mut native = cx.cargo(trace.split_whitespace());
    native.arg(replay::packed(cx, MODEL, "portable")?);
    Ok(hash(&capture(native)?)?.to_owned())
}

fn check(cx: &Context, board: &Board, native: &Native) -> Result<(), String> {
    let elf = built(cx, board, "kernels");
    let disassembly = scan::disassembly(cx, &elf)?;
    let mut report = String::new();
    for line in instructions::check(board.target, &disassembly)? {
        report += &format!("{line}\n");
    }
    instructions::no_fixed_point(&disassembly)?;
    let translated = folder(cx, board).join("kernels.translated");
    let log = emulate(cx, board, &elf, "kernels", Some(&translated))?;
    let translated = std::fs::read_to_string(&translated)
        .map_err(|e| format!("{}: {e}", translated.display()))?;
    for line in instructions::executed(board.target, &translated)? {
        report += &format!("{line}\n");
    }
    let native_bits = match board.size {
        "small" => &native.small,
        _ => &native.large,
    };
    if let Some((found, expected)) = first_difference(&bits(&log), native_bits) {
        return Err(format!(
            "the bits differ\n  found    {found}\n  natively {expected}"
        ));
    }
    report += &format!(
        "{} hashes equal the native ones\n",
        native_bits.lines().count()
    );
    for &(side, bar) in board.bars {
        let found = per_mac(&log, side).ok_or(format!("no count of {side}x{side}"))?;
        if found > bar {
            return Err(format!(
                "q8 rows, {side}x{side}: {found} thousandths of an instruction per multiply-accumulate, {bar} allowed"
            ));
        }
    }
    report += &beside_peers(cx, board, &log)?;
    if let Some(to) = board.model {
        whole_model(cx, board, to, &native.model)?;
        report += "the whole model's hash equals the native one\n";
    }
    // In one go: others print beside it.
    print!("-- {} ({})\n{report}", board.cpu, board.machine);
    Ok(())
}

/// A model laid out for the board gives there the bits that it gives here, laid out as plain rows.
fn whole_model(cx: &Context, board: &Board, to: &str, native: &str) -> Result<(), String> {
    let file = folder(cx, board).join("model.pleach");
    std::fs::copy(replay::packed(cx, MODEL, to)?, &file)
        .map_err(|e| format!("{}: {e}", file.display()))?;
    let log = emulate(
        cx,
        board,
        &built(cx, board, "model"),
        &format!("{MODEL}, laid out for {to}"),
        None,
    )?;
    let found = hash(&log)?;
    if found == native {
        Ok(())
    } else {
        Err(format!(
            "the whole model's bits differ\n  found    {found}\n  natively {native}"
        ))
    }
}

/// The line with a hash.
fn hash(text: &str) -> Result<&str, String> {
    let line = text.lines().find(|l| l.starts_with("hash "));
    line.ok_or(format!("no hash in {text:?}"))
}

/// The table of our counts and the peers'; a peer's that is missing is an error.
fn beside_peers(cx: &Context, board: &Board, log: &str) -> Result<String, String> {
    let sides: &[u64] = match board.size {
        "small" => &[64],
        _ => &[64, 128, 256, 512],
    };
    let elf = built(cx, board, "peers");
    let [(plain, _), (inlined, args)] = kernel_peers::BUILDS;
    let plain = emulate(cx, board, &elf, &format!("peers{plain}"), None)?;
    // To the same place.
    rebuild(cx, board, "peers", args)?;
    let inlined = emulate(cx, board, &elf, &format!("peers{inlined}"), None)?;
    let peers = [plain, inlined];
    let table = kernel_peers::table(log, &peers, sides)?;
    Ok(format!("{}, {table}", board.cpu))
}

/// A cargo command that knows each board's flags.
fn cargo<S: AsRef<OsStr>>(cx: &Context, args: impl IntoIterator<Item = S>) -> Command {
    let mut c = cx.cargo(args);
    for board in &BOARDS {
        let target = board.target.to_uppercase().replace(['-', '.'], "_");
        c.env(format!("CARGO_TARGET_{target}_RUSTFLAGS"), board.flags);
    }
    // Cargo would prefer them.
    c.env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    c
}

/// Builds the package's programs for all boards that have them.
fn build_all(cx: &Context) -> Result<(), String> {
    for program in ["kernels", "peers", "model"] {
        let has = |b: &&Board| program != "model" || b.model.is_some();
        let targets = BOARDS
            .iter()
            .filter(has)
            .flat_map(|b| ["--target", b.target]);
        let build = ["build", "--release", "--manifest-path", MANIFEST, "--bin"];
        stream(cargo(cx, build.into_iter().chain([program]).chain(targets)))?;
    }
    Ok(())
}

/// Builds a program for one board; `args` are the compiler's, for that program only.
fn rebuild(cx: &Context, board: &Board, program: &str, args: &[&str]) -> Result<(), String> {
    let build = ["rustc", "--release", "--manifest-path", MANIFEST];
    let target = ["--bin", program, "--target", board.target, "--"];
    stream(cargo(cx, build.iter().chain(&target).chain(args)))
}

fn folder(cx: &Context, board: &Board) -> PathBuf {
    cx.target.join(board.target)
}

fn built(cx: &Context, board: &Board, program: &str) -> PathBuf {
    cx.built(&format!("{}/release", board.target), program)
}

/// The lines that the board writes, shown when it is through. What QEMU translates, which it does with code that is about to be
/// executed, is written to `translated`.
fn emulate(
    cx: &Context,
    board: &Board,
    elf: &Path,
    what: &str,
    translated: Option<&Path>,
) -> Result<String, String> {
    let program = if board.target == RV32 {
        "qemu-system-riscv32"
    } else {
        "qemu-system-arm"
    };
    let mut c = Command::new(program);
    // Where a program opens its files.
    c.current_dir(folder(cx, board));
    c.args(["-M", board.machine]);
    if board.target == RV32 {
        c.args(["-bios", "none"]);
    }
    if let Some(file) = translated {
        c.args(["-d", "in_asm", "-D"]).arg(file);
    }
    c.args([
        "-nographic",
        "-serial",
        "null",
        "-monitor",
        "none",
        "-icount",
        "shift=0",
    ])
    .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
    .arg(elf)
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped());
    let mut log = vec![];
    let ended = limited(c, qemu::LIMIT, None, &mut |piece| log.extend(piece));
    let log = String::from_utf8_lossy(&log).into_owned();
    print!("-- {}: {what}\n{log}", board.cpu);
    let status = ended.map_err(|e| format!("{what}: {e}"))?;
    if status.success() {
        Ok(log)
    } else {
        Err(format!("{what}: {program}: {status}"))
    }
}

fn bits(log: &str) -> String {
    let lines = log.lines().filter(|l| l.starts_with("bits "));
    lines.map(|l| format!("{l}\n")).collect()
}

/// Thousandths of an instruction per multiply-accumulate, from `count q8 64x64: 4640 instructions, ..`.
fn per_mac(log: &str, side: u64) -> Option<u64> {
    let start = format!("count q8 {side}x{side}: ");
    let line = log.lines().find_map(|l| l.strip_prefix(&start))?;
    let instructions: u64 = line.split(' ').next()?.parse().ok()?;
    Some((instructions * 1000).div_ceil(side * side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rounded_up() {
        let log = "count q8 64x64: 4097 instructions, 1.000 per MAC\ncount linear 64x64: 9 instructions, x";
        assert_eq!(per_mac(log, 64), Some(1001));
        assert_eq!(per_mac(log, 128), None);
    }
}
