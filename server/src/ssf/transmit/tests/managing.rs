//! Metadata, keys, streams, status, subjects and verification.

use super::*;

#[tokio::test(flavor = "current_thread")]
async fn metadata_and_keys_are_for_everybody() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let (status, metadata, headers) = node.ask("GET", "/.well-known/ssf-configuration", "", "").await;
    assert_eq!((status, &headers["content-type"]), (StatusCode::OK, &"application/json".parse().unwrap()));
    assert_eq!(metadata["issuer"], ISSUER);
    assert_eq!(metadata["spec_version"], "1_0");
    assert_eq!(metadata["default_subjects"], "ALL");
    assert_eq!(metadata["delivery_methods_supported"], json!(["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"]));
    assert_eq!(metadata["authorization_schemes"], json!([{ "spec_urn": "urn:ietf:rfc:6749" }]));
    let (status, jwks, _) = node.ask("GET", "/ssf/jwks.json", "", "").await;
    assert_eq!((status, jwks["keys"].as_array().unwrap().len()), (StatusCode::OK, 1));
    assert_eq!((&jwks["keys"][0]["kty"], &jwks["keys"][0]["alg"]), (&json!("RSA"), &json!("RS256")));
    assert!(!jwks.to_string().contains("\"d\""), "no private part");
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_stream_is_made_read_changed_replaced_and_deleted() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let wanted = json!({
        "delivery": { "method": "urn:ietf:rfc:8935", "endpoint_url": "https://push.example/in", "authorization_header": "Bearer s" },
        "events_requested": [SESSION_REVOKED, "https://schemas.openid.net/secevent/caep/event-type/token-claims-change"],
        "description": "first",
    });
    let (status, made, headers) = node.ask("POST", "/ssf/streams", RP, &wanted.to_string()).await;
    assert_eq!((status, &headers["cache-control"]), (StatusCode::CREATED, &"no-store".parse().unwrap()));
    assert_eq!((&made["iss"], &made["aud"]), (&json!(ISSUER), &json!("https://rp.example/")));
    assert_eq!(made["events_delivered"], json!([SESSION_REVOKED]));
    assert_eq!(made["events_supported"].as_array().unwrap().len(), 3);
    assert_eq!(made["delivery"], wanted["delivery"]);
    let id = made["stream_id"].as_str().unwrap();

    assert_eq!(node.get(&format!("/ssf/streams?stream_id={id}")).await, made);
    assert_eq!(node.get("/ssf/streams").await, json!([made]));

    // What is sent back as it was read is taken.
    let mut same = made.clone();
    same["description"] = json!("second");
    let (status, changed, _) = node.ask("PATCH", "/ssf/streams", RP, &same.to_string()).await;
    assert_eq!((status, &changed["description"]), (StatusCode::OK, &json!("second")), "{changed}");
    let patch =
        json!({ "stream_id": id, "events_requested": null, "delivery": { "method": "urn:ietf:rfc:8936" } });
    let (_, changed, _) = node.ask("PATCH", "/ssf/streams", RP, &patch.to_string()).await;
    assert_eq!(changed["description"], "second", "what is not named stays");
    assert_eq!(changed["delivery"]["endpoint_url"], format!("https://t.example/ssf/poll/{id}"));
    assert_eq!(changed["events_delivered"], changed["events_supported"]);
    let (_, replaced, _) = node.ask("PUT", "/ssf/streams", RP, &json!({ "stream_id": id }).to_string()).await;
    assert_eq!(replaced.get("description"), None, "what is not named goes");

    let (status, body, _) = node.ask("DELETE", &format!("/ssf/streams?stream_id={id}"), RP, "").await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(node.get("/ssf/streams").await, json!([]));
    let (status, ..) = node.ask("GET", &format!("/ssf/streams?stream_id={id}"), RP, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let records = node.close().await.join("\n");
    for change in ["created", "updated", "replaced", "deleted", "key_made", "key_signs"] {
        assert!(records.contains(&format!("\"change\":\"{change}\"")), "{change}: {records}");
    }
    assert!(!records.contains("Bearer s"), "no secret is recorded");
}

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

