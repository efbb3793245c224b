//! The Merkle tree over the records, on disk: one file of hashes for each level of tiles.
//!
//! Level 0 has the hash of each record, in order; level n that of each 256 of level n − 1. A tile of C2SP tlog-tiles is 8,192 bytes of such a
//! file, so every tile of every size that was ever signed can be read.
//! Owns: the files, the right edge of the tree. Limits: 32 bytes for a record and a 255th part of that for what stands above.
//! Never does: sign, or believe a hash that it could not have made from the records of the last segment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cardea_tlog::{Frontier, HASH_BYTES, Hash, Nodes, TILE_HASHES};

use super::files::TREE;

/// Levels that 2^64 records could have.
const LEVELS: usize = 8;
/// Height of a tile.
const TILE_HEIGHT: u8 = 8;

/// Reads the hashes of a log's tree.
pub(in crate::audit) struct Hashes {
    dir: PathBuf,
    files: [Option<File>; LEVELS],
}

impl Hashes {
    pub(in crate::audit) fn open(dir: &Path) -> Self {
        Self { dir: dir.join(TREE), files: [const { None }; LEVELS] }
    }

    /// One hash of a level.
    ///
    /// # Errors
    /// The file cannot be read, or does not go so far.
    pub(in crate::audit) fn hash(&mut self, level: usize, index: u64) -> io::Result<Hash> {
        let mut hash = Hash::default();
        self.file(level)?.read_exact_at(&mut hash.0, index.saturating_mul(HASH_BYTES as u64))?;
        Ok(hash)
    }

    /// Hashes of a level, one after the other.
    ///
    /// # Errors
    /// As [`Self::hash`].
    pub(in crate::audit) fn hashes(
        &mut self,
        level: usize,
        index: u64,
        count: usize,
    ) -> io::Result<Vec<Hash>> {
        let mut bytes = vec![0; count.saturating_mul(HASH_BYTES)];
        self.file(level)?.read_exact_at(&mut bytes, index.saturating_mul(HASH_BYTES as u64))?;
        Ok(bytes.as_chunks().0.iter().copied().map(Hash).collect())
    }

    /// How many hashes a level has.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(in crate::audit) fn len(&mut self, level: usize) -> io::Result<u64> {
        match self.file(level) {
            Ok(file) => Ok(file.metadata()?.len() / HASH_BYTES as u64),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn file(&mut self, level: usize) -> io::Result<&File> {
        let path = path(&self.dir, level);
        let file = self.files.get_mut(level).ok_or(io::ErrorKind::InvalidInput)?;
        match file {
            Some(file) => Ok(file),
            None => Ok(file.insert(File::open(path)?)),
        }
    }
}

impl Nodes for Hashes {
    type Error = io::Error;

