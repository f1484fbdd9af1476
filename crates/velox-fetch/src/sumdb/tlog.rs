//! The transparent log below a checksum database: a Merkle tree over all records
//! (<https://pkg.go.dev/golang.org/x/mod/sumdb/tlog>, <https://research.swtch.com/tlog>,
//! [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962#section-2.1)).
//!
//! The log appends the hashes of its tree in one fixed order; [`stored_hash_index`] is a hash's place in it. A server
//! publishes them in [`Tile`]s, which [`TileHashReader`] verifies.

use std::{collections::HashMap, fmt, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

const HASH_BYTES: usize = 32;

/// The height of the tiles that checksum databases publish: a full tile has 2^8 hashes.
const TILE_HEIGHT: u32 = 8;
const FULL_WIDTH: u64 = 1 << TILE_HEIGHT;

/// The size of the largest tree: Go counts records in a signed 64-bit number.
const MAX_RECORDS: u64 = i64::MAX as u64;

/// Why the log can't be read or verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlogError {
    /// Text that isn't a tree head.
    #[error("malformed tree head")]
    MalformedTree,
    /// Text that isn't a record.
    #[error("malformed record")]
    MalformedRecord,
    /// A record or a hash outside of the tree.
    #[error("number {0} is not in the tree")]
    NotInTree(u64),
    /// A tile has another size than it should, or doesn't belong to the signed tree.
    #[error("inconsistent tile {0}")]
    InconsistentTile(String),
}

/// A hash of a record, of a subtree or of the whole tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogHash([u8; HASH_BYTES]);

impl LogHash {
    /// The hash of the tree without records.
    pub fn empty() -> Self {
        Self(Sha256::digest(b"").into())
    }

    /// The hash of a record's content.
    pub fn of_record(content: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(content).finalize().into())
    }

    /// The hash of the tree above two neighbours.
    fn above(left: Self, right: Self) -> Self {
        Self(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
    }

    /// The hash above complete subtrees, given from the largest to the smallest, at the right end.
    fn above_all(subtrees: &[Self]) -> Option<Self> {
        subtrees.iter().copied().rev().reduce(|right, left| Self::above(left, right))
    }

    /// The hash above a power of two of hashes.
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
    /// The hash of them all.
    pub hash: LogHash,
}

impl TreeHead {
    /// Parses the text of a tree note (`tlog.ParseTree`): a heading, the size, the hash, then lines for later use.
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

/// A record, as a server answers a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Its number in the log, from 0.
    pub id: u64,
    /// Its content: lines of go.sum.
    pub text: &'a str,
}

impl<'a> LogRecord<'a> {
    /// Parses the record at the start of an answer; what follows it is the signed tree note (`tlog.ParseRecord`).
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

/// The place of hash number `n` of a level (0 has the records) in the log's order of hashes
/// (section 3.3 of [Crosby and Wallach](https://www.usenix.org/legacy/event/sec09/tech/full_papers/crosby.pdf)).
///
/// `None` when the place lies beyond the largest tree.
pub fn stored_hash_index(level: u32, n: u64) -> Option<u64> {
    // The hash is written right after the last record below it, whose own place is n + n/2 + n/4 + ….
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

/// The level and number of the hash at a place: the inverse of [`stored_hash_index`].
pub fn split_stored_hash_index(index: u64) -> (u32, u64) {
    // Record n's place is below 2n, so the record that brought this hash is at or a little after index/2.
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

/// The places of the hashes that make up the subtree of some records: complete subtrees, largest first.
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

/// The subtrees whose hashes prove that the tree of `new` records begins with that of `old` (RFC 6962's consistency
/// proof), in their order.
fn consistency_subtrees(new: u64, old: u64) -> Vec<Range<u64>> {
    let (mut low, mut high) = (0, new);
    let mut subtrees = Vec::new();
    while old != high {
        // A tree is split at the largest power of two below its size.
        let middle = low + (1 << (high - low - 1).ilog2());
        if old <= middle {
            subtrees.push(middle..high);
            high = middle;
        } else {
            subtrees.push(low..middle);
            low = middle;
        }
    }
    // The old tree itself need not be named.
    if low > 0 {
        subtrees.push(low..old);
    }
    subtrees.reverse();
    subtrees
}

/// Up to 256 neighbouring hashes of level 8 × `level`; the hashes above them follow from these
/// (<https://go.dev/ref/mod#checksum-database>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// The level in the tiling, from 0.
    pub level: u32,
    /// The number within the level, from 0.
    pub n: u64,
    /// The number of hashes, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// The narrowest tile that holds the hash at a place.
    pub fn for_index(index: u64) -> Self {
        Self::locate(index).0
    }

    /// That tile, and the tile's hashes below the one at the place.
    fn locate(index: u64) -> (Self, Range<u64>) {
        let (level, n) = split_stored_hash_index(index);
        let within = level % TILE_HEIGHT;
        let first = n << within;
        let start = first % FULL_WIDTH;
        let end = start + (1 << within);
        (Self { level: level / TILE_HEIGHT, n: first / FULL_WIDTH, width: end }, start..end)
    }

    /// The path below the database's URL, without a leading slash (`tile/8/0/x001/234.p/5`).
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

    /// The tile when it has all its hashes.
    pub fn full(self) -> Self {
        Self { width: FULL_WIDTH, ..self }
    }

    /// The size of its content in bytes.
    pub fn size(self) -> usize {
        usize::try_from(self.width).unwrap_or(usize::MAX).saturating_mul(HASH_BYTES)
    }

    /// The hash at a place, from the content of this tile.
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

    /// The tile `up` levels above, as wide as it is in a tree of `size` records; `None` when that tree has none there.
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

/// A source of tiles: a cache, a server.
pub trait TileReader {
    /// Why it can't read one.
    type Error: From<TlogError>;

    /// Reads the contents of tiles, in their order. They need not be true: [`TileHashReader`] verifies them.
    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// Keeps tiles that are verified.
    fn save_tiles(&self, tiles: &[Tile], contents: &[Vec<u8>]);
}

/// Reads hashes from tiles that it verifies against a signed tree
/// (<https://research.swtch.com/tlog#authenticating_tiles>).
pub struct TileHashReader<'a, R> {
    tree: TreeHead,
    tiles: &'a R,
}

/// The tiles of one request, each once, parents before their children.
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

    /// Adds the tile with the hash at a place, below a chain of parents that ends in a tile of the plan.
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
    /// A reader of a tree's hashes.
    pub fn new(tree: TreeHead, tiles: &'a R) -> Self {
        Self { tree, tiles }
    }

    /// The hash of the tree of the first `size` records.
    pub fn tree_hash(&self, size: u64) -> Result<LogHash, R::Error> {
        if size == 0 {
            return Ok(LogHash::empty());
        }
        let hashes = self.read_hashes(&subtree_indexes(0..size)?)?;
        Ok(LogHash::above_all(&hashes).ok_or(TlogError::NotInTree(size))?)
    }

    /// The proof that this tree begins with the tree of `old` records, or doesn't (`tlog.ProveTree`).
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

    /// The hashes at these places, in their order.
    pub fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<LogHash>, R::Error> {
        let size = self.tree.size;
        let mut plan = TilePlan::default();

        // The tiles that the tree's own hash follows from: if it does, they are true.
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
            // At least one is wrong; which one can't be known.
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
