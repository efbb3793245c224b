//! Allows that are taken back, on a real node over real connections.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cardea_proto::v1::hold_request::Part as Asked;
use cardea_proto::v1::hold_response::Part as Said;
use cardea_proto::v1::{self, Decision, hold_cause, hold_forget};
use cardea_tests::attempts::{attempt, codes, entity, wall_time};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::hold::{Point, Wire, decision, held, open, refused};
use cardea_tests::process::{Process, cardea_program};
use cardea_tests::{audit, bundle, wait};
use tonic::Code;

async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    Ok((cardea, clients))
}

fn read(session: &str) -> v1::Attempt {
    attempt("Agent::biller", "read", "Table::orders", session).unwrap()
}

/// A metric without labels, or with these.
async fn metric(cardea: &Cardea, name: &str) -> Result<f64> {
    let page = cardea.page("/metrics").await?.body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.with_context(|| format!("no metric `{name}`"))
}

#[tokio::test]
async fn ending_a_session_takes_back_its_allow_and_the_record_says_why() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    clients.open_session("other", "Agent::biller").await?;
    let mut point = Point::open(&mut clients, None).await?;
    assert!(!point.opened.resumed && point.opened.resume_ms > 0 && point.opened.heartbeat_ms > 0);
    point.add(vec![held(1, read("s")), held(2, read("other"))]).await?;
    let first = point.answers(2).await?;
    assert!(first.iter().all(|answer| decision(answer) == Decision::Allow && answer.cause.is_none()));
    let version = clients.end_session("s").await?;
    let answer = point.answer().await?;
    assert_eq!((answer.hold_id, decision(&answer)), (1, Decision::Deny));
    let verdict = answer.verdict.context("no verdict")?;
    assert_eq!(codes(&verdict), [v1::ReasonCode::SessionRevoked]);
    let cause = answer.cause.context("no cause")?;
    assert_eq!((cause.kind(), cause.name.as_str()), (hold_cause::Kind::Session, "s"));
    assert_eq!((cause.change.as_str(), cause.state_version), ("revoked", version));
    let record = audit::decision(&mut clients, &verdict.decision_id).await?;
    let hold = record.hold.context("no hold in the record")?;
    assert_eq!((record.door.as_str(), hold.enforcement_point.as_str(), hold.hold_id), ("hold", "gate", 1));
    assert_eq!((hold.before, hold.cause), (Decision::Allow.into(), Some(cause)));
    // Silence from then on, but for signs of life that name the version.
    loop {
        match point.message().await? {
            Said::Heartbeat(beat) if beat.state_version >= version => break,
            Said::Heartbeat(_) => {}
            other @ (Said::Opened(_) | Said::Verdicts(_) | Said::Forget(_)) => panic!("{other:?}"),
        }
    }
    assert!((metric(&cardea, "cardea_hold_push_seconds_count").await? - 1.0).abs() < 0.1);
    Ok(())
}

#[tokio::test]
async fn a_risk_signal_reaches_only_holds_whose_policies_read_risk() -> Result<()> {
    let options = Options::default().edit(
        "policies/guards.cedar",
        "forbid (principal, action, resource)\nwhen { context.risk.score >= 70 };",
        "forbid (principal, action == Action::\"read\", resource)\nwhen { context.risk.score >= 70 };",
    );
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    let mut point = Point::open(&mut clients, None).await?;
    let transfer = attempt("Agent::biller", "transfer", "Account::a", "s")?;
    point.add(vec![held(1, read("s")), held(2, transfer)]).await?;
    let first = point.answers(2).await?;
    assert_eq!(first.iter().map(decision).collect::<Vec<_>>(), [Decision::Allow, Decision::StepUp]);
    clients.report_risk("Agent::biller", 95).await?;
    let answer = point.answer().await?;
    assert_eq!((answer.hold_id, decision(&answer)), (1, Decision::Deny));
    let cause = answer.cause.context("no cause")?;
    assert_eq!((cause.kind(), cause.change.as_str()), (hold_cause::Kind::Principal, "risk"));
    let judged = metric(&cardea, "cardea_hold_judged_again_total{cause=\"principal\"}").await?;
    assert!((judged - 1.0).abs() < 0.1, "{judged} holds were judged again for the signal");
    Ok(())
}

