//! The tensor tables of base and classifier.

use super::*;

/// A walk over a section's tensor table that checks that data tile the section.
struct TableWalk<'b> {
    section: &'b [u8],
    kind: SectionKind,
    group: usize,
    next: usize,
    end: u64,
}

#[derive(Clone, Copy)]
struct Want {
    role: u16,
    layer: u16,
    rows: u32,
    cols: u32,
    /// A vector is f32 in plain rows.
    vector: bool,
    /// Whether a weight may be q8.
    q8: bool,
}

impl TableWalk<'_> {
    const fn error(&self, why: &'static str) -> Error {
        Error::Tensor {
            section: self.kind,
            index: self.next as u16,
            why,
        }
    }

    /// Checks the next entry.
    const fn expect(&mut self, want: Want) -> Result<(), Error> {
        let at = format::TABLE_HEAD_BYTES + self.next * format::TENSOR_ENTRY_BYTES;
        let Some(b) = format::array(self.section, at) else {
            return Err(self.error("the tensor table ends early"));
        };
        let e = TensorEntry::decode(b);
        if e.role != want.role || e.layer != want.layer {
            return Err(self.error("another tensor is expected here"));
        }
        if e.rows != want.rows || e.cols != want.cols {
            return Err(self.error("rows and columns do not fit the config"));
        }
        let (Some(dtype), Some(layout)) = (Dtype::from_tag(e.dtype), Layout::from_tag(e.layout))
        else {
            return Err(self.error("a dtype or layout that this build does not know"));
        };
        let legal = if want.vector {
            matches!((dtype, layout), (Dtype::F32, Layout::Rows))
        } else {
            !matches!(layout, Layout::R4K4)
                && layout.holds(dtype)
                && (want.q8 || !matches!(dtype, Dtype::Q8))
        };
        if !legal {
            return Err(self.error("a dtype or layout that is not legal here"));
        }
        if !scale_exp_is_legal(dtype, e.scale_exp) || e.flags != 0 {
            return Err(self.error("scale_exp or flags outside their range"));
        }
        let size = packed_size(dtype, layout, e.rows as usize, e.cols as usize, self.group);
        if e.offset != align_up(self.end, DATA_ALIGN) {
            return Err(self.error("its data do not begin where those before end"));
        }
        if e.length != size as u64 {
            return Err(self.error("its length does not fit its shape"));
        }
        self.end = e.offset.saturating_add(e.length);
        if self.end > self.section.len() as u64 {
            return Err(self.error("its data end outside the section"));
        }
        self.next += 1;
        Ok(())
    }

    /// Checks that nothing follows.
    const fn finish(self) -> Result<(), Error> {
        if self.end != self.section.len() as u64 {
            return Err(self.error("bytes after the last tensor"));
        }
        Ok(())
    }
}

pub(crate) const fn scale_exp_is_legal(dtype: Dtype, e: i8) -> bool {
    match dtype {
        Dtype::Q8 => e >= -10 && e <= 0,
        _ => e == 0,
    }
}

/// Begins a walk; the table must hold `count` entries.
const fn table<'b>(
    section: &'b [u8],
    kind: SectionKind,
    group: u32,
    count: usize,
) -> Result<TableWalk<'b>, Error> {
    let walk = TableWalk {
        section,
        kind,
        group: group as usize,
        next: 0,
        end: (format::TABLE_HEAD_BYTES as u64)
            .saturating_add((count as u64).saturating_mul(format::TENSOR_ENTRY_BYTES as u64)),
    };
    match format::array::<4>(section, 0) {
        Some(n) if u32::from_le_bytes(*n) as usize == count => {}
        _ => {
            return Err(walk
                .error("the tensor table has another number of entries than the config asks for"));
        }
    }
    // The classifier's first flag says that a ReLU stands between its layers.
    let relu = matches!(kind, SectionKind::Classifier) as u8;
    match format::array::<4>(section, 4) {
        Some([flags, 0, 0, 0]) if *flags <= relu => {}
        _ => return Err(walk.error("the tensor table has flags that this build does not know")),
    }
    if !format::is_zero(section, 8, format::TABLE_HEAD_BYTES - 8) {
        return Err(walk.error("reserved bytes of the tensor table are not 0"));
    }
    Ok(walk)
}

