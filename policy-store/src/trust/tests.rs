use super::*;
use crate::dsse::{Signature, pae};
use crate::keys::PrivateKey;
use crate::load::Files;
use crate::pack;
use crate::statement::{CheckEvidence, PAYLOAD_TYPE, TestEvidence, Tool};

const NOW: i64 = 1_790_000_000_000;

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap().0
}

fn bundle(change: impl FnOnce(&mut Manifest)) -> (Packed, Manifest) {
    let files = Files::from([("bundle.toml".into(), b"name = \"t\"".to_vec())]);
    let mut manifest = pack::manifest_for("t", 7, &files);
    change(&mut manifest);
    let packed = Packed::new(manifest, &files).unwrap();
    let manifest = packed.unpack().unwrap().manifest;
    (packed, manifest)
}

fn evidence() -> Evidence {
    Evidence {
        name: "t".into(),
        revision: 7,
        tool: Tool { name: "cardea".into(), version: "0".into() },
        check: CheckEvidence { errors: 0, warnings: 1 },
        tests: Some(TestEvidence { passed: 12, failed: 0, coverage_permille: 905 }),
    }
}

fn signed_as(packed: &Packed, payload_type: &str, payload: &[u8], keys: &[&PrivateKey]) -> Packed {
    let message = pae(payload_type, payload);
    let sign =
        |key: &&PrivateKey| Signature { key_id: key.public().id().to_string(), bytes: key.sign(&message) };
    let envelope = Envelope {
        payload_type: payload_type.into(),
        payload: payload.to_vec(),
        signatures: keys.iter().map(sign).collect(),
    };
    packed.with_envelope(&envelope.to_json())
}

fn signed(packed: &Packed, manifest: &Manifest, evidence: Evidence, keys: &[&PrivateKey]) -> Packed {
    let payload = Statement::about(packed.digest(), manifest, evidence).to_json();
    signed_as(packed, PAYLOAD_TYPE, &payload, keys)
}

fn trust(threshold: usize, keys: &[&PrivateKey], more: &str) -> Trust {
    let keys: String = keys
        .iter()
        .enumerate()
        .map(|(at, key)| {
            format!("[[key]]\nname = \"k{at}\"\npublic_key = \"{}\"\n", key.public().to_base64())
        })
        .collect();
    Trust::parse("trust.toml", &format!("threshold = {threshold}\n{keys}{more}")).unwrap()
}

#[test]
fn a_bundle_signed_by_enough_trusted_keys_is_verified() {
    let (a, b, c) = (key(), key(), key());
    let (packed, manifest) = bundle(|_| ());
    let trust = trust(2, &[&a, &b, &c], "");
    let by = |keys: &[&PrivateKey]| {
        trust
            .verify(&signed(&packed, &manifest, evidence(), keys), NOW, Expiry::Refuse)
            .map(|found| found.signed_by)
    };
    assert_eq!(by(&[&c, &a]).unwrap(), ["k0", "k2"]);
    let few = by(&[&b]).unwrap_err();
    assert_eq!(few.to_string(), "1 of 2 trusted keys signed the bundle: k1");
    assert_eq!(by(&[&b, &b, &b]).unwrap_err(), few, "a key counts once");
    let stranger = key();
    assert_eq!(by(&[&stranger]).unwrap_err().rule(), "too_few_keys");
    assert!(by(&[&stranger, &a, &b]).is_ok(), "what strangers sign does not matter");
}

#[test]
fn a_bundle_without_a_signature_is_refused() {
    let a = key();
    let (packed, _) = bundle(|_| ());
    assert_eq!(trust(1, &[&a], "").verify(&packed, NOW, Expiry::Refuse).unwrap_err(), Refusal::Unsigned);
    assert!(accept_unsigned(&packed, NOW, Expiry::Refuse).is_ok());
}

