//! What a packed file is made of, and what storage cost.

use crate::layout::Packed as Stored;
use crate::quant::Loss;
use pleach::blob::format::{SectionEntry, SectionKind};
use pleach::kernels::layout::{Dtype, Layout};

/// One tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Its name: of the base as in the checkpoint, of the others with a prefix.
    pub name: String,
    /// What it is: `embed`, `head`, `norm`, `q_proj` .. `down_proj`, `bias`, `classifier`, `lora A`, `lora B`.
    pub kind: &'static str,
    /// Class index of the expert that it belongs to.
    pub class: Option<u16>,
    /// How a number is stored.
    pub dtype: Dtype,
    /// How rows are interleaved.
    pub layout: Layout,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Bytes in the file.
    pub bytes: u64,
    /// Bytes without the padding of rows, columns and scales.
    pub net_bytes: u64,
    /// What storage cost.
    pub loss: Loss,
}

/// One section of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionReport {
    /// What it holds.
    pub kind: SectionKind,
    /// Class index of an expert, else 0.
    pub index: u16,
    /// Bytes.
    pub bytes: u64,
}

/// What storing the tensors of one kind cost.
#[derive(Clone, Debug, PartialEq)]
pub struct KindReport<'r> {
    /// The kind, see [`TensorReport::kind`].
    pub kind: &'static str,
    /// How many there are.
    pub tensors: usize,
    /// All of them together.
    pub loss: Loss,
    /// The one with the largest relative error.
    pub worst: &'r TensorReport,
}

/// What a packed file is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The sections in order.
    pub sections: Vec<SectionReport>,
    /// The tensors in order.
    pub tensors: Vec<TensorReport>,
}

impl Report {
    pub(crate) fn tensor(
        &mut self,
        kind: &'static str,
        class: Option<u16>,
        name: impl Into<String>,
        t: &Stored,
        net_bytes: usize,
    ) {
        self.tensors.push(TensorReport {
            name: name.into(),
            kind,
            class,
            dtype: t.dtype,
            layout: t.layout,
            rows: t.rows,
            cols: t.cols,
            bytes: t.bytes.len() as u64,
            net_bytes: net_bytes as u64,
            loss: t.loss,
        });
    }

    pub(crate) fn finish(&mut self, file_bytes: usize, entries: &[SectionEntry]) {
        self.file_bytes = file_bytes as u64;
        self.sections = entries
            .iter()
            .filter_map(|e| {
                Some(SectionReport {
                    kind: SectionKind::from_number(e.kind)?,
                    index: e.index,
                    bytes: e.length,
                })
            })
            .collect();
    }

    /// Bytes of all sections of a kind.
    pub fn bytes(&self, kind: SectionKind) -> u64 {
        self.sections
            .iter()
            .filter(|s| s.kind == kind)
            .map(|s| s.bytes)
            .sum()
    }

    /// Bytes of header, tables and alignment: all that is neither tensor nor text.
    pub fn table_bytes(&self) -> u64 {
        let tensors: u64 = self.tensors.iter().map(|t| t.bytes).sum();
        let texts = self.sections.iter().filter(|s| s.kind.is_text());
        let texts: u64 = texts.map(|s| s.bytes).sum();
        self.file_bytes.saturating_sub(tensors + texts)
    }

    /// Bytes of zeros within tensors: rows, columns and scales that the layouts round up.
    pub fn padding_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes - t.net_bytes).sum()
    }

    /// Header, tables and alignment as a share of the file.
    pub fn table_share(&self) -> f64 {
        self.table_bytes() as f64 / self.file_bytes.max(1) as f64
    }

    /// Padding within tensors as a share of the file.
    pub fn padding_share(&self) -> f64 {
        self.padding_bytes() as f64 / self.file_bytes.max(1) as f64
    }

    /// Values other than 0 that had to become 0 because they are too small to store.
    pub fn flushed(&self) -> u64 {
        self.tensors.iter().map(|t| t.loss.flushed).sum()
    }

    /// What each kind of tensor cost, in the order in which the kinds appear.
    pub fn kinds(&self) -> Vec<KindReport<'_>> {
        let mut kinds: Vec<KindReport<'_>> = Vec::new();
        for t in &self.tensors {
            match kinds.iter_mut().find(|k| k.kind == t.kind) {
                Some(k) => {
                    k.tensors += 1;
                    k.loss.add(&t.loss);
                    if t.loss.relative() > k.worst.loss.relative() {
                        k.worst = t;
                    }
                }
                None => kinds.push(KindReport {
                    kind: t.kind,
                    tensors: 1,
                    loss: t.loss,
                    worst: t,
                }),
            }
        }
        kinds
    }

    /// The tensor with the largest relative error.
    pub fn worst(&self) -> Option<&TensorReport> {
        self.tensors
            .iter()
            .max_by(|a, b| a.loss.relative().total_cmp(&b.loss.relative()))
    }
}
