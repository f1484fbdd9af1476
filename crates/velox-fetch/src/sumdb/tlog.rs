//! The transparent log below a checksum database: a Merkle tree over all records
//! (<https://pkg.go.dev/golang.org/x/mod/sumdb/tlog>, <https://research.swtch.com/tlog>,
//! [RFC 6962](https://www.rfc-editor.org/rfc/rfc6962#section-2.1)).
//!
//! The tree's hashes have one fixed order, in which the log only ever appends: [`stored_hash_index`] gives a hash's
//! place in it. A server hands them out by [`Tile`].

use std::{collections::HashMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// The size of a hash in bytes.
pub const HASH_SIZE: usize = 32;

/// The largest tree: Go counts records in a signed 64-bit number.
const MAX_RECORDS: u64 = i64::MAX as u64;

/// Why the log can't be read, or a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlogError {
    /// Text that is no tree description.
    #[error("malformed tree note")]
    MalformedTree,
    /// Text that is no record.
    #[error("malformed record data")]
    MalformedRecord,
    /// Text that is no hash.
    #[error("malformed hash")]
    MalformedHash,
    /// A path that names no tile.
    #[error("malformed tile path {0:?}")]
    MalformedTilePath(String),
    /// A record or a hash outside of the tree.
    #[error("number {0} is not in the tree")]
    NotInTree(u64),
    /// The proof does not prove it.
    #[error("invalid transparency proof")]
    ProofFailed,
    /// A tile is not of its size, or not of the signed tree.
    #[error("inconsistent tile {0}")]
    InconsistentTile(String),
}

/// A hash of a record or of a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, TreeHash, PartialOrd, Ord)]
pub struct TreeHash(pub [u8; HASH_SIZE]);

impl TreeHash {
    /// The hash of the tree without records.
    #[must_use]
    pub fn empty() -> Self {
        Self(Sha256::digest(b"").into())
    }

    /// Reads the base64 form.
    ///
    /// # Errors
    ///
    /// Text that is not the base64 of 32 bytes.
    pub fn parse(text: &str) -> Result<Self, TlogError> {
        let bytes = super::note::BASE64.decode(text).map_err(|_| TlogError::MalformedHash)?;
        bytes.try_into().map(Self).map_err(|_| TlogError::MalformedHash)
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of a record's content.
#[must_use]
pub fn record_hash(content: &[u8]) -> TreeHash {
    TreeHash(Sha256::new().chain_update([0]).chain_update(content).finalize().into())
}

/// The hash of the tree above two neighbours.
#[must_use]
pub fn node_hash(left: TreeHash, right: TreeHash) -> TreeHash {
    TreeHash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// A signed tree: how many records it has, and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// The number of records.
    pub size: u64,
    /// The hash of them all.
    pub hash: TreeHash,
}

impl TreeHead {
    /// Reads the text of a tree note (`tlog.ParseTree`): a heading, the size, the hash, then lines for later use.
    ///
    /// # Errors
    ///
    /// Text of another form.
    pub fn parse(text: &str) -> Result<Self, TlogError> {
        let rest = text.strip_prefix("go.sum database tree\n").ok_or(TlogError::MalformedTree)?;
        let mut lines = rest.splitn(3, '\n');
        let (Some(size), Some(hash), Some(_)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(TlogError::MalformedTree);
        };
        let number: u64 = size.parse().map_err(|_| TlogError::MalformedTree)?;
        if text.len() > 1_000_000 || number > MAX_RECORDS || size != number.to_string() {
            return Err(TlogError::MalformedTree);
        }
        let hash = TreeHash::parse(hash).map_err(|_| TlogError::MalformedTree)?;
        Ok(Self { size: number, hash })
    }
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "go.sum database tree\n{}\n{}\n", self.size, self.hash)
    }
}

/// One record, as a server answers a look-up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Its number in the log, from 0.
    pub id: u64,
    /// Its content: lines of go.sum.
    pub text: &'a str,
}

