//! How an attempt deviates from what was approved. Pure: the same inputs, the same deviation, on every node.
//!
//! Look-ups only: one fingerprint for each thing that the attempt names, and two probes for each. Nothing is allocated, nothing is
//! remembered: [`SessionBehavior::note`] does that once the verdict stands. The task's words are searched only
//! when something is new.

use super::approved::{names_nothing, own_targets};
use super::assess::assess;
use super::attempt::{Baselines, Observed, Scope};
use super::baseline::{Baseline, Bits};
use super::class::ActionClass;
use super::deviation::{Assessment, Deviation, Flag, Flags};
use super::fingerprint::{Fingerprint, Key, Kind, host, reference_name, target_name};
use super::rules::Rules;
use super::session::SessionBehavior;

/// How much of a task's words is searched, in bytes.
const PURPOSE_BYTES_MAX: usize = 4_096;

/// How much of a task's words is looked at at once, in bytes.
const SPAN: usize = 32;

/// Compares an attempt with the baselines that bear on it, compiled under the same key.
#[must_use]
pub fn compare(
    rules: &Rules,
    key: &Key,
    observed: &Observed<'_>,
    baselines: &Baselines<'_>,
    session: &SessionBehavior,
) -> Deviation {
    let action = key.text(observed.action);
    let narrow = baselines.narrowest(observed.names_task);
    let norm = Norm {
        rules,
        observed,
        action,
        narrow,
        entry: narrow.and_then(|baseline| baseline.action(action)),
        identity: baselines.identity,
        mature: narrow.is_some_and(Baseline::is_mature),
    };
    let network = (!observed.network.is_empty()).then(|| key.text(observed.network));
    let mut deviation = Deviation { action, about: action, network, ..Deviation::default() };
    norm.flag_action(&mut deviation.flags, session);
    norm.flag_targets(&mut deviation, key);
    norm.flag_references(&mut deviation, key);
    norm.flag_origin(&mut deviation.flags, network, session);
    norm.flag_denial(&mut deviation.flags, session);
    assess(rules, observed, norm.mature, session.has_acted(), &mut deviation);
    let was_told = deviation.assessment != Assessment::None && session.told(&deviation);
    deviation.flags.set(Flag::Again, was_told);
    deviation
}

/// What an attempt is compared with.
struct Norm<'n> {
    rules: &'n Rules,
    observed: &'n Observed<'n>,
    action: Fingerprint,
    /// What was approved for the task, or for the identity if no task is named.
    narrow: Option<&'n Baseline>,
    /// The action in it.
    entry: Option<Bits>,
    identity: Option<&'n Baseline>,
    mature: bool,
}

