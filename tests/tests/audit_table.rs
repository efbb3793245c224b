//! The audit as a table: what a real node recorded, read by DuckDB, is what `--format json` says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_tests::attempts::{attempt, entity};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::duckdb;
use cardea_tests::process::{Finished, cardea_program, run_cardea};
use serde_json::{Value, json};

/// More than one row each, of every answer that the bundle gives here.
const DECISIONS: usize = 60;

/// A log that a node wrote, and a place for tables.
struct Written {
    cardea: Cardea,
    tables: tempfile::TempDir,
}

impl Written {
    async fn with(options: Options) -> Result<Self> {
        let mut cardea = Cardea::start_with(options).await?;
        let mut clients = cardea.clients()?;
        clients.open_session("s-1", "Agent::biller").await?;
        clients.report_risk("Agent::other", 40).await?;
        let named_as_formula = attempt("Agent::=1+1", "read", "Table::orders", "")?;
        let on_behalf = |who: &str, resource: &str| {
            let delegation = vec![entity(who)?];
            anyhow::Ok(v1::Attempt { delegation, ..attempt("Agent::biller", "read", resource, "s-1")? })
        };
        for _ in 0..DECISIONS / 6 {
            let attempts = vec![
                attempt("Agent::biller", "read", "Table::orders", "s-1")?,
                attempt("Agent::stranger", "read", "Table::orders", "")?,
                named_as_formula.clone(),
                on_behalf("User::ann", "Table::orders")?,
                on_behalf("User::bob", "Table::orders")?,
                on_behalf("User::semi;\"colon\", [n]", "Table::orders")?,
            ];
            let answer = clients.decision.decide_batch(v1::DecideBatchRequest { attempts }).await?;
            ensure!(answer.into_inner().verdicts.len() == 6);
        }
        clients.end_session("s-1").await?;
        cardea.process.terminate().await?;
        Ok(Self { cardea, tables: tempfile::tempdir()? })
    }

    fn query(&self, more: &[&str]) -> Result<Finished> {
        let audit = self.cardea.audit_dir().display().to_string();
        run_cardea(&[&["audit", "query", audit.as_str()], more].concat(), b"")
    }

    /// The records, as `--format json` has them.
    fn records(&self, more: &[&str]) -> Result<Vec<Value>> {
        let finished = self.query(&[&["--format", "json"], more].concat())?;
        finished.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tables.path().join(name)
    }

    fn table(&self, form: &str, more: &[&str]) -> Result<(Finished, String)> {
        let path = self.path(&format!("audit.{form}")).display().to_string();
        let finished = self.query(&[&["--format", form, "--out", path.as_str()], more].concat())?;
        Ok((finished, path))
    }
}

/// Records by a word of theirs, as rows that are ordered by it.
fn counted<'r>(words: impl Iterator<Item = &'r str>) -> Vec<Value> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_insert(0) += 1);
    counts.into_iter().map(|(word, count)| json!([word, count])).collect()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The first cell of each row, which is JSON.
fn parsed(rows: &[Value]) -> Result<Vec<Value>> {
    let texts = rows.iter().map(|row| row.get(0).and_then(Value::as_str).context("no record"));
    texts.map(|text| Ok(serde_json::from_str(text?)?)).collect()
}

