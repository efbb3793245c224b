//! Subjects: every format in both directions, what is refused, and the rule of matching against a model.
#![expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]

use proptest::prelude::*;

use super::*;

fn read(value: Value) -> Result<Subject, SubjectFault> {
    Subject::parse(&value)
}

#[test]
fn every_format_is_read_and_written_as_it_was() {
    for value in [
        json!({"format": "account", "uri": "acct:build-bot@ci.example"}),
        json!({"format": "email", "email": "ada+x@example.org"}),
        json!({"format": "iss_sub", "iss": "https://idp.example/", "sub": "145234573"}),
        json!({"format": "opaque", "id": "dMTlD|1600802906337.16|16008.16"}),
        json!({"format": "phone_number", "phone_number": "+12065550100"}),
        json!({"format": "did", "url": "did:example:123456/did/url/path?versionId=1"}),
        json!({"format": "uri", "uri": "urn:uuid:4e851e98-83c4-4743-a5da-150ecb53042f"}),
        json!({"format": "aliases", "identifiers": [
            {"format": "email", "email": "ada@example.org"},
            {"format": "phone_number", "phone_number": "+12065550100"},
        ]}),
        json!({"format": "jwt_id", "iss": "https://idp.example/", "jti": "B70BA622"}),
        json!({"format": "saml_assertion_id", "issuer": "https://idp.example/", "assertion_id": "_8e8dc5f6"}),
        json!({"format": "ip-addresses", "ip-addresses": ["10.29.37.75", "2001:db8::8a2e:370:7334"]}),
        json!({"format": "x-badge", "number": "17", "floor": 3}),
        json!({"format": "complex",
            "user": {"format": "email", "email": "ada@example.org"},
            "tenant": {"format": "opaque", "id": "acme"},
            "badge": {"format": "x-badge", "number": "17"}}),
    ] {
        let subject = read(value.clone()).unwrap();
        assert_eq!(subject.to_json(), value);
        assert_eq!(subject.format(), value["format"]);
    }
}

#[test]
fn further_members_of_a_known_format_are_ignored() {
    let subject = read(json!({"format": "opaque", "id": "a", "verified": true})).unwrap();
    assert_eq!(subject, read(json!({"format": "opaque", "id": "a"})).unwrap());
}

#[test]
fn the_form_before_the_standard_is_refused_by_name() {
    let old = json!({"subject_type": "iss-sub", "iss": "https://accounts.example/", "sub": "1"});
    assert_eq!(read(old.clone()), Err(SubjectFault::OldForm));
    assert_eq!(read(json!({"format": "complex", "user": old})), Err(SubjectFault::OldForm));
}

