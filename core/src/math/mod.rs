//! Elementary functions in plain f32: one source, the same bits on every target.
//!
//! Only IEEE `+ - * /` and `sqrt` with round to nearest even, in the order written: no FMA, no
//! reassociation, no f64, no tables. Decisions are selects or integer compares on the bits, so a SIMD
//! backend repeats each operation lane by lane. Nothing here panics, and every loop is bounded by the
//! length of its slice, whatever the values are.
//!
//! # No subnormal takes part
//!
//! Some hardware flushes subnormals to zero: Helium's vector floats, the RP2040's ROM floats, a core
//! whose C runtime has set FZ or DAZ. They agree with IEEE hardware because no subnormal is ever an
//! operand of a value that is kept. Two facts carry the argument.
//!
//! **Inputs.** Every weight and effective scale is 0 or 2^-24 <= |v| <= 65504 ([`in_range`]); so are the
//! attention, embedding, residual and LoRA scales, the temperature, the global weight and the scaling
//! pass value. A flushed value is 0 or |v| >= 2^-48 ([`flush`]).
//!
//! **Sums.** An f32 of magnitude >= 2^-e is a multiple of 2^(-e-23), and rounding only makes a sum
//! coarser. So a chain of additions of such terms, however much cancels, is 0 or >= 2^(-e-23).
//! The last column uses it: products >= 2^-103 or 0 cannot sum to a subnormal.
//!
//! | site | smallest operands | smallest product | smallest sum, and what follows |
//! |---|---|---|---|
//! | norm, square | x flushed: 2^-48 (a local copy; the residual keeps its value) | 2^-96 | no cancellation; /n (n <= 2^28) 2^-124, then + eps >= 2^-40 |
//! | norm, output | x 2^-48, inv in \[2^-64, 2^20\], w 2^-24 | x\*inv 2^-112; \*w may underflow | flushed at once: (1) |
//! | QK norm | q, k (linear outputs) 2^-48, n = head_dim | as norm, square | as norm; flushed, so that RoPE, or the scores of a layer without it, see 0 or 2^-48 |
//! | activation panel | amax 2^-40, inv = 127/amax > 2^-122 | x\*inv only where \|x\| >= amax \* 2^-20: 2^-14; sx 2^-47 | the rest of the group is 0 without a product |
//! | q8 row | scale f16 2^-14, sx \* 2^scale_exp 2^-57 | sw\*sx 2^-71, times an integer | 2^-94; bias 2^-24; flushed after bias and LoRA |
//! | f16, f32 row, head | w 2^-24, x 2^-48 | 2^-72 | 2^-95; flushed after bias and LoRA |
//! | LoRA, h | s (see *scalings*) 2^-113, scale and global weight 2^-24 | may underflow | flushed at once: (2) |
//! | LoRA, a_j | as q8 or f16 row | 2^-72 | 2^-95; flushed |
//! | LoRA, u_j | a_j and h 2^-48 | 2^-96 | flushed; q8 B: times the scale of j (2^-24) 2^-72, kept |
//! | LoRA, B | B 2^-24 and u_j 2^-48, or an integer and 2^-72 | 2^-72 | 2^-95 |
//! | embedding | row 2^-24, d 2^-95, embed_scale 2^-24 | (row + d) 2^-95, scaled 2^-119 | flushed |
//! | residual | x a multiple of 2^-95, y flushed 2^-48, residual_scale 2^-24 | 2^-72 | 2^-95; not flushed |
//! | RoPE | q, k 2^-48; sin, cos 0 or 2^-50: (3) | 2^-98 | 2^-121; flushed |
//! | scores | q, k 2^-48 (an f16 cache: k 2^-14) | 2^-96 | 2^-119; \*attn_scale may underflow, flushed at once: (1) |
//! | attention softmax | s flushed: s - m is 0 or 2^-71 | exp's argument 0 or 2^-25, exp in \[2^-44, 1\] | the denominator is >= 1 |
//! | mix | e 2^-44, v 2^-48 (an f16 cache: 2^-14) | 2^-92 | 2^-115; \*(1/denominator) may underflow, flushed at once: (1) |
//! | SwiGLU | gate, up 2^-48 | g\*sigmoid(g) 2^-49: (4); \*up 2^-97 | flushed |
//! | classifier | x flushed 2^-48, w 2^-24 | 2^-72 | 2^-95; bias; flushed, so relu sees 0 or 2^-48 |
//! | scalings | l/T 2^-64, z = l/T - m 0 or 2^-87 | exp(z) 2^-93, e/sum 2^-109 for <= 2^16 classes | placeholder 2^-110 \* (1 + z/128) > 2^-113 |
//! | top-k softmax | kept scalings, of which the largest is >= 2^-48 | v - m 0 or 2^-72, exp(z) 2^-93 | e/sum 2^-109 |
//! | sampler, bias and penalties | l flushed 2^-48; bias, penalties 2^-24, r <= 2^16 | l\*r 2^-72, l/r 2^-64, flushed; count\*frequency 2^-24, + presence 2^-47 | l + bias, l - penalty 2^-71; flushed |
//! | sampler, weights | l flushed, so l - m 0 or 2^-71; T <= 2^16 | z 0 or 2^-87 | exp(z) 2^-41: cut below z = -28; from there on integers |
//!
//! 1. The product that may underflow is the last before a flush: IEEE hardware makes a subnormal and
//!    flushes it to +0, the other makes 0 at once. (In a norm, x must lie 2^102 below the root mean square.)
//! 2. If `s * scale` underflows it is below 2^-126; the global weight is at most 65504 < 2^16, so
//!    h < 2^-110 and is flushed, subnormal or not. If the second product underflows, (1) holds.
//! 3. For 10^-3 < |x| <= 2^17 no result of [`sincos`](sincos()) is below 2^-28 (all f32 were tried); below, sin x is about
//!    x, and an angle is 0 or at least the smallest inverse frequency, here taken as >= 2^-50. Angles under 2^-30
//!    (a rope theta above 10^9) let terms underflow that are far below half an ulp of their sums: the flags
//!    are set, the result is the same.
//! 4. sigmoid is 1/2 for the smallest gates and e^-30 > 2^-44 for gates <= -30, where |g| is >= 30.
//!
//! The sticky underflow and denormal flags (MXCSR, FPSR) are read after each parity case.
//!
//! # Values that are not finite
//!
//! NaN and infinity are refused by the callers ([`is_finite`] on sums of squares, panels, scalings,
//! logits). Until they are seen there, the functions here pass a NaN on, whatever its sign (targets
//! differ in the sign of the NaN that they produce): [`flush`], [`exp`](exp()), [`sigmoid`],
//! [`sincos`](sincos()), [`to_f16_cache`] and the softmaxes. Only [`relu`] drops it, as specified.

