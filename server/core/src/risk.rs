//! Risk of one subject: one slot per kind of signal, each decaying by its half-life, joined by noisy-or.
//!
//! With weights `w` = severity × confidence × 2^(−age / half-life), the score is 100 × (1 − Π(1 − w)): two
//! independent hints weigh more than either, and none can push it past 100. Bounded by construction:
//! [`RiskKind::ALL`] slots. INVARIANT (order): the state depends on the set of signals, not on the order in
//! which they arrive; a newer event replaces an older one of its kind, and of two of the same time the heavier
//! stays. Deterministic: only IEEE additions and multiplications, no library function.

use crate::time::Now;

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RiskKind {
    /// Behaviour that deviates from what was approved.
    AnomalousBehavior,
    /// A credential is known or believed to be in other hands.
    CredentialCompromise,
    /// Malware, tampering or a vulnerable build on the workload or device.
    WorkloadCompromise,
    /// Use from a place, network or provider that does not fit.
    NetworkAnomaly,
    /// Instructions from untrusted content reached an agent.
    PromptInjection,
    /// Data is leaving, or about to.
    DataExfiltration,
    /// A vendor's score that fits no other kind.
    VendorScore,
    /// Set by an operator.
    Operator,
}

impl RiskKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::AnomalousBehavior,
        Self::CredentialCompromise,
        Self::WorkloadCompromise,
        Self::NetworkAnomaly,
        Self::PromptInjection,
        Self::DataExfiltration,
        Self::VendorScore,
        Self::Operator,
    ];

    /// Its name in policy and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnomalousBehavior => "anomalous_behavior",
            Self::CredentialCompromise => "credential_compromise",
            Self::WorkloadCompromise => "workload_compromise",
            Self::NetworkAnomaly => "network_anomaly",
            Self::PromptInjection => "prompt_injection",
            Self::DataExfiltration => "data_exfiltration",
            Self::VendorScore => "vendor_score",
            Self::Operator => "operator",
        }
    }
}

/// One signal about a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiskSignal {
    /// What was seen.
    pub kind: RiskKind,
    /// How bad it is if true, 0 to 100; 0 clears the kind.
    pub severity: u8,
    /// How sure the source is, 0 to 100.
    pub confidence: u8,
    /// When it happened, Unix milliseconds.
    pub event_ms: i64,
    /// Time after which the weight has halved, in seconds; at least 1.
    pub half_life_s: u32,
}

/// A slot that weighs less than this, of 1, is not named as a reason.
const NAMED_FROM: f64 = 0.01;

/// The newest signal of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// severity × confidence, 0 to 10,000.
    pub weight: u16,
    /// Time after which it has halved, in seconds; at least 1.
    pub half_life_s: u32,
    /// When it happened, Unix milliseconds.
    pub event_ms: i64,
}

/// Everything that is known of one subject's risk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Risk {
    slots: [Option<Slot>; RiskKind::ALL.len()],
}

impl Risk {
    /// Takes in a signal; `false` if newer knowledge of its kind stays.
    pub fn apply(&mut self, signal: &RiskSignal) -> bool {
        let slot = Slot {
            weight: u16::from(signal.severity.min(100)) * u16::from(signal.confidence.min(100)),
            half_life_s: signal.half_life_s.max(1),
            event_ms: signal.event_ms,
        };
        let Some(place) = self.slots.get_mut(usize::from(signal.kind as u8)) else { return false };
        let rank = |slot: &Slot| (slot.event_ms, slot.weight, slot.half_life_s);
        if place.as_ref().is_some_and(|known| rank(known) >= rank(&slot)) {
            return false;
        }
        *place = Some(slot);
        true
    }

    /// The newest signal of each kind that was ever seen.
    pub fn slots(&self) -> impl Iterator<Item = (RiskKind, Slot)> {
        RiskKind::ALL.into_iter().zip(&self.slots).filter_map(|(kind, slot)| Some((kind, (*slot)?)))
    }

    /// As [`Risk::slots`] gave it.
    #[must_use]
    pub fn from_slots(slots: impl IntoIterator<Item = (RiskKind, Slot)>) -> Self {
        let mut risk = Self::default();
        for (kind, slot) in slots {
            if let Some(place) = risk.slots.get_mut(usize::from(kind as u8)) {
                *place = Some(slot);
            }
        }
        risk
    }

