//! The seeds of the corpora, each with a name that says what must become of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use cardea_policy_store::digest::Digest;
use cardea_policy_store::dsse::{Envelope, Signature};
use cardea_policy_store::load::Files;
use cardea_policy_store::manifest::{FileEntry, Manifest, ValidatedWith};
use cardea_policy_store::pack::{Packed, manifest_for};
use cardea_policy_store::stamp::Stamp;
use cardea_policy_store::statement::{CheckEvidence, Evidence, PAYLOAD_TYPE, Statement, TestEvidence, Tool};
use tar::{EntryType, Header};

use crate::targets::SUBJECT;

type Seeds = BTreeMap<String, Vec<u8>>;

const BLOCK: usize = 512;

/// Packed bundles, and bare archives for the reader within.
pub(crate) fn archives() -> Seeds {
    packed_files().into_iter().chain(whole_archives()).chain(archives_with_one_bad_entry()).collect()
}

pub(crate) fn manifests() -> Seeds {
    let full = Manifest {
        created: Stamp::from_unix_s(1_790_000_000),
        not_before: Stamp::from_unix_s(1_790_000_001),
        expires: Stamp::from_unix_s(1_800_000_000),
        rollback_of: Some(3),
        ..manifest(&[("bundle.toml", b"a"), ("policies/ä b.cedar", b"")])
    };
    let text = String::from_utf8(full.to_json()).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to).into_bytes()
    };
    let named = |name: &str| Manifest { name: name.into(), ..manifest(&[]) }.to_json();
    let compact = serde_json::to_vec(&serde_json::from_str::<serde_json::Value>(&text).unwrap()).unwrap();
    let digest = Digest::of(b"a").to_string();
    seeds([
        ("valid-full", text.clone().into_bytes()),
        ("valid-no-files", manifest(&[]).to_json()),
        ("valid-many-files", manifest(&[("a", b""), ("b", b"x"), ("c", b"yy"), ("d", b"zzz")]).to_json()),
        ("valid-name-of-dots", named("../..")),
        ("valid-name-with-escapes", named("a\"\\\n\u{1}/ä\u{1f600}")),
        ("valid-longest-name", named(&"n".repeat(128))),
        ("valid-largest-revision", Manifest { revision: u64::MAX, ..manifest(&[]) }.to_json()),
        ("valid-earliest-time", with("2026-09-21T14:13:20Z", "-009998-01-01T00:00:00Z")),
        ("bad-empty", Vec::new()),
        ("bad-null", b"null\n".to_vec()),
        ("bad-list", b"[]".to_vec()),
        ("bad-cut-off", text.as_bytes()[..text.len() / 2].to_vec()),
        ("bad-no-line-end", text.trim_end().as_bytes().to_vec()),
        ("bad-two-line-ends", format!("{text}\n").into_bytes()),
        ("bad-compact", compact),
        ("bad-space", with("\": 7", "\":  7")),
        ("bad-byte-order-mark", format!("\u{feff}{text}").into_bytes()),
        ("bad-format", with("bundle/v1", "bundle/v2")),
        ("bad-unknown-field", with("\"name\"", "\"extra\": 1,\n  \"name\"")),
        ("bad-field-twice", with("\"name\"", "\"name\": \"t\",\n  \"name\"")),
        (
            "bad-file-twice",
            with(
                "\"files\": {",
                &format!("\"files\": {{\n    \"bundle.toml\": {{\"bytes\": 1, \"sha256\": \"{digest}\"}},"),
            ),
        ),
        ("bad-field-missing", with("  \"revision\": 7,\n", "")),
        ("bad-null-field", with("\"rollback_of\": 3", "\"rollback_of\": null")),
        ("bad-revision-zero", with("\"revision\": 7", "\"revision\": 0")),
        ("bad-revision-negative", with("\"revision\": 7", "\"revision\": -7")),
        ("bad-revision-fraction", with("\"revision\": 7", "\"revision\": 7.0")),
        ("bad-revision-beyond", with("\"revision\": 7", "\"revision\": 18446744073709551616")),
        ("bad-no-name", named("")),
        ("bad-name-too-long", named(&"n".repeat(129))),
        ("bad-escaped-name", with("\"name\": \"t\"", "\"name\": \"\\u0074\"")),
        ("bad-lone-surrogate", with("\"name\": \"t\"", "\"name\": \"\\ud800\"")),
        ("bad-time-offset", with("14:13:20Z", "14:13:20+00:00")),
        ("bad-time-fraction", with("14:13:20Z", "14:13:20.5Z")),
        ("bad-time-leap-second", with("14:13:20Z", "23:59:60Z")),
        ("bad-time-zone-name", with("14:13:20Z", "14:13:20Z[UTC]")),
        ("bad-never-valid", with("2026-09-21T14:13:21Z", "2027-09-21T14:13:21Z")),
        ("bad-digest-upper-case", with(&digest, &digest.to_uppercase())),
        ("bad-digest-short", with(&digest, digest.trim_start_matches("ca"))),
        ("bad-not-utf8", [b"{\"format\": \"".as_slice(), &[0xff, 0xfe]].concat()),
        ("bad-deep", b"[".repeat(2000)),
    ])
}

