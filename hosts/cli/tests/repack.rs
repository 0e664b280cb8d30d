//! `pleach repack`, `pack --for`, and what the commands say about a file that is laid out for another machine.

mod common;

use common::{Ran, command, fixtures, intent, pleach, text};
use std::path::{Path, PathBuf};

const TARGETS: [&str; 4] = ["linux", "cortex-m", "mve", "portable"];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Packs a case of tests/fixtures/peft.
    fn pack(&self, output: &str, more: &[&str]) {
        let [base, xlora] =
            ["base-qwen2", "case-qwen2-embedding"].map(|n| fixtures().join("peft").join(n));
        let output = self.path(output);
        let mut all = vec!["pack", "--base", text(&base), "--xlora", text(&xlora)];
        all.extend_from_slice(&["-o", text(&output)]);
        all.extend_from_slice(more);
        let ran = pleach(&all);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    fn repack(&self, input: &str, output: &str, more: &[&str]) -> Ran {
        let [input, output] = [input, output].map(|n| self.path(n));
        let mut all = vec!["repack", text(&input), text(&output)];
        all.extend_from_slice(more);
        pleach(&all)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// The names of all files.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn trace(model: &Path, more: &[&str]) -> Ran {
    let mut all = vec!["trace", text(model), "--tokens", "5,9,77,3,200", "--hash"];
    all.extend_from_slice(&["--generate", "4"]);
    all.extend_from_slice(more);
    pleach(&all)
}

/// Packed for each target, moved to each: the same bytes; and every command that computes says what would be
/// faster, but only there.
#[test]
fn every_target_to_every_target() {
    let f = Folder::new();
    for target in TARGETS {
        f.pack(target, &["--for", target]);
    }
    for from in TARGETS {
        for to in TARGETS {
            let ran = f.repack(from, "out", &["--for", to]);
            assert_eq!(ran.code, 0, "{ran:?}");
            let said = format!("laid out for {to} (before: {from})\n");
            assert!(ran.out.ends_with(&said), "{ran:?}");
            assert!(f.bytes("out") == f.bytes(to), "{from} to {to}");
            let note = "already: nothing has changed";
            assert_eq!(ran.err.contains(note), from == to, "{ran:?}");
        }
    }
    let hash = trace(&f.path("linux"), &[]).ok();
    for other in &TARGETS[1..] {
        let path = f.path(other);
        let ran = trace(&path, &[]);
        let path = path.display();
        let note = format!(
            "note: {path} is laid out for {other}; `pleach repack {path} OUT --for linux` makes it faster here\n"
        );
        assert_eq!((ran.code, ran.err.as_str()), (0, note.as_str()));
        assert_eq!(ran.out, hash, "{other}");
    }
}

#[test]
fn inspect_says_for_whom() {
    let f = Folder::new();
    f.pack("m", &["--for", "mve"]);
    let m = f.path("m");
    let lines = pleach(&["inspect", text(&m)]).ok();
    let first = lines.lines().next().unwrap();
    assert!(first.ends_with(", laid out for mve"), "{first}");
    assert!(lines.contains("q8 r4k16"), "{lines}");
    let json = pleach(&["inspect", text(&m), "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["for"], "mve");
    assert_eq!(json["provenance"]["for"], "mve");
    assert_eq!(json["verified"], true);
}

/// The other commands that compute say it, too; what a file is not run for says nothing.
#[test]
fn who_tells() {
    let f = Folder::new();
    let ran = pleach(&["repack", &intent(), text(&f.path("m")), "--for", "cortex-m"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let m = f.path("m");
    let m = text(&m);
    let note = format!("note: {m} is laid out for cortex-m; ");
    let bench = [
        "bench",
        m,
        "--rounds",
        "1",
        "-n",
        "1",
        "--prompt-tokens",
        "1",
    ];
    for line in [
        &["run", m, "--prompt", "licht an", "-n", "2"][..],
        &bench[..],
    ] {
        let ran = pleach(line);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.err.matches(&note).count(), 1, "{ran:?}");
    }
    let chat = ["chat", m, "--template", "chatml", "-n", "2"];
    let ran = common::pleach_with(b"licht an\n/routing base\nlicht aus\n", &chat);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.err.matches(&note).count(), 1, "{ran:?}");
    for line in [["inspect", m], ["plan", m]] {
        pleach(&line).ok();
    }
}

/// What the note proposes is one command, whatever the file is called.
#[test]
fn the_proposed_command_is_one_that_a_shell_runs() {
    let f = Folder::new();
    f.pack("it's a model", &["--for", "mve"]);
    let ran = trace(&f.path("it's a model"), &[]);
    let proposed = ran.err.split('`').nth(1).expect("a command");
    let line = proposed.replacen("pleach", "\"$0\"", 1);
    let out = f.path("OUT");
    let line = line.replace(" OUT ", &format!(" {} ", text(&out)));
    let program = command().get_program().to_owned();
    let shell = std::process::Command::new("sh")
        .arg("-c")
        .arg(line)
        .arg(program)
        .output();
    let ran = Ran::of(shell.unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    f.pack("linux", &[]);
    assert!(f.bytes("OUT") == f.bytes("linux"));
}

/// An expert file goes where its model goes, by the old model file or by the new one.
#[test]
fn experts_go_with_their_model() {
    let f = Folder::new();
    f.pack("linux", &[]);
    f.pack("m4", &["--for", "cortex-m"]);
    f.pack("e", &["--expert-only", "1"]);
    f.pack("e-m4", &["--expert-only", "1", "--for", "cortex-m"]);
    for model in ["linux", "m4"] {
        let path = f.path(model);
        let ran = f.repack("e", "out", &["--for", "cortex-m", "--model", text(&path)]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        assert!(f.bytes("out") == f.bytes("e-m4"), "{model}");
    }
    let [out, m4] = ["out", "m4"].map(|n| f.path(n));
    let with = trace(&m4, &["--expert", text(&out)]);
    assert_eq!((with.code, with.out), (0, trace(&m4, &[]).out));

    let ran = f.repack("e", "x", &["--for", "mve"]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.contains("an expert file") && cure.contains("--model FILE"),
        "{ran:?}"
    );
    let ran = f.repack("linux", "x", &["--for", "mve", "--model", text(&m4)]);
    assert!(ran.refused(2).0.starts_with("--model: "), "{ran:?}");
    let ran = f.repack("e", "x", &["--for", "mve", "--model", &intent()]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.contains("bound to another base") && cure.contains("--model"),
        "{ran:?}"
    );
    let e = f.path("e");
    let ran = f.repack("e", "x", &["--for", "mve", "--model", text(&e)]);
    assert!(ran.refused(2).0.contains("it is an expert"), "{ran:?}");
    assert!(!f.names().contains(&"x".to_owned()));
}

/// OUT may be IN.
#[test]
fn in_place() {
    let f = Folder::new();
    f.pack("m", &[]);
    f.pack("other", &["--for", "cortex-m"]);
    let ran = f.repack("m", "m", &["--for", "cortex-m"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(f.bytes("m") == f.bytes("other"));
    assert_eq!(f.names(), ["m", "other"]);
}

#[test]
fn what_is_refused() {
    let f = Folder::new();
    f.pack("m", &[]);
    let whole = f.bytes("m");
    let bad = |name: &str, bytes: &[u8]| std::fs::write(f.path(name), bytes).unwrap();
    bad("empty", b"");
    bad("cut", &whole[..whole.len() / 2]);
    bad("gguf", b"GGUF....");
    let mut flipped = whole.clone();
    let at = whole.len() / 2;
    flipped[at] ^= 0x10;
    bad("flipped", &flipped);
    let before = f.names();
    for (name, words) in [
        ("nowhere", "No such file"),
        ("empty", "it is empty"),
        ("cut", "bytes"),
        ("gguf", "it is GGUF"),
        ("flipped", "CRC"),
    ] {
        let ran = f.repack(name, "x", &["--for", "mve"]);
        let (cause, _) = ran.refused(2);
        let path = f.path(name);
        assert!(
            cause.starts_with(text(&path)) && cause.contains(words),
            "{ran:?}"
        );
    }
    let ran = f.repack("m", "x", &["--for", "cortex-a"]);
    assert!(ran.refused(2).1.contains("cortex-m, mve"), "{ran:?}");
    assert!(f.repack("m", "x", &[]).refused(2).0.contains("--for"));
    let ran = f.repack("m", "nowhere/x", &["--for", "mve"]);
    assert!(
        ran.refused(2).0.contains("nowhere/x: cannot write"),
        "{ran:?}"
    );
    assert_eq!(f.names(), before, "nothing was left");
}

/// What --help says is what there is.
#[test]
fn help() {
    let ran = command().args(["help", "repack"]).output().unwrap();
    let help = Ran::of(ran).ok();
    for word in ["--for", "--model", "cortex-m", "OUT may be IN"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
