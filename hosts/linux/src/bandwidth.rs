//! How fast this machine reads memory: what a token's weights cannot come faster than.
//!
//! A sum over a buffer, by 1 or more threads at once, each its own part: plain reads in order, as a sweep's are.

use crate::arena::OutOfMemory;
use std::hint::black_box;
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

    /// The time from the first thread's start to the last one's end, each reading its part `rounds` times.
    fn read(&self, streams: usize, rounds: u64) -> Duration {
        let parts = self.words.chunks(self.words.len().div_ceil(streams.max(1)));
        let together = Barrier::new(parts.len());
        let part = |words: &[u64]| {
            together.wait();
            let start = Instant::now();
            for _ in 0..rounds {
                black_box(sum(black_box(words)));
            }
            (start, Instant::now())
        };
        let part = &part;
        thread::scope(|scope| {
            let all: Vec<_> = parts.map(|p| scope.spawn(move || part(p))).collect();
            let times: Vec<_> = all.into_iter().filter_map(|t| t.join().ok()).collect();
            let start = times.iter().map(|t| t.0).min();
            let end = times.iter().map(|t| t.1).max();
            match (start, end) {
                (Some(start), Some(end)) => end - start,
                _ => Duration::ZERO,
            }
        })
    }
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

    #[test]
    fn too_much_is_an_error() {
        assert!(Bandwidth::new(usize::MAX).is_err());
    }
}