#[tokio::test]
async fn duckdb_counts_in_parquet_and_in_csv_what_the_records_say() -> Result<()> {
    let log = Written::with(Options::default()).await?;
    let records = log.records(&[])?;
    let decisions: Vec<&Value> = records.iter().filter_map(|record| record.get("decision")).collect();
    ensure!(decisions.len() == DECISIONS, "{} decisions", decisions.len());
    let answers = counted(decisions.iter().filter_map(|one| one["decision"].as_str()));
    ensure!(answers.len() >= 2, "of one kind only: {answers:?}");
    let policies = counted(decisions.iter().flat_map(|one| strings(&one["determining_policies"])));
    ensure!(!policies.is_empty(), "no policy settled anything");
    let hops: Vec<&Value> =
        decisions.iter().flat_map(|one| one["delegation"].as_array().into_iter().flatten()).collect();
    let sequences: Vec<u64> = records.iter().filter_map(|record| record["sequence"].as_u64()).collect();
    let times: i64 =
        duckdb::rows("SELECT epoch_ms(TIMESTAMP '2026-01-01')")?[0][0].as_i64().context("no time")?;

    // A list is one in parquet, and JSON in CSV.
    for (form, list) in [("parquet", ""), ("csv", "::JSON::VARCHAR[]")] {
        let (finished, path) = log.table(form, &[])?;
        ensure!(finished.code == Some(0), "{form}: {finished:?}");
        ensure!(finished.stdout.contains(&format!("{} records in {path}", records.len())), "{finished:?}");
        let ask = |sql: &str| {
            let sql = sql.replace("LIST", list);
            duckdb::rows(&sql.replace("TABLE", &format!("'{path}'"))).with_context(|| form.to_owned())
        };
        assert_eq!(
            ask("SELECT count(*), min(sequence), max(sequence), count(DISTINCT sequence) FROM TABLE")?,
            [json!([records.len(), sequences.iter().min(), sequences.iter().max(), records.len()])]
        );
        assert_eq!(
            ask("SELECT decision, count(*) FROM TABLE WHERE kind = 'decision' GROUP BY ALL ORDER BY ALL")?,
            answers
        );
        assert_eq!(
            ask("SELECT count(*) FROM TABLE WHERE kind <> 'decision' AND decision IS NOT NULL")?,
            [json!([0])]
        );
        assert_eq!(
            ask(
                "SELECT policy, count(*) FROM (SELECT unnest(determining_policiesLIST) AS policy FROM TABLE) \
                 GROUP BY policy ORDER BY policy"
            )?,
            policies
        );
        let told = ask("SELECT unnest(delegationLIST) FROM TABLE ORDER BY sequence")?;
        let wanted: Vec<Value> = hops
            .iter()
            .map(|hop| Ok(json!([format!("{}::{}", hop["type"].as_str().context("no type")?, hop["id"])])))
            .collect::<Result<_>>()?;
        assert_eq!(told, wanted, "{form}");
        ensure!(
            told.iter().any(|one| one[0].as_str().is_some_and(|one| one.contains(";\\\"colon"))),
            "{told:?}"
        );
        assert_eq!(
            ask(
                "SELECT kind, principal_id, session_id FROM TABLE WHERE kind = 'session' AND change = 'ended'"
            )?,
            [json!(["session", "biller", "s-1"])]
        );
        // The whole record, and what stands beside it, say the same.
        let whole = ask("SELECT record FROM TABLE ORDER BY sequence")?;
        assert_eq!(parsed(&whole)?, records);
        assert_eq!(
            ask(
                "SELECT count(*) FROM TABLE WHERE latency_ns = CAST(json_extract(record, '$.decision.latency_ns') AS UBIGINT)"
            )?,
            [json!([DECISIONS])]
        );
        let late = format!("SELECT count(*) FROM TABLE WHERE epoch_ms(CAST(time AS TIMESTAMPTZ)) > {times}");
        assert_eq!(ask(&late)?, [json!([records.len()])]);
    }
    no_formula(&log)
}

/// A name that a spreadsheet would run is told as it is in parquet, and as text in CSV.
fn no_formula(log: &Written) -> Result<()> {
    let name = |form: &str| {
        let path = log.path(&format!("audit.{form}")).display().to_string();
        duckdb::rows(&format!("SELECT DISTINCT principal_id FROM '{path}' WHERE principal_id LIKE '%1+1'"))
    };
    assert_eq!(name("parquet")?, [json!(["=1+1"])]);
    assert_eq!(name("csv")?, [json!(["'=1+1"])], "a spreadsheet would run it");
    Ok(())
}

