//! Roots and proofs against the definition, and against the vectors of transparency-dev/merkle.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::Frontier;

/// A tree that is all there.
#[derive(Clone)]
pub(crate) struct Leaves(pub(crate) Vec<Hash>);

impl Leaves {
    pub(crate) fn numbered(size: u64) -> Self {
        Self((0..size).map(|at| Hash::leaf(&at.to_be_bytes())).collect())
    }
}

impl Nodes for Leaves {
    type Error = Infallible;

    fn node(&mut self, height: u8, index: u64) -> Result<Hash, Infallible> {
        let from = usize::try_from(index << height).unwrap();
        Ok(naive(&self.0[from..from + (1 << height)]))
    }
}

/// The root as RFC 6962 defines it.
pub(crate) fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::empty(),
        [leaf] => *leaf,
        leaves => {
            let split = leaves.len().next_power_of_two() / 2;
            Hash::node(&naive(&leaves[..split]), &naive(&leaves[split..]))
        }
    }
}

fn bytes(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap_or_default()).unwrap()
}

/// `None`: other bytes, which nothing here can be asked about.
fn hash(text: &Value) -> Option<Hash> {
    bytes(text).try_into().ok().map(Hash)
}

fn hashes(list: &Value) -> Option<Vec<Hash>> {
    list.as_array().into_iter().flatten().map(hash).collect()
}

fn cases(name: &str) -> Option<Vec<Value>> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Value>,
    }
    let text = std::fs::read_to_string(crate::vectors("merkle")?.join(name)).unwrap();
    Some(serde_json::from_str::<File>(&text).unwrap().cases)
}

#[test]
fn every_vector_of_inclusion_is_judged_as_it_says() {
    let Some(cases) = cases("inclusion.json") else { return };
    let mut bad = 0;
    for case in &cases {
        let said = || {
            let (leaf, root) = (hash(&case["leafHash"])?, hash(&case["root"])?);
            let (index, size) = (case["leafIdx"].as_u64()?, case["treeSize"].as_u64()?);
            verify_inclusion(&leaf, index, size, &hashes(&case["proof"])?, &root).ok()
        };
        assert_eq!(said().is_none(), case["wantErr"].as_bool().unwrap(), "{case}");
        bad += u32::from(said().is_none());
    }
    assert_eq!((cases.len(), bad), (98, 92));
}

#[test]
fn every_vector_of_consistency_is_judged_as_it_says() {
    let Some(cases) = cases("consistency.json") else { return };
    let mut bad = 0;
    for case in &cases {
        let said = || {
            // One vector has other bytes twice, where only that they are the same matters.
            let same = (case["root1"] == case["root2"]).then(|| Hash::leaf(&bytes(&case["root1"])));
            let (old, new) = (hash(&case["root1"]).or(same)?, hash(&case["root2"]).or(same)?);
            let (old_size, new_size) = (case["size1"].as_u64()?, case["size2"].as_u64()?);
            verify_consistency(old_size, new_size, &hashes(&case["proof"])?, &old, &new).ok()
        };
        assert_eq!(said().is_none(), case["wantErr"].as_bool().unwrap(), "{case}");
        bad += u32::from(said().is_none());
    }
    assert_eq!((cases.len(), bad), (98, 92));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_frontier_tells_the_root_and_the_hashes_of_tiles_at_every_size(size in 0..2_000_u64) {
        let mut leaves = Leaves::numbered(size);
        let mut frontier = Frontier::default();
        let mut told: Vec<Vec<Hash>> = vec![Vec::new(); 3];
        for leaf in leaves.0.clone() {
            frontier.push(leaf, |level, hash| told[usize::try_from(level).unwrap()].push(hash));
        }
        prop_assert_eq!((frontier.size(), frontier.root()), (size, naive(&leaves.0)));
        prop_assert_eq!(&told[0], &leaves.0);
        let of_256: Vec<Hash> = leaves.0.chunks_exact(256).map(naive).collect();
        prop_assert_eq!(&told[1], &of_256);
        let Ok(mut restored) = Frontier::of(size, &mut leaves);
        prop_assert_eq!(restored.root(), frontier.root());
        let more = Hash::leaf(b"more");
        restored.push(more, |_, _| ());
        frontier.push(more, |_, _| ());
        prop_assert_eq!(restored.root(), frontier.root());
    }

    #[test]
    fn proofs_verify_and_nothing_else_does(size in 1..300_u64, index in any::<prop::sample::Index>(), change in any::<prop::sample::Index>()) {
        let mut leaves = Leaves::numbered(size);
        let index = u64::try_from(index.index(usize::try_from(size).unwrap())).unwrap();
        let root = naive(&leaves.0);
        let leaf = leaves.0[usize::try_from(index).unwrap()];
        let Ok(path) = inclusion(index, size, &mut leaves);
        prop_assert_eq!(verify_inclusion(&leaf, index, size, &path, &root), Ok(()));
        prop_assert!(verify_inclusion(&Hash::leaf(b"x"), index, size, &path, &root).is_err());
        prop_assert!(verify_inclusion(&leaf, index, size, &path, &Hash::leaf(b"x")).is_err());
        prop_assert!(size == 1 || verify_inclusion(&leaf, index ^ 1, size, &path, &root).is_err());
        if !path.is_empty() {
            let mut other = path.clone();
            let at = change.index(other.len());
            other[at].0[at % 32] ^= 1;
            prop_assert!(verify_inclusion(&leaf, index, size, &other, &root).is_err());
            prop_assert!(verify_inclusion(&leaf, index, size, &path[1..], &root).is_err());
        }
        let old = index + 1;
        let old_root = naive(&leaves.0[..usize::try_from(old).unwrap()]);
        let Ok(path) = consistency(old, size, &mut leaves);
        prop_assert_eq!(verify_consistency(old, size, &path, &old_root, &root), Ok(()));
        prop_assert!(verify_consistency(old, size, &path, &Hash::leaf(b"x"), &root).is_err());
        prop_assert!(verify_consistency(old, size, &path, &old_root, &Hash::leaf(b"x")).is_err());
        if !path.is_empty() {
            let mut other = path;
            let at = change.index(other.len());
            other[at].0[at % 32] ^= 1;
            prop_assert!(verify_consistency(old, size, &other, &old_root, &root).is_err());
        }
    }
}

#[test]
fn what_cannot_be_is_told() {
    let (leaf, root) = (Hash::leaf(b"a"), Hash::leaf(b"a"));
    assert_eq!(verify_inclusion(&leaf, 1, 1, &[], &root), Err(BadProof::Outside { index: 1, size: 1 }));
    assert_eq!(verify_inclusion(&leaf, 0, 0, &[], &root), Err(BadProof::Outside { index: 0, size: 0 }));
    assert_eq!(verify_consistency(2, 1, &[], &root, &root), Err(BadProof::Shrunk { old: 2, new: 1 }));
    assert_eq!(verify_consistency(0, 1, &[], &Hash::empty(), &root), Ok(()));
    assert_eq!(verify_consistency(0, 1, &[], &leaf, &root), Err(BadProof::Root));
    assert!(matches!(inclusion(5, 5, &mut Leaves::numbered(5)), Ok(path) if path.is_empty()));
}
