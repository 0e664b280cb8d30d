//! X-LoRA layers under PEFT's names, from borrowed tensors and without a blob.

use crate::blob::{Lora, Tensor};
use crate::carve::{Carver, part_bytes};
use crate::error::{Error, Pass};
use crate::kernels::elementwise::{column, column_mut};
use crate::kernels::layout::{Dtype, K_PAD, groups, round_up};
use crate::kernels::linear::{LinearJob, Part};
use crate::kernels::lora::{Choice, LoraAJob, LoraSource, LoraTerm, choose};
use crate::kernels::panel::{self, Input};
use crate::kernels::work::Job;
use crate::kernels::{A_UNIT, BLOCK, Executor, Kernels, UNIT, Work, embedding};
use crate::math::flush;
use crate::pairs::pairs;
use crate::xlora::{Scalings, XLoraConfig, get_maybe_topk_scalings};
use zerocopy::IntoBytes;

/// Where a layer runs.
pub struct Context<'a> {
    /// Which kernels.
    pub kernels: Kernels,
    /// Which threads.
    pub executor: &'a mut dyn Executor,
    /// At least [`XLoraLayer::scratch_bytes`], starting at a multiple of 16.
    pub scratch: &'a mut [u8],
}

/// One layer with several experts; what PEFT's `XLoraLayer` subclasses compute.
pub trait XLoraLayer {
    /// Inputs: floats, or tokens for an embedding.
    type In: ?Sized;

    /// The layer's number among the sites: the row of the scalings that it reads.
    fn layer_number(&self) -> usize;

    /// Scratch that [`XLoraLayer::forward`] needs for `tokens` tokens, in bytes.
    fn scratch_bytes(&self, tokens: usize) -> usize;

    /// `y = W x + bias + sum over experts of B (A x * s) * scale * global_scaling_weight`.
    ///
    /// Shapes: `x` `[tokens][in]` (embedding: `[tokens]`); `scalings` `[tokens][layers][adapters]`, before
    /// top-k; `y` `[tokens][out]`, written. Without scalings every expert has weight 1 and the global weight is
    /// unused, as in PEFT. Errors: [`Error::Shape`], [`Error::ArenaTooSmall`] and [`Error::Misaligned`] for
    /// the scratch, [`Error::TokenOutOfRange`], [`Error::NonFinite`] (with the token's index) where x is
    /// quantised. Source: PEFT 0.19.1, `xlora/layer.py`, `forward`.
    fn forward(
        &self,
        x: &Self::In,
        scalings: Option<Scalings<'_>>,
        config: &XLoraConfig,
        y: &mut [f32],
        cx: &mut Context<'_>,
    ) -> Result<(), Error>;
}

/// PEFT's `XLoraLinearLayer`.
///
/// ```
/// use pleach::blob::{BPanel, Lora, Tensor};
/// use pleach::xlora::{Context, Scalings, XLoraConfig, XLoraLayer, XLoraLinearLayer};
/// use pleach::{Aligned, Inline, Kernels};
///
/// // W = [[1, 0], [0, 1]]; one expert of rank 1: A = [1, 1], B = [[1], [0]], scale 2.
/// let (w, a, b) = ([1.0, 0.0, 0.0, 1.0], [1.0, 1.0], [1.0, 0.0]);
/// let expert = Lora {
///     a: Tensor::from_rows(&a, 1, 2).unwrap(),
///     b: BPanel::from_rows(&b, 2, 1).unwrap(),
///     scale: 2.0,
/// };
/// let experts = [Some(expert)];
/// let weight = Tensor::from_rows(&w, 2, 2).unwrap();
/// let layer = XLoraLinearLayer::new(0, weight, None, &experts)?;
/// let mut scratch = Aligned([0u8; 1024]);
/// let mut cx = Context { kernels: Kernels::portable(), executor: &mut Inline, scratch: &mut scratch.0 };
/// let scalings = Scalings::new(&[0.5], [1, 1, 1])?;
/// let mut y = [0.0; 2];
/// layer.forward(&[3.0, 4.0], Some(scalings), &XLoraConfig::DEFAULT, &mut y, &mut cx)?;
/// assert_eq!(y, [3.0 + 0.5 * 2.0 * 7.0, 4.0]);
/// # Ok::<(), pleach::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct XLoraLinearLayer<'b> {
    number: usize,
    weight: Tensor<'b>,
    bias: Option<&'b [f32]>,
    adapters: &'b [Option<Lora<'b>>],
    /// The group of all `q8` tensors, in which x is quantised; `None` if there is none.
    group: Option<usize>,
}

