//! The audit tells a cause before what comes of it, however soon that comes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::{attempt, entity};
use cardea_tests::audit;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::hold::{Point, decision, held};

#[tokio::test]
async fn what_takes_back_is_recorded_before_what_it_took_back() -> Result<()> {
    const ROUNDS: u64 = 60;
    let cardea = Cardea::start_with(Options::default().workers(2)).await?;
    let mut clients = cardea.clients()?;
    let mut point = Point::open(&mut clients, None).await?;
    let mut last = String::new();
    for round in 1..=ROUNDS {
        let id = format!("run-{round}");
        clients.open_session(&id, "Agent::biller").await?;
        point.add(vec![held(round, attempt("Agent::biller", "read", "Table::orders", &id)?)]).await?;
        ensure!(decision(&point.answer().await?) == Decision::Allow);
        let revoked = v1::SessionRevoked { session_id: id.clone(), reason: String::new() };
        let all = v1::end_session_request::Target::Principal(entity("Agent::biller")?);
        match round % 3 {
            0 => drop(clients.end_session(&id).await?),
            1 => drop(clients.report(None, v1::signal::Change::SessionRevoked(revoked)).await?),
            _ => {
                let request = v1::EndSessionRequest { target: Some(all), reason: String::new() };
                drop(clients.session.end(request).await?);
                // What is opened in the same millisecond would be over as well.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let answer = point.answer().await?;
        ensure!(decision(&answer) == Decision::Deny, "{answer:?}");
        last = answer.verdict.context("no verdict")?.decision_id;
        point.drop_holds(vec![round]).await?;
    }
    let told = audit::story(&mut clients, &last).await?;
    // Each round: opened, held, ended in one way or another, taken back.
    let is_end = |line: &str| line.ends_with(" ended") || line.starts_with("signal session_revoked applied");
    let rounds = told.as_chunks::<4>();
    assert_eq!((rounds.0.len(), rounds.1.len()), (usize::try_from(ROUNDS)?, 0), "{told:?}");
    for [opened, held, ended, taken_back] in rounds.0 {
        assert!(opened.ends_with(" opened") && held.starts_with("hold DECISION_ALLOW"), "{opened} {held}");
        assert!(is_end(ended) && taken_back.starts_with("hold DECISION_DENY"), "{ended} {taken_back}");
    }
    Ok(())
}
