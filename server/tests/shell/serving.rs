//! Calls on TCP and on the Unix socket, and everything that is refused.

use std::sync::atomic::Ordering;

use cardea_server::listen::Transport;
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use crate::harness::{PATIENCE, Setup, check};

const SERVING: i32 = 1;

#[tokio::test]
async fn a_call_over_tcp_is_served_and_carries_its_peer() {
    let running = Setup::default().start();
    assert_eq!(check(running.tcp().await).await.unwrap(), SERVING);
    let peer = running.behaviour.peers.lock().unwrap()[0].clone();
    assert!(matches!(peer.transport(), Transport::Tcp { from } if from.ip().is_loopback()), "{peer:?}");
    assert!(peer.certificate().is_none());
}

#[tokio::test]
async fn a_call_over_the_unix_socket_is_served_and_carries_the_users_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::default();
    setup.listen.grpc.clear();
    setup.listen.uds = Some(dir.path().join("cardea.sock"));
    let running = setup.start();
    assert_eq!(check(running.unix().await).await.unwrap(), SERVING);
    let peer = running.behaviour.peers.lock().unwrap()[0].clone();
    assert!(matches!(peer.transport(), Transport::Unix { uid: Some(_) }), "{peer:?}");
}

#[tokio::test]
async fn connections_are_dealt_out_and_many_calls_share_them() {
    let running = Setup::default().start();
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let channel = running.tcp().await;
        for _ in 0..50 {
            calls.spawn(check(channel.clone()));
        }
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap(), SERVING);
    }
    assert_eq!(running.calls(), 200);
    assert_eq!(running.metric("cardea_connections_accepted_total"), 4.0);
}

async fn call_path(channel: Channel, path: &'static str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let request = Request::new(HealthCheckRequest::default());
    client.unary(request, PathAndQuery::from_static(path), codec).await.map(|_| ())
}

#[tokio::test]
async fn an_unknown_service_or_method_is_unimplemented() {
    let running = Setup::default().start();
    let channel = running.tcp().await;
    for path in
        ["/no.such.Service/Check", "/grpc.health.v1.Health/Nope", "/x", "/grpc.health.v1.Health2/Check"]
    {
        let status = call_path(channel.clone(), path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
    assert_eq!(check(channel).await.unwrap(), SERVING);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_the_connection_goes_on() {
    let running = Setup::default().start();
    let channel = running.tcp().await;
    let service = "x".repeat(cardea_server::limits::GRPC_MESSAGE_BYTES_MAX + 1);
    let status = HealthClient::new(channel.clone()).check(HealthCheckRequest { service }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(check(channel).await.unwrap(), SERVING);
}

#[tokio::test]
async fn headers_beyond_the_limit_never_reach_the_service() {
    let running = Setup::default().start();
    let channel = running.tcp().await;
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("x-large", "x".repeat(17 * 1024).parse().unwrap());
    HealthClient::new(channel).check(request).await.unwrap_err();
    assert_eq!(running.calls(), 0);
    assert_eq!(check(running.tcp().await).await.unwrap(), SERVING);
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http2_is_closed_at_once() {
    let running = Setup::default().start();
    let mut socket = TcpStream::connect(running.at.unwrap()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(read.is_err() || answer.is_empty(), "{answer:?}");
    running
        .until("it is counted", |running| {
            running.metric("cardea_connections_refused_total{reason=\"not_http2\"}") == 1.0
        })
        .await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_after_the_handshakes_time() {
    let running = Setup::default().start();
    let mut socket = TcpStream::connect(running.at.unwrap()).await.unwrap();
    socket.write_all(b"PRI").await.unwrap();
    let read = tokio::time::timeout(PATIENCE, socket.read(&mut [0; 1])).await.expect("closed in time");
    assert_eq!(read.unwrap_or_default(), 0);
    running
        .until("it is counted", |running| {
            running.metric("cardea_connections_refused_total{reason=\"timeout\"}") == 1.0
        })
        .await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_and_its_place_comes_back() {
    let running = Setup { connections_max: 1, ..Setup::default() }.start();
    let first = running.tcp().await;
    assert_eq!(check(first.clone()).await.unwrap(), SERVING);
    let mut second = TcpStream::connect(running.at.unwrap()).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, second.read(&mut [0; 1])).await.expect("closed in time");
    assert_eq!(read.unwrap_or_default(), 0);
    running
        .until("it is counted", |running| {
            running.metric("cardea_connections_refused_total{reason=\"limit\"}") == 1.0
        })
        .await;
    drop(first);
    running.until("the first is closed", |running| running.metric("cardea_connections ") == 0.0).await;
    assert_eq!(check(running.tcp().await).await.unwrap(), SERVING);
}

#[tokio::test]
async fn a_call_that_panics_fails_alone() {
    let running = Setup::default().start();
    let channel = running.tcp().await;
    running.behaviour.panic_next.store(true, Ordering::SeqCst);
    check(channel.clone()).await.unwrap_err();
    assert_eq!(check(channel).await.unwrap(), SERVING);
    running.until("it is counted", |running| running.metric("cardea_panics_total") == 1.0).await;
}
