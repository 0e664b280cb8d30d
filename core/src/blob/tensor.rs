//! Views over packed tensors: what a kernel needs to know, and no more.

use crate::blob::format::{self, TensorEntry};
use crate::blob::parse::scale_exp_is_legal;
use crate::kernels::layout::{self, B_TILE, Dtype, Layout};
use crate::kernels::q8::Q8Tile;

/// A `[rows][cols]` matrix in place.
///
/// Invariants (by the constructors): `data` holds exactly `ceil(rows / lanes)` whole tiles; what is not borrowed has columns, and
/// a layout that holds its dtype; `group` is one of [`layout::is_group`].
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'b> {
    pub(crate) dtype: Dtype,
    /// `Rows` for a borrowed matrix, whatever its `lanes`.
    pub(crate) layout: Layout,
    /// Rows of a tile: the layout's, or those of a borrowed matrix.
    pub(crate) lanes: usize,
    pub(crate) scale_exp: i8,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) group: usize,
    pub(crate) data: &'b [u8],
    /// Bytes of one tile, and of the scales at its head.
    tile: (usize, usize),
}

impl<'b> Tensor<'b> {
    /// The matrix of these numbers in a layout of a blob; `None` unless `group` is one, and `data` are whole tiles, as many as
    /// its rows take.
    pub(crate) const fn packed(
        (dtype, layout): (Dtype, Layout),
        (rows, cols): (usize, usize),
        group: usize,
        scale_exp: i8,
        data: &'b [u8],
    ) -> Option<Self> {
        let lanes = layout.tile_rows();
        let bytes = layout::tile_bytes(dtype, layout, cols, group);
        let whole = data.len() == rows.div_ceil(lanes).saturating_mul(bytes);
        if !whole || cols == 0 || !layout.holds(dtype) || !layout::is_group(group) {
            return None;
        }
        let scales = match dtype {
            Dtype::Q8 => layout::scale_bytes(lanes, cols, group),
            Dtype::F16 | Dtype::F32 => 0,
        };
        Some(Self {
            dtype,
            layout,
            lanes,
            scale_exp,
            rows,
            cols,
            group,
            data,
            tile: (bytes, scales),
        })
    }

    /// The tensor that `entry` describes in `section`; `None` if the bytes are not there.
    pub(crate) const fn from_entry(
        section: &'b [u8],
        entry: &TensorEntry,
        group: usize,
    ) -> Option<Self> {
        let (Some(dtype), Some(layout)) =
            (Dtype::from_tag(entry.dtype), Layout::from_tag(entry.layout))
        else {
            return None;
        };
        match format::slice(section, entry.offset as usize, entry.length as usize) {
            Some(data) => Self::packed(
                (dtype, layout),
                (entry.rows as usize, entry.cols as usize),
                group,
                entry.scale_exp,
                data,
            ),
            None => None,
        }
    }

    /// A matrix that is packed as a blob's are; `None` if `data` are not the bytes that the shape takes, the layout does
    /// not hold the dtype, or `group` is not one of [`layout::is_group`] (floats have none: any of them will do). `scale_exp` is
    /// of `q8`.
    pub fn from_tiles(
        (dtype, layout): (Dtype, Layout),
        (rows, cols): (usize, usize),
        group: usize,
        scale_exp: i8,
        data: &'b [u8],
    ) -> Option<Self> {
        if !scale_exp_is_legal(dtype, scale_exp) {
            return None;
        }
        Self::packed((dtype, layout), (rows, cols), group, scale_exp, data)
    }

    /// A row-major f32 matrix `[rows][cols]` that somebody else owns; `None` if the lengths differ.
    pub fn from_rows(data: &'b [f32], rows: usize, cols: usize) -> Option<Self> {
        Self::borrowed(data, rows, cols, 1)
    }

    /// The transposed matrix: `data` is `[cols][rows]` (a Conv1D base's `fan_in_fan_out`).
    pub fn from_columns(data: &'b [f32], rows: usize, cols: usize) -> Option<Self> {
        Self::borrowed(data, rows, cols, rows)
    }

    fn borrowed(data: &'b [f32], rows: usize, cols: usize, lanes: usize) -> Option<Self> {
        (rows.checked_mul(cols) == Some(data.len()) && lanes > 0).then(|| Self {
            dtype: Dtype::F32,
            layout: Layout::Rows,
            lanes,
            scale_exp: 0,
            rows,
            cols,
            group: 32,
            data: zerocopy::IntoBytes::as_bytes(data),
            tile: (cols.saturating_mul(lanes).saturating_mul(4), 0),
        })
    }

