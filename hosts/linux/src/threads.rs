//! An executor over scoped threads.
//!
//! Plain on purpose: threads are started for each operation that is worth it and joined at its end. Which
//! thread computes which rows never changes a bit, so a pool can take its place.

use pleach::{Executor, Work};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Pieces per thread: enough that a late thread finds less to do, not more to wait for.
const PIECES: usize = 4;

/// In which order threads claim the pieces of a work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimOrder {
    /// As they lie in memory.
    #[default]
    InOrder,
    /// Shuffled anew for each work, from this seed: for tests that show that the order is free.
    Shuffled(u64),
}

/// Splits work among scoped threads, the calling one among them.
///
/// ```
/// use pleach_linux::ScopedThreads;
/// let mut threads = ScopedThreads::new(4);
/// let _: &mut dyn pleach::Executor = &mut threads;
/// ```
#[derive(Clone, Debug)]
pub struct ScopedThreads {
    /// Threads, at least 1.
    pub threads: usize,
    /// Order of claims.
    pub order: ClaimOrder,
    /// Multiply-accumulates below which a work runs where it is called: starting threads costs more.
    pub inline_below: u64,
}

impl ScopedThreads {
    /// This many threads, pieces in order.
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            order: ClaimOrder::InOrder,
            inline_below: 1 << 19,
        }
    }

    /// As many threads as the system offers.
    pub fn available() -> Self {
        Self::new(thread::available_parallelism().map_or(1, Into::into))
    }

    /// Numbers of the pieces in the order in which they are claimed.
    fn claims(&mut self, pieces: usize) -> Vec<usize> {
        let mut claims: Vec<usize> = (0..pieces).collect();
        if let ClaimOrder::Shuffled(seed) = &mut self.order {
            for end in (1..pieces).rev() {
                claims.swap(end, (split_mix(seed) % (end as u64 + 1)) as usize);
            }
        }
        claims
    }
}

impl Executor for ScopedThreads {
    fn run(&mut self, work: Work<'_>) {
        let units = work.rows().div_ceil(work.tile().max(1));
        let macs = work.rows() as u64 * u64::from(work.cost_per_row());
        if self.threads <= 1 || units <= 1 || macs < self.inline_below {
            return work.run();
        }
        let pieces = split(work, units, units.min(self.threads * PIECES));
        let claims = self.claims(pieces.len());
        let next = AtomicUsize::new(0);
        let claim = || {
            while let Some(&n) = claims.get(next.fetch_add(1, Ordering::Relaxed)) {
                // A poisoned lock: another thread panicked, and the scope will say so.
                let piece = pieces[n].lock().ok().and_then(|mut p| p.take());
                if let Some(piece) = piece {
                    piece.run();
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.threads.min(claims.len()) {
                // Without another thread the ones that are there do its share.
                if thread::Builder::new().spawn_scoped(scope, claim).is_err() {
                    break;
                }
            }
            claim();
        });
    }
}

/// Cuts `units` tiles into `pieces` ranges that differ by at most one tile.
fn split(work: Work<'_>, units: usize, pieces: usize) -> Vec<Mutex<Option<Work<'_>>>> {
    let tile = work.tile();
    let mut rest = work;
    let mut parts = Vec::with_capacity(pieces);
    for n in 0..pieces {
        let share = units * (n + 1) / pieces - units * n / pieces;
        let (part, tail) = rest.split_at(share * tile);
        parts.push(Mutex::new(Some(part)));
        rest = tail;
    }
    parts
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

    #[test]
    fn shuffles_are_permutations_and_change() {
        let mut t = ScopedThreads {
            order: ClaimOrder::Shuffled(1),
            ..ScopedThreads::new(2)
        };
        let (mut a, b) = (t.claims(50), t.claims(50));
        assert_ne!(a, b);
        a.sort_unstable();
        assert_eq!(a, (0..50).collect::<Vec<_>>());
        assert_eq!(ScopedThreads::new(2).claims(3), [0, 1, 2]);
    }

    #[test]
    fn split_mix_has_its_published_values() {
        // The first outputs for seed 1234567, as in Rosetta Code's table.
        let mut s = 1_234_567;
        assert_eq!(split_mix(&mut s), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut s), 3_203_168_211_198_807_973);
    }
}
