//! The right edge of a growing tree: what is needed to add leaves and to tell the root, and no more.
//!
//! Limits: 64 hashes, whatever the size. Never does: allocate.

use super::hash::Hash;
use super::tree::Nodes;

/// Levels of a tree with 2^64 leaves.
const HEIGHT_MAX: usize = 64;
/// Heights between the hashes of two levels of tiles.
const TILE_HEIGHT: u32 = 8;

/// See the module. The root of the largest complete subtree comes first.
#[derive(Clone, Copy, Debug)]
pub struct Frontier {
    size: u64,
    /// The complete subtree of height h, where the size has bit h.
    subtrees: [Hash; HEIGHT_MAX],
}

impl Default for Frontier {
    fn default() -> Self {
        Self { size: 0, subtrees: [Hash::default(); HEIGHT_MAX] }
    }
}

impl Frontier {
    /// That of a tree of this size.
    ///
    /// # Errors
    /// A node cannot be read.
    pub fn of<N: Nodes>(size: u64, nodes: &mut N) -> Result<Self, N::Error> {
        let mut frontier = Self { size, ..Self::default() };
        for (height, subtree) in (0_u8..).zip(&mut frontier.subtrees) {
            if size >> height & 1 == 1 {
                // Complete subtrees stand side by side, the largest first.
                *subtree = nodes.node(height, (size >> height) - 1)?;
            }
        }
        Ok(frontier)
    }

    /// Leaves so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf, and tells each hash that a level of tiles gets by it: the leaf's own, of level 0; whenever 256 of a level are there,
    /// one of the next.
    pub fn push(&mut self, leaf: Hash, mut tell: impl FnMut(u32, Hash)) {
        tell(0, leaf);
        let mut carried = leaf;
        let mut height = 0;
        for subtree in &mut self.subtrees {
            if self.size >> height & 1 == 0 {
                *subtree = carried;
                break;
            }
            carried = Hash::node(subtree, &carried);
            height += 1;
            if height % TILE_HEIGHT == 0 {
                tell(height / TILE_HEIGHT, carried);
            }
        }
        self.size += 1;
    }

    /// The root of the tree as it stands.
    #[must_use]
    pub fn root(&self) -> Hash {
        let present = self.subtrees.iter().enumerate().filter(|(height, _)| self.size >> height & 1 == 1);
        // From the smallest subtree, the right-most, to the left.
        let joined = present.map(|(_, subtree)| *subtree).reduce(|right, left| Hash::node(&left, &right));
        joined.unwrap_or_else(Hash::empty)
    }
}
