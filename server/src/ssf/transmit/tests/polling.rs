//! Events that receivers fetch.

use super::*;
use crate::ssf::event;
use crate::ssf::set::Told;

#[tokio::test(flavor = "current_thread")]
async fn an_event_comes_signed_with_its_subject_its_txn_and_for_its_audience() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let mut conclusion = revoked("ann", "s1");
    conclusion.cause = Some(Cause { from: "https://else.example/".into(), txn: Some("c-17".into()) });
    node.conclude(conclusion);
    node.transmitter.publish_all();
    let answer = node.poll(&id, json!({})).await;
    let (jti, token) = answer["sets"].as_object().unwrap().iter().next().unwrap();
    let set = node.verified(token.as_str().unwrap(), "https://rp.example/");
    assert_eq!((set.jti.as_str(), set.txn.as_deref()), (jti.as_str(), Some("c-17")));
    let Told::Event(told) = set.told else { panic!("{set:?}") };
    assert_eq!(told.what, event::What::SessionRevoked);
    assert_eq!(told.common.reason_admin["en"], "an operator ended it");
    let expected = json!({ "format": "complex", "session": { "format": "opaque", "id": "s1" },
        "user": { "format": "iss_sub", "iss": ISSUER, "sub": "User::\"ann\"" } });
    assert_eq!(claims(token)["sub_id"], expected);
    for forbidden in ["sub", "exp"] {
        assert_eq!(claims(token).get(forbidden), None);
    }
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_not_acknowledged_comes_again_and_across_a_restart() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    for n in 0..5 {
        node.conclude(revoked("ann", &format!("s{n}")));
    }
    node.transmitter.publish_all();
    let first = node.poll(&id, json!({ "maxEvents": 2, "returnImmediately": true })).await;
    assert_eq!((sessions(&first), &first["moreAvailable"]), (vec!["s0".into(), "s1".into()], &json!(true)));
    let again = node.poll(&id, json!({ "maxEvents": 2, "returnImmediately": true })).await;
    assert_eq!(again, first, "the same tokens, to the letter");
    node.close().await;

    let node = Node::open(dir.path(), |_| {});
    let jtis = jtis(&first);
    let ack = json!({ "ack": [jtis[1], "nobody"], "maxEvents": 0 });
    assert_eq!(node.poll(&id, ack).await, json!({ "sets": {}, "moreAvailable": true }));
    let errors = json!({ "setErrs": { &jtis[0]: { "err": "invalid_request", "description": "what\nis that" } }, "returnImmediately": true });
    let rest = node.poll(&id, errors).await;
    assert_eq!((sessions(&rest).join(","), &rest["moreAvailable"]), ("s2,s3,s4".to_owned(), &json!(false)));
    // Acknowledging again changes nothing.
    let same = node.poll(&id, json!({ "ack": jtis, "returnImmediately": true })).await;
    assert_eq!(sessions(&same), sessions(&rest));
    let records = node.close().await.join("\n");
    assert!(
        records.contains("event_refused") && records.contains("invalid_request: what is that"),
        "{records}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_long_poll_is_answered_by_the_event_that_comes() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    node.run();
    let id = node.stream(json!({})).await;
    let waits = async {
        let answer = node.poll(&id, json!({})).await;
        assert_eq!(sessions(&answer), ["s1"]);
    };
    let tells = async {
        until("the poll waits", || {
            node.transmitter.sending.lock().get(id.as_str()).is_some_and(|of| of.waiters == 1)
        })
        .await;
        node.conclude(revoked("ann", "s1"));
    };
    tokio::join!(waits, tells);
    assert_eq!(node.transmitter.sending.lock()[id.as_str()].waiters, 0);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_long_poll_ends_when_its_stream_does_and_when_the_process_drains() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    let path = format!("/ssf/streams?stream_id={id}");
    let (answer, _) = tokio::join!(node.poll(&id, json!({})), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.ask("DELETE", &path, RP, "").await
    });
    assert_eq!(answer["sets"], json!({}));
    let id = node.stream(json!({})).await;
    let (answer, ()) = tokio::join!(node.poll(&id, json!({})), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.transmitter.around.shutdown.drain();
    });
    assert_eq!(answer["sets"], json!({}));
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_concluded_while_the_process_drains_is_told_after_the_next_start() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    node.run();
    node.transmitter.around.shutdown.drain();
    let running = node.running.lock().take().unwrap();
    running.wait().await;
    node.conclude(revoked("ann", "late"));
    node.transmitter.keep_rest();
    node.close().await;
    let node = Node::open(dir.path(), |_| {});
    assert_eq!(sessions(&node.poll(&id, json!({})).await), ["late"]);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_event_is_not_sent_back_to_whoever_caused_it() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    for from in ["https://idp.example/", "https://rp.example/", "rp", "https://else.example/"] {
        let mut conclusion = revoked("ann", from);
        conclusion.cause = Some(Cause { from: from.into(), txn: None });
        node.conclude(conclusion);
    }
    node.transmitter.publish_all();
    let answer = node.poll(&id, json!({ "returnImmediately": true })).await;
    assert_eq!(sessions(&answer), ["https://else.example/"]);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_has_no_room_is_dropped_counted_recorded_and_told() {
    let dir = temp();
    let node = Node::open(dir.path(), |options| options.outbox_max = 8);
    let id = node.stream(json!({})).await;
    for n in 0..20 {
        node.conclude(revoked("ann", &format!("s{n}")));
    }
    node.transmitter.publish_all();
    let answer = node.poll(&id, json!({ "returnImmediately": true })).await;
    assert_eq!(sessions(&answer).join(","), "-,s13,s14,s15,s16,s17,s18,s19");
    let notice = claims(answer["sets"].as_object().unwrap().values().next().unwrap());
    let told = &notice["events"]["https://schemas.openid.net/secevent/ssf/event-type/stream-updated"];
    assert_eq!(told["status"], "enabled");
    assert!(told["reason"].as_str().unwrap().starts_with("13 events were dropped"), "{told}");
    let metrics = node.transmitter.around.metrics.render();
    assert!(metrics.contains("cardea_ssf_transmit_dropped_total{reason=\"bounds\"} 13"), "{metrics}");
    let records = node.close().await.join("\n");
    assert!(records.contains("\"events_dropped\",\"events\":13"), "{records}");
}

