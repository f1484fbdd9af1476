//! The module proxy and the ssh server, asked by the go command and by git.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command, time::Duration, time::Instant};

use serde_json::Value;
use velox_testkit::{ModuleProxy, ProxyFault, Repo, plugin};

/// `go mod download -json` or `go list -m -json`: what it printed, or what it complained about.
fn go(proxy: &str, cache: &Path, arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new("go")
        .args(arguments)
        .current_dir(cache)
        .env("GOPROXY", proxy)
        .env("GOSUMDB", "off")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-modcacherw -mod=mod")
        .env("GOTOOLCHAIN", "local")
        .env("GOMODCACHE", cache.join("modules"))
        .output()
        .unwrap();
    let said =
        || String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        serde_json::from_slice(&output.stdout).map_err(|_| said())
    } else {
        Err(said())
    }
}

fn download(proxy: &ModuleProxy, query: &str) -> Result<Value, String> {
    let cache = tempfile::tempdir().unwrap();
    go(&proxy.url(), cache.path(), &["mod", "download", "-json", query])
}

#[test]
fn the_go_command_downloads_modules_made_of_files() {
    let proxy = ModuleProxy::start();
    let path = "example.com/Acme/hello/v2";
    proxy
        .module(path, "v2.0.1", plugin(path, "hello").files())
        .module(path, "v2.1.0-rc.1", plugin(path, "hello").files())
        .query(path, "main", "v2.0.1");
    assert_eq!(download(&proxy, &format!("{path}@v2.0.1")).unwrap()["Version"], "v2.0.1");
    assert!(proxy.requests().contains(&"/example.com/!acme/hello/v2/@v/v2.0.1.zip".to_owned()));
    proxy.forget_requests();
    // A release is newer than any pre-release.
    assert_eq!(download(&proxy, &format!("{path}@latest")).unwrap()["Version"], "v2.0.1");
    assert_eq!(proxy.requests()[0], "/example.com/!acme/hello/v2/@v/list");
    assert_eq!(download(&proxy, &format!("{path}@main")).unwrap()["Version"], "v2.0.1");
    assert_eq!(download(&proxy, &format!("{path}@>=v2.1.0-rc.1")).unwrap()["Version"], "v2.1.0-rc.1");
    let unknown = download(&proxy, "example.com/other@v1.0.0").unwrap_err();
    assert!(unknown.contains("404 Not Found"), "{unknown}");
}

/// A repository with a module in a folder, as the go command itself sees it over git.
fn souin() -> Repo {
    let files =
        |says: &str| plugin("example.com/souin/plugins/rr", "cache").folder("plugins/rr").says(says).files();
    Repo::new()
        .file("go.mod", "module example.com/souin\n\ngo 1.22\n")
        .file("souin.go", "package souin\n")
        .files(files("one"))
        .symlink("link.go", "souin.go")
        .commit("one")
        .tag("v1.6.0")
        .tag("plugins/rr/v1.2.0")
        .files(files("two"))
        .commit("two")
        .tag("v1.7.0-beta.1")
        .files(files("three"))
        .commit("three")
}

#[test]
fn repositories_give_tags_and_the_pseudo_versions_that_go_makes() {
    let (proxy, repo) = (ModuleProxy::start(), souin());
    proxy.from_repo("example.com/souin", &repo, "").from_repo(
        "example.com/souin/plugins/rr",
        &repo,
        "plugins/rr",
    );
    let commit = repo.head();
    let branch = download(&proxy, "example.com/souin@main").unwrap();
    assert_eq!(branch["Version"], format!("v1.7.0-beta.1.0.20240101000200-{}", &commit[..12]));
    assert_eq!(branch["Origin"]["Hash"], commit);
    let nested = download(&proxy, &format!("example.com/souin/plugins/rr@{}", &commit[..12])).unwrap();
    assert_eq!(nested["Version"], format!("v1.2.1-0.20240101000200-{}", &commit[..12]));
    assert_eq!(
        download(&proxy, "example.com/souin@v1.6.0").unwrap()["Origin"]["Hash"],
        repo.commit_id("v1.6.0")
    );
    let tagged = download(&proxy, &format!("example.com/souin@{}", repo.commit_id("v1.6.0"))).unwrap();
    assert_eq!(tagged["Version"], "v1.6.0");
    assert_eq!(download(&proxy, "example.com/souin/plugins/rr@latest").unwrap()["Version"], "v1.2.0");
}

