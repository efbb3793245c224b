//! A record as an event of OCSF 1.8.0.
//!
//! A decision is an API Activity (class 6003) with the profile `security_control`; every other record is a Base Event (class 0), since no
//! class of OCSF tells of a gap in a log or of a bundle. Both carry the whole record in `unmapped`.
//! `status_id` says whether the evaluation worked, `action_id` and `disposition_id` what the answer was.

use cardea_proto::v1::{self, record::Entry};
use serde_json::{Value, json};

use crate::audit::record::unix_ms;

const VERSION: &str = "1.8.0";
const API_ACTIVITY: u32 = 6003;
const APPLICATION_ACTIVITY: u32 = 6;
/// Allowed; denied. Any other `action_id` says that nothing was decided.
const ALLOWED: u32 = 1;
const DENIED: u32 = 2;
/// `disposition_id`: what came of it.
const DISPOSITION_ALLOWED: u32 = 1;
const DISPOSITION_BLOCKED: u32 = 2;
const DISPOSITION_CHALLENGE: u32 = 23;
const DISPOSITION_REVOKED: u32 = 24;
const OTHER: u32 = 99;

pub(super) fn event(id: &str, kind: &'static str, record: &v1::Record) -> Value {
    let mut event = match &record.entry {
        Some(Entry::Decision(decision)) => of_decision(decision),
        Some(
            Entry::Signal(_)
            | Entry::Session(_)
            | Entry::Bundle(_)
            | Entry::Gap(_)
            | Entry::Shadow(_)
            | Entry::Task(_)
            | Entry::Review(_)
            | Entry::Stream(_)
            | Entry::Withheld(_)
            | Entry::Retention(_),
        )
        | None => json!({
            "class_uid": 0, "class_name": "Base Event", "category_uid": 0, "category_name": "Uncategorized",
            "activity_id": OTHER, "activity_name": kind, "type_uid": OTHER,
            "severity_id": 1, "severity": "Informational", "message": kind,
        }),
    };
    let decision = match &record.entry {
        Some(Entry::Decision(decision)) => Some(decision),
        _ => None,
    };
    let mut metadata = json!({
        "version": VERSION,
        "uid": id,
        "sequence": record.sequence,
        "event_code": kind,
        "product": {"name": "Cardea", "vendor_name": "Cardea", "version": env!("CARGO_PKG_VERSION")},
    });
    if let Some(decision) = decision {
        put(&mut metadata, "profiles", json!(["security_control"]));
        put_text(&mut metadata, "correlation_uid", &decision.attempt_id);
    }
    put(&mut event, "metadata", metadata);
    put(&mut event, "time", json!(record.time.as_ref().map_or(0, unix_ms)));
    put(&mut event, "unmapped", json!({"record": record}));
    event
}

