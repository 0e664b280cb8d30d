//! Which operations there are, and, with the feature `kernel-log`, which of them have run.
//!
//! A test that compares bits proves little about a kernel that nothing called: the log says what was.

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
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 14] = [
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
        }
    }

    #[cfg(feature = "kernel-log")]
    const fn bit(self) -> u32 {
        1 << match self {
            Self::GemvQ8(layout) => layout as u32,
            Self::GemvF16 => 8,
            Self::GemvF32 => 9,
            Self::Deltas => 10,
            Self::Score => 11,
            Self::Softmax => 12,
            Self::Mix => 13,
            Self::Norm => 14,
            Self::Act => 15,
            Self::Quantise => 16,
        }
    }
}

#[cfg(feature = "kernel-log")]
static RAN: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Notes that an operation runs. Nothing without the feature.
#[inline(always)]
pub(crate) fn ran(operation: Operation) {
    #[cfg(feature = "kernel-log")]
    {
        use core::sync::atomic::Ordering::Relaxed;
        // Only a load and a store: a bit that a race loses comes again with the next unit.
        let ran = RAN.load(Relaxed);
        if ran & operation.bit() == 0 {
            RAN.store(ran | operation.bit(), Relaxed);
        }
    }
    #[cfg(not(feature = "kernel-log"))]
    let _ = operation;
}

/// The operations that have run in this process since the last call, on whatever kernels.
#[cfg(feature = "kernel-log")]
pub fn take_ran() -> impl Iterator<Item = Operation> {
    use core::sync::atomic::Ordering::Relaxed;
    let ran = RAN.load(Relaxed);
    RAN.store(0, Relaxed);
    Operation::ALL
        .into_iter()
        .filter(move |o| ran & o.bit() != 0)
}
