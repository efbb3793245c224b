//! `cardea.v1.SignalService`: changes of fact from outside.

use std::sync::Arc;

use cardea_core::attempt::NAME_BYTES_MAX;
use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_core::session;
use cardea_core::subject::Standing;
use cardea_core::time::Now;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1::signal::Change as Told;
use cardea_proto::v1::signal_service_server::SignalService;
use cardea_proto::v1::{self, record::Entry};
use smol_str::SmolStr;
use tonic::{Request, Response, Status};

use super::{sessions, wire};
use crate::concluding::Why;
use crate::ledger::LedgerFault;
use crate::limits;
use crate::pipeline::{Pipeline, entity};
use crate::state::{Change, OpenFault, Outcome, Signal, Target, life_ms};

/// Longest half-life of a signal, in seconds: 30 days.
const HALF_LIFE_MAX_S: i64 = 30 * 24 * 3600;
/// Longest source and reason, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The service.
#[derive(Clone, Debug)]
pub struct SignalDoor(Arc<Pipeline>);

impl SignalDoor {
    /// Changes the state of this pipeline.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self(pipeline)
    }

    fn apply(&self, read: Read, message: v1::Signal, life_ms: i64, now: Now) -> (v1::SignalOutcome, u64) {
        // The record of the signal stands before those of what it takes back.
        let _recorded_first = self.0.state().feed().keep_back();
        // While nothing can be kept, nothing is opened: whoever is enabled now would be disabled after a restart.
        let applied = match self.0.state().fault() {
            Some(why) if self.0.state().is_opening(&read.signal, now) => {
                Err(OpenFault::Disk(LedgerFault::NotWritten(why)))
            }
            _ => {
                let why = Why::signal(message.source.as_str().into(), None, read.reason.clone());
                self.0.apply(&read.signal, &why, life_ms, now)
            }
        };
        let metrics = &self.0.metrics().signals;
        let (outcome, version) = match applied {
            Ok((outcome, version)) => {
                metrics.ok.increment(1);
                (outcome_message(outcome), version)
            }
            Err(_refused) => {
                metrics.refused.increment(1);
                (v1::SignalOutcome::Refused, self.0.state().version())
            }
        };
        let record = v1::SignalRecord {
            subject: read.subject.as_ref().map(entity),
            kind: read.kind.into(),
            source: message.source,
            outcome: outcome_name(outcome).to_owned(),
            state_version: version,
            reason: read.reason.into(),
            session_id: read.session_id.into(),
            txn: String::new(),
            token_id: String::new(),
        };
        self.0.record(Entry::Signal(record), now);
        (outcome, version)
    }
}

#[tonic::async_trait]
impl SignalService for SignalDoor {
    async fn report(
        &self,
        request: Request<v1::ReportSignalsRequest>,
    ) -> Result<Response<v1::ReportSignalsResponse>, Status> {
        let now = self.0.now();
        let Some(snapshot) = self.0.policy().snapshot() else {
            return Err(Status::unavailable("no policy bundle is in force, so types are not known"));
        };
        let signals = request.into_inner().signals;
        if signals.len() > limits::BATCH_ATTEMPTS_MAX {
            return Err(Status::invalid_argument(format!(
                "at most {} signals in one call",
                limits::BATCH_ATTEMPTS_MAX
            )));
        }
        // All are read before any is applied, so that a malformed one changes nothing.
        let count = signals.len();
        let which = |place: usize, fault: Status| match count {
            1 => fault,
            _ => Status::new(fault.code(), format!("signal {}: {}", place + 1, fault.message())),
        };
        let read: Result<Vec<_>, Status> = signals
            .into_iter()
            .enumerate()
            .map(|(place, message)| {
                let read = read(&message, &snapshot, now).map_err(|fault| which(place, fault))?;
                Ok((read, message))
            })
            .collect();
        let life_ms = life_ms(snapshot.settings());
        let mut outcomes = Vec::new();
        let mut state_version = self.0.state().version();
        for (read, message) in read? {
            self.0.state().hear(&message.source, snapshot.settings(), now);
            let (outcome, version) = self.apply(read, message, life_ms, now);
            state_version = state_version.max(version);
            outcomes.push(outcome.into());
        }
        self.0.state().durable().await.map_err(|fault| sessions::not_durable(&fault))?;
        Ok(Response::new(v1::ReportSignalsResponse { outcomes, state_version }))
    }
}

