//! Start, lines to the host, a counter of instructions and the end, on each board.
//!
//! Under QEMU's `-icount shift=0` an instruction takes one virtual nanosecond. SysTick runs at the board's
//! clock, and RISC-V's `minstret` counts them itself. They are instructions, not cycles of a real part.

use core::fmt::Arguments;
use core::panic::PanicInfo;

/// Thousandths of an instruction per tick.
#[cfg(target_arch = "arm")]
const TICK: u64 = match u64::from_str_radix(env!("TICK"), 10) {
    Ok(n) => n,
    Err(_) => panic!("build.rs writes a number"),
};

/// Writes a line to the host.
pub fn line(text: Arguments<'_>) {
    semihosting::println!("{text}");
}

/// Ends the program with a status.
pub fn exit(status: i32) -> ! {
    semihosting::process::exit(status)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    semihosting::eprintln!("kernels: {info}");
    exit(1)
}

#[cfg(target_arch = "arm")]
mod counter {
    use cortex_m::peripheral::{SYST, syst::SystClkSource};

    const PERIOD: u32 = 1 << 24;

    fn start() {
        if let Some(p) = cortex_m::Peripherals::take() {
            let mut timer = p.SYST;
            timer.set_clock_source(SystClkSource::Core);
            timer.set_reload(PERIOD - 1);
            timer.clear_current();
            timer.enable_counter();
        }
    }

    /// Instructions that `run` executes, with the loop around it: the mean of the program's `RUNS` runs, since a
    /// tick is 31 to 63 instructions.
    pub fn count(mut run: impl FnMut()) -> u64 {
        let before = SYST::get_current();
        for _ in 0..crate::RUNS {
            run();
        }
        let ticks = before.wrapping_sub(SYST::get_current()) % PERIOD;
        u64::from(ticks) * super::TICK / 1000 / crate::RUNS
    }

    #[cortex_m_rt::exception]
    unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
        semihosting::eprintln!("kernels: hard fault at {:#010x}", frame.pc());
        super::exit(1)
    }

    #[cortex_m_rt::entry]
    fn main() -> ! {
        start();
        crate::main_on_board()
    }
}

#[cfg(target_arch = "riscv32")]
mod counter {
    use core::arch::{asm, global_asm};

    global_asm!(
        ".section .init, \"ax\"",
        ".global _start",
        "_start:",
        "la sp, _stack_top",
        "la t0, _bss_start",
        "la t1, _bss_end",
        "1: bgeu t0, t1, 2f",
        "sw zero, 0(t0)",
        "addi t0, t0, 4",
        "j 1b",
        "2: j {main}",
        main = sym main,
    );

    extern "C" fn main() -> ! {
        crate::main_on_board()
    }

    fn now() -> u32 {
        let n: u32;
        // SAFETY: reads a counter.
        unsafe { asm!("csrr {n}, minstret", n = out(reg) n, options(nomem, nostack)) };
        n
    }

    /// Instructions that `run` executes.
    pub fn count(mut run: impl FnMut()) -> u64 {
        let before = now();
        run();
        u64::from(now().wrapping_sub(before))
    }
}

pub use counter::count;
