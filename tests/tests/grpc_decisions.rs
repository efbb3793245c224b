//! The native door: single attempts, batches and streams, and how soon sessions and signals count.

use anyhow::{Context as _, Result};
use cardea_proto::v1::{self, Decision, ReasonCode};
use cardea_tests::attempts::{attempt, codes, entity, long, wall_time};
use cardea_tests::cardea::Cardea;
use cardea_tests::clients::Clients;
use cardea_tests::{audit, wait};

const SESSION: &str = "s-1";

/// A service and a client with a session of `biller`.
async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session(SESSION, "Agent::biller").await?;
    Ok((cardea, clients))
}

fn read_orders() -> Result<v1::Attempt> {
    attempt("Agent::biller", "read", "Table::orders", SESSION)
}

#[tokio::test]
async fn an_allow_says_which_policies_obligations_and_basis_it_rests_on() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let verdict = clients.decide(v1::Attempt { id: "first".to_owned(), ..read_orders()? }).await?;
    assert_eq!(verdict.decision(), Decision::Allow, "{verdict:?}");
    assert_eq!(verdict.attempt_id, "first");
    assert!(verdict.reasons.is_empty());
    assert_eq!(verdict.determining_policies, ["billing_works_on_sales"]);
    assert_eq!(verdict.obligations, ["mask_personal_data"]);
    assert_eq!(verdict.decision_id.len(), 36);
    let basis = verdict.basis.context("no basis")?;
    assert_eq!(basis.digest.len(), 64);
    assert!(basis.state_version > 0);
    let status = clients.status().await?;
    assert_eq!(status.bundle.map(|bundle| bundle.digest), Some(basis.digest));

    let record = audit::decision(&mut clients, &verdict.decision_id).await?;
    assert_eq!((record.door.as_str(), record.attempt_id.as_str()), ("grpc", "first"));
    assert!(record.latency_ns > 0);
    Ok(())
}

#[tokio::test]
async fn a_step_up_names_its_requirement_in_full() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let verdict = clients.decide(attempt("Agent::biller", "transfer", "Account::a-1", SESSION)?).await?;
    assert_eq!((verdict.decision(), codes(&verdict)), (Decision::StepUp, vec![ReasonCode::StepUpRequired]));
    let [requirement] = verdict.step_up.as_slice() else { panic!("one requirement: {verdict:?}") };
    assert_eq!((requirement.name.as_str(), requirement.max_age_s), ("fresh_login", Some(300)));
    assert_eq!(requirement.kind(), v1::step_up_requirement::Kind::Authentication);
    assert_eq!(requirement.acr_values, ["urn:example:acr:mfa", "urn:example:acr:hardware"]);

    clients.report_risk("Agent::biller", 40).await?;
    let verdict = clients.decide(attempt("Agent::biller", "write", "Table::orders", SESSION)?).await?;
    let [requirement] = verdict.step_up.as_slice() else { panic!("one requirement: {verdict:?}") };
    assert_eq!(requirement.kind(), v1::step_up_requirement::Kind::Approval);
    assert_eq!(
        (requirement.reviewers.as_slice(), requirement.grant_s),
        (&["Team::\"duty-officers\"".to_owned()][..], Some(900))
    );
    Ok(())
}

#[tokio::test]
async fn a_batch_answers_each_attempt_in_order() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let mut attempts = Vec::new();
    for number in 0..1024 {
        let table = if number % 3 == 0 { "Table::orders" } else { "Table::salaries" };
        let mut one = attempt("Agent::biller", "read", table, SESSION)?;
        one.id = number.to_string();
        attempts.push(one);
    }
    let answer = clients.decision.decide_batch(v1::DecideBatchRequest { attempts }).await?.into_inner();
    assert_eq!(answer.verdicts.len(), 1024);
    for (number, verdict) in answer.verdicts.iter().enumerate() {
        let expected = if number % 3 == 0 { Decision::Allow } else { Decision::Deny };
        assert_eq!(
            (verdict.attempt_id.as_str(), verdict.decision()),
            (number.to_string().as_str(), expected)
        );
    }
    let mut ids: Vec<_> = answer.verdicts.iter().map(|verdict| &verdict.decision_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1024, "each decision has an id of its own");
    Ok(())
}

#[tokio::test]
async fn a_batch_over_the_limit_is_refused_whole() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let attempts = vec![read_orders()?; 1025];
    let status = clients.decision.decide_batch(v1::DecideBatchRequest { attempts }).await;
    let status = status.err().context("1025 attempts were answered")?;
    let expected = [tonic::Code::InvalidArgument, tonic::Code::OutOfRange, tonic::Code::ResourceExhausted];
    assert!(expected.contains(&status.code()), "{status:?}");
    assert!(status.message().contains("1024"), "{status:?}");
    assert_eq!(clients.decide(read_orders()?).await?.decision(), Decision::Allow);
    Ok(())
}

