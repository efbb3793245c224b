//! Tokens into a real state on disk: what they change, what changes nothing, and what leaves no trace.

use std::path::Path;

use cardea_core::session::Session;
use cardea_core::subject::Standing;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::store::PolicyStore;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::super::event::EventType;
use super::super::super::set::ErrorCode;
use super::super::super::testing::{AUDIENCE, IAT_S, Issuer, Reply, Server, claims};
use super::super::options::{Care, ClaimsChange, Delivery, RiskScale};
use super::super::{Login, subjects};

use super::*;
use crate::audit::{Audit, AuditConfig};
use crate::clock::Clock;
use crate::config::WhenStale;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::state::Change;
use crate::state::{Capacity, State};

struct Node {
    intake: Intake,
    receiving: Receiving,
    pipeline: Arc<Pipeline>,
    issuer: Arc<Issuer>,
    server: Arc<Server>,
    clock: Clock,
    writing: Option<std::thread::JoinHandle<Result<(), LedgerFault>>>,
    dir: TempDir,
}

impl Node {
    fn start() -> Self {
        let issuer = Arc::new(Issuer::new());
        let server = Arc::new(Server::start(Reply::Body(issuer.jwks().to_string())));
        Self::on(tempfile::tempdir().unwrap(), issuer, server)
    }

    fn on(dir: TempDir, issuer: Arc<Issuer>, server: Arc<Server>) -> Self {
        let clock = Clock::standing_at(IAT_S * 1000 + 5_000);
        let (pipeline, writing) = pipeline_on(dir.path(), &clock);
        let address = server.address("/");
        let options = Receiver {
            name: "idp".into(),
            issuer: address.clone(),
            audience: vec![AUDIENCE.into()],
            jwks_uri: Some(server.address("/jwks")),
            ca: None,
            max_age_h: 24,
            delivery: Delivery::Push { authorization_file: None },
            login: Login::Nobody,
            stream: Care::Others,
            critical: vec!["tenant".into(), "org_unit".into()],
            rules: subjects::tests::rules(),
            risk: RiskScale::default(),
            claims_change: ClaimsChange::Reauthenticate,
        };
        let client = Arc::new(Client::new(&address, None, Login::Nobody, clock.clone()).unwrap());
        let keys = Keys::new(address, options.jwks_uri.clone(), Arc::clone(&client), clock.clone());
        let metrics = pipeline.metrics().receiver("idp");
        let receiving = Receiving { options, client, keys, stream: Stream::default(), metrics };
        let intake = Intake::new(Arc::clone(&pipeline)).unwrap();
        Self { intake, receiving, pipeline, issuer, server, clock, writing: Some(writing), dir }
    }

    /// As after `kill -9` of an idle process: on the same disk.
    fn restart(mut self) -> Self {
        self.pipeline.state().ledger().unwrap().close();
        self.writing.take().unwrap().join().unwrap().unwrap();
        let Self { intake, receiving, pipeline, issuer, server, dir, .. } = self;
        drop((intake, receiving, pipeline));
        Self::on(dir, issuer, server)
    }

    fn claims(&self, jti: &str, subject: Value, kind: EventType, event: Value) -> Value {
        let mut claims = claims(jti, subject, kind, event);
        claims["iss"] = json!(self.server.address("/").text());
        claims
    }

    async fn tell(&self, jti: &str, subject: Value, kind: EventType, event: Value) -> Result<(), NotTaken> {
        let token = self.issuer.sign(&self.claims(jti, subject, kind, event));
        self.intake.take(&self.receiving, token.as_bytes()).await
    }

    fn uid(&self, id: &str) -> Uid {
        Uid::new(self.pipeline.policy().snapshot().unwrap().type_name("User").unwrap(), id)
    }

    /// Opens a session ten minutes before the tokens.
    fn open(&self, id: &str, user: &str, device: &str, tenant: &str) {
        let mut now = self.pipeline.now();
        now.wall_ms = (IAT_S - 600) * 1000;
        let mut session = Session::open(id.into(), self.uid(user), now.wall_ms + 86_400_000, now);
        session.device_id = Some(device.into());
        session.tenant = Some(tenant.into());
        self.pipeline.state().open(session, 86_400, now).unwrap();
    }

    fn is_live(&self, id: &str) -> bool {
        let (session, behavior) = self.pipeline.state().session(id).unwrap().unwrap();
        let status =
            self.pipeline.state().status(&session, behavior.last_seen_ms, 86_400, self.pipeline.now());
        status == cardea_core::session::Status::Live
    }

