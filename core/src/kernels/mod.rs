//! What is computed, row by row, and where it runs.
//!
//! * [`layout`]: how packed rows lie in memory.
//! * [`panel`]: activations as a kernel reads them.
//! * `isa`: what a backend is: 16 lanes of f32, and a few micro-kernels.
//! * `q8`, `range`: the checked pointers that micro-kernels of `q8` rows get; `vfp`: halves by a Cortex-M's FPU; `token`: the
//!   proof that a CPU has a backend; [`log`]: which operations have run.
//! * `linear`, `lora`, `float`, [`attention`], `rope`, `elementwise`, `embedding`: one driver per operation,
//!   generic over the backend. A driver walks tiles outside and blocks of at most 8 columns inside, so that weights are read
//!   once a sweep.
//! * `scalar`: the specification. The other folders are backends; the table below lists them, best first.
//! * `probe`: single operations, for the kernels' own tests.
//! * [`work`]: a range of rows of one operation, and the [`Executor`] that runs it.
//!
//! A micro-kernel's name is `operation_dtype_layout_backend[_instruction]`, as `gemv_q8_r16k4_x86_avx512vnni`: the
//! key in tables, tests and logs. Where one body serves every layout, the layout is left out.
//!
//! **Adding a backend** is a folder with a type that implements `Isa`, declared below, and a line in the table. `target_arch` and
//! `target_feature` stand here and in those folders only; `pleach_cortex_m` and `pleach_mve` are set by the core's
//! `build.rs`, since stable compilers do not tell `cfg` about Arm's DSP and Helium, and so is `pleach_small`, where flash
//! is scarce and drivers are not inlined into each other.

pub mod attention;
#[cfg(pleach_cortex_m)]
mod cortex_m;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod float;
pub(crate) mod isa;
pub mod layout;
pub(crate) mod linear;
pub mod log;
pub(crate) mod lora;
#[cfg(pleach_mve)]
mod mve;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
pub mod panel;
#[doc(hidden)]
pub mod probe;
#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "only these backends take several columns at once")
)]
pub(crate) mod q8;
#[cfg(any(pleach_cortex_m, pleach_mve))]
mod range;
pub(crate) mod rope;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
#[cfg(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64"))]
mod token;
#[cfg(any(pleach_cortex_m, pleach_mve))]
mod vfp;
pub mod work;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86;

pub(crate) use isa::Task;
pub use isa::{BLOCK, LANES};
pub use log::Operation;
pub use work::{Executor, Inline, Work};

/// Rows of one unit of work in a base matrix: the lanes of a vector.
pub const UNIT: usize = LANES;

/// Rows of one unit of work in an A panel.
pub const A_UNIT: usize = 4;

/// Firmware whose flash and stack are scarce, on a CPU whose additions take a cycle: `build.rs` says where.
pub(crate) const SMALL: bool = cfg!(pleach_small);

/// Panels of selected experts that an operation looks up once, for all its units. Firmware, whose stack is scarce,
/// looks them up each time.
pub(crate) const HELD_PANELS: usize = if SMALL { 0 } else { 16 };

/// The kernels that this CPU may run: having the value is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    backend: Backend,
}

