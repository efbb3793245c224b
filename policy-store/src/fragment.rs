//! The facts that policies can read: their names, their order, and the schema fragment that types them.
//!
//! Owns the numbering of facts. Limits: at most 64 facts and 32 counters, so that a set of them is one word.
//! Never holds a value; `cardea-core` supplies those.

use std::sync::LazyLock;

use smol_str::SmolStr;

/// The schema fragment that every bundle is validated with, namespace `Cardea`.
pub const SCHEMA: &str = include_str!("cardea.cedarschema");

/// What `context.risk.level` can be.
pub const RISK_LEVELS: [&str; 3] = ["low", "medium", "high"];
/// What `context.risk.reasons` can hold: the kinds of risk signals.
pub const RISK_KINDS: [&str; 8] = [
    "anomalous_behavior",
    "credential_compromise",
    "workload_compromise",
    "network_anomaly",
    "prompt_injection",
    "data_exfiltration",
    "vendor_score",
    "operator",
];

/// What `context.behavior.assessment` can be.
pub const ASSESSMENTS: [&str; 4] = ["none", "workflow_change", "misconfiguration", "abuse"];

/// A part of the context, by its name in `context`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Group {
    /// `Cardea::Session`
    Session,
    /// `Cardea::Risk`
    Risk,
    /// `Cardea::Behavior`
    Behavior,
    /// `Cardea::Task`
    Task,
    /// `Cardea::Token`
    Token,
    /// `Cardea::Actor`
    Actor,
    /// What the enforcement point sent; typed by the bundle.
    Request,
    /// The time of the decision, a `datetime`.
    Now,
    /// `Cardea::Signals`
    Signals,
    /// The bundle's counters, each a `Cardea::Counter`.
    Counters,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 10] = [
        Self::Session,
        Self::Risk,
        Self::Behavior,
        Self::Task,
        Self::Token,
        Self::Actor,
        Self::Request,
        Self::Now,
        Self::Signals,
        Self::Counters,
    ];

    /// The attribute of `context`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Risk => "risk",
            Self::Behavior => "behavior",
            Self::Task => "task",
            Self::Token => "token",
            Self::Actor => "actor",
            Self::Request => "request",
            Self::Now => "now",
            Self::Signals => "signals",
            Self::Counters => "counters",
        }
    }

    /// The group of that attribute.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    /// The name of its type in the fragment; `None` for groups that the fragment does not type.
    #[must_use]
    pub const fn type_name(self) -> Option<&'static str> {
        match self {
            Self::Session => Some("Cardea::Session"),
            Self::Risk => Some("Cardea::Risk"),
            Self::Behavior => Some("Cardea::Behavior"),
            Self::Task => Some("Cardea::Task"),
            Self::Token => Some("Cardea::Token"),
            Self::Actor => Some("Cardea::Actor"),
            Self::Signals => Some("Cardea::Signals"),
            Self::Request | Self::Now | Self::Counters => None,
        }
    }

    /// The fact of that name in the group.
    #[must_use]
    pub fn fact(self, name: &str) -> Option<Fact> {
        Fact::ALL.into_iter().find(|fact| fact.group() == self && fact.name() == name)
    }

    /// Whether its facts are those of one hop of a delegation chain, not of the attempt.
    #[must_use]
    pub const fn is_of_hop(self) -> bool {
        match self {
            Self::Risk | Self::Actor => true,
            Self::Session
            | Self::Behavior
            | Self::Task
            | Self::Token
            | Self::Request
            | Self::Now
            | Self::Signals
            | Self::Counters => false,
        }
    }

    /// The group's facts.
    pub fn facts(self) -> impl Iterator<Item = Fact> {
        Fact::ALL.into_iter().filter(move |fact| fact.group() == self)
    }
}

macro_rules! facts {
    ($($variant:ident $group:ident $name:literal,)*) => {
        /// One fact.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Fact {
            $(#[doc = concat!("`context.", stringify!($group), ".", $name, "`; see `SCHEMA`.")] $variant,)*
        }

        impl Fact {
            /// Every fact, in order.
            pub const ALL: [Self; [$(stringify!($variant)),*].len()] = [$(Self::$variant),*];

            /// The group that it belongs to.
            #[must_use]
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)* }
            }

            /// Its name in the group.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