    /// 0 to 100, at this instant.
    #[must_use]
    pub fn score(&self, now: Now) -> u8 {
        let clear: f64 = self.weights(now).map(|(_, weight)| 1.0 - weight).product();
        let score = (100.0 * (1.0 - clear)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        {
            score as u8
        }
    }

    /// Kinds that still weigh, in their order.
    pub fn reasons(&self, now: Now) -> impl Iterator<Item = RiskKind> {
        self.weights(now).filter(|(_, weight)| *weight >= NAMED_FROM).map(|(kind, _)| kind)
    }

    /// When the newest signal happened, Unix milliseconds.
    #[must_use]
    pub fn newest_ms(&self) -> Option<i64> {
        self.slots.iter().flatten().map(|slot| slot.event_ms).max()
    }

    /// In words, what the score rests on: kind, weight at the event, age.
    #[must_use]
    pub fn explain(&self, now: Now) -> String {
        let parts = RiskKind::ALL.into_iter().zip(&self.slots).filter_map(|(kind, slot)| {
            let slot = slot.filter(|slot| slot.weight > 0)?;
            let (weight, age_s) = (slot.weight / 100, now.since_s(slot.event_ms));
            Some(format!("{} {weight} {age_s} s ago, half-life {} s", kind.name(), slot.half_life_s))
        });
        parts.collect::<Vec<_>>().join("; ")
    }

    fn weights(&self, now: Now) -> impl Iterator<Item = (RiskKind, f64)> {
        RiskKind::ALL.into_iter().zip(self.slots).filter_map(move |(kind, slot)| {
            let slot = slot.filter(|slot| slot.weight > 0)?;
            let age_ms = now.wall_ms.saturating_sub(slot.event_ms).max(0);
            Some((kind, f64::from(slot.weight) / 10_000.0 * halvings(age_ms, slot.half_life_s)))
        })
    }
}

/// 2^(−age / half-life), exact to 2^−16 of a half-life.
fn halvings(age_ms: i64, half_life_s: u32) -> f64 {
    /// 2^(−1/2), 2^(−1/4), …
    const ROOTS: [f64; 16] = [
        std::f64::consts::FRAC_1_SQRT_2,
        0.840_896_415_253_714_5,
        0.917_004_043_204_671_2,
        0.957_603_280_698_573_6,
        0.978_572_062_087_700_1,
        0.989_228_013_193_975_5,
        0.994_599_423_483_633_2,
        0.997_296_056_085_470_1,
        0.998_647_112_890_971_9,
        0.999_323_327_502_650_7,
        0.999_661_606_496_243_7,
        0.999_830_788_931_928_6,
        0.999_915_390_886_613_4,
        0.999_957_694_548_431_1,
        0.999_978_847_050_491_9,
        0.999_989_423_469_315_4,
    ];
    let half_life_ms = u64::from(half_life_s).saturating_mul(1000);
    let age = u64::try_from(age_ms).unwrap_or(0);
    let whole = age / half_life_ms;
    if whole >= 64 {
        return 0.0;
    }
    let sixteenth_bits = (age % half_life_ms).saturating_mul(1 << 16) / half_life_ms;
    let mut factor = 1.0;
    for (root, bit) in ROOTS.into_iter().zip((0..16).rev()) {
        if sixteenth_bits & (1 << bit) != 0 {
            factor *= root;
        }
    }
    for _ in 0..whole {
        factor *= 0.5;
    }
    factor
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(wall_ms: i64) -> Now {
        Now { mono_ns: 0, wall_ms }
    }

    fn signal(kind: RiskKind, severity: u8, event_ms: i64) -> RiskSignal {
        RiskSignal { kind, severity, confidence: 100, event_ms, half_life_s: 60 }
    }

    #[test]
    fn weight_halves_with_each_half_life() {
        let mut risk = Risk::default();
        assert_eq!(risk.score(at(0)), 0);
        risk.apply(&signal(RiskKind::Operator, 80, 0));
        assert_eq!([0, 60_000, 120_000].map(|ms| risk.score(at(ms))), [80, 40, 20]);
        assert_eq!(risk.score(at(i64::MAX)), 0);
    }

    #[test]
    fn kinds_join_by_noisy_or() {
        let mut risk = Risk::default();
        risk.apply(&signal(RiskKind::Operator, 50, 0));
        risk.apply(&signal(RiskKind::VendorScore, 50, 0));
        assert_eq!(risk.score(at(0)), 75);
        assert_eq!(risk.reasons(at(0)).collect::<Vec<_>>(), [RiskKind::VendorScore, RiskKind::Operator]);
    }

    #[test]
    fn a_newer_event_of_a_kind_replaces_and_an_older_does_not() {
        let mut risk = Risk::default();
        assert!(risk.apply(&signal(RiskKind::Operator, 90, 1000)));
        assert!(!risk.apply(&signal(RiskKind::Operator, 10, 500)));
        assert!(!risk.apply(&signal(RiskKind::Operator, 90, 1000)), "a repetition changes nothing");
        assert!(risk.apply(&signal(RiskKind::Operator, 0, 2000)), "severity 0 clears");
        assert_eq!(risk.score(at(2000)), 0);
    }

    fn any_signal() -> impl Strategy<Value = RiskSignal> {
        (0..8usize, 0..=100u8, 0..=100u8, 0..5i64, 1..100u32).prop_map(
            |(kind, severity, confidence, event, half_life_s)| RiskSignal {
                kind: RiskKind::ALL[kind],
                severity,
                confidence,
                event_ms: event * 1000,
                half_life_s,
            },
        )
    }

    proptest! {
        #[test]
        fn the_order_of_delivery_does_not_matter(
            signals in prop::collection::vec(any_signal(), 0..20).prop_flat_map(|signals| {
                (Just(signals.clone()), Just(signals).prop_shuffle())
            })
        ) {
            let mut risks = [Risk::default(), Risk::default()];
            for signal in &signals.0 { risks[0].apply(signal); }
            for signal in signals.1.iter().chain(&signals.0) { risks[1].apply(signal); }
            prop_assert_eq!(&risks[0], &risks[1]);
        }

        #[test]
        fn decay_follows_the_power_of_two(age_ms in 0..10_000_000i64, half_life_s in 1..100_000u32) {
            let exact = (-(age_ms as f64) / (f64::from(half_life_s) * 1000.0)).exp2();
            prop_assert!((halvings(age_ms, half_life_s) - exact).abs() < 1e-4);
        }

        #[test]
        fn a_heavier_signal_never_lowers_the_score(
            signals in prop::collection::vec(any_signal(), 0..10), more in any_signal(), age in 0..100_000i64
        ) {
            let mut risk = Risk::default();
            for signal in &signals { risk.apply(signal); }
            let mut higher = risk.clone();
            // Of a kind of its own, so that it cannot replace a heavier one.
            if risk.slots[more.kind as usize].is_none() {
                higher.apply(&more);
                prop_assert!(higher.score(at(age)) >= risk.score(at(age)));
            }
        }
    }
}
