//! How well a model file predicts a text, and how far it strays from a reference.

use pleach::{
    Budget, Error, Executor, Kernels, KvType, LogitsKind, Model, Progress, Routing, Session,
    SessionOptions, Speculate,
};
use pleach_linux::{Arena, ThreadPool};

/// A text whose tokens from `scored` on are to be predicted, each from all before it.
#[derive(Clone, Debug)]
pub struct Passage {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The first predicted one, at least 1. What stands before is the first push, the prompt.
    pub scored: usize,
}

impl Passage {
    /// The predicted tokens.
    pub fn targets(&self) -> &[u32] {
        self.tokens.get(self.scored..).unwrap_or(&[])
    }

    /// Cuts a long text into passages of at most `len` tokens, each predicted from its second token on.
    pub fn windows(tokens: &[u32], len: usize) -> Vec<Passage> {
        let pieces = tokens.chunks(len).filter(|p| p.len() > 1);
        pieces
            .map(|p| Passage {
                tokens: p.to_vec(),
                scored: 1,
            })
            .collect()
    }
}

/// What was found over the predicted tokens of some passages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Predicted tokens.
    pub tokens: usize,
    /// Sum of their negative log-likelihoods, in nats.
    pub nll: f64,
    /// The same under the reference.
    pub reference_nll: f64,
    /// Sum over them of the KL divergence of this distribution from the reference's, in nats.
    pub kl: f64,
    /// How often the largest logit is the reference's.
    pub agree: usize,
}

impl Figures {
    /// exp of the mean negative log-likelihood.
    pub fn perplexity(&self) -> f64 {
        (self.nll / self.tokens.max(1) as f64).exp()
    }

    /// The reference's.
    pub fn reference_perplexity(&self) -> f64 {
        (self.reference_nll / self.tokens.max(1) as f64).exp()
    }

    /// Mean KL divergence per token, in nats.
    pub fn mean_kl(&self) -> f64 {
        self.kl / self.tokens.max(1) as f64
    }

    /// Share of tokens on which both have the same largest logit.
    pub fn agreement(&self) -> f64 {
        self.agree as f64 / self.tokens.max(1) as f64
    }

    /// Adds a passage: `logits` and the reference's, `[targets][vocab]` each.
    pub fn add(&mut self, targets: &[u32], logits: &[f32], reference: &[f32]) {
        let vocab = logits.len() / targets.len().max(1);
        let rows = logits.chunks_exact(vocab.max(1));
        let references = reference.chunks_exact(vocab.max(1));
        for ((target, row), reference) in targets.iter().zip(rows).zip(references) {
            let (q, p) = (LogSoftmax::new(row), LogSoftmax::new(reference));
            self.tokens += 1;
            self.nll -= q.of(row[*target as usize]);
            self.reference_nll -= p.of(reference[*target as usize]);
            for (a, b) in reference.iter().zip(row) {
                let log_p = p.of(*a);
                self.kl += log_p.exp() * (log_p - q.of(*b));
            }
            self.agree +=
                usize::from(pleach::sample::argmax(row) == pleach::sample::argmax(reference));
        }
    }
}

/// log softmax of a row, in f64.
struct LogSoftmax {
    shift: f64,
}

impl LogSoftmax {
    fn new(row: &[f32]) -> Self {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        Self {
            shift: f64::from(max) + sum.ln(),
        }
    }

    fn of(&self, logit: f32) -> f64 {
        f64::from(logit) - self.shift
    }
}

/// Tokens that one sweep of a prompt takes.
pub const CHUNK: u32 = 32;

/// Reads passages over one model in one routing.
pub struct Reader<'m> {
    model: Model<'m>,
    options: SessionOptions,
    arena: Arena,
    threads: ThreadPool,
}

impl<'m> Reader<'m> {
    /// For passages of at most `context` tokens, on all threads of the machine.
    pub fn new(model: Model<'m>, context: usize, kv: KvType) -> Self {
        let options = SessionOptions {
            context: context as u32,
            chunk: CHUNK,
            kv,
            logits: LogitsKind::Sweep,
            speculate: Speculate::Off,
            ..SessionOptions::DEFAULT
        };
        Self {
            model,
            options,
            arena: Arena::new(model.arena_bytes(&options)).expect("memory"),
            threads: ThreadPool::available(),
        }
    }

