//! How the rows of a tensor lie in memory, and the one function that says how many bytes they take.
//!
//! Every layout is the same shape: *tiles* of `R` rows. A float tile is `[k][R]`. A `q8` tile is its
//! scales, f16 `[group][R]` padded with zeros to a multiple of `4 R` bytes, then for each step of `S`
//! columns one vector of `[R][S]` weights. Rows are padded to the tile, columns to the step; padding is 0
//! and cannot matter.
//!
//! | tag | layout | R | S | holds | for |
//! |---|---|---|---|---|---|
//! | 1 | `rows` | 1 | 4 | all | parts without SIMD, embedding tables |
//! | 2 | `r16k4` | 16 | 4 | all | x86 and all aarch64 |
//! | 3 | `r4k4` | 4 | 4 | all | A panels on Linux |
//! | 4 | `m4` | 4 | 4 | `q8` | Cortex-M with DSP |
//! | 5 | `r4k16` | 4 | 16 | `q8` | Helium |
//!
//! A weight is an int8, except in `m4`: there a row's four weights of a step are two little-endian halfwords,
//! `256 w[1] + w[0]` and `256 w[3] + w[2]` as wrapping i16, which SXTB16 and SMLAD take as they are. The low
//! byte is the even weight; the odd one is `(h - low) >> 8`, in -128..=128: no byte is illegal, and 128, which
//! no packer writes, is a weight like the others. [`q8_weight`] reads all of them.

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Dtype {
    /// int8 with one f16 scale per row and group.
    Q8 = 1,
    /// IEEE half precision.
    F16 = 2,
    /// IEEE single precision.
    F32 = 3,
}

impl Dtype {
    /// The dtype with this tag.
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Dtype::Q8),
            2 => Some(Dtype::F16),
            3 => Some(Dtype::F32),
            _ => None,
        }
    }

    /// Bytes per element, without scales.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::Q8 => 1,
            Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// The name that commands use.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::Q8 => "q8",
            Dtype::F16 => "f16",
            Dtype::F32 => "f32",
        }
    }
}

/// How rows are interleaved for a family of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Layout {
    /// Plain rows (tiles of one row): parts without SIMD, and embedding tables.
    Rows = 1,
    /// Tiles of 16 rows, 4 k a step: x86 and all aarch64.
    R16K4 = 2,
    /// Tiles of 4 rows, 4 k a step: A panels on Linux.
    R4K4 = 3,
    /// Tiles of 4 rows, 4 k a step, in pairs of weights as halfwords: Cortex-M with DSP. `q8` only.
    M4 = 4,
    /// Tiles of 4 rows, 16 k a step: Helium. `q8` only.
    R4K16 = 5,
}

impl Layout {
    /// All of them, by tag.
    pub const ALL: [Layout; 5] = [
        Layout::Rows,
        Layout::R16K4,
        Layout::R4K4,
        Layout::M4,
        Layout::R4K16,
    ];

    /// The layout with this tag.
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Layout::Rows),
            2 => Some(Layout::R16K4),
            3 => Some(Layout::R4K4),
            4 => Some(Layout::M4),
            5 => Some(Layout::R4K16),
            _ => None,
        }
    }

    /// Whether a tensor of this dtype may lie so.
    pub const fn holds(self, dtype: Dtype) -> bool {
        match self {
            Layout::Rows | Layout::R16K4 | Layout::R4K4 => true,
            Layout::M4 | Layout::R4K16 => matches!(dtype, Dtype::Q8),
        }
    }

    /// Rows per tile.
    pub const fn tile_rows(self) -> usize {
        match self {
            Layout::Rows => 1,
            Layout::R16K4 => 16,
            Layout::R4K4 | Layout::M4 | Layout::R4K16 => 4,
        }
    }

    /// Columns of a vector of `q8` weights; columns are padded to it.
    pub const fn k_step(self) -> usize {
        match self {
            Layout::Rows | Layout::R16K4 | Layout::R4K4 | Layout::M4 => 4,
            Layout::R4K16 => 16,
        }
    }

    /// The name that commands use.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Rows => "rows",
            Layout::R16K4 => "r16k4",
            Layout::R4K4 => "r4k4",
            Layout::M4 => "m4",
            Layout::R4K16 => "r4k16",
        }
    }
}

/// Rows of one tile of a B panel, in every layout.
pub const B_TILE: usize = 16;

/// Steps of `k` in a vector of int8, in all layouts but `r4k16`: see [`Layout::k_step`].
pub const K_STEP: usize = 4;