    fn counted(&self, line: &str) -> bool {
        self.pipeline.metrics().render().lines().any(|shown| shown == line)
    }
}

fn pipeline_on(
    dir: &Path,
    clock: &Clock,
) -> (Arc<Pipeline>, std::thread::JoinHandle<Result<(), LedgerFault>>) {
    let policy = Arc::new(PolicyStore::default());
    policy.activate(Arc::new(subjects::tests::snapshot())).unwrap();
    let audit = AuditConfig::in_dir(dir.join(format!("audit-{}", fastrand::u64(..))));
    let audit = Arc::new(Audit::open(&audit, Box::new(|| 0)).unwrap());
    let (ledger, writer) = Ledger::open(&dir.join("state")).unwrap();
    let writing = std::thread::spawn(move || writer.run());
    let capacity = Capacity {
        sessions: 100,
        stored_sessions: 100,
        subjects: 100,
        revocations: 100,
        tasks: 100,
        reviews: 100,
        counters: 1000,
    };
    let state = Arc::new(State::restore(capacity, ledger).unwrap());
    let metrics = Arc::new(Metrics::new(pipeline::labels(1)));
    (Arc::new(Pipeline::new(policy, state, audit, metrics, clock.clone(), WhenStale::Serve)), writing)
}

fn user(id: &str) -> Value {
    json!({"format": "iss_sub", "iss": "https://idp.example/", "sub": id})
}

fn opaque(id: &str) -> Value {
    json!({"format": "opaque", "id": id})
}