impl Norm<'_> {
    /// What deviations are told from, so that those of a task that nobody knows are told from its identity.
    fn here(&self) -> Option<&Baseline> {
        self.narrow.or(self.identity)
    }

    fn flag_action(&self, flags: &mut Flags, session: &SessionBehavior) {
        let Observed { class, targets, references, scope, is_out_of_window, .. } = *self.observed;
        let identity = || self.identity.and_then(|baseline| baseline.action(self.action));
        let is_new = if self.narrow.is_some() { self.entry.is_none() } else { identity().is_none() };
        flags.set(Flag::Unknown, self.here().is_none());
        flags.set(Flag::Immature, !self.mature);
        flags.set(Flag::NewAction, is_new);
        flags.set(Flag::NewActionForIdentity, is_new && identity().is_none());
        let is_missing =
            |entry: Bits| class.counts() && !entry.is_bare() && names_nothing(targets, references);
        flags.set(Flag::MissingTarget, self.entry.is_some_and(is_missing));
        let follows = |baseline: &Baseline| baseline.has_transition(session.last_action, self.action);
        flags.set(Flag::NewTransition, !self.here().is_some_and(follows));
        // What several approved runs did was approved with them, whatever was declared before; what one did was a slip.
        flags.set(Flag::OutOfScope, scope == Scope::Outside && !self.entry.is_some_and(Bits::is_needed));
        flags.set(Flag::OutOfWindow, is_out_of_window);
    }

    fn flag_targets(&self, deviation: &mut Deviation, key: &Key) {
        let Observed { targets, references, .. } = *self.observed;
        let mut found = false;
        for name in own_targets(targets, references) {
            let target = key.text(name);
            let is_known = |baseline: &Baseline| baseline.has_target(self.action, target);
            if self.narrow.is_some_and(is_known) {
                continue;
            }
            let identity = self.identity.is_some_and(is_known);
            let is_unexpected = !self.expects_target(target, identity) && !self.names(name);
            deviation.flags.set(Flag::NewTarget, self.narrow.is_some() || !identity);
            deviation.flags.set(Flag::NewTargetForIdentity, !identity);
            deviation.flags.set(Flag::UnexpectedTarget, is_unexpected);
            // Evidence is about the first unexpected one, or else the first new one.
            if !found {
                deviation.target_at = place(targets.iter().position(|one| target_name(one) == name));
                deviation.about = deviation.about.with(target, Kind::Target);
                found = is_unexpected;
            }
        }
    }

    fn expects_target(&self, target: Fingerprint, for_identity: bool) -> bool {
        if self.mature {
            return for_identity && self.entry.is_some_and(Bits::is_open);
        }
        for_identity || self.identity.is_some_and(|baseline| baseline.has_value(target))
    }

    fn flag_references(&self, deviation: &mut Deviation, key: &Key) {
        let mut found = false;
        for (at, reference) in self.observed.references.iter().enumerate() {
            let name = reference_name(reference);
            let reference = key.folded(name);
            if self.narrow.is_some_and(|baseline| baseline.reference(reference).is_some()) {
                continue;
            }
            let identity = self.identity.and_then(|baseline| baseline.reference(reference));
            let is_unexpected = !self.expects_reference(name, identity)
                && !self.knows_site(name, key)
                && !self.looks_up(name);
            deviation.flags.set(Flag::NewReference, self.narrow.is_some() || identity.is_none());
            deviation.flags.set(Flag::NewReferenceForIdentity, identity.is_none());
            deviation.flags.set(Flag::UnexpectedReference, is_unexpected);
            if !found {
                deviation.reference_at = place(Some(at));
                deviation.about = deviation.about.with(reference, Kind::Reference);
                found = is_unexpected;
            }
        }
    }

    /// A mature baseline knows to whom outside its task hands something. Without one, handing it to somebody whom a single other task
    /// knows is no better than to a stranger: that task's counterparty is not this one's.
    fn expects_reference(&self, name: &str, identity: Option<Bits>) -> bool {
        let class = self.observed.class;
        if self.mature {
            return identity.is_some() && (!class.counts() || self.rules.is_own(name));
        }
        identity.is_some_and(|bits| !class.has_effect() || bits.is_shared())
            || self.rules.is_own(name)
            || self.names(name)
    }

    /// A page of a site that the task was approved for as a whole, to read it, or an address at that site: the same party.
    fn knows_site(&self, name: &str, key: &Key) -> bool {
        let site = host(name);
        let (is_address, site) = site.rsplit_once('@').map_or((false, site), |(_, site)| (true, site));
        let is_known = |baseline: &Baseline| baseline.reference(key.folded(site)).is_some();
        (is_address || self.observed.class == ActionClass::Fetch) && self.narrow.is_some_and(is_known)
    }

    /// Who reads at home by an address hands nothing to anybody. An address inside of a longer text is another matter: that is
    /// somebody's instructions on their way.
    fn looks_up(&self, name: &str) -> bool {
        let is_it = |target: &&str| reference_name(target).eq_ignore_ascii_case(name);
        self.observed.class == ActionClass::Read && self.observed.targets.iter().any(is_it)
    }

    fn flag_origin(&self, flags: &mut Flags, network: Option<Fingerprint>, session: &SessionBehavior) {
        let Observed { token_age_s, burst_score, .. } = *self.observed;
        if let Some(network) = network {
            let is_new = |baseline: &Baseline| baseline.knows_networks() && !baseline.has_network(network);
            flags.set(Flag::NewNetwork, self.identity.is_some_and(is_new));
            flags.set(Flag::SecondNetwork, session.network.is_some_and(|first| first != network));
        }
        flags.set(Flag::FreshToken, token_age_s.is_some_and(|age| age <= self.rules.fresh_token_s));
        flags.set(Flag::Burst, self.rules.burst_score.is_some_and(|least| burst_score >= least));
    }

    fn flag_denial(&self, flags: &mut Flags, session: &SessionBehavior) {
        if !self.observed.is_denied {
            return;
        }
        let allowed =
            self.identity.or(self.narrow).is_some_and(|baseline| baseline.action(self.action).is_some());
        flags.set(Flag::Denied, true);
        flags.set(Flag::AllowedElsewhere, allowed);
        flags.set(Flag::NeverAllowed, !allowed);
        flags.set(Flag::RepeatedDenial, session.denied_action == Some(self.action));
    }

    fn names(&self, name: &str) -> bool {
        names(self.observed.purpose, name)
    }
}

