//! x86: AVX2 with F16C, and AVX-512 with VNNI.

mod avx2;
mod avx2_q8;
mod avx512vnni;
mod avx512vnni_q8;

pub(crate) use avx2::Avx2;
pub(crate) use avx512vnni::Avx512Vnni;

#[cfg(target_arch = "x86")]
use core::arch::x86 as arch;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64 as arch;

/// How far ahead of a stream of weights to prefetch, in bytes.
const AHEAD: usize = 4096;
