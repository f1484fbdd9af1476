//! What golang.org/x/mod/sumdb says, velox_gomod says too.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use velox_fetch::sumdb::{
    self, BoxError, ClientOps, SumDbClient,
    note::{SignedNote, Verifier},
    tlog::{self, HashReader, LogRecord, Tile, TreeHash, TreeHead},
};
use velox_testkit::GoOracle;

type Outcome = Result<(), Box<dyn Error>>;

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) })
}

fn text(value: &Value) -> String {
    value.as_str().map(str::to_owned).unwrap_or_default()
}

fn hashes(value: &Value) -> Result<Vec<TreeHash>, TlogError> {
    value.as_array().into_iter().flatten().map(|hash| TreeHash::parse(&text(hash))).collect()
}

/// A log that is known whole.
struct Whole(Vec<TreeHash>);

impl HashReader for Whole {
    type Error = TlogError;

    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TreeHash>, TlogError> {
        indexes.iter().map(|at| self.0.get(*at as usize).copied().ok_or(TlogError::NotInTree(*at))).collect()
    }
}

#[test]
fn logs_proofs_and_tiles() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let size = 300_u64;
    let log = Whole(hashes(&oracle.ask("tlog.hashes", &[&size.to_string()])?)?);
    let mut own = Whole(Vec::new());
    for id in 0..size {
        let more = tlog::stored_hashes(id, tlog::record_hash(format!("record {id}").as_bytes()), &own)?;
        own.0.extend(more);
    }
    assert_eq!(own.0, log.0);

    runner(60).run(&(1..size, any::<u64>()), |(size, at)| {
        let id = at % size;
        let tree = tlog::tree_hash(size, &log)?;
        let theirs = oracle.ask("tlog.tree", &[&size.to_string()]).map_err(TestCaseError::fail)?;
        prop_assert_eq!(tree.to_string(), text(&theirs));
        let tree = TreeHead { size, hash: tree };

        let proofs =
            oracle.ask("tlog.proofs", &[&size.to_string(), &id.to_string()]).map_err(TestCaseError::fail)?;
        let (record, older) = (hashes(&proofs[0])?, hashes(&proofs[1])?);
        prop_assert_eq!(&record, &tlog::prove_record(size, id, &log)?);
        prop_assert_eq!(&older, &tlog::prove_tree(size, id + 1, &log)?);
        let hash = tlog::record_hash(format!("record {id}").as_bytes());
        prop_assert_eq!(tlog::check_record(&record, tree, id, hash), Ok(()));
        let old = TreeHead { size: id + 1, hash: tlog::tree_hash(id + 1, &log)? };
        prop_assert_eq!(tlog::check_tree(&older, tree, old), Ok(()));
        Ok(())
    })?;

    runner(200).run(&(1_u32..=30, 0_u64..1 << 61), |(height, index)| {
        let theirs = oracle
            .ask("tlog.index", &[&height.to_string(), &index.to_string()])
            .map_err(TestCaseError::fail)?;
        let (level, n) = tlog::split_stored_hash_index(index);
        let ours = json!([
            level,
            n,
            tlog::stored_hash_index(level, n),
            tlog::stored_hash_count(index),
            Tile::for_index(height, index).path()
        ]);
        prop_assert_eq!(ours, theirs);
        Ok(())
    })?;

    let path = "tile/[0-9]{1,2}/(data|-?[0-9]{1,2})(/x?[0-9]{1,4}){0,3}(\\.p/[0-9]{1,3})?";
    runner(400).run(&path, |path| {
        let ours =
            Tile::parse_path(&path).map(|tile| json!([tile.height, tile.level, tile.n, tile.width])).ok();
        prop_assert_eq!(ours, oracle.ask("tlog.path", &[&path]).ok());
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
    let opened = |message: &str, known: &[&str]| -> Result<Value, sumdb::NoteError> {
        let known = known.iter().map(|key| Verifier::parse(key)).collect::<Result<Vec<_>, _>>()?;
        let note = SignedNote::open(message.as_bytes(), &known)?;
        Ok(json!([note.text, note.signatures.len(), note.unverified.len()]))
    };
    let strategy = (
        "([a-z \u{2014}\n]{0,9}\n){1,4}",
        any::<[bool; 6]>(),
        any::<prop::sample::Index>(),
        "[ -~\n\u{2014}]",
    );
    runner(300).run(&strategy, |(body, flags, at, letter)| {
        let chosen =
            |flags: &[bool]| keys.iter().zip(flags.to_vec()).filter(|(_, on)| *on).collect::<Vec<_>>();
        let mut args = vec![body.as_str()];
        let signers = chosen(&flags[..3]);
        args.extend(signers.iter().map(|((signer, _), _)| signer.as_str()));
        let mut message = text(&oracle.ask("note.sign", &args).map_err(TestCaseError::fail)?);
        if flags[0] == flags[3] {
            // One letter is another.
            let letters: Vec<char> = message.chars().collect();
            let at = at.index(letters.len());
            message = letters
                .iter()
                .enumerate()
                .map(|(n, c)| if n == at { letter.clone() } else { c.to_string() })
                .collect();
        }
        let verifiers: Vec<&str> =
            chosen(&flags[3..]).iter().map(|((_, verifier), _)| verifier.as_str()).collect();
        let mut args = vec![message.as_str()];
        args.extend(&verifiers);
        prop_assert_eq!(
            opened(&message, &verifiers).ok(),
            oracle.ask("note.open", &args).ok(),
            "{:?}",
            message
        );
        Ok(())
    })?;

    // The signer's own form, and ours read by Go.
    let (signer, verifier) = &keys[0];
    let ours = sumdb::note::Signer::parse(signer)?.sign("words\n")?;
    assert_eq!(ours, text(&oracle.ask("note.sign", &["words\n", signer])?));
    assert_eq!(oracle.ask("note.open", &[&ours, verifier])?, json!(["words\n", 1, 0]));
    Ok(())
}

/// A database of x/mod, with the state and cache in memory.
struct World<'a> {
    oracle: &'a GoOracle,
    server: Mutex<usize>,
    key: String,
    files: Mutex<HashMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    /// A path whose answer has one bit flipped.
    broken: Mutex<Option<String>>,
}

