//! Receipts (C2SP tlog-proof): what shows, without the log, that a leaf is in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::checkpoint::{BadCheckpoint, Checkpoint};
use super::hash::{BadHash, Hash};
use super::note::VerifierKey;
use super::tree::{BadProof, verify_inclusion};

const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// Most hashes of a path.
const PATH_MAX: usize = 64;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What the log adds; the leaf itself, where whoever verifies has only the receipt.
    pub extra: Option<Vec<u8>>,
    /// Which leaf, from 0.
    pub index: u64,
    /// The path from the leaf to the root, its sibling first.
    pub path: Vec<Hash>,
    /// The checkpoint, as it was published.
    pub checkpoint: String,
}

/// Why a receipt shows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadReceipt {
    /// It has another form.
    #[error("no receipt: {0}")]
    Form(&'static str),
    /// A line of the path is no hash.
    #[error(transparent)]
    Hash(#[from] BadHash),
    /// The checkpoint in it cannot be relied on.
    #[error(transparent)]
    Checkpoint(#[from] BadCheckpoint),
    /// The leaf is not in the log.
    #[error(transparent)]
    Proof(#[from] BadProof),
}

impl Receipt {
    /// The text.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = format!("{HEAD}\n");
        if let Some(extra) = &self.extra {
            text.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        text.push_str(&format!("index {}\n", self.index));
        for hash in &self.path {
            text.push_str(&hash.to_string());
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a receipt.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self, BadReceipt> {
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(BadReceipt::Form("no blank line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEAD) {
            return Err(BadReceipt::Form("it does not begin with `c2sp.org/tlog-proof@v1`"));
        }
        let extra =
            lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        let extra = extra.map(|text| STANDARD.decode(text)).transpose();
        let extra = extra.map_err(|_| BadReceipt::Form("the extra data is no base64"))?;
        let digits =
            lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(BadReceipt::Form("no index"))?;
        let is_number =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let index = digits
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or(BadReceipt::Form("the index is no decimal number"))?;
        let path: Vec<Hash> = lines.take(PATH_MAX + 1).map(str::parse).collect::<Result<_, _>>()?;
        if path.len() > PATH_MAX {
            return Err(BadReceipt::Form("its path has more than 64 hashes"));
        }
        Ok(Self { extra, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// The checkpoint under which the leaf is in the log.
    ///
    /// # Errors
    /// It is not shown to be.
    pub fn verify(&self, leaf: &Hash, keys: &[VerifierKey]) -> Result<Checkpoint, BadReceipt> {
        let checkpoint = Checkpoint::open(&self.checkpoint, keys)?;
        verify_inclusion(leaf, self.index, checkpoint.size, &self.path, &checkpoint.root)?;
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::Signer;
    use crate::tree::tests::{Leaves, naive};
    use crate::tree::{inclusion, root};

    fn receipt(signer: &Signer, size: u64, index: u64) -> (Receipt, Hash) {
        let mut leaves = Leaves::numbered(size);
        let root = root(size, &mut leaves).unwrap();
        assert_eq!(root, naive(&leaves.0));
        let checkpoint =
            Checkpoint { origin: signer.verifier().name().to_owned(), size, root, extensions: Vec::new() };
        let path = inclusion(index, size, &mut leaves).unwrap();
        let leaf = leaves.0[usize::try_from(index).unwrap()];
        (Receipt { extra: None, index, path, checkpoint: checkpoint.sign(signer) }, leaf)
    }

    #[test]
    fn a_receipt_shows_its_leaf_and_no_other() {
        let signer = Signer::new("log.example", [5; 32]).unwrap();
        let keys = [signer.verifier().clone()];
        for (size, index) in [(1, 0), (2, 1), (7, 6), (300, 255), (300, 256)] {
            let (receipt, leaf) = receipt(&signer, size, index);
            let text = receipt.print();
            let read = Receipt::parse(&text).unwrap();
            assert_eq!((&read, read.print()), (&receipt, text));
            assert_eq!(read.verify(&leaf, &keys).unwrap().size, size);
            assert!(read.verify(&Hash::leaf(b"other"), &keys).is_err());
            let moved = Receipt { index: index + 1, ..read.clone() };
            assert!(moved.verify(&leaf, &keys).is_err());
            let stranger = Signer::new("log.example", [6; 32]).unwrap();
            assert!(read.verify(&leaf, &[stranger.verifier().clone()]).is_err());
        }
    }

    #[test]
    fn extra_data_is_read_and_other_forms_are_refused() {
        let signer = Signer::new("log.example", [5; 32]).unwrap();
        let (receipt, leaf) = receipt(&signer, 5, 2);
        let text = receipt.print();
        let with_extra = Receipt::parse(&text.replace("@v1\n", "@v1\nextra AAAA\n")).unwrap();
        assert!(with_extra.verify(&leaf, &[signer.verifier().clone()]).is_ok());
        assert_eq!(with_extra.extra, Some(vec![0; 3]));
        assert_eq!(Receipt::parse(&with_extra.print()), Ok(with_extra));
        for bad in [
            text.replace("@v1", "@v2"),
            text.replace("@v1\n", "@v1\nextra A\n"),
            text.replace("index 2", "index 02"),
            text.replace("index 2", "index -2"),
            text.replace("index 2\n", ""),
            text.replacen("\n\n", "\n", 1),
            text.replace("index 2\n", &format!("index 2\n{}", format!("{}\n", Hash::empty()).repeat(65))),
        ] {
            assert!(
                Receipt::parse(&bad)
                    .and_then(|read| read.verify(&leaf, &[signer.verifier().clone()]))
                    .is_err(),
                "{bad}"
            );
        }
    }
}
