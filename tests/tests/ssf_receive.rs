//! Signals of other parties against a real service: pushed, fetched, wrong in every way, and through bad times.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::record::Entry;
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::{attempt, codes};
use cardea_tests::audit;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::certs::{Authority, Files};
use cardea_tests::clients::Clients;
use cardea_tests::http::{Answer, Request};
use cardea_tests::transmitter::{AUDIENCE, CLIENT, Publishing, Transmitter};
use cardea_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const DISABLED: &str = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
const SECRET: &str = "Bearer agreed-on";
const SCORES: &str = "vendor-token";

struct Place {
    dir: TempDir,
    transmitter: Transmitter,
    files: Files,
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("servers")?;
        let identity = authority.server()?;
        let files = authority.write(dir.path(), &identity)?;
        fs::write(dir.path().join("authorization"), format!("{SECRET}\n"))?;
        fs::write(dir.path().join("scores"), SCORES)?;
        fs::write(dir.path().join("secret"), CLIENT.1)?;
        let transmitter = Transmitter::start(authority.server_config(&identity)?)?;
        Ok(Self { dir, transmitter, files })
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A configuration whose receiver has these keys more.
    fn config(&self, more: &str) -> String {
        let (ca, issuer) = (self.files.ca.display(), self.transmitter.issuer());
        format!(
            r#"
[ssf]
listen = "127.0.0.1:0"
signals_token_file = "{}"
[ssf.receiver.idp]
issuer = "{issuer}"
audience = ["{AUDIENCE}"]
ca = "{ca}"
{more}
[[ssf.receiver.idp.subject]]
format = "iss_sub"
entity = "Agent"
id = "{{sub}}"
[[ssf.receiver.idp.subject]]
format = "opaque"
member = "session"
id = "{{id}}"
"#,
            self.file("scores")
        )
    }

    fn pushing(&self) -> String {
        self.config(&format!("authorization_file = \"{}\"", self.file("authorization")))
    }

    fn polling(&self, stream: &str) -> String {
        let issuer = self.transmitter.issuer();
        self.config(&format!(
            "delivery = \"poll\"\nstream = \"{stream}\"\nevents = [\"session-revoked\", \"account-disabled\"]\n\
             client_id = \"{}\"\nclient_secret_file = \"{}\"\ntoken_endpoint = \"{issuer}token\"\nscope = \"ssf.manage\"",
            CLIENT.0,
            self.file("secret")
        ))
    }

    fn agent(&self, sub: &str) -> Value {
        json!({"format": "iss_sub", "iss": self.transmitter.issuer(), "sub": sub})
    }

    fn revocation(&self, jti: &str) -> Value {
        let says = json!({"reason_admin": {"en": "stolen laptop"}});
        self.transmitter.claims(jti, self.agent("biller"), REVOKED, says)
    }
}

async fn start(config: String) -> Result<(Cardea, Clients, SocketAddr)> {
    let cardea = Cardea::start_with(Options::default().config(config)).await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    let ssf = cardea.ssf.context("it listens for signals")?;
    Ok((cardea, clients, ssf))
}

fn push_request(token: &str) -> Request {
    Request::new("POST", "/ssf/push/idp")
        .header("authorization", SECRET)
        .header("accept", "application/json")
        .body("application/secevent+jwt", token)
}

async fn push(to: SocketAddr, token: &str) -> Result<Answer> {
    push_request(token).send(to).await
}

async fn verdict(clients: &mut Clients) -> Result<v1::Verdict> {
    clients.decide(attempt("Agent::biller", "read", "Table::orders", "s")?).await
}

async fn signal(clients: &mut Clients, token_id: &str) -> Result<v1::SignalRecord> {
    audit::find(clients, "the record of the signal", |record| match &record.entry {
        Some(Entry::Signal(signal)) if signal.token_id == token_id => Some(signal.clone()),
        _ => None,
    })
    .await
}

