//! Tables of records, as analysts read them: opened with DuckDB, they say what the log says.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::Cardea;
use cardea_tests::process::{Finished, python, run_cardea};
use serde_json::{Value, json};

/// Asks a table what the test knows.
const ASK: &str = r#"
import duckdb, json, sys
path = sys.stdin.read()
ask = lambda query: duckdb.sql(query.replace("TABLE", f"'{path}'")).fetchall()
lists = path.endswith(".parquet")
first = "reasons[1]" if lists else "reasons::JSON->>0"
print(json.dumps({
    "records": ask("SELECT count(*), min(sequence), max(sequence) FROM TABLE")[0],
    "kinds": dict(ask("SELECT kind, count(*) FROM TABLE GROUP BY 1")),
    "decisions": dict(ask("SELECT decision, count(*) FROM TABLE WHERE kind = 'decision' GROUP BY 1")),
    "reasons": dict(ask(f"SELECT {first}, count(*) FROM TABLE WHERE decision = 'deny' GROUP BY 1")),
    "types": dict(ask("SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM TABLE)")),
    "formula": ask("SELECT attempt_id FROM TABLE WHERE attempt_id IS NOT NULL")[0][0],
    "times": ask("SELECT count(*) FROM TABLE WHERE time > TIMESTAMP '2020-01-01'")[0][0],
    "whole": [json.loads(row[0]) for row in ask("SELECT record FROM TABLE ORDER BY sequence")],
}))
"#;

fn query(audit: &Path, words: &[&str]) -> Result<Finished> {
    run_cardea(&[&["audit", "query", &audit.display().to_string()], words].concat(), b"")
}

#[tokio::test]
async fn tables_say_in_duckdb_what_the_log_says() -> Result<()> {
    let mut cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s1", "Agent::biller").await?;
    for at in 0..40 {
        let who = if at % 4 == 0 { "Agent::stranger" } else { "Agent::biller" };
        let mut asked = attempt(who, "read", "Table::orders", "")?;
        if at == 7 {
            asked.id = "=cmd|' /C calc'!A0".to_owned();
        }
        clients.decide(asked).await?;
    }
    clients.report_risk("Agent::biller", 40).await?;
    cardea.process.terminate().await?;
    let audit = cardea.audit_dir();
    let lines = query(&audit, &["--format", "json"])?.stdout;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of = |kind: &str| lines.iter().filter(|line| line.get(kind).is_some()).count();
    let denied = lines.iter().filter(|line| line["decision"]["decision"] == "deny").count();
    ensure!(of("decision") == 40 && denied > 0, "{denied} denied");
    let elsewhere = tempfile::tempdir()?;
    for format in ["parquet", "csv"] {
        let path = elsewhere.path().join(format!("records.{format}"));
        let path = path.display().to_string();
        let finished = query(&audit, &["--format", format, "--out", &path])?;
        ensure!(finished.code == Some(0) && finished.stdout.is_empty(), "{finished:?}");
        let told: Value = serde_json::from_str(&python(ASK, &path)?)?;
        ensure!(told["records"] == json!([lines.len(), 1, lines.len()]), "{format}: {told}");
        ensure!(told["kinds"]["decision"] == 40 && told["kinds"]["signal"] == 1, "{format}: {told}");
        ensure!(told["kinds"]["session"] == of("session"), "{format}: {told}");
        ensure!(told["decisions"]["deny"] == denied, "{format}: {told}");
        let reasons: u64 =
            told["reasons"].as_object().context("no reasons")?.values().filter_map(Value::as_u64).sum();
        ensure!(reasons == denied as u64 && told["times"] == lines.len(), "{format}: {told}");
        ensure!(told["whole"] == json!(lines), "{format}: the whole record is there");
        let formula = if format == "csv" { "'=cmd|' /C calc'!A0" } else { "=cmd|' /C calc'!A0" };
        ensure!(told["formula"] == formula, "{format}: {}", told["formula"]);
        if format == "parquet" {
            ensure!(
                told["types"]["reasons"] == "VARCHAR[]" && told["types"]["sequence"] == "UBIGINT",
                "{}",
                told["types"]
            );
            ensure!(told["types"]["time"] == "TIMESTAMP WITH TIME ZONE", "{}", told["types"]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn tables_take_the_filters_of_a_query_and_go_where_they_are_sent() -> Result<()> {
    let mut cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    for who in ["Agent::biller", "Agent::stranger", "Agent::stranger"] {
        let verdict = clients.decide(attempt(who, "read", "Table::orders", "")?).await?;
        ensure!(verdict.decision() != v1::Decision::Unspecified);
    }
    cardea.process.terminate().await?;
    let audit = cardea.audit_dir();
    let finished = query(&audit, &["--format", "csv", "--principal", "Agent::\"stranger\"", "--limit", "1"])?;
    let lines: Vec<&str> = finished.stdout.lines().collect();
    ensure!(lines.len() == 2 && lines[0].starts_with("sequence,time,kind,decision_id,"), "{finished:?}");
    ensure!(query(&audit, &["--format", "csv", "--principal", "Agent::\"nobody\""])?.code == Some(1));
    for (words, why) in [
        (&["--format", "json", "--out", "x"][..], "--out is for --format csv"),
        (&["--format", "parquet", "--out", "/nowhere/x.parquet"], "cannot be written"),
    ] {
        let refused = query(&audit, words)?;
        ensure!(refused.code == Some(2) && refused.stderr.contains(why), "{refused:?}");
    }
    Ok(())
}
