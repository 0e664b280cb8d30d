//! No subnormal takes part: the float unit's sticky flags for denormal operands and underflow stay clear
//! over every PEFT case and every adversarial checkpoint, greedy and sampled, so that hardware that flushes
//! subnormals agrees.

#![allow(unsafe_code)]

use parity::subject::Subject;
use parity::{Case, Guesses, Mode, Setup, Storage, Text, run};
use pleach::{KvType, Sampling, Speculate};

/// Clears the sticky flags of this thread.
fn clear() {
    #[cfg(target_arch = "x86_64")]
    {
        let csr = read() & !0x3f;
        // SAFETY: loads MXCSR from a live u32. Only the six sticky flags differ from the value that was
        //   there: rounding, masks, FTZ and DAZ stay as the compiler assumes them.
        unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &csr, options(nostack, readonly)) }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: FPSR holds sticky flags only (and QC); no computation depends on them.
    unsafe {
        core::arch::asm!("msr fpsr, xzr", options(nomem, nostack))
    }
}

/// The raw status register.
#[cfg(target_arch = "x86_64")]
fn read() -> u32 {
    let mut csr = 0u32;
    // SAFETY: stores MXCSR to a live, writable u32.
    unsafe { core::arch::asm!("stmxcsr [{}]", in(reg) &mut csr, options(nostack)) }
    csr
}

/// The raw status register.
#[cfg(target_arch = "aarch64")]
fn read() -> u32 {
    let fpsr: u64;
    // SAFETY: reads a status register.
    unsafe { core::arch::asm!("mrs {}, fpsr", out(reg) fpsr, options(nomem, nostack)) }
    fpsr as u32
}

/// DE and UE of MXCSR; IDC and UFC of FPSR.
#[cfg(target_arch = "x86_64")]
const SUBNORMAL: u32 = 1 << 1 | 1 << 4;
#[cfg(target_arch = "aarch64")]
const SUBNORMAL: u32 = 1 << 7 | 1 << 3;

fn is_set() -> bool {
    read() & SUBNORMAL != 0
}

#[test]
fn the_flags_can_be_seen() {
    clear();
    let tiny = std::hint::black_box(f32::MIN_POSITIVE);
    assert!(!is_set());
    let inexact = std::hint::black_box(tiny * std::hint::black_box(0.3));
    assert!(
        is_set(),
        "a result of {inexact:e} must set the underflow flag"
    );
    clear();
    assert!(!is_set());
}

/// A draw in which every option takes part.
fn sampling() -> Sampling {
    let mut sampling = Sampling {
        temperature: 0.7,
        top_k: 30,
        top_p: 0.95,
        min_p: 1e-6,
        repetition_penalty: 1.1,
        presence_penalty: 2f32.powi(-24),
        frequency_penalty: 0.3,
        penalty_tokens: 16,
        seed: 3,
        ..Sampling::GREEDY
    };
    for bias in [(3, 2f32.powi(-24)), (4, -1.5), (5, f32::NEG_INFINITY)] {
        sampling.bias.push(bias).expect("room");
    }
    sampling
}

/// Runs one text naive and greedy, and pipelined and sampled with guesses, each between two looks at the flags.
fn stays_clear(name: &str, file: &parity::File, setup: &Setup<'_>, text: &Text<'_>) {
    let (model, sampling) = (file.model(), sampling());
    let sampled = Text {
        sampling: &sampling,
        ..*text
    };
    let guessing = Mode::whole(7).speculating(Speculate::Auto, Guesses::Natural);
    for (mode, text) in [(Mode::NAIVE, text), (guessing, &sampled)] {
        clear();
        let trace = run(model, &mode, setup, text);
        let set = is_set();
        if let Err(e) = trace {
            panic!("{name}, {}: {e}", mode.name());
        }
        assert!(!set, "{name}, {}: a subnormal took part", mode.name());
    }
}

#[test]
fn peft_cases() {
    for case in Case::all().into_iter().chain(Case::families()) {
        let prompt = case.tokens("prompt");
        let text = Text::new(&prompt, 16);
        for storage in [Storage::F16, Storage::Q8] {
            let file = case.pack(storage);
            for kv in [KvType::F32, KvType::F16] {
                let setup = Setup {
                    scaling_pass_value: case.set_scaling_pass_value(),
                    ..Setup::exact(kv)
                };
                let name = format!("{} {} {kv:?}", case.name, storage.name());
                stays_clear(&name, &file, &setup, &text);
            }
        }
    }
}

#[test]
fn intent_and_adversarial() {
    let mut subjects = Subject::adversarial();
    subjects.push(Subject::intent());
    for subject in subjects {
        for &storage in &subject.storages {
            let file = subject.file(storage);
            for kv in [KvType::F32, KvType::F16] {
                let name = format!("{} {} {kv:?}", subject.name, storage.name());
                stays_clear(
                    &name,
                    &file,
                    &Setup::exact(kv),
                    &Text::new(&subject.prompt, 7),
                );
            }
        }
    }
}
