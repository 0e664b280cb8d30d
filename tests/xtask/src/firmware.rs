//! The intent firmware: sentences picked by a seed go in at run time, every bit that comes out is compared
//! with the native run of the same blob.

use crate::blobs::PORTABLE;
use crate::context::{Context, capture, stream};
use crate::cross::{M4, first_difference};
use crate::{qemu, scan};
use std::path::PathBuf;

/// Sentences of the test.
pub(crate) const COUNT: usize = 20;
/// The seed of the checked-in output.
pub(crate) const SEED: u64 = 4;

/// Bytes of RAM: .data + .bss + painted stack, without the log.
const RAM_LIMIT: u64 = 100 * 1024;
/// Bytes of code. All of the firmware's `.text` is held to it, so the core's share is too.
const CODE_LIMIT: u64 = 64 * 1024;

const EVAL: &str = "tests/fixtures/xlora-intent/eval.jsonl";
const EXPECTED: &str = "examples/intent/expected.txt";

/// The step of `cargo xtask test`.
pub(crate) fn step(cx: &Context) -> Result<(), String> {
    run(cx, COUNT, SEED, false)?;
    if cx.full {
        run(cx, 100, SEED + 1, false)
    } else {
        Ok(())
    }
}

/// Runs `count` sentences. The snapshot is compared, or written, for the default choice only.
pub(crate) fn run(cx: &Context, count: usize, seed: u64, bless: bool) -> Result<(), String> {
    let sentences = pick(&held_back(cx)?, count, seed);
    let logged = build_and_run(cx, true, &sentences)?;
    let plain = build_and_run(cx, false, &sentences)?;
    if let Some((a, b)) = first_difference(&stable(&logged.lines), &stable(&plain.lines)) {
        return Err(format!(
            "defmt and plain text differ\n  defmt {a}\n  text  {b}"
        ));
    }

    let answers = answers(&logged.lines)?;
    if answers.len() != sentences.len() {
        return Err(format!(
            "{} answers to {} sentences",
            answers.len(),
            sentences.len()
        ));
    }
    let mut right = 0;
    for (answer, sentence) in answers.iter().zip(&sentences) {
        native_agrees(cx, answer, sentence)?;
        right += usize::from(answer.text == sentence.call);
    }
    println!("{} hashes and texts equal the native run's", answers.len());
    println!("{right} of {count} calls are the ones that {EVAL} names");

    for phase in ["prefill", "decode"] {
        let (least, most) = range(&logged.lines, phase)?;
        println!("{phase}: {least} to {most} instructions a token");
    }
    let ram = number_after(&plain.lines, "memory:", "total")?;
    let code = scan::code(&plain.elf)?;
    println!("RAM {ram} bytes of {RAM_LIMIT} (.data + .bss + painted stack, no log)");
    println!(
        "code {} bytes of {CODE_LIMIT}, {} of them named as the core's",
        code.text, code.core
    );
    if ram > RAM_LIMIT {
        return Err(format!("{ram} bytes of RAM, more than {RAM_LIMIT}"));
    }
    if code.text > CODE_LIMIT {
        return Err(format!(
            "{} bytes of code, more than {CODE_LIMIT}",
            code.text
        ));
    }
    if (count, seed) == (COUNT, SEED) {
        snapshot(cx, &stable(&logged.lines), bless)
    } else {
        Ok(())
    }
}

/// A held-back sentence and its call.
#[derive(Clone)]
struct Sentence {
    sentence: String,
    call: String,
}

fn held_back(cx: &Context) -> Result<Vec<Sentence>, String> {
    let path = cx.root.join(EVAL);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let parse = |l: &str| {
        let v: serde_json::Value = serde_json::from_str(l).ok()?;
        let field = |k| Some(v.get(k)?.as_str()?.to_owned());
        Some(Sentence {
            sentence: field("sentence")?,
            call: field("intent")?,
        })
    };
    text.lines()
        .map(|l| parse(l).ok_or(format!("{EVAL}: not a sentence: {l}")))
        .collect()
}

/// `count` of them without repetition: the first steps of a Fisher-Yates shuffle on SplitMix64.
fn pick(all: &[Sentence], count: usize, mut seed: u64) -> Vec<Sentence> {
    let mut rest = all.to_vec();
    let mut picked = vec![];
    while picked.len() < count && !rest.is_empty() {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let at = ((z ^ (z >> 31)) % rest.len() as u64) as usize;
        picked.push(rest.swap_remove(at));
    }
    picked
}

