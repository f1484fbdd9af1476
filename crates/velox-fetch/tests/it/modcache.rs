//! The module cache, checked with the go command.

use std::{error::Error, fs, path::Path, process::Command, sync::mpsc, time::Duration};

use velox_fetch::modcache::{CacheFile, ModCache, ModCacheError, ModuleSums};
use velox_gomod::{module::ModuleVersion, modzip};

type Outcome = Result<(), Box<dyn Error>>;

const GO_MOD: &str = "module example.com/Lib\n\ngo 1.21\n";
const INFO: &str = r#"{"Version":"v1.2.3","Time":"2024-05-06T07:08:09Z"}"#;

fn lib() -> ModuleVersion {
    ModuleVersion::new("example.com/Lib", "v1.2.3")
}

fn zip(room: &Path, greeting: &str) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let (dir, zip) = (room.join(greeting), room.join(format!("{greeting}.zip")));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("go.mod"), GO_MOD)?;
    fs::write(dir.join("lib.go"), format!("package lib\n\nconst Greeting = \"{greeting}\"\n"))?;
    modzip::create_from_dir(&dir, &lib(), &zip)?;
    Ok(zip)
}

/// Removes the cache on drop, even if read-only.
struct CacheGuard(ModCache);

impl Drop for CacheGuard {
    fn drop(&mut self) {
        let _ = modzip::remove_all(self.0.root());
    }
}

#[test]
fn go_builds_with_a_stored_module() -> Outcome {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("skipped: there is no go command");
        return Ok(());
    }
    let room = tempfile::tempdir()?;
    let cache = CacheGuard(ModCache::new(room.path().join("mod")));
    let ModuleSums { zip: zip_sum, go_mod: mod_sum } =
        cache.0.store(&lib(), INFO, GO_MOD, &zip(room.path(), "hello")?)?;
    assert!(cache.0.contains(&lib()));

    let app = room.path().join("app");
    fs::create_dir(&app)?;
    fs::write(app.join("go.mod"), "module example.com/app\n\ngo 1.21\n\nrequire example.com/Lib v1.2.3\n")?;
    let sums = format!("example.com/Lib v1.2.3 {zip_sum}\nexample.com/Lib v1.2.3/go.mod {mod_sum}\n");
    fs::write(app.join("go.sum"), &sums)?;
    fs::write(
        app.join("main.go"),
        "package main\n\nimport (\n\t\"fmt\"\n\n\tlib \"example.com/Lib\"\n)\n\nfunc main() { fmt.Print(lib.Greeting) }\n",
    )?;
    let go = |args: &[&str]| {
        Command::new("go")
            .args(args)
            .current_dir(&app)
            .env("GOMODCACHE", cache.0.root())
            .envs([("GOPROXY", "off"), ("GOFLAGS", "-mod=mod"), ("GONOSUMDB", "*"), ("GOWORK", "off")])
            .output()
    };
    let output = go(&["run", "."])?;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fs::read_to_string(app.join("go.sum"))?, sums);
    let output = go(&["mod", "verify"])?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all modules verified\n");
    assert!(cache.0.dir(&lib())?.join("lib.go").is_file());
    Ok(())
}

#[test]
fn an_equal_module_is_left_and_another_refused() -> Outcome {
    let room = tempfile::tempdir()?;
    let cache = ModCache::new(room.path().join("mod"));
    let (first, other) = (zip(room.path(), "hello")?, zip(room.path(), "goodbye")?);
    let sums = cache.store(&lib(), INFO, GO_MOD, &first)?;
    let path = cache.path(&lib(), CacheFile::Zip)?;
    assert!(path.ends_with("cache/download/example.com/!lib/@v/v1.2.3.zip"));
    assert!(cache.dir(&lib())?.ends_with("mod/example.com/!lib@v1.2.3"));
    let before = fs::metadata(&path)?.modified()?;
    assert_eq!(cache.store(&lib(), INFO, GO_MOD, &first)?, sums);
    assert_eq!(fs::metadata(&path)?.modified()?, before);

    match cache.store(&lib(), INFO, GO_MOD, &other) {
        Err(ModCacheError::Conflict { file: "zip", cached, new, .. }) => {
            assert_eq!(cached, sums.zip);
            assert_ne!(new, cached);
        }
        stored => return Err(format!("{stored:?}").into()),
    }
    let conflict = cache.store(&lib(), INFO, "module example.com/other\n", &first);
    assert!(matches!(conflict, Err(ModCacheError::Conflict { file: "go.mod", .. })));

    // A zip without a recorded hash is hashed again; missing files are restored.
    fs::remove_file(cache.path(&lib(), CacheFile::ZipHash)?)?;
    fs::remove_file(cache.path(&lib(), CacheFile::Info)?)?;
    assert!(!cache.contains(&lib()));
    assert!(matches!(cache.store(&lib(), INFO, GO_MOD, &other), Err(ModCacheError::Conflict { .. })));
    assert_eq!(cache.store(&lib(), INFO, GO_MOD, &first)?, sums);
    assert!(cache.contains(&lib()));
    Ok(())
}

#[test]
fn what_is_not_this_module_leaves_nothing() -> Outcome {
    let room = tempfile::tempdir()?;
    let cache = ModCache::new(room.path().join("mod"));
    let zip = zip(room.path(), "hello")?;
    let other = ModuleVersion { version: "v1.2.4".to_owned(), ..lib() };
    assert!(matches!(cache.store(&other, INFO, GO_MOD, &zip), Err(ModCacheError::Info { .. })));
    let info = INFO.replace("v1.2.3", "v1.2.4");
    assert!(matches!(cache.store(&other, &info, GO_MOD, &zip), Err(ModCacheError::Zip { .. })));
    let folder = cache.path(&other, CacheFile::Zip)?;
    let left: Vec<_> = fs::read_dir(folder.parent().ok_or("no folder")?)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    assert_eq!(left, ["v1.2.4.lock"]);
    Ok(())
}

#[test]
fn a_lock_is_held_until_it_is_dropped() -> Outcome {
    let room = tempfile::tempdir()?;
    let cache = ModCache::new(room.path().join("mod"));
    let lock = cache.lock(&lib())?;
    let (sender, receiver) = mpsc::channel();
    let waiting = {
        let cache = cache.clone();
        std::thread::spawn(move || sender.send(cache.lock(&lib()).is_ok()))
    };
    assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err());
    drop(lock);
    assert!(receiver.recv_timeout(Duration::from_secs(10))?);
    waiting.join().map_err(|_| "the waiting thread failed")??;
    Ok(())
}
