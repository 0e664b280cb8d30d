//! What the tests share: fixtures, options, a `Progress` that remembers.
#![allow(dead_code, unreachable_pub)]

pub mod edit;
pub mod reader;
pub mod source;

use pleach_pack::{PackOptions, Progress};
use std::path::{Path, PathBuf};

/// Largest resident size of this process so far, in KiB.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .expect("VmHWM");
    let number = line.split_whitespace().nth(1).expect("number");
    number.parse().expect("KiB")
}

/// The fixtures of the repository.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The base that a case names, in `base.txt` or `expected.json`.
pub fn base_of(case: &Path) -> PathBuf {
    if let Ok(text) = std::fs::read_to_string(case.join("base.txt")) {
        return case.join(text.trim());
    }
    case.join(expected(case)["base"].as_str().expect("base"))
}

/// A case's `expected.json`.
pub fn expected(case: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(case.join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

/// Default options for a base.
pub fn options(base: impl Into<PathBuf>) -> PackOptions {
    PackOptions::new(base)
}

/// Every case of the PEFT fixtures, sorted.
pub fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<_> = std::fs::read_dir(fixtures().join("peft"))
        .expect("fixtures")
        .map(|e| e.expect("entry").path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("case-"))
        })
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 19);
    cases
}

/// Remembers what it hears.
#[derive(Debug, Default)]
pub struct Heard {
    pub total: u64,
    pub done: u64,
    pub notes: Vec<String>,
}

impl Progress for Heard {
    fn start(&mut self, total_bytes: u64) {
        self.total = total_bytes;
    }
    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
}

/// Bytes at the alignment that a blob needs, without unsafe code.
pub struct AlignedCopy {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedCopy {
    pub fn of(bytes: &[u8]) -> Self {
        let mut copy = vec![0; bytes.len() + 64];
        let start = copy.as_ptr().align_offset(64);
        copy[start..start + bytes.len()].copy_from_slice(bytes);
        Self {
            bytes: copy,
            start,
            len: bytes.len(),
        }
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}
