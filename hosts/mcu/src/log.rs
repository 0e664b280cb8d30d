//! One macro for both kinds of log.

/// Logs a line: `defmt::println!` with the feature `defmt` (the firmware must depend on `defmt` too), else
/// text on standard output. Use only format strings that both understand: `{}`, `{:?}`, `{:016x}`.
///
/// `println!` is not filtered by `DEFMT_LOG`: a result always arrives.
#[cfg(feature = "defmt")]
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { ::defmt::println!($($arg)*) };
}

/// Logs a line: `defmt::println!` with the feature `defmt` (the firmware must depend on `defmt` too), else
/// text on standard output. Use only format strings that both understand: `{}`, `{:?}`, `{:016x}`.
#[cfg(not(feature = "defmt"))]
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::semihosting::println!($($arg)*) };
}