#[tokio::test]
async fn every_filter_chooses_the_same_records_in_every_form() -> Result<()> {
    let log = Written::with(Options::default()).await?;
    let all = log.records(&[])?;
    let denied = log.records(&["--decision", "deny"])?;
    let id = denied[0]["decision"]["decision_id"].as_str().context("no id")?;
    let middle = all[all.len() / 2]["time"].as_str().context("no time")?;
    let settled = all.iter().find_map(|record| strings(&record["decision"]["determining_policies"]).next());
    let settled = settled.context("no policy")?;
    for filter in [
        vec!["--decision", "deny"],
        vec!["--principal", "Agent::\"biller\""],
        vec!["--action", "read", "--door", "grpc"],
        vec!["--policy", settled],
        vec!["--id", id],
        vec!["--changes"],
        vec!["--since", middle],
        vec!["--until", middle],
        vec!["--limit", "7"],
    ] {
        let wanted: Vec<Value> = log.records(&filter)?.iter().map(|one| json!([one["sequence"]])).collect();
        ensure!(!wanted.is_empty(), "{filter:?} lets nothing pass");
        for form in ["parquet", "csv"] {
            let (finished, path) = log.table(form, &filter)?;
            ensure!(finished.code == Some(0), "{finished:?}");
            let told = duckdb::rows(&format!("SELECT sequence FROM '{path}'"))?;
            assert_eq!(told, wanted, "{form} {filter:?}");
        }
    }
    // A table of nothing is one too.
    for form in ["parquet", "csv"] {
        let (finished, path) = log.table(form, &["--policy", "nobody"])?;
        ensure!(finished.code == Some(1), "{finished:?}");
        let told = duckdb::rows(&format!("SELECT count(*), count(decision) FROM '{path}'"))?;
        assert_eq!(told, [json!([0, 0])], "{form}");
    }
    Ok(())
}

#[tokio::test]
async fn a_table_that_cannot_be_finished_leaves_the_file_that_was() -> Result<()> {
    let log = Written::with(Options::default()).await?;
    let (finished, path) = log.table("parquet", &[])?;
    ensure!(finished.code == Some(0), "{finished:?}");
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600, "the log is its owner's");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    ensure!(log.table("parquet", &[])?.0.code == Some(0));
    assert_eq!(
        fs::metadata(&path)?.permissions().mode() & 0o777,
        0o640,
        "who may read it is somebody's choice"
    );
    let before = fs::read(&path)?;

    let segments = cardea_tests::audit::segments(&log.cardea.audit_dir())?;
    let segment = segments.last().context("no segment")?;
    let mut bytes = fs::read(segment)?;
    let at = bytes.windows(6).rposition(|window| window == b"biller").context("no biller")?;
    bytes[at] = b'k';
    fs::write(segment, bytes)?;
    for form in ["parquet", "csv", "json", "human"] {
        let (finished, _) = log.table(form, &[])?;
        ensure!(
            finished.code == Some(2) && finished.stderr.contains("cardea audit verify"),
            "{form}: {finished:?}"
        );
    }
    ensure!(fs::read(&path)? == before, "the file changed");
    let left: Vec<_> = fs::read_dir(log.tables.path())?.collect::<Result<_, _>>()?;
    ensure!(left.len() == 1, "{left:?}");

    for (out, why) in [("/dev/null", "no file"), ("/nowhere/at/all.csv", "cannot be written")] {
        let finished = log.query(&["--format", "csv", "--out", out])?;
        ensure!(finished.code == Some(2) && finished.stderr.contains(why), "{out}: {finished:?}");
    }
    ensure!(!fs::metadata("/dev/null")?.is_file());
    Ok(())
}

#[tokio::test]
async fn parquet_goes_through_a_pipe_and_not_onto_a_terminal() -> Result<()> {
    let log = Written::with(Options::default()).await?;
    let path = log.path("piped.parquet");
    let audit = log.cardea.audit_dir();
    let program = cardea_program()?;
    let arguments = ["audit", "query", "--format", "parquet"];
    let status = piped(&program, &arguments, &audit, &path)?;
    ensure!(status, "it was not written");
    let told = duckdb::rows(&format!("SELECT count(*) FROM '{}'", path.display()))?;
    assert_eq!(told, [json!([log.records(&[])?.len()])]);

    let script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let shown = Command::new(duckdb::python()?)
        .args(["-c", script])
        .arg(&program)
        .args(arguments)
        .arg(&audit)
        .output()?;
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(
        shown.status.code() == Some(2) && said.contains("--out FILE") && !said.contains("PAR1"),
        "{shown:?}"
    );
    Ok(())
}

/// Runs it into `cat`, whose output goes to a file. Whether both ended well.
fn piped(program: &Path, arguments: &[&str], audit: &Path, to: &Path) -> Result<bool> {
    let mut writing =
        Command::new(program).args(arguments).arg(audit).stdout(std::process::Stdio::piped()).spawn()?;
    let pipe = writing.stdout.take().context("no pipe")?;
    let copied = Command::new("cat").stdin(pipe).stdout(File::create(to)?).status()?;
    Ok(writing.wait()?.success() && copied.success())
}
