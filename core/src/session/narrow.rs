//! Columns whose outputs nobody reads: of a prompt's tokens, all but the last leave only keys and values. When the last
//! layer's are stored, the sweep goes on with the others.

use crate::error::Error;
use crate::kernels::UNIT;
use crate::kernels::isa::LANES;
use crate::session::arena::State;
use crate::session::column::{Column, Sweep};
use crate::session::sweep::Machine;

impl Machine<'_> {
    /// Takes the inner columns out of the residual stream and of q. It may be that none is left.
    pub(crate) fn narrow(&self, state: &mut State<'_>, sweep: &mut Sweep) -> Result<(), Error> {
        let n = sweep.active as usize;
        let columns = state.columns.get_mut(..n).ok_or(Error::Corrupt)?;
        let active = to_front(columns);
        if active == n {
            return Ok(());
        }
        let active = columns.get(..active).ok_or(Error::Corrupt)?;
        let c = &self.model.config;
        compact(state.residual, n, c.hidden as usize, active);
        compact(state.output, n, (c.heads * c.head_dim) as usize, active);
        sweep.active = active.len() as u16;
        Ok(())
    }
}

/// Undoes [`Machine::narrow`] among the columns of a sweep whose first `active` ones went on. `picks`, which are among
/// those, stay with their columns.
pub(crate) fn widen(columns: &mut [Column], active: usize, picks: &mut [u16]) {
    for pick in picks {
        if let Some(column) = columns.get(*pick as usize) {
            *pick = column.place;
        }
    }
    for c in (0..active).rev() {
        if let Some(column) = columns.get(c) {
            swap(columns, c, column.place as usize);
        }
    }
}

/// Brings all but the inner columns to the front, in their order; returns their number. Each column's place is its index
/// before.
fn to_front(columns: &mut [Column]) -> usize {
    let mut active = 0;
    for c in 0..columns.len() {
        if columns.get(c).is_some_and(|c| !c.has(Column::INNER)) {
            // What lay there goes to `c`, which no later swap looks at: `widen` undoes them one by one.
            swap(columns, active, c);
            active += 1;
        }
    }
    active
}

/// `slice::swap`, whose panic would stay in the firmware.
fn swap(columns: &mut [Column], a: usize, b: usize) {
    if let (Some(x), Some(y)) = (columns.get(a).copied(), columns.get(b).copied()) {
        columns.get_mut(a).into_iter().for_each(|c| *c = y);
        columns.get_mut(b).into_iter().for_each(|c| *c = x);
    }
}

/// `[unit][n columns][16 rows]` to `[unit][active columns][16 rows]`, in place.
fn compact(values: &mut [f32], n: usize, rows: usize, active: &[Column]) {
    let vectors = values.as_chunks_mut::<LANES>().0;
    for unit in 0..rows.div_ceil(UNIT) {
        for (c, column) in active.iter().enumerate() {
            let from = vectors.get(unit * n + column.place as usize).copied();
            if let (Some(to), Some(from)) = (vectors.get_mut(unit * active.len() + c), from) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::error::Pass;
    use crate::session::column::Gates;
    use std::vec::Vec;

    /// Columns whose position is their place; all but those of `read` are inner ones.
    fn columns(n: u16, read: &[u16]) -> Vec<Column> {
        let column = |c: u16| {
            let mut column = Column::new(Pass::Routed, 0, c.into(), Gates::Off);
            column.place = c;
            column.with(Column::INNER, !read.contains(&c))
        };
        (0..n).map(column).collect()
    }

    fn positions(columns: &[Column]) -> Vec<usize> {
        columns.iter().map(Column::position).collect()
    }

    #[test]
    fn every_choice_of_six_columns_goes_to_the_front_and_back() {
        for set in 0..64u16 {
            let read: Vec<u16> = (0..6).filter(|c| set >> c & 1 == 1).collect();
            let mut list = columns(6, &read);
            assert_eq!(to_front(&mut list), read.len());
            let front = positions(&list[..read.len()]);
            assert!(front.iter().zip(&read).all(|(a, b)| *a == *b as usize));
            let mut picks: Vec<u16> = (0..read.len() as u16).collect();
            widen(&mut list, read.len(), &mut picks);
            assert_eq!((positions(&list), picks), ((0..6).collect(), read));
        }
    }

    #[test]
    fn vectors_follow_their_columns() {
        let mut list = columns(3, &[0, 2]);
        let active = to_front(&mut list);
        // Two units, the second of one row, of three columns: unit * 10 + column.
        let vector = |v: usize| [(v / 3 * 10 + v % 3) as f32; LANES];
        let mut values: Vec<f32> = (0..6).flat_map(vector).collect();
        compact(&mut values, 3, LANES + 1, &list[..active]);
        let firsts: Vec<f32> = values.chunks(LANES).map(|v| v[0]).take(4).collect();
        assert_eq!(firsts, [0.0, 2.0, 10.0, 12.0]);
    }
}
