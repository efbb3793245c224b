//! Signed notes (C2SP signed-note): a text, a blank line, and signatures of Ed25519 by name and key id.
//!
//! Limits: [`NOTE_BYTES_MAX`] for a note, [`SIGNATURES_MAX`] signatures. A signature by a key that nobody knows is passed over; one by a
//! known key must verify.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use thiserror::Error;

/// Longest note, in bytes.
const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signatures of a note.
const SIGNATURES_MAX: usize = 64;
/// The type of an Ed25519 signature and key.
const ED25519_TYPE: u8 = 1;
const KEY_BYTES: usize = 32;
const SIGNATURE_LINE: &str = "\u{2014} ";
/// What golang.org/x/mod/sumdb/note begins a private key with.
const PRIVATE: &str = "PRIVATE+KEY+";

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadKey {
    /// The name is empty, or has spaces, control characters or a plus.
    #[error("a key's name is not empty and has no spaces and no plus, as in `example.com/audit`")]
    Name,
    /// The text has another form.
    #[error("not a key of the form `name+hash+key`")]
    Form,
    /// The hash in the text belongs to another key or name.
    #[error("the hash in it belongs to another key or name")]
    Id,
    /// It is a key of another algorithm.
    #[error("only keys of Ed25519 are known")]
    Algorithm,
}

/// Why a note is not what it says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadNote {
    /// It has another form.
    #[error("no signed note: {0}")]
    Form(&'static str),
    /// None of the known keys signed it.
    #[error("no signature by a known key; it is signed by {0}")]
    Unsigned(String),
    /// A signature by a known key is not of this text.
    #[error("the signature by `{0}` is not of this text")]
    Signature(String),
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: [u8; KEY_BYTES],
}

/// A key that signs. Shows its name only.
pub struct Signer {
    verifier: VerifierKey,
    pair: Ed25519KeyPair,
    seed: [u8; KEY_BYTES],
}

/// A note taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'n> {
    /// What is signed, its last line end included.
    pub text: &'n str,
    signatures: Vec<Signature<'n>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature<'n> {
    name: &'n str,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl VerifierKey {
    fn new(name: &str, key: [u8; KEY_BYTES]) -> Result<Self, BadKey> {
        if !is_name(name) {
            return Err(BadKey::Name);
        }
        let hashed = [name.as_bytes(), b"\n", &[ED25519_TYPE], &key].concat();
        let id = digest(&SHA256, &hashed).as_ref().first_chunk().copied().unwrap_or_default();
        Ok(Self { name: name.to_owned(), id, key })
    }

    /// Reads a key: `name+hash+key`.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let (name, id, key) = parts(text.trim_end())?;
        let parsed = Self::new(name, key)?;
        if parsed.id == id { Ok(parsed) } else { Err(BadKey::Id) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key).verify(text.as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}+{}", self.name, hex(self.id), encoded_key(&self.key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.verifier.name).finish_non_exhaustive()
    }
}

impl Signer {
    /// A key of this seed, 32 random bytes.
    ///
    /// # Errors
    /// The name is none.
    pub fn new(name: &str, seed: [u8; KEY_BYTES]) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| BadKey::Algorithm)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| BadKey::Algorithm)?;
        Ok(Self { verifier: VerifierKey::new(name, key)?, pair, seed })
    }

    /// Reads a key as [`Self::secret`] and golang.org/x/mod/sumdb/note write it.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let (name, id, seed) = parts(text.trim_end().strip_prefix(PRIVATE).ok_or(BadKey::Form)?)?;
        let signer = Self::new(name, seed)?;
        if signer.verifier.id == id { Ok(signer) } else { Err(BadKey::Id) }
    }

    /// The key as text, for a file that only its owner reads.
    #[must_use]
    pub fn secret(&self) -> String {
        let Self { verifier, seed, .. } = self;
        format!("{PRIVATE}{}+{}+{}", verifier.name, hex(verifier.id), encoded_key(seed))
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs a text, which ends with a line end.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let VerifierKey { name, id, .. } = &self.verifier;
        let signature = STANDARD.encode([id.as_slice(), self.pair.sign(text.as_bytes()).as_ref()].concat());
        format!("{text}\n{SIGNATURE_LINE}{name} {signature}\n")
    }
}

