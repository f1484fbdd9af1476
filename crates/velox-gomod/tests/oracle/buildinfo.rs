//! The build information of binaries compared with debug/buildinfo.

use std::{error::Error, fs, path::Path, process::Command};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value, json};
use velox_gomod::buildinfo::{BuildInfo, BuildModule};
use velox_testkit::GoOracle;

type Outcome = Result<(), Box<dyn Error>>;

/// A program that requires one module, replaced by a directory.
fn program(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir.join("lib"))?;
    fs::write(
        dir.join("go.mod"),
        "module example.com/app\n\ngo 1.21\n\nrequire example.com/lib v1.2.3\n\nreplace example.com/lib => ./lib\n",
    )?;
    fs::write(
        dir.join("main.go"),
        "package main\n\nimport \"example.com/lib\"\n\nfunc main() { println(lib.Name) }\n",
    )?;
    fs::write(dir.join("lib/go.mod"), "module example.com/lib\n\ngo 1.21\n")?;
    fs::write(dir.join("lib/lib.go"), "package lib\n\nvar Name = \"lib\"\n")
}

fn build(dir: &Path, os: &str, arch: &str, flags: &[&str]) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let binary = dir.join(format!("app-{os}-{arch}-{}", flags.len()));
    let output = Command::new("go")
        .arg("build")
        .args(flags)
        .args(["-ldflags", "-s -w -X 'main.version=a \"b\" c'", "-o"])
        .arg(&binary)
        .arg(".")
        .current_dir(dir)
        .envs([("GOOS", os), ("GOARCH", arch), ("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOPROXY", "off")])
        .output()?;
    if output.status.success() { Ok(binary) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// A module in the format of Go's JSON.
fn module(module: &BuildModule) -> Value {
    let mut object = Map::new();
    for (key, value) in [("Path", &module.path), ("Version", &module.version), ("Sum", &module.sum)] {
        if !value.is_empty() {
            object.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(replace) = &module.replace {
        object.insert("Replace".to_owned(), self::module(replace));
    }
    Value::Object(object)
}

fn information(info: &BuildInfo) -> Value {
    let settings = info.settings.iter().map(|(key, value)| {
        if value.is_empty() { json!({ "Key": key }) } else { json!({ "Key": key, "Value": value }) }
    });
    json!({
        "GoVersion": info.go_version,
        "Path": info.path,
        "Main": module(&info.main),
        "Deps": info.deps.iter().map(module).collect::<Vec<_>>(),
        "Settings": settings.collect::<Vec<_>>(),
    })
}

#[test]
fn binaries_for_every_system() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    program(dir.path())?;
    let targets = [
        ("linux", "amd64"),
        ("linux", "386"),
        ("linux", "mips"),
        ("darwin", "arm64"),
        ("darwin", "amd64"),
        ("windows", "amd64"),
        ("windows", "386"),
        ("freebsd", "arm64"),
    ];
    for (os, arch) in targets {
        let binary = build(dir.path(), os, arch, &[])?;
        let info = BuildInfo::read(&binary)?;
        let name = binary.to_str().ok_or("not UTF-8")?;
        assert_eq!(information(&info), oracle.ask("buildinfo.read", &[name])?, "{os}/{arch}");
        assert_eq!(info.deps.len(), 1);
        assert!(info.settings.contains(&("GOOS".to_owned(), os.to_owned())));
    }
    Ok(())
}

#[test]
fn the_pointers_of_before_go_1_18() -> Outcome {
    let Some(oracle) = GoOracle::get() else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    for (big_endian, size) in [(false, 8), (true, 8), (false, 4), (true, 4)] {
        let file = dir.path().join(format!("old-{big_endian}-{size}"));
        fs::write(&file, old_binary(big_endian, size))?;
        let info = BuildInfo::read(&file)?;
        assert_eq!((info.go_version.as_str(), info.path.as_str()), ("go1.17.13", "example.com/old"));
        let theirs = oracle.ask("buildinfo.read", &[file.to_str().ok_or("not UTF-8")?])?;
        assert_eq!(
            (theirs["GoVersion"].as_str(), theirs["Path"].as_str()),
            (Some("go1.17.13"), Some("example.com/old"))
        );
    }
    Ok(())
}

/// An ELF file with one writable segment and build information in the format before Go 1.18.
fn old_binary(big_endian: bool, pointer: usize) -> Vec<u8> {
    const BASE: u64 = 0x10000;
    let number = |value: u64, size: usize| {
        let bytes = value.to_le_bytes();
        let mut bytes = bytes[..size].to_vec();
        if big_endian {
            bytes.reverse();
        }
        bytes
    };
    let (version, modules) =
        ("go1.17.13", format!("{}path\texample.com/old\n{}", "s".repeat(16), "e".repeat(16)));
    let strings = BASE + 32 + 4 * pointer as u64;
    let mut data = b"\xff Go buildinf:".to_vec();
    data.extend([pointer as u8, u8::from(big_endian)]);
    data.extend(number(BASE + 32, pointer));
    data.extend(number(BASE + 32 + 2 * pointer as u64, pointer));
    data.resize(32, 0);
    for value in [strings, version.len() as u64, strings + version.len() as u64, modules.len() as u64] {
        data.extend(number(value, pointer));
    }
    data.extend(version.bytes().chain(modules.bytes()));

    let wide = pointer == 8;
    let (header, segment) = if wide { (64, 56) } else { (52, 32) };
    let mut file = b"\x7fELF".to_vec();
    file.extend([if wide { 2 } else { 1 }, if big_endian { 2 } else { 1 }, 1]);
    file.resize(16, 0);
    let machine = 62;
    // e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, sections.
    let fields =
        [(2, 2), (machine, 2), (1, 4), (0, pointer), (header, pointer), (0, pointer), (0, 4), (header, 2)];
    file.extend(fields.iter().flat_map(|(value, size)| number(*value, *size)));
    file.extend([segment, 1, 0, 0, 0].iter().flat_map(|value| number(*value, 2)));
    let (at, length) = (header + segment, data.len() as u64);
    let load = if wide {
        vec![(1, 4), (6, 4), (at, 8), (BASE, 8), (BASE, 8), (length, 8), (length, 8), (16, 8)]
    } else {
        vec![(1, 4), (at, 4), (BASE, 4), (BASE, 4), (length, 4), (length, 4), (6, 4), (16, 4)]
    };
    file.extend(load.iter().flat_map(|(value, size)| number(*value, *size)));
    file.extend(data);
    file
}

#[test]
fn no_file_panics() -> Outcome {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("binary");
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    runner.run(
        &(any::<[bool; 2]>(), changes, any::<prop::sample::Index>()),
        |([big_endian, wide], changes, end)| {
            let mut binary = old_binary(big_endian, if wide { 8 } else { 4 });
            for (at, byte) in changes {
                let at = at.index(binary.len());
                binary[at] = byte;
            }
            binary.truncate(end.index(2 * binary.len()));
            fs::write(&file, &binary)?;
            let _ = BuildInfo::read(&file);
            Ok(())
        },
    )?;
    for head in ["\x7fELF", "MZ", "\u{fe}\u{ed}", "text", ""] {
        fs::write(&file, head)?;
        assert!(BuildInfo::read(&file).is_err());
    }
    Ok(())
}