facts! {
    SessionKnown Session "known",
    SessionAge Session "age_s",
    SessionIdle Session "idle_s",
    SessionAuthAge Session "auth_age_s",
    SessionAcr Session "acr",
    SessionAal Session "aal",
    SessionAmr Session "amr",
    SessionCredentialChanged Session "credential_changed",
    SessionDeviceCompliant Session "device_compliant",
    SessionNetworks Session "networks",
    SessionLabels Session "labels",
    SessionGrants Session "grants",
    RiskScore Risk "score",
    RiskLevel Risk "level",
    RiskReasons Risk "reasons",
    RiskAge Risk "age_s",
    BehaviorKnown Behavior "known",
    BehaviorPreviousAction Behavior "previous_action",
    BehaviorAttempts Behavior "attempts",
    BehaviorDenials Behavior "denials",
    BehaviorBaseline Behavior "baseline",
    BehaviorMature Behavior "mature",
    BehaviorNewAction Behavior "new_action",
    BehaviorNewTarget Behavior "new_target",
    BehaviorNewReference Behavior "new_reference",
    BehaviorNewTransition Behavior "new_transition",
    BehaviorUnexpected Behavior "unexpected",
    BehaviorSecondNetwork Behavior "second_network",
    BehaviorOutOfScope Behavior "out_of_scope",
    BehaviorFreshToken Behavior "fresh_token",
    BehaviorBurst Behavior "burst",
    BehaviorAssessment Behavior "assessment",
    BehaviorConfidence Behavior "confidence",
    BehaviorDeviations Behavior "deviations",
    BehaviorRisk Behavior "risk",
    TaskKnown Task "known",
    TaskId Task "id",
    TaskPurpose Task "purpose",
    TaskActive Task "active",
    TaskInScope Task "in_scope",
    TaskRemaining Task "remaining_s",
    TokenKnown Token "known",
    TokenAge Token "age_s",
    TokenExpiresIn Token "expires_in_s",
    TokenIssuer Token "issuer",
    TokenScopes Token "scopes",
    TokenBound Token "bound",
    ActorDepth Actor "depth",
    ActorImmediate Actor "immediate",
    ActorRoot Actor "root",
    SignalsSilent Signals "silent",
}

const _: () = assert!(Fact::ALL.len() <= 64, "a set of facts is one 64-bit word");

impl Fact {
    /// Path as policy writes it, without `context.`.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
    pub fn path(self) -> &'static str {
        static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
            Fact::ALL.iter().map(|fact| format!("{}.{}", fact.group().name(), fact.name())).collect()
        });
        PATHS.get(self as usize).map_or("", String::as_str)
    }

    /// The key in the flat record that conditions read. Starts with a control character, which no schema
    /// attribute that Cardea accepts in `context` does.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
    pub fn key(self) -> SmolStr {
        let text = [1, b'!' + self as u8];
        SmolStr::new_inline(std::str::from_utf8(&text).unwrap_or(""))
    }

    /// Whether it comes of comparing the attempt with what was approved.
    #[must_use]
    pub const fn is_compared(self) -> bool {
        matches!(
            self,
            Self::BehaviorBaseline
                | Self::BehaviorMature
                | Self::BehaviorNewAction
                | Self::BehaviorNewTarget
                | Self::BehaviorNewReference
                | Self::BehaviorNewTransition
                | Self::BehaviorUnexpected
                | Self::BehaviorSecondNetwork
                | Self::BehaviorOutOfScope
                | Self::BehaviorFreshToken
                | Self::BehaviorBurst
                | Self::BehaviorAssessment
                | Self::BehaviorConfidence
                | Self::BehaviorDeviations
                | Self::BehaviorRisk
        )
    }

    /// The fact of that key in the flat record.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        match key.as_bytes() {
            [1, place] => Self::ALL.get(usize::from(place.checked_sub(b'!')?)).copied(),
            _ => None,
        }
    }
}