async fn metric(cardea: &Cardea, line: &str) -> Result<()> {
    wait::until(line, async || {
        let page = cardea.page("/metrics").await?.body;
        Ok(page.lines().any(|shown| shown == line).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_pushed_revocation_denies_is_recorded_and_survives_a_kill() -> Result<()> {
    let place = Place::new()?;
    let (mut cardea, mut clients, ssf) = start(place.pushing()).await?;
    assert_eq!(verdict(&mut clients).await?.decision(), Decision::Allow);
    let token = place.transmitter.sign(&place.revocation("t1"))?;
    let answer = push(ssf, &token).await?;
    assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{answer:?}");
    let denied = verdict(&mut clients).await?;
    assert_eq!(codes(&denied), [v1::ReasonCode::SessionRevoked]);
    let record = signal(&mut clients, "t1").await?;
    assert_eq!(record.kind, "caep/session-revoked");
    assert_eq!((record.source, record.txn.as_str()), (place.transmitter.issuer(), "cause-1"));
    assert_eq!((record.outcome.as_str(), record.reason.as_str()), ("applied", "stolen laptop"));

    let disabled = place.transmitter.claims("t2", place.agent("biller"), DISABLED, json!({}));
    assert_eq!(push(ssf, &place.transmitter.sign(&disabled)?).await?.status, 202);
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    assert_eq!(codes(&verdict(&mut clients).await?), [v1::ReasonCode::PrincipalDisabled]);
    let ssf = cardea.ssf.context("it listens for signals")?;
    assert_eq!(push(ssf, &token).await?.status, 202, "sent again");
    metric(&cardea, r#"cardea_ssf_tokens_total{receiver="idp",result="duplicate"} 1"#).await
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_code_and_changes_nothing() -> Result<()> {
    let place = Place::new()?;
    let (_cardea, mut clients, ssf) = start(place.pushing()).await?;
    let good = place.transmitter.sign(&place.revocation("t1"))?;
    let with = |member: &str, value: Value| {
        let mut claims = place.revocation("t1");
        claims[member] = value;
        place.transmitter.sign(&claims)
    };
    let (signed, _) = good.rsplit_once('.').context("a token")?;
    let payload = signed.split_once('.').context("a token")?.1;
    let encode = |header: &Value| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header.to_string())
    };
    let unsigned = format!("{}.{payload}.", encode(&json!({"typ": "secevent+jwt", "alg": "none"})));
    let kind = "application/secevent+jwt";
    let bare = || Request::new("POST", "/ssf/push/idp");
    for (request, code) in [
        (bare().body(kind, good.as_str()), "authentication_failed"),
        (bare().header("authorization", "Bearer other").body(kind, good.as_str()), "authentication_failed"),
        (push_request(&good).header("authorization", SECRET), "authentication_failed"),
        (bare().header("authorization", SECRET).body("application/json", good.as_str()), "invalid_request"),
        (push_request(""), "invalid_request"),
        (push_request(&"x".repeat(70_000)), "invalid_request"),
        (push_request(&unsigned), "authentication_failed"),
        (push_request(&format!("{signed}.AAAA")), "authentication_failed"),
        (push_request(&with("iss", json!("https://thief.example/"))?), "invalid_issuer"),
        (push_request(&with("aud", json!("https://other.example/"))?), "invalid_audience"),
        (push_request(&with("exp", json!(1))?), "invalid_request"),
        (push_request(&with("iat", json!(1))?), "invalid_request"),
        (push_request(&with("events", json!({}))?), "invalid_request"),
    ] {
        let answer = request.send(ssf).await?;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.json()?["err"], code, "{answer:?}");
        assert_eq!(
            (answer.header("content-language")?, answer.header("content-type")?),
            ("en", "application/json")
        );
    }
    assert_eq!(Request::get("/ssf/push/idp").send(ssf).await?.status, 405);
    assert_eq!(Request::new("POST", "/ssf/push/other").send(ssf).await?.status, 404);
    assert_eq!(Request::get("/").send(ssf).await?.status, 404);
    assert_eq!(verdict(&mut clients).await?.decision(), Decision::Allow);
    assert_eq!(push(ssf, &good).await?.status, 202, "and the good one still counts");
    assert_eq!(verdict(&mut clients).await?.decision(), Decision::Deny);
    Ok(())
}

#[tokio::test]
async fn a_member_that_the_transmitter_calls_critical_stops_an_event() -> Result<()> {
    let place = Place::new()?;
    let (_cardea, mut clients, ssf) = start(place.pushing()).await?;
    let subject = json!({
        "format": "complex",
        "user": place.agent("biller"),
        "org_unit": {"format": "opaque", "id": "finance"},
    });
    let claims = place.transmitter.claims("critical", subject, REVOKED, json!({}));
    let answer = push(ssf, &place.transmitter.sign(&claims)?).await?;
    ensure!(answer.status == 202, "{answer:?}");
    ensure!(signal(&mut clients, "critical").await?.outcome == "critical_member");
    ensure!(verdict(&mut clients).await?.decision() == Decision::Allow);
    Ok(())
}

#[tokio::test]
async fn keys_that_hang_flood_or_lead_elsewhere_harm_nothing_and_keys_are_rolled() -> Result<()> {
    let place = Place::new()?;
    let elsewhere = Place::new()?;
    let (cardea, mut clients, ssf) = start(place.pushing()).await?;
    let first = place.transmitter.claims("t0", place.agent("other"), REVOKED, json!({}));
    assert_eq!(push(ssf, &place.transmitter.sign(&first)?).await?.status, 202);
    let known =
        place.transmitter.sign(&place.transmitter.claims("t1", place.agent("other"), REVOKED, json!({})))?;
    place.transmitter.roll("k2")?;
    let rolled = place.transmitter.sign(&place.revocation("t2"))?;
    // The rest after the look at the start.
    tokio::time::sleep(Duration::from_secs(10)).await;
    for how in [
        Publishing::Flooding,
        Publishing::Hanging,
        Publishing::Elsewhere(format!("{}jwks", elsewhere.transmitter.issuer())),
    ] {
        place.transmitter.publish(how.clone());
        let answer = tokio::time::timeout(Duration::from_secs(13), push(ssf, &rolled)).await;
        let answer = answer.with_context(|| format!("an answer in time: {how:?}"))??;
        assert_eq!(answer.status, 503, "{how:?}: {answer:?}");
        assert!(answer.header("retry-after").is_ok());
        assert_eq!(verdict(&mut clients).await?.decision(), Decision::Allow, "{how:?}");
        assert_eq!(push(ssf, &known).await?.status, 202, "what the known keys signed: {how:?}");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    ensure!(elsewhere.transmitter.asked("GET /jwks").is_empty(), "a redirect was followed");
    let memory_kb = cardea.process.memory_peak_kb()?;
    ensure!(memory_kb < 300_000, "100 MB of keys were kept: {memory_kb} kB");
    place.transmitter.publish(Publishing::Well);
    assert_eq!(push(ssf, &rolled).await?.status, 202);
    assert_eq!(verdict(&mut clients).await?.decision(), Decision::Deny);
    Ok(())
}

#[tokio::test]
async fn scores_of_vendors_raise_the_risk() -> Result<()> {
    let place = Place::new()?;
    let (_cardea, mut clients, ssf) = start(place.pushing()).await?;
    let report = json!({
        "subject": {"type": "Agent", "id": "biller"}, "kind": "vendor_score", "severity": 90,
        "evidence": {"rule": "R-17"}, "source": "acme-scores",
    });
    let send = |token: &'static str, body: String| {
        Request::new("POST", "/signals").bearer(token).body("application/json", body)
    };
    assert_eq!(send("other", report.to_string()).send(ssf).await?.status, 401);
    for bad in ["{", "{}", r#"{"subject":{"type":"Ghost","id":"x"},"kind":"operator","severity":1}"#] {
        let answer = send(SCORES, bad.to_owned()).send(ssf).await?;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_eq!(verdict(&mut clients).await?.decision(), Decision::Allow);
    let answer = send(SCORES, json!([report, report]).to_string()).send(ssf).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()?["outcomes"], json!(["applied", "superseded"]));
    let denied = verdict(&mut clients).await?;
    assert_eq!(denied.determining_policies, ["high_risk_stops"], "{denied:?}");
    Ok(())
}

#[tokio::test]
async fn a_stream_is_made_verified_fetched_from_found_again_and_deleted() -> Result<()> {
    let place = Place::new()?;
    let transmitter = &place.transmitter;
    let (mut cardea, mut clients, _) = start(place.polling("keep")).await?;
    metric(&cardea, r#"cardea_ssf_tokens_total{receiver="idp",result="recorded"} 1"#).await?;
    metric(&cardea, r#"cardea_ssf_stream_enabled{receiver="idp"} 1"#).await?;
    let streams = transmitter.streams();
    assert_eq!(streams.len(), 1);
    assert_eq!(streams[0]["events_requested"], json!([REVOKED, DISABLED]));
    let asked = transmitter.asked("POST /verify");
    assert_eq!(asked[0].body["stream_id"], streams[0]["stream_id"]);
    assert_eq!(asked[0].body["state"].as_str().map(str::len), Some(32));

    let mut wrong = place.revocation("wrong");
    wrong["aud"] = json!("https://other.example/");
    transmitter.hold("wrong", transmitter.sign(&wrong)?);
    transmitter.hold("t1", transmitter.sign(&place.revocation("t1"))?);
    let revoked = async || Ok((verdict(&mut clients).await?.decision() == Decision::Deny).then_some(()));
    wait::until("the revocation", revoked).await?;
    let gone = async || Ok(transmitter.waiting().is_empty().then_some(()));
    wait::until("both to be told of", gone).await?;
    let polls = transmitter.asked("POST /poll");
    let acknowledged =
        polls.iter().filter_map(|poll| poll.body.get("ack")).flat_map(|ack| ack.as_array().cloned());
    assert!(acknowledged.flatten().any(|jti| jti == "t1"));
    let refused: Vec<&Value> =
        polls.iter().filter_map(|poll| poll.body.pointer("/setErrs/wrong/err")).collect();
    assert_eq!(refused, [&json!("invalid_audience")]);

    // A verification that nobody asked for in these words.
    let uri = "https://schemas.openid.net/secevent/ssf/event-type/verification";
    let subject = json!({"format": "opaque", "id": streams[0]["stream_id"]});
    let forged = transmitter.claims("forged", subject, uri, json!({"state": "guessed"}));
    transmitter.hold("forged", transmitter.sign(&forged)?);
    metric(&cardea, r#"cardea_ssf_tokens_total{receiver="idp",result="invalid_state"} 1"#).await?;

    cardea.process.kill()?;
    cardea.start_again().await?;
    metric(&cardea, r#"cardea_ssf_stream_enabled{receiver="idp"} 1"#).await?;
    assert_eq!(transmitter.asked("POST /streams").len(), 1, "it was found again");

    cardea.process.kill()?;
    cardea.configure(place.polling("delete"));
    cardea.start_again().await?;
    let gone = async || Ok(transmitter.streams().is_empty().then_some(()));
    wait::until("the stream to be deleted", gone).await
}