    /// Rows (output features).
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Columns (input features).
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// How its numbers are stored.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Packed bytes.
    pub const fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Its bytes, as they lie: whole tiles.
    pub const fn data(&self) -> &'b [u8] {
        self.data
    }

    /// How its rows are interleaved.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Power of two on every scale of a `q8` matrix.
    pub const fn scale_exp(&self) -> i8 {
        self.scale_exp
    }

    /// Rows of a tile.
    pub const fn tile_rows(&self) -> usize {
        self.lanes
    }

    /// Bytes of one tile of `lanes` rows.
    #[inline(always)]
    pub(crate) const fn tile_bytes(&self) -> usize {
        let (bytes, _) = self.tile;
        bytes
    }

    /// The `n`th tile.
    #[inline(always)]
    pub(crate) const fn tile(&self, n: usize) -> Option<&'b [u8]> {
        let bytes = self.tile_bytes();
        format::slice(self.data, n.saturating_mul(bytes), bytes)
    }

    /// The `n`th tile of a `q8` tensor, cut apart.
    #[inline(always)]
    pub(crate) fn q8_tile(&self, n: usize) -> Option<Q8Tile<'b>> {
        let (_, scales) = self.tile;
        let (scales, vectors) = self.tile(n)?.split_at_checked(scales)?;
        Some(Q8Tile {
            layout: self.layout,
            scales,
            vectors,
            k: self.cols,
            group: self.group,
            pow: crate::math::pow2(self.scale_exp),
        })
    }

    /// Packed bytes that one row's numbers take, for the counters of a row look-up.
    pub(crate) const fn row_bytes(&self) -> usize {
        layout::packed_size(self.dtype, Layout::Rows, 1, self.cols, self.group)
    }
}

/// A `[rows][rank]` B panel in place: tiles `[j][lanes]`, for `q8` after one f16 scale per `j`.
#[derive(Clone, Copy, Debug)]
pub struct BPanel<'b> {
    pub(crate) dtype: Dtype,
    pub(crate) lanes: usize,
    pub(crate) scale_exp: i8,
    pub(crate) rows: usize,
    pub(crate) rank: usize,
    pub(crate) data: &'b [u8],
}

impl<'b> BPanel<'b> {
    /// A row-major f32 B `[rows][rank]` that somebody else owns; `None` if the lengths differ.
    pub fn from_rows(data: &'b [f32], rows: usize, rank: usize) -> Option<Self> {
        (rows.checked_mul(rank) == Some(data.len())).then(|| Self {
            dtype: Dtype::F32,
            lanes: 1,
            scale_exp: 0,
            rows,
            rank,
            data: zerocopy::IntoBytes::as_bytes(data),
        })
    }

    /// Rows (output features).
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The rank of the adapter.
    pub const fn rank(&self) -> usize {
        self.rank
    }

    /// How its numbers are stored.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Packed bytes.
    pub const fn bytes(&self) -> usize {
        self.data.len()
    }

    /// A panel that is packed as a blob's are; `None` if `data` are not the bytes that the shape takes.
    pub fn from_tiles(
        dtype: Dtype,
        scale_exp: i8,
        (rows, rank): (usize, usize),
        data: &'b [u8],
    ) -> Option<Self> {
        let legal = scale_exp_is_legal(dtype, scale_exp);
        (legal && data.len() == layout::packed_b_size(dtype, rows, rank))
            .then(|| Self::packed(dtype, scale_exp, rows, rank, data))
    }

    /// The panel of a blob.
    pub(crate) const fn packed(
        dtype: Dtype,
        scale_exp: i8,
        rows: usize,
        rank: usize,
        data: &'b [u8],
    ) -> Self {
        Self {
            dtype,
            lanes: B_TILE,
            scale_exp,
            rows,
            rank,
            data,
        }
    }

    /// The `n`th tile of `lanes` rows.
    #[inline(always)]
    pub(crate) fn tile(&self, n: usize) -> Option<&'b [u8]> {
        self.tiles(n, 1)
    }

    /// Tiles `n..n + count`.
    #[inline(always)]
    pub(crate) fn tiles(&self, n: usize, count: usize) -> Option<&'b [u8]> {
        let bytes = self
            .rank
            .saturating_mul(self.lanes)
            .saturating_mul(self.dtype.bytes());
        let head = layout::b_scale_bytes(self.dtype, self.rank);
        format::slice(
            self.data,
            head.saturating_add(n.saturating_mul(bytes)),
            count.saturating_mul(bytes),
        )
    }

    /// The effective scale of column `j`: 1 for floats.
    pub(crate) fn scale(&self, j: usize) -> f32 {
        match self.dtype {
            Dtype::Q8 => match format::array::<2>(self.data, j.saturating_mul(2)) {
                Some(b) => {
                    crate::math::from_f16(u16::from_le_bytes(*b))
                        * crate::math::pow2(self.scale_exp)
                }
                None => 0.0,
            },
            _ => 1.0,
        }
    }
}
