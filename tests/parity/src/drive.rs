//! A session pushed around by a seed, with every promise that it makes to its caller checked.

use crate::random::Random;
use pleach::{
    Blob, Budget, Caches, Error, Guess, Inline, Kernels, KvType, LogitsKind, Model, Progress,
    Routing, Session, SessionOptions, Speculate, math,
};

/// What the kept blobs are replayed with, natively and in firmware.
pub const REPLAY: SessionOptions = SessionOptions {
    context: 16,
    ..SessionOptions::DEFAULT
};
/// Bytes of the arena of a replay.
pub const REPLAY_ARENA: usize = 65536;

/// Parses `blob` and runs a few tokens: 0, or [`Error::code`] of the first error.
///
/// A session of [`REPLAY`] in `arena`, cut to [`REPLAY_ARENA`] bytes; push 1, 2, 3, 4, 5 and run; rewind to 3,
/// push 6, 7 and run.
pub fn replay(blob: &[u8], arena: &mut [u8]) -> u16 {
    let run = |arena| -> Result<(), Error> {
        let model = Model::parse(Blob::new(blob)?)?;
        let mut session = Session::new(model, &REPLAY, arena)?;
        session.push(&[1, 2, 3, 4, 5])?;
        session.run(Kernels::portable(), &mut Inline)?;
        session.rewind(3)?;
        session.push(&[6, 7])?;
        session.run(Kernels::portable(), &mut Inline)
    };
    match run(&mut arena[..REPLAY_ARENA]) {
        Ok(()) => 0,
        Err(e) => e.code(),
    }
}

/// Options for a short text.
fn options(random: &mut Random) -> SessionOptions {
    SessionOptions {
        context: 8 + random.below(20) as u32,
        chunk: random.pick(&[1, 1, 2, 3, 5]),
        kv: random.pick(&[KvType::F32, KvType::F16]),
        caches: random.pick(&[Caches::Two, Caches::Two, Caches::One]),
        logits: random.pick(&[LogitsKind::Last, LogitsKind::Sweep]),
        log_tokens: random.pick(&[0, 3]),
        embedding_rows: 0,
        speculate: random.pick(&[
            Speculate::Off,
            Speculate::Base,
            Speculate::Held,
            Speculate::Auto,
        ]),
    }
}

/// Pushes, steps, rewinds and reroutes a session over `model` in `arena`, three rounds of it, on the scalar kernels or the best ones.
///
/// Panics if a promise is broken: a step that finds the tables [`Error::Corrupt`] though nobody changed
/// them, work without end, tokens that are neither committed nor dropped, values that are not finite where
/// no error was given. Returns the number of rounds that ended without an error.
pub fn session(model: Model<'_>, arena: &mut [u8], random: &mut Random) -> u32 {
    let mut options = options(random);
    if !model.has_classifier() || options.caches == Caches::One {
        options.speculate = Speculate::Off;
    }
    let needed = model.arena_bytes(&options);
    let mut session = match Session::new(model, &options, arena) {
        Ok(s) => s,
        Err(e) => {
            let too_large = matches!(e, Error::ArenaTooSmall { .. }) && needed > REPLAY_ARENA;
            let too_long = matches!(e, Error::Option { .. })
                && model.window().is_some_and(|w| w < options.context);
            assert!(too_large || too_long, "{e}");
            return 0;
        }
    };
    if random.below(2) == 0 {
        session.enable_scalings_logging();
    }
    let kernels = random.pick(&[Kernels::portable(), Kernels::detect()]);
    let mut good = 0;
    for _ in 0..3 {
        if random.below(2) == 0 || session.push(&[]).is_err() {
            reroute(&mut session, random);
        }
        good += u32::from(round(&mut session, &options, kernels, random));
        let len = random.below(session.len() + 1);
        session.rewind(len).expect("a rewind within the text");
        assert!(session.committed() <= session.len() && session.len() == len);
    }
    session.rewind(0).expect("a rewind to the start");
    good
}

