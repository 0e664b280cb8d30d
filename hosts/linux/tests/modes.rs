//! Generation and traces over the intent model: every way through it gives the same bits.

use pleach::{Budget, Counters, Inline, KvType, Model, Routing, SessionOptions, Speculate};
use pleach_linux::{
    Arena, ClaimOrder, End, Limits, ModelFile, Setup, ThreadPool, Trace, TraceError, TraceOptions,
    generate, trace,
};
use pleach_pack::{PackOptions, Silent, pack};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const EXACT: SessionOptions = SessionOptions {
    context: 64,
    chunk: 32,
    kv: KvType::F32,
    speculate: Speculate::Off,
    ..SessionOptions::DEFAULT
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/xlora-intent")
}

/// The intent model, packed and mapped; and the first expected prompt with PEFT's answer.
struct Intent {
    _folder: tempfile::TempDir,
    file: ModelFile,
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

impl Intent {
    fn new() -> Self {
        let mut options = PackOptions::new(fixtures().join("base"));
        options.xlora = Some(fixtures().join("xlora"));
        let bytes = pack(&options, &mut Silent).unwrap().bytes;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("intent.pleach");
        pleach_pack::write_atomically(&path, &bytes).unwrap();
        let expected = std::fs::read_to_string(fixtures().join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
        let list = |key: &str| -> Vec<u32> {
            let ids = expected["cases"][0][key].as_array().unwrap();
            ids.iter().map(|v| v.as_u64().unwrap() as u32).collect()
        };
        Self {
            _folder: folder,
            file: ModelFile::open(&path).unwrap(),
            prompt: list("prompt"),
            answer: list("generated"),
        }
    }

    fn model(&self) -> Model<'_> {
        Model::parse(self.file.blob().unwrap()).unwrap()
    }

    fn options(&self) -> TraceOptions<'_> {
        TraceOptions::new(EXACT, &self.prompt, self.answer.len())
    }
}

/// A trace without what it cost.
fn bits(t: &Trace) -> Trace {
    let mut t = t.clone();
    t.counters = Counters::default();
    t.arena_bytes = 0;
    t
}

#[test]
fn the_trace_is_pefts_answer_and_has_the_promised_shapes() {
    let intent = Intent::new();
    let t = trace(&intent.model(), &intent.options(), &mut Inline).unwrap();
    assert_eq!(t.generated, intent.answer);
    let [positions, sites, experts] = t.shape;
    assert_eq!(positions, intent.prompt.len() + intent.answer.len() - 1);
    assert_eq!(experts, 4);
    assert_eq!(
        t.scalings.as_ref().unwrap().len(),
        positions * sites * experts
    );
    assert_eq!(t.effective.len(), positions * sites * experts);
    assert_eq!(t.logits.len(), positions * t.vocab);
}

#[test]
fn every_mode_has_the_same_bits() {
    let intent = Intent::new();
    let model = intent.model();
    let reference = trace(&model, &intent.options(), &mut Inline).unwrap();
    for chunk in [1, 2, 7, 32] {
        for speculate in [
            Speculate::Off,
            Speculate::Auto,
            Speculate::Base,
            Speculate::Held,
        ] {
            for (guess, budget) in [
                (None, Budget::UNLIMITED),
                (Some(5), Budget::UNLIMITED),
                (None, Budget(1000)),
            ] {
                let mut options = intent.options();
                options.session.chunk = chunk;
                options.session.speculate = speculate;
                options.limits.force_guess = guess;
                options.limits.budget = budget;
                let t = trace(&model, &options, &mut Inline).unwrap();
                assert_eq!(bits(&t), bits(&reference), "{options:?}");
            }
        }
    }
}

#[test]
fn threads_in_any_order_have_the_same_bits() {
    let intent = Intent::new();
    let model = intent.model();
    let reference = trace(&model, &intent.options(), &mut Inline).unwrap();
    for threads in 1..=4 {
        for order in [ClaimOrder::InOrder, ClaimOrder::Shuffled(threads as u64)] {
            let mut executor = ThreadPool::new(threads).claim(order).inline_below(0);
            let t = trace(&model, &intent.options(), &mut executor).unwrap();
            assert_eq!(bits(&t), bits(&reference), "{executor:?}");
        }
    }
}

