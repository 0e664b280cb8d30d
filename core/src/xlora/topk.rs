//! Top-k: which experts a row of scalings keeps, and with what weight.

use crate::error::Error;
use crate::math;
use crate::xlora::XLoraConfig;

/// The effective scalings of one token at one site.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    row: &'a [f32],
}

impl<'a> Selected<'a> {
    /// `[adapters]`, 0 for those that are not selected.
    pub fn row(&self) -> &'a [f32] {
        self.row
    }

    /// The experts to compute, ascending by class index, with their weights.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f32)> + 'a {
        self.row
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, s)| *s != 0.0)
    }
}

/// Keeps the `top_k_lora` largest signed values of `row` (ties: the lowest index) and, with
/// `enable_softmax_topk`, takes the softmax over the kept ones that are not 0.
///
/// Shapes: `row` and `out` `[adapters]`. There is no renormalisation: `[.5, .3, .2]` with k = 2 gives
/// `[.5, .3, 0]`. Errors: [`Error::Shape`]. Source: PEFT 0.19.1, `xlora/layer.py`,
/// `get_maybe_topk_scalings`.
///
/// ```
/// use pleach::xlora::{XLoraConfig, get_maybe_topk_scalings};
/// let config = XLoraConfig { top_k_lora: Some(2), ..XLoraConfig::DEFAULT };
/// let mut out = [0.0; 3];
/// let kept = get_maybe_topk_scalings(&[0.2, 0.5, 0.3], &config, &mut out)?;
/// assert_eq!(kept.iter().collect::<Vec<_>>(), [(1, 0.5), (2, 0.3)]);
/// # Ok::<(), pleach::Error>(())
/// ```
pub fn get_maybe_topk_scalings<'a>(
    row: &[f32],
    config: &XLoraConfig,
    out: &'a mut [f32],
) -> Result<Selected<'a>, Error> {
    if row.len() != out.len() {
        return Err(Error::Shape {
            what: "row of effective scalings",
            expected: row.len() as u64,
            found: out.len() as u64,
        });
    }
    match config.top_k_lora {
        Some(k) => keep_largest(row, k as usize, out),
        None => out.iter_mut().zip(row).for_each(|(o, v)| *o = *v),
    }
    if config.enable_softmax_topk {
        math::softmax_kept(out);
    }
    Ok(Selected { row: out })
}

/// Walks down the order (value descending, index ascending) k times; `out` gets the values met.
fn keep_largest(row: &[f32], k: usize, out: &mut [f32]) {
    out.fill(0.0);
    let mut last: Option<(f32, usize)> = None;
    for _ in 0..k.min(row.len()) {
        let mut best: Option<(f32, usize)> = None;
        for (i, &v) in row.iter().enumerate() {
            let after = last.is_none_or(|(lv, li)| v < lv || (v == lv && i > li));
            if after && best.is_none_or(|(bv, _)| v > bv) {
                best = Some((v, i));
            }
        }
        let Some((v, i)) = best else { return };
        if let Some(o) = out.get_mut(i) {
            *o = v;
        }
        last = best;
    }
}

/// Multiplies `x` by the scaling of `adapter`, as PEFT does before A. Our layers gate the r-vector
/// instead: the same, in r multiplies.
///
/// Shapes: `x` any length; `scalings_layer` `[n_adapters]`. Errors: [`Error::Shape`]. Source: PEFT 0.19.1,
/// `xlora/layer.py`, `apply_scalings_to_x`.
///
/// ```
/// let mut x = [1.0, 2.0];
/// pleach::xlora::apply_scalings_to_x(&mut x, &[0.25, 0.75], 2, 1)?;
/// assert_eq!(x, [0.75, 1.5]);
/// # Ok::<(), pleach::Error>(())
/// ```
pub fn apply_scalings_to_x(
    x: &mut [f32],
    scalings_layer: &[f32],
    n_adapters: usize,
    adapter: usize,
) -> Result<(), Error> {
    let (Some(s), true) = (
        scalings_layer.get(adapter),
        scalings_layer.len() == n_adapters,
    ) else {
        return Err(Error::Shape {
            what: "scalings of one site",
            expected: n_adapters as u64,
            found: scalings_layer.len() as u64,
        });
    };
    x.iter_mut().for_each(|v| *v *= s);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(row: &[f32], k: Option<u16>, softmax: bool) -> std::vec::Vec<f32> {
        let config = XLoraConfig {
            top_k_lora: k,
            enable_softmax_topk: softmax,
            ..XLoraConfig::DEFAULT
        };
        let mut out = std::vec![9.0; row.len()];
        get_maybe_topk_scalings(row, &config, &mut out).unwrap();
        out
    }

    #[test]
    fn by_the_text() {
        // PEFT does not renormalise; softmax twice gives [.5498, .4502, 0].
        assert_eq!(effective(&[0.5, 0.3, 0.2], Some(2), false), [0.5, 0.3, 0.0]);
        let twice = effective(&[0.5, 0.3, 0.2], Some(2), true);
        assert!((twice[0] - 0.5498).abs() < 1e-4 && (twice[1] - 0.4502).abs() < 1e-4);
        assert_eq!(twice[2], 0.0);
        assert_eq!(effective(&[0.0, 0.0], None, true), [0.0, 0.0]);
    }

    #[test]
    fn signed_values_and_ties() {
        assert_eq!(
            effective(&[-1.0, -3.0, -2.0], Some(2), false),
            [-1.0, 0.0, -2.0]
        );
        assert_eq!(effective(&[0.3, 0.3, 0.3], Some(2), false), [0.3, 0.3, 0.0]);
        assert_eq!(
            effective(&[0.3, -0.0, 0.0], Some(2), false),
            [0.3, -0.0, 0.0]
        );
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut out = [0.0; 2];
        assert!(get_maybe_topk_scalings(&[1.0], &XLoraConfig::DEFAULT, &mut out).is_err());
        assert!(apply_scalings_to_x(&mut out, &[1.0], 2, 0).is_err());
        assert!(apply_scalings_to_x(&mut out, &[1.0], 1, 1).is_err());
    }
}
