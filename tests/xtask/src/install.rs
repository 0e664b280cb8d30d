//! Tools and targets that steps need: is it there, and which command brings it.

use crate::context::{Context, quiet, shown, stream};
use crate::smol;
use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something outside the repository that a step needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// `cargo fmt`
    Rustfmt,
    /// `cargo clippy`
    Clippy,
    /// A disassembler for every target: the toolchain's `llvm-objdump`, or one on the path.
    Objdump,
    /// The standard library of a target.
    Target(&'static str),
    /// A program, from a Debian package.
    Program(&'static str, &'static str),
    /// A file, from a Debian package.
    File(&'static str, &'static str),
    /// SmolLM2, from a Python package.
    Smol,
    /// Miri, with a nightly toolchain.
    Miri,
}

impl Need {
    pub(crate) const AARCH64_LINKER: Need =
        Need::Program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu");
    pub(crate) const AARCH64_LIBC: Need =
        Need::File("/usr/aarch64-linux-gnu/lib/crt1.o", "libc6-dev-arm64-cross");
    pub(crate) const AARCH64_CPP: Need =
        Need::Program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu");
    /// llama.cpp's build.
    pub(crate) const CMAKE: Need = Need::Program("cmake", "cmake");
    /// CMake calls it; Debian's package does not bring it.
    pub(crate) const MAKE: Need = Need::Program("make", "make");
    /// For qemu's plugin.
    pub(crate) const GCC: Need = Need::Program("gcc", "gcc");
    pub(crate) const QEMU_X86_64: Need = Need::Program("qemu-x86_64", "qemu-user");
    pub(crate) const QEMU_AARCH64: Need = Need::Program("qemu-aarch64", "qemu-user");
    /// For libFuzzer; the `cc` crate asks for this name.
    pub(crate) const CPP: Need = Need::Program("c++", "g++");
    pub(crate) const QEMU_ARM: Need = Need::Program("qemu-system-arm", "qemu-system-arm");
    pub(crate) const QEMU_RISCV: Need = Need::Program("qemu-system-riscv32", "qemu-system-misc");

    pub(crate) fn present(self, cx: &Context) -> bool {
        match self {
            Need::Rustfmt => quiet(cx.cargo(["fmt", "--version"])),
            Need::Clippy => quiet(cx.cargo(["clippy", "--version"])),
            Need::Objdump => objdump(cx).is_some(),
            Need::Target(t) => target_libdir(cx, t).is_some_and(|d| d.is_dir()),
            Need::Program(p, _) => on_path(p).is_some(),
            Need::File(f, _) => Path::new(f).exists(),
            Need::Smol => smol::base(cx).exists(),
            Need::Miri => {
                let mut c = cx.command("rustup");
                c.args(["run", "nightly", "cargo", "miri", "--version"]);
                quiet(c)
            }
        }
    }

    fn install(self) -> Install {
        match self {
            Need::Rustfmt => Install::Component("rustfmt"),
            Need::Clippy => Install::Component("clippy"),
            Need::Objdump => Install::Component("llvm-tools"),
            Need::Target(t) => Install::Target(t),
            Need::Program(_, package) | Need::File(_, package) => Install::Apt(package),
            Need::Smol => Install::Smol,
            Need::Miri => Install::Nightly,
        }
    }
}

/// As people call it.
impl Display for Need {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::Rustfmt => f.write_str("cargo fmt"),
            Need::Clippy => f.write_str("cargo clippy"),
            Need::Objdump => f.write_str("llvm-objdump"),
            Need::Target(t) => write!(f, "target {t}"),
            Need::Program(name, _) | Need::File(name, _) => f.write_str(name),
            Need::Smol => f.write_str("SmolLM2-135M-Instruct"),
            Need::Miri => f.write_str("Miri"),
        }
    }
}

