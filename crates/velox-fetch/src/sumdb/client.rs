//! The checksum database: what proves that a module's sums are those that everyone sees
//! (<https://go.dev/ref/mod#checksum-database>, <https://go.googlesource.com/proposal/+/master/design/25530-sumdb.md>).
//!
//! [`SumDbClient`] holds all of the verification and none of the network: what it reads and keeps goes through [`ClientOps`].

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::{
    note::{SignedNote, Verifier},
    tlog::{HashReader as _, LogRecord, Tile, TileHashReader, TileReader, TreeHead},
};
use velox_gomod::module;

/// The height of the tiles that checksum databases serve.
const TILE_HEIGHT: u32 = 8;

/// What went wrong outside of this crate: the network, a file.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The world outside of a [`SumDbClient`]: the server, the state that lasts, the cache. Used from several threads at once.
///
/// The go command keeps state and cache at `$GOPATH/pkg/sumdb` and `GOMODCACHE/cache/download/sumdb`.
pub trait ClientOps: Sync {
    /// Reads a path of the server, which begins with `/lookup/` or `/tile/`. Any other status than 200 is an error.
    ///
    /// # Errors
    ///
    /// What kept the answer away.
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, BoxError>;

    /// Reads a file of the state: `key`, the server's verifier key, and `<server>/latest`, the newest signed tree seen,
    /// empty at first.
    ///
    /// # Errors
    ///
    /// What kept the file away.
    fn read_config(&self, file: &str) -> Result<Vec<u8>, BoxError>;

    /// Replaces a file of the state at one stroke if it still has the content `old`, and says whether it had.
    ///
    /// # Errors
    ///
    /// What kept the file from being written.
    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, BoxError>;

    /// Reads a file of the cache (`<server>/lookup/…`, `<server>/tile/…`); `None` when it is not there.
    fn read_cache(&self, file: &str) -> Option<Vec<u8>>;

    /// Writes a file of the cache. One that can't be written is only asked for again later.
    fn write_cache(&self, file: &str, content: &[u8]);
}