pub(super) const fn base_tensors(model: &Model<'_>) -> Result<(), Error> {
    let c = &model.config;
    let mut count = if c.tied { 2 } else { 3 };
    let mut i = 0;
    while i < c.layers as usize {
        if let Some(l) = model.layer(i) {
            count += l.tensors();
        }
        i += 1;
    }
    let mut walk = tri!(table(model.base, SectionKind::Base, c.group, count));
    tri!(walk.expect(weight(Role::Embed as u16, NO_LAYER, c.vocab, c.hidden)));
    if !c.tied {
        tri!(walk.expect(weight(Role::Head as u16, NO_LAYER, c.vocab, c.hidden)));
    }
    tri!(walk.expect(vector(Role::FinalNorm as u16, NO_LAYER, c.hidden)));
    let mut i = 0;
    while i < c.layers as usize {
        let Some(l) = model.layer(i) else {
            return Err(Error::Corrupt);
        };
        let layer = i as u16;
        tri!(walk.expect(vector(Role::AttnNorm as u16, layer, c.hidden)));
        let mut m = 0;
        while m < 7 {
            if m == Module::Gate as u16 {
                tri!(walk.expect(vector(Role::MlpNorm as u16, layer, c.hidden)));
            }
            if let Some(module) = Module::from_number(m) {
                let (rows, cols) = module_shape(c, module);
                tri!(walk.expect(weight(Role::Weight as u16 + m, layer, rows, cols)));
            }
            m += 1;
        }
        if l.qk_norm() {
            tri!(walk.expect(vector(Role::QNorm as u16, layer, c.head_dim)));
            tri!(walk.expect(vector(Role::KNorm as u16, layer, c.head_dim)));
        }
        let mut m = 0;
        while m < 7 {
            if let Some(module) = Module::from_number(m)
                && l.bias_mask & module.bit() != 0
            {
                let (rows, _) = module_shape(c, module);
                tri!(walk.expect(vector(Role::Bias as u16 + m, layer, rows)));
            }
            m += 1;
        }
        i += 1;
    }
    walk.finish()
}

const fn weight(role: u16, layer: u16, rows: u32, cols: u32) -> Want {
    Want {
        role,
        layer,
        rows,
        cols,
        vector: false,
        q8: true,
    }
}

const fn vector(role: u16, layer: u16, cols: u32) -> Want {
    Want {
        role,
        layer,
        rows: 1,
        cols,
        vector: true,
        q8: false,
    }
}

/// Checks the classifier; returns its widest layer.
pub(super) const fn classifier(model: &Model<'_>, section: &[u8]) -> Result<usize, Error> {
    let kind = SectionKind::Classifier;
    let out = model.scalings_width();
    let error = Error::Tensor {
        section: kind,
        index: 0,
        why: "a classifier has 1 to 64 layers, and needs experts",
    };
    let count = match format::array::<4>(section, 0) {
        Some(n) => u32::from_le_bytes(*n),
        None => return Err(error),
    };
    if count == 0 || !count.is_multiple_of(2) || count / 2 > MAX_DEPTH || out == 0 {
        return Err(error);
    }
    let mut walk = tri!(table(section, kind, model.config.group, count as usize));
    let depth = count as usize / 2;
    let mut cols = model.config.hidden;
    let mut widest = 0;
    let mut i = 0;
    while i < depth {
        let at = format::TABLE_HEAD_BYTES + 2 * i * format::TENSOR_ENTRY_BYTES;
        let rows = match format::array(section, at) {
            Some(b) => TensorEntry::decode(b).rows,
            None => 0,
        };
        let last = i + 1 == depth;
        if rows == 0 || rows > MAX_DIM || (last && rows as usize != out) {
            return Err(
                walk.error("the last layer must have a row per expert (and site when layerwise)")
            );
        }
        let mut want = weight(Role::ClassifierWeight as u16, i as u16, rows, cols);
        want.q8 = false;
        tri!(walk.expect(want));
        tri!(walk.expect(vector(Role::ClassifierBias as u16, i as u16, rows)));
        if rows as usize > widest {
            widest = rows as usize;
        }
        cols = rows;
        i += 1;
    }
    tri!(walk.finish());
    Ok(widest)
}