#[test]
fn what_lacks_a_member_or_has_it_in_another_form_is_refused() {
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    for value in [
        json!(null),
        json!("ada@example.org"),
        json!([]),
        json!({}),
        json!({"format": 1, "id": "a"}),
        json!({"format": "", "id": "a"}),
        json!({"format": "opaque"}),
        json!({"format": "opaque", "id": ""}),
        json!({"format": "opaque", "id": 7}),
        json!({"format": "opaque", "id": "a\u{0}b"}),
        json!({"format": "opaque", "id": long}),
        json!({"format": "iss_sub", "iss": "https://idp.example/"}),
        json!({"format": "iss_sub", "sub": "1"}),
        json!({"format": "email", "email": "ada"}),
        json!({"format": "email", "email": "@example.org"}),
        json!({"format": "email", "email": "a da@example.org"}),
        json!({"format": "account", "uri": "mailto:ada@example.org"}),
        json!({"format": "phone_number", "phone_number": "12065550100"}),
        json!({"format": "phone_number", "phone_number": "+1 206 555 0100"}),
        json!({"format": "phone_number", "phone_number": "+1234567890123456"}),
        json!({"format": "did", "url": "https://example.org"}),
        json!({"format": "uri", "uri": "/path"}),
        json!({"format": "uri", "uri": "urn:a b"}),
        json!({"format": "jwt_id", "jti": "1"}),
        json!({"format": "saml_assertion_id", "issuer": "i"}),
        json!({"format": "ip-addresses", "ip-addresses": []}),
        json!({"format": "ip-addresses", "ip-addresses": ["10.0.0.256"]}),
        json!({"format": "ip-addresses", "ip-addresses": "10.0.0.1"}),
        json!({"format": "aliases", "identifiers": []}),
        json!({"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": []}]}),
        json!({"format": "aliases", "identifiers": [{"format": "complex", "user": {"format": "opaque", "id": "a"}}]}),
        json!({"format": "aliases", "identifiers": vec![json!({"format": "opaque", "id": "a"}); ALIASES_MAX + 1]}),
        json!({"format": "complex"}),
        json!({"format": "complex", "user": "ada"}),
        json!({"format": "complex", "user": {"format": "complex", "user": {"format": "opaque", "id": "a"}}}),
        json!({"format": "complex", "note": "nothing that identifies"}),
    ] {
        assert!(read(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn too_many_members_are_refused() {
    let mut value = json!({"format": "complex"});
    for index in 0..=MEMBERS_MAX {
        value[format!("m{index}")] = json!({"format": "opaque", "id": "a"});
    }
    assert!(read(value).is_err());
}

#[test]
fn a_further_member_that_is_no_identifier_is_remembered_by_name() {
    let value = json!({"format": "complex", "user": {"format": "opaque", "id": "a"}, "place": "Paris"});
    let Subject::Complex(complex) = read(value).unwrap() else { panic!("complex") };
    assert_eq!(complex.unread().collect::<Vec<_>>(), ["place"]);
    assert!(complex.member("place").is_none());
}

#[test]
fn texts_are_found_by_their_names() {
    let Subject::Simple(simple) = read(json!({"format": "iss_sub", "iss": "i", "sub": "s"})).unwrap() else {
        panic!("simple")
    };
    assert_eq!((simple.text("iss"), simple.text("sub"), simple.text("id")), (Some("i"), Some("s"), None));
}

fn simple() -> impl Strategy<Value = Simple> {
    let id = || "[ab]{1,2}".prop_map(SmolStr::from);
    prop_oneof![
        id().prop_map(|id| Simple::Opaque { id }),
        (id(), id()).prop_map(|(iss, sub)| Simple::IssSub { iss, sub }),
        id().prop_map(|user| Simple::Email { email: format!("{user}@example.org").into() }),
        id().prop_map(|id| Simple::Aliases(vec![Simple::Opaque { id }])),
    ]
}

fn subject() -> impl Strategy<Value = Subject> {
    let name = proptest::sample::select(&["user", "device", "session", "badge"][..]);
    let complex = proptest::collection::btree_map(name, simple(), 1..4);
    prop_oneof![
        simple().prop_map(Subject::Simple),
        complex.prop_map(|members| Subject::Complex(Complex::of(members))),
    ]
}

/// The rule, word by word, on the JSON.
fn model(one: &Value, other: &Value) -> bool {
    let complex = |value: &Value| value["format"] == "complex";
    if !complex(one) && !complex(other) {
        return one == other;
    }
    let (Some(one_members), Some(other_members)) = (one.as_object(), other.as_object()) else { return false };
    complex(one)
        && complex(other)
        && one_members.keys().chain(other_members.keys()).all(|name| {
            match (one_members.get(name), other_members.get(name)) {
                (Some(one), Some(other)) => one == other,
                (None, _) | (_, None) => true,
            }
        })
}

proptest! {
    #[test]
    fn matching_is_the_rule_of_the_framework(one in subject(), other in subject()) {
        prop_assert_eq!(one.matches(&other), model(&one.to_json(), &other.to_json()));
        prop_assert_eq!(one.matches(&other), other.matches(&one), "it has no direction");
        prop_assert!(one.matches(&one));
    }

    #[test]
    fn what_is_written_is_read_back(subject in subject()) {
        prop_assert_eq!(Subject::parse(&subject.to_json()), Ok(subject));
    }

    #[test]
    fn a_member_less_still_matches(members in proptest::collection::btree_map("[a-d]", simple(), 2..4)) {
        let whole = Complex::of(members.clone());
        for gone in members.keys() {
            let less = members.iter().filter(|(name, _)| *name != gone);
            let less = Complex::of(less.map(|(name, member)| (name.as_str(), member.clone())));
            prop_assert!(whole.matches(&less));
        }
    }
}
