//! Persistent threads that share the pieces of one job after another.
//!
//! A job is a function of a piece's number. The leader, the thread that calls [`Team::run`], keeps one piece, so that it begins
//! without asking, and publishes the others with one store: the number of pieces that nobody has claimed. Claiming is one
//! subtraction from it, and who gets a number above 0 owns that piece. Two counters order everything:
//!
//! | counter | above 0 | 0 or less |
//! |---|---|---|
//! | `unclaimed` | `job` may be read by who claims a piece | no piece can be claimed |
//! | `unfinished` | claimed pieces may still use `job` | nobody uses `job`; only the leader touches it |
//!
//! A thread that saw an old job's pieces and claims late gets either nothing or a piece of the present
//! job: the claim itself decides, not what was seen before.

#![allow(unsafe_code)]

use super::backoff::{Backoff, Patience};
use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// What runs a piece, by its number; lives as long as its run.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// A value on cache lines of its own, so that threads that wait for one do not slow writers of another.
#[repr(align(128))]
struct Line<T>(T);

/// What all threads of a team see.
struct Shared {
    /// Pieces of the present job that nobody has claimed. Idle workers read it all the time, and nothing beside it.
    unclaimed: Line<AtomicIsize>,
    present: Line<Present>,
    /// By worker: it has given up waiting, and must be woken.
    asleep: Box<[AtomicBool]>,
    /// Whom the last piece wakes, if the leader has given up waiting.
    leader: Mutex<Option<Thread>>,
    leader_asleep: AtomicBool,
    stop: AtomicBool,
    /// What the first panic of the present job carried.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    patience: Patience,
}

/// What a thread with a piece needs, on one line because it costs most to fetch.
struct Present {
    job: UnsafeCell<Option<NonNull<Job<'static>>>>,
    /// Pieces of the job that are not done.
    unfinished: AtomicUsize,
}

// SAFETY: `job` is written by the leader while `unfinished` is 0, and read by who has a piece, which is before it becomes 0
//   again. Between the write and a read lies the store of `unclaimed`, which the claim acquires; between a read and the next
//   write the subtraction from `unfinished`, which the leader acquires. What it points to is `Sync`.
unsafe impl Send for Present {}
// SAFETY: the same.
unsafe impl Sync for Present {}

/// The leader's side of a team. Dropping it ends the workers.
pub(super) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Team {
    /// Starts `workers` threads beside the leader, or as many as the system grants.
    pub(super) fn start(workers: usize, patience: Patience) -> Self {
        let shared = Arc::new(Shared {
            unclaimed: Line(AtomicIsize::new(0)),
            present: Line(Present {
                job: UnsafeCell::new(None),
                unfinished: AtomicUsize::new(0),
            }),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            leader: Mutex::new(None),
            leader_asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            patience,
        });
        let start = |n| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("pleach-{}", n + 1))
                .spawn(move || shared.serve(n))
                .ok()
        };
        let workers = (0..workers).map_while(start).collect();
        Self { shared, workers }
    }

    /// Workers that the team has.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Workers that need not be woken.
    pub(super) fn awake(&self) -> usize {
        let asleep = self.shared.asleep.iter();
        asleep
            .take(self.workers.len())
            .filter(|a| !a.load(Ordering::Relaxed))
            .count()
    }

    /// Runs `job` once for each number below `pieces`, the highest first, on this thread and the workers, of which at
    /// most `wake` are woken.
    ///
    /// Panics: with the first panic of a piece, after all pieces are done.
    pub(super) fn run(&mut self, pieces: usize, wake: usize, job: &(dyn Fn(usize) + Sync)) {
        let Some((own, others)) = pieces
            .checked_sub(1)
            .and_then(|own| Some((own, isize::try_from(own).ok()?)))
        else {
            return;
        };
        let shared = &*self.shared;
        // From here until every piece is done others use `job`.
        let no_way_out = AbortOnUnwind;
        // SAFETY: only the lifetime changes, of a pointer: its users argue for themselves.
        let erased =
            unsafe { mem::transmute::<NonNull<Job<'_>>, NonNull<Job<'static>>>(job.into()) };
        // SAFETY: `&mut self`: this is the only leader, and no piece is unfinished.
        unsafe { *shared.present.0.job.get() = Some(erased) };
        shared.present.0.unfinished.store(pieces, Ordering::Relaxed);
        // Publishes the two writes above. SeqCst: a worker that goes to sleep writes `asleep`, then reads `unclaimed`; we
        // write `unclaimed`, then read `asleep`. In one order of all four, one of the two sees the other.
        shared.unclaimed.0.store(others, Ordering::SeqCst);
        self.wake(wake.min(own));
        shared.run_piece(job, own);
        shared.count_piece();
        while shared.run_one() {}
        shared.wait_for_the_rest();
        mem::forget(no_way_out);
        if let Some(payload) = lock(&shared.panic).take() {
            panic::resume_unwind(payload);
        }
    }

    /// Runs `job` once on each thread of the team: none starts before all are there.
    ///
    /// Panics: as [`Team::run`].
    pub(super) fn on_each(&mut self, job: &(dyn Fn() + Sync)) {
        let threads = self.workers() + 1;
        let patience = self.shared.patience;
        let there = Line(AtomicUsize::new(0));
        // Who waits in its piece claims no second one.
        self.run(threads, usize::MAX, &|_| {
            there.0.fetch_add(1, Ordering::Relaxed);
            let mut wait = Backoff::new(patience);
            while there.0.load(Ordering::Relaxed) < threads {
                wait.turn();
            }
            job();
        });
    }

    fn wake(&self, count: usize) {
        let sleepers = self.workers.iter().zip(&self.shared.asleep);
        sleepers
            .filter(|(_, asleep)| {
                asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst)
            })
            .take(count)
            .for_each(|(worker, _)| worker.thread().unpark());
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake(usize::MAX);
        for worker in self.workers.drain(..) {
            // A worker catches what its pieces throw, so it ends in order.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team")
            .field("workers", &self.workers.len())
            .field("awake", &self.awake())
            .finish()
    }
}

