//! Scores of vendors over HTTP: `POST /signals`, a small JSON for those who do not speak gRPC.
//!
//! A report, or a list of them, becomes the signals of `cardea.v1.SignalService` and takes the same way. All are read before
//! any is applied. The caller shows a bearer token. Limits: [`limits::SSF_SCORES_BYTES_MAX`] for a body,
//! [`limits::BATCH_ATTEMPTS_MAX`] reports.
//! Never does: reading a body before it knows who asks.

use cardea_proto::v1;
use cardea_proto::v1::signal_service_server::SignalService as _;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Request};

use super::signals::{SignalDoor, outcome_name};
use crate::limits;
use crate::ssf::guard::Guard;
use crate::ssf::http::{self as port, Answer, Answering, Part};
use crate::ssf::json as strict;

const PATH: &str = "/signals";

/// See the module.
#[derive(Debug)]
pub(crate) struct ScoreDoor {
    signals: SignalDoor,
    guard: Guard,
}

/// One report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    subject: Subject,
    /// `vendor_score`, `credential_compromise`, …
    kind: String,
    /// 0 to 100; 0 clears the kind.
    severity: u32,
    /// 0 to 100.
    #[serde(default = "certain")]
    confidence: u32,
    /// Missing: the bundle's default.
    half_life_s: Option<i64>,
    /// RFC 3339; missing: now.
    event_time: Option<String>,
    /// What it rests on: a text, or anything else, which is recorded as JSON.
    evidence: Option<Value>,
    /// Who says so; missing: `http`.
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    #[serde(rename = "type")]
    type_name: String,
    id: String,
}

fn certain() -> u32 {
    100
}

impl ScoreDoor {
    pub(crate) fn new(signals: SignalDoor, guard: Guard) -> Self {
        Self { signals, guard }
    }

