//! What `parse` leaves out because it reads every byte: checksums, hashes, the values of weights.

use crate::blob::expert::site_record;
use crate::blob::format::{self, SectionKind};
use crate::blob::tensor::{BPanel, Tensor};
use crate::blob::view::{Model, table_tensor};
use crate::error::Error;
use crate::hash::{Crc32, Fnv1a, crc32};
use crate::kernels::layout::{self, Dtype};
use crate::math;

/// How much of a section one step of [`Verify`] reads.
const STEP: usize = 64 * 1024;

impl<'b> Model<'b> {
    /// The CRC of every section, in const; used by [`include_blob!`](crate::include_blob).
    #[doc(hidden)]
    pub const fn check_crcs(&self) -> Result<(), Error> {
        let mut n = 0;
        while n < self.header.sections as usize {
            let Some(e) = self.section_entry(n) else {
                return Err(Error::Corrupt);
            };
            let Some(bytes) = format::slice(self.bytes, e.offset as usize, e.length as usize)
            else {
                return Err(Error::Corrupt);
            };
            let found = crc32(bytes);
            if found != e.crc {
                return Err(Error::Crc {
                    section: SectionKind::from_number(e.kind),
                    expected: e.crc,
                    found,
                });
            }
            n += 1;
        }
        Ok(())
    }

    /// Checks every section's CRC, the binding hashes, and that each weight and effective scale is 0 or
    /// within 2^-24..=65504, in one go; the files of [`Model::with_experts`] too.
    ///
    /// Errors: [`Error::Crc`], [`Error::Section`] for a hash, [`Error::Value`].
    pub fn verify(&self) -> Result<(), Error> {
        let mut v = self.verification();
        while v.step()? {}
        Ok(())
    }

    /// The same in pieces, for a boot that must feed a watchdog.
    pub const fn verification(&self) -> Verify<'b> {
        Verify {
            model: *self,
            section: 0,
            at: 0,
            crc: None,
            fnv: Fnv1a::new(),
        }
    }
}

/// A verification that can be interrupted: each [`step`](Verify::step) reads at most 64 KiB for a checksum,
/// and the last one of a section also the values of its weights.
pub struct Verify<'b> {
    model: Model<'b>,
    section: usize,
    at: usize,
    crc: Option<Crc32>,
    fnv: Fnv1a,
}

impl Verify<'_> {
    /// Reads on; `Ok(true)` if there is more to do.
    ///
    /// Errors: as [`Model::verify`].
    pub fn step(&mut self) -> Result<bool, Error> {
        let Some(entry) = self.model.section_entry(self.section) else {
            return self.replaced_expert();
        };
        let kind = SectionKind::from_number(entry.kind).ok_or(Error::Corrupt)?;
        let bytes = format::slice(
            self.model.bytes,
            entry.offset as usize,
            entry.length as usize,
        )
        .ok_or(Error::Corrupt)?;
        let take = bytes.len().saturating_sub(self.at).min(STEP);
        let part = format::slice(bytes, self.at, take).ok_or(Error::Corrupt)?;
        let mut crc = self.crc.take().unwrap_or_else(Crc32::new);
        crc.update(part);
        if bound_hash(&self.model, kind).is_some() {
            self.fnv.bytes(part);
        }
        self.at += take;
        if self.at < bytes.len() {
            self.crc = Some(crc);
            return Ok(true);
        }
        let found = crc.finish();
        if found != entry.crc {
            return Err(Error::Crc {
                section: Some(kind),
                expected: entry.crc,
                found,
            });
        }
        if let Some(expected) = bound_hash(&self.model, kind)
            && self.fnv.value() != expected
        {
            return Err(Error::Section {
                index: self.section as u16,
                why: "its hash is not the one that experts are bound to",
            });
        }
        match kind {
            SectionKind::Base | SectionKind::Classifier => {
                table_values(bytes, kind, self.model.config.group as usize)?
            }
            SectionKind::Expert => expert_values(&self.model, bytes, entry.index)?,
            _ => {}
        }
        self.section += 1;
        self.at = 0;
        self.fnv = Fnv1a::new();
        Ok(true)
    }
}

