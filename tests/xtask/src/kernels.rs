//! `tests/cross/kernels` on five boards: the bits of the specification, the instructions that kernels are named after,
//! how many are executed, and how many by other libraries.

use crate::context::{Context, capture, stream};
use crate::cross::{M0, M3, M4, M55, RV32, first_difference};
use crate::{instructions, kernel_peers, scan};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
        bars: &[(64, 1150), (128, 1150), (256, 1050), (512, 1150)],
    },
    Board {
        cpu: "Cortex-M55",
        target: M55,
        flags: &["-Ctarget-cpu=cortex-m55"],
        machine: "mps3-an547",
        size: "large",
        bars: &[(64, 230), (128, 200), (256, 200), (512, 200)],
    },
    Board {
        cpu: "RV32",
        target: RV32,
        flags: &[],
        machine: "virt",
        size: "large",
        bars: &[],
    },
    Board {
        cpu: "Cortex-M3",
        target: M3,
        flags: &[],
        machine: "mps2-an385",
        size: "large",
        bars: &[],
    },
    Board {
        cpu: "Cortex-M0",
        target: M0,
        flags: &[],
        machine: "microbit",
        size: "small",
        bars: &[],
    },
];

/// The step of `cargo xtask test`.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
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
    for line in instructions::check(board.target, &scan::disassembly(cx, &elf)?)? {
        println!("{line}");
    }
    let log = emulate(board, &elf)?;
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
    beside_peers(cx, board, &log)
}

/// Prints our counts and the peers'; a peer's that is missing is an error.
fn beside_peers(cx: &Context, board: &Board, log: &str) -> Result<(), String> {
    let run = |(name, args): (&str, &[&str])| {
        println!("-- {}: peers{name}", board.cpu);
        emulate(board, &build(cx, board, "peers", args)?)
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
fn emulate(board: &Board, elf: &Path) -> Result<String, String> {
    let program = if board.target == RV32 {
        "qemu-system-riscv32"
    } else {
        "qemu-system-arm"
    };
    let mut c = Command::new(program);
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
