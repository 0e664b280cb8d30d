//! The classifier: a small MLP from the scaling pass's hidden states to scalings.

use crate::blob::{Model, Tensor};
use crate::carve::{Carver, part_bytes};
use crate::error::{Error, Pass};
use crate::kernels::elementwise::column;
use crate::kernels::layout::{Dtype, round_up};
use crate::kernels::linear::{LinearJob, Part};
use crate::kernels::panel::Input;
use crate::kernels::work::Job;
use crate::kernels::{BLOCK, UNIT, Work};
use crate::math;
use crate::pairs::pairs;
use crate::xlora::{Context, XLoraConfig};
use zerocopy::IntoBytes;

/// Classifier outputs → scalings: softmax over the experts of each site, or the outputs themselves.
///
/// Shape: `row` [sites][experts] (or [experts]), read and written.
pub(crate) fn scalings_from_logits(row: &mut [f32], config: &XLoraConfig, experts: usize) {
    if config.enable_softmax {
        for row in row.chunks_exact_mut(experts.max(1)) {
            math::softmax_scalings(row, config.softmax_temperature);
        }
    }
}

/// PEFT's `XLoraClassifier`: Linear layers with biases, ReLU between them.
#[derive(Clone, Copy, Debug)]
pub struct XLoraClassifier<'b> {
    layers: Layers<'b>,
    relu: bool,
    experts: usize,
}

#[derive(Clone, Copy, Debug)]
enum Layers<'b> {
    Model(&'b Model<'b>),
    Borrowed(&'b [(Tensor<'b>, &'b [f32])]),
}

impl<'b> XLoraClassifier<'b> {
    /// A classifier from borrowed layers. Shapes: weight `[out][in]`, bias `[out]`; widths chain, and the last
    /// is a multiple of `experts`. `relu`: false only for models of the original `xlora` package that say so.
    ///
    /// Errors: [`Error::Shape`]; [`Error::Option`] for q8 weights.
    pub fn new(
        layers: &'b [(Tensor<'b>, &'b [f32])],
        relu: bool,
        experts: usize,
    ) -> Result<Self, Error> {
        let shape = |what, expected: usize, found: usize| {
            Err(Error::Shape {
                what,
                expected: expected as u64,
                found: found as u64,
            })
        };
        let mut width = None;
        for (w, b) in layers {
            if let Some(width) = width
                && w.cols() != width
            {
                return shape("columns of a classifier layer", width, w.cols());
            }
            if b.len() != w.rows() {
                return shape("bias of a classifier layer", w.rows(), b.len());
            }
            if w.dtype() == Dtype::Q8 {
                return Err(Error::Option {
                    why: "a classifier's weights are f16 or f32",
                });
            }
            width = Some(w.rows());
        }
        let width = width.unwrap_or(0);
        if experts == 0 || width == 0 || width.checked_rem(experts) != Some(0) {
            return shape("rows of the last classifier layer", experts, width);
        }
        Ok(Self {
            layers: Layers::Borrowed(layers),
            relu,
            experts,
        })
    }

    pub(crate) fn of_model(model: &'b Model<'b>) -> Option<Self> {
        model.has_classifier().then_some(Self {
            layers: Layers::Model(model),
            relu: model.classifier_relu(),
            experts: model.n_experts(),
        })
    }

    /// Number of Linear layers.
    pub fn depth(&self) -> usize {
        match self.layers {
            Layers::Model(m) => m.classifier_depth(),
            Layers::Borrowed(l) => l.len(),
        }
    }

    fn layer(&self, n: usize) -> Option<(Tensor<'b>, &'b [u8])> {
        match self.layers {
            Layers::Model(m) => m.classifier_layer(n).map(|(w, b)| (w, b.data)),
            Layers::Borrowed(l) => l.get(n).map(|(w, b)| (*w, b.as_bytes())),
        }
    }

    fn widest(&self) -> usize {
        (0..self.depth())
            .filter_map(|n| self.layer(n))
            .map(|(w, _)| w.rows())
            .max()
            .unwrap_or(0)
    }

    /// Width of a row of scalings: experts, times sites when layerwise.
    pub fn width(&self) -> usize {
        self.depth()
            .checked_sub(1)
            .and_then(|n| self.layer(n))
            .map_or(0, |(w, _)| w.rows())
    }

    /// Scratch that [`XLoraClassifier::forward`] needs for `tokens` tokens, in bytes.
    pub fn scratch_bytes(&self, tokens: usize) -> usize {
        let n = tokens.min(BLOCK);
        part_bytes(round_up(self.widest(), UNIT).saturating_mul(n), 4).saturating_mul(2)
    }