#[tokio::test]
async fn a_token_and_a_task_end_without_anybody_asking() -> Result<()> {
    let options = Options::default()
        .edit("schema.cedarschema", "risk: Cardea::Risk,", "risk: Cardea::Risk,\n  task: Cardea::Task,")
        .edit(
            "policies/guards.cedar",
            "// What stops or slows those who may.",
            "@id(\"writes_are_work\")\nforbid (principal, action == Action::\"write\", resource)\nunless { context.task.active };",
        );
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    let task = v1::Task {
        id: "t".to_owned(),
        actions: vec!["write".to_owned()],
        not_after: Some(wall_time(3)?),
        ..v1::Task::default()
    };
    let session = v1::Session {
        id: "s".to_owned(),
        principal: Some(entity("Agent::biller")?),
        task: Some(task.clone()),
        ..v1::Session::default()
    };
    clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
    let token = v1::Token { expires_at: Some(wall_time(2)?), ..v1::Token::default() };
    let mut point = Point::open(&mut clients, None).await?;
    let with_token = v1::Attempt { token: Some(token.clone()), ..read("s") };
    let write = attempt("Agent::biller", "write", "Table::orders", "s")?;
    point.add(vec![held(1, with_token), held(2, write)]).await?;
    let first = point.answers(2).await?;
    assert!(first.iter().all(|answer| decision(answer) == Decision::Allow), "{first:?}");
    for (hold_id, end) in [(1, token.expires_at), (2, task.not_after)] {
        let end = end.context("an end")?;
        let answer = point.answer().await?;
        let now = wall_time(0)?;
        let late_ms = (now.seconds - end.seconds) * 1000 + i64::from(now.nanos - end.nanos) / 1_000_000;
        assert_eq!((answer.hold_id, decision(&answer)), (hold_id, Decision::Deny), "{answer:?}");
        assert_eq!(answer.cause.context("no cause")?.kind(), hold_cause::Kind::Time);
        assert!((0..900).contains(&late_ms), "hold {hold_id} ended {late_ms} ms after its time");
    }
    Ok(())
}

#[tokio::test]
async fn a_new_bundle_takes_back_what_it_forbids() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, read("s"))]).await?;
    point.answers(1).await?;
    let old = "forbid (principal, action == Action::\"drop\", resource);";
    bundle::edit(&cardea.bundle(), "policies/guards.cedar", old, "forbid (principal, action, resource);")?;
    let answer = point.answer().await?;
    let cause = answer.cause.clone().context("no cause")?;
    assert_eq!((decision(&answer), cause.kind()), (Decision::Deny, hold_cause::Kind::Bundle));
    let revision = clients.status().await?.bundle.context("no bundle")?.revision;
    assert_eq!(cause.name, revision.to_string());
    Ok(())
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_forget_and_may_begin_anew() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    clients.open_session("new", "Agent::biller").await?;
    let mut point = Point::open(&mut clients, None).await?;
    let many: Vec<u64> = (1..=24_000).collect();
    let mut answered = 0;
    for part in many.chunks(1000) {
        point.add(part.iter().map(|hold_id| held(*hold_id, read("s"))).collect()).await?;
        answered += point.answers(part.len()).await?.len();
    }
    assert_eq!(answered, many.len(), "whoever reads is told everything");
    clients.end_session("s").await?;
    // It does not read until this node has given up on it.
    wait::until("the node to give up", async || {
        let forgets = metric(&cardea, "cardea_hold_forgets_total{reason=\"slow_reader\"}").await?;
        Ok((forgets > 0.0).then_some(()))
    })
    .await?;
    let forget = loop {
        match point.message().await? {
            Said::Forget(forget) => break forget,
            Said::Verdicts(_) | Said::Heartbeat(_) => {}
            other @ Said::Opened(_) => panic!("{other:?}"),
        }
    };
    assert_eq!(forget.reason(), hold_forget::Reason::SlowReader);
    wait::until("the holds to be gone", async || {
        Ok((metric(&cardea, "cardea_holds").await? == 0.0).then_some(()))
    })
    .await?;
    point.add(vec![held(1, read("new"))]).await?;
    let answer = point.answer().await?;
    assert_eq!((answer.hold_id, decision(&answer)), (1, Decision::Allow));
    Ok(())
}

