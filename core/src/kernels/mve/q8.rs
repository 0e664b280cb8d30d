//! `q8` rows in the layout `r4k16`, by VMLADAV: eight rows of 16 weights in 17 instructions, or
//! four in nine where the last group is short or a tile is left.

use crate::blob::Tensor;
use crate::kernels::isa::LANES;
use crate::kernels::layout::Layout;
use crate::kernels::log::{key, ran_q8};
use crate::kernels::panel::PanelColumn;
use crate::kernels::range::Range;
use crate::math;

/// Bytes of a step of the panel.
const X_STEP: usize = Layout::R4K16.k_step();

/// What the kernel takes. The first four words arrive in registers, the others on the stack.
#[repr(C)]
struct Tiles {
    /// The first tile: its scales, then its vectors; the next tile follows.
    tile: *const u8,
    /// 2^scale_exp, as bits.
    pow: u32,
    /// Behind the last tile that is taken with another; none is if there is a short group.
    pairs_end: *const u8,
    /// Whole groups.
    whole: usize,
    x: *const i8,
    sx: *const f32,
    tile_bytes: usize,
    scale_bytes: usize,
    out: *mut f32,
    /// The panel where the last whole group ends. One byte less if no short group follows.
    full: *const i8,
    /// The panel where the short group ends.
    x_end: *const i8,
    /// Behind the last tile.
    end: *const u8,
}

/// [`Isa::q8_range`](crate::kernels::isa::Isa::q8_range) of tiles in `r4k16`.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn range_r4k16(
    w: &Tensor<'_>,
    rows: (usize, usize),
    column: &PanelColumn<'_>,
    out: &mut [[f32; LANES]],
) -> bool {
    let Some(r) = Range::new((w, Layout::R4K16, X_STEP), rows, column, out) else {
        return false;
    };
    let full = r.full();
    let pairs = if r.short == 0 { r.tiles & !1 } else { 0 };
    let call = Tiles {
        tile: r.tile,
        pow: math::pow2(r.scale_exp).to_bits(),
        pairs_end: r.tile.wrapping_add(pairs * r.tile_bytes),
        whole: r.whole,
        x: r.x,
        sx: r.sx,
        tile_bytes: r.tile_bytes,
        scale_bytes: r.scale_bytes,
        out: r.out,
        full: full.wrapping_sub((r.short == 0) as usize),
        x_end: full.wrapping_add(r.short * X_STEP),
        end: r.end(),
    };
    ran_q8(Layout::R4K16, const { key("gemv_q8_r4k16_mve_vmladav") });
    // SAFETY: cpu: this module is compiled for it only. The rest are the invariants of a `Range` of `r4k16`, with X_STEP bytes of x
    //   a step: its groups are of 32, 64, 128 or 256, and have as many steps as the kernel that is chosen.
    unsafe {
        match r.group_steps {
            4 => gemv_q8_r4k16_mve_vmladav::<4>(call),
            2 => gemv_q8_r4k16_mve_vmladav::<2>(call),
            8 => gemv_q8_r4k16_mve_vmladav::<8>(call),
            // A group of 256: no other is left. With an arm that calls nothing, LLVM copies the arguments for each that does.
            _ => gemv_q8_r4k16_mve_vmladav::<16>(call),
        }
    }
    true
}

/// One step of a tile's four rows.
macro_rules! tile {
    ($vmladav:literal, $w:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "vldrb.s8 q1, [",
            $w,
            "], #16\n",
            $vmladav,
            ".s8 ",
            $a,
            ", q0, q1\n",
            "vldrb.s8 q1, [",
            $w,
            "], #16\n",
            $vmladav,
            ".s8 ",
            $b,
            ", q0, q1\n",
            "vldrb.s8 q1, [",
            $w,
            "], #16\n",
            $vmladav,
            ".s8 ",
            $c,
            ", q0, q1\n",
            "vldrb.s8 q1, [",
            $w,
            "], #16\n",
            $vmladav,
            ".s8 ",
            $d,
            ", q0, q1\n",
        )
    };
}

/// One step of a single tile, or of two: the first of a group starts the sums.
macro_rules! step {
    (single $vmladav:literal) => {
        concat!(
            "vldrb.s8 q0, [r1], #16\n",
            tile!($vmladav, "r3", "r0", "r2", "r4", "r6"),
        )
    };
    (pair $vmladav:literal) => {
        concat!(step!(single $vmladav), tile!($vmladav, "r9", "r8", "r10", "r12", "lr"))
    };
}

