//! The intent model on a Cortex-M4F: sentences in at run time, smart-home calls out, no heap.
//!
//! Everything that decides sizes is a constant: the model is parsed by the compiler, the arena is a static
//! of exactly the bytes that the model needs.

#![no_std]
#![no_main]

mod answer;

use answer::{Answer, Fault};
use pleach::{Aligned, Error, KvType, Model, Session, SessionOptions};
use pleach_mcu::count::Instructions;
use pleach_mcu::input::{InputError, Lines};
use pleach_mcu::{entry, finish, log, memory};
use static_cell::ConstStaticCell;

pleach::include_blob!(static INTENT = "../intent-cortex-m.pleach");

/// Context 64, chunk 1, f16 caches, no speculation, no scalings log.
const OPTIONS: SessionOptions = SessionOptions::DEFAULT;
const ARENA_BYTES: usize = INTENT.arena_bytes(&OPTIONS);
const _: () = assert!(
    ARENA_BYTES <= 96 * 1024,
    "the arena leaves no room for the stack"
);
static ARENA: ConstStaticCell<Aligned<[u8; ARENA_BYTES]>> =
    ConstStaticCell::new(Aligned([0; ARENA_BYTES]));

#[entry]
fn main() -> ! {
    finish(run())
}

fn run() -> Result<(), &'static str> {
    let timer = cortex_m::Peripherals::take()
        .ok_or("SysTick is taken")?
        .SYST;
    let instructions = Instructions::start(timer);
    introduce(&INTENT);
    let mut session = open();
    let session = session.as_mut().map_err(|e| e.why())?;
    let mut answer = Answer::new();

    let mut lines = Lines::<192>::from_args();
    let lines = lines.as_mut().map_err(|e| e.why())?;
    loop {
        let sentence = match lines.next_line() {
            Ok(Some(sentence)) => sentence,
            Ok(None) => break,
            Err(InputError::Host) => return Err(InputError::Host.why()),
            Err(e) => {
                log!("refused: {}", e.why());
                continue;
            }
        };
        log!("> {}", sentence);
        session.rewind(0).map_err(|e| e.why())?;
        match answer.to(sentence, session, &instructions) {
            Ok(()) => report(&answer),
            Err(Fault::Refused(why)) => log!("refused: {}", why),
            Err(Fault::Broken(why)) => return Err(why),
        }
    }
    let ram = memory::ram();
    log!(
        "memory: data {} bss {} stack {} total {}",
        ram.data,
        ram.bss,
        ram.stack,
        ram.total()
    );
    Ok(())
}

/// Out of line: what it takes to build a session is off the stack when the session runs.
#[inline(never)]
fn open() -> Result<Session<'static, 'static>, Error> {
    Session::new(INTENT, &OPTIONS, &mut ARENA.take().0)
}

fn introduce(model: &Model<'_>) {
    log!(
        "model: {} bytes, {} sites, {} experts",
        model.file_len(),
        model.n_sites(),
        model.n_experts()
    );
    let kv = match OPTIONS.kv {
        KvType::F16 => "f16",
        KvType::F32 => "f32",
    };
    let (context, chunk) = (OPTIONS.context, OPTIONS.chunk);
    log!(
        "arena: {} bytes for context {}, chunk {}, {} caches",
        ARENA_BYTES,
        context,
        chunk,
        kv
    );
}

fn report(a: &Answer) {
    log!("prompt {:?}", a.prompt());
    log!("answer {:?}", a.generated());
    log!("call {}", a.text.as_str());
    log!("experts{}", a.shares.as_str());
    log!("hash {:016x}", a.hash);
    log!(
        "instructions: prefill {} and decode {} a token",
        a.prefill,
        a.decode
    );
}
