//! Which operations there are, and, with the feature `kernel-log`, which kernels have run them.
//!
//! A test that compares bits proves little about a kernel that nothing called: the log says what was. A driver is noted by the
//! backend that it was compiled for, and each micro-kernel of `q8` rows by its own name, in itself.

use crate::kernels::isa::Isa;
use crate::kernels::layout::Layout;

/// An operation that has a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `q8` rows in a layout: base matrices and A panels.
    GemvQ8(Layout),
    /// `f16` rows.
    GemvF16,
    /// `f32` rows.
    GemvF32,
    /// B panels of the selected experts.
    Deltas,
    /// Attention scores.
    Score,
    /// Attention weights.
    Softmax,
    /// Attention outputs.
    Mix,
    /// RMSNorm.
    Norm,
    /// SwiGLU.
    Act,
    /// A column's int8 panel.
    Quantise,
    /// Rotary embedding.
    Rope,
    /// A position's keys and values, into the cache.
    Store,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::GemvQ8(Layout::Rows),
        Self::GemvQ8(Layout::R16K4),
        Self::GemvQ8(Layout::R4K4),
        Self::GemvQ8(Layout::M4),
        Self::GemvQ8(Layout::R4K16),
        Self::GemvF16,
        Self::GemvF32,
        Self::Deltas,
        Self::Score,
        Self::Softmax,
        Self::Mix,
        Self::Norm,
        Self::Act,
        Self::Quantise,
        Self::Rope,
        Self::Store,
    ];

    /// The first part of the names of its kernels, and its layout if it has kernels for each.
    pub const fn name(self) -> (&'static str, Option<Layout>) {
        match self {
            Self::GemvQ8(layout) => ("gemv_q8", Some(layout)),
            Self::GemvF16 => ("gemv_f16", None),
            Self::GemvF32 => ("gemv_f32", None),
            Self::Deltas => ("deltas", None),
            Self::Score => ("score", None),
            Self::Softmax => ("softmax", None),
            Self::Mix => ("mix", None),
            Self::Norm => ("norm", None),
            Self::Act => ("act", None),
            Self::Quantise => ("quantise", None),
            Self::Rope => ("rope", None),
            Self::Store => ("store", None),
        }
    }

    /// Whether its driver may compute rows of `q8`, too, and so is each backend's own.
    pub(crate) const fn is_gemv(self) -> bool {
        matches!(
            self,
            Self::GemvQ8(_) | Self::GemvF16 | Self::GemvF32 | Self::Deltas
        )
    }
}

/// Notes that an operation is run by a driver compiled for `I`. Nothing without the feature.
#[inline(always)]
pub(crate) fn ran<I: Isa>(operation: Operation) {
    #[cfg(feature = "kernel-log")]
    record::note(operation, const { key(I::NAME) });
    #[cfg(not(feature = "kernel-log"))]
    let _ = operation;
}

/// Notes that the micro-kernel where it stands, whose name's [`key`] this is, runs rows of `q8` in a layout. Nothing without
/// the feature.
#[inline(always)]
pub(crate) fn ran_q8(layout: Layout, kernel: u32) {
    #[cfg(feature = "kernel-log")]
    record::note(Operation::GemvQ8(layout), kernel);
    #[cfg(not(feature = "kernel-log"))]
    let _ = (layout, kernel);
}

/// A kernel's name as a number: FNV-1a, and not 0.
pub(crate) const fn key(name: &str) -> u32 {
    let (mut hash, mut rest) = (0x811c_9dc5_u32, name.as_bytes());
    while let [byte, others @ ..] = rest {
        hash = (hash ^ *byte as u32).wrapping_mul(0x0100_0193);
        rest = others;
    }
    hash | 1
}

#[cfg(feature = "kernel-log")]
pub use record::{clear, has_run};

/// What has run in this process.
#[cfg(feature = "kernel-log")]
mod record {
    use super::{Operation, key};
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::Relaxed;

    /// Kernels of one operation: a backend's own, those of other backends that it uses, the scalar one.
    const KERNELS: usize = 8;

    /// For each operation, [`key`]s of kernels, and 0 where none is.
    static RAN: [[AtomicU32; KERNELS]; Operation::ALL.len()] =
        [const { [const { AtomicU32::new(0) }; KERNELS] }; Operation::ALL.len()];

    fn kernels(operation: Operation) -> &'static [AtomicU32] {
        let at = Operation::ALL.iter().position(|o| *o == operation);
        at.and_then(|at| RAN.get(at)).map_or(&[], |k| k)
    }

    pub(super) fn note(operation: Operation, kernel: u32) {
        // Only loads and stores, which every CPU has: what a race loses comes again with the next unit.
        for slot in kernels(operation) {
            match slot.load(Relaxed) {
                0 => return slot.store(kernel, Relaxed),
                k if k == kernel => return,
                _ => {}
            }
        }
    }

    /// Forgets what has run.
    pub fn clear() {
        RAN.iter().flatten().for_each(|slot| slot.store(0, Relaxed));
    }

    /// Whether `kernel` has run the operation in this process since the last [`clear`]: a backend's name, or of `q8` rows a
    /// micro-kernel's, as in [`Kernels::kernels_of`](crate::Kernels::kernels_of).
    pub fn has_run(operation: Operation, kernel: &str) -> bool {
        let key = key(kernel);
        let mut all = kernels(operation).iter();
        all.any(|slot| slot.load(Relaxed) == key)
    }
}
