//! Rows of a measurement with its bar beside it.

use std::fmt;

/// What a value is held to.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// At least this.
    Least(f64),
    /// At most this.
    Most(f64),
    /// None: told for the reader.
    None,
}

/// One measured value.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is held to.
    pub bar: Bar,
    /// Counts, or a range.
    pub detail: String,
}

impl Row {
    /// A row without details.
    #[must_use]
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str, bar: Bar) -> Self {
        Self { what: what.into(), value, unit, bar, detail: String::new() }
    }

    /// A share in percent, with its counts.
    #[must_use]
    pub fn share(what: impl Into<String>, part: usize, of: usize, bar: Bar) -> Self {
        Self { detail: format!("{part} of {of}"), ..Self::new(what, percent(part, of), "%", bar) }
    }

    /// The same row with details.
    #[must_use]
    pub fn with(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// Whether the bar is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.bar {
            Bar::Least(least) => self.value >= least,
            Bar::Most(most) => self.value <= most,
            Bar::None => true,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bar = match self.bar {
            Bar::Least(least) => format!(">= {least}"),
            Bar::Most(most) => format!("<= {most}"),
            Bar::None => String::new(),
        };
        let missed = if self.is_met() { "" } else { " MISSED" };
        write!(f, "| {} | {:.2} {}{missed} | {bar} | {} |", self.what, self.value, self.unit, self.detail)
    }
}

/// `part` of `of` in percent; 0 of nothing.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of sessions and calls")]
pub fn percent(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}
