//! Every rule of what a verdict means, one test each; then the laws, against Cedar's own authorizer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cardea_policy_store::engine::Uid;
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;

use super::*;
use crate::attempt::{Parts, Token};
use crate::facts::{Behavior, HopFacts, SessionFacts, TaskFacts};
use crate::risk::{Risk, RiskKind, RiskSignal};
use crate::session::Session;
use crate::task::Task;

mod against_cedar;
mod consequences;
mod freshness;
mod laws;

const SCHEMA: &str = "
entity User, Agent; entity Doc { owner?: String };
action read, write appliesTo { principal: [User, Agent], resource: Doc, context: {
  session: Cardea::Session, risk: Cardea::Risk, behavior: Cardea::Behavior, task: Cardea::Task,
  token: Cardea::Token, actor: Cardea::Actor, request: { n?: Long }, now: datetime,
  signals: Cardea::Signals } };
";
const WITH_PLAIN: &str = "action plain appliesTo { principal: Agent, resource: Doc, context: {} };";
const SETTINGS: &str = "
name = \"t\"
[facts]
session_max_age_s = 1000
token_max_age_s = 500
[signals.source.edr]
max_silence_s = 60
[lease]
max_ms = 250
[step_up.login]
kind = \"authentication\"
max_age_s = 300
[step_up.ask]
kind = \"approval\"
reviewers = ['Team::\"ops\"']
grant_s = 60
";
const NOW: Now = Now { mono_ns: 0, wall_ms: 1_000_000_000 };

pub(super) fn snapshot(policies: &str) -> Snapshot {
    bundle(SETTINGS, SCHEMA, policies)
}

fn with_settings(settings: &str, policies: &str) -> Snapshot {
    bundle(settings, SCHEMA, policies)
}

/// With an action whose context has nothing in it.
fn with_plain(policies: &str) -> Snapshot {
    bundle(SETTINGS, &format!("{SCHEMA}{WITH_PLAIN}"), policies)
}

fn bundle(settings: &str, schema: &str, policies: &str) -> Snapshot {
    let files: BTreeMap<PathBuf, Vec<u8>> =
        [("bundle.toml", settings), ("schema.cedarschema", schema), ("policies/p.cedar", policies)]
            .into_iter()
            .map(|(name, text)| (name.into(), text.into()))
            .collect();
    load::files(&files).unwrap().snapshot
}

fn parts() -> Parts<'static> {
    Parts { principal: ("Agent", "a"), action: ("", "read"), resource: ("Doc", "d"), ..Parts::default() }
}

fn attempt(snapshot: &Snapshot) -> Attempt {
    Attempt::new(snapshot, parts()).unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
}

fn session() -> Session {
    Session::open("s".into(), uid("Agent::\"a\""), NOW.wall_ms + 60_000, NOW)
}

fn in_session(session: Session) -> Facts {
    let behavior = Behavior { last_seen_ms: NOW.wall_ms, ..Behavior::default() };
    Facts { session: SessionFacts::Known(Arc::new(session), behavior), ..Facts::default() }
}

fn with_risk(severity: u8) -> Facts {
    let mut risk = Risk::default();
    let kind = RiskKind::CredentialCompromise;
    risk.apply(&RiskSignal { kind, severity, confidence: 100, event_ms: NOW.wall_ms, half_life_s: 60 });
    let hop = HopFacts { disabled: false, risk: Some(Arc::new(risk)) };
    Facts { hops: SmallVec::from_elem(hop, 1), ..Facts::default() }
}

fn judge(snapshot: &Snapshot, attempt: &Attempt, facts: &Facts) -> Verdict {
    decide(&Question::new(snapshot, attempt), facts, NOW)
}

fn code(verdict: &Verdict) -> Option<ReasonCode> {
    verdict.reasons().first().map(|reason| reason.code)
}

const PERMIT: &str = "permit(principal, action, resource);";

