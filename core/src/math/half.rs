//! f16 and powers of two.

use super::{INFINITE_FROM, RANGE_MAX, magnitude};

/// The bits of 2^-14, the smallest normal f16.
const NORMAL_MIN: u32 = 0x3880_0000;

/// The f16 bits of `x` for the K and V caches: clamped to ±65504, |x| < 2^-14 becomes +0, then rounded to
/// nearest even. Integer operations and selects, which SIMD lanes repeat.
///
/// No subnormal f16 and no infinity comes out. NaN gives a NaN.
#[inline(always)]
pub const fn to_f16_cache(x: f32) -> u16 {
    let m = magnitude(x);
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let clamped = if m > RANGE_MAX { RANGE_MAX } else { m };
    // Half of what is cut off, less one, and one more where the last bit kept is odd; the exponent's bias from 127 to 15.
    let rounded = clamped + 0xfff + (clamped >> 13 & 1);
    let half = (rounded >> 13).wrapping_sub(112 << 10) as u16 | sign;
    if m > INFINITE_FROM {
        0x7e00
    } else if m < NORMAL_MIN {
        0
    } else {
        half
    }
}

/// The value of f16 bits, exactly; infinity and NaN as they are. Integer operations, one exact
/// subtraction and selects, which SIMD lanes repeat.
///
/// Weights may be subnormal f16 (2^-24 is legal). They are made as 2^-14 * (1 + m/1024) - 2^-14: no operand is
/// a subnormal f32, so hardware that flushes those agrees.
#[inline(always)]
pub const fn from_f16(bits: u16) -> f32 {
    let magnitude = (bits & 0x7fff) as u32;
    let moved = magnitude << 13;
    let value = if magnitude >= 0x7c00 {
        moved | INFINITE_FROM
    } else if magnitude >= 0x0400 {
        moved + 0x3800_0000
    } else {
        (f32::from_bits(moved + NORMAL_MIN) - f32::from_bits(NORMAL_MIN)).to_bits()
    };
    f32::from_bits(value | ((bits & 0x8000) as u32) << 16)
}

/// 2^e, exact for -126..=127. The two exponents below, whose powers are subnormal, give +0.
#[inline(always)]
pub const fn pow2(e: i8) -> f32 {
    let biased = e as i32 + 127;
    f32::from_bits(if biased < 0 {
        0
    } else {
        biased.cast_unsigned() << 23
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use ::half::f16;

    #[test]
    fn every_normal_f16_round_trips() {
        for bits in (0..=u16::MAX).filter(|b| (0x0400..0x7c00).contains(&(b & 0x7fff))) {
            assert_eq!(to_f16_cache(from_f16(bits)), bits);
        }
    }

    #[test]
    fn every_rounding_is_what_the_half_crate_says() {
        // Around every half and every middle between two, and a walk through all magnitudes.
        let middles = (NORMAL_MIN..=RANGE_MAX).step_by(1 << 12);
        let near = middles.flat_map(|m| [m - 1, m, m + 1]);
        for m in near.chain((NORMAL_MIN..=RANGE_MAX).step_by(4099)) {
            for bits in [m, m | 0x8000_0000] {
                let x = f32::from_bits(bits);
                if (NORMAL_MIN..=RANGE_MAX).contains(&m) {
                    assert_eq!(to_f16_cache(x), f16::from_f32(x).to_bits(), "{x:e}");
                }
            }
        }
    }

    #[test]
    fn every_f16_is_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (from_f16(bits), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()));
        }
    }

    #[test]
    fn every_f16_is_its_formula() {
        for bits in 0..=0x7bffu16 {
            let (e, m) = (i32::from(bits >> 10), f64::from(bits & 0x3ff));
            let want = if e == 0 {
                m * 2f64.powi(-24)
            } else {
                (1024.0 + m) * 2f64.powi(e - 25)
            };
            assert_eq!(f64::from(from_f16(bits)), want);
            assert_eq!(f64::from(from_f16(bits | 0x8000)), -want);
        }
    }

    #[test]
    fn clamps_and_flushes() {
        for x in [65504.0, 65519.9, 65520.0, 1e30, f32::INFINITY] {
            assert_eq!((to_f16_cache(x), to_f16_cache(-x)), (0x7bff, 0xfbff), "{x}");
        }
        let small = 2f32.powi(-14);
        assert_eq!(
            (to_f16_cache(small), to_f16_cache(-small)),
            (0x0400, 0x8400)
        );
        for x in [small.next_down(), -small.next_down(), 1e-40, 0.0, -0.0] {
            assert_eq!(to_f16_cache(x), 0, "{x:e}");
        }
        for x in [f32::NAN, -f32::NAN] {
            assert!(from_f16(to_f16_cache(x)).is_nan());
        }
    }

    #[test]
    fn ties_go_to_even() {
        // Between 1 and 2 the step is 2^-10.
        let step = 2f32.powi(-10);
        assert_eq!(to_f16_cache(1.0 + 0.5 * step), 0x3c00);
        assert_eq!(to_f16_cache(1.0 + 1.5 * step), 0x3c02);
        assert_eq!(to_f16_cache((1.0 + 0.5 * step).next_up()), 0x3c01);
        assert_eq!(to_f16_cache((1.0 + 1.5 * step).next_down()), 0x3c01);
    }

    #[test]
    fn powers_are_exact() {
        for e in -126..=127i8 {
            assert_eq!(f64::from(pow2(e)), 2f64.powi(i32::from(e)));
        }
        assert_eq!((pow2(-127).to_bits(), pow2(-128).to_bits()), (0, 0));
    }
}
