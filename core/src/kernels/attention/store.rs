//! A position's keys and values, written into the caches.

use crate::kernels::attention::KvType;
use crate::kernels::elementwise::column_of;
use crate::kernels::isa::{Isa, LANES, Task};
use crate::kernels::log::{Operation, ran};
use crate::math;
use crate::pairs::pairs;

/// Writes one position's keys or values into a layer's cache. Where the cache is f16, with the clamp, flush and rounding of
/// ARITHMETIC.md, *Attention*.
pub(crate) struct Store<'a> {
    pub(crate) cache: &'a mut [u8],
    pub(crate) kv: KvType,
    pub(crate) head_dim: usize,
    /// Numbers that the cache holds of one head: its context, a multiple of 16, times `head_dim`.
    pub(crate) per_head: usize,
    /// Where the first number of head 0 goes.
    pub(crate) first: usize,
    /// From one number of a head to the next.
    pub(crate) stride: usize,
    /// `[unit][column][16 rows]`, from the first head on.
    pub(crate) outputs: &'a [f32],
    pub(crate) columns: usize,
    pub(crate) column: usize,
    /// Rows of all heads.
    pub(crate) rows: usize,
}

impl Task for Store<'_> {
    type Output = ();

    const WITHOUT_Q8: bool = true;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        ran::<I>(Operation::Store);
        let dim = self.head_dim.max(1);
        let mut row = 0usize;
        let (vectors, rest) = column_of(self.outputs, self.columns, self.column, self.rows);
        for mut rest in vectors.map(|v| v.as_slice()).chain([rest]) {
            while !rest.is_empty() {
                let (head, d) = (row / dim, row % dim);
                let (now, later) = rest.split_at(rest.len().min(dim - d));
                let at = head
                    .saturating_mul(self.per_head)
                    .saturating_add(self.first);
                let at = at.saturating_add(d.saturating_mul(self.stride));
                match self.kv {
                    KvType::F32 => write(self.cache, at, self.stride, now, f32::to_le_bytes),
                    KvType::F16 => write(self.cache, at, self.stride, now, |x| {
                        math::to_f16_cache(x).to_le_bytes()
                    }),
                }
                (row, rest) = (row + now.len(), later);
            }
        }
    }
}

/// Writes values as numbers of `BYTES` bytes, `stride` apart from number `at` on.
#[inline(always)]
fn write<const BYTES: usize>(
    cache: &mut [u8],
    at: usize,
    stride: usize,
    values: &[f32],
    number: impl Fn(f32) -> [u8; BYTES],
) {
    let numbers = cache.as_chunks_mut::<BYTES>().0;
    let slots = numbers.get_mut(at..).unwrap_or(&mut []).iter_mut();
    let slots = slots.step_by(stride.max(1));
    match values.as_array::<LANES>() {
        // All at once, which vectorises.
        Some(values) => {
            let mut all = [[0; BYTES]; LANES];
            for (n, v) in all.iter_mut().zip(values) {
                *n = number(*v);
            }
            pairs(slots, all.into_iter()).for_each(|(s, n)| *s = n);
        }
        None => pairs(slots, values.iter()).for_each(|(s, v)| *s = number(*v)),
    }
}
