//! The whole story: an agent works through Envoy, another party takes its session back, and everybody who must hear of it
//! does. And a smaller one: an approval that is given and taken back.
#![expect(clippy::disallowed_methods, reason = "how long it takes to be told is measured from outside")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1::record::Entry;
use cardea_proto::v1::{self, Decision, ReviewStatus, hold_cause};
use cardea_tests::attempts::{attempt, codes, entity};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::certs::{Authority, Files};
use cardea_tests::clients::Clients;
use cardea_tests::hold::{Point, decision, held};
use cardea_tests::http::{Kept, Request};
use cardea_tests::stack::{Over, SESSION, Stack};
use cardea_tests::transmitter::{AUDIENCE, Transmitter};
use cardea_tests::{audit, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const ORDERS: &str = "/tables/orders";
/// What the identity provider shows when it pushes, and what it fetches with.
const PUSHES: &str = "Bearer of-the-idp";
const IDP: &str = "the-token-of-the-idp";
const THIRD: &str = "the-token-of-the-third-party";
/// From the push of the signal to the word on the open connection. A busy machine keeps it; a bench measures the real bound.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The identity provider that signals come from, and the addresses that two services find each other at.
struct Place {
    dir: TempDir,
    idp: Transmitter,
    files: Files,
    ours: SocketAddr,
    third: SocketAddr,
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("servers")?;
        let identity = authority.server()?;
        let files = authority.write(dir.path(), &identity)?;
        for (name, content) in
            [("pushes", PUSHES), ("idp", IDP), ("third", THIRD), ("third-pushes", "Bearer of-cardea")]
        {
            fs::write(dir.path().join(name), content)?;
        }
        let idp = Transmitter::start(authority.server_config(&identity)?)?;
        Ok(Self { dir, idp, files, ours: free()?, third: free()? })
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Hears the identity provider, and tells two: a third party, and the identity provider itself.
    fn ours(&self) -> Options {
        let (at, third, issuer) = (self.ours, self.third, self.idp.issuer());
        Options::default().config(format!(
            r#"
[ssf]
listen = "{at}"
[ssf.receiver.idp]
issuer = "{issuer}"
audience = ["{AUDIENCE}"]
ca = "{}"
authorization_file = "{}"
[[ssf.receiver.idp.subject]]
format = "iss_sub"
entity = "Agent"
id = "{{sub}}"
[[ssf.receiver.idp.subject]]
format = "opaque"
member = "session"
id = "{{id}}"
[ssf.transmitter]
issuer = "http://{at}/"
min_verification_interval_s = 0
[[ssf.transmitter.receiver]]
name = "third"
token_file = "{}"
audience = "https://third.example/"
push_hosts = ["{third}"]
[[ssf.transmitter.receiver]]
name = "idp-listens"
token_file = "{}"
audience = "https://idp.example/"
transmits_as = "{issuer}"
"#,
            self.files.ca.display(),
            self.file("pushes"),
            self.file("third"),
            self.file("idp"),
        ))
    }

    /// A service of somebody else, which the first one tells.
    fn third(&self) -> Options {
        let (from, at) = (self.ours, self.third);
        Options::default().config(format!(
            r#"
[ssf]
listen = "{at}"
[ssf.receiver.cardea]
issuer = "http://{from}/"
audience = ["https://third.example/"]
authorization_file = "{}"
stream = "keep"
endpoint_url = "http://{at}/ssf/push/cardea"
token_file = "{}"
[[ssf.receiver.cardea.subject]]
format = "opaque"
member = "session"
id = "{{id}}"
"#,
            self.file("third-pushes"),
            self.file("third"),
        ))
    }

    /// The end of the agent's session, signed by the identity provider.
    fn revocation(&self) -> Result<String> {
        let subject = json!({
            "format": "complex",
            "user": {"format": "iss_sub", "iss": self.idp.issuer(), "sub": "biller"},
            "session": {"format": "opaque", "id": SESSION},
        });
        let says = json!({"reason_admin": {"en": "the key was found in a paste"}});
        self.idp.sign(&self.idp.claims("t1", subject, REVOKED, says))
    }

    async fn push(&self, token: String) -> Result<()> {
        let request = Request::new("POST", "/ssf/push/idp")
            .header("authorization", PUSHES)
            .header("accept", "application/json")
            .body("application/secevent+jwt", token);
        let answer = request.send(self.ours).await?;
        ensure!(answer.status == 202 && answer.body.is_empty(), "{answer:?}");
        Ok(())
    }

    /// What the identity provider gets to hear of the service that it signals to.
    async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let request = Request::new("POST", path).bearer(IDP).body("application/json", body.to_string());
        let answer = request.send(self.ours).await?;
        ensure!((200..300).contains(&answer.status), "{path}: {answer:?}");
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
    }
}

