//! Counts over time, in at most [`COLUMNS_MAX`] columns of the same length, which grows as the time does.

use std::collections::BTreeMap;

use super::tally::Tally;
use super::told::Told;

/// Most columns.
pub(super) const COLUMNS_MAX: i64 = 96;
/// Lengths of a column, in seconds, each a multiple of the one before; after the last it doubles.
const STEPS_S: [i64; 13] =
    [1, 5, 15, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800, 2_419_200];

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// Length of a column, in seconds.
    pub(super) step_s: i64,
    /// By number of the column since 1970; columns without attempts are not there.
    pub(super) columns: BTreeMap<i64, Tally>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { step_s: STEPS_S.first().copied().unwrap_or(1), columns: BTreeMap::new() }
    }
}

impl Timeline {
    pub(super) fn note(&mut self, at_s: i64, told: &Told) {
        self.columns.entry(at_s.div_euclid(self.step_s)).or_default().note(told);
        while self.span() > COLUMNS_MAX {
            self.widen();
        }
    }

    /// First column and how many there are up to the last.
    pub(super) fn range(&self) -> (i64, i64) {
        (self.columns.keys().next().copied().unwrap_or(0), self.span())
    }

    fn span(&self) -> i64 {
        match (self.columns.first_key_value(), self.columns.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1,
            _ => 0,
        }
    }

    fn widen(&mut self) {
        let longer = STEPS_S.into_iter().find(|step| *step > self.step_s).unwrap_or(self.step_s * 2);
        let by = longer / self.step_s;
        let mut columns: BTreeMap<i64, Tally> = BTreeMap::new();
        for (at, tally) in &self.columns {
            columns.entry(at.div_euclid(by)).or_default().add(*tally);
        }
        self.step_s = longer;
        self.columns = columns;
    }
}
