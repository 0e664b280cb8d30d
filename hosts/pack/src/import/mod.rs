//! What checkpoints hold, and what of it is refused.

pub(crate) mod base;
pub(crate) mod chat_template;
pub(crate) mod classifier;
pub(crate) mod family;
pub(crate) mod gguf;
pub(crate) mod json;
pub(crate) mod lora;
pub(crate) mod modules;
pub(crate) mod opened;
pub(crate) mod rope;
pub(crate) mod safetensors;
pub(crate) mod targets;
pub mod tokenizer;
pub(crate) mod weights;
pub(crate) mod xlora;

/// A row-major matrix of finite values within ±65504.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `[rows][cols]` values.
    pub data: Vec<f32>,
}

impl Matrix {
    /// The matrix `[cols][rows]`.
    ///
    /// ```
    /// let m = pleach_pack::Matrix { rows: 1, cols: 2, data: vec![1.0, 2.0] };
    /// assert_eq!((m.transposed().rows, m.transposed().cols), (2, 1));
    /// ```
    pub fn transposed(&self) -> Matrix {
        let mut data = Vec::with_capacity(self.data.len());
        for c in 0..self.cols {
            data.extend(self.data.iter().skip(c).step_by(self.cols.max(1)));
        }
        Matrix {
            rows: self.cols,
            cols: self.rows,
            data,
        }
    }
}
