//! What one session did so far, as far as the monitor needs it: a fixed number of bytes, no names.

use super::deviation::{Assessment, Deviation, Flag};
use super::fingerprint::Fingerprint;

/// After this time the risk of a session has halved, in milliseconds.
const RISK_HALF_LIFE_MS: u64 = 60_000;
/// How many deviations a session remembers having told.
const TOLD_MAX: usize = 8;
/// Numbers that hold all of it.
pub const WORDS: usize = 12;
/// Most risk of a session.
const RISK_MAX: u32 = 1_000_000;

/// See the module. It orders actions and counts; INVARIANT (never habitual): it never makes anything look approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionBehavior {
    /// The action that was last allowed.
    pub(super) last_action: Option<Fingerprint>,
    /// The network of the first attempt that named one.
    pub(super) network: Option<Fingerprint>,
    /// The action that was last denied.
    pub(super) denied_action: Option<Fingerprint>,
    /// Parts of the fingerprints of what was told last, in a ring.
    told: [u32; TOLD_MAX],
    /// When it was first seen, Unix milliseconds.
    first_seen_ms: Option<i64>,
    risk_at_ms: i64,
    /// In thousandths.
    risk: u32,
    attempts: u32,
    denials: u32,
    deviations: u32,
    incidents: u32,
}

impl SessionBehavior {
    /// One whose attempts were not compared so far: only what it was last allowed is known.
    #[must_use]
    pub fn after(action: Fingerprint) -> Self {
        Self { last_action: Some(action), ..Self::default() }
    }

    /// Notes an attempt after its verdict, at this time in Unix milliseconds. What was not allowed did not happen: it is no action that another comes after.
    pub fn note(&mut self, deviation: &Deviation, is_allowed: bool, now_ms: i64) {
        self.first_seen_ms.get_or_insert(now_ms);
        self.attempts = self.attempts.saturating_add(1);
        self.network = self.network.or(deviation.network);
        if is_allowed {
            self.last_action = Some(deviation.action);
        } else {
            self.denials = self.denials.saturating_add(1);
            self.denied_action = Some(deviation.action);
        }
        if deviation.assessment != Assessment::None && !self.told(deviation) {
            // The place follows from how many were told, so the oldest goes.
            let place = usize::try_from(self.incidents).unwrap_or(0) % TOLD_MAX;
            if let Some(oldest) = self.told.get_mut(place) {
                *oldest = short(deviation.about);
            }
            self.incidents = self.incidents.saturating_add(1);
        }
        let weight = match deviation.assessment {
            Assessment::None | Assessment::Misconfiguration => {
                u32::from(deviation.flags.has(Flag::NewTransition))
            }
            Assessment::WorkflowChange => 10,
            Assessment::Abuse => 50,
        };
        self.deviations = self.deviations.saturating_add(u32::from(deviation.assessment != Assessment::None));
        self.risk = self.risk_milli(now_ms).saturating_add(weight * 1000).min(RISK_MAX);
        self.risk_at_ms = self.risk_at_ms.max(now_ms);
    }

    /// All of it as numbers, to be kept; what they stand for is known only with the key of the fingerprints.
    #[must_use]
    pub fn to_words(&self) -> [u64; WORDS] {
        let of = |fingerprint: Option<Fingerprint>| fingerprint.map_or(0, Fingerprint::bits);
        let joined = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let [a, b, c, d, e, f, g, h] = self.told;
        [
            of(self.last_action),
            of(self.network),
            of(self.denied_action),
            joined(a, b),
            joined(c, d),
            joined(e, f),
            joined(g, h),
            self.first_seen_ms.unwrap_or(i64::MIN).cast_unsigned(),
            self.risk_at_ms.cast_unsigned(),
            joined(self.risk, self.attempts),
            joined(self.denials, self.deviations),
            joined(0, self.incidents),
        ]
    }