/// Why the checksum database gives no sums.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SumDbError {
    /// The server contradicts itself: it showed a tree that is not a continuation of the one seen before. Nothing that it
    /// says can be believed. The report has both signed trees and the proof.
    #[error("the checksum database {server} misbehaves: its signed trees contradict each other\n{report}")]
    Security {
        /// The server's name.
        server: String,
        /// The two signed trees and the proof that they contradict each other.
        report: String,
    },
    /// The module path or version can't be asked for.
    #[error(transparent)]
    Module(#[from] module::ModuleError),
    /// The server's key is unusable, or a signed tree is not signed with it.
    #[error("can't trust the checksum database: {0}")]
    Note(#[from] NoteError),
    /// The answer does not belong to the signed tree.
    #[error("can't verify the checksum database's answer: {0}")]
    Log(#[from] TlogError),
    /// The record is not the one of the signed tree.
    #[error("the checksum database {server} answered with a record {id} that its signed tree does not have")]
    Record {
        /// The server's name.
        server: String,
        /// The record's number.
        id: u64,
    },
    /// The server or a file could not be read or written.
    #[error("can't ask the checksum database for {path}: {cause}")]
    Outside {
        /// What was asked for.
        path: String,
        /// What went wrong.
        #[source]
        cause: BoxError,
    },
}

/// A checksum database as one client sees it: every tree that it is shown must continue the newest one it knows, and
/// every answer must be of that tree (`sumdb.SumDbClient`).
pub struct SumDbClient<L> {
    outside: L,
    server: OnceLock<Verifier>,
    latest: Mutex<SignedTree>,
    records: Mutex<HashMap<String, Vec<String>>>,
    tiles: Mutex<HashMap<Tile, Vec<u8>>>,
    saved: Mutex<HashSet<Tile>>,
}

/// The newest tree seen, and the note that said so.
#[derive(Clone, PartialEq)]
struct SignedTree {
    tree: TreeHead,
    note: Vec<u8>,
}

/// How a tree stands to the newest one seen.
#[derive(PartialEq)]
enum TreeOrder {
    Past,
    Now,
    Future,
}

impl<L: ClientOps> SumDbClient<L> {
    /// A client that has seen nothing yet.
    pub fn new(outside: L) -> Self {
        let tree = TreeHead { size: 0, hash: tlog::Hash::empty() };
        Self {
            outside,
            server: OnceLock::new(),
            latest: Mutex::new(SignedTree { tree, note: Vec::new() }),
            records: Mutex::default(),
            tiles: Mutex::default(),
            saved: Mutex::default(),
        }
    }

    /// The go.sum lines that the database has for a module version. A version with `/go.mod` at its end asks for the sum
    /// of the go.mod file.
    ///
    /// Whether the database is to be asked about a module at all (GONOSUMDB) is the caller's to know.
    ///
    /// # Errors
    ///
    /// [`SumDbError::Security`] when the server contradicts itself; else an answer that can't be had or verified.
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

    /// The lines of a record that is proved to be in the newest tree.
    fn verified_record(&self, remote: &str, file: &str) -> Result<Vec<String>, SumDbError> {
        let cached = self.outside.read_cache(file);
        let fresh = cached.is_none();
        let answer = match cached {
            Some(answer) => answer,
            None => self.outside.read_remote(remote).map_err(|cause| outside(remote, cause))?,
        };
        let (record, tree) = LogRecord::parse(&answer)?;
        self.merge(tree)?;
        self.check(record)?;
        if fresh {
            self.outside.write_cache(file, &answer);
        }
        Ok(record.text.lines().map(str::to_owned).collect())
    }

    /// The server's key. The first time, the state's newest tree is taken over with it.
    fn server(&self) -> Result<&Verifier, SumDbError> {
        if let Some(server) = self.server.get() {
            return Ok(server);
        }
        let key = self.outside.read_config("key").map_err(|cause| outside("key", cause))?;
        let server = Verifier::parse(String::from_utf8_lossy(&key).trim())?;
        let latest = format!("{}/latest", server.name());
        let note = self.outside.read_config(&latest).map_err(|cause| outside(&latest, cause))?;
        self.merge_seen(&server, &note)?;
        Ok(self.server.get_or_init(|| server))
    }

    /// Takes a signed tree in, and keeps the newest in the state.
    fn merge(&self, note: &[u8]) -> Result<(), SumDbError> {
        let server = self.server()?;
        if self.merge_seen(server, note)? != TreeOrder::Future {
            return Ok(());
        }
        let file = format!("{}/latest", server.name());
        loop {
            // Others write the state too; what they saw must fit what we saw.
            let stored = self.outside.read_config(&file).map_err(|cause| outside(&file, cause))?;
            if self.merge_seen(server, &stored)? != TreeOrder::Past {
                return Ok(());
            }
            let newest = hold(&self.latest).note.clone();
            if self.outside.write_config(&file, &stored, &newest).map_err(|cause| outside(&file, cause))? {
                return Ok(());
            }
        }
    }

    /// Checks a signed tree against the newest one seen, which it becomes if it is newer.
    fn merge_seen(&self, server: &Verifier, note: &[u8]) -> Result<TreeOrder, SumDbError> {
        let mut latest = hold(&self.latest).clone();
        if note.is_empty() {
            return Ok(if latest.tree.size == 0 { TreeOrder::Now } else { TreeOrder::Past });
        }
        let opened = SignedNote::open(note, std::slice::from_ref(server))?;
        let seen = SignedTree { tree: TreeHead::parse(&opened.text)?, note: note.to_vec() };
        loop {
            if seen.tree.size <= latest.tree.size {
                self.check_trees(server, &seen, &latest)?;
                return Ok(if seen.tree.size < latest.tree.size { TreeOrder::Past } else { TreeOrder::Now });
            }
            self.check_trees(server, &latest, &seen)?;
            // The check reads tiles, so no lock is held meanwhile: another thread may have gone ahead.
            let mut current = hold(&self.latest);
            if *current == latest {
                *current = seen;
                return Ok(TreeOrder::Future);
            }
            latest = current.clone();
        }
    }

    /// Checks that the newer tree begins with the older one.
    fn check_trees(
        &self,
        server: &Verifier,
        older: &SignedTree,
        newer: &SignedTree,
    ) -> Result<(), SumDbError> {
        let tiles = ServerTiles { client: self, server: server.name() };
        let reader = TileHashReader::new(newer.tree, &tiles);
        let hash = tlog::tree_hash(older.tree.size, &reader)?;
        if hash == older.tree.hash {
            return Ok(());
        }
        // The signed notes alone do not show it: the proof that the newer tree has another beginning belongs with them.
        let proof = tlog::prove_tree(newer.tree.size, older.tree.size, &reader)?;
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

    /// Checks that the newest tree has this record.
    fn check(&self, record: LogRecord<'_>) -> Result<(), SumDbError> {
        let server = self.server()?.name();
        let tree = hold(&self.latest).tree;
        if record.id >= tree.size {
            return Err(TlogError::NotInTree(record.id).into());
        }
        let index = tlog::stored_hash_index(0, record.id).ok_or(TlogError::NotInTree(record.id))?;
        let tiles = ServerTiles { client: self, server };
        let hashes = TileHashReader::new(tree, &tiles).read_hashes(&[index])?;
        if hashes.first() == Some(&tlog::record_hash(record.text.as_bytes())) {
            Ok(())
        } else {
            Err(SumDbError::Record { server: server.to_owned(), id: record.id })
        }
    }
}

/// The tiles of a client's server.
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
        let content = self.bring(tile)?;
        hold(&self.client.tiles).insert(tile, content.clone());
        Ok(content)
    }

    /// Brings a tile from the cache or the server. A partial one may have become complete since.
    fn bring(&self, tile: Tile) -> Result<Vec<u8>, SumDbError> {
        let outside_world = &self.client.outside;
        let in_cache = |tile: Tile| outside_world.read_cache(&format!("{}/{}", self.server, tile.path()));
        let full = tile.full();
        let beginning = |mut content: Vec<u8>| {
            // Any other length is left as it is, for the reader to refuse.
            if content.len() as u64 == full.size() {
                content.truncate(usize::try_from(tile.size()).unwrap_or(usize::MAX));
            }
            content
        };
        if let Some(content) = in_cache(tile).or_else(|| in_cache(full).map(beginning)) {
            hold(&self.client.saved).insert(tile);
            return Ok(content);
        }
        let path = format!("/{}", tile.path());
        outside_world.read_remote(&path).or_else(|cause| {
            if tile == full {
                return Err(outside(&path, cause));
            }
            outside_world
                .read_remote(&format!("/{}", full.path()))
                .map(beginning)
                .map_err(|_| outside(&path, cause))
        })
    }
}

impl<L: ClientOps> TileReader for ServerTiles<'_, L> {
    type SumDbError = SumDbError;

    fn height(&self) -> u32 {
        TILE_HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, SumDbError> {
        std::thread::scope(|scope| {
            let reads: Vec<_> = tiles.iter().map(|tile| scope.spawn(|| self.read(*tile))).collect();
            let joined = reads.into_iter().zip(tiles).map(|(read, tile)| {
                read.join()
                    .unwrap_or_else(|_| Err(outside(&tile.path(), "the reading thread stopped".into())))
            });
            // All are waited for before the first error is told.
            joined.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn save_tiles(&self, tiles: &[Tile], contents: &[Vec<u8>]) {
        for (tile, content) in tiles.iter().zip(contents) {
            if hold(&self.client.saved).insert(*tile) {
                self.client.outside.write_cache(&format!("{}/{}", self.server, tile.path()), content);
            }
        }
    }
}

fn outside(path: &str, cause: BoxError) -> SumDbError {
    SumDbError::Outside { path: path.to_owned(), cause }
}

/// What a lock guards here is whole at every moment, so a thread that panicked with it leaves nothing broken behind.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
