//! `blob`: parse, verify, every view, every record.

use crate::{any, bytes, floats, text};
use core::fmt::Write;
use core::hint::black_box;
use pleach::blob::format;
use pleach::blob::{BPanel, Tensor};
use pleach::{Aligned, Blob, Error, Expert, ExpertFile, Model};

pub(crate) fn call() {
    static PAGE: Aligned<[u8; 64]> = Aligned([0; 64]);
    let page: &Aligned<[u8]> = black_box(&PAGE);
    let _ = show(Model::parse(Blob::aligned(page)));
    if let Some(m) = model() {
        views(&m);
        verify(&m);
    }
    if let Some(Ok(file)) = Blob::new(bytes()).ok().map(ExpertFile::parse) {
        black_box((file.class(), model().map(|m| file.knows_classifier(&m))));
        expert(file.expert());
    }
    tensors();
    records();
}

/// A model that the compiler knows nothing about.
pub(crate) fn model() -> Option<Model<'static>> {
    let m = show(Model::parse(show(Blob::new(bytes()))?))?;
    show(m.with_experts(experts()))
}

fn experts() -> &'static [ExpertFile<'static>] {
    static NONE: [ExpertFile<'static>; 0] = [];
    black_box(&NONE)
}

/// The value, or all that an error says.
pub(crate) fn show<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(v) => Some(v),
        Err(e) => {
            black_box((e.code(), e.why()));
            let _ = write!(Sink, "{e}");
            None
        }
    }
}

struct Sink;

impl Write for Sink {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        black_box(s);
        Ok(())
    }
}

fn views(m: &Model<'_>) {
    black_box((m.config(), m.options(), m.xlora_config(), m.header()));
    black_box((
        m.n_sites(),
        m.n_experts(),
        m.has_classifier(),
        (m.file_len(), m.data()),
        m.provenance(),
    ));
    for s in m.sections() {
        black_box(s);
    }
    if let (Some(site), Some(e)) = (m.site(any()), m.expert(any())) {
        black_box(e.lora(&site));
        expert(e);
    }
    let name = m.site_name(any()).unwrap_or("");
    black_box((m.find_site(name), m.find_expert(name)));
    black_box(m.base_tensor(any()).map(|t| {
        (
            t.rows(),
            t.cols(),
            t.dtype(),
            t.bytes(),
            t.layout(),
            t.scale_exp(),
        )
    }));
    if let Some(t) = m.tokenizer() {
        text::with(&t);
    }
}

fn expert(e: Expert<'_>) {
    black_box((
        e.class(),
        e.name(),
        e.key(),
        (e.bytes(), e.data()),
        e.rank(any()),
        e.scale(any()),
    ));
}

fn verify(m: &Model<'_>) {
    let _ = show(m.verify());
    let _ = show(m.verify_experts());
    let _ = show(m.check_crcs());
    let mut steps = m.verification();
    while let Some(true) = show(steps.step()) {}
}

fn tensors() {
    let (rows, cols) = (any(), any());
    if let Some(t) = Tensor::from_rows(floats(), rows, cols) {
        black_box((t.rows(), t.cols(), t.dtype(), t.bytes()));
    }
    black_box(Tensor::from_columns(floats(), rows, cols).map(|t| t.bytes()));
    black_box(BPanel::from_rows(floats(), rows, cols).map(|b| (b.rows(), b.rank(), b.bytes())));
}

/// Decodes unknown bytes and encodes the record again.
macro_rules! round_trip {
    ($($record:ident $bytes:ident),*) => {
        $(black_box(format::$record::decode(black_box(&[0; format::$bytes])).encode());)*
    };
}

fn records() {
    round_trip!(
        Header HEADER_BYTES,
        SectionEntry SECTION_ENTRY_BYTES,
        TensorEntry TENSOR_ENTRY_BYTES,
        ConfigRecord CONFIG_BYTES,
        LayerRecord LAYER_BYTES,
        SiteRecord SITE_BYTES,
        OptionsRecord OPTIONS_BYTES,
        ExpertHeader EXPERT_HEADER_BYTES,
        ExpertSite EXPERT_SITE_BYTES
    );
    black_box(format::Module::from_number(any()).map(format::Module::bit));
    black_box(format::SectionKind::from_number(any()).map(format::SectionKind::name));
}