/// What brings a [`Need`].
enum Install {
    Component(&'static str),
    Target(&'static str),
    Apt(&'static str),
    Smol,
    /// A nightly toolchain with what Miri needs.
    Nightly,
}

/// The commands that install `needs`, each once, in the order in which they must run.
fn commands(cx: &Context, needs: &[Need]) -> Vec<Command> {
    let (mut components, mut targets, mut packages) = (vec![], vec![], vec![]);
    for n in needs {
        let (list, name) = match n.install() {
            Install::Smol | Install::Nightly => continue,
            Install::Component(c) => (&mut components, c),
            Install::Target(t) => (&mut targets, t),
            Install::Apt(p) => (&mut packages, p),
        };
        if !list.contains(&name) {
            list.push(name);
        }
    }
    let mut all = vec![];
    let mut add = |program: &str, args: &[&str], names: &[&str]| {
        let mut c = cx.command(program);
        c.args(args)
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive");
        all.push(c);
    };
    if !components.is_empty() {
        add("rustup", &["component", "add"], &components);
    }
    if !targets.is_empty() {
        add("rustup", &["target", "add"], &targets);
    }
    if !packages.is_empty() {
        add("apt-get", &["update"], &[]);
        add(
            "apt-get",
            &["install", "-y", "--no-install-recommends"],
            &packages,
        );
    }
    if needs.contains(&Need::Miri) {
        let names = ["--profile", "minimal", "--component", "miri,rust-src"];
        add("rustup", &["toolchain", "install", "nightly"], &names);
    }
    if needs.contains(&Need::Smol) {
        all.extend(smol::fetch(cx));
    }
    all
}

/// The line that would install `needs`.
pub(crate) fn advice(cx: &Context, needs: &[Need]) -> String {
    let lines: Vec<String> = commands(cx, needs).iter().map(shown).collect();
    lines.join(" && ")
}

/// Installs `needs`. A command that fails is reported; whether the tool is there is asked again later.
pub(crate) fn install(cx: &Context, needs: &[Need]) {
    let root = crate::context::capture({
        let mut c = cx.command("id");
        c.arg("-u");
        c
    });
    let root = root.is_ok_and(|id| id.trim() == "0");
    for c in commands(cx, needs) {
        if c.get_program() == "apt-get" && !root {
            println!("not root, so not run: {}", shown(&c));
        } else if let Err(e) = stream(c) {
            println!("could not install: {e}");
        }
    }
}

/// The disassembler, if there is one.
pub(crate) fn objdump(cx: &Context) -> Option<PathBuf> {
    // <sysroot>/lib/rustlib/<host>/lib -> ../bin
    let host = print(cx, &["--print", "target-libdir"])?;
    let tool = Path::new(&host).parent()?.join("bin/llvm-objdump");
    if tool.exists() {
        Some(tool)
    } else {
        on_path("llvm-objdump")
    }
}

/// The machine that the compiler builds for unless told.
pub(crate) fn host(cx: &Context) -> Option<String> {
    let about = print(cx, &["-vV"])?;
    let line = about.lines().find_map(|l| l.strip_prefix("host: "));
    line.map(str::to_owned)
}

fn target_libdir(cx: &Context, target: &str) -> Option<PathBuf> {
    print(cx, &["--print", "target-libdir", "--target", target]).map(PathBuf::from)
}

fn print(cx: &Context, args: &[&str]) -> Option<String> {
    let out = cx.command("rustc").args(args).output().ok()?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|d| d.join(program))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_per_installer() {
        let cx = Context::new(false);
        let needs = [
            Need::Target("a"),
            Need::QEMU_ARM,
            Need::Target("b"),
            Need::Clippy,
            Need::Target("a"),
        ];
        assert_eq!(
            advice(&cx, &needs),
            "rustup component add clippy && rustup target add a b && apt-get update \
             && apt-get install -y --no-install-recommends qemu-system-arm"
        );
    }

    #[test]
    fn a_target_that_does_not_exist_is_missing() {
        assert!(!Need::Target("thumbv99-none-eabi").present(&Context::new(false)));
        assert!(!Need::Program("no-such-program", "x").present(&Context::new(false)));
    }
}