    /// From the hashes of the level below, at most 128 of them.
    fn node(&mut self, height: u8, index: u64) -> io::Result<Hash> {
        let level = usize::from(height / TILE_HEIGHT);
        let above = u32::from(height % TILE_HEIGHT);
        let mut hashes = self.hashes(level, index << above, 1 << above)?;
        while hashes.len() > 1 {
            hashes = hashes.chunks_exact(2).filter_map(joined).collect();
        }
        hashes.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn joined(pair: &[Hash]) -> Option<Hash> {
    if let [left, right] = pair { Some(Hash::node(left, right)) } else { None }
}

/// The tree of the log that is written.
pub(super) struct Tree {
    files: Vec<File>,
    dir: PathBuf,
    frontier: Frontier,
    /// Hashes that are not in the files yet, level by level, with the place of the first.
    pending: [Pending; LEVELS],
}

#[derive(Default)]
struct Pending {
    first: u64,
    bytes: Vec<u8>,
}

impl Tree {
    /// The tree over the first `size` records, whose hashes are in the files; what is beyond is cut off.
    pub(super) fn open(dir: &Path, size: u64) -> io::Result<Self> {
        let tree = dir.join(TREE);
        fs::create_dir_all(&tree)?;
        let frontier = Frontier::of(size, &mut Hashes::open(dir))?;
        let mut opened = Self { files: Vec::new(), dir: tree, frontier, pending: Default::default() };
        for level in 0..LEVELS {
            let kept = size >> (8 * level);
            let path = path(&opened.dir, level);
            if path.exists() {
                let file = opened.file(level)?;
                file.set_len(kept.saturating_mul(HASH_BYTES as u64))?;
            }
            if let Some(pending) = opened.pending.get_mut(level) {
                pending.first = kept;
            }
        }
        Ok(opened)
    }

    /// Adds the hash of a record.
    pub(super) fn push(&mut self, leaf: Hash) {
        let pending = &mut self.pending;
        self.frontier.push(leaf, |level, hash| {
            if let Some(level) = usize::try_from(level).ok().and_then(|level| pending.get_mut(level)) {
                level.bytes.extend_from_slice(&hash.0);
            }
        });
    }

    /// Writes what was added into the files. After an error the same may be tried again.
    pub(super) fn write(&mut self) -> io::Result<()> {
        for level in 0..LEVELS {
            let Some(pending) = self.pending.get_mut(level).filter(|pending| !pending.bytes.is_empty())
            else {
                continue;
            };
            let Pending { first, bytes } = std::mem::take(pending);
            let written =
                self.file(level).and_then(|file| file.write_all_at(&bytes, first * HASH_BYTES as u64));
            let hashes = (bytes.len() / HASH_BYTES) as u64;
            if let Some(pending) = self.pending.get_mut(level) {
                *pending = match &written {
                    Ok(()) => Pending { first: first + hashes, bytes: cleared(bytes) },
                    Err(_) => Pending { first, bytes },
                };
            }
            written?;
        }
        Ok(())
    }

    /// Makes the files survive a crash of the machine.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)
    }

    /// Records in the tree.
    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Its root.
    pub(super) fn root(&self) -> Hash {
        self.frontier.root()
    }

    fn file(&mut self, level: usize) -> io::Result<&File> {
        while self.files.len() <= level {
            let path = path(&self.dir, self.files.len());
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            self.files.push(file);
        }
        self.files.get(level).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Whether a segment may begin with the record after this many: only where a tile ends.
pub(super) const fn ends_tile(size: u64) -> bool {
    size.is_multiple_of(TILE_HASHES)
}

fn cleared(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    bytes
}

fn path(tree: &Path, level: usize) -> PathBuf {
    tree.join(level.to_string())
}

#[cfg(test)]
mod tests {
    use cardea_tlog::{inclusion, root, verify_inclusion};

    use super::*;

    #[test]
    fn the_files_hold_every_hash_and_the_tree_goes_on_from_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let leaves: Vec<Hash> = (0..70_000_u32).map(|at| Hash::leaf(&at.to_be_bytes())).collect();
        let mut tree = Tree::open(dir.path(), 0).unwrap();
        for chunk in leaves.chunks(777) {
            chunk.iter().for_each(|leaf| tree.push(*leaf));
            tree.write().unwrap();
        }
        let mut hashes = Hashes::open(dir.path());
        let len = |hashes: &mut Hashes| [0, 1, 2, 3].map(|level| hashes.len(level).unwrap());
        assert_eq!(len(&mut hashes), [70_000, 273, 1, 0]);
        assert_eq!(root(70_000, &mut hashes).unwrap(), tree.root());
        for index in [0, 255, 256, 65_535, 65_536, 69_999] {
            let path = inclusion(index, 70_000, &mut hashes).unwrap();
            let leaf = leaves[usize::try_from(index).unwrap()];
            assert_eq!(verify_inclusion(&leaf, index, 70_000, &path, &tree.root()), Ok(()));
        }
        let whole = tree.root();
        for size in [0, 1, 256, 65_536, 69_888] {
            let mut again = Tree::open(dir.path(), size).unwrap();
            assert_eq!(again.size(), size);
            leaves.iter().skip(usize::try_from(size).unwrap()).for_each(|leaf| again.push(*leaf));
            again.write().unwrap();
            assert_eq!(again.root(), whole);
            assert_eq!(len(&mut Hashes::open(dir.path())), [70_000, 273, 1, 0]);
        }
    }
}