/// Activation panels are padded with zeros to a multiple of this, the longest step of any layout.
pub const K_PAD: usize = 16;

/// `n` rounded up to a multiple of `m`; saturates. 0 if `m` is 0.
pub const fn round_up(n: usize, m: usize) -> usize {
    if m == 0 {
        0
    } else {
        n.div_ceil(m).saturating_mul(m)
    }
}

/// Whether rows may be quantised in groups of so many columns.
pub const fn is_group(group: usize) -> bool {
    matches!(group, 32 | 64 | 128 | 256)
}

/// Groups of `group` along `cols`.
pub const fn groups(cols: usize, group: usize) -> usize {
    if group == 0 { 0 } else { cols.div_ceil(group) }
}

/// Bytes of the scales at the head of one `q8` tile of `rows` rows.
pub const fn scale_bytes(rows: usize, cols: usize, group: usize) -> usize {
    round_up(
        groups(cols, group).saturating_mul(rows).saturating_mul(2),
        rows.saturating_mul(4),
    )
}

/// Bytes of the vectors of weights after the scales of one `q8` tile.
pub const fn vector_bytes(layout: Layout, cols: usize) -> usize {
    round_up(cols, layout.k_step()).saturating_mul(layout.tile_rows())
}

/// The weight of row `lane` at column `k` of a vector of `tile_rows * k_step` bytes; `None` outside it.
///
/// -128..=127, and 128 too in `m4`.
///
/// ```
/// use pleach::kernels::layout::{Layout, q8_weight};
///
/// // Row 0 of an m4 vector: 256 * -3 + 5 = -763 = 0xfd05, then 256 * 127 - 128 = 32384 = 0x7e80.
/// let vector = [0x05, 0xfd, 0x80, 0x7e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// let row: Vec<_> = (0..4).filter_map(|k| q8_weight(Layout::M4, &vector, 0, k)).collect();
/// assert_eq!(row, [5, -3, -128, 127]);
/// ```
#[inline(always)]
pub fn q8_weight(layout: Layout, vector: &[u8], lane: usize, k: usize) -> Option<i32> {
    let step = layout.k_step();
    if lane >= layout.tile_rows() || k >= step {
        return None;
    }
    let at = lane * step + k;
    match layout {
        Layout::Rows | Layout::R16K4 | Layout::R4K4 | Layout::R4K16 => {
            vector.get(at).map(|b| *b as i8 as i32)
        }
        Layout::M4 => {
            let pair = vector.as_chunks::<2>().0.get(at / 2)?;
            let [even, odd] = m4_pair(*pair);
            Some(if k.is_multiple_of(2) { even } else { odd })
        }
    }
}

/// The two weights of a halfword of `m4`: the even one in -128..=127, the odd one in -128..=128.
#[inline(always)]
pub const fn m4_pair(halfword: [u8; 2]) -> [i32; 2] {
    let h = i16::from_le_bytes(halfword) as i32;
    let even = h as i8 as i32;
    [even, (h - even) >> 8]
}

/// Bytes of one tile of a `[rows][cols]` tensor.
pub const fn tile_bytes(dtype: Dtype, layout: Layout, cols: usize, group: usize) -> usize {
    let r = layout.tile_rows();
    match dtype {
        Dtype::Q8 => scale_bytes(r, cols, group).saturating_add(vector_bytes(layout, cols)),
        Dtype::F16 | Dtype::F32 => cols.saturating_mul(r).saturating_mul(dtype.bytes()),
    }
}

/// Bytes of a packed `[rows][cols]` tensor; saturates at `usize::MAX`, which no blob can hold.
///
/// Used by packer, parse, counters and kernels alike.
pub const fn packed_size(
    dtype: Dtype,
    layout: Layout,
    rows: usize,
    cols: usize,
    group: usize,
) -> usize {
    rows.div_ceil(layout.tile_rows())
        .saturating_mul(tile_bytes(dtype, layout, cols, group))
}

/// Bytes of a packed B panel of `rows` rows and rank `rank`.
///
/// Layout, the same everywhere: for `q8` one f16 scale per `j`, padded to 16 bytes; then tiles
/// `[j][16 rows]`.
pub const fn packed_b_size(dtype: Dtype, rows: usize, rank: usize) -> usize {
    b_scale_bytes(dtype, rank).saturating_add(
        round_up(rows, B_TILE)
            .saturating_mul(rank)
            .saturating_mul(dtype.bytes()),
    )
}