#[tokio::test(flavor = "current_thread")]
async fn a_revocation_ends_exactly_the_sessions_that_match_every_member() {
    let node = Node::start();
    for (id, who, device, tenant) in [
        ("ada-d1", "ada", "d1", "acme"),
        ("ada-d2", "ada", "d2", "acme"),
        ("ada-x", "ada", "d2", "other"),
        ("bob-d1", "bob", "d1", "acme"),
    ] {
        node.open(id, who, device, tenant);
    }
    let live = || ["ada-d1", "ada-d2", "ada-x", "bob-d1"].map(|id| node.is_live(id));
    let revoked = EventType::SessionRevoked;

    let other = json!({"format": "complex", "user": user("bob"), "session": opaque("ada-d1")});
    node.tell("1", other, revoked, json!({})).await.unwrap();
    assert_eq!(live(), [true; 4], "the session is not bob's");

    let on_device = json!({"format": "complex", "user": user("ada"), "device": opaque("d1")});
    node.tell("2", on_device, revoked, json!({})).await.unwrap();
    assert_eq!(live(), [false, true, true, true]);

    let in_tenant = json!({"format": "complex", "user": user("ada"), "tenant": opaque("acme")});
    node.tell("3", in_tenant, revoked, json!({})).await.unwrap();
    assert_eq!(live(), [false, false, true, true]);

    let device = json!({"format": "complex", "device": opaque("d1")});
    node.tell("4", device, revoked, json!({})).await.unwrap();
    assert_eq!(live(), [false, false, true, false]);

    node.tell("5", user("ada"), revoked, json!({"event_timestamp": IAT_S - 601})).await.unwrap();
    assert_eq!(live(), [false, false, true, false], "it was opened after that");
    node.tell("6", user("ada"), revoked, json!({})).await.unwrap();
    assert_eq!(live(), [false, false, false, false]);
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_taken_in_is_there_after_a_restart_and_changes_nothing_a_second_time() {
    let node = Node::start();
    node.open("s1", "ada", "d1", "acme");
    node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await.unwrap();
    let version = node.pipeline.state().version();
    node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await.unwrap();
    assert_eq!(node.pipeline.state().version(), version);
    assert!(node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="duplicate"} 1"#));

    let node = node.restart();
    assert!(!node.is_live("s1"));
    let version = node.pipeline.state().version();
    node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await.unwrap();
    assert_eq!(node.pipeline.state().version(), version);
    assert!(node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="duplicate"} 1"#));
}

#[tokio::test(flavor = "current_thread")]
async fn a_name_that_was_used_before_carries_nothing_else() {
    let node = Node::start();
    node.open("s1", "ada", "d1", "acme");
    node.tell("1", user("bob"), EventType::SessionRevoked, json!({})).await.unwrap();
    node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await.unwrap();
    assert!(node.is_live("s1"));
}

#[tokio::test(flavor = "current_thread")]
async fn a_token_that_is_refused_leaves_no_trace() {
    let node = Node::start();
    node.open("s1", "ada", "d1", "acme");
    let version = node.pipeline.state().version();
    let good = || node.claims("1", user("ada"), EventType::SessionRevoked, json!({}));
    let with = |member: &str, value: Value| {
        let mut claims = good();
        claims[member] = value;
        claims
    };
    let of = |alg: &str, kid: &str| json!({"typ": "secevent+jwt", "alg": alg, "kid": kid});
    let altered = {
        let token = node.issuer.sign(&with("jti", json!("2")));
        let (_, signature) = token.rsplit_once('.').unwrap();
        let other = node.issuer.sign(&good());
        format!("{}.{signature}", other.rsplit_once('.').unwrap().0)
    };
    for (token, code) in [
        (altered, ErrorCode::AuthenticationFailed),
        (Issuer::new().token(&of("ES256", "p256"), &good()), ErrorCode::AuthenticationFailed),
        (node.issuer.token(&of("none", "rsa"), &good()), ErrorCode::AuthenticationFailed),
        (node.issuer.token(&of("HS256", "rsa"), &good()), ErrorCode::InvalidKey),
        (node.issuer.token(&of("RS256", "unknown"), &good()), ErrorCode::InvalidKey),
        (node.issuer.sign(&with("iss", json!("https://thief.example/"))), ErrorCode::InvalidIssuer),
        (node.issuer.sign(&with("aud", json!("https://other.example/"))), ErrorCode::InvalidAudience),
        (node.issuer.sign(&with("exp", json!(IAT_S - 1))), ErrorCode::InvalidRequest),
        (node.issuer.sign(&with("iat", json!(IAT_S - 90_000))), ErrorCode::InvalidRequest),
        (node.issuer.sign(&with("iat", json!(IAT_S + 90_000))), ErrorCode::InvalidRequest),
        ("x".to_owned(), ErrorCode::InvalidRequest),
    ] {
        let refused = node.intake.take(&node.receiving, token.as_bytes()).await;
        assert!(
            matches!(&refused, Err(NotTaken::Refused(refusal)) if refusal.code == code),
            "{code:?}: {refused:?}"
        );
    }
    assert!(node.is_live("s1"));
    assert_eq!(node.pipeline.state().version(), version);
    assert_eq!(node.intake.seen.lock().len(), 0);
    node.intake.take(&node.receiving, node.issuer.sign(&good()).as_bytes()).await.unwrap();
    assert!(!node.is_live("s1"), "the good one still counts");
}

#[tokio::test(flavor = "current_thread")]
async fn older_events_do_not_overwrite_newer_ones_in_whatever_order_they_come() {
    let node = Node::start();
    let at = |offset: i64| json!({"event_timestamp": IAT_S + offset});
    node.tell("1", user("ada"), EventType::AccountEnabled, at(-10)).await.unwrap();
    node.tell("2", user("ada"), EventType::AccountDisabled, at(-20)).await.unwrap();
    assert!(
        node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="applied"} 2"#),
        "its sessions are over"
    );
    node.tell("3", user("ada"), EventType::AccountDisabled, at(-30)).await.unwrap();
    assert!(node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="superseded"} 1"#));
}

/// The others tell milliseconds, and the token the second: it may have been later.
#[tokio::test(flavor = "current_thread")]
async fn what_closed_in_the_second_in_which_something_was_opened_is_closed() {
    let node = Node::start();
    let second = IAT_S - 10;
    let opened = [
        Change::Standing(node.uid("ada"), Standing::Enabled),
        Change::Device("d1".into(), true),
        Change::Session("s1".into(), cardea_core::session::Change::DeviceCompliance(true)),
    ];
    node.open("s1", "bob", "d2", "acme");
    for change in opened {
        let signal = Signal { event_ms: second * 1000 + 300, change };
        node.pipeline.state().apply(&signal, 86_400_000, node.pipeline.now()).unwrap();
    }
    let at = |mut event: Value| {
        event["event_timestamp"] = json!(second);
        event
    };
    let bad = json!({"previous_status": "compliant", "current_status": "not-compliant"});
    let device = json!({"format": "complex", "device": opaque("d1")});
    let session = json!({"format": "complex", "session": opaque("s1")});
    node.tell("1", user("ada"), EventType::AccountDisabled, at(json!({}))).await.unwrap();
    node.tell("2", device, EventType::DeviceComplianceChange, at(bad.clone())).await.unwrap();
    node.tell("3", session, EventType::DeviceComplianceChange, at(bad)).await.unwrap();
    assert!(node.pipeline.state().is_disabled(&node.uid("ada")));
    assert!(node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="applied"} 3"#));
    let good = json!({"previous_status": "not-compliant", "current_status": "compliant"});
    let device = json!({"format": "complex", "device": opaque("d1")});
    node.tell("4", user("ada"), EventType::AccountEnabled, at(json!({}))).await.unwrap();
    node.tell("5", device, EventType::DeviceComplianceChange, at(good)).await.unwrap();
    assert!(node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="superseded"} 2"#));
}

