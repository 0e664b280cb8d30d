//! Damaged blobs, every checksum recomputed: refused with a typed error, or safe. No panic, no work without
//! end, no table that the session finds broken after `parse` let it pass. A panic fails the test.

use parity::drive::{self, REPLAY_ARENA};
use parity::memory::Bytes;
use parity::mutate::{Region, mutate, regions};
use parity::random::Random;
use parity::reseal;
use parity::{Case, File, Storage, fixture};
use pleach::blob::format::SectionKind;
use pleach::{Blob, Error, ExpertFile, Model, Pass};
use pleach_pack::Target;
use std::collections::BTreeMap;

/// More than any session here needs; sizes that damage blows up are refused.
const ARENA: usize = 8 << 20;

/// The blobs that are damaged, by name.
fn bases() -> Vec<(String, File)> {
    let portable = |s: Storage| s.target(Target::Portable);
    let (m4, r4k16) = (
        Storage::Q8.target(Target::CortexM),
        Storage::Q8.target(Target::Mve),
    );
    let case = |name: &str, s: Storage| (format!("{name}-{}", s.name()), Case::open(name).pack(s));
    let family = |name: &str, s: Storage| {
        let file = Case::family(name).pack(s);
        (format!("case-{name}-{}", s.name()), file)
    };
    let intent = |s: Storage| (format!("intent-{}", s.name()), fixture::intent(s));
    vec![
        intent(portable(Storage::Q8)),
        intent(Storage::Q8),
        case("case-layerwise-top2", portable(Storage::Q8)),
        case("case-qwen2-embedding", Storage::F16),
        family("qwen3", portable(Storage::Q8)),
        intent(m4),
        case("case-layerwise-top2", r4k16),
    ]
}