fn reroute(session: &mut Session<'_, '_>, random: &mut Random) {
    let experts = session.model().n_experts();
    let weights: Vec<f32> = (0..experts).map(|e| 0.5 - e as f32).collect();
    let one = random.below(experts.max(1)) as u16;
    let n = 1 + random.below(4) as u32;
    let routing = match random.below(8) {
        0 => Routing::Exact,
        1 => Routing::Every(n),
        2 => Routing::Lag,
        3 => Routing::Prompt,
        4 => Routing::Static(&weights),
        5 => Routing::Only(one),
        6 => Routing::AllOnes,
        _ => Routing::Base,
    };
    if let Err(e) = session.set_routing(routing) {
        // A damaged model may have no experts at all: then `only` names one that is not there.
        let none = experts == 0 && matches!(e, Error::Option { .. });
        assert!(
            none || matches!(e, Error::Refused { .. }),
            "{routing:?}: {e}"
        );
        session.set_routing(Routing::Base).expect("always possible");
    }
    session.set_guess(Guess {
        force: random.pick(&[None, Some(u32::MAX), Some(0)]),
        ..Guess::default()
    });
}

/// Pushes some tokens and steps to the end; whether it ended well.
fn round(
    session: &mut Session<'_, '_>,
    options: &SessionOptions,
    kernels: Kernels,
    random: &mut Random,
) -> bool {
    let vocab = session.model().config().vocab;
    let room = options.context as usize - session.len();
    let tokens: Vec<u32> = (0..random.below(room + 1).min(6))
        .map(|_| random.below(vocab as usize) as u32)
        .collect();
    let before = session.len();
    assert!(matches!(
        session.push(&[vocab]),
        Err(Error::TokenOutOfRange { .. })
    ));
    let many = vec![0; room + 1];
    assert!(matches!(
        session.push(&many),
        Err(Error::ContextFull { .. })
    ));
    session
        .push(&tokens)
        .expect("tokens of the vocabulary within the context");
    assert_eq!(session.len(), before + tokens.len());

    let budget = random.pick(&[
        Budget::UNLIMITED,
        Budget::UNLIMITED,
        Budget(5000),
        Budget(400),
    ]);
    let (start, len) = (session.counters(), session.len() as u64);
    let mut steps = 0u64;
    let result = loop {
        let step = session.step(kernels, &mut Inline, budget);
        steps += 1;
        let now = session.counters();
        // A scaling and a routed sweep per position, also of those that a new routing catches up with; a
        // step does at least one unit, and every unit reads a row of weights or of the caches.
        let sweeps = now.sweeps - start.sweeps;
        assert!(sweeps <= 2 * len + 2, "{sweeps} sweeps for {len} tokens");
        let work = now.weight_bytes + now.kv_bytes + now.macs - start.weight_bytes - start.macs;
        assert!(
            steps <= 64 * (sweeps + 1) + work,
            "{steps} steps for {work} of work"
        );
        match step {
            Ok(Progress::More) => {}
            Ok(Progress::Ready) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    assert!(
        session.committed() == session.len(),
        "neither committed nor dropped"
    );
    if let Err(e) = result {
        assert!(
            matches!(e, Error::NonFinite { .. }),
            "a session over sound tables: {e}"
        );
        return false;
    }
    assert_eq!(session.len(), before + tokens.len());
    let logits = session.logits();
    assert!(
        tokens.is_empty() || logits.is_some(),
        "no logits of the last token"
    );
    let sites = session.model().n_sites();
    for s in [
        session.get_latest_scalings(),
        session.effective_at(session.len().wrapping_sub(1)),
    ] {
        for site in 0..if s.is_some() { sites } else { 0 } {
            let row = s.as_ref().map_or(&[][..], |s| s.row(0, site));
            assert!(row.iter().copied().all(math::is_finite), "scalings {row:?}");
        }
    }
    assert!(
        logits.unwrap_or(&[]).iter().copied().all(math::is_finite),
        "logits"
    );
    assert!(session.get_scalings_log().tokens() <= options.log_tokens as usize);
    true
}