#[test]
fn no_byte_of_a_signed_bundle_can_be_changed() {
    let (a, b) = (key(), key());
    let (packed, manifest) = bundle(|_| ());
    let signed = signed(&packed, &manifest, evidence(), &[&a, &b]);
    for threshold in [1, 2] {
        let trust = trust(threshold, &[&a, &b], "");
        assert!(trust.verify(&signed, NOW, Expiry::Refuse).is_ok());
        for at in 0..signed.bytes().len() {
            let mut bytes = signed.bytes().to_vec();
            bytes[at] ^= 1 << (at % 8);
            let read = Packed::from_bytes(bytes).map_err(Refusal::from);
            let refused = read.and_then(|read| trust.verify(&read, NOW, Expiry::Refuse));
            // With one key more than needed, changing the name of a key only takes its signature away.
            let left = refused.as_ref().is_ok_and(|found| threshold == 1 && found.signed_by.len() == 1);
            assert!(refused.is_err() || left, "byte {at} of {}", signed.bytes().len());
        }
    }
}

#[test]
fn a_signature_is_for_one_bundle() {
    let a = key();
    let (packed, manifest) = bundle(|_| ());
    let (other, _) = bundle(|manifest| manifest.revision = 9);
    let trust = trust(1, &[&a], "");
    let json = signed(&packed, &manifest, evidence(), &[&a]);
    let moved = other.with_envelope(json.envelope().unwrap().unwrap());
    let refused = trust.verify(&moved, NOW, Expiry::Refuse).unwrap_err();
    assert_eq!(refused, Refusal::Statement(StatementError::Subject));

    let elsewhere = Evidence { revision: 9, ..evidence() };
    let refused =
        trust.verify(&signed(&packed, &manifest, elsewhere, &[&a]), NOW, Expiry::Refuse).unwrap_err();
    assert_eq!(refused.rule(), "evidence_mismatch");
}

#[test]
fn another_kind_of_statement_by_a_trusted_key_does_not_count() {
    let a = key();
    let (packed, manifest) = bundle(|_| ());
    let payload = Statement::about(packed.digest(), &manifest, evidence()).to_json();
    let text = String::from_utf8(payload).unwrap();
    let trust = trust(1, &[&a], "");
    let rule = |payload_type: &str, payload: &str| {
        let signed = signed_as(&packed, payload_type, payload.as_bytes(), &[&a]);
        trust.verify(&signed, NOW, Expiry::Refuse).unwrap_err().rule()
    };
    assert_eq!(rule("application/json", &text), "statement");
    assert_eq!(rule(PAYLOAD_TYPE, &text.replace("bundle-evidence", "provenance")), "statement");
    assert_eq!(rule(PAYLOAD_TYPE, &text.replace("Statement/v1", "Statement/v0")), "statement");
    assert_eq!(rule(PAYLOAD_TYPE, &text.replace("sha256", "sha512")), "statement");
    assert_eq!(rule(PAYLOAD_TYPE, "{}"), "statement");
}

#[test]
fn evidence_must_meet_what_trust_requires() {
    let a = key();
    let (packed, manifest) = bundle(|_| ());
    let rule = |require: &str, evidence: Evidence| {
        let trust = trust(1, &[&a], &format!("[require]\n{require}"));
        trust
            .verify(&signed(&packed, &manifest, evidence, &[&a]), NOW, Expiry::Refuse)
            .map_err(|found| found.rule())
    };
    let no_tests = || Evidence { tests: None, ..evidence() };
    let failing = || Evidence {
        tests: Some(TestEvidence { passed: 12, failed: 1, coverage_permille: 990 }),
        ..evidence()
    };
    let unsound = || Evidence { check: CheckEvidence { errors: 1, warnings: 0 }, ..evidence() };
    let all = "check = true\nwarnings_max = 1\ntests_min = 12\ncoverage_min = 90.5";
    assert!(rule(all, evidence()).is_ok());
    assert_eq!(rule("check = true", unsound()).unwrap_err(), "check");
    assert_eq!(rule("warnings_max = 0", evidence()).unwrap_err(), "warnings_max");
    assert_eq!(rule("tests_min = 13", evidence()).unwrap_err(), "tests_min");
    assert_eq!(rule("tests_min = 1", failing()).unwrap_err(), "tests_min");
    assert_eq!(rule("tests_min = 1", no_tests()).unwrap_err(), "tests_min");
    assert_eq!(rule("coverage_min = 90.6", evidence()).unwrap_err(), "coverage_min");
    assert_eq!(rule("coverage_min = 1", no_tests()).unwrap_err(), "coverage_min");
}

