//! The transparency log of a checksum database: a Merkle tree over all records
//! (<https://pkg.go.dev/golang.org/x/mod/sumdb/tlog>, <https://research.swtch.com/tlog>,
//! [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962#section-2.1)).
//!
//! The log appends tree hashes in a fixed order, with [`stored_hash_index`] as the index. Servers publish
//! them in [`Tile`]s, which [`TileHashReader`] verifies.

use std::{collections::HashMap, fmt, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

const HASH_BYTES: usize = 32;

/// The height of the tiles of checksum databases: a full tile has 2^8 hashes.
const TILE_HEIGHT: u32 = 8;
const FULL_WIDTH: u64 = 1 << TILE_HEIGHT;

/// The maximum tree size: Go counts records with a signed 64-bit integer.
const MAX_RECORDS: u64 = i64::MAX as u64;

/// An error reading or verifying the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlogError {
    /// The tree head can't be parsed.
    #[error("malformed tree head")]
    MalformedTree,
    /// The record can't be parsed.
    #[error("malformed record")]
    MalformedRecord,
    /// A record or hash index is outside the tree.
    #[error("number {0} is not in the tree")]
    NotInTree(u64),
    /// A tile has the wrong size or doesn't belong to the signed tree.
    #[error("inconsistent tile {0}")]
    InconsistentTile(String),
}

/// The hash of a record, a subtree or the whole tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogHash([u8; HASH_BYTES]);

impl LogHash {
    /// The hash of the empty tree.
    pub fn empty() -> Self {
        Self(Sha256::digest(b"").into())
    }

    /// The leaf hash of a record.
    pub fn of_record(content: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(content).finalize().into())
    }

    /// The parent hash of two subtrees.
    fn above(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// The root hash of complete subtrees, ordered from the largest to the smallest.
    fn above_all(subtrees: &[Self]) -> Option<Self> {
        subtrees.iter().copied().rev().reduce(|right, left| Self::above(left, right))
    }

    /// The root hash of a tile, whose number of hashes must be a power of two.
    fn above_tile(content: &[u8]) -> Option<Self> {
        let hashes = content.chunks(HASH_BYTES).map(|bytes| bytes.try_into().map(Self));
        let mut level: Vec<Self> = hashes.collect::<Result<_, _>>().ok()?;
        if !level.len().is_power_of_two() {
            return None;
        }
        while level.len() > 1 {
            level = level.as_chunks::<2>().0.iter().map(|[left, right]| Self::above(*left, *right)).collect();
        }
        level.first().copied()
    }
}

impl fmt::Display for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The size and the hash of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// The number of records.
    pub size: u64,
    /// The root hash.
    pub hash: LogHash,
}

impl TreeHead {
    /// Parses a tree note (`tlog.ParseTree`): a header, the size, the hash, and ignored further lines.
    pub fn parse(text: &str) -> Result<Self, TlogError> {
        Self::read(text).ok_or(TlogError::MalformedTree)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_prefix("go.sum database tree\n")?.splitn(3, '\n');
        let (size, hash, _) = (lines.next()?, lines.next()?, lines.next()?);
        let number: u64 = size.parse().ok()?;
        if text.len() > 1_000_000 || number > MAX_RECORDS || size != number.to_string() {
            return None;
        }
        let hash = LogHash(super::note::BASE64.decode(hash).ok()?.try_into().ok()?);
        Some(Self { size: number, hash })
    }
}

/// A record of a lookup response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// The record number, from 0.
    pub id: u64,
    /// The content: lines of go.sum.
    pub text: &'a str,
}

impl<'a> LogRecord<'a> {
    /// Parses the record at the start of a response; also returns the signed tree note (`tlog.ParseRecord`).
    pub fn parse(message: &'a [u8]) -> Result<(Self, &'a [u8]), TlogError> {
        Self::read(message).ok_or(TlogError::MalformedRecord)
    }

