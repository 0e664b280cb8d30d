//! What `parse` leaves out because it reads every byte: checksums, hashes, the values of weights.

use crate::blob::format::{self, SectionKind};
use crate::blob::tensor::{BPanel, Tensor};
use crate::blob::view::{Model, table_tensor};
use crate::error::Error;
use crate::hash::{Crc32, Fnv1a, crc32};
use crate::kernels::layout::{self, Dtype};
use crate::math;

/// How much one step of [`Verify`] reads.
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

    /// The same of the files of [`Model::with_experts`] alone, where the model without them is verified.
    ///
    /// Errors: as [`verify`](Self::verify).
    pub fn verify_experts(&self) -> Result<(), Error> {
        let mut v = self.verification();
        v.part = self.header.sections as usize;
        while v.step()? {}
        Ok(())
    }

    /// The same in pieces, for a boot that must feed a watchdog.
    pub const fn verification(&self) -> Verify<'b> {
        Verify {
            model: *self,
            part: 0,
            end: (format::HEADER_BYTES as u64).saturating_add(
                (self.header.sections as u64).saturating_mul(format::SECTION_ENTRY_BYTES as u64),
            ),
            stage: Stage::Sums { at: 0 },
            crc: None,
            body: None,
            fnv: Fnv1a::new(),
        }
    }
}

/// A verification that can be interrupted: each [`step`](Verify::step) reads at most 64 KiB, or one tile of a
/// tensor where that is longer.
pub struct Verify<'b> {
    model: Model<'b>,
    /// A section; after those, an expert of [`Model::with_experts`].
    part: usize,
    /// Where the section before it ends.
    end: u64,
    stage: Stage,
    crc: Option<Crc32>,
    /// Of an expert: what follows its header.
    body: Option<Crc32>,
    fnv: Fnv1a,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Checksums and hashes have seen `at` bytes.
    Sums { at: usize },
    /// The values of a tensor are to be read from a piece on. An expert has two at each site, A and B.
    Values { tensor: usize, piece: usize },
}

/// What is verified as one.
struct Part<'b> {
    kind: SectionKind,
    bytes: &'b [u8],
    /// `None` for an expert file, whose checksum is its own.
    crc: Option<u32>,
    class: u16,
}

impl<'b> Verify<'b> {
    /// Reads on; `Ok(true)` if there is more to do.
    ///
    /// Errors: as [`Model::verify`].
    pub fn step(&mut self) -> Result<bool, Error> {
        let Some(part) = self.present()? else {
            return Ok(false);
        };
        match self.stage {
            Stage::Sums { at } => self.sums(&part, at)?,
            Stage::Values { tensor, piece } => self.values(&part, tensor, piece)?,
        }
        Ok(true)
    }

    fn present(&self) -> Result<Option<Part<'b>>, Error> {
        if let Some(entry) = self.model.section_entry(self.part) {
            let bytes = format::slice(
                self.model.bytes,
                entry.offset as usize,
                entry.length as usize,
            );
            return Ok(Some(Part {
                kind: SectionKind::from_number(entry.kind).ok_or(Error::Corrupt)?,
                bytes: bytes.ok_or(Error::Corrupt)?,
                crc: Some(entry.crc),
                class: entry.index,
            }));
        }
        let n = (self.part).saturating_sub(self.model.header.sections as usize);
        Ok(self.model.replaced.get(n).map(|file| Part {
            kind: SectionKind::Expert,
            bytes: file.expert().data(),
            crc: None,
            class: file.class() as u16,
        }))
    }

    fn sums(&mut self, part: &Part<'b>, at: usize) -> Result<(), Error> {
        let rest = part.bytes.split_at_checked(at).ok_or(Error::Corrupt)?.1;
        let (piece, rest) = rest.split_at_checked(STEP).unwrap_or((rest, &[]));
        if at == 0 {
            self.padding()?;
        }
        self.crc.get_or_insert_with(Crc32::new).update(piece);
        if bound_hash(&self.model, part.kind).is_some() {
            self.fnv.bytes(piece);
        }
        if part.kind == SectionKind::Expert {
            let skip = format::EXPERT_HEADER_BYTES.saturating_sub(at);
            let body = piece.split_at_checked(skip).unwrap_or((piece, &[])).1;
            self.body.get_or_insert_with(Crc32::new).update(body);
        }
        if !rest.is_empty() {
            self.stage = Stage::Sums {
                at: at.saturating_add(piece.len()),
            };
            return Ok(());
        }
        self.stage = Stage::Values {
            tensor: 0,
            piece: 0,
        };
        self.check_sums(part)
    }

    /// Between sections there is nothing.
    fn padding(&mut self) -> Result<(), Error> {
        let Some(entry) = self.model.section_entry(self.part) else {
            return Ok(());
        };
        let (from, to) = (self.end, entry.offset);
        self.end = to.saturating_add(entry.length);
        let gap = format::slice(
            self.model.bytes,
            from as usize,
            to.saturating_sub(from) as usize,
        );
        match gap.ok_or(Error::Corrupt)?.iter().all(|b| *b == 0) {
            true => Ok(()),
            false => Err(Error::Section {
                index: self.part as u16,
                why: "the bytes before it are not 0",
            }),
        }
    }

    fn check_sums(&mut self, part: &Part<'b>) -> Result<(), Error> {
        let crc = self.crc.take().map_or(0, Crc32::finish);
        let body = self.body.take().map(Crc32::finish);
        let fnv = core::mem::take(&mut self.fnv);
        let differs = |found, expected| Error::Crc {
            section: Some(part.kind),
            expected,
            found,
        };
        if let Some(expected) = part.crc
            && crc != expected
        {
            return Err(differs(crc, expected));
        }
        if let Some(expected) = bound_hash(&self.model, part.kind)
            && fnv.value() != expected
        {
            return Err(Error::Section {
                index: self.part as u16,
                why: "its hash is not the one that experts are bound to",
            });
        }
        if let Some(found) = body {
            let expected = crate::blob::parse::expert_header(part.bytes)?.body_crc;
            if found != expected {
                return Err(differs(found, expected));
            }
        }
        Ok(())
    }

    /// The values of one piece of a tensor.
    fn values(&mut self, part: &Part<'b>, tensor: usize, piece: usize) -> Result<(), Error> {
        let next = match part.kind {
            SectionKind::Base | SectionKind::Classifier => {
                let group = self.model.config.group as usize;
                let count = format::array::<4>(part.bytes, 0).map_or(0, |n| u32::from_le_bytes(*n));
                match tensor < count as usize {
                    true => {
                        let t = table_tensor(part.bytes, tensor, group).ok_or(Error::Corrupt)?;
                        Some((tensor, tensor_values(&t, piece)))
                    }
                    false => None,
                }
            }
            SectionKind::Expert => expert_values(&self.model, part, tensor, piece)?,
            _ => None,
        };
        let number = |tensor: usize| match part.kind {
            SectionKind::Expert => tensor / 2,
            _ => tensor,
        };
        self.stage = match next {
            Some((tensor, Values::More)) => Stage::Values {
                tensor,
                piece: piece.saturating_add(1),
            },
            Some((tensor, Values::Good)) => Stage::Values {
                tensor: tensor.saturating_add(1),
                piece: 0,
            },
            Some((tensor, Values::Bad)) => {
                return Err(Error::Value {
                    section: part.kind,
                    tensor: number(tensor) as u16,
                });
            }
            None => {
                self.part = self.part.saturating_add(1);
                Stage::Sums { at: 0 }
            }
        };
        Ok(())
    }
}

