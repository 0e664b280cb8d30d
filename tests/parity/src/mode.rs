//! The modes in which a session can do the same work, as data.

use crate::trace::Trace;
use pleach::{
    Budget, Caches, Error, Executor, Guess, Inline, Kernels, KvType, LogitsKind, Model, Progress,
    Routing, Sampling, Session, SessionOptions, Speculate,
};
use pleach_linux::{Arena, ClaimOrder, ThreadPool};

/// How a prompt reaches the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Token by token, each run to its end before the next; only the last logits are kept.
    One,
    /// Whole: the sweeps are pipelined.
    Whole,
    /// A chunk, run to its end, the next chunk: not pipelined.
    Chunks,
}

/// What the speculative pass guesses with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guesses {
    /// With the draw that the caller will make.
    Natural,
    /// A token that never comes: every guess is wrong.
    Wrong,
}

/// One way to run a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// How the prompt is fed.
    pub feed: Feed,
    /// Tokens of a prompt in one sweep.
    pub chunk: u32,
    /// Whether sweeps carry guesses.
    pub speculate: Speculate,
    /// Which ones.
    pub guesses: Guesses,
    /// MACs of one step.
    pub budget: Budget,
    /// Threads that claim tiles in a shuffled order; 1: the caller's own.
    pub threads: usize,
    /// The backend; `None`: see [`Mode::kernels`].
    pub backend: Option<Kernels>,
}

impl Mode {
    /// Token by token, two sweeps each: what all others must equal.
    pub const NAIVE: Mode = Mode {
        feed: Feed::One,
        chunk: 1,
        speculate: Speculate::Off,
        guesses: Guesses::Natural,
        budget: Budget::UNLIMITED,
        threads: 1,
        backend: None,
    };

    /// A whole prompt in chunks, pipelined.
    pub const fn whole(chunk: u32) -> Mode {
        Mode {
            feed: Feed::Whole,
            chunk,
            ..Mode::NAIVE
        }
    }

    /// The same with guesses.
    pub const fn speculating(self, speculate: Speculate, guesses: Guesses) -> Mode {
        Mode {
            speculate,
            guesses,
            ..self
        }
    }

    /// The same in steps.
    pub const fn budget(self, macs: u32) -> Mode {
        Mode {
            budget: Budget(macs),
            ..self
        }
    }

    /// The same on threads.
    pub const fn threads(self, threads: usize) -> Mode {
        Mode { threads, ..self }
    }

    /// The same on a backend.
    pub const fn on(self, kernels: Kernels) -> Mode {
        Mode {
            backend: Some(kernels),
            ..self
        }
    }

    /// Unless a backend is named, scalar kernels for the naive mode, the CPU's best for all others: every comparison
    /// with the naive bits compares backends too.
    pub fn kernels(&self) -> Kernels {
        match (self.backend, self.feed) {
            (Some(kernels), _) => kernels,
            (None, Feed::One) => Kernels::portable(),
            (None, _) => Kernels::detect(),
        }
    }

    /// `whole7+held+wrong+budget1000+threads3`.
    pub fn name(&self) -> String {
        let mut name = match self.feed {
            Feed::One => "naive".to_owned(),
            Feed::Whole => format!("whole{}", self.chunk),
            Feed::Chunks => format!("chunks{}", self.chunk),
        };
        match self.speculate {
            Speculate::Off => {}
            Speculate::Auto => name += "+auto",
            Speculate::Base => name += "+base",
            Speculate::Held => name += "+held",
        }
        if self.guesses == Guesses::Wrong {
            name += "+wrong";
        }
        if self.budget != Budget::UNLIMITED {
            name += &format!("+budget{}", self.budget.0);
        }
        if self.threads > 1 {
            name += &format!("+threads{}", self.threads);
        }
        if let Some(kernels) = self.backend {
            name += &format!("+{}", kernels.name());
        }
        name
    }

    /// Every combination of the ways to feed, to guess, to bound and to thread; the first is
    /// [`Mode::NAIVE`]. With Budget(1) a piece of work is one tile, which no thread can split: there one
    /// thread stands for all.
    pub fn product() -> Vec<Mode> {
        let mut modes = Vec::new();
        for speculate in [
            (Speculate::Off, Guesses::Natural),
            (Speculate::Base, Guesses::Natural),
            (Speculate::Held, Guesses::Natural),
            (Speculate::Base, Guesses::Wrong),
            (Speculate::Held, Guesses::Wrong),
        ] {
            modes.extend(
                Self::without_guesses()
                    .into_iter()
                    .map(|m| m.speculating(speculate.0, speculate.1)),
            );
        }
        modes
    }

    /// [`Mode::product`] without speculation: what routings other than exact can do.
    pub fn without_guesses() -> Vec<Mode> {
        let feeds = [
            (Feed::One, 1),
            (Feed::Whole, 1),
            (Feed::Whole, 2),
            (Feed::Whole, 7),
            (Feed::Whole, 32),
            (Feed::Chunks, 2),
            (Feed::Chunks, 7),
            (Feed::Chunks, 32),
        ];
        let mut modes = Vec::new();
        for (feed, chunk) in feeds {
            for (budget, threads) in [(u32::MAX, 4), (1000, 4), (1, 1)] {
                for threads in 1..=threads {
                    modes.push(Mode {
                        feed,
                        chunk,
                        budget: Budget(budget),
                        threads,
                        ..Mode::NAIVE
                    });
                }
            }
        }
        modes
    }
}

