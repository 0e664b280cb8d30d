//! `tests/peers`: pleach beside llama.cpp.

use crate::context::{Context, shown};
use crate::cross::AARCH64;
use crate::install::{self, Need, advice};
use crate::smol;
use std::process::{ExitCode, ExitStatus};

/// To build llama.cpp, and for both sides the same model.
const NEEDS: [Need; 3] = [Need::CMAKE, Need::CPP, Need::Smol];

/// To build both sides for aarch64 and to run them.
const EMULATED: [Need; 5] = [
    Need::Target(AARCH64),
    Need::AARCH64_LINKER,
    Need::AARCH64_LIBC,
    Need::AARCH64_CPP,
    Need::QEMU_AARCH64,
];

/// Runs its program with these arguments. Its exit code, which says whether bars are reached, is the result.
pub(crate) fn run(cx: &Context, install: bool, args: &[String]) -> Result<ExitCode, String> {
    let (args, too) = without_install(args);
    let install = install || too;
    let emulated = args.contains(&"aarch64");
    let all = NEEDS.iter().chain(EMULATED.iter().filter(|_| emulated));
    let lacks = || -> Vec<Need> { all.clone().filter(|n| !n.present(cx)).copied().collect() };
    // Help needs nothing.
    let asks = args.is_empty() || args.contains(&"--help") || args.contains(&"-h");
    if install && !lacks().is_empty() {
        install::install(cx, &lacks());
    }
    let missing = lacks();
    if !missing.is_empty() && !asks {
        return Err(format!(
            "missing: {missing:?}\n  cargo xtask peers --install .. runs: {}",
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
}