/// What a piece of a tensor showed.
enum Values {
    /// All is in range, and there is another piece.
    More,
    /// All is in range to its end.
    Good,
    /// Something is not.
    Bad,
}

impl Values {
    fn of(good: bool, more: bool) -> Self {
        match (good, more) {
            (true, true) => Values::More,
            (true, false) => Values::Good,
            _ => Values::Bad,
        }
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

/// The first panel from `panel` on, and what its piece shows; `None` after the last one.
fn expert_values(
    model: &Model<'_>,
    part: &Part<'_>,
    panel: usize,
    piece: usize,
) -> Result<Option<(usize, Values)>, Error> {
    let expert = crate::blob::Expert::view(part.bytes).ok_or(Error::Corrupt)?;
    let first = panel / 2;
    let Some(n) = (first..model.n_sites()).find(|n| expert.rank(*n) > 0) else {
        return Ok(None);
    };
    let site = model.site(n).ok_or(Error::Corrupt)?;
    let lora = expert.lora(&site).ok_or(Error::Expert {
        class: part.class,
        site: Some(n as u16),
        why: "a panel is missing",
    })?;
    let b = n == first && panel % 2 == 1;
    let values = match b {
        true => panel_values(&lora.b, piece),
        false => tensor_values(&lora.a, piece),
    };
    Ok(Some((
        n.saturating_mul(2).saturating_add(b as usize),
        values,
    )))
}

/// Piece `n` of a matrix: as many tiles as fit 64 KiB, at least one.
fn tensor_values(t: &Tensor<'_>, n: usize) -> Values {
    let tiles = STEP.checked_div(t.tile_bytes()).unwrap_or(0).max(1);
    let all = t.rows.div_ceil(t.lanes.max(1));
    let from = n.saturating_mul(tiles);
    let to = from.saturating_add(tiles).min(all);
    let scales = layout::scale_bytes(t.lanes, t.cols, t.group);
    let good = (from..to).all(|n| {
        t.tile(n).is_some_and(|tile| match t.dtype {
            Dtype::F16 => halves_in_range(tile, 0),
            Dtype::F32 => floats_in_range(tile),
            Dtype::Q8 => {
                format::slice(tile, 0, scales).is_some_and(|s| halves_in_range(s, t.scale_exp))
            }
        })
    });
    Values::of(good, to < all)
}

/// Piece `n` of a panel: 64 KiB of numbers; all scales of a q8 one.
fn panel_values(b: &BPanel<'_>, n: usize) -> Values {
    if b.dtype == Dtype::Q8 {
        return Values::of((0..b.rank).all(|j| math::in_range(b.scale(j))), false);
    }
    let from = n.saturating_mul(STEP).min(b.data.len());
    let rest = b.data.split_at_checked(from).map_or(&[][..], |p| p.1);
    let (piece, rest) = rest.split_at_checked(STEP).unwrap_or((rest, &[]));
    let good = match b.dtype {
        Dtype::F16 => halves_in_range(piece, 0),
        _ => floats_in_range(piece),
    };
    Values::of(good, !rest.is_empty())
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
