//! Bad input on the wire: a clear error or a deny, never a crash, never an allow, and the next caller is served.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::{attempt, codes, entity, long};
use cardea_tests::cardea::Cardea;
use cardea_tests::clients::Clients;
use cardea_tests::raw::{call, frame};

const DECIDE: &str = "/cardea.v1.DecisionService/Decide";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start().await?;
    let mut clients = cardea.clients()?;
    clients.open_session("s", "Agent::biller").await?;
    Ok((cardea, clients))
}

fn good() -> Result<v1::Attempt> {
    attempt("Agent::biller", "read", "Table::orders", "s")
}

async fn still_serves(cardea: &mut Cardea, clients: &mut Clients) -> Result<()> {
    cardea.process.must_run()?;
    let verdict = clients.decide(good()?).await?;
    assert_eq!(verdict.decision(), Decision::Allow, "{verdict:?}");
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_message_give_an_error_status() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let bodies: [(&str, Bytes); 8] = [
        ("a truncated varint", frame(&[0x0a, 0xff])),
        ("a length beyond the end", frame(&[0x0a, 0x7f, 0x01])),
        ("an unknown wire type", frame(&[0x0f, 0x01])),
        ("text that is not UTF-8", frame(&[0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe])),
        ("noise", frame(&[0xff; 300])),
        ("a frame that ends early", Bytes::from_static(&[0, 0, 0, 0, 200, 1, 2])),
        ("a frame with an unknown compression flag", Bytes::from_static(&[7, 0, 0, 0, 0])),
        ("no frame at all", Bytes::new()),
    ];
    for path in [DECIDE, CHECK] {
        for (what, body) in &bodies {
            let answer = call(cardea.grpc, path, &[], body.clone()).await;
            let answer = answer.with_context(|| format!("{path}: {what}"))?;
            assert_eq!(answer.status, 200, "{path}: {what}");
            assert!(answer.grpc_status.is_some_and(|status| status != 0), "{path}: {what}: {answer:?}");
        }
    }
    still_serves(&mut cardea, &mut clients).await
}

#[tokio::test]
async fn an_empty_check_request_is_a_deny() -> Result<()> {
    use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
    use prost::Message as _;

    let (mut cardea, mut clients) = started().await?;
    let answer = call(cardea.grpc, CHECK, &[], frame(&[])).await?;
    assert_eq!(answer.grpc_status, Some(0), "{answer:?}");
    let response = CheckResponse::decode(answer.body.slice(5..))?;
    assert_ne!(response.status.map(|status| status.code), Some(0));
    assert!(matches!(response.http_response, Some(HttpResponse::DeniedResponse(_))));
    still_serves(&mut cardea, &mut clients).await
}

#[tokio::test]
async fn missing_unknown_and_overlong_parts_are_denied_or_refused() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let long_text = "x".repeat(5_000);
    let ok = good()?;
    let wrong: Vec<(&str, v1::Attempt)> = vec![
        ("nothing", v1::Attempt::default()),
        ("no principal", v1::Attempt { principal: None, ..ok.clone() }),
        ("no action", v1::Attempt { action: None, ..ok.clone() }),
        ("no resource", v1::Attempt { resource: None, ..ok.clone() }),
        ("empty principal type", v1::Attempt { principal: Some(entity("::biller")?), ..ok.clone() }),
        ("unknown principal type", v1::Attempt { principal: Some(entity("Ghost::biller")?), ..ok.clone() }),
        ("unknown resource type", v1::Attempt { resource: Some(entity("Ghost::orders")?), ..ok.clone() }),
        ("unknown action", v1::Attempt { action: Some(entity("Action::explode")?), ..ok.clone() }),
        ("wrong type for the action", v1::Attempt { resource: Some(entity("Account::a-1")?), ..ok.clone() }),
        ("a type that is no name", v1::Attempt { principal: Some(entity("A\"\n::biller")?), ..ok.clone() }),
        (
            "over-long id",
            v1::Attempt {
                principal: Some(v1::EntityRef { r#type: "Agent".to_owned(), id: long_text.clone() }),
                ..ok.clone()
            },
        ),
        ("over-long attempt id", v1::Attempt { id: long_text.clone(), ..ok.clone() }),
        ("over-long session id", v1::Attempt { session_id: long_text.clone(), ..ok.clone() }),
        (
            "too many context fields",
            v1::Attempt {
                context: (0..65).map(|number| (format!("f{number}"), long(1))).collect(),
                ..ok.clone()
            },
        ),
        (
            "too long a delegation",
            v1::Attempt {
                delegation: (0..8)
                    .map(|number| entity(&format!("User::u{number}")))
                    .collect::<Result<_>>()?,
                ..ok.clone()
            },
        ),
    ];
    for (what, attempt) in wrong {
        match clients.decide(attempt).await {
            Ok(verdict) => {
                assert_eq!(verdict.decision(), Decision::Deny, "{what}: {verdict:?}");
                assert!(!codes(&verdict).is_empty(), "{what}: a deny says why");
                assert_eq!(verdict.decision_id.len(), 36, "{what}: a deny has a record");
            }
            Err(error) => {
                let status = error.downcast_ref::<tonic::Status>().map(tonic::Status::code);
                assert_eq!(status, Some(tonic::Code::InvalidArgument), "{what}: {error:#}");
            }
        }
    }
    let status = clients.decide_fails(None).await;
    if let Ok(status) = status {
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    } else {
        let verdict =
            clients.decision.decide(v1::DecideRequest { attempt: None }).await?.into_inner().verdict;
        assert_eq!(verdict.map(|verdict| verdict.decision()), Some(Decision::Deny));
    }
    still_serves(&mut cardea, &mut clients).await
}

#[tokio::test]
async fn values_nested_without_end_are_refused() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    for depth in [33, 90, 5_000] {
        // Encoded by hand: a client library would refuse to write the deepest ones.
        let mut value = vec![0x10, 0x01];
        for _ in 0..depth {
            value = nested(0x2a, &nested(0x0a, &value));
        }
        let entry = [nested(0x0a, b"limit"), nested(0x12, &value)].concat();
        let attempt = nested(0x2a, &entry);
        let answer = call(cardea.grpc, DECIDE, &[], frame(&nested(0x0a, &attempt))).await?;
        assert_eq!(answer.status, 200);
        if answer.grpc_status == Some(0) {
            use prost::Message as _;
            let verdict = v1::DecideResponse::decode(answer.body.slice(5..))?.verdict.unwrap_or_default();
            assert_eq!(verdict.decision(), Decision::Deny, "depth {depth}");
        }
    }
    still_serves(&mut cardea, &mut clients).await
}

