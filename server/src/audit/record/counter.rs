//! The part of a decision's record that tells how a counter stood.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Fields as in `cardea.v1.CounterRecord`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRecord {
    /// Its name in the bundle.
    pub name: SmolStr,
    /// Attempts of the same subject before this one that counted.
    pub count: i64,
    /// It had counted for a whole window.
    pub warm: bool,
    /// What became of the attempt in it.
    pub outcome: SmolStr,
}
