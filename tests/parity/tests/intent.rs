//! The trained intent model against PEFT: its tokens, and its share of right answers over 400 sentences that
//! training never saw.

use parity::fixture::{floats, intent, json, root, tokens};
use parity::text::{decode, encode_from_start};
use parity::{Mode, Setup, Storage, Text, run};
use pleach::{
    Counters, Guess, Inline, Kernels, KvType, Session, SessionOptions, Speculate, sample,
};
use pleach_linux::Arena;
use serde_json::Value;

/// The token that ends an answer.
const END: u32 = 2;
/// What the model was trained with.
const CONTEXT: u32 = 64;

fn read(file: &str) -> Vec<u8> {
    std::fs::read(root().join("xlora-intent").join(file)).expect(file)
}

#[test]
fn tokens_and_numbers_of_the_expected_prompts() {
    let file = intent(Storage::F16);
    let expected = json(&read("expected.json"));
    let cases = expected["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    for case in cases {
        let name = case["file"].as_str().expect("a file");
        let tensors = read(name);
        let (prompt, answer) = (tokens(&tensors, "prompt"), tokens(&tensors, "generated"));
        let text = Text::new(&prompt, answer.len());
        let trace = run(
            file.model(),
            &Mode::whole(32),
            &Setup::exact(KvType::F32),
            &text,
        )
        .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(trace.generated, answer, "{name}");
        let (width, vocab) = (prompt.len() * trace.width, prompt.len() * trace.vocab);
        let logits = floats(&tensors, "logits");
        let largest = logits.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for (what, ours, theirs, limit) in [
            (
                "scalings",
                &trace.scalings[..width],
                floats(&tensors, "scalings"),
                1e-4,
            ),
            (
                "effective",
                &trace.effective[..width],
                floats(&tensors, "effective"),
                1e-4,
            ),
            ("logits", &trace.logits[..vocab], logits, 1e-4 * largest),
        ] {
            assert_eq!(ours.len(), theirs.len(), "{name}: {what}");
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a - b).abs() <= limit, "{name}: {what} {a} against {b}");
            }
        }
        assert_eq!(
            encode_from_start(
                &file.model(),
                &format!("{}\n", case["sentence"].as_str().unwrap())
            ),
            prompt
        );
        assert_eq!(
            decode(&file.model(), &answer),
            case["text"].as_str().unwrap()
        );
    }
}

/// Right answers by language, all answers, and what decoding cost.
struct Score {
    right: [u32; 4],
    all: u32,
    drawn: u64,
    sweeps: u64,
    counters: Counters,
}

const LANGUAGES: [&str; 4] = ["en", "de", "fr", "es"];

fn evaluate(storage: Storage, kv: KvType) -> Score {
    let file = intent(storage);
    let model = file.model();
    let options = SessionOptions {
        context: CONTEXT,
        chunk: 32,
        kv,
        speculate: Speculate::Base,
        ..SessionOptions::DEFAULT
    };
    let mut arena = Arena::new(model.arena_bytes(&options)).expect("memory");
    let mut session = Session::new(model, &options, arena.bytes()).expect("a session");
    let mut guess = Guess::default();
    guess.stop.push(END).expect("room");
    session.set_guess(guess);
    let mut score = Score {
        right: [0; 4],
        all: 0,
        drawn: 0,
        sweeps: 0,
        counters: Counters::default(),
    };
    for line in String::from_utf8(read("eval.jsonl"))
        .expect("UTF-8")
        .lines()
    {
        let item: Value = json(line.as_bytes());
        let text = |key: &str| item[key].as_str().expect(key).to_owned();
        let prompt = encode_from_start(&file.model(), &(text("sentence") + "\n"));
        session.rewind(0).expect("0 is never too long");
        session.push(&prompt).expect("the prompt fits");
        session.run(Kernels::detect(), &mut Inline).expect("finite");
        let before = session.counters().sweeps;
        let mut answer = Vec::new();
        while session.len() < CONTEXT as usize {
            let token = sample::argmax(session.logits().expect("logits"));
            answer.push(token);
            if token == END {
                break;
            }
            session.push(&[token]).expect("room");
            session.run(Kernels::detect(), &mut Inline).expect("finite");
            score.drawn += 1;
        }
        score.sweeps += session.counters().sweeps - before;
        let language = LANGUAGES.iter().position(|l| **l == text("language"));
        score.right[language.expect("a known language")] +=
            u32::from(decode(&file.model(), &answer) == text("intent"));
        score.all += 1;
    }
    score.counters = session.counters();
    score
}

/// PEFT's exact match over all languages, in points.
fn peft() -> f64 {
    let table = json(&read("table.json"));
    let points = LANGUAGES.map(|l| table["exact_match"]["xlora"][l].as_f64().expect(l));
    points.iter().sum::<f64>() / 4.0
}

fn within(storage: Storage, kv: KvType, limit: f64) -> Score {
    let score = evaluate(storage, kv);
    assert_eq!(score.all, 400);
    let right: u32 = score.right.iter().sum();
    let points = f64::from(right) / 4.0;
    println!(
        "{} kv {kv:?}: {right} of 400 right ({points} %; PEFT {} %), by language {LANGUAGES:?} {:?}",
        storage.bits_name(),
        peft(),
        score.right
    );
    assert!(
        (points - peft()).abs() <= limit,
        "{points} against PEFT's {}",
        peft()
    );
    score
}

#[test]
fn exact_match_in_f16_and_sweeps_with_the_base_guess() {
    let score = within(Storage::F16, KvType::F32, 0.3);
    let sweeps = score.sweeps as f64 / score.drawn as f64;
    println!(
        "decoding with the base guess: {} sweeps for {} tokens, {sweeps:.4} a token; {} of {} guesses right",
        score.sweeps, score.drawn, score.counters.hits, score.counters.guesses
    );
    assert!(sweeps <= 1.02, "{sweeps} sweeps a token");
}

#[test]
fn exact_match_in_q8() {
    within(Storage::Q8, KvType::F32, 1.0);
}

#[test]
fn exact_match_in_q8_with_f16_caches() {
    within(Storage::Q8, KvType::F16, 1.0);
}