#[tokio::test(flavor = "current_thread")]
async fn requests_that_cannot_be_read_are_refused_with_what_to_do() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let long = "x".repeat(limits::SSF_TEXT_BYTES_MAX + 1);
    let cases = [
        ("POST", "/ssf/streams", json!([]), "must be a JSON object"),
        ("POST", "/ssf/streams", json!({ "stream_id": "mine" }), "leave it out"),
        ("POST", "/ssf/streams", json!({ "delivery": "push" }), "must be an object"),
        ("POST", "/ssf/streams", json!({ "delivery": { "method": "urn:x" } }), "urn:ietf:rfc:8935"),
        ("POST", "/ssf/streams", json!({ "delivery": { "method": "urn:ietf:rfc:8935" } }), "is missing"),
        (
            "POST",
            "/ssf/streams",
            json!({ "delivery": { "method": "urn:ietf:rfc:8936", "endpoint_url": "https://x/" } }),
            "given by the transmitter",
        ),
        ("POST", "/ssf/streams", json!({ "events_requested": "all" }), "list of event types"),
        ("POST", "/ssf/streams", json!({ "description": long }), "at most"),
        ("POST", "/ssf/streams", json!({ "iss": "https://else.example/" }), "given by the transmitter"),
        ("PATCH", "/ssf/streams", json!({}), "`stream_id` is missing"),
        (
            "PATCH",
            "/ssf/streams",
            json!({ "stream_id": id, "aud": "https://else.example/" }),
            "given by the transmitter",
        ),
        ("POST", "/ssf/status", json!({ "stream_id": id, "status": "on" }), "\"paused\""),
        ("POST", "/ssf/subjects/add", json!({ "stream_id": id }), "`subject` is missing"),
        (
            "POST",
            "/ssf/subjects/add",
            json!({ "stream_id": id, "subject": { "format": "email" } }),
            "`email`",
        ),
        ("POST", "/ssf/verify", json!({ "stream_id": id, "state": long }), "at most"),
        ("POST", &format!("/ssf/poll/{id}"), json!({ "maxEvents": -1 }), "whole number"),
        ("POST", &format!("/ssf/poll/{id}"), json!({ "ack": "all" }), "list of the `jti`s"),
        ("POST", &format!("/ssf/poll/{id}"), json!({ "setErrs": { "a": "bad" } }), "`err`"),
    ];
    for (method, path, body, why) in cases {
        let (status, answer, headers) = node.ask(method, path, RP, &body.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}: {answer}");
        let said = answer["description"].as_str().unwrap();
        assert!(said.contains(why), "{path} {body}: {said}");
        assert_eq!(headers["cache-control"], "no-store");
    }
    let (status, answer, _) = node.ask("POST", "/ssf/streams", RP, "{").await;
    assert_eq!((status, &answer["err"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    let (parts, ()) = Request::post("/ssf/streams")
        .header("authorization", format!("Bearer {RP}"))
        .header("content-type", "text/plain")
        .body(())
        .unwrap()
        .into_parts();
    assert_eq!(
        node.transmitter.handle(&parts, async { panic!("the body is read") }).await.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(node.get("/ssf/streams").await.as_array().unwrap().len(), 1, "nothing came of all that");
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn methods_and_addresses_that_are_not_there_are_told_apart() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let (status, _, headers) = node.ask("DELETE", "/ssf/status", RP, "").await;
    assert_eq!((status, &headers["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"GET, POST".parse().unwrap()));
    for path in ["/", "/ssf", "/ssf/streams/", "/ssf/poll/", "/metrics", "/.well-known/ssf-configuration/x"] {
        let (status, ..) = node.ask("GET", path, RP, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(!node.transmitter.owns(path), "{path}");
    }
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_paused_stream_holds_and_a_disabled_one_drops() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let at_once = json!({ "returnImmediately": true });
    let set = async |status: &str| {
        let body = json!({ "stream_id": id, "status": status, "reason": "a test" });
        assert_eq!(node.post("/ssf/status", body.clone()).await, (StatusCode::OK, body));
    };
    assert_eq!(
        node.get(&format!("/ssf/status?stream_id={id}")).await,
        json!({ "stream_id": id, "status": "enabled" })
    );
    set("paused").await;
    for n in 0..3 {
        node.conclude(revoked("ann", &format!("s{n}")));
    }
    node.transmitter.publish_all();
    assert_eq!(node.poll(&id, at_once.clone()).await, json!({ "sets": {}, "moreAvailable": false }));
    set("enabled").await;
    assert_eq!(sessions(&node.poll(&id, at_once.clone()).await), ["s0", "s1", "s2"]);
    set("disabled").await;
    node.conclude(revoked("ann", "s3"));
    node.transmitter.publish_all();
    set("enabled").await;
    node.conclude(revoked("ann", "s4"));
    node.transmitter.publish_all();
    assert_eq!(sessions(&node.poll(&id, at_once).await), ["s4"]);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn subjects_that_are_removed_stay_out_across_a_restart_until_they_are_added() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let ann = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "User::\"ann\"" });
    let (status, body) = node.post("/ssf/subjects/remove", json!({ "stream_id": id, "subject": ann })).await;
    assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    node.close().await;
    let node = Node::open(dir.path(), |_| {});
    let tell = || {
        node.conclude(revoked("ann", "of-ann"));
        node.conclude(revoked("bob", "of-bob"));
        node.transmitter.publish_all();
    };
    tell();
    let answer = node.poll(&id, json!({ "returnImmediately": true })).await;
    assert_eq!(sessions(&answer), ["of-bob"]);
    let add = json!({ "stream_id": id, "subject": ann, "verified": true });
    assert_eq!(node.post("/ssf/subjects/add", add).await, (StatusCode::OK, Value::Null));
    tell();
    let answer = node.poll(&id, json!({ "returnImmediately": true, "ack": jtis(&answer) })).await;
    assert_eq!(sessions(&answer), ["of-ann", "of-bob"]);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_disk_did_not_take_is_not_said_to_be_done_when_it_is_asked_again() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let of = |name: &str| {
        let subject = json!({ "format": "iss_sub", "iss": ISSUER, "sub": format!("User::\"{name}\"") });
        json!({ "stream_id": id, "subject": subject })
    };
    node.post("/ssf/subjects/remove", of("ann")).await;
    // As when too many changes wait: nothing is taken.
    node.ledger.close();
    let delete = format!("/ssf/streams?stream_id={id}");
    for _ in 0..2 {
        let (added, _) = node.post("/ssf/subjects/add", of("ann")).await;
        let (removed, _) = node.post("/ssf/subjects/remove", of("bob")).await;
        let (deleted, ..) = node.ask("DELETE", &delete, RP, "").await;
        assert_eq!([added, removed, deleted], [StatusCode::SERVICE_UNAVAILABLE; 3]);
    }
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_receiver_says_twice_is_stored_twice() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let ann = subject::Subject::read(&json!({ "format": "opaque", "id": "ann" })).unwrap();
    // The first time the disk may not have taken it.
    for _ in 0..2 {
        let rows = node.transmitter.streams.lock().leave_out("rp", &id, ann.clone());
        assert_eq!(rows.unwrap().len(), 1);
    }
    for _ in 0..2 {
        let rows = node.transmitter.streams.lock().take_in("rp", &id, ann.clone());
        assert_eq!(rows.unwrap().len(), 1);
    }
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn verification_is_an_event_of_the_stream_and_not_too_often() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({ "events_requested": [] })).await;
    let verify = json!({ "stream_id": id, "state": "VGhpcyBpcw" });
    assert_eq!(node.post("/ssf/verify", verify.clone()).await, (StatusCode::NO_CONTENT, Value::Null));
    let (status, _, headers) = node.ask("POST", "/ssf/verify", RP, &verify.to_string()).await;
    assert_eq!((status, &headers["retry-after"]), (StatusCode::TOO_MANY_REQUESTS, &"30".parse().unwrap()));
    let answer = node.poll(&id, json!({ "returnImmediately": true })).await;
    let told = claims(answer["sets"].as_object().unwrap().values().next().unwrap());
    assert_eq!(told["sub_id"], json!({ "format": "opaque", "id": id }));
    let event = &told["events"]["https://schemas.openid.net/secevent/ssf/event-type/verification"];
    assert_eq!(event["state"], "VGhpcyBpcw");
    node.clock.advance(Duration::from_secs(30));
    assert_eq!(node.post("/ssf/verify", verify.clone()).await.0, StatusCode::NO_CONTENT);
    node.clock.set_wall_ms(0);
    assert_eq!(
        node.post("/ssf/verify", verify.clone()).await.0,
        StatusCode::NO_CONTENT,
        "the clock was set back"
    );
    node.post("/ssf/status", json!({ "stream_id": id, "status": "disabled" })).await;
    node.clock.advance(Duration::from_secs(60));
    assert_eq!(node.post("/ssf/verify", verify).await.0, StatusCode::BAD_REQUEST);
    node.close().await;
}
