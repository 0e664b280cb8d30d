//! `tests/peers`: pleach beside llama.cpp.

use crate::context::{Context, shown};
use crate::cross::AARCH64;
use crate::install::{self, Need, advice};
use crate::smol;
use std::process::{ExitCode, ExitStatus};

/// To build llama.cpp, and for both sides the same model.
const BESIDE: &[Need] = &[Need::CMAKE, Need::MAKE, Need::CPP, Need::Smol];

/// What each of the program's commands needs.
const COMMANDS: [(&str, &[Need]); 7] = [
    ("decode", BESIDE),
    ("prompt", BESIDE),
    ("long", BESIDE),
    ("columns", &[Need::Smol]),
    ("xlora", &[Need::Smol]),
    (
        "aarch64",
        &[
            Need::CMAKE,
            Need::MAKE,
            Need::GCC,
            Need::Target(AARCH64),
            Need::AARCH64_LINKER,
            Need::AARCH64_LIBC,
            Need::AARCH64_CPP,
            Need::QEMU_AARCH64,
            Need::Smol,
        ],
    ),
    ("read", &[]),
];

/// Runs its program with these arguments. Its exit code, which says whether bars are reached, is the result.
pub(crate) fn run(cx: &Context, install: bool, args: &[String]) -> Result<ExitCode, String> {
    let (args, too) = without_install(args);
    let lacks = || -> Vec<Need> {
        let all = needs(&args).iter().copied();
        all.filter(|n| !n.present(cx)).collect()
    };
    if install || too {
        install::install(cx, &lacks());
    }
    let missing = lacks();
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(Need::to_string).collect();
        return Err(format!(
            "missing: {}\n  cargo xtask peers --install {} runs: {}",
            names.join(", "),
            args.join(" "),
            advice(cx, &missing)
        ));
    }
    let run = "run --release --quiet --locked --manifest-path tests/peers/Cargo.toml --";
    let mut c = cx.cargo(run.split(' '));
    c.args(&args).env(smol::BASE, smol::base(cx));
    // Standard output is the program's: `--json` prints one object.
    eprintln!("$ {}", shown(&c));
    let status = c.status().map_err(|e| format!("{}: {e}", shown(&c)))?;
    Ok(code(status))
}

/// What these arguments need: nothing where the program prints its help, or refuses them.
fn needs(args: &[&str]) -> &'static [Need] {
    if args.contains(&"--help") || args.contains(&"-h") {
        return &[];
    }
    let command = args.iter().find(|a| !a.starts_with('-'));
    let row = COMMANDS.iter().find(|row| command == Some(&row.0));
    row.map_or(&[], |row| row.1)
}

/// The program's own arguments, and whether `--install` stands among them: clap takes it before the first only.
fn without_install(args: &[String]) -> (Vec<&str>, bool) {
    let own = args
        .iter()
        .map(String::as_str)
        .filter(|a| *a != "--install");
    let own: Vec<&str> = own.collect();
    let found = own.len() < args.len();
    (own, found)
}

/// What a program ended with, or 1 if a signal ended it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|c| u8::try_from(c).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_may_stand_anywhere() {
        let split = |line: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (own, found) = without_install(&args);
            (own.join(" "), found)
        };
        let own = || "prompt --isa avx2".to_owned();
        assert_eq!(split("prompt --isa avx2 --install"), (own(), true));
        assert_eq!(split("prompt --install --isa avx2"), (own(), true));
        assert_eq!(split("prompt --isa avx2"), (own(), false));
    }

    #[test]
    fn a_command_needs_what_it_uses() {
        let needed = |line: &str| {
            let args: Vec<&str> = line.split_whitespace().collect();
            let names = needs(&args).iter().map(Need::to_string);
            names.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(
            needed("prompt --isa avx2"),
            "cmake, make, c++, SmolLM2-135M-Instruct"
        );
        assert_eq!(needed("--json xlora"), "SmolLM2-135M-Instruct");
        assert!(needed("aarch64 --after 4000").contains("target aarch64-unknown-linux-gnu, "));
        for line in ["", "read --threads 1", "decode --help", "-h", "decoed"] {
            assert_eq!(needed(line), "", "{line}");
        }
    }
}
