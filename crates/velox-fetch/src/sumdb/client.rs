//! Checksum database verification; I/O goes through [`ClientOps`]
//! (<https://go.googlesource.com/proposal/+/master/design/25530-sumdb.md>).

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use velox_gomod::module;

use super::{
    note::{NoteError, Verifier},
    tlog::{LogHash, LogRecord, Tile, TileHashReader, TileReader, TlogError, TreeHead, stored_hash_index},
};

/// A network or file system error.
pub type IoError = Box<dyn std::error::Error + Send + Sync>;

/// The I/O of a [`SumDbClient`]: the server, the persistent state and the cache. Used by several threads.
///
/// The go command's state is at `$GOPATH/pkg/sumdb`, its cache at `GOMODCACHE/cache/download/sumdb`.
pub trait ClientOps: Sync {
    /// Requests a path of the server (`/lookup/…`, `/tile/…`). Any status other than 200 is an error.
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, IoError>;

    /// Reads a state file: `key` (the verifier key) or `<server>/latest` (the latest signed tree or empty).
    fn read_config(&self, file: &str) -> Result<Vec<u8>, IoError>;

    /// Replaces a state file if its content is still `old`; returns whether it was.
    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, IoError>;

    /// Reads a cache file (`<server>/lookup/…`, `<server>/tile/…`).
    fn read_cache(&self, file: &str) -> Option<Vec<u8>>;

    /// Writes a cache file. Errors are ignored, as the file can be downloaded again.
    fn write_cache(&self, file: &str, content: &[u8]);
}

