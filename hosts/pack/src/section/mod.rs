//! The sections of a model file, one writer each.

pub(crate) mod base;
pub(crate) mod classifier;
pub(crate) mod config;
pub(crate) mod errors;
pub(crate) mod expert;
pub(crate) mod text;

use crate::layout::Packed;
use crate::options::{AdapterQuant, BaseQuant, PackOptions, Progress};
use crate::report::Report;
use crate::write::Section;
use pleach::blob::format::{TABLE_HEAD_BYTES, TENSOR_ENTRY_BYTES, TensorEntry};
use pleach::kernels::layout::{Dtype, Layout, groups};

/// How each kind of tensor is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage {
    /// Weights of the base.
    pub(crate) base: Dtype,
    /// A and B.
    pub(crate) adapter: Dtype,
    /// Layout of weights.
    pub(crate) weights: Layout,
    /// Layout of A.
    pub(crate) a: Layout,
    /// Quantisation group.
    pub(crate) group: usize,
}

impl Storage {
    /// The storage that the options ask for.
    pub(crate) fn of(options: &PackOptions) -> Self {
        Self {
            base: match options.quant {
                BaseQuant::Q8 => Dtype::Q8,
                BaseQuant::F16 => Dtype::F16,
            },
            adapter: match options.adapter_storage() {
                AdapterQuant::Q8 => Dtype::Q8,
                AdapterQuant::F16 => Dtype::F16,
                AdapterQuant::F32 => Dtype::F32,
            },
            weights: options.target.weights(),
            a: options.target.a_panels(),
            group: options.group as usize,
        }
    }
}

/// What the writers of weights share.
pub(crate) struct Job<'a> {
    /// How tensors are stored.
    pub(crate) storage: Storage,
    /// Who hears of the bytes that were read.
    pub(crate) progress: &'a mut dyn Progress,
    /// What was written.
    pub(crate) report: Report,
}

/// Bytes of a tensor without padding.
pub(crate) fn net_bytes(t: &Packed, group: usize) -> usize {
    let scales = match t.dtype {
        Dtype::Q8 => 2 * t.rows * groups(t.cols, group),
        _ => 0,
    };
    t.rows * t.cols * t.dtype.bytes() + scales
}

/// A tensor table at the head of a section, and the data behind it.
#[derive(Debug)]
pub(crate) struct Table {
    next: usize,
}

impl Table {
    /// Keeps room for `count` entries.
    pub(crate) fn begin(out: &mut Section<'_>, count: usize, flags: u32) -> Self {
        let mut head = vec![0; TABLE_HEAD_BYTES + count * TENSOR_ENTRY_BYTES];
        for (slot, byte) in head.iter_mut().zip(
            (count as u32)
                .to_le_bytes()
                .into_iter()
                .chain(flags.to_le_bytes()),
        ) {
            *slot = byte;
        }
        out.push(&head);
        Self {
            next: TABLE_HEAD_BYTES,
        }
    }

    /// Adds the next tensor.
    pub(crate) fn push(&mut self, out: &mut Section<'_>, role: u16, layer: u16, t: &Packed) {
        let offset = out.align();
        out.push(&t.bytes);
        let entry = TensorEntry {
            offset: offset as u64,
            length: t.bytes.len() as u64,
            rows: t.rows as u32,
            cols: t.cols as u32,
            role,
            layer,
            dtype: t.dtype as u8,
            layout: t.layout as u8,
            scale_exp: t.scale_exp,
            flags: 0,
        };
        out.patch(self.next, &entry.encode());
        self.next += TENSOR_ENTRY_BYTES;
    }
}
