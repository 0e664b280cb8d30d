//! How a thread waits for another: it spins, then yields, then says that it has waited long enough.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

/// Turns between looks at the clock: a turn is some 10 to 50 ns, a look some 25 ns, or a system call.
const TURNS: u32 = 16;

/// How long a wait spins where every thread has a CPU. The work between two operations takes less.
const SPIN: Duration = Duration::from_micros(20);

/// After how long a wait is long: nothing within a sweep takes as long.
const LONG: Duration = Duration::from_micros(100);

/// How threads wait for each other on this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    spin: Duration,
}

impl Patience {
    /// For `threads` of them on `cpus`: where they do not all run at once, a spinning thread keeps the one
    /// that it waits for from its CPU, so it yields at once.
    pub(super) fn new(threads: usize, cpus: usize) -> Self {
        let spin = if threads > cpus { Duration::ZERO } else { SPIN };
        Self { spin }
    }
}

/// One wait.
pub(super) struct Backoff {
    spin: Duration,
    turns: u32,
    began: Option<Instant>,
    yields: bool,
}

impl Backoff {
    /// A wait that begins now.
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            spin: patience.spin,
            turns: 0,
            began: None,
            yields: false,
        }
    }

    /// Lets a moment pass. Returns whether the wait is long by now.
    pub(super) fn turn(&mut self) -> bool {
        self.turns += 1;
        if self.yields {
            thread::yield_now();
        } else {
            hint::spin_loop();
            if self.turns < TURNS {
                return false;
            }
        }
        self.turns = 0;
        let waited = self.began.get_or_insert_with(Instant::now).elapsed();
        self.yields = waited >= self.spin;
        waited >= LONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_becomes_long_and_not_before_its_time() {
        for threads in [1, 2, 3] {
            let began = Instant::now();
            let mut wait = Backoff::new(Patience::new(threads, 2));
            while !wait.turn() {}
            assert!(began.elapsed() >= LONG);
            assert!(wait.yields);
        }
    }

    #[test]
    fn more_threads_than_cpus_yield_at_once() {
        let mut wait = Backoff::new(Patience::new(3, 2));
        for _ in 0..TURNS {
            wait.turn();
        }
        assert!(wait.yields);
    }
}
