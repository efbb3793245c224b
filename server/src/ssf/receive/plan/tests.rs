//! What each event leads to, for each way in which its subject can be understood.
#![expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]

use serde_json::{Value, json};

use super::super::subjects::tests::{snapshot, whom};
use super::*;

const AT: i64 = 1_000;

fn plan_with(kind: EventType, event: Value, subject: Value, critical: &[SmolStr], manner: &Manner) -> Plan {
    let event = Event::parse(&kind.uri(), &event).unwrap();
    Plan::of(&event, AT, &whom(subject), critical.iter(), manner)
}

fn plan(kind: EventType, event: Value, subject: Value) -> Plan {
    let manner = Manner { risk: RiskScale::default(), claims_change: ClaimsChange::Reauthenticate };
    plan_with(kind, event, subject, &[], &manner)
}

fn ada() -> Uid {
    Uid::new(snapshot().type_name("User").unwrap(), "ada")
}

fn user() -> Value {
    json!({"format": "iss_sub", "iss": "https://idp.example/", "sub": "ada"})
}

fn complex(members: &[(&str, Value)]) -> Value {
    let mut subject = json!({"format": "complex"});
    for (name, member) in members {
        subject[*name] = member.clone();
    }
    subject
}

fn opaque(id: &str) -> Value {
    json!({"format": "opaque", "id": id})
}

fn stranger() -> Value {
    json!({"format": "phone_number", "phone_number": "+12065550100"})
}

fn change(effect: Effect) -> Plan {
    Plan::Change(vec![effect])
}

#[test]
fn a_revocation_ends_what_matches_every_member() {
    for kind in [EventType::SessionRevoked, EventType::SessionsRevoked] {
        let of_user = Which { principal: Some(ada()), ..Which::default() };
        assert_eq!(plan(kind, json!({}), user()), change(Effect::End(of_user.clone())));
        let subject = complex(&[
            ("user", user()),
            ("device", opaque("d")),
            ("session", opaque("s")),
            ("tenant", opaque("t")),
        ]);
        let all = Which {
            session: Some("s".into()),
            device: Some("d".into()),
            tenant: Some("t".into()),
            ..of_user
        };
        assert_eq!(plan(kind, json!({}), subject), change(Effect::End(all)));
        assert_eq!(plan(kind, json!({}), stranger()), Plan::Unmapped, "and not everybody's");
    }
}

#[test]
fn a_revocation_of_which_a_part_is_not_understood_ends_more_and_never_less() {
    let subject = complex(&[("user", user()), ("group", opaque("g"))]);
    let of_user = Which { principal: Some(ada()), ..Which::default() };
    assert_eq!(plan(EventType::SessionRevoked, json!({}), subject), change(Effect::End(of_user)));
}

#[test]
fn a_critical_member_that_is_not_understood_stops_the_event() {
    let manner = Manner { risk: RiskScale::default(), claims_change: ClaimsChange::Record };
    let subject = complex(&[("user", user()), ("group", opaque("g"))]);
    let critical = ["group".into()];
    let stopped = plan_with(EventType::SessionRevoked, json!({}), subject, &critical, &manner);
    assert_eq!(stopped, Plan::Critical("group".into()));
    let without = plan_with(EventType::SessionRevoked, json!({}), user(), &critical, &manner);
    assert!(matches!(without, Plan::Change(_)), "the member is not there");
}

#[test]
fn an_account_that_is_disabled_or_purged_may_not_act_and_has_no_sessions() {
    let end = Effect::End(Which { principal: Some(ada()), ..Which::default() });
    let disabled = plan(EventType::AccountDisabled, json!({"reason": "hijacking"}), user());
    assert_eq!(disabled, Plan::Change(vec![Effect::Disable(ada()), end.clone()]));
    let purged = plan(EventType::AccountPurged, json!({}), user());
    assert_eq!(purged, Plan::Change(vec![Effect::Purge(ada()), end]));
    let mail = json!({"format": "email", "email": "ada@example.org"});
    let Plan::Change(recycled) = plan(EventType::IdentifierRecycled, json!({}), mail) else {
        panic!("a change")
    };
    assert!(matches!(&recycled[..], [Effect::End(_)]), "the new owner may act");
}

#[test]
fn what_opens_a_door_needs_the_whole_subject() {
    let part = || complex(&[("user", user()), ("device", opaque("d")), ("group", opaque("g"))]);
    let session = || complex(&[("user", user()), ("session", opaque("s")), ("group", opaque("g"))]);
    let up = json!({"namespace": "NIST-AAL", "current_level": "nist-aal3", "change_direction": "increase"});
    let good = json!({"previous_status": "not-compliant", "current_status": "compliant"});
    let low = json!({"principal": "USER", "current_level": "LOW"});
    for (kind, event, subject) in [
        (EventType::AccountEnabled, json!({}), part()),
        (EventType::AssuranceLevelChange, up, session()),
        (EventType::DeviceComplianceChange, good, part()),
        (EventType::RiskLevelChange, low, part()),
    ] {
        assert_eq!(plan(kind, event.clone(), subject.clone()), Plan::Unmapped, "{}", kind.name());
        let mut whole = subject;
        whole.as_object_mut().unwrap().remove("group");
        assert!(matches!(plan(kind, event, whole), Plan::Change(_)), "{}", kind.name());
    }
    assert_eq!(plan(EventType::AccountEnabled, json!({}), user()), change(Effect::Enable(ada())));
}