/// A length-delimited protobuf field.
fn nested(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![tag];
    let mut length = content.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            field.push(low);
            break;
        }
        field.push(low | 0x80);
    }
    field.extend_from_slice(content);
    field
}

#[tokio::test]
async fn an_oversized_body_or_header_set_is_refused() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let answer = call(cardea.grpc, DECIDE, &[], frame(&vec![0; 2 << 20])).await;
    if let Ok(answer) = answer {
        assert!(answer.grpc_status.is_some_and(|status| status != 0) || answer.status >= 400, "{answer:?}");
    }
    // A frame that only claims to be huge must not be waited or allocated for.
    let claims = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    let answer = call(cardea.grpc, DECIDE, &[], claims).await?;
    assert!(answer.grpc_status.is_some_and(|status| status != 0), "{answer:?}");

    let large = [("x-filler", "a".repeat(60_000))];
    if let Ok(answer) = call(cardea.grpc, DECIDE, &large, frame(&[])).await {
        assert!(answer.status == 431 || answer.grpc_status.is_some_and(|status| status != 0), "{answer:?}");
    }
    still_serves(&mut cardea, &mut clients).await
}

#[tokio::test]
async fn what_is_not_grpc_or_not_a_method_is_refused() -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (mut cardea, mut clients) = started().await?;
    for path in ["/cardea.v1.DecisionService/Nothing", "/nothing.Service/Decide", "/", "/../Decide"] {
        let answer = call(cardea.grpc, path, &[], frame(&[])).await?;
        let unimplemented = i32::from(tonic::Code::Unimplemented);
        assert!(answer.grpc_status == Some(unimplemented) || answer.status == 404, "{path}: {answer:?}");
    }
    for noise in
        [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"\0\0\0\0", b""]
    {
        let mut socket = tokio::net::TcpStream::connect(cardea.grpc).await?;
        socket.write_all(noise).await?;
        socket.shutdown().await?;
        let mut answer = Vec::new();
        // Any answer will do, and so will a reset.
        let _ =
            cardea_tests::wait::within("the end of the connection", socket.read_to_end(&mut answer)).await?;
    }
    still_serves(&mut cardea, &mut clients).await
}

#[tokio::test]
async fn malformed_sessions_and_signals_are_refused() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let refused = |status: Option<tonic::Status>, what: &str| {
        assert_eq!(status.map(|status| status.code()), Some(tonic::Code::InvalidArgument), "{what}");
    };
    let session =
        |id: String| v1::Session { id, principal: entity("Agent::a").ok(), ..v1::Session::default() };
    for (what, session) in [
        ("no session", None),
        ("an empty id", Some(session(String::new()))),
        ("an over-long id", Some(session("x".repeat(129)))),
        ("no principal", Some(v1::Session { principal: None, ..session("a".to_owned()) })),
        ("an impossible level", Some(v1::Session { aal: 9, ..session("a".to_owned()) })),
    ] {
        refused(clients.session.open(v1::OpenSessionRequest { session }).await.err(), what);
    }
    let risk = |severity, confidence| v1::RiskObserved {
        kind: v1::RiskKind::Operator.into(),
        severity,
        confidence,
        half_life: None,
        reason: String::new(),
    };
    let signal = |subject, change| v1::Signal { subject, change, ..v1::Signal::default() };
    let subject = Some(entity("Agent::a")?);
    for (what, signals) in [
        ("no change", vec![signal(subject.clone(), None)]),
        ("no subject", vec![signal(None, Some(v1::signal::Change::Risk(risk(50, 100))))]),
        ("a severity of 101", vec![signal(subject.clone(), Some(v1::signal::Change::Risk(risk(101, 100))))]),
        ("a confidence of 101", vec![signal(subject.clone(), Some(v1::signal::Change::Risk(risk(50, 101))))]),
        (
            "an unknown kind",
            vec![signal(
                subject.clone(),
                Some(v1::signal::Change::Risk(v1::RiskObserved { kind: 99, ..risk(50, 100) })),
            )],
        ),
        ("too many", vec![signal(subject, Some(v1::signal::Change::Risk(risk(1, 1)))); 1025]),
    ] {
        refused(clients.signal.report(v1::ReportSignalsRequest { signals }).await.err(), what);
    }
    still_serves(&mut cardea, &mut clients).await
}