impl Shared {
    /// A worker's life.
    fn serve(&self, n: usize) {
        loop {
            let mut wait = Backoff::new(self.patience);
            loop {
                if self.run_one() {
                    wait = Backoff::new(self.patience);
                } else if self.stop.load(Ordering::Relaxed) {
                    return;
                } else if wait.turn() {
                    break;
                }
            }
            self.sleep(n);
        }
    }

    /// Sleeps until the leader wakes this worker, unless there is work or the team ends.
    fn sleep(&self, n: usize) {
        let Some(asleep) = self.asleep.get(n) else {
            return;
        };
        asleep.store(true, Ordering::SeqCst);
        if self.unclaimed.0.load(Ordering::SeqCst) > 0 || self.stop.load(Ordering::SeqCst) {
            asleep.store(false, Ordering::SeqCst);
            return;
        }
        while asleep.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Claims a piece and runs it. Returns whether there was one.
    fn run_one(&self) -> bool {
        // A look first, so that threads that wait do not write; it keeps `unclaimed` from sinking by more than
        // one per thread, too.
        if self.unclaimed.0.load(Ordering::Relaxed) <= 0 {
            return false;
        }
        // Acquire: sees `job` as it was before `unclaimed` was stored; the subtractions in between are part of
        // that store's release sequence.
        let left = self.unclaimed.0.fetch_sub(1, Ordering::Acquire);
        let Some(piece) = usize::try_from(left).ok().and_then(|n| n.checked_sub(1)) else {
            return false;
        };
        // SAFETY: the piece is claimed and not yet counted: nobody writes (see `Present`).
        if let Some(job) = unsafe { *self.present.0.job.get() } {
            // SAFETY: live: the piece is not yet taken from `unfinished`, and `Team::run`, which borrows the job, returns only
            //   when that is 0; unwinding out of it aborts. The reference is not used after the subtraction below. alias: the
            //   leader has only a shared reference to the job. Sync: the function is.
            self.run_piece(unsafe { job.as_ref() }, piece);
        }
        self.count_piece();
        true
    }

    /// Runs a piece that this thread owns. To be counted afterwards, by a function that has no reference to the job.
    fn run_piece(&self, job: &Job<'_>, piece: usize) {
        let run = AssertUnwindSafe(|| job(piece));
        if let Err(payload) = panic::catch_unwind(run) {
            let mut first = lock(&self.panic);
            match *first {
                None => *first = Some(payload),
                // Not dropped: a payload's own drop may panic.
                Some(_) => mem::forget(payload),
            }
        }
    }

    /// Takes a piece from those that are not done.
    fn count_piece(&self) {
        // Release: what the piece wrote, for the leader. SeqCst: as for `asleep`, the leader's side is below.
        let was_last = self.present.0.unfinished.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last && self.leader_asleep.load(Ordering::SeqCst) {
            self.leader_asleep.store(false, Ordering::SeqCst);
            lock(&self.leader).iter().for_each(Thread::unpark);
        }
    }

    /// The leader's wait until all pieces are done. It sleeps where that takes long: another program has a
    /// worker's CPU, and may have this one.
    fn wait_for_the_rest(&self) {
        let mut wait = Backoff::new(self.patience);
        // Acquire: what the pieces wrote is visible once the last of them is counted.
        while self.present.0.unfinished.load(Ordering::Acquire) > 0 {
            if wait.turn() {
                return self.sleep_until_done();
            }
        }
    }

    fn sleep_until_done(&self) {
        *lock(&self.leader) = Some(thread::current());
        loop {
            // Anew each time: a worker that finished an earlier job may clear it late.
            self.leader_asleep.store(true, Ordering::SeqCst);
            if self.present.0.unfinished.load(Ordering::SeqCst) == 0 {
                break;
            }
            thread::park();
        }
        self.leader_asleep.store(false, Ordering::SeqCst);
    }
}

/// Nothing panics under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process if it is dropped, which only unwinding does.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EASY: usize = 1000;

