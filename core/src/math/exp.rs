//! exp and sigmoid: Cephes' polynomial, with the rounding errors of the reduction carried along.

use super::{INFINITE_FROM, ROUND, magnitude};
use core::f32::consts::LOG2_E;

/// Arguments above -2^-25 (these bits as a magnitude) are +0: their exp rounds to 1.
pub(crate) const TINY: u32 = 0x3300_0000;
/// Below this, exp is +0. e^-87 is still normal.
pub(crate) const LOWEST: f32 = -87.0;
/// ln 2 in two parts; the first has 9 bits, so n * LN2_HIGH is exact.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
/// ln 2 - [`LN2_HIGH`].
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// (e^r - 1 - r) / r^2 on |r| <= ln(2)/2, the highest power first.
pub(crate) const POLYNOMIAL: [f32; 6] = [
    1.987_569_1e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    0.166_666_66,
    0.5,
];
/// sigmoid is constant beyond ±30.
pub(crate) const SIGMOID_LIMIT: f32 = 30.0;

/// e^x for x <= 0, within 1 ulp.
///
/// Arguments above -2^-25 become +0 first, so no subnormal is ever squared; below -87 the result is +0.
/// Callers cut earlier: attention at -30, the softmaxes of the scalings at -64. Outside the domain
/// nothing is promised except that NaN gives NaN, whatever its sign.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_cut(x, LOWEST)
}

/// [`exp`], and +0 below `cut`, which is in -87..0.
#[cfg_attr(not(pleach_small), inline(always))]
#[cfg_attr(pleach_small, inline(never))]
pub(crate) fn exp_cut(x: f32, cut: f32) -> f32 {
    // Before the compares: they would read a subnormal.
    let x = without_tiny(x);
    let y = exp_normal(if x < cut { cut } else { x });
    // By its bits: with the same compare twice, the compiler, which minds no flags, would drop the first, and 2^n underflow.
    let beyond = (magnitude(cut) + 1..=INFINITE_FROM).contains(&magnitude(x));
    if beyond { 0.0 } else { y }
}

#[inline(always)]
fn without_tiny(x: f32) -> f32 {
    if magnitude(x) < TINY { 0.0 } else { x }
}

/// [`exp`] for -87 <= x <= -2^-25, 0 and NaN.
#[inline(always)]
fn exp_normal(x: f32) -> f32 {
    // n, the integer nearest to x / ln 2, appears in the low bits of `shifted` as well.
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r0 = x - n * LN2_HIGH;
    let w = n * LN2_LOW;
    let r = r0 - w;
    let r_low = (r0 - r) - w;
    let [p5, p4, p3, p2, p1, p0] = POLYNOMIAL;
    let p = p5;
    let p = p * r + p4;
    let p = p * r + p3;
    let p = p * r + p2;
    let p = p * r + p1;
    let p = p * r + p0;
    let high = 1.0 + r;
    let low = r - (high - 1.0);
    let y = high + (low + (r_low + p * (r * r)));
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127);
    y * f32::from_bits(exponent << 23)
}

/// 1 / (1 + e^-x), within 3 ulp for |x| <= 30 and constant beyond; NaN gives NaN.
///
/// e^-|x| <= 1 serves both signs: x >= 0 gives 1 / (1 + e), else e / (1 + e).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let size = without_tiny(f32::from_bits(magnitude(x)));
    let e = exp_normal(-if size > SIGMOID_LIMIT {
        SIGMOID_LIMIT
    } else {
        size
    });
    let numerator = if x >= 0.0 { 1.0 } else { e };
    numerator / (1.0 + e)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// |got - want| in ulps of `want`.
    fn ulps(got: f32, want: f64) -> f64 {
        let near = want as f32;
        (f64::from(got) - want).abs() / (f64::from(near.next_up()) - f64::from(near))
    }

    #[test]
    fn constants_are_those_of_cephes() {
        // The published decimals, rounded to f32.
        let published: [f64; 6] = [
            1.9875691500e-4,
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ];
        assert_eq!(
            POLYNOMIAL.map(f32::to_bits),
            published.map(|v| (v as f32).to_bits())
        );
        assert_eq!(LN2_HIGH, 355.0 / 512.0);
        assert_eq!(LN2_LOW.to_bits(), (-2.12194440e-4_f64 as f32).to_bits());
        assert!(
            (f64::from(LN2_HIGH) + f64::from(LN2_LOW) - core::f64::consts::LN_2).abs()
                < 2f64.powi(-36)
        );
        assert_eq!(f32::from_bits(TINY), 2f32.powi(-25));
    }

    #[test]
    fn exp_is_within_one_ulp() {
        let mut worst = (0.0, 0.0);
        for bits in (0x8000_0000..=LOWEST.to_bits()).step_by(101) {
            let x = f32::from_bits(bits);
            let error = ulps(exp(x), f64::from(x).exp());
            if error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 <= 1.0, "{worst:?}");
    }

    #[test]
    fn exp_at_the_edges() {
        for x in [
            0.0,
            -0.0,
            -1e-45,
            -1e-20,
            -(2f32.powi(-25)).next_down(),
            1e-40,
        ] {
            assert_eq!(exp(x), 1.0, "{x:e}");
        }
        assert!(exp(LOWEST) >= f32::MIN_POSITIVE);
        for x in [
            LOWEST.next_down(),
            -88.0,
            -1e30,
            f32::MIN,
            f32::NEG_INFINITY,
        ] {
            assert_eq!(exp(x).to_bits(), 0, "{x}");
        }
        assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
    }

    #[test]
    fn cut_exp_is_exp_down_to_the_cut() {
        for cut in [-30.0f32, -64.0] {
            for x in [0.0, -1e-40, -1e-3, -29.0, cut.next_up(), cut] {
                assert_eq!(exp_cut(x, cut).to_bits(), exp(x).to_bits(), "{x}");
            }
            for x in [cut.next_down(), -80.0, -1e30, f32::NEG_INFINITY] {
                assert_eq!(exp_cut(x, cut).to_bits(), 0, "{x}");
            }
            assert!(exp_cut(f32::NAN, cut).is_nan() && exp_cut(-f32::NAN, cut).is_nan());
        }
    }

    #[test]
    fn sigmoid_is_within_three_ulp() {
        let mut worst = (0.0, 0.0);
        for sign in [0, 0x8000_0000] {
            for bits in (0..=SIGMOID_LIMIT.to_bits()).step_by(211) {
                let x = f32::from_bits(bits | sign);
                let error = ulps(sigmoid(x), 1.0 / (1.0 + (-f64::from(x)).exp()));
                if error > worst.0 {
                    worst = (error, x);
                }
            }
        }
        assert!(worst.0 <= 3.0, "{worst:?}");
    }

    #[test]
    fn sigmoid_at_the_edges() {
        assert_eq!((sigmoid(0.0), sigmoid(-0.0)), (0.5, 0.5));
        assert_eq!((sigmoid(31.0), sigmoid(f32::INFINITY)), (1.0, 1.0));
        for x in [-31.0, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(sigmoid(x), sigmoid(-30.0));
        }
        assert!(sigmoid(f32::NAN).is_nan() && sigmoid(-f32::NAN).is_nan());
    }
}
