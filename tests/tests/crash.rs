//! kill -9 under load: what was written stays readable, and the numbers go on.

use anyhow::{Result, ensure};
use cardea_proto::v1;
use cardea_tests::attempts::attempt;
use cardea_tests::audit::sequences;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::wait;
use tokio::task::JoinSet;

const CALLERS: usize = 4;
const ROUNDS: u64 = 3;
/// Records that each round must have on disk before the kill; several segments of 1 MiB.
const RECORDS_BEFORE_KILL: usize = 5_000;

/// Asks until the service is gone.
async fn ask(mut clients: Clients) -> Result<()> {
    let one = attempt("Agent::biller", "read", "Table::orders", "")?;
    let batch = v1::DecideBatchRequest { attempts: vec![one; 64] };
    while clients.decision.decide_batch(batch.clone()).await.is_ok() {}
    Ok(())
}

fn rises_by_one(numbers: &[u64]) -> bool {
    numbers.iter().copied().eq(1..=numbers.len() as u64)
}

#[tokio::test]
async fn after_kill_9_under_load_the_audit_is_readable_and_its_numbers_go_on() -> Result<()> {
    let options = Options::default().config("[audit]\nsegment_mb = 1\n");
    let mut cardea = Cardea::start_with(options).await?;
    let mut before = 0;
    for round in 0..ROUNDS {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(ask(cardea.clients()?));
        }
        let dir = cardea.audit_dir();
        wait::until("records on disk", async || {
            Ok((sequences(&dir)?.len() >= before + RECORDS_BEFORE_KILL).then_some(()))
        })
        .await?;
        cardea.process.kill()?;
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        let written = sequences(&dir)?;
        ensure!(rises_by_one(&written), "round {round}: numbers do not rise by one");

        cardea.start_again().await?;
        let mut clients = cardea.clients()?;
        let verdict = clients.decide(attempt("Agent::biller", "read", "Table::orders", "")?).await?;
        let record = cardea_tests::audit::decision(&mut clients, &verdict.decision_id).await?;
        ensure!(record.decision() == verdict.decision(), "{record:?}");
        let after = sequences(&dir)?;
        ensure!(rises_by_one(&after), "round {round}: numbers repeat or skip after the start");
        ensure!(after.len() > written.len(), "round {round}: records were lost by starting");
        before = after.len();
    }
    let segments = cardea_tests::audit::segments(&cardea.audit_dir())?;
    ensure!(segments.len() > 1, "the load did not fill a segment, so no rotation was tested");
    Ok(())
}
