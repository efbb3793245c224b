//! Events: every type as its document defines it, what is refused, and both directions.
#![expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]
#![expect(clippy::wildcard_enum_match_arm, reason = "most events need no member")]

use proptest::prelude::*;
use serde_json::json;

use super::super::subject::Complex;
use super::*;

fn read(kind: EventType, value: Value) -> Result<Event, EventFault> {
    Event::parse(&kind.uri(), &value)
}

fn caep_common() -> Value {
    json!({
        "event_timestamp": 1_760_000_000,
        "initiating_entity": "policy",
        "reason_admin": {"en": "landed where nobody can be", "de": "Reise unmöglich"},
        "reason_user": {"en-GB": "we did not know this place"},
    })
}

/// An event of each type with everything that it can say.
fn whole() -> Vec<(EventType, Value)> {
    vec![
        (EventType::SessionRevoked, json!({})),
        (EventType::TokenClaimsChange, json!({"claims": {"role": "ro-admin", "groups": ["a", "b"]}})),
        (
            EventType::CredentialChange,
            json!({"credential_type": "fido2-roaming", "change_type": "create", "friendly_name": "Ada's key",
                "x509_issuer": "CN=ca", "x509_serial": "2A", "fido2_aaguid": "accced6a-63f5-490a-9eea-e59bc1896cfc"}),
        ),
        (
            EventType::AssuranceLevelChange,
            json!({"namespace": "NIST-AAL", "current_level": "nist-aal1", "previous_level": "nist-aal2",
                "change_direction": "decrease"}),
        ),
        (
            EventType::DeviceComplianceChange,
            json!({"previous_status": "compliant", "current_status": "not-compliant"}),
        ),
        (
            EventType::SessionEstablished,
            json!({"fp_ua": "abb0b6e7", "acr": "AAL2", "amr": ["otp", "pwd"], "ext_id": "12345"}),
        ),
        (EventType::SessionPresented, json!({"fp_ua": "abb0b6e7", "ext_id": "12345"})),
        (
            EventType::RiskLevelChange,
            json!({"principal": "USER", "current_level": "HIGH", "previous_level": "LOW",
                "risk_reason": "PASSWORD_FOUND_IN_DATA_BREACH"}),
        ),
        (EventType::AccountCredentialChangeRequired, json!({})),
        (EventType::AccountPurged, json!({})),
        (EventType::AccountDisabled, json!({"reason": "hijacking"})),
        (EventType::AccountEnabled, json!({})),
        (EventType::IdentifierChanged, json!({"new-value": "ada.new@example.org"})),
        (EventType::IdentifierRecycled, json!({})),
        (EventType::CredentialCompromise, json!({"credential_type": "password"})),
        (EventType::OptIn, json!({})),
        (EventType::OptOutInitiated, json!({})),
        (EventType::OptOutCancelled, json!({})),
        (EventType::OptOutEffective, json!({})),
        (EventType::RecoveryActivated, json!({})),
        (EventType::RecoveryInformationChanged, json!({})),
        (EventType::SessionsRevoked, json!({})),
        (EventType::Verification, json!({"state": "VGhpcyBpcyBhbiBleGFtcGxl"})),
        (EventType::StreamUpdated, json!({"status": "paused", "reason": "maintenance"})),
    ]
}

#[test]
fn every_type_is_read_and_written_as_it_was() {
    let whole = whole();
    assert_eq!(whole.len(), EventType::ALL.len());
    for ((kind, value), of_all) in whole.into_iter().zip(EventType::ALL) {
        assert_eq!(kind, *of_all, "in the order of the table");
        let event = read(kind, value.clone()).unwrap();
        assert_eq!((event.kind(), event.to_json()), (kind, value.clone()));
        if !kind.is_of_stream() {
            let mut more = value;
            more.as_object_mut().unwrap().extend(caep_common().as_object().unwrap().clone());
            let event = read(kind, more.clone()).unwrap();
            assert_eq!(event.common.event_ms, Some(1_760_000_000_000));
            assert_eq!(event.to_json(), more);
        }
    }
}

#[test]
fn uris_are_those_of_the_documents() {
    for (kind, uri) in [
        (EventType::SessionRevoked, "https://schemas.openid.net/secevent/caep/event-type/session-revoked"),
        (EventType::AccountDisabled, "https://schemas.openid.net/secevent/risc/event-type/account-disabled"),
        (EventType::Verification, "https://schemas.openid.net/secevent/ssf/event-type/verification"),
    ] {
        assert_eq!(kind.uri(), uri);
    }
    for kind in EventType::ALL {
        assert_eq!(EventType::of_uri(&kind.uri()), Some(*kind));
    }
    for unknown in [
        "",
        "session-revoked",
        "https://schemas.openid.net/secevent/risc/event-type/session-revoked",
        "https://schemas.openid.net/secevent/caep/event-type/session-revoked/",
        "https://schemas.openid.net/secevent/caep/event-type/Session-revoked",
        "http://schemas.openid.net/secevent/caep/event-type/session-revoked",
    ] {
        assert!(matches!(Event::parse(unknown, &json!({})), Err(EventFault::Unknown(_))), "{unknown}");
    }
}

#[test]
fn members_that_are_not_defined_are_ignored() {
    let event =
        read(EventType::SessionRevoked, json!({"subject": {"format": "opaque", "id": "a"}, "x": 1})).unwrap();
    assert_eq!(event, Event::of(What::SessionRevoked));
}

