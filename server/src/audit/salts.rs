//! Pseudonyms that can be taken back: a salted hash of each value, with a salt of its own, kept apart from the log.
//!
//! ```text
//! audit.salts:  KEY                       HMAC-SHA256 key, made once
//!               FINGERPRINT SALT          for each value: HMAC of the value under KEY, and its random salt
//! pseudonym     ~ SHA-256(SALT || value), 10 bytes in hexadecimal
//! ```
//!
//! Whoever has the log alone cannot tell a value from its pseudonym, nor try values out. Whoever has both files can find the records about a
//! value. Once a value's line is gone, nobody can any more: what the log says of it is about nobody. A value that comes again gets another salt.
//! Owns: one file, readable by its owner only; lines are added to it, and taken out by replacing it whole (`cardea audit erase`), which a
//! running node notices. What a crash takes of its end costs a new pseudonym.
//! Limits: `SALTS_MAX` values, 32 bytes each and the table around them; beyond it values are left out of records.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac};
use thiserror::Error;

use super::log::replace;

/// Most values that have a pseudonym: about 100 MB in memory.
pub const SALTS_MAX: usize = 1_000_000;

/// How often the file is looked at for what was erased, in milliseconds.
const LOOK_INTERVAL_MS: u64 = 1_000;

const KEY_BYTES: usize = 32;
const PART_BYTES: usize = 16;
const PSEUDONYM_BYTES: usize = 10;

/// Why there are no pseudonyms.
#[derive(Debug, Error)]
pub enum NoSalts {
    /// The file system refused, or the machine has no randomness.
    #[error("cannot {action} the salts in `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("`{}` holds no salts of an audit: line {line} is none", .path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
    },
}

type Part = [u8; PART_BYTES];

/// See the module.
pub struct Salts {
    path: PathBuf,
    key: hmac::Key,
    secret: [u8; KEY_BYTES],
    salts: HashMap<Part, Part>,
    file: File,
    /// The file by its number, which is another one once something was erased.
    inode: u64,
    looked_ms: u64,
    random: SystemRandom,
}

impl Salts {
    /// Where they lie for a log.
    #[must_use]
    pub fn path(audit_dir: &Path) -> PathBuf {
        audit_dir.with_extension("salts")
    }

    /// Reads them; makes the file where there is none.
    ///
    /// # Errors
    /// See [`NoSalts`].
    pub fn open(path: &Path) -> Result<Self, NoSalts> {
        match Self::read(path) {
            Err(NoSalts::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::make(path)?;
                Self::read(path)
            }
            read => read,
        }
    }

