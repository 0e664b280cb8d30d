//! `pleach chat` through a pipe, on the demo's model.

mod common;

use common::{Ran, fixtures, intent, pleach, pleach_with, text};
use serde_json::Value;
use std::path::Path;

/// The form that the intent model was trained on: BOS, one sentence, a newline. It shows the last message only.
const SENTENCE: &str = "{{ bos_token ~ messages[-1].content ~ '\\n' }}";

/// A folder with `sentence.jinja`, and what else a test writes.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sentence.jinja"), SENTENCE).unwrap();
    folder
}

fn chat(input: &[u8], arguments: &[&str]) -> Ran {
    let file = intent();
    let fixed = ["chat", &file];
    pleach_with(input, &[&fixed[..], arguments].concat())
}

/// Every tenth sentence of the evaluation set. PEFT's calls are right in 96 % of all (`table.json`).
#[test]
fn a_line_is_a_message_and_the_answer_the_models() {
    let folder = folder();
    let template = folder.path().join("sentence.jinja");
    let eval = std::fs::read_to_string(fixtures().join("xlora-intent/eval.jsonl")).unwrap();
    let cases: Vec<Value> = eval
        .lines()
        .step_by(10)
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let field = |c: &Value, key: &str| c[key].as_str().unwrap().to_owned();
    let input: String = cases.iter().map(|c| field(c, "sentence") + "\n").collect();
    let out = chat(input.as_bytes(), &["--template", text(&template)]).ok();
    assert_eq!(out.lines().count(), cases.len());
    let right = out
        .lines()
        .zip(&cases)
        .filter(|(line, case)| *line == field(case, "intent"));
    let right = right.count();
    assert!(right >= 34, "{right} of {} right", cases.len());
    // The same from `run`, which adds BOS itself.
    let first = field(&cases[0], "sentence");
    let ran = pleach(&["run", &intent(), "--prompt", &format!("{first}\n")]).ok();
    assert_eq!(out.lines().next(), Some(&ran[..]));
}

