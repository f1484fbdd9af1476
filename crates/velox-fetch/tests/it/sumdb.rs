//! Signed notes, logs, tiles and the client compared with golang.org/x/mod/sumdb.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use velox_fetch::sumdb::{
    ClientOps, IoError, SumDbClient, SumDbError,
    note::Verifier,
    tlog::{self, LogHash, LogRecord, Tile, TileHashReader, TileReader, TlogError, TreeHead},
};
use velox_testkit::GoOracle;

type Outcome = Result<(), Box<dyn Error>>;

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) })
}

fn text(value: &Value) -> String {
    value.as_str().map(str::to_owned).unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn tree(size: u64, hash: &Value) -> TreeHead {
    TreeHead::parse(&format!("go.sum database tree\n{size}\n{}\n", text(hash))).unwrap()
}

/// Tiles from hashes in the storage order of x/mod.
struct StoredTiles(Vec<[u8; 32]>);

impl TileReader for StoredTiles {
    type Error = TlogError;

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, TlogError> {
        let content = |tile: &Tile| -> Vec<u8> {
            let numbers = tile.n * 256..tile.n * 256 + tile.width;
            let places = numbers.map(|n| tlog::stored_hash_index(tile.level * 8, n).unwrap() as usize);
            places.flat_map(|place| self.0[place]).collect()
        };
        Ok(tiles.iter().map(content).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn logs_proofs_and_tiles() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let stored = oracle.ask("tlog.hashes", &["300"])?;
    let hashes = texts(&stored).into_iter().map(|hash| STANDARD.decode(hash).unwrap().try_into().unwrap());
    let tiles = StoredTiles(hashes.collect());
    runner(60).run(&(1..300_u64, any::<u64>()), |(size, at)| {
        let id = at % size;
        let ask = |op: &str, args: &[&str]| oracle.ask(op, args).map_err(TestCaseError::fail);
        let reader = TileHashReader::new(tree(size, &ask("tlog.tree", &[&size.to_string()])?), &tiles);
        let older = ask("tlog.tree", &[&(id + 1).to_string()])?;
        prop_assert_eq!(reader.tree_hash(id + 1)?.to_string(), text(&older));
        let proofs = ask("tlog.proofs", &[&size.to_string(), &id.to_string()])?;
        let ours: Vec<String> = reader.consistency_proof(id + 1)?.iter().map(ToString::to_string).collect();
        prop_assert_eq!(ours, texts(&proofs[1]));
        let place = tlog::stored_hash_index(0, id).unwrap();
        let record = LogHash::of_record(format!("record {id}").as_bytes());
        prop_assert_eq!(reader.read_hashes(&[place])?, [record]);
        // The tiles don't belong to a tree with another hash.
        let other = TileHashReader::new(TreeHead { size, hash: LogHash::empty() }, &tiles);
        prop_assert!(matches!(other.read_hashes(&[place]), Err(TlogError::InconsistentTile(_))));
        Ok(())
    })?;
    runner(200).run(&(0_u64..1 << 61), |index| {
        let theirs = oracle.ask("tlog.index", &["8", &index.to_string()]).map_err(TestCaseError::fail)?;
        let (level, n) = tlog::split_stored_hash_index(index);
        let ours = json!([level, n, tlog::stored_hash_index(level, n), Tile::for_index(index).path()]);
        prop_assert_eq!(ours, json!([theirs[0], theirs[1], theirs[2], theirs[4]]));
        Ok(())
    })?;
    Ok(())
}

#[test]
fn trees_and_records() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let tree = "(go.sum database tree\n){0,2}(0|-1|\\+3|007|[1-9][0-9]{0,20})\n([A-Za-z0-9+/]{43}=|[A-Z=]{0,9})\n?(more\n){0,2}";
    runner(300).run(&tree, |note| {
        let ours = TreeHead::parse(&note).map(|tree| json!([tree.size, tree.hash.to_string()])).ok();
        prop_assert_eq!(ours, oracle.ask("tlog.parse_tree", &[&note]).ok());
        Ok(())
    })?;
    runner(300).run(&"[-+]?[0-9]{0,3}\n([a-z \t]{0,5}\n){0,4}\n{0,2}([a-z\n]{0,5})", |message| {
        let ours = LogRecord::parse(message.as_bytes())
            .map(|(record, rest)| json!([record.id, record.text, String::from_utf8_lossy(rest)]))
            .ok();
        prop_assert_eq!(ours, oracle.ask("tlog.parse_record", &[&message]).ok());
        Ok(())
    })?;
    Ok(())
}

#[test]
fn notes() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let mut keys = Vec::new();
    for name in ["example.com", "other.example", "third"] {
        let pair = oracle.ask("note.key", &[name, &name.repeat(9)])?;
        keys.push((text(&pair[0]), text(&pair[1])));
    }
    let strategy = (
        "([a-z \u{2014}\n]{0,9}\n){1,4}",
        any::<[bool; 3]>(),
        0..3_usize,
        any::<Option<prop::sample::Index>>(),
        "[ -~\n\u{2014}]",
    );
    runner(300).run(&strategy, |(body, signs, verifier, changed, letter)| {
        let signers =
            keys.iter().zip(signs).filter(|(_, signs)| *signs).map(|((signer, _), _)| signer.as_str());
        let args: Vec<&str> = std::iter::once(body.as_str()).chain(signers).collect();
        let mut message = text(&oracle.ask("note.sign", &args).map_err(TestCaseError::fail)?);
        if let Some(at) = changed {
            let mut letters: Vec<String> = message.chars().map(String::from).collect();
            let at = at.index(letters.len());
            letters[at] = letter;
            message = letters.concat();
        }
        let verifier = &keys[verifier].1;
        let ours = Verifier::parse(verifier).unwrap().open(message.as_bytes()).map(str::to_owned).ok();
        let theirs = oracle.ask("note.open", &[&message, verifier]).map(|opened| text(&opened[0])).ok();
        prop_assert_eq!(ours, theirs, "{:?}", message);
        Ok(())
    })?;
    Ok(())
}

/// An x/mod server with the client's state and cache in memory.
struct TestServer<'a> {
    oracle: &'a GoOracle,
    server: Mutex<usize>,
    key: String,
    files: Mutex<HashMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    /// A path whose response gets a flipped bit.
    broken: Mutex<Option<String>>,
}

