//! The session as its users meet it: what it refuses, what it forgets, what it keeps.

use parity::adversarial::Folder;
use parity::subject::Subject;
use parity::{Case, File, Guesses, Mode, Setup, Storage, Text, Trace, fixture, run, synth};
use pleach::{
    Budget, Caches, Error, Inline, Kernels, KvType, LogitsKind, Pass, Progress, Routing, Session,
    SessionOptions, Speculate, sample,
};
use pleach_linux::Arena;

const OPTIONS: SessionOptions = SessionOptions {
    context: 64,
    chunk: 4,
    kv: KvType::F32,
    logits: LogitsKind::Sweep,
    ..SessionOptions::DEFAULT
};

const SPECULATE: [Speculate; 4] = [
    Speculate::Off,
    Speculate::Base,
    Speculate::Held,
    Speculate::Auto,
];

fn arena(file: &File, options: &SessionOptions) -> Arena {
    Arena::new(file.model().arena_bytes(options)).expect("memory")
}

fn session<'m>(file: &'m File, options: &SessionOptions, arena: &'m mut Arena) -> Session<'m, 'm> {
    Session::new(file.model(), options, arena.bytes()).expect("a session")
}

fn go(session: &mut Session<'_, '_>) {
    session
        .run(Kernels::portable(), &mut Inline)
        .expect("finite");
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The bits of the last token's logits and scalings.
fn state(session: &Session<'_, '_>) -> (Vec<u32>, Vec<u32>) {
    let last = session.committed() - 1;
    let scalings = session.scalings_at(last).expect("scalings");
    let [_, sites, _] = scalings.shape();
    let rows = (0..sites).flat_map(|n| bits(scalings.row(0, n))).collect();
    (bits(session.logits().expect("logits")), rows)
}

/// The state after `tokens` in a session of its own.
fn fresh(file: &File, tokens: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut memory = arena(file, &OPTIONS);
    let mut s = session(file, &OPTIONS, &mut memory);
    s.push(tokens).expect("room");
    go(&mut s);
    state(&s)
}

fn is_refused(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::Refused { .. }))
}

fn is_option(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::Option { .. }))
}

#[test]
fn tokens_out_of_range_and_a_full_context_queue_nothing() {
    let file = fixture::intent(Storage::Q8);
    let mut memory = arena(&file, &OPTIONS);
    let mut s = session(&file, &OPTIONS, &mut memory);
    s.push(&[1, 5]).expect("room");
    let out = Error::TokenOutOfRange {
        token: 512,
        vocab: 512,
    };
    assert_eq!(s.push(&[3, 512]), Err(out));
    assert_eq!(s.push(&[0; 63]), Err(Error::ContextFull { context: 64 }));
    assert_eq!((s.len(), s.committed()), (2, 0));
    go(&mut s);
    s.push(&[7; 62]).expect("exactly full");
    go(&mut s);
    assert_eq!(s.committed(), 64);
    assert_eq!(s.push(&[1]), Err(Error::ContextFull { context: 64 }));
    s.push(&[]).expect("nothing needs no room");
    s.rewind(2).expect("shorter");
    s.push(&[9]).expect("room again");
    go(&mut s);
    assert_eq!(state(&s), fresh(&file, &[1, 5, 9]));
}

#[test]
fn arenas_that_do_not_fit_are_refused() {
    let file = fixture::intent(Storage::Q8);
    let needed = file.model().arena_bytes(&OPTIONS);
    let mut memory = Arena::new(needed + 64).expect("memory");
    let bytes = memory.bytes();
    let small = Session::new(file.model(), &OPTIONS, &mut bytes[..needed - 1]).err();
    let expected = Error::ArenaTooSmall {
        needed: needed as u64,
        found: needed as u64 - 1,
    };
    assert_eq!(small, Some(expected));
    let crooked = Session::new(file.model(), &OPTIONS, &mut bytes[1..]).err();
    assert!(
        matches!(crooked, Some(Error::Misaligned { .. })),
        "{crooked:?}"
    );
    assert!(Session::new(file.model(), &OPTIONS, &mut bytes[..needed]).is_ok());
    for options in [
        SessionOptions {
            context: 0,
            ..OPTIONS
        },
        SessionOptions {
            chunk: 0,
            ..OPTIONS
        },
        SessionOptions {
            context: u32::MAX,
            ..OPTIONS
        },
        SessionOptions {
            chunk: u32::MAX,
            ..OPTIONS
        },
        SessionOptions {
            caches: Caches::One,
            speculate: Speculate::Base,
            ..OPTIONS
        },
    ] {
        let refused = Session::new(file.model(), &options, bytes).err();
        assert!(
            matches!(refused, Some(Error::Option { .. })),
            "{options:?}: {refused:?}"
        );
    }
}

