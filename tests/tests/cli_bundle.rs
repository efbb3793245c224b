//! `cardea bundle build`, `keygen`, `sign`, `verify`, `inspect` and `rollback` as programs that a pipeline runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cardea_tests::bundle;
use cardea_tests::process::{Finished, cardea_program, run_cardea};
use cardea_tests::signed::{Publisher, good, shown};
use serde_json::Value;

fn run(arguments: &[&str]) -> Result<Finished> {
    run_cardea(&[&["bundle"], arguments].concat(), b"")
}

fn json(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))
}

/// `cardea bundle build` below a shell with this beginning.
fn build_in(cwd: &Path, beginning: &str, tree: &str, out: &Path) -> Result<Vec<u8>> {
    let line = format!("{beginning} exec \"$0\" bundle build {tree} --revision 7 -o \"$1\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).arg(cardea_program()?).arg(out).current_dir(cwd);
    let ended = command.env("SOURCE_DATE_EPOCH", "1764093600").output()?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(fs::read(out)?)
}

fn openssl(arguments: &[&str]) -> Result<String> {
    let ended = Command::new("openssl").args(arguments).output()?;
    ensure!(ended.status.success(), "{arguments:?}: {ended:?}");
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

fn age(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
            age(&path)?;
        } else {
            let old = SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106);
            fs::File::options().write(true).open(&path)?.set_modified(old)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        }
    }
    Ok(())
}

#[test]
fn the_same_tree_gives_the_same_bytes_whatever_surrounds_the_build() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(&dir.path().join("one"))?;
    fs::create_dir(dir.path().join("other"))?;
    bundle::copy_web(&dir.path().join("other/two"))?;
    age(&dir.path().join("other/two"))?;
    let at = |name: &str| dir.path().join(name);
    let first = build_in(dir.path(), "umask 022; export LC_ALL=C.UTF-8 TZ=UTC;", "one", &at("1"))?;
    let second = build_in(&at("other"), "umask 077; export LC_ALL=C TZ=Asia/Kathmandu;", "./two/", &at("2"))?;
    let third = build_in(Path::new("/"), "unset LC_ALL TZ HOME;", &shown(&at("other/two")), &at("3"))?;
    assert!(first == second && second == third, "the bytes differ");

    let key = at("k");
    good(&["keygen", "ci", "-o", &shown(&key)])?;
    for name in ["1", "2"] {
        good(&["sign", &shown(&at(name)), "--key", &shown(&key.join("ci.key"))])?;
    }
    let signed = fs::read(at("1"))?;
    assert!(signed == fs::read(at("2"))?, "signed bytes differ");
    assert_ne!(signed, first);
    // Again with the same key changes nothing.
    good(&["sign", &shown(&at("1")), "--key", &shown(&key.join("ci.key"))])?;
    assert!(signed == fs::read(at("1"))?, "a second signature of the same key changed the file");
    Ok(())
}

#[test]
fn a_build_that_cannot_be_is_refused_with_the_remedy() -> Result<()> {
    let publisher = Publisher::new()?;
    let (tree, out) = (shown(&publisher.tree()), shown(&publisher.path("out")));
    let without = run(&["build", &tree, "-o", &out])?;
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stderr.contains("--revision") && without.stderr.contains("bundle.toml"), "{without:?}");
    let nowhere = run(&["build", "/nowhere", "--revision", "1", "-o", &out])?;
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");

    bundle::edit(&publisher.tree(), "policies/access.cedar", "principal in Team", "principal in Teem")?;
    let faulty = run(&["build", &tree, "--revision", "1", "-o", &out])?;
    assert_eq!(faulty.code, Some(1), "{faulty:?}");
    assert!(faulty.stderr.contains("access.cedar") && faulty.stderr.contains("Teem"), "{faulty:?}");
    let faulty = run(&["build", &tree, "--revision", "1", "-o", &out, "--format", "json"])?;
    assert_eq!(json(&faulty)?.get("ok"), Some(&Value::Bool(false)));
    assert_eq!(fs::read_dir(publisher.path("out"))?.count(), 0, "something was written");
    Ok(())
}

