//! A node that is killed while new bundles arrive: whatever moment it is, it starts with a whole one and never goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::Cardea;
use cardea_tests::clients::Clients;
use cardea_tests::signed::{Publisher, good, shown, status};
use serde_json::Value;
use tokio::task::JoinSet;

const ROUNDS: usize = 8;
const REVISIONS_PER_ROUND: usize = 3;
/// A change is taken in some 200 ms after it was noticed; renames and the kill come at any moment around that.
const PAUSE_MS_MAX: u64 = 600;

/// Asks for Status until the node is gone; gives the last revision that was told.
async fn follow(mut clients: Clients) -> u64 {
    let mut seen = 0;
    while let Ok(bundle) = status(&mut clients).await {
        assert!(bundle.revision >= seen, "{} after {seen}", bundle.revision);
        seen = bundle.revision;
    }
    seen
}

fn digest(file: &Path) -> Result<String> {
    let file = shown(file);
    let seen: Value = serde_json::from_str(&good(&["inspect", &file, "--format", "json"])?.stdout)?;
    Ok(seen.get("digest").and_then(Value::as_str).context("no digest")?.to_owned())
}

async fn sleep_up_to(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(..milliseconds))).await;
}

#[tokio::test]
async fn after_kill_9_a_whole_published_revision_serves_and_none_below_what_was_seen() -> Result<()> {
    let publisher = Publisher::new()?;
    let mut published = BTreeMap::new();
    let last = u64::try_from(ROUNDS * REVISIONS_PER_ROUND)? + 1;
    for revision in 1..=last {
        let file = publisher.signed(revision, &[])?;
        let digest = digest(&file)?;
        published.insert(revision, (file, digest));
    }
    let mut waiting = published.iter().map(|(_, (file, _))| file);
    publisher.publish(waiting.next().context("none was built")?)?;
    let mut cardea = Cardea::start_with(publisher.node()).await?;
    let mut floor = 1;
    let mut distinct = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut following = JoinSet::new();
        following.spawn(follow(cardea.clients()?));
        for file in waiting.by_ref().take(REVISIONS_PER_ROUND) {
            publisher.publish(file)?;
            sleep_up_to(PAUSE_MS_MAX).await;
        }
        cardea.process.kill()?;
        floor = floor.max(following.join_next().await.context("nobody followed")??);
        // Every other time only the store can tell what was in force.
        let alone = round % 2 == 1;
        if alone {
            std::fs::remove_file(publisher.place())?;
        }
        cardea.start_again().await?;
        let mut clients = cardea.clients()?;
        let bundle = status(&mut clients).await?;
        ensure!(bundle.revision >= floor, "round {round}: {bundle:?} after revision {floor}");
        let (_, digest) =
            published.get(&bundle.revision).with_context(|| format!("round {round}: {bundle:?}"))?;
        ensure!(bundle.digest == *digest && bundle.signed_by == ["ci"], "round {round}: {bundle:?}");
        ensure!(bundle.floor_revision == bundle.revision, "round {round}: {bundle:?}");
        let verdict = clients.decide(attempt("Workload::report", "read", "Table::orders", "")?).await?;
        let basis: v1::Basis = verdict.basis.context("no basis")?;
        ensure!((basis.revision, &basis.digest) == (bundle.revision, digest), "round {round}: {basis:?}");
        floor = bundle.revision;
        distinct.insert(floor);
    }
    ensure!(distinct.len() > ROUNDS / 2, "hardly anything came into force: {distinct:?}");
    Ok(())
}