#[test]
fn a_suspended_sweep_refuses_pushes_until_it_is_done_or_rewound() {
    let file = fixture::intent(Storage::Q8);
    let mut memory = arena(&file, &OPTIONS);
    let mut s = session(&file, &OPTIONS, &mut memory);
    s.push(&[1, 5, 9]).expect("room");
    let step = |s: &mut Session<'_, '_>| s.step(Kernels::portable(), &mut Inline, Budget(1));
    assert_eq!(step(&mut s), Ok(Progress::More));
    assert!(is_refused(s.push(&[3])));
    assert!(is_refused(s.set_routing(Routing::Base)));
    s.rewind(0).expect("0 is never too long");
    s.push(&[1, 5]).expect("the sweep is gone");
    for _ in 0..100 {
        assert_eq!(step(&mut s), Ok(Progress::More));
    }
    go(&mut s);
    assert_eq!(state(&s), fresh(&file, &[1, 5]));
    assert_eq!(step(&mut s), Ok(Progress::Ready));
}

#[test]
fn rewind_then_the_bits_of_a_fresh_session() {
    let subject = Subject::intent();
    let text = &subject.prompt[..30];
    for storage in [Storage::F16, Storage::Q8] {
        let file = subject.file(storage);
        let expected = fresh(&file, text);
        for speculate in SPECULATE {
            let options = SessionOptions {
                speculate,
                ..OPTIONS
            };
            let mut memory = arena(&file, &options);
            let mut s = session(&file, &options, &mut memory);
            for len in [0, 1, 3, 4, 5, 16, 17, 29, 0] {
                assert_eq!(s.rewind(len + 1).is_err(), s.len() < len + 1);
                if s.len() >= len {
                    s.rewind(len).expect("shorter");
                }
                let at = s.len();
                // Another text, which must leave no trace, then the right one.
                s.push(&[77; 20]).expect("room");
                if len % 2 == 0 {
                    go(&mut s);
                }
                s.rewind(at).expect("shorter");
                s.push(&text[at..]).expect("room");
                go(&mut s);
                assert_eq!(state(&s), expected, "{speculate:?}, rewound to {at}");
            }
        }
    }
}

#[test]
fn a_switch_of_routing_catches_up() {
    let subject = Subject::intent();
    let (file, text) = (subject.file(Storage::Q8), &subject.prompt[..24]);
    let exact = run(
        file.model(),
        &Mode::whole(4),
        &Setup::exact(KvType::F32),
        &Text::new(text, 0),
    )
    .expect("finite");
    for between in [
        Routing::Base,
        Routing::AllOnes,
        Routing::Static(&[0.5; 4]),
        Routing::Every(7),
        Routing::Lag,
    ] {
        let mut memory = arena(&file, &OPTIONS);
        let mut s = session(&file, &OPTIONS, &mut memory);
        s.push(&text[..5]).expect("room");
        go(&mut s);
        s.set_routing(between).expect("two caches");
        s.push(&text[5..18]).expect("room");
        go(&mut s);
        s.set_routing(Routing::Exact).expect("a classifier");
        s.push(&text[18..]).expect("room");
        go(&mut s);
        // The scaling pass does not depend on the routing.
        let last = s.committed() - 1;
        let scalings = s.scalings_at(last).expect("scalings");
        let rows: Vec<f32> = (0..file.model().n_sites())
            .flat_map(|n| scalings.row(0, n).to_vec())
            .collect();
        assert_eq!(bits(&rows), bits(exact.scalings_at(last)), "{between:?}");
        // And the routed pass begins again at the switch if the text is rewound to before it.
        s.rewind(5).expect("shorter");
        s.push(&text[5..]).expect("room");
        go(&mut s);
        assert_eq!(
            bits(s.logits().expect("logits")),
            bits(exact.logits_at(last)),
            "{between:?}"
        );
    }
}