pub(crate) mod exp;
pub(crate) mod half;
pub(crate) mod sincos;
pub(crate) mod softmax;
pub(crate) mod sum;

pub use self::exp::{exp, sigmoid};
pub use self::half::{from_f16, pow2, to_f16_cache};
pub use self::sincos::sincos;
pub(crate) use self::softmax::attention_weights;
pub use self::softmax::{softmax_attention, softmax_kept, softmax_scalings};
pub use self::sum::Sum16;

/// The bits of 2^-48: magnitudes below it are flushed to +0.
pub(crate) const FLUSH_BELOW: u32 = 0x2780_0000;
/// The bits of infinity: a magnitude from here on is infinite or NaN.
pub(crate) const INFINITE_FROM: u32 = 0x7f80_0000;
/// The bits of 2^-24, the smallest weight or scale that is not zero.
const RANGE_MIN: u32 = 0x3380_0000;
/// The bits of 65504, the largest finite f16.
pub(crate) const RANGE_MAX: u32 = 0x477f_e000;
/// 1.5 * 2^23. Adding it rounds |x| <= 2^22 to the nearest integer, ties to even, into the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The bits of |x|. They order like the magnitudes; infinity is 0x7f800000 and NaN is above it.
#[inline(always)]
pub const fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// Whether `x` is neither infinite nor NaN, by its bits.
#[inline(always)]
pub const fn is_finite(x: f32) -> bool {
    magnitude(x) < INFINITE_FROM
}

/// Whether all are finite, in a loop that vectorises.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, v| all & is_finite(*v))
}

/// Replaces |x| < 2^-48 (and -0) by +0; NaN and infinity pass.
///
/// The compare is on integers: a float compare would itself read the subnormal.
#[inline(always)]
pub const fn flush(x: f32) -> f32 {
    if magnitude(x) < FLUSH_BELOW { 0.0 } else { x }
}

/// Whether `v` is 0 or 2^-24 <= |v| <= 65504: the rule for weights, effective scales and options.
#[inline(always)]
pub const fn in_range(v: f32) -> bool {
    let m = magnitude(v);
    m == 0 || (RANGE_MIN <= m && m <= RANGE_MAX)
}

/// `x` if it is above 0, else +0 (also for -0 and NaN).
#[inline(always)]
pub const fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

/// The correctly rounded square root; NaN below 0.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

/// An integer that orders like `x`: -0 and +0 both give 0, infinities stand at the ends of the numbers,
/// NaN lies outside them on the side of its sign.
///
/// It is the sign-magnitude pattern read as two's complement: `(|bits| ^ s) - s`, s the sign's mask. Zeros are
/// equal as they are to IEEE compares (and to PEFT), so a -0 can never win or lose a tie in top-k or
/// argmax by its sign; ties go to the lowest index.
#[inline(always)]
pub const fn ordered_key(x: f32) -> i32 {
    let sign = x.to_bits().cast_signed() >> 31;
    (magnitude(x).cast_signed() ^ sign).wrapping_sub(sign)
}

/// The value whose [`ordered_key`] is `key`; 0 gives +0. (`i32::MIN`, no value's key, gives -0.)
#[inline(always)]
pub const fn from_ordered_key(key: i32) -> f32 {
    let sign = key >> 31;
    let magnitude = (key ^ sign).wrapping_sub(sign).cast_unsigned();
    f32::from_bits(magnitude | (sign.cast_unsigned() & 0x8000_0000))
}

