//! Ctrl-C: a clean stop where something is being computed, an immediate one where we only wait, a question back at
//! a prompt.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);
static DOING: AtomicU8 = AtomicU8::new(WAITING);

/// Ctrl-C ends the process.
const WAITING: u8 = 0;
/// The first Ctrl-C only sets the [`flag`].
const COMPUTING: u8 = 1;
/// The first Ctrl-C is answered.
const AT_PROMPT: u8 = 2;

/// Installs the handler. Where the system has none, Ctrl-C ends the process as usual.
pub(crate) fn install() {
    let _ = ctrlc::set_handler(|| {
        let first = !ASKED.swap(true, Ordering::Relaxed);
        match (first, DOING.load(Ordering::Relaxed)) {
            (true, COMPUTING) => {}
            (true, AT_PROMPT) => eprint!("\nCtrl-C again, or Ctrl-D, leaves\n> "),
            (false, AT_PROMPT) => {
                eprintln!();
                std::process::exit(130)
            }
            _ => std::process::exit(130),
        }
    });
}

/// While it lives, the first Ctrl-C only sets the [`flag`]; the second one ends the process.
pub(crate) struct Busy;

impl Busy {
    pub(crate) fn new() -> Self {
        DOING.store(COMPUTING, Ordering::Relaxed);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        DOING.store(WAITING, Ordering::Relaxed);
    }
}

/// While it lives, somebody is asked for a line: the first Ctrl-C says how to leave, the second one leaves. What
/// was asked before is forgotten, and in the end what was asked meanwhile.
pub(crate) struct AtPrompt;

impl AtPrompt {
    pub(crate) fn new() -> Self {
        ASKED.store(false, Ordering::Relaxed);
        DOING.store(AT_PROMPT, Ordering::Relaxed);
        Self
    }
}

impl Drop for AtPrompt {
    fn drop(&mut self) {
        DOING.store(WAITING, Ordering::Relaxed);
        ASKED.store(false, Ordering::Relaxed);
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