/// The value of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum FactValue {
    /// `Bool`
    Bool(bool),
    /// `Long`
    Long(i64),
    /// `String`
    Text(SmolStr),
    /// `Set<String>`
    Texts(Vec<SmolStr>),
}

/// What a policy reads of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CounterField {
    /// `Cardea::Counter.count`
    Count,
    /// `Cardea::Counter.warm`
    Warm,
}

impl CounterField {
    /// Every field.
    pub const ALL: [Self; 2] = [Self::Count, Self::Warm];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Warm => "warm",
        }
    }

    /// The key in the flat record that conditions read, for the counter of that number; as [`Fact::key`].
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
    pub fn key(self, counter: u8) -> SmolStr {
        let text = [2, b'!' + (counter % 32) * 2 + self as u8];
        SmolStr::new_inline(std::str::from_utf8(&text).unwrap_or(""))
    }

    /// The counter and the field of that key in the flat record.
    #[must_use]
    pub fn of_key(key: &str) -> Option<(u8, Self)> {
        match key.as_bytes() {
            [2, place] => {
                let place = place.checked_sub(b'!')?;
                let field = if place.is_multiple_of(2) { Self::Count } else { Self::Warm };
                Some((place / 2, field)).filter(|(counter, _)| *counter < 32)
            }
            _ => None,
        }
    }
}

/// A set of a bundle's counters, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CounterSet(u32);

impl CounterSet {
    /// All that a bundle can have.
    pub const ALL: Self = Self(u32::MAX);

    /// Adds a counter.
    pub fn add(&mut self, number: u8) {
        self.0 |= 1_u32.checked_shl(number.into()).unwrap_or(0);
    }

    /// Whether a counter is in it.
    #[must_use]
    pub fn has(self, number: u8) -> bool {
        self.0 & 1_u32.checked_shl(number.into()).unwrap_or(0) != 0
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The numbers, rising.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..32).filter(move |number| self.has(*number))
    }
}

/// Which facts somebody reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Needs {
    facts: u64,
    counters: CounterSet,
    whole: u16,
}

impl Needs {
    /// Adds one fact.
    pub fn add(&mut self, fact: Fact) {
        self.facts |= 1 << fact as u8;
    }

    /// Adds one counter.
    pub fn add_counter(&mut self, number: u8) {
        self.counters.add(number);
    }

    /// The same with one fact more.
    #[must_use]
    pub fn and(mut self, fact: Fact) -> Self {
        self.add(fact);
        self
    }

    /// Adds a whole group, read other than field by field.
    pub fn add_whole(&mut self, group: Group) {
        self.whole |= 1 << group as u8;
        for fact in group.facts() {
            self.add(fact);
        }
        if group == Group::Counters {
            self.counters = CounterSet::ALL;
        }
    }

    /// The same, and of all counters only these.
    #[must_use]
    pub fn counting(self, counters: CounterSet) -> Self {
        Self { counters, ..self }
    }

    /// All that can be read.
    #[must_use]
    pub fn every() -> Self {
        let mut needs = Self::default();
        Group::ALL.into_iter().for_each(|group| needs.add_whole(group));
        needs
    }