    /// Reads them; there must be some.
    ///
    /// # Errors
    /// See [`NoSalts`].
    pub fn read(path: &Path) -> Result<Self, NoSalts> {
        let io = |action| move |source| NoSalts::Io { action, path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(io("read"))?;
        let inode = file.metadata().map_err(io("read"))?.ino();
        let mut lines = BufReader::new(&file).split(b'\n').enumerate();
        let bad = |line: usize| NoSalts::Bad { path: path.to_owned(), line: line + 1 };
        let first = lines.next().ok_or_else(|| bad(0))?.1.map_err(io("read"))?;
        let secret: [u8; KEY_BYTES] = unhex(&first).ok_or_else(|| bad(0))?;
        let mut salts = HashMap::new();
        let mut torn = None;
        for (number, line) in lines {
            let line = line.map_err(io("read"))?;
            // Only the last one may have been cut off by a crash.
            if let Some(number) = torn {
                return Err(bad(number));
            }
            let parts = line.split_at_checked(2 * PART_BYTES);
            let parts = parts.and_then(|(id, salt)| Some((unhex(id)?, unhex(salt.strip_prefix(b" ")?)?)));
            match parts {
                Some((id, salt)) => drop(salts.insert(id, salt)),
                None => torn = Some(number),
            }
        }
        if torn.is_some() {
            // What comes next begins a line of its own.
            (&file).write_all(b"\n").map_err(io("write"))?;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let random = SystemRandom::new();
        Ok(Self { path: path.to_owned(), key, secret, salts, file, inode, looked_ms: 0, random })
    }

    fn make(path: &Path) -> Result<(), NoSalts> {
        let io = |action| move |source| NoSalts::Io { action, path: path.to_owned(), source };
        let mut secret = [0; KEY_BYTES];
        let no_randomness = |_| io("make")(io::Error::other("the machine has no randomness"));
        SystemRandom::new().fill(&mut secret).map_err(no_randomness)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(io("make"))?;
        writeln!(file, "{}", hex(&secret)).and_then(|()| file.sync_all()).map_err(io("write"))
    }

    /// The pseudonym of a value; makes its salt if it has none. `None`: there are too many already, or no randomness.
    pub fn pseudonym(&mut self, value: &str) -> Option<String> {
        let id = self.id(value);
        if let Some(salt) = self.salts.get(&id) {
            return Some(pseudonym(salt, value));
        }
        if self.salts.len() >= SALTS_MAX {
            return None;
        }
        let mut salt = Part::default();
        self.random.fill(&mut salt).ok()?;
        let line = format!("{} {}\n", hex(&id), hex(&salt));
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            tracing::warn!(%error, file = %self.path.display(), "a salt cannot be kept: after a restart its value has another pseudonym");
        }
        self.salts.insert(id, salt);
        Some(pseudonym(&salt, value))
    }

    /// The pseudonym that a value has, if it has one.
    #[must_use]
    pub fn known(&self, value: &str) -> Option<String> {
        self.salts.get(&self.id(value)).map(|salt| pseudonym(salt, value))
    }

    /// Erases the salts of these values; says how many there were. The file is replaced whole.
    ///
    /// # Errors
    /// The file cannot be written; then nothing is erased.
    pub fn erase(&mut self, values: &[String]) -> Result<usize, NoSalts> {
        let before = self.salts.len();
        for value in values {
            let id = self.id(value);
            self.salts.remove(&id);
        }
        let mut text = hex(&self.secret);
        text.push('\n');
        for (id, salt) in &self.salts {
            text.push_str(&format!("{} {}\n", hex(id), hex(salt)));
        }
        let io = |source| NoSalts::Io { action: "write", path: self.path.clone(), source };
        replace(&self.path, text.as_bytes(), true).map_err(io)?;
        fs::set_permissions(&self.path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(io)?;
        Ok(before - self.salts.len())
    }

    /// Takes what was erased by somebody else. Asked with each record; looks seldom.
    pub fn look(&mut self, now_ms: u64) {
        if now_ms.abs_diff(self.looked_ms) < LOOK_INTERVAL_MS {
            return;
        }
        self.looked_ms = now_ms;
        if fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            return;
        }
        match Self::open(&self.path) {
            Ok(new) => {
                tracing::info!(salts = new.salts.len(), before = self.salts.len(), "salts were erased");
                *self = Self { looked_ms: now_ms, ..new };
            }
            Err(error) => {
                tracing::error!(%error, "the salts cannot be read again; what was erased still has its pseudonym")
            }
        }
    }

    fn id(&self, value: &str) -> Part {
        let tag = hmac::sign(&self.key, value.as_bytes());
        let mut id = Part::default();
        id.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        id
    }
}

fn pseudonym(salt: &Part, value: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(value.as_bytes());
    let hash = context.finish();
    format!("~{}", hex(hash.as_ref().get(..PSEUDONYM_BYTES).unwrap_or_default()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
        text
    })
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    let nibble = |one: &u8| char::from(*one).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    for (to, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = nibble(high)? << 4 | nibble(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_pseudonym_until_it_is_erased() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.salts");
        let mut salts = Salts::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (ann, bob) = (salts.pseudonym("ann").unwrap(), salts.pseudonym("bob").unwrap());
        assert!(ann.starts_with('~') && ann.len() == 21 && ann != bob);
        assert_eq!(salts.pseudonym("ann").unwrap(), ann);
        let mut again = Salts::open(&path).unwrap();
        assert_eq!((again.known("ann"), again.known("cara")), (Some(ann.clone()), None));
        assert_eq!(again.erase(&["ann".to_owned(), "cara".to_owned()]).unwrap(), 1);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "its line is gone");
        // A node that runs notices.
        salts.look(5_000);
        assert_eq!(salts.known("ann"), None);
        let new = salts.pseudonym("ann").unwrap();
        assert_ne!(new, ann, "nobody can tell that it is the same one");
        assert_eq!(salts.pseudonym("bob").unwrap(), bob);
        assert_eq!(Salts::open(&path).unwrap().known("ann"), Some(new), "written to the new file");
    }

    #[test]
    fn the_same_value_has_another_pseudonym_in_another_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut pseudonyms = ["a.salts", "b.salts"]
            .map(|name| Salts::open(&dir.path().join(name)).unwrap().pseudonym("ann").unwrap());
        pseudonyms.sort();
        assert_ne!(pseudonyms[0], pseudonyms[1]);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_forgotten_and_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.salts");
        let ann = Salts::open(&path).unwrap().pseudonym("ann").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for cut in [1, 5, 40] {
            let torn = format!("{text}{}", "0".repeat(cut));
            fs::write(&path, torn).unwrap();
            let mut salts = Salts::open(&path).unwrap();
            assert_eq!(salts.known("ann").unwrap(), ann);
            fs::write(&path, &text).unwrap();
            salts.pseudonym("bob").unwrap();
        }
        for bad in ["", "zz\n", &text.replace(' ', "x"), &text.replacen('\n', "\nnonsense\n", 1)] {
            fs::write(&path, bad).unwrap();
            let refused = Salts::open(&path);
            // The last line alone may be torn.
            let only_torn = bad.matches('\n').count() == 2 && !bad.contains("nonsense");
            assert_eq!(refused.is_err(), !only_torn, "{bad:?}");
        }
    }
}
