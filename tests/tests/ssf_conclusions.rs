//! What a service concludes, as one that listens hears it: levels that rise and fall, sessions that end, and nothing for
//! what changes nothing.
#![expect(clippy::indexing_slicing, reason = "indexing of JSON gives null where nothing is")]

use std::fs;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cardea_proto::v1::{self, SignalOutcome, signal::Change};
use cardea_tests::attempts::{attempt, codes, entity};
use cardea_tests::audit;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::hold::Point;
use cardea_tests::http::Request;
use cardea_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "the-token-of-the-one-that-listens";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";

/// One that listens, by fetching.
struct Listener {
    _dir: TempDir,
    at: SocketAddr,
    poll: String,
    heard: Vec<String>,
}

impl Listener {
    async fn start() -> Result<(Cardea, Clients, Self)> {
        Self::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Result<(Cardea, Clients, Self)> {
        let dir = tempfile::tempdir()?;
        let token = dir.path().join("token");
        fs::write(&token, TOKEN)?;
        let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let options = options.config(format!(
            r#"
[ssf]
listen = "{at}"
[ssf.transmitter]
issuer = "http://{at}/"
min_verification_interval_s = 0
[[ssf.transmitter.receiver]]
name = "listener"
token_file = "{}"
audience = "https://listener.example/"
"#,
            token.display()
        ));
        let cardea = Cardea::start_with(options).await?;
        let mut clients = cardea.clients()?;
        clients.open_session("s", "Agent::biller").await?;
        let mut listener = Self { _dir: dir, at, poll: String::new(), heard: Vec::new() };
        let made =
            listener.ask("/ssf/streams", &json!({"delivery": {"method": "urn:ietf:rfc:8936"}})).await?;
        listener.poll = format!("/ssf/poll/{}", made["stream_id"].as_str().context("no stream")?);
        Ok((cardea, clients, listener))
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let request = Request::new("POST", path).bearer(TOKEN).body("application/json", body.to_string());
        let answer = request.send(self.at).await?;
        ensure!((200..300).contains(&answer.status), "{path}: {answer:?}");
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    /// The claims of the tokens that wait, and acknowledges them with the next call.
    async fn fetch(&mut self) -> Result<Vec<Value>> {
        let body = json!({"returnImmediately": true, "ack": std::mem::take(&mut self.heard)});
        let answer = self.ask(&self.poll.clone(), &body).await?;
        let mut claims: Vec<Value> = Vec::new();
        for (jti, token) in answer["sets"].as_object().context("no sets")? {
            let payload = token.as_str().and_then(|token| token.split('.').nth(1)).context("no token")?;
            claims.push(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?);
            self.heard.push(jti.clone());
        }
        Ok(claims)
    }

    /// The one event that is told next: its name, its subject and what it says.
    async fn hears(&mut self) -> Result<(String, Value, Value)> {
        let mut claims = wait::until("an event", async || {
            let claims = self.fetch().await?;
            Ok((!claims.is_empty()).then_some(claims))
        })
        .await?;
        let one = claims.pop().context("no event")?;
        ensure!(claims.is_empty(), "{one} and {claims:?}");
        let (uri, says) =
            one["events"].as_object().and_then(|events| events.iter().next()).context("no event")?;
        let name = uri.strip_prefix(CAEP).unwrap_or(uri).to_owned();
        Ok((name, one["sub_id"].clone(), says.clone()))
    }

    /// Fails if anything is told that was concluded up to now: a verification that is asked for now comes first.
    async fn hears_nothing(&mut self) -> Result<()> {
        let id = self.poll.rsplit('/').next().context("no stream")?;
        self.ask("/ssf/verify", &json!({"stream_id": id})).await?;
        let (name, ..) = self.hears().await?;
        ensure!(name.ends_with("/verification"), "`{name}` was told");
        Ok(())
    }
}

fn risk(severity: u32) -> Change {
    Change::Risk(v1::RiskObserved {
        kind: v1::RiskKind::CredentialCompromise.into(),
        severity,
        confidence: 100,
        half_life: None,
        reason: "seen in a paste".to_owned(),
    })
}

#[tokio::test]
async fn levels_of_risk_are_told_as_they_rise_and_fall_and_only_then() -> Result<()> {
    let (_cardea, mut clients, mut listener) = Listener::start().await?;
    let mut levels = Vec::new();
    // Within a level, and below the first one, nothing is told.
    for (severity, is_told) in [(10, false), (40, true), (50, false), (95, true), (95, false), (0, true)] {
        clients.report(Some("Agent::biller"), risk(severity)).await?;
        if !is_told {
            listener.hears_nothing().await?;
            continue;
        }
        let (name, subject, says) = listener.hears().await?;
        assert_eq!(name, "risk-level-change");
        assert_eq!(subject["user"]["sub"], "Agent::\"biller\"", "{subject}");
        assert_eq!(says["risk_reason"], "seen in a paste");
        levels.push((says["previous_level"].clone(), says["current_level"].clone()));
    }
    let expected = [("LOW", "MEDIUM"), ("MEDIUM", "HIGH"), ("HIGH", "LOW")];
    assert_eq!(levels, expected.map(|(previous, current)| (previous.into(), current.into())));
    Ok(())
}

#[tokio::test]
async fn a_level_of_risk_that_fades_is_told_again() -> Result<()> {
    let (_cardea, mut clients, mut listener) = Listener::start().await?;
    let mut fading = risk(40);
    if let Change::Risk(observed) = &mut fading {
        observed.half_life = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    }
    clients.report(Some("Agent::biller"), fading).await?;
    assert_eq!(listener.hears().await?.2["current_level"], "MEDIUM");
    let (name, _, says) = listener.hears().await?;
    assert_eq!((name.as_str(), &says["previous_level"]), ("risk-level-change", &"MEDIUM".into()));
    assert_eq!((&says["current_level"], &says["initiating_entity"]), (&"LOW".into(), &"policy".into()));
    listener.hears_nothing().await
}

#[tokio::test]
async fn a_level_of_risk_that_falls_after_a_restart_is_told() -> Result<()> {
    let (mut cardea, mut clients, mut listener) = Listener::start().await?;
    clients.report(Some("Agent::biller"), risk(95)).await?;
    assert_eq!(listener.hears().await?.2["current_level"], "HIGH");
    listener.fetch().await?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    // That it was taken may be forgotten; then it comes again.
    listener.fetch().await?;
    listener.hears_nothing().await?;
    clients.report(Some("Agent::biller"), risk(0)).await?;
    let (_, _, says) = listener.hears().await?;
    assert_eq!((&says["previous_level"], &says["current_level"]), (&"HIGH".into(), &"LOW".into()));
    Ok(())
}

#[tokio::test]
async fn a_level_of_assurance_is_told_when_it_changes() -> Result<()> {
    let (_cardea, mut clients, mut listener) = Listener::start().await?;
    let mut update = async |aal: Option<u32>, acr: Option<&str>| {
        let update = v1::UpdateSessionRequest {
            id: "s".to_owned(),
            aal,
            acr: acr.map(str::to_owned),
            ..v1::UpdateSessionRequest::default()
        };
        clients.session.update(update).await
    };
    update(Some(2), None).await?;
    let (name, subject, says) = listener.hears().await?;
    assert_eq!((name.as_str(), &subject["session"]["id"]), ("assurance-level-change", &"s".into()));
    assert_eq!((&says["previous_level"], &says["current_level"]), (&"nist-aal0".into(), &"nist-aal2".into()));
    update(Some(2), None).await?;
    update(None, Some("urn:example:acr:mfa")).await?;
    listener.hears_nothing().await?;
    update(Some(1), None).await?;
    let (name, _, says) = listener.hears().await?;
    assert_eq!((name.as_str(), &says["change_direction"]), ("assurance-level-change", &"decrease".into()));
    assert_eq!((&says["previous_level"], &says["current_level"]), (&"nist-aal2".into(), &"nist-aal1".into()));
    Ok(())
}

#[tokio::test]
async fn an_end_is_told_once_and_what_changes_nothing_is_not_told() -> Result<()> {
    let (_cardea, mut clients, mut listener) = Listener::start().await?;
    clients.end_session("s").await?;
    let (name, subject, says) = listener.hears().await?;
    assert_eq!((name.as_str(), &subject["session"]["id"]), ("session-revoked", &"s".into()));
    assert_eq!(subject["user"]["sub"], "Agent::\"biller\"");
    assert_eq!(
        (&says["reason_admin"]["en"], &says["initiating_entity"]),
        (&"the test says so".into(), &"admin".into())
    );
    clients.end_session("s").await?;
    let revoked = v1::SessionRevoked { session_id: "s".to_owned(), reason: String::new() };
    let outcome = clients.report(None, Change::SessionRevoked(revoked)).await?;
    ensure!(outcome == SignalOutcome::Superseded, "{outcome:?}");
    let late = v1::Signal {
        subject: Some(entity("Agent::biller")?),
        event_time: Some(cardea_tests::attempts::wall_time(-60)?),
        source: "end-to-end test".to_owned(),
        change: Some(risk(95)),
    };
    clients.report(Some("Agent::biller"), risk(0)).await?;
    clients.signal.report(v1::ReportSignalsRequest { signals: vec![late] }).await?;
    listener.hears_nothing().await?;

    clients.open_session("t", "Agent::biller").await?;
    let all =
        Change::SessionRevoked(v1::SessionRevoked { session_id: String::new(), reason: "leak".to_owned() });
    clients.report(Some("Agent::biller"), all).await?;
    let (name, subject, says) = listener.hears().await?;
    assert_eq!((name.as_str(), subject.get("session")), ("session-revoked", None), "{subject}");
    assert_eq!(says["initiating_entity"], "system");
    listener.hears_nothing().await
}

/// A bundle that answers an attempt to drop a table with more than a deny.
fn responding(effects: &str) -> Options {
    Options::default().edit("bundle.toml", "[risk]", format!("{effects}\n[risk]")).edit(
        "policies/guards.cedar",
        "@id(\"tables_are_never_dropped\")",
        "@id(\"tables_are_never_dropped\") @respond(\"stop\")",
    )
}

#[tokio::test]
async fn a_policy_that_sees_lateral_movement_ends_the_session_takes_back_what_is_held_and_tells() -> Result<()>
{
    let options = responding(
        "[responses.stop]\ndescription = \"lateral movement\"\nrevoke_session = true\nraise_risk = { score = 90 }\n",
    );
    let (cardea, mut clients, mut listener) = Listener::start_with(options).await?;
    clients.open_session("other", "Agent::biller").await?;
    let mut point = Point::open(&mut clients, None).await?;
    let read = attempt("Agent::biller", "read", "Table::orders", "s")?;
    let held = v1::HoldAttempt { hold_id: 1, attempt: Some(read.clone()) };
    point.add(vec![held]).await?;
    point.answers(1).await?;
    // A session that is not one's own is not ended: policy is not asked.
    let stranger = clients.decide(attempt("Agent::else", "drop", "Table::orders", "s")?).await?;
    assert_eq!(codes(&stranger), [v1::ReasonCode::SessionMismatch]);
    assert_eq!(clients.decide(read.clone()).await?.decision(), v1::Decision::Allow);
    let denied = clients.decide(attempt("Agent::biller", "drop", "Table::orders", "s")?).await?;
    assert_eq!(denied.decision(), v1::Decision::Deny);
    let next = clients.decide(read).await?;
    assert_eq!(codes(&next), [v1::ReasonCode::SessionRevoked], "the very next attempt");
    let pushed = point.answer().await?;
    assert_eq!(pushed.verdict.context("no verdict")?.decision(), v1::Decision::Deny);
    let record = audit::decision(&mut clients, &denied.decision_id).await?;
    assert_eq!(record.responses, ["stop"]);
    let ended = audit::find(&mut clients, "the end of the session", |record| match &record.entry {
        Some(v1::record::Entry::Session(session)) if session.change == "ended" => Some(session.clone()),
        _ => None,
    })
    .await?;
    assert_eq!((ended.session_id.as_str(), ended.reason.as_str()), ("s", "policy tables_are_never_dropped"));
    let mut told = Vec::new();
    while told.len() < 2 {
        let body = json!({"returnImmediately": true, "ack": std::mem::take(&mut listener.heard)});
        let answer = listener.ask(&listener.poll.clone(), &body).await?;
        for (jti, token) in answer["sets"].as_object().context("no sets")? {
            let payload = token.as_str().and_then(|token| token.split('.').nth(1)).context("no token")?;
            let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
            told.extend(claims["events"].as_object().context("no events")?.iter().map(|(name, says)| {
                (name.strip_prefix(CAEP).unwrap_or(name).to_owned(), says["initiating_entity"].clone())
            }));
            listener.heard.push(jti.clone());
        }
    }
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let policy = |name: &str| (name.to_owned(), json!("policy"));
    assert_eq!(told, [policy("risk-level-change"), policy("session-revoked")]);
    // The risk is the principal's, so its other session feels it, too.
    let elsewhere = clients.decide(attempt("Agent::biller", "read", "Table::orders", "other")?).await?;
    assert_eq!(elsewhere.decision(), v1::Decision::Deny);
    drop(cardea);
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_is_repeated_raises_the_risk_once() -> Result<()> {
    let options = responding(
        "[responses.stop]\ndescription = \"suspicious\"\nraise_risk = { score = 40, half_life_s = 3600 }\n",
    );
    let (_cardea, mut clients, mut listener) = Listener::start_with(options).await?;
    for _ in 0..200 {
        clients.decide(attempt("Agent::biller", "drop", "Table::orders", "s")?).await?;
    }
    let (name, ..) = listener.hears().await?;
    assert_eq!(name, "risk-level-change");
    listener.hears_nothing().await?;
    Ok(())
}
