//! The steps of `cargo xtask test`: a table, and the loop over it.

use crate::context::{Context, both, stream};
use crate::install::{self, Need};
use crate::summary::{Outcome, Row, exit_code, table};
use crate::{
    backends, cross, firmware, fuzz, kernels, miri, nopanic, replay, scan, smol, unsafe_code,
};
use clap::builder::PossibleValuesParser;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// A row of the test run.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// What it shows, for `--help`.
    pub(crate) what: &'static str,
    /// What must be installed; without it the step is skipped.
    pub(crate) needs: &'static [Need],
    pub(crate) when: When,
    pub(crate) run: Run,
}

/// In which runs a step takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In all.
    Always,
    /// With `--full`, or where it is named.
    Full,
}

/// What a step does.
pub(crate) enum Run {
    /// Cargo commands, as one types them at the root.
    Cargo(&'static [&'static str]),
    /// Two lists of them side by side, the second in a target folder of its own, where it does not wait for the first one's lock.
    Lists([&'static [&'static str]; 2]),
    /// More than a list of commands.
    Code(fn(&Context) -> Result<(), String>),
}

const X86_64: Need = Need::Target(cross::X86_64);
const M0: Need = Need::Target(cross::M0);
const M3: Need = Need::Target(cross::M3);
const M4: Need = Need::Target(cross::M4);
const M55: Need = Need::Target(cross::M55);
const RV32: Need = Need::Target(cross::RV32);
const AARCH64: Need = Need::Target(cross::AARCH64);

/// To link and run a program for aarch64 Linux.
const AARCH64_RUNS: &[Need] = &[
    AARCH64,
    Need::AARCH64_LINKER,
    Need::AARCH64_LIBC,
    Need::QEMU_AARCH64,
];

