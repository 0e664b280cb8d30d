//! Model files and expert files.

use super::files::{packed, packed_with};
use super::texts;
use crate::memory::Bytes;
use crate::reseal::{self, Section};
use pleach::blob::format::{EXPERT_HEADER_BYTES, SectionKind};
use pleach::{
    Blob, Budget, Caches, ExpertFile, Inline, Kernels, KvType, LogitsKind, Model, Progress,
    Routing, Session, SessionOptions, Speculate,
};

/// Sessions that would take more are not run: shapes may be large, and then only their memory is.
const MOST: usize = 4 << 20;

pub(super) fn blob(data: &[u8]) {
    let mut bytes = Bytes::copy_of(data);
    let raw = Blob::new(bytes.get()).and_then(Model::parse).is_ok();
    reseal::bind(bytes.get_mut());
    reseal::seal(bytes.get_mut());
    let parsed = Blob::new(bytes.get()).and_then(Model::parse);
    assert!(
        parsed.is_ok() || !raw,
        "sound, but not with its own checksums"
    );
    let Ok(model) = parsed else { return };
    let verified = model.verify().is_ok();
    everything(&model);
    let finite = exercise(model);
    // Only an unverified file may hold values that are not numbers.
    let _ = (verified, finite);
}

pub(super) fn blob_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![packed()];
    seeds.extend(
        texts::tokenizer_seeds()
            .iter()
            .take(1)
            .map(|t| packed_with(t)),
    );
    seeds
}

pub(super) fn expert(data: &[u8]) {
    let model_bytes = Bytes::copy_of(&packed_once());
    let model = Blob::new(model_bytes.get())
        .and_then(Model::parse)
        .expect("our own model");
    let mut bytes = Bytes::copy_of(data);
    if bytes.get().len() >= EXPERT_HEADER_BYTES {
        bytes.get_mut()[24..48].copy_from_slice(&model_bytes.get()[24..48]);
        reseal::seal_expert(bytes.get_mut());
    }
    let Ok(file) = Blob::new(bytes.get()).and_then(ExpertFile::parse) else {
        return;
    };
    let files = [file];
    let Ok(model) = model.with_experts(&files) else {
        return;
    };
    everything(&model);
    exercise(model);
}

pub(super) fn expert_seeds() -> Vec<Vec<u8>> {
    let all = reseal::sections(&packed());
    let experts = all.into_iter().filter(|s| s.kind == SectionKind::Expert);
    experts.map(|s| s.bytes).collect()
}

/// [`packed`], made once.
fn packed_once() -> Vec<u8> {
    static PACKED: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    PACKED.get_or_init(packed).clone()
}

/// A blob with other bytes in one section, or with one more.
pub(super) fn replaced(blob: &[u8], kind: SectionKind, bytes: &[u8]) -> Vec<u8> {
    let mut all = reseal::sections(blob);
    all.retain(|s| s.kind != kind);
    let at = all.partition_point(|s| (s.kind as u16) < kind as u16);
    let section = Section {
        kind,
        index: 0,
        bytes: bytes.to_vec(),
    };
    all.insert(at, section);
    reseal::assemble(&all)
}

/// Reads whatever a model has to say.
fn everything(model: &Model<'_>) {
    let options = SessionOptions::DEFAULT;
    let parts = model.arena_map(&options);
    let sum = parts.iter().fold(0usize, |s, p| s.saturating_add(p.bytes));
    assert_eq!(sum, model.arena_bytes(&options));
    let k = usize::from(model.xlora_config().top_k_lora.unwrap_or(1));
    let range = model.experts_cost(k);
    assert!(range.least.bytes() <= range.most.bytes() && range.least.macs <= range.most.macs);
    let _ = (
        model.layers_cost(),
        model.classifier_cost(),
        model.head_cost(),
    );
    let _ = model.largest_context(&options, 1 << 16);
    for n in 0..model.n_sites() {
        let _ = model.site_name(n);
        let Some(site) = model.site(n) else {
            panic!("site {n} is gone");
        };
        for class in 0..model.n_experts() {
            let expert = model.expert(class).expect("an expert");
            let _ = (expert.name(), expert.key());
            assert_eq!(expert.lora(&site).is_some(), expert.rank(n) > 0);
        }
    }
    let _ = (model.provenance(), model.chat_template());
    if let Some(tokenizer) = model.tokenizer() {
        texts::both_ways(&tokenizer);
    }
}

/// A few tokens under every routing, in small steps. Whether all was finite.
pub(super) fn exercise(model: Model<'_>) -> bool {
    let vocab = model.config().vocab;
    let last = vocab.saturating_sub(1);
    let two = model.has_classifier();
    let kinds = [
        (KvType::F16, LogitsKind::Last, Speculate::Off, 1),
        (KvType::F32, LogitsKind::Sweep, Speculate::Held, 3),
    ];
    let mut finite = true;
    for (kv, logits, speculate, chunk) in kinds {
        let options = SessionOptions {
            context: 12,
            chunk,
            kv,
            caches: if two { Caches::Two } else { Caches::One },
            logits,
            log_tokens: 4,
            embedding_rows: 0,
            speculate: if two { speculate } else { Speculate::Off },
        };
        let bytes = model.arena_bytes(&options);
        if bytes > MOST {
            continue;
        }
        let mut arena = Bytes::zeros(bytes);
        let Ok(mut session) = Session::new(model, &options, arena.get_mut()) else {
            continue;
        };
        let routings = [
            Routing::Exact,
            Routing::Every(2),
            Routing::Lag,
            Routing::Prompt,
            Routing::AllOnes,
            Routing::Only(0),
            Routing::Base,
        ];
        for routing in routings {
            session.rewind(0).expect("an empty text");
            if session.set_routing(routing).is_err() {
                continue;
            }
            for push in [&[0, last, last / 2][..], &[last]] {
                finite &= session.push(push).is_ok() && steps(&mut session);
                let _ = session.logits();
                let _ = session.get_latest_scalings();
            }
        }
    }
    finite
}

/// To the end of what is pushed, or to an error.
fn steps(session: &mut Session<'_, '_>) -> bool {
    loop {
        match session.step(Kernels::detect(), &mut Inline, Budget(20_000)) {
            Ok(Progress::Ready) => return true,
            Ok(Progress::More) => {}
            Err(_) => return false,
        }
    }
}
