//! The Rust client against a real service: every transport, batches and streams in order, and closed doors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use cardea_client::v1::{Attempt, Decision, ListSessionsRequest, Session};
use cardea_client::{Client, Endpoint, Tls, VerdictExt, attempt, entity};
use cardea_server::cli::demo::Unpacked;
use cardea_server::config::{Config, Overrides};
use cardea_server::serve::Service;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

fn service(unpacked: &Unpacked, listen: &str, text: &str) -> Service {
    let overrides = Overrides {
        bundle: Some(unpacked.bundle().display().to_string()),
        store: Some(unpacked.root().join("store")),
        allow_unsigned: true,
        grpc: vec![listen.to_owned()],
        uds: Some(unpacked.root().join("grpc.sock")),
        http: Some("127.0.0.1:0".to_owned()),
        audit_dir: Some(unpacked.root().join("audit")),
        state_dir: Some(unpacked.root().join("state")),
        ..Overrides::default()
    };
    Service::prepare(Config::parse("test", text, Path::new(""), &overrides).unwrap()).unwrap()
}

/// Serves while the test runs.
async fn serving(service: Service, test: impl Future<Output = ()>) {
    let shutdown = service.shutdown.clone();
    let test = async {
        test.await;
        shutdown.drain();
    };
    tokio::join!(service.run(), test).0.unwrap();
}

fn call(id: &str, endpoint: &str) -> Attempt {
    let call = attempt(entity("Service", "payments-batch"), "call", entity("Endpoint", endpoint));
    Attempt { id: id.to_owned(), ..call }
}

async fn invoices_are_allowed(client: &mut Client) {
    let verdict = client.decide(call("1", "billing/invoices")).await.unwrap();
    assert!(verdict.is_allowed(), "{verdict:?}");
}

#[tokio::test]
async fn batches_and_streams_keep_the_order_over_tcp_and_a_unix_socket() {
    let unpacked = Unpacked::new().unwrap();
    let service = service(&unpacked, "127.0.0.1:0", "");
    let tcp = format!("http://{}", service.grpc[0]);
    let uds = format!("unix:{}", unpacked.root().join("grpc.sock").display());
    serving(service, async move {
        for address in [tcp, uds] {
            let mut client = Client::connect(address).await.unwrap();
            invoices_are_allowed(&mut client).await;
            let endpoint =
                |at: usize| if at.is_multiple_of(2) { "billing/invoices" } else { "billing/refunds" };
            let attempts: Vec<Attempt> = (0..40).map(|at| call(&at.to_string(), endpoint(at))).collect();
            let mut verdicts = client.decide_batch(attempts.clone()).await.unwrap();

            let (sender, mut receiver) = client.decide_stream().await.unwrap().split();
            for message in attempts.chunks(7) {
                sender.send(message.to_vec()).await.unwrap();
            }
            drop(sender);
            while let Some(more) = receiver.receive().await.unwrap() {
                verdicts.extend(more);
            }
            assert_eq!(verdicts.len(), 80);
            for (at, verdict) in verdicts.iter().enumerate() {
                assert_eq!(verdict.attempt_id, (at % 40).to_string());
                let expected = if at.is_multiple_of(2) { Decision::Allow } else { Decision::StepUp };
                assert_eq!(verdict.decision(), expected);
                assert_eq!(verdict.step_up_requirements().is_some(), expected == Decision::StepUp);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_are_opened_read_listed_and_ended() {
    let unpacked = Unpacked::new().unwrap();
    let service = service(&unpacked, "127.0.0.1:0", "");
    let address = format!("http://{}", service.grpc[0]);
    serving(service, async move {
        let mut client = Client::connect(address).await.unwrap();
        let principal = Some(entity("Service", "payments-batch"));
        for id in ["a", "b", "c"] {
            let session = Session { id: id.to_owned(), principal: principal.clone(), ..Session::default() };
            client.open_session(session).await.unwrap();
        }
        assert_eq!(client.session("b").await.unwrap().principal, principal);
        client.end_session("b", "test").await.unwrap();
        let inside = |id: &str| Attempt { session_id: id.to_owned(), ..call("1", "billing/invoices") };
        assert!(client.decide(inside("a")).await.unwrap().is_allowed());
        assert!(!client.decide(inside("b")).await.unwrap().is_allowed());
        client.end_sessions_of(entity("Service", "payments-batch"), "test").await.unwrap();
        assert!(!client.decide(inside("a")).await.unwrap().is_allowed());
        let page = client.sessions(ListSessionsRequest { page_size: 2, ..Default::default() }).await.unwrap();
        assert_eq!((page.sessions.len(), page.next_page_token.is_empty()), (2, false));
        assert!(client.status().await.unwrap().ready);
    })
    .await;
}

/// An authority with a server and a client, all PEM: (authority, (certificate, key), (certificate, key)).
fn certificates() -> (String, (String, String), (String, String)) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let sign = |name: SanType, usage| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let server = sign(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()), ExtendedKeyUsagePurpose::ServerAuth);
    let uri = "spiffe://acme.example/gateway".try_into().unwrap();
    (pem, server, sign(SanType::URI(uri), ExtendedKeyUsagePurpose::ClientAuth))
}

#[tokio::test]
async fn a_client_certificate_opens_the_tls_listener_and_nothing_else_does() {
    let unpacked = Unpacked::new().unwrap();
    let (authority, server, me) = certificates();
    let file = |name: &str, text: &str| {
        let path = unpacked.root().join(name);
        fs::write(&path, text).unwrap();
        format!("{path:?}")
    };
    let text = format!(
        "[tls]\ncert = {}\nkey = {}\nclient_ca = {}\n",
        file("cert.pem", &server.0),
        file("key.pem", &server.1),
        file("ca.pem", &authority)
    );
    let service = service(&unpacked, "0.0.0.0:0", &text);
    let port = service.grpc[0].port();
    serving(service, async move {
        let at = |scheme: &str| Endpoint::new(format!("{scheme}://127.0.0.1:{port}"));
        let known = Tls::new(&authority).with_identity(&me.0, &me.1);
        let mut client = Client::connect(at("https").with_tls(known)).await.unwrap();
        invoices_are_allowed(&mut client).await;

        let (other_authority, ..) = certificates();
        let closed = [
            ("no certificate", at("https").with_tls(Tls::new(&authority))),
            ("plain text", at("http")),
            ("another service", at("https").with_tls(Tls::new(other_authority).with_identity(&me.0, &me.1))),
        ];
        for (who, endpoint) in closed {
            // TLS 1.3 tells a client that it was refused only with the first answer.
            if let Ok(mut client) = Client::connect(endpoint).await {
                assert!(client.decide(call("1", "billing/invoices")).await.is_err(), "{who}");
            }
        }
    })
    .await;
}
