//! Instructions executed, counted with SysTick.
//!
//! Under QEMU's `-icount shift=0` one instruction takes one virtual nanosecond, and SysTick of the
//! mps2-an386 runs at 25 MHz: 40 instructions a tick. The count is exact to a tick and the same on any
//! load. These are instructions, not cycles of a real part.

use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::exception;

/// Instructions per SysTick tick on the mps2-an386 under `-icount shift=0`.
pub const PER_TICK: u64 = 40;

/// Ticks from one wrap to the next: the timer has 24 bits.
const PERIOD: u32 = 1 << 24;

static WRAPS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    WRAPS.fetch_add(1, Ordering::Relaxed);
}

/// A running counter.
pub struct Instructions(());

impl Instructions {
    /// Starts SysTick from 0.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self(())
    }

    /// Instructions since the start, in steps of [`PER_TICK`].
    pub fn now(&self) -> u64 {
        loop {
            let wraps = WRAPS.load(Ordering::Relaxed);
            let left = SYST::get_current();
            // A wrap that is still pending, or fell between the reads, would pair an old count with a new
            // timer.
            if !SCB::is_pendst_pending() && WRAPS.load(Ordering::Relaxed) == wraps {
                // The period starts where the timer reaches 0, which is also its state at the start.
                let ticks =
                    u64::from(wraps) * u64::from(PERIOD) + u64::from((PERIOD - left) % PERIOD);
                return ticks * PER_TICK;
            }
        }
    }
}
