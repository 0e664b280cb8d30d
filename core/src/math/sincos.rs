//! sin and cos together, for RoPE.

use super::ROUND;
use core::f32::consts::FRAC_2_PI;

/// pi/2 in four parts. The first three have 7 bits, so n times them is exact for |n| <= 2^17; the last
/// has 24. By bits, so that nothing but f32 is compiled; the test derives them.
pub(crate) const HALF_PI: [f32; 4] = [
    f32::from_bits(0x3fc8_0000),
    f32::from_bits(0x3c06_0000),
    f32::from_bits(0x38f6_0000),
    f32::from_bits(0x34a8_885a),
];
/// sin(r) = r + r z (S2 + S1 z + S0 z^2), z = r^2, on |r| <= pi/4 (Cephes).
pub(crate) const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -0.166_666_55];
/// cos(r) = 1 - z/2 + z^2 (C2 + C1 z + C0 z^2) (Cephes).
pub(crate) const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];

/// (sin x, cos x), each within 2^-23 absolutely for |x| <= 2^17.
///
/// Beyond 2^17 the reduction loses bits and nothing is promised; NaN and infinity give NaN.
#[inline(always)]
pub fn sincos(x: f32) -> (f32, f32) {
    // The quadrant, the integer nearest to x / (pi/2), appears in the low bits of `shifted` as well.
    let shifted = x * FRAC_2_PI + ROUND;
    let n = shifted - ROUND;
    let [h0, h1, h2, h3] = HALF_PI;
    let r = (((x - n * h0) - n * h1) - n * h2) - n * h3;
    let z = r * r;
    let [s0, s1, s2] = SIN;
    let s = ((s0 * z + s1) * z + s2) * z * r + r;
    let [c0, c1, c2] = COS;
    let c = ((c0 * z + c1) * z + c2) * z * z - 0.5 * z + 1.0;
    let quadrant = shifted.to_bits();
    let (sin, cos) = if quadrant & 1 == 0 { (s, c) } else { (c, s) };
    // sin is negative in quadrants 2 and 3, cos in 1 and 2.
    (
        negate_if(sin, quadrant),
        negate_if(cos, quadrant.wrapping_add(1)),
    )
}

/// -v if bit 1 of `quadrant` is set, else v.
#[inline(always)]
fn negate_if(v: f32, quadrant: u32) -> f32 {
    f32::from_bits(v.to_bits() ^ ((quadrant & 2) << 30))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// The leading `bits` bits of `v`.
    fn leading(v: f64, bits: u32) -> f64 {
        f64::from_bits(v.to_bits() & !((1u64 << (53 - bits)) - 1))
    }

    #[test]
    fn constants_are_derived_from_f64() {
        let mut rest = core::f64::consts::FRAC_PI_2;
        let mut parts = [0u32; 4];
        for (i, part) in parts.iter_mut().enumerate() {
            let value = if i < 3 { leading(rest, 7) } else { rest };
            *part = (value as f32).to_bits();
            rest -= value;
        }
        assert_eq!(HALF_PI.map(f32::to_bits), parts);
        // The published decimals, rounded to f32.
        let sin: [f64; 3] = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1];
        assert_eq!(SIN.map(f32::to_bits), sin.map(|v| (v as f32).to_bits()));
        let cos: [f64; 3] = [
            2.443315711809948e-5,
            -1.388731625493765e-3,
            4.166664568298827e-2,
        ];
        assert_eq!(COS.map(f32::to_bits), cos.map(|v| (v as f32).to_bits()));
        assert_eq!(ROUND.to_bits() & 3, 0);
    }

    fn error(x: f32) -> f64 {
        let (s, c) = sincos(x);
        let (sin, cos) = f64::from(x).sin_cos();
        (f64::from(s) - sin).abs().max((f64::from(c) - cos).abs())
    }

    #[test]
    fn within_two_to_the_minus_23() {
        let mut worst = (0.0, 0.0);
        for sign in [0, 0x8000_0000] {
            for bits in (0..=131_072f32.to_bits()).step_by(211) {
                let x = f32::from_bits(bits | sign);
                if error(x) > worst.0 {
                    worst = (error(x), x);
                }
            }
        }
        assert!(worst.0 <= 2f64.powi(-23), "{worst:?}");
    }

    #[test]
    fn every_position_at_frequency_one() {
        for position in 0..=131_072u32 {
            assert!(error(position as f32) <= 2f64.powi(-23), "{position}");
        }
    }

    #[test]
    fn edges() {
        assert_eq!(sincos(0.0).0.to_bits(), 0);
        assert_eq!(sincos(0.0), (0.0, 1.0));
        for x in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (s, c) = sincos(x);
            assert!(s.is_nan() && c.is_nan());
        }
        for x in [1e9, -1e9, f32::MAX, f32::MIN] {
            sincos(x);
        }
    }
}
