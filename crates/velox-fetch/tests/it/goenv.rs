//! `GoEnv` compared with `go env`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use velox_fetch::goenv::GoEnv;

const NAMES: [&str; 9] = [
    "GOAUTH",
    "GOCACHEPROG",
    "GOFLAGS",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOTOOLCHAIN",
];

fn go() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join("go")).find(|file| file.is_file()).unwrap()
}

/// Runs `go env` in exactly this environment.
fn go_env(environment: &BTreeMap<String, String>, name: &str) -> String {
    let output = Command::new(go()).args(["env", name]).env_clear().envs(environment).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

fn compare(environment: &BTreeMap<String, String>) {
    let goroot = go_env(environment, "GOROOT");
    let read = GoEnv::read(environment, Some(Path::new(&goroot)));
    for name in NAMES {
        assert_eq!(read.value(name), go_env(environment, name), "{name} of {environment:?}");
    }
    let paths = [
        ("GOENV", read.file()),
        ("GOPATH", read.gopath()),
        ("GOMODCACHE", read.gomodcache()),
        ("GOCACHE", read.gocache()),
    ];
    for (name, path) in paths {
        let said = go_env(environment, name);
        let path = path.map(|path| path.display().to_string()).unwrap_or_default();
        assert_eq!(path, said, "{name} of {environment:?}");
    }
}

#[test]
fn the_environment_the_file_and_the_defaults_are_read_as_go_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().display().to_string();
    let with = |variables: &[(&str, &str)]| -> BTreeMap<String, String> {
        let home = [("HOME", home.as_str())];
        home.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    compare(&with(&[]));
    compare(&with(&[("GOPRIVATE", "corp.example"), ("GOPROXY", "https://a,direct"), ("GOPATH", "/a:/b")]));
    compare(&with(&[
        ("GOPRIVATE", "corp.example"),
        ("GONOSUMDB", "*"),
        ("GOTOOLCHAIN", "path"),
        ("GOSUMDB", "off"),
    ]));
    compare(&with(&[("XDG_CONFIG_HOME", "/nowhere"), ("XDG_CACHE_HOME", "/else"), ("GOMODCACHE", "/mods")]));

    // A file of `go env -w` with extra lines.
    for (name, value) in
        [("GOPROXY", "https://corp.example/proxy"), ("GOFLAGS", "-modcacherw"), ("GOPATH", "/w")]
    {
        let mut write = Command::new(go());
        write.args(["env", "-w", &format!("{name}={value}")]).env_clear().envs(with(&[]));
        assert!(write.status().unwrap().success());
    }
    let file = GoEnv::read(&with(&[]), None).file().unwrap();
    let text = fs::read_to_string(&file).unwrap()
        + "# GOSUMDB=off\n GOSUMDB=off\nnonsense\nGONOPROXY=\nGOPRIVATE=a=b\n";
    fs::write(&file, &text).unwrap();
    compare(&with(&[]));
    compare(&with(&[("GOPROXY", "off"), ("GOFLAGS", "")]));
    compare(&with(&[("GOENV", "off")]));
    let other = directory.path().join("other");
    fs::write(&other, "GOSUMDB=off\nGOAUTH=git /x\nGOCACHE=/cache\nGOTOOLCHAIN=local\n").unwrap();
    compare(&with(&[("GOENV", &other.display().to_string())]));
    compare(&with(&[("GOENV", "/nowhere/at/all")]));
}

#[test]
fn without_a_home_there_is_no_cache() {
    let read = GoEnv::read(&BTreeMap::new(), None);
    assert_eq!((read.gopath(), read.gomodcache(), read.gocache(), read.file()), (None, None, None, None));
    assert_eq!(read.value("GOPROXY"), "https://proxy.golang.org,direct");
}
