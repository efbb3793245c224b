//! What an operator relies on: health, reflection, status, metrics, bundle changes, and a quiet end.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::{bundle, wait};
use tokio::task::JoinSet;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    Ok((cardea, clients))
}

fn read(table: &str) -> Result<v1::Attempt> {
    attempt("Agent::biller", "read", table, "s")
}

#[tokio::test]
async fn health_and_reflection_answer_over_tcp_and_the_unix_socket() -> Result<()> {
    let (cardea, clients) = started().await?;
    for channel in [clients.channel, Clients::uds(&cardea.uds())?.channel] {
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        let health = HealthClient::new(channel.clone()).check(request).await?.into_inner();
        assert_eq!(health.status(), ServingStatus::Serving);

        let request = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(channel);
        let answer = reflection.server_reflection_info(tokio_stream::once(request)).await?;
        let answer = answer.into_inner().message().await?.and_then(|answer| answer.message_response);
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("no list of services: {answer:?}");
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        for service in ["Decision", "Session", "Signal", "Audit", "Admin"] {
            let name = format!("cardea.v1.{service}Service");
            assert!(names.contains(&name.as_str()), "{name} is not in {names:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_unix_socket_serves_decisions() -> Result<()> {
    let (cardea, _clients) = started().await?;
    let mut local = Clients::uds(&cardea.uds())?;
    assert_eq!(local.decide(read("Table::orders")?).await?.decision(), Decision::Allow);
    Ok(())
}

#[tokio::test]
async fn status_tells_bundle_state_and_audit() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    clients.report_risk("Agent::biller", 10).await?;
    clients.decide(read("Table::orders")?).await?;
    let status = clients.status().await?;
    assert!(status.ready && !status.version.is_empty());
    let bundle = status.bundle.context("no bundle")?;
    assert_eq!((bundle.name.as_str(), bundle.policies), ("web", 8));
    assert!(bundle.entities >= 6 && bundle.digest.len() == 64, "{bundle:?}");
    assert!(bundle.refusal.is_none());
    let state = status.state.context("no state")?;
    assert_eq!((state.sessions, state.risk_subjects), (1, 1));
    assert!(state.sessions_max > 0 && state.state_version >= 2);
    let audit = status.audit.context("no audit")?;
    assert_eq!((audit.when_full.as_str(), audit.lost, audit.fault.as_str()), ("deny", 0, ""));
    Ok(())
}

#[tokio::test]
async fn a_good_change_of_the_bundle_is_swapped_in_whole() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let before = clients.decide(read("Table::salaries")?).await?;
    assert_eq!(before.decision(), Decision::Deny);
    let before = before.basis.context("no basis")?;
    bundle::edit(
        &cardea.bundle(),
        "entities.json",
        r#""id": "salaries" }, "attrs": {}, "parents": []"#,
        r#""id": "salaries" }, "attrs": {}, "parents": [{ "type": "Schema", "id": "sales" }]"#,
    )?;
    let after = wait::until("the change to be in force", async || {
        let verdict = clients.decide(read("Table::salaries")?).await?;
        Ok((verdict.decision() == Decision::Allow).then_some(verdict))
    })
    .await?;
    let after = after.basis.context("no basis")?;
    assert!(after.revision > before.revision, "the revision only rises: {before:?} {after:?}");
    assert_ne!(after.digest, before.digest);
    let bundle = clients.status().await?.bundle.context("no bundle")?;
    assert_eq!((bundle.revision, bundle.digest), (after.revision, after.digest));
    assert!(bundle.refusal.is_none());
    Ok(())
}

#[tokio::test]
async fn a_bad_change_is_refused_with_its_place_while_the_old_bundle_serves_on() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let before = clients.status().await?.bundle.context("no bundle")?;
    let guards = cardea.bundle().join("policies/guards.cedar");
    let good = fs::read_to_string(&guards)?;
    let broken = [
        ("a typing error", good.replace("context.risk.score >= 70", "context.risk.scores >= 70")),
        ("a syntax error", good.replace("forbid (principal, action, resource)", "forbid (principal, action")),
        ("an unknown step-up", good.replace("@step_up(\"fresh_login\")", "@step_up(\"stale_login\")")),
    ];
    for (what, text) in broken {
        fs::write(&guards, text)?;
        let refusal = wait::until("the refusal", async || {
            Ok(clients.status().await?.bundle.and_then(|bundle| bundle.refusal))
        })
        .await
        .context(what)?;
        let fault = refusal.faults.join("\n");
        assert!(fault.contains("policies/guards.cedar:"), "{what}: file and line: {fault}");
        let place = fault.split("guards.cedar:").nth(1).and_then(|rest| rest.split(':').next());
        let line: usize =
            place.unwrap_or_default().parse().with_context(|| format!("{what}: no line in {fault}"))?;
        assert!((8..=25).contains(&line), "{what}: line {line} in {fault}");

        let verdict = clients.decide(read("Table::orders")?).await?;
        assert_eq!(verdict.decision(), Decision::Allow, "{what}");
        let serving = clients.status().await?.bundle.context("no bundle")?;
        assert_eq!((serving.revision, &serving.digest), (before.revision, &before.digest), "{what}");
        let health = HealthClient::new(clients.channel.clone());
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        assert_eq!(
            health.clone().check(request).await?.into_inner().status(),
            ServingStatus::Serving,
            "{what}"
        );
        let metrics = cardea.page("/metrics").await?.body;
        let refused = metrics.lines().any(|line| {
            line.contains("reload")
                && line.contains("refused")
                && !line.starts_with('#')
                && !line.ends_with(" 0")
        });
        assert!(refused, "{what}: no refused reload in {metrics}");

        fs::write(&guards, &good)?;
        wait::until("the refusal to be over", async || {
            let bundle = clients.status().await?.bundle.context("no bundle")?;
            Ok(bundle.refusal.is_none().then_some(()))
        })
        .await
        .context(what)?;
    }
    Ok(())
}

