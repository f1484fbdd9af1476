//! Checksums and module zips compared with golang.org/x/mod.

use std::{collections::BTreeMap, error::Error, fs, path::Path};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use velox_gomod::{
    dirhash,
    module::ModuleVersion,
    modzip::{self, CheckedFiles, FileCandidate, FileKind, RejectedFile},
};
use velox_testkit::GoOracle;

type Outcome = Result<(), Box<dyn Error>>;

/// Path elements, including all special cases.
const PARTS: &[&str] = &[
    "a",
    "A",
    "b.go",
    "B.go",
    "k",
    "\u{212a}",
    "\u{17f}",
    "s",
    "é",
    "É",
    "vendor",
    "modules.txt",
    "go.mod",
    "GO.mod",
    "LICENSE",
    "license",
    ".git",
    ".hg",
    ".hg_archival.txt",
    "sub",
    "x y",
    "aux.txt",
    "CON",
    "a.",
    ".",
    "..",
    "",
    "c:d",
    "e\\f",
    "g'h",
    "ß",
    "ẞ",
    "i",
    "İ",
    "~1",
    "foo~1",
    "testdata",
    "日本",
];

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => prop::sample::select(&PARTS[..20]), 1 => prop::sample::select(PARTS)];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

/// A go.mod with an older or newer go version.
fn go_mod() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![
        None,
        Some("module example.com/m\n"),
        Some("module example.com/m\n\ngo 1.23.5\n"),
        Some("module example.com/m\n\ngo 1.24rc1 // new\n"),
        Some("go 1.25.0\nmodule example.com/m\n"),
    ])
}

/// A file tree: paths to contents.
fn tree() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let part = prop::sample::select(vec![
        "a",
        "b.go",
        "vendor",
        "modules.txt",
        "go.mod",
        "LICENSE",
        ".git",
        ".hg_archival.txt",
        "sub",
        "x y",
        "é",
        "é.go",
    ]);
    let path = prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    prop::collection::btree_map(path, prop::collection::vec(any::<u8>(), 0..40), 1..14)
}

/// Writes a tree, except for files that collide with existing ones.
fn write_tree(dir: &Path, files: &BTreeMap<String, Vec<u8>>, go_mod: Option<&str>) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, content) in files.iter().filter(|(name, _)| *name != "go.mod" && !name.starts_with("go.mod/"))
    {
        let file = dir.join(name);
        let room = file.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok());
        if room && !file.exists() {
            fs::write(file, content)?;
        }
    }
    go_mod.map_or(Ok(()), |content| fs::write(dir.join("go.mod"), content))
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) })
}

fn paths(list: &[RejectedFile]) -> Vec<&str> {
    list.iter().map(|rejected| rejected.path.as_str()).collect()
}

fn summary(checked: &CheckedFiles) -> Value {
    json!({
        "valid": checked.valid,
        "omitted": paths(&checked.omitted),
        "invalid": paths(&checked.invalid),
        "too_large": checked.size_error.is_some(),
    })
}

