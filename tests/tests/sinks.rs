//! What the audit is sent to: everything, in order, at least once, whatever the other side does, and never at the cost of a decision.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cardea_server::audit::stored::Stored;
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::collector::{Collector, Mood};
use cardea_tests::kafka::Broker;
use cardea_tests::nats::NatsServer;
use cardea_tests::process::python;
use cardea_tests::wait;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use serde_json::Value;

/// A decision that waits for nothing is made within this, whatever sinks do.
const QUICK: Duration = Duration::from_secs(2);

fn to_http(collector: &Collector, more: &str) -> String {
    format!("[audit.sink.siem]\ntype = \"http\"\nurl = \"http://{}/in\"\n{more}", collector.address)
}

async fn ask(clients: &mut Clients, times: usize) -> Result<BTreeSet<String>> {
    let mut told = BTreeSet::new();
    for _ in 0..times {
        #[expect(clippy::disallowed_methods, reason = "a test measures how long it takes")]
        let begun = Instant::now();
        let verdict = clients.decide(attempt("Agent::biller", "read", "Table::orders", "")?).await?;
        ensure!(begun.elapsed() < QUICK, "a decision took {:?}", begun.elapsed());
        told.insert(verdict.decision_id);
    }
    Ok(told)
}

fn sequence(line: &Value) -> u64 {
    line.get("sequence").and_then(Value::as_u64).unwrap_or_default()
}

/// Sequence numbers as they came for the first time.
fn first_times(lines: &[Value]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    lines.iter().map(sequence).filter(|sequence| seen.insert(*sequence)).collect()
}

fn decision_ids(lines: &[Value]) -> BTreeSet<String> {
    let ids = lines.iter().filter_map(|line| line.pointer("/decision/decision_id")?.as_str());
    ids.map(str::to_owned).collect()
}

/// Every decision that somebody was told came, and everything before it, in order.
async fn caught_up(told: &BTreeSet<String>, lines: impl Fn() -> Result<Vec<Value>>) -> Result<Vec<Value>> {
    let lines = wait::until("the sink to catch up", async || {
        let lines = lines()?;
        Ok(told.is_subset(&decision_ids(&lines)).then_some(lines))
    })
    .await?;
    let all = first_times(&lines);
    ensure!(
        all == (1..=*all.last().context("nothing came")?).collect::<Vec<_>>(),
        "not in order, or not all: {all:?}"
    );
    Ok(lines)
}

async fn sink(clients: &mut Clients) -> Result<cardea_proto::v1::SinkStatus> {
    let audit = clients.status().await?.audit.context("no audit")?;
    audit.sinks.into_iter().next().context("no sink")
}

#[tokio::test]
async fn a_collector_that_is_restarted_fifty_times_gets_every_record_in_order() -> Result<()> {
    let mut collector = Collector::start()?;
    let cardea = Cardea::start_with(Options::default().config(to_http(&collector, ""))).await?;
    let mut clients = cardea.clients()?;
    let mut told = BTreeSet::new();
    for restart in 0..50 {
        collector.stop();
        told.extend(ask(&mut clients, 5).await?);
        wait::until("the sink to notice", async || {
            Ok((!sink(&mut clients).await?.fault.is_empty()).then_some(()))
        })
        .await?;
        let before = collector.lines()?.len();
        collector.start_again()?;
        told.extend(ask(&mut clients, 5).await?);
        wait::until(
            "something to come again",
            async || Ok((collector.lines()?.len() > before).then_some(())),
        )
        .await
        .with_context(|| format!("restart {restart}"))?;
    }
    caught_up(&told, || collector.lines()).await?;
    ensure!(told.len() == 500, "{} were asked", told.len());
    let heads = collector.taken().heads.clone();
    ensure!(heads.iter().all(|head| head["content-type"] == "application/x-ndjson"), "{heads:?}");
    ensure!(heads.iter().all(|head| head.contains_key("idempotency-key")), "{heads:?}");
    Ok(())
}