fn place(at: Option<usize>) -> u16 {
    at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
}

/// Whether words name something, in whatever ASCII case: as a whole, so that `site.com` is not named by `my-site.com`
/// nor by `site.com.evil.io`.
fn names(words: &str, name: &str) -> bool {
    let (words, name) = (words.as_bytes(), name.as_bytes());
    let words = words.get(..PURPOSE_BYTES_MAX).unwrap_or(words);
    let [first, second, ..] = *name else { return false };
    (0..words.len()).step_by(SPAN).any(|start| {
        let (_, span) = words.split_at_checked(start).unwrap_or_default();
        // Nearly every place in a span that holds the two letters does not.
        let begins_here = |at: &usize| {
            let pair = span.get(*at..*at + 2);
            pair.is_some_and(|pair| matches!(pair, [a, b] if is_same(*a, first) && is_same(*b, second)))
        };
        holds_pair(span, first, second)
            && (0..SPAN).filter(begins_here).any(|at| {
                let (before, rest) = words.split_at_checked(start + at).unwrap_or_default();
                let (found, after) = rest.split_at_checked(name.len()).unwrap_or_default();
                found.eq_ignore_ascii_case(name) && begins(before) && ends(after)
            })
    })
}

/// Whether two bytes may stand side by side where the next span begins. Without branches, so that many are looked at
/// at once: most spans do not hold even the beginning of a name.
fn holds_pair(words: &[u8], first: u8, second: u8) -> bool {
    let pairs = words.iter().zip(words.get(1..).unwrap_or_default()).take(SPAN);
    pairs.fold(false, |found, (one, other)| found | (is_same(*one, first) & is_same(*other, second)))
}

/// Whether two bytes may be one letter in either case; some other pairs of bytes look the same.
const fn is_same(one: u8, other: u8) -> bool {
    const CASE: u8 = 0x20;
    one | CASE == other | CASE
}

/// Whether a name can begin after this.
fn begins(before: &[u8]) -> bool {
    match before.last() {
        None => true,
        Some(b'.') => before.last_chunk::<4>().is_some_and(|last| last.eq_ignore_ascii_case(b"www.")),
        Some(byte) => !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'_' | b'@') && byte.is_ascii(),
    }
}

/// Whether a name can end before this.
fn ends(after: &[u8]) -> bool {
    match after {
        [] => true,
        // A sentence may end without a space before the next.
        [b'.', next, ..] => !next.is_ascii_lowercase() && !next.is_ascii_digit(),
        [byte, ..] => !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'_' | b'@') && byte.is_ascii(),
    }
}

#[cfg(test)]
mod names_tests {
    use super::names;

    #[test]
    fn words_name_something_only_as_a_whole() {
        let words = "Pay SE3550 and look at www.Site.com/x, then mail ann@b.io.Then rest.";
        for name in ["se3550", "site.com/x", "site.com", "ann@b.io", "Pay"] {
            assert!(names(words, name), "{name}");
        }
        for name in ["e3550", "se355", "ite.com", "b.io", "x", "", "site.co", "ann"] {
            assert!(!names(words, name), "{name}");
        }
        assert!(!names("see my-site.com", "site.com"));
        assert!(!names("see site.com.evil.io", "site.com"));
    }
}
