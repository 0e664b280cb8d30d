//! The way that real prompts take: several columns, the last token's logits only, so that `narrow` leaves the others out of
//! the last layer, and texts of several segments of attention. The bits are those of one token after the other.

use parity::subject::Subject;
use parity::{File, reseal};
use pleach::blob::format::SectionKind;
use pleach::{
    Counters, Kernels, KvType, LogitsKind, Model, Routing, Sampling, Session, SessionOptions,
};
use pleach_linux::{Arena, ClaimOrder, ThreadPool};

/// Two segments of 256 positions and a part of a third.
const LONG: usize = 600;

/// The longest text, and the tokens behind it.
const CONTEXT: u32 = 1024;

/// The bits of the last logits after the prompt and after each of two greedy tokens.
type Answer = (Vec<Vec<u32>>, Counters);

/// How a prompt is pushed, and what computes it.
#[derive(Clone, Copy, Debug)]
struct Way {
    chunk: u32,
    /// Tokens of a push.
    push: usize,
    threads: usize,
    logits: LogitsKind,
}

/// One token after the other.
const NAIVE: Way = Way {
    chunk: 1,
    push: 1,
    threads: 1,
    logits: LogitsKind::Last,
};

fn answer(model: Model<'_>, kv: KvType, routing: Routing<'_>, prompt: &[u32], way: Way) -> Answer {
    let options = SessionOptions {
        context: CONTEXT,
        chunk: way.chunk,
        kv,
        logits: way.logits,
        ..SessionOptions::DEFAULT
    };
    let mut arena = Arena::new(model.arena_bytes(&options)).unwrap();
    let mut session = Session::new(model, &options, arena.bytes()).unwrap();
    session.set_routing(routing).unwrap();
    let mut pool = ThreadPool::new(way.threads)
        .claim(ClaimOrder::Shuffled(3))
        .inline_below(0);
    for piece in prompt.chunks(way.push) {
        session.push(piece).unwrap();
        session.run(Kernels::detect(), &mut pool).unwrap();
    }
    let counters = session.counters();
    let mut all = Vec::new();
    loop {
        let logits = session.logits().unwrap();
        all.push(logits.iter().map(|l| l.to_bits()).collect());
        if all.len() == 3 {
            return (all, counters);
        }
        let drawn = session.sample(&Sampling::GREEDY).unwrap();
        session.push(&[drawn]).unwrap();
        session.run(Kernels::detect(), &mut pool).unwrap();
    }
}

/// The same model for longer texts: its rotary frequencies do not depend on how long they may be.
fn lengthened(file: &File) -> File {
    let mut sections = reseal::sections(file.bytes());
    let config = sections.iter_mut().find(|s| s.kind == SectionKind::Config);
    config.unwrap().bytes[28..32].copy_from_slice(&CONTEXT.to_le_bytes());
    File::new(&reseal::assemble(&sections))
}

fn same_as_naive(subject: &Subject, length: usize, routings: &[Routing<'_>], ways: &[Way]) {
    let storage = *subject.storages.last().unwrap();
    let file = lengthened(&subject.file(storage));
    let model = file.model();
    assert_eq!(model.config().max_position, CONTEXT);
    let prompt: Vec<u32> = subject
        .prompt
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect();
    for kv in [KvType::F32, KvType::F16] {
        for &routing in routings {
            let (naive, _) = answer(model, kv, routing, &prompt, NAIVE);
            for &way in ways {
                let (found, _) = answer(model, kv, routing, &prompt, way);
                let first = naive.iter().zip(&found).position(|(n, f)| n != f);
                let name = &subject.name;
                assert_eq!(
                    first, None,
                    "{name}, {length} tokens, {kv:?} {routing:?} {way:?}"
                );
            }
        }
    }
}

const LAST: [Way; 3] = [
    Way {
        chunk: 7,
        push: usize::MAX,
        threads: 1,
        logits: LogitsKind::Last,
    },
    Way {
        chunk: 32,
        push: 20,
        threads: 2,
        logits: LogitsKind::Last,
    },
    Way {
        chunk: 32,
        push: usize::MAX,
        threads: 3,
        logits: LogitsKind::Last,
    },
];

/// Of those whose answer does not depend on where a push ends: `Prompt` holds the scalings of what was pushed first.
const ROUTINGS: [Routing<'_>; 3] = [Routing::Exact, Routing::AllOnes, Routing::Base];

#[test]
fn the_last_logits_of_a_prompt_are_the_naive_ones() {
    for subject in Subject::all() {
        same_as_naive(&subject, 37, &ROUTINGS, &LAST);
    }
}

#[test]
fn texts_of_several_segments_have_the_naive_bits() {
    let ways = [1, 4].map(|threads| Way {
        threads,
        push: usize::MAX,
        ..LAST[0]
    });
    let subjects = Subject::cases();
    let every = [&ways[..], &LAST[1..]].concat();
    same_as_naive(&subjects[0], LONG, &[Routing::Exact], &every);
    same_as_naive(&subjects[1], LONG, &[Routing::AllOnes], &every);
}

/// With `Last` a prompt has one row of logits, where `Sweep` has one for each token.
#[test]
fn the_head_computes_one_row_for_a_prompt() {
    let subject = Subject::intent();
    let file = subject.file(subject.storages[0]);
    let (model, c) = (file.model(), file.model().config());
    let macs = |logits| {
        let way = Way { logits, ..LAST[2] };
        let prompt = &subject.prompt[..30];
        let kv = KvType::F16;
        answer(model, kv, Routing::Base, prompt, way).1.macs
    };
    let head = u64::from(c.vocab) * u64::from(c.hidden);
    let saved = macs(LogitsKind::Sweep) - macs(LogitsKind::Last);
    assert!(saved >= 29 * head, "{saved} of {}", 29 * head);
}
