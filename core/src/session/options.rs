//! How a session is set up, and what its calls return.

pub use crate::kernels::attention::KvType;

use crate::blob::Model;
use crate::error::Error;

/// Positions that the arithmetic of the rotary embedding is tested for.
pub(crate) const MAX_CONTEXT: u32 = 1 << 17;
/// Columns fit the records' 16-bit fields.
const MAX_CHUNK: u32 = 1 << 12;

/// Whether the two passes have a cache each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// One: enough for `prompt`, static, `only`, `all-ones` and `base` routing.
    One,
    /// Two: exact routing.
    Two,
}

/// Which logits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsKind {
    /// Those of the last pushed token.
    Last,
    /// Those of every token that the latest sweep committed.
    Sweep,
}

/// Whether a sweep also works on a guess of the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speculate {
    /// By a rule on the last 64 tokens the held guess, the base guess or none: what then seems cheapest where
    /// reading weights is what takes time. It changes no bits; the arena is that of `Held` and one more row of logits.
    Auto,
    /// No.
    Off,
    /// The scaling pass's own logits guess: free, right where the base often agrees.
    Base,
    /// A third column guesses with the scalings of the token before: right most of the time.
    Held,
}

/// What decides the size of a session's arena.
///
/// ```
/// use pleach::{KvType, SessionOptions};
/// const OPTIONS: SessionOptions = SessionOptions { context: 128, ..SessionOptions::DEFAULT };
/// assert_eq!(OPTIONS.kv, KvType::F16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SessionOptions {
    /// Tokens that the session can hold, 1..=131072, and at most the base's attention [`window`](Model::window).
    pub context: u32,
    /// Tokens of a prompt that one sweep takes, 1..=4096.
    pub chunk: u32,
    /// How keys and values are stored.
    pub kv: KvType,
    /// One or two caches.
    pub caches: Caches,
    /// Which logits are kept.
    pub logits: LogitsKind,
    /// Tokens that the scalings log has room for.
    pub log_tokens: u32,
    /// Embedding rows that may wait at once, for [`push_embeddings`](crate::Session::push_embeddings).
    pub embedding_rows: u32,
    /// Whether sweeps carry guesses.
    pub speculate: Speculate,
}

impl SessionOptions {
    /// A microcontroller's: context 64, chunk 1, f16 caches, last logits, no log, no speculation.
    pub const DEFAULT: SessionOptions = SessionOptions {
        context: 64,
        chunk: 1,
        kv: KvType::F16,
        caches: Caches::Two,
        logits: LogitsKind::Last,
        log_tokens: 0,
        embedding_rows: 0,
        speculate: Speculate::Off,
    };

    pub(crate) const fn guess_columns(&self) -> usize {
        match self.speculate {
            Speculate::Off => 0,
            Speculate::Base => 1,
            Speculate::Auto | Speculate::Held => 2,
        }
    }

    /// Columns of a sweep that guess.
    pub(crate) const fn guess_heads(&self) -> usize {
        match self.speculate {
            Speculate::Off => 0,
            Speculate::Base | Speculate::Held => 1,
            Speculate::Auto => 2,
        }
    }

    pub(crate) const fn check(&self, model: &Model<'_>) -> Result<(), Error> {
        let why = if self.context == 0 || self.context > MAX_CONTEXT {
            "context must lie within 1..=131072"
        } else if let Some(window) = model.window()
            && self.context > window
        {
            "context is larger than the attention window of the base"
        } else if self.chunk == 0 || self.chunk > MAX_CHUNK {
            "chunk must lie within 1..=4096"
        } else if !matches!(self.speculate, Speculate::Off)
            && (matches!(self.caches, Caches::One) || !model.has_classifier())
        {
            "speculation needs a classifier and two caches"
        } else {
            return Ok(());
        };
        Err(Error::Option { why })
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which scalings a token gets in the routed pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Routing<'a> {
    /// Its own: PEFT's answer.
    Exact,
    /// Those of position p - p mod n.
    Every(u32),
    /// In the first push after new or `rewind(0)` its own; later those of the token before.
    Lag,
    /// Those of the last token of the first push after new or `rewind(0)`.
    Prompt,
    /// These, one per expert, at every site: no top-k, the global weight applies.
    Static(&'a [f32]),
    /// Weight 1 for one expert, by class index; the global weight is unused.
    Only(u16),
    /// No expert.
    Base,
    /// Weight 1 for every expert; the global weight is unused.
    AllOnes,
}

/// How much one step may compute, in multiply-accumulates. Nothing is cut below these, so a step computes at least one
/// of them, and its last may exceed the budget:
///
/// | of | at once, for all columns |
/// |---|---|
/// | matrices, the classifier, the head | 16 rows |
/// | A of the selected experts | 4 rows |
/// | attention: scores, softmax, mix | 256 positions of a KV head, with all its query heads |
/// | embedding, norms, rotary embedding, keys and values stored, heads gathered, activation, routing | all of it |
///
/// With the first unit of an operation comes what its rows share: the choice of experts, the quantised input, maxima and
/// denominators. With the last of a sweep come the check of its logits and the draws of its guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub u32);

impl Budget {
    /// To the end of the sweep.
    pub const UNLIMITED: Budget = Budget(u32::MAX);
}

/// Whether a session has work left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Progress {
    /// Call [`step`](crate::Session::step) again.
    More,
    /// Every pushed token is committed.
    Ready,
}

/// What a session has done since it was made. Guessed columns count where they cost, never as tokens. Bytes and
/// multiply-accumulates count as their operations begin, also in a sweep that fails or is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// Sweeps that were committed, each a read of the base's weights.
    pub sweeps: u64,
    /// Columns in them.
    pub columns: u64,
    /// Packed bytes of the tensors that operations ran over, once a sweep; of embedding tables one row a
    /// column.
    pub weight_bytes: u64,
    /// Of these, the classifier's.
    pub classifier_bytes: u64,
    /// Bytes of keys and values that attention read.
    pub kv_bytes: u64,
    /// Guessed tokens that the caller's next token was compared with.
    pub guesses: u64,
    /// Guesses that were right.
    pub hits: u64,
    /// Of the guesses, the held guesser's; the others are the base's.
    pub held_guesses: u64,
    /// Of these, those that were right.
    pub held_hits: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Of these, the classifier's.
    pub classifier_macs: u64,
}

impl Counters {
    /// What was counted since `earlier`, counters of the same session.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            sweeps: self.sweeps.saturating_sub(earlier.sweeps),
            columns: self.columns.saturating_sub(earlier.columns),
            weight_bytes: self.weight_bytes.saturating_sub(earlier.weight_bytes),
            classifier_bytes: self
                .classifier_bytes
                .saturating_sub(earlier.classifier_bytes),
            kv_bytes: self.kv_bytes.saturating_sub(earlier.kv_bytes),
            guesses: self.guesses.saturating_sub(earlier.guesses),
            hits: self.hits.saturating_sub(earlier.hits),
            held_guesses: self.held_guesses.saturating_sub(earlier.held_guesses),
            held_hits: self.held_hits.saturating_sub(earlier.held_hits),
            macs: self.macs.saturating_sub(earlier.macs),
            classifier_macs: self.classifier_macs.saturating_sub(earlier.classifier_macs),
        }
    }
}
