//! A transparency log's tree, proofs and signed texts: what makes a log prove that nothing in it was altered, removed, reordered or
//! inserted, to anybody with a public key and tools that are not ours.
//!
//! The tree is that of RFC 6962 over SHA-256; checkpoints, tiles and receipts are those of C2SP (tlog-checkpoint, tlog-tiles, tlog-proof,
//! signed-note). Pure: no I/O, no clock, no runtime, no randomness.

mod checkpoint;
mod frontier;
mod hash;
#[cfg(test)]
mod hostile;
mod note;
mod receipt;
mod tile;
mod tree;

pub use checkpoint::{BadCheckpoint, Checkpoint};
pub use frontier::Frontier;
pub use hash::{BadHash, HASH_BYTES, Hash};
pub use note::{BadKey, BadNote, Note, Signer, VerifierKey};
pub use receipt::{BadReceipt, Receipt};
pub use tile::{BadTile, Bundle, TILE_HASHES, Tile, tiles};
pub use tree::{BadProof, Nodes, consistency, inclusion, root, verify_consistency, verify_inclusion};

/// A folder of the test vectors; `None`, with a word, where they are absent.
#[cfg(test)]
fn vectors(name: &str) -> Option<std::path::PathBuf> {
    let dir =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/vectors").join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    use std::io::Write as _;
    let _told = writeln!(std::io::stderr(), "no vectors in {}; skipped", dir.display());
    None
}
