//! Counters that no policy reads: they are counted for nobody.

use super::allow::Found;
use super::bundle::Bundle;
use super::rules;
use crate::engine::{Condition, ContextLayout};
use crate::fragment::CounterSet;

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    let names: Vec<&str> = bundle.settings.counters.keys().map(smol_str::SmolStr::as_str).collect();
    if names.is_empty() {
        return;
    }
    let read = bundle.policies.iter().fold(CounterSet::default(), |read, subject| {
        read.with(Condition::of(subject.policy, ContextLayout::Gathered, &names).counters())
    });
    let numbered = (0_u8..).zip(&names);
    for (_, name) in numbered.filter(|(number, _)| !read.has(*number)) {
        let message = format!("no policy reads counter `{name}`");
        found.add(bundle.in_settings(&rules::UNUSED_COUNTER, "counters", name, message));
    }
}
