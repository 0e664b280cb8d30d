//! Query heads and columns that go through keys and values together.

use super::{AttentionJob, Unit, used};
use crate::error::Pass;

/// Most queries of a group.
pub(super) const MOST: usize = 4;

/// A query head of a column.
#[derive(Clone, Copy)]
pub(super) struct Query {
    /// Among the rows of the unit's outputs, `[sharing][column]`.
    pub(super) row: usize,
    pub(super) head: usize,
    pub(super) column: usize,
    /// Positions of the segment that it attends to, at least 1.
    pub(super) used: usize,
}

/// Queries of one pass.
pub(super) struct Group {
    pub(super) pass: Pass,
    queries: [Query; MOST],
    count: usize,
}

impl Group {
    pub(super) fn queries(&self) -> &[Query] {
        self.queries.get(..self.count).unwrap_or(&[])
    }
}

/// The queries of a unit in groups, but for the columns that end before its segment.
pub(super) struct Groups<'a> {
    job: &'a AttentionJob<'a>,
    unit: Unit,
    column: usize,
    sharer: usize,
}

impl<'a> Groups<'a> {
    pub(super) fn new(job: &'a AttentionJob<'a>, unit: Unit) -> Self {
        Self {
            job,
            unit,
            column: 0,
            sharer: 0,
        }
    }

    /// The next up to `most` queries.
    #[cfg_attr(not(pleach_small), inline(always))]
    pub(super) fn next(&mut self, most: usize) -> Option<Group> {
        let mut group = Group {
            pass: Pass::Scaling,
            queries: [Query {
                row: 0,
                head: 0,
                column: 0,
                used: 0,
            }; MOST],
            count: 0,
        };
        let sharing = self.job.shape.sharing;
        let first = self.unit.kv_head.saturating_mul(sharing);
        for slot in group.queries.iter_mut().take(most) {
            let (column, used) = loop {
                let Some(column) = self.job.columns.get(self.column) else {
                    return (group.count > 0).then_some(group);
                };
                let used = used(column, self.unit.segment);
                if used > 0 && self.sharer < sharing {
                    break (column, used);
                }
                self.column += 1;
                self.sharer = 0;
            };
            if group.count == 0 {
                group.pass = column.pass();
            } else if group.pass != column.pass() {
                break;
            }
            *slot = Query {
                row: self.sharer * self.job.columns.len() + self.column,
                head: first.saturating_add(self.sharer),
                column: self.column,
                used,
            };
            group.count += 1;
            self.sharer += 1;
        }
        (group.count > 0).then_some(group)
    }
}
