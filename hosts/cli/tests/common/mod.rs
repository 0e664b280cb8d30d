//! Running the binary, and where things are.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a run printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code, no signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts success and gives standard output.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self.out
    }

    /// Asserts a refusal of this form: the cause on line 1, the cure on line 2, indented, nothing else.
    pub(crate) fn refused(&self, code: i32) -> (&str, &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        let lines: Vec<&str> = self.err.lines().collect();
        let [cause, cure] = lines[..] else {
            panic!("not two lines: {self:?}");
        };
        assert!(!cause.starts_with(' ') && !cause.is_empty(), "{self:?}");
        let cure = cure.strip_prefix("  ").expect("an indented cure");
        assert!(!cure.starts_with(' ') && !cure.is_empty(), "{self:?}");
        (cause, cure)
    }
}

pub(crate) fn command() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_pleach"));
    c.stdin(Stdio::null())
        .env_remove("COLUMNS")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("NO_COLOR");
    c
}

pub(crate) fn pleach<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ran {
    Ran::of(command().args(arguments).output().unwrap())
}

/// The same in a folder.
pub(crate) fn pleach_in<S: AsRef<std::ffi::OsStr>>(folder: &Path, arguments: &[S]) -> Ran {
    Ran::of(
        command()
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap(),
    )
}

/// The same with standard input.
pub(crate) fn pleach_with(input: &[u8], arguments: &[&str]) -> Ran {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A thread, because the process may write before it has read everything.
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // The process may end without reading all of it.
    let _ = writer.join().unwrap();
    Ran::of(output)
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The demo's model file.
pub(crate) fn intent() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("intent.pleach");
    path.to_str().unwrap().to_owned()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
