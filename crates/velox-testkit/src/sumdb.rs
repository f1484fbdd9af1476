use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher, RandomState},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use data_encoding::HEXLOWER;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest, Sha256};

use crate::{Files, localhost::locked};

const NAME: &str = "sum.testkit.example";
/// The algorithm byte before a key's 32 bytes.
const ED25519: u8 = 1;
/// The hashes of a complete tile.
const HASHES_PER_TILE: u64 = 256;

type RecordHash = [u8; 32];

/// A checksum database (<https://go.dev/ref/mod#checksum-database>) with its own key. Like the public one, it
/// records a module version when it is first requested.
///
/// It shares no code with the client under test: trees are computed from all records each time.
pub(crate) struct TestSumDb {
    log: Mutex<RecordLog>,
}

struct RecordLog {
    key: Arc<Ed25519KeyPair>,
    /// The signing key; replaced by [`TestSumDb::sign_by_another`].
    signer: Arc<Ed25519KeyPair>,
    records: Vec<String>,
    by_version: BTreeMap<String, usize>,
}

impl Default for TestSumDb {
    fn default() -> Self {
        let key = new_key();
        let log = RecordLog { signer: key.clone(), key, records: Vec::new(), by_version: BTreeMap::new() };
        Self { log: Mutex::new(log) }
    }
}

impl TestSumDb {
    /// The verifier key, for GOSUMDB.
    pub(crate) fn key(&self) -> String {
        let public = [&[ED25519], self.log().key.public_key().as_ref()].concat();
        format!("{NAME}+{:08x}+{}", u32::from_be_bytes(key_hash(&public)), STANDARD.encode(public))
    }

    /// The database's path on a proxy.
    pub(crate) fn path() -> String {
        format!("/sumdb/{NAME}")
    }

    /// Records these lines for a version, correct or not.
    pub(crate) fn record(&self, version: &str, text: String) {
        self.log().add(version, text);
    }

    /// Keeps the first `count` records only.
    pub(crate) fn shrink(&self, count: usize) {
        let mut log = self.log();
        log.records.truncate(count);
        log.by_version.retain(|_, index| *index < count);
    }

    /// Replaces the first record and thereby the history.
    pub(crate) fn fork(&self) {
        if let Some(first) = self.log().records.first_mut() {
            *first =
                "example.com/history v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".to_owned();
        }
    }

    /// Signs with an unknown key from now on.
    pub(crate) fn sign_by_another(&self) {
        self.log().signer = new_key();
    }

    /// The response to a path below the database's. `lines` returns the lines of a version not recorded yet.
    pub(crate) fn answer(&self, path: &str, lines: impl FnOnce(&str) -> Option<String>) -> Option<Vec<u8>> {
        if path == "supported" {
            return Some(Vec::new());
        }
        let log = self.log();
        if path == "latest" {
            return Some(log.signed_tree().into_bytes());
        }
        if let Some(tile) = path.strip_prefix("tile/8/") {
            return log.tile(tile);
        }
        let version = path.strip_prefix("lookup/")?;
        let known = log.by_version.get(version).copied();
        drop(log);
        let index = match known {
            Some(index) => index,
            None => {
                let lines = lines(version)?;
                self.log().add(version, lines)
            }
        };
        let log = self.log();
        Some(format!("{index}\n{}\n{}", log.records.get(index)?, log.signed_tree()).into_bytes())
    }

    fn log(&self) -> MutexGuard<'_, RecordLog> {
        locked(&self.log)
    }
}

impl RecordLog {
    fn add(&mut self, version: &str, text: String) -> usize {
        let index = self.records.len();
        self.records.push(text);
        *self.by_version.entry(version.to_owned()).or_insert(index)
    }

    /// A signed note (<https://pkg.go.dev/golang.org/x/mod/sumdb/note>) of the whole tree.
    fn signed_tree(&self) -> String {
        let size = self.records.len() as u64;
        let text = format!("go.sum database tree\n{size}\n{}\n", STANDARD.encode(self.hash(0..size)));
        let public = [&[ED25519], self.key.public_key().as_ref()].concat();
        let signature = [key_hash(&public).as_slice(), self.signer.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n\u{2014} {NAME} {}\n", STANDARD.encode(signature))
    }

    /// The hash of the tree of these records: <https://www.rfc-editor.org/rfc/rfc6962#section-2.1>
    fn hash(&self, records: Range<u64>) -> RecordHash {
        let Range { start, end } = records;
        match end - start {
            0 => Sha256::digest(b"").into(),
            1 => {
                let record = &self.records[usize::try_from(start).expect("an index")];
                Sha256::new().chain_update([0]).chain_update(record).finalize().into()
            }
            count => {
                let middle = start + (1 << (count - 1).ilog2());
                let (left, right) = (self.hash(start..middle), self.hash(middle..end));
                Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
            }
        }
    }

    /// `LEVEL/NUMBER` or `LEVEL/NUMBER.p/WIDTH`, the number in groups of three digits (`x001/x234/567`).
    fn tile(&self, path: &str) -> Option<Vec<u8>> {
        let (level, rest) = path.split_once('/')?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok()?),
            None => (rest, HASHES_PER_TILE),
        };
        let level: u32 = level.parse().ok().filter(|level| *level < 7)?;
        let number: u64 = number.replace(['x', '/'], "").parse().ok()?;
        let below = HASHES_PER_TILE.pow(level);
        let mut tile = Vec::new();
        for index in number * HASHES_PER_TILE..number * HASHES_PER_TILE + width {
            let records = index * below..(index + 1) * below;
            if records.end > self.records.len() as u64 {
                return None;
            }
            tile.extend_from_slice(&self.hash(records));
        }
        Some(tile)
    }
}

/// The lines of go.sum for a module's files and its go.mod: <https://go.dev/ref/mod#go-sum-files>
pub(crate) fn go_sum_lines(path: &str, version: &str, files: &Files, go_mod: &[u8]) -> String {
    let of = |names: &mut dyn Iterator<Item = (String, &[u8])>| {
        let mut lines: Vec<(String, String)> =
            names.map(|(name, content)| (name, HEXLOWER.encode(&Sha256::digest(content)))).collect();
        lines.sort();
        let text: String = lines.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        STANDARD.encode(Sha256::digest(text))
    };
    let zip = of(&mut files.iter().map(|(name, content)| (format!("{path}@{version}/{name}"), &**content)));
    let go_mod = of(&mut std::iter::once(("go.mod".to_owned(), go_mod)));
    format!("{path} {version} h1:{zip}\n{path} {version}/go.mod h1:{go_mod}\n")
}

fn key_hash(public: &[u8]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(NAME).chain_update(b"\n").chain_update(public).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A random key, different for each database of a test run.
fn new_key() -> Arc<Ed25519KeyPair> {
    let mut seed = RecordHash::default();
    for part in seed.chunks_mut(8) {
        part.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    Arc::new(Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes"))
}
