//! The end of the program. The status becomes the exit code of QEMU.

/// Ends the program with `status`.
pub fn exit(status: i32) -> ! {
    semihosting::process::exit(status)
}

/// Ends the program: 0 for `Ok`; else a line that says why, and 1.
pub fn finish(result: Result<(), &'static str>) -> ! {
    match result {
        Ok(()) => exit(0),
        Err(why) => {
            crate::log!("error: {}", why);
            exit(1)
        }
    }
}
