//! Half and single precision: rounding, and the flush of what is smaller than 2^-24.

use super::{Loss, SMALLEST};
use half::f16;

/// A tensor in half precision, rounded to nearest even.
#[derive(Debug)]
pub struct F16 {
    /// The bits, in the order of the values.
    pub bits: Vec<u16>,
    /// What it cost.
    pub loss: Loss,
}

impl F16 {
    /// Rounds values within ±65504.
    ///
    /// ```
    /// let h = pleach_pack::quant::F16::new(&[1.0, 1e-9]);
    /// assert_eq!((h.bits, h.loss.flushed), (vec![0x3c00, 0], 1));
    /// ```
    pub fn new(values: &[f32]) -> Self {
        let mut loss = Loss::default();
        let bits = values
            .iter()
            .map(|&v| {
                // Halves of 2^-25 and less round to 0; -0 is stored as +0.
                let h = f16::from_f32(v);
                let stored = h.to_f32();
                loss.flushed += u64::from(stored == 0.0 && v != 0.0);
                loss.count(v, stored);
                if stored == 0.0 { 0 } else { h.to_bits() }
            })
            .collect();
        Self { bits, loss }
    }

    /// Whether half precision holds each of `values` exactly.
    ///
    /// ```
    /// assert!(pleach_pack::quant::F16::is_exact(&[0.5, -3.0]));
    /// assert!(!pleach_pack::quant::F16::is_exact(&[0.1]));
    /// ```
    pub fn is_exact(values: &[f32]) -> bool {
        values.iter().all(|&v| f16::from_f32(v).to_f32() == v)
    }
}

/// A tensor in single precision.
#[derive(Debug)]
pub struct F32 {
    /// The values.
    pub values: Vec<f32>,
    /// What it cost.
    pub loss: Loss,
}

impl F32 {
    /// Flushes values below 2^-24.
    ///
    /// ```
    /// let s = pleach_pack::quant::F32::new(&[0.1, 1e-9]);
    /// assert_eq!((s.values, s.loss.flushed), (vec![0.1, 0.0], 1));
    /// ```
    pub fn new(values: &[f32]) -> Self {
        let mut loss = Loss::default();
        let values = values
            .iter()
            .map(|&v| {
                let stored = if v.abs() < SMALLEST { 0.0 } else { v };
                loss.flushed += u64::from(stored == 0.0 && v != 0.0);
                loss.count(v, stored);
                stored
            })
            .collect();
        Self { values, loss }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_half_stays_and_less_than_half_of_it_goes() {
        let tiny = f32::from_bits(SMALLEST.to_bits() - 1);
        let h = F16::new(&[
            SMALLEST,
            tiny,
            SMALLEST / 2.0,
            -SMALLEST / 4.0,
            -0.0,
            65504.0,
        ]);
        assert_eq!(h.bits, [1, 1, 0, 0, 0, 0x7bff]);
        assert_eq!(h.loss.flushed, 2);
    }

    #[test]
    fn single_precision_flushes_below_the_smallest_half() {
        let tiny = f32::from_bits(SMALLEST.to_bits() - 1);
        let s = F32::new(&[SMALLEST, tiny, -tiny, 1.0, -0.0]);
        assert_eq!(s.values, [SMALLEST, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(s.values[4].to_bits(), 0);
        assert_eq!(s.loss.flushed, 2);
    }
}