fn outcome_message(outcome: Outcome) -> v1::SignalOutcome {
    match outcome {
        Outcome::Applied => v1::SignalOutcome::Applied,
        Outcome::Superseded => v1::SignalOutcome::Superseded,
        Outcome::UnknownSubject => v1::SignalOutcome::UnknownSubject,
    }
}

pub(super) fn outcome_name(outcome: v1::SignalOutcome) -> &'static str {
    match outcome {
        v1::SignalOutcome::Applied => "applied",
        v1::SignalOutcome::Superseded => "superseded",
        v1::SignalOutcome::UnknownSubject => "unknown_subject",
        v1::SignalOutcome::Refused | v1::SignalOutcome::Unspecified => "refused",
    }
}

/// The change of fact that a message tells of.
pub(crate) fn signal(message: &v1::Signal, snapshot: &Snapshot, now: Now) -> Result<Signal, Status> {
    read(message, snapshot, now).map(|read| read.signal)
}

/// A signal with what its record says.
struct Read {
    signal: Signal,
    subject: Option<Uid>,
    session_id: SmolStr,
    kind: SmolStr,
    reason: SmolStr,
}

fn read(message: &v1::Signal, snapshot: &Snapshot, now: Now) -> Result<Read, Status> {
    let event_ms = wire::optional_ms(message.event_time.as_ref()).map_err(Status::invalid_argument)?;
    let event_ms = sessions::not_in_the_future(event_ms.unwrap_or(now.wall_ms), now)?;
    if message.source.len() > TEXT_BYTES_MAX {
        return Err(Status::invalid_argument(format!("`source` has at most {TEXT_BYTES_MAX} bytes")));
    }
    let told = message.change.as_ref().ok_or_else(|| Status::invalid_argument("`change` is missing"))?;
    let session_id = session_of(told);
    if session_id.len() > NAME_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a session's id has at most {NAME_BYTES_MAX} bytes")));
    }
    // What names a session, a device or a tenant need not name whose it is.
    let names_another =
        !session_id.is_empty() || !device_of(told).is_empty() || matches!(told, Told::TenantRevoked(_));
    let subject = match (&message.subject, names_another) {
        (None, true) => None,
        (reference, _) => Some(wire::uid("subject", reference.as_ref(), snapshot)?),
    };
    let (change, kind, reason) = change(told, subject.as_ref(), &session_id, event_ms, snapshot)?;
    Ok(Read { signal: Signal { event_ms, change }, subject, session_id, kind, reason })
}

fn session_of(told: &Told) -> SmolStr {
    match told {
        Told::SessionRevoked(change) => change.session_id.as_str().into(),
        Told::CredentialChanged(change) => change.session_id.as_str().into(),
        Told::DeviceCompliance(change) => change.session_id.as_str().into(),
        Told::AssuranceLevel(change) => change.session_id.as_str().into(),
        Told::Risk(_)
        | Told::PrincipalDisabled(_)
        | Told::PrincipalEnabled(_)
        | Told::PrincipalPurged(_)
        | Told::TenantRevoked(_) => SmolStr::default(),
    }
}

fn device_of(told: &Told) -> &str {
    match told {
        Told::DeviceCompliance(change) => &change.device_id,
        Told::Risk(_)
        | Told::SessionRevoked(_)
        | Told::PrincipalDisabled(_)
        | Told::PrincipalEnabled(_)
        | Told::CredentialChanged(_)
        | Told::AssuranceLevel(_)
        | Told::PrincipalPurged(_)
        | Told::TenantRevoked(_) => "",
    }
}

type Changed = (Change, SmolStr, SmolStr);

