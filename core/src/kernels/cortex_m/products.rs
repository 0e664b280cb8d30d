//! Four vectors times four factors by VFP, into 16 sums. They stay in registers, where the compiler stores them after each
//! vector. By VMUL and VADD: VMLA has the same bits, and takes three cycles where these take one each.

use crate::kernels::isa::LANES;
use core::arch::asm;

/// For each of the four vectors: its pointer, its factor in s8, and what `$lanes` does. Operands are the same for both types.
macro_rules! products {
    ($vectors:ident, $x:ident, $sums:ident, $($lanes:expr,)*) => {
        asm!(
            "vldm {sums}, {{s16-s31}}",
            "2:",
            "ldr {vector}, [{vectors}], #4",
            "vldmia {x}!, {{s8}}",
            $($lanes,)*
            "cmp {vectors}, {end}",
            "bne 2b",
            "vstm {sums}, {{s16-s31}}",
            vectors = inout(reg) $vectors.as_ptr() => _,
            end = in(reg) $vectors.as_ptr_range().end,
            x = inout(reg) $x.as_ptr() => _,
            sums = in(reg) $sums.as_mut_ptr(),
            vector = out(reg) _,
            out("r0") _, out("r1") _, out("r2") _, out("r3") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _,
            out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _,
            out("d8") _, out("d9") _, out("d10") _, out("d11") _,
            out("d12") _, out("d13") _, out("d14") _, out("d15") _,
            options(nostack),
        )
    };
}

/// Eight halves of a vector, by four words: VLDM would not read them at any address.
macro_rules! eight_halves {
    ($b0:literal $b4:literal $b8:literal $b12:literal: $($sum:literal $number:literal)*) => {
        concat!(
            "ldr r0, [{vector}, #", $b0, "]\n",
            "ldr r1, [{vector}, #", $b4, "]\n",
            "ldr r2, [{vector}, #", $b8, "]\n",
            "ldr r3, [{vector}, #", $b12, "]\n",
            "vmov s0, s1, r0, r1\n",
            "vmov s2, s3, r2, r3\n",
            "vcvtt.f32.f16 s7, s3\n",
            "vcvtb.f32.f16 s6, s3\n",
            "vcvtt.f32.f16 s5, s2\n",
            "vcvtb.f32.f16 s4, s2\n",
            "vcvtt.f32.f16 s3, s1\n",
            "vcvtb.f32.f16 s2, s1\n",
            "vcvtt.f32.f16 s1, s0\n",
            "vcvtb.f32.f16 s0, s0\n",
            $("vmul.f32 ", $number, ", s8, ", $number, "\n",)*
            $("vadd.f32 ", $sum, ", ", $sum, ", ", $number, "\n",)*
        )
    };
}

/// Four int8 of a vector.
macro_rules! four_bytes {
    ($b0:literal $b1:literal $b2:literal $b3:literal: $($sum:literal $number:literal)*) => {
        concat!(
            "ldrsb r0, [{vector}, #", $b0, "]\n",
            "ldrsb r1, [{vector}, #", $b1, "]\n",
            "ldrsb r2, [{vector}, #", $b2, "]\n",
            "ldrsb r3, [{vector}, #", $b3, "]\n",
            "vmov s0, s1, r0, r1\n",
            "vmov s2, s3, r2, r3\n",
            $("vcvt.f32.s32 ", $number, ", ", $number, "\n",)*
            $("vmul.f32 ", $number, ", s8, ", $number, "\n",)*
            $("vadd.f32 ", $sum, ", ", $sum, ", ", $number, "\n",)*
        )
    };
}

/// [`Isa::add_four_f16`](crate::kernels::isa::Isa::add_four_f16) for one sum.
#[inline(never)]
#[allow(unsafe_code)]
pub(super) fn add_four_f16_cortex_m(
    vectors: &[&[u8; 2 * LANES]; 4],
    x: &[f32; 4],
    sums: &mut [f32; LANES],
) {
    // SAFETY: bounds: four pointers, four factors and 16 sums, the arrays' lengths; 32 bytes of each vector. align: LDR
    //   of any address, as the compiler's; VLDM and VSTM of floats. clobbers: r0 to r3, s0 to s8 and d8 to d15 (s16 to
    //   s31), all named.
    unsafe {
        products!(
            vectors,
            x,
            sums,
            eight_halves!("0" "4" "8" "12": "s16" "s0" "s17" "s1" "s18" "s2" "s19" "s3" "s20" "s4" "s21" "s5" "s22" "s6" "s23" "s7"),
            eight_halves!("16" "20" "24" "28": "s24" "s0" "s25" "s1" "s26" "s2" "s27" "s3" "s28" "s4" "s29" "s5" "s30" "s6" "s31" "s7"),
        );
    }
}

/// [`Isa::add_four_i8`](crate::kernels::isa::Isa::add_four_i8) for one sum.
#[inline(never)]
#[allow(unsafe_code)]
pub(super) fn add_four_i8_cortex_m(
    vectors: &[&[u8; LANES]; 4],
    x: &[f32; 4],
    sums: &mut [f32; LANES],
) {
    // SAFETY: bounds: four pointers, four factors and 16 sums, the arrays' lengths; 16 bytes of each vector. align: loads of
    //   bytes; VLDM and VSTM of floats. clobbers: r0 to r3, s0 to s8 and d8 to d15 (s16 to s31), all named.
    unsafe {
        products!(
            vectors,
            x,
            sums,
            four_bytes!("0" "1" "2" "3": "s16" "s0" "s17" "s1" "s18" "s2" "s19" "s3"),
            four_bytes!("4" "5" "6" "7": "s20" "s0" "s21" "s1" "s22" "s2" "s23" "s3"),
            four_bytes!("8" "9" "10" "11": "s24" "s0" "s25" "s1" "s26" "s2" "s27" "s3"),
            four_bytes!("12" "13" "14" "15": "s28" "s0" "s29" "s1" "s30" "s2" "s31" "s3"),
        );
    }
}