    /// Scalings of each token, before top-k.
    ///
    /// Shapes: `hidden` `[tokens][hidden]`, the states after the final norm of the scaling pass; `scalings`
    /// `[tokens][width]` (see [`width`](Self::width)), written. Errors: [`Error::Shape`], [`Error::ArenaTooSmall`] and
    /// [`Error::Misaligned`] for the scratch, [`Error::NonFinite`] with the token's index as position.
    /// Source: PEFT 0.19.1, `xlora/classifier.py`, `forward`.
    ///
    /// ```
    /// use pleach::blob::Tensor;
    /// use pleach::xlora::{Context, XLoraClassifier, XLoraConfig};
    /// use pleach::{Aligned, Inline, Kernels};
    ///
    /// let layers = [(Tensor::from_rows(&[1.0, 0.0, 0.0, 1.0], 2, 2).unwrap(), &[0.0, 0.0][..])];
    /// let classifier = XLoraClassifier::new(&layers, true, 2)?;
    /// let mut scratch = Aligned([0u8; 256]);
    /// let mut cx = Context { kernels: Kernels::portable(), executor: &mut Inline, scratch: &mut scratch.0 };
    /// let mut scalings = [0.0; 2];
    /// classifier.forward(&[5.0, 5.0], &XLoraConfig::DEFAULT, &mut scalings, &mut cx)?;
    /// assert_eq!(scalings, [0.5, 0.5]);
    /// # Ok::<(), pleach::Error>(())
    /// ```
    pub fn forward(
        &self,
        hidden: &[f32],
        config: &XLoraConfig,
        scalings: &mut [f32],
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let k = self.layer(0).map_or(0, |(w, _)| w.cols()).max(1);
        let width = self.width().max(1);
        let tokens = hidden.len() / k;
        if tokens * k != hidden.len() || tokens.saturating_mul(width) != scalings.len() {
            return Err(Error::Shape {
                what: "scalings of the classifier: tokens times its width",
                expected: tokens.saturating_mul(width) as u64,
                found: scalings.len() as u64,
            });
        }
        let floats = round_up(self.widest(), UNIT).saturating_mul(tokens.min(BLOCK));
        let mut carver = Carver::new(cx.scratch)?;
        let outputs: &mut [f32] = carver.take(floats)?;
        let between: &mut [f32] = carver.take(floats)?;
        let blocks = hidden.chunks(k.saturating_mul(BLOCK).max(1));
        let results = scalings.chunks_mut(width.saturating_mul(BLOCK).max(1));
        for (b, (x, y)) in pairs(blocks, results).enumerate() {
            let n = x.len() / k;
            for (t, x) in x.chunks_exact(k).enumerate() {
                // ReLU would hide a NaN.
                check(x, b * BLOCK + t)?;
            }
            for layer in 0..self.depth() {
                let (weight, bias) = self.layer(layer).ok_or(Error::Corrupt)?;
                let input = Input::floats_only(weight.cols(), if layer == 0 { x } else { between });
                let part = Part::of(weight, Some(bias));
                let job = LinearJob::plain(cx.kernels, &part, input);
                let to = outputs
                    .get_mut(..job.units() * UNIT * n)
                    .ok_or(Error::Corrupt)?;
                let cost = (weight.cols() * n) as u32;
                cx.executor
                    .run(Work::new(Job::Linear(&job), 0, to, UNIT * n, UNIT, cost));
                let rows = between.chunks_exact_mut(weight.rows().max(1)).take(n);
                for (c, row) in rows.enumerate() {
                    let from = column(outputs, n, c).flatten();
                    for (v, o) in row.iter_mut().zip(from) {
                        let last = layer + 1 == self.depth();
                        *v = if self.relu && !last {
                            math::relu(*o)
                        } else {
                            *o
                        };
                    }
                }
            }
            let rows = y.chunks_exact_mut(width).zip(between.chunks_exact(width));
            for (t, (y, from)) in rows.enumerate() {
                y.iter_mut().zip(from).for_each(|(y, v)| *y = *v);
                scalings_from_logits(y, config, self.experts);
                check(y, b * BLOCK + t)?;
            }
        }
        Ok(())
    }
}

fn check(values: &[f32], token: usize) -> Result<(), Error> {
    if math::all_finite(values) {
        return Ok(());
    }
    Err(Error::NonFinite {
        pass: Pass::Scaling,
        position: token as u32,
    })
}
