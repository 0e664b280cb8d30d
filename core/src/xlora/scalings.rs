//! A view of scalings.

use crate::error::Error;

/// Scalings `[tokens][layers][adapters]`, where a layer is a site. Rows may be shared by all layers.
#[derive(Clone, Copy, Debug)]
pub struct Scalings<'a> {
    data: &'a [f32],
    tokens: usize,
    layers: usize,
    adapters: usize,
    shared: bool,
}

impl<'a> Scalings<'a> {
    /// A view over `[tokens][layers][adapters]` values.
    ///
    /// Errors: [`Error::Shape`] if the length differs.
    pub fn new(data: &'a [f32], shape: [usize; 3]) -> Result<Self, Error> {
        Self::view(data, shape, false)
    }

    /// A view over `[tokens][adapters]` values that serve all `layers`.
    ///
    /// Errors: [`Error::Shape`] if the length differs.
    pub fn shared(data: &'a [f32], shape: [usize; 3]) -> Result<Self, Error> {
        Self::view(data, shape, true)
    }

    pub(crate) fn view(
        data: &'a [f32],
        [tokens, layers, adapters]: [usize; 3],
        shared: bool,
    ) -> Result<Self, Error> {
        let rows = if shared { 1 } else { layers };
        let expected = tokens.saturating_mul(rows).saturating_mul(adapters);
        if data.len() != expected {
            return Err(Error::Shape {
                what: "scalings",
                expected: expected as u64,
                found: data.len() as u64,
            });
        }
        Ok(Self {
            data,
            tokens,
            layers,
            adapters,
            shared,
        })
    }

    /// `[tokens, layers, adapters]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.tokens, self.layers, self.adapters]
    }

    /// The adapters' values for one token at one site; empty outside the shape.
    pub fn row(&self, token: usize, layer_number: usize) -> &'a [f32] {
        if token >= self.tokens || layer_number >= self.layers {
            return &[];
        }
        let row = if self.shared {
            token
        } else {
            token
                .saturating_mul(self.layers)
                .saturating_add(layer_number)
        };
        let at = row.saturating_mul(self.adapters);
        self.data
            .get(at..at.saturating_add(self.adapters))
            .unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let s = Scalings::new(&data, [2, 2, 2]).unwrap();
        assert_eq!(s.row(1, 0), [5.0, 6.0]);
        assert_eq!(s.row(2, 0), [0.0; 0]);
        let s = Scalings::shared(&data, [4, 9, 2]).unwrap();
        assert_eq!(s.row(3, 8), [7.0, 8.0]);
        assert!(Scalings::new(&data, [2, 2, 3]).is_err());
    }
}