/// What [`Text::new`] draws with.
static GREEDY: Sampling = Sampling::GREEDY;

/// What is run: a prompt, and how it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Its tokens.
    pub prompt: &'a [u32],
    /// Tokens to draw; the last one is not pushed.
    pub generate: usize,
    /// How; the guesses are drawn so too.
    pub sampling: &'a Sampling,
    /// Tokens to push instead of those drawn, as far as they go.
    pub forced: &'a [u32],
    /// A token that never comes, for [`Guesses::Wrong`].
    pub wrong: u32,
}

impl<'a> Text<'a> {
    /// A prompt and a number of greedy tokens.
    pub const fn new(prompt: &'a [u32], generate: usize) -> Self {
        Self {
            prompt,
            generate,
            sampling: &GREEDY,
            forced: &[],
            wrong: 0,
        }
    }
}

/// What a session computes, whatever the mode.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Storage of keys and values.
    pub kv: KvType,
    /// One or two caches.
    pub caches: Caches,
    /// `None`: the session's default.
    pub routing: Option<Routing<'a>>,
    /// A scaling pass value to set (`Some(None)`: 1 / experts).
    pub scaling_pass_value: Option<Option<f32>>,
}

impl Setup<'_> {
    /// Exact routing with two caches.
    pub const fn exact(kv: KvType) -> Self {
        Self {
            kv,
            caches: Caches::Two,
            routing: None,
            scaling_pass_value: None,
        }
    }
}

/// A session's options for `mode` and `text`.
pub fn options(mode: &Mode, setup: &Setup<'_>, text: &Text<'_>) -> SessionOptions {
    SessionOptions {
        context: (text.prompt.len() + text.generate).max(1) as u32,
        chunk: mode.chunk,
        kv: setup.kv,
        caches: setup.caches,
        logits: match mode.feed {
            Feed::One => LogitsKind::Last,
            Feed::Whole | Feed::Chunks => LogitsKind::Sweep,
        },
        speculate: mode.speculate,
        ..SessionOptions::DEFAULT
    }
}

/// Runs `text` over `model` in `mode`.
///
/// Errors: the session's. Panics if the session hides a position that it must show.
pub fn run(
    model: Model<'_>,
    mode: &Mode,
    setup: &Setup<'_>,
    text: &Text<'_>,
) -> Result<Trace, Error> {
    let options = options(mode, setup, text);
    let mut arena = Arena::new(model.arena_bytes(&options)).expect("memory");
    let mut session = Session::new(model, &options, arena.bytes())?;
    if let Some(value) = setup.scaling_pass_value {
        session.set_scaling_pass_value(value)?;
    }
    if let Some(routing) = setup.routing {
        session.set_routing(routing)?;
    }
    session.set_guess(Guess {
        sampling: text.sampling.clone(),
        force: (mode.guesses == Guesses::Wrong).then_some(text.wrong),
        ..Guess::default()
    });
    let mut trace = Trace {
        width: model.n_sites() * model.n_experts(),
        vocab: model.config().vocab as usize,
        ..Trace::default()
    };
    let mut threads = ThreadPool::new(mode.threads)
        .claim(ClaimOrder::Shuffled(mode.threads as u64))
        .inline_below(0);
    let executor: &mut dyn Executor = match mode.threads {
        1 => &mut Inline,
        _ => &mut threads,
    };
    let pieces = match mode.feed {
        Feed::One => 1,
        Feed::Whole => text.prompt.len().max(1),
        Feed::Chunks => mode.chunk as usize,
    };
    for piece in text.prompt.chunks(pieces) {
        session.push(piece)?;
        finish(&mut session, mode, executor, &mut trace)?;
    }
    for n in 0..text.generate {
        let drawn = session.sample(text.sampling)?;
        trace.generated.push(drawn);
        if n + 1 < text.generate {
            session.push(&[text.forced.get(n).copied().unwrap_or(drawn)])?;
            finish(&mut session, mode, executor, &mut trace)?;
        }
    }
    trace.counters = session.counters();
    Ok(trace)
}

/// Steps until all is committed, and takes down every position as its sweep ends.
fn finish(
    session: &mut Session<'_, '_>,
    mode: &Mode,
    executor: &mut dyn Executor,
    trace: &mut Trace,
) -> Result<(), Error> {
    let kernels = mode.kernels();
    loop {
        let progress = session.step(kernels, executor, mode.budget)?;
        for p in trace.len()..session.committed() {
            take(session, p, trace);
        }
        if progress == Progress::Ready {
            return Ok(());
        }
    }
}

fn take(session: &Session<'_, '_>, position: usize, trace: &mut Trace) {
    let sites = session.model().n_sites();
    let (scalings, effective) = (
        session.scalings_at(position),
        session.effective_at(position),
    );
    for site in 0..sites {
        if let Some(s) = &scalings {
            trace.scalings.extend_from_slice(s.row(0, site));
        }
        if let Some(s) = &effective {
            trace.effective.extend_from_slice(s.row(0, site));
        }
    }
    let logits = session.logits_at(position);
    trace
        .logits
        .extend_from_slice(logits.unwrap_or_else(|| panic!("no logits of position {position}")));
}
