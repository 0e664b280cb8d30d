//! A pleach session that does what the peer does.

use crate::Result;
use pleach::{Counters, Executor, Kernels, KvType, Model, Session, SessionOptions};
use pleach_linux::ThreadPool;
use std::time::Instant;

/// Options like llama.cpp's defaults: f16 keys and values, logits of the last token.
pub fn options(context: usize, chunk: usize) -> SessionOptions {
    SessionOptions {
        context: context as u32,
        chunk: chunk as u32,
        kv: KvType::F16,
        ..SessionOptions::DEFAULT
    }
}

/// What runs the rows, as `pleach --threads` does it.
pub fn executor(threads: usize) -> ThreadPool {
    ThreadPool::new(threads)
}

/// Work, its time and its counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Seconds.
    pub seconds: f64,
    /// What it read and computed.
    pub counters: Counters,
}

impl Done {
    /// Bytes of weights, keys and values that were read.
    pub fn bytes(&self) -> u64 {
        self.counters.weight_bytes + self.counters.kv_bytes
    }
}

/// A session, and what computes for it.
pub struct Ours<'b, 'a> {
    /// The session.
    pub session: Session<'b, 'a>,
    kernels: Kernels,
}

impl<'b, 'a> Ours<'b, 'a> {
    /// A session at length 0 with the best kernels here.
    pub fn new(model: Model<'b>, options: &SessionOptions, arena: &'a mut [u8]) -> Result<Self> {
        let session = Session::new(model, options, arena).map_err(refused)?;
        Ok(Self {
            session,
            kernels: Kernels::detect(),
        })
    }

    /// The same with these kernels.
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Self { kernels, ..self }
    }

    /// Their name.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name()
    }

    /// Which of them ran since [`Ran::forget`](crate::bars::Ran::forget), in whatever session.
    #[cfg(feature = "commands")]
    pub fn ran(&self) -> crate::bars::Ran {
        crate::bars::Ran::on(self.kernels)
    }

    /// A new text.
    pub fn prompt(&mut self, tokens: &[u32], executor: &mut dyn Executor) -> Result<Done> {
        self.session.rewind(0).map_err(refused)?;
        self.push(tokens, executor)
    }

    /// More tokens, all at once.
    pub fn push(&mut self, tokens: &[u32], executor: &mut dyn Executor) -> Result<Done> {
        let before = self.session.counters();
        let start = Instant::now();
        self.session.push(tokens).map_err(refused)?;
        self.session.run(self.kernels, executor).map_err(refused)?;
        if self.session.logits().is_none() {
            return Err("pleach: no logits of the last token".into());
        }
        Ok(Done {
            seconds: start.elapsed().as_secs_f64(),
            counters: self.session.counters().since(before),
        })
    }

    /// More tokens, one by one.
    pub fn tokens(&mut self, tokens: &[u32], executor: &mut dyn Executor) -> Result<Done> {
        let mut all = Done::default();
        let before = self.session.counters();
        for token in tokens {
            all.seconds += self.push(&[*token], executor)?.seconds;
        }
        all.counters = self.session.counters().since(before);
        Ok(all)
    }

    /// The same, and the best next token after each.
    pub fn check(&mut self, tokens: &[u32], executor: &mut dyn Executor) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for token in tokens {
            self.push(&[*token], executor)?;
            ids.push(pleach::sample::argmax(self.session.logits().unwrap_or(&[])));
        }
        Ok(ids)
    }
}

fn refused(e: pleach::Error) -> String {
    format!("pleach: {e}")
}