/// Gives `damaged` a seal and hands it to `f` if it still parses; else the error.
fn sealed<R>(damaged: &mut [u8], bind: bool, f: impl FnOnce(Model<'_>) -> R) -> Result<R, Error> {
    if bind {
        reseal::bind(damaged);
    }
    reseal::seal(damaged);
    let file = File::new(damaged);
    let model = Blob::new(file.bytes()).and_then(Model::parse)?;
    // What is sealed can fail only for its values, or for a hash where nothing was bound.
    match model.verify() {
        Ok(()) | Err(Error::Value { .. } | Error::Section { .. }) => {}
        Err(e) => panic!("sealed, but verify says: {e}"),
    }
    Ok(f(model))
}

#[test]
fn cut_at_every_64th() {
    for (name, file) in bases() {
        let bytes = file.bytes();
        for n in 0..64 {
            let mut cut = bytes[..bytes.len() * n / 64].to_vec();
            let e = Blob::new(File::new(&cut).bytes())
                .and_then(Model::parse)
                .err();
            assert!(
                matches!(e, Some(Error::Truncated { .. })),
                "{name} {n}: {e:?}"
            );
            // The same with a header that states the new length.
            if cut.len() >= 64 {
                let length = (cut.len() as u64).to_le_bytes();
                cut[16..24].copy_from_slice(&length);
                let e = sealed(&mut cut, true, |_| ()).err();
                let typed = matches!(e, Some(Error::Section { .. } | Error::Truncated { .. }));
                assert!(typed, "{name} {n}: {e:?}");
            }
        }
    }
}

/// Any byte of any table, changed to several values.
#[test]
fn every_byte_of_every_table() {
    // The layouts' tables differ in one tag.
    let one_of_each = |n: &str| n.ends_with("portable") || n.contains("f16");
    std::thread::scope(|s| {
        for (name, file) in bases().into_iter().filter(|(n, _)| one_of_each(n)) {
            s.spawn(move || every_byte_of_the_tables(&name, &file));
        }
    });
}

fn every_byte_of_the_tables(name: &str, file: &File) {
    let mut arena = Bytes::zeros(ARENA);
    let mut blob = Bytes::copy_of(file.bytes());
    let (mut refused, mut passed) = (BTreeMap::new(), 0);
    for (region, range) in regions(file.bytes()) {
        if matches!(region, Region::Data(_)) {
            continue;
        }
        // Texts are many bytes of one kind, and no session reads them.
        let text = matches!(region, Region::Table(kind) if kind.is_text());
        for at in range {
            let old = file.bytes()[at];
            let damage = |blob: &mut Bytes, new: u8| {
                if region == Region::Head {
                    // Damage here sends the seals elsewhere.
                    blob.get_mut().copy_from_slice(file.bytes());
                }
                blob.get_mut()[at] = new;
                reseal::seal_tables(blob.get_mut());
            };
            let all = [
                0,
                0xff,
                old ^ 1,
                old ^ 0x80,
                old.wrapping_add(1),
                old.wrapping_sub(1),
            ];
            let all = &all[..if text { 2 } else { 6 }];
            let mut alive = Vec::new();
            for new in all {
                damage(&mut blob, *new);
                match Blob::new(blob.get()).and_then(Model::parse) {
                    Ok(model) if text => read_texts(model),
                    Ok(_) => alive.push(*new),
                    Err(e) => *refused.entry(e.code()).or_insert(0) += 1,
                }
            }
            passed += alive.len();
            // Where every value passes, the byte is a checksum's or a hash's.
            let inert = alive.len() == all.len();
            if let Some(new) = alive.first().filter(|_| !inert || at % 16 == 0) {
                damage(&mut blob, *new);
                let model = Blob::new(blob.get()).and_then(Model::parse);
                let mut random = Random::new(at as u64);
                drive::session(model.expect("as before"), arena.get_mut(), &mut random);
            }
            damage(&mut blob, old);
        }
    }
    assert!(blob.get() == file.bytes(), "{name}: the damage was undone");
    println!("{name}: {passed} passed, refused by code: {refused:?}");
    assert!(refused.len() >= 6 && passed > 1000, "{name}");
}

/// Every byte and flag that has no meaning yet must be 0: a later version may give it one.
#[test]
fn reserved_bytes_are_refused() {
    use SectionKind as K;
    let file = Case::open("case-qwen2-embedding").pack(Storage::F16);
    let sections = reseal::sections(file.bytes());
    let expert = sections.iter().position(|s| s.kind == K::Expert).unwrap();
    // The first site is the embedding: the first expert that does not target it has an empty record.
    let lacks =
        |s: &&reseal::Section| s.kind == K::Expert && s.bytes[64..96].iter().all(|b| *b == 0);
    let without = sections.iter().find(lacks).expect("such an expert").index;
    let entry = 64 + 32 * expert;
    type Reserved<'a> = (&'a str, Option<(K, u16)>, std::ops::Range<usize>);
    let cases: [Reserved<'_>; 14] = [
        ("header", None, 12..16),
        ("header", None, 52..60),
        ("entry", None, entry + 24..entry + 32),
        ("tied", Some((K::Config, 0)), 77..128),
        ("flags", Some((K::Base, 0)), 4..8),
        ("tensor table", Some((K::Base, 0)), 8..16),
        ("site table", Some((K::Sites, 0)), 4..16),
        ("options", Some((K::Options, 0)), 7..8),
        ("options", Some((K::Options, 0)), 20..32),
        ("flags", Some((K::Classifier, 0)), 5..8),
        ("tensor table", Some((K::Classifier, 0)), 8..16),
        ("header", Some((K::Expert, 0)), 52..56),
        // But for the rank, which stands in the middle.
        ("record", Some((K::Expert, without)), 64..84),
        ("record", Some((K::Expert, without)), 86..96),
    ];
    let refuse = |what: &str, place: Option<(K, u16)>, at: usize, new: u8| {
        let mut bytes = file.bytes().to_vec();
        let start = place.map_or(0, |(kind, index)| {
            let n = sections
                .iter()
                .position(|s| (s.kind, s.index) == (kind, index));
            reseal::entries(&bytes)[n.unwrap()].offset as usize
        });
        bytes[start + at] = new;
        reseal::bind(&mut bytes);
        reseal::seal(&mut bytes);
        let damaged = File::new(&bytes);
        let e = Blob::new(damaged.bytes()).and_then(Model::parse);
        let why = e.expect_err("a reserved byte").why();
        assert!(why.contains(what), "{place:?} byte {at} = {new}: {why}");
        assert!(why.contains("reserved") || why.contains("flag"), "{why}");
    };
    for (what, place, range) in cases {
        for at in range {
            refuse(what, place, at, 1);
            refuse(what, place, at, 0x80);
        }
    }
    for at in 4..7 {
        refuse("options", Some((K::Options, 0)), at, 2);
    }
    refuse("tied", Some((K::Config, 0)), 76, 2);
    refuse("flags", Some((K::Classifier, 0)), 4, 2);
}