async fn signal_of_third(clients: &mut Clients) -> Result<v1::SignalRecord> {
    audit::find(clients, "the third party to hear", |record| match &record.entry {
        Some(Entry::Signal(signal)) if signal.kind == "caep/session-revoked" => Some(signal.clone()),
        _ => None,
    })
    .await
}

/// The third party has a stream, and the session at its own gates.
async fn third_party(place: &Place) -> Result<(Cardea, Clients)> {
    let third = Cardea::start_with(place.third()).await?;
    let mut clients = third.clients()?;
    clients.open_session(SESSION, "Agent::biller").await?;
    wait::until("the stream of the third party to be verified", async || {
        let page = third.page("/metrics").await?.body;
        let line = r#"cardea_ssf_stream_enabled{receiver="cardea"} 1"#;
        Ok(page.lines().any(|shown| shown == line).then_some(()))
    })
    .await?;
    Ok((third, clients))
}

#[tokio::test]
async fn an_agents_run_is_taken_back_and_everybody_hears_of_it() -> Result<()> {
    let place = Place::new()?;
    let mut stack = Stack::start_with(place.ours(), Over::Tcp, |_| {}).await?;
    let (_third, mut third) = third_party(&place).await?;
    let poll = json!({"delivery": {"method": "urn:ietf:rfc:8936"}});
    let idp_stream = place.ask("/ssf/streams", &poll).await?;

    // The agent's connection stays open, and whoever serves it holds the allow.
    let mut connection = Kept::open(stack.envoy.address).await?;
    let request = Request::get(ORDERS).bearer(&stack.token()?);
    let answer = connection.send(&request).await?;
    ensure!(answer.status == 200 && stack.upstream.count() == 1, "{answer:?}");
    let mut point = Point::open(&mut stack.clients, None).await?;
    let read = || attempt("Agent::biller", "read", "Table::orders", SESSION);
    point.add(vec![held(7, read()?)]).await?;
    ensure!(decision(&point.answer().await?) == Decision::Allow);
    ensure!(third.decide(read()?).await?.decision() == Decision::Allow);

    // The session is over, says the identity provider.
    let token = place.revocation()?;
    let began = Instant::now();
    let (pushed, answer) = tokio::join!(async { place.push(token).await.map(|()| began.elapsed()) }, async {
        point.answer().await.map(|answer| (answer, began.elapsed()))
    },);
    let (acknowledged, (answer, told)) = (pushed?, answer?);
    eprintln!("the open connection was told {told:?} after the push began; 202 came after {acknowledged:?}");
    ensure!(told < TOLD_WITHIN, "told after {told:?} only");
    assert_eq!((answer.hold_id, decision(&answer)), (7, Decision::Deny));
    let verdict = answer.verdict.context("no verdict")?;
    assert_eq!(codes(&verdict), [v1::ReasonCode::SessionRevoked]);
    let cause = answer.cause.context("no cause")?;
    assert_eq!((cause.kind(), cause.name.as_str()), (hold_cause::Kind::Session, SESSION));
    assert_eq!(cause.change, "revoked");

    // The next request on the connection stops at Envoy.
    let denied = connection.send(&request).await?;
    assert_eq!((denied.status, stack.upstream.count()), (403, 1), "{denied:?}");
    assert_eq!(denied.json()?["reason"], "session_revoked");

    // The third party is told what happened here, and why; its gates close too.
    let heard = signal_of_third(&mut third).await?;
    assert_eq!((heard.source, heard.outcome.as_str()), (format!("http://{}/", place.ours), "applied"));
    assert_eq!((heard.txn.as_str(), heard.session_id.as_str()), ("cause-1", SESSION));
    assert_eq!(codes(&third.decide(read()?).await?), [v1::ReasonCode::SessionRevoked]);

    // The identity provider hears nothing of what it said itself, although it listens.
    let id = idp_stream["stream_id"].as_str().context("no stream")?;
    place.ask("/ssf/verify", &json!({"stream_id": id, "state": "are-you-there"})).await?;
    let sets = place.ask(&format!("/ssf/poll/{id}"), &json!({"returnImmediately": true})).await?;
    let sets = sets["sets"].as_object().context("no sets")?;
    assert_eq!(sets.len(), 1, "the verification alone: {sets:?}");

    tells_it_in_order(&mut stack, &place, denied.header("x-cardea-decision-id")?, cause.state_version).await
}

async fn tells_it_in_order(stack: &mut Stack, place: &Place, last: &str, version: u64) -> Result<()> {
    let told = audit::story(&mut stack.clients, last).await?;
    let signal = format!("signal caep/session-revoked applied from {} txn cause-1", place.idp.issuer());
    let opened = format!("session {SESSION} opened");
    let expected = [
        opened.as_str(),
        "ext_authz DECISION_ALLOW ",
        "hold DECISION_ALLOW  before DECISION_UNSPECIFIED",
        signal.as_str(),
        "hold DECISION_DENY REASON_CODE_SESSION_REVOKED before DECISION_ALLOW because KIND_SESSION revoked",
        "ext_authz DECISION_DENY REASON_CODE_SESSION_REVOKED",
    ];
    assert_eq!(told, expected);
    let signal = audit::find(&mut stack.clients, "the signal", |record| match &record.entry {
        Some(Entry::Signal(signal)) => Some(signal.clone()),
        _ => None,
    })
    .await?;
    assert_eq!((signal.token_id.as_str(), signal.state_version), ("t1", version));
    assert_eq!(signal.reason, "the key was found in a paste");
    Ok(())
}