impl<'a> LogRecord<'a> {
    /// Reads the record at the start of an answer and gives what follows it: the signed tree note
    /// (`tlog.ParseRecord`).
    ///
    /// # Errors
    ///
    /// Bytes of another form.
    pub fn parse(message: &'a [u8]) -> Result<(Self, &'a [u8]), TlogError> {
        let end = message.iter().position(|b| *b == b'\n').ok_or(TlogError::MalformedRecord)?;
        let (id, rest) = message.split_at(end);
        let rest = rest.get(1..).unwrap_or_default();
        let id: i64 =
            std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).ok_or(TlogError::MalformedRecord)?;
        let id = u64::try_from(id).map_err(|_| TlogError::MalformedRecord)?;
        let blank = rest.windows(2).position(|two| two == b"\n\n").ok_or(TlogError::MalformedRecord)?;
        let (text, rest) = rest.split_at(blank + 1);
        let text = std::str::from_utf8(text).map_err(|_| TlogError::MalformedRecord)?;
        if text.chars().any(|c| c < ' ' && c != '\n') {
            return Err(TlogError::MalformedRecord);
        }
        Ok((Self { id, text }, rest.get(1..).unwrap_or_default()))
    }
}

/// The place of hash number `n` of a level (0 has the records) in the log's order of hashes
/// (section 3.3 of [Crosby and Wallach](https://www.usenix.org/legacy/event/sec09/tech/full_papers/crosby.pdf)).
///
/// `None` when the place lies beyond the largest tree.
#[must_use]
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
#[must_use]
pub fn split_stored_hash_index(index: u64) -> (u32, u64) {
    // LogRecord n's place is below 2n, so the record that brought this hash is at or a little after index/2.
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

/// How many hashes a tree of `size` records stores.
#[must_use]
pub fn stored_hash_count(size: u64) -> Option<u64> {
    let Some(last) = size.checked_sub(1) else { return Some(0) };
    stored_hash_index(0, last)?.checked_add(1 + u64::from(last.trailing_ones()))
}

/// Something that knows the log's hashes by their place.
pub trait HashReader {
    /// Why it can't give one.
    type TlogError: From<TlogError>;

    /// The hashes at these places, one for each, in their order.
    ///
    /// # Errors
    ///
    /// What the reader has to say.
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TreeHash>, Self::Error>;
}

/// The hashes that appending record number `id` adds to the log: its own, and those of the subtrees that it completes.
///
/// # Errors
///
/// What the reader says.
pub fn stored_hashes<R: HashReader>(
    id: u64,
    record: TreeHash,
    reader: &R,
) -> Result<Vec<TreeHash>, R::Error> {
    let completed = id.trailing_ones();
    let indexes = (0..completed)
        .map(|level| stored_hash_index(level, (id >> level) - 1).ok_or(TlogError::NotInTree(id)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut hashes = vec![record];
    let mut above = record;
    for left in reader.read_hashes(&indexes)? {
        above = node_hash(left, above);
        hashes.push(above);
    }
    Ok(hashes)
}

/// The hash of the tree of the first `size` records.
///
/// # Errors
///
/// What the reader says.
pub fn tree_hash<R: HashReader>(size: u64, reader: &R) -> Result<TreeHash, R::Error> {
    if size == 0 {
        return Ok(TreeHash::empty());
    }
    let hashes = reader.read_hashes(&subtree_indexes(0, size)?)?;
    Ok(join(&hashes).ok_or(TlogError::NotInTree(size))?)
}

/// The places of the hashes that make up the subtree of the records `low..high`: complete subtrees, largest first.
fn subtree_indexes(mut low: u64, high: u64) -> Result<Vec<u64>, TlogError> {
    let mut indexes = Vec::new();
    while low < high {
        let level = (high - low).ilog2();
        indexes.push(stored_hash_index(level, low >> level).ok_or(TlogError::NotInTree(high))?);
        low += 1 << level;
    }
    Ok(indexes)
}

/// The hash over complete subtrees, from the smallest, at the right end, to the largest.
fn join(hashes: &[TreeHash]) -> Option<TreeHash> {
    hashes.iter().copied().rev().reduce(|right, left| node_hash(left, right))
}

/// Where a tree of more than one record has its seam: the largest power of two below its size.
fn seam(size: u64) -> u64 {
    1 << size.saturating_sub(1).max(1).ilog2()
}

/// Checks that the tree has record number `id` with this hash: RFC 6962's audit path, nearest sibling first.
///
/// # Errors
///
/// A proof that does not hold.
pub fn check_record(proof: &[TreeHash], tree: TreeHead, id: u64, record: TreeHash) -> Result<(), TlogError> {
    if id >= tree.size || tree.size > MAX_RECORDS {
        return Err(TlogError::NotInTree(id));
    }
    // From the root down: on which side of each seam the record lies.
    let (mut low, mut high) = (0, tree.size);
    let mut sides = Vec::new();
    while high - low > 1 {
        let middle = low + seam(high - low);
        sides.push(id < middle);
        if id < middle { high = middle } else { low = middle }
    }
    if sides.len() != proof.len() {
        return Err(TlogError::ProofFailed);
    }
    let root = sides.iter().rev().zip(proof).fold(record, |hash, (left, sibling)| {
        if *left { node_hash(hash, *sibling) } else { node_hash(*sibling, hash) }
    });
    if root == tree.hash { Ok(()) } else { Err(TlogError::ProofFailed) }
}

/// The proof that [`check_record`] checks.
///
/// # Errors
///
/// A record that is not in the tree, and what the reader says.
pub fn prove_record<R: HashReader>(size: u64, id: u64, reader: &R) -> Result<Vec<TreeHash>, R::Error> {
    if id >= size || size > MAX_RECORDS {
        return Err(TlogError::NotInTree(id).into());
    }
    let (mut low, mut high) = (0, size);
    let mut siblings = Vec::new();
    while high - low > 1 {
        let middle = low + seam(high - low);
        if id < middle {
            siblings.push((middle, high));
            high = middle;
        } else {
            siblings.push((low, middle));
            low = middle;
        }
    }
    read_subtrees(siblings.into_iter().rev(), reader)
}

/// Checks that `new` begins with all of `old`'s records: RFC 6962's consistency proof.
///
/// # Errors
///
/// A proof that does not hold.
pub fn check_tree(proof: &[TreeHash], new: TreeHead, old: TreeHead) -> Result<(), TlogError> {
    if old.size < 1 || old.size > new.size || new.size > MAX_RECORDS {
        return Err(TlogError::NotInTree(old.size));
    }
    let (low, sides) = common_ground(new.size, old.size);
    // The old tree itself is the common ground when that begins at record 0: then the proof need not name it.
    let (start, siblings) = match (low, proof.split_first()) {
        (0, _) => (old.hash, proof),
        (_, Some((first, rest))) => (*first, rest),
        _ => return Err(TlogError::ProofFailed),
    };
    if sides.len() != siblings.len() {
        return Err(TlogError::ProofFailed);
    }
    let (mut of_old, mut of_new) = (start, start);
    for ((left, ..), sibling) in sides.iter().rev().zip(siblings) {
        if *left {
            of_new = node_hash(of_new, *sibling);
        } else {
            of_old = node_hash(*sibling, of_old);
            of_new = node_hash(*sibling, of_new);
        }
    }
    if of_old == old.hash && of_new == new.hash { Ok(()) } else { Err(TlogError::ProofFailed) }
}

/// The proof that [`check_tree`] checks.
///
/// # Errors
///
/// A size of 0, an old tree larger than the new one, and what the reader says.
pub fn prove_tree<R: HashReader>(new: u64, old: u64, reader: &R) -> Result<Vec<TreeHash>, R::Error> {
    if old < 1 || old > new || new > MAX_RECORDS {
        return Err(TlogError::NotInTree(old).into());
    }
    let (low, sides) = common_ground(new, old);
    let ground = (low > 0).then_some((low, old));
    read_subtrees(ground.into_iter().chain(sides.into_iter().rev().map(|(_, low, high)| (low, high))), reader)
}

/// Goes down the new tree to the subtree in which the old one ends. Gives where that subtree begins, and for each seam
/// on the way whether the old end lay on its left, with the records of the side not taken.
fn common_ground(new: u64, old: u64) -> (u64, Vec<(bool, u64, u64)>) {
    let (mut low, mut high) = (0, new);
    let mut sides = Vec::new();
    while old != high {
        let middle = low + seam(high - low);
        if old <= middle {
            sides.push((true, middle, high));
            high = middle;
        } else {
            sides.push((false, low, middle));
            low = middle;
        }
    }
    (low, sides)
}

/// The hashes of the subtrees of these records, by one request.
fn read_subtrees<R: HashReader>(
    ranges: impl Iterator<Item = (u64, u64)>,
    reader: &R,
) -> Result<Vec<TreeHash>, R::Error> {
    let parts = ranges.map(|(low, high)| subtree_indexes(low, high)).collect::<Result<Vec<_>, _>>()?;
    let hashes = reader.read_hashes(&parts.concat())?;
    let mut rest = hashes.as_slice();
    let mut joined = Vec::with_capacity(parts.len());
    for part in parts {
        let (own, after) = rest.split_at_checked(part.len()).ok_or(TlogError::ProofFailed)?;
        joined.push(join(own).ok_or(TlogError::ProofFailed)?);
        rest = after;
    }
    Ok(joined)
}

/// A tile: `width` neighbouring hashes of level `height` × `level`, of which the tile's upper levels follow
/// (<https://go.dev/ref/mod#checksum-database>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, TreeHash)]
pub struct Tile {
    /// The height, 1 to 30. A complete tile has 2^height hashes.
    pub height: u32,
    /// The level in the tiling; -1 stands for the records themselves.
    pub level: i32,
    /// The number within the level, from 0.
    pub n: u64,
    /// The number of hashes in it, 1 to 2^height.
    pub width: u64,
}

impl Tile {
    /// The narrowest tile of this height, 1 to 30, that holds the hash at a place.
    #[must_use]
    pub fn for_index(height: u32, index: u64) -> Self {
        Self::locate(height, index).0
    }

    /// That tile, and the hashes of it below the wanted one.
    fn locate(height: u32, index: u64) -> (Self, std::ops::Range<u64>) {
        let height = height.clamp(1, 30);
        let (level, n) = split_stored_hash_index(index);
        let within = level % height;
        // The subtree's leftmost hash at the tile's own level; no larger than the number of a record.
        let first = n << within;
        let start = first & ((1 << height) - 1);
        let end = start + (1 << within);
        let level = i32::try_from(level / height).unwrap_or(i32::MAX);
        (Self { height, level, n: first >> height, width: end }, start..end)
    }

    /// The path below the database's address, without a leading slash (`tile/8/0/x001/234.p/5`).
    #[must_use]
    pub fn path(&self) -> String {
        let mut n = self.n;
        let mut number = format!("{:03}", n % 1000);
        while n >= 1000 {
            n /= 1000;
            number = format!("x{:03}/{number}", n % 1000);
        }
        let level = if self.level == -1 { "data".to_owned() } else { self.level.to_string() };
        let partial = if self.is_full() { String::new() } else { format!(".p/{}", self.width) };
        format!("tile/{}/{level}/{number}{partial}", self.height)
    }

    /// Reads a path, the inverse of [`Tile::path`].
    ///
    /// # Errors
    ///
    /// A path that names no tile, or not in the one form that it has.
    pub fn parse_path(path: &str) -> Result<Self, TlogError> {
        Self::read_path(path)
            .filter(|tile| tile.path() == path)
            .ok_or_else(|| TlogError::MalformedTilePath(path.to_owned()))
    }

    fn read_path(path: &str) -> Option<Self> {
        let (coordinates, partial) = match path.split_once(".p/") {
            Some((coordinates, width)) => (coordinates, Some(width)),
            None => (path, None),
        };
        let mut parts = coordinates.strip_prefix("tile/")?.split('/');
        let height: u32 = parts.next()?.parse().ok().filter(|height| (1..=30).contains(height))?;
        let level = match parts.next()? {
            "data" => -1,
            level => level.parse().ok().filter(|level| *level >= 0)?,
        };
        let mut n = 0_u64;
        for part in parts {
            let digits: u64 =
                part.strip_prefix('x').unwrap_or(part).parse().ok().filter(|digits| *digits < 1000)?;
            n = n.checked_mul(1000)?.checked_add(digits).filter(|n| *n <= MAX_RECORDS)?;
        }
        let full = 1 << height;
        let width = match partial {
            Some(width) => width.parse().ok().filter(|width| (1..full).contains(width))?,
            None => full,
        };
        Some(Self { height, level, n, width })
    }

    /// Whether the tile has all its hashes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == self.full()
    }

    /// The tile when it has all its hashes.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: 1_u64.checked_shl(self.height).unwrap_or(0), ..self }
    }

    /// The size of its content in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.width.saturating_mul(HASH_SIZE as u64)
    }

    /// The hash at a place, out of the content of this tile.
    ///
    /// # Errors
    ///
    /// A place that this tile does not have, and content that is too short.
    pub fn hash(&self, content: &[u8], index: u64) -> Result<TreeHash, TlogError> {
        let (narrow, range) = Self::locate(self.height, index);
        let ours = Self { width: self.width, ..narrow } == *self && narrow.width <= self.width;
        let bytes = |at: u64| usize::try_from(at).ok()?.checked_mul(HASH_SIZE);
        let part = match (ours, bytes(range.start), bytes(range.end)) {
            (true, Some(start), Some(end)) => content.get(start..end),
            _ => None,
        };
        part.and_then(crown).ok_or_else(|| TlogError::InconsistentTile(self.path()))
    }

    /// The tile `up` levels above, as wide as it is in a tree of `size` records; `None` when that tree has none there.
    fn above(self, up: u32, size: u64) -> Option<Self> {
        let level = self.level.checked_add(i32::try_from(up).ok()?)?;
        let n = self.n.checked_shr(up.checked_mul(self.height)?).unwrap_or(0);
        let hashes = size.checked_shr(u32::try_from(level).ok()?.checked_mul(self.height)?).unwrap_or(0);
        let full = 1 << self.height;
        let width = hashes.saturating_sub(n.checked_mul(full)?).min(full);
        (width > 0).then_some(Self { height: self.height, level, n, width })
    }
}

