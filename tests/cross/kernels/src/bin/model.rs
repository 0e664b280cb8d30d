//! A whole model on a board: `model.pleach` of the folder in which QEMU runs, laid out for the board's kernels. Prints the
//! hash over all scalings and logits that `pleach trace --hash` prints for the same tokens, and what a token costs.
//!
//! For boards only: on a PC it does nothing.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "../board.rs"]
mod board;

/// Runs of one count.
#[cfg(all(target_os = "none", target_arch = "arm"))]
const RUNS: u64 = 1;

#[cfg(target_os = "none")]
fn main_on_board() -> ! {
    let done = model::run();
    if let Err(why) = done {
        board::line(format_args!("model: {why}"));
    }
    board::exit(done.is_err().into())
}

#[cfg(target_os = "none")]
mod model {
    use crate::board;
    use pleach::hash::Fnv1a;
    use pleach::{Aligned, Blob, Error, Inline, Kernels, Model, Session, SessionOptions, sample};
    use semihosting::fs::File;
    use semihosting::io::Read;

    const FILE_BYTES: usize = 320 * 1024;
    const ARENA_BYTES: usize = 64 * 1024;
    const OPTIONS: SessionOptions = SessionOptions {
        context: 16,
        ..SessionOptions::DEFAULT
    };
    const PROMPT: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    pub(crate) fn run() -> Result<(), &'static str> {
        // On the stack, which has all the RAM that is left.
        let (mut file, mut arena) = (Aligned([0; FILE_BYTES]), Aligned([0; ARENA_BYTES]));
        let n = read(&mut file.0)?;
        hash(&file.0[..n], &mut arena.0).map_err(|e| e.why())
    }

    fn read(out: &mut [u8]) -> Result<usize, &'static str> {
        let mut file = File::open(c"model.pleach").map_err(|_| "model.pleach does not open")?;
        let mut filled = 0;
        loop {
            match file.read(&mut out[filled..]) {
                Ok(0) if filled < out.len() => return Ok(filled),
                Ok(0) => return Err("model.pleach is too large"),
                Ok(n) => filled += n,
                Err(_) => return Err("model.pleach cannot be read"),
            }
        }
    }

    /// The prompt and as many greedy tokens; the last one is not pushed.
    fn hash(file: &[u8], arena: &mut [u8]) -> Result<(), Error> {
        let model = Model::parse(Blob::new(file)?)?;
        let mut session = Session::new(model, &OPTIONS, arena)?;
        let (mut hash, mut token, mut instructions) = (Fnv1a::new(), 0, 0);
        let tokens = PROMPT.len() * 2 - 1;
        for i in 0..tokens {
            token = PROMPT.get(i).copied().unwrap_or(token);
            session.push(&[token])?;
            let mut done = Ok(());
            instructions +=
                board::count(|| done = session.run(Kernels::of_build(), &mut Inline).map(|_| ()));
            done?;
            if let Some(scalings) = session.scalings_at(i) {
                for site in 0..session.model().n_sites() {
                    hash.floats(scalings.row(0, site));
                }
            }
            let logits = session.logits().unwrap_or(&[]);
            hash.floats(logits);
            token = sample::argmax(logits);
        }
        let kernels = Kernels::of_build().name();
        let each = instructions / tokens as u64;
        board::line(format_args!(
            "model by {kernels}: {each} instructions a token"
        ));
        board::line(format_args!("hash {:016x}", hash.value()));
        Ok(())
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