/// From the table: the enum of backends, and what [`Kernels`] asks of each.
macro_rules! backends {
    ($($(#[$cfg:meta])* $name:ident: $isa:ty,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Backend {
            $($(#[$cfg])* $name($isa),)*
        }

        impl Kernels {
            /// The best kernels that the build's target features promise.
            pub const fn of_build() -> Self {
                $($(#[$cfg])* if let Some(isa) = <$isa>::of_build() {
                    return Self { backend: Backend::$name(isa) };
                })*
                Self::portable()
            }

            /// The kernels that the running CPU has, best first.
            #[cfg(any(test, feature = "std"))]
            pub fn available() -> impl Iterator<Item = Self> {
                let all = [$($(#[$cfg])* <$isa>::detect().map(|isa| Self { backend: Backend::$name(isa) }),)*];
                all.into_iter().flatten()
            }

            /// The backend's name, for logs.
            pub const fn name(self) -> &'static str {
                match self.backend {
                    $($(#[$cfg])* Backend::$name(_) => <$isa as isa::Named>::NAME,)*
                }
            }

            /// The backend that runs what computes no rows of `q8`: several may share one.
            const fn without_q8(self) -> &'static str {
                match self.backend {
                    $($(#[$cfg])* Backend::$name(_) => <$isa as isa::Named>::WITHOUT_Q8,)*
                }
            }

            /// The name of this backend's own micro-kernel that takes so many columns at once, for `q8` tiles of a layout;
            /// `None` where the scalar one reads them.
            pub const fn q8_kernel(self, layout: layout::Layout, columns: usize) -> Option<&'static str> {
                match self.backend {
                    $($(#[$cfg])* Backend::$name(_) => <$isa>::q8_kernel(layout, columns),)*
                }
            }

            /// Whether panels have to be expanded for this backend's kernel of `m4` tiles.
            pub(crate) const fn expands(self) -> bool {
                match self.backend {
                    $($(#[$cfg])* Backend::$name(_) => <$isa as isa::Isa>::EXPANDS,)*
                }
            }

            /// Runs a task, compiled for the backend.
            #[inline(always)]
            pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
                match self.backend {
                    $($(#[$cfg])* Backend::$name(isa) => isa.enter(task),)*
                }
            }
        }
    };
}

backends! {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx512Vnni: x86::Avx512Vnni,
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Avx2: x86::Avx2,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    I8mm: neon::I8mm,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    DotProd: neon::DotProd,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon: neon::Neon,
    #[cfg(pleach_cortex_m)]
    CortexM: cortex_m::CortexM,
    #[cfg(pleach_mve)]
    Mve: mve::Mve,
    #[cfg(not(any(pleach_cortex_m, pleach_mve)))]
    Scalar: scalar::Scalar,
}

impl Kernels {
    /// Kernels that every CPU of the build's target runs: the scalar ones, which specify every bit. A firmware for a
    /// Cortex-M with DSP or Helium has only those of that backend, since flash is scarce; the bits are the same.
    pub const fn portable() -> Self {
        #[cfg(pleach_cortex_m)]
        let backend = Backend::CortexM(cortex_m::CortexM);
        #[cfg(pleach_mve)]
        let backend = Backend::Mve(mve::Mve);
        #[cfg(not(any(pleach_cortex_m, pleach_mve)))]
        let backend = Backend::Scalar(scalar::Scalar);
        Self { backend }
    }

    /// The names of the backend's own micro-kernels for `q8` tiles of a layout: one, or where odd numbers of columns have
    /// another, that one first. None where the scalar one reads them.
    pub fn q8_kernels(self, layout: layout::Layout) -> impl Iterator<Item = &'static str> {
        let (one, two) = (self.q8_kernel(layout, 1), self.q8_kernel(layout, 2));
        one.into_iter().chain(two.filter(|two| one != Some(two)))
    }

    /// What runs an operation: of `q8` rows the names of micro-kernels, as [`q8_kernels`](Self::q8_kernels) or the scalar one; of
    /// others the backend that their driver was compiled for.
    pub fn kernels_of(self, operation: Operation) -> impl Iterator<Item = &'static str> {
        let (layout, driver) = match operation {
            Operation::GemvQ8(layout) => (Some(layout), None),
            o if o.is_gemv() => (None, Some(self.name())),
            _ => (None, Some(self.without_q8())),
        };
        let own = layout.into_iter().flat_map(move |l| self.q8_kernels(l));
        let scalar = layout.filter(|l| self.q8_kernel(*l, 1).is_none());
        own.chain(scalar.map(|_| scalar::q8::NAME)).chain(driver)
    }

    /// The best kernels that the running CPU has.
    #[cfg(any(test, feature = "std"))]
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Self::of_build())
    }
}
