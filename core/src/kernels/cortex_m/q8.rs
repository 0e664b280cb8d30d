//! `q8` rows in the layout `m4`, by SMLAD: four rows of four weights in 14 instructions.
//!
//! A halfword of weights is `h = 256 w1 + w0`, and the panel is expanded (see
//! [`panel::expand`](crate::kernels::panel::expand)): `h * x1 + w0 * (256 x0 - x1) = 256 (w0 x0 + w1 x1)`. SMLAD
//! takes two such pairs, SXTB16 the two `w0` of a word. A group's sum is below 256 * 2^22, so i32 holds it, and its
//! scale is divided by 256 instead, exactly.

use super::CortexM;
use crate::blob::Tensor;
use crate::kernels::isa::{Acc, LANES};
use crate::kernels::layout::{K_STEP, Layout, groups, scale_bytes, vector_bytes};
use crate::kernels::panel::{EXPANSION, PanelColumn};
use crate::kernels::q8::by_tiles;
use crate::math;

/// Steps of the loop's body.
const UNROLL: usize = 8;
/// 2^-8.
const BY_256: f32 = 0.003_906_25;

/// Rows of any layout: `m4` by [`gemv_q8_m4_cortex_m_smlad`] if the panel is expanded, others by the scalar code.
#[inline(always)]
pub(super) fn gemv_q8(
    isa: CortexM,
    w: &Tensor<'_>,
    (first, rows): (usize, usize),
    columns: &[PanelColumn<'_>],
    acc: &mut Acc,
) {
    if w.layout != Layout::M4 || !tiles(w, (first, rows), columns, acc) {
        by_tiles(isa, w, (first, rows), columns, acc);
    }
}

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
    zeros: [u32; 4],
}

/// The tiles of a unit times each column. `false` if something is not as the kernel needs it: nothing was written.
#[inline(always)]
#[allow(unsafe_code)]
fn tiles(
    w: &Tensor<'_>,
    (first, rows): (usize, usize),
    columns: &[PanelColumn<'_>],
    acc: &mut Acc,
) -> bool {
    let (scales, vectors) = (
        scale_bytes(4, w.cols, w.group),
        vector_bytes(Layout::M4, w.cols),
    );
    let bytes = scales.saturating_add(vectors);
    let count = rows.min(LANES).div_ceil(4);
    let start = (first / 4).saturating_mul(bytes).min(w.data.len());
    let Some(data) = w.data.get(start..) else {
        return false;
    };
    let data = data.get(..count.saturating_mul(bytes)).unwrap_or(data);
    let steps = w.cols.div_ceil(K_STEP);
    let group_steps = w.group / K_STEP;
    if w.group % (K_STEP * UNROLL) != 0
        || group_steps == 0
        || w.cols == 0
        || !data.as_ptr().addr().is_multiple_of(4)
    {
        return false;
    }
    let whole = steps / group_steps;
    let short = steps - whole * group_steps;
    let n = groups(w.cols, w.group);
    let x_bytes = K_STEP * EXPANSION;
    let sound = columns.iter().all(|c| {
        c.expanded
            && c.q.len() >= steps * x_bytes
            && c.sx.len() >= n
            && c.q.as_ptr().addr().is_multiple_of(4)
    });
    if !sound {
        return false;
    }
    let pow = (math::pow2(w.scale_exp) * BY_256).to_bits();
    for (column, acc) in columns.iter().zip(acc) {
        let x = column.q.as_ptr();
        let full = x.wrapping_add(whole * group_steps * x_bytes);
        let call = Tiles {
            tile: data.as_ptr(),
            pow,
            blocks: if whole == 0 { 0 } else { group_steps / UNROLL },
            full: if short == 0 {
                full.wrapping_sub(1)
            } else {
                full
            },
            x,
            sx: column.sx.as_ptr(),
            scale_bytes: scales,
            rest: short % UNROLL,
            rest_blocks: short / UNROLL,
            out: acc.as_mut_ptr(),
            end: data.as_ptr_range().end,
            zeros: [0; 4],
        };
        // SAFETY: bounds: `data` is whole tiles (Tensor's invariant: `bytes` divides its length, and it was cut at a
        //   multiple), each `scales` bytes of `n` times four halves and `steps` times 16 of weights; a column has
        //   `steps` steps of 8 bytes and `n` scales (checked above); at most 4 tiles write 4 of 16 floats each. At least
        //   one tile: `data` is not empty, or the kernel is not called. align: `tile` and `x` were checked, and all
        //   strides are multiples of 4; floats are aligned. init: all of it is slices.
        if !data.is_empty() {
            unsafe { gemv_q8_m4_cortex_m_smlad(call) };
        }
    }
    true
}

/// One step of four rows: `$first` and `$then` are the instructions for `h * x1` of a row.
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
        ".fpu fpv4-sp-d16", // naked functions do not have the target's
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
        "vldr d6, [sp, #72]",
        "vldr d7, [sp, #80]",
        "vmov r3, s9",
        "cbz r3, 3f",
        // A whole group: its first step starts the sums.
        "2:",
        step!(first),
        "b 5f",
        "3:",
        "b.w 7f",
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