#[tokio::test]
async fn bundles_are_swapped_under_load_without_a_failed_or_mixed_answer() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let first = clients.status().await?.bundle.context("no bundle")?.revision;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (mut caller, stopped) = (cardea.clients()?, stopped.clone());
        callers.spawn(async move {
            let mut answers = 0_u64;
            let mut newest = 0;
            while !*stopped.borrow() {
                // Even revisions permit `salaries`, odd ones do not; the answer must fit the revision it names.
                let verdict = caller.decide(read("Table::salaries")?).await?;
                let revision = verdict.basis.context("no basis")?.revision;
                anyhow::ensure!(revision >= newest, "revision {revision} after {newest}");
                let permitted = (revision - first) % 2 == 1;
                let expected = if permitted { Decision::Allow } else { Decision::Deny };
                anyhow::ensure!(
                    verdict.decision == i32::from(expected),
                    "revision {revision}: {:?}",
                    verdict.decision
                );
                (newest, answers) = (revision, answers + 1);
            }
            Ok((answers, newest))
        });
    }
    let mut texts = [
        r#""id": "salaries" }, "attrs": {}, "parents": []"#,
        r#""id": "salaries" }, "attrs": {}, "parents": [{ "type": "Schema", "id": "sales" }]"#,
    ];
    for swap in 1..=6 {
        bundle::edit(&cardea.bundle(), "entities.json", texts[0], texts[1])?;
        texts.reverse();
        wait::until("the swap", async || {
            let revision = clients.status().await?.bundle.context("no bundle")?.revision;
            Ok((revision == first + swap).then_some(()))
        })
        .await?;
    }
    stop.send(true)?;
    while let Some(ended) = callers.join_next().await {
        let (answers, newest) = ended??;
        assert!(answers > 50, "only {answers} answers");
        assert!(newest > first, "no swap was seen");
    }
    Ok(())
}

#[tokio::test]
async fn the_audit_stream_resumes_at_any_number_and_filters() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    for table in ["Table::orders", "Table::salaries"].repeat(10) {
        clients.decide(read(table)?).await?;
    }
    let mut read_from = async |from_sequence, filter, count: usize| -> Result<Vec<v1::Record>> {
        let request = v1::StreamRecordsRequest { from_sequence, filter, from_time: None };
        let mut stream = clients.audit.stream(request).await?.into_inner();
        let mut records = Vec::new();
        while records.len() < count {
            let batch = wait::within("records", stream.message()).await??.context("the stream ended")?;
            records.extend(batch.records);
        }
        Ok(records)
    };
    let all = read_from(1, None, 20).await?;
    assert!(all.iter().map(|record| record.sequence).eq(1..=all.len() as u64), "no gap, no repetition");
    let rest = read_from(10, None, 5).await?;
    assert!(rest.iter().zip(all.iter().skip(9)).all(|(late, early)| late == early), "the same records again");
    let denied = v1::RecordFilter { decisions: vec![Decision::Deny.into()], ..v1::RecordFilter::default() };
    let denied = read_from(1, Some(denied), 10).await?;
    assert_eq!(denied.len(), 10);
    for record in denied {
        let Some(v1::record::Entry::Decision(decision)) = record.entry else { panic!("{record:?}") };
        assert_eq!(decision.decision(), Decision::Deny);
    }
    Ok(())
}

