//! `examples/agents`: it loads without a fault or a warning, its stories come out as told, and under it more risk
//! never opens a door.
//!
//! Facts are given directly, at a fixed time; the same stories over the wire are the demo's.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code; clippy allows these in test functions only, not in what they call"
)]

use std::path::Path;
use std::sync::LazyLock;

use cardea_core::ask::AskDigest;
use cardea_core::attempt::Token;
use cardea_core::grant::Grant;
use cardea_core::risk::{RiskKind, RiskSignal};
use cardea_core::task::{ResourcePattern, Task};
use cardea_core::time::Now;
use cardea_policy_store::digest::Digest;
use cardea_policy_store::engine::Uid;
use cardea_policy_store::load;
use cardea_policy_store::snapshot::Snapshot;

mod law;
mod stories;

const NOW: Now = Now { mono_ns: 0, wall_ms: 1_800_000_000_000 };
const HOUR_MS: i64 = 3_600_000;

static BUNDLE: LazyLock<Snapshot> = LazyLock::new(|| {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agents"));
    let loaded = load::directory(dir).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    loaded.snapshot
});

fn uid((type_name, id): (&str, &str)) -> Uid {
    Uid::new(BUNDLE.type_name(type_name).unwrap(), id)
}

/// Active from an hour ago for another hour.
fn task(actions: &[&str], resources: &[&str]) -> Task {
    Task {
        id: "t".into(),
        purpose: "answer tickets".into(),
        not_before_ms: Some(NOW.wall_ms - HOUR_MS),
        not_after_ms: Some(NOW.wall_ms + HOUR_MS),
        actions: actions.iter().map(|&id| id.into()).collect(),
        resources: resources.iter().map(|&text| ResourcePattern::parse(text).unwrap()).collect(),
    }
}

fn token(age_ms: i64) -> Token {
    Token {
        issued_ms: Some(NOW.wall_ms - age_ms),
        expires_ms: Some(NOW.wall_ms + HOUR_MS),
        scopes: vec!["documents.read".into()],
        ..Token::default()
    }
}

/// Somebody approved this requirement for the attempt, an hour long.
fn grant(requirement: &str) -> Grant {
    let review = AskDigest(Digest::of(requirement.as_bytes()));
    Grant {
        review,
        requirement: requirement.into(),
        ends_ms: NOW.wall_ms + HOUR_MS,
        session_id: None,
        once: false,
    }
}

fn signal(kind: RiskKind, severity: u8, age_s: i64) -> RiskSignal {
    RiskSignal { kind, severity, confidence: 100, event_ms: NOW.wall_ms - age_s * 1000, half_life_s: 3600 }
}
