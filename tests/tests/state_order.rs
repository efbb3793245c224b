//! Real time order: once the end of a session is acknowledged, no decision that starts later allows for it, through any
//! door and on any worker.
//!
//! `CARDEA_ORDER_S` sets for how many seconds it is tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use tokio::task::JoinSet;

const WRITERS: usize = 8;
const CALLERS: usize = 64;
const SECONDS_DEFAULT: u64 = 5;

/// What one writer's callers share.
#[derive(Default)]
struct Slot {
    /// Number of the session that is live, or was last.
    session: AtomicU64,
    /// Sessions up to this one were acknowledged as ended.
    ended: AtomicU64,
}

#[derive(Default)]
struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
    ended: AtomicU64,
}

fn id(writer: usize, number: u64) -> String {
    format!("order-{writer}-{number}")
}

/// Opens a session, lets it be used for a moment, ends it in one of the ways there are.
async fn write(
    mut clients: Clients,
    writer: usize,
    slot: Arc<Slot>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
) -> Result<()> {
    for number in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let id = id(writer, number);
        clients.open_session(&id, "Agent::biller").await?;
        slot.session.store(number, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..4))).await;
        if fastrand::bool() {
            let target = Some(v1::end_session_request::Target::Id(id));
            clients.session.end(v1::EndSessionRequest { target, reason: String::new() }).await?;
        } else {
            let revoked = v1::SessionRevoked { session_id: id, reason: String::new() };
            let change = Some(v1::signal::Change::SessionRevoked(revoked));
            let signals = vec![v1::Signal { change, ..v1::Signal::default() }];
            clients.signal.report(v1::ReportSignalsRequest { signals }).await?;
        }
        slot.ended.store(number, Ordering::SeqCst);
        counts.ended.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn call(
    mut clients: Clients,
    writer: usize,
    slot: Arc<Slot>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
) -> Result<()> {
    while !stop.load(Ordering::SeqCst) {
        let number = slot.session.load(Ordering::SeqCst);
        let was_ended = slot.ended.load(Ordering::SeqCst) >= number;
        let verdict =
            clients.decide(attempt("Agent::biller", "read", "Table::orders", &id(writer, number))?).await?;
        let allows = verdict.decision() == Decision::Allow;
        ensure!(
            !(was_ended && allows),
            "allowed for session {number} of {writer} after its end was acknowledged"
        );
        let count = if allows { &counts.allowed } else { &counts.denied };
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test]
async fn after_an_acknowledged_end_no_decision_allows() -> Result<()> {
    let seconds =
        std::env::var("CARDEA_ORDER_S").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS_DEFAULT);
    // Both workers, and so little memory that sessions are evicted and read back all the time.
    let options = Options::default().config("[state]\nsessions_max = 4\n").workers(2);
    let cardea = Cardea::start_with(options).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(Counts::default());
    let slots: Vec<Arc<Slot>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut running = JoinSet::new();
    for (writer, slot) in slots.iter().enumerate() {
        running.spawn(write(
            cardea.clients()?,
            writer,
            Arc::clone(slot),
            Arc::clone(&stop),
            Arc::clone(&counts),
        ));
        for caller in 0..CALLERS / WRITERS {
            // Half of them over the socket: another worker may serve them.
            let clients = if caller % 2 == 0 { cardea.clients()? } else { Clients::uds(&cardea.uds())? };
            running.spawn(call(clients, writer, Arc::clone(slot), Arc::clone(&stop), Arc::clone(&counts)));
        }
    }
    for _tick in 0..seconds * 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(ended) = running.try_join_next() {
            ended??;
            anyhow::bail!("a caller ended before its time");
        }
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (allowed, denied, ended) = (of(&counts.allowed), of(&counts.denied), of(&counts.ended));
    println!("{seconds} s: {ended} sessions ended; {allowed} allowed, {denied} denied");
    ensure!(ended > 50 && allowed > 50 && denied > 50, "too little happened to show anything");
    Ok(())
}