    async fn take(&self, head: Parts, body: Incoming) -> Answer {
        let shown = port::authorization(&head.headers).unwrap_or_default();
        if !bearer(shown).is_some_and(|token| self.guard.lets_in(token)) {
            let mut answer = fault(
                StatusCode::UNAUTHORIZED,
                "show the token that was agreed on as `Authorization: Bearer …`",
            );
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        if head.method != Method::POST {
            return port::not_offered(&Method::POST);
        }
        if !port::is_of_type(&head.headers, "application/json") {
            return fault(StatusCode::BAD_REQUEST, "`Content-Type` must be application/json");
        }
        let body = match port::read(body, limits::SSF_SCORES_BYTES_MAX).await {
            Ok(body) => body,
            Err(error @ port::BodyFault::TooLarge(_)) => {
                return fault(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string());
            }
            Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let signals = match read(&body) {
            Ok(signals) => signals,
            Err(why) => return fault(StatusCode::BAD_REQUEST, &why),
        };
        match self.signals.report(Request::new(v1::ReportSignalsRequest { signals })).await {
            Ok(reported) => {
                let reported = reported.into_inner();
                let outcomes: Vec<&str> = reported.outcomes().map(outcome_name).collect();
                port::json(
                    StatusCode::OK,
                    &json!({"outcomes": outcomes, "state_version": reported.state_version}),
                )
            }
            Err(status) => {
                let is_callers = status.code() == Code::InvalidArgument;
                let code = if is_callers { StatusCode::BAD_REQUEST } else { StatusCode::SERVICE_UNAVAILABLE };
                let mut answer = fault(code, status.message());
                if code == StatusCode::SERVICE_UNAVAILABLE {
                    answer.headers_mut().insert(RETRY_AFTER, limits::SSF_RETRY_AFTER_S.into());
                }
                answer
            }
        }
    }
}

impl Part for ScoreDoor {
    fn owns(&self, path: &str) -> bool {
        path == PATH
    }

    fn answer(&self, head: Parts, body: Incoming) -> Answering<'_> {
        Box::pin(self.take(head, body))
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn read(body: &[u8]) -> Result<Vec<v1::Signal>, String> {
    let reports = strict::parse(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let reports = if let Value::Array(reports) = reports { reports } else { vec![reports] };
    if reports.len() > limits::BATCH_ATTEMPTS_MAX {
        return Err(format!("send at most {} reports in one request", limits::BATCH_ATTEMPTS_MAX));
    }
    let read = reports.into_iter().enumerate().map(|(index, report)| {
        let report = serde_json::from_value::<Report>(report).map_err(|error| error.to_string());
        report.and_then(signal).map_err(|why| format!("report {}: {why}", index + 1))
    });
    read.collect()
}

fn signal(report: Report) -> Result<v1::Signal, String> {
    let name = format!("RISK_KIND_{}", report.kind.to_ascii_uppercase());
    let kind = v1::RiskKind::from_str_name(&name).filter(|kind| *kind != v1::RiskKind::Unspecified);
    let kind = kind.filter(|_| report.kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    let kind = kind.ok_or_else(|| {
        format!(
            "`kind` is none of {}",
            cardea_core::risk::RiskKind::ALL.map(cardea_core::risk::RiskKind::name).join(", ")
        )
    })?;
    let event_time = report.event_time.map(|text| at(&text)).transpose()?;
    let reason = match report.evidence {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(evidence) => evidence.to_string(),
    };
    let observed = v1::RiskObserved {
        kind: kind.into(),
        severity: report.severity,
        confidence: report.confidence,
        half_life: report.half_life_s.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        reason,
    };
    Ok(v1::Signal {
        subject: Some(v1::EntityRef { r#type: report.subject.type_name, id: report.subject.id }),
        event_time,
        source: report.source.unwrap_or_else(|| "http".to_owned()),
        change: Some(v1::signal::Change::Risk(observed)),
    })
}

fn at(text: &str) -> Result<prost_types::Timestamp, String> {
    let at: Timestamp = text.parse().map_err(|_| {
        "`event_time` is no time in the form of RFC 3339, such as 2026-01-02T03:04:05Z".to_owned()
    })?;
    Ok(prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

fn fault(status: StatusCode, why: &str) -> Answer {
    port::json(status, &json!({"error": why}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]
    fn one(report: Value) -> Result<v1::Signal, String> {
        read(report.to_string().as_bytes()).map(|mut signals| signals.remove(0))
    }

    fn good() -> Value {
        json!({
            "subject": {"type": "User", "id": "ada"},
            "kind": "vendor_score",
            "severity": 80,
            "confidence": 90,
            "half_life_s": 3600,
            "event_time": "2026-01-02T03:04:05Z",
            "evidence": {"rule": "R-17"},
        })
    }

    #[test]
    fn a_report_is_the_signal_that_grpc_would_bring() {
        let signal = one(good()).unwrap();
        assert_eq!(signal.source, "http");
        assert_eq!(signal.event_time.unwrap().seconds, 1_767_323_045);
        let Some(v1::signal::Change::Risk(risk)) = signal.change else { panic!("a risk") };
        assert_eq!((risk.kind(), risk.severity, risk.confidence), (v1::RiskKind::VendorScore, 80, 90));
        assert_eq!((risk.half_life.unwrap().seconds, risk.reason.as_str()), (3600, r#"{"rule":"R-17"}"#));
        let least = json!({"subject": {"type": "User", "id": "a"}, "kind": "operator", "severity": 0});
        let signal = one(least).unwrap();
        let Some(v1::signal::Change::Risk(risk)) = signal.change else { panic!("a risk") };
        assert_eq!((signal.event_time, risk.confidence, risk.half_life), (None, 100, None));
        assert_eq!(read(json!([good(), good()]).to_string().as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn a_report_that_cannot_be_read_says_which_and_why() {
        for (member, value, words) in [
            ("kind", json!("VENDOR_SCORE"), "`kind` is none of"),
            ("kind", json!("unspecified"), "`kind` is none of"),
            ("severity", json!(-1), "invalid value"),
            ("severity", json!("80"), "invalid type"),
            ("event_time", json!("yesterday"), "report 1"),
            ("subject", json!("ada"), "invalid type"),
            ("severty", json!(1), "unknown field"),
        ] {
            let mut report = good();
            report[member] = value;
            let why = one(report).unwrap_err();
            assert!(why.starts_with("report 1: ") && why.contains(words), "{why}");
        }
        assert!(read(b"{").is_err() && read(b"[[]]").is_err() && read(b"7").is_err());
        assert!(read(br#"{"kind":"operator","kind":"vendor_score"}"#).unwrap_err().contains("twice"));
        let many = vec![good(); limits::BATCH_ATTEMPTS_MAX + 1];
        assert!(read(json!(many).to_string().as_bytes()).unwrap_err().contains("at most"));
    }

    #[test]
    fn the_scheme_of_a_token_is_read_in_any_case() {
        assert_eq!(bearer(b"bEARER x"), Some(&b"x"[..]));
        for none in [&b""[..], b"Bearer", b"Basic x", b"Bearerx"] {
            assert_eq!(bearer(none), None);
        }
    }
}
