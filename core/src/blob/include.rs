//! [`include_blob!`](crate::include_blob): a model in flash, checked by the compiler.

use crate::blob::{Blob, Model};

/// Blobs up to this size have their sections' CRCs checked at compile time.
const CONST_CRC_BYTES: usize = 1 << 20;

/// The model in `blob`, or a panic that says what is wrong; for constants, where the panic is a compile
/// error.
#[doc(hidden)]
pub const fn expect_model(blob: Blob<'_>) -> Model<'_> {
    let model = match Model::parse(blob) {
        Ok(m) => m,
        Err(e) => fail(&e),
    };
    if model.file_len() <= CONST_CRC_BYTES
        && let Err(e) = model.check_crcs()
    {
        fail(&e)
    }
    model
}

const fn fail(e: &crate::Error) -> ! {
    panic!("{}", e.why())
}

/// Places a model file in a 64-byte aligned static and parses it at compile time.
///
/// `include_blob!(static INTENT = "intent.pleach");` declares `static INTENT: Model<'static>`; `const`
/// declares a constant instead. The path is relative to the file, as for `include_bytes!`. A bad blob is a
/// compile error that says why. CRCs are checked at compile time up to 1 MiB (about 6 µs a byte); above
/// that call [`Model::verify`](crate::Model::verify) at boot.
#[macro_export]
macro_rules! include_blob {
    ($(#[$meta:meta])* $vis:vis static $name:ident = $path:expr) => {
        $(#[$meta])*
        #[allow(long_running_const_eval)]
        $vis static $name: $crate::Model<'static> = {
            static BYTES: &$crate::Aligned<[u8]> = &$crate::Aligned(*include_bytes!($path));
            $crate::blob::expect_model($crate::Blob::aligned(BYTES))
        };
    };
    ($(#[$meta:meta])* $vis:vis const $name:ident = $path:expr) => {
        $(#[$meta])*
        #[allow(long_running_const_eval)]
        $vis const $name: $crate::Model<'static> = {
            static BYTES: &$crate::Aligned<[u8]> = &$crate::Aligned(*include_bytes!($path));
            $crate::blob::expect_model($crate::Blob::aligned(BYTES))
        };
    };
}