/// The one review that there is, once it is there.
async fn review(clients: &mut Clients) -> Result<v1::Review> {
    wait::until("the review", async || {
        let reviews = clients.review.list(v1::ListReviewsRequest::default()).await?.into_inner().reviews;
        ensure!(reviews.len() <= 1, "{reviews:?}");
        Ok(reviews.into_iter().next())
    })
    .await
}

#[tokio::test]
async fn an_approval_opens_the_way_through_envoy_and_its_end_closes_it() -> Result<()> {
    let options = Options::default().edit(
        "policies/guards.cedar",
        "when { context.risk.score >= 30 };",
        "when { context.risk.score >= 30 && !context.session.grants.contains(\"second_pair_of_eyes\") };",
    );
    let mut stack = Stack::start_with(options, Over::Tcp, |_| {}).await?;
    stack.clients.report_risk("Agent::biller", 40).await?;
    let write = || Request::new("PUT", ORDERS);
    let mut point = Point::open(&mut stack.clients, None).await?;
    let answer = stack.stopped(write(), 401).await?;
    assert_eq!(answer.json()?["reason"], "step_up_required");
    let pending = review(&mut stack.clients).await?;
    assert_eq!(pending.status(), ReviewStatus::Pending);
    point.add(vec![held(1, attempt("Agent::biller", "write", "Table::orders", SESSION)?)]).await?;
    let first = point.answer().await?;
    assert_eq!(decision(&first), Decision::StepUp);
    let requirement = first.verdict.and_then(|verdict| verdict.step_up.into_iter().next());
    assert_eq!(requirement.context("no requirement")?.review_id, pending.id, "the same attempt");

    let reviewer = Some(entity("Team::duty-officers")?);
    let approval = v1::ApproveReviewRequest {
        id: pending.id.clone(),
        round: pending.round,
        reviewer: reviewer.clone(),
        reason: "as planned".to_owned(),
        ..v1::ApproveReviewRequest::default()
    };
    let version = stack.clients.review.approve(approval).await?.into_inner().state_version;
    stack.allowed(write()).await?;
    let opened = point.answer().await?;
    let cause = opened.cause.clone().context("no cause")?;
    assert_eq!((decision(&opened), cause.kind()), (Decision::Allow, hold_cause::Kind::Grant));
    assert_eq!(cause.state_version, version);

    let rejection = v1::RejectReviewRequest {
        id: pending.id,
        round: pending.round,
        reviewer,
        reason: "not after all".to_owned(),
        ..v1::RejectReviewRequest::default()
    };
    let version = stack.clients.review.reject(rejection).await?.into_inner().state_version;
    let closed = point.answer().await?;
    let cause = closed.cause.clone().context("no cause")?;
    assert_eq!((decision(&closed), cause.kind()), (Decision::StepUp, hold_cause::Kind::Grant));
    assert_eq!(cause.state_version, version);
    let answer = stack.stopped(write(), 401).await?;

    let mut told = audit::story(&mut stack.clients, answer.header("x-cardea-decision-id")?).await?;
    // The review is opened beside the decision, after it.
    told.retain(|line| !line.starts_with("review opened"));
    let step_up = "DECISION_STEP_UP REASON_CODE_STEP_UP_REQUIRED";
    let expected = [
        format!("session {SESSION} opened"),
        "signal risk/credential_compromise applied from end-to-end test txn ".to_owned(),
        format!("ext_authz {step_up}"),
        format!("hold {step_up} before DECISION_UNSPECIFIED"),
        "review approved as planned".to_owned(),
        "hold DECISION_ALLOW  before DECISION_STEP_UP because KIND_GRANT granted".to_owned(),
        "ext_authz DECISION_ALLOW ".to_owned(),
        "review revoked not after all".to_owned(),
        format!("hold {step_up} before DECISION_ALLOW because KIND_GRANT rejected"),
        format!("ext_authz {step_up}"),
    ];
    // A retry may be judged before or after the word on the hold: both follow the approval.
    let pair = told.iter().position(|line| line == "ext_authz DECISION_ALLOW ");
    if let Some(at) =
        pair.filter(|at| told.get(at + 1).is_some_and(|next| next.starts_with("hold DECISION_ALLOW")))
    {
        told.swap(at, at + 1);
    }
    assert_eq!(told, expected);
    Ok(())
}
