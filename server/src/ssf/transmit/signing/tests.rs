//! Keys: how they are made, kept, rolled; and that others can verify what they sign.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

const DAY_MS: i64 = 86_400_000;

/// A signer with one key that signs.
pub(in crate::ssf::transmit) fn signer(dir: &Path) -> Signer {
    let (signer, gone) = Signer::open(dir, Vec::new()).unwrap();
    assert!(gone.is_empty());
    signer.publish(signer.make(0).unwrap());
    signer.promote(0);
    signer
}

fn openssl(arguments: &[&str], input: Option<&[u8]>) -> (bool, Vec<u8>) {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the openssl command");
    child.stdin.take().unwrap().write_all(input.unwrap_or_default()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), output.stdout)
}

#[test]
fn openssl_verifies_what_was_signed_and_refuses_what_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer(dir.path());
    let claims = r#"{"iss":"https://t.example"}"#;
    let signed = signer.sign(claims).unwrap();
    let (signing_input, signature) = signed.token.rsplit_once('.').unwrap();
    let (header, payload) = signing_input.split_once('.').unwrap();
    assert_eq!(B64.decode(payload).unwrap(), claims.as_bytes());
    let header: Value = serde_json::from_slice(&B64.decode(header).unwrap()).unwrap();
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("secevent+jwt")));
    let jwks = signer.jwks();
    assert_eq!(header["kid"], jwks["keys"][0]["kid"]);
    // The public key as its own reader finds it in the private file.
    let file = dir.path().join(format!("{}.p8", signed.kid));
    let file = file.to_str().unwrap();
    let (ok, public) = openssl(&["pkey", "-inform", "DER", "-in", file, "-pubout"], None);
    assert!(ok, "openssl reads the key file");
    let public_file = dir.path().join("public.pem");
    fs::write(&public_file, public).unwrap();
    let public_file = public_file.to_str().unwrap();
    let (_, modulus) = openssl(&["rsa", "-pubin", "-in", public_file, "-noout", "-modulus"], None);
    let n = B64.decode(jwks["keys"][0]["n"].as_str().unwrap()).unwrap();
    let n: String = n.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(String::from_utf8(modulus).unwrap().trim(), format!("Modulus={n}"));
    assert_eq!(n.len() * 4, limits::SSF_KEY_BITS);
    let signature_file = dir.path().join("signature");
    fs::write(&signature_file, B64.decode(signature).unwrap()).unwrap();
    let verify = ["dgst", "-sha256", "-verify", public_file, "-signature", signature_file.to_str().unwrap()];
    assert!(openssl(&verify, Some(signing_input.as_bytes())).0);
    assert!(!openssl(&verify, Some(format!("{signing_input}x").as_bytes())).0);
}

#[test]
fn a_key_file_is_its_owners_alone_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let first = signer(&keys);
    let lives = first.lives();
    let file = path_of(&keys, &lives[0].kid);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
    let (second, gone) = Signer::open(&keys, lives.clone()).unwrap();
    assert_eq!((second.lives(), second.jwks(), gone), (lives.clone(), first.jwks(), Vec::new()));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Signer::open(&keys, lives.clone()), Err(KeyFault::Open(_))));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, b"not a key").unwrap();
    assert!(matches!(Signer::open(&keys, lives.clone()), Err(KeyFault::Content(_))));
    fs::remove_file(&file).unwrap();
    let (third, gone) = Signer::open(&keys, lives.clone()).unwrap();
    assert_eq!((third.lives(), gone), (Vec::new(), lives));
}

#[test]
fn a_key_in_the_file_of_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer(dir.path());
    let life = signer.lives().remove(0);
    fs::rename(path_of(dir.path(), &life.kid), path_of(dir.path(), "another")).unwrap();
    let other = Life { kid: "another".into(), ..life };
    assert!(matches!(Signer::open(dir.path(), vec![other]), Err(KeyFault::Content(_))));
}

/// What rolling does to the lives of keys, without making any.
fn roll(keys: &mut Vec<Life>, signs_ms: i64, now_ms: i64, made: &mut u32) {
    while let Some(step) = due(keys, signs_ms, now_ms) {
        match step {
            Step::Make => {
                *made += 1;
                keys.push(Life {
                    kid: made.to_string().into(),
                    made_ms: now_ms,
                    signs_ms: None,
                    ended_ms: None,
                });
            }
            Step::Promote => {
                for key in keys.iter_mut() {
                    match (key.signs_ms, key.ended_ms) {
                        (None, _) => key.signs_ms = Some(now_ms),
                        (Some(_), None) => key.ended_ms = Some(now_ms),
                        _ => {}
                    }
                }
            }
            Step::Forget(kid) => keys.retain(|key| key.kid != kid),
        }
    }
}

proptest! {
    #[test]
    fn keys_are_known_before_and_after_they_sign(
        days in 2..40_i64,
        waits_ms in prop::collection::vec(0..(20 * DAY_MS), 1..80),
    ) {
        let signs_ms = days * DAY_MS;
        let (mut keys, mut now, mut made) = (Vec::new(), 0, 0);
        let mut last_signed = std::collections::BTreeMap::new();
        roll(&mut keys, signs_ms, now, &mut made);
        for wait in waits_ms {
            let signing = keys.iter().find(|key| key.signs_ms.is_some() && key.ended_ms.is_none()).unwrap();
            let first = signing.kid == "1";
            let known = signing.signs_ms.unwrap() - signing.made_ms;
            prop_assert!(first || known >= millis(limits::SSF_KEY_AHEAD), "{known}");
            // It signs up to the instant at which the keys are looked after again.
            now += wait;
            last_signed.insert(signing.kid.clone(), now);
            roll(&mut keys, signs_ms, now, &mut made);
            for (kid, last) in &last_signed {
                let published = keys.iter().any(|key| key.kid == *kid);
                prop_assert!(published || now - last >= millis(limits::SSF_KEY_KEEP), "{kid}");
            }
            let signing = keys.iter().filter(|key| key.signs_ms.is_some() && key.ended_ms.is_none());
            prop_assert_eq!(signing.count(), 1);
            prop_assert!(keys.len() <= 8, "{keys:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_rolls_nothing(back in 0..(400 * DAY_MS)) {
        let (mut keys, mut made) = (Vec::new(), 0);
        roll(&mut keys, 30 * DAY_MS, 0, &mut made);
        let before = keys.clone();
        roll(&mut keys, 30 * DAY_MS, -back, &mut made);
        prop_assert_eq!(keys, before);
    }
}
