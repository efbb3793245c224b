//! What leaves the door: status, body, challenge, headers, metadata.

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use proptest::prelude::*;

use super::{super::testing::*, *};

fn answer(decision: AnswerDecision) -> Answer {
    Answer {
        decision,
        reason: "some_reason".into(),
        message: "a sentence".into(),
        decision_id: "0190-id".into(),
        principal: Some(EntityName { entity_type: "Agent".into(), id: "a \"b\"".into() }),
        risk: Some(42),
        route: Some("/a/{b}".into()),
    }
}

fn allow(obligations: &[&str]) -> AnswerDecision {
    AnswerDecision::Allow { obligations: obligations.iter().map(SmolStr::new).collect() }
}

fn request(headers: &[(&str, &[u8])]) -> CheckRequest {
    check(HttpRequest { header_map: Some(raw_headers(headers)), ..Default::default() }, "")
}

fn ok(answer: &Answer, request: &CheckRequest) -> OkHttpResponse {
    let response = check_response(answer, request);
    assert_eq!(response.status.unwrap().code, 0);
    match response.http_response {
        Some(HttpResponse::OkResponse(ok)) => ok,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: &Answer) -> (i32, i32, DeniedHttpResponse) {
    let response = check_response(answer, &request(&[]));
    match response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => {
            (response.status.unwrap().code, denied.status.as_ref().unwrap().code, denied)
        }
        other => panic!("{other:?}"),
    }
}

fn header<'a>(headers: &'a [HeaderValueOption], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .find(|one| one.key == name)
        .map(|one| one.value.as_str())
}

#[test]
fn an_allow_carries_id_principal_and_obligations() {
    let ok = ok(&answer(allow(&["log", "mask:a,b"])), &request(&[]));
    assert_eq!(header(&ok.headers, "x-cardea-decision-id"), Some("0190-id"));
    assert_eq!(header(&ok.headers, "x-cardea-principal"), Some("Agent::\"a \\\"b\\\"\""));
    assert_eq!(header(&ok.headers, "x-cardea-obligations"), Some("log, mask:a%2Cb"));
    assert!(ok.headers.iter().all(|option| option.append_action == 2));
    assert!(ok.headers_to_remove.is_empty());
}

#[test]
fn client_sent_copies_are_overwritten_or_removed_never_both() {
    let request = request(&[
        ("x-cardea-principal", b"User::\"root\""),
        ("X-Cardea-Obligations", b"none"),
        ("x-cardea-anything", b"1"),
        ("x_cardea_principal", b"User::\"root\""),
        ("X-CARDEA_new", b"1"),
        ("x-cardeaish", b"1"),
        ("accept", b"*/*"),
    ]);
    let ok = ok(&answer(allow(&[])), &request);
    assert_eq!(
        ok.headers_to_remove,
        ["x-cardea-anything", "x-cardea-obligations", "x-cardea_new", "x_cardea_principal"]
    );
}

#[test]
fn own_names_are_removed_even_if_the_proxy_hides_them() {
    let anonymous = Answer { principal: None, ..answer(allow(&[])) };
    let ok = ok(&anonymous, &CheckRequest::default());
    assert_eq!(ok.headers_to_remove, ["x-cardea-obligations", "x-cardea-principal"]);
}

#[test]
fn copies_in_the_joined_form_are_removed_too() {
    let http =
        HttpRequest { headers: [("X-Cardea-X".to_owned(), "1".to_owned())].into(), ..Default::default() };
    let ok = ok(&answer(allow(&["o"])), &check(http, ""));
    assert_eq!(ok.headers_to_remove, ["x-cardea-x"]);
}

#[test]
fn a_deny_is_a_403_with_a_small_json_body() {
    let (rpc, http, denied) = refused(&answer(AnswerDecision::Deny));
    assert_eq!((rpc, http), (7, 403));
    assert_eq!(
        denied.body,
        r#"{"decision":"deny","decision_id":"0190-id","reason":"some_reason","message":"a sentence"}"#
    );
    assert_eq!(header(&denied.headers, "content-type"), Some("application/json"));
    assert_eq!(header(&denied.headers, "www-authenticate"), None);
    assert_eq!(header(&denied.headers, "x-cardea-principal"), None);
}