/// Bytes of the scales at the head of a B panel.
pub const fn b_scale_bytes(dtype: Dtype, rank: usize) -> usize {
    match dtype {
        Dtype::Q8 => round_up(rank.saturating_mul(2), 16),
        Dtype::F16 | Dtype::F32 => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_hand() {
        // 17 rows of 70: two tiles; two groups of 64 are 64 bytes of scales; 72 padded columns.
        assert_eq!(
            packed_size(Dtype::Q8, Layout::R16K4, 17, 70, 64),
            2 * (64 + 72 * 16)
        );
        // One group: 32 bytes of scales, padded to 64.
        assert_eq!(
            packed_size(Dtype::Q8, Layout::R16K4, 16, 64, 64),
            64 + 64 * 16
        );
        // One row: two scales are 4 bytes.
        assert_eq!(
            packed_size(Dtype::Q8, Layout::Rows, 3, 70, 64),
            3 * (4 + 72)
        );
        assert_eq!(
            packed_size(Dtype::Q8, Layout::R4K4, 6, 64, 64),
            2 * (16 + 256)
        );
        assert_eq!(
            packed_size(Dtype::F16, Layout::R16K4, 17, 70, 64),
            2 * 70 * 16 * 2
        );
        // Helium: 70 columns are 5 steps of 16.
        assert_eq!(
            packed_size(Dtype::Q8, Layout::R4K16, 6, 70, 64),
            2 * (16 + 80 * 4)
        );
        assert_eq!(
            packed_size(Dtype::Q8, Layout::M4, 6, 70, 64),
            2 * (16 + 72 * 4)
        );
        assert_eq!(packed_b_size(Dtype::Q8, 17, 3), 16 + 32 * 3);
        assert_eq!(packed_b_size(Dtype::F16, 16, 3), 16 * 3 * 2);
        assert_eq!(
            packed_size(Dtype::F32, Layout::R16K4, usize::MAX, usize::MAX, 64),
            usize::MAX
        );
    }

    #[test]
    fn tags_and_names() {
        for (i, layout) in Layout::ALL.into_iter().enumerate() {
            assert_eq!(layout as usize, i + 1);
            assert_eq!(Layout::from_tag(layout as u8), Some(layout));
        }
        assert_eq!((Layout::from_tag(0), Layout::from_tag(6)), (None, None));
    }

    /// Every pair of int8 that the format's sentence allows comes back; every halfword is two weights whose sum
    /// is itself.
    #[test]
    fn m4_pairs() {
        // Under Miri the edges have to do.
        let step = if cfg!(miri) { 51 } else { 1 };
        for even in (-128i32..128).step_by(step) {
            for odd in (-128i32..128).step_by(step) {
                let h = (256 * odd + even) as i16;
                let back = m4_pair(h.to_le_bytes());
                match 256 * odd + even == h as i32 {
                    true => assert_eq!(back, [even, odd]),
                    // Only -128 beside a negative weight wraps.
                    false => assert!(odd == -128 && even < 0 && back == [even, 128]),
                }
            }
        }
        for h in (i16::MIN..=i16::MAX).step_by(step) {
            let [even, odd] = m4_pair(h.to_le_bytes());
            assert!((-128..=127).contains(&even) && (-128..=128).contains(&odd));
            assert_eq!((256 * odd + even) as i16, h);
        }
    }

    /// Each weight of a vector is where the layout says, and nothing is outside.
    #[test]
    fn weights_of_a_vector() {
        let bytes: [u8; 64] = core::array::from_fn(|i| (i * 89) as u8);
        for layout in Layout::ALL {
            let (rows, step) = (layout.tile_rows(), layout.k_step());
            for lane in 0..rows {
                for k in 0..step {
                    let w = q8_weight(layout, &bytes, lane, k);
                    let at = lane * step + k;
                    if layout == Layout::M4 && k % 2 == 1 {
                        let h = i16::from_le_bytes([bytes[at - 1], bytes[at]]) as i32;
                        let even = bytes[at - 1] as i8 as i32;
                        assert_eq!(w.map(|odd| 256 * odd + even), Some(h));
                    } else {
                        assert_eq!(w, Some(bytes[at] as i8 as i32));
                    }
                }
                assert_eq!(q8_weight(layout, &bytes, lane, step), None);
            }
            assert_eq!(q8_weight(layout, &bytes, rows, 0), None);
            assert_eq!(q8_weight(layout, &[], 0, 0), None);
        }
    }
}
