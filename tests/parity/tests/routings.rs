//! Each routing gives the same bits in every mode, and means what it says.

use parity::subject::Subject;
use parity::{Case, Feed, File, Mode, Setup, Storage, Text, Trace, fixture, run};
use pleach::{Caches, KvType, Routing};
use pleach_pack::PackOptions;

fn setup(routing: Routing<'_>) -> Setup<'_> {
    Setup {
        routing: Some(routing),
        ..Setup::exact(KvType::F32)
    }
}

fn trace(file: &File, routing: Routing<'_>, text: &Text<'_>) -> Trace {
    run(file.model(), &Mode::whole(7), &setup(routing), text)
        .unwrap_or_else(|e| panic!("{routing:?}: {e}"))
}

/// Modes that `lag` and `prompt` may be run in: the first push is the prompt.
fn is_whole(mode: &Mode) -> bool {
    mode.feed == Feed::Whole
}

fn same_bits(subject: &Subject, storage: Storage) {
    let file = subject.file(storage);
    let model = file.model();
    let weights: Vec<f32> = (0..model.n_experts())
        .map(|i| [0.25, -0.5, 0.0, 1.5][i % 4])
        .collect();
    let text = Text::new(&subject.prompt[..19], 6);
    for (routing, one_cache) in [
        (Routing::Every(2), false),
        (Routing::Every(3), false),
        (Routing::Lag, false),
        (Routing::Prompt, true),
        (Routing::Static(&weights), true),
        (Routing::Only(1), true),
        (Routing::Base, true),
        (Routing::AllOnes, true),
    ] {
        let whole_prompt = matches!(routing, Routing::Lag | Routing::Prompt);
        let modes = Mode::without_guesses().into_iter().filter(|m| {
            let threads = m.threads == 1 || m.threads == 3 && m.chunk == 7;
            threads && (is_whole(m) || !whole_prompt)
        });
        let caches: &[Caches] = match one_cache {
            true => &[Caches::Two, Caches::One],
            false => &[Caches::Two],
        };
        let mut first: Option<Trace> = None;
        for mode in modes {
            for &caches in caches {
                let setup = Setup {
                    caches,
                    ..setup(routing)
                };
                let name = format!("{} {routing:?}, {caches:?}, {}", subject.name, mode.name());
                let trace =
                    run(model, &mode, &setup, &text).unwrap_or_else(|e| panic!("{name}: {e}"));
                let naive = first.get_or_insert_with(|| trace.clone());
                if let Some(d) = naive.difference(&trace, model.n_experts()) {
                    panic!("{name}: other bits\n  {d}");
                }
            }
        }
    }
}

#[test]
fn same_bits_in_all_modes() {
    same_bits(&Subject::intent(), Storage::Q8);
    for subject in Subject::cases() {
        same_bits(&subject, Storage::F16);
    }
}

/// Logits bit for bit, whatever the sites.
fn same_logits(what: &str, a: &Trace, b: &Trace) {
    assert_eq!(a.logits.len(), b.logits.len(), "{what}");
    let differing = a
        .logits
        .iter()
        .zip(&b.logits)
        .position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(i) = differing {
        panic!(
            "{what}: position {}, logit {} differs",
            i / a.vocab,
            i % a.vocab
        );
    }
}

#[test]
fn base_is_the_base_packed_alone() {
    for name in ["case-plain", "case-qwen2-embedding"] {
        let case = Case::open(name);
        let prompt = case.tokens("prompt");
        let text = Text::new(&prompt, 8);
        for storage in [Storage::F16, Storage::Q8] {
            let alone = File::pack(&storage.options(case.base(), None));
            assert_eq!(alone.model().n_experts(), 0);
            let alone = run(
                alone.model(),
                &Mode::NAIVE,
                &Setup::exact(KvType::F32),
                &text,
            );
            let base = trace(&case.pack(storage), Routing::Base, &text);
            assert!(base.scalings.is_empty());
            same_logits(name, &base, &alone.expect("the base alone"));
        }
    }
}

#[test]
fn only_is_that_adapter_packed_alone() {
    for name in ["case-global-weight", "case-embedding-site"] {
        let case = Case::open(name);
        let prompt = case.tokens("prompt");
        let text = Text::new(&prompt, 8);
        for storage in [Storage::F16, Storage::Q8] {
            let file = case.pack(storage);
            for (class, folder) in case.experts().into_iter().enumerate() {
                let options = PackOptions {
                    adapters: vec![("one".into(), folder)],
                    ..storage.options(case.base(), None)
                };
                let alone = File::pack(&options);
                // Without a classifier one expert is at weight 1 unless told otherwise.
                let alone = run(
                    alone.model(),
                    &Mode::NAIVE,
                    &Setup::exact(KvType::F32),
                    &text,
                );
                let only = trace(&file, Routing::Only(class as u16), &text);
                let name = format!("{name}, class {class}");
                same_logits(&name, &only, &alone.expect("one adapter"));
            }
        }
    }
}

#[test]
fn all_ones_is_static_one_where_the_global_weight_is_one() {
    let case = Case::open("case-layerwise-top2");
    let (file, prompt) = (case.pack(Storage::F16), case.tokens("prompt"));
    let text = Text::new(&prompt, 8);
    let ones = trace(&file, Routing::AllOnes, &text);
    same_logits(
        "ones",
        &ones,
        &trace(&file, Routing::Static(&[1.0; 4]), &text),
    );
    // Static takes the global weight, all-ones does not: 2.5 here, 0.4 undoes it up to rounding.
    let case = Case::open("case-global-weight");
    let (file, prompt) = (case.pack(Storage::F16), case.tokens("prompt"));
    let text = Text::new(&prompt, 1);
    let ones = trace(&file, Routing::AllOnes, &text);
    let undone = trace(&file, Routing::Static(&[0.4; 3]), &text);
    let largest = ones.logits.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (a, b) in ones.logits.iter().zip(&undone.logits) {
        assert!((a - b).abs() <= 1e-4 * largest, "{a} against {b}");
    }
}

#[test]
fn every_one_is_exact() {
    for subject in [Subject::intent()].into_iter().chain(Subject::cases()) {
        let file = subject.file(Storage::F16);
        let text = Text::new(&subject.prompt, 6);
        let (exact, every) = (
            trace(&file, Routing::Exact, &text),
            trace(&file, Routing::Every(1), &text),
        );
        assert_eq!(exact.difference(&every, file.model().n_experts()), None);
    }
}

/// The scaling pass does not depend on the routing: over the same tokens each position must use the exact
/// scalings of its source.
#[test]
fn lazy_routings_use_the_scalings_of_their_source() {
    let subject = Subject::intent();
    let file = subject.file(Storage::F16);
    let (prompt, n) = (&subject.prompt[..20], 20);
    let free = Text::new(prompt, 12);
    let exact = trace(&file, Routing::Exact, &free);
    let forced = Text {
        forced: &exact.generated,
        ..free
    };
    type Source = fn(usize, usize) -> usize;
    let cases: [(Routing<'_>, Source); 4] = [
        (Routing::Every(2), |p, _| p - p % 2),
        (Routing::Every(5), |p, _| p - p % 5),
        (Routing::Lag, |p, n| if p < n { p } else { p - 1 }),
        (Routing::Prompt, |_, n| n - 1),
    ];
    for (routing, source) in cases {
        let lazy = trace(&file, routing, &forced);
        assert_eq!(lazy.len(), exact.len());
        for p in 0..lazy.len() {
            let name = format!("{routing:?}, position {p}");
            assert_eq!(
                lazy.effective_at(p),
                exact.effective_at(source(p, n)),
                "{name}"
            );
            assert_eq!(
                lazy.scalings_at(p),
                exact.scalings_at(source(p, n)),
                "{name}"
            );
            if matches!(routing, Routing::Lag) && p < n {
                assert_eq!(lazy.logits_at(p), exact.logits_at(p), "{name}");
            }
        }
        assert_ne!(
            lazy.logits_at(n),
            exact.logits_at(n),
            "{routing:?} must differ"
        );
    }
}

/// A row of exact scalings given by hand is the exact answer where one row serves all sites.
#[test]
fn static_scalings_of_one_token_are_exact_for_it() {
    for name in ["case-plain", "case-top1", "case-raw-scalings"] {
        let case = Case::open(name);
        let file = case.pack(Storage::F16);
        let prompt = case.tokens("prompt");
        let text = Text::new(&prompt[..1], 1);
        let exact = trace(&file, Routing::Exact, &text);
        let row = &exact.effective_at(0)[..file.model().n_experts()];
        same_logits(name, &exact, &trace(&file, Routing::Static(row), &text));
    }
}

/// Sweeps a token as ARCHITECTURE.md states them.
#[test]
fn sweeps_of_each_routing() {
    let file = fixture::intent(Storage::F16);
    let prompt: Vec<u32> = (3..35).collect();
    let text = |generate| Text::new(&prompt, generate);
    let sweeps = |mode: Mode, routing, generate| {
        let trace = run(file.model(), &mode, &setup(routing), &text(generate));
        trace.expect("a run").counters.sweeps
    };
    let (whole, n) = (Mode::whole(8), 32 / 8);
    // Prompts: n/c + 1 pipelined, n/c without scaling passes, 2 n/c for `prompt`.
    for (routing, prefill) in [
        (Routing::Exact, n + 1),
        (Routing::Lag, n + 1),
        (Routing::Prompt, 2 * n),
        (Routing::Base, n),
        (Routing::AllOnes, n),
        (Routing::Only(0), n),
    ] {
        assert_eq!(sweeps(whole, routing, 1), prefill, "{routing:?}: prefill");
    }
    // 13 drawn tokens are 12 pushed ones.
    for (routing, decode) in [
        (Routing::Exact, 24),
        (Routing::Lag, 12),
        (Routing::Prompt, 12),
        (Routing::Base, 12),
        (Routing::Every(4), 12 + 3),
        (Routing::Every(3), 12 + 4),
    ] {
        let done = sweeps(whole, routing, 13) - sweeps(whole, routing, 1);
        assert_eq!(done, decode, "{routing:?}: decoding");
    }
}
