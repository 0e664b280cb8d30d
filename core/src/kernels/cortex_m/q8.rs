//! `q8` rows in the layout `m4`, by SMLAD: four rows of four weights in 14 instructions.
//!
//! A halfword of weights is `h = 256 w1 + w0`, and the panel is expanded (see
//! [`panel::expand`](crate::kernels::panel::expand)): `h * x1 + w0 * (256 x0 - x1) = 256 (w0 x0 + w1 x1)`. SMLAD
//! takes two such pairs, SXTB16 the two `w0` of a word. A group's sum is below 256 * 2^22, so i32 holds it, and its
//! scale is divided by 256 instead, exactly.

use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::{K_STEP, Layout};
use crate::kernels::log::{key, ran_q8};
use crate::kernels::panel::{EXPANSION, PanelColumn};
use crate::kernels::range::Range;
use crate::math;

/// Bytes of a step of the panel.
const X_STEP: usize = K_STEP * EXPANSION;
/// Steps of the loop's body. Every group has a multiple of it.
const UNROLL: usize = 8;
/// 2^-8.
const BY_256: f32 = 0.003_906_25;

/// What the kernel takes. The first four words arrive in registers, the others on the stack.
#[repr(C)]
struct Tiles {
    /// The first tile: its scales, then its vectors; the next tile follows.
    tile: *const u8,
    /// 2^scale_exp / 256, as bits.
    pow: u32,
    /// Steps of a whole group / [`UNROLL`]; 0 if no group is whole.
    blocks: usize,
    /// The panel where the last whole group ends. One byte less if no short group follows.
    full: *const i8,
    x: *const i8,
    sx: *const f32,
    scale_bytes: usize,
    /// Steps of the short group beyond a multiple of [`UNROLL`], and that multiple / [`UNROLL`].
    rest: usize,
    rest_blocks: usize,
    out: *mut f32,
    /// Behind the last tile.
    end: *const u8,
}

/// [`Isa::q8_range`](crate::kernels::isa::Isa::q8_range) of tiles in `m4` and an expanded column.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn range_m4(
    w: &Tensor<'_>,
    rows: (usize, usize),
    column: &PanelColumn<'_>,
    out: &mut [[f32; LANES]],
) -> bool {
    if !column.expanded {
        return false;
    }
    let Some(r) = Range::new((w, Layout::M4, X_STEP), rows, column, out) else {
        return false;
    };
    let call = Tiles {
        tile: r.tile,
        pow: (math::pow2(r.scale_exp) * BY_256).to_bits(),
        blocks: if r.whole == 0 {
            0
        } else {
            r.group_steps / UNROLL
        },
        full: r.full().wrapping_sub((r.short == 0) as usize),
        x: r.x,
        sx: r.sx,
        scale_bytes: r.scale_bytes,
        rest: r.short % UNROLL,
        rest_blocks: r.short / UNROLL,
        out: r.out,
        end: r.end(),
    };
    ran_q8(Layout::M4, const { key("gemv_q8_m4_cortex_m_smlad") });
    // SAFETY: cpu: this module is compiled for it only. The rest are the invariants of a `Range` of `m4`, with X_STEP bytes of x a
    //   step; a group of 32 or more has a multiple of UNROLL.
    unsafe { gemv_q8_m4_cortex_m_smlad(call) };
    true
}

/// One step of four rows: the first of a group starts the sums.
macro_rules! step {
    ($smlad:literal, $a4:literal, $a5:literal, $a6:literal, $a7:literal) => {
        concat!(
            "ldmia r0!, {{r8-r11}}\n",
            "ldrd r12, lr, [r1], #8\n",
            $smlad,
            " r4, r8, r12",
            $a4,
            "\n",
            "sxtb16 r8, r8\n",
            "smlad r4, r8, lr, r4\n",
            $smlad,
            " r5, r9, r12",
            $a5,
            "\n",
            "sxtb16 r9, r9\n",
            "smlad r5, r9, lr, r5\n",
            $smlad,
            " r6, r10, r12",
            $a6,
            "\n",
            "sxtb16 r10, r10\n",
            "smlad r6, r10, lr, r6\n",
            $smlad,
            " r7, r11, r12",
            $a7,
            "\n",
            "sxtb16 r11, r11\n",
            "smlad r7, r11, lr, r7\n",
        )
    };
    (first) => {
        step!("smuad", "", "", "", "")
    };
    (next) => {
        step!("smlad", ", r4", ", r5", ", r6", ", r7")
    };
}