impl<'b> XLoraLinearLayer<'b> {
    /// A layer from borrowed tensors. Shapes: `weight` `[out][in]` ([`Tensor::from_columns`] for
    /// `fan_in_fan_out`); `bias` `[out]`; per adapter, in class order, A `[r][in]` and B `[out][r]`, or `None`
    /// if it does not target the layer.
    ///
    /// Errors: [`Error::Shape`].
    pub fn new(
        number: usize,
        weight: Tensor<'b>,
        bias: Option<&'b [f32]>,
        adapters: &'b [Option<Lora<'b>>],
    ) -> Result<Self, Error> {
        let (out, inputs) = (weight.rows(), weight.cols());
        if let Some(bias) = bias {
            expect("bias", out, bias.len())?;
        }
        expect_countable(adapters)?;
        for lora in adapters.iter().flatten() {
            expect("columns of A", inputs, lora.a.cols())?;
            expect("rows of A", lora.b.rank(), lora.a.rows())?;
            expect("rows of B", out, lora.b.rows())?;
        }
        let mut group = None;
        let a = adapters.iter().flatten().map(|l| l.a);
        for tensor in a.chain([weight]).filter(|t| t.dtype() == Dtype::Q8) {
            let first = *group.get_or_insert(tensor.group);
            expect("group of a q8 tensor", first, tensor.group)?;
        }
        Ok(Self {
            number,
            weight,
            bias,
            adapters,
            group,
        })
    }

    fn sizes(&self, tokens: usize) -> LinearSizes {
        let n = tokens.min(BLOCK);
        let k = self.weight.cols();
        LinearSizes {
            q: round_up(k, K_PAD).saturating_mul(n),
            groups: groups(k, self.group.unwrap_or(k)).saturating_mul(n),
            gates: GateSizes::of(self.adapters, n),
            out: round_up(self.weight.rows(), UNIT).saturating_mul(n),
        }
    }
}

struct LinearSizes {
    q: usize,
    groups: usize,
    gates: GateSizes,
    out: usize,
}

/// Elements of the parts that gating a block of tokens needs.
struct GateSizes {
    adapters: usize,
    effective: usize,
    ranks: usize,
}

impl GateSizes {
    fn of(adapters: &[Option<Lora<'_>>], n: usize) -> Self {
        let ranks: usize = adapters
            .iter()
            .flatten()
            .map(|l| round_up(l.b.rank(), A_UNIT))
            .fold(0, usize::saturating_add);
        Self {
            adapters: adapters.len(),
            effective: adapters.len().saturating_mul(n),
            ranks: ranks.saturating_mul(n),
        }
    }

    fn bytes(&self) -> usize {
        part_bytes(self.adapters, size_of::<Choice>())
            .saturating_add(part_bytes(self.effective, 4).saturating_mul(2))
            .saturating_add(part_bytes(self.ranks, 4))
    }
}

/// The parts themselves.
struct GateParts<'a> {
    choices: &'a mut [Choice],
    gates: &'a mut [f32],
    effective: &'a mut [f32],
    ranks: &'a mut [f32],
}

impl<'a> GateParts<'a> {
    fn carve(sizes: &GateSizes, c: &mut Carver<'a>) -> Result<Self, Error> {
        Ok(Self {
            choices: c.take(sizes.adapters)?,
            gates: c.take(sizes.effective)?,
            effective: c.take(sizes.effective)?,
            ranks: c.take(sizes.ranks)?,
        })
    }

    /// Chooses the experts of tokens `first..first + n` at a layer; returns their number and the rows of
    /// their r-vectors.
    fn choose(
        &mut self,
        adapters: &[Option<Lora<'_>>],
        number: usize,
        scalings: Option<Scalings<'_>>,
        config: &XLoraConfig,
        (first, n): (usize, usize),
    ) -> Result<(u32, u32), Error> {
        let count = adapters.len();
        if let Some(s) = scalings {
            let rows = self.effective.chunks_exact_mut(count.max(1)).take(n);
            for (token, row) in rows.enumerate() {
                get_maybe_topk_scalings(s.row(first + token, number), config, row)?;
            }
        }
        let effective = &*self.effective;
        let h = |_: usize, class: usize, column: usize, scale: f32| match scalings {
            None => flush(scale),
            Some(_) => {
                let s = effective
                    .get(column * count + class)
                    .copied()
                    .unwrap_or(0.0);
                flush((s * scale) * config.global_scaling_weight)
            }
        };
        choose(
            &LoraSource::Adapters(adapters),
            count,
            n,
            |_, _, _| true,
            h,
            self.choices,
            self.gates,
        )
    }
}

fn expect(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape {
        what,
        expected: expected as u64,
        found: found as u64,
    })
}

