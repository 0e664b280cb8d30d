//! How much RAM the program uses. `cortex-m-rt` paints the stack before `main`.

use core::ptr;

// SAFETY: link.x of cortex-m-rt defines all six; only their addresses are used.
#[allow(unsafe_code)]
unsafe extern "C" {
    static __sdata: u32;
    static __edata: u32;
    static __sbss: u32;
    static __euninit: u32;
    static _stack_end: u32;
    static _stack_start: u32;
}

/// RAM in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    /// Initialised variables.
    pub data: usize,
    /// Zeroed and uninitialised variables, the arena among them.
    pub bss: usize,
    /// The deepest that the stack has been since reset.
    pub stack: usize,
}

impl Ram {
    /// The sum.
    pub const fn total(&self) -> usize {
        self.data + self.bss + self.stack
    }
}

/// What is used now: sizes from the linker's symbols, the stack from its paint.
pub fn ram() -> Ram {
    let span = |from: *const u32, to: *const u32| to as usize - from as usize;
    Ram {
        data: span(&raw const __sdata, &raw const __edata),
        bss: span(&raw const __sbss, &raw const __euninit),
        stack: stack_used(&raw const _stack_end, &raw const _stack_start),
    }
}

/// Bytes from the lowest word that lost its paint to the top.
#[allow(unsafe_code)]
fn stack_used(end: *const u32, top: *const u32) -> usize {
    let mut p = end;
    // SAFETY: link.x: `_stack_end..=_stack_start` is RAM, both word-aligned, and cortex-m-rt has written
    //   every word of it before `main`. Reads are volatile: below the stack pointer nothing else writes.
    while p < top && unsafe { ptr::read_volatile(p) } == cortex_m_rt::STACK_PAINT_VALUE {
        p = p.wrapping_add(1);
    }
    top as usize - p as usize
}