#[test]
fn a_permit_allows_and_is_named() {
    let snapshot = snapshot(
        "@id(\"p\") permit(principal, action, resource); permit(principal is User, action, resource);",
    );
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!(verdict.decision(), Decision::Allow);
    assert_eq!(verdict.determining(), [0]);
    assert!(verdict.reasons().is_empty());
}

#[test]
fn nothing_permitted_is_denied() {
    let snapshot = snapshot("permit(principal is User, action, resource);");
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::Deny, Some(ReasonCode::NoPermit)));
}

#[test]
fn a_forbid_without_step_up_is_hard() {
    let snapshot = snapshot(&format!(
        "{PERMIT} forbid(principal, action, resource); @step_up(\"login\") forbid(principal, action, resource);"
    ));
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::Deny, Some(ReasonCode::Forbidden)));
    assert_eq!(verdict.determining(), [1, 2]);
    assert!(verdict.requirements().is_empty());
}

#[test]
fn an_erroring_forbid_denies_and_an_erroring_permit_does_not_count() {
    let overflow = "9223372036854775807 + context.actor.depth + 1 > 0";
    let forbid =
        snapshot(&format!("{PERMIT} @id(\"f\") forbid(principal, action, resource) when {{ {overflow} }};"));
    let verdict = judge(&forbid, &attempt(&forbid), &Facts::default());
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::Deny, Some(ReasonCode::PolicyErrored)));
    assert_eq!(verdict.errors().len(), 1);

    let permit = snapshot(&format!("permit(principal, action, resource) when {{ {overflow} }};"));
    let verdict = judge(&permit, &attempt(&permit), &Facts::default());
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::Deny, Some(ReasonCode::NoPermit)));
    assert_eq!(verdict.errors().len(), 1);
}

#[test]
fn an_erroring_forbid_with_step_up_denies_too() {
    let snapshot = snapshot(&format!(
        "{PERMIT} @step_up(\"login\") forbid(principal, action, resource)
         when {{ 9223372036854775807 + context.actor.depth + 1 > 0 }};"
    ));
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::Deny, Some(ReasonCode::PolicyErrored)));
}

#[test]
fn on_policy_error_skip_restores_cedars_rule() {
    let snapshot = with_settings(
        "name = \"t\"\non_policy_error = \"skip\"",
        &format!(
            "{PERMIT} forbid(principal, action, resource) when {{ 9223372036854775807 + context.actor.depth + 1 > 0 }};"
        ),
    );
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!(verdict.decision(), Decision::Allow);
    assert_eq!(verdict.errors().len(), 1);
}