/// What no section holds is checked by `verify`: the bytes between sections.
#[test]
fn bytes_between_sections_are_zero() {
    let file = fixture::intent(Storage::Q8);
    let entries = reseal::entries(file.bytes());
    let end = |n: usize| (entries[n].offset + entries[n].length) as usize;
    let gaps = (1..entries.len()).flat_map(|n| end(n - 1)..entries[n].offset as usize);
    let mut count = 0;
    for at in gaps {
        let mut bytes = file.bytes().to_vec();
        bytes[at] = 1;
        let damaged = File::new(&bytes);
        let why = "the bytes before it are not 0";
        let e = damaged.model().verify();
        assert!(
            matches!(e, Err(Error::Section { why: w, .. }) if w == why),
            "{at}: {e:?}"
        );
        count += 1;
    }
    assert!(count > 30, "{count} bytes between sections");
}

/// A value out of range is found in every tensor, at its beginning and at its end, and by its number; a step
/// reads one piece, of which a sound file has at least one per tensor.
#[test]
fn verify_finds_a_bad_value_in_each_tensor() {
    let file = Case::open("case-six-experts-top3").pack(Storage::F16);
    let sections = reseal::sections(file.bytes());
    let mut tensors = 0;
    for (n, section) in sections.iter().enumerate() {
        // Where the numbers of each tensor lie, whether they are f16, and its number.
        let mut data: Vec<(std::ops::Range<usize>, bool, usize)> = Vec::new();
        match section.kind {
            SectionKind::Base | SectionKind::Classifier => {
                let count = u32::from_le_bytes(*section.bytes.first_chunk().unwrap()) as usize;
                let rows = section.bytes[16..].as_chunks::<32>().0;
                for (n, row) in rows.iter().take(count).enumerate() {
                    let e = pleach::blob::format::TensorEntry::decode(row);
                    let at = e.offset as usize;
                    data.push((at..at + e.length as usize, e.dtype != 3, n));
                }
            }
            SectionKind::Expert => {
                let rows = section.bytes[64..].as_chunks::<32>().0;
                for (n, row) in rows.iter().take(file.model().n_sites()).enumerate() {
                    let e = pleach::blob::format::ExpertSite::decode(row);
                    let (a, b) = (16 * e.a_offset as usize, 16 * e.b_offset as usize);
                    if e.rank > 0 {
                        data.push((a..a + e.a_length as usize, true, n));
                        data.push((b..b + e.b_length as usize, true, n));
                    }
                }
            }
            _ => {}
        }
        tensors += data.len();
        for (range, half, number) in data {
            let (bytes, width): (&[u8], _) = match half {
                true => (&[0x00, 0x7c], 2),
                false => (&[0x00, 0x00, 0xc0, 0x7f], 4),
            };
            for at in [range.start, range.end - width] {
                let mut damaged = sections.clone();
                damaged[n].bytes[at..at + width].copy_from_slice(bytes);
                let damaged = File::new(&reseal::assemble(&damaged));
                let (section, tensor) = (section.kind, number as u16);
                assert_eq!(
                    damaged.model().verify(),
                    Err(Error::Value { section, tensor })
                );
            }
        }
    }
    let model = file.model();
    let mut steps = model.verification();
    let mut count = 0;
    while steps.step().expect("a sound file") {
        count += 1;
    }
    assert!(
        tensors > 100 && count >= tensors + sections.len(),
        "{count} steps, {tensors} tensors"
    );
}