#[test]
fn verify_tells_good_from_bad_from_could_not_run() -> Result<()> {
    let publisher = Publisher::new()?;
    let file =
        publisher.build(7, &["--not-before", "2026-01-01T00:00:00Z", "--expires", "2026-02-01T00:00:00Z"])?;
    let (name, trust) = (shown(&file), shown(&publisher.path("trust.toml")));
    let at = |time: &str| run(&["verify", &name, "--trust", &trust, "--at", time, "--format", "json"]);
    let inside = "2026-01-15T00:00:00Z";
    let finding = |finished: &Finished, rule: &str| -> Result<bool> {
        let findings = json(finished)?.get("findings").map(ToString::to_string).unwrap_or_default();
        Ok(finished.code == Some(1) && findings.contains(&format!("[{rule}]")))
    };
    assert!(finding(&at(inside)?, "unsigned")?);
    publisher.sign(&file, "stranger")?;
    assert!(finding(&at(inside)?, "too_few_keys")?);
    publisher.sign(&file, "ci")?;
    let good = at(inside)?;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert_eq!(json(&good)?.get("signed_by"), Some(&serde_json::json!(["ci"])));
    assert!(finding(&at("2025-12-31T23:59:59Z")?, "not_yet_valid")?);
    assert!(finding(&at("2026-02-01T00:00:00Z")?, "expired")?);

    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 4;
    bytes[middle] ^= 1;
    fs::write(&file, bytes)?;
    assert!(finding(&at(inside)?, "statement")?, "{:?}", at(inside)?);
    for (file, trust) in [("/nowhere", trust.as_str()), (&name, "/nowhere"), (&name, &name)] {
        let ended = run(&["verify", file, "--trust", trust])?;
        assert_eq!(ended.code, Some(2), "{file} {trust}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_key_is_for_its_owner_and_is_never_overwritten() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let keys = shown(dir.path());
    let line = "umask 000; exec \"$0\" bundle keygen ci -o \"$1\"";
    let made = Command::new("sh").args(["-c", line]).arg(cardea_program()?).arg(&keys).output()?;
    assert!(made.status.success(), "{made:?}");
    let private = dir.path().join("ci.key");
    assert_eq!(fs::metadata(&private)?.permissions().mode() & 0o777, 0o600);
    let before = fs::read(&private)?;
    let shown = String::from_utf8_lossy(&made.stdout).into_owned();
    let secret = String::from_utf8_lossy(&before).lines().nth(1).context("no PEM")?.to_owned();
    assert!(!shown.contains(&secret), "the private key was printed");
    let again = run(&["keygen", "ci", "-o", &keys])?;
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("not overwritten"), "{again:?}");
    assert_eq!(fs::read(&private)?, before);

    // Only the public half is there: nothing is left behind that nobody trusts.
    fs::remove_file(&private)?;
    assert_eq!(run(&["keygen", "ci", "-o", &keys])?.code, Some(2));
    assert!(!private.exists());
    for bad in ["", "../ci", ".ci", "a b"] {
        assert_eq!(run(&["keygen", bad, "-o", &keys])?.code, Some(2), "{bad}");
    }
    Ok(())
}

#[test]
fn openssl_reads_the_keys_makes_ones_that_sign_and_verifies_the_signature() -> Result<()> {
    let publisher = Publisher::new()?;
    let file = publisher.signed(7, &[])?;
    let path = |name: &str| shown(&publisher.path(name));
    let derived = openssl(&["pkey", "-in", &path("keys/ci.key"), "-pubout"])?;
    assert_eq!(derived, fs::read_to_string(publisher.path("keys/ci.pub"))?);

    // The envelope is the JSON behind the header of the last, skippable frame.
    let bytes = fs::read(&file)?;
    let at = bytes.windows(4).rposition(|four| four[1..] == [0x2a, 0x4d, 0x18] && four[0] & 0xf0 == 0x50);
    let envelope: Value = serde_json::from_slice(&bytes[at.context("no skippable frame")? + 8..])?;
    let text = |pointer: &str| envelope.pointer(pointer).and_then(Value::as_str).context("no text");
    let (kind, payload) = (text("/payloadType")?, STANDARD.decode(text("/payload")?)?);
    // https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    fs::write(publisher.path("message"), [head.as_bytes(), &payload].concat())?;
    fs::write(publisher.path("signature"), STANDARD.decode(text("/signatures/0/sig")?)?)?;
    let verify = ["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"];
    let (public, message, signature) = (path("keys/ci.pub"), path("message"), path("signature"));
    openssl(&[&verify[..], &[&public, "-in", &message, "-sigfile", &signature]].concat())?;
    let wrong = path("keys/second.pub");
    assert!(openssl(&[&verify[..], &[&wrong, "-in", &message, "-sigfile", &signature]].concat()).is_err());

    let own = path("keys/openssl.key");
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &own])?;
    openssl(&["pkey", "-in", &own, "-pubout", "-out", &path("keys/openssl.pub")])?;
    publisher.trust(2, &["ci", "openssl"])?;
    publisher.sign(&file, "openssl")?;
    let verified = good(&["verify", &shown(&file), "--trust", &path("trust.toml"), "--format", "json"])?;
    assert_eq!(json(&verified)?.get("signed_by"), Some(&serde_json::json!(["ci", "openssl"])));
    Ok(())
}

