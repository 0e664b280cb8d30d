//! The harness on a board, and on the PC that it is compared with: that one takes `small` or `large`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod count;

use kernels::memory::Memory;

/// For 16 KiB of RAM: 64x64 weights.
#[cfg(any(small, not(target_os = "none")))]
type Small = Memory<4352, 512, 1088, 32>;
/// For 512x512 weights in `q8`.
#[cfg(not(small))]
type Large = Memory<{ 280 * 1024 }, 8064, 16384, 256>;

/// Runs of one count.
#[cfg(all(target_os = "none", target_arch = "arm"))]
const RUNS: u64 = 16;

#[cfg(target_os = "none")]
fn main_on_board() -> ! {
    #[cfg(small)]
    type Size = Small;
    #[cfg(not(small))]
    type Size = Large;
    // On the stack, which has all the RAM that is left.
    let mut memory = Size::ZERO;
    let kernels = pleach::Kernels::of_build();
    kernels::cases::operations(kernels, board::line);
    let same = kernels::cases::compare(kernels, memory.buffers(), board::line);
    count::print(kernels, &mut memory.buffers(), board::line);
    board::exit(same.is_err().into())
}

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    fn line(text: std::fmt::Arguments<'_>) {
        println!("{text}");
    }
    let kernels = pleach::Kernels::of_build();
    let (mut small, mut large) = (Small::ZERO, Large::ZERO);
    let same = match std::env::args().nth(1).as_deref() {
        Some("small") => kernels::cases::compare(kernels, small.buffers(), line),
        Some("large") => kernels::cases::compare(kernels, large.buffers(), line),
        _ => {
            eprintln!("kernels: name a size of memory\n  kernels small|large");
            return 2.into();
        }
    };
    u8::from(same.is_err()).into()
}