    fn read(message: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (id, rest) = message.split_at(message.iter().position(|byte| *byte == b'\n')?);
        let id: i64 = std::str::from_utf8(id).ok()?.parse().ok()?;
        let rest = rest.get(1..)?;
        let blank = rest.windows(2).position(|two| two == b"\n\n")?;
        let (text, rest) = rest.split_at(blank + 1);
        let text = std::str::from_utf8(text).ok()?;
        if text.chars().any(|c| c < ' ' && c != '\n') {
            return None;
        }
        Some((Self { id: u64::try_from(id).ok()?, text }, rest.get(1..)?))
    }
}

/// The storage index of hash number `n` of a level (0 is the records), or `None` beyond the largest tree.
/// See section 3.3 of <https://www.usenix.org/legacy/event/sec09/tech/full_papers/crosby.pdf>.
pub fn stored_hash_index(level: u32, n: u64) -> Option<u64> {
    // The hash is stored right after its last record, whose own index is n + n/2 + n/4 + ….
    let mut last = n.checked_add(1)?.checked_mul(1_u64.checked_shl(level)?)?.checked_sub(1)?;
    if last > MAX_RECORDS {
        return None;
    }
    let mut index = u64::from(level);
    while last > 0 {
        index = index.checked_add(last)?;
        last >>= 1;
    }
    Some(index)
}

/// The level and number of a stored hash: the inverse of [`stored_hash_index`].
pub fn split_stored_hash_index(index: u64) -> (u32, u64) {
    // Record n's index is less than 2n, so the record that added this hash is at or shortly after index/2.
    let mut n = index / 2;
    let mut at = stored_hash_index(0, n).unwrap_or(index);
    while let Some(next) = at.checked_add(1 + u64::from((n + 1).trailing_zeros())) {
        if next > index {
            break;
        }
        n += 1;
        at = next;
    }
    let level = u32::try_from(index.saturating_sub(at)).unwrap_or(0);
    (level, n.checked_shr(level).unwrap_or(0))
}

/// The indexes of the complete subtrees of a range of records, largest first.
fn subtree_indexes(records: Range<u64>) -> Result<Vec<u64>, TlogError> {
    let (mut low, high) = (records.start, records.end);
    let mut indexes = Vec::new();
    while low < high {
        let level = (high - low).ilog2();
        indexes.push(stored_hash_index(level, low >> level).ok_or(TlogError::NotInTree(high))?);
        low += 1 << level;
    }
    Ok(indexes)
}

/// The subtrees of a consistency proof (RFC 6962) between trees of `new` and `old` records.
fn consistency_subtrees(new: u64, old: u64) -> Vec<Range<u64>> {
    let (mut low, mut high) = (0, new);
    let mut subtrees = Vec::new();
    while old != high {
        // Trees are split at the largest power of two below their size.
        let middle = low + (1 << (high - low - 1).ilog2());
        if old <= middle {
            subtrees.push(middle..high);
            high = middle;
        } else {
            subtrees.push(low..middle);
            low = middle;
        }
    }
    // The old tree itself isn't part of the proof.
    if low > 0 {
        subtrees.push(low..old);
    }
    subtrees.reverse();
    subtrees
}