/// Names, and the tokenizer there and back.
fn read_texts(model: Model<'_>) {
    for n in 0..model.n_sites() + 1 {
        let name = model.site_name(n).unwrap_or("");
        model.find_site(name);
    }
    for n in 0..model.n_experts() + 1 {
        model.expert(n).map(|e| (e.name(), e.key()));
    }
    let Some(tokenizer) = model.tokenizer() else {
        return;
    };
    let options = pleach::tokenizer::EncodeOptions::DEFAULT;
    let (mut scratch, mut out) = ([0; 512], [0; 64]);
    let text = "licht im bad an </s>\u{e9}\n  42 <unk>";
    if let Ok(n) = tokenizer.encode(text, options, &mut scratch, &mut out) {
        let keep = pleach::tokenizer::SpecialTokens::Keep;
        let mut decoder = pleach::tokenizer::Decoder::new(tokenizer, keep);
        let chars: usize = out[..n].iter().map(|t| decoder.push(*t).count()).sum();
        assert!(chars <= 1 << 20);
    }
}

/// Several fields at once, sections rebuilt, weights overwritten.
#[test]
fn thousands_of_seeds() {
    const SEEDS: u64 = 1000;
    let mut arena = Bytes::zeros(ARENA);
    for (name, file) in bases() {
        let (mut refused, mut passed, mut good) = (BTreeMap::new(), 0, 0);
        for seed in 0..SEEDS {
            // Printed by the panic of a seed that fails.
            let seed_of = Seed(&name, seed);
            let mut random = Random::new(seed);
            let mut damaged = mutate(file.bytes(), &mut random);
            let bind = random.below(4) > 0;
            let result = sealed(&mut damaged, bind, |model| {
                read_texts(model);
                drive::session(model, arena.get_mut(), &mut random)
            });
            match result {
                Ok(rounds) => (passed, good) = (passed + 1, good + rounds),
                Err(e) => *refused.entry(e.code()).or_insert(0) += 1,
            }
            drop(seed_of);
        }
        println!("{name}: {passed} passed ({good} rounds ended), refused by code: {refused:?}");
        assert!(
            passed > SEEDS / 5 && good > passed as u32 / 2,
            "{name}: too few were alive"
        );
        assert!(refused.len() >= 6, "{name}: {refused:?}");
    }
}

/// Names blob and seed if its scope is left by a panic.
struct Seed<'a>(&'a str, u64);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("blob {}, seed {}", self.0, self.1);
        }
    }
}

/// Expert files that replace a sound model's expert.
#[test]
fn damaged_expert_files() {
    let mut arena = Bytes::zeros(ARENA);
    for (name, file) in bases() {
        let model = file.model();
        let sections = reseal::sections(file.bytes());
        let experts: Vec<_> = sections
            .iter()
            .filter(|s| s.kind == SectionKind::Expert)
            .collect();
        let (mut passed, mut refused) = (0, 0);
        for seed in 0..600 {
            let seed_of = Seed(&name, seed);
            let mut random = Random::new(seed);
            let mut bytes = experts[random.below(experts.len())].bytes.clone();
            for _ in 0..random.below(4) {
                let tables = (64 + 32 * model.n_sites()).min(bytes.len());
                let end = random.pick(&[64, tables, tables, bytes.len()]);
                let (at, new) = (random.below(end), random.bits() as u8);
                bytes[at] = random.pick(&[0, 1, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80, new]);
            }
            if random.below(8) == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            seal_expert(&mut bytes);
            let expert = File::new(&bytes);
            let parsed = Blob::new(expert.bytes()).and_then(ExpertFile::parse);
            let files: Vec<ExpertFile<'_>> = parsed.into_iter().collect();
            for f in &files {
                let e = f.expert();
                let texts = e.name().len() + e.key().len();
                let last = e.rank(usize::MAX) + e.rank(u32::MAX as usize) + texts;
                assert!(last <= 2 * 255 && e.scale(usize::MAX).is_none());
            }
            match model.with_experts(&files) {
                Ok(model) if !files.is_empty() => {
                    passed += 1;
                    drive::session(model, arena.get_mut(), &mut random);
                }
                _ => refused += 1,
            }
            drop(seed_of);
        }
        println!("{name}: {passed} passed, {refused} refused");
        assert!(passed > 60 && refused > 60, "{name}");
    }
}

