//! How the rows of a tensor lie in memory, and the one function that says how many bytes they take.
//!
//! Every layout is the same shape: *tiles* of `R` rows. A float tile is `[k][R]`. A `q8` tile is its
//! scales, f16 `[group][R]` padded with zeros to a multiple of `4 R` bytes, then for each step of 4 `k`
//! one vector of `[R][4]` int8. `R` is 16 for [`Layout::R16K4`], 4 for [`Layout::R4K4`] and 1 for
//! [`Layout::Rows`], so one reader serves all of them. Rows are padded to the tile, `k` to the step;
//! padding is 0 and cannot matter.

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
    /// Reserved: Cortex-M with DSP.
    M4 = 4,
    /// Reserved: Helium.
    R4K16 = 5,
}

impl Layout {
    /// The layout with this tag, if this build reads it. The reserved ones are refused.
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Layout::Rows),
            2 => Some(Layout::R16K4),
            3 => Some(Layout::R4K4),
            _ => None,
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

/// Steps of `k` in a vector of int8.
pub const K_STEP: usize = 4;

/// `n` rounded up to a multiple of `m`; saturates. 0 if `m` is 0.
pub const fn round_up(n: usize, m: usize) -> usize {
    if m == 0 {
        0
    } else {
        n.div_ceil(m).saturating_mul(m)
    }
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

/// Bytes of one tile of a `[rows][cols]` tensor.
pub const fn tile_bytes(dtype: Dtype, layout: Layout, cols: usize, group: usize) -> usize {
    let r = layout.tile_rows();
    match dtype {
        Dtype::Q8 => {
            scale_bytes(r, cols, group).saturating_add(round_up(cols, K_STEP).saturating_mul(r))
        }
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
        assert_eq!(packed_b_size(Dtype::Q8, 17, 3), 16 + 32 * 3);
        assert_eq!(packed_b_size(Dtype::F16, 16, 3), 16 * 3 * 2);
        assert_eq!(
            packed_size(Dtype::F32, Layout::R16K4, usize::MAX, usize::MAX, 64),
            usize::MAX
        );
    }
}
