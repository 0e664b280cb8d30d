//! How fast this machine reads memory: what a token's weights cannot come faster than.
//!
//! A sum over a buffer, by 1 or more threads at once, each its own part: plain reads in order, as a sweep's are.
//!
//! This is what `pleach bench` calls the machine's rate: one stream a thread, loads as the compiler chose them.
//! `cargo xtask peers` calls another figure so, the best of several ways to read (streams side by side, prefetches, the
//! widest loads), which can be more: shares of the two are not to be compared.

use crate::arena::OutOfMemory;
use std::hint::black_box;
use std::panic;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// A measurement takes at least this long: clocks and starting threads then do not matter.
const LEAST: Duration = Duration::from_millis(40);
/// Of so many measurements the best counts: the others were disturbed.
const TRIES: usize = 3;
/// Sums side by side, so that none waits for the one before.
const LANES: usize = 16;

/// A buffer to read. It should be as large as what is compared with it: a small one stays in a cache.
///
/// ```
/// let buffer = pleach_linux::Bandwidth::new(1 << 20)?;
/// assert!(buffer.bytes_per_second(1) > 0.0);
/// # Ok::<(), pleach_linux::arena::OutOfMemory>(())
/// ```
pub struct Bandwidth {
    words: Vec<u64>,
}

impl Bandwidth {
    /// A buffer of `bytes` bytes, rounded up to whole words, every page of it written.
    pub fn new(bytes: usize) -> Result<Self, OutOfMemory> {
        let len = bytes.div_ceil(size_of::<u64>()).max(1);
        let mut words = Vec::new();
        words
            .try_reserve_exact(len)
            .map_err(|_| OutOfMemory { bytes })?;
        words.extend((0..len).map(|i| i as u64));
        Ok(Self { words })
    }

    /// Bytes of the buffer.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Bytes that `streams` threads read in a second together: the best of a few tries.
    pub fn bytes_per_second(&self, streams: usize) -> f64 {
        let mut rounds = 1;
        let mut best: f64 = 0.0;
        let mut tries = 0;
        while tries < TRIES {
            let took = self.read(streams, rounds);
            if took < LEAST && rounds < 1 << 40 {
                rounds *= 2;
                continue;
            }
            let bytes = self.bytes() as f64 * rounds as f64;
            best = best.max(bytes / took.as_secs_f64().max(1e-9));
            tries += 1;
        }
        best
    }

    /// The time in which threads read it, each its part `rounds` times.
    fn read(&self, streams: usize, rounds: u64) -> Duration {
        let parts = self.words.chunks(self.words.len().div_ceil(streams.max(1)));
        together(parts, |words| {
            for _ in 0..rounds {
                black_box(sum(black_box(words)));
            }
        })
    }
}

/// Runs `f` for each part on a thread of its own, all at once, and returns the time from the first one's start to the
/// last one's end. None starts before all threads are there, so that starting them is not measured; without a part
/// the time is 0.
///
/// Panics: as `f`, once all have ended.
pub fn together<P: Send>(
    parts: impl ExactSizeIterator<Item = P>,
    f: impl Fn(P) + Sync,
) -> Duration {
    let ready = Barrier::new(parts.len());
    let timed = |part: P| {
        ready.wait();
        let start = Instant::now();
        f(part);
        (start, Instant::now())
    };
    let timed = &timed;
    thread::scope(|scope| {
        let all: Vec<_> = parts.map(|p| scope.spawn(move || timed(p))).collect();
        let times: Vec<(Instant, Instant)> = all
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|e| panic::resume_unwind(e)))
            .collect();
        let start = times.iter().map(|t| t.0).min();
        let end = times.iter().map(|t| t.1).max();
        start
            .zip(end)
            .map_or(Duration::ZERO, |(start, end)| end - start)
    })
}

fn sum(words: &[u64]) -> u64 {
    let (chunks, rest) = words.as_chunks::<LANES>();
    let mut lanes = [0u64; LANES];
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(0, |all, w| all.wrapping_add(*w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        for len in [0u64, 1, 15, 16, 17, 100] {
            let words: Vec<u64> = (0..len).collect();
            assert_eq!(sum(&words), len * len.saturating_sub(1) / 2);
        }
    }

    #[test]
    fn a_buffer_of_any_size_for_any_number_of_streams() {
        for bytes in [0, 1, 9, 4096] {
            let buffer = Bandwidth::new(bytes).unwrap();
            assert!(buffer.bytes() >= bytes.max(8) && buffer.bytes() < bytes.max(1) + 8);
            for streams in [0, 1, 2, 7] {
                assert!(buffer.bytes_per_second(streams) > 0.0);
            }
        }
    }

    /// Parts that wait for each other: one after the other they would never end.
    #[test]
    fn parts_run_at_once_and_the_slowest_counts() {
        let all = Barrier::new(3);
        let took = together([0, 5, 1].into_iter(), |millis| {
            all.wait();
            thread::sleep(Duration::from_millis(millis));
        });
        assert!(took >= Duration::from_millis(5));
        assert_eq!(together([(); 0].into_iter(), |()| ()), Duration::ZERO);
    }

    #[test]
    fn a_panic_is_not_measured() {
        let bad = |n| {
            if n == 1 {
                panic::resume_unwind(Box::new(n));
            }
        };
        let payload = panic::catch_unwind(|| together([0, 1, 2].into_iter(), bad)).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&1));
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Bandwidth::new(usize::MAX).is_err());
    }
}
