//! Release archives packed by scripts/pack, and the installer, which a user downloads from localhost.

#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::release::{pack, release, serve, target};
use tempfile::TempDir;

/// Programs that the installer needs, apart from a downloader and a checksum program.
const TOOLS: &[&str] = &["cat", "grep", "gzip", "mkdir", "mktemp", "mv", "rm", "sed", "sh", "tar", "uname"];

/// A user with a home directory and a PATH of the given programs.
struct User {
    home: TempDir,
    url: String,
}

impl User {
    fn of(release: &Path, programs: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        for name in TOOLS.iter().chain(programs) {
            let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|folder| folder.join(name))
                .find(|file| file.is_file());
            let found = found.unwrap_or_else(|| panic!("{name} is needed for this test"));
            symlink(found, home.path().join("bin").join(name)).unwrap();
        }
        Self { home, url: serve(release.to_owned()) }
    }

    fn install(&self, arguments: &[&str]) -> Output {
        Command::new(self.home.path().join("bin/sh"))
            .arg(crate::support::book::top().join("packaging/install.sh"))
            .args(["--from", &self.url])
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", self.home.path().join("bin"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn installs(&self, arguments: &[&str]) -> String {
        let output = self.install(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asserts that the installer fails and installs nothing; returns its standard error.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.install(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        let left = fs::read_dir(self.home.path().join(".local/bin")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing is left");
        String::from_utf8(output.stderr).unwrap()
    }

    fn version(&self, vx: &str) -> String {
        let output = Command::new(self.home.path().join(vx)).arg("--version").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

const VERSION: &str = concat!("vx ", env!("CARGO_PKG_VERSION"), "\n");

#[test]
fn installer_takes_newest_release_with_curl() {
    let user = User::of(release(), &["curl", "sha256sum"]);
    let message = user.installs(&[]);
    assert!(
        message.contains(" is in ")
            && message.contains("isn't in your PATH")
            && message.contains("vx needs Go"),
        "{message}"
    );
    assert_eq!(user.version(".local/bin/vx"), VERSION);

    // An older version is replaced; no other file remains.
    fs::write(user.home.path().join(".local/bin/vx"), "older").unwrap();
    user.installs(&[]);
    assert_eq!(user.version(".local/bin/vx"), VERSION);
    assert_eq!(fs::read_dir(user.home.path().join(".local/bin")).unwrap().count(), 1);
}

#[test]
fn installer_takes_version_and_directory_with_wget() {
    let user = User::of(release(), &["wget", "openssl"]);
    let directory = user.home.path().join("new/bin");
    for version in ["v9.9.9", "9.9.9"] {
        user.installs(&["--version", version, "--dir", &directory.to_string_lossy()]);
        assert_eq!(user.version("new/bin/vx"), VERSION);
        fs::remove_file(directory.join("vx")).unwrap();
    }
    let message = user.fails(&["--version", "v0.0.1"]);
    assert!(
        message.contains("can't download") && message.contains("/download/v0.0.1/SHA256SUMS"),
        "{message}"
    );
}

#[test]
fn installer_rejects_altered_archives() {
    let archive = format!("vx-{}.tar.gz", target());
    let altered = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(release()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), altered.path().join(entry.file_name())).unwrap();
    }
    let sums = fs::read_to_string(altered.path().join("SHA256SUMS")).unwrap();
    let line = sums.lines().find(|line| line.ends_with(&archive)).unwrap();
    let another = line.replacen(&line[..4], if line.starts_with("0000") { "1111" } else { "0000" }, 1);
    let user = User::of(altered.path(), &["curl", "sha256sum"]);

    fs::write(altered.path().join("SHA256SUMS"), sums.replace(line, &another)).unwrap();
    let message = user.fails(&[]);
    assert!(message.contains("isn't what was released") && message.contains(&line[..64]), "{message}");

    // The checksum of another file doesn't count.
    fs::write(altered.path().join("SHA256SUMS"), sums.replace(&archive, &format!("{archive}.asc"))).unwrap();
    assert!(user.fails(&[]).contains("has no sum for"));

    fs::remove_file(altered.path().join("SHA256SUMS")).unwrap();
    assert!(user.fails(&[]).contains("can't download"));
}

#[test]
fn installer_names_missing_programs() {
    assert!(User::of(release(), &["sha256sum"]).fails(&[]).contains("curl or wget is needed"));
    assert!(User::of(release(), &["curl"]).fails(&[]).contains("sha256sum, shasum or openssl is needed"));
    let user = User::of(release(), &["curl", "sha256sum"]);
    assert!(user.fails(&["--directory", "x"]).contains("--directory isn't known"));
    assert!(user.fails(&["--dir"]).contains("--dir needs a value"));
    assert!(user.installs(&["--help"]).contains("--version VERSION"));
}

#[test]
fn packing_is_reproducible() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The packer accepts any file; a small one is faster.
    let program = crate::support::book::top().join("LICENSE");
    for out in [&one, &two] {
        pack(out.path(), &["x86_64-unknown-linux-musl", "x86_64-pc-windows-msvc"], &program);
    }
    let sums = fs::read_to_string(one.path().join("SHA256SUMS")).unwrap();
    assert_eq!(sums, fs::read_to_string(two.path().join("SHA256SUMS")).unwrap());
    let names: Vec<&str> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        names,
        [
            "install.sh",
            &format!("velox-{version}-linux-amd64.tar.gz"),
            &format!("velox-{version}-windows-amd64.zip"),
            "vx-x86_64-pc-windows-msvc.zip",
            "vx-x86_64-unknown-linux-musl.tar.gz"
        ]
    );
    let listed = Command::new("tar").arg("-tzf").arg(one.path().join(names[4])).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "LICENSE\nREADME.md\nvx\n");
}