#[test]
fn inspect_shows_what_a_packed_bundle_holds() -> Result<()> {
    let publisher = Publisher::new()?;
    let file = publisher.build(7, &["--expires", "2036-01-01T00:00:00Z"])?;
    let seen = json(&good(&["inspect", &shown(&file), "--format", "json"])?)?;
    assert_eq!(seen.get("signature"), Some(&Value::Null));
    publisher.sign(&file, "ci")?;
    let seen = json(&good(&["inspect", &shown(&file), "--format", "json"])?)?;
    let at = |pointer: &str| seen.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(
        (at("/ok"), at("/manifest/name"), at("/manifest/revision")),
        (true.into(), "web".into(), 7.into())
    );
    assert_eq!(at("/manifest/expires"), "2036-01-01T00:00:00Z");
    assert!(at("/manifest/files").get("policies/guards.cedar").is_some(), "{seen}");
    assert_eq!(at("/signature/statement/subject/0/digest/sha256"), at("/digest"));
    assert_eq!(at("/signature/key_ids").as_array().map(Vec::len), Some(1));
    let checked = json(&good(&["check", &shown(&publisher.tree()), "--format", "json"])?)?;
    assert_eq!(checked.pointer("/bundles/0/digest"), Some(&at("/content_digest")), "{checked}");

    fs::write(&file, "no bundle")?;
    assert_eq!(run(&["inspect", &shown(&file)])?.code, Some(1));
    assert_eq!(run(&["inspect", "/nowhere"])?.code, Some(2));
    Ok(())
}

#[test]
fn a_rollback_without_a_node_is_a_new_and_higher_revision_of_the_old_content() -> Result<()> {
    let publisher = Publisher::new()?;
    let old = shown(&publisher.signed(6, &[])?);
    let out = shown(&publisher.path("out"));
    for low in [&["--revision", "6"][..], &["--revision", "5"], &[]] {
        let refused = run(&[&["rollback", &old, "-o", &out], low].concat())?;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("higher than"), "{refused:?}");
    }
    let before = json(&good(&["inspect", &old, "--format", "json"])?)?;
    let built = json(&good(&["rollback", &old, "--revision", "8", "-o", &out, "--format", "json"])?)?;
    let file = built.get("file").and_then(Value::as_str).context("no file")?;
    let after = json(&good(&["inspect", file, "--format", "json"])?)?;
    assert_eq!(after.get("content_digest"), before.get("content_digest"));
    assert_eq!(after.pointer("/manifest/revision"), Some(&8.into()));
    assert_eq!(after.pointer("/manifest/rollback_of"), Some(&6.into()));
    assert_eq!(after.get("signature"), Some(&Value::Null), "an old signature went with it");
    Ok(())
}