/// Up to 256 adjacent hashes of level 8 × `level` (<https://go.dev/ref/mod#checksum-database>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The tile level, from 0.
    pub level: u32,
    /// The number within the level, from 0.
    pub n: u64,
    /// The number of hashes, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// The narrowest tile with the hash at a storage index.
    pub fn for_index(index: u64) -> Self {
        Self::locate(index).0
    }

    /// The narrowest tile, and the range of its hashes below the one at a storage index.
    fn locate(index: u64) -> (Self, Range<u64>) {
        let (level, n) = split_stored_hash_index(index);
        let within = level % TILE_HEIGHT;
        let first = n << within;
        let start = first % FULL_WIDTH;
        let end = start + (1 << within);
        (Self { level: level / TILE_HEIGHT, n: first / FULL_WIDTH, width: end }, start..end)
    }

    /// The path relative to the database URL (`tile/8/0/x001/234.p/5`).
    pub fn path(self) -> String {
        let mut n = self.n;
        let mut number = format!("{:03}", n % 1000);
        while n >= 1000 {
            n /= 1000;
            number = format!("x{:03}/{number}", n % 1000);
        }
        let partial = if self.width == FULL_WIDTH { String::new() } else { format!(".p/{}", self.width) };
        format!("tile/{TILE_HEIGHT}/{}/{number}{partial}", self.level)
    }

    /// The tile at its full width.
    pub fn full(self) -> Self {
        Self { width: FULL_WIDTH, ..self }
    }

    /// The content size in bytes.
    pub fn size(self) -> usize {
        usize::try_from(self.width).unwrap_or(usize::MAX).saturating_mul(HASH_BYTES)
    }

    /// The hash at a storage index, from the content of this tile.
    fn hash(self, content: &[u8], index: u64) -> Result<LogHash, TlogError> {
        let (narrow, hashes) = Self::locate(index);
        let is_here = Self { width: self.width, ..narrow } == self && narrow.width <= self.width;
        let bytes = |at: u64| usize::try_from(at).ok()?.checked_mul(HASH_BYTES);
        let part = match (is_here, bytes(hashes.start), bytes(hashes.end)) {
            (true, Some(start), Some(end)) => content.get(start..end),
            _ => None,
        };
        part.and_then(LogHash::above_tile).ok_or_else(|| self.inconsistent())
    }

    /// The tile `up` levels above, at its width in a tree of `size` records; `None` if the tree has none.
    fn above(self, up: u32, size: u64) -> Option<Self> {
        let level = self.level.checked_add(up)?;
        let n = self.n.checked_shr(up.checked_mul(TILE_HEIGHT)?).unwrap_or(0);
        let hashes = size.checked_shr(level.checked_mul(TILE_HEIGHT)?).unwrap_or(0);
        let width = hashes.saturating_sub(n.checked_mul(FULL_WIDTH)?).min(FULL_WIDTH);
        (width > 0).then_some(Self { level, n, width })
    }

    fn inconsistent(self) -> TlogError {
        TlogError::InconsistentTile(self.path())
    }
}

/// A source of tiles, such as a cache or a server.
pub trait TileReader {
    /// The error of a read.
    type Error: From<TlogError>;

    /// Reads tiles, in order. [`TileHashReader`] verifies the contents.
    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// Stores verified tiles.
    fn save_tiles(&self, tiles: &[Tile], contents: &[Vec<u8>]);
}

/// Reads hashes from tiles, verified against a tree (<https://research.swtch.com/tlog#authenticating_tiles>).
pub struct TileHashReader<'a, R> {
    tree: TreeHead,
    tiles: &'a R,
}

/// The distinct tiles of a request, parents before their children.
#[derive(Default)]
struct TilePlan {
    tiles: Vec<Tile>,
    numbers: HashMap<Tile, usize>,
}

impl TilePlan {
    fn add(&mut self, tile: Tile) -> usize {
        *self.numbers.entry(tile).or_insert_with(|| {
            self.tiles.push(tile);
            self.tiles.len() - 1
        })
    }

    /// Adds the tile of a storage index, and its parents up to a tile of the plan.
    fn add_chain(&mut self, index: u64, size: u64) -> Option<usize> {
        let narrow = Tile::for_index(index);
        let mut chain = Vec::new();
        for up in 0.. {
            let tile = narrow.above(up, size)?;
            chain.push(tile);
            if self.numbers.contains_key(&tile) {
                break;
            }
        }
        chain.into_iter().rev().map(|tile| self.add(tile)).last()
    }
}

impl<'a, R: TileReader> TileHashReader<'a, R> {
    /// Creates a reader for a tree.
    pub fn new(tree: TreeHead, tiles: &'a R) -> Self {
        Self { tree, tiles }
    }

    /// The root hash of the first `size` records.
    pub fn tree_hash(&self, size: u64) -> Result<LogHash, R::Error> {
        if size == 0 {
            return Ok(LogHash::empty());
        }
        let hashes = self.read_hashes(&subtree_indexes(0..size)?)?;
        Ok(LogHash::above_all(&hashes).ok_or(TlogError::NotInTree(size))?)
    }

