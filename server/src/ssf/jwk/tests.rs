//! Sets of keys: what is left out, and what makes a set useless.
#![expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]

use serde_json::json;

use super::super::testing::{Issuer, encode};
use super::*;

fn parse(set: &Value) -> Result<KeySet, KeySetFault> {
    KeySet::parse(set.to_string().as_bytes())
}

fn of(key: Value) -> Value {
    json!({"keys": [key]})
}

#[test]
fn keys_that_must_not_be_used_are_left_out() {
    let good = Issuer::new().jwks();
    let (rsa, p256, ed) = (&good["keys"][0], &good["keys"][1], &good["keys"][2]);
    let with = |key: &Value, member: &str, value: Value| {
        let mut key = key.clone();
        key[member] = value;
        key
    };
    let short = vec![0xff; 255];
    let long = vec![0xff; 1025];
    for bad in [
        json!({"kty": "oct", "kid": "s", "k": encode("secret")}),
        json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": encode("secret")}),
        with(rsa, "n", json!(encode(&short))),
        with(rsa, "n", json!(encode([&[0][..], &short].concat()))),
        with(rsa, "n", json!(encode(&long))),
        with(rsa, "n", json!("")),
        with(rsa, "e", json!("")),
        with(rsa, "e", json!(encode([2]))),
        with(rsa, "e", json!(encode([0xff; 6]))),
        with(rsa, "use", json!("enc")),
        with(rsa, "use", json!(1)),
        with(rsa, "key_ops", json!(["encrypt"])),
        with(rsa, "alg", json!("RS512")),
        with(rsa, "alg", json!("HS256")),
        with(rsa, "alg", json!("ES256")),
        with(rsa, "d", json!(encode("private"))),
        with(rsa, "kid", json!(7)),
        with(rsa, "kid", json!("k".repeat(KID_BYTES_MAX + 1))),
        with(p256, "crv", json!("P-384")),
        with(p256, "crv", json!("secp256k1")),
        with(p256, "x", json!(encode([1; 31]))),
        with(ed, "crv", json!("X25519")),
        with(ed, "x", json!(encode([1; 33]))),
        json!("key"),
    ] {
        assert!(matches!(parse(&of(bad.clone())), Err(KeySetFault::NoneUsable(1))), "{bad}");
        let beside = json!({"keys": [bad, rsa]});
        assert_eq!(parse(&beside).unwrap().counts(), (1, 1), "the good one beside it counts");
    }
}

#[test]
fn what_is_no_set_is_refused() {
    for bad in [json!([]), json!({}), json!({"keys": {}}), json!({"keys": []})] {
        assert!(parse(&bad).is_err(), "{bad}");
    }
    assert!(KeySet::parse(b"<html>").is_err());
    let rsa = Issuer::new().jwks()["keys"][0].clone();
    assert!(matches!(parse(&json!({"keys": vec![rsa; KEYS_MAX + 1]})), Err(KeySetFault::TooMany)));
}

#[test]
fn of_two_keys_with_one_name_the_first_counts() {
    let (one, other) = (Issuer::new().jwks(), Issuer::new().jwks());
    let set = parse(&json!({"keys": [one["keys"][1], other["keys"][1]]})).unwrap();
    let first = parse(&json!({"keys": [one["keys"][1]]})).unwrap();
    assert_eq!(set.find(Some("p256"), Algorithm::Es256), first.find(Some("p256"), Algorithm::Es256));
    assert_eq!(set.find(Some("p256"), Algorithm::Rs256), None);
}
