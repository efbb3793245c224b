//! kill -9 at random moments under load: every change that was acknowledged is there after the start.
//!
//! `CARDEA_KILLS` sets how many times the process is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::{self, ReasonCode, SessionStatus, signal};
use cardea_tests::attempts::{attempt, codes, entity};
use cardea_tests::cardea::Cardea;
use cardea_tests::clients::Clients;
use tokio::task::JoinSet;
use tonic::Code;

const KILLS_DEFAULT: usize = 100;
/// Callers that change something all the time, each its own sessions and principal.
const WRITERS: usize = 8;
/// The process lives at most this long under load.
const LIFE_MS_MAX: u64 = 120;

/// What one writer was told, and what it asked for last without being told.
#[derive(Default)]
struct Told {
    /// Sessions by their number: whether they were ended.
    sessions: BTreeMap<u64, bool>,
    /// Whether its principal is disabled.
    is_disabled: bool,
    /// The last call was not answered, so it may or may not have happened.
    doubt: Option<Change>,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Open(u64),
    End(u64),
    Disable(bool),
}

fn principal(writer: usize) -> String {
    format!("Agent::writer-{writer}")
}

fn session_id(writer: usize, number: u64) -> String {
    format!("s-{writer}-{number}")
}

async fn make(clients: &mut Clients, writer: usize, change: Change) -> Result<(), tonic::Status> {
    let of = entity(&principal(writer)).map_err(|fault| tonic::Status::internal(fault.to_string()))?;
    match change {
        Change::Open(number) => {
            let id = session_id(writer, number);
            let session = v1::Session { id, principal: Some(of), ..v1::Session::default() };
            clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
        }
        Change::End(number) => {
            let target = v1::end_session_request::Target::Id(session_id(writer, number));
            let request = v1::EndSessionRequest { target: Some(target), reason: String::new() };
            clients.session.end(request).await?;
        }
        Change::Disable(to) => {
            let reason = String::new();
            let change = match to {
                true => signal::Change::PrincipalDisabled(v1::PrincipalDisabled { reason }),
                false => signal::Change::PrincipalEnabled(v1::PrincipalEnabled {}),
            };
            let signal = v1::Signal { subject: Some(of), change: Some(change), ..v1::Signal::default() };
            clients.signal.report(v1::ReportSignalsRequest { signals: vec![signal] }).await?;
        }
    }
    Ok(())
}

impl Told {
    fn choose(&mut self) -> Change {
        let mut live = self.sessions.iter().filter(|(_, ended)| !**ended).map(|(number, _)| *number);
        match (fastrand::u8(..4), live.next_back()) {
            (0, _) => Change::Disable(!self.is_disabled),
            (1 | 2, Some(number)) => Change::End(number),
            _ => {
                self.next += 1;
                Change::Open(self.next)
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Open(number) => {
                self.sessions.insert(number, false);
            }
            Change::End(number) => {
                self.sessions.insert(number, true);
            }
            Change::Disable(to) => self.is_disabled = to,
        }
    }
}

/// Changes one thing after another until the process is gone.
async fn write(mut clients: Clients, writer: usize, mut told: Told) -> Result<(usize, Told, usize)> {
    let mut acknowledged = 0;
    loop {
        let change = told.choose();
        match make(&mut clients, writer, change).await {
            Ok(()) => {
                told.take(change);
                acknowledged += 1;
            }
            Err(status) => {
                let is_gone = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
                ensure!(is_gone, "{change:?} was refused: {status}");
                told.doubt = Some(change);
                return Ok((writer, told, acknowledged));
            }
        }
        // Two events of one millisecond have no order.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether what the service knows is what the writer was told; what was in doubt is settled.
async fn check(clients: &mut Clients, writer: usize, told: &mut Told) -> Result<()> {
    let doubt = told.doubt.take();
    let ask = attempt(&principal(writer), "read", "Table::orders", "")?;
    let is_disabled = codes(&clients.decide(ask).await?) == [ReasonCode::PrincipalDisabled];
    if let Some(Change::Disable(to)) = doubt
        && is_disabled == to
    {
        told.is_disabled = to;
    }
    ensure!(is_disabled == told.is_disabled, "writer {writer}: disabled {is_disabled}, doubt {doubt:?}");
    if let Some(Change::Open(number)) = doubt {
        told.sessions.insert(number, false);
    }
    // Older ones were seen after an earlier kill, and nothing touched them since.
    let recent: Vec<_> =
        told.sessions.iter().rev().take(40).map(|(number, ended)| (*number, *ended)).collect();
    for (number, was_ended) in recent {
        let id = session_id(writer, number);
        let found = match clients.session.get(v1::GetSessionRequest { id: id.clone() }).await {
            Ok(found) => found.into_inner().session,
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(status).context("a session cannot be read"),
        };
        let Some(session) = found else {
            ensure!(doubt == Some(Change::Open(number)), "`{id}` was opened and is not known");
            told.sessions.remove(&number);
            continue;
        };
        let is_ended = session.status() == SessionStatus::Revoked;
        ensure!(
            is_ended == was_ended || (is_ended && doubt == Some(Change::End(number))),
            "`{id}`: ended {is_ended}, told {was_ended}, doubt {doubt:?}"
        );
        told.sessions.insert(number, is_ended);
    }
    Ok(())
}

#[tokio::test]
async fn after_kill_9_every_acknowledged_change_is_there() -> Result<()> {
    let kills =
        std::env::var("CARDEA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS_DEFAULT);
    // Few sessions in memory, so that most are read from disk.
    let options = cardea_tests::cardea::Options::default().config("[state]\nsessions_max = 16\n");
    let mut cardea = Cardea::start_with(options).await?;
    let mut told: Vec<Told> = (0..WRITERS).map(|_| Told::default()).collect();
    let mut acknowledged = 0;
    let mut version = 0;
    for kill in 0..kills {
        let mut writing = JoinSet::new();
        for (writer, told) in told.drain(..).enumerate() {
            writing.spawn(write(cardea.clients()?, writer, told));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..LIFE_MS_MAX))).await;
        cardea.process.kill()?;
        let mut by_writer = BTreeMap::new();
        while let Some(ended) = writing.join_next().await {
            let (writer, told, count) = ended??;
            by_writer.insert(writer, told);
            acknowledged += count;
        }
        cardea.start_again().await?;
        let mut clients = cardea.clients()?;
        for (writer, told) in &mut by_writer {
            check(&mut clients, *writer, told).await.with_context(|| format!("after kill {kill}"))?;
        }
        told = by_writer.into_values().collect();
        let state = clients.status().await?.state.context("no state")?;
        ensure!(state.state_version >= version, "versions fell from {version} to {}", state.state_version);
        version = state.state_version;
    }
    ensure!(acknowledged > kills * WRITERS, "only {acknowledged} changes were acknowledged: too little load");
    println!("{kills} kills, {acknowledged} acknowledged changes, none lost");
    Ok(())
}