/// The hash over a power of two of hashes.
fn crown(content: &[u8]) -> Option<TreeHash> {
    let mut level: Vec<TreeHash> = content
        .chunks(HASH_SIZE)
        .map(|bytes| bytes.try_into().map(TreeHash))
        .collect::<Result<_, _>>()
        .ok()?;
    if !level.len().is_power_of_two() {
        return None;
    }
    while level.len() > 1 {
        level = level.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(*left, *right)).collect();
    }
    level.first().copied()
}

/// Something that brings tiles from a cache or a server.
pub trait TileReader {
    /// Why it can't bring one.
    type TlogError: From<TlogError>;

    /// The height of the tiles that it has, 1 to 30.
    fn height(&self) -> u32;

    /// The contents of tiles, one for each, in their order. They need not be true: [`TileHashReader`] checks them.
    ///
    /// # Errors
    ///
    /// What the reader has to say.
    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// Says that these tiles proved true and may be kept.
    fn save_tiles(&self, tiles: &[Tile], contents: &[Vec<u8>]);
}

/// Reads hashes out of tiles that it checks against a signed tree, so that every hash it gives is of that tree
/// (<https://research.swtch.com/tlog#authenticating_tiles>).
pub struct TileHashReader<'a, R> {
    tree: TreeHead,
    tiles: &'a R,
}

