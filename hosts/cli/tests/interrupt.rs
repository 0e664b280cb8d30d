//! Ctrl-C ends with exit code 130 and leaves nothing half done.

#![cfg(unix)]

mod common;

use common::{command, intent, text};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Sends Ctrl-C's signal after a moment and waits.
fn interrupt(mut child: Child, after: Duration) -> i32 {
    // Waiting would close it, and the end of its input would end the process too.
    let _input = child.stdin.take();
    std::thread::sleep(after);
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
        let child = command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(interrupt(child, Duration::from_millis(500)), 130);
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
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A closed pipe is no matter: `run` does not read it.
        let _ = child.stdin.as_mut().unwrap().write_all(b"a\n");
        assert_eq!(interrupt(child, Duration::from_millis(700)), 130);
    }
}

#[test]
fn where_it_computes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let file = intent();
    let child = command()
        .args(["trace", &file, "--tokens", "1,2,3", "--generate", "20000"])
        .args(["--context", "20010", "-o", text(&out)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(interrupt(child, Duration::from_millis(700)), 130);
    assert!(!out.exists());
}
