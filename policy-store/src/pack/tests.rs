use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;

pub(crate) fn files(policy: &str) -> Files {
    Files::from([
        ("bundle.toml".into(), b"name = \"t\"".to_vec()),
        (
            "schema.cedarschema".into(),
            b"entity E; action a appliesTo { principal: E, resource: E };".to_vec(),
        ),
        ("policies/p.cedar".into(), policy.as_bytes().to_vec()),
    ])
}

pub(crate) fn packed() -> Packed {
    let files = files("permit(principal, action, resource);");
    Packed::new(manifest_for("t", 7, &files), &files).unwrap()
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
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A packed bundle with these entries behind a manifest that names them all.
fn with_entries(entries: &[(EntryType, &str, &[u8])]) -> Result<Unpacked, PackError> {
    let mut manifest = manifest_for("t", 1, &Files::new());
    for (_, path, content) in entries {
        let of = manifest::FileEntry { bytes: content.len() as u64, sha256: Digest::of(content) };
        manifest.files.insert((*path).to_owned(), of);
    }
    let mut tar = entry(EntryType::Regular, "manifest.json", &manifest.to_json());
    tar.extend(entries.iter().flat_map(|(kind, path, content)| entry(*kind, path, content)));
    tar.extend([0; 1024]);
    unpack(&tar)
}

fn unpack(tar: &[u8]) -> Result<Unpacked, PackError> {
    Packed::from_bytes(frame::compress(tar)?)?.unpack()
}

#[test]
fn what_is_packed_comes_out_again() {
    let files = files("permit(principal, action, resource);");
    let packed = packed();
    let bytes = packed.bytes().to_vec();
    let again = Packed::from_bytes(bytes).unwrap();
    assert_eq!(again, packed);
    let unpacked = again.unpack().unwrap();
    assert_eq!(unpacked.files, files);
    assert_eq!((unpacked.manifest.name.as_str(), unpacked.manifest.revision), ("t", 7));
    assert_eq!(file_name(&unpacked.manifest), "t-7.cardea");
    assert!(looks_packed(again.bytes()));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(packed().bytes(), packed().bytes());
    // Pinned: another library, level or header would change bytes that somebody has signed.
    let manifest = Manifest {
        validated_with: manifest::ValidatedWith {
            cardea: "0".into(),
            cedar: "0".into(),
            cedar_language: "0".into(),
            facts: Digest::of(b""),
            schema: Digest::of(b""),
        },
        ..manifest_for("t", 7, &Files::new())
    };
    let packed = Packed::new(manifest, &files("permit(principal, action, resource);")).unwrap();
    assert_eq!(
        packed.digest().to_string(),
        "7d9682fc63c63d8a2ca6e8ac0d6a78d9978b6f10e697f9c20f93b7bb653f5ced",
        "the packed form has changed"
    );
}

#[test]
fn other_tools_read_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let signed = packed().with_envelope(br#"{"any":"envelope"}"#);
    let tar = zstd::stream::decode_all(signed.bytes()).unwrap();
    let path = dir.path().join("t.tar");
    std::fs::write(&path, tar).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed, "manifest.json\nbundle.toml\npolicies/p.cedar\nschema.cedarschema\n");
}