/// What a firmware said.
struct Run {
    elf: PathBuf,
    lines: Vec<String>,
}

fn build_and_run(cx: &Context, defmt: bool, sentences: &[Sentence]) -> Result<Run, String> {
    let build = [
        "build",
        "--release",
        "--manifest-path",
        "examples/intent/Cargo.toml",
        "--target",
        M4,
    ];
    let plain: &[&str] = if defmt {
        &[]
    } else {
        &["--no-default-features"]
    };
    stream(cx.cargo(build.iter().chain(plain)))?;
    // Both variants are built to the same place: keep this one.
    let elf = cx.built(
        &format!("{M4}/release"),
        if defmt { "intent-defmt" } else { "intent-text" },
    );
    let built = cx.built(&format!("{M4}/release"), "intent");
    std::fs::copy(&built, &elf).map_err(|e| format!("{}: {e}", built.display()))?;

    let input: String = sentences
        .iter()
        .map(|s| format!("{}\n", s.sentence))
        .collect();
    let mut lines = vec![];
    let status = qemu::run(&elf, qemu::Input::Bytes(input.into_bytes()), &mut |line| {
        // The text variant says the same again.
        if defmt || line.starts_with("memory") {
            println!("{line}");
        }
        lines.push(line.to_owned());
    })?;
    if status == 0 {
        Ok(Run { elf, lines })
    } else {
        Err(format!("the firmware exited with {status}"))
    }
}

/// The lines that do not depend on compiler or log: all but counts and sizes of this build.
fn stable(lines: &[String]) -> String {
    let varies = |l: &&String| l.starts_with("instructions:") || l.starts_with("memory:");
    lines
        .iter()
        .filter(|l| !varies(l))
        .map(|l| format!("{l}\n"))
        .collect()
}

/// One sentence's lines.
struct Answer {
    sentence: String,
    prompt: Vec<u32>,
    answer: Vec<u32>,
    text: String,
    hash: String,
}

fn answers(lines: &[String]) -> Result<Vec<Answer>, String> {
    let mut all = vec![];
    let mut rest = lines
        .iter()
        .map(String::as_str)
        .skip_while(|l| !l.starts_with("> "));
    while let Some(line) = rest.next() {
        let Some(sentence) = line.strip_prefix("> ") else {
            continue;
        };
        let mut field = |name: &str| {
            let line = rest
                .next()
                .ok_or(format!("the log ends before {name} of {sentence:?}"))?;
            let value = line
                .strip_prefix(name)
                .ok_or(format!("{name} expected, found {line:?}"))?;
            Ok::<&str, String>(value.trim_start())
        };
        all.push(Answer {
            sentence: sentence.to_owned(),
            prompt: tokens(field("prompt")?)?,
            answer: tokens(field("answer")?)?,
            text: field("call")?.to_owned(),
            hash: {
                field("experts")?;
                field("hash")?.to_owned()
            },
        });
    }
    Ok(all)
}

fn tokens(list: &str) -> Result<Vec<u32>, String> {
    let inner = list.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
    let numbers = inner
        .ok_or(format!("not a list of tokens: {list}"))?
        .split(", ");
    numbers
        .map(|n| n.parse().map_err(|_| format!("not a token: {n:?}")))
        .collect()
}

/// The command-line tool, on this machine, must give the same hash for the same tokens, and the same text
/// for the sentence (its own tokenizer included).
fn native_agrees(cx: &Context, a: &Answer, sentence: &Sentence) -> Result<(), String> {
    if a.sentence != sentence.sentence {
        return Err(format!(
            "sent {:?}, the firmware read {:?}",
            sentence.sentence, a.sentence
        ));
    }
    let pleach = |args: &[&str]| {
        let mut c = cx.cargo([
            "run",
            "--quiet",
            "--release",
            "--package",
            "pleach-cli",
            "--",
        ]);
        c.args(args).args(["--kv", "f16", "--context", "64"]);
        capture(c)
    };
    let list: Vec<String> = a.prompt.iter().map(u32::to_string).collect();
    let n = a.answer.len().to_string();
    let trace = pleach(&[
        "trace",
        PORTABLE,
        "--tokens",
        &list.join(","),
        "--generate",
        &n,
        "--hash",
    ])?;
    let native = trace
        .lines()
        .find_map(|l| l.strip_prefix("hash "))
        .unwrap_or("(none)");
    if native != a.hash {
        return Err(format!(
            "{:?}: hash {} on the M4F, {native} natively",
            a.sentence, a.hash
        ));
    }
    let prompt = format!("{}\n", a.sentence);
    let text = pleach(&["run", PORTABLE, "--prompt", &prompt, "-n", &n])?;
    if text.trim_end_matches('\n') != a.text {
        return Err(format!(
            "{:?}: {:?} on the M4F, {text:?} natively",
            a.sentence, a.text
        ));
    }
    Ok(())
}