#[test]
fn somebody_unknown_is_asked_to_log_in() {
    let (rpc, http, denied) = refused(&answer(AnswerDecision::DenyUnidentified));
    assert_eq!((rpc, http), (16, 401));
    assert_eq!(header(&denied.headers, "www-authenticate"), Some("Bearer"));
    assert!(denied.body.starts_with(r#"{"decision":"deny""#));
}

#[test]
fn a_step_up_is_a_401_with_challenge_and_requirements() {
    let login = StepUpKind::Authentication { acr_values: vec!["loa3".into()], max_age_s: Some(300) };
    let needs = vec![
        StepUpNeed { name: "mfa".into(), kind: login, review_id: None },
        StepUpNeed { name: "manager".into(), kind: StepUpKind::Approval, review_id: Some("4f6c".into()) },
    ];
    let (rpc, http, denied) = refused(&answer(AnswerDecision::StepUp(needs)));
    assert_eq!((rpc, http), (16, 401));
    let challenge = header(&denied.headers, "www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
    let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(body["decision"], "step_up");
    assert_eq!(
        body["requirements"],
        serde_json::json!([
            {"name": "mfa", "kind": "authentication", "acr_values": ["loa3"], "max_age_s": 300},
            {"name": "manager", "kind": "approval", "review_id": "4f6c"}
        ])
    );
}

#[test]
fn every_answer_leaves_its_id_decision_risk_and_reason_in_the_metadata() {
    let cases = [
        (allow(&[]), "allow"),
        (AnswerDecision::StepUp(vec![]), "step_up"),
        (AnswerDecision::Deny, "deny"),
        (AnswerDecision::DenyUnidentified, "deny"),
    ];
    for (decision, word) in cases {
        let response = check_response(&answer(decision), &request(&[]));
        let fields = response.dynamic_metadata.unwrap().fields;
        let text = |text: &str| Some(Kind::StringValue(text.to_owned()));
        assert_eq!(fields["decision"].kind, text(word));
        assert_eq!(fields["decision_id"].kind, text("0190-id"));
        assert_eq!(fields["reason"].kind, text("some_reason"));
        assert_eq!(fields["route"].kind, text("/a/{b}"));
        assert_eq!(fields["risk"].kind, Some(Kind::NumberValue(42.0)));
    }
}

proptest! {
    #[test]
    fn any_text_leaves_as_clean_headers_and_sound_json(
        id: String, message: String, reason: String, principal: String, obligation: String, pick in 0_u8..4,
    ) {
        let decision = match pick {
            0 => allow(&[&obligation]),
            1 => AnswerDecision::StepUp(vec![StepUpNeed { name: principal.as_str().into(), kind: StepUpKind::Approval, review_id: None }]),
            2 => AnswerDecision::Deny,
            _ => AnswerDecision::DenyUnidentified,
        };
        let allowed = matches!(decision, AnswerDecision::Allow { .. });
        let answer = Answer {
            decision,
            reason: reason.as_str().into(),
            message: message.as_str().into(),
            decision_id: id.as_str().into(),
            principal: Some(EntityName { entity_type: "T".into(), id: principal.as_str().into() }),
            risk: None,
            route: None,
        };
        let response = check_response(&answer, &request(&[]));
        prop_assert_eq!(response.status.unwrap().code == 0, allowed);
        let headers = match response.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => ok.headers,
            HttpResponse::DeniedResponse(denied) => {
                let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
                prop_assert!(message.starts_with(body["message"].as_str().unwrap()));
                denied.headers
            }
            HttpResponse::ErrorResponse(_) => panic!("never an error response"),
        };
        for option in headers {
            let value = option.header.unwrap().value;
            prop_assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{value:?}");
        }
    }

    #[test]
    fn no_name_of_ours_survives_in_any_spelling(names in prop::collection::vec("[xX][-_][cC][aA][rR][dD][eE][aA][-_][a-z-]{0,9}", 0..6)) {
        let headers: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"1".as_slice())).collect();
        let ok = ok(&answer(allow(&[])), &request(&headers));
        for name in names {
            let name = name.to_ascii_lowercase();
            let overwritten = header(&ok.headers, &name).is_some();
            prop_assert!(overwritten != ok.headers_to_remove.contains(&name), "{name}");
        }
    }
}
