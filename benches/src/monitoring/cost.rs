//! What comparing an attempt costs, and what a baseline takes.

use std::time::Duration;

use cardea_core::behavior::{Baseline, Baselines, Observed, SessionBehavior, compare};
use cardea_server::monitor::config::Config;
use cardea_server::monitor::fresh_key;
use cardea_server::monitor::prepared::Prepared;

use super::data::{Labelled, learned};
use super::table::{Bar, Row};
use crate::mono;

/// How often each attempt is timed.
const PASSES: usize = 11;
const NOW_MS: i64 = 0;

/// Times each attempt of a recording, and all of them together. Of each attempt the median pass counts, so that
/// what the host does to a single one does not.
///
/// # Errors
///
/// The machine has no randomness.
pub fn attempts(
    what: &str,
    config: &Config,
    approved: &[Labelled],
    recorded: &[Labelled],
) -> Result<Vec<Row>, String> {
    let key = fresh_key().map_err(|fault| fault.to_string())?;
    let compiled = learned(config, approved).compile(&key, &config.rules);
    let prepared: Vec<_> = recorded.iter().map(|one| (one, Prepared::new(config, &one.recorded))).collect();
    let views: Vec<(Observed<'_>, Baselines<'_>)> = prepared
        .iter()
        .map(|(one, prepared)| {
            let identity = compiled.identity(&one.recorded.principal);
            let task = identity.and_then(|identity| identity.tasks.get(one.task()));
            let identity = identity.map(|identity| &identity.identity);
            (prepared.observed(config), Baselines { task, identity })
        })
        .collect();
    let (mut passes, mut clock, mut together) = (vec![Vec::new(); views.len()], Vec::new(), f64::INFINITY);
    for _ in 0..PASSES {
        let mut session = SessionBehavior::default();
        for ((observed, baselines), passes) in views.iter().zip(&mut passes) {
            let start = mono::now();
            let deviation = compare(&config.rules, &key, observed, baselines, &session);
            session.note(&deviation, true, NOW_MS);
            passes.push(start.elapsed());
        }
        let start = mono::now();
        for (observed, baselines) in &views {
            let deviation = compare(&config.rules, &key, observed, baselines, &session);
            session.note(&deviation, true, NOW_MS);
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of attempts")]
        let each = start.elapsed().as_secs_f64() * 1e9 / views.len().max(1) as f64;
        together = together.min(each);
        for _ in &views {
            let start = mono::now();
            clock.push(start.elapsed());
        }
    }
    let mut medians: Vec<Duration> = passes.iter_mut().map(|passes| at(passes, 50)).collect();
    let clock = nanoseconds(at(&mut clock, 50));
    let without_clock = |span: Duration| nanoseconds(span) - clock;
    let bare = format!("{} attempts; less {clock:.0} ns for reading the clock", views.len());
    Ok(vec![
        Row::new(format!("{what}: p50"), without_clock(at(&mut medians, 50)), "ns", Bar::Most(100.0))
            .with(bare),
        Row::new(format!("{what}: p99"), without_clock(at(&mut medians, 99)), "ns", Bar::Most(300.0)),
        Row::new(format!("{what}: mean, best pass"), together, "ns", Bar::None),
    ])
}

/// What baselines and sessions take.
///
/// # Errors
///
/// The machine has no randomness.
pub fn memory(config: &Config, approved: &[Labelled]) -> Result<Vec<Row>, String> {
    let key = fresh_key().map_err(|fault| fault.to_string())?;
    let compiled = learned(config, approved).compile(&key, &config.rules);
    let mut bytes: Vec<usize> = compiled.tasks().map(Baseline::bytes).collect();
    let (median, largest) = (at(&mut bytes, 50), at(&mut bytes, 100));
    Ok(vec![
        Row::new("a baseline of a task: median", counted(median), "bytes", Bar::Most(4096.0)),
        Row::new("a baseline of a task: largest", counted(largest), "bytes", Bar::None),
        Row::new("state of a session", counted(size_of::<SessionBehavior>()), "bytes", Bar::None),
    ])
}

/// The value at a percentile.
pub(super) fn at<T: Ord + Copy + Default>(values: &mut [T], percent: usize) -> T {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

pub(super) fn nanoseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "bytes of something small")]
const fn counted(bytes: usize) -> f64 {
    bytes as f64
}