#[tokio::test]
async fn whoever_comes_back_after_a_broken_connection_is_told_what_it_missed() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    clients.open_session("other", "Agent::biller").await?;
    let wire = Wire::to(cardea.grpc).await?;
    let mut point = Point::open(&mut Clients::tcp(wire.at)?, None).await?;
    point.add(vec![held(1, read("s")), held(2, read("other"))]).await?;
    point.answers(2).await?;
    let (token, heard) = (point.opened.resume_token.clone(), point.heard);
    wire.cut();
    let broken = loop {
        match point.message().await {
            Ok(_) => {}
            Err(broken) => break broken,
        }
    };
    assert!(!broken.to_string().contains("in vain"), "{broken:#}");
    clients.end_session("s").await?;
    let mut again = Point::open(&mut clients, Some((&token, heard))).await?;
    assert!(again.opened.resumed);
    let answer = again.answer().await?;
    assert_eq!((answer.hold_id, decision(&answer)), (1, Decision::Deny));
    assert_eq!(answer.cause.context("no cause")?.kind(), hold_cause::Kind::Session);
    clients.end_session("other").await?;
    let answer = again.answer().await?;
    assert_eq!((answer.hold_id, decision(&answer)), (2, Decision::Deny));
    Ok(())
}

#[tokio::test]
async fn a_stolen_or_unknown_token_opens_an_empty_stream_and_harms_nobody() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, read("s"))]).await?;
    point.answers(1).await?;
    let token = point.opened.resume_token.clone();
    let changed = format!("{}0", token.strip_suffix(|_: char| true).unwrap());
    let changed = if changed == token { format!("{}1", token.strip_suffix('0').unwrap()) } else { changed };
    // Over another kind of connection it comes from somebody else.
    let mut elsewhere = Clients::uds(&cardea.uds())?;
    for (clients, token) in [
        (&mut elsewhere, token.as_str()),
        (&mut clients.clone(), &changed),
        (&mut clients.clone(), "nonsense"),
        (&mut clients.clone(), "ffffffffffffffff-00000000000000000000000000000000"),
    ] {
        let stranger = Point::open(clients, Some((token, 0))).await?;
        assert!(!stranger.opened.resumed);
        assert_ne!(stranger.opened.resume_token, point.opened.resume_token);
    }
    clients.end_session("s").await?;
    assert_eq!(decision(&point.answer().await?), Decision::Deny, "the stream itself goes on");
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_taken_over_ends_on_its_old_connection() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, read("s"))]).await?;
    point.answers(1).await?;
    let again = Point::open(&mut clients, Some((&point.opened.resume_token, point.heard))).await?;
    assert!(again.opened.resumed);
    let ended = point.message().await.unwrap_err();
    assert_eq!(ended.downcast_ref::<tonic::Status>().context("no status")?.code(), Code::Aborted);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_said() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let add = |holds: Vec<v1::HoldAttempt>| v1::HoldRequest { part: Some(Asked::Add(v1::HoldAdd { holds })) };
    let drop = |hold_ids: Vec<u64>| v1::HoldRequest { part: Some(Asked::Drop(v1::HoldDrop { hold_ids })) };
    let two_thousand = (1..=2000).map(|hold_id| held(hold_id, v1::Attempt::default())).collect();
    let cases = [
        (vec![add(vec![])], "first message"),
        (vec![v1::HoldRequest { part: None }], "first message"),
        (vec![open("", None)], "enforcement_point"),
        (vec![open(&"x".repeat(129), None)], "enforcement_point"),
        (vec![open("gate", None), open("gate", None)], "`open` is the first"),
        (vec![open("gate", None), v1::HoldRequest { part: None }], "`add` or `drop`"),
        (vec![open("gate", None), add(vec![held(0, read("s"))])], "not 0"),
        (vec![open("gate", None), add(two_thousand)], "at most 1024"),
        (vec![open("gate", None), drop((1..=2000).collect())], "at most 1024"),
    ];
    for (messages, says) in cases {
        let status = refused(&mut clients, messages).await?;
        assert_eq!(status.code(), Code::InvalidArgument, "{says}: {status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_makes_no_sense_is_denied_and_the_others_are_held() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    let unknown = attempt("Martian::zork", "read", "Table::orders", "s")?;
    let empty = v1::HoldAttempt { hold_id: 3, attempt: None };
    let huge = v1::Attempt { id: "x".repeat(20_000), ..read("s") };
    point.add(vec![held(1, read("s")), held(2, unknown), empty, held(4, huge)]).await?;
    let answers: BTreeMap<u64, v1::Verdict> =
        point.answers(4).await?.into_iter().map(|answer| (answer.hold_id, answer.verdict.unwrap())).collect();
    assert!(answers[&4].reasons[0].message.contains("at most 16384 bytes"), "{:?}", answers[&4]);
    assert_eq!(answers[&1].decision(), Decision::Allow);
    assert_eq!(codes(&answers[&2]), [v1::ReasonCode::UnknownType]);
    assert_eq!(codes(&answers[&3]), [v1::ReasonCode::Malformed]);
    let listed = listed(&mut clients, 0).await?;
    assert_eq!(listed.streams.iter().map(|stream| stream.holds).collect::<Vec<_>>(), [1]);
    wait::until("one hold", async || Ok((metric(&cardea, "cardea_holds").await? == 1.0).then_some(()))).await
}

async fn listed(clients: &mut Clients, stream_id: u64) -> Result<v1::ListHoldStreamsResponse> {
    let request = v1::ListHoldStreamsRequest { stream_id, ..v1::ListHoldStreamsRequest::default() };
    Ok(clients.admin.list_hold_streams(request).await?.into_inner())
}

#[tokio::test]
async fn whoever_closes_its_side_frees_its_holds_at_once_and_a_broken_connection_keeps_them() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let wire = Wire::to(cardea.grpc).await?;
    let mut lost = Point::open(&mut Clients::tcp(wire.at)?, None).await?;
    lost.add(vec![held(1, read("s"))]).await?;
    lost.answers(1).await?;
    let mut done = Point::open(&mut clients, None).await?;
    done.add(vec![held(1, read("s")), held(2, read("s"))]).await?;
    done.answers(2).await?;
    assert_eq!(listed(&mut clients, 0).await?.streams.len(), 2);
    let mut rest = done.done();
    while let Some(message) = wait::within("the end", rest.message()).await?? {
        assert!(matches!(message.part, Some(Said::Heartbeat(_))), "{message:?}");
    }
    wire.cut();
    wait::until("one lost stream", async || {
        let streams = listed(&mut clients, 0).await?.streams;
        let is_so = streams.len() == 1 && streams.iter().all(|stream| !stream.connected && stream.holds == 1);
        Ok(is_so.then_some(()))
    })
    .await
}

