//! A log as static files that public tools read (C2SP tlog-tiles): hashes and entries in tiles of 256, and the checkpoint.
//!
//! What is full never changes, so publishing again writes only what is new. The checkpoint comes last: whoever reads it finds every tile that it
//! needs. Records that were let go of have no entries any more; their hashes stay.

use std::fs;
use std::io;
use std::path::Path;

use cardea_tlog::{BadTile, Bundle, Checkpoint, TILE_HASHES, Tile, tiles};

use super::log::{BadRead, CHECKPOINT, Cursor, Hashes};
use super::prove::NotProven;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Records that the checkpoint covers.
    pub size: u64,
    /// Tiles of hashes that were written.
    pub tiles: u64,
    /// Bundles of entries that were written.
    pub bundles: u64,
}

/// Writes what is new.
///
/// # Errors
/// The log cannot be read, or the file system refuses.
pub fn publish(dir: &Path, to: &Path) -> Result<Published, NotProven> {
    let checkpoint = fs::read_to_string(dir.join(CHECKPOINT))?;
    let size = Checkpoint::open_unverified(&checkpoint)?.size;
    let mut published = Published { size, ..Published::default() };
    let mut hashes = Hashes::open(dir);
    for tile in tiles(size) {
        let path = to.join(tile.to_string());
        if path.exists() {
            continue;
        }
        let Tile { level, index, width } = tile;
        let level = usize::try_from(level).unwrap_or(usize::MAX);
        let count = usize::try_from(width).unwrap_or(0);
        let bytes: Vec<u8> =
            hashes.hashes(level, index * TILE_HASHES, count)?.into_iter().flat_map(|hash| hash.0).collect();
        write(&path, &bytes)?;
        published.tiles += 1;
        // A tile of hashes of records stands beside the records themselves.
        if level == 0 {
            let bundle = Bundle { index, width };
            if let Some(entries) = entries(dir, bundle)? {
                write(&to.join(bundle.to_string()), &entries)?;
                published.bundles += 1;
            }
        }
    }
    write(&to.join(CHECKPOINT), checkpoint.as_bytes())?;
    Ok(published)
}

/// The records of a bundle; `None`: they were let go of.
fn entries(dir: &Path, bundle: Bundle) -> Result<Option<Vec<u8>>, NotProven> {
    let first = bundle.index * TILE_HASHES + 1;
    let until = first + u64::from(bundle.width) - 1;
    let mut cursor = Cursor::new(dir.into(), first);
    let mut bytes = Vec::new();
    loop {
        match cursor.read(until) {
            Ok(Some((_, record))) => Bundle::push(&mut bytes, record).map_err(too_long)?,
            Ok(None) => return Ok(Some(bytes)),
            Err(BadRead::Missing { .. }) => return Ok(None),
            Err(why) => return Err(why.into()),
        }
    }
}

fn too_long(why: BadTile) -> io::Error {
    io::Error::other(why)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Whole or not at all: somebody may be reading.
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}