/// The least and the most instructions per token over all sentences.
fn range(lines: &[String], phase: &str) -> Result<(u64, u64), String> {
    let counts = lines.iter().filter(|l| l.starts_with("instructions:"));
    let counts: Result<Vec<u64>, String> = counts
        .map(|l| number_after(std::slice::from_ref(l), "instructions:", phase))
        .collect();
    let counts = counts?;
    let both = counts
        .iter()
        .min()
        .copied()
        .zip(counts.iter().max().copied());
    both.ok_or("the firmware did not print its instructions".into())
}

/// `name` of the line that starts with `line`: `memory: data 4 total 90000`.
fn number_after(lines: &[String], line: &str, name: &str) -> Result<u64, String> {
    let found = lines.iter().find(|l| l.starts_with(line)).and_then(|l| {
        let mut words = l.split(' ').skip_while(|w| *w != name);
        words.nth(1)?.parse().ok()
    });
    found.ok_or(format!("the firmware did not print `{line} .. {name} N`"))
}

fn snapshot(cx: &Context, text: &str, bless: bool) -> Result<(), String> {
    let path = cx.root.join(EXPECTED);
    if bless {
        return std::fs::write(&path, text).map_err(|e| format!("{EXPECTED}: {e}"));
    }
    let expected = std::fs::read_to_string(&path).map_err(|e| format!("{EXPECTED}: {e}"))?;
    match first_difference(&expected, text) {
        None => Ok(()),
        Some((e, f)) => Err(format!(
            "{EXPECTED} differs (if meant: cargo xtask firmware --bless)\n  expected {e}\n  found    {f}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn reads_a_log() {
        let log = lines(
            "model intent\n> licht an\nprompt [1, 5, 9]\nanswer [7, 2]\ncall turnon name=licht\n\
             experts de 900 en 100\nhash 0123456789abcdef\ninstructions: prefill 1\nmemory: data 4 total 90",
        );
        let a = answers(&log).unwrap();
        assert_eq!(a.len(), 1);
        assert_eq!(
            (&a[0].prompt[..], &a[0].answer[..]),
            (&[1, 5, 9][..], &[7, 2][..])
        );
        assert_eq!(
            (a[0].text.as_str(), a[0].hash.as_str()),
            ("turnon name=licht", "0123456789abcdef")
        );
        assert_eq!(number_after(&log, "memory:", "total"), Ok(90));
        assert!(!stable(&log).contains("memory"));
        let log = lines(
            "instructions: prefill 7 and decode 9 a token\ninstructions: prefill 5 and decode 9 a",
        );
        assert_eq!(range(&log, "prefill"), Ok((5, 7)));
        assert!(range(&[], "prefill").is_err());
    }

    #[test]
    fn a_cut_log_is_an_error() {
        assert!(answers(&lines("> licht an\nprompt [1]")).is_err());
        assert!(answers(&lines("> licht an\nanswer [1]")).is_err());
        assert!(tokens("[1, x]").is_err());
    }

    #[test]
    fn choice_depends_on_the_seed_alone() {
        let all: Vec<Sentence> = (0..50)
            .map(|i| Sentence {
                sentence: i.to_string(),
                call: String::new(),
            })
            .collect();
        let names = |seed| {
            pick(&all, 20, seed)
                .into_iter()
                .map(|s| s.sentence)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(4), names(4));
        assert_ne!(names(4), names(5));
        let mut sorted = names(4);
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 20);
        assert_eq!(pick(&all, 99, 1).len(), 50);
    }
}