#[test]
fn a_bundle_serves_between_its_times() {
    let a = key();
    let stamp = |ms: i64| Stamp::from_unix_s(ms / 1000);
    let (packed, manifest) = bundle(|manifest| {
        manifest.not_before = stamp(NOW);
        manifest.expires = stamp(NOW + 60_000);
    });
    let signed = signed(&packed, &manifest, evidence(), &[&a]);
    let trust = trust(1, &[&a], "");
    let at = |wall_ms, expiry| trust.verify(&signed, wall_ms, expiry).map(drop).map_err(|found| found.rule());
    assert_eq!(at(NOW - 1, Expiry::Allow), Err("not_yet_valid"));
    assert_eq!(at(NOW, Expiry::Refuse), Ok(()));
    assert_eq!(at(NOW + 59_999, Expiry::Refuse), Ok(()));
    assert_eq!(at(NOW + 60_000, Expiry::Refuse), Err("expired"));
    assert_eq!(at(NOW + 60_000, Expiry::Allow), Ok(()));
}

#[test]
fn keys_are_rolled_by_time_and_by_overlap() {
    let (old, new) = (key(), key());
    let (packed, manifest) = bundle(|_| ());
    let text = format!(
        "[[key]]\nname = \"old\"\npublic_key = \"{}\"\nnot_after = \"2026-09-21T14:13:20Z\"\n\
         [[key]]\nname = \"new\"\npublic_key = \"{}\"\nnot_before = \"2026-09-21T14:13:19Z\"\n",
        old.public().to_base64(),
        new.public().to_base64()
    );
    let trust = Trust::parse("trust.toml", &text).unwrap();
    let by = |key: &PrivateKey, wall_ms| {
        trust.verify(&signed(&packed, &manifest, evidence(), &[key]), wall_ms, Expiry::Refuse).is_ok()
    };
    assert_eq!([by(&old, NOW - 1), by(&old, NOW)], [true, false]);
    assert_eq!([by(&new, NOW - 1001), by(&new, NOW - 1000)], [false, true]);
    let both = signed(&packed, &manifest, evidence(), &[&old, &new]);
    for wall_ms in [NOW - 5000, NOW - 500, NOW + 5000] {
        assert!(
            trust.verify(&both, wall_ms, Expiry::Refuse).is_ok(),
            "signed with both it is valid throughout"
        );
    }
}

#[test]
fn only_the_named_bundle_is_taken() {
    let a = key();
    let (packed, manifest) = bundle(|_| ());
    let text =
        format!("name = \"other\"\n[[key]]\nname = \"a\"\npublic_key = \"{}\"", a.public().to_base64());
    let trust = Trust::parse("trust.toml", &text).unwrap();
    let refused =
        trust.verify(&signed(&packed, &manifest, evidence(), &[&a]), NOW, Expiry::Refuse).unwrap_err();
    assert_eq!(refused.rule(), "wrong_name");
}

#[test]
fn a_trust_file_that_trusts_nobody_or_the_same_key_twice_is_refused() {
    let public = key().public().to_base64();
    let faults = |text: &str| Trust::parse("trust.toml", text).unwrap_err().to_string();
    assert!(faults("").contains("has 0 keys"));
    let one = format!("[[key]]\nname = \"a\"\npublic_key = \"{public}\"\n");
    assert!(faults(&format!("threshold = 2\n{one}")).contains("2 signatures of 1 keys"));
    assert!(faults(&format!("threshold = 0\n{one}")).contains("0 signatures"));
    assert!(faults(&format!("{one}{}", one.replace("\"a\"", "\"b\""))).contains("is there twice"));
    assert!(
        faults(&one.replace("public_key = \"M", "public_key = \"X")).contains("not an Ed25519 public key")
    );
    assert!(faults(&format!("treshold = 1\n{one}")).starts_with("trust.toml:1:1: unknown field `treshold`"));
    assert!(faults(&format!("{one}[require]\ncoverage_min = 101.0")).contains("not a percentage"));
}
