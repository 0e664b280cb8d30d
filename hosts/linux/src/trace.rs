//! A text with every number that decided it: scalings, effective scalings, logits, and their hash.

use crate::arena::{Arena, OutOfMemory};
use crate::generate::{End, Limits, Watch, generate};
use crate::setup::Setup;
use pleach::hash::Fnv1a;
use pleach::{
    Counters, Error, Executor, Kernels, LogitsKind, Model, Scalings, Session, SessionOptions,
};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};

/// What to trace.
#[derive(Clone, Debug)]
pub struct TraceOptions<'a> {
    /// The session; its logits are always kept for every position.
    pub session: SessionOptions,
    /// What differs from the model file.
    pub setup: Setup<'a>,
    /// The prompt.
    pub tokens: &'a [u32],
    /// How many tokens follow, where to stop, how to guess, how much a step computes.
    pub limits: Limits<'a>,
    /// Which kernels.
    pub kernels: Kernels,
    /// Whether the tensors are kept; the hash is computed in any case.
    pub tensors: bool,
    /// Read after every sweep: whether to end early, with [`End::Interrupted`].
    pub interrupt: Option<&'a AtomicBool>,
}

impl<'a> TraceOptions<'a> {
    /// A trace of `tokens` and of `generate` greedy ones after them, tensors kept.
    pub fn new(session: SessionOptions, tokens: &'a [u32], generate: usize) -> Self {
        Self {
            session,
            setup: Setup::default(),
            tokens,
            limits: Limits::new(generate, &[]),
            kernels: Kernels::detect(),
            tensors: true,
            interrupt: None,
        }
    }
}

/// A traced text of S = prompt + max(generated - 1, 0) positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// `[S][sites][experts]`, before top-k; `None` where no scaling pass ran.
    pub scalings: Option<Vec<f32>>,
    /// `[S][sites][experts]`, what the gates used.
    pub effective: Vec<f32>,
    /// `[S][vocab]`.
    pub logits: Vec<f32>,
    /// The generated tokens.
    pub generated: Vec<u32>,
    /// Why there are no more.
    pub end: End,
    /// S, sites, experts.
    pub shape: [usize; 3],
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// What it took.
    pub counters: Counters,
    /// Bytes of the session's arena.
    pub arena_bytes: usize,
    hash: Fnv1a,
}

impl Trace {
    /// FNV-1a 64 over, position by position, the scalings (if any) and then the logits.
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }
}

/// Why there is no trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TraceError {
    /// The core refused.
    Core(Error),
    /// No memory for the arena.
    Memory(OutOfMemory),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::Core(e) => e.fmt(f),
            TraceError::Memory(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TraceError::Core(e) => Some(e),
            TraceError::Memory(e) => Some(e),
        }
    }
}

impl From<Error> for TraceError {
    fn from(e: Error) -> Self {
        TraceError::Core(e)
    }
}

impl From<OutOfMemory> for TraceError {
    fn from(e: OutOfMemory) -> Self {
        TraceError::Memory(e)
    }
}

/// Traces a text.
///
/// Errors: [`Error::ContextFull`] if not all S positions fit, before anything is computed; as
/// [`Session::new`], its setters and [`generate`].
pub fn trace(
    model: &Model<'_>,
    options: &TraceOptions<'_>,
    executor: &mut dyn Executor,
) -> Result<Trace, TraceError> {
    let session_options = SessionOptions {
        logits: LogitsKind::Sweep,
        ..options.session
    };
    let last = options.limits.tokens.saturating_sub(1);
    let context = session_options.context;
    if options.tokens.len().saturating_add(last) > context as usize {
        return Err(Error::ContextFull { context }.into());
    }
    let arena_bytes = model.arena_bytes(&session_options);
    let mut arena = Arena::new(arena_bytes)?;
    let mut session = Session::new(*model, &session_options, arena.bytes())?;
    options.setup.apply(&mut session)?;
    let mut recorder = Recorder {
        scalings: Vec::new(),
        effective: Vec::new(),
        logits: Vec::new(),
        hash: Fnv1a::new(),
        scaled: false,
        tensors: options.tensors,
        missing: None,
        interrupt: options.interrupt,
    };
    let generation = generate(
        &mut session,
        options.kernels,
        executor,
        options.tokens,
        &options.limits,
        &mut recorder,
    )?;
    if let Some(why) = recorder.missing {
        return Err(Error::Refused { why }.into());
    }
    Ok(Trace {
        scalings: recorder.scaled.then_some(recorder.scalings),
        effective: recorder.effective,
        logits: recorder.logits,
        generated: generation.tokens,
        end: generation.end,
        shape: [session.committed(), model.n_sites(), model.n_experts()],
        vocab: model.config().vocab as usize,
        counters: session.counters(),
        arena_bytes,
        hash: recorder.hash,
    })
}

/// Keeps what each sweep committed.
struct Recorder<'f> {
    scalings: Vec<f32>,
    effective: Vec<f32>,
    logits: Vec<f32>,
    hash: Fnv1a,
    scaled: bool,
    tensors: bool,
    missing: Option<&'static str>,
    interrupt: Option<&'f AtomicBool>,
}

impl Watch for Recorder<'_> {
    fn sweep(&mut self, session: &Session<'_, '_>, positions: Range<usize>) -> ControlFlow<()> {
        for position in positions {
            let scalings = session.scalings_at(position);
            self.scaled = scalings.is_some();
            for row in scalings.iter().flat_map(rows) {
                self.hash.floats(row);
                if self.tensors {
                    self.scalings.extend(row);
                }
            }
            let effective = session.effective_at(position);
            if self.tensors {
                effective
                    .iter()
                    .flat_map(rows)
                    .for_each(|r| self.effective.extend(r));
            }
            let Some(logits) = session.logits_at(position) else {
                self.missing = Some("a committed position without logits");
                return ControlFlow::Break(());
            };
            self.hash.floats(logits);
            if self.tensors {
                self.logits.extend(logits);
            }
        }
        match self.interrupt {
            Some(flag) if flag.load(Ordering::Relaxed) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The rows of one token, site by site.
fn rows<'a>(scalings: &Scalings<'a>) -> impl Iterator<Item = &'a [f32]> + use<'a> {
    let scalings = *scalings;
    let [_, sites, _] = scalings.shape();
    (0..sites).map(move |site| scalings.row(0, site))
}