impl<'a, R> TileHashReader<'a, R> {
    /// A reader of a tree's hashes.
    pub fn new(tree: TreeHead, tiles: &'a R) -> Self {
        Self { tree, tiles }
    }
}

/// The tiles that one request needs, each once, parents before their children.
#[derive(Default)]
struct Plan {
    tiles: Vec<Tile>,
    numbers: HashMap<Tile, usize>,
}

impl Plan {
    fn add(&mut self, tile: Tile) -> usize {
        *self.numbers.entry(tile).or_insert_with(|| {
            self.tiles.push(tile);
            self.tiles.len() - 1
        })
    }
}

impl<R: TileReader> HashReader for TileHashReader<'_, R> {
    type TlogError = R::Error;

    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TreeHash>, R::Error> {
        let (height, size) = (self.tiles.height().clamp(1, 30), self.tree.size);
        let mut plan = Plan::default();

        // The tiles that the tree's own hash follows from: if it does, they are true.
        let roots = subtree_indexes(0, size)?;
        let mut root_tiles = Vec::with_capacity(roots.len());
        for index in &roots {
            let tile = Tile::for_index(height, *index).above(0, size).ok_or(TlogError::NotInTree(*index))?;
            root_tiles.push(plan.add(tile));
        }
        let trusted = plan.tiles.len();

        // The wanted tiles, each below a chain of parents that ends in one of those.
        let end = stored_hash_index(0, size).ok_or(TlogError::NotInTree(size))?;
        let mut wanted = Vec::with_capacity(indexes.len());
        for index in indexes {
            let outside = || TlogError::NotInTree(*index);
            if *index >= end {
                return Err(outside().into());
            }
            let narrow = Tile::for_index(height, *index);
            let mut chain = Vec::new();
            loop {
                let up = u32::try_from(chain.len()).map_err(|_| outside())?;
                let tile = narrow.above(up, size).ok_or_else(outside)?;
                chain.push(tile);
                if plan.numbers.contains_key(&tile) {
                    break;
                }
            }
            let mut own = 0;
            for tile in chain.into_iter().rev() {
                own = plan.add(tile);
            }
            wanted.push(own);
        }

        let contents = self.tiles.read_tiles(&plan.tiles)?;
        let bad = |tile: &Tile| TlogError::InconsistentTile(tile.path());
        if contents.len() != plan.tiles.len() {
            return Err(TlogError::NotInTree(size).into());
        }
        for (tile, content) in plan.tiles.iter().zip(&contents) {
            if content.len() as u64 != tile.size() {
                return Err(bad(tile).into());
            }
        }
        let hash = |number: usize, index: u64| match (plan.tiles.get(number), contents.get(number)) {
            (Some(tile), Some(content)) => tile.hash(content, index),
            _ => Err(TlogError::NotInTree(index)),
        };

        let parts = root_tiles
            .iter()
            .zip(&roots)
            .map(|(number, index)| hash(*number, *index))
            .collect::<Result<Vec<_>, _>>()?;
        if join(&parts).unwrap_or_else(TreeHash::empty) != self.tree.hash {
            // At least one is wrong; which can't be told.
            let all: Vec<_> = plan.tiles.iter().take(trusted).map(Tile::path).collect();
            return Err(TlogError::InconsistentTile(all.join(", ")).into());
        }
        for (tile, content) in plan.tiles.iter().zip(&contents).skip(trusted) {
            let parent =
                tile.above(1, size).and_then(|parent| plan.numbers.get(&parent)).ok_or_else(|| bad(tile))?;
            let level = u32::try_from(tile.level + 1).ok().and_then(|level| level.checked_mul(height));
            let index = level.and_then(|level| stored_hash_index(level, tile.n)).ok_or_else(|| bad(tile))?;
            if crown(content) != Some(hash(*parent, index)?) {
                return Err(bad(tile).into());
            }
        }
        self.tiles.save_tiles(&plan.tiles, &contents);
        Ok(wanted
            .iter()
            .zip(indexes)
            .map(|(number, index)| hash(*number, *index))
            .collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log in memory.
    #[derive(Default)]
    struct Log {
        size: u64,
        hashes: Vec<TreeHash>,
    }

    impl Log {
        fn of(size: u64) -> Result<Self, TlogError> {
            let mut log = Self::default();
            for id in 0..size {
                let added = stored_hashes(id, record_hash(id.to_string().as_bytes()), &log)?;
                log.hashes.extend(added);
                log.size += 1;
            }
            Ok(log)
        }

        fn tree(&self, size: u64) -> Result<TreeHead, TlogError> {
            Ok(TreeHead { size, hash: tree_hash(size, self)? })
        }
    }

    impl HashReader for Log {
        type TlogError = TlogError;

        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TreeHash>, TlogError> {
            let at =
                |index: &u64| usize::try_from(*index).ok().and_then(|index| self.hashes.get(index)).copied();
            indexes.iter().map(|index| at(index).ok_or(TlogError::NotInTree(*index))).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_record_and_every_older_tree_is_proved(size in 1_u64..120, at: u64, flip: prop::sample::Index) {
            let log = Log::of(size)?;
            prop_assert_eq!(stored_hash_count(size), Some(log.hashes.len() as u64));
            let tree = log.tree(size)?;

            let id = at % size;
            let record = record_hash(id.to_string().as_bytes());
            let mut proof = prove_record(size, id, &log)?;
            prop_assert_eq!(check_record(&proof, tree, id, record), Ok(()));
            if !proof.is_empty() {
                let number = flip.index(proof.len());
                proof[number].0[0] ^= 1;
                prop_assert_eq!(check_record(&proof, tree, id, record), Err(TlogError::ProofFailed));
            }

            let old = log.tree(id + 1)?;
            let mut proof = prove_tree(size, old.size, &log)?;
            prop_assert_eq!(check_tree(&proof, tree, old), Ok(()));
            proof.push(record);
            prop_assert_eq!(check_tree(&proof, tree, old), Err(TlogError::ProofFailed));
        }

        #[test]
        fn places_and_hashes_are_one_to_one(index: u64) {
            let (level, n) = split_stored_hash_index(index);
            if let Some(back) = stored_hash_index(level, n) {
                prop_assert_eq!(back, index);
            }
        }

        #[test]
        fn no_input_panics(
            level: u32, n: u64, height: u32, tile_level: i32, width: u64, content: Vec<u8>, text: String,
            proof in prop::collection::vec(any::<[u8; 32]>().prop_map(TreeHash), 0..70),
        ) {
            let _ = (stored_hash_index(level, n), stored_hash_count(n), Tile::parse_path(&text));
            let tile = Tile { height, level: tile_level, n, width };
            let _ = (tile.path(), tile.hash(&content, n), Tile::for_index(height, n));
            let _ = (TreeHead::parse(&text), LogRecord::parse(text.as_bytes()), TreeHash::parse(&text));
            let tree = TreeHead { size: n, hash: TreeHash::empty() };
            let _ = check_record(&proof, tree, width, TreeHash::empty());
            let _ = check_tree(&proof, tree, TreeHead { size: width, hash: TreeHash::empty() });
        }

        #[test]
        fn a_tile_path_reads_back(height in 1_u32..=30, level in -1..63_i32, n in 0..MAX_RECORDS, w: u64) {
            let tile = Tile { height, level, n, width: 1 + w % (1 << height) };
            prop_assert_eq!(Tile::parse_path(&tile.path()), Ok(tile));
        }
    }
}