/// Numbers of adapters and their ranks take 16 bits, as in a blob.
fn expect_countable(adapters: &[Option<Lora<'_>>]) -> Result<(), Error> {
    let most = u16::MAX as usize;
    let ranks = adapters.iter().flatten().map(|l| l.b.rank());
    let rank = ranks.max().unwrap_or(0);
    expect("adapters, at most", most, adapters.len().max(most))?;
    expect("rank of an adapter, at most", most, rank.max(most))
}

/// Checks the shape of scalings against a layer.
fn expect_scalings(
    scalings: Option<Scalings<'_>>,
    tokens: usize,
    number: usize,
    adapters: usize,
) -> Result<(), Error> {
    if let Some(s) = scalings {
        let [t, layers, a] = s.shape();
        expect("tokens of the scalings", tokens, t)?;
        expect("adapters of the scalings", adapters, a)?;
        if number >= layers {
            return Err(Error::Shape {
                what: "layers of the scalings",
                expected: number as u64 + 1,
                found: layers as u64,
            });
        }
    }
    Ok(())
}

impl XLoraLayer for XLoraLinearLayer<'_> {
    type In = [f32];

    fn layer_number(&self) -> usize {
        self.number
    }

    fn scratch_bytes(&self, tokens: usize) -> usize {
        let s = self.sizes(tokens);
        part_bytes(s.q, 1)
            .saturating_add(part_bytes(s.groups, 4).saturating_mul(2))
            .saturating_add(s.gates.bytes())
            .saturating_add(part_bytes(s.out, 4))
    }

    fn forward(
        &self,
        x: &[f32],
        scalings: Option<Scalings<'_>>,
        config: &XLoraConfig,
        y: &mut [f32],
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let (out, k) = (self.weight.rows().max(1), self.weight.cols().max(1));
        let tokens = x.len() / k;
        expect("x: a multiple of in_features", tokens * k, x.len())?;
        expect("y", tokens.saturating_mul(out), y.len())?;
        expect_scalings(scalings, tokens, self.number, self.adapters.len())?;
        let s = self.sizes(tokens);
        let mut carver = Carver::new(cx.scratch)?;
        let q: &mut [i8] = carver.take(s.q)?;
        let sx: &mut [f32] = carver.take(s.groups)?;
        let sum: &mut [i32] = carver.take(s.groups)?;
        let mut parts = GateParts::carve(&s.gates, &mut carver)?;
        let block_out: &mut [f32] = carver.take(s.out)?;

        let group = self.group.unwrap_or(k);
        let (q_stride, s_stride) = (round_up(k, K_PAD), groups(k, group));
        let blocks = x.chunks(k.saturating_mul(BLOCK).max(1));
        let outputs = y.chunks_mut(out.saturating_mul(BLOCK).max(1));
        for (b, (x, y)) in pairs(blocks, outputs).enumerate() {
            let n = x.len() / k;
            let columns = pairs(x.chunks_exact(k), q.chunks_exact_mut(q_stride.max(1)));
            let scales = pairs(
                sx.chunks_exact_mut(s_stride.max(1)),
                sum.chunks_exact_mut(s_stride.max(1)),
            );
            for (c, ((x, q), (sx, sum))) in columns.zip(scales).enumerate() {
                if self.group.is_some() && !panel::quantise(x, group, q, sx, sum) {
                    return Err(Error::NonFinite {
                        pass: Pass::Routed,
                        position: (b * BLOCK + c) as u32,
                    });
                }
            }
            let (count, rows) =
                parts.choose(self.adapters, self.number, scalings, config, (b * BLOCK, n))?;
            let input = Input {
                k,
                x,
                q_stride,
                s_stride,
                q,
                sx,
                sum,
                expanded: false,
                picks: None,
            };
            let term = LoraTerm {
                source: LoraSource::Adapters(self.adapters),
                selected: parts.choices.get(..count as usize).unwrap_or(&[]),
                h: parts.gates,
                columns: n,
                held: &[],
            };
            let cost = (k * n) as u32;
            let job = LoraAJob {
                kernels: cx.kernels,
                input,
                term,
                next: &[],
            };
            let r = parts.ranks.get_mut(..rows as usize * n).unwrap_or(&mut []);
            let work = Work::new(Job::LoraA(&job), 0, r, A_UNIT * n, A_UNIT, cost);
            cx.executor.run(work);
            let job = LinearJob {
                kernels: cx.kernels,
                parts: &[Part::of(self.weight, self.bias.map(|b| b.as_bytes()))],
                input,
                term: Some(term),
                u: parts.ranks,
                residual: None,
            };
            let to = block_out
                .get_mut(..job.units() * UNIT * n)
                .unwrap_or(&mut []);
            cx.executor
                .run(Work::new(Job::Linear(&job), 0, to, UNIT * n, UNIT, cost));
            scatter(block_out, n, y, out);
        }
        Ok(())
    }
}