/// The first invalid file or the whole summary. Later errors may differ, depending on whether collisions with
/// rejected names are reported.
fn first_error(mut summary: Value) -> Value {
    match summary["invalid"].get(0) {
        Some(first) => first.clone(),
        None => summary.take(),
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn test_module() -> ModuleVersion {
    ModuleVersion::new("example.com/M", "v1.2.3")
}

#[test]
fn lists_of_files() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let kind = prop::sample::select(vec![
        (FileKind::File, "file"),
        (FileKind::File, "file"),
        (FileKind::Symlink, "symlink"),
        (FileKind::Other, "other"),
    ]);
    let size =
        prop_oneof![6 => 0_u64..100, 1 => Just(16 << 20), 1 => Just((16 << 20) + 1), 1 => Just(300 << 20)];
    let file = (path(), kind, size);
    runner(1500).run(&(prop::collection::vec(file, 0..9), go_mod()), |(files, go_mod)| {
        let mut candidates = Vec::new();
        let mut entries = Vec::new();
        if let Some(content) = go_mod {
            candidates.push(FileCandidate {
                path: "go.mod".to_owned(),
                kind: FileKind::File,
                size: content.len() as u64,
            });
            entries
                .push(json!({ "path": "go.mod", "kind": "file", "size": content.len(), "content": content }));
        }
        for (path, (kind, kind_name), size) in files.into_iter().filter(|(path, ..)| path != "go.mod") {
            entries.push(json!({ "path": path, "kind": kind_name, "size": size }));
            candidates.push(FileCandidate { path, kind, size });
        }
        let theirs = oracle.ask("zip.files", &[&json!(entries).to_string()]).map_err(TestCaseError::fail)?;
        prop_assert_eq!(
            first_error(summary(&modzip::check_files(&candidates, go_mod))),
            first_error(theirs),
            "{:?}",
            candidates
        );
        Ok(())
    })?;
    Ok(())
}

#[test]
fn folders_and_their_zips() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    runner(120).run(&(tree(), go_mod()), |(files, go_mod)| {
        let room = tempfile::tempdir()?;
        let dir = room.path().join("tree");
        write_tree(&dir, &files, go_mod)?;
        #[cfg(unix)]
        std::os::unix::fs::symlink("b.go", dir.join("link"))?;

        let ask = |op: &str, args: &[&str]| oracle.ask(op, args);
        let (ours, theirs) = (room.path().join("ours.zip"), room.path().join("theirs.zip"));
        let ModuleVersion { path, version } = test_module();
        let created = modzip::create_from_dir(&dir, &test_module(), &ours);
        let wanted = ask("zip.create", &[&path, &version, &name(&dir), &name(&theirs)]);
        prop_assert_eq!(created.is_ok(), wanted.is_ok(), "{:?} {:?}", created, wanted);
        let Ok(checked) = created else { return Ok(()) };

        let sum = dirhash::hash_zip(&ours).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(Ok(json!(sum)), ask("dirhash.zip", &[&name(&ours)]));
        prop_assert_eq!(Ok(json!(sum)), ask("dirhash.zip", &[&name(&theirs)]));
        let again = room.path().join("again.zip");
        modzip::create_from_dir(&dir, &test_module(), &again)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(fs::read(&again)?, fs::read(&ours)?);

        // Each implementation unpacks the other's zip.
        let (out, back) = (room.path().join("out"), room.path().join("back"));
        modzip::unzip(&out, &test_module(), &theirs)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(ask("zip.unzip", &[&path, &version, &name(&ours), &name(&back)]), Ok(json!("")));
        if !checked.valid.is_empty() {
            let prefix = format!("{path}@{version}");
            for dir in [&out, &back] {
                prop_assert_eq!(ask("dirhash.dir", &[&name(dir), &prefix]), Ok(json!(sum)));
            }
        }
        modzip::remove_all(&out).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(!out.exists());
        Ok(())
    })?;
    Ok(())
}

