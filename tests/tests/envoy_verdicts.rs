//! What a caller and an upstream behind a real Envoy see of each verdict, and how soon a changed fact counts.

use anyhow::{Context as _, Result};
use cardea_proto::v1;
use cardea_tests::attempts::{attempt, codes, wall_time};
use cardea_tests::cardea::Options;
use cardea_tests::http::{Answer, Request};
use cardea_tests::stack::{Over, SESSION, Stack};
use cardea_tests::{audit, wait};
use serde_json::Value;

const ORDERS: &str = "/tables/orders";
const TRANSFER: &str = "/accounts/a-1/transfers";

fn word<'j>(body: &'j Value, field: &str) -> &'j str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A denial tells its id and its reason, small and without the policy.
fn check_denial(answer: &Answer, reason: &str) -> Result<String> {
    let body = answer.json()?;
    assert_eq!(answer.header("content-type")?, "application/json");
    assert_eq!(word(&body, "reason"), reason, "{answer:?}");
    let id = word(&body, "decision_id").to_owned();
    assert_eq!(id.len(), 36, "a UUID: {answer:?}");
    assert_eq!(answer.header("x-cardea-decision-id")?, id);
    assert!(answer.body.len() < 1024, "small: {answer:?}");
    let policy_texts =
        ["forbid (", "permit (", "principal", "resource", "context.", "Action::", "billing", "never_dropped"];
    for policy_text in policy_texts {
        assert!(!answer.body.contains(policy_text), "`{policy_text}` is policy text: {answer:?}");
    }
    Ok(id)
}