#[test]
fn exact_after_prompt_forgets_dropped_tokens() {
    let file = fixture::intent(Storage::Q8);
    let mut memory = arena(&file, &OPTIONS);
    let mut s = session(&file, &OPTIONS, &mut memory);
    s.set_routing(Routing::Prompt).expect("length 0");
    s.push(&[1, 89, 74, 346, 223, 333, 223, 41]).expect("room");
    go(&mut s);
    let held = bits(s.effective_at(7).expect("the held row").row(0, 0));
    s.rewind(4).expect("shorter");
    s.push(&[7, 8, 9]).expect("room");
    go(&mut s);
    let later = bits(s.effective_at(6).expect("the held row").row(0, 0));
    assert_eq!(held, later, "later pushes keep the prompt's scalings");
    // The scaling pass of the dropped tokens must not be attended to.
    s.set_routing(Routing::Exact).expect("two caches");
    assert!(s.effective_at(6).is_none(), "routed by another routing");
    s.push(&[10]).expect("room");
    go(&mut s);
    let (_, scalings) = state(&s);
    assert_eq!(scalings, fresh(&file, &[1, 89, 74, 346, 7, 8, 9, 10]).1);
    // The same routing again changes nothing.
    s.set_routing(Routing::Exact).expect("two caches");
    assert_eq!(state(&s).1, scalings);
}

#[test]
fn routings_that_cannot_be_are_refused() {
    let file = fixture::intent(Storage::Q8);
    let one = SessionOptions {
        caches: Caches::One,
        ..OPTIONS
    };
    let mut memory = arena(&file, &one);
    let mut s = session(&file, &one, &mut memory);
    for routing in [Routing::Exact, Routing::Every(2), Routing::Lag] {
        assert!(is_refused(s.set_routing(routing)), "{routing:?}");
    }
    for routing in [
        Routing::Every(0),
        Routing::Only(4),
        Routing::Static(&[1.0; 3]),
        Routing::Static(&[f32::NAN; 4]),
        Routing::Static(&[1e-30; 4]),
    ] {
        assert!(is_option(s.set_routing(routing)), "{routing:?}");
    }
    s.push(&[1, 2])
        .expect("routing prompt is the default with one cache");
    assert!(is_refused(s.set_routing(Routing::Prompt)));

    // A base alone has no classifier; two adapters without one need a routing first.
    let case = Case::open("case-plain");
    let alone = File::pack(&Storage::F16.options(case.base(), None));
    let mut memory = arena(&alone, &OPTIONS);
    let mut s = session(&alone, &OPTIONS, &mut memory);
    assert!(is_refused(s.set_routing(Routing::Exact)));
    s.push(&[1]).expect("routing base is the default");
    let mut options = Storage::F16.options(case.base(), None);
    options.adapters = case
        .experts()
        .into_iter()
        .enumerate()
        .map(|(n, folder)| (format!("e{n}"), folder))
        .collect();
    let two = File::pack(&options);
    let mut memory = arena(&two, &OPTIONS);
    let mut s = session(&two, &OPTIONS, &mut memory);
    assert!(is_refused(s.push(&[1])));
    s.set_routing(Routing::Static(&[0.5, 0.5]))
        .expect("weights");
    s.push(&[1]).expect("a routing is set");
    go(&mut s);
    assert!(s.scalings_at(0).is_none() && s.effective_at(0).is_some());
}

#[test]
fn setters_work_at_length_0_and_refuse_what_the_importer_refuses() {
    let case = Case::open("case-layerwise-top2");
    let file = case.pack(Storage::F16);
    let mut memory = arena(&file, &OPTIONS);
    let mut s = session(&file, &OPTIONS, &mut memory);
    assert!(is_option(s.set_topk_lora(Some(0))));
    assert!(is_option(s.set_topk_lora(Some(5))));
    assert!(
        is_option(s.set_scaling_pass_value(Some(0.5))),
        "top-k and a scaling pass value"
    );
    assert!(
        is_option(s.set_scaling_pass_value(None)),
        "1 / n is one as well"
    );
    assert!(is_option(s.set_global_scaling_weight(f32::INFINITY)));
    assert!(is_option(s.set_global_scaling_weight(1e-30)));
    s.set_topk_lora(None).expect("no top-k");
    s.set_scaling_pass_value(Some(0.5)).expect("no top-k now");
    assert!(
        is_option(s.set_topk_lora(Some(2))),
        "a scaling pass value and top-k"
    );
    s.set_scaling_pass_value(Some(0.0)).expect("0");
    s.set_topk_lora(Some(1)).expect("top-1");
    s.set_global_scaling_weight(-0.5).expect("either sign");
    assert_eq!(s.get_global_scaling_weight(), -0.5);
    s.push(&case.tokens("prompt")).expect("room");
    for refused in [
        s.set_topk_lora(None),
        s.set_scaling_pass_value(Some(0.0)),
        s.set_global_scaling_weight(1.0),
    ] {
        assert!(is_refused(refused));
    }
    go(&mut s);
    let effective = s.effective_at(s.committed() - 1).expect("effective");
    for site in 0..file.model().n_sites() {
        assert_eq!(
            effective.row(0, site).iter().filter(|v| **v != 0.0).count(),
            1
        );
    }
    // Back to the file's own options: the fresh bits.
    s.rewind(0).expect("0 is never too long");
    s.set_topk_lora(Some(2)).expect("top-2");
    s.set_global_scaling_weight(1.0).expect("1");
    s.push(&case.tokens("prompt")).expect("room");
    go(&mut s);
    assert_eq!(state(&s), fresh(&file, &case.tokens("prompt")));
}