    /// The union.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            facts: self.facts | other.facts,
            counters: self.counters.with(other.counters),
            whole: self.whole | other.whole,
        }
    }

    /// Only what belongs to groups that are whole in `groups`.
    #[must_use]
    pub fn within(self, groups: Self) -> Self {
        Self {
            facts: self.facts & groups.facts,
            counters: self.counters.within(groups.counters),
            whole: self.whole & groups.whole,
        }
    }

    /// Whether the fact is read.
    #[must_use]
    pub fn reads(self, fact: Fact) -> bool {
        self.facts & (1 << fact as u8) != 0
    }

    /// The counters that are read.
    #[must_use]
    pub fn counters(self) -> CounterSet {
        self.counters
    }

    /// Whether the group is read as a whole.
    #[must_use]
    pub fn reads_whole(self, group: Group) -> bool {
        self.whole & (1 << group as u8) != 0
    }

    /// Whether any fact of the group is read.
    #[must_use]
    pub fn reads_any(self, group: Group) -> bool {
        self.reads_whole(group) || self.facts & group_mask(group) != 0
    }

    /// Whether anything is read that comes of comparing the attempt with what was approved.
    #[must_use]
    pub fn compares(self) -> bool {
        self.facts & COMPARED != 0
    }

    /// Whether nothing is read.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.facts == 0 && self.counters.is_empty() && self.whole == 0
    }

    /// The facts, in order.
    pub fn facts(self) -> impl Iterator<Item = Fact> {
        let mut left = self.facts;
        std::iter::from_fn(move || {
            let index = usize::try_from(left.trailing_zeros()).ok()?;
            left &= left.wrapping_sub(1);
            Fact::ALL.get(index).copied()
        })
    }
}

/// The facts that come of comparing.
const COMPARED: u64 = {
    let mut mask = 0;
    let mut index = 0;
    while index < Fact::ALL.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        if Fact::ALL[index].is_compared() {
            mask |= 1 << index;
        }
        index += 1;
    }
    mask
};

fn group_mask(group: Group) -> u64 {
    const MASKS: [u64; 10] = {
        let mut masks = [0; 10];
        let mut index = 0;
        while index < Fact::ALL.len() {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            {
                masks[Fact::ALL[index].group() as usize] |= 1 << index;
            }
            index += 1;
        }
        masks
    };
    MASKS.get(group as usize).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_stay_inline() {
        let mut keys: Vec<SmolStr> = Fact::ALL.into_iter().map(Fact::key).collect();
        assert!(keys.iter().all(|key| key.len() == 2 && !key.is_heap_allocated()));
        assert!(Fact::ALL.into_iter().all(|fact| Fact::of_key(&fact.key()) == Some(fact)));
        assert!(["", "\u{1}", "\u{1} ", "\u{1}~", "ab"].iter().all(|key| Fact::of_key(key).is_none()));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), Fact::ALL.len());
    }

    #[test]
    fn counters_have_keys_of_their_own_and_a_set_is_one_word() {
        let mut keys: Vec<SmolStr> =
            (0..32).flat_map(|number| CounterField::ALL.map(|field| field.key(number))).collect();
        assert!(keys.iter().all(|key| key.len() == 2 && Fact::of_key(key).is_none()));
        for (number, field) in (0..32).flat_map(|number| CounterField::ALL.map(|field| (number, field))) {
            assert_eq!(CounterField::of_key(&field.key(number)), Some((number, field)));
        }
        assert!(Fact::ALL.into_iter().all(|fact| CounterField::of_key(&fact.key()).is_none()));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 64);
        let mut set = CounterSet::default();
        [31, 0, 7, 200].into_iter().for_each(|number| set.add(number));
        assert_eq!(set.numbers().collect::<Vec<_>>(), [0, 7, 31]);
        let mut needs = Needs::default();
        needs.add_whole(Group::Counters);
        let mut groups = Needs::default();
        groups.add_whole(Group::Counters);
        let within = needs.within(groups.counting(set));
        assert_eq!(within.counters(), set);
        assert!(within.reads_whole(Group::Counters) && !within.is_empty() && size_of::<Needs>() == 16);
    }

    #[test]
    fn a_set_gives_back_what_was_added() {
        let mut needs = Needs::default();
        needs.add(Fact::RiskScore);
        needs.add(Fact::ActorRoot);
        assert_eq!(needs.facts().collect::<Vec<_>>(), [Fact::RiskScore, Fact::ActorRoot]);
        assert!(needs.reads_any(Group::Risk) && !needs.reads_any(Group::Session));
        needs.add_whole(Group::Request);
        assert!(needs.reads_any(Group::Request));
        needs.add_whole(Group::Signals);
        assert!(needs.reads_whole(Group::Signals) && needs.reads(Fact::SignalsSilent));
    }
}