#[tokio::test]
async fn one_bad_attempt_in_a_batch_does_not_spoil_the_others() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let bad = v1::Attempt { principal: None, id: "bad".to_owned(), ..read_orders()? };
    let attempts = vec![read_orders()?, bad, read_orders()?];
    let answer = clients.decision.decide_batch(v1::DecideBatchRequest { attempts }).await?.into_inner();
    let decisions: Vec<_> = answer.verdicts.iter().map(v1::Verdict::decision).collect();
    assert_eq!(decisions, [Decision::Allow, Decision::Deny, Decision::Allow]);
    assert_eq!(answer.verdicts.get(1).map(codes), Some(vec![ReasonCode::Malformed]));
    Ok(())
}

#[tokio::test]
async fn a_stream_takes_many_messages_before_the_first_answer_is_read() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let mut messages = Vec::new();
    for message in 0..50 {
        let mut attempts = Vec::new();
        for number in 0..20 {
            let table = if number % 2 == 0 { "Table::orders" } else { "Table::salaries" };
            let mut one = attempt("Agent::biller", "read", table, SESSION)?;
            one.id = format!("{message}-{number}");
            attempts.push(one);
        }
        messages.push(v1::DecideStreamRequest { attempts });
    }
    let sent: Vec<_> =
        messages.iter().flat_map(|message| &message.attempts).map(|one| one.id.clone()).collect();
    let mut answers = clients.decision.decide_stream(tokio_stream::iter(messages)).await?.into_inner();
    let mut received = Vec::new();
    while let Some(answer) = wait::within("an answer", answers.message()).await?? {
        for verdict in answer.verdicts {
            let even = verdict.attempt_id.ends_with(['0', '2', '4', '6', '8']);
            assert_eq!(verdict.decision(), if even { Decision::Allow } else { Decision::Deny });
            received.push(verdict.attempt_id);
        }
    }
    assert_eq!(received, sent);
    Ok(())
}

#[tokio::test]
async fn a_stream_answers_while_it_is_open_and_sees_changed_facts() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let message = || anyhow::Ok(v1::DecideStreamRequest { attempts: vec![read_orders()?] });
    sender.send(message()?).await?;
    let mut answers = clients.decision.decide_stream(stream).await?.into_inner();
    let first = wait::within("the first answer", answers.message()).await??.context("the stream ended")?;
    assert_eq!(first.verdicts.first().map(v1::Verdict::decision), Some(Decision::Allow));

    clients.end_session(SESSION).await?;
    sender.send(message()?).await?;
    let next = wait::within("the next answer", answers.message()).await??.context("the stream ended")?;
    assert_eq!(next.verdicts.first().map(codes), Some(vec![ReasonCode::SessionRevoked]));
    drop(sender);
    assert!(wait::within("the end of the stream", answers.message()).await??.is_none());
    Ok(())
}

#[tokio::test]
async fn the_decision_after_a_session_changes_sees_the_change() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let transfer = || attempt("Agent::biller", "transfer", "Account::a-1", SESSION);
    assert_eq!(clients.decide(transfer()?).await?.decision(), Decision::StepUp);
    let login = v1::UpdateSessionRequest {
        id: SESSION.to_owned(),
        authenticated_at: Some(wall_time(0)?),
        acr: Some("urn:example:acr:hardware".to_owned()),
        ..v1::UpdateSessionRequest::default()
    };
    let updated = clients.session.update(login).await?.into_inner();
    let verdict =
        clients.decide(v1::Attempt { at_least_version: updated.state_version, ..transfer()? }).await?;
    assert_eq!(verdict.decision(), Decision::Allow, "{verdict:?}");
    assert!(verdict.basis.context("no basis")?.state_version >= updated.state_version);

    let ended = clients.end_session(SESSION).await?;
    assert!(ended > updated.state_version, "the state version only rises");
    assert_eq!(codes(&clients.decide(transfer()?).await?), [ReasonCode::SessionRevoked]);
    let again = clients.open_session(SESSION, "Agent::biller").await;
    assert!(again.is_err(), "an ended session is not opened again");

    let future = v1::Attempt { at_least_version: ended + 1_000_000, ..read_orders()? };
    assert_eq!(codes(&clients.decide(future).await?), [ReasonCode::StateTooOld]);
    Ok(())
}

#[tokio::test]
async fn sessions_are_read_listed_and_ended_by_principal() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    clients.open_session("s-2", "Agent::biller").await?;
    clients.open_session("s-3", "Agent::other").await?;
    let twice = clients.open_session("s-3", "Agent::other").await.err().context("opened twice")?;
    let twice = twice.downcast_ref::<tonic::Status>().map(tonic::Status::code);
    assert_eq!(twice, Some(tonic::Code::AlreadyExists));

    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListSessionsRequest { principal: None, page_size: 2, page_token };
        let page = clients.session.list(request).await?.into_inner();
        found.extend(page.sessions.into_iter().map(|session| session.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["s-1", "s-2", "s-3"]);

    let target = Some(v1::end_session_request::Target::Principal(entity("Agent::biller")?));
    let ended =
        clients.session.end(v1::EndSessionRequest { target, reason: String::new() }).await?.into_inner();
    assert_eq!(ended.ended, 2);
    assert_eq!(codes(&clients.decide(read_orders()?).await?), [ReasonCode::SessionRevoked]);
    let missing = clients.session.get(v1::GetSessionRequest { id: "s-9".to_owned() }).await;
    assert_eq!(missing.err().map(|status| status.code()), Some(tonic::Code::NotFound));
    Ok(())
}

