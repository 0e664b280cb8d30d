//! All buffers, of a size that the board has.

use pleach::Aligned;

/// `W` bytes of weights, `X` activations and as many outputs, `Q` bytes of quantised values, `S` groups.
pub struct Memory<const W: usize, const X: usize, const Q: usize, const S: usize> {
    weights: Aligned<[u8; W]>,
    x: [f32; X],
    backend: Values<X, Q, S>,
    spec: Values<X, Q, S>,
}

/// What the backend, or the specification, writes.
struct Values<const X: usize, const Q: usize, const S: usize> {
    q: Aligned<[i8; Q]>,
    sx: [f32; S],
    sum: [i32; S],
    out: [f32; X],
}

impl<const X: usize, const Q: usize, const S: usize> Values<X, Q, S> {
    const ZERO: Self = Self {
        q: Aligned([0; Q]),
        sx: [0.0; S],
        sum: [0; S],
        out: [0.0; X],
    };

    fn side(&mut self) -> Side<'_> {
        Side {
            q: &mut self.q.0,
            sx: &mut self.sx,
            sum: &mut self.sum,
            out: &mut self.out,
        }
    }
}

impl<const W: usize, const X: usize, const Q: usize, const S: usize> Memory<W, X, Q, S> {
    /// All zero.
    pub const ZERO: Self = Self {
        weights: Aligned([0; W]),
        x: [0.0; X],
        backend: Values::ZERO,
        spec: Values::ZERO,
    };

    /// The buffers.
    pub fn buffers(&mut self) -> Buffers<'_> {
        Buffers {
            weights: &mut self.weights.0,
            x: &mut self.x,
            backend: self.backend.side(),
            spec: self.spec.side(),
        }
    }
}

/// What the backend, or the specification, writes.
pub struct Side<'a> {
    /// Quantised values.
    pub q: &'a mut [i8],
    /// Scales of groups.
    pub sx: &'a mut [f32],
    /// Sums of groups.
    pub sum: &'a mut [i32],
    /// Results.
    pub out: &'a mut [f32],
}

/// Borrowed [`Memory`] of any size.
pub struct Buffers<'a> {
    /// Packed weights.
    pub weights: &'a mut [u8],
    /// Activations.
    pub x: &'a mut [f32],
    /// The backend's.
    pub backend: Side<'a>,
    /// The specification's.
    pub spec: Side<'a>,
}
