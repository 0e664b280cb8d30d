//! Calls every public entry of the core with arguments that the compiler knows nothing about.
//!
//! The panic handler calls a symbol that nobody defines: if any panic can be reached from here, the
//! program does not link. There is no global allocator either. It is linked, never run, so the values do
//! not matter, only that they are opaque. `cargo xtask test nopanic` links it for a Cortex-M0 and an M4F,
//! and checks that the feature `bad`, one index out of bounds, does not link.

#![no_std]
#![no_main]

mod blob;
mod layers;
mod math;
mod session;
mod text;

use core::hint::black_box;
use core::panic::PanicInfo;
use cortex_m_rt::entry;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        safe fn pleach_panic_reached() -> !;
    }
    pleach_panic_reached()
}

/// A value of which the compiler knows only the type.
fn any<T: Copy + Default>() -> T {
    black_box(T::default())
}

/// Bytes of unknown number and content, from flash.
fn bytes() -> &'static [u8] {
    static BYTES: [u8; 64] = [0; 64];
    black_box(&BYTES)
}

/// Numbers of unknown number and value.
fn floats() -> &'static [f32] {
    static FLOATS: [f32; 64] = [0.0; 64];
    black_box(&FLOATS)
}

#[entry]
fn main() -> ! {
    loop {
        math::call();
        text::call();
        blob::call();
        session::call();
        layers::call();
        #[cfg(feature = "bad")]
        black_box(bytes()[any::<usize>()]);
    }
}