impl ClientOps for &World<'_> {
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, BoxError> {
        hold(&self.asked).push(path.to_owned());
        let answer = self.oracle.ask("sumdb.get", &[&hold(&self.server).to_string(), path])?;
        let mut answer = STANDARD.decode(text(&answer))?;
        let broken = hold(&self.broken).as_deref().is_some_and(|broken| path.contains(broken));
        if let Some(first) = answer.get_mut(40).filter(|_| broken) {
            *first ^= 1;
        }
        Ok(answer)
    }

    fn read_config(&self, file: &str) -> Result<Vec<u8>, BoxError> {
        if file == "key" {
            return Ok(self.key.clone().into_bytes());
        }
        Ok(hold(&self.files).get(file).cloned().unwrap_or_default())
    }

    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, BoxError> {
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
fn a_database_is_believed_until_it_contradicts_itself() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let pair = oracle.ask("note.key", &["sum.example", &"seed".repeat(8)])?;
    let (signer, verifier) = (text(&pair[0]), text(&pair[1]));
    let honest = oracle.ask("sumdb.new", &[&signer, "honest"])?.as_u64().ok_or("no number")? as usize;
    let forked = oracle.ask("sumdb.new", &[&signer, "forked"])?.as_u64().ok_or("no number")? as usize;
    let world = World {
        oracle: &oracle,
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
    assert!(matches!(client.lookup("example.com/missing", "v1.0.0"), Err(SumDbError::Outside { .. })));

    // A new client with the same state and cache asks for nothing that was verified before.
    hold(&world.asked).clear();
    let again = SumDbClient::new(&world);
    again.lookup("example.com/m299", "v1.0.0")?;
    assert_eq!(*hold(&world.asked), Vec::<String>::new());

    // A record and a tile that are not those of the tree are found out.
    for broken in ["/lookup/", "/tile/8/0/001"] {
        *hold(&world.broken) = Some(broken.to_owned());
        let client = SumDbClient::new(&world);
        let path = format!("example.com/new{}", broken.len());
        assert!(client.lookup(&path, "v1.0.0").is_err(), "{broken}");
        *hold(&world.broken) = None;
        assert_eq!(SumDbClient::new(&world).lookup(&path, "v1.0.0")?.len(), 1);
    }

    // The same key signs another history.
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
