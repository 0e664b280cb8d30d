//! A pool of threads that runs the rows of an operation.
//!
//! * [`ThreadPool`] cuts a work into pieces, large ones first, that threads claim as they come: a slow core, or one
//!   that something else uses, takes fewer. Which thread computes which rows never changes a bit.
//! * `team`: the threads. They wait spinning from one operation to the next, and sleep when none comes.
//! * `backoff`: how they wait.
//! * `cores`: how many there are by default.

mod backoff;
mod cores;
mod team;

use backoff::Patience;
use pleach::{Executor, Work};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use team::Team;

/// Most threads of a pool.
pub const MAX_THREADS: usize = 64;

/// Most pieces of one work: each thread has one.
const PIECES: usize = MAX_THREADS;

/// Sizes of pieces at most: the smallest is 1/16 of a thread's share, which is what is waited for at the end.
const SIZES: u32 = 5;

/// Multiply-accumulates from which on a work is cut: what a core does in the time that it takes to hand over a piece.
const INLINE_BELOW: u64 = 1 << 15;

/// Times `inline_below`: multiply-accumulates from which on a sleeping thread is woken for them.
const WAKE: u64 = 8;

/// Rounds in which hand-overs are measured, so short that other programs disturb few of them, and hand-overs in each,
/// so many that a look at the clock does not matter.
const ROUNDS: usize = 1000;
const IN_ROUND: u32 = 10;

/// After so long no further round begins: where threads wait for CPUs, each hand-over takes a scheduler's turn.
const ENOUGH: Duration = Duration::from_secs(1);

/// In which order threads claim the pieces of a work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimOrder {
    /// As they lie in memory.
    #[default]
    InOrder,
    /// Shuffled anew for each work, from this seed: for tests that show that the order is free.
    Shuffled(u64),
}

/// Splits work among threads that stay, the calling one among them.
///
/// They start with the first work that is worth it and end with the pool. Between two operations they wait
/// spinning; after 100 µs without work they sleep.
///
/// ```
/// use pleach_linux::ThreadPool;
/// let mut pool = ThreadPool::new(4);
/// let _: &mut dyn pleach::Executor = &mut pool;
/// ```
#[derive(Debug)]
pub struct ThreadPool {
    threads: usize,
    order: ClaimOrder,
    inline_below: u64,
    /// Multiply-accumulates that no sleeping worker was woken for since the last time one was.
    missed: u64,
    /// From the first work on that is worth it.
    team: Option<Team>,
}

impl ThreadPool {
    /// This many threads, at least 1 and at most [`MAX_THREADS`], pieces in order.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: threads.clamp(1, MAX_THREADS),
            order: ClaimOrder::InOrder,
            inline_below: INLINE_BELOW,
            missed: 0,
            team: None,
        }
    }

    /// One thread for each big core that this process may use: on Linux by its affinity, by the cores' `cpu_capacity`,
    /// or else their highest clock, and within its quota of time; elsewhere as many as the system offers.
    pub fn available() -> Self {
        Self::new(cores::big())
    }

    /// The same pool with this order of claims.
    pub fn claim(self, order: ClaimOrder) -> Self {
        Self { order, ..self }
    }

    /// The same pool, where works of fewer multiply-accumulates run where they are called.
    pub fn inline_below(self, inline_below: u64) -> Self {
        Self {
            inline_below,
            ..self
        }
    }

    /// Threads, the calling one among them.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What it takes to hand a work to all threads and to know that it is done: the median of up to 1000 rounds of ten
    /// works of an empty piece for each thread. `None` where there is one thread.
    ///
    /// Every thread takes part in every work, since no piece ends before all have begun; that costs one more counter
    /// than a sweep's works have. They are cut into pieces besides, which is not in it. Where other programs use the
    /// CPUs, it is their turns that are measured.
    pub fn hand_over(&mut self) -> Option<Duration> {
        let team = self.team();
        if team.workers() == 0 {
            return None;
        }
        let began = Instant::now();
        let mut rounds = Vec::with_capacity(ROUNDS);
        while rounds.len() < ROUNDS && (rounds.is_empty() || began.elapsed() < ENOUGH) {
            let start = Instant::now();
            for _ in 0..IN_ROUND {
                team.on_each(&|| ());
            }
            rounds.push(start.elapsed() / IN_ROUND);
        }
        rounds.sort_unstable();
        rounds.get(rounds.len() / 2).copied()
    }

    /// The threads, started if they were not.
    fn team(&mut self) -> &mut Team {
        let most = self.threads;
        self.team.get_or_insert_with(|| {
            // Whoever must yield to whom is a matter of all CPUs that we may use, small ones too.
            Team::start(most - 1, Patience::new(most, cores::granted()))
        })
    }

    /// Who takes part in a work: how many threads, and how many of them are to be woken.
    fn crew(&mut self, macs: u64) -> (usize, usize) {
        let team = self.team();
        let (workers, awake) = (team.workers(), team.awake());
        if awake == workers {
            return (workers + 1, 0);
        }
        // Waking takes the time of a small operation. A stream of them is worth it, a single one is not.
        self.missed = self.missed.saturating_add(macs);
        if self.missed < self.inline_below.saturating_mul(WAKE) {
            return (awake + 1, 0);
        }
        self.missed = 0;
        (workers + 1, workers - awake)
    }
}