/// Cheap steps first, then those that build.
pub(crate) static STEPS: &[Step] = &[
    Step {
        name: "format",
        what: "rustfmt, the crates outside the workspace too",
        needs: &[Need::Rustfmt],
        when: When::Always,
        run: Run::Cargo(&[
            "fmt --all --check",
            "fmt --manifest-path hosts/mcu/Cargo.toml --check",
            "fmt --manifest-path examples/intent/Cargo.toml --check",
            "fmt --manifest-path tests/cross/nopanic/Cargo.toml --check",
            "fmt --manifest-path tests/cross/replay/Cargo.toml --check",
            "fmt --manifest-path tests/cross/kernels/Cargo.toml --check",
            "fmt --manifest-path tests/fuzz/Cargo.toml --check",
            "fmt --manifest-path tests/peers/Cargo.toml --check",
        ]),
    },
    Step {
        name: "crates",
        what: "the default binary: at most 150 crates, none that needs a C compiler",
        needs: &[],
        when: When::Always,
        run: Run::Code(cross::default_binary_is_small),
    },
    Step {
        name: "unsafe",
        what: "it stands in the kernels, the mapping, the threads and the firmware's start only",
        needs: &[],
        when: When::Always,
        run: Run::Code(unsafe_code::stands_where_it_may),
    },
    Step {
        name: "clippy",
        what: "no warning, on every crate and its target",
        needs: &[Need::Clippy, M0, M4, M55, AARCH64],
        when: When::Always,
        run: Run::Lists([
            &[
                "clippy --workspace --all-targets -- -D warnings",
                "clippy -p xtask --features pack -- -D warnings",
                "clippy -p pleach --no-default-features -- -D warnings",
                "clippy -p pleach --all-features -- -D warnings",
                // The core, once for each backend that no other line compiles.
                "clippy -p pleach --target thumbv7em-none-eabihf -- -D warnings",
                "clippy -p pleach --features std --target aarch64-unknown-linux-gnu -- -D warnings",
                "clippy -p pleach --target thumbv8m.main-none-eabihf --config build.rustflags=['-Ctarget-cpu=cortex-m55'] -- -D warnings",
            ],
            &[
                "clippy --manifest-path hosts/mcu/Cargo.toml --target thumbv7em-none-eabihf -- -D warnings",
                "clippy --manifest-path hosts/mcu/Cargo.toml --target thumbv7em-none-eabihf --no-default-features -- -D warnings",
                "clippy --manifest-path examples/intent/Cargo.toml --target thumbv7em-none-eabihf -- -D warnings",
                "clippy --manifest-path examples/intent/Cargo.toml --target thumbv7em-none-eabihf --no-default-features -- -D warnings",
                "clippy --manifest-path tests/cross/nopanic/Cargo.toml --target thumbv6m-none-eabi -- -D warnings",
                "clippy --manifest-path tests/cross/replay/Cargo.toml --target thumbv7em-none-eabihf -- -D warnings",
                "clippy --manifest-path tests/peers/Cargo.toml --all-targets -- -D warnings",
                "clippy --manifest-path tests/cross/kernels/Cargo.toml --target thumbv7em-none-eabihf -- -D warnings",
                "clippy --manifest-path tests/fuzz/Cargo.toml -- -D warnings",
            ],
        ]),
    },
    Step {
        name: "test",
        what: "unit, property, parity (PEFT's numbers, one hash over all modes), command-line and doc tests; those of `peers`",
        needs: &[],
        when: When::Always,
        // In one go: a part of the workspace by itself would build the dependencies again, with other features.
        // `peers` builds llama.cpp when it measures, not for its tests.
        run: Run::Cargo(&[
            "test --workspace --no-fail-fast",
            "test --locked --manifest-path tests/peers/Cargo.toml --no-fail-fast",
        ]),
    },
    Step {
        name: "docs",
        what: "rustdoc without a warning",
        needs: &[M4],
        when: When::Always,
        run: Run::Code(cross::docs),
    },
    Step {
        name: "demo",
        what: "README's first command: `cargo run --release` answers a piped sentence",
        needs: &[],
        when: When::Always,
        run: Run::Code(cross::demo),
    },
    Step {
        name: "targets",
        what: "the core builds for thumbv6m, thumbv7em, riscv32imac, aarch64, with each feature, and for a Cortex-M33",
        needs: &[M0, M4, M55, RV32, AARCH64],
        when: When::Always,
        run: Run::Code(cross::core_builds),
    },
    Step {
        name: "fma",
        what: "no fused multiply-add and no call of an intrinsic in the core's objects, and each kernel's instruction: x86-64, aarch64, Cortex-M4F, M55",
        needs: &[X86_64, M4, M55, AARCH64, Need::Objdump],
        when: When::Always,
        run: Run::Code(scan::no_fused_multiply_add),
    },
    Step {
        name: "nopanic",
        what: "every public entry links without a panic path and without a heap: thumbv6m, thumbv7em",
        needs: &[M0, M4],
        when: When::Always,
        run: Run::Code(nopanic::links),
    },
    Step {
        name: "backends",
        what: "one hash over backends, layouts, columns and threads; each kernel ran; CPUs without AVX-512, AVX2",
        needs: &[Need::QEMU_X86_64],
        when: When::Always,
        run: Run::Code(backends::step),
    },
    Step {
        name: "aarch64",
        what: "the hashes of every mode under qemu-aarch64 (cortex-a53, a72, a76, max) are the native ones, as are those of every backend that each CPU must have; the kernels' own tests",
        needs: AARCH64_RUNS,
        when: When::Always,
        run: Run::Code(cross::hashes),
    },
    Step {
        name: "smol",
        what: "SmolLM2 with four experts against PEFT: perplexities, tokens, sweeps, what q8 costs",
        needs: &[Need::Smol],
        when: When::Always,
        run: Run::Code(smol::step),
    },
    Step {
        name: "smol-cpu",
        what: "four layers of it have one hash over backends, columns and threads",
        needs: &[Need::Smol],
        when: When::Always,
        run: Run::Code(backends::smol),
    },
    Step {
        name: "smol-arm",
        what: "four layers of it draw the same 32 tokens, bit by bit, under qemu-aarch64",
        needs: &[
            Need::Smol,
            AARCH64,
            Need::AARCH64_LINKER,
            Need::AARCH64_LIBC,
            Need::QEMU_AARCH64,
        ],
        when: When::Always,
        run: Run::Code(cross::sampled_hashes),
    },
    Step {
        name: "flags",
        what: "no subnormal takes part on aarch64 either (natively that is one of `parity`'s tests)",
        needs: AARCH64_RUNS,
        when: When::Always,
        run: Run::Code(cross::flags),
    },
    Step {
        name: "firmware",
        what: "the intent model on a Cortex-M4F in QEMU: bits, RAM, code size",
        needs: &[M4, Need::QEMU_ARM],
        when: When::Always,
        run: Run::Code(firmware::step),
    },
    Step {
        name: "kernels",
        what: "kernels on Cortex-M4F, M55, M3, M0 and RV32: the bits, and instructions per multiply-accumulate beside embedded-nn and microflow, a whole model",
        needs: &[
            M0,
            M3,
            M4,
            M55,
            RV32,
            Need::QEMU_ARM,
            Need::QEMU_RISCV,
            Need::Objdump,
        ],
        when: When::Always,
        run: Run::Code(kernels::step),
    },
    Step {
        name: "replay",
        what: "a hundred damaged blobs on the Cortex-M4F: refused or safe, as natively",
        needs: &[M4, Need::QEMU_ARM],
        when: When::Always,
        run: Run::Code(replay::step),
    },
    Step {
        name: "miri",
        what: "no undefined behaviour in the scalar core and the threads: their unit tests, and a small model from a file",
        needs: &[Need::Miri],
        when: When::Full,
        run: Run::Code(miri::run),
    },
    Step {
        name: "fuzz",
        what: "a minute of libFuzzer for each parser of files: no panic, no hang, no allocation on a header's word",
        needs: &[Need::CPP],
        when: When::Full,
        run: Run::Code(fuzz::step),
    },
];

