//! Audit records, as the stream sends them and as the files hold them.

use cardea_server::audit::stored::Stored;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_proto::v1::record::Entry;
use tokio_stream::StreamExt as _;

use crate::clients::Clients;
use crate::wait;

/// Reads the stream from the first record until `wanted` finds something.
///
/// # Errors
/// If it does not in time, or the stream ends.
pub async fn find<T>(
    clients: &mut Clients,
    what: &str,
    wanted: impl Fn(&v1::Record) -> Option<T>,
) -> Result<T> {
    let look = async {
        let request = v1::StreamRecordsRequest { from_sequence: 1, filter: None, from_time: None };
        let mut stream = clients.audit.stream(request).await?.into_inner();
        while let Some(batch) = stream.next().await {
            if let Some(found) = batch?.records.iter().find_map(&wanted) {
                return Ok(found);
            }
        }
        anyhow::bail!("the stream ended before {what}")
    };
    wait::within(what, look).await?
}

/// The record of one decision.
///
/// # Errors
/// If there is none in time.
pub async fn decision(clients: &mut Clients, decision_id: &str) -> Result<v1::DecisionRecord> {
    find(clients, &format!("the record of decision {decision_id}"), |record| match &record.entry {
        Some(Entry::Decision(decision)) if decision.decision_id == decision_id => Some(decision.clone()),
        _ => None,
    })
    .await
}

/// What the audit tells of sessions, signals, reviews and decisions, a line for each record up to that of this decision.
///
/// # Errors
/// If it is not there in time, or the records are not in order.
pub async fn story(clients: &mut Clients, decision_id: &str) -> Result<Vec<String>> {
    let request = v1::StreamRecordsRequest { from_sequence: 1, filter: None, from_time: None };
    let mut stream = clients.audit.stream(request).await?.into_inner();
    let (mut lines, mut last) = (Vec::new(), 0);
    loop {
        let batch = wait::within("the records", stream.message()).await??.context("the stream ended")?;
        for record in batch.records {
            ensure!(record.sequence > last, "records out of order");
            last = record.sequence;
            lines.extend(told(&record));
            if matches!(&record.entry, Some(Entry::Decision(one)) if one.decision_id == decision_id) {
                return Ok(lines);
            }
        }
    }
}

/// What a record tells, in a line.
fn told(record: &v1::Record) -> Option<String> {
    let decision = |decision: i32| v1::Decision::try_from(decision).map_or("?", |one| one.as_str_name());
    match record.entry.as_ref()? {
        Entry::Session(session) => Some(format!("session {} {}", session.session_id, session.change)),
        Entry::Signal(signal) => Some(format!(
            "signal {} {} from {} txn {}",
            signal.kind, signal.outcome, signal.source, signal.txn
        )),
        Entry::Decision(one) => {
            let reasons: Vec<_> = one.reasons.iter().map(|reason| reason.code().as_str_name()).collect();
            let mut line = format!("{} {} {}", one.door, decision(one.decision), reasons.join(","));
            if let Some(hold) = &one.hold {
                line = format!("{line} before {}", decision(hold.before));
                if let Some(cause) = &hold.cause {
                    line = format!("{line} because {} {}", cause.kind().as_str_name(), cause.change);
                }
            }
            Some(line)
        }
        Entry::Review(review) => Some(format!("review {} {}", review.change, review.reason)),
        Entry::Bundle(_)
        | Entry::Gap(_)
        | Entry::Shadow(_)
        | Entry::Task(_)
        | Entry::Stream(_)
        | Entry::Withheld(_)
        | Entry::Retention(_) => None,
    }
}

/// The segments of an audit, the oldest first, packed or not.
///
/// # Errors
/// If the directory cannot be read.
pub fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    let mut segments: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    segments.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".log") || name.ends_with(".log.zst")
    });
    segments.sort();
    Ok(segments)
}

/// The sequence numbers in a directory's segments, in order.
///
/// # Errors
/// If something that was written whole is no record. What is not whole at the end is what a kill may leave.
pub fn sequences(dir: &Path) -> Result<Vec<u64>> {
    if segments(dir)?.is_empty() {
        return Ok(Vec::new());
    }
    let records = Stored::open(&[dir.to_owned()])?;
    records.map(|record| Ok(record?.sequence)).collect()
}
