//! What follows from an event about somebody, as plain data: the one place that says what each event of CAEP and RISC does.
//!
//! What closes a door is done to whomever the subject surely includes, and more if a part of it is not understood. What
//! opens one is done only if the whole subject is understood.
//! Never does: changing anything, reading a clock.

use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_policy_store::engine::Uid;
use smol_str::SmolStr;

use super::super::event::{Compliance, CredentialChange, Direction, Event, EventType, RiskLevel, What};
use super::options::{ClaimsChange, RiskScale};
use super::subjects::Whom;

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan {
    /// Changes of state, in this order.
    Change(Vec<Effect>),
    /// Nothing; it is recorded.
    Record,
    /// Nothing, for nobody is meant here.
    Unmapped,
    /// Nothing, for this member is not understood and must be.
    Critical(SmolStr),
}

/// One change of state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Sessions are over.
    End(Which),
    /// A principal may not act, or may again.
    Disable(Uid),
    Enable(Uid),
    /// It is gone for good.
    Purge(Uid),
    /// A credential changed: what was opened before is to authenticate again.
    Credential(Uid),
    /// The same, where only one of the principal's sessions is known.
    CredentialOf(SmolStr),
    /// A session has this assurance level.
    Assurance(Which, u8),
    /// A session has this assurance level, unless its own is lower.
    AssuranceAtMost(Which, u8),
    /// A device meets the rules or does not.
    Device(SmolStr, bool),
    /// The device of a session does.
    DeviceOf(Which, bool),
    Risk(Uid, RiskSignal),
}

/// Sessions that match everything that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Which {
    pub(crate) session: Option<SmolStr>,
    pub(crate) principal: Option<Uid>,
    pub(crate) device: Option<SmolStr>,
    pub(crate) tenant: Option<SmolStr>,
}

/// What a receiver says of events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) risk: RiskScale,
    pub(crate) claims_change: ClaimsChange,
}

impl Plan {
    /// What follows from an event.
    pub(crate) fn of<'c>(
        event: &Event,
        event_ms: i64,
        whom: &Whom,
        critical: impl Iterator<Item = &'c SmolStr>,
        manner: &Manner,
    ) -> Self {
        if let Some(member) = whom.critical(critical) {
            return Self::Critical(member.clone());
        }
        let which = which(whom);
        let principal = whom.principal().cloned();
        let opens = |effects: Option<Vec<Effect>>| effects.filter(|_| whom.is_whole());
        let effects = match &event.what {
            What::SessionRevoked | What::SessionsRevoked => which.ended(),
            What::TokenClaimsChange { .. } if manner.claims_change == ClaimsChange::Record => {
                return Self::Record;
            }
            What::CredentialChange { change_type: CredentialChange::Create, .. } => return Self::Record,
            What::TokenClaimsChange { .. }
            | What::CredentialChange { .. }
            | What::AccountCredentialChangeRequired
            | What::IdentifierChanged { .. } => credential(principal, which.session),
            What::CredentialCompromise { .. } => {
                let severity = manner.risk.compromise;
                let signal = manner.risk.signal(RiskKind::CredentialCompromise, severity, event_ms);
                let risk = principal.clone().map(|uid| Effect::Risk(uid, signal));
                credential(principal, which.session).map(|effects| effects.into_iter().chain(risk).collect())
            }
            What::AssuranceLevelChange { namespace, current_level, change_direction, .. } => {
                let falls = *change_direction != Some(Direction::Increase);
                let level = aal(namespace, current_level).filter(|_| which.session.is_some());
                match level {
                    Some(level) if whom.is_whole() => Some(vec![Effect::Assurance(which, level)]),
                    Some(level) if falls => Some(vec![Effect::AssuranceAtMost(which, level)]),
                    Some(_) => None,
                    // Levels that cannot be compared, or of nobody's session in particular: whoever lost some logs in again.
                    None if falls => credential(principal, which.session),
                    None => return Self::Record,
                }
            }
            What::DeviceComplianceChange { current_status, .. } => {
                let complies = *current_status == Compliance::Compliant;
                let effects = match (whom.device(), &which.session) {
                    (Some(device), _) => Some(vec![Effect::Device(device.clone(), complies)]),
                    (None, Some(_)) => Some(vec![Effect::DeviceOf(which, complies)]),
                    (None, None) => None,
                };
                if complies { opens(effects) } else { effects }
            }
            What::RiskLevelChange { principal: kind, current_level, .. } => {
                let severity = manner.risk.severity(*current_level);
                let at_risk = match kind.as_str() {
                    "USER" => principal,
                    kind => whom.entity(&kind.to_ascii_lowercase()).cloned(),
                };
                let signal = manner.risk.signal(RiskKind::VendorScore, severity, event_ms);
                let effects = at_risk.map(|uid| vec![Effect::Risk(uid, signal)]);
                if *current_level == RiskLevel::Low { opens(effects) } else { effects }
            }
            What::AccountDisabled { .. } => {
                principal.map(|uid| vec![Effect::Disable(uid.clone()), end_all(uid)])
            }
            What::AccountPurged => principal.map(|uid| vec![Effect::Purge(uid.clone()), end_all(uid)]),
            What::AccountEnabled => opens(principal.map(|uid| vec![Effect::Enable(uid)])),
            // The name belongs to somebody else now: what its old owner opened is over, and the new one may act.
            What::IdentifierRecycled => principal.map(|uid| vec![end_all(uid)]),
            What::SessionEstablished { .. }
            | What::SessionPresented { .. }
            | What::OptIn
            | What::OptOutInitiated
            | What::OptOutCancelled
            | What::OptOutEffective
            | What::RecoveryActivated
            | What::RecoveryInformationChanged
            | What::Verification { .. }
            | What::StreamUpdated { .. } => return Self::Record,
        };
        effects.map_or(Self::Unmapped, Self::Change)
    }
}