impl Verify<'_> {
    /// The files of [`Model::with_experts`] come after the blob's own sections, one a step.
    fn replaced_expert(&mut self) -> Result<bool, Error> {
        let n = self
            .section
            .saturating_sub(self.model.header.sections as usize);
        let Some(file) = self.model.replaced.get(n) else {
            return Ok(false);
        };
        expert_values(&self.model, file.expert().raw(), file.class() as u16)?;
        self.section += 1;
        Ok(true)
    }
}

/// The hash that the header states for a kind of section.
fn bound_hash(model: &Model<'_>, kind: SectionKind) -> Option<u64> {
    match kind {
        SectionKind::Base => Some(model.header.base_hash),
        SectionKind::Sites => Some(model.header.site_hash),
        SectionKind::Classifier => Some(model.header.classifier_hash),
        _ => None,
    }
}

fn table_values(section: &[u8], kind: SectionKind, group: usize) -> Result<(), Error> {
    let count = format::array::<4>(section, 0).map_or(0, |n| u32::from_le_bytes(*n));
    for n in 0..count as usize {
        let tensor = table_tensor(section, n, group).ok_or(Error::Corrupt)?;
        if !tensor_values(&tensor) {
            return Err(Error::Value {
                section: kind,
                tensor: n as u16,
            });
        }
    }
    Ok(())
}

fn expert_values(model: &Model<'_>, bytes: &[u8], class: u16) -> Result<(), Error> {
    let header = crate::blob::parse::expert_header(bytes)?;
    let body = format::slice(
        bytes,
        format::EXPERT_HEADER_BYTES,
        bytes.len().saturating_sub(format::EXPERT_HEADER_BYTES),
    )
    .ok_or(Error::Corrupt)?;
    let found = crc32(body);
    if found != header.body_crc {
        return Err(Error::Crc {
            section: Some(SectionKind::Expert),
            expected: header.body_crc,
            found,
        });
    }
    let expert = crate::blob::Expert::view(bytes).ok_or(Error::Corrupt)?;
    for n in 0..model.n_sites() {
        let Some(record) = site_record(bytes, model.n_sites(), n) else {
            return Err(Error::Corrupt);
        };
        if record.rank == 0 {
            continue;
        }
        let site = model.site(n).ok_or(Error::Corrupt)?;
        let lora = expert.lora(&site).ok_or(Error::Expert {
            class,
            site: Some(n as u16),
            why: "a panel is missing",
        })?;
        if !tensor_values(&lora.a) || !panel_values(&lora.b) {
            return Err(Error::Value {
                section: SectionKind::Expert,
                tensor: n as u16,
            });
        }
    }
    Ok(())
}

fn tensor_values(t: &Tensor<'_>) -> bool {
    match t.dtype {
        Dtype::F16 => halves_in_range(t.data, 0),
        Dtype::F32 => floats_in_range(t.data),
        Dtype::Q8 => {
            let scales = layout::scale_bytes(t.lanes, t.cols, t.group);
            (0..t.rows.div_ceil(t.lanes.max(1))).all(|n| {
                t.tile(n)
                    .and_then(|tile| format::slice(tile, 0, scales))
                    .is_some_and(|s| halves_in_range(s, t.scale_exp))
            })
        }
    }
}

fn panel_values(b: &BPanel<'_>) -> bool {
    match b.dtype {
        Dtype::F16 => halves_in_range(b.data, 0),
        Dtype::F32 => floats_in_range(b.data),
        Dtype::Q8 => (0..b.rank).all(|j| math::in_range(b.scale(j))),
    }
}

/// f16 values; subnormal halves are legal only where `scale_exp` lets them stay within range.
fn halves_in_range(data: &[u8], scale_exp: i8) -> bool {
    data.as_chunks::<2>().0.iter().all(|b| {
        let v = math::from_f16(u16::from_le_bytes(*b)) * math::pow2(scale_exp);
        math::in_range(v)
    })
}

fn floats_in_range(data: &[u8]) -> bool {
    data.as_chunks::<4>()
        .0
        .iter()
        .all(|b| math::in_range(f32::from_le_bytes(*b)))
}
