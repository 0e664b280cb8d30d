//! From f32 to what the file stores, with a count of what was lost.
//!
//! The rules are those of the arithmetic contract: a stored value is 0 or has a magnitude of 2^-24 to
//! 65504, so that no processor ever meets a subnormal number. Values above are refused where a tensor is
//! read ([`Matrix`](crate::import::Matrix)); values below are flushed here, and counted.

mod f16;
mod q8;

pub use f16::{F16, F32};
pub use q8::Q8;

/// Largest magnitude that a file stores: the largest f16.
pub const LARGEST: f32 = 65504.0;
/// Smallest magnitude but 0 that a file stores: 2^-24, the smallest f16.
pub const SMALLEST: f32 = 5.960_464_5e-8;

/// What storage costs in precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Values other than 0 that had to become 0.
    pub flushed: u64,
    /// Values that are not stored exactly, flushed ones included.
    pub rounded: u64,
    /// Sum of the squared errors.
    pub error2: f64,
    /// Sum of the squared values.
    pub norm2: f64,
    /// Largest error of one value.
    pub largest: f64,
}

impl Loss {
    /// Counts one value and what is stored for it.
    pub fn count(&mut self, value: f32, stored: f32) {
        let (v, e) = (f64::from(value), f64::from(value) - f64::from(stored));
        self.rounded += u64::from(value != stored);
        self.norm2 += v * v;
        self.error2 += e * e;
        self.largest = self.largest.max(e.abs());
    }

    /// Counts what another tensor cost.
    pub fn add(&mut self, other: &Loss) {
        self.flushed += other.flushed;
        self.rounded += other.rounded;
        self.error2 += other.error2;
        self.norm2 += other.norm2;
        self.largest = self.largest.max(other.largest);
    }

    /// Root of the squared errors over the root of the squares: 0 for a tensor of zeros.
    pub fn relative(&self) -> f64 {
        if self.norm2 == 0.0 {
            0.0
        } else {
            (self.error2 / self.norm2).sqrt()
        }
    }
}
