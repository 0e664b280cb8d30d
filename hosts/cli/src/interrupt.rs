//! Ctrl-C: a clean stop where something is being computed, an immediate one where we only wait.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicBool = AtomicBool::new(false);

/// Installs the handler. Where the system has none, Ctrl-C ends the process as usual.
pub(crate) fn install() {
    let _ = ctrlc::set_handler(|| {
        let first = !ASKED.swap(true, Ordering::Relaxed);
        if !(first && BUSY.load(Ordering::Relaxed)) {
            std::process::exit(130);
        }
    });
}

/// While it lives, the first Ctrl-C only sets the [`flag`]; the second one ends the process.
pub(crate) struct Busy;

impl Busy {
    pub(crate) fn new() -> Self {
        BUSY.store(true, Ordering::Relaxed);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Relaxed);
    }
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// The same as a flag for code that looks itself.
pub(crate) fn flag() -> &'static AtomicBool {
    &ASKED
}
