use proptest::prelude::*;

use super::*;
use crate::keys::PrivateKey;

fn signed(payload: &[u8], keys: &[&PrivateKey]) -> Envelope {
    let message = pae("t", payload);
    let signatures = keys
        .iter()
        .map(|key| Signature { key_id: key.public().id().to_string(), bytes: key.sign(&message) })
        .collect();
    Envelope { payload_type: "t".into(), payload: payload.to_vec(), signatures }
}

#[test]
fn the_vector_of_the_protocol_is_verified() {
    let path = std::path::Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/data/vectors/dsse/dsse-helloworld.json"
    ));
    let Ok(text) = std::fs::read(path) else {
        println!("skipped: {} is absent", path.display());
        return;
    };
    let vector: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let text_of =
        |name: &str| vector[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {vector}")).to_owned();
    let pae = pae(&text_of("payloadType"), text_of("payload").as_bytes());
    assert_eq!(String::from_utf8(pae.clone()).unwrap(), text_of("pae"));
    let envelope = Envelope::parse(vector["envelope"].to_string().as_bytes()).unwrap();
    assert_eq!(envelope.payload, b"hello world");
    assert_eq!(envelope.signed_bytes(), pae);
    // The vector is signed with ECDSA P-256; bundles are signed with Ed25519 alone.
    let coordinate = |name: &str| {
        let mut bytes = [0_u8; 32];
        for digit in text_of(name).bytes() {
            let mut carry = u32::from(digit - b'0');
            for byte in bytes.iter_mut().rev() {
                carry += u32::from(*byte) * 10;
                *byte = u8::try_from(carry % 256).unwrap();
                carry /= 256;
            }
        }
        bytes.to_vec()
    };
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(&pae, &envelope.signatures[0].bytes).unwrap();
}

#[test]
fn a_key_counts_once_however_often_it_signed() {
    let (one, _) = PrivateKey::generate().unwrap();
    let (two, _) = PrivateKey::generate().unwrap();
    let envelope = signed(b"x", &[&one, &one, &one]);
    assert_eq!(envelope.signers(&[two.public(), one.public()]), [1]);
}

#[test]
fn a_wrong_key_id_neither_helps_nor_hurts() {
    let (one, _) = PrivateKey::generate().unwrap();
    let (two, _) = PrivateKey::generate().unwrap();
    let mut envelope = signed(b"x", &[&one]);
    envelope.signatures[0].key_id = two.public().id().to_string();
    assert_eq!(envelope.signers(&[two.public()]), [0_usize; 0]);
    assert_eq!(envelope.signers(&[one.public()]), [0]);
}

#[test]
fn both_alphabets_and_unknown_fields_are_read_and_only_one_form_is_canonical() {
    let json = br#"{"payload":"-_8","payloadType":"t","extra":1,"signatures":[{"sig":"-_8","more":2}]}"#;
    let envelope = Envelope::parse(json).unwrap();
    assert_eq!(envelope.payload, [0xfb, 0xff]);
    assert_eq!(Envelope::parse_canonical(json), Err(EnvelopeError::NotCanonical));
    assert_eq!(Envelope::parse_canonical(&envelope.to_json()), Ok(envelope));
}

#[test]
fn what_is_no_envelope_is_said_to_be_none() {
    let error = |json: &str| Envelope::parse(json.as_bytes()).unwrap_err();
    assert!(matches!(error("{"), EnvelopeError::Malformed(_)));
    assert_eq!(
        error(r#"{"payload":"","payloadType":"t","signatures":[]}"#),
        EnvelopeError::SignatureCount(0)
    );
    assert_eq!(
        error(r#"{"payload":"?","payloadType":"t","signatures":[{"sig":""}]}"#),
        EnvelopeError::NotBase64("payload")
    );
    let many = vec![r#"{"sig":""}"#; SIGNATURES_MAX + 1].join(",");
    let many = format!(r#"{{"payload":"","payloadType":"t","signatures":[{many}]}}"#);
    assert_eq!(error(&many), EnvelopeError::SignatureCount(SIGNATURES_MAX + 1));
    assert!(matches!(Envelope::parse(&vec![b' '; ENVELOPE_BYTES_MAX + 1]), Err(EnvelopeError::TooLarge(_))));
}

proptest! {
    #[test]
    fn a_flipped_bit_of_payload_type_or_signature_is_noticed(
        payload in prop::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), bit in 0..8u8
    ) {
        let (key, _) = PrivateKey::generate().unwrap();
        let envelope = signed(&payload, &[&key]);
        prop_assert_eq!(envelope.signers(&[key.public()]), vec![0]);
        let mut other = envelope.clone();
        let place = at.index(payload.len());
        other.payload[place] ^= 1 << bit;
        prop_assert!(other.signers(&[key.public()]).is_empty());
        let mut other = envelope.clone();
        let place = at.index(64);
        other.signatures[0].bytes[place] ^= 1 << bit;
        prop_assert!(other.signers(&[key.public()]).is_empty());
        let mut other = envelope;
        other.payload_type.push('x');
        prop_assert!(other.signers(&[key.public()]).is_empty());
    }

    #[test]
    fn any_bytes_are_read_or_refused(json in prop::collection::vec(any::<u8>(), 0..256)) {
        let _either = Envelope::parse(&json);
    }
}