    /// The consistency proof for the tree of the first `old` records (`tlog.ProveTree`).
    pub fn consistency_proof(&self, old: u64) -> Result<Vec<LogHash>, R::Error> {
        if old < 1 || old > self.tree.size {
            return Err(TlogError::NotInTree(old).into());
        }
        consistency_subtrees(self.tree.size, old)
            .into_iter()
            .map(|records| {
                let hashes = self.read_hashes(&subtree_indexes(records)?)?;
                Ok(LogHash::above_all(&hashes).ok_or(TlogError::NotInTree(old))?)
            })
            .collect()
    }

    /// The hashes at these storage indexes, in order.
    pub fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<LogHash>, R::Error> {
        let size = self.tree.size;
        let mut plan = TilePlan::default();

        // The tiles that determine the root hash; they are verified first.
        let roots = subtree_indexes(0..size)?;
        let mut root_tiles = Vec::with_capacity(roots.len());
        for index in &roots {
            let tile = Tile::for_index(*index).above(0, size).ok_or(TlogError::NotInTree(*index))?;
            root_tiles.push(plan.add(tile));
        }
        let trusted = plan.tiles.len();

        let end = stored_hash_index(0, size).ok_or(TlogError::NotInTree(size))?;
        let mut wanted = Vec::with_capacity(indexes.len());
        for index in indexes {
            let tile = if *index < end { plan.add_chain(*index, size) } else { None };
            wanted.push(tile.ok_or(TlogError::NotInTree(*index))?);
        }

        let contents = self.tiles.read_tiles(&plan.tiles)?;
        if contents.len() != plan.tiles.len() {
            return Err(TlogError::NotInTree(size).into());
        }
        for (tile, content) in plan.tiles.iter().zip(&contents) {
            if content.len() != tile.size() {
                return Err(tile.inconsistent().into());
            }
        }
        let hash = |number: usize, index: u64| match (plan.tiles.get(number), contents.get(number)) {
            (Some(tile), Some(content)) => tile.hash(content, index),
            _ => Err(TlogError::NotInTree(index)),
        };
        let all = |tiles: &[usize], indexes: &[u64]| -> Result<Vec<LogHash>, TlogError> {
            tiles.iter().zip(indexes).map(|(number, index)| hash(*number, *index)).collect()
        };

        if LogHash::above_all(&all(&root_tiles, &roots)?).unwrap_or_else(LogHash::empty) != self.tree.hash {
            // At least one is wrong, but it's unknown which.
            let tiles: Vec<_> = plan.tiles.iter().take(trusted).map(|tile| tile.path()).collect();
            return Err(TlogError::InconsistentTile(tiles.join(", ")).into());
        }
        for (tile, content) in plan.tiles.iter().zip(&contents).skip(trusted) {
            let parent = tile.above(1, size).and_then(|parent| plan.numbers.get(&parent).copied());
            let index = stored_hash_index((tile.level + 1) * TILE_HEIGHT, tile.n);
            let (Some(parent), Some(index)) = (parent, index) else { return Err(tile.inconsistent().into()) };
            if LogHash::above_tile(content) != Some(hash(parent, index)?) {
                return Err(tile.inconsistent().into());
            }
        }
        self.tiles.save_tiles(&plan.tiles, &contents);
        Ok(all(&wanted, indexes)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tiles of arbitrary content.
    struct AnyTiles(Vec<u8>);

    impl TileReader for AnyTiles {
        type Error = TlogError;

        fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, TlogError> {
            Ok(tiles.iter().map(|tile| self.0.iter().copied().cycle().take(tile.size()).collect()).collect())
        }

        fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
    }

    proptest! {
        #[test]
        fn places_and_hashes_are_one_to_one(index: u64) {
            let (level, n) = split_stored_hash_index(index);
            if let Some(back) = stored_hash_index(level, n) {
                prop_assert_eq!(back, index);
            }
        }

        #[test]
        fn no_input_panics(level: u32, n: u64, index: u64, content: Vec<u8>, text: String) {
            let _ = (stored_hash_index(level, n), Tile::for_index(n).path(), TreeHead::parse(&text));
            let _ = LogRecord::parse(text.as_bytes());
            let tiles = AnyTiles(content);
            let reader = TileHashReader::new(TreeHead { size: n, hash: LogHash::empty() }, &tiles);
            let _ = (reader.read_hashes(&[index]), reader.tree_hash(index), reader.consistency_proof(index));
        }
    }
}