fn of_decision(decision: &v1::DecisionRecord) -> Value {
    let action = decision.action.as_ref().map_or("", |action| action.id.as_str());
    let activity = activity(action);
    let (action_id, action_name, disposition) = match decision.decision() {
        v1::Decision::Allow => (ALLOWED, "Allowed", DISPOSITION_ALLOWED),
        v1::Decision::StepUp => (DENIED, "Denied", DISPOSITION_CHALLENGE),
        v1::Decision::Deny | v1::Decision::Unspecified => (DENIED, "Denied", denied(decision)),
    };
    let reasons: Vec<String> = decision.reasons.iter().map(|reason| code(reason.code())).collect();
    let is_evaluated = decision.policy_errors.is_empty();
    let (severity_id, severity) = severity(&decision.severity, action_id);
    let digest = decision.basis.as_ref().map_or("", |basis| basis.digest.as_str());
    let policies = decision.determining_policies.iter().map(|policy| {
        let decided = if action_id == ALLOWED { "allowed" } else { "denied" };
        json!({"decision": decided, "policy": {"uid": policy, "version": digest, "is_applied": true}})
    });
    let mut event = json!({
        "class_uid": API_ACTIVITY, "class_name": "API Activity",
        "category_uid": APPLICATION_ACTIVITY, "category_name": "Application Activity",
        "activity_id": activity, "type_uid": API_ACTIVITY * 100 + activity,
        "severity_id": severity_id, "severity": severity,
        "status_id": if is_evaluated { 1 } else { 2 },
        "action_id": action_id, "action": action_name,
        "disposition_id": disposition,
        "actor": actor(decision),
        "src_endpoint": {"svc_name": enforcement_point(decision)},
        "api": {
            "operation": action,
            "request": {"uid": decision.decision_id},
            "response": {"code": code_of(decision), "message": answer(decision.decision())},
            "service": {"name": "Cardea"},
        },
        "authorizations": policies.collect::<Vec<_>>(),
        "duration": decision.latency_ns / 1_000_000,
    });
    if activity == OTHER {
        put(&mut event, "activity_name", json!(action));
    }
    if !is_evaluated {
        put(&mut event, "status_detail", json!(decision.policy_errors.join(", ")));
    }
    if !reasons.is_empty() {
        put(&mut event, "status_code", json!(reasons.join(",")));
        put(&mut event, "message", json!(format!("{}: {}", answer(decision.decision()), reasons.join(", "))));
    }
    if let Some(resource) = &decision.resource {
        put(&mut event, "resources", json!([{"uid": resource.id, "type": resource.r#type}]));
    }
    event
}

/// Who acted; it is the application, with the person whom it acts for where there is one.
fn actor(decision: &v1::DecisionRecord) -> Value {
    let principal = decision.principal.as_ref();
    let shown =
        principal.map_or_else(|| "unknown".to_owned(), |one| format!("{}::\"{}\"", one.r#type, one.id));
    let mut actor = json!({"app_uid": shown});
    if let Some(root) = decision.delegation.first().or(principal) {
        put(&mut actor, "user", json!({"uid": root.id, "type": root.r#type}));
    }
    if !decision.session_id.is_empty() {
        put(&mut actor, "session", json!({"uid": decision.session_id}));
    }
    actor
}

fn enforcement_point(decision: &v1::DecisionRecord) -> &str {
    decision.hold.as_ref().map_or(decision.door.as_str(), |hold| hold.enforcement_point.as_str())
}

/// Create, read, update, delete where the action says so by its first word; all else is another activity, by the action's own name.
fn activity(action: &str) -> u32 {
    let verb = action.rsplit(['/', ':', '.']).next().unwrap_or(action);
    let verb = verb.split(|one: char| !one.is_ascii_alphabetic()).next().unwrap_or(verb);
    match verb.to_ascii_lowercase().as_str() {
        "create" | "add" | "insert" | "post" | "put" => 1,
        "read" | "get" | "list" | "view" | "search" | "query" => 2,
        "update" | "write" | "edit" | "patch" | "set" | "modify" => 3,
        "delete" | "remove" | "drop" => 4,
        _ => OTHER,
    }
}

/// Taken back while the action ran, or blocked before it did.
fn denied(decision: &v1::DecisionRecord) -> u32 {
    let is_taken_back = decision
        .hold
        .as_ref()
        .is_some_and(|hold| hold.cause.is_some() && hold.before() == v1::Decision::Allow);
    if is_taken_back { DISPOSITION_REVOKED } else { DISPOSITION_BLOCKED }
}

const fn answer(decision: v1::Decision) -> &'static str {
    match decision {
        v1::Decision::Allow => "allow",
        v1::Decision::StepUp => "step_up",
        v1::Decision::Deny | v1::Decision::Unspecified => "deny",
    }
}

/// As an enforcement point tells it over HTTP.
fn code_of(decision: &v1::DecisionRecord) -> u32 {
    match decision.decision() {
        v1::Decision::Allow => 200,
        v1::Decision::StepUp => 401,
        v1::Decision::Deny | v1::Decision::Unspecified => 403,
    }
}

fn code(code: v1::ReasonCode) -> String {
    code.as_str_name().trim_start_matches("REASON_CODE_").to_ascii_lowercase()
}

/// `@severity` of the policy, in the words of OCSF; without one an allow is informational and all else is low.
fn severity(of_policy: &str, action_id: u32) -> (u32, String) {
    let (id, name) = match of_policy.to_ascii_lowercase().as_str() {
        "" if action_id == ALLOWED => (1, "Informational"),
        "info" | "informational" => (1, "Informational"),
        "" | "low" => (2, "Low"),
        "medium" | "moderate" | "warning" => (3, "Medium"),
        "high" => (4, "High"),
        "critical" => (5, "Critical"),
        "fatal" => (6, "Fatal"),
        _ => (OTHER, of_policy),
    };
    (id, name.to_owned())
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn put_text(object: &mut Value, key: &str, text: &str) {
    if !text.is_empty() {
        put(object, key, json!(text));
    }
}