#[tokio::test]
async fn the_decision_after_each_kind_of_signal_sees_it() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let reason = String::new();
    clients.report_risk("Agent::biller", 100).await?;
    let verdict = clients.decide(read_orders()?).await?;
    assert_eq!(
        (verdict.decision(), verdict.determining_policies.as_slice()),
        (Decision::Deny, &["high_risk_stops".to_owned()][..])
    );
    clients.report_risk("Agent::biller", 0).await?;
    assert_eq!(clients.decide(read_orders()?).await?.decision(), Decision::Allow);

    let disabled = v1::signal::Change::PrincipalDisabled(v1::PrincipalDisabled { reason: reason.clone() });
    clients.report(Some("Agent::biller"), disabled).await?;
    assert_eq!(codes(&clients.decide(read_orders()?).await?), [ReasonCode::PrincipalDisabled]);
    let enabled = v1::signal::Change::PrincipalEnabled(v1::PrincipalEnabled {});
    clients.report(Some("Agent::biller"), enabled).await?;
    assert_eq!(clients.decide(read_orders()?).await?.decision(), Decision::Allow);

    let revoked = v1::SessionRevoked { session_id: SESSION.to_owned(), reason };
    clients.report(None, v1::signal::Change::SessionRevoked(revoked)).await?;
    assert_eq!(codes(&clients.decide(read_orders()?).await?), [ReasonCode::SessionRevoked]);

    audit::find(&mut clients, "the record of the revocation", |record| match &record.entry {
        Some(v1::record::Entry::Signal(signal)) if signal.kind == "session_revoked" => Some(()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn an_older_signal_does_not_undo_a_newer_one() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let observed = |severity| v1::RiskObserved {
        kind: v1::RiskKind::Operator.into(),
        severity,
        confidence: 100,
        half_life: None,
        reason: String::new(),
    };
    let signal = |severity, at| v1::Signal {
        subject: entity("Agent::biller").ok(),
        event_time: Some(at),
        source: "test".to_owned(),
        change: Some(v1::signal::Change::Risk(observed(severity))),
    };
    let signals = vec![signal(100, wall_time(-10)?), signal(0, wall_time(-60)?)];
    let answer = clients.signal.report(v1::ReportSignalsRequest { signals }).await?.into_inner();
    let outcomes: Vec<_> = answer.outcomes().collect();
    assert_eq!(outcomes, [v1::SignalOutcome::Applied, v1::SignalOutcome::Superseded]);
    assert_eq!(clients.decide(read_orders()?).await?.decision(), Decision::Deny);
    Ok(())
}

#[tokio::test]
async fn the_strictest_hop_of_a_delegation_wins() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let for_whom = |who: &str| anyhow::Ok(v1::Attempt { delegation: vec![entity(who)?], ..read_orders()? });
    let verdict = clients.decide(for_whom("User::ann")?).await?;
    assert_eq!(verdict.decision(), Decision::Allow, "{verdict:?}");
    assert_eq!(verdict.hops.len(), 2);
    let verdict = clients.decide(for_whom("User::bob")?).await?;
    let hops: Vec<_> = verdict.hops.iter().map(v1::HopVerdict::decision).collect();
    assert_eq!((verdict.decision(), hops), (Decision::Deny, vec![Decision::Deny, Decision::Allow]));
    // Risk of the person behind the agent counts as much as the agent's own.
    clients.report_risk("User::ann", 90).await?;
    assert_eq!(clients.decide(for_whom("User::ann")?).await?.decision(), Decision::Deny);
    let twice = v1::Attempt { delegation: vec![entity("Agent::biller")?], ..read_orders()? };
    assert_eq!(codes(&clients.decide(twice).await?), [ReasonCode::DelegationMalformed]);
    Ok(())
}

#[tokio::test]
async fn context_of_the_request_is_read_by_policy_and_typed_by_the_schema() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let with = |name: &str, value: v1::Value| {
        anyhow::Ok(v1::Attempt { context: [(name.to_owned(), value)].into(), ..read_orders()? })
    };
    assert_eq!(clients.decide(with("limit", long(1000))?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(with("limit", long(1001))?).await?.decision(), Decision::Deny);
    assert_eq!(codes(&clients.decide(with("limit", long(i64::MAX))?).await?), [ReasonCode::PolicyErrored]);
    let text = v1::Value { kind: Some(v1::value::Kind::String("many".to_owned())) };
    // What the schema does not know is surplus: no policy can read it.
    assert_eq!(clients.decide(with("surplus", long(1))?).await?.decision(), Decision::Allow);
    for (name, value) in [("limit", text), ("limit", v1::Value { kind: None })] {
        let outcome = clients.decide(with(name, value.clone())?).await;
        // A failed call or a deny, and nothing else.
        assert!(outcome.map_or(true, |verdict| verdict.decision() == Decision::Deny), "{name} = {value:?}");
    }
    Ok(())
}