    /// So many rounds, or under Miri, which runs some thousand times as long, a few.
    const fn rounds(count: usize) -> usize {
        if cfg!(miri) {
            count.div_ceil(50)
        } else {
            count
        }
    }

    fn team(workers: usize) -> Team {
        Team::start(workers, Patience::new(workers + 1, EASY))
    }

    fn wait_until_asleep(team: &Team) {
        while team.awake() > 0 {
            thread::yield_now();
        }
    }

    /// Runs a job and checks that each piece ran once.
    fn check(team: &mut Team, pieces: usize) {
        let ran: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
        team.run(pieces, usize::MAX, &|n| {
            ran[n].fetch_add(1, Ordering::Relaxed);
        });
        assert!(ran.into_iter().all(|n| n.into_inner() == 1));
    }

    #[test]
    fn each_piece_runs_once() {
        for workers in 0..8 {
            let mut team = team(workers);
            assert_eq!(team.workers(), workers);
            for pieces in 0..rounds(100) {
                check(&mut team, pieces);
            }
        }
    }

    /// What a piece writes is there when the job is done, without a lock around it.
    #[test]
    fn writes_are_seen() {
        let mut team = team(3);
        let mut values = vec![0_u64; 64];
        let last = rounds(2000) as u64;
        for round in 1..=last {
            let slots: Vec<_> = values.iter_mut().map(|v| Mutex::new(Some(v))).collect();
            team.run(slots.len(), usize::MAX, &|n| {
                // Long enough that the workers get some.
                (0..100).for_each(|_| std::hint::spin_loop());
                if let Some(v) = slots[n].lock().unwrap().take() {
                    *v += n as u64 + round;
                }
            });
        }
        for (n, v) in values.iter().enumerate() {
            assert_eq!(*v, last * n as u64 + last * (last + 1) / 2);
        }
    }

    /// Two pieces that wait for each other: with one thread they would never end.
    #[test]
    fn sleepers_are_woken() {
        let mut team = team(1);
        for asleep in [false, true, true] {
            if asleep {
                wait_until_asleep(&team);
            }
            let both = std::sync::Barrier::new(2);
            team.run(2, 1, &|_| {
                both.wait();
            });
        }
    }

    #[test]
    fn each_thread_runs_once() {
        for workers in [0, 1, 3] {
            let mut team = team(workers);
            for _ in 0..100 {
                let ran = Mutex::new(Vec::new());
                team.on_each(&|| lock(&ran).push(thread::current().id()));
                let mut ran = ran.into_inner().unwrap();
                assert_eq!(ran.len(), workers + 1);
                while let Some(id) = ran.pop() {
                    assert!(!ran.contains(&id));
                }
            }
            wait_until_asleep(&team);
        }
    }

    /// The worker's piece outlasts the leader's patience.
    #[test]
    fn a_leader_that_waits_long_is_woken() {
        let mut team = team(1);
        let shared = Arc::clone(&team.shared);
        let me = thread::current().id();
        for _ in 0..20 {
            let both = std::sync::Barrier::new(2);
            team.run(2, 1, &|_| {
                both.wait();
                let waits = || shared.leader_asleep.load(Ordering::SeqCst);
                while thread::current().id() != me && !waits() {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_leader_when_every_piece_is_done() {
        for workers in [0, 1, 3] {
            let mut team = team(workers);
            for bad in [0, 7, 15] {
                let ran = AtomicUsize::new(0);
                let job = |n| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    // `resume_unwind` does not print.
                    if n >= bad {
                        panic::resume_unwind(Box::new("from a piece"));
                    }
                };
                let run = AssertUnwindSafe(|| team.run(16, usize::MAX, &job));
                let payload = panic::catch_unwind(run).unwrap_err();
                assert_eq!(payload.downcast_ref(), Some(&"from a piece"));
                assert_eq!(ran.into_inner(), 16);
                check(&mut team, 16);
            }
        }
    }

    /// A payload whose drop panics, twice in one job: the second must not end a worker.
    #[test]
    fn a_payload_may_panic_as_well() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic::resume_unwind(Box::new("from a drop"));
            }
        }
        let mut team = team(1);
        let job = |_| panic::resume_unwind(Box::new(Spiteful));
        let run = AssertUnwindSafe(|| team.run(4, usize::MAX, &job));
        let payload = panic::catch_unwind(run).unwrap_err();
        assert!(payload.is::<Spiteful>());
        mem::forget(payload);
        check(&mut team, 16);
    }

    #[test]
    fn teams_end_busy_idle_and_asleep() {
        for _ in 0..rounds(100) {
            drop(team(3));
            let mut busy = team(3);
            check(&mut busy, 5);
        }
        let asleep = team(3);
        wait_until_asleep(&asleep);
    }

    #[test]
    fn more_threads_than_cpus_come_to_an_end() {
        let mut team = Team::start(15, Patience::new(16, 1));
        for _ in 0..rounds(500) {
            check(&mut team, 32);
        }
    }
}