    /// Calls `heard` with each passage's number and the logits that predict its targets, `[targets][vocab]`.
    ///
    /// Errors: the session's.
    pub fn read(
        &mut self,
        routing: Routing<'_>,
        passages: &[Passage],
        mut heard: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let mut session = Session::new(self.model, &self.options, self.arena.bytes())?;
        session.set_routing(routing)?;
        let mut logits = Vec::new();
        for (n, passage) in passages.iter().enumerate() {
            logits.clear();
            session.rewind(0)?;
            let first = passage.scored - 1;
            let (prompt, rest) = passage.tokens.split_at(passage.scored);
            let rest = rest.split_last().map_or(rest, |(_, head)| head);
            for piece in [prompt, rest] {
                if piece.is_empty() {
                    continue;
                }
                session.push(piece)?;
                collect(&mut session, &mut self.threads, first, &mut logits)?;
            }
            heard(n, &logits);
        }
        Ok(())
    }
}

/// Runs what is pushed and appends the logits of every position from `first` on.
fn collect(
    session: &mut Session<'_, '_>,
    executor: &mut dyn Executor,
    first: usize,
    logits: &mut Vec<f32>,
) -> Result<(), Error> {
    loop {
        let before = session.committed();
        let progress = session.step(Kernels::detect(), executor, Budget::UNLIMITED)?;
        for position in before.max(first)..session.committed() {
            logits.extend_from_slice(session.logits_at(position).unwrap_or(&[]));
        }
        if progress == Progress::Ready {
            return Ok(());
        }
    }
}

/// One file under one routing.
#[derive(Clone, Copy)]
pub struct Subject<'m, 'r> {
    /// The model.
    pub model: Model<'m>,
    /// Its routing.
    pub routing: Routing<'r>,
}

/// Reads passages with a reference and with some subjects, and compares each with the reference. `heard` is told
/// how many passages are done.
///
/// Errors: the session's.
pub fn compare(
    reference: Subject<'_, '_>,
    subjects: &[Subject<'_, '_>],
    passages: &[Passage],
    mut heard: impl FnMut(usize),
) -> Result<Vec<Figures>, Error> {
    let context = passages.iter().map(|p| p.tokens.len()).max().unwrap_or(1);
    let mut theirs = Reader::new(reference.model, context, KvType::F32);
    let mut ours: Vec<_> = subjects
        .iter()
        .map(|s| Reader::new(s.model, context, KvType::F32))
        .collect();
    let mut figures = vec![Figures::default(); subjects.len()];
    let mut expected = Vec::new();
    for (n, passage) in passages.iter().enumerate() {
        let one = std::slice::from_ref(passage);
        theirs.read(reference.routing, one, |_, logits| {
            expected.clear();
            expected.extend_from_slice(logits);
        })?;
        let rows = subjects.iter().zip(&mut ours).zip(&mut figures);
        for ((subject, reader), figures) in rows {
            reader.read(subject.routing, one, |_, logits| {
                figures.add(passage.targets(), logits, &expected);
            })?;
        }
        heard(n + 1);
    }
    Ok(figures)
}

/// Reads passages with one subject alone.
///
/// Errors: the session's.
pub fn measure(subject: Subject<'_, '_>, passages: &[Passage]) -> Result<Figures, Error> {
    let context = passages.iter().map(|p| p.tokens.len()).max().unwrap_or(1);
    let mut figures = Figures::default();
    let mut reader = Reader::new(subject.model, context, KvType::F32);
    reader.read(subject.routing, passages, |n, logits| {
        figures.add(passages[n].targets(), logits, logits);
    })?;
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL(p, q) = 1/4 ln 2, the token's nll is ln 4.
        let ln = |p: f64| p.ln() as f32;
        let p = [ln(0.5), ln(0.25), ln(0.25)];
        let q = [ln(0.25) + 3.0, ln(0.5) + 3.0, ln(0.25) + 3.0];
        let mut f = Figures::default();
        f.add(&[0], &q, &p);
        assert!((f.mean_kl() - 0.25 * 2f64.ln()).abs() < 1e-6);
        assert!((f.perplexity() - 4.0).abs() < 1e-5);
        assert!((f.reference_perplexity() - 2.0).abs() < 1e-5);
        assert_eq!((f.tokens, f.agreement()), (1, 0.0));
        f.add(&[1], &p, &p);
        assert_eq!((f.tokens, f.agreement()), (2, 0.5));
    }

    #[test]
    fn windows_predict_all_but_their_first_tokens() {
        let w = Passage::windows(&[1, 2, 3, 4, 5, 6, 7], 3);
        assert_eq!(w.len(), 2);
        assert_eq!(w[1].targets(), [5, 6]);
    }
}
