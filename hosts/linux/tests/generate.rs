//! Generated text: sampled, shown as it comes, ended by strings.

use pleach::tokenizer::{Decoder, SpecialTokens};
use pleach::{
    Budget, Error, Guess, Inline, Kernels, KvType, Model, Sampling, Session, SessionOptions,
    Speculate,
};
use pleach_linux::{Arena, End, Generation, Limits, ModelFile, Watch, generate};
use pleach_pack::{PackOptions, Silent, pack};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

const OPTIONS: SessionOptions = SessionOptions {
    context: 64,
    chunk: 32,
    kv: KvType::F32,
    ..SessionOptions::DEFAULT
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// A packed model, mapped.
struct Packed {
    _folder: tempfile::TempDir,
    file: ModelFile,
}

impl Packed {
    fn new(options: &PackOptions) -> Self {
        let bytes = pack(options, &mut Silent).unwrap().bytes;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pleach");
        pleach_pack::write_atomically(&path, &bytes).unwrap();
        let file = ModelFile::open(&path).unwrap();
        Self {
            _folder: folder,
            file,
        }
    }

    /// The trained demo model, which has a tokenizer.
    fn intent() -> Self {
        let folder = fixtures().join("xlora-intent");
        let mut options = PackOptions::new(folder.join("base"));
        options.xlora = Some(folder.join("xlora"));
        Self::new(&options)
    }

    fn model(&self) -> Model<'_> {
        Model::parse(self.file.blob().unwrap()).unwrap()
    }
}

/// "what is weather in the heater\n"; its answer is "getweather name=heater" and token 2 (expected.json).
const PROMPT: [u32; 15] = [
    1, 89, 74, 346, 223, 333, 223, 410, 452, 378, 223, 330, 67, 360, 201,
];
const ANSWER: [u32; 7] = [458, 285, 31, 330, 67, 360, 2];
const TEXT: &str = "getweather name=heater";

/// All that a watcher hears.
#[derive(Default)]
struct Heard {
    pieces: Vec<String>,
    tokens: Vec<u32>,
    /// Break off after this many pieces.
    pieces_wanted: Option<usize>,
}

impl Watch for Heard {
    fn token(&mut self, token: u32) -> ControlFlow<()> {
        self.tokens.push(token);
        ControlFlow::Continue(())
    }

