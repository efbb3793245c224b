//! Keys from a real server that is good, absent, slow, endless, or sends elsewhere.

use serde_json::json;

use super::super::event::EventType;
use super::super::receive::Login;
use super::super::testing::{Issuer, Reply, Server, claims, header};
use super::*;

fn keys(server: &Server, clock: &Clock) -> Keys {
    let issuer = server.address("/");
    let client = Arc::new(Client::new(&issuer, None, Login::Nobody, clock.clone()).unwrap());
    Keys::new(issuer, Some(server.address("/jwks")), client, clock.clone())
}

/// A token that names this key.
fn token(issuer: &Issuer, kid: &str) -> String {
    let subject = json!({"format": "opaque", "id": "a"});
    let mut header = header();
    header["kid"] = json!(kid);
    issuer.token(&header, &claims("1", subject, EventType::SessionRevoked, json!({})))
}

async fn look(keys: &Keys, token: &str) -> Option<bool> {
    let token = Unverified::read(token.as_bytes()).unwrap();
    keys.for_token(&token).await.ok().map(|set| token.key(&set).is_some())
}

#[tokio::test(flavor = "current_thread")]
async fn a_known_key_is_not_looked_for_again_and_a_new_one_is() {
    let issuer = Issuer::new();
    let (server, clock) = (Server::start(Reply::Body(issuer.jwks().to_string())), Clock::standing_at(0));
    let keys = keys(&server, &clock);
    for _ in 0..3 {
        assert_eq!(look(&keys, &token(&issuer, "rsa")).await, Some(true));
    }
    assert_eq!(server.asked(), 1);
    let mut rolled = issuer.jwks();
    rolled["keys"][0]["kid"] = json!("rsa-2");
    server.now_replies(Reply::Body(rolled.to_string()));
    clock.advance(limits::SSF_KEYS_REST);
    assert_eq!(look(&keys, &token(&issuer, "rsa-2")).await, Some(true), "rolled");
    assert_eq!(look(&keys, &token(&issuer, "rsa")).await, Some(false), "the old one is withdrawn");
    assert_eq!(server.asked(), 2);
}

#[tokio::test(flavor = "current_thread")]
async fn names_of_keys_that_somebody_makes_up_cause_no_storm() {
    let issuer = Issuer::new();
    let (server, clock) = (Server::start(Reply::Body(issuer.jwks().to_string())), Clock::standing_at(0));
    let keys = keys(&server, &clock);
    let tokens: Vec<String> = (0..200).map(|index| token(&issuer, &format!("made-up-{index}"))).collect();
    for token in &tokens {
        assert_eq!(look(&keys, token).await, Some(false), "it is known that there is none");
    }
    assert_eq!(server.asked(), 1);
    let together = futures_util::future::join_all(tokens.iter().map(|token| look(&keys, token))).await;
    assert!(together.iter().all(|found| *found != Some(true)));
    clock.advance(limits::SSF_KEYS_REST);
    let together = futures_util::future::join_all(tokens.iter().map(|token| look(&keys, token))).await;
    let waited = together.iter().filter(|found| found.is_some()).count();
    assert_eq!(waited, limits::SSF_KEYS_WAITING_MAX, "the rest is told to come again");
    assert_eq!(server.asked(), 2);
}

#[tokio::test(flavor = "current_thread")]
async fn good_keys_outlive_every_kind_of_trouble_and_then_end() {
    let issuer = Issuer::new();
    let elsewhere = Server::start(Reply::Body(Issuer::new().jwks().to_string()));
    let (server, clock) = (Server::start(Reply::Body(issuer.jwks().to_string())), Clock::standing_at(0));
    let keys = keys(&server, &clock);
    keys.refresh().await.unwrap();
    for trouble in [
        Reply::Status(500, "x: y".to_owned()),
        Reply::Status(302, format!("location: {}", elsewhere.address("/jwks"))),
        Reply::Body("<html>".to_owned()),
        Reply::Body(json!({"keys": []}).to_string()),
        Reply::Body(json!({"keys": [{"kty": "oct", "kid": "rsa", "k": "c2VjcmV0"}]}).to_string()),
        Reply::Body(" ".repeat(usize::try_from(jwk::SET_BYTES_MAX).unwrap() + 1)),
        Reply::Flood,
    ] {
        server.now_replies(trouble.clone());
        assert!(keys.refresh().await.is_err(), "{trouble:?}");
        clock.advance(limits::SSF_KEYS_REST);
        assert_eq!(look(&keys, &token(&issuer, "rsa")).await, Some(true), "{trouble:?}");
        assert_eq!(look(&keys, &token(&issuer, "new")).await, None, "nobody can say now: {trouble:?}");
    }
    assert_eq!(elsewhere.asked(), 0, "no redirect to another server is followed");
    clock.advance(limits::SSF_KEYS_LIFE);
    assert_eq!(look(&keys, &token(&issuer, "rsa")).await, None, "they count no longer");
    assert!(keys.age().unwrap() >= limits::SSF_KEYS_LIFE);
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_that_hangs_holds_up_only_who_names_an_unknown_key_and_not_for_long() {
    let issuer = Issuer::new();
    let (server, clock) = (Server::start(Reply::Body(issuer.jwks().to_string())), Clock::standing_at(0));
    let keys = keys(&server, &clock);
    keys.refresh().await.unwrap();
    server.now_replies(Reply::Hang);
    clock.advance(limits::SSF_KEYS_REST);
    let (unknown, known) = (token(&issuer, "new"), token(&issuer, "rsa"));
    let machine = Clock::machine();
    let hung = async { (look(&keys, &unknown).await, machine.mono_ns()) };
    let quick = async { (look(&keys, &known).await, machine.mono_ns()) };
    let ((hung, hung_ns), (quick, quick_ns)) = tokio::join!(hung, quick);
    assert_eq!((hung, quick), (None, Some(true)));
    assert!(Duration::from_nanos(quick_ns) < Duration::from_secs(1));
    assert!(Duration::from_nanos(hung_ns) < limits::SSF_KEYS_TIMEOUT + Duration::from_secs(2));
}

#[tokio::test(flavor = "current_thread")]
async fn without_an_address_the_metadata_says_where_the_keys_are() {
    let issuer = Issuer::new();
    let jwks = Server::start(Reply::Body(issuer.jwks().to_string()));
    let clock = Clock::standing_at(0);
    let metadata = Server::start(Reply::Hang);
    let said = json!({"issuer": metadata.address("/").text(), "jwks_uri": jwks.address("/jwks").text()});
    metadata.now_replies(Reply::Body(said.to_string()));
    let client = Arc::new(Client::new(&metadata.address("/"), None, Login::Nobody, clock.clone()).unwrap());
    let keys = Keys::new(metadata.address("/"), None, Arc::clone(&client), clock.clone());
    assert_eq!(look(&keys, &token(&issuer, "rsa")).await, Some(true));
    let said = json!({"issuer": "https://thief.example", "jwks_uri": jwks.address("/jwks").text()});
    metadata.now_replies(Reply::Body(said.to_string()));
    let asked = jwks.asked();
    assert!(keys.refresh().await.is_err(), "the metadata of somebody else");
    assert_eq!(jwks.asked(), asked);
}