/// The list of steps for `--help`.
pub(crate) fn help() -> String {
    let mut h = String::from("Steps:\n");
    for s in STEPS {
        let full = match s.when {
            When::Always => "",
            When::Full => " (with --full, or named)",
        };
        h.push_str(&format!("  {:<10} {}{full}\n", s.name, s.what));
    }
    h + "\nExit codes: 0 all passed · 1 a step failed · 3 a step was skipped because a tool is missing"
}

/// Accepts the names of steps.
pub(crate) fn parser() -> PossibleValuesParser {
    PossibleValuesParser::new(STEPS.iter().map(|s| s.name))
}

/// Runs the steps in `only`, or all.
pub(crate) fn test(cx: &Context, may_install: bool, only: &[String]) -> ExitCode {
    let steps: Vec<&Step> = STEPS
        .iter()
        .filter(|s| match only {
            [] => cx.full || s.when == When::Always,
            only => only.iter().any(|o| o == s.name),
        })
        .collect();
    if may_install {
        let all: Vec<Need> = steps.iter().flat_map(|s| missing(cx, s)).collect();
        install::install(cx, &all);
    }
    let rows: Vec<Row> = steps.iter().map(|s| run(cx, s)).collect();
    println!("{}", table(&rows));
    ExitCode::from(exit_code(&rows))
}

fn missing(cx: &Context, step: &Step) -> Vec<Need> {
    step.needs
        .iter()
        .copied()
        .filter(|n| !n.present(cx))
        .collect()
}

fn run(cx: &Context, step: &'static Step) -> Row {
    println!("\n== {}: {}", step.name, step.what);
    let start = Instant::now();
    let missing = missing(cx, step);
    let outcome = if missing.is_empty() {
        let result = match step.run {
            Run::Cargo(lines) => cargo(cx, lines, &cx.target),
            Run::Lists([a, b]) => {
                let other = cx.target.join("outside");
                both(|| cargo(cx, a, &cx.target), || cargo(cx, b, &other)).map(drop)
            }
            Run::Code(f) => f(cx),
        };
        match result {
            Ok(()) => Outcome::Passed,
            Err(e) => {
                println!("{} failed: {e}", step.name);
                Outcome::Failed(e.lines().next().unwrap_or_default().to_owned())
            }
        }
    } else {
        let line = install::advice(cx, &missing);
        println!("skipped; to install what is missing: {line}");
        Outcome::Skipped(line)
    };
    Row {
        step: step.name,
        outcome,
        time: start.elapsed(),
    }
}

/// Commands, one after the other, with their target folder.
fn cargo(cx: &Context, lines: &[&str], target: &Path) -> Result<(), String> {
    lines.iter().try_for_each(|line| {
        let mut c = cx.cargo(line.split(' '));
        c.env("CARGO_TARGET_DIR", target);
        stream(c)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_the_table() {
        for (i, s) in STEPS.iter().enumerate() {
            assert!(s.name.len() <= 10, "{}", s.name);
            assert!(STEPS[..i].iter().all(|o| o.name != s.name), "{}", s.name);
        }
    }

    #[test]
    fn command_lines_have_single_spaces() {
        for s in STEPS {
            let lists: &[&[&str]] = match &s.run {
                Run::Cargo(lines) => &[*lines],
                Run::Lists(lists) => lists,
                Run::Code(_) => &[],
            };
            let mut lines = lists.iter().copied().flatten();
            let single = |l: &&str| l.split(' ').all(|w| !w.is_empty());
            assert!(lines.all(single), "{}", s.name);
        }
    }
}
