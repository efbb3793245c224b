//! Events that are pushed to receivers over real sockets.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;

/// What a receiver answers, and what it got.
pub(super) struct Partner {
    pub(super) at: SocketAddr,
    pub(super) got: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    pub(super) asked: Arc<AtomicUsize>,
}

/// A receiver that answers each request by its number.
pub(super) async fn partner(
    answer: impl Fn(usize) -> Response<Full<Bytes>> + Send + Sync + Clone + 'static,
) -> Partner {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (got, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (sink, count) = (Arc::clone(&got), Arc::clone(&asked));
    start(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { return };
            let (answer, sink, count) = (answer.clone(), Arc::clone(&sink), Arc::clone(&count));
            start(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (answer, sink, count) = (answer.clone(), Arc::clone(&sink), Arc::clone(&count));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let number = count.fetch_add(1, Ordering::SeqCst);
                        let answer = answer(number);
                        if answer.status() == StatusCode::ACCEPTED {
                            sink.lock().push((parts.headers, String::from_utf8(body.to_vec()).unwrap()));
                        }
                        Ok::<_, Infallible>(answer)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    Partner { at, got, asked }
}

#[expect(clippy::disallowed_methods, reason = "a partner of a test is not part of the process")]
pub(super) fn start(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

pub(super) fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// Lets the first two receivers have events pushed to these addresses.
pub(super) fn allow(options: &mut Options, at: &[SocketAddr]) {
    let hosts: Vec<PushHost> = at.iter().map(|at| PushHost::parse(&at.to_string()).unwrap()).collect();
    options.receivers.iter_mut().for_each(|receiver| receiver.push_hosts.clone_from(&hosts));
}

pub(super) fn push_to(at: SocketAddr) -> Value {
    json!({ "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": format!("http://{at}/in"), "authorization_header": "Bearer to-you" } })
}

fn told(partner: &Partner) -> Vec<String> {
    let session = |(_, token): &(HeaderMap, String)| {
        claims(&json!(token))["sub_id"]["session"]["id"].as_str().unwrap_or("-").to_owned()
    };
    partner.got.lock().iter().map(session).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn events_are_pushed_in_order_with_the_headers_of_the_standard() {
    let dir = temp();
    let partner = partner(|_| answer(202, "")).await;
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    node.run();
    let id = node.stream(push_to(partner.at)).await;
    for n in 0..200 {
        node.conclude(revoked("ann", &format!("s{n}")));
        if n == 99 {
            until("the first half came", || partner.got.lock().len() == 100).await;
        }
    }
    until("all came", || partner.got.lock().len() == 100 + 100.min(node.transmitter.options.outbox_max))
        .await;
    assert_eq!(told(&partner), (0..200).map(|n| format!("s{n}")).collect::<Vec<_>>());
    {
        let got = partner.got.lock();
        let (headers, token) = &got[0];
        assert_eq!(headers["content-type"], "application/secevent+jwt");
        assert_eq!(headers["accept"], "application/json");
        assert_eq!(headers["authorization"], "Bearer to-you");
        node.verified(token, "https://rp.example/");
    }
    let waits = || node.transmitter.streams.lock().by_id(&id).unwrap().outbox.len();
    until("nothing waits", || waits() == 0).await;
    assert!(node.transmitter.around.metrics.render().contains("cardea_ssf_transmit_sent_total 200"));
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_receiver_that_fails_gets_the_event_again_and_nothing_overtakes_it() {
    let dir = temp();
    let partner = partner(|number| match number {
        0 => answer(503, ""),
        1 => answer(400, r#"{"err":"authentication_failed","description":"who are you"}"#),
        2 => answer(500, "no JSON"),
        _ => answer(202, ""),
    })
    .await;
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    node.run();
    node.stream(push_to(partner.at)).await;
    node.conclude(revoked("ann", "s0"));
    node.conclude(revoked("ann", "s1"));
    for tries in 1..=3 {
        until("it was tried", || partner.asked.load(Ordering::SeqCst) >= tries).await;
        assert!(partner.got.lock().is_empty() || tries == 3);
        until("it waits", || node.transmitter.sending.lock().values().any(|of| !of.is_sending())).await;
        node.clock.advance(limits::SSF_PUSH_BACKOFF_MAX);
        node.transmitter.work.notify_one();
    }
    until("both came", || partner.got.lock().len() == 2).await;
    assert_eq!(told(&partner), ["s0", "s1"]);
    assert!(node.transmitter.around.metrics.render().contains("cardea_ssf_transmit_retried_total 3"));
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_event_that_its_receiver_cannot_use_does_not_hold_up_the_others() {
    let dir = temp();
    let partner = partner(|number| match number {
        0 => answer(400, r#"{"err":"invalid_request","description":"never heard of that"}"#),
        _ => answer(202, ""),
    })
    .await;
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    node.run();
    node.stream(push_to(partner.at)).await;
    node.conclude(revoked("ann", "s0"));
    node.conclude(revoked("ann", "s1"));
    until("the second came", || partner.got.lock().len() == 1).await;
    assert_eq!(told(&partner), ["s1"]);
    assert!(node.close().await.join("\n").contains("invalid_request: never heard of that"));
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_not_taken_is_pushed_after_a_restart() {
    let dir = temp();
    let partner = partner(|_| answer(202, "")).await;
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    let id = node.stream(push_to(partner.at)).await;
    node.post("/ssf/verify", json!({ "stream_id": id })).await;
    node.conclude(revoked("ann", "s0"));
    node.transmitter.publish_all();
    node.close().await;
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    node.run();
    // Not when both came: what is not known to be taken is rightly pushed again.
    until("both were taken", || node.transmitter.streams.lock().by_id(&id).unwrap().outbox.is_empty()).await;
    assert_eq!(told(&partner), ["-", "s0"]);
    node.close().await;
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    node.run();
    node.conclude(revoked("ann", "s1"));
    until("the next came", || partner.got.lock().len() == 3).await;
    assert_eq!(told(&partner), ["-", "s0", "s1"], "what was taken does not come again");
    node.close().await;
}
