//! Tokens: every way in which one is not believed, and what the ones that are say.

use proptest::prelude::*;
use serde_json::json;

use super::super::event::{EventType, What};
use super::super::subject::Simple;
use super::super::testing::{AUDIENCE, IAT_S, ISSUER, Issuer, claims, encode, header};
use super::*;

const NOW_MS: i64 = IAT_S * 1000 + 5_000;

fn keys(issuer: &Issuer) -> KeySet {
    KeySet::parse(issuer.jwks().to_string().as_bytes()).unwrap()
}

fn verify(token: &str, keys: &KeySet) -> Result<Set, Refusal> {
    let audience = ["urn:other".into(), AUDIENCE.into()];
    let expected = Expected { issuer: ISSUER, audience: &audience, oldest_iat_ms: NOW_MS - 86_400_000 };
    Unverified::read(token.as_bytes())?.verify(keys, &expected, NOW_MS)
}

fn good() -> Value {
    let subject = json!({"format": "iss_sub", "iss": ISSUER, "sub": "u1"});
    claims("a1", subject, EventType::SessionRevoked, json!({"event_timestamp": IAT_S - 10}))
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = good();
    claims[member] = value;
    claims
}

fn without(member: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(member);
    claims
}

#[test]
fn a_good_token_says_who_what_and_when() {
    let issuer = Issuer::new();
    let set = verify(&issuer.sign(&good()), &keys(&issuer)).unwrap();
    assert_eq!((set.issuer.as_str(), set.jti.as_str(), set.txn.as_deref()), (ISSUER, "a1", Some("c-17")));
    assert_eq!((set.iat_ms, set.event_ms), (IAT_S * 1000, (IAT_S - 10) * 1000));
    assert_eq!(set.subject, Subject::Simple(Simple::IssSub { iss: ISSUER.into(), sub: "u1".into() }));
    let Told::Event(event) = set.told else { panic!("an event") };
    assert_eq!(event.what, What::SessionRevoked);
}

#[test]
fn each_accepted_algorithm_verifies_with_its_own_key_and_no_other() {
    let issuer = Issuer::new();
    let keys = keys(&issuer);
    for (alg, own) in
        [("RS256", "rsa"), ("PS256", "rsa"), ("ES256", "p256"), ("EdDSA", "ed"), ("HS256", ""), ("none", "")]
    {
        for kid in ["rsa", "p256", "ed"] {
            let token = issuer.token(&json!({"typ": "secevent+jwt", "alg": alg, "kid": kid}), &good());
            assert_eq!(verify(&token, &keys).is_ok(), kid == own, "{alg} with {kid}");
        }
    }
}

#[test]
fn when_it_happened_is_what_the_event_says_then_the_token_then_when_it_was_issued() {
    let issuer = Issuer::new();
    let keys = keys(&issuer);
    let mut claims = with("toe", json!(IAT_S - 20));
    assert_eq!(verify(&issuer.sign(&claims), &keys).unwrap().event_ms, (IAT_S - 10) * 1000);
    claims["events"] = json!({EventType::SessionRevoked.uri(): {}});
    assert_eq!(verify(&issuer.sign(&claims), &keys).unwrap().event_ms, (IAT_S - 20) * 1000);
    claims.as_object_mut().unwrap().remove("toe");
    assert_eq!(verify(&issuer.sign(&claims), &keys).unwrap().event_ms, IAT_S * 1000);
}

#[test]
fn an_audience_is_one_name_or_several_and_one_of_ours_among_them() {
    let issuer = Issuer::new();
    let keys = keys(&issuer);
    for aud in [json!(AUDIENCE), json!([AUDIENCE]), json!(["https://other.example", AUDIENCE])] {
        assert!(verify(&issuer.sign(&with("aud", aud.clone())), &keys).is_ok(), "{aud}");
    }
    for aud in [
        json!("https://other.example"),
        json!([]),
        json!(["https://pdp.example/"]),
        json!([AUDIENCE, 7]),
        json!({"aud": AUDIENCE}),
        json!(null),
        json!(""),
    ] {
        let refusal = verify(&issuer.sign(&with("aud", aud.clone())), &keys).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidAudience, "{aud}");
    }
    assert_eq!(verify(&issuer.sign(&without("aud")), &keys).unwrap_err().code, ErrorCode::InvalidAudience);
}

