//! `tests/cross/kernels` on five boards: the bits of the specification, the instructions that kernels are named after,
//! how many are executed, and how many by other libraries.

use crate::context::{Context, capture, stream};
use crate::cross::{M0, M3, M4, M55, RV32, first_difference};
use crate::{instructions, kernel_peers, replay, scan};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of `fixtures/peft`: a model that fits into the RAM of the boards where it runs.
const MODEL: &str = "case-layerwise-top2";

const MANIFEST: &str = "tests/cross/kernels/Cargo.toml";

/// A board of QEMU's.
struct Board {
    cpu: &'static str,
    target: &'static str,
    /// What the target does not say.
    flags: &'static [&'static str],
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
        flags: &[],
        machine: "mps2-an386",
        size: "large",
        model: Some("cortex-m"),
        bars: &[(64, 1150), (128, 1150), (256, 1050), (512, 1150)],
    },
    Board {
        cpu: "Cortex-M55",
        target: M55,
        flags: &["-Ctarget-cpu=cortex-m55"],
        machine: "mps3-an547",
        size: "large",
        model: Some("mve"),
        bars: &[(64, 230), (128, 200), (256, 200), (512, 200)],
    },
    Board {
        cpu: "RV32",
        target: RV32,
        flags: &[],
        machine: "virt",
        size: "large",
        model: Some("portable"),
        bars: &[],
    },
    Board {
        cpu: "Cortex-M3",
        target: M3,
        flags: &[],
        machine: "mps2-an385",
        size: "large",
        model: None,
        bars: &[],
    },
    Board {
        cpu: "Cortex-M0",
        target: M0,
        flags: &[],
        machine: "microbit",
        size: "small",
        model: None,
        bars: &[],
    },
];

/// The step of `cargo xtask test`.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    // One program is one thread's work: those that need no flags of their own are compiled side by side.
    let plain = BOARDS.iter().filter(|board| board.flags.is_empty());
    let targets = plain.flat_map(|board| ["--target", board.target]);
    let build = ["build", "--release", "--manifest-path", MANIFEST];
    stream(cx.cargo(build.into_iter().chain(["--bin", "kernels"]).chain(targets)))?;
    BOARDS.iter().try_for_each(|board| {
        println!("-- {} ({})", board.cpu, board.machine);
        check(cx, board).map_err(|e| format!("{}: {e}", board.cpu))
    })
}

fn check(cx: &Context, board: &Board) -> Result<(), String> {
    let native = [
        "run",
        "--release",
        "--manifest-path",
        MANIFEST,
        "--",
        board.size,
    ];
    let native = capture(cx.cargo(native))?;
    let elf = build(cx, board, "kernels", &[])?;
    let disassembly = scan::disassembly(cx, &elf)?;
    for line in instructions::check(board.target, &disassembly)? {
        println!("{line}");
    }
    instructions::no_fixed_point(&disassembly)?;
    let log = emulate(cx, board, &elf)?;
    if let Some((found, expected)) = first_difference(&bits(&log), &bits(&native)) {
        return Err(format!(
            "the bits differ\n  found    {found}\n  natively {expected}"
        ));
    }
    println!(
        "{} hashes equal the native ones",
        bits(&log).lines().count()
    );
    for &(side, bar) in board.bars {
        let found = per_mac(&log, side).ok_or(format!("no count of {side}x{side}"))?;
        if found > bar {
            return Err(format!(
                "q8 rows, {side}x{side}: {found} thousandths of an instruction per multiply-accumulate, {bar} allowed"
            ));
        }
    }
    beside_peers(cx, board, &log)?;
    board.model.map_or(Ok(()), |to| whole_model(cx, board, to))
}

/// A model laid out for the board gives there the bits that it gives here, laid out as plain rows.
fn whole_model(cx: &Context, board: &Board, target: &str) -> Result<(), String> {
    println!("-- {}: {MODEL}, laid out for {target}", board.cpu);
    let plain = replay::packed(cx, MODEL, "portable")?;
    let file = cx.target.join("model.pleach");
    std::fs::copy(replay::packed(cx, MODEL, target)?, &file)
        .map_err(|e| format!("{}: {e}", file.display()))?;
    let log = emulate(cx, board, &build(cx, board, "model", &[])?)?;
    let trace = "run --quiet --release --package pleach-cli -- trace --tokens 1,2,3,4,5,6,7,8 \
                 --generate 8 --hash --kv f16 --context 16";
    let mut native = cx.cargo(trace.split_whitespace());
    native.arg(plain);
    let native = capture(native)?;
    let (found, expected) = (hash(&log)?, hash(&native)?);
    if found != expected {
        return Err(format!(
            "the whole model's bits differ\n  found    {found}\n  natively {expected}"
        ));
    }
    println!("the whole model's hash equals the native one");
    Ok(())
}

/// The line with a hash.
fn hash(text: &str) -> Result<&str, String> {
    let line = text.lines().find(|l| l.starts_with("hash "));
    line.ok_or(format!("no hash in {text:?}"))
}

/// Prints our counts and the peers'; a peer's that is missing is an error.
fn beside_peers(cx: &Context, board: &Board, log: &str) -> Result<(), String> {
    let run = |(name, args): (&str, &[&str])| {
        println!("-- {}: peers{name}", board.cpu);
        emulate(cx, board, &build(cx, board, "peers", args)?)
    };
    let sides: &[u64] = match board.size {
        "small" => &[64],
        _ => &[64, 128, 256, 512],
    };
    let [plain, inlined] = kernel_peers::BUILDS;
    let peers = [run(plain)?, run(inlined)?];
    print!(
        "{}, {}",
        board.cpu,
        kernel_peers::table(log, &peers, sides)?
    );
    Ok(())
}

/// Builds one of the package's programs; `args` are the compiler's, for that program only.
fn build(cx: &Context, board: &Board, program: &str, args: &[&str]) -> Result<PathBuf, String> {
    let build = ["rustc", "--release", "--manifest-path", MANIFEST];
    let target = ["--bin", program, "--target", board.target, "--"];
    let mut c = cx.cargo(build.iter().chain(&target).chain(args));
    if !board.flags.is_empty() {
        c.env("CARGO_ENCODED_RUSTFLAGS", board.flags.join("\x1f"));
    }
    stream(c)?;
    Ok(cx.built(&format!("{}/release", board.target), program))
}

/// The lines that the board writes, shown as they come.
fn emulate(cx: &Context, board: &Board, elf: &Path) -> Result<String, String> {
    let program = if board.target == RV32 {
        "qemu-system-riscv32"
    } else {
        "qemu-system-arm"
    };
    let mut c = Command::new(program);
    // Where a program opens its files.
    c.current_dir(&cx.target);
    c.args(["-M", board.machine]);
    if board.target == RV32 {
        c.args(["-bios", "none"]);
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
    .stdin(Stdio::null());
    let out = c.output().map_err(|e| format!("{program}: {e}"))?;
    let log = String::from_utf8_lossy(&out.stdout).into_owned();
    print!("{log}");
    eprint!("{}", String::from_utf8_lossy(&out.stderr));
    if out.status.success() {
        Ok(log)
    } else {
        Err(format!("{program}: {}", out.status))
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
