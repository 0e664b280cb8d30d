//! Ctrl-C ends with exit code 130 and leaves nothing half done.

#![cfg(target_os = "linux")] // /proc says when a process is where the signal is to find it

mod common;

use common::{command, intent, text};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Looks again and again, as long as the child lives.
fn wait_until(child: &mut Child, mut done: impl FnMut(u32) -> bool) {
    while !done(child.id()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The handler's own thread is the second one.
fn handler_is_installed(id: u32) -> bool {
    std::fs::read_dir(format!("/proc/{id}/task")).is_ok_and(|tasks| tasks.count() > 1)
}

/// A tenth of a second of computing, which starting does not take.
fn computes(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Field 14; the name, in parentheses, is the second.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').nth(11).and_then(|t| t.parse().ok());
    ticks.is_some_and(|ticks: u64| ticks >= 10)
}

/// Sends Ctrl-C's signal and waits.
fn interrupt(mut child: Child) -> i32 {
    // Waiting would close it, and the end of its input would end the process too.
    let _input = child.stdin.take();
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    child.wait().unwrap().code().unwrap()
}

#[test]
fn where_it_waits_for_input() {
    let file = intent();
    for arguments in [
        &[][..],
        &["run", &file, "--prompt-file", "-"],
        &["chat", &file, "--template", "chatml"],
    ] {
        let mut child = command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(&mut child, handler_is_installed);
        assert_eq!(interrupt(child), 130);
    }
}

#[test]
fn where_it_answers() {
    let file = intent();
    for arguments in [
        &[
            "run",
            &file,
            "--prompt",
            "a",
            "-n",
            "20000",
            "--logit-bias",
            "2=-inf",
        ][..],
        &[
            "chat",
            &file,
            "--template",
            "chatml",
            "-n",
            "20000",
            "--logit-bias",
            "2=-inf",
        ],
    ] {
        let mut child = command()
            .args(arguments)
            .args(["--context", "20010"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A closed pipe is no matter: `run` does not read it.
        let _ = child.stdin.as_mut().unwrap().write_all(b"a\n");
        // The answer has begun; the rest is read, so that the pipe is never full.
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        let rest = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        assert_eq!(interrupt(child), 130);
        rest.join().unwrap().unwrap();
    }
}

#[test]
fn where_it_computes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let file = intent();
    let mut child = command()
        .args(["trace", &file, "--tokens", "1,2,3", "--generate", "20000"])
        .args(["--context", "20010", "-o", text(&out)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(&mut child, computes);
    assert_eq!(interrupt(child), 130);
    assert!(!out.exists());
}