/// f32(d) * (sw * sx), added to a tile's sums; sx stands in r0.
macro_rules! scale {
    ($scales:literal, $sum:literal) => {
        concat!(
            "vldrh.u32 q3, [",
            $scales,
            "], #8\n",
            "vcvtb.f32.f16 q3, q3\n",
            "vcvt.f32.s32 q2, q2\n",
            "vmul.f32 q3, q3, r0\n",
            "vmul.f32 q2, q2, q3\n",
            "vadd.f32 ",
            $sum,
            ", ",
            $sum,
            ", q2\n",
        )
    };
}

/// The first tile's integer sums into q2, and sx * 2^scale_exp into r0.
macro_rules! sums_and_sx {
    () => {
        concat!(
            "vmov q2[2], q2[0], r0, r4\n",
            "vmov q2[3], q2[1], r2, r6\n",
            "vldmia r11!, {{s4}}\n",
            "vmul.f32 s4, s4, s16\n",
            "vmov r0, s4\n",
        )
    };
}

/// Tiles of four rows times one column, two tiles at once; `STEPS` steps are a group. The scalar equivalent is
/// `gemv_q8_scalar` of each tile.
///
/// | register | holds |
/// |---|---|
/// | r1, r11 | panel, its scales |
/// | r3, r9 | weights of both tiles |
/// | r7, r5 | their scales |
/// | r0, r2, r4, r6 and r8, r10, r12, lr | integer sums of their rows |
/// | q6, q7 | sums of their rows |
/// | s16 | 2^scale_exp |
///
/// # Safety
///
/// `call` describes at least one tile, as its fields say.
#[unsafe(naked)]
#[allow(unsafe_code)]
unsafe extern "C" fn gemv_q8_r4k16_mve_vmladav<const STEPS: usize>(call: Tiles) {
    core::arch::naked_asm!(
        ".arch armv8.1-m.main", // naked functions do not have the target's features
        ".arch_extension mve.fp",
        "push {{r2-r11, lr}}",
        "vpush {{d8-d15}}", // pairs_end and whole: from sp + 64, the arguments on the stack: from sp + 108
        "vmov s16, r1",
        "mov r9, r0",
        "cmp r0, r2",
        "beq.w 20f",
        // Two tiles, the first at r9: scales, sums.
        "1:",
        "ldrd r1, r11, [sp, #108]",
        "ldrd r0, r4, [sp, #116]",
        "mov r7, r9",
        "add r5, r7, r0",
        "add r3, r7, r4",
        "add r9, r5, r4",
        "vmov.i32 q6, #0",
        "vmov.i32 q7, #0",
        "2:",
        step!(pair "vmladav"),
        ".rept {more}",
        step!(pair "vmladava"),
        ".endr",
        "4:",
        sums_and_sx!(),
        scale!("r7", "q6"),
        "vmov q2[2], q2[0], r8, r12",
        "vmov q2[3], q2[1], r10, lr",
        scale!("r5", "q7"),
        "ldr r0, [sp, #128]",
        "cmp r1, r0",
        "blo.w 2b",
        "ldr r0, [sp, #124]",
        "vstmia r0!, {{d12-d15}}",
        "str r0, [sp, #124]",
        "ldr r0, [sp, #64]",
        "cmp r9, r0",
        "bne.w 1b",
        // Single tiles that are left, the first at r9.
        "20:",
        "ldr r0, [sp, #136]",
        "cmp r9, r0",
        "beq.w 30f",
        "ldrd r1, r11, [sp, #108]",
        "ldr r4, [sp, #120]",
        "mov r7, r9",
        "add r3, r7, r4",
        "vmov.i32 q6, #0",
        "ldr r2, [sp, #68]",
        "cmp r2, #0",
        "beq.w 27f",
        "22:",
        step!(single "vmladav"),
        ".rept {more}",
        step!(single "vmladava"),
        ".endr",
        "24:",
        sums_and_sx!(),
        scale!("r7", "q6"),
        "ldr r0, [sp, #128]",
        "cmp r1, r0",
        "blo.w 22b",
        "bhi.w 29f",
        "27:",
        "movs r0, #0",
        "movs r2, #0",
        "movs r4, #0",
        "movs r6, #0",
        "28:",
        step!(single "vmladava"),
        "ldr r8, [sp, #132]",
        "cmp r1, r8",
        "blo 28b",
        "b 24b",
        "29:",
        "mov r9, r3",
        "ldr r0, [sp, #124]",
        "vstrw.32 q6, [r0], #16",
        "str r0, [sp, #124]",
        "b.w 20b",
        "30:",
        "vpop {{d8-d15}}",
        "pop {{r2-r11, pc}}",
        more = const STEPS - 1,
    )
}
