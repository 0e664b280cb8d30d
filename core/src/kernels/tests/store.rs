//! Keys and values on their way into the caches: each backend against the layouts in words, and nothing beside them.

use super::guard::{Edge, Guarded};
use super::{Random, Size};
use crate::kernels::attention::{KvType, Store};
use crate::kernels::{Kernels, LANES};
use crate::math::to_f16_cache;
use std::vec;
use std::vec::Vec;

/// What no number of these tests is stored as.
const UNTOUCHED: u8 = 0xa5;

fn stored(kv: KvType, x: f32) -> Vec<u8> {
    match kv {
        KvType::F32 => x.to_le_bytes().to_vec(),
        KvType::F16 => to_f16_cache(x).to_le_bytes().to_vec(),
    }
}

#[test]
fn keys_and_values() {
    let mut random = Random::new(21);
    let dims: &[usize] = if cfg!(miri) {
        &[10]
    } else {
        &[1, 10, 16, 18, 64]
    };
    let cases = dims
        .iter()
        .flat_map(|dim| (1..=3).map(move |columns| (*dim, columns)));
    for (n, (dim, columns)) in cases.enumerate() {
        let (heads, context, pos) = (2, 32, random.below(32));
        let rows = heads * dim;
        let values = Size::ALL[n % 4].floats(rows * columns, &mut random);
        // `[unit][column][16 rows]`
        let mut outputs = vec![0.0; rows.next_multiple_of(LANES) * columns];
        for (i, x) in values.iter().enumerate() {
            let (row, column) = (i % rows, i / rows);
            outputs[(row / LANES * columns + column) * LANES + row % LANES] = *x;
        }
        let outputs = Guarded::new(Edge::of(n), &outputs);
        for (kv, keys) in [
            (KvType::F32, false),
            (KvType::F16, false),
            (KvType::F32, true),
            (KvType::F16, true),
        ] {
            let bytes = stored(kv, 0.0).len();
            let place = |head: usize, d: usize| match keys {
                // K `[kv_head][pos / 16][d][16]`, V `[kv_head][pos][d]`.
                true => ((head * (context / 16) + pos / 16) * dim + d) * 16 + pos % 16,
                false => (head * context + pos) * dim + d,
            };
            for kernels in Kernels::available() {
                for column in 0..columns {
                    let mut want = vec![UNTOUCHED; heads * context * dim * bytes];
                    let mut cache = Guarded::new(Edge::of(n + 1), &want);
                    for row in 0..rows {
                        let at = place(row / dim, row % dim) * bytes;
                        want[at..at + bytes]
                            .copy_from_slice(&stored(kv, values[column * rows + row]));
                    }
                    kernels.run(Store {
                        cache: &mut cache,
                        kv,
                        head_dim: dim,
                        per_head: context * dim,
                        first: place(0, 0),
                        stride: if keys { LANES } else { 1 },
                        outputs: &outputs,
                        columns,
                        column,
                        rows,
                    });
                    let first = want.iter().zip(&*cache).position(|(w, c)| w != c);
                    assert_eq!(
                        first,
                        None,
                        "{}: {kv:?}, keys {keys}, head_dim {dim}, column {column} of {columns}: first byte that differs",
                        kernels.name()
                    );
                }
            }
        }
    }
}
