//! From reset to `main`, and what happens when that goes wrong.

use core::panic::PanicInfo;
use cortex_m_rt::{ExceptionFrame, exception};
use semihosting::eprintln;

/// Marks the function that runs after reset, `fn main() -> !`.
pub use cortex_m_rt::entry;

/// Says where, on the host's standard error, and exits with 1. Not through defmt: its logger may be the
/// one that panicked.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    eprintln!("firmware: {info}");
    crate::exit(1)
}

// SAFETY: contract of the macro: the handler does not return and uses no state of the program.
#[allow(unsafe_code)]
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    eprintln!("firmware: hard fault at {:#010x}", frame.pc());
    crate::exit(1)
}