/// Tiles of four rows times one column. The scalar equivalent is `gemv_q8_scalar` of each tile.
///
/// | register | holds |
/// |---|---|
/// | r0, r1, r2 | weights, panel, scales: all move on |
/// | r3 | blocks that are left of the group |
/// | r4-r7 | integer sums of the four rows, times 256 |
/// | s9, s10, s11, s16 | `blocks`, `full`, the next sx, 2^scale_exp / 256 |
/// | s12-s15 | sums of the four rows |
///
/// # Safety
///
/// `call` describes at least one tile, as its fields say.
#[unsafe(naked)]
#[allow(unsafe_code)]
unsafe extern "C" fn gemv_q8_m4_cortex_m_smlad(call: Tiles) {
    core::arch::naked_asm!(
        // Naked functions do not have the target's features; Armv7E-M has DSP by itself.
        #[cfg(pleach_armv8m)]
        ".cpu cortex-m33",
        #[cfg(not(pleach_armv8m))]
        ".fpu fpv4-sp-d16",
        "push {{r4-r11, lr}}",
        "vpush {{s16, s17}}", // the arguments on the stack: from sp + 44
        "vmov s16, r1",
        "vmov s9, s10, r2, r3",
        // A tile: scales at r0.
        "1:",
        "mov r2, r0",
        "ldr r12, [sp, #52]",
        "add r0, r12",
        "ldrd r1, r12, [sp, #44]",
        "vmov s11, r12",
        "movs r4, #0",
        "vmov s12, s13, r4, r4",
        "vmov s14, s15, r4, r4",
        "vmov r3, s9",
        "cbnz r3, 2f",
        "b.w 7f",
        // A whole group.
        "2:",
        step!(first),
        "b 5f",
        "4:",
        step!(next),
        "5:",
        step!(next),
        step!(next),
        step!(next),
        step!(next),
        step!(next),
        step!(next),
        step!(next),
        "subs r3, #1",
        "bne.w 4b",
        // f32(256 d) * (sw * (sx / 256)), added.
        "6:",
        "vmov r12, s11",
        "vldmia r12!, {{s8}}",
        "vmov s11, r12",
        "vldmia r2!, {{s4, s5}}",
        "vmov s0, s1, r4, r5",
        "vmov s2, s3, r6, r7",
        "vmul.f32 s8, s8, s16",
        "vcvtt.f32.f16 s7, s5",
        "vcvtb.f32.f16 s6, s5",
        "vcvtt.f32.f16 s5, s4",
        "vcvtb.f32.f16 s4, s4",
        "vcvt.f32.s32 s0, s0",
        "vcvt.f32.s32 s1, s1",
        "vcvt.f32.s32 s2, s2",
        "vcvt.f32.s32 s3, s3",
        "vmul.f32 s4, s4, s8",
        "vmul.f32 s5, s5, s8",
        "vmul.f32 s6, s6, s8",
        "vmul.f32 s7, s7, s8",
        "vmul.f32 s0, s0, s4",
        "vmul.f32 s1, s1, s5",
        "vmul.f32 s2, s2, s6",
        "vmul.f32 s3, s3, s7",
        "vadd.f32 s12, s12, s0",
        "vadd.f32 s13, s13, s1",
        "vadd.f32 s14, s14, s2",
        "vadd.f32 s15, s15, s3",
        "vmov r12, s10",
        "vmov r3, s9",
        "cmp r1, r12",
        "blo.w 2b",
        "bhi.w 9f",
        // The short group: single steps first.
        "7:",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        "ldr r3, [sp, #56]",
        "cbz r3, 11f",
        "10:",
        step!(next),
        "subs r3, #1",
        "bne 10b",
        "11:",
        "ldr r3, [sp, #60]",
        "cmp r3, #0",
        "bne.w 4b",
        "b.w 6b",
        // The tile's end.
        "9:",
        "ldrd r12, r3, [sp, #64]",
        "vstmia r12!, {{s12-s15}}",
        "str r12, [sp, #64]",
        "cmp r0, r3",
        "bne.w 1b",
        "vpop {{s16, s17}}",
        "pop {{r4-r11, pc}}",
    )
}
