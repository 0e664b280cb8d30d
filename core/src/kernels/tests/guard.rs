//! Buffers between pages that may not be touched.
//!
//! Where there are no such pages (under Miri, which sees every byte, and on systems without `mmap`) they are plain
//! vectors.

#![allow(unsafe_code)]

use core::ops::{Deref, DerefMut};

/// Which end of a buffer lies at a page that may not be touched. The other is at most a page away from one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Edge {
    Start,
    End,
}

impl Edge {
    /// Both in turn.
    pub(super) fn of(n: usize) -> Self {
        match n % 3 {
            0 => Edge::Start,
            _ => Edge::End,
        }
    }
}

#[cfg(all(unix, not(miri)))]
mod pages {
    use super::Edge;

    /// A mapping: a page that may not be touched, pages that may, another that may not.
    pub(super) struct Pages {
        map: *mut u8,
        inner: usize,
        page: usize,
    }

    impl Pages {
        pub(super) fn new(bytes: usize) -> Self {
            // SAFETY: no memory is touched.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let page = usize::try_from(page).expect("a page size");
            let inner = bytes.next_multiple_of(page).max(page);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping at an address that the system chooses; it aliases nothing.
            let map = unsafe {
                libc::mmap(
                    core::ptr::null_mut(),
                    inner + 2 * page,
                    libc::PROT_NONE,
                    flags,
                    -1,
                    0,
                )
            };
            assert_ne!(map, libc::MAP_FAILED, "no memory");
            let map: *mut u8 = map.cast();
            // SAFETY: bounds: pages 1.. of the mapping above, without its last.
            let opened = unsafe {
                libc::mprotect(
                    map.add(page).cast(),
                    inner,
                    libc::PROT_READ | libc::PROT_WRITE,
                )
            };
            assert_eq!(opened, 0, "pages cannot be opened");
            Self { map, inner, page }
        }

        /// Where `bytes` bytes at an edge begin. `bytes` is at most what `new` was given.
        pub(super) fn at(&self, edge: Edge, bytes: usize) -> *mut u8 {
            let offset = match edge {
                Edge::Start => 0,
                Edge::End => self.inner.checked_sub(bytes).expect("it fits"),
            };
            // SAFETY: bounds: `offset <= inner`, so at most the end of the open pages.
            unsafe { self.map.add(self.page + offset) }
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the whole mapping of `new`, which nobody can use any more.
            unsafe { libc::munmap(self.map.cast(), self.inner + 2 * self.page) };
        }
    }
}

/// Numbers between pages that may not be touched.
#[cfg(all(unix, not(miri)))]
pub(super) struct Guarded<T> {
    /// Holds the pages that `start` points into.
    _pages: pages::Pages,
    start: *mut T,
    len: usize,
}

#[cfg(all(unix, not(miri)))]
impl<T: Copy> Guarded<T> {
    pub(super) fn new(edge: Edge, values: &[T]) -> Self {
        let pages = pages::Pages::new(size_of_val(values));
        let start: *mut T = pages.at(edge, size_of_val(values)).cast();
        assert!(start.is_aligned());
        // SAFETY: bounds: `at` gives as many bytes as `values` has. align: asserted. alias: a new mapping.
        unsafe { start.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Self {
            _pages: pages,
            start,
            len: values.len(),
        }
    }
}

#[cfg(all(unix, not(miri)))]
impl<T> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: bounds, align, init: `new` wrote `len` values there. alias: `self` is borrowed.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

#[cfg(all(unix, not(miri)))]
impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `self` is borrowed alone.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// Plain memory.
#[cfg(not(all(unix, not(miri))))]
pub(super) struct Guarded<T>(std::vec::Vec<T>);

#[cfg(not(all(unix, not(miri))))]
impl<T: Copy> Guarded<T> {
    pub(super) fn new(_: Edge, values: &[T]) -> Self {
        Self(values.to_vec())
    }
}

#[cfg(not(all(unix, not(miri))))]
impl<T> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

#[cfg(not(all(unix, not(miri))))]
impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// The control: a byte behind the end, and one before the start, end a child process; the bytes at the edges do not.
#[cfg(all(unix, not(miri)))]
#[test]
fn a_byte_too_far_is_a_fault() {
    for (edge, offset, faults) in [
        (Edge::End, 99, false),
        (Edge::End, 100, true),
        (Edge::Start, 0, false),
        (Edge::Start, -1, true),
    ] {
        let buffer = Guarded::new(edge, &[7u8; 100]);
        // SAFETY: the child only reads a byte and ends by `_exit`: both are allowed after a fork of threads.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "no child process");
        if child == 0 {
            // SAFETY: none: the child is there to fault. Where it must not, the byte is the buffer's.
            unsafe {
                let byte = buffer.start.offset(offset).read_volatile();
                libc::_exit(i32::from(byte));
            }
        }
        let mut status = 0;
        // SAFETY: `status` is an int that the call may write.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV;
        let read = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7;
        assert!(
            if faults { killed } else { read },
            "{edge:?} {offset}: {status:x}"
        );
    }
}
