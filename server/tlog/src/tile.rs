//! Tiles (C2SP tlog-tiles): how a log's hashes and entries are laid out for whoever reads them with other tools.

use std::fmt;

use thiserror::Error;

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_HASHES: u64 = 256;

/// Levels of a tree with 2^64 leaves.
const LEVEL_MAX: u32 = 7;
/// Longest entry of a bundle, in bytes: its length is told in two.
const ENTRY_BYTES_MAX: usize = 65_535;

/// A tile of hashes. Its text is its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// Its level: 0 holds the hashes of leaves, each next one those of 256 of the one below.
    pub level: u32,
    /// Its place in the level.
    pub index: u64,
    /// How many hashes it has, 1 to 256.
    pub width: u32,
}

/// A bundle of entries: the leaves of the tile of level 0 at the same place. Its text is its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bundle {
    /// Its place.
    pub index: u64,
    /// How many entries it has, 1 to 256.
    pub width: u32,
}

/// What cannot be a tile or a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadTile {
    /// The path is none.
    #[error("not the path of a tile")]
    Path,
    /// An entry is too long.
    #[error("an entry has more than 65,535 bytes")]
    Entry,
    /// A bundle ends within an entry.
    #[error("a bundle ends within an entry")]
    Torn,
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        write_place(f, self.index, self.width)
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_place(f, self.index, self.width)
    }
}

impl Tile {
    /// Reads a path.
    ///
    /// # Errors
    /// It is none, or has another form than [`Tile`] writes.
    pub fn parse(path: &str) -> Result<Self, BadTile> {
        let rest = path.strip_prefix("tile/").ok_or(BadTile::Path)?;
        let (level, place) = rest.split_once('/').ok_or(BadTile::Path)?;
        let level = level.parse().ok().filter(|level| *level <= LEVEL_MAX).ok_or(BadTile::Path)?;
        let (index, width) = place_of(place)?;
        Self { level, index, width }.if_printed(path)
    }

    fn if_printed(self, path: &str) -> Result<Self, BadTile> {
        if self.to_string() == path { Ok(self) } else { Err(BadTile::Path) }
    }
}

impl Bundle {
    /// Reads a path.
    ///
    /// # Errors
    /// As [`Tile::parse`].
    pub fn parse(path: &str) -> Result<Self, BadTile> {
        let (index, width) = place_of(path.strip_prefix("tile/entries/").ok_or(BadTile::Path)?)?;
        let bundle = Self { index, width };
        if bundle.to_string() == path { Ok(bundle) } else { Err(BadTile::Path) }
    }

    /// Puts an entry behind those of a bundle.
    ///
    /// # Errors
    /// It is too long.
    pub fn push(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), BadTile> {
        let bytes = u16::try_from(entry.len()).map_err(|_| BadTile::Entry)?;
        bundle.extend_from_slice(&bytes.to_be_bytes());
        bundle.extend_from_slice(entry);
        Ok(())
    }

    /// The entries of a bundle.
    ///
    /// # Errors
    /// It ends within one.
    pub fn entries(mut bundle: &[u8]) -> Result<Vec<&[u8]>, BadTile> {
        let mut entries = Vec::new();
        while let Some((bytes, rest)) = bundle.split_first_chunk::<2>() {
            let (entry, rest) =
                rest.split_at_checked(u16::from_be_bytes(*bytes).into()).ok_or(BadTile::Torn)?;
            debug_assert!(entry.len() <= ENTRY_BYTES_MAX, "two bytes tell no more");
            entries.push(entry);
            bundle = rest;
        }
        if bundle.is_empty() { Ok(entries) } else { Err(BadTile::Torn) }
    }
}

/// The tiles of a tree of this size, full ones and on each level at most one that is not.
pub fn tiles(size: u64) -> impl Iterator<Item = Tile> {
    (0..=LEVEL_MAX).flat_map(move |level| {
        let hashes = size >> (8 * level);
        let full = (0..hashes / TILE_HASHES).map(move |index| Tile { level, index, width: 256 });
        let width = u32::try_from(hashes % TILE_HASHES).unwrap_or(0);
        let partial = (width > 0).then_some(Tile { level, index: hashes / TILE_HASHES, width });
        full.chain(partial)
    })
}

/// `x001/x234/067`, and `.p/17` where there are not 256.
fn write_place(f: &mut fmt::Formatter<'_>, index: u64, width: u32) -> fmt::Result {
    let mut parts = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        parts.push(rest % 1000);
        rest /= 1000;
    }
    while let Some(part) = parts.pop() {
        let more = if parts.is_empty() { "" } else { "/" };
        let x = if parts.is_empty() { "" } else { "x" };
        write!(f, "{x}{part:03}{more}")?;
    }
    if u64::from(width) < TILE_HASHES { write!(f, ".p/{width}") } else { Ok(()) }
}

fn place_of(place: &str) -> Result<(u64, u32), BadTile> {
    let (place, width) = match place.split_once(".p/") {
        Some((place, width)) => (place, width.parse().ok().filter(|width| (1..256).contains(width))),
        None => (place, Some(256)),
    };
    let number = |index: Option<u64>, part: &str| {
        let digits = part.strip_prefix('x').unwrap_or(part);
        let digits = Some(digits)
            .filter(|digits| digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()));
        index?.checked_mul(1000)?.checked_add(digits?.parse().ok()?)
    };
    let index = place.split('/').fold(Some(0), number);
    index.zip(width).ok_or(BadTile::Path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |level, index, width| Tile { level, index, width }.to_string();
        assert_eq!(tile(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile(3, 0, 17), "tile/3/000.p/17");
        assert_eq!(Bundle { index: 999, width: 1 }.to_string(), "tile/entries/999.p/1");
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/8/000",
            "tile/00/000",
            "tile/0/1",
            "tile/0/x000/001",
            "tile/0/x001",
            "tile/0/001/002",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/../000",
            "tile/-1/000",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(Tile::parse(bad), Err(BadTile::Path), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_path_comes_back(level in 0..=LEVEL_MAX, index in any::<u64>(), width in 1..=256_u32) {
            let tile = Tile { level, index, width };
            prop_assert_eq!(Tile::parse(&tile.to_string()), Ok(tile));
            let bundle = Bundle { index, width };
            prop_assert_eq!(Bundle::parse(&bundle.to_string()), Ok(bundle));
        }

        #[test]
        fn entries_come_back_from_a_bundle(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5)) {
            let mut bundle = Vec::new();
            for entry in &entries {
                Bundle::push(&mut bundle, entry).unwrap();
            }
            let expected: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(Bundle::entries(&bundle), Ok(expected));
            if !bundle.is_empty() {
                bundle.pop();
                prop_assert_eq!(Bundle::entries(&bundle), Err(BadTile::Torn));
            }
        }

        #[test]
        fn the_tiles_of_a_tree_hold_every_hash_once(size in 0..200_000_u64) {
            let hashes = |level: u32| -> u64 {
                tiles(size).filter(|tile| tile.level == level).map(|tile| u64::from(tile.width)).sum()
            };
            prop_assert_eq!(hashes(0), size);
            prop_assert_eq!(hashes(1), size / 256);
            prop_assert_eq!(hashes(2), size / 65_536);
        }
    }

    #[test]
    fn an_entry_that_is_too_long_is_refused() {
        assert_eq!(Bundle::push(&mut Vec::new(), &[0; 65_536]), Err(BadTile::Entry));
    }
}
