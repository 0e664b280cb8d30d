//! A whole model from a file, through the public interface: also what Miri runs.
//!
//! `PLEACH_BLOB` names the file; without it, it is the demo's, which Miri would take long for.

use pleach::sample::argmax;
use pleach::{
    Blob, Budget, Inline, Kernels, KvType, LogitsKind, Model, Progress, Session, SessionOptions,
    Speculate,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Block([u8; 64]);

fn zeros(bytes: usize) -> Vec<Block> {
    let blocks = bytes.div_ceil(64);
    (0..blocks).map(|_| Block::new_zeroed()).collect()
}

fn blob() -> (Vec<Block>, usize) {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosts/cli/intent.pleach");
    let path = std::env::var("PLEACH_BLOB").unwrap_or_else(|_| demo.into());
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut blocks = zeros(bytes.len());
    blocks.as_mut_slice().as_mut_bytes()[..bytes.len()].copy_from_slice(&bytes);
    (blocks, bytes.len())
}

/// Tokens to draw; Miri is a thousand times slower.
const STEPS: usize = if cfg!(miri) { 1 } else { 3 };

/// The tokens and logits of greedy steps after a prompt.
fn answer(model: Model<'_>, options: &SessionOptions, budget: Budget) -> (Vec<u32>, Vec<u32>) {
    let mut arena = zeros(model.arena_bytes(options));
    let mut session = Session::new(model, options, arena.as_mut_slice().as_mut_bytes()).unwrap();
    session.push(&[1, 2, 3, 4, 5][..2 + STEPS]).unwrap();
    let (mut tokens, mut bits) = (Vec::new(), Vec::new());
    loop {
        while session
            .step(Kernels::portable(), &mut Inline, budget)
            .unwrap()
            == Progress::More
        {}
        let logits = session.logits().expect("logits of the last token");
        bits.extend(logits.iter().map(|l| l.to_bits()));
        tokens.push(argmax(logits));
        match tokens.len() {
            STEPS => return (tokens, bits),
            n => session.push(&tokens[n - 1..]).unwrap(),
        }
    }
}

/// Sound bytes, and one answer in two modes.
#[test]
fn a_model_from_a_file() {
    let (blocks, len) = blob();
    let model = Model::parse(Blob::new(&blocks.as_bytes()[..len]).unwrap()).unwrap();
    model.verify().unwrap();
    let naive = SessionOptions {
        context: 8,
        kv: KvType::F16,
        ..SessionOptions::DEFAULT
    };
    let chunks = SessionOptions {
        chunk: 2,
        logits: LogitsKind::Sweep,
        speculate: Speculate::Held,
        ..naive
    };
    let first = answer(model, &chunks, Budget(500));
    if !cfg!(miri) {
        assert_eq!(first, answer(model, &naive, Budget::UNLIMITED));
    }
    assert!(first.1.iter().all(|b| f32::from_bits(*b).is_finite()));
}