#[tokio::test(flavor = "current_thread")]
async fn an_assurance_rises_only_for_a_subject_that_is_understood() {
    let node = Node::start();
    node.open("s1", "ada", "d1", "acme");
    let aal = || node.pipeline.state().session("s1").unwrap().unwrap().0.aal;
    let level = |level: &str| json!({"namespace": "NIST-AAL", "current_level": level});
    let whole = || json!({"format": "complex", "session": opaque("s1")});
    let part = || json!({"format": "complex", "session": opaque("s1"), "group": opaque("g")});
    let kind = EventType::AssuranceLevelChange;
    let at = |offset: i64, mut event: Value| {
        event["event_timestamp"] = json!(IAT_S - 100 + offset);
        event
    };
    node.tell("1", whole(), kind, at(1, level("nist-aal2"))).await.unwrap();
    assert_eq!(aal(), 2);
    node.tell("2", part(), kind, at(2, level("nist-aal3"))).await.unwrap();
    assert_eq!(aal(), 2, "nobody says that it falls, and it would rise");
    node.tell("3", part(), kind, at(3, level("nist-aal1"))).await.unwrap();
    assert_eq!(aal(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn what_nobody_here_is_meant_by_is_acknowledged_and_counted() {
    let node = Node::start();
    let stranger = json!({"format": "phone_number", "phone_number": "+12065550100"});
    node.tell("1", stranger.clone(), EventType::SessionRevoked, json!({})).await.unwrap();
    let critical = json!({"format": "complex", "user": user("ada"), "org_unit": opaque("x")});
    node.open("s1", "ada", "d1", "acme");
    node.tell("2", critical, EventType::SessionRevoked, json!({})).await.unwrap();
    assert!(node.is_live("s1"), "it must not be processed without its critical member");
    let mut unknown = node.claims("3", user("ada"), EventType::OptIn, json!({}));
    unknown["events"] = json!({"urn:acme:fired": {}});
    node.intake.take(&node.receiving, node.issuer.sign(&unknown).as_bytes()).await.unwrap();
    node.tell("4", user("ada"), EventType::OptIn, json!({})).await.unwrap();
    for result in ["unmapped", "critical_member", "unknown_event", "recorded"] {
        assert!(
            node.counted(&format!(r#"cardea_ssf_tokens_total{{receiver="idp",result="{result}"}} 1"#)),
            "{result}"
        );
    }
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_is_acknowledged_that_is_not_on_disk() {
    let mut node = Node::start();
    node.open("s1", "ada", "d1", "acme");
    node.pipeline.state().ledger().unwrap().close();
    node.writing.take().unwrap().join().unwrap().unwrap();
    let told = node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await;
    assert!(matches!(told, Err(NotTaken::Later(_))), "{told:?}");
    assert_eq!(node.intake.seen.lock().len(), 0, "it will be processed when it comes again");
    assert!(!node.is_live("s1"), "a door is closed all the same");
}

#[tokio::test(flavor = "current_thread")]
async fn while_the_keys_cannot_be_reached_a_token_is_to_come_again() {
    let node = Node::start();
    node.server.now_replies(Reply::Status(500, "x: y".to_owned()));
    let told = node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await;
    assert!(matches!(told, Err(NotTaken::Later(_))), "{told:?}");
    node.server.now_replies(Reply::Body(node.issuer.jwks().to_string()));
    node.clock.advance(crate::limits::SSF_KEYS_REST);
    node.tell("1", user("ada"), EventType::SessionRevoked, json!({})).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn the_same_token_many_times_at_once_counts_once() {
    let node = Node::start();
    let token = node.issuer.sign(&node.claims("1", user("ada"), EventType::SessionRevoked, json!({})));
    let takes = (0..50).map(|_| node.intake.take(&node.receiving, token.as_bytes()));
    let taken = futures_util::future::join_all(takes).await;
    let later = taken.iter().filter(|taken| taken.is_err()).count();
    assert!(later < 50, "those who would wait for the keys come again");
    assert!(node.counted(r#"cardea_ssf_tokens_total{receiver="idp",result="applied"} 1"#));
}