/// `set_topk_lora` gives the bits of a checkpoint that was saved with that top-k.
#[test]
fn top_k_set_at_run_time_is_top_k_packed() {
    let file = Case::open("case-six-experts-top3").pack(Storage::F16);
    let mut memory = arena(&file, &OPTIONS);
    let mut s = session(&file, &OPTIONS, &mut memory);
    for k in [1u16, 2, 6] {
        s.rewind(0).expect("0 is never too long");
        s.set_topk_lora(Some(k)).expect("within 1..=6");
        s.push(&[3, 1, 4]).expect("room");
        go(&mut s);
        let (scalings, effective) = (s.scalings_at(2).unwrap(), s.effective_at(2).unwrap());
        for site in 0..file.model().n_sites() {
            let (raw, kept) = (scalings.row(0, site), effective.row(0, site));
            let mut order: Vec<usize> = (0..6).collect();
            order.sort_by(|a, b| raw[*b].total_cmp(&raw[*a]).then(a.cmp(b)));
            for (rank, class) in order.into_iter().enumerate() {
                let expected = if rank < k.into() { raw[class] } else { 0.0 };
                assert_eq!(kept[class], expected);
            }
        }
    }
}

#[test]
fn the_log_has_an_entry_per_push_with_values_before_top_k() {
    let file = Case::open("case-layerwise-top2").pack(Storage::F16);
    let options = SessionOptions {
        log_tokens: 8,
        ..OPTIONS
    };
    let mut memory = arena(&file, &options);
    let mut s = session(&file, &options, &mut memory);
    assert!(s.get_latest_scalings().is_none());
    s.push(&[5, 6]).expect("room");
    go(&mut s);
    assert!(
        s.get_scalings_log().is_empty(),
        "logging is off until it is enabled"
    );
    s.enable_scalings_logging();
    for piece in [&[1, 2, 3][..], &[4], &[9], &[7, 8, 9]] {
        s.push(piece).expect("room");
        go(&mut s);
    }
    let latest = s.get_latest_scalings().expect("scalings");
    // Before top-2: all four experts have a value, and they sum to 1.
    let sum: f32 = latest.row(0, 3).iter().sum();
    assert!((sum - 1.0).abs() < 1e-6 && latest.row(0, 3).iter().all(|v| *v > 0.0));
    let log = s.get_scalings_log();
    let lengths: Vec<usize> = log.forwards().map(|f| f.shape()[0]).collect();
    assert_eq!((lengths, log.dropped()), (vec![3, 1, 1, 3], 0));
    let last = log.forward(3).expect("an entry");
    assert_eq!(last.row(2, 3), latest.row(0, 3));
    let ones: Vec<usize> = s.get_bucketed_scalings_log(1).map(|(n, _)| n).collect();
    assert_eq!(ones, [1, 2]);
    assert_eq!(s.get_bucketed_scalings_log(3).count(), 2);
    s.push(&[1, 2]).expect("room");
    go(&mut s);
    assert_eq!(
        (
            s.get_scalings_log().tokens(),
            s.get_scalings_log().dropped()
        ),
        (8, 2)
    );
    s.disable_scalings_logging();
    s.clear_scalings_log();
    s.push(&[1]).expect("room");
    go(&mut s);
    assert_eq!(
        (s.get_scalings_log().len(), s.get_scalings_log().dropped()),
        (0, 0)
    );
}