#[tokio::test]
async fn health_metrics_and_readiness_are_served_over_plain_http() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    assert_eq!(cardea.page("/healthz").await?.status, 200);
    assert_eq!(cardea.page("/readyz").await?.status, 200);
    assert_eq!(cardea.page("/nothing").await?.status, 404);
    for table in ["Table::orders", "Table::orders", "Table::salaries"] {
        clients.decide(read(table)?).await?;
    }
    let metrics = cardea.page("/metrics").await?;
    assert_eq!(metrics.status, 200);
    let count = |wanted: &[&str]| {
        let line = metrics
            .body
            .lines()
            .find(|line| !line.starts_with('#') && wanted.iter().all(|part| line.contains(part)));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    assert_eq!(count(&["decisions", "\"grpc\"", "\"read\"", "\"allow\""]), Some(2.0), "{}", metrics.body);
    assert_eq!(
        count(&["decisions", "\"grpc\"", "\"read\"", "\"deny\"", "\"no_permit\""]),
        Some(1.0),
        "{}",
        metrics.body
    );
    for name in ["revision", "audit", "sessions", "candidates", "bucket"] {
        assert!(count(&[name]).is_some(), "no metric has `{name}` in its name: {}", metrics.body);
    }
    assert!(!metrics.body.contains("biller"), "metrics name no identities");
    Ok(())
}

#[tokio::test]
async fn logs_do_not_name_identities() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    clients.decide(read("Table::orders")?).await?;
    clients.report_risk("Agent::biller", 99).await?;
    clients.decide(read("Table::orders")?).await?;
    clients.end_session("s").await?;
    let log = cardea.process.stderr();
    assert!(!log.contains("biller"), "{log}");
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_the_service_and_no_record_is_lost() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    for _ in 0..500 {
        clients.decide(read("Table::orders")?).await?;
    }
    let status = cardea.process.terminate().await?;
    assert!(status.success(), "{status}");
    let sequences = cardea_tests::audit::sequences(&cardea.audit_dir())?;
    assert!(sequences.len() >= 501, "{} records", sequences.len());
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "numbers rise by one from 1");
    Ok(())
}

#[tokio::test]
async fn whoever_listens_is_told_that_the_node_stops_and_holds_up_nothing() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let mut stream = clients.audit.stream(v1::StreamRecordsRequest::default()).await?.into_inner();
    clients.decide(read("Table::orders")?).await?;
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(_batch)) => {}
                Ok(None) => return "nothing".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
        }
    });
    // Well within the time that connections are given to end.
    let stopped = tokio::time::timeout(Duration::from_secs(10), cardea.process.terminate()).await;
    assert!(stopped.context("the stream held up the end")??.success());
    let heard = listening.join_next().await.context("nobody listened")??;
    assert!(heard.starts_with("the node is stopping"), "{heard}");
    Ok(())
}

#[tokio::test]
async fn a_full_audit_queue_is_counted_and_shown_when_so_configured() -> Result<()> {
    let options = Options::default().config("[audit]\nwhen_full = \"count_gap\"\nqueue_max = 1\n");
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    let attempts = vec![read("Table::orders")?; 1000];
    let answer = clients.decision.decide_batch(v1::DecideBatchRequest { attempts }).await?.into_inner();
    assert!(answer.verdicts.iter().all(|verdict| verdict.decision() == Decision::Allow), "answers go on");
    let audit = clients.status().await?.audit.context("no audit")?;
    assert!(audit.lost > 0, "{audit:?}");
    cardea_tests::audit::find(&mut clients, "a record of the gap", |record| match &record.entry {
        Some(v1::record::Entry::Gap(gap)) if gap.lost > 0 => Some(()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_full_audit_queue_denies_by_default() -> Result<()> {
    let cardea = Cardea::start_with(Options::default().config("[audit]\nqueue_max = 1\n")).await?;
    let mut clients = cardea.clients()?;
    wait::until("a session to be opened", async || Ok(clients.open_session("s", "Agent::biller").await.ok()))
        .await?;
    let attempts = vec![read("Table::orders")?; 1000];
    let answer = clients.decision.decide_batch(v1::DecideBatchRequest { attempts }).await?.into_inner();
    let full = |verdict: &&v1::Verdict| cardea_tests::attempts::codes(verdict) == [v1::ReasonCode::AuditFull];
    let denied = answer.verdicts.iter().filter(full).count();
    assert!(denied > 0, "no verdict was held back for its record");
    let allowed: Vec<_> =
        answer.verdicts.iter().filter(|verdict| verdict.decision() == Decision::Allow).collect();
    for verdict in allowed {
        cardea_tests::audit::decision(&mut clients, &verdict.decision_id).await?;
    }
    Ok(())
}