impl ClientOps for &TestServer<'_> {
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, IoError> {
        hold(&self.asked).push(path.to_owned());
        let answer = self.oracle.ask("sumdb.get", &[&hold(&self.server).to_string(), path])?;
        let mut answer = STANDARD.decode(text(&answer))?;
        let broken = hold(&self.broken).as_deref().is_some_and(|broken| path.contains(broken));
        if let Some(first) = answer.get_mut(40).filter(|_| broken) {
            *first ^= 1;
        }
        Ok(answer)
    }

    fn read_config(&self, file: &str) -> Result<Vec<u8>, IoError> {
        if file == "key" {
            return Ok(self.key.clone().into_bytes());
        }
        Ok(hold(&self.files).get(file).cloned().unwrap_or_default())
    }

    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, IoError> {
        let mut files = hold(&self.files);
        let same = files.get(file).map(Vec::as_slice).unwrap_or_default() == old;
        if same {
            files.insert(file.to_owned(), new.to_owned());
        }
        Ok(same)
    }

    fn read_cache(&self, file: &str) -> Option<Vec<u8>> {
        hold(&self.files).get(file).cloned()
    }

    fn write_cache(&self, file: &str, content: &[u8]) {
        hold(&self.files).insert(file.to_owned(), content.to_owned());
    }
}

fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_database_is_trusted_until_it_contradicts_itself() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let pair = oracle.ask("note.key", &["sum.example", &"seed".repeat(8)])?;
    let (signer, verifier) = (text(&pair[0]), text(&pair[1]));
    let honest = oracle.ask("sumdb.new", &[&signer, "honest"])?.as_u64().ok_or("no number")? as usize;
    let forked = oracle.ask("sumdb.new", &[&signer, "forked"])?.as_u64().ok_or("no number")? as usize;
    let world = TestServer {
        oracle,
        server: Mutex::new(honest),
        key: verifier,
        files: Mutex::default(),
        asked: Mutex::default(),
        broken: Mutex::default(),
    };

    let client = SumDbClient::new(&world);
    for number in 0..300 {
        let path = format!("example.com/m{number}");
        assert_eq!(client.lookup(&path, "v1.0.0")?, [format!("{path} v1.0.0 h1:honest=")]);
    }
    assert_eq!(client.lookup("example.com/m7", "v1.0.0/go.mod")?, ["example.com/m7 v1.0.0/go.mod h1:mod="]);
    assert!(matches!(client.lookup("example.com/missing", "v1.0.0"), Err(SumDbError::Io { .. })));

    // A new client with the same state and cache doesn't repeat verified requests.
    hold(&world.asked).clear();
    let again = SumDbClient::new(&world);
    again.lookup("example.com/m299", "v1.0.0")?;
    assert_eq!(*hold(&world.asked), Vec::<String>::new());

    // A corrupt record or tile is detected.
    for broken in ["/lookup/", "/tile/8/0/001"] {
        *hold(&world.broken) = Some(broken.to_owned());
        let client = SumDbClient::new(&world);
        let path = format!("example.com/new{}", broken.len());
        assert!(client.lookup(&path, "v1.0.0").is_err(), "{broken}");
        *hold(&world.broken) = None;
        assert_eq!(SumDbClient::new(&world).lookup(&path, "v1.0.0")?.len(), 1);
    }

    // The same key signs a forked log.
    *hold(&world.server) = forked;
    hold(&world.files).retain(|file, _| file.ends_with("/latest"));
    for number in 0..400 {
        oracle.ask("sumdb.get", &[&forked.to_string(), &format!("/lookup/example.com/m{number}@v1.0.0")])?;
    }
    match SumDbClient::new(&world).lookup("example.com/m3", "v1.0.0") {
        Err(SumDbError::Security { server, report }) => {
            assert_eq!(server, "sum.example");
            assert!(report.contains("proof of misbehavior"), "{report}");
        }
        other => return Err(format!("a fork was not seen: {other:?}").into()),
    }
    Ok(())
}