    /// What [`SessionBehavior::to_words`] gave.
    #[must_use]
    pub fn from_words(words: [u64; WORDS]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
        let halves = |word: u64| ((word >> 32) as u32, word as u32);
        let of = |bits: u64| (bits != 0).then_some(Fingerprint(bits));
        let [last, network, denied, ab, cd, ef, gh, first_seen, risk_at, risk, denials, incidents] = words;
        let ((a, b), (c, d), (e, f), (g, h)) = (halves(ab), halves(cd), halves(ef), halves(gh));
        let ((risk, attempts), (denials, deviations)) = (halves(risk), halves(denials));
        Self {
            last_action: of(last),
            network: of(network),
            denied_action: of(denied),
            told: [a, b, c, d, e, f, g, h],
            first_seen_ms: Some(first_seen.cast_signed()).filter(|at| *at != i64::MIN),
            risk_at_ms: risk_at.cast_signed(),
            risk: risk.min(RISK_MAX),
            attempts,
            denials,
            deviations,
            incidents: halves(incidents).1,
        }
    }

    /// Attempts so far.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Those of them that were denied.
    #[must_use]
    pub const fn denials(&self) -> u32 {
        self.denials
    }

    /// Those of them that were assessed as anything.
    #[must_use]
    pub const fn deviations(&self) -> u32 {
        self.deviations
    }

    /// Deviations without those that only repeat one of the last eight.
    #[must_use]
    pub const fn incidents(&self) -> u32 {
        self.incidents
    }

    /// Whether anything that it attempted was allowed.
    pub(super) const fn has_acted(&self) -> bool {
        self.last_action.is_some()
    }

    /// Whether the same was told before.
    pub(super) fn told(&self, deviation: &Deviation) -> bool {
        self.told.contains(&short(deviation.about))
    }

    /// When it was first seen, Unix milliseconds.
    #[must_use]
    pub const fn first_seen_ms(&self) -> Option<i64> {
        self.first_seen_ms
    }

    /// What its deviations weigh by now: 50 for abuse, 10 for a change of workflow, 1 for a new transition, halved every
    /// minute; at most 1,000.
    #[must_use]
    pub fn risk(&self, now_ms: i64) -> u32 {
        self.risk_milli(now_ms) / 1000
    }

    /// Halves by shifting, and linearly between two halvings: integers give the same on every node.
    fn risk_milli(&self, now_ms: i64) -> u32 {
        let elapsed_ms = u64::try_from(now_ms.saturating_sub(self.risk_at_ms)).unwrap_or(0);
        let halvings = elapsed_ms / RISK_HALF_LIFE_MS;
        let Some(halved) = u32::try_from(halvings).ok().and_then(|by| self.risk.checked_shr(by)) else {
            return 0;
        };
        let part = u64::from(halved) * (elapsed_ms % RISK_HALF_LIFE_MS) / (2 * RISK_HALF_LIFE_MS);
        halved.saturating_sub(u32::try_from(part).unwrap_or(halved))
    }
}

/// Enough of a fingerprint to tell a repetition; nothing is judged by it. 0 is no fingerprint.
const fn short(of: Fingerprint) -> u32 {
    (of.0 >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_the_same() {
        let mut session = SessionBehavior::default();
        assert_eq!(SessionBehavior::from_words(session.to_words()), session);
        for at in 1..40_u64 {
            let of = |kind| Fingerprint(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ kind);
            let deviation = Deviation {
                assessment: Assessment::WorkflowChange,
                action: of(1),
                about: of(2),
                network: Some(of(3)),
                ..Deviation::default()
            };
            session.note(&deviation, at % 3 != 0, i64::try_from(at).unwrap() * 700);
            assert_eq!(SessionBehavior::from_words(session.to_words()), session);
        }
    }

    #[test]
    fn risk_halves_every_minute_and_never_rises_by_itself() {
        let mut session = SessionBehavior::default();
        session.note(&Deviation { assessment: Assessment::Abuse, ..Deviation::default() }, false, 0);
        assert_eq!([0, 30_000, 60_000, 120_000].map(|ms| session.risk(ms)), [50, 37, 25, 12]);
        let mut last = u32::MAX;
        for ms in (0..4_000_000).step_by(997) {
            let risk = session.risk(ms);
            assert!(risk <= last);
            last = risk;
        }
        assert_eq!(session.risk(i64::MAX), 0);
    }
}
