//! What is computed, row by row, and where it runs.
//!
//! * [`layout`]: how packed rows lie in memory.
//! * [`panel`]: activations as a kernel reads them.
//! * `linear`, [`attention`], `embedding`: one driver per operation. A driver walks tiles outside and blocks of at most
//!   8 columns inside, so that weights are read once a sweep.
//! * [`scalar`]: micro-kernels in plain Rust. They specify every bit and read every layout; a backend
//!   with SIMD is a sibling that repeats their operations in lanes. `x86` has AVX2: the scalar source, compiled
//!   again for wider registers.
//! * [`work`]: a range of rows of one operation, and the [`Executor`] that runs it.
//!
//! A micro-kernel's name is `operation_dtype_layout_backend[_instruction]`, as `gemv_q8_r16k4_scalar`: the
//! key in tables, tests and logs. Where one body serves every layout, the layout is left out.

pub mod attention;
pub(crate) mod embedding;
pub mod layout;
pub(crate) mod linear;
pub mod panel;
pub mod scalar;
pub mod work;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86;

pub use work::{Executor, Inline, Work};

/// Columns that a micro-kernel takes at once.
pub const BLOCK: usize = 8;

/// Rows of one unit of work in a base matrix.
pub const UNIT: usize = 16;

/// Rows of one unit of work in an A panel.
pub const A_UNIT: usize = 4;

/// The kernels that this CPU may run: having the value is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    pub(crate) backend: Backend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Scalar,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx2(x86::Avx2),
}

impl Kernels {
    /// The scalar kernels, which run everywhere and specify every bit.
    pub const fn portable() -> Self {
        Self {
            backend: Backend::Scalar,
        }
    }

    /// The best kernels that the build's target features promise.
    pub const fn of_build() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if let Some(token) = x86::Avx2::of_build() {
            return Self {
                backend: Backend::Avx2(token),
            };
        }
        Self::portable()
    }

    /// The best kernels that the running CPU has.
    #[cfg(feature = "std")]
    pub fn detect() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if let Some(token) = x86::Avx2::detect() {
            return Self {
                backend: Backend::Avx2(token),
            };
        }
        Self::of_build()
    }

    /// The backend's name, for logs.
    pub const fn name(&self) -> &'static str {
        match self.backend {
            Backend::Scalar => "scalar",
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Backend::Avx2(_) => "avx2",
        }
    }
}