#[tokio::test]
async fn ten_thousand_signals_come_to_the_newest_answer() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, read("s"))]).await?;
    point.answers(1).await?;
    let signal = |number: u32| -> Result<v1::Signal> {
        let observed = v1::RiskObserved {
            kind: v1::RiskKind::Operator.into(),
            severity: if number.is_multiple_of(2) { 95 } else { 0 },
            confidence: 100,
            half_life: None,
            reason: String::new(),
        };
        let mut event_time = wall_time(-20)?;
        event_time.seconds += i64::from(number / 1000);
        event_time.nanos = i32::try_from(number % 1000)? * 1_000_000;
        Ok(v1::Signal {
            subject: Some(entity("Agent::biller")?),
            event_time: Some(event_time),
            source: "burst".to_owned(),
            change: Some(v1::signal::Change::Risk(observed)),
        })
    };
    for part in 0..100 {
        let signals = (part * 100..part * 100 + 100).map(signal).collect::<Result<Vec<_>>>()?;
        clients.signal.report(v1::ReportSignalsRequest { signals }).await?;
    }
    clients.end_session("s").await?;
    let mut told = 0;
    loop {
        let answer = point.answers(1).await?;
        told += answer.len();
        let last = answer.last().and_then(|answer| answer.verdict.as_ref()).context("no answer")?;
        if codes(last) == [v1::ReasonCode::SessionRevoked] {
            break;
        }
    }
    let judged = metric(&cardea, "cardea_hold_judged_again_total{cause=\"principal\"}").await?;
    assert!(told < 10_000 && judged < 10_001.0, "{told} told, {judged} judged");
    Ok(())
}