#[tokio::test]
async fn a_collector_that_fails_hangs_or_is_slow_holds_up_nobody_and_gets_everything() -> Result<()> {
    let collector = Collector::start()?;
    let cardea = Cardea::start_with(Options::default().config(to_http(&collector, ""))).await?;
    let mut clients = cardea.clients()?;
    let moods = [
        Mood::Fails(StatusCode::INTERNAL_SERVER_ERROR),
        Mood::Takes,
        Mood::Fails(StatusCode::UNAUTHORIZED),
        Mood::Later(1),
        Mood::Slow(Duration::from_millis(300)),
        Mood::TakesInSilence,
        Mood::Takes,
        Mood::Hangs,
    ];
    let mut told = BTreeSet::new();
    for mood in moods {
        let fails = !matches!(mood, Mood::Takes | Mood::Slow(_));
        collector.set(mood.clone());
        let asked = collector.taken().heads.len();
        told.extend(ask(&mut clients, 20).await?);
        wait::until("the collector to be asked", async || {
            Ok((collector.taken().heads.len() > asked).then_some(()))
        })
        .await?;
        if fails {
            let fault = wait::until("Status to tell", async || {
                Ok(Some(sink(&mut clients).await?.fault).filter(|fault| !fault.is_empty()))
            });
            let fault = fault.await?;
            let page = cardea.page("/metrics").await?;
            let page = page.body;
            ensure!(page.contains("cardea_sink_fault{sink=\"siem\"} 1"), "{mood:?}: {fault}: {page}");
        }
    }
    collector.set(Mood::Takes);
    caught_up(&told, || collector.lines()).await?;
    wait::until("Status to tell that all is well", async || {
        let sink = sink(&mut clients).await?;
        Ok((sink.fault.is_empty() && sink.dead_letters == 0 && sink.missed == 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn what_a_collector_refuses_for_good_lies_in_the_dead_letters_and_holds_up_nothing() -> Result<()> {
    let collector = Collector::start()?;
    let poison = BTreeSet::from([7, 8, 23]);
    collector.set(Mood::Refuses(poison.clone()));
    let cardea = Cardea::start_with(Options::default().config(to_http(&collector, ""))).await?;
    let mut clients = cardea.clients()?;
    ask(&mut clients, 40).await?;
    let told = ask(&mut clients, 1).await?;
    wait::until("all but the poison to come", async || {
        Ok(told.is_subset(&decision_ids(&collector.lines()?)).then_some(()))
    })
    .await?;
    let came = first_times(&collector.lines()?);
    ensure!(
        came.len() >= 38 && came.is_sorted() && came.iter().all(|sequence| !poison.contains(sequence)),
        "{came:?}"
    );
    let sink = sink(&mut clients).await?;
    ensure!(sink.dead_letters == 3, "{sink:?}");
    let letters = std::fs::read_to_string(cardea.audit_dir().join("sinks/siem.dead.jsonl"))?;
    let letters: Vec<Value> = letters.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(letters.iter().map(sequence).collect::<BTreeSet<_>>() == poison, "{letters:?}");
    ensure!(
        letters.iter().all(|letter| letter["record"]["sequence"] == letter["sequence"]),
        "whole: {letters:?}"
    );
    ensure!(
        letters.iter().all(|letter| letter["why"].as_str().is_some_and(|why| why.contains("422"))),
        "{letters:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_sink_that_is_down_for_a_whole_run_changes_nothing_and_is_caught_up_in_the_next() -> Result<()> {
    let mut collector = Collector::start()?;
    collector.stop();
    let mut cardea = Cardea::start_with(Options::default().config(to_http(&collector, ""))).await?;
    let mut told = ask(&mut cardea.clients()?, 200).await?;
    cardea.process.terminate().await?;
    ensure!(collector.lines()?.is_empty(), "it was down");
    collector.start_again()?;
    cardea.start_again().await?;
    told.extend(ask(&mut cardea.clients()?, 1).await?);
    caught_up(&told, || collector.lines()).await?;
    // What was delivered is not sent again by a process that ended in order.
    cardea.process.terminate().await?;
    let before = collector.lines()?.len();
    cardea.start_again().await?;
    told.extend(ask(&mut cardea.clients()?, 1).await?);
    let lines = caught_up(&told, || collector.lines()).await?;
    ensure!(lines.len() - before < 10, "{} lines came again", lines.len() - before);
    Ok(())
}

#[tokio::test]
async fn files_hold_every_record_in_order_after_kills() -> Result<()> {
    let out = tempfile::tempdir()?;
    let path = out.path().join("audit.jsonl");
    let config =
        format!("[audit.sink.archive]\ntype = \"file\"\npath = \"{}\"\nrotate_mb = 1\n", path.display());
    let mut cardea = Cardea::start_with(Options::default().config(config)).await?;
    for _ in 0..5 {
        ask(&mut cardea.clients()?, 60).await?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..100))).await;
        cardea.process.kill()?;
        cardea.start_again().await?;
    }
    let told = ask(&mut cardea.clients()?, 1).await?;
    let lines = || -> Result<Vec<Value>> {
        let mut files: Vec<_> =
            std::fs::read_dir(out.path())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        // The one that is written comes last.
        files.sort_by_key(|file| (*file == path, file.clone()));
        let mut lines = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(file)?;
            // The last line may be being written.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            for line in whole.lines() {
                lines.push(serde_json::from_str(line)?);
            }
        }
        Ok(lines)
    };
    let lines = caught_up(&told, lines).await?;
    cardea.process.terminate().await?;
    // Line by line what the log has.
    let mut seen = BTreeSet::new();
    let came = lines.iter().filter(|line| seen.insert(sequence(line)));
    for (came, stored) in came.zip(Stored::open(&[cardea.audit_dir()])?) {
        ensure!(*came == serde_json::to_value(stored?)?, "{came}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sink_gets_only_what_its_filter_lets_through_and_from_when_it_was_set_up() -> Result<()> {
    let collector = Collector::start()?;
    let mut cardea = Cardea::start().await?;
    ask(&mut cardea.clients()?, 3).await?;
    cardea.process.terminate().await?;
    cardea.configure(to_http(
        &collector,
        "from = \"now\"\ndecisions = [\"deny\"]\nprincipal = 'Agent::\"stranger\"'\n",
    ));
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    ask(&mut clients, 3).await?;
    let denied = clients.decide(attempt("Agent::stranger", "read", "Table::orders", "")?).await?;
    ask(&mut clients, 3).await?;
    let lines = wait::until("the denial to come", async || {
        Ok(Some(collector.lines()?).filter(|lines| !lines.is_empty()))
    });
    let lines = lines.await?;
    ensure!(lines.len() == 1 && lines[0]["decision"]["decision_id"] == denied.decision_id, "{lines:?}");
    // Its place moves on over what it does not want.
    wait::until("its place to reach the end", async || {
        let last = clients.status().await?.audit.context("no audit")?.last_sequence;
        Ok((sink(&mut clients).await?.next_sequence == last + 1).then_some(()))
    })
    .await
}

/// Records of a queue as lines, with the ids that they came under.
fn of_queue(records: impl IntoIterator<Item = (Option<String>, Vec<u8>)>) -> Result<Vec<Value>> {
    let lines = records.into_iter().map(|(id, body)| {
        let line: Value = serde_json::from_slice(&body)?;
        let id = id.context("no id")?;
        ensure!(id.ends_with(&format!("/{}", sequence(&line))), "{id}: {line}");
        Ok(line)
    });
    lines.collect()
}

#[tokio::test]
async fn a_nats_server_that_is_killed_fifty_times_has_every_record_once_and_in_order() -> Result<()> {
    let mut server = NatsServer::start().await?;
    server.create_stream("audit", &["cardea.>"]).await?;
    let config = format!("[audit.sink.nats]\ntype = \"nats\"\nurl = \"nats://{}\"\n", server.address());
    let cardea = Cardea::start_with(Options::default().config(config)).await?;
    let mut clients = cardea.clients()?;
    let mut told = BTreeSet::new();
    for _ in 0..50 {
        told.extend(ask(&mut clients, 5).await?);
        // Some die while something is on its way to them, some while nothing is.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..80))).await;
        server.stop()?;
        told.extend(ask(&mut clients, 5).await?);
        server.start_again().await?;
    }
    let lines = wait::until("the stream to have everything", async || {
        let messages = server.messages("audit").await?;
        let lines =
            of_queue(messages.into_iter().map(|one| (one.headers.get("Nats-Msg-Id").cloned(), one.payload)))?;
        Ok(told.is_subset(&decision_ids(&lines)).then_some(lines))
    })
    .await?;
    ensure!(told.len() == 500, "{} were asked", told.len());
    let sequences: Vec<u64> = lines.iter().map(sequence).collect();
    // The server drops repetitions by their ids.
    ensure!(sequences == (1..=sequences.len() as u64).collect::<Vec<_>>(), "{sequences:?}");
    Ok(())
}

#[tokio::test]
async fn a_record_that_no_stream_takes_waits_for_one_and_says_so() -> Result<()> {
    let server = NatsServer::start().await?;
    let config = format!("[audit.sink.nats]\ntype = \"nats\"\nurl = \"nats://{}\"\n", server.address());
    let cardea = Cardea::start_with(Options::default().config(config)).await?;
    let mut clients = cardea.clients()?;
    let told = ask(&mut clients, 3).await?;
    let fault = wait::until("Status to tell", async || {
        Ok(Some(sink(&mut clients).await?.fault).filter(|fault| !fault.is_empty()))
    });
    let fault = fault.await?;
    ensure!(fault.contains("no stream takes the subject `cardea.audit`"), "{fault}");
    server.create_stream("audit", &["cardea.audit"]).await?;
    wait::until("the stream to have everything", async || {
        let messages = server.messages("audit").await?;
        let lines =
            of_queue(messages.into_iter().map(|one| (one.headers.get("Nats-Msg-Id").cloned(), one.payload)))?;
        Ok(told.is_subset(&decision_ids(&lines)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_kafka_broker_that_is_killed_has_every_record_in_order_in_one_partition() -> Result<()> {
    let mut broker = Broker::start().await?;
    broker.create_topic("audit", 4).await?;
    let config = format!(
        "[audit.sink.kafka]\ntype = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"audit\"\ntls = false\nformat = \"cloudevents\"\n",
        broker.address()
    );
    let cardea = Cardea::start_with(Options::default().config(config)).await?;
    let mut clients = cardea.clients()?;
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        told.extend(ask(&mut clients, 100).await?);
        broker.stop()?;
        told.extend(ask(&mut clients, 100).await?);
        broker.start_again().await?;
    }
    let lines = wait::until("the topic to have everything", async || {
        let records = broker.records("audit").await?;
        let partitions: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
        ensure!(partitions.len() <= 1, "{partitions:?}");
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let events = records.into_iter().map(|record| {
            let event: Value = serde_json::from_slice(&record.value)?;
            let id = record.headers.get("id").map(text).unwrap_or_default();
            let source = event["source"].as_str().unwrap_or_default().trim_start_matches('/');
            ensure!(id == format!("{source}/{}", event["id"].as_str().unwrap_or_default()), "{id}: {event}");
            ensure!(record.key.as_ref().map(text).as_deref() == Some(source), "{event}");
            Ok(event["data"].clone())
        });
        let lines = events.collect::<Result<Vec<_>>>()?;
        Ok(told.is_subset(&decision_ids(&lines)).then_some(lines))
    })
    .await?;
    let all = first_times(&lines);
    ensure!(all == (1..=all.len() as u64).collect::<Vec<_>>(), "{all:?}");
    Ok(())
}

#[tokio::test]
async fn a_collector_of_open_telemetry_gets_log_records() -> Result<()> {
    let collector = Collector::start()?;
    let config =
        format!("[audit.sink.otel]\ntype = \"otlp\"\nurl = \"http://{}/v1/logs\"\n", collector.address);
    let cardea = Cardea::start_with(Options::default().config(config)).await?;
    let told = ask(&mut cardea.clients()?, 30).await?;
    let logs = || -> Result<Vec<LogRecord>> {
        let bodies = collector.taken().bodies.clone();
        let exports = bodies.iter().map(|body| Ok(ExportLogsServiceRequest::decode(body.as_slice())?));
        let exports = exports.collect::<Result<Vec<_>>>()?;
        let scopes = exports.into_iter().flat_map(|export| export.resource_logs).flat_map(|of| of.scope_logs);
        Ok(scopes.flat_map(|scope| scope.log_records).collect())
    };
    let lines = caught_up(&told, || {
        let bodies = logs()?.into_iter().map(|log| match log.body.and_then(|body| body.value) {
            Some(any_value::Value::StringValue(text)) => Ok(serde_json::from_str(&text)?),
            other => anyhow::bail!("{other:?}"),
        });
        bodies.collect()
    })
    .await?;
    let logs = logs()?;
    let at = lines.iter().position(|line| line["decision"].is_object()).context("no decision")?;
    let uid = logs[at].attributes.iter().find(|one| one.key == "log.record.uid").context("no uid")?;
    ensure!(format!("{uid:?}").contains(&format!("/{}\"", sequence(&lines[at]))), "{uid:?}");
    ensure!(logs[at].event_name == "cardea.decision" && logs[at].time_unix_nano > 0, "{:?}", logs[at]);
    ensure!(collector.taken().heads[0]["content-type"] == "application/x-protobuf");
    Ok(())
}

/// Validates events by the published schema of OCSF 1.8.0, with the class and the profiles that they name.
const OCSF: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
from ocsf_json_schema import get_ocsf_schema, OcsfJsonSchemaEmbedded
schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
validators, faults = {}, []
for line in sys.stdin:
    event = json.loads(line)
    key = (event["class_uid"], tuple(event["metadata"].get("profiles", [])))
    if key not in validators:
        name = schema.lookup_class_name_from_uid(class_uid=key[0])
        validators[key] = Draft202012Validator(schema.get_class_schema(class_name=name, profiles=list(key[1])))
    for fault in validators[key].iter_errors(event):
        faults.append(f"{event['metadata']['event_code']}: {'/'.join(map(str, fault.path))}: {fault.message[:200]}")
print(json.dumps({"classes": sorted({key[0] for key in validators}), "faults": sorted(set(faults))}))
"#;

#[tokio::test]
async fn events_of_ocsf_are_valid_by_its_published_schema() -> Result<()> {
    let collector = Collector::start()?;
    let cardea =
        Cardea::start_with(Options::default().config(to_http(&collector, "format = \"ocsf\"\n"))).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s1", "Agent::biller").await?;
    ask(&mut clients, 3).await?;
    clients.decide(attempt("Agent::biller", "read", "Table::orders", "s1")?).await?;
    clients.decide(attempt("Agent::stranger", "read", "Table::orders", "")?).await?;
    clients.report_risk("Agent::biller", 40).await?;
    clients.end_session("s1").await?;
    let last = clients.decide(attempt("Agent::biller", "read", "Table::orders", "s1")?).await?;
    let lines = wait::until("the last decision to come", async || {
        let lines = collector.lines()?;
        let is_there =
            |line: &Value| line["unmapped"]["record"]["decision"]["decision_id"] == last.decision_id;
        Ok(lines.iter().any(is_there).then_some(lines))
    })
    .await?;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let outcome: Value = serde_json::from_str(&python(OCSF, &text)?)?;
    ensure!(outcome == serde_json::json!({"classes": [0, 6003], "faults": []}), "{outcome:#}");
    let denied =
        lines.iter().find(|line| line["actor"]["app_uid"] == "Agent::\"stranger\"").context("no denial")?;
    ensure!(
        denied["action_id"] == 2 && denied["disposition_id"] == 2 && denied["status_id"] == 1,
        "{denied:#}"
    );
    Ok(())
}

#[tokio::test]
async fn standard_output_has_a_line_for_each_record() -> Result<()> {
    let config = "[audit.sink.console]\ntype = \"stdout\"\ndecisions = [\"deny\"]\n";
    let mut cardea = Cardea::start_with(Options::default().config(config)).await?;
    let denied = cardea.clients()?.decide(attempt("Agent::stranger", "read", "Table::orders", "")?).await?;
    let line = cardea.process.stdout_line(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line.get("decision").cloned()
    });
    let line = line.await?;
    ensure!(line["decision_id"] == denied.decision_id && line["decision"] == "deny", "{line}");
    Ok(())
}