/// dload and scripts that were written for Velox find the archives by their names.
#[test]
fn archives_have_names_and_folders_of_velox() {
    let out = tempfile::tempdir().unwrap();
    let program = crate::support::book::top().join("LICENSE");
    pack(out.path(), &release_targets(), &program);
    for platform in ["linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64", "windows-amd64"] {
        let folder = format!("velox-{}-{platform}", env!("CARGO_PKG_VERSION"));
        // dload takes the asset whose name has the operating system and the architecture as words.
        let (os, arch) = platform.split_once('-').unwrap();
        let has_word = |name: &str, word: &str| name.split(['-', '.']).any(|part| part == word);
        let assets: Vec<String> = fs::read_dir(out.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| has_word(name, os) && has_word(name, arch))
            .collect();
        let (extension, vx) = if os == "windows" { ("zip", "vx.exe") } else { ("tar.gz", "vx") };
        assert_eq!(assets, [format!("{folder}.{extension}")]);

        let archive = out.path().join(&assets[0]);
        let unpacked = tempfile::tempdir().unwrap();
        let mut command = Command::new(if os == "windows" { "unzip" } else { "tar" });
        match os {
            "windows" => command.arg("-q").arg(&archive).arg("-d").arg(unpacked.path()),
            _ => command.arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()),
        };
        assert!(command.status().unwrap().success());
        let files = |path: &Path| -> Vec<String> {
            let entries = fs::read_dir(path).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(files(unpacked.path()), std::slice::from_ref(&folder));
        let inner = unpacked.path().join(&folder);
        assert_eq!(files(&inner), ["LICENSE", "README.md", "velox.toml", vx]);
        assert_eq!(fs::read(inner.join(vx)).unwrap(), fs::read(&program).unwrap());
        assert_eq!(fs::metadata(inner.join(vx)).unwrap().permissions().mode() & 0o777, 0o755, "{platform}");
        let manifest = fs::read(inner.join("velox.toml")).unwrap();
        assert_eq!(
            manifest,
            fs::read(crate::support::book::top().join("examples/http-server.toml")).unwrap()
        );
    }
}

/// The targets that scripts/release compiles.
fn release_targets() -> Vec<String> {
    let script = fs::read_to_string(crate::support::book::top().join("scripts/release")).unwrap();
    let targets = script.split_once("targets=(").unwrap().1.split_once(')').unwrap().0;
    targets.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn package_metadata_matches_release_files() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let workspace: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = workspace["packages"].as_array().unwrap();
    let vx = packages.iter().find(|package| package["name"] == "vx").unwrap();
    let binstall = &vx["metadata"]["binstall"];

    let targets = release_targets();
    assert_eq!(targets.len(), 5);
    let workflow =
        fs::read_to_string(crate::support::book::top().join(".github/workflows/release.yml")).unwrap();
    let out = tempfile::tempdir().unwrap();
    pack(out.path(), &targets, &crate::support::book::top().join("LICENSE"));
    for target in targets {
        let own = &binstall["overrides"][&target]["pkg-url"];
        let url = own.as_str().or(binstall["pkg-url"].as_str()).unwrap().replace("{ target }", &target);
        let file = url.rsplit('/').next().unwrap();
        assert!(out.path().join(file).is_file(), "{target}: a release has no {file}");
        assert!(workflow.contains(&format!("target: {target},")), "release.yml doesn't compile {target}");
    }
    for over in ["x86_64", "aarch64"].map(|arch| format!("{arch}-unknown-linux-gnu")) {
        let url = binstall["overrides"][&over]["pkg-url"].as_str().unwrap();
        assert!(out.path().join(url.rsplit('/').next().unwrap()).is_file(), "{over}");
    }
    for asset in vx["metadata"]["deb"]["assets"].as_array().unwrap() {
        let path = asset[0].as_str().unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(path).parent().unwrap().to_owned();
        assert!(path.starts_with("target/") || folder.is_dir(), "{path}");
    }
}