/// The log of a text that is speculated over holds committed tokens only.
#[test]
fn the_log_does_not_depend_on_the_mode() {
    let file = fixture::intent(Storage::F16);
    let logs = SPECULATE.map(|speculate| {
        let options = SessionOptions {
            log_tokens: 40,
            speculate,
            ..OPTIONS
        };
        let mut memory = arena(&file, &options);
        let mut s = session(&file, &options, &mut memory);
        s.enable_scalings_logging();
        s.push(&[1, 89, 74, 346, 223, 333, 223]).expect("room");
        for _ in 0..10 {
            go(&mut s);
            let next = sample::argmax(s.logits().expect("logits"));
            s.push(&[next]).expect("room");
        }
        let log = s.get_scalings_log();
        let entries: Vec<(usize, Vec<u32>)> = log
            .forwards()
            .map(|f| {
                let [tokens, sites, _] = f.shape();
                let rows = (0..tokens).flat_map(|t| (0..sites).map(move |n| (t, n)));
                (tokens, rows.flat_map(|(t, n)| bits(f.row(t, n))).collect())
            })
            .collect();
        assert_eq!(entries.len(), 10);
        entries
    });
    logs.iter().for_each(|log| assert_eq!(logs[0], *log));
}

/// The base's embedding rows in f32, from the checkpoint.
fn embedding_rows(tokens: &[u32], hidden: usize) -> Vec<f32> {
    let file = std::fs::read(fixture::root().join("peft/base-llama/model.safetensors"));
    let file = file.expect("the base's weights");
    let st = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
    let table = st.tensor("model.embed_tokens.weight").expect("a table");
    let value = |at: usize| match table.dtype() {
        safetensors::tensor::Dtype::F16 => {
            let bytes = [table.data()[2 * at], table.data()[2 * at + 1]];
            pleach::math::from_f16(u16::from_le_bytes(bytes))
        }
        d => panic!("{d:?}"),
    };
    tokens
        .iter()
        .flat_map(|t| (0..hidden).map(move |i| *t as usize * hidden + i))
        .map(value)
        .collect()
}

#[test]
fn embedding_rows_equal_their_tokens() {
    let case = Case::open("case-plain");
    let file = case.pack(Storage::F16);
    let prompt = case.tokens("prompt");
    let options = SessionOptions {
        embedding_rows: 12,
        ..OPTIONS
    };
    let mut memory = arena(&file, &options);
    let mut s = session(&file, &options, &mut memory);
    let rows = embedding_rows(&prompt, 64);
    assert!(matches!(
        s.push_embeddings(&rows[1..]),
        Err(Error::Shape { .. })
    ));
    assert!(
        is_refused(s.push_embeddings(&[0.0; 64 * 13])),
        "more than embedding_rows"
    );
    // Rows, tokens, rows: twice, so that the slots are used again.
    for _ in 0..2 {
        s.rewind(0).expect("0 is never too long");
        s.push_embeddings(&rows[..5 * 64]).expect("room");
        s.push(&prompt[5..7]).expect("room");
        s.push_embeddings(&rows[7 * 64..]).expect("room");
        go(&mut s);
        assert_eq!(state(&s), fresh(&file, &prompt));
    }
    // Queued rows that are dropped leave their slots to the next ones.
    s.rewind(0).expect("0 is never too long");
    s.push_embeddings(&rows[..10 * 64]).expect("room");
    s.rewind(2).expect("shorter");
    s.push_embeddings(&rows[2 * 64..]).expect("room");
    go(&mut s);
    assert_eq!(state(&s), fresh(&file, &prompt));
    // Lazy routings may need a token again, and a row is gone by then.
    s.push(&[5, 6]).expect("room");
    go(&mut s);
    s.set_routing(Routing::Lag).expect("its source is a token");
    assert!(is_refused(s.rewind(12)), "position 11 is a row");
    s.rewind(13).expect("position 12 is a token");
    s.set_routing(Routing::Exact).expect("two caches");
    s.rewind(12).expect("exact needs no row again");
    assert!(is_refused(s.set_routing(Routing::Every(5))));
    s.rewind(0).expect("0 is never too long");
    s.set_routing(Routing::Lag).expect("two caches");
    assert!(is_refused(s.push_embeddings(&rows)));
}

#[test]
fn the_trace_of_pleach_linux_is_the_same() {
    let subject = Subject::intent();
    let file = subject.file(Storage::Q8);
    let ours = run(
        file.model(),
        &Mode::NAIVE,
        &Setup::exact(KvType::F32),
        &Text::new(&subject.prompt, 6),
    )
    .expect("finite");
    let options = pleach_linux::TraceOptions::new(OPTIONS, &subject.prompt, 6);
    let theirs = pleach_linux::trace(&file.model(), &options, &mut Inline).expect("a trace");
    assert_eq!(ours.hash(), theirs.hash());
    assert_eq!(ours.generated, theirs.generated);
    let theirs = Trace {
        width: ours.width,
        vocab: ours.vocab,
        scalings: theirs.scalings.expect("a scaling pass"),
        effective: theirs.effective,
        logits: theirs.logits,
        generated: theirs.generated,
        counters: ours.counters,
    };
    assert_eq!(ours.difference(&theirs, 4), None);
}

