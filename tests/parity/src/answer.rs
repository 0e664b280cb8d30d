//! An answer to a prompt, and the sweeps that it took.

use pleach::{Error, Executor, Kernels, Session};
use pleach_linux::{Limits, Watch, generate};
use std::ops::{ControlFlow, Range};

/// What was written.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The tokens, with the one that ended it.
    pub tokens: Vec<u32>,
    /// Sweeps until the prompt was committed.
    pub prompt_sweeps: u64,
    /// Sweeps after that.
    pub sweeps: u64,
}

impl Answer {
    /// Tokens after the first one, which the prompt's logits give.
    pub fn later_tokens(&self) -> u64 {
        (self.tokens.len() as u64).saturating_sub(1)
    }
}

/// Answers a prompt in an empty session.
///
/// Errors: the session's.
pub fn answer(
    session: &mut Session<'_, '_>,
    executor: &mut dyn Executor,
    prompt: &[u32],
    limits: &Limits<'_>,
) -> Result<Answer, Error> {
    let before = session.counters().sweeps;
    let mut mark = Mark {
        position: prompt.len(),
        sweeps: None,
    };
    let kernels = Kernels::detect();
    let done = generate(session, kernels, executor, prompt, limits, &mut mark)?;
    let prompted = mark.sweeps.unwrap_or(before);
    Ok(Answer {
        tokens: done.tokens,
        prompt_sweeps: prompted - before,
        sweeps: session.counters().sweeps - prompted,
    })
}

/// Takes down the sweeps when a position is committed.
struct Mark {
    position: usize,
    sweeps: Option<u64>,
}

impl Watch for Mark {
    fn sweep(&mut self, session: &Session<'_, '_>, positions: Range<usize>) -> ControlFlow<()> {
        if positions.end >= self.position {
            self.sweeps.get_or_insert(session.counters().sweeps);
        }
        ControlFlow::Continue(())
    }
}
