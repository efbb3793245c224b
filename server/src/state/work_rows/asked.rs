//! What a reviewer is shown of an attempt, as a part of its review's row.

use cardea_core::asked::Asked;
use cardea_core::observed;
use prost::Message;
use smol_str::SmolStr;

use super::texts;

#[derive(Clone, PartialEq, Message)]
pub(super) struct AskedRow {
    #[prost(string, tag = "1")]
    assessment: String,
    #[prost(uint32, tag = "2")]
    confidence: u32,
    #[prost(string, repeated, tag = "3")]
    flags: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    evidence: Vec<String>,
    #[prost(string, tag = "5")]
    baseline: String,
    #[prost(message, optional, tag = "6")]
    named: Option<NamedRow>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedRow {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(string, repeated, tag = "2")]
    targets: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    references: Vec<String>,
    #[prost(string, tag = "4")]
    network: String,
}

pub(super) fn asked_row(asked: &Asked) -> AskedRow {
    let Asked { assessment, confidence, flags, evidence, baseline, named } = asked;
    AskedRow {
        assessment: assessment.to_string(),
        confidence: u32::from(*confidence),
        flags: texts(flags),
        evidence: texts(evidence),
        baseline: baseline.to_string(),
        named: named.as_ref().map(|named| NamedRow {
            task: named.task.to_string(),
            targets: texts(&named.targets),
            references: texts(&named.references),
            network: named.network.to_string(),
        }),
    }
}

pub(super) fn to_asked(row: AskedRow) -> Asked {
    let short = |texts: Vec<String>| texts.into_iter().map(SmolStr::from).collect();
    Asked {
        assessment: row.assessment.into(),
        confidence: u8::try_from(row.confidence).unwrap_or(u8::MAX),
        flags: short(row.flags),
        evidence: short(row.evidence),
        baseline: row.baseline.into(),
        named: row.named.map(|named| observed::Named {
            task: named.task.into(),
            targets: short(named.targets),
            references: short(named.references),
            network: named.network.into(),
        }),
    }
}