fn seal_expert(bytes: &mut [u8]) {
    if bytes.len() >= 64 {
        let body = pleach::hash::crc32(&bytes[64..]).to_le_bytes();
        bytes[60..64].copy_from_slice(&body);
        let head = pleach::hash::crc32(&bytes[..56]).to_le_bytes();
        bytes[56..60].copy_from_slice(&head);
    }
}

/// Finite classifier outputs that a cold temperature takes out of the range of f32 were silent: NaN
/// scalings of a site that no expert targets changed no logit.
#[test]
fn scalings_that_overflow_are_an_error() {
    let file = Case::open("case-layerwise-top2").pack(Storage::F16);
    let mut sections = reseal::sections(file.bytes());
    for s in &mut sections {
        match s.kind {
            // softmax_temperature = 2^-24
            SectionKind::Options => s.bytes[8..12].copy_from_slice(&2f32.powi(-24).to_le_bytes()),
            // The last bias stands at the end of the section.
            SectionKind::Classifier => {
                let at = s.bytes.len() - 4;
                s.bytes[at..].copy_from_slice(&1e38f32.to_le_bytes());
            }
            _ => {}
        }
    }
    let file = File::new(&reseal::assemble(&sections));
    let mut arena = Bytes::zeros(ARENA);
    let options = pleach::SessionOptions::DEFAULT;
    let mut session = pleach::Session::new(file.model(), &options, arena.get_mut()).unwrap();
    session.push(&[1]).unwrap();
    let e = session
        .run(pleach::Kernels::portable(), &mut pleach::Inline)
        .err();
    let (pass, position) = (Pass::Scaling, 0);
    assert_eq!(e, Some(Error::NonFinite { pass, position }));
}

/// Added tokens that share their bytes, each a byte longer than the one before: the comparisons of
/// neighbours would take quadratic time.
#[test]
fn added_tokens_that_share_bytes_are_refused() {
    let file = fixture::intent(Storage::Q8);
    let mut sections = reseal::sections(file.bytes());
    let tokenizer = sections
        .iter_mut()
        .find(|s| s.kind == SectionKind::Tokenizer)
        .unwrap();
    let head: &[u8; 48] = tokenizer.bytes.first_chunk().unwrap();
    let mut header = pleach::tokenizer::format::Header::decode(head).unwrap();
    let rows = 20_000u32;
    let old_rows = header.added_first + header.added_second;
    let (at, starts) = (48 + 4 * (header.vocab as usize + 1), header.text);
    header.text += rows;
    (header.added_first, header.added_second) = (rows, 0);
    let added = (1..=rows)
        .flat_map(|n| [0, starts, n])
        .flat_map(u32::to_le_bytes);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&tokenizer.bytes[48..at]);
    bytes.extend(added);
    bytes.extend_from_slice(&tokenizer.bytes[at + 12 * old_rows as usize..]);
    bytes.resize(bytes.len() + rows as usize, b'a');
    tokenizer.bytes = bytes;
    let file = File::new(&reseal::assemble(&sections));
    let e = Blob::new(file.bytes()).and_then(Model::parse).err();
    let why = "the added tokens of a group are longer than the text";
    assert_eq!(e, Some(Error::Tokenizer { why }));
}

/// Where the kept blobs lie; its first lines describe it.
fn kept() -> std::path::PathBuf {
    fixture::root().join("corrupt/kept.txt")
}

const KEPT_HEAD: &str = "\
# Damaged blobs, as patches. One line each: `base outcome at=hex ...`: the bytes at offset `at` (decimal) of the
# packed blob `base` are replaced by those in hex; checksums are among them. `outcome` is 0, or Error::code() of
# the first error of: parse; a session of context 16, else the default options, in an arena of 65536 bytes;
# push 1 2 3 4 5, run; rewind to 3; push 6 7, run. Lines `base name length fnv1a` say which bytes are meant.
# Made by `PLEACH_KEEP=1 cargo test -p parity --test corrupt kept`, read by it without the variable.
";

