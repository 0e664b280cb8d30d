//! The order in which squares and softmax denominators are added.

/// A sum over 16 partials: term i goes to partial i mod 16, i ascending; then the partials are halved,
/// p\[j\] += p\[j+8\], p\[j+4\], p\[j+2\], p\[j+1\].
///
/// i is the dimension (norm), the class index (classifier, top-k softmax) or the absolute position
/// (attention), so 4, 8 or 16 lanes give the same bits as one.
///
/// ```
/// let mut sum = pleach::math::Sum16::new();
/// for i in 0..20 {
///     sum.add(i, 0.5);
/// }
/// assert_eq!(sum.finish(), 10.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum16([f32; 16]);

impl Sum16 {
    /// Sixteen partials of +0.
    #[inline]
    pub const fn new() -> Self {
        Self([0.0; 16])
    }

    /// Partials that a backend has accumulated in lanes.
    #[inline]
    pub const fn from_partials(partials: [f32; 16]) -> Self {
        Self(partials)
    }

    /// Adds term `i`; terms of one partial must come in ascending order.
    #[inline]
    pub fn add(&mut self, i: usize, v: f32) {
        if let Some(p) = self.0.get_mut(i & 15) {
            *p += v;
        }
    }

    /// Adds consecutive terms, the first of which has an index that is a multiple of 16.
    #[inline]
    pub fn add_slice(&mut self, values: &[f32]) {
        for chunk in values.chunks(16) {
            for (p, v) in self.0.iter_mut().zip(chunk) {
                *p += *v;
            }
        }
    }

    /// The sum of the partials.
    #[inline]
    pub fn finish(self) -> f32 {
        let mut p = self.0;
        for half in [8, 4, 2, 1] {
            if let Some((low, high)) = p.split_at_mut_checked(half) {
                for (a, b) in low.iter_mut().zip(high) {
                    *a += *b;
                }
            }
        }
        let [sum, ..] = p;
        sum
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// The order spelled out, for any terms.
    fn literal(terms: &[f32]) -> f32 {
        let mut p = [0f32; 16];
        for (i, t) in terms.iter().enumerate() {
            p[i % 16] += t;
        }
        let e: Vec<f32> = (0..8).map(|j| p[j] + p[j + 8]).collect();
        let f: Vec<f32> = (0..4).map(|j| e[j] + e[j + 4]).collect();
        (f[0] + f[2]) + (f[1] + f[3])
    }

    #[test]
    fn order_is_as_written() {
        // Terms of very different size: any other order rounds differently.
        let terms: Vec<f32> = (0..77u32)
            .map(|i| (1.1f32 + i as f32).powi((i % 9) as i32 - 4))
            .collect();
        for n in 0..terms.len() {
            let mut one = Sum16::new();
            for (i, t) in terms[..n].iter().enumerate() {
                one.add(i, *t);
            }
            let mut all = Sum16::new();
            all.add_slice(&terms[..n]);
            assert_eq!(
                one.finish().to_bits(),
                literal(&terms[..n]).to_bits(),
                "{n}"
            );
            assert_eq!(one, all);
        }
    }

    #[test]
    fn the_tree_by_hand() {
        // p[0] + p[8] = 0, so the ones survive; from left to right 2^24 would have swallowed p[1].
        let mut p = [0.0; 16];
        p[0] = 16_777_216.0;
        p[8] = -16_777_216.0;
        p[1] = 1.0;
        p[15] = 2.0;
        assert_eq!(Sum16::from_partials(p).finish(), 3.0);
        assert_eq!(Sum16::new().finish().to_bits(), 0);
    }

    #[test]
    fn any_index_is_accepted() {
        let mut sum = Sum16::new();
        sum.add(usize::MAX, 1.5);
        assert_eq!(sum.finish(), 1.5);
    }
}
