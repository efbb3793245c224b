//! Checkpoints (C2SP tlog-checkpoint): origin, size and root of a log, as the text of a signed note.

use thiserror::Error;

use super::hash::{BadHash, Hash};
use super::note::{BadNote, Note, Signer, VerifierKey};

/// What a log signs about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many leaves it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// Lines that others may read; none of ours.
    pub extensions: Vec<String>,
}

/// Why a text is no checkpoint, or not one that can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadCheckpoint {
    /// It is not signed by whom it should be.
    #[error(transparent)]
    Note(#[from] BadNote),
    /// A line is missing, empty or of another form.
    #[error("no checkpoint: {0}")]
    Form(&'static str),
    /// The root is no hash.
    #[error(transparent)]
    Root(#[from] BadHash),
    /// It is that of another log.
    #[error("the checkpoint is of `{found}`, not of `{expected}`")]
    Origin {
        /// Of which log it is.
        found: String,
        /// Of which it should be.
        expected: String,
    },
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, self.root);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Signed, as it is published.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> String {
        signer.sign(&self.text())
    }

    /// Reads a published checkpoint that one of the keys signed; the key's name is the log's origin.
    ///
    /// # Errors
    /// See [`BadCheckpoint`].
    pub fn open(note: &str, keys: &[VerifierKey]) -> Result<Self, BadCheckpoint> {
        let checkpoint = Self::parse(Note::parse(note)?.verify(keys)?)?;
        if keys.iter().any(|key| key.name() == checkpoint.origin) {
            return Ok(checkpoint);
        }
        let expected = keys.iter().map(VerifierKey::name).collect::<Vec<_>>().join("` or `");
        Err(BadCheckpoint::Origin { found: checkpoint.origin, expected })
    }

    /// Reads a published checkpoint without relying on anybody.
    ///
    /// # Errors
    /// See [`BadCheckpoint`].
    pub fn open_unverified(note: &str) -> Result<Self, BadCheckpoint> {
        Self::parse(Note::parse(note)?.text)
    }

    fn parse(text: &str) -> Result<Self, BadCheckpoint> {
        let mut lines = text.strip_suffix('\n').ok_or(BadCheckpoint::Form("no line end"))?.split('\n');
        let mut line = |what| lines.next().filter(|line| !line.is_empty()).ok_or(BadCheckpoint::Form(what));
        let origin = line("no origin")?.to_owned();
        let digits = line("no size")?;
        let root = line("no root")?;
        let is_number =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let size = digits
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or(BadCheckpoint::Form("the size is no decimal number"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(BadCheckpoint::Form("an empty line"));
        }
        Ok(Self { origin, size, root: root.parse()?, extensions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer() -> Signer {
        Signer::new("log.example/audit", [3; 32]).unwrap()
    }

    proptest! {
        #[test]
        fn a_checkpoint_comes_back_from_its_signed_text(
            size in any::<u64>(),
            root in any::<[u8; 32]>(),
            extensions in prop::collection::vec("[a-z]{1,9}( [0-9]{1,3})?", 0..3),
        ) {
            let checkpoint =
                Checkpoint { origin: "log.example/audit".to_owned(), size, root: Hash(root), extensions };
            let note = checkpoint.sign(&signer());
            let opened = Checkpoint::open(&note, &[signer().verifier().clone()]);
            prop_assert_eq!(opened, Ok(checkpoint.clone()));
            prop_assert_eq!(Checkpoint::open_unverified(&note), Ok(checkpoint));
        }
    }

    #[test]
    fn texts_of_another_form_are_refused() {
        let root = Hash::empty();
        let keys = [signer().verifier().clone()];
        let opened = |text: &str| Checkpoint::open(&signer().sign(text), &keys);
        let good = format!("log.example/audit\n5\n{root}\n");
        assert!(opened(&good).is_ok());
        for bad in [
            good.replace("\n5\n", "\n05\n"),
            good.replace("\n5\n", "\n+5\n"),
            good.replace("\n5\n", "\n\n"),
            good.replace("\n5\n", "\n18446744073709551616\n"),
            good.replace(&root.to_string(), "AAAA"),
            format!("{good}\nlate\n"),
            "log.example/audit\n5\n".to_owned(),
        ] {
            assert!(opened(&bad).is_err(), "{bad:?}");
        }
        let other = opened(&good.replace("log.example", "other.example"));
        assert!(matches!(other, Err(BadCheckpoint::Origin { .. })), "{other:?}");
    }
}