#[tokio::test]
async fn an_allowed_request_reaches_the_upstream_with_identity_and_decision_id() -> Result<()> {
    let mut stack = Stack::start().await?;
    let seen = stack.allowed(Request::get(ORDERS)).await?;
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", ORDERS));
    assert_eq!(seen.all("x-cardea-principal"), ["Agent::\"biller\""]);
    assert_eq!(seen.all("x-cardea-obligations"), ["mask_personal_data"]);
    let ids = seen.all("x-cardea-decision-id");
    let [id] = ids.as_slice() else { panic!("one id: {seen:?}") };

    let record = audit::decision(&mut stack.clients, id).await?;
    assert_eq!(record.decision(), v1::Decision::Allow);
    assert_eq!((record.door.as_str(), record.session_id.as_str()), ("ext_authz", SESSION));
    assert_eq!(record.determining_policies, ["billing_works_on_sales"]);
    let resource = record.resource.context("the record has no resource")?;
    assert_eq!((resource.r#type.as_str(), resource.id.as_str()), ("Table", "orders"));
    Ok(())
}

#[tokio::test]
async fn what_a_client_sends_under_our_header_names_never_reaches_the_upstream() -> Result<()> {
    let stack = Stack::start().await?;
    let forged = Request::get(ORDERS)
        .header("x-cardea-principal", "User::\"root\"")
        .header("X-Cardea-Principal", "User::\"root\"")
        .header("x-cardea-decision-id", "forged")
        .header("x-cardea-obligations", "none")
        .header("x-cardea-anything-else", "forged");
    let seen = stack.allowed(forged).await?;
    assert_eq!(seen.all("x-cardea-principal"), ["Agent::\"biller\""]);
    assert_eq!(seen.all("x-cardea-obligations"), ["mask_personal_data"]);
    assert_eq!(seen.all("x-cardea-decision-id").len(), 1);
    let forged: Vec<_> = seen.headers.iter().filter(|(_, value)| value.contains("forged")).collect();
    assert!(forged.is_empty(), "{forged:?}");
    assert!(seen.all("x-cardea-anything-else").is_empty());
    Ok(())
}

#[tokio::test]
async fn a_denied_request_gets_403_with_a_small_json_body_and_a_record() -> Result<()> {
    let mut stack = Stack::start().await?;
    let answer = stack.stopped(Request::new("DELETE", ORDERS), 403).await?;
    let id = check_denial(&answer, "forbidden")?;
    assert_eq!(word(&answer.json()?, "message"), "Tables are not dropped through the API");
    let record = audit::decision(&mut stack.clients, &id).await?;
    assert_eq!(record.decision(), v1::Decision::Deny);
    assert_eq!(record.determining_policies, ["tables_are_never_dropped"]);

    let answer = stack.stopped(Request::get("/tables/salaries"), 403).await?;
    let id = check_denial(&answer, "no_permit")?;
    let record = audit::decision(&mut stack.clients, &id).await?;
    assert_eq!(record.reasons.first().map(v1::Reason::code), Some(v1::ReasonCode::NoPermit));
    Ok(())
}

#[tokio::test]
async fn a_step_up_gets_401_with_the_challenge_and_a_fresh_login_meets_it() -> Result<()> {
    let mut stack = Stack::start().await?;
    let transfer = || Request::new("POST", TRANSFER);
    let answer = stack.stopped(transfer(), 401).await?;
    let challenge = answer.header("www-authenticate")?;
    assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
    assert!(challenge.contains("acr_values=\"urn:example:acr:mfa urn:example:acr:hardware\""), "{challenge}");
    assert!(challenge.contains("max_age=\"300\""), "{challenge}");
    let id = check_denial(&answer, "step_up_required")?;
    let record = audit::decision(&mut stack.clients, &id).await?;
    assert_eq!(record.decision(), v1::Decision::StepUp);
    assert_eq!(record.step_up, ["fresh_login"]);

    let login = v1::UpdateSessionRequest {
        id: SESSION.to_owned(),
        authenticated_at: Some(wall_time(0)?),
        acr: Some("urn:example:acr:mfa".to_owned()),
        ..v1::UpdateSessionRequest::default()
    };
    stack.clients.session.update(login).await?;
    stack.allowed(transfer()).await?;
    Ok(())
}

#[tokio::test]
async fn the_request_after_the_end_of_the_session_is_denied() -> Result<()> {
    let mut stack = Stack::start().await?;
    stack.allowed(Request::get(ORDERS)).await?;
    stack.clients.end_session(SESSION).await?;
    let answer = stack.stopped(Request::get(ORDERS), 403).await?;
    check_denial(&answer, "session_revoked")?;
    Ok(())
}

#[tokio::test]
async fn the_request_after_a_risk_signal_is_judged_with_it() -> Result<()> {
    let mut stack = Stack::start().await?;
    let write = || Request::new("PUT", ORDERS);
    stack.allowed(write()).await?;
    stack.clients.report_risk("Agent::biller", 50).await?;
    let answer = stack.stopped(write(), 401).await?;
    check_denial(&answer, "step_up_required")?;
    assert!(answer.header("www-authenticate")?.contains("approval_required"), "{answer:?}");
    stack.allowed(Request::get(ORDERS)).await?;

    stack.clients.report_risk("Agent::biller", 95).await?;
    let answer = stack.stopped(Request::get(ORDERS), 403).await?;
    let id = check_denial(&answer, "forbidden")?;
    let record = audit::decision(&mut stack.clients, &id).await?;
    let evidence = record.evidence.iter().find(|evidence| evidence.fact == "risk.score");
    let evidence = evidence.context("the record does not say which risk")?;
    assert!(evidence.why.contains("credential_compromise"), "{evidence:?}");

    stack.clients.report_risk("Agent::biller", 0).await?;
    stack.allowed(write()).await?;
    Ok(())
}

#[tokio::test]
async fn path_and_query_become_context_that_policy_reads() -> Result<()> {
    let stack = Stack::start().await?;
    stack.allowed(Request::get("/tables/orders?limit=1000")).await?;
    let answer = stack.stopped(Request::get("/tables/orders?limit=1001"), 403).await?;
    check_denial(&answer, "forbidden")?;
    // A forbid that overflows counts as satisfied.
    let answer = stack.stopped(Request::get("/tables/orders?limit=9223372036854775807"), 403).await?;
    check_denial(&answer, "policy_errored")?;
    for malformed in ["limit=many", "limit=", "limit=1&limit=2000", "limit=99999999999999999999"] {
        stack.stopped(Request::get(format!("/tables/orders?{malformed}")), 403).await?;
    }
    Ok(())
}

#[tokio::test]
async fn it_works_over_the_unix_socket_and_with_joined_headers() -> Result<()> {
    for (over, raw_headers) in [(Over::Uds, true), (Over::Tcp, false), (Over::Uds, false)] {
        let mut stack =
            Stack::start_with(Options::default(), over, |front| front.raw_headers = raw_headers).await?;
        let forged = Request::get(ORDERS).header("x-cardea-principal", "forged").header("x-tenant", "acme");
        let seen = stack.allowed(forged).await?;
        assert_eq!(seen.all("x-cardea-principal"), ["Agent::\"biller\""]);
        let answer = stack.stopped(Request::new("DELETE", ORDERS), 403).await?;
        check_denial(&answer, "forbidden")?;
        stack.stopped(Request::new("POST", TRANSFER), 401).await?;
        stack.clients.end_session(SESSION).await?;
        stack.stopped(Request::get(ORDERS), 403).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_request_has_exactly_one_record() -> Result<()> {
    let mut stack = Stack::start().await?;
    let mut ids = Vec::new();
    for round in 0..20 {
        let target = if round % 2 == 0 { ORDERS } else { "/tables/salaries" };
        let answer = stack.send(Request::get(target)).await?;
        let id = match stack.upstream.seen().last() {
            Some(seen) if answer.status == 200 => seen.all("x-cardea-decision-id").concat(),
            _ => answer.header("x-cardea-decision-id")?.to_owned(),
        };
        ids.push(id);
    }
    let last = ids.last().context("no request was sent")?.clone();
    audit::decision(&mut stack.clients, &last).await?;
    let mut recorded = Vec::new();
    let request = v1::StreamRecordsRequest {
        from_sequence: 1,
        filter: Some(v1::RecordFilter { door: "ext_authz".to_owned(), ..v1::RecordFilter::default() }),
        from_time: None,
    };
    let mut stream = stack.clients.audit.stream(request).await?.into_inner();
    while recorded.len() < ids.len() {
        let batch = wait::within("the records", stream.message()).await??.context("the stream ended")?;
        for record in batch.records {
            let Some(v1::record::Entry::Decision(decision)) = record.entry else {
                panic!("the filter let something else pass: {record:?}");
            };
            recorded.push(decision.decision_id);
        }
    }
    assert_eq!(recorded, ids);
    Ok(())
}

#[tokio::test]
async fn native_grpc_and_envoy_give_the_same_verdict() -> Result<()> {
    let mut stack = Stack::start().await?;
    stack.clients.report_risk("Agent::biller", 80).await?;
    let answer = stack.stopped(Request::get(ORDERS), 403).await?;
    let id = check_denial(&answer, "forbidden")?;
    let through_envoy = audit::decision(&mut stack.clients, &id).await?;
    let attempt = attempt("Agent::biller", "read", "Table::orders", SESSION)?;
    let native = stack.clients.decide(attempt).await?;
    assert_eq!(codes(&native), [v1::ReasonCode::Forbidden]);
    assert_eq!(native.determining_policies, through_envoy.determining_policies);
    assert_eq!(native.reasons, through_envoy.reasons);
    Ok(())
}