#[test]
fn claims_that_do_not_hold_are_refused_each_with_its_code() {
    let issuer = Issuer::new();
    let keys = keys(&issuer);
    let revoked = EventType::SessionRevoked.uri();
    let invalid = ErrorCode::InvalidRequest;
    for (claims, code, words) in [
        (without("iss"), ErrorCode::InvalidIssuer, "iss"),
        (with("iss", json!("https://idp.example")), ErrorCode::InvalidIssuer, "iss"),
        (with("iss", json!([ISSUER])), ErrorCode::InvalidIssuer, "iss"),
        (with("sub", json!("u1")), invalid, "`sub`"),
        (with("exp", json!(IAT_S + 3600)), invalid, "`exp`"),
        (with("exp", json!(IAT_S - 3600)), invalid, "`exp`"),
        (with("exp", json!(null)), invalid, "`exp`"),
        (without("iat"), invalid, "no `iat`"),
        (with("iat", json!("1760000000")), invalid, "`iat` is no time"),
        (with("iat", json!(IAT_S + 66)), invalid, "`iat` lies in the future"),
        (with("iat", json!(IAT_S - 90_000)), invalid, "too long ago"),
        (with("toe", json!(IAT_S + 66)), invalid, "`toe`"),
        (without("jti"), invalid, "no `jti`"),
        (with("jti", json!("")), invalid, "`jti`"),
        (with("jti", json!(7)), invalid, "`jti`"),
        (with("jti", json!("x".repeat(NAME_BYTES_MAX + 1))), invalid, "`jti`"),
        (with("txn", json!(7)), invalid, "`txn`"),
        (without("sub_id"), invalid, "no `sub_id`"),
        (with("sub_id", json!("u1")), invalid, "`sub_id`"),
        (with("sub_id", json!({"format": "iss_sub", "iss": ISSUER})), invalid, "needs `sub`"),
        (
            with("sub_id", json!({"subject_type": "iss-sub", "iss": ISSUER, "sub": "u1"})),
            invalid,
            "subject_type",
        ),
        (without("events"), invalid, "`events`"),
        (with("events", json!([revoked])), invalid, "`events`"),
        (with("events", json!({})), invalid, "exactly one"),
        (with("events", json!({revoked.as_str(): {}, "urn:x": {}})), invalid, "exactly one"),
        (
            with("events", json!({revoked.as_str(): {"event_timestamp": IAT_S + 66}})),
            invalid,
            "in the future",
        ),
        (with("events", json!({revoked.as_str(): {"reason_admin": "stolen"}})), invalid, "reason_admin"),
        (with("events", json!({revoked.as_str(): null})), invalid, "no object"),
        (
            with("events", json!({EventType::IdentifierRecycled.uri(): {}})),
            invalid,
            "the old address of mail",
        ),
    ] {
        let refusal = verify(&issuer.sign(&claims), &keys).unwrap_err();
        assert_eq!(refusal.code, code, "{claims}");
        assert!(refusal.why.contains(words), "{claims}: {refusal}");
    }
}

#[test]
fn subjects_of_old_drafts_are_refused_with_what_to_send_instead() {
    let issuer = Issuer::new();
    let mut old = without("sub_id");
    let uri = EventType::AccountDisabled.uri();
    old["events"] =
        json!({uri.as_str(): {"subject": {"subject_type": "iss-sub", "iss": ISSUER, "sub": "u1"}}});
    let refusal = verify(&issuer.sign(&old), &keys(&issuer)).unwrap_err();
    assert!(refusal.why.contains("`subject_type`") && refusal.why.contains("`sub_id`"), "{refusal}");
    old["events"] = json!({uri.as_str(): {"subject": {"format": "opaque", "id": "a"}}});
    let refusal = verify(&issuer.sign(&old), &keys(&issuer)).unwrap_err();
    assert!(refusal.why.contains("beside `events`"), "{refusal}");
}

#[test]
fn an_event_that_is_not_known_is_believed_and_named() {
    let issuer = Issuer::new();
    let set = verify(&issuer.sign(&with("events", json!({"urn:acme:fired": {}}))), &keys(&issuer)).unwrap();
    assert_eq!(set.told, Told::Unknown("urn:acme:fired".into()));
}

#[test]
fn headers_that_do_not_hold_are_refused_each_with_its_code() {
    let issuer = Issuer::new();
    let keys = keys(&issuer);
    let of = |member: &str, value: Value| {
        let mut header = header();
        header[member] = value;
        header
    };
    for (header, code) in [
        (json!({"alg": "RS256", "kid": "rsa"}), ErrorCode::InvalidRequest),
        (of("typ", json!("JWT")), ErrorCode::InvalidRequest),
        (of("typ", json!("at+jwt")), ErrorCode::InvalidRequest),
        (of("typ", json!(7)), ErrorCode::InvalidRequest),
        (of("typ", json!("text/secevent+jwt")), ErrorCode::InvalidRequest),
        (of("alg", json!("none")), ErrorCode::AuthenticationFailed),
        (of("alg", json!("NonE")), ErrorCode::AuthenticationFailed),
        (of("alg", json!("HS256")), ErrorCode::InvalidKey),
        (of("alg", json!("RS1")), ErrorCode::InvalidKey),
        (of("alg", json!("rs256")), ErrorCode::InvalidKey),
        (of("alg", json!(["RS256"])), ErrorCode::InvalidKey),
        (of("kid", json!("stranger")), ErrorCode::InvalidKey),
        (of("kid", json!("")), ErrorCode::InvalidKey),
        (of("kid", json!(1)), ErrorCode::InvalidKey),
        (of("kid", json!("k".repeat(NAME_BYTES_MAX + 1))), ErrorCode::InvalidKey),
        (of("crit", json!(["b64"])), ErrorCode::InvalidRequest),
        (of("b64", json!(false)), ErrorCode::InvalidRequest),
        (of("zip", json!("DEF")), ErrorCode::InvalidRequest),
    ] {
        let refusal = verify(&issuer.token(&header, &good()), &keys).unwrap_err();
        assert_eq!(refusal.code, code, "{header}: {refusal}");
    }
    for typ in ["SecEvent+JWT", "application/secevent+jwt", "Application/secevent+jwt"] {
        assert!(verify(&issuer.token(&of("typ", json!(typ)), &good()), &keys).is_ok(), "{typ}");
    }
}