pub(crate) fn envelopes() -> Seeds {
    let statement = statement(Digest::of(SUBJECT));
    let with = |payload: &[u8], signatures: u8| Envelope {
        payload_type: PAYLOAD_TYPE.into(),
        payload: payload.to_vec(),
        signatures: (0..signatures)
            .map(|at| Signature { key_id: Digest::of(&[at]).to_string(), bytes: vec![at; 64] })
            .collect(),
    };
    let one = with(&statement, 1);
    let text = String::from_utf8(one.to_json()).unwrap();
    let payload = STANDARD.encode(&statement);
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to).into_bytes()
    };
    let carrying = |payload: &[u8]| with(payload, 1).to_json();
    let about = String::from_utf8(statement.clone()).unwrap();
    let unnamed =
        Envelope { signatures: vec![Signature { key_id: String::new(), bytes: vec![1] }], ..one.clone() };
    seeds([
        ("valid-one-signature", one.to_json()),
        ("valid-most-signatures", with(&statement, 16).to_json()),
        ("valid-no-key-id", unnamed.to_json()),
        ("valid-another-type", Envelope { payload_type: "text/ä\"".into(), ..one }.to_json()),
        ("valid-no-payload", carrying(b"")),
        ("valid-payload-of-bytes", carrying(&[0, 0xff, 0x80])),
        ("valid-about-another-archive", carrying(&self::statement(Digest::of(b"another")))),
        ("valid-statement-of-another-kind", carrying(about.replace("bundle-evidence", "other").as_bytes())),
        ("valid-statement-cut-off", carrying(&statement[..statement.len() / 2])),
        ("valid-url-alphabet", change(&payload, &URL_SAFE.encode(b"\xfb\xff\xfe"))),
        ("valid-no-padding", change(&payload, &STANDARD_NO_PAD.encode(b"x"))),
        ("valid-unknown-field", change("{\"payload\"", "{\"more\":[1,{}],\"payload\"")),
        ("valid-spaces", change(",", " ,\n\t")),
        ("valid-bare-statement", statement.clone()),
        (
            "valid-bare-statement-unknown-field",
            about.replace("\"predicate\":{", "\"predicate\":{\"x\":1,").into_bytes(),
        ),
        ("bad-bare-statement-another-type", about.replace("Statement/v1", "Statement/v0.1").into_bytes()),
        ("bad-bare-statement-no-subject", about.replace("sha256", "sha512").into_bytes()),
        ("bad-bare-statement-negative", about.replace("\"warnings\":1", "\"warnings\":-1").into_bytes()),
        ("bad-empty", Vec::new()),
        ("bad-null", b"null".to_vec()),
        ("bad-cut-off", text.as_bytes()[..text.len() - 3].to_vec()),
        ("bad-trailing", format!("{text}x").into_bytes()),
        ("bad-no-signature", with(&statement, 0).to_json()),
        ("bad-too-many-signatures", with(b"{}", 17).to_json()),
        ("bad-payload-not-base64", change(&payload, "!!!")),
        ("bad-payload-odd-length", change(&payload, "AAAAA")),
        ("bad-payload-trailing-bits", change(&payload, "AB==")),
        ("bad-payload-too-much-padding", change(&payload, "AA===")),
        ("bad-payload-mixed-alphabets", change(&payload, "+_/-")),
        ("bad-payload-number", change(&format!("\"{payload}\""), "7")),
        ("bad-field-missing", change("\"payloadType\"", "\"type\"")),
        ("bad-field-twice", change("{\"payload\"", "{\"payload\":\"\",\"payload\"")),
        ("bad-signature-not-base64", change("\"sig\":\"", "\"sig\":\"!")),
        ("bad-signatures-no-list", change("[", "")),
        ("bad-deep", [b"{\"more\":".to_vec(), b"[".repeat(2000)].concat()),
        ("bad-not-utf8", b"{\"payload\":\"\xff\"}".to_vec()),
    ])
}

