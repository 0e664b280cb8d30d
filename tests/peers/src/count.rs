//! Instructions, counted by qemu's plugin: exact, the same on any load. They are instructions, not cycles.

use crate::Result;
use crate::llama::{Isa, Llama, emulated};
use crate::machine::{folder, target};
use crate::wire::command;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// qemu's plugins are given as `-plugin FILE`.
const PLUGIN: &str = "-plugin";

/// Compiles the plugin.
pub fn plugin() -> Result<PathBuf> {
    let out = target().join("libcount.so");
    fs::create_dir_all(target()).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut c = Command::new("gcc");
    c.args(["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"])
        .arg(&out)
        .arg(folder().join("plugin/count.c"));
    succeed(c)?;
    Ok(out)
}

/// Builds pleach's end of the pipe for aarch64, without shared libraries.
pub fn pleach() -> Result<PathBuf> {
    let built = target().join("aarch64");
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args([
        "build",
        "--release",
        "--locked",
        "--no-default-features",
        "--bin",
        "pleach-peer",
        "--target",
        TARGET,
    ])
    .arg("--manifest-path")
    .arg(folder().join("Cargo.toml"))
    .env("CARGO_TARGET_DIR", &built)
    .env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        "aarch64-linux-gnu-gcc",
    )
    .env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        "-Ctarget-feature=+crt-static",
    );
    succeed(c)?;
    Ok(built.join(TARGET).join("release/pleach-peer"))
}

fn succeed(mut c: Command) -> Result<()> {
    let program = c.get_program().to_string_lossy().into_owned();
    let status = c.status().map_err(|e| {
        format!("{program}: {e}\n  cargo xtask peers --install aarch64 installs it")
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {status}")),
    }
}

/// One side under the emulator.
pub struct Counted<'c> {
    /// qemu's CPU.
    pub isa: Isa,
    /// The plugin.
    pub plugin: &'c Path,
    /// What to run, with its arguments.
    pub program: &'c Path,
    /// The arguments.
    pub arguments: Vec<String>,
    /// Commands before all others.
    pub first: Vec<String>,
}

/// The first command of either side.
pub const ONE_THREAD: &str = "threads 1";

/// What a run said and took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// All instructions, those that load the model among them.
    pub instructions: u64,
    /// What it said when it was ready: buffers, kernels.
    pub ready: String,
}

impl Counted<'_> {
    /// llama.cpp's side.
    pub fn llama<'c>(
        llama: &'c Llama,
        plugin: &'c Path,
        model: &Path,
        context: usize,
    ) -> Counted<'c> {
        let model = model.display().to_string();
        Counted {
            isa: llama.isa,
            plugin,
            program: &llama.program,
            arguments: vec!["run".into(), model, context.to_string()],
            first: vec![ONE_THREAD.into()],
        }
    }

    /// Says on standard error what was found: the whole takes long.
    fn told(&self, what: &str, instructions: f64) {
        let name = self.program.file_name().unwrap_or_default();
        eprintln!(
            "{}: {} ({}), {what}: {instructions:.0}",
            self.isa.name(),
            name.display(),
            self.first.join(", ")
        );
    }

    /// Runs these commands after the first ones.
    pub fn run(&self, commands: &[String]) -> Result<Count> {
        let options = [PLUGIN.to_owned(), self.plugin.display().to_string()];
        let mut child = emulated(self.isa.name(), &options, self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| {
                format!("qemu-aarch64: {e}\n  cargo xtask peers --install aarch64 installs it")
            })?;
        let commands = [&self.first, commands].concat();
        let mut input = child.stdin.take().ok_or("no standard input")?;
        input
            .write_all((commands.join("\n") + "\n").as_bytes())
            .map_err(|e| format!("qemu-aarch64: {e}"))?;
        drop(input);
        let out = child.wait_with_output().map_err(|e| e.to_string())?;
        let (said, log) = (
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
        );
        let answers = said.lines().filter(|l| l.starts_with("ok ")).count();
        if !out.status.success() || answers != commands.len() {
            return Err(format!(
                "{}: {}\n{said}{log}",
                self.program.display(),
                out.status
            ));
        }
        let line = log.lines().find_map(|l| l.strip_prefix("instructions "));
        let ready = said.lines().find_map(|l| l.strip_prefix("ready"));
        Ok(Count {
            instructions: line
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| format!("qemu's plugin counted nothing: {log}"))?,
            ready: ready.unwrap_or_default().trim().to_owned(),
        })
    }

    /// Instructions of a token after `prompt`: those of 64 less those of 32, by 32. With the longer run's words.
    pub fn decode(&self, prompt: &[u32], tokens: &[u32; 64]) -> Result<(f64, Count)> {
        let run =
            |tokens: &[u32]| self.run(&[command("prompt", prompt), command("tokens", tokens)]);
        let (short, long) = (run(&tokens[..32])?, run(tokens)?);
        let each = (long.instructions - short.instructions) as f64 / 32.0;
        self.told("a token", each);
        Ok((each, long))
    }

    /// Instructions of a prompt: those of computing it twice less those of once.
    pub fn prompt(&self, prompt: &[u32]) -> Result<f64> {
        let command = command("prompt", prompt);
        let once = self.run(std::slice::from_ref(&command))?;
        let twice = self.run(&[command.clone(), command])?;
        let all = (twice.instructions - once.instructions) as f64;
        self.told("a prompt", all);
        Ok(all)
    }
}
