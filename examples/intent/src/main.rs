#![no_std]
#![no_main]

use pleach_mcu::{count::Instructions, input::Lines};
use pleach_mcu::{entry, log};

#[entry]
fn main() -> ! {
    let count = cortex_m::Peripherals::take()
        .map(|p| Instructions::start(p.SYST))
        .unwrap();
    let a = count.now();
    let mut s = 0u32;
    for i in 0..200_000_000u32 {
        s = core::hint::black_box(s + i);
    }
    let b = count.now();
    log!("hello {} {:016x}", s, b - a);
    let mut lines = Lines::<256>::from_args().unwrap();
    while let Ok(Some(l)) = lines.next_line() {
        log!("line {}", l);
    }
    let ram = pleach_mcu::memory::ram();
    log!("{} {} {}", ram.data, ram.bss, ram.stack);
    pleach_mcu::exit(0)
}