#[tokio::test]
async fn operators_see_streams_and_holds_and_watch_what_changes() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add((1..=3).map(|hold_id| held(hold_id, read("s"))).collect()).await?;
    point.answers(3).await?;
    let node = format!("http://{}", cardea.grpc);
    let mut command = std::process::Command::new(cardea_program()?);
    command.args(["watch", "--node", &node, "--from", "1", "--format", "json"]);
    let mut watch = Process::start("cardea watch", &mut command)?;
    watch.stdout_line(|line| line.contains("\"opened\"").then_some(())).await?;
    clients.end_session("s").await?;
    let line = watch
        .stdout_line(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            (event.get("kind")? == "hold").then_some(event)
        })
        .await?;
    assert_eq!(line["change"], "allow -> deny");
    assert_eq!((&line["enforcement_point"], &line["cause"]), (&"gate".into(), &"session s revoked".into()));
    let list = |words: &'static [&'static str]| {
        let node = node.clone();
        async move {
            let run = move || {
                let mut command = std::process::Command::new(cardea_program()?);
                command.args(["hold", "list", "--node", &node]).args(words);
                anyhow::Ok(command.output()?)
            };
            tokio::task::spawn_blocking(run).await?
        }
    };
    let all = list(&["--format", "json"]).await?;
    let all: serde_json::Value = serde_json::from_slice(&all.stdout)?;
    assert_eq!((&all["streams"][0]["holds"], &all["streams"][0]["not_allowed"]), (&3.into(), &3.into()));
    let one = list(&["--stream", "1", "--limit", "2"]).await?;
    let text = String::from_utf8(one.stdout)?;
    for says in ["gate", "connected", "Agent::\"biller\"", "session s revoked", "there are more: --after 2"] {
        assert!(text.contains(says), "no `{says}` in:\n{text}");
    }
    let none = list(&["--stream", "99"]).await?;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr)?.contains("no stream has this number"));
    Ok(())
}

#[tokio::test]
async fn a_node_that_stops_says_so_on_its_streams() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, read("s"))]).await?;
    point.answers(1).await?;
    let stopped = tokio::time::timeout(Duration::from_secs(5), cardea.process.terminate()).await;
    assert!(stopped.context("it waited for the stream")??.success());
    let ended = loop {
        match point.message().await {
            Ok(_) => {}
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended.downcast_ref::<tonic::Status>().context("no status")?.code(), Code::Unavailable);
    Ok(())
}

#[tokio::test]
async fn what_a_session_does_reaches_holds_that_read_its_behaviour() -> Result<()> {
    let forbid = "@id(\"too_many_denials\")\nforbid (principal, action == Action::\"read\", resource)\nwhen { context.behavior.denials > 2 };";
    let options = Options::default()
        .edit("schema.cedarschema", "risk: Cardea::Risk,", "risk: Cardea::Risk, behavior: Cardea::Behavior,")
        .edit("policies/access.cedar", "// Who may do what at all.", forbid);
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, read("s"))]).await?;
    assert_eq!(decision(&point.answer().await?), Decision::Allow);
    for _ in 0..3 {
        let denied = clients.decide(attempt("Agent::biller", "drop", "Table::orders", "s")?).await?;
        assert_eq!(denied.decision(), Decision::Deny);
    }
    let answer = point.answer().await?;
    assert_eq!(decision(&answer), Decision::Deny);
    assert_eq!(answer.cause.context("no cause")?.kind(), hold_cause::Kind::Time);
    Ok(())
}