#[tokio::test(flavor = "current_thread")]
async fn conclusions_that_find_no_place_are_told_to_everybody() {
    let dir = temp();
    let node = Node::open(dir.path(), |options| options.outbox_max = 100_000);
    let id = node.stream(json!({})).await;
    for n in 0..limits::SSF_CONCLUSIONS_MAX + 7 {
        node.conclude(revoked("ann", &format!("s{n}")));
    }
    node.transmitter.publish_all();
    let answer = node.poll(&id, json!({ "returnImmediately": true, "maxEvents": 1 })).await;
    let notice = claims(answer["sets"].as_object().unwrap().values().next().unwrap());
    let told = &notice["events"]["https://schemas.openid.net/secevent/ssf/event-type/stream-updated"];
    assert!(told["reason"].as_str().unwrap().contains("up to 7 events"), "{told}");
    assert!(
        node.transmitter.around.metrics.render().contains("cardea_ssf_transmit_conclusions_lost_total 7")
    );
    assert!(node.close().await.join("\n").contains("\"conclusions_lost\",\"events\":7"));
}

#[tokio::test(flavor = "current_thread")]
async fn events_that_nobody_takes_end_with_their_age() {
    let dir = temp();
    let node = Node::open(dir.path(), |_| {});
    let id = node.stream(json!({})).await;
    node.conclude(revoked("ann", "old"));
    node.transmitter.publish_all();
    node.clock.advance(limits::SSF_EVENT_AGE_MAX);
    node.conclude(revoked("ann", "new"));
    node.transmitter.publish_all();
    node.transmitter.upkeep();
    assert_eq!(sessions(&node.poll(&id, json!({ "returnImmediately": true })).await), ["old", "new"]);
    node.clock.advance(Duration::from_millis(1));
    node.transmitter.upkeep();
    assert_eq!(sessions(&node.poll(&id, json!({ "returnImmediately": true })).await), ["-", "new"]);
    node.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_key_that_begins_to_sign_was_published_and_signs_what_waits() {
    let dir = temp();
    let node = Node::open(dir.path(), |options| options.key_days = 2);
    node.run();
    let id = node.stream(json!({})).await;
    node.conclude(revoked("ann", "s1"));
    until("it waits", || node.transmitter.streams.lock().by_id(&id).unwrap().outbox.len() == 1).await;
    let kid = |answer: &Value| {
        let token = answer["sets"].as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        let header = B64.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].clone()
    };
    let keys = || node.transmitter.signer.lives().len();
    let before = node.poll(&id, json!({})).await;
    node.clock.advance(Duration::from_secs(86_400));
    until("the next key is published", || keys() == 2).await;
    assert_eq!(kid(&node.poll(&id, json!({})).await), kid(&before), "it does not sign yet");
    let next = node.transmitter.signer.jwks()["keys"][1]["kid"].clone();
    node.clock.advance(Duration::from_secs(86_400));
    until("the next key signs", || {
        node.transmitter.signer.current().unwrap().life.kid == next.as_str().unwrap()
    })
    .await;
    let after = node.poll(&id, json!({})).await;
    assert_eq!((kid(&after), jtis(&after)), (next, jtis(&before)));
    node.verified(
        before["sets"].as_object().unwrap().values().next().unwrap().as_str().unwrap(),
        "https://rp.example/",
    );
    // The old key goes when the last event that it signed is of no use any more.
    node.clock.advance(limits::SSF_KEY_KEEP);
    let old = kid(&before).as_str().unwrap().to_owned();
    until("the old key is forgotten", || !node.transmitter.signer.lives().iter().any(|life| life.kid == old))
        .await;
    assert!(!dir.path().join("keys").join(format!("{old}.p8")).exists());
    node.close().await;
}
