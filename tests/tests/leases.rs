//! Allows that the Rust client reuses, on a real node: for as long as their leases say, and no longer than the node holds.

use anyhow::Result;
use cardea_client::{CachedClient, Client};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::{attempt, long};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;

const SESSION: &str = "s";

/// A node whose bundle has this `[lease]`, a session, and clients beside the one that caches.
async fn leasing(lease: &str) -> Result<(Cardea, Clients)> {
    let options = Options::default().edit("bundle.toml", "[risk]", format!("[lease]\n{lease}\n[risk]"));
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    clients.open_session(SESSION, "Agent::biller").await?;
    Ok((cardea, clients))
}

fn read() -> Result<v1::Attempt> {
    attempt("Agent::biller", "read", "Table::orders", SESSION)
}

#[tokio::test]
async fn without_a_stream_an_allow_in_a_session_is_asked_for_each_time_unless_the_bundle_says_otherwise()
-> Result<()> {
    let (cardea, _clients) = leasing("max_ms = 60000").await?;
    let cached = CachedClient::new(Client::connect(format!("http://{}", cardea.grpc)).await?, 1000);
    for _ in 0..2 {
        let answer = cached.decide(read()?).await?;
        let lease = answer.verdict.lease.unwrap_or_default();
        assert!(!answer.reused && lease.lease_ms == 0 && lease.held_lease_ms == 60_000, "{lease:?}");
        assert!(lease.on_session && lease.on_context && !lease.on_token, "{lease:?}");
    }

    let (cardea, _clients) = leasing("max_ms = 60000\nunheld_max_ms = 60000").await?;
    let cached = CachedClient::new(Client::connect(format!("http://{}", cardea.grpc)).await?, 1000);
    let first = cached.decide(read()?).await?;
    let second = cached.decide(v1::Attempt { id: "again".into(), ..read()? }).await?;
    assert!(!first.reused && second.reused);
    assert_eq!(first.verdict.decision_id, second.verdict.decision_id);
    let basis = first.verdict.basis.clone().unwrap_or_default();
    let newer = v1::Attempt { at_least_version: basis.state_version + 1, ..read()? };
    let newer = cached.decide(newer).await?;
    assert!(!newer.reused && newer.verdict.decision() == Decision::Deny, "newer state is demanded");
    Ok(())
}

#[tokio::test]
async fn an_allow_holds_whatever_the_context_where_no_policy_reads_it() -> Result<()> {
    let (cardea, _clients) = leasing("max_ms = 60000\nunheld_max_ms = 60000").await?;
    let cached = CachedClient::new(Client::connect(format!("http://{}", cardea.grpc)).await?, 1000);
    let with_limit = |action: &str, limit: i64| -> Result<v1::Attempt> {
        let context = [("limit".to_owned(), long(limit))].into_iter().collect();
        Ok(v1::Attempt { context, ..attempt("Agent::biller", action, "Table::orders", SESSION)? })
    };
    assert!(!cached.decide(with_limit("write", 1)?).await?.reused);
    assert!(cached.decide(with_limit("write", 2)?).await?.reused);
    assert!(!cached.decide(with_limit("read", 1)?).await?.reused);
    assert!(!cached.decide(with_limit("read", 5000)?).await?.reused, "its limit is forbidden");
    assert!(
        cached.reuse(&with_limit("read", 1)?).is_some() && cached.reuse(&with_limit("read", 5000)?).is_none()
    );
    Ok(())
}
