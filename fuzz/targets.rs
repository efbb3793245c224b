//! What must hold for any bytes that policy-store reads from outside. Each function says whether the bytes were accepted,
//! and panics when a law is broken.
//!
//! Two programs run these: the fuzzers in `fuzz_targets/`, and the test of policy-store that replays the corpora without a
//! nightly compiler.

use std::path::{Component, Path};

use cardea_policy_store::digest::Digest;
use cardea_policy_store::dsse::{ENVELOPE_BYTES_MAX, Envelope};
use cardea_policy_store::load::{BUNDLE_BYTES_MAX, FILES_MAX};
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack::{self, Packed, Unpacked};
use cardea_policy_store::statement::{Evidence, PAYLOAD_TYPE, Statement};

/// Length of a header of a tar archive, in bytes.
const BLOCK: usize = 512;
/// What the statements among the seeds are about.
pub const SUBJECT: &[u8] = b"the archive";

/// Takes bytes as a packed bundle, as the archive within one, and as such an archive whose checksums were made right, so
/// that a fuzzer gets past them.
pub fn archive(data: &[u8]) -> bool {
    let packed = unpacks(data);
    let tar = archive_unpacks(data);
    archive_unpacks(&with_checksums(data));
    packed || tar
}

/// Takes bytes as a manifest.
pub fn manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse(data) else { return false };
    assert_eq!(manifest.to_json(), data, "a manifest has one form");
    assert_eq!(manifest.check(), Ok(()));
    let name = pack::file_name(&manifest);
    let parts: Vec<Component<'_>> = Path::new(&name).components().collect();
    assert!(matches!(*parts, [Component::Normal(_)]), "`{name}` leads elsewhere");
    true
}

/// Takes bytes as an envelope, and as the statement within one.
pub fn envelope(data: &[u8]) -> bool {
    let stated = says_the_same_again(PAYLOAD_TYPE, data);
    let Ok(envelope) = Envelope::parse(data) else {
        assert!(Envelope::parse_canonical(data).is_err(), "canonical, and yet no envelope");
        return stated;
    };
    let canonical = envelope.to_json();
    assert_eq!(
        Envelope::parse_canonical(data).is_ok(),
        canonical == data,
        "an envelope has one canonical form"
    );
    // Padding makes it longer, maybe beyond the limit.
    if canonical.len() <= ENVELOPE_BYTES_MAX {
        assert_eq!(Envelope::parse_canonical(&canonical).as_ref(), Ok(&envelope));
    }
    assert!(envelope.signed_bytes().ends_with(&envelope.payload));
    says_the_same_again(&envelope.payload_type, &envelope.payload);
    true
}

fn archive_unpacks(tar: &[u8]) -> bool {
    zstd::bulk::compress(tar, 1).is_ok_and(|frame| unpacks(&frame))
}

fn unpacks(data: &[u8]) -> bool {
    let Ok(packed) = Packed::from_bytes(Vec::from(data)) else { return false };
    assert_eq!(packed.bytes(), data, "the file is kept as it is");
    let signed = packed.with_envelope(b"{}");
    assert_eq!(signed.digest(), packed.digest(), "a signature does not change the digest");
    assert_eq!(signed.envelope(), Ok(Some(&b"{}"[..])));
    assert_eq!(Packed::from_bytes(Vec::from(signed.bytes())).as_ref(), Ok(&signed));
    let unpacked = packed.unpack();
    assert_eq!(signed.unpack(), unpacked, "a signature does not change the content");
    let Ok(unpacked) = unpacked else { return false };
    assert_eq!(packed.manifest().as_ref(), Ok(&unpacked.manifest));
    has_one_form(&packed, &unpacked);
    keeps_to_its_place(&unpacked);
    true
}

/// Two archives that unpack to the same are the same, so that nothing can hide in one.
fn has_one_form(packed: &Packed, unpacked: &Unpacked) {
    let again = Packed::new(unpacked.manifest.clone(), &unpacked.files);
    assert!(again.is_ok(), "what was unpacked cannot be packed: {again:?}");
    let Ok(again) = again else { return };
    assert_eq!(again.unpack().as_ref(), Ok(unpacked));
    assert!(tar(&again).is_some_and(|form| Some(form) == tar(packed)), "the archive has another form");
}

fn tar(packed: &Packed) -> Option<Vec<u8>> {
    let signature = packed.envelope().ok()?.map_or(0, |json| 8 + json.len());
    let frame = packed.bytes().get(..packed.bytes().len() - signature)?;
    let announced = zstd::zstd_safe::get_frame_content_size(frame).ok()??;
    zstd::bulk::decompress(frame, usize::try_from(announced).ok()?).ok()
}

fn keeps_to_its_place(unpacked: &Unpacked) {
    assert!(unpacked.files.len() <= FILES_MAX);
    let bytes: u64 = unpacked.files.values().map(|content| content.len() as u64).sum();
    assert!(bytes <= BUNDLE_BYTES_MAX);
    for path in unpacked.files.keys() {
        assert!(
            path.components().all(|part| matches!(part, Component::Normal(_))),
            "{path:?} leads elsewhere"
        );
        assert!(pack::paths::text(path).is_ok(), "{path:?} is no file of a bundle");
    }
}

/// The archive with the checksum of each header made right.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut rest = tar.as_mut_slice();
    while let Some((block, after)) = rest.split_at_mut_checked(BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let content = header.entry_size().ok().and_then(|size| usize::try_from(size).ok());
        let Some(content) = content.and_then(|size| size.checked_next_multiple_of(BLOCK)) else { break };
        let Some((_, next)) = after.split_at_mut_checked(content) else { break };
        rest = next;
    }
    tar
}

fn says_the_same_again(payload_type: &str, payload: &[u8]) -> bool {
    let digest = Digest::of(SUBJECT);
    let Ok(evidence) = Statement::evidence(payload_type, payload, digest) else { return false };
    assert_eq!(payload_type, PAYLOAD_TYPE);
    let again = stated(digest, &evidence);
    assert_eq!(Statement::evidence(PAYLOAD_TYPE, &again, digest), Ok(evidence));
    true
}

fn stated(digest: Digest, evidence: &Evidence) -> Vec<u8> {
    let manifest = pack::manifest_for(&evidence.name, evidence.revision, &std::collections::BTreeMap::new());
    Statement::about(digest, &manifest, evidence.clone()).to_json()
}