    fn text(&mut self, text: &str) -> ControlFlow<()> {
        assert!(!text.is_empty());
        self.pieces.push(text.into());
        match self.pieces_wanted {
            Some(n) if self.pieces.len() >= n => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn go(
    model: Model<'_>,
    options: &SessionOptions,
    limits: &Limits<'_>,
    heard: &mut dyn Watch,
) -> Result<Generation, Error> {
    let mut arena = Arena::new(model.arena_bytes(options)).unwrap();
    let mut session = Session::new(model, options, arena.bytes()).unwrap();
    let kernels = Kernels::detect();
    generate(&mut session, kernels, &mut Inline, &PROMPT, limits, heard)
}

#[test]
fn text_is_heard_token_by_token_and_without_the_stop_token() {
    let intent = Packed::intent();
    let mut heard = Heard::default();
    let done = go(intent.model(), &OPTIONS, &Limits::new(40, &[2]), &mut heard).unwrap();
    assert_eq!((&done.tokens[..], done.end), (&ANSWER[..], End::Stop));
    assert_eq!(heard.tokens, ANSWER);
    assert_eq!(heard.pieces.concat(), TEXT);
    assert_eq!(heard.pieces.len(), ANSWER.len() - 1);
}

#[test]
fn a_stop_string_ends_the_text_wherever_tokens_begin() {
    let intent = Packed::intent();
    // Every substring: within tokens, over two and over several.
    for from in 0..TEXT.len() {
        for len in [1, 2, 5, 11, TEXT.len()] {
            let Some(string) = TEXT.get(from..from + len) else {
                continue;
            };
            let strings = ["never", string];
            let limits = Limits {
                stop_strings: &strings,
                ..Limits::new(40, &[2])
            };
            let mut heard = Heard::default();
            let done = go(intent.model(), &OPTIONS, &limits, &mut heard).unwrap();
            assert_eq!(done.end, End::StopString, "{string}");
            assert_eq!(heard.pieces.concat(), TEXT[..TEXT.find(string).unwrap()]);
            assert_eq!(done.tokens, ANSWER[..done.tokens.len()]);
            assert_eq!(heard.tokens, done.tokens);
        }
    }
}

#[test]
fn a_stop_string_that_never_comes_holds_nothing_back_in_the_end() {
    let intent = Packed::intent();
    let strings = ["heater!", "getweather name=heater ", "t\0"];
    let never = |limits: Limits<'static>| {
        let limits = Limits {
            stop_strings: &strings,
            ..limits
        };
        let mut heard = Heard::default();
        let done = go(intent.model(), &OPTIONS, &limits, &mut heard).unwrap();
        (heard.pieces.concat(), done.end)
    };
    assert_eq!(never(Limits::new(40, &[2])), (TEXT.into(), End::Stop));
    assert_eq!(never(Limits::new(6, &[2])), (TEXT.into(), End::Limit));
    let short = SessionOptions {
        context: PROMPT.len() as u32 + 2,
        ..OPTIONS
    };
    let limits = Limits {
        stop_strings: &strings,
        ..Limits::new(40, &[2])
    };
    let mut heard = Heard::default();
    let done = go(intent.model(), &short, &limits, &mut heard).unwrap();
    assert_eq!((done.end, done.tokens.len()), (End::Context, 3));
    let mut decoder = Decoder::new(intent.model().tokenizer().unwrap(), SpecialTokens::Skip);
    let decoded: String = ANSWER[..3].iter().flat_map(|t| decoder.push(*t)).collect();
    assert_eq!(heard.pieces.concat(), decoded);
}

#[test]
fn a_watcher_of_text_may_end_it() {
    let intent = Packed::intent();
    let mut heard = Heard {
        pieces_wanted: Some(2),
        ..Heard::default()
    };
    let done = go(intent.model(), &OPTIONS, &Limits::new(40, &[2]), &mut heard).unwrap();
    assert_eq!((done.end, done.tokens.len()), (End::Interrupted, 2));
}

/// The sweeps that a watcher hears: the positions of each, and how many have ended.
#[derive(Default)]
struct Sweeps(Vec<(Range<usize>, u64)>);

impl Watch for Sweeps {
    fn sweep(&mut self, session: &Session<'_, '_>, positions: Range<usize>) -> ControlFlow<()> {
        self.0.push((positions, session.counters().sweeps));
        ControlFlow::Continue(())
    }
}

#[test]
fn a_sweep_is_heard_once_when_it_ends_whatever_the_budget() {
    let intent = Packed::intent();
    // Scaling and routed passes in sweeps of their own: every other one commits nothing.
    let options = SessionOptions {
        speculate: Speculate::Off,
        ..OPTIONS
    };
    let heard = |budget| {
        let limits = Limits {
            budget,
            ..Limits::new(3, &[])
        };
        let mut sweeps = Sweeps::default();
        go(intent.model(), &options, &limits, &mut sweeps).unwrap();
        sweeps.0
    };
    let n = PROMPT.len();
    let expected = [
        (0..0, 1),
        (0..n, 2),
        (n..n, 3),
        (n..n + 1, 4),
        (n + 1..n + 1, 5),
        (n + 1..n + 2, 6),
    ];
    for budget in [Budget::UNLIMITED, Budget(100_000), Budget(1000)] {
        assert_eq!(heard(budget), expected, "{budget:?}");
    }
}

#[test]
fn a_sweep_that_is_given_up_does_not_count() {
    let intent = Packed::intent();
    let model = intent.model();
    let mut arena = Arena::new(model.arena_bytes(&OPTIONS)).unwrap();
    let mut session = Session::new(model, &OPTIONS, arena.bytes()).unwrap();
    let mut step = |budget| {
        session.rewind(0).unwrap();
        session.push(&PROMPT).unwrap();
        session
            .step(Kernels::detect(), &mut Inline, budget)
            .unwrap();
        let counters = session.counters();
        (counters.sweeps, counters.columns)
    };
    assert_eq!(step(Budget(1)), (0, 0));
    assert_eq!(step(Budget::UNLIMITED), (1, PROMPT.len() as u64));
}

#[test]
fn sampled_texts_are_those_of_the_session_whoever_guesses() {
    let intent = Packed::intent();
    let model = intent.model();
    let mut texts = Vec::new();
    for seed in 0..6 {
        let limits = Limits {
            sampling: Sampling {
                temperature: 2.5,
                top_p: 0.98,
                repetition_penalty: 1.1,
                seed,
                ..Sampling::GREEDY
            },
            ..Limits::new(30, &[2])
        };
        let mut arena = Arena::new(model.arena_bytes(&OPTIONS)).unwrap();
        let mut session = Session::new(model, &OPTIONS, arena.bytes()).unwrap();
        session.set_guess(Guess::default());
        session.push(&PROMPT).unwrap();
        let mut expected: Vec<u32> = Vec::new();
        while expected.len() < 30 && expected.last() != Some(&2) {
            session.run(Kernels::detect(), &mut Inline).unwrap();
            expected.push(session.sample(&limits.sampling).unwrap());
            session.push(&expected[expected.len() - 1..]).unwrap();
        }
        for speculate in [
            Speculate::Off,
            Speculate::Base,
            Speculate::Held,
            Speculate::Auto,
        ] {
            let options = SessionOptions {
                speculate,
                ..OPTIONS
            };
            let done = go(model, &options, &limits, &mut Heard::default()).unwrap();
            assert_eq!(done.tokens, expected, "{speculate:?}, seed {seed}");
        }
        texts.push(expected);
    }
    texts.dedup();
    assert!(texts.len() > 1, "seeds make texts");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_computed() {
    let intent = Packed::intent();
    let refused = |model: Model<'_>, limits: Limits<'_>| {
        let mut arena = Arena::new(model.arena_bytes(&OPTIONS)).unwrap();
        let mut session = Session::new(model, &OPTIONS, arena.bytes()).unwrap();
        let kernels = Kernels::detect();
        let e = generate(&mut session, kernels, &mut Inline, &[1], &limits, &mut ());
        assert!(session.is_empty());
        e.unwrap_err()
    };
    let long = "x".repeat(65);
    for strings in [[""], [long.as_str()]] {
        let limits = Limits {
            stop_strings: &strings,
            ..Limits::new(4, &[])
        };
        assert!(matches!(
            refused(intent.model(), limits),
            Error::Option { .. }
        ));
    }
    let hot = Limits {
        sampling: Sampling {
            temperature: f32::NAN,
            ..Sampling::GREEDY
        },
        ..Limits::new(4, &[])
    };
    assert!(refused(intent.model(), hot).why().contains("temperature"));

    // A base without a tokenizer: tokens come, strings cannot.
    let bare = Packed::new(&PackOptions::new(fixtures().join("peft/base-llama")));
    assert!(bare.model().tokenizer().is_none());
    let limits = Limits {
        stop_strings: &["x"],
        ..Limits::new(4, &[])
    };
    assert!(matches!(
        refused(bare.model(), limits),
        Error::Refused { .. }
    ));
    let model = bare.model();
    let mut arena = Arena::new(model.arena_bytes(&OPTIONS)).unwrap();
    let mut session = Session::new(model, &OPTIONS, arena.bytes()).unwrap();
    let (mut heard, limits) = (Heard::default(), Limits::new(4, &[]));
    let kernels = Kernels::detect();
    let done = generate(
        &mut session,
        kernels,
        &mut Inline,
        &[1],
        &limits,
        &mut heard,
    );
    assert_eq!((done.unwrap().tokens.len(), heard.pieces.len()), (4, 0));
}