impl Which {
    /// These sessions are over. What names nothing would mean every session, and means none.
    fn ended(self) -> Option<Vec<Effect>> {
        (self != Self::default()).then(|| vec![Effect::End(self)])
    }
}

impl RiskScale {
    fn severity(&self, level: RiskLevel) -> u8 {
        match level {
            RiskLevel::Low => self.low,
            RiskLevel::Medium => self.medium,
            RiskLevel::High => self.high,
        }
    }

    fn signal(&self, kind: RiskKind, severity: u8, event_ms: i64) -> RiskSignal {
        RiskSignal { kind, severity, confidence: self.confidence, event_ms, half_life_s: self.half_life_s }
    }
}

fn which(whom: &Whom) -> Which {
    Which {
        session: whom.session().cloned(),
        principal: whom.principal().cloned(),
        device: whom.device().cloned(),
        tenant: whom.tenant().cloned(),
    }
}

fn end_all(uid: Uid) -> Effect {
    Effect::End(Which { principal: Some(uid), ..Which::default() })
}

fn credential(principal: Option<Uid>, session: Option<SmolStr>) -> Option<Vec<Effect>> {
    let effect = principal.map(Effect::Credential).or_else(|| session.map(Effect::CredentialOf));
    effect.map(|effect| vec![effect])
}

/// A level of NIST SP 800-63B as sessions hold it: `nist-aal2`, `AAL2` or `2`.
fn aal(namespace: &str, level: &str) -> Option<u8> {
    if !namespace.eq_ignore_ascii_case("NIST-AAL") {
        return None;
    }
    let level = level.to_ascii_lowercase();
    let digits = level.trim_start_matches("nist").trim_start_matches(['-', '_']).trim_start_matches("aal");
    digits.trim_start_matches(['-', '_']).parse().ok().filter(|level| *level <= 3)
}

/// How an event is called in records.
pub(crate) fn kind(event: EventType) -> SmolStr {
    let family =
        event.family().base().trim_end_matches("/event-type/").rsplit('/').next().unwrap_or_default();
    format!("{family}/{}", event.name()).into()
}

#[cfg(test)]
mod tests;