/// The Llama base of the cases with one token that overflows: alone it has a value in dimension 0, which
/// the first MLP blows up beyond what the next norm can square.
fn overflowing(token: usize) -> File {
    let case = Case::open("case-plain");
    let folder = Folder::new("overflow");
    let read = |file: &str| std::fs::read(case.base().join(file)).expect(file);
    let mut tensors = synth::read(&read("model.safetensors"));
    for t in &mut tensors {
        let cols = *t.shape.last().expect("a shape");
        let rows = t.data.chunks_exact_mut(cols);
        match t.name.rsplit('.').nth(1).expect("module and weight") {
            "embed_tokens" => {
                for (n, row) in rows.enumerate() {
                    row[0] = if n == token { 1000.0 } else { 0.0 };
                }
            }
            "o_proj" | "down_proj" => t.data[..cols].fill(0.0),
            "gate_proj" | "up_proj" => rows.for_each(|r| r[0] = 65504.0),
            "post_attention_layernorm" => t.data[0] = 65504.0,
            _ => {}
        }
    }
    synth::save(&folder.0.join("model.safetensors"), &tensors);
    std::fs::write(folder.0.join("config.json"), read("config.json")).expect("a file");
    File::pack(&Storage::F16.options(&folder.0, Some(case.folder)))
}

const BAD: u32 = 100;

#[test]
fn a_value_that_is_not_finite_is_an_error_and_the_session_goes_on() {
    let file = overflowing(BAD as usize);
    for chunk in [1, 4] {
        let options = SessionOptions { chunk, ..OPTIONS };
        let mut memory = arena(&file, &options);
        let mut s = session(&file, &options, &mut memory);
        s.push(&[5, 6]).expect("room");
        go(&mut s);
        s.push(&[7, BAD, 8]).expect("room");
        let e = s.run(Kernels::portable(), &mut Inline);
        let expected = Error::NonFinite {
            pass: Pass::Scaling,
            position: 3,
        };
        assert_eq!(e, Err(expected), "chunk {chunk}");
        assert!(
            s.committed() == s.len() && s.len() < 4,
            "the token is not emitted"
        );
        let at = s.len();
        s.push(&[7, 9][at - 2..]).expect("the session goes on");
        go(&mut s);
        assert_eq!(state(&s), fresh(&file, &[5, 6, 7, 9]), "chunk {chunk}");
        s.set_routing(Routing::Base).expect("base");
        s.push(&[BAD]).expect("room");
        let e = s.run(Kernels::portable(), &mut Inline);
        let expected = Error::NonFinite {
            pass: Pass::Routed,
            position: 4,
        };
        assert_eq!((e, s.len()), (Err(expected), 4), "chunk {chunk}");
        s.rewind(0).expect("0 is never too long");
        s.set_routing(Routing::Exact).expect("two caches");
        s.push(&[5, 6, 7, 9]).expect("room");
        go(&mut s);
        assert_eq!(state(&s), fresh(&file, &[5, 6, 7, 9]), "chunk {chunk}");
    }
}

#[test]
fn a_guess_that_is_not_finite_is_only_dropped() {
    let file = overflowing(BAD as usize);
    let prompt = [5, 6, 7, 9, 11];
    let text = Text {
        wrong: BAD,
        ..Text::new(&prompt, 8)
    };
    for storage_kv in [KvType::F32, KvType::F16] {
        let setup = Setup::exact(storage_kv);
        let naive = run(file.model(), &Mode::NAIVE, &setup, &text).expect("finite");
        assert!(!naive.generated.contains(&BAD));
        for speculate in [Speculate::Base, Speculate::Held, Speculate::Auto] {
            let mode = Mode::whole(2).speculating(speculate, Guesses::Wrong);
            let guessing = run(file.model(), &mode, &setup, &text).expect("only a guess");
            assert_eq!(naive.difference(&guessing, 2), None, "{speculate:?}");
            let counters = guessing.counters;
            assert_eq!((counters.guesses, counters.hits), (0, 0), "{speculate:?}");
        }
    }
}