#[test]
fn a_step_up_asks_for_the_union_of_the_requirements() {
    let snapshot = snapshot(&format!(
        "{PERMIT}
         @step_up(\"login\") forbid(principal, action, resource) when {{ context.session.auth_age_s > 300 }};
         @step_up(\"ask\") forbid(principal, action, resource) when {{ context.risk.score > 50 }};
         @step_up(\"login\") forbid(principal, action, resource);"
    ));
    let attempt = attempt(&snapshot);
    let verdict = judge(&snapshot, &attempt, &with_risk(80));
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::StepUp, Some(ReasonCode::StepUpRequired)));
    let names: Vec<_> =
        verdict.requirements().iter().map(|at| snapshot.requirement(*at).unwrap().0.as_str()).collect();
    assert_eq!(names, ["login", "ask"]);
    assert_eq!(verdict.determining(), [1, 2, 3]);
}

#[test]
fn a_step_up_of_something_not_permitted_is_denied() {
    let snapshot = snapshot("@step_up(\"login\") forbid(principal, action, resource);");
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!((verdict.decision(), code(&verdict)), (Decision::Deny, Some(ReasonCode::NoPermit)));
}

#[test]
fn a_requirement_that_is_met_lifts_the_forbid() {
    let snapshot = snapshot(&format!(
        "{PERMIT} @step_up(\"login\") forbid(principal, action, resource) when {{ context.session.auth_age_s > 300 }};"
    ));
    let mut fresh = session();
    fresh.authenticate(NOW.wall_ms - 10_000);
    assert_eq!(judge(&snapshot, &attempt(&snapshot), &in_session(session())).decision(), Decision::StepUp);
    assert_eq!(judge(&snapshot, &attempt(&snapshot), &in_session(fresh)).decision(), Decision::Allow);
}

#[test]
fn obligations_come_with_an_allow_only() {
    let snapshot = snapshot(
        "@obligation(\"log_rows\") permit(principal, action, resource);
         @step_up(\"login\") @obligation(\"x\") forbid(principal, action == Action::\"write\", resource);",
    );
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!(verdict.obligations(), [0]);
    let write = Attempt::new(&snapshot, Parts { action: ("", "write"), ..parts() }).unwrap();
    assert!(judge(&snapshot, &write, &Facts::default()).obligations().is_empty());
}

#[test]
fn disqualified_attempts_are_denied_before_any_policy() {
    let snapshot = snapshot(PERMIT);
    let judged = |attempt: &Attempt, facts: &Facts| code(&judge(&snapshot, attempt, facts));
    let plain = attempt(&snapshot);
    let revoked = Facts { session: SessionFacts::Revoked, ..Facts::default() };
    assert_eq!(judged(&plain, &revoked), Some(ReasonCode::SessionRevoked));
    let mut ended = session();
    ended.end(NOW.wall_ms, "x".into());
    assert_eq!(judged(&plain, &in_session(ended)), Some(ReasonCode::SessionRevoked));
    let expired = Session { expires_ms: NOW.wall_ms, ..session() };
    assert_eq!(judged(&plain, &in_session(expired)), Some(ReasonCode::SessionExpired));
    let of_another = Session { principal: uid("Agent::\"b\""), ..session() };
    assert_eq!(judged(&plain, &in_session(of_another)), Some(ReasonCode::SessionMismatch));
    let unheard_of = Session { refreshed_ms: NOW.wall_ms - 1_001_000, ..session() };
    assert_eq!(judged(&plain, &in_session(unheard_of)), Some(ReasonCode::FactStale));
    let untellable = Facts { session: SessionFacts::Untellable, ..Facts::default() };
    assert_eq!(judged(&plain, &untellable), Some(ReasonCode::StateFull));
    let disabled = HopFacts { disabled: true, risk: None };
    let disabled = Facts { hops: SmallVec::from_elem(disabled, 1), ..Facts::default() };
    assert_eq!(judged(&plain, &disabled), Some(ReasonCode::PrincipalDisabled));
    let demanding = Attempt { at_least_version: 9, ..plain.clone() };
    assert_eq!(
        judged(&demanding, &Facts { state_version: 8, ..Facts::default() }),
        Some(ReasonCode::StateTooOld)
    );
    assert_eq!(judged(&demanding, &Facts { state_version: 9, ..Facts::default() }), None);
    let with_token = |token| Attempt { token: Some(Arc::new(token)), ..plain.clone() };
    let over =
        with_token(Token { expires_ms: Some(NOW.wall_ms), issued_ms: Some(NOW.wall_ms), ..Token::default() });
    assert_eq!(judged(&over, &Facts::default()), Some(ReasonCode::TokenExpired));
    let old = with_token(Token { issued_ms: Some(NOW.wall_ms - 501_000), ..Token::default() });
    assert_eq!(judged(&old, &Facts::default()), Some(ReasonCode::FactStale));
    let undated = with_token(Token::default());
    assert_eq!(judged(&undated, &Facts::default()), Some(ReasonCode::FactStale), "no issue time: too old");
}

#[test]
fn every_hop_of_a_delegation_must_be_permitted_and_the_strictest_answer_wins() {
    let delegated = |policies: &str| {
        let snapshot = snapshot(policies);
        let parts = Parts { delegation: &[("User", "u"), ("Agent", "planner")], ..parts() };
        let attempt = Attempt::new(&snapshot, parts).unwrap();
        judge(&snapshot, &attempt, &Facts::default())
    };
    let verdict = delegated(PERMIT);
    assert_eq!(verdict.decision(), Decision::Allow);
    assert_eq!(verdict.hops().len(), 3);

    let agents_only = delegated("permit(principal is Agent, action, resource);");
    assert_eq!(agents_only.decision(), Decision::Deny);
    let hops: Vec<_> = agents_only.hops().iter().map(|hop| hop.decision).collect();
    assert_eq!(hops, [Decision::Deny, Decision::Allow, Decision::Allow]);

    let step_up_for_one = delegated(&format!(
        "{PERMIT} @step_up(\"login\") forbid(principal == User::\"u\", action, resource);
         forbid(principal, action, resource) when {{ context.actor.depth == 2 && context.actor.root != \"User::\\\"u\\\"\" }};"
    ));
    assert_eq!(step_up_for_one.decision(), Decision::StepUp);
    assert_eq!(step_up_for_one.requirements().len(), 1);
}

#[test]
fn a_malformed_delegation_is_denied() {
    let snapshot = snapshot(PERMIT);
    let twice = Parts { delegation: &[("Agent", "a")], ..parts() };
    let attempt = Attempt::new(&snapshot, twice).unwrap();
    assert_eq!(code(&judge(&snapshot, &attempt, &Facts::default())), Some(ReasonCode::DelegationMalformed));
    let long = Parts { delegation: &[("User", "u"); 8], ..parts() };
    assert_eq!(Attempt::new(&snapshot, long).unwrap_err().code, ReasonCode::DelegationMalformed);
}

#[test]
fn attempts_that_the_schema_does_not_know_are_refused() {
    let snapshot = with_plain(PERMIT);
    let refused = |parts| Attempt::new(&snapshot, parts).unwrap_err().code;
    assert_eq!(refused(Parts { principal: ("", ""), ..parts() }), ReasonCode::Malformed);
    assert_eq!(refused(Parts { principal: ("Ghost", "a"), ..parts() }), ReasonCode::UnknownType);
    assert_eq!(refused(Parts { action: ("", "drop"), ..parts() }), ReasonCode::UnknownType);
    assert_eq!(refused(Parts { action: ("", ""), ..parts() }), ReasonCode::Malformed);
    assert_eq!(
        refused(Parts { action: ("", "plain"), principal: ("User", "u"), ..parts() }),
        ReasonCode::UnknownType
    );
    let text = Record::from_iter([("n", Value::from("five"))]);
    assert_eq!(refused(Parts { request: text, ..parts() }), ReasonCode::Malformed);
    let long = "x".repeat(1025);
    assert_eq!(refused(Parts { principal: ("Agent", &long), ..parts() }), ReasonCode::Malformed);
}

#[test]
fn an_attempt_for_another_snapshot_is_what_that_one_would_have_read() {
    let agents_only = SCHEMA.replace("principal: [User, Agent]", "principal: Agent");
    let other_field = SCHEMA.replace("n?: Long", "n?: String, m?: Long");
    let snapshots = [
        with_plain(PERMIT),
        bundle(SETTINGS, &format!("{WITH_PLAIN}{SCHEMA}"), PERMIT),
        snapshot(PERMIT),
        bundle(SETTINGS, &agents_only, PERMIT),
        bundle(SETTINGS, &other_field, PERMIT),
    ];
    let fields = Record::from_iter([("n", Value::from(1_i64)), ("m", Value::from(2_i64))]);
    let all = [
        parts(),
        Parts { action: ("", "plain"), ..parts() },
        Parts { principal: ("User", "u"), ..parts() },
        Parts { delegation: &[("User", "u")], ..parts() },
        Parts { request: fields, ..parts() },
    ];
    for from in &snapshots {
        for parts in all.clone() {
            let Ok(attempt) = Attempt::new(from, parts.clone()) else { continue };
            for to in &snapshots {
                let told = |read: Result<Attempt, _>| read.map(|read| format!("{read:?}"));
                assert_eq!(
                    told(attempt.for_snapshot(to)),
                    told(Attempt::new(to, parts.clone())),
                    "{parts:?}"
                );
            }
        }
    }
}

#[test]
fn an_attribute_in_a_context_that_lacks_it_is_absent() {
    let snapshot = with_plain("permit(principal, action, resource) when { context has session };");
    let plain = Attempt::new(&snapshot, Parts { action: ("", "plain"), ..parts() }).unwrap();
    assert_eq!(judge(&snapshot, &plain, &Facts::default()).decision(), Decision::Deny);
    assert_eq!(judge(&snapshot, &attempt(&snapshot), &Facts::default()).decision(), Decision::Allow);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row per fact")]
fn every_fact_reaches_policy_with_its_value_or_its_conservative_default() {
    let mut known = session();
    known.opened_ms = NOW.wall_ms - 7_000;
    known.authenticate(NOW.wall_ms - 5_000);
    known.acr = "gold".into();
    known.aal = 2;
    known.amr.insert("hwk".into());
    known.device_compliant = Some(true);
    known.networks.insert("10.0.0.0/8".into());
    known.label("trusted".into(), i64::MAX);
    known.task = Some(Arc::new(Task {
        id: "t1".into(),
        purpose: "sync".into(),
        not_before_ms: None,
        not_after_ms: Some(NOW.wall_ms + 9_000),
        actions: vec!["read".into()],
        resources: vec![],
    }));
    let behavior = Behavior {
        previous_action: "write".into(),
        attempts: 3,
        denials: 1,
        last_seen_ms: NOW.wall_ms - 2_000,
    };
    let heard = vec![("edr".into(), NOW.wall_ms)];
    let granted = |requirement: &str, ends_ms, session_id: Option<&str>| crate::grant::Grant {
        review: crate::ask::AskDigest(cardea_policy_store::digest::Digest::of(b"r")),
        requirement: requirement.into(),
        ends_ms: NOW.wall_ms + ends_ms,
        session_id: session_id.map(Into::into),
        once: false,
    };
    let grants = vec![granted("ask", 1, None), granted("over", 0, None), granted("else", 1, Some("other"))];
    let session = SessionFacts::Known(Arc::new(known), behavior);
    let facts = Facts { session, heard, grants, ..with_risk(80) };
    let token = Token {
        issuer: "iss".into(),
        issued_ms: Some(NOW.wall_ms - 4_000),
        expires_ms: Some(NOW.wall_ms + 3_000),
        scopes: vec!["a".into()],
        bound: true,
        ..Token::default()
    };
    let all_known = "context.session.known && context.session.age_s == 7 && context.session.idle_s == 2
        && context.session.auth_age_s == 5 && context.session.acr == \"gold\" && context.session.aal == 2
        && context.session.amr.contains(\"hwk\") && !context.session.credential_changed
        && context.session.device_compliant && context.session.networks.contains(\"10.0.0.0/8\")
        && context.session.labels == [\"trusted\"] && context.session.grants == [\"ask\"]
        && context.risk.score == 80 && context.risk.level == \"high\"
        && context.risk.reasons == [\"credential_compromise\"] && context.risk.age_s == 0
        && context.behavior.known && context.behavior.previous_action == \"write\"
        && context.behavior.attempts == 3 && context.behavior.denials == 1
        && !context.behavior.baseline && !context.behavior.mature && context.behavior.new_action
        && context.behavior.new_target && !context.behavior.new_reference && context.behavior.new_transition
        && context.behavior.unexpected && !context.behavior.second_network && !context.behavior.out_of_scope
        && context.behavior.fresh_token && !context.behavior.burst && context.behavior.assessment == \"workflow_change\"
        && context.behavior.confidence == 55 && context.behavior.deviations == 0 && context.behavior.risk == 0
        && context.task.known && context.task.id == \"t1\" && context.task.purpose == \"sync\"
        && context.task.active && context.task.in_scope && context.task.remaining_s == 9
        && context.token.known && context.token.age_s == 4 && context.token.expires_in_s == 3
        && context.token.issuer == \"iss\" && context.token.scopes == [\"a\"] && context.token.bound
        && context.actor.depth == 0 && context.actor.immediate == \"\" && context.actor.root == \"\"
        && context.signals.silent.isEmpty()
        && context.request.n == 5 && context.now == datetime(\"1970-01-12T13:46:40Z\")";
    let all_known = snapshot(&format!(
        "permit(principal, action, resource) when {{ context.request has n && {all_known} }};"
    ));
    let request = Record::from_iter([("n", Value::from(5))]);
    let attempt = Attempt::new(&all_known, Parts { request, token: Some(token), ..parts() }).unwrap();
    let verdict = judge(&all_known, &attempt, &facts);
    assert_eq!(verdict.decision(), Decision::Allow, "{:?}", verdict.errors());
    assert_eq!(verdict.evidence().len(), Fact::ALL.len(), "the evidence names every fact that was read");

    let none_known = snapshot(
        "permit(principal, action, resource) when {
         !context.session.known && context.session.age_s == 315360000 && context.session.idle_s == 315360000
         && context.session.auth_age_s == 315360000 && context.session.acr == \"\" && context.session.aal == 0
         && context.session.amr.isEmpty() && context.session.credential_changed
         && !context.session.device_compliant && context.session.networks.isEmpty()
         && context.session.labels.isEmpty() && context.session.grants.isEmpty()
         && context.risk.score == 0 && context.risk.level == \"low\" && context.risk.reasons.isEmpty()
         && context.risk.age_s == 315360000
         && !context.behavior.known && context.behavior.previous_action == \"\"
         && context.behavior.attempts == 0 && context.behavior.denials == 0
         && !context.behavior.baseline && !context.behavior.mature && context.behavior.new_action
        && context.behavior.new_target && !context.behavior.new_reference && context.behavior.new_transition
        && context.behavior.unexpected && !context.behavior.second_network && !context.behavior.out_of_scope
        && !context.behavior.fresh_token && !context.behavior.burst && context.behavior.assessment == \"workflow_change\"
        && context.behavior.confidence == 55 && context.behavior.deviations == 0 && context.behavior.risk == 0
         && !context.task.known && context.task.id == \"\" && context.task.purpose == \"\"
         && !context.task.active && !context.task.in_scope && context.task.remaining_s == 0
         && !context.token.known && context.token.age_s == 0 && context.token.expires_in_s == 0
         && context.token.issuer == \"\" && context.token.scopes.isEmpty() && !context.token.bound
         && context.signals.silent == [\"edr\"]
         && !(context.request has n) };",
    );
    let attempt = self::attempt(&none_known);
    let verdict = judge(&none_known, &attempt, &Facts::default());
    assert_eq!(verdict.decision(), Decision::Allow, "{:?}", verdict.errors());
}

#[test]
fn an_approved_task_takes_the_place_of_the_sessions_own() {
    let mut session = session();
    let own = Task {
        id: "own".into(),
        purpose: "p".into(),
        not_before_ms: None,
        not_after_ms: None,
        actions: vec!["read".into()],
        resources: vec![],
    };
    session.task = Some(Arc::new(own.clone()));
    let snapshot = snapshot(
        "permit(principal, action, resource) when { context.task.in_scope && context.task.id == \"approved\" };",
    );
    let facts = |task| Facts { task, ..in_session(session.clone()) };
    let approved = Arc::new(Task { id: "approved".into(), ..own });
    let decided = |task| judge(&snapshot, &attempt(&snapshot), &facts(task)).decision();
    assert_eq!(decided(TaskFacts::Approved(approved, 0)), Decision::Allow);
    assert_eq!(decided(TaskFacts::OfSession), Decision::Deny);
    let unknown = snapshot_of_unknown();
    assert_eq!(judge(&unknown, &attempt(&unknown), &facts(TaskFacts::Unknown)).decision(), Decision::Allow);
}

fn snapshot_of_unknown() -> Snapshot {
    snapshot("permit(principal, action, resource) when { !context.task.known && !context.task.in_scope };")
}

#[test]
fn whole_groups_read_like_records() {
    let snapshot = snapshot(
        "permit(principal, action, resource) when {
           context.actor == { depth: 0, immediate: \"\", root: \"\" } && context has risk.score
           && context.risk has score && context has request };",
    );
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!(verdict.decision(), Decision::Allow, "{:?}", verdict.errors());
}

#[test]
fn only_an_answer_that_rests_on_no_fact_has_a_lease() {
    let timeless = snapshot(PERMIT);
    assert_eq!(judge(&timeless, &attempt(&timeless), &Facts::default()).lease().lease_ms, 250);
    let with_fact = snapshot("permit(principal, action, resource) unless { context.risk.score > 5 };");
    assert_eq!(judge(&with_fact, &attempt(&with_fact), &Facts::default()).lease().lease_ms, 0);
    let denied = snapshot("forbid(principal, action, resource);");
    assert_eq!(judge(&denied, &attempt(&denied), &Facts::default()).lease().lease_ms, 0);
}

#[test]
fn evidence_tells_what_was_read_and_why_it_is_so() {
    let snapshot = snapshot(&format!(
        "{PERMIT} forbid(principal, action, resource) when {{ context.risk.score > 50 }};"
    ));
    let verdict = judge(&snapshot, &attempt(&snapshot), &with_risk(80));
    let [evidence] = verdict.evidence() else { panic!("one fact was read: {:?}", verdict.evidence()) };
    assert_eq!((evidence.fact, &evidence.value), (Fact::RiskScore, &FactValue::Long(80)));
    assert_eq!(evidence.why, "credential_compromise 80 0 s ago, half-life 60 s");
}

#[test]
fn outcomes_tell_every_candidate_and_nothing_where_policy_is_not_asked() {
    let snapshot = snapshot(
        "permit(principal, action, resource) when { context.risk.score < 50 };
         forbid(principal is User, action, resource);
         forbid(principal is Agent, action, resource) when { context.session.age_s + 9223372036854775807 > 0 };",
    );
    let chained = Parts { delegation: &[("User", "u")], ..parts() };
    let attempt = Attempt::new(&snapshot, chained).unwrap();
    let question = Question::new(&snapshot, &attempt);
    let said = outcomes(&question, &with_risk(60), NOW);
    let told: Vec<Vec<(PolicyIndex, Option<bool>)>> = said
        .into_iter()
        .map(|hop| hop.into_iter().map(|(index, outcome)| (index, outcome.ok())).collect())
        .collect();
    // The risk is the first hop's; the sum of the last forbid overflows.
    assert_eq!(told, [vec![(0, Some(false)), (1, Some(true))], vec![(0, Some(true)), (2, None)]]);
    let revoked = Facts { session: SessionFacts::Revoked, ..Facts::default() };
    assert!(outcomes(&question, &revoked, NOW).is_empty());
}

#[test]
fn told_facts_win_and_what_is_not_told_is_unknown() {
    let snapshot = snapshot(
        "permit(principal, action, resource)
         when { context.risk.score == 7 && context.session.acr == \"phr\" && context.actor.depth == 0 };
         forbid(principal, action, resource) when { context.token.known || !context.session.credential_changed };",
    );
    let mut told = crate::facts::Told::default();
    told.tell(Fact::RiskScore, 0, FactValue::Long(7));
    let with = |told: &crate::facts::Told| Facts {
        session: SessionFacts::Told(Arc::new(told.clone())),
        ..with_risk(90)
    };
    let attempt = attempt(&snapshot);
    assert_eq!(code(&judge(&snapshot, &attempt, &with(&told))), Some(ReasonCode::NoPermit));
    told.tell(Fact::SessionAcr, 0, FactValue::Text("phr".into()));
    assert_eq!(judge(&snapshot, &attempt, &with(&told)).decision(), Decision::Allow);
    told.tell(Fact::TokenKnown, 0, FactValue::Bool(true));
    assert_eq!(code(&judge(&snapshot, &attempt, &with(&told))), Some(ReasonCode::Forbidden));
}