#[test]
fn tensors_are_there_in_every_routing() {
    let intent = Intent::new();
    let model = intent.model();
    for (routing, scaled) in [
        (Routing::Exact, true),
        (Routing::Every(3), true),
        (Routing::Lag, true),
        (Routing::Prompt, true),
        (Routing::Static(&[0.25, 0.5, 0.0, -1.0]), false),
        (Routing::Only(1), false),
        (Routing::AllOnes, false),
        (Routing::Base, false),
    ] {
        let mut options = intent.options();
        options.setup.routing = Some(routing);
        let t = trace(&model, &options, &mut Inline).unwrap();
        let [positions, sites, experts] = t.shape;
        assert_eq!(
            t.effective.len(),
            positions * sites * experts,
            "{routing:?}"
        );
        assert_eq!(t.logits.len(), positions * t.vocab, "{routing:?}");
        assert_eq!(t.scalings.is_some(), scaled, "{routing:?}");
        let row = &t.effective[..4];
        match routing {
            Routing::Static(w) => assert_eq!(row, w),
            Routing::Only(_) => assert_eq!(row, [0.0, 1.0, 0.0, 0.0]),
            Routing::AllOnes => assert_eq!(row, [1.0; 4]),
            Routing::Base => assert_eq!(row, [0.0; 4]),
            _ => assert_eq!(row.iter().filter(|v| **v != 0.0).count(), 2, "{routing:?}"),
        }
    }
}

#[test]
fn settings_that_exclude_each_other_are_applied_in_an_order_that_works() {
    let intent = Intent::new();
    let model = intent.model();
    let run = |setup: Setup<'static>| {
        let mut options = intent.options();
        options.setup = setup;
        trace(&model, &options, &mut Inline)
    };
    let value = Setup {
        top_k_lora: Some(None),
        scaling_pass_value: Some(Some(0.25)),
        ..Setup::default()
    };
    let t = run(value).unwrap();
    assert!(t.effective.iter().all(|v| *v != 0.0));
    let both = Setup {
        top_k_lora: Some(Some(2)),
        ..value
    };
    assert!(matches!(
        run(both),
        Err(TraceError::Core(pleach::Error::Option { .. }))
    ));
}

#[test]
fn generation_ends_where_it_must() {
    let intent = Intent::new();
    let model = intent.model();
    let eos = *intent.answer.last().unwrap();
    let run = |context: usize, limits: &Limits<'_>| {
        let options = SessionOptions {
            context: context as u32,
            ..EXACT
        };
        let mut arena = Arena::new(model.arena_bytes(&options)).unwrap();
        let mut session = pleach::Session::new(model, &options, arena.bytes()).unwrap();
        let kernels = pleach::Kernels::detect();
        let done = generate(
            &mut session,
            kernels,
            &mut Inline,
            &intent.prompt,
            limits,
            &mut (),
        );
        (done, session.len())
    };
    let n = intent.prompt.len();

    let (done, len) = run(64, &Limits::new(60, &[eos]));
    assert_eq!(done.as_ref().unwrap().tokens, intent.answer);
    assert_eq!(
        (done.unwrap().end, len),
        (End::Stop, n + intent.answer.len() - 1)
    );

    let (done, len) = run(64, &Limits::new(2, &[eos]));
    assert_eq!(done.as_ref().unwrap().tokens, intent.answer[..2]);
    assert_eq!((done.unwrap().end, len), (End::Limit, n + 1));

    let (done, len) = run(64, &Limits::new(0, &[]));
    assert_eq!((done.unwrap().tokens.len(), len), (0, n));

    let (done, len) = run(n + 1, &Limits::new(60, &[eos]));
    assert_eq!(done.as_ref().unwrap().tokens, intent.answer[..2]);
    assert_eq!((done.unwrap().end, len), (End::Context, n + 1));

    let (done, _) = run(n - 1, &Limits::new(1, &[]));
    assert!(matches!(done, Err(pleach::Error::ContextFull { .. })));
}

#[test]
fn traces_that_do_not_fit_or_are_interrupted() {
    let intent = Intent::new();
    let mut options = intent.options();
    options.session.context = (intent.prompt.len() + intent.answer.len() - 2) as u32;
    let refused = trace(&intent.model(), &options, &mut Inline);
    assert!(matches!(
        refused,
        Err(TraceError::Core(pleach::Error::ContextFull { .. }))
    ));

    let flag = AtomicBool::new(true);
    let mut options = intent.options();
    options.interrupt = Some(&flag);
    let t = trace(&intent.model(), &options, &mut Inline).unwrap();
    assert_eq!((t.end, t.generated.len()), (End::Interrupted, 0));
}
