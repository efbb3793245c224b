//! What somebody else wrote: texts and bytes that are anything, and texts that were good before somebody changed them.
//!
//! Laws: nothing panics; what is read is written again as it was; and no changed receipt shows what it did not show before.

use proptest::prelude::*;

use crate::tree::tests::Leaves;
use crate::{Bundle, Checkpoint, Hash, Note, Receipt, Signer, Tile, VerifierKey, inclusion, root};

const CASES: u32 = 4_096;
const LEAVES: u8 = 7;

fn signer() -> Signer {
    Signer::new("log.example/audit", [7; 32]).unwrap()
}

/// A receipt for the leaf with this number, and the leaf.
fn receipt(index: u8) -> (Receipt, Hash) {
    let mut leaves = Leaves((0..LEAVES).map(|byte| Hash::leaf(&[byte])).collect());
    let size = u64::from(LEAVES);
    let root = root(size, &mut leaves).unwrap();
    let checkpoint =
        Checkpoint { origin: "log.example/audit".to_owned(), size, root, extensions: Vec::new() };
    let path = inclusion(index.into(), size, &mut leaves).unwrap();
    let receipt = Receipt {
        extra: Some(vec![index]),
        index: index.into(),
        path,
        checkpoint: checkpoint.sign(&signer()),
    };
    (receipt, leaves.0[usize::from(index)])
}

/// What somebody does to a text.
#[derive(Clone, Debug)]
enum Change {
    Put(prop::sample::Index, char),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let char =
        prop_oneof![any::<char>(), "[0-9A-Za-z+/=\n ]".prop_map(|text| text.chars().next().unwrap_or(' '))];
    prop_oneof![
        (at(), char).prop_map(|(at, one)| Change::Put(at, one)),
        (at(), 1..60_usize).prop_map(|(at, many)| Change::Remove(at, many)),
        (at(), 1..60_usize).prop_map(|(at, many)| Change::Repeat(at, many)),
        (at(), "[0-9A-Za-z+/=\n— ]{1,20}").prop_map(|(at, text)| Change::Insert(at, text)),
        (at(), at()).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

fn changed(text: &str, changes: &[Change]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for change in changes {
        if chars.is_empty() {
            break;
        }
        let length = chars.len();
        match change {
            Change::Put(at, one) => chars[at.index(length)] = *one,
            Change::Remove(at, many) => {
                let first = at.index(length);
                chars.drain(first..(first + many).min(length));
            }
            Change::Repeat(at, many) => {
                let first = at.index(length);
                let part = chars[first..(first + many).min(length)].to_vec();
                chars.splice(first..first, part);
            }
            Change::Insert(at, text) => {
                let first = at.index(length);
                chars.splice(first..first, text.chars());
            }
            Change::Swap(one, other) => chars.swap(one.index(length), other.index(length)),
        }
    }
    chars.into_iter().collect()
}

/// Reads a text as everything that is read from outside.
fn read(text: &str) {
    if let Ok(receipt) = Receipt::parse(text) {
        assert_eq!(Receipt::parse(&receipt.print()).as_ref(), Ok(&receipt));
    }
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text.trim_end(), "a key has one form");
    }
    if let Ok(key) = Signer::parse(text) {
        assert_eq!(key.secret(), text.trim_end(), "a key has one form");
    }
    if let Ok(checkpoint) = Checkpoint::open_unverified(text) {
        assert!(text.starts_with(&checkpoint.text()), "a checkpoint says what the text says");
    }
    if let Ok(note) = Note::parse(text) {
        assert!(note.verify(&[]).is_err(), "nobody is trusted");
    }
    if let Ok(tile) = Tile::parse(text) {
        assert_eq!(tile.to_string(), text);
    }
    if let Ok(bundle) = Bundle::parse(text) {
        assert_eq!(bundle.to_string(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn any_text_is_read_without_a_panic_and_written_as_it_was(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn texts_that_were_changed_are_read_without_a_panic_and_written_as_they_were(
        index in 0..LEAVES, which in 0..6_usize, changes in prop::collection::vec(change(), 0..4),
    ) {
        let (receipt, _) = receipt(index);
        let texts = [
            receipt.print(),
            receipt.checkpoint,
            signer().verifier().to_string(),
            signer().secret(),
            "tile/2/x001/234.p/7".to_owned(),
            "tile/entries/x001/x234/067".to_owned(),
        ];
        read(&changed(&texts[which], &changes));
    }

    #[test]
    fn a_changed_receipt_shows_nothing_that_it_did_not_show_before(
        index in 0..LEAVES, leaf in 0..LEAVES, changes in prop::collection::vec(change(), 1..4),
    ) {
        let (good, own) = receipt(index);
        let keys = [signer().verifier().clone()];
        prop_assert!(good.verify(&own, &keys).is_ok());
        let text = changed(&good.print(), &changes);
        if let Ok(other) = Receipt::parse(&text) {
            let claimed = Hash::leaf(&[leaf]);
            let shows = other.verify(&claimed, &keys).is_ok();
            prop_assert!(!shows || claimed == own && other.index == good.index && other.path == good.path, "{text}");
        }
    }

    #[test]
    fn bundles_of_entries_are_read_whole_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(entries) = Bundle::entries(&bytes) {
            let mut again = Vec::new();
            for entry in entries {
                Bundle::push(&mut again, entry).unwrap();
            }
            prop_assert_eq!(again, bytes);
        }
    }
}
