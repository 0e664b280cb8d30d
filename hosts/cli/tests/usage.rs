//! Options and files that are refused: two lines, the exit code, the option by name.

mod common;

use common::{intent, pleach, pleach_with, text};

/// Runs with `intent.pleach` in the place of FILE.
fn refuse(line: &str, code: i32) -> (String, String) {
    let arguments: Vec<String> = line
        .split(' ')
        .map(|a| if a == "FILE" { intent() } else { a.to_owned() })
        .collect();
    let ran = pleach(&arguments);
    let (cause, cure) = ran.refused(code);
    (cause.to_owned(), cure.to_owned())
}

#[test]
fn usage_errors_name_the_option_and_the_cure() {
    for (line, cause, cure) in [
        ("walk", "walk: no such command", "pack, inspect, run"),
        (
            "inspec FILE",
            "inspec: no such command",
            "did you mean inspect?",
        ),
        ("run FILE", "missing: --prompt", "usage: pleach run"),
        (
            "run FILE --prompt a --chunk 0",
            "--chunk 0: out of range",
            "1 to 4096",
        ),
        (
            "run FILE --prompt a --chunk x",
            "--chunk x: not a whole number",
            "1 to 4096",
        ),
        (
            "run FILE --prompt a --context 0",
            "--context 0: ",
            "1 to 131072",
        ),
        (
            "run FILE --prompt a --threads 0",
            "--threads 0: ",
            "1 to 64",
        ),
        (
            "run FILE --prompt a --threads 65",
            "--threads 65: out of range",
            "1 to 64",
        ),
        ("run FILE --prompt a --kv f64", "--kv f64: ", "f32, f16"),
        (
            "run FILE --prompt a --speculate yes",
            "--speculate yes: ",
            "auto, off, base, held",
        ),
        ("run FILE --prompt a -n x", "-n x: ", "whole number"),
        (
            "run FILE --prompt a --bogus",
            "--bogus: no such option",
            "usage: pleach run",
        ),
        (
            "run FILE --prompt a --chun 3",
            "--chun: no such option",
            "did you mean --chunk?",
        ),
        (
            "run FILE --prompt a --prompt-file b",
            "exclude each other",
            "pass one",
        ),
        (
            "run FILE --prompt a --routing foo",
            "--routing foo: no such routing",
            "only:NAME",
        ),
        (
            "run FILE --prompt a --routing every:0",
            "--routing every:0: ",
            "from 1",
        ),
        (
            "run FILE --prompt a --routing only:it",
            "--routing only:it: ",
            "en, de, fr, es",
        ),
        (
            "run FILE --prompt a --routing static:1,0",
            "2 weights for 4 experts",
            "en, de, fr, es",
        ),
        (
            "run FILE --prompt a --routing static:1,nan",
            "--routing static:1,nan: ",
            "65504",
        ),
        (
            "run FILE --prompt a --top-k-lora 9",
            "--top-k-lora 9: the model has 4 experts",
            "at most 4",
        ),
        (
            "run FILE --prompt a --top-k-lora 0",
            "--top-k-lora 0: ",
            "--routing base",
        ),
        (
            "run FILE --prompt a --scaling-pass-value 0.5",
            "--scaling-pass-value: ",
            "--top-k-lora none",
        ),
        (
            "run FILE --prompt a --global-scaling-weight inf",
            "--global-scaling-weight inf: ",
            "65504",
        ),
        (
            "run FILE --prompt a --speculate held --routing base",
            "--speculate held: ",
            "leave it out",
        ),
        (
            "run FILE --prompt aaaaaaaaaaaaaaaa --context 3",
            "--prompt: ",
            "--context",
        ),
        ("trace FILE", "missing: --tokens", "usage: pleach trace"),
        ("trace FILE --tokens 1,x", "--tokens 1,x: ", "1,2,3"),
        (
            "trace FILE --tokens 99999",
            "99999 is outside the vocabulary of 512",
            "0 to 511",
        ),
        (
            "trace FILE --tokens 1 --generate 1000",
            "1000 positions",
            "--context 1000",
        ),
        ("trace FILE --tokens 1 --generate 2 -o /", "/: ", ""),
        ("pack", "--base <DIR|FILE.gguf>", "usage: pleach pack"),
        ("pack --base nowhere -o x.pleach", "nowhere: ", "--base"),
        (
            "pack --base . -o x.pleach --group 48",
            "--group 48: ",
            "32, 64, 128 or 256",
        ),
        (
            "pack --base . -o x.pleach --adapter k",
            "--adapter k: ",
            "KEY=DIR",
        ),
        (
            "pack --base . -o x.pleach --for cortex-a",
            "--for cortex-a: ",
            "linux, cortex-m, mve, portable",
        ),
        (
            "pack --base . -o x.pleach --quant q4",
            "--quant q4: ",
            "q8, f16",
        ),
    ] {
        let (found_cause, found_cure) = refuse(line, 2);
        assert!(found_cause.contains(cause), "{line}: {found_cause}");
        assert!(found_cure.contains(cure), "{line}: {found_cure}");
    }
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(intent()).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path).to_owned()
    };
    let mut flipped = whole.clone();
    flipped[70] ^= 1;
    let files = [
        (file("empty", b""), "it is empty"),
        (file("text", b"hello\n"), "truncated"),
        (
            file("long-text", &b"hello world\n".repeat(100)),
            "not a pleach file",
        ),
        (file("x.gguf", b"GGUF\x03\0\0\0"), "it is GGUF"),
        (file("x.json", b"{\"a\": 1}"), "it is JSON"),
        (file("header", &whole[..64]), "truncated"),
        (file("half", &whole[..whole.len() / 2]), ""),
        (file("less-one", &whole[..whole.len() - 1]), ""),
        (file("flipped", &flipped), "CRC-32"),
        (text(folder.path()).to_owned(), "a folder"),
        (text(&folder.path().join("no")).to_owned(), "No such file"),
    ];
    for (path, why) in &files {
        for arguments in [
            &["run", path, "--prompt", "a"][..],
            &["trace", path, "--tokens", "1"],
            &["inspect", path],
        ] {
            let ran = pleach(arguments);
            let (cause, _) = ran.refused(2);
            assert!(
                cause.starts_with(path.as_str()) && cause.contains(why),
                "{cause}"
            );
        }
    }
}