#[test]
fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let (issuer, thief) = (Issuer::new(), Issuer::new());
    let mut header = header();
    header["alg"] = json!("ES256");
    header["kid"] = json!("p256");
    header["jwk"] = thief.jwks()["keys"][1].clone();
    header["jku"] = json!("https://thief.example/jwks");
    header["x5u"] = json!("https://thief.example/cert");
    let refusal = verify(&thief.token(&header, &good()), &keys(&issuer)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::AuthenticationFailed);
}

#[test]
fn a_token_without_a_key_name_can_only_mean_the_only_key() {
    let issuer = Issuer::new();
    let token = issuer.token(&json!({"typ": "secevent+jwt", "alg": "RS256"}), &good());
    assert!(verify(&token, &keys(&issuer)).is_ok());
    let mut two = issuer.jwks();
    let mut second = two["keys"][0].clone();
    second["kid"] = json!("rsa-2");
    two["keys"].as_array_mut().unwrap().push(second);
    let two = KeySet::parse(two.to_string().as_bytes()).unwrap();
    assert_eq!(verify(&token, &two).unwrap_err().code, ErrorCode::InvalidKey);
}

#[test]
fn what_is_no_compact_jws_is_refused() {
    let issuer = Issuer::new();
    let keys = keys(&issuer);
    let token = issuer.sign(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (head, payload) = signed.split_once('.').unwrap();
    let twice = r#"{"iss":"https://idp.example/","iss":"https://thief.example/"}"#;
    for bad in [
        String::new(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{token}."),
        format!("{token}.x"),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{head}.{payload}.{signature}!"),
        format!("{head}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{}.{payload}.{signature}", encode("[]")),
        format!("{}.{payload}.{signature}", encode("{")),
        format!("{head}.{}.{signature}", encode(twice)),
        json!({"protected": head, "payload": payload, "signature": signature}).to_string(),
        "x".repeat(SET_BYTES_MAX + 1),
    ] {
        assert_eq!(verify(&bad, &keys).unwrap_err().code, ErrorCode::InvalidRequest, "{bad:.80}");
    }
    for bad in
        [format!("{signed}."), format!("{signed}.{}", encode("x")), format!("{signed}.{}", encode([0; 256]))]
    {
        assert_eq!(verify(&bad, &keys).unwrap_err().code, ErrorCode::AuthenticationFailed);
    }
    assert!(Unverified::read(b"\xff.\xff.\xff").is_err());
}

#[test]
fn a_stolen_signature_does_not_carry_other_claims() {
    let issuer = Issuer::new();
    let token = issuer.sign(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let other = encode(with("jti", json!("a2")).to_string());
    let refusal = verify(&format!("{head}.{other}.{signature}"), &keys(&issuer)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::AuthenticationFailed);
}

#[test]
fn nothing_that_a_token_holds_is_repeated_as_it_is() {
    let issuer = Issuer::new();
    let claims = with("events", json!({"urn:\u{1b}[31m": {}}));
    let set = verify(&issuer.sign(&claims), &keys(&issuer)).unwrap();
    assert_eq!(set.told, Told::Unknown("urn:[31m".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_byte_of_a_token_can_be_changed(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let issuer = Issuer::new();
        let keys = keys(&issuer);
        let mut token = issuer.sign(&good()).into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != to);
        token[at] = to;
        let audience = [AUDIENCE.into()];
        let expected = Expected { issuer: ISSUER, audience: &audience, oldest_iat_ms: 0 };
        let believed = Unverified::read(&token).and_then(|read| read.verify(&keys, &expected, NOW_MS));
        prop_assert!(believed.is_err());
    }

    #[test]
    fn nothing_that_is_read_panics(token in "[A-Za-z0-9_.{}=-]{0,200}") {
        let _ = Unverified::read(token.as_bytes());
    }
}
