//! What hostile receivers and hostile addresses try.

use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::pushing::{allow, answer, partner, push_to, start};
use super::*;

#[tokio::test(flavor = "current_thread")]
async fn another_receivers_stream_is_not_there() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    node.conclude(revoked("ann", "s1"));
    node.transmitter.publish_all();
    let subject = json!({ "format": "opaque", "id": "s1" });
    let of_id = json!({ "stream_id": id }).to_string();
    let requests = [
        ("GET", format!("/ssf/streams?stream_id={id}"), String::new()),
        ("GET", format!("/ssf/status?stream_id={id}"), String::new()),
        ("DELETE", format!("/ssf/streams?stream_id={id}"), String::new()),
        ("PATCH", "/ssf/streams".into(), of_id.clone()),
        ("PUT", "/ssf/streams".into(), of_id.clone()),
        ("POST", "/ssf/status".into(), json!({ "stream_id": id, "status": "disabled" }).to_string()),
        ("POST", "/ssf/subjects/add".into(), json!({ "stream_id": id, "subject": subject }).to_string()),
        ("POST", "/ssf/subjects/remove".into(), json!({ "stream_id": id, "subject": subject }).to_string()),
        ("POST", "/ssf/verify".into(), of_id),
        ("POST", format!("/ssf/poll/{id}"), r#"{"returnImmediately":true}"#.into()),
    ];
    for (method, path, body) in &requests {
        let (status, answer, _) = node.ask(method, path, OTHER, body).await;
        let missing = body.replace(&id, "0123456789abcdef0123456789abcdef");
        let nobody = path.replace(&id, "0123456789abcdef0123456789abcdef");
        let (_, other, _) = node.ask(method, &nobody, OTHER, &missing).await;
        assert_eq!((status, &answer), (StatusCode::NOT_FOUND, &other), "{method} {path}");
    }
    assert_eq!(node.ask("GET", "/ssf/streams", OTHER, "").await.1, json!([]));
    let untouched = node.poll(&id, json!({ "returnImmediately": true })).await;
    assert_eq!(sessions(&untouched), ["s1"]);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn without_a_token_or_its_scope_nothing_is_told_or_changed() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    for token in ["", "x", "the-token-of-the-first-receiveR"] {
        for (method, path) in [("GET", "/ssf/streams"), ("POST", "/ssf/streams"), ("POST", "/ssf/poll/x")] {
            let (status, _, headers) =
                node.ask(method, path, token, if method == "POST" { "{}" } else { "" }).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
    }
    let (status, ..) = node.ask("GET", &format!("/ssf/streams?access_token={RP}"), "", "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a token in the query does not count");
    assert_eq!(node.ask("GET", "/ssf/streams", READER, "").await.0, StatusCode::OK);
    for path in ["/ssf/streams", "/ssf/verify", "/ssf/poll/x"] {
        let (status, answer, _) = node.ask("POST", path, READER, "{}").await;
        assert_eq!((status, &answer["err"]), (StatusCode::FORBIDDEN, &json!("insufficient_scope")), "{path}");
    }
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_makes_the_transmitter_send_where_it_may_not() {
    let dir = temp();
    let partner = partner(|_| answer(202, "")).await;
    let node = Node::open(dir.path(), |_| {});
    for url in [
        "http://push.example/".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://localhost/".to_owned(),
        format!("http://{}/", partner.at),
        "https://push.example@evil.example/".to_owned(),
        "https://push.example:8443/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let body = json!({ "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": url } });
        let (status, answer) = node.post("/ssf/streams", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{url}: {answer}");
    }
    node.close().await;
    // A host that was allowed and no longer is gets nothing.
    let node = Node::open(dir.path(), |options| allow(options, &[partner.at]));
    node.stream(push_to(partner.at)).await;
    node.close().await;
    let node = Node::open(dir.path(), |_| {});
    node.run();
    node.conclude(revoked("ann", "s1"));
    let retried = || node.transmitter.around.metrics.render().contains("cardea_ssf_transmit_retried_total 1");
    until("it was not sent", retried).await;
    assert_eq!(partner.asked.load(Ordering::SeqCst), 0);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_redirect_is_not_followed() {
    let dir = temp();
    let target = partner(|_| answer(202, "")).await;
    let to = target.at;
    let redirecting = partner(move |_| {
        let mut answer = answer(307, "");
        answer.headers_mut().insert("location", format!("http://{to}/in").parse().unwrap());
        answer
    })
    .await;
    let node = Node::open(dir.path(), |options| allow(options, &[redirecting.at, to]));
    node.run();
    node.stream(push_to(redirecting.at)).await;
    node.conclude(revoked("ann", "s1"));
    let retried = || node.transmitter.around.metrics.render().contains("cardea_ssf_transmit_retried_total 1");
    until("it was answered", retried).await;
    assert_eq!((redirecting.asked.load(Ordering::SeqCst), target.asked.load(Ordering::SeqCst)), (1, 0));
    node.close().await;
}

/// A receiver that takes a request and then does `what` with the socket.
async fn hostile(head: &'static str, endless: bool) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    start(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            let count = Arc::clone(&count);
            start(async move {
                let mut request = vec![0; 16 * 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(head.as_bytes()).await;
                let chunk = vec![b'x'; 64 * 1024];
                for _ in 0..1600 {
                    if !endless || socket.write_all(&chunk).await.is_err() {
                        break;
                    }
                    count.fetch_add(chunk.len(), Ordering::SeqCst);
                }
                if !endless {
                    // Slow: it never ends its answer.
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (at, sent)
}

#[tokio::test(flavor = "current_thread")]
async fn a_hundred_megabytes_are_not_read() {
    let dir = temp();
    for head in [
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 104857600\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 104857600\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\ncontent-length: 104857600\r\n\r\n",
    ] {
        let (at, sent) = hostile(head, true).await;
        let node = Node::open(dir.path(), |options| allow(options, &[at]));
        node.run();
        let id = node.stream(push_to(at)).await;
        node.conclude(revoked("ann", "s1"));
        let taken = head.contains("202");
        until("it was judged", || {
            let metrics = node.transmitter.around.metrics.render();
            metrics.contains("cardea_ssf_transmit_retried_total 1")
                || metrics.contains("cardea_ssf_transmit_sent_total 1")
        })
        .await;
        let waits = node.transmitter.streams.lock().by_id(&id).unwrap().outbox.len();
        assert_eq!(waits, usize::from(!taken), "{head}");
        assert!(
            sent.load(Ordering::SeqCst) < 32 << 20,
            "{head}: {} bytes were taken",
            sent.load(Ordering::SeqCst)
        );
        node.ask("DELETE", &format!("/ssf/streams?stream_id={id}"), RP, "").await;
        node.close().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_receiver_that_never_ends_its_answer_holds_up_nobody_else() {
    let dir = temp();
    let (slow, _) = hostile("HTTP/1.1 2", false).await;
    let good = partner(|_| answer(202, "")).await;
    let node = Node::open(dir.path(), |options| allow(options, &[slow, good.at]));
    node.run();
    node.stream(push_to(slow)).await;
    node.stream(push_to(good.at)).await;
    for n in 0..20 {
        node.conclude(revoked("ann", &format!("s{n}")));
    }
    until("the good one has all", || good.got.lock().len() == 20).await;
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn streams_subjects_waiters_and_bodies_are_bounded() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let mut id = String::new();
    for _ in 0..limits::SSF_STREAMS_PER_RECEIVER_MAX {
        id = node.stream(json!({})).await;
    }
    assert_eq!(node.post("/ssf/streams", json!({})).await.0, StatusCode::CONFLICT);
    let subject = |id: String| subject::Subject::read(&json!({ "format": "opaque", "id": id })).unwrap();
    {
        let mut streams = node.transmitter.streams.lock();
        for n in 0..limits::SSF_SUBJECTS_MAX {
            streams.leave_out("rp", &id, subject(n.to_string())).unwrap();
        }
    }
    let one_more = json!({ "stream_id": id, "subject": { "format": "opaque", "id": "one more" } });
    assert_eq!(node.post("/ssf/subjects/remove", one_more).await.0, StatusCode::TOO_MANY_REQUESTS);
    let large = json!({ "stream_id": id, "subject": { "format": "opaque", "id": "x".repeat(5000) } });
    assert_eq!(node.post("/ssf/subjects/remove", large).await.0, StatusCode::BAD_REQUEST);

    let deep = "[".repeat(60_000);
    assert_eq!(node.ask("POST", "/ssf/streams", RP, &deep).await.0, StatusCode::BAD_REQUEST);

    let path = format!("/ssf/poll/{id}");
    let wait = || async {
        let polled = tokio::time::timeout(Duration::from_millis(300), node.ask("POST", &path, RP, "{}"));
        polled.await.ok().map(|(status, ..)| status)
    };
    let polls = futures_util::future::join_all((0..limits::SSF_POLL_WAITERS_MAX + 2).map(|_| wait())).await;
    let refused = polls.iter().filter(|status| **status == Some(StatusCode::TOO_MANY_REQUESTS)).count();
    assert_eq!(refused, 2, "{polls:?}");
    // Those that were given up count no longer.
    assert_eq!(wait().await, None);
    node.close().await;
}
