//! Policies whose allows get no lease though the bundle gives leases: what they do with time cannot be foreseen.

use super::allow::Found;
use super::bundle::{Bundle, Part};
use super::rules;
use crate::engine;
use crate::fragment::Group;

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    if bundle.settings.lease.max_ms == 0 {
        return;
    }
    for (number, subject) in bundle.policies.iter().enumerate() {
        let Some(times) = engine::times(subject.policy, &bundle.settings.risk) else { continue };
        let mut opaque: Vec<String> =
            times.opaque().facts().map(|fact| format!("`context.{}`", fact.path())).collect();
        opaque.extend(times.opaque().reads_whole(Group::Now).then(|| "`context.now`".to_owned()));
        if opaque.is_empty() {
            continue;
        }
        let message = format!(
            "what policy `{}` does with {} changes with time in a way that cannot be foreseen, so where it is a candidate no \
             allow is leased",
            subject.id,
            opaque.join(", ")
        );
        let fault = bundle.in_policy(&rules::NO_LEASE, number, &Part::Head, message);
        found.add_about_policy(number, fault);
    }
}