/// A hundred damaged blobs, each with the outcome that every target must have.
#[test]
fn kept_ones_end_as_before() {
    let names = [
        "intent-q8-q8-64-portable",
        "case-layerwise-top2-q8-q8-64-portable",
    ];
    let all = bases();
    let base = |name: &str| &all.iter().find(|(n, _)| n == name).expect(name).1;
    let stamp = |name: &str| {
        let bytes = base(name).bytes();
        format!(
            "base {name} {} {:016x}",
            bytes.len(),
            pleach::hash::fnv1a(bytes)
        )
    };
    let mut arena = Bytes::zeros(REPLAY_ARENA);
    if std::env::var_os("PLEACH_KEEP").is_some() {
        let mut text = KEPT_HEAD.to_string();
        names
            .iter()
            .for_each(|n| text += &format!("{}\n", stamp(n)));
        for name in names {
            for line in keep(name, base(name).bytes(), arena.get_mut()) {
                text += &line;
            }
        }
        std::fs::create_dir_all(kept().parent().unwrap()).unwrap();
        std::fs::write(kept(), text).unwrap();
    }
    let text = std::fs::read_to_string(kept()).expect("tests/fixtures/corrupt/kept.txt");
    assert!(text.len() < 200_000);
    let mut count = 0;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        if name == "base" {
            let name = words.next().unwrap();
            assert_eq!(line, stamp(name), "the blob is another one: keep again");
            continue;
        }
        let outcome: u16 = words.next().unwrap().parse().unwrap();
        let mut bytes = base(name).bytes().to_vec();
        for patch in words {
            let (at, hex) = patch.split_once('=').expect("at=hex");
            let at: usize = at.parse().unwrap();
            for (i, pair) in hex.as_bytes().as_chunks::<2>().0.iter().enumerate() {
                let pair = std::str::from_utf8(pair).unwrap();
                bytes[at + i] = u8::from_str_radix(pair, 16).unwrap();
            }
        }
        let found = drive::replay(File::new(&bytes).bytes(), arena.get_mut());
        assert_eq!(found, outcome, "{line}");
        count += 1;
    }
    assert_eq!(count, 100);
}

/// Fifty patches of a base with as many different outcomes and places as its seeds give.
fn keep(name: &str, base: &[u8], arena: &mut [u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen: BTreeMap<(u16, &'static str), u32> = BTreeMap::new();
    for seed in 10_000.. {
        if lines.len() == 50 {
            break;
        }
        let mut random = Random::new(seed);
        let mut bytes = mutate(base, &mut random);
        if bytes.len() != base.len() {
            continue;
        }
        reseal::bind(&mut bytes);
        reseal::seal(&mut bytes);
        let mut patches: Vec<(usize, Vec<u8>)> = Vec::new();
        for (at, (new, old)) in bytes.iter().zip(base).enumerate() {
            match patches.last_mut() {
                _ if new == old => {}
                Some((start, run)) if *start + run.len() == at => run.push(*new),
                _ => patches.push((at, vec![*new])),
            }
        }
        let size: usize = patches.iter().map(|p| p.1.len()).sum();
        if patches.is_empty() || size > 300 {
            continue;
        }
        let file = File::new(&bytes);
        let outcome = drive::replay(file.bytes(), arena);
        let why = match Blob::new(file.bytes()).and_then(Model::parse) {
            Ok(_) => "passed",
            Err(e) => e.why(),
        };
        let times = seen.entry((outcome, why)).or_insert(0);
        *times += 1;
        // A rule is kept once, a blob that passes often.
        if *times > if why == "passed" { 9 } else { 1 } && seed < 60_000 {
            continue;
        }
        let hex = |run: &[u8]| run.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let words: Vec<_> = patches
            .iter()
            .map(|(at, run)| format!("{at}={}", hex(run)))
            .collect();
        lines.push(format!("{name} {outcome} {}\n", words.join(" ")));
    }
    lines
}
