//! The end of the program. The status becomes the exit code of QEMU.

/// Ends the program with `status`.
pub fn exit(status: i32) -> ! {
    semihosting::process::exit(status)
}

/// Ends the program: 0 for `Ok`; else a line with the error, and 1.
#[cfg(feature = "defmt")]
pub fn finish<E: defmt::Format>(result: Result<(), E>) -> ! {
    if let Err(e) = result {
        crate::log!("error: {}", e);
        exit(1)
    }
    exit(0)
}

/// Ends the program: 0 for `Ok`; else a line with the error, and 1.
#[cfg(not(feature = "defmt"))]
pub fn finish<E: core::fmt::Debug>(result: Result<(), E>) -> ! {
    if let Err(e) = result {
        crate::log!("error: {:?}", e);
        exit(1)
    }
    exit(0)
}
