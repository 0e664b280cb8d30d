//! Damaged blobs on the Cortex-M4F: each must end as `tests/fixtures/corrupt/kept.txt` says.
//!
//! Standard input has the lines of that file, `NAME OUTCOME at=hex ...`; the head of the file says what is
//! run. A line `base LENGTH HASH PATH` before them says where on the host the blob lies that they damage.

#![no_std]
#![no_main]

mod patch;

use pleach::hash::fnv1a;
use pleach::{Aligned, Blob, Error, Inline, Kernels, Model, Session, SessionOptions};
use pleach_mcu::input::{Lines, read_file};
use pleach_mcu::{entry, finish, log};
use static_cell::ConstStaticCell;

const BLOB_BYTES: usize = 512 * 1024;
const ARENA_BYTES: usize = 65536;
const OPTIONS: SessionOptions = SessionOptions {
    context: 16,
    ..SessionOptions::DEFAULT
};

static BASE: ConstStaticCell<[u8; BLOB_BYTES]> = ConstStaticCell::new([0; BLOB_BYTES]);
static BLOB: ConstStaticCell<Aligned<[u8; BLOB_BYTES]>> =
    ConstStaticCell::new(Aligned([0; BLOB_BYTES]));
static ARENA: ConstStaticCell<Aligned<[u8; ARENA_BYTES]>> =
    ConstStaticCell::new(Aligned([0; ARENA_BYTES]));

#[entry]
fn main() -> ! {
    finish(run())
}

fn run() -> Result<(), &'static str> {
    let (base, blob, arena) = (BASE.take(), BLOB.take(), ARENA.take());
    let (mut len, mut equal, mut refused) = (0, 0u32, 0u32);
    let mut lines = Lines::<1024>::stdin().map_err(|e| e.why())?;
    while let Some(line) = lines.next_line().map_err(|e| e.why())? {
        let mut words = line.split(' ');
        if words.next() == Some("base") {
            len = load(&mut words, base)?;
            continue;
        }
        let expected = words.next().unwrap_or("").parse();
        let expected: u16 = expected.map_err(|_| "a line without an outcome")?;
        let blob = blob
            .0
            .get_mut(..len)
            .ok_or("no base before the first patch")?;
        blob.copy_from_slice(base.get(..len).unwrap_or(&[]));
        patch::apply(words, blob).ok_or("a patch that does not fit its base")?;
        let found = replay(blob, &mut arena.0).map_or_else(|e| e.code(), |()| 0);
        if found != expected {
            log!("outcome {} expected {}: {}", found, expected, line);
            return Err("an outcome differs");
        }
        equal += 1;
        refused += u32::from(found != 0);
    }
    log!(
        "{} damaged blobs end as they must, {} of them with an error",
        equal,
        refused
    );
    Ok(())
}

/// Reads a base: `LENGTH HASH PATH`.
fn load<'l>(
    words: &mut impl Iterator<Item = &'l str>,
    base: &mut [u8],
) -> Result<usize, &'static str> {
    let (length, hash) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let n = read_file(words.next().unwrap_or(""), base).map_err(|e| e.why())?;
    let found = fnv1a(base.get(..n).unwrap_or(&[]));
    if length.parse() != Ok(n) || u64::from_str_radix(hash, 16) != Ok(found) {
        return Err("a base is not the blob that the patches are for");
    }
    Ok(n)
}

/// As `tests/parity` does natively.
fn replay(blob: &[u8], arena: &mut [u8]) -> Result<(), Error> {
    let model = Model::parse(Blob::new(blob)?)?;
    let mut session = Session::new(model, &OPTIONS, arena)?;
    session.push(&[1, 2, 3, 4, 5])?;
    session.run(Kernels::portable(), &mut Inline)?;
    session.rewind(3)?;
    session.push(&[6, 7])?;
    session.run(Kernels::portable(), &mut Inline)
}
