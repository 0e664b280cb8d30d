//! libFuzzer over the parsers of [`parity::hostile`]. Which one: `PLEACH_FUZZ=NAME`. `PLEACH_FUZZ_SEEDS=FOLDER`
//! writes that target's seeds there and ends. `cargo xtask fuzz` sets both.
//!
//! The allocator refuses more than [`HEAP`] bytes: an allocation on a header's word is a find.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parity::hostile::Target;
use std::path::Path;
use std::sync::OnceLock;

/// Bytes that the parsers may hold at once.
const HEAP: usize = 256 << 20;

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, HEAP);

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("PLEACH_FUZZ").unwrap_or_default();
        parity::hostile::target(&name).unwrap_or_else(|| {
            let all: Vec<&str> = parity::hostile::TARGETS.iter().map(|t| t.name).collect();
            eprintln!(
                "PLEACH_FUZZ={name}: no such target\n  one of: {}",
                all.join(", ")
            );
            std::process::exit(2)
        })
    })
}

/// Writes the seeds if that is what was asked for.
fn seeds() {
    let target = chosen();
    let Some(folder) = std::env::var_os("PLEACH_FUZZ_SEEDS") else {
        return;
    };
    for (n, seed) in (target.seeds)().iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{n}"));
        if let Err(e) = std::fs::write(&file, seed) {
            eprintln!("{}: {e}", file.display());
            std::process::exit(1);
        }
    }
    std::process::exit(0);
}

fuzz_target!(init: seeds(), |data: &[u8]| (chosen().run)(data));