/// The larger of two values by [`ordered_key`]; of two zeros +0, so the order of `a` and `b` never shows.
#[inline(always)]
pub const fn max_ordered(a: f32, b: f32) -> f32 {
    let (a, b) = (ordered_key(a), ordered_key(b));
    from_ordered_key(if b > a { b } else { a })
}

/// The largest value of a row by [`ordered_key`]; -infinity for an empty one.
#[inline(always)]
pub fn max_row(row: &[f32]) -> f32 {
    max_of(row.iter().copied())
}

/// [`max_row`] of any values.
#[inline(always)]
fn max_of(values: impl Iterator<Item = f32>) -> f32 {
    from_ordered_key(values.fold(ordered_key(f32::NEG_INFINITY), |m, v| m.max(ordered_key(v))))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn thresholds_are_the_powers_that_they_name() {
        assert_eq!(f32::from_bits(FLUSH_BELOW), 2f32.powi(-48));
        assert_eq!(f32::from_bits(RANGE_MIN), 2f32.powi(-24));
        assert_eq!(f32::from_bits(RANGE_MAX), 65504.0);
        assert_eq!(f32::from_bits(INFINITE_FROM), f32::INFINITY);
        assert_eq!(ROUND, 1.5 * 2f32.powi(23));
    }

    #[test]
    fn flush_cuts_below_two_to_the_minus_48() {
        let limit = 2f32.powi(-48);
        for x in [
            limit,
            -limit,
            1.0,
            -3.5,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ] {
            assert_eq!(flush(x).to_bits(), x.to_bits());
        }
        for x in [
            limit.next_down(),
            -limit.next_down(),
            1e-40,
            -1e-40,
            0.0,
            -0.0,
        ] {
            assert_eq!(flush(x).to_bits(), 0, "{x:e}");
        }
        assert!(flush(f32::NAN).is_nan() && flush(-f32::NAN).is_nan());
    }

    #[test]
    fn finite_and_in_range() {
        for x in [0.0, -0.0, 1e-45, f32::MAX, f32::MIN] {
            assert!(is_finite(x));
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
            assert!(!is_finite(x) && !in_range(x));
        }
        let small = 2f32.powi(-24);
        for x in [0.0, -0.0, small, -small, 1.0, 65504.0, -65504.0] {
            assert!(in_range(x), "{x}");
        }
        for x in [
            small.next_down(),
            -small.next_down(),
            1e-45,
            65504f32.next_up(),
            -65505.0,
        ] {
            assert!(!in_range(x), "{x}");
        }
    }

    #[test]
    fn relu_gives_plus_zero() {
        assert_eq!(relu(2.5), 2.5);
        for x in [-2.5, -0.0, 0.0, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(relu(x).to_bits(), 0);
        }
    }

    #[test]
    fn sqrt_is_correctly_rounded() {
        assert_eq!((sqrt(2.25), sqrt(0.0)), (1.5, 0.0));
        assert!(sqrt(-1.0).is_nan());
        for bits in (0x0080_0000..0x7f80_0000u32).step_by(10_007) {
            let x = f32::from_bits(bits);
            // Double rounding through f64 is harmless for sqrt: 53 >= 2 * 24 + 2.
            assert_eq!(
                sqrt(x).to_bits(),
                (f64::from(x).sqrt() as f32).to_bits(),
                "{x:e}"
            );
        }
    }

    #[test]
    fn keys_order_like_the_values() {
        let rising = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.5,
            -1.0,
            -1e-40,
            0.0,
            1e-40,
            1.0,
            1.5,
            f32::MAX,
            f32::INFINITY,
        ];
        for pair in rising.windows(2) {
            assert!(ordered_key(pair[0]) < ordered_key(pair[1]), "{pair:?}");
        }
        assert_eq!((ordered_key(0.0), ordered_key(-0.0)), (0, 0));
        assert!(ordered_key(f32::NAN) > ordered_key(f32::INFINITY));
        assert!(ordered_key(-f32::NAN) < ordered_key(f32::NEG_INFINITY));
        for bits in (0..=u32::MAX).step_by(65_521).filter(|b| *b != 0x8000_0000) {
            let x = f32::from_bits(bits);
            assert_eq!(from_ordered_key(ordered_key(x)).to_bits(), bits);
        }
        assert_eq!(from_ordered_key(i32::MIN).to_bits(), 0x8000_0000);
    }

    #[test]
    fn max_compares_by_key() {
        assert_eq!(max_ordered(-2.0, -3.0), -2.0);
        assert_eq!(max_ordered(-2.0, 3.0), 3.0);
        for (a, b) in [(0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0)] {
            assert_eq!(max_ordered(a, b).to_bits(), 0);
        }
        assert_eq!(max_row(&[-5.0, -1.25, -9.0]), -1.25);
        assert_eq!(max_row(&[]), f32::NEG_INFINITY);
        assert!(max_row(&[1.0, f32::NAN]).is_nan());
    }
}