/// A failed checksum database lookup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SumDbError {
    /// The server signed two inconsistent trees. None of its responses can be trusted.
    #[error("checksum database `{server}` is misbehaving: its signed trees are inconsistent\n{report}")]
    Security {
        /// The server's name.
        server: String,
        /// The two signed trees and the proof of their inconsistency.
        report: String,
    },
    /// The module path or version is malformed.
    #[error(transparent)]
    Module(#[from] module::ModuleError),
    /// The server's key is malformed or the tree's signature is invalid.
    #[error("failed to verify the checksum database's signature: {0}")]
    Note(#[from] NoteError),
    /// The response is inconsistent with the signed tree.
    #[error("failed to verify the checksum database's answer: {0}")]
    Log(#[from] TlogError),
    /// The record isn't in the signed tree.
    #[error("checksum database `{server}` answered with record {id}, which its signed tree does not contain")]
    Record {
        /// The server's name.
        server: String,
        /// The record's number.
        id: u64,
    },
    /// The database has no checksum for this file.
    #[error("the checksum database has no sum of {0}")]
    NoSum(String),
    /// A server request or file access failed.
    #[error("failed to query the checksum database for `{path}`: {source}")]
    Io {
        /// The path.
        path: String,
        /// The cause.
        source: IoError,
    },
}

impl SumDbError {
    /// Whether the database's response failed verification.
    pub fn is_verification_failure(&self) -> bool {
        matches!(self, Self::Security { .. } | Self::Note(_) | Self::Log(_) | Self::Record { .. })
    }
}

/// A checksum database client (`sumdb.Client`): every signed tree must be consistent with the latest one
/// seen, and every record must be in it.
pub struct SumDbClient<L> {
    ops: L,
    server: OnceLock<Verifier>,
    latest: Mutex<SignedTree>,
    records: Mutex<HashMap<String, Vec<String>>>,
    tiles: Mutex<HashMap<Tile, Vec<u8>>>,
    saved: Mutex<HashSet<Tile>>,
}

/// A tree and its signed note.
#[derive(Clone, PartialEq)]
struct SignedTree {
    tree: TreeHead,
    note: Vec<u8>,
}

/// The order of a tree relative to the latest one seen.
#[derive(PartialEq)]
enum TreeOrder {
    Older,
    Same,
    Newer,
}

impl<L: ClientOps> SumDbClient<L> {
    /// Creates a client without a known tree.
    pub fn new(ops: L) -> Self {
        let tree = TreeHead { size: 0, hash: LogHash::empty() };
        Self {
            ops,
            server: OnceLock::new(),
            latest: Mutex::new(SignedTree { tree, note: Vec::new() }),
            records: Mutex::default(),
            tiles: Mutex::default(),
            saved: Mutex::default(),
        }
    }

    /// The verified go.sum lines of a module version, or of its go.mod with `VERSION/go.mod`.
    pub fn lookup(&self, path: &str, version: &str) -> Result<Vec<String>, SumDbError> {
        let server = self.server()?;
        let released = version.strip_suffix("/go.mod").unwrap_or(version);
        let remote = format!("/lookup/{}@{}", module::escape_path(path)?, module::escape_version(released)?);
        let file = format!("{}{remote}", server.name());

        let known = hold(&self.records).get(&file).cloned();
        let lines = match known {
            Some(lines) => lines,
            None => {
                let lines = self.verified_record(&remote, &file)?;
                hold(&self.records).insert(file, lines.clone());
                lines
            }
        };
        let prefix = format!("{path} {version} ");
        Ok(lines.into_iter().filter(|line| line.starts_with(&prefix)).collect())
    }

    /// The lines of a record, verified against the latest tree.
    fn verified_record(&self, remote: &str, file: &str) -> Result<Vec<String>, SumDbError> {
        let cached = self.ops.read_cache(file);
        let fresh = cached.is_none();
        let answer = match cached {
            Some(answer) => answer,
            None => self.ops.read_remote(remote).map_err(|cause| io_error(remote, cause))?,
        };
        let (record, tree) = LogRecord::parse(&answer)?;
        self.merge(tree)?;
        self.check(record)?;
        if fresh {
            self.ops.write_cache(file, &answer);
        }
        Ok(record.text.lines().map(str::to_owned).collect())
    }

    /// The server's key; the first call also loads the latest tree from the state.
    fn server(&self) -> Result<&Verifier, SumDbError> {
        if let Some(server) = self.server.get() {
            return Ok(server);
        }
        let key = self.ops.read_config("key").map_err(|cause| io_error("key", cause))?;
        let server = Verifier::parse(String::from_utf8_lossy(&key).trim())?;
        let latest = format!("{}/latest", server.name());
        let note = self.ops.read_config(&latest).map_err(|cause| io_error(&latest, cause))?;
        self.merge_seen(&server, &note)?;
        Ok(self.server.get_or_init(|| server))
    }

    /// Verifies a signed tree and stores it if it is the latest.
    fn merge(&self, note: &[u8]) -> Result<(), SumDbError> {
        let server = self.server()?;
        if self.merge_seen(server, note)? != TreeOrder::Newer {
            return Ok(());
        }
        let file = format!("{}/latest", server.name());
        loop {
            // Other processes may have stored a tree, which must be consistent with ours.
            let stored = self.ops.read_config(&file).map_err(|cause| io_error(&file, cause))?;
            if self.merge_seen(server, &stored)? != TreeOrder::Older {
                return Ok(());
            }
            let newest = hold(&self.latest).note.clone();
            if self.ops.write_config(&file, &stored, &newest).map_err(|cause| io_error(&file, cause))? {
                return Ok(());
            }
        }
    }

    /// Verifies a signed tree against the latest one in memory, and replaces that if it is newer.
    fn merge_seen(&self, server: &Verifier, note: &[u8]) -> Result<TreeOrder, SumDbError> {
        let mut latest = hold(&self.latest).clone();
        if note.is_empty() {
            return Ok(if latest.tree.size == 0 { TreeOrder::Same } else { TreeOrder::Older });
        }
        let seen = SignedTree { tree: TreeHead::parse(server.open(note)?)?, note: note.to_vec() };
        loop {
            if seen.tree.size <= latest.tree.size {
                self.check_trees(server, &seen, &latest)?;
                return Ok(if seen.tree.size < latest.tree.size {
                    TreeOrder::Older
                } else {
                    TreeOrder::Same
                });
            }
            self.check_trees(server, &latest, &seen)?;
            // The check reads tiles, so it ran without the lock; another thread may have updated the tree.
            let mut current = hold(&self.latest);
            if *current == latest {
                *current = seen;
                return Ok(TreeOrder::Newer);
            }
            latest = current.clone();
        }
    }

    /// Checks that the newer tree is consistent with the older one.
    fn check_trees(
        &self,
        server: &Verifier,
        older: &SignedTree,
        newer: &SignedTree,
    ) -> Result<(), SumDbError> {
        let tiles = ServerTiles { client: self, server: server.name() };
        let reader = TileHashReader::new(newer.tree, &tiles);
        let hash = reader.tree_hash(older.tree.size)?;
        if hash == older.tree.hash {
            return Ok(());
        }
        // The signed notes alone don't prove the inconsistency.
        let proof = reader.consistency_proof(older.tree.size)?;
        let lines: String = std::iter::once(hash).chain(proof).map(|hash| format!("\n\t{hash}")).collect();
        let indented = |note: &[u8]| String::from_utf8_lossy(note).trim_end().replace('\n', "\n\t");
        Err(SumDbError::Security {
            server: server.name().to_owned(),
            report: format!(
                "old database:\n\t{}\nnew database:\n\t{}\nproof of misbehavior:{lines}",
                indented(&older.note),
                indented(&newer.note)
            ),
        })
    }

    /// Checks that the latest tree contains this record.
    fn check(&self, record: LogRecord<'_>) -> Result<(), SumDbError> {
        let server = self.server()?.name();
        let tree = hold(&self.latest).tree;
        if record.id >= tree.size {
            return Err(TlogError::NotInTree(record.id).into());
        }
        let index = stored_hash_index(0, record.id).ok_or(TlogError::NotInTree(record.id))?;
        let tiles = ServerTiles { client: self, server };
        let hashes = TileHashReader::new(tree, &tiles).read_hashes(&[index])?;
        if hashes.first() == Some(&LogHash::of_record(record.text.as_bytes())) {
            Ok(())
        } else {
            Err(SumDbError::Record { server: server.to_owned(), id: record.id })
        }
    }
}

/// The tile reader of a client's server.
struct ServerTiles<'a, L> {
    client: &'a SumDbClient<L>,
    server: &'a str,
}

impl<L: ClientOps> ServerTiles<'_, L> {
    fn read(&self, tile: Tile) -> Result<Vec<u8>, SumDbError> {
        let known = hold(&self.client.tiles).get(&tile).cloned();
        if let Some(content) = known {
            return Ok(content);
        }
        let content = self.load(tile)?;
        hold(&self.client.tiles).insert(tile, content.clone());
        Ok(content)
    }

    /// Reads a tile from the cache or the server. A partial tile may be full by now.
    fn load(&self, tile: Tile) -> Result<Vec<u8>, SumDbError> {
        let ops = &self.client.ops;
        let in_cache = |tile: Tile| ops.read_cache(&format!("{}/{}", self.server, tile.path()));
        let full = tile.full();
        let beginning = |mut content: Vec<u8>| {
            // Any other length fails the verification.
            if content.len() == full.size() {
                content.truncate(tile.size());
            }
            content
        };
        if let Some(content) = in_cache(tile).or_else(|| in_cache(full).map(beginning)) {
            hold(&self.client.saved).insert(tile);
            return Ok(content);
        }
        let path = format!("/{}", tile.path());
        ops.read_remote(&path).or_else(|cause| {
            if tile == full {
                return Err(io_error(&path, cause));
            }
            ops.read_remote(&format!("/{}", full.path())).map(beginning).map_err(|_| io_error(&path, cause))
        })
    }
}

impl<L: ClientOps> TileReader for ServerTiles<'_, L> {
    type Error = SumDbError;

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, SumDbError> {
        std::thread::scope(|scope| {
            let reads: Vec<_> = tiles.iter().map(|tile| scope.spawn(|| self.read(*tile))).collect();
            let joined = reads.into_iter().zip(tiles).map(|(read, tile)| {
                read.join()
                    .unwrap_or_else(|_| Err(io_error(&tile.path(), "the reading thread panicked".into())))
            });
            // Join all threads before returning the first error.
            joined.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn save_tiles(&self, tiles: &[Tile], contents: &[Vec<u8>]) {
        for (tile, content) in tiles.iter().zip(contents) {
            if hold(&self.client.saved).insert(*tile) {
                self.client.ops.write_cache(&format!("{}/{}", self.server, tile.path()), content);
            }
        }
    }
}

fn io_error(path: &str, source: IoError) -> SumDbError {
    SumDbError::Io { path: path.to_owned(), source }
}

/// A panic never leaves the guarded values inconsistent.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