impl<'n> Note<'n> {
    /// Takes a note apart; no signature is verified.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(note: &'n str) -> Result<Self, BadNote> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(BadNote::Form("it is longer than 64 KiB"));
        }
        if note.chars().any(|one| one.is_control() && one != '\n') {
            return Err(BadNote::Form("it has control characters"));
        }
        // The last blank line: the text may have some of its own.
        let at = note.rfind("\n\n").ok_or(BadNote::Form("no blank line before the signatures"))?;
        let (text, rest) = note.split_at_checked(at + 1).unwrap_or_default();
        let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let lines = lines.ok_or(BadNote::Form("no line end after the last signature"))?;
        let signatures = lines.split('\n').take(SIGNATURES_MAX + 1).map(Signature::parse);
        let signatures: Vec<_> = signatures.collect::<Result<_, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(BadNote::Form("it has more than 64 signatures"));
        }
        Ok(Self { text, signatures })
    }

    /// The text, if one of the keys signed it.
    ///
    /// # Errors
    /// None did, or the signature by one of them is of something else.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<&'n str, BadNote> {
        let mut is_signed = false;
        for Signature { name, id, bytes } in &self.signatures {
            let Some(key) = keys.iter().find(|key| key.name == *name && key.id == *id) else { continue };
            if !key.verifies(self.text, bytes) {
                return Err(BadNote::Signature((*name).to_owned()));
            }
            is_signed = true;
        }
        let names = || self.signatures.iter().map(|signature| signature.name).collect::<Vec<_>>().join(", ");
        if is_signed { Ok(self.text) } else { Err(BadNote::Unsigned(names())) }
    }
}

impl<'n> Signature<'n> {
    fn parse(line: &'n str) -> Result<Self, BadNote> {
        let parsed = || {
            let (name, text) = line.strip_prefix(SIGNATURE_LINE)?.split_once(' ')?;
            let bytes = STANDARD.decode(text).ok()?;
            let (id, bytes) = bytes.split_first_chunk::<4>()?;
            let is_signature = is_name(name) && !bytes.is_empty();
            is_signature.then(|| Self { name, id: *id, bytes: bytes.to_vec() })
        };
        parsed().ok_or(BadNote::Form("a signature line is `\u{2014} name base64`"))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|one| one.is_whitespace() || one.is_control() || one == '+')
}

/// Name, key id and the 32 bytes of a key.
fn parts(text: &str) -> Result<(&str, [u8; 4], [u8; KEY_BYTES]), BadKey> {
    let (name, rest) = text.split_once('+').ok_or(BadKey::Form)?;
    let (id, key) = rest.split_once('+').ok_or(BadKey::Form)?;
    let is_hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = u32::from_str_radix(id, 16).ok().filter(|_| is_hex).ok_or(BadKey::Form)?.to_be_bytes();
    let key = STANDARD.decode(key).map_err(|_| BadKey::Form)?;
    match key.split_first() {
        Some((&ED25519_TYPE, key)) => Ok((name, id, key.try_into().map_err(|_| BadKey::Form)?)),
        Some(_) => Err(BadKey::Algorithm),
        None => Err(BadKey::Form),
    }
}

fn encoded_key(key: &[u8; KEY_BYTES]) -> String {
    STANDARD.encode([&[ED25519_TYPE], key.as_slice()].concat())
}

fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_specification_is_read_and_verified() {
        let Some(dir) = crate::vectors("signed-note") else { return };
        let read = |name| std::fs::read_to_string(dir.join(name)).unwrap();
        let (note, key) = (read("example.note"), VerifierKey::parse(&read("example.vkey")).unwrap());
        let parsed = Note::parse(&note).unwrap();
        assert_eq!(parsed.verify(std::slice::from_ref(&key)), Ok("This is an example message.\n"));
        assert_eq!(key.to_string(), read("example.vkey").trim_end());
        let other = Signer::new("example.com/foo", [7; 32]).unwrap();
        assert!(matches!(parsed.verify(&[other.verifier().clone()]), Err(BadNote::Unsigned(_))));
    }

    #[test]
    fn a_changed_text_or_signature_is_told_and_other_signatures_do_not_matter() {
        let (one, other) =
            (Signer::new("a.example", [1; 32]).unwrap(), Signer::new("b.example", [2; 32]).unwrap());
        let text = "line\n\nanother line\n";
        let note = one.sign(text);
        let more = format!("{note}{}", other.sign(text).strip_prefix(&format!("{text}\n")).unwrap());
        for (note, key) in [(&note, &one), (&more, &one), (&more, &other)] {
            assert_eq!(Note::parse(note).unwrap().verify(&[key.verifier().clone()]), Ok(text));
        }
        let changed = note.replace("another", "one more");
        let said = Note::parse(&changed).unwrap().verify(&[one.verifier().clone()]);
        assert_eq!(said, Err(BadNote::Signature("a.example".to_owned())));
        assert_eq!(
            Note::parse(&note).unwrap().verify(&[other.verifier().clone()]),
            Err(BadNote::Unsigned("a.example".to_owned()))
        );
    }

    #[test]
    fn keys_come_back_from_their_texts_and_the_seed_is_not_shown() {
        let signer = Signer::new("audit.example/node-1", [9; 32]).unwrap();
        let again = Signer::parse(&format!("{}\n", signer.secret())).unwrap();
        assert_eq!(again.verifier(), signer.verifier());
        assert_eq!(VerifierKey::parse(&signer.verifier().to_string()).as_ref(), Ok(signer.verifier()));
        assert_eq!(format!("{signer:?}"), "Signer { name: \"audit.example/node-1\", .. }");
    }

    #[test]
    fn texts_that_are_no_keys_are_refused_with_what_is_wrong() {
        let good = Signer::new("a.example", [1; 32]).unwrap().verifier().to_string();
        let other_name = good.replace("a.example", "b.example");
        let ecdsa = format!("a.example+00000000+{}", STANDARD.encode([2; 33]));
        for (text, fault) in [
            ("", BadKey::Form),
            ("a.example", BadKey::Form),
            ("a.example+xyz+AA==", BadKey::Form),
            ("a.example+00000000+", BadKey::Form),
            (&ecdsa, BadKey::Algorithm),
            (&other_name, BadKey::Id),
        ] {
            assert_eq!(VerifierKey::parse(text), Err(fault), "{text}");
        }
        for name in ["", "a b", "a+b", "a\tb"] {
            assert_eq!(Signer::new(name, [1; 32]).err(), Some(BadKey::Name));
        }
    }

    #[test]
    fn texts_that_are_no_notes_are_refused() {
        let good = Signer::new("a.example", [1; 32]).unwrap().sign("text\n");
        for bad in [
            String::new(),
            "text\n".to_owned(),
            "text\n\n".to_owned(),
            good.trim_end().to_owned(),
            good.replace('\u{2014}', "-"),
            good.replace("a.example ", "a.example"),
            good.replace("text", "te\u{7}xt"),
            format!("{good}{}", good.lines().last().unwrap().repeat(2)),
        ] {
            assert!(matches!(Note::parse(&bad), Err(BadNote::Form(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_text_comes_reading_it_ends(text in "(\\PC|\n){0,200}") {
            let _either = Note::parse(&text);
            let _either = VerifierKey::parse(&text);
        }
    }
}