fn change(
    told: &Told,
    subject: Option<&Uid>,
    session_id: &SmolStr,
    event_ms: i64,
    snapshot: &Snapshot,
) -> Result<Changed, Status> {
    let subject = || subject.cloned().ok_or_else(|| Status::invalid_argument("`subject` is missing"));
    let of_session = |change| match session_id.is_empty() {
        true => Err(Status::invalid_argument("`session_id` is missing")),
        false => Ok(Change::Session(session_id.clone(), change)),
    };
    let named = |kind: &'static str, change: Change, reason: &str| {
        (change, SmolStr::new_static(kind), crate::pipeline::Seen::text(reason))
    };
    Ok(match told {
        Told::Risk(observed) => {
            let signal = risk(observed, event_ms, snapshot)?;
            let kind = format!("risk/{}", signal.kind.name());
            (Change::Risk(subject()?, signal), kind.into(), crate::pipeline::Seen::text(&observed.reason))
        }
        Told::SessionRevoked(revoked) => {
            let target = if session_id.is_empty() {
                Target::Principal(subject()?, event_ms)
            } else {
                Target::Session(session_id.clone())
            };
            let reason = crate::pipeline::Seen::text(&revoked.reason);
            named("session_revoked", Change::Revoked(target, reason), &revoked.reason)
        }
        Told::PrincipalDisabled(disabled) => {
            let change = Change::Standing(subject()?, Standing::Disabled);
            named("principal_disabled", change, &disabled.reason)
        }
        Told::PrincipalEnabled(_) => {
            named("principal_enabled", Change::Standing(subject()?, Standing::Enabled), "")
        }
        Told::PrincipalPurged(purged) => {
            named("principal_purged", Change::Standing(subject()?, Standing::Purged), &purged.reason)
        }
        Told::TenantRevoked(revoked) => {
            let target = Target::Tenant(text("tenant", &revoked.tenant)?, event_ms);
            let reason = crate::pipeline::Seen::text(&revoked.reason);
            named("tenant_revoked", Change::Revoked(target, reason), &revoked.reason)
        }
        Told::CredentialChanged(_) => {
            let change = match session_id.is_empty() {
                true => Change::Credential(subject()?),
                false => Change::Session(session_id.clone(), session::Change::CredentialChanged),
            };
            named("credential_changed", change, "")
        }
        Told::DeviceCompliance(device) => {
            let change = match (session_id.is_empty(), device.device_id.is_empty()) {
                (false, true) => of_session(session::Change::DeviceCompliance(device.compliant))?,
                (true, false) => Change::Device(text("device_id", &device.device_id)?, device.compliant),
                (true, true) | (false, false) => {
                    return Err(Status::invalid_argument(
                        "name the device by `session_id` or by `device_id`",
                    ));
                }
            };
            named("device_compliance", change, "")
        }
        Told::AssuranceLevel(level) => {
            let aal = u8::try_from(level.aal).ok().filter(|aal| *aal <= 3);
            let aal = aal.ok_or_else(|| Status::invalid_argument("`aal` is 0 to 3"))?;
            named("assurance_level", of_session(session::Change::AssuranceLevel(aal))?, "")
        }
    })
}

fn text(name: &str, text: &str) -> Result<SmolStr, Status> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(Status::invalid_argument(format!("`{name}` has 1 to {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text.into())
}

fn risk(observed: &v1::RiskObserved, event_ms: i64, snapshot: &Snapshot) -> Result<RiskSignal, Status> {
    let percent = |name: &str, value: u32| match u8::try_from(value) {
        Ok(value @ 0..=100) => Ok(value),
        _ => Err(Status::invalid_argument(format!("`{name}` is 0 to 100"))),
    };
    let half_life_s = match &observed.half_life {
        None => i64::try_from(snapshot.settings().risk.half_life_s)
            .unwrap_or(HALF_LIFE_MAX_S)
            .min(HALF_LIFE_MAX_S),
        Some(span) => span.seconds,
    };
    let half_life_s =
        u32::try_from(half_life_s).ok().filter(|s| (1..=HALF_LIFE_MAX_S).contains(&i64::from(*s)));
    Ok(RiskSignal {
        kind: risk_kind(observed.kind())
            .ok_or_else(|| Status::invalid_argument("`kind` is missing or not known"))?,
        severity: percent("severity", observed.severity)?,
        confidence: percent("confidence", observed.confidence)?,
        event_ms,
        half_life_s: half_life_s.ok_or_else(|| Status::invalid_argument("`half_life` is 1 s to 30 days"))?,
    })
}

fn risk_kind(kind: v1::RiskKind) -> Option<RiskKind> {
    match kind {
        v1::RiskKind::Unspecified => None,
        v1::RiskKind::AnomalousBehavior => Some(RiskKind::AnomalousBehavior),
        v1::RiskKind::CredentialCompromise => Some(RiskKind::CredentialCompromise),
        v1::RiskKind::WorkloadCompromise => Some(RiskKind::WorkloadCompromise),
        v1::RiskKind::NetworkAnomaly => Some(RiskKind::NetworkAnomaly),
        v1::RiskKind::PromptInjection => Some(RiskKind::PromptInjection),
        v1::RiskKind::DataExfiltration => Some(RiskKind::DataExfiltration),
        v1::RiskKind::VendorScore => Some(RiskKind::VendorScore),
        v1::RiskKind::Operator => Some(RiskKind::Operator),
    }
}
