//! Log records of OpenTelemetry (OTLP 1.x over HTTP, protobuf): one for each record, with the record as its body.
//!
//! What a collector rejects of a batch it does not name; those that it rejects are counted in its answer, so the batch is sent again one by
//! one, and what is rejected alone is refused.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use reqwest::Certificate;

use super::super::options::HttpTo;
use super::http::{certificates, client, judge, post};
use super::{Event, Failed, secret};
use crate::audit::record::unix_ms;
use crate::limits;
use cardea_proto::v1::{self, record::Entry};

/// See the module.
#[derive(Debug)]
pub(in crate::audit::sinks) struct Collector {
    to: HttpTo,
    log: String,
    ca: Vec<Certificate>,
}

/// A client.
pub(in crate::audit::sinks) struct Client {
    client: reqwest::Client,
    to: HttpTo,
    log: String,
}

impl Collector {
    pub(super) fn new(to: HttpTo, log: &str) -> Result<Self, String> {
        let ca = certificates(to.ca.as_deref())?;
        if let Some(path) = &to.authorization_file {
            secret(path)?;
        }
        Ok(Self { to, log: log.to_owned(), ca })
    }

    pub(super) fn open(&self) -> Result<Client, Failed> {
        Ok(Client { client: client(&self.to, &self.ca)?, to: self.to.clone(), log: self.log.clone() })
    }
}

impl Client {
    pub(super) async fn send(&self, batch: &[Event]) -> Result<(), Failed> {
        let request =
            self.client.post(self.to.url.url().clone()).header("content-type", "application/x-protobuf");
        let body = self.export(batch).encode_to_vec();
        let mut response = post(request, body, self.to.gzip).await?;
        if !response.status().is_success() {
            return judge(&response);
        }
        let mut answer = Vec::new();
        loop {
            let chunk: Option<Bytes> = response.chunk().await.map_err(|error| Failed::later(0, error))?;
            let Some(chunk) = chunk else { break };
            answer.extend_from_slice(&chunk);
            if answer.len() > limits::SINK_ANSWER_BYTES_MAX {
                return Err(Failed::later(0, "the answer is too long"));
            }
        }
        // What is no such message says nothing about rejections.
        let partial =
            ExportLogsServiceResponse::decode(answer.as_slice()).unwrap_or_default().partial_success;
        match partial {
            Some(partial) if partial.rejected_log_records > 0 => Err(Failed::refused(
                0,
                format!("{} were rejected: {}", partial.rejected_log_records, partial.error_message),
            )),
            _ => Ok(()),
        }
    }

    fn export(&self, batch: &[Event]) -> ExportLogsServiceRequest {
        let resource = Resource {
            attributes: vec![text("service.name", "cardea"), text("service.instance.id", &self.log)],
            ..Resource::default()
        };
        let scope = InstrumentationScope {
            name: "cardea.audit".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let log_records = batch.iter().map(log_record).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs,
                ..ResourceLogs::default()
            }],
        }
    }
}

fn log_record(event: &Event) -> LogRecord {
    let ms = event.record.time.as_ref().map_or(0, unix_ms);
    let nanos = u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
    let mut attributes = vec![
        // The same each time: whoever stores records can tell a repetition.
        text("log.record.uid", &event.id),
        KeyValue {
            key: "cardea.sequence".to_owned(),
            value: Some(number(event.record.sequence)),
            ..KeyValue::default()
        },
    ];
    let (mut severity, mut severity_text) = (SeverityNumber::Info, String::new());
    if let Some(Entry::Decision(decision)) = &event.record.entry {
        attributes.push(text("cardea.decision_id", &decision.decision_id));
        attributes.push(text("cardea.decision", answer(decision.decision())));
        severity = if decision.decision() == v1::Decision::Allow {
            SeverityNumber::Info
        } else {
            SeverityNumber::Warn
        };
        severity_text.clone_from(&decision.severity);
    }
    LogRecord {
        time_unix_nano: nanos,
        observed_time_unix_nano: nanos,
        severity_number: severity.into(),
        severity_text,
        body: Some(AnyValue {
            value: Some(Value::StringValue(String::from_utf8_lossy(&event.body).into_owned())),
        }),
        attributes,
        event_name: format!("cardea.{}", event.kind),
        ..LogRecord::default()
    }
}

const fn answer(decision: v1::Decision) -> &'static str {
    match decision {
        v1::Decision::Allow => "allow",
        v1::Decision::StepUp => "step_up",
        v1::Decision::Deny | v1::Decision::Unspecified => "deny",
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn number(value: u64) -> AnyValue {
    AnyValue { value: Some(Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))) }
}