#[test]
fn any_zip() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let prefix = prop_oneof![
        8 => Just("example.com/M@v1.2.3/"),
        1 => prop::sample::select(vec!["", "/", "../", "example.com/m@v1.2.3/", "example.com/M@v1.2.3", "C:\\"]),
    ];
    let entry = (prefix, path(), any::<bool>(), "[a-z]{0,20}");
    runner(400).run(&prop::collection::btree_map(path(), entry, 0..7), |entries| {
        let room = tempfile::tempdir()?;
        let zip = room.path().join("any.zip");
        let mut names = std::collections::HashSet::new();
        let entries: Vec<_> = entries
            .into_values()
            .map(|(prefix, path, folder, content)| {
                let folder = folder && content.len() < 5;
                (format!("{prefix}{path}{}", if folder { "/" } else { "" }), if folder { String::new() } else { content })
            })
            .filter(|(name, _)| names.insert(name.clone()))
            .map(|(name, content)| {
                let kind = if name.ends_with('/') { "folder" } else { "file" };
                json!({ "path": name, "kind": kind, "content": if kind == "file" { content } else { String::new() } })
            })
            .collect();
        oracle.ask("zip.pack", &[&name(&zip), &json!(entries).to_string()]).map_err(TestCaseError::fail)?;

        let ModuleVersion { path, version } = test_module();
        let ours = modzip::check_zip(&test_module(), &zip).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let theirs = oracle.ask("zip.check", &[&path, &version, &name(&zip)]).map_err(TestCaseError::fail)?;
        prop_assert_eq!(first_error(summary(&ours)), first_error(theirs), "{:?}", entries);

        let (out, back) = (room.path().join("out"), room.path().join("back"));
        let ours = modzip::unzip(&out, &test_module(), &zip);
        let theirs = oracle.ask("zip.unzip", &[&path, &version, &name(&zip), &name(&back)]);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?} {:?}", entries, ours, theirs);
        if ours.is_ok() {
            let sum = |dir: &Path| oracle.ask("dirhash.dir", &[&name(dir), "m"]);
            prop_assert_eq!(sum(&out), sum(&back));
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn hostile_zips() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let room = tempfile::tempdir()?;
    let zip = room.path().join("hostile.zip");
    let pack = |entries: Value| oracle.ask("zip.pack", &[&name(&zip), &entries.to_string()]);
    let refused = || -> Result<String, Box<dyn Error>> {
        let out = room.path().join("out");
        let refusal = modzip::unzip(&out, &test_module(), &zip).err().ok_or("it was unpacked")?;
        assert!(!out.exists() || fs::read_dir(&out)?.next().is_none());
        Ok(refusal.to_string())
    };

    pack(json!([{ "path": "example.com/M@v1.2.3/../../evil", "kind": "file" }]))?;
    assert!(refused()?.contains("../../evil"));
    pack(json!([{ "path": "/etc/evil", "kind": "file" }]))?;
    assert!(refused()?.contains("does not have prefix"));
    pack(json!([{ "path": "example.com/M@v1.2.3/link", "kind": "symlink", "content": "/etc" }]))?;
    assert!(refused()?.contains("symbolic link"));

    // The content is larger than declared in the header.
    pack(json!([{ "path": "example.com/M@v1.2.3/bomb", "kind": "file", "content": "b".repeat(100_000) }]))?;
    let mut bytes = fs::read(&zip)?;
    let at = bytes.windows(4).position(|four| four == 100_000_u32.to_le_bytes()).ok_or("no size")?;
    let last = bytes.windows(4).rposition(|four| four == 100_000_u32.to_le_bytes()).ok_or("no size")?;
    for at in [at, last] {
        bytes[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    fs::write(&zip, &bytes)?;
    assert!(modzip::unzip(&room.path().join("bomb"), &test_module(), &zip).is_err());
    assert!(fs::metadata(room.path().join("bomb/bomb")).map_or(0, |file| file.len()) <= 11);

    // Corrupt input doesn't panic.
    let mut runner = runner(300);
    runner.run(&prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), |changes| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fs::write(&zip, &bytes)?;
        let _ = (dirhash::hash_zip(&zip), modzip::check_zip(&test_module(), &zip));
        let out = room.path().join("changed");
        let _ = modzip::unzip(&out, &test_module(), &zip);
        modzip::remove_all(&out).map_err(|error| TestCaseError::fail(error.to_string()))?;
        Ok(())
    })?;
    Ok(())
}

#[test]
fn sums_of_go_mod() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    runner(50).run(&".{0,60}", |content| {
        prop_assert_eq!(
            Ok(json!(dirhash::hash_go_mod(content.as_bytes()))),
            oracle.ask("dirhash.mod", &[&content])
        );
        Ok(())
    })?;
    Ok(())
}