#[test]
fn what_an_event_needs_must_be_there() {
    for (kind, value) in whole() {
        let needed: &[&str] = match kind {
            EventType::TokenClaimsChange => &["claims"],
            EventType::CredentialChange => &["credential_type", "change_type"],
            EventType::AssuranceLevelChange => &["namespace", "current_level"],
            EventType::DeviceComplianceChange => &["previous_status", "current_status"],
            EventType::RiskLevelChange => &["principal", "current_level"],
            EventType::CredentialCompromise => &["credential_type"],
            EventType::StreamUpdated => &["status"],
            _ => &[],
        };
        for member in value.as_object().unwrap().keys() {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(member);
            let missing = matches!(read(kind, less), Err(EventFault::Missing { .. }));
            assert_eq!(missing, needed.contains(&member.as_str()), "{} without {member}", kind.name());
        }
    }
}

#[test]
fn a_member_of_the_wrong_form_is_refused_in_every_event() {
    for (kind, value) in whole() {
        for member in value.as_object().unwrap().keys() {
            for wrong in
                [json!(7), json!(null), json!(""), json!(["", 1]), json!("x".repeat(TEXT_BYTES_MAX + 1))]
            {
                let mut other = value.clone();
                other[member] = wrong.clone();
                let refused = read(kind, other);
                assert!(
                    matches!(refused, Err(EventFault::Member { .. })),
                    "{} {member} {wrong}",
                    kind.name()
                );
            }
        }
        assert!(
            read(kind, json!([])).is_err()
                && read(kind, json!("")).is_err()
                && read(kind, json!(null)).is_err()
        );
    }
}

#[test]
fn words_are_those_that_are_defined() {
    for (kind, value) in [
        (EventType::CredentialChange, json!({"credential_type": "password", "change_type": "changed"})),
        (EventType::CredentialChange, json!({"credential_type": "password", "change_type": "Create"})),
        (
            EventType::DeviceComplianceChange,
            json!({"previous_status": "compliant", "current_status": "non-compliant"}),
        ),
        (EventType::RiskLevelChange, json!({"principal": "USER", "current_level": "high"})),
        (
            EventType::RiskLevelChange,
            json!({"principal": "USER", "current_level": "LOW", "previous_level": "NONE"}),
        ),
        (
            EventType::AssuranceLevelChange,
            json!({"namespace": "NIST-AAL", "current_level": "nist-aal1", "change_direction": "down"}),
        ),
        (EventType::StreamUpdated, json!({"status": "stopped"})),
        (EventType::SessionRevoked, json!({"initiating_entity": "nobody"})),
    ] {
        assert!(matches!(read(kind, value.clone()), Err(EventFault::Member { .. })), "{value}");
    }
}

#[test]
fn common_members_have_their_forms() {
    for value in [
        json!({"event_timestamp": "1760000000"}),
        json!({"event_timestamp": -1}),
        json!({"event_timestamp": 1_760_000_000_000_i64}),
        json!({"reason_admin": "stolen"}),
        json!({"reason_admin": {}}),
        json!({"reason_user": {"en": ""}}),
        json!({"reason_user": {"en": 1}}),
        json!({"reason_user": {"not a language": "x"}}),
        json!({"reason_user": {"": "x"}}),
    ] {
        assert!(read(EventType::SessionRevoked, value.clone()).is_err(), "{value}");
    }
    let fraction = read(EventType::SessionRevoked, json!({"event_timestamp": 1_760_000_000.25})).unwrap();
    assert_eq!(fraction.common.event_ms, Some(1_760_000_000_250));
}

#[test]
fn some_events_define_the_format_of_their_subject() {
    let simple = |value: Value| Subject::parse(&value).unwrap();
    let mail = simple(json!({"format": "email", "email": "ada@example.org"}));
    let stream = simple(json!({"format": "opaque", "id": "s1"}));
    let of = |user: &Subject| match user {
        Subject::Simple(user) => Subject::Complex(Complex::of([("user", user.clone())])),
        Subject::Complex(_) => panic!("simple"),
    };
    let recycled = Event::of(What::IdentifierRecycled);
    assert!(recycled.check_subject(&mail).is_ok() && recycled.check_subject(&of(&mail)).is_ok());
    assert!(recycled.check_subject(&stream).is_err() && recycled.check_subject(&of(&stream)).is_err());
    let verification = Event::of(What::Verification { state: None });
    assert!(verification.check_subject(&stream).is_ok());
    assert!(verification.check_subject(&mail).is_err() && verification.check_subject(&of(&stream)).is_err());
    assert!(Event::of(What::SessionRevoked).check_subject(&of(&mail)).is_ok());
}

proptest! {
    #[test]
    fn a_time_is_read_back_to_the_millisecond(ms in 0_i64..253_402_300_799_000) {
        let event = Event { common: Common { event_ms: Some(ms), ..Common::default() }, ..Event::of(What::OptIn) };
        prop_assert_eq!(Event::parse(&EventType::OptIn.uri(), &event.to_json()), Ok(event));
    }

    #[test]
    fn nothing_that_is_read_panics(index in 0..EventType::ALL.len(), text in "[{}\\[\\]\",:a-z0-9_ ]{0,60}") {
        if let Ok(value) = serde_json::from_str(&text) {
            let _ = Event::parse(&EventType::ALL[index].uri(), &value);
        }
    }
}