#[test]
fn a_damaged_weight_is_found_by_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pleach");
    let mut bytes = std::fs::read(intent()).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let ran = pleach(&["inspect", "--json", text(&path)]);
    assert_eq!(ran.code, 2);
    let all: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(all["verified"], false);
    assert!(ran.err.contains("CRC-32"), "{}", ran.err);
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["run", "--help"], &["help", "pack"]] {
        let out = pleach(arguments).ok();
        assert!(out.contains("Usage: pleach"), "{out}");
    }
    assert!(pleach(&["--version"]).ok().starts_with("pleach "));
}

#[test]
fn a_prompt_that_is_no_text() {
    let ran = pleach_with(b"\xff\xfe", &["run", &intent(), "--prompt-file", "-"]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.starts_with("-: ") && cure.contains("UTF-8"),
        "{cause}\n{cure}"
    );
}

#[test]
#[cfg(unix)]
fn a_prompt_without_an_end() {
    let ran = pleach(&["run", &intent(), "--prompt-file", "/dev/zero"]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.starts_with("--prompt-file /dev/zero: more than"),
        "{cause}"
    );
    assert!(cure.contains("shorter"), "{cure}");
}

#[test]
fn a_share_that_the_arithmetic_does_not_know() {
    for option in ["--top-p", "--min-p"] {
        let line = [
            "run",
            &intent(),
            "--prompt",
            "a",
            "--temperature",
            "1",
            option,
            "1e-30",
        ];
        let ran = pleach(&line);
        let (cause, _) = ran.refused(2);
        assert!(cause.starts_with(&format!("{option} 1e-30: ")), "{cause}");
    }
}

#[test]
fn an_unknown_command_hears_of_all_commands() {
    let ran = pleach(&["zzzzzz"]);
    let (_, cure) = ran.refused(2);
    for command in ["pack", "inspect", "run", "chat", "trace", "plan", "bench"] {
        assert!(cure.contains(command), "{cure}");
    }
}