#[test]
fn the_conversation_is_remembered_until_it_is_reset() {
    let input = b"licht an\nwie kalt ist es\n/reset\nlicht an\n";
    let ran = chat(
        input,
        &["--template", "chatml", "-n", "5", "--context", "128"],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    // The model was not trained on ChatML: only that the first and the last answer are the same is known.
    assert_eq!(lines.first(), lines.last());
    assert!(ran.err.contains("the conversation is forgotten"), "{ran:?}");
    // The second answer is that to the whole conversation, which ChatML writes like this.
    let options = ["-n", "5", "--context", "128", "--stop", "<|im_end|>"];
    let continued = |prompt: &str| {
        let file = intent();
        pleach(&[&["run", &file, "--prompt", prompt][..], &options].concat()).out
    };
    let turn = |said: &str| format!("<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n");
    let second = "wie kalt ist es";
    let both = format!(
        "{}{}<|im_end|>\n{}",
        turn("licht an"),
        lines[0],
        turn(second)
    );
    assert_eq!(lines[1], continued(&both));
    assert_ne!(lines[1], continued(&turn(second)));
}

#[test]
fn a_template_that_writes_nothing_is_refused() {
    let ran = chat(b"licht an\n", &["--template", "/dev/null"]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.contains("writes nothing") && cure.contains("--template"),
        "{ran:?}"
    );
}

#[test]
fn old_exchanges_make_room_with_a_note() {
    let input = "licht an in der küche\n".repeat(8);
    let ran = chat(
        input.as_bytes(),
        &[
            "--template",
            "chatml",
            "-n",
            "8",
            "--context",
            "128",
            "--system",
            "kurz",
        ],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.err.contains("no longer fits the context"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("cut after 8 tokens (-n)"), "{}", ran.err);
}

#[test]
fn commands_work_in_a_pipe_and_stay_out_of_its_output() {
    let folder = folder();
    let input = b"/routing base\nreis auf die einkaufsliste bitte\n/routing only:de\n/experts on\n/help\n/nonsense\n\
/routing\n/routing only:it\n/experts maybe\n/save\n /quit\n/quit\nwie spaet\n";
    let file = intent();
    let ran = pleach_in_with(
        folder.path(),
        input,
        &["chat", &file, "--template", "sentence.jinja"],
    );
    assert_eq!(ran.code, 2, "{ran:?}");
    // The first answer, then that to "/quit" with a space before it, and its bars.
    let base = pleach(&[
        "run",
        &file,
        "--prompt",
        "reis auf die einkaufsliste bitte\n",
        "--routing",
        "base",
    ])
    .ok();
    assert_eq!(ran.out.lines().next(), Some(&base[..]));
    assert!(
        ran.out.contains("de") && ran.out.contains("100 %"),
        "{}",
        ran.out
    );
    for word in [
        "routing is base",
        "routing is only:de",
        "every token gets the same scalings",
        "experts are on",
        "/save FILE",
        "line 6: /nonsense: no such command",
        "all-ones",
        "line 8: /routing only:it: the model has no such expert",
        "en, de, fr, es",
        "line 9: /experts maybe: ",
        "line 10: /save: no file",
        "4 of 12 lines were refused",
    ] {
        assert!(ran.err.contains(word), "{word}: {}", ran.err);
    }
}

/// Runs in a folder with standard input.
fn pleach_in_with(folder: &Path, input: &[u8], arguments: &[&str]) -> Ran {
    let path = folder.join("input.txt");
    std::fs::write(&path, input).unwrap();
    let output = common::command()
        .args(arguments)
        .current_dir(folder)
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    Ran::of(output)
}

#[test]
fn a_routing_of_the_conversation_is_that_of_the_option() {
    let folder = folder();
    let file = intent();
    let asked = |routing: &[&str], input: &str| {
        let arguments = [
            "chat",
            &file,
            "--template",
            "chatml",
            "-n",
            "6",
            "--context",
            "128",
        ];
        let arguments = [&arguments[..], routing].concat();
        pleach_in_with(folder.path(), input.as_bytes(), &arguments).out
    };
    for routing in [
        "base",
        "only:fr",
        "every:2",
        "prompt",
        "all-ones",
        "static:1,0,0.5,0",
    ] {
        let by_option = asked(&["--routing", routing], "mets la radio\n");
        let by_command = asked(&[], &format!("/routing {routing}\nmets la radio\n"));
        assert_eq!(by_option, by_command, "{routing}");
        let from_there = asked(&["--routing", routing], "/routing exact\nmets la radio\n");
        assert_eq!(from_there, asked(&[], "mets la radio\n"), "{routing}");
    }
}

#[test]
fn experts_are_shown_as_bars() {
    let folder = folder();
    let file = intent();
    let arguments = [
        "chat",
        &file,
        "--template",
        "sentence.jinja",
        "--show-experts",
    ];
    let ran = pleach_in_with(folder.path(), b"mets la radio\n", &arguments);
    assert_eq!((ran.code, &ran.err[..]), (0, ""), "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 5, "{ran:?}");
    let shares: Vec<u32> = lines[1..]
        .iter()
        .map(|l| {
            l.trim_end_matches(" %")
                .rsplit(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    let sum: u32 = shares.iter().sum();
    assert!((98..=102).contains(&sum), "{shares:?}");
    assert!(lines[3].starts_with("fr ") && shares[2] == *shares.iter().max().unwrap());
}

#[test]
fn a_conversation_is_saved_in_two_forms() {
    let folder = folder();
    let file = intent();
    let input = b"mets la radio\n/save a b.jsonl\n/save talk.md\n/save nowhere/x\n";
    // A file is replaced as a whole, never overwritten: its other name keeps the old text.
    std::fs::write(folder.path().join("talk.md"), "old").unwrap();
    std::fs::hard_link(folder.path().join("talk.md"), folder.path().join("kept.md")).unwrap();
    let arguments = [
        "chat",
        &file,
        "--template",
        "sentence.jinja",
        "--system",
        "s",
    ];
    let ran = pleach_in_with(folder.path(), input, &arguments);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("3 messages in a b.jsonl"), "{}", ran.err);
    assert!(ran.err.contains("line 4: nowhere/x: "), "{}", ran.err);
    let lines = std::fs::read_to_string(folder.path().join("a b.jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let roles: Vec<&str> = lines.iter().map(|l| l["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(lines[1]["content"], "mets la radio");
    assert_eq!(lines[2]["content"], ran.out.trim_end());
    assert_eq!(lines[2]["experts"].as_object().unwrap().len(), 4);
    let markdown = std::fs::read_to_string(folder.path().join("talk.md")).unwrap();
    assert!(
        markdown.contains("\n## User\n\nmets la radio\n"),
        "{markdown}"
    );
    let kept = std::fs::read_to_string(folder.path().join("kept.md")).unwrap();
    assert_eq!(kept, "old");
}

#[test]
fn bad_lines_are_named_and_the_conversation_goes_on() {
    let folder = folder();
    let file = intent();
    let mut input = b"wie sp\xe4t ist es\n\n".to_vec();
    input.extend("küche ".repeat(60).as_bytes());
    input.extend(b"\n");
    input.extend(vec![b'x'; (1 << 20) + 10]);
    input.extend(b"\nmets la radio");
    let arguments = [
        "chat",
        &file,
        "--template",
        "sentence.jinja",
        "--context",
        "64",
    ];
    let ran = pleach_in_with(folder.path(), &input, &arguments);
    assert_eq!(ran.code, 2, "{ran:?}");
    let alone = pleach_in_with(folder.path(), b"mets la radio\n", &arguments);
    assert_eq!(ran.out, alone.out);
    let causes: Vec<&str> = ran.err.lines().filter(|l| !l.starts_with(' ')).collect();
    assert!(
        causes[0].starts_with("line 1: not UTF-8 text from byte 7"),
        "{causes:?}"
    );
    assert_eq!(causes[1], "note: line 2: empty");
    assert!(
        causes[2].starts_with("line 3: ") && causes[2].contains("context of 64"),
        "{causes:?}"
    );
    assert!(causes[3].starts_with("line 4: longer than"), "{causes:?}");
    assert_eq!(causes[4], "3 of 5 lines were refused");
}

#[test]
fn templates_that_are_refused() {
    let folder = folder();
    let write = |name: &str, source: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, source).unwrap();
        text(&path).to_owned()
    };
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let grows = "{% set n = namespace(x='0123456789') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    let cases = [
        (
            write("syntax", b"a\n{% for %}"),
            "line 2: not a Jinja template: ",
        ),
        (write("loops", loops.as_bytes()), "does not end"),
        (write("grows", grows.as_bytes()), "does not end"),
        (write("writes", b"{{ 'a' * 9000000 }}"), "writes more than"),
        (
            write("raises", b"{{ raise_exception('no such talk') }}"),
            "refuses this conversation: no such talk",
        ),
        (write("fails", b"\n{{ 1 + messages }}"), "line 2: "),
        (write("long", &vec![b' '; 70_000]), "more than 65536 bytes"),
        (
            write("huge", "{{ 'a' * 4000 }}".as_bytes()),
            "in the context of 128",
        ),
        (write("binary", b"\xff\xfe"), "UTF-8 text from byte 1"),
        (text(&folder.path().join("none")).to_owned(), "No such file"),
        (text(folder.path()).to_owned(), ""),
    ];
    for (path, why) in &cases {
        let ran = chat(b"hello\n", &["--template", path]);
        let (cause, cure) = ran.refused(2);
        assert!(cause.contains(why), "{path}: {cause}");
        assert!(!cure.is_empty());
    }
    let ran = chat(b"hello\n", &[]);
    let (cause, cure) = ran.refused(2);
    assert!(cause.contains("no chat template"), "{cause}");
    assert!(cure.contains("--template chatml"), "{cure}");
}

#[test]
fn a_system_prompt_that_cannot_be() {
    let long = "küche ".repeat(100);
    let ran = chat(b"", &["--template", "chatml", "--system", &long]);
    let (cause, cure) = ran.refused(2);
    assert!(
        cause.starts_with("--system: ") && cause.contains("context of 128"),
        "{cause}"
    );
    assert!(cure.contains("--context"), "{cure}");
    let folder = folder();
    let path = folder.path().join("no-system");
    std::fs::write(
        &path,
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ messages[-1].content }}",
    )
    .unwrap();
    let ran = chat(b"", &["--template", text(&path), "--system", "kurz"]);
    let (cause, cure) = ran.refused(2);
    assert!(cause.contains("System role not supported"), "{cause}");
    assert!(cure.contains("leave --system out"), "{cure}");
}

#[test]
fn a_model_without_a_tokenizer() {
    let peft = fixtures().join("peft");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plain.pleach");
    let base = peft.join("base-llama");
    let pack = ["pack", "--base", text(&base), "-o", text(&file)];
    assert_eq!(pleach(&pack).code, 0);
    let ran = pleach_with(b"hello\n", &["chat", text(&file)]);
    let (cause, cure) = ran.refused(2);
    assert!(cause.contains("no tokenizer") && cure.contains("tokenizer.json"));
}

#[test]
fn nothing_in_nothing_out_and_help() {
    assert_eq!(chat(b"", &["--template", "chatml"]).ok(), "");
    let help = pleach(&["chat", "--help"]).ok();
    for word in [
        "Usage: pleach chat FILE",
        "--system",
        "--template",
        "/reset",
        "/save FILE",
        "--temperature",
        "--routing",
        "--show-experts",
        "Ctrl-C",
    ] {
        assert!(help.contains(word), "{word}");
    }
}