fn packed_files() -> Seeds {
    let small = packed(&[("bundle.toml", b"name = \"t\"")]);
    let archive = small.bytes().to_vec();
    let signed = small.with_envelope(&envelopes()["valid-one-signature"]).bytes().to_vec();
    let signature = &signed[archive.len()..];
    let long = format!("policies/{}/{}.cedar", "a".repeat(90), "b".repeat(90));
    let everything: [(&str, &[u8]); 8] = [
        ("bundle.toml", b"name = \"t\""),
        ("entities.json", b"[]"),
        ("links.json", b"[]"),
        (&long, b"permit(principal, action, resource);"),
        ("policies/a/b c/\u{e4}.cedar", b"@id(\"x\") forbid(principal, action, resource);"),
        ("routes.toml", b""),
        ("schema.cedarschema", b"entity E;"),
        ("tests/t.yaml", b"- name: t"),
    ];
    let tar = zstd::bulk::decompress(&archive, 1 << 20).unwrap();
    let flipped = |at: usize| {
        let mut bytes = archive.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut lying = zeros(8 << 20, true, 64);
    lying[6..14].copy_from_slice(&512_u64.to_le_bytes());
    seeds([
        ("valid-small", archive.clone()),
        ("valid-signed", signed.clone()),
        ("valid-no-files", packed(&[]).bytes().to_vec()),
        ("valid-every-kind-of-file", packed(&everything).bytes().to_vec()),
        (
            "valid-compresses-well",
            packed(&[("policies/p.cedar", &b"permit(principal, action, resource);\n".repeat(3000))])
                .bytes()
                .to_vec(),
        ),
        ("valid-other-level", zstd::bulk::compress(&tar, 19).unwrap()),
        ("bad-empty", Vec::new()),
        ("bad-gzip", vec![0x1f, 0x8b, 8, 0, 0, 0]),
        ("bad-magic-alone", archive[..4].to_vec()),
        ("bad-cut-in-head", archive[..7].to_vec()),
        ("bad-cut-in-half", archive[..archive.len() / 2].to_vec()),
        ("bad-cut-in-signature", signed[..signed.len() - 1].to_vec()),
        ("bad-cut-in-head-of-signature", signed[..archive.len() + 6].to_vec()),
        ("bad-flipped-in-content", flipped(archive.len() / 2)),
        ("bad-flipped-in-checksum", flipped(archive.len() - 1)),
        ("bad-byte-after-archive", [&archive[..], b"x"].concat()),
        ("bad-two-archives", archive.repeat(2)),
        ("bad-two-signatures", [&signed[..], signature].concat()),
        ("bad-signature-first", [signature, &archive].concat()),
        ("bad-signature-too-large", [&archive, &signature[..4], &u32::MAX.to_le_bytes()].concat()),
        ("bad-bomb-announced", zeros(10 << 30, true, 2)),
        ("bad-bomb-by-ratio", zeros(8 << 20, true, 64)),
        ("bad-size-hidden", zeros(1 << 20, false, 8)),
        ("bad-size-understated", lying),
        ("bad-size-overstated", zeros(1 << 20, true, 1)),
    ])
}

/// Archives whose entries are good each, and wrong together.
fn whole_archives() -> Seeds {
    let (a, b) = ("policies/a.cedar", "policies/b.cedar");
    let good = tar(&[(a, b"1"), (b, b"2")]);
    let listing = |files: &[(&str, &[u8])]| manifest_entry(&manifest(files));
    let with = |listed: &[(&str, &[u8])], found: &[(&str, &[u8])]| {
        let mut bytes = listing(listed);
        bytes.extend(found.iter().flat_map(|(path, content)| entry(EntryType::Regular, path, content)));
        ended(bytes)
    };
    let unended = &good[..good.len() - 2 * BLOCK];
    seeds([
        ("valid-tar-two-files", good.clone()),
        ("valid-tar-no-files", tar(&[])),
        ("valid-tar-block-filled", tar(&[(a, &[b' '; BLOCK])])),
        ("valid-tar-empty-file", tar(&[(a, b"")])),
        ("bad-tar-zeros", vec![0; 2 * BLOCK]),
        ("bad-tar-cut-in-header", good[..100].to_vec()),
        ("bad-tar-cut-in-content", good[..BLOCK + 60].to_vec()),
        ("bad-tar-no-end", unended.to_vec()),
        ("bad-tar-one-block-of-end", good[..good.len() - BLOCK].to_vec()),
        ("bad-tar-longer-end", [&good[..], &[0; BLOCK]].concat()),
        ("bad-tar-after-its-end", [&good[..], &good].concat()),
        ("bad-tar-same-name-twice", with(&[(a, b"1")], &[(a, b"1"), (a, b"1")])),
        ("bad-tar-out-of-order", with(&[(a, b"1"), (b, b"2")], &[(b, b"2"), (a, b"1")])),
        ("bad-tar-no-manifest", ended(entry(EntryType::Regular, a, b"1"))),
        (
            "bad-tar-manifest-last",
            ended([entry(EntryType::Regular, a, b"1"), listing(&[(a, b"1")])].concat()),
        ),
        ("bad-tar-manifest-twice", ended([listing(&[]), listing(&[])].concat())),
        ("bad-tar-manifest-empty", ended(entry(EntryType::Regular, "manifest.json", b""))),
        ("bad-tar-file-not-listed", with(&[], &[(a, b"1")])),
        ("bad-tar-file-not-there", with(&[(a, b"1")], &[])),
        ("bad-tar-other-content", with(&[(a, b"1")], &[(a, b"2")])),
    ])
}

fn archives_with_one_bad_entry() -> Seeds {
    const GOOD: &str = "policies/p.cedar";
    let kinds = [
        ("hard-link", EntryType::Link),
        ("symbolic-link", EntryType::Symlink),
        ("character-device", EntryType::Char),
        ("block-device", EntryType::Block),
        ("directory", EntryType::Directory),
        ("pipe", EntryType::Fifo),
        ("gnu-long-name", EntryType::GNULongName),
        ("gnu-long-link", EntryType::GNULongLink),
        ("gnu-sparse", EntryType::GNUSparse),
        ("pax-header", EntryType::XHeader),
        ("pax-global-header", EntryType::XGlobalHeader),
        ("unknown-kind", EntryType::new(b'Z')),
    ];
    let paths = [
        ("parent", "../p.cedar"),
        ("parent-within", "policies/../../p.cedar"),
        ("absolute", "/policies/p.cedar"),
        ("dot", "./policies/p.cedar"),
        ("hidden", "policies/.p.cedar"),
        ("backslash", "policies\\p.cedar"),
        ("control", "policies/p\n.cedar"),
        ("slashes", "policies//p.cedar"),
        ("deep", "policies/a/b/c/d/e/f/g/h.cedar"),
        ("unknown-file", "policies/p.sh"),
    ];
    // Offset in the header, and what stands there.
    let headers: [(&str, usize, &[u8]); 9] = [
        ("path-not-utf8", 9, &[0xff]),
        ("path-hides-behind-zero", 40, b"x"),
        ("mode", 100, b"0000755\0"),
        ("size-beyond", 124, b"77777777777\0"),
        ("size-in-base-256", 124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]),
        ("size-negative", 124, &[0xff; 12]),
        ("time", 136, b"00000000001\0"),
        ("owner", 265, b"root"),
        ("prefix", 345, b".."),
    ];
    let pax: &[u8] = b"19 path=../p.cedar\n";
    let with = |path: &str, content: &[u8], bad: Vec<u8>| {
        ended([manifest_entry(&manifest(&[(path, content)])), bad].concat())
    };
    let kinds = kinds.map(|(name, kind)| (name, with(GOOD, pax, entry(kind, GOOD, pax))));
    let paths = paths.map(|(name, path)| (name, with(path, b"1", entry(EntryType::Regular, path, b"1"))));
    let good = entry(EntryType::Regular, GOOD, b"1");
    let headers = headers.map(|(name, at, to)| {
        let mut bad = good.clone();
        bad[at..at + to.len()].copy_from_slice(to);
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bad[..BLOCK]);
        header.set_cksum();
        bad[..BLOCK].copy_from_slice(header.as_bytes());
        (name, with(GOOD, b"1", bad))
    });
    let mut padded = good.clone();
    padded[BLOCK + 1] = b'x';
    let mut unsummed = good;
    unsummed[148..156].copy_from_slice(b"000000\0 ");
    let more = [("padding", with(GOOD, b"1", padded)), ("checksum", with(GOOD, b"1", unsummed))];
    let all = kinds.into_iter().chain(paths).chain(headers).chain(more);
    all.map(|(name, bytes)| (format!("bad-tar-{name}"), bytes)).collect()
}

