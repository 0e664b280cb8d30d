//! An expert: the bytes of its section are those of an expert file.

use super::{Job, net_bytes};
use crate::error::{PackError, Result};
use crate::import::lora::Adapter;
use crate::import::modules::Place;
use crate::layout::{pack, pack_b};
use crate::write::Section;
use pleach::blob::format::{
    DATA_ALIGN, EXPERT_HEADER_BYTES, EXPERT_SITE_BYTES, ExpertHeader, ExpertSite, Header, Module,
};
use pleach::hash::crc32;
use pleach::kernels::layout::{Dtype, Layout};

/// Writes the expert of class `class`; `bound` holds the hashes of what it is bound to.
pub(crate) fn write(
    out: &mut Section<'_>,
    class: u16,
    adapter: &mut Adapter,
    sites: &[Place],
    bound: Header,
    job: &mut Job<'_>,
) -> Result<()> {
    let storage = job.storage;
    let (name, key) = (adapter.name.clone(), adapter.key.clone());
    out.push(&[0; EXPERT_HEADER_BYTES]);
    for _ in sites {
        out.push(&ExpertSite::NONE.encode());
    }
    out.push(name.as_bytes());
    out.push(key.as_bytes());
    for (n, place) in sites.iter().enumerate() {
        let Some(part) = adapter.part(*place) else {
            continue;
        };
        let Some((a, b, bytes)) = adapter.read(part)? else {
            continue;
        };
        let (a_dtype, a_layout) = match (place.module, storage.adapter) {
            (Module::Embed, Dtype::F32) => (Dtype::F32, Layout::Rows),
            (Module::Embed, _) => (Dtype::F16, Layout::Rows),
            (_, dtype) => (dtype, storage.a),
        };
        let a = pack(&a, a_dtype, a_layout, storage.group);
        let b = pack_b(&b, storage.adapter);
        let a_at = out.align();
        out.push(&a.bytes);
        let b_at = out.align();
        out.push(&b.bytes);
        let units = |at: usize| {
            u32::try_from(at / DATA_ALIGN).map_err(|_| {
                PackError::refused(
                    format!(
                        "{}: the expert takes 64 GiB or more",
                        adapter.folder.display()
                    ),
                    "use a smaller rank",
                )
            })
        };
        let (rank, scale) = adapter
            .parts
            .get(part)
            .map_or((0, 0.0), |p| (p.rank, p.scale));
        let record = ExpertSite {
            a_offset: units(a_at)?,
            b_offset: units(b_at)?,
            a_length: a.bytes.len() as u32,
            b_length: b.bytes.len() as u32,
            scale,
            rank: rank as u16,
            a_dtype: a.dtype as u8,
            a_layout: a.layout as u8,
            a_scale_exp: a.scale_exp,
            b_dtype: b.dtype as u8,
            b_scale_exp: b.scale_exp,
        };
        out.patch(
            EXPERT_HEADER_BYTES + n * EXPERT_SITE_BYTES,
            &record.encode(),
        );
        job.report.tensor(
            "lora A",
            Some(class),
            format!("{name}: {}.lora_A", place.name()),
            &a,
            net_bytes(&a, storage.group),
        );
        // B has one scale per column.
        let b_net =
            b.rows * rank * b.dtype.bytes() + if b.dtype == Dtype::Q8 { 2 * rank } else { 0 };
        let b_name = format!("{name}: {}.lora_B", place.name());
        job.report.tensor("lora B", Some(class), b_name, &b, b_net);
        job.progress.advance(bytes);
    }
    let header = ExpertHeader {
        class,
        sites: sites.len() as u32,
        length: out.len() as u64,
        base_hash: bound.base_hash,
        site_hash: bound.site_hash,
        classifier_hash: bound.classifier_hash,
        group: storage.group as u16,
        name_len: name.len() as u8,
        key_len: key.len() as u8,
        body_crc: crc32(out.tail(EXPERT_HEADER_BYTES)),
    };
    out.patch(0, &header.encode());
    Ok(())
}