/// `[unit][column][16 rows]` → `[column][row]`.
fn scatter(from: &[f32], n: usize, to: &mut [f32], rows: usize) {
    for (c, to) in to.chunks_exact_mut(rows.max(1)).enumerate() {
        let column = column(from, n, c).flatten();
        to.iter_mut().zip(column).for_each(|(t, v)| *t = *v);
    }
}

/// PEFT's `XLoraEmbeddingLayer`.
#[derive(Clone, Copy, Debug)]
pub struct XLoraEmbeddingLayer<'b> {
    number: usize,
    weight: Tensor<'b>,
    adapters: &'b [Option<Lora<'b>>],
}

impl<'b> XLoraEmbeddingLayer<'b> {
    /// A layer from borrowed tensors. Shapes: `weight` `[vocab][out]`; per adapter A `[vocab][r]` (PEFT's
    /// `lora_embedding_A` is `[r][vocab]`: [`Tensor::from_columns`]) and B `[out][r]`.
    ///
    /// Errors: [`Error::Shape`].
    pub fn new(
        number: usize,
        weight: Tensor<'b>,
        adapters: &'b [Option<Lora<'b>>],
    ) -> Result<Self, Error> {
        expect_countable(adapters)?;
        for lora in adapters.iter().flatten() {
            expect("rows of A", weight.rows(), lora.a.rows())?;
            expect("columns of A", lora.b.rank(), lora.a.cols())?;
            expect("rows of B", weight.cols(), lora.b.rows())?;
        }
        Ok(Self {
            number,
            weight,
            adapters,
        })
    }

    fn out_floats(&self, tokens: usize) -> usize {
        round_up(self.weight.cols(), UNIT).saturating_mul(tokens.min(BLOCK))
    }
}

impl XLoraLayer for XLoraEmbeddingLayer<'_> {
    type In = [u32];

    fn layer_number(&self) -> usize {
        self.number
    }

    fn scratch_bytes(&self, tokens: usize) -> usize {
        GateSizes::of(self.adapters, tokens.min(BLOCK))
            .bytes()
            .saturating_add(part_bytes(self.out_floats(tokens), 4))
    }

    fn forward(
        &self,
        x: &[u32],
        scalings: Option<Scalings<'_>>,
        config: &XLoraConfig,
        y: &mut [f32],
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let out = self.weight.cols().max(1);
        if let Some(&token) = x.iter().find(|t| **t as usize >= self.weight.rows()) {
            return Err(Error::TokenOutOfRange {
                token,
                vocab: self.weight.rows() as u32,
            });
        }
        expect("y", x.len().saturating_mul(out), y.len())?;
        expect_scalings(scalings, x.len(), self.number, self.adapters.len())?;
        let mut carver = Carver::new(cx.scratch)?;
        let sizes = GateSizes::of(self.adapters, x.len().min(BLOCK));
        let mut parts = GateParts::carve(&sizes, &mut carver)?;
        let block_out: &mut [f32] = carver.take(self.out_floats(x.len()))?;
        let outputs = y.chunks_mut(out.saturating_mul(BLOCK).max(1));
        for (b, (x, y)) in pairs(x.chunks(BLOCK), outputs).enumerate() {
            let n = x.len();
            for (c, token) in x.iter().enumerate() {
                let mut slots = column_mut(block_out, n, c).flatten();
                embedding::table_row(&self.weight, *token as usize, &mut slots)?;
            }
            let (count, _) =
                parts.choose(self.adapters, self.number, scalings, config, (b * BLOCK, n))?;
            let term = LoraTerm {
                source: LoraSource::Adapters(self.adapters),
                selected: parts.choices.get(..count as usize).unwrap_or(&[]),
                h: parts.gates,
                columns: n,
                held: &[],
            };
            embedding::ranks(&term, |c| x.get(c).map(|t| *t as usize), parts.ranks)?;
            let floats = round_up(out, UNIT).saturating_mul(n);
            let block_out = block_out.get_mut(..floats).ok_or(Error::Corrupt)?;
            cx.kernels.run(embedding::AddDeltas {
                term,
                ranks: parts.ranks,
                out: &mut *block_out,
            });
            block_out.iter_mut().for_each(|v| *v = flush(*v));
            scatter(block_out, n, y, out);
        }
        Ok(())
    }
}