fn seeds<const N: usize>(of: [(&str, Vec<u8>); N]) -> Seeds {
    let seeds: Seeds = of.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
    assert_eq!(seeds.len(), N, "two seeds have the same name");
    seeds
}

/// A manifest that is the same for every version.
fn manifest(files: &[(&str, &[u8])]) -> Manifest {
    let none = Digest::of(b"");
    let listed = |(path, content): &(&str, &[u8])| {
        ((*path).to_owned(), FileEntry { bytes: content.len() as u64, sha256: Digest::of(content) })
    };
    Manifest {
        validated_with: ValidatedWith {
            cardea: "0".into(),
            cedar: "0".into(),
            cedar_language: "0".into(),
            facts: none,
            schema: none,
        },
        files: files.iter().map(listed).collect(),
        ..manifest_for("t", 7, &Files::new())
    }
}

fn packed(files: &[(&str, &[u8])]) -> Packed {
    let content = files.iter().map(|(path, content)| (path.into(), content.to_vec())).collect();
    Packed::new(manifest(files), &content).unwrap()
}

fn statement(digest: Digest) -> Vec<u8> {
    let evidence = Evidence {
        name: "t".into(),
        revision: 7,
        tool: Tool { name: "cardea".into(), version: "0".into() },
        check: CheckEvidence { errors: 0, warnings: 1 },
        tests: Some(TestEvidence { passed: 3, failed: 0, coverage_permille: 1000 }),
    };
    Statement::about(digest, &manifest(&[]), evidence).to_json()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = files.iter().flat_map(|(path, content)| entry(EntryType::Regular, path, content));
    ended(manifest_entry(&manifest(files)).into_iter().chain(entries).collect())
}

fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

fn manifest_entry(manifest: &Manifest) -> Vec<u8> {
    entry(EntryType::Regular, "manifest.json", &manifest.to_json())
}

fn entry(kind: EntryType, path: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    // Past the checks of the library, as an attacker would.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// A frame that announces `bytes` or nothing, and has `blocks` of 128 KiB of zeros, four bytes each (RFC 8878 section 3.1.1).
fn zeros(bytes: u64, says_so: bool, blocks: u32) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, if says_so { 0xc0 } else { 0 }, 0x38];
    frame.extend(says_so.then(|| bytes.to_le_bytes()).into_iter().flatten());
    for block in 1..=blocks {
        let head = u32::from(block == blocks) | 1 << 1 | 1 << 17 << 3;
        frame.extend(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}
