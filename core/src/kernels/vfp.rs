//! Halves to singles by a Cortex-M's FPU, with Helium or without: exact, subnormal ones too, which Helium might flush.

use crate::kernels::isa::{Isa, LANES, Lanes};
use crate::kernels::scalar::Scalar;
use core::arch::asm;
use core::mem::MaybeUninit;

/// The scalar equivalent is `Scalar::load_f16`, which also takes what lies at an odd place.
#[inline(never)]
#[allow(unsafe_code)]
pub(super) fn load_f16_vfp(x: &[u8; 2 * LANES]) -> [f32; LANES] {
    if !x.as_ptr().addr().is_multiple_of(4) {
        return Scalar.load_f16(x).array();
    }
    let mut lanes = MaybeUninit::<[f32; LANES]>::uninit();
    // SAFETY: bounds: 32 bytes are read and 16 floats written, the lengths of both arrays, so that all of `lanes` is
    //   initialised. align: `x` was checked, VLDM and VSTM need 4. clobbers: s0 to s15, named.
    unsafe {
        asm!(
            "vldm {x}, {{s0-s7}}",
            "vcvtt.f32.f16 s15, s7",
            "vcvtb.f32.f16 s14, s7",
            "vcvtt.f32.f16 s13, s6",
            "vcvtb.f32.f16 s12, s6",
            "vcvtt.f32.f16 s11, s5",
            "vcvtb.f32.f16 s10, s5",
            "vcvtt.f32.f16 s9, s4",
            "vcvtb.f32.f16 s8, s4",
            "vcvtt.f32.f16 s7, s3",
            "vcvtb.f32.f16 s6, s3",
            "vcvtt.f32.f16 s5, s2",
            "vcvtb.f32.f16 s4, s2",
            "vcvtt.f32.f16 s3, s1",
            "vcvtb.f32.f16 s2, s1",
            "vcvtt.f32.f16 s1, s0",
            "vcvtb.f32.f16 s0, s0",
            "vstm {lanes}, {{s0-s15}}",
            x = in(reg) x.as_ptr(),
            lanes = in(reg) lanes.as_mut_ptr(),
            out("s0") _, out("s1") _, out("s2") _, out("s3") _,
            out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _,
            out("s12") _, out("s13") _, out("s14") _, out("s15") _,
            options(nostack),
        );
        lanes.assume_init()
    }
}