#[test]
fn go_reads_the_same_sums_from_the_repository_itself() {
    let (proxy, repo) = (ModuleProxy::start(), souin());
    let path = "github.com/acme/souin";
    let go_mod = "module github.com/acme/souin\n\ngo 1.22\n";
    let repo = repo.file("go.mod", go_mod).file("UPPER/Readme.MD", "x").commit("at home").tag("v1.8.0");
    repo.file("later.go", "package souin\n").commit("later");
    proxy.from_repo(path, &repo, "");

    let cache = tempfile::tempdir().unwrap();
    let elsewhere = cache.path().join("gitconfig");
    let redirect = format!(
        "[url \"file://{}\"]\n\tinsteadOf = https://github.com/acme/souin\n",
        repo.git_dir().display()
    );
    std::fs::write(&elsewhere, redirect).unwrap();
    for query in ["v1.8.0", "main"] {
        let direct = Command::new("go")
            .args(["mod", "download", "-json", &format!("{path}@{query}")])
            .current_dir(cache.path())
            .env("GOPROXY", "direct")
            .env("GOSUMDB", "off")
            .env("GOFLAGS", "-modcacherw")
            .env("GIT_CONFIG_GLOBAL", &elsewhere)
            .env("GIT_ALLOW_PROTOCOL", "file")
            .env("GOMODCACHE", cache.path().join("direct"))
            .output()
            .unwrap();
        assert!(direct.status.success(), "{}", String::from_utf8_lossy(&direct.stderr));
        let direct: Value = serde_json::from_slice(&direct.stdout).unwrap();
        let ours = download(&proxy, &format!("{path}@{query}")).unwrap();
        for key in ["Version", "Sum", "GoModSum"] {
            assert_eq!(ours[key], direct[key], "{query}: {key}");
        }
    }
}

#[test]
fn a_tree_of_files_serves_the_same() {
    let (proxy, repo) = (ModuleProxy::start(), souin());
    let upper = "example.com/Acme/hello";
    proxy.from_repo("example.com/souin", &repo, "").module(upper, "v1.0.0", plugin(upper, "hello").files());
    let tree = tempfile::tempdir().unwrap();
    let url = proxy.write_to(tree.path()).unwrap();
    for query in ["example.com/souin@v1.6.0", "example.com/souin@main", "example.com/Acme/hello@v1.0.0"] {
        let cache = tempfile::tempdir().unwrap();
        let from_files = go(&url, cache.path(), &["mod", "download", "-json", query]).unwrap();
        let from_proxy = download(&proxy, query).unwrap();
        assert_eq!(
            (&from_files["Version"], &from_files["Sum"]),
            (&from_proxy["Version"], &from_proxy["Sum"])
        );
    }
}

#[test]
fn faults_come_when_asked_for_and_go_when_healed() {
    let proxy = ModuleProxy::start();
    let path = "example.com/acme/hello";
    proxy.module(path, "v1.0.0", plugin(path, "hello").files());
    let query = format!("{path}@v1.0.0");
    let good = download(&proxy, &query).unwrap()["Sum"].clone();
    for status in [403, 404, 410, 500] {
        proxy.fail(".zip", ProxyFault::Status(status));
        let said = download(&proxy, &query).unwrap_err();
        assert!(said.contains(&status.to_string()), "{said}");
        proxy.heal();
    }
    proxy.fail(".zip", ProxyFault::Cut);
    let said = download(&proxy, &query).unwrap_err();
    assert!(said.contains("unexpected EOF"), "{said}");
    proxy.heal();

    proxy.fail_times(".zip", ProxyFault::Altered, 1);
    assert_ne!(download(&proxy, &query).unwrap()["Sum"], good);
    assert_eq!(download(&proxy, &query).unwrap()["Sum"], good);

    proxy.fail(".info", ProxyFault::Slow(Duration::from_millis(700)));
    let since = Instant::now();
    assert_eq!(download(&proxy, &query).unwrap()["Sum"], good);
    assert!(since.elapsed() >= Duration::from_millis(700));
}

