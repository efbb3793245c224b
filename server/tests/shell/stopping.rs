//! Draining, aborting and dying.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, Setup, check};

#[tokio::test]
async fn a_drain_lets_the_call_in_flight_finish_and_takes_no_new_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cardea.sock");
    let mut setup = Setup { calls_at_once: 0, ..Setup::default() };
    setup.listen.uds = Some(path.clone());
    let running = setup.start();
    let at = running.at.unwrap();
    let mut in_flight = JoinSet::new();
    in_flight.spawn(check(running.tcp().await));
    running.until("the call arrived", |running| running.calls() == 1).await;

    running.shutdown.drain();
    running.until("the socket's file is gone", |_| !path.exists()).await;
    let closed = async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the listener closes");
    assert!(in_flight.try_join_next().is_none(), "the call is still in flight");

    running.behaviour.permits.add_permits(1);
    assert_eq!(in_flight.join_next().await.unwrap().unwrap().unwrap(), 1);
    assert_eq!(running.ended().await, Ok(()));
}

#[tokio::test]
async fn a_drain_without_calls_ends_at_once_although_a_client_stays_connected() {
    let running = Setup::default().start();
    let channel = running.tcp().await;
    check(channel.clone()).await.unwrap();
    running.shutdown.drain();
    let ended =
        tokio::time::timeout(Duration::from_secs(5), running.ended()).await.expect("no call, no grace");
    assert_eq!(ended, Ok(()));
    check(channel).await.unwrap_err();
}

#[tokio::test]
async fn an_abort_does_not_wait_for_calls() {
    let running = Setup { calls_at_once: 0, ..Setup::default() }.start();
    let mut in_flight = JoinSet::new();
    in_flight.spawn(check(running.tcp().await));
    running.until("the call arrived", |running| running.calls() == 1).await;
    running.shutdown.drain();
    running.shutdown.abort();
    let ended = tokio::time::timeout(Duration::from_secs(5), running.ended()).await.expect("aborts at once");
    assert_eq!(ended, Ok(()));
    in_flight.join_next().await.unwrap().unwrap().unwrap_err();
}

#[tokio::test]
async fn a_worker_that_panics_ends_the_process_with_its_message() {
    let running = Setup { make_panics: true, ..Setup::default() }.start();
    let fatal = running.ended().await.unwrap_err();
    assert!(fatal.starts_with("`worker-") && fatal.contains("panicked: asked to panic"), "{fatal}");
}
