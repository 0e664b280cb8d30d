//! One blob, one answer: the same bits in every mode, thread count and layout.
//!
//! The modes are [`Mode::product`]: a prompt token by token, in one push (pipelined) in chunks of 1, 2, 7,
//! 32, or chunk by chunk; without speculation, with the base and with the held guess, as it comes and always
//! wrong; steps without a bound, of 1,000 MACs, of one tile; 1 to 4 threads that claim tiles in a shuffled
//! order. Each model file, quantisation, group, layout and KV type runs
//!
//! * the whole product over a text of 6 + 3 tokens,
//! * every way to feed and to guess, one in steps and one on threads over a text of 37 + 7 tokens, which the
//!   longest chunk does not hold.
//!
//! Each run is compared with the naive one of the other layout too: scalings, effective scalings and logits of
//! each position, bit by bit, and the tokens.

use parity::subject::{LAYOUTS, Subject};
use parity::{File, Mode, Setup, Text, Trace, run};
use pleach::{Budget, KvType};

/// Runs all `modes` and returns the naive trace. Panics with the first position, site and bits that differ
/// from `naive`, or else from the first mode.
fn same_in(
    modes: &[Mode],
    name: &str,
    file: &File,
    kv: KvType,
    text: &Text<'_>,
    naive: Option<Trace>,
) -> Trace {
    let (model, setup) = (file.model(), Setup::exact(kv));
    let fails = |mode: &Mode, why: &str| -> ! { panic!("{name}, {}: {why}", mode.name()) };
    let go = |mode: &Mode, text: &Text<'_>| match run(model, mode, &setup, text) {
        Ok(trace) => trace,
        Err(e) => fails(mode, &e.to_string()),
    };
    let naive = naive.unwrap_or_else(|| go(&Mode::NAIVE, text));
    let mut tokens = 0..model.config().vocab;
    let text = Text {
        wrong: tokens
            .find(|t| !naive.generated.contains(t))
            .expect("a token that is never drawn"),
        ..*text
    };
    for mode in modes {
        let other = go(mode, &text);
        if let Some(d) = naive.difference(&other, model.n_experts()) {
            fails(mode, &format!("not the naive bits\n  {d}"));
        }
        assert_eq!(naive.hash(), other.hash());
    }
    naive
}

fn one_hash(subject: &Subject) {
    let product = Mode::product();
    let mut long: Vec<Mode> = product.clone();
    long.retain(|m| m.threads == 1 && m.budget == Budget::UNLIMITED);
    long.push(Mode::whole(7).budget(1000));
    long.push(Mode::whole(7).threads(3));
    let texts = [
        (&product, Text::new(&subject.prompt[..6], 3)),
        (&long, Text::new(&subject.prompt, 7)),
    ];
    for &storage in &subject.storages {
        let files = LAYOUTS.map(|t| (t.name(), subject.file(storage.target(t))));
        for (kv, kv_name) in [(KvType::F32, "f32"), (KvType::F16, "f16")] {
            for (modes, text) in &texts {
                let name = format!("{} {} kv {kv_name}", subject.name, storage.bits_name());
                let mut naive = None;
                for (layout, file) in &files {
                    let name = format!("{name} {layout}");
                    naive = Some(same_in(modes, &name, file, kv, text, naive));
                }
                println!(
                    "{name:<44} {:>2} tokens {:016x} in {} modes, both layouts",
                    text.prompt.len() + text.generate,
                    naive.map_or(0, |t| t.hash()),
                    modes.len()
                );
            }
        }
    }
}

#[test]
fn intent() {
    one_hash(&Subject::intent());
}

/// One subject of a list; a test each, so that they run side by side.
fn nth(subjects: Vec<Subject>, n: usize, name: &str) {
    assert!(subjects[n].name.ends_with(name), "{}", subjects[n].name);
    one_hash(&subjects[n]);
}

#[test]
fn case_qwen2_embedding() {
    nth(Subject::cases(), 0, "qwen2-embedding");
}

#[test]
fn case_global_weight() {
    nth(Subject::cases(), 1, "global-weight");
}

#[test]
fn case_six_experts_top3() {
    nth(Subject::cases(), 2, "six-experts-top3");
}

#[test]
fn case_raw_top2_softmax() {
    nth(Subject::cases(), 3, "raw-top2-softmax");
    assert_eq!(Subject::cases().len(), 4, "each case has a test");
}

#[test]
fn adversarial() {
    for subject in Subject::adversarial() {
        one_hash(&subject);
    }
}
