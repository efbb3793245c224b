//! Roots and proofs of a tree whose nodes can be read (RFC 6962 sections 2.1.1 and 2.1.2; verification as RFC 9162 section 2.1.3).

use thiserror::Error;

use super::hash::Hash;

/// Most hashes of a proof: a tree of 2^64 leaves has no longer path, and a proof of consistency one more.
const PROOF_MAX: usize = 65;

/// Where nodes are read from.
pub trait Nodes {
    /// Why one cannot be.
    type Error;

    /// The root of the complete subtree over the leaves from `index << height` on, `1 << height` of them.
    ///
    /// # Errors
    /// It cannot be read.
    fn node(&mut self, height: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// Why something is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadProof {
    /// The leaf is not in a tree of this size.
    #[error("leaf {index} is not in a tree of {size}")]
    Outside {
        /// The leaf.
        index: u64,
        /// The tree.
        size: u64,
    },
    /// The older tree is larger.
    #[error("a tree of {new} cannot go on from one of {old}")]
    Shrunk {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
    /// It has too many or too few hashes.
    #[error("the proof has {found} hashes and should have {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// It leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// The root of the first `size` leaves.
///
/// # Errors
/// A node cannot be read.
pub fn root<N: Nodes>(size: u64, nodes: &mut N) -> Result<Hash, N::Error> {
    if size == 0 { Ok(Hash::empty()) } else { over(0, size, nodes) }
}

/// The root of the leaves from `from` to `to`, where a subtree of the tree begins.
fn over<N: Nodes>(from: u64, to: u64, nodes: &mut N) -> Result<Hash, N::Error> {
    let leaves = to - from;
    if leaves.is_power_of_two() {
        let height = leaves.trailing_zeros();
        return nodes.node(u8::try_from(height).unwrap_or(u8::MAX), from >> height);
    }
    let split = from + split(leaves);
    Ok(Hash::node(&over(from, split, nodes)?, &over(split, to, nodes)?))
}

/// The largest power of two below the number of leaves, which is at least 2.
const fn split(leaves: u64) -> u64 {
    1 << (u64::BITS - 1 - (leaves - 1).leading_zeros())
}

/// The path from a leaf to the root of the first `size` leaves, the leaf's sibling first; empty if the leaf is not in them.
///
/// # Errors
/// A node cannot be read.
pub fn inclusion<N: Nodes>(index: u64, size: u64, nodes: &mut N) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut from, mut to) = (0, size);
    if index >= size {
        return Ok(path);
    }
    while to - from > 1 {
        let split = from + split(to - from);
        if index < split {
            path.push(over(split, to, nodes)?);
            to = split;
        } else {
            path.push(over(from, split, nodes)?);
            from = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// What shows that the first `old` leaves of a tree of `new` are those of a tree of `old`; empty if there is nothing to show.
///
/// # Errors
/// A node cannot be read.
pub fn consistency<N: Nodes>(old: u64, new: u64, nodes: &mut N) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    if old == 0 || old >= new {
        return Ok(path);
    }
    let (mut from, mut to) = (0, new);
    let mut is_whole = true;
    while to != old {
        let split = from + split(to - from);
        if old <= split {
            path.push(over(split, to, nodes)?);
            to = split;
        } else {
            path.push(over(from, split, nodes)?);
            from = split;
            is_whole = false;
        }
    }
    if !is_whole {
        path.push(over(from, to, nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether a leaf is in a tree.
///
/// # Errors
/// It is not proven.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), BadProof> {
    if index >= size {
        return Err(BadProof::Outside { index, size });
    }
    let inner = inner(index, size);
    let expected = inner + border(index, inner);
    if proof.len() != expected {
        return Err(BadProof::Length { found: proof.len(), expected });
    }
    let (inside, along) = proof.split_at_checked(inner).unwrap_or_default();
    let up = climb(*leaf, inside, index);
    let found = along.iter().fold(up, |hash, left| Hash::node(left, &hash));
    if found == *root { Ok(()) } else { Err(BadProof::Root) }
}

/// Whether a tree of `new` leaves goes on from one of `old`.
///
/// # Errors
/// It is not proven.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), BadProof> {
    if old > new {
        return Err(BadProof::Shrunk { old, new });
    }
    let bare = old == new || old == 0;
    if bare && !proof.is_empty() {
        return Err(BadProof::Length { found: proof.len(), expected: 0 });
    }
    if old == 0 {
        return if *old_root == Hash::empty() { Ok(()) } else { Err(BadProof::Root) };
    }
    if old == new {
        return if old_root == new_root { Ok(()) } else { Err(BadProof::Root) };
    }
    let mut inner = inner(old - 1, new);
    let border = border(old - 1, inner);
    let shift = usize::try_from(old.trailing_zeros()).unwrap_or(0);
    inner = inner.saturating_sub(shift);
    // An old tree that is a complete subtree is the first hash itself.
    let starts_with_old = old.is_power_of_two();
    let expected = inner + border + usize::from(!starts_with_old);
    if proof.len() != expected || expected > PROOF_MAX {
        return Err(BadProof::Length { found: proof.len(), expected });
    }
    let (seed, rest) = match proof.split_first() {
        _ if starts_with_old => (*old_root, proof),
        Some((seed, rest)) => (*seed, rest),
        None => return Err(BadProof::Length { found: 0, expected }),
    };
    let (inside, along) = rest.split_at_checked(inner).unwrap_or_default();
    let mask = (old - 1) >> shift;
    let of_old = inside
        .iter()
        .enumerate()
        .filter(|(level, _)| mask >> level & 1 == 1)
        .fold(seed, |hash, (_, left)| Hash::node(left, &hash));
    let of_old = along.iter().fold(of_old, |hash, left| Hash::node(left, &hash));
    let of_new = along.iter().fold(climb(seed, inside, mask), |hash, left| Hash::node(left, &hash));
    if of_old == *old_root && of_new == *new_root { Ok(()) } else { Err(BadProof::Root) }
}

/// How far up the path of a leaf differs from that of the last leaf.
fn inner(index: u64, size: u64) -> usize {
    let bits = u64::BITS - (index ^ (size - 1)).leading_zeros();
    usize::try_from(bits).unwrap_or(usize::MAX)
}

/// How many complete subtrees stand left of the path above that.
fn border(index: u64, inner: usize) -> usize {
    let above = u32::try_from(inner).ok().and_then(|inner| index.checked_shr(inner)).unwrap_or(0);
    usize::try_from(above.count_ones()).unwrap_or(0)
}

fn climb(from: Hash, path: &[Hash], index: u64) -> Hash {
    path.iter().enumerate().fold(from, |hash, (level, sibling)| {
        let is_left = index >> level & 1 == 0;
        if is_left { Hash::node(&hash, sibling) } else { Hash::node(sibling, &hash) }
    })
}

#[cfg(test)]
pub(crate) mod tests;