#[test]
fn a_bundle_that_is_cut_off_anywhere_is_refused() {
    let whole = packed().with_envelope(br#"{"any":"envelope"}"#);
    let archive = packed().bytes().len();
    for length in 0..whole.bytes().len() {
        let bytes = whole.bytes()[..length].to_vec();
        let cut = Packed::from_bytes(bytes);
        // Cut exactly between its frames it is an unsigned bundle, which trust refuses.
        assert_eq!(cut.is_ok(), length == archive, "cut after {length} bytes: {cut:?}");
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in
        ["../policies/p.cedar", "/etc/p.cedar", "policies/../../p.cedar", "policies/x.sh", "x", "a\\b"]
    {
        let found = with_entries(&[(EntryType::Regular, path, b"")]).unwrap_err();
        assert!(matches!(found, PackError::Path(_)), "{path}: {found:?}");
    }
}

#[test]
fn links_devices_and_headers_of_extensions_are_refused() {
    for kind in [
        EntryType::Link,
        EntryType::Symlink,
        EntryType::Char,
        EntryType::Block,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::Continuous,
        EntryType::new(b'Z'),
    ] {
        let found = with_entries(&[(kind, "policies/p.cedar", b"")]).unwrap_err();
        assert!(
            matches!(found, PackError::EntryKind { .. } | PackError::NotCanonical(_)),
            "{kind:?}: {found:?}"
        );
    }
}

#[test]
fn a_name_that_is_there_twice_or_out_of_order_is_refused() {
    let (a, b) = ("policies/a.cedar", "policies/b.cedar");
    let with = |paths: [&str; 2]| with_entries(&paths.map(|path| (EntryType::Regular, path, &b""[..])));
    assert!(with([a, b]).is_ok());
    assert_eq!(with([a, a]), Err(PackError::Order(a.to_owned())));
    assert_eq!(with([b, a]), Err(PackError::Order(a.to_owned())));
    assert!(matches!(with([a, "manifest.json"]), Err(PackError::Path(_) | PackError::Order(_))));
}

#[test]
fn a_header_or_padding_that_says_more_than_it_must_is_refused() {
    let tar = zstd::stream::decode_all(packed().bytes()).unwrap();
    let manifest_blocks = 1 + packed().unpack().unwrap().manifest.to_json().len().div_ceil(512);
    let second = manifest_blocks * 512;
    let change = |at: usize, to: &[u8]| {
        let mut tar = tar.clone();
        tar[second + at..second + at + to.len()].copy_from_slice(to);
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&tar[second..second + 512]);
        header.set_cksum();
        tar[second..second + 512].copy_from_slice(header.as_bytes());
        unpack(&tar).unwrap_err()
    };
    // Mode, time, owner's name, bytes that no field uses, padding behind the content.
    for (at, to) in
        [(100, &b"0000755\0"[..]), (136, b"00000000001\0"), (265, b"root"), (510, b"x"), (512 + 11, b"x")]
    {
        assert_eq!(change(at, to), PackError::NotCanonical("bundle.toml".to_owned()), "at {at}");
    }
    let mut longer = tar.clone();
    longer.extend([0; 512]);
    assert_eq!(unpack(&longer), Err(PackError::ArchiveEnd));
    assert_eq!(unpack(&tar[..tar.len() - 512]), Err(PackError::ArchiveEnd));
    assert_eq!(unpack(&[0; 1024]), Err(PackError::NoManifest));
}

#[test]
fn the_manifest_and_the_files_must_agree() {
    let mut manifest = manifest_for("t", 1, &Files::new());
    let of =
        |content: &[u8]| manifest::FileEntry { bytes: content.len() as u64, sha256: Digest::of(content) };
    manifest.files.insert("bundle.toml".to_owned(), of(b"a"));
    let with = |manifest: &Manifest, entries: &[(&str, &[u8])]| {
        let mut tar = entry(EntryType::Regular, "manifest.json", &manifest.to_json());
        tar.extend(entries.iter().flat_map(|(path, content)| entry(EntryType::Regular, path, content)));
        tar.extend([0; 1024]);
        unpack(&tar)
    };
    assert!(with(&manifest, &[("bundle.toml", b"a")]).is_ok());
    assert_eq!(
        with(&manifest, &[("bundle.toml", b"b")]),
        Err(PackError::FileDigest("bundle.toml".to_owned()))
    );
    assert_eq!(with(&manifest, &[]), Err(PackError::FileList("bundle.toml".to_owned())));
    let more = [("bundle.toml", &b"a"[..]), ("policies/p.cedar", b"")];
    assert_eq!(with(&manifest, &more), Err(PackError::FileList("policies/p.cedar".to_owned())));
}

/// A frame that unpacks to `bytes` zeros, made of blocks of one repeated byte (RFC 8878 section 3.1.1), four bytes each.
fn zeros(bytes: u64, says_so: bool) -> Vec<u8> {
    const BLOCK_LOG: u32 = 17;
    let mut frame = frame::ZSTD_MAGIC.to_vec();
    // The descriptor (eight bytes of content size, or none), and a window of 128 KiB.
    frame.extend([if says_so { 0xc0 } else { 0 }, 0x38]);
    frame.extend(says_so.then(|| bytes.to_le_bytes()).into_iter().flatten());
    let blocks = bytes >> BLOCK_LOG;
    for block in 1..=blocks {
        let head = u32::from(block == blocks) | 1 << 1 | 1 << BLOCK_LOG << 3;
        frame.extend(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn a_small_file_that_unpacks_to_ten_gigabytes_is_refused_before_it_is_unpacked() {
    let small = zeros(1 << 20, true);
    assert_eq!(zstd::stream::decode_all(&small[..]).unwrap().len(), 1 << 20, "the frame is a good one");
    let bomb = zeros(10 << 30, true);
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    let packed = Packed::from_bytes(bomb).unwrap();
    assert!(matches!(packed.unpack(), Err(PackError::Bomb { unpacked, .. }) if unpacked == 10 << 30));
}

#[test]
fn a_frame_that_hides_or_understates_its_size_is_refused() {
    assert_eq!(Packed::from_bytes(zeros(8 << 20, false)).unwrap().unpack(), Err(PackError::UnknownSize));
    assert!(matches!(
        Packed::from_bytes(zeros(8 << 20, true)).unwrap().unpack(),
        Err(PackError::Bomb { .. })
    ));
    let mut lying = zeros(8 << 20, true);
    lying[6..14].copy_from_slice(&512_u64.to_le_bytes());
    assert!(matches!(Packed::from_bytes(lying).unwrap().unpack(), Err(PackError::Compression(_))));
}

#[test]
fn bytes_after_the_archive_are_a_signature_or_a_fault() {
    let archive = packed().bytes().to_vec();
    let with = |more: &[u8]| Packed::from_bytes([&archive, more].concat()).unwrap_err();
    assert_eq!(with(b"x"), PackError::Trailing);
    assert_eq!(with(&archive), PackError::Trailing);
    let signed = packed().with_envelope(b"{}");
    let twice = signed.with_envelope(b"{}").bytes().len();
    assert_eq!(twice, signed.bytes().len(), "a new signature takes the place of the old one");
    let frame = &signed.bytes()[archive.len()..];
    assert_eq!(with(&[frame, frame].concat()), PackError::Trailing);
    let large = [&frame[..4], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(with(&large), PackError::Envelope(EnvelopeError::TooLarge(_))));
}

#[test]
fn a_file_that_no_bundle_has_is_not_packed() {
    let pack = |path: &str| {
        let files = Files::from([(path.into(), Vec::new())]);
        Packed::new(manifest_for("t", 1, &files), &files).unwrap_err()
    };
    assert!(matches!(pack("policies/.hidden.cedar"), PackError::Path(_)));
    assert!(pack("README.md").to_string().contains("docs/bundle.md"));
    let files = files("");
    assert!(matches!(
        Packed::new(manifest_for("t", 0, &files), &files),
        Err(PackError::Manifest(ManifestError::NoRevision))
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _any = Packed::from_bytes(bytes.clone()).and_then(|packed| packed.unpack());
        let _as_tar = unpack(&bytes);
    }

    #[test]
    fn any_files_come_out_as_they_went_in(
        content in prop::collection::btree_map("[a-z]{1,12}(/[a-z]{1,50}){0,3}", prop::collection::vec(any::<u8>(), 0..1500), 0..12)
    ) {
        let files: Files =
            content.into_iter().map(|(path, content)| (format!("policies/{path}.cedar").into(), content)).collect();
        let packed = Packed::new(manifest_for("t", 1, &files), &files).unwrap();
        prop_assert_eq!(packed.unpack().unwrap().files, files);
    }
}