#[test]
fn credentials_that_changed_ask_for_a_new_login() {
    let of = |change_type: &str| json!({"credential_type": "password", "change_type": change_type});
    for change_type in ["revoke", "update", "delete"] {
        assert_eq!(
            plan(EventType::CredentialChange, of(change_type), user()),
            change(Effect::Credential(ada()))
        );
    }
    assert_eq!(plan(EventType::CredentialChange, of("create"), user()), Plan::Record);
    let session = complex(&[("session", opaque("s"))]);
    assert_eq!(
        plan(EventType::CredentialChange, of("revoke"), session),
        change(Effect::CredentialOf("s".into()))
    );
    let required = plan(EventType::AccountCredentialChangeRequired, json!({}), user());
    assert_eq!(required, change(Effect::Credential(ada())));
    let claims = json!({"claims": {"role": "guest"}});
    assert_eq!(plan(EventType::TokenClaimsChange, claims.clone(), user()), change(Effect::Credential(ada())));
    let manner = Manner { risk: RiskScale::default(), claims_change: ClaimsChange::Record };
    assert_eq!(plan_with(EventType::TokenClaimsChange, claims, user(), &[], &manner), Plan::Record);
}

#[test]
fn a_credential_in_other_hands_is_a_risk_too() {
    let compromise = plan(EventType::CredentialCompromise, json!({"credential_type": "password"}), user());
    let signal = RiskSignal {
        kind: RiskKind::CredentialCompromise,
        severity: 90,
        confidence: 100,
        event_ms: AT,
        half_life_s: 86_400,
    };
    assert_eq!(compromise, Plan::Change(vec![Effect::Credential(ada()), Effect::Risk(ada(), signal)]));
}

#[test]
fn an_assurance_that_fell_is_lowered_or_asks_for_a_new_login() {
    let of = |namespace: &str, level: &str| json!({"namespace": namespace, "current_level": level});
    let session = || complex(&[("user", user()), ("session", opaque("s"))]);
    let which = Which { session: Some("s".into()), principal: Some(ada()), ..Which::default() };
    for (level, aal) in [("nist-aal1", 1), ("AAL2", 2), ("3", 3), ("NIST_AAL_0", 0)] {
        let lowered = plan(EventType::AssuranceLevelChange, of("NIST-AAL", level), session());
        assert_eq!(lowered, change(Effect::Assurance(which.clone(), aal)), "{level}");
    }
    for (namespace, level) in
        [("NIST-AAL", "nist-aal4"), ("NIST-AAL", "high"), ("RFC8176", "pwd"), ("urn:x", "2")]
    {
        let unknown = plan(EventType::AssuranceLevelChange, of(namespace, level), session());
        assert_eq!(unknown, change(Effect::Credential(ada())), "{namespace} {level}");
    }
    assert_eq!(
        plan(EventType::AssuranceLevelChange, of("NIST-AAL", "nist-aal1"), user()),
        change(Effect::Credential(ada())),
        "of no session in particular"
    );
    let mut up = of("RFC8176", "otp");
    up["change_direction"] = json!("increase");
    assert_eq!(plan(EventType::AssuranceLevelChange, up, user()), Plan::Record);
}

#[test]
fn posture_is_of_the_device_or_of_the_session_that_is_named() {
    let bad = || json!({"previous_status": "compliant", "current_status": "not-compliant"});
    let kind = EventType::DeviceComplianceChange;
    let device = complex(&[("user", user()), ("device", opaque("d"))]);
    assert_eq!(plan(kind, bad(), device), change(Effect::Device("d".into(), false)));
    let session = complex(&[("session", opaque("s"))]);
    let which = Which { session: Some("s".into()), ..Which::default() };
    assert_eq!(plan(kind, bad(), session), change(Effect::DeviceOf(which, false)));
    assert_eq!(plan(kind, bad(), user()), Plan::Unmapped, "a user is no device");
}

#[test]
fn levels_of_risk_weigh_what_the_receiver_says() {
    let manner = Manner {
        risk: RiskScale { low: 5, medium: 40, high: 80, compromise: 1, confidence: 70, half_life_s: 60 },
        claims_change: ClaimsChange::Record,
    };
    for (level, severity) in [("LOW", 5), ("MEDIUM", 40), ("HIGH", 80)] {
        let event = json!({"principal": "USER", "current_level": level});
        let signal = RiskSignal {
            kind: RiskKind::VendorScore,
            severity,
            confidence: 70,
            event_ms: AT,
            half_life_s: 60,
        };
        let planned = plan_with(EventType::RiskLevelChange, event, user(), &[], &manner);
        assert_eq!(planned, change(Effect::Risk(ada(), signal)));
    }
    let device =
        complex(&[("user", user()), ("device", json!({"format": "email", "email": "l1@example.org"}))]);
    let event = json!({"principal": "DEVICE", "current_level": "HIGH"});
    let Plan::Change(effects) = plan(EventType::RiskLevelChange, event, device) else { panic!("a change") };
    assert!(
        matches!(&effects[..], [Effect::Risk(uid, _)] if uid.id() == "l1@example.org"),
        "the device, not the user"
    );
    let tenant = complex(&[("user", user()), ("tenant", opaque("acme"))]);
    let event = json!({"principal": "TENANT", "current_level": "HIGH"});
    assert_eq!(plan(EventType::RiskLevelChange, event, tenant), Plan::Unmapped, "no rule makes it an entity");
}

#[test]
fn the_rest_is_recorded() {
    for kind in [
        EventType::SessionEstablished,
        EventType::SessionPresented,
        EventType::OptIn,
        EventType::OptOutInitiated,
        EventType::OptOutCancelled,
        EventType::OptOutEffective,
        EventType::RecoveryActivated,
        EventType::RecoveryInformationChanged,
    ] {
        assert_eq!(plan(kind, json!({}), user()), Plan::Record, "{}", kind.name());
    }
    assert_eq!(kind(EventType::AccountDisabled), "risc/account-disabled");
    assert_eq!(kind(EventType::SessionRevoked), "caep/session-revoked");
}