/// `go mod download` with a home of its own, that believes the proxy's checksum database.
fn verified_download(proxy: &ModuleProxy, home: &Path, gosumdb: &str, query: &str) -> Result<Value, String> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", query])
        .current_dir(home)
        .env("GOPROXY", proxy.url())
        .env("GOSUMDB", gosumdb)
        .envs([("GONOSUMDB", ""), ("GOPRIVATE", ""), ("GOFLAGS", "-modcacherw"), ("GOTOOLCHAIN", "local")])
        .env("GOPATH", home)
        .env("GOMODCACHE", home.join("modules"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stderr, output.stdout.clone()].concat()).into_owned();
    if output.status.success() { Ok(serde_json::from_slice(&output.stdout).unwrap()) } else { Err(said) }
}

#[test]
fn the_go_command_believes_the_checksum_database_until_it_lies() {
    let (proxy, home) = (ModuleProxy::start(), tempfile::tempdir().unwrap());
    let path = |number: usize| format!("example.com/Acme/m{number}");
    for number in 0..12 {
        proxy.module(&path(number), "v1.0.0", plugin(&path(number), "hello").files());
    }
    let query = |number: usize| format!("{}@v1.0.0", path(number));
    let (proxied, direct) = (proxy.gosumdb(), proxy.gosumdb_direct());
    for number in 0..5 {
        verified_download(&proxy, home.path(), [&proxied, &direct][number % 2], &query(number)).unwrap();
    }
    let asked = proxy.requests();
    for part in ["/supported", "/lookup/example.com/!acme/m3@v1.0.0", "/tile/8/0/000.p/2"] {
        assert!(asked.iter().any(|path| path.contains(part)), "{part}: {asked:?}");
    }

    for version in ["v1.0.0", "v1.0.0/go.mod"] {
        let number = 5 + version.len() % 2;
        proxy.vouch(&path(number), version, "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let said = verified_download(&proxy, home.path(), &proxied, &query(number)).unwrap_err();
        assert!(said.contains("checksum mismatch"), "{said}");
    }
    let other = ModuleProxy::start();
    let said = verified_download(&proxy, home.path(), &other.gosumdb(), &query(7)).unwrap_err();
    assert!(said.contains("404 Not Found") || said.contains("signature"), "{said}");
    proxy.fork_sum_db();
    let said = verified_download(&proxy, home.path(), &proxied, &query(8)).unwrap_err();
    assert!(said.contains("SECURITY ERROR"), "{said}");
    proxy.forge_sum_db();
    let said = verified_download(&proxy, home.path(), &proxied, &query(9)).unwrap_err();
    assert!(said.contains("invalid signature"), "{said}");
}

#[test]
fn git_reads_over_ssh_with_the_agents_key_only() {
    use velox_testkit::Sshd;
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: git over ssh: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let repo = Repo::new().file("go.mod", "module github.com/acme/hello\n").commit("first").tag("v1.0.0");
    sshd.repository("acme/hello", &repo).unwrap();
    let ls_remote = |address: &str, variables: Vec<(String, String)>| {
        let mut command = Command::new("git");
        command.args(["ls-remote", "--tags", address]).env_remove("SSH_AUTH_SOCK").envs(variables);
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let address = "ssh://git@github.com/acme/hello";
    let (succeeded, said) = ls_remote(address, sshd.environment());
    assert!(succeeded, "{said}");
    assert_eq!(said, format!("{}\trefs/tags/v1.0.0\n", repo.head()));
    assert!(ls_remote("git@gitlab.com:acme/hello.git", sshd.environment()).0);
    assert_eq!(sshd.requests(), ["git-upload-pack '/acme/hello'", "git-upload-pack 'acme/hello.git'"]);

    let (succeeded, said) = ls_remote("ssh://git@github.com/acme/other", sshd.environment());
    assert!(!succeeded && said.contains("there is no repository acme/other"), "{said}");
    let (succeeded, said) = ls_remote(address, sshd.environment_without_agent());
    assert!(!succeeded && said.contains("Permission denied (publickey)"), "{said}");
}
