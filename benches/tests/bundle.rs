//! The comparison's bundle and request fit each other: Cedar allows every variant while its session is young and its
//! risk low, by the one policy meant for it; a high risk turns the answer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::{collections::BTreeSet, fs, path::Path};

use cardea_benches::request::{DEFAULT_REQUEST, Overrides, variant};
use cardea_proto::v1::{EntityRef, value::Kind};
use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, Response};
use serde_json::json;

const VARIANTS: u32 = 10;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle").join(name)).unwrap()
}

fn uid(entity: Option<&EntityRef>) -> EntityUid {
    let entity = entity.unwrap();
    EntityUid::from_json(json!({ "type": entity.r#type, "id": entity.id })).unwrap()
}

/// Cedar's answer to variant `n` at a risk score, with the facts that Cardea would gather.
fn answer(n: u32, risk: u8) -> Response {
    let attempt = variant(DEFAULT_REQUEST, n, &Overrides::default()).unwrap().attempt;
    let plain = |kind: Option<Kind>| match kind {
        Some(Kind::Bool(flag)) => json!(flag),
        Some(Kind::Long(number)) => json!(number),
        Some(Kind::String(text)) => json!(text),
        other => panic!("the request has a value that this test does not know: {other:?}"),
    };
    let fields: serde_json::Map<_, _> =
        attempt.context.into_iter().map(|(name, value)| (name, plain(value.kind))).collect();
    let context =
        json!({ "session": { "known": true, "age_s": 10 }, "risk": { "score": risk }, "request": fields });
    let request = Request::new(
        uid(attempt.principal.as_ref()),
        uid(attempt.action.as_ref()),
        uid(attempt.resource.as_ref()),
        Context::from_json_value(context, None).unwrap(),
        None,
    )
    .unwrap();
    let policies: PolicySet =
        (read("policies/relevant.cedar") + &read("policies/others.cedar")).parse().unwrap();
    let entities = Entities::from_json_str(&read("entities.json"), None).unwrap();
    Authorizer::new().is_authorized(&request, &policies, &entities)
}

#[test]
fn every_variant_is_allowed_by_one_policy() {
    for n in 0..VARIANTS {
        let answer = answer(n, 0);
        assert_eq!(answer.decision(), Decision::Allow, "variant {n}: {answer:?}");
        let determining: BTreeSet<_> = answer.diagnostics().reason().collect();
        assert_eq!(determining.len(), 1, "variant {n}: {determining:?}");
        assert_eq!(answer.diagnostics().errors().count(), 0, "variant {n}");
    }
}

#[test]
fn the_forbids_read_the_risk() {
    for risk in [50, 90] {
        assert_eq!(answer(0, risk).decision(), Decision::Deny, "risk {risk}");
    }
}