impl Executor for ThreadPool {
    fn run(&mut self, work: Work<'_>) {
        let macs = (work.rows() as u64).saturating_mul(u64::from(work.cost_per_row()));
        let one = work.rows() <= work.tile();
        if self.threads == 1 || one || macs < self.inline_below {
            return work.run();
        }
        let (threads, wake) = self.crew(macs);
        let Some(team) = self.team.as_mut().filter(|_| threads > 1) else {
            return work.run();
        };
        let mut slots = [const { Mutex::new(None) }; PIECES];
        let sizes = sizes(threads, macs, self.inline_below);
        let count = cut(work, threads, sizes, &mut slots);
        if let ClaimOrder::Shuffled(seed) = &mut self.order {
            for end in (1..count).rev() {
                slots.swap(end, (split_mix(seed) % (end as u64 + 1)) as usize);
            }
        }
        team.run(count, wake, &|n| {
            let slot = slots.get(n).and_then(|slot| slot.lock().ok());
            if let Some(piece) = slot.and_then(|mut slot| slot.take()) {
                piece.run();
            }
        });
    }
}

/// How many sizes of pieces `macs` are worth among `threads`: a piece is at least half of what is worth cutting.
fn sizes(threads: usize, macs: u64, inline_below: u64) -> u32 {
    let most = (PIECES / threads.max(1)) as u32;
    let least = (inline_below / 2).max(1) * threads as u64;
    let halvings = (macs / least).checked_ilog2().unwrap_or(0);
    (halvings + 1).min(SIZES).min(most).max(1)
}

/// Cuts a work into pieces for `threads` and returns their number, at most `threads * sizes`. Later slots
/// are earlier rows.
///
/// Each thread gets a piece of each size: half of the rows go in the first pieces, a quarter in the next, and
/// so on; the last two sizes are the same. Source: Hummel, Schonberg, Flynn, "Factoring", CACM 35(8), 1992.
fn cut<'a>(
    work: Work<'a>,
    threads: usize,
    sizes: u32,
    slots: &mut [Mutex<Option<Work<'a>>>],
) -> usize {
    let tile = work.tile().max(1);
    let units = work.rows() / tile;
    let shares = threads << (sizes - 1);
    let (mut rest, mut count, mut taken) = (Some(work), 0, 0);
    for size in 0..sizes {
        for _ in 0..threads {
            taken += 1 << size.saturating_sub(1);
            let from = units - units * taken / shares;
            let Some((head, piece)) = rest.take().map(|w| w.split_at(from * tile)) else {
                return count;
            };
            rest = Some(head);
            if piece.rows() > 0
                && let Some(slot) = slots.get_mut(count)
            {
                *slot = Mutex::new(Some(piece));
                count += 1;
            }
        }
    }
    count
}

/// SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arena;
    use pleach::blob::Tensor;
    use pleach::xlora::{Context, XLoraConfig, XLoraLayer, XLoraLinearLayer};
    use pleach::{Inline, Kernels};

    /// y = W x over `rows` rows, W and x full of different numbers.
    fn product(rows: usize, executor: &mut dyn Executor) -> Vec<u32> {
        let value = |i: usize| (i * 37 % 101) as f32 / 64.0 - 0.75;
        let w: Vec<f32> = (0..rows * 5).map(value).collect();
        let x: Vec<f32> = (0..3 * 5).map(|i| value(i + 11)).collect();
        let weight = Tensor::from_rows(&w, rows, 5).unwrap();
        let layer = XLoraLinearLayer::new(0, weight, None, &[]).unwrap();
        let mut scratch = Arena::new(layer.scratch_bytes(3)).unwrap();
        let mut cx = Context {
            kernels: Kernels::portable(),
            executor,
            scratch: scratch.bytes(),
        };
        let mut y = vec![f32::NAN; 3 * rows];
        let config = XLoraConfig::DEFAULT;
        layer.forward(&x, None, &config, &mut y, &mut cx).unwrap();
        y.into_iter().map(f32::to_bits).collect()
    }

    /// Notes the rows of each piece, and runs them.
    struct Cuts {
        threads: usize,
        sizes: u32,
        rows: Vec<usize>,
    }

    impl Executor for Cuts {
        fn run(&mut self, work: Work<'_>) {
            let mut slots = [const { Mutex::new(None) }; PIECES];
            let count = cut(work, self.threads, self.sizes, &mut slots);
            let pieces = slots.into_iter().rev().map(|s| s.into_inner().unwrap());
            for piece in pieces.flatten() {
                self.rows.push(piece.rows());
                piece.run();
            }
            assert!(count <= self.threads * self.sizes as usize);
        }
    }

    #[test]
    fn split_mix_has_its_published_values() {
        // The first outputs for seed 1234567, as in Rosetta Code's table.
        let mut s = 1_234_567;
        assert_eq!(split_mix(&mut s), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut s), 3_203_168_211_198_807_973);
    }

    #[test]
    fn pieces_are_no_smaller_than_a_handover_is_worth() {
        assert_eq!(sizes(2, 1 << 15, 1 << 15), 1);
        assert_eq!(sizes(2, 1 << 17, 1 << 15), 3);
        assert_eq!(sizes(2, u64::MAX, 1 << 15), SIZES);
        assert_eq!(sizes(2, 1000, 0), SIZES);
        assert_eq!(sizes(2, 0, 0), 1);
        assert_eq!(sizes(16, u64::MAX, 0), 4);
        assert_eq!(sizes(64, u64::MAX, 0), 1);
    }

    /// 64 tiles of 16 rows for two threads: a quarter, an eighth, a sixteenth and the rest, twice each.
    #[test]
    fn pieces_shrink_in_memory_order() {
        let mut cuts = Cuts {
            threads: 2,
            sizes: 4,
            rows: Vec::new(),
        };
        product(64 * 16, &mut cuts);
        assert_eq!(cuts.rows, [256, 256, 128, 128, 64, 64, 64, 64]);
    }

    #[test]
    fn pieces_are_all_rows_in_any_number_of_tiles() {
        for (threads, sizes) in [(1, 1), (2, 5), (3, 2), (8, 5), (12, 5), (64, 1)] {
            for rows in [16, 17, 100, 1000, 5000] {
                let mut cuts = Cuts {
                    threads,
                    sizes,
                    rows: Vec::new(),
                };
                assert_eq!(product(rows, &mut cuts), product(rows, &mut Inline));
                assert_eq!(cuts.rows.iter().sum::<usize>(), rows.next_multiple_of(16));
                assert!(cuts.rows.len() <= threads * sizes as usize);
                assert!(!cuts.rows.contains(&0));
            }
        }
    }

    /// That each thread took part is `team`'s test.
    #[test]
    fn handing_over_takes_time_where_there_is_somebody_to_hand_to() {
        assert_eq!(ThreadPool::new(1).hand_over(), None);
        for threads in [2, 3] {
            let took = ThreadPool::new(threads).hand_over();
            assert!(took.is_some_and(|t| t > Duration::ZERO), "{took:?}");
        }
    }

    #[test]
    fn by_default_there_is_a_thread_for_each_big_core() {
        let threads = ThreadPool::available().threads();
        assert_eq!(threads, cores::big().min(MAX_THREADS));
    }

    #[test]
    fn threads_start_with_the_first_work_that_is_worth_it() {
        let mut pool = ThreadPool::new(2).inline_below(10_000);
        product(64, &mut pool);
        assert!(pool.team.is_none());
        product(1024, &mut pool);
        assert_eq!(pool.team.as_ref().map(Team::workers), Some(1));
    }

    #[test]
    fn sleepers_are_woken_once_enough_was_missed() {
        let mut pool = ThreadPool::new(3).inline_below(100);
        pool.crew(0);
        while pool.team.as_ref().is_some_and(|t| t.awake() > 0) {
            std::thread::yield_now();
        }
        pool.missed = 0;
        assert_eq!(pool.crew(100), (1, 0));
        assert_eq!(pool.crew(600), (1, 0));
        assert_eq!(pool.crew(100), (3, 2));
        assert_eq!(pool.crew(100), (1, 0), "and counts anew");
        assert_eq!(pool.crew(800), (3, 2));
    }
}
