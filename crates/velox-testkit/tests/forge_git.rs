//! git itself, and the go command through git, as clients of the forge.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use velox_testkit::{Fault, Internet, Repo, TestForge};

fn git(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HOME", dir);
    command
}

fn out(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn plugin(repo: Repo) -> Repo {
    repo.file("go.mod", "module github.com/acme/plugin\n\ngo 1.22\n")
        .file("plugin.go", "package plugin\n")
        .commit("first")
        .tag("v1.0.0")
        .branch("next")
        .file("more.go", "package plugin\n")
        .commit("second")
        .checkout("main")
}

#[test]
fn clone_and_fetch_by_id() {
    let forge = TestForge::start();
    let repo = plugin(forge.github("acme/plugin"));
    let dir = tempfile::tempdir().unwrap();
    out(git(dir.path(), &["clone", "--quiet", &repo.url(), "c"]));
    let clone = dir.path().join("c");
    assert_eq!(out(git(&clone, &["rev-parse", "HEAD"])), repo.head());
    assert_eq!(out(git(&clone, &["rev-parse", "origin/next"])), repo.commit_id("next"));

    // A commit that no ref names, as github.com and gitlab.com give it.
    let old = repo.head();
    repo.file("go.mod", "module github.com/acme/other\n").commit("third");
    out(git(dir.path(), &["init", "--quiet", "d"]));
    let fresh = dir.path().join("d");
    out(git(&fresh, &["fetch", "--quiet", "--depth=1", &repo.url(), &old]));
    assert_eq!(out(git(&fresh, &["rev-parse", "FETCH_HEAD"])), old);

    let trace = git(&fresh, &["ls-remote", &repo.url()]).env("GIT_TRACE_PACKET", "1").output().unwrap();
    assert!(said(&trace).contains("version 2"), "protocol v2 wasn't spoken");
}

#[test]
fn a_private_repository_wants_its_token() {
    let forge = TestForge::start();
    let repo = plugin(forge.gitlab("group/sub/plugin")).private().token("secret");
    forge.gitlab_token("someone else's");
    let dir = tempfile::tempdir().unwrap();
    let with = |password: &str| repo.url().replace("http://", &format!("http://any:{password}@"));
    let refused = git(dir.path(), &["ls-remote", &repo.url()]).output().unwrap();
    assert!(said(&refused).contains("terminal prompts disabled"), "{}", said(&refused));
    assert!(!git(dir.path(), &["ls-remote", &with("wrong")]).status().unwrap().success());
    assert!(!git(dir.path(), &["ls-remote", &with("someone%20else%27s")]).status().unwrap().success());
    assert!(out(git(dir.path(), &["ls-remote", &with("secret")])).contains(&repo.head()));
    assert!(forge.requests().iter().any(|it| it.had_token));
}

#[test]
fn a_fault_strikes_git_as_often_as_asked() {
    let forge = TestForge::start();
    let repo = plugin(forge.github("acme/plugin"));
    let rule = forge.fault(Fault::Status(503)).on("GET", "/acme/*/info/refs").times(1);
    let dir = tempfile::tempdir().unwrap();
    assert!(said(&git(dir.path(), &["ls-remote", &repo.url()]).output().unwrap()).contains("503"));
    out(git(dir.path(), &["ls-remote", &repo.url()]));
    assert_eq!(rule.hits(), 1);
}

#[test]
fn the_internet_has_github_com_and_gitlab_com() {
    let forge = TestForge::start();
    let hub = plugin(forge.github("acme/plugin"));
    let lab = plugin(forge.gitlab("group/sub/plugin"));
    let internet = Internet::start(&forge).offline().gitlab_at("git.example.com");
    let dir = tempfile::tempdir().unwrap();
    for (url, repo) in [
        ("https://github.com/acme/plugin", &hub),
        ("https://gitlab.com/group/sub/plugin.git", &lab),
        ("https://git.example.com/group/sub/plugin.git", &lab),
    ] {
        let mut list = git(dir.path(), &["ls-remote", url, "HEAD"]);
        list.envs(internet.environment());
        assert_eq!(out(list), format!("{}\tHEAD", repo.head()));
    }
    let mut elsewhere = git(dir.path(), &["ls-remote", "https://elsewhere.example/x"]);
    let refused = elsewhere.envs(internet.environment()).output().unwrap();
    assert!(said(&refused).contains("403"), "{}", said(&refused));
    assert!(forge.requests().iter().any(|it| it.method == "CONNECT" && it.host == "elsewhere.example"));
    // Without the CA nobody believes that this is github.com.
    let mut distrust = git(dir.path(), &["ls-remote", "https://github.com/acme/plugin"]);
    distrust.env("HTTPS_PROXY", internet.proxy_url()).env("https_proxy", internet.proxy_url());
    assert!(!distrust.status().unwrap().success());
}

#[test]
fn the_go_command_finds_modules() {
    let forge = TestForge::start();
    plugin(forge.github("acme/plugin"));
    let lab = forge
        .gitlab("group/sub/plugin")
        .file("go.mod", "module gitlab.com/group/sub/plugin\n")
        .commit("first");
    let internet = Internet::start(&forge).offline();
    let dir = tempfile::tempdir().unwrap();
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command
            .current_dir(dir.path())
            .args(arguments)
            .envs(internet.environment())
            .env("HOME", dir.path())
            .env("GOPATH", dir.path().join("go"))
            .env("GOMODCACHE", dir.path().join("go/mod"))
            .env("GOCACHE", dir.path().join("cache"))
            .env("GOFLAGS", "-modcacherw")
            .env("GOPROXY", "direct")
            .env("GONOSUMDB", "*")
            .env("GOTOOLCHAIN", "local")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        out(command)
    };
    assert_eq!(go(&["list", "-m", "-f", "{{.Version}}", "github.com/acme/plugin@latest"]), "v1.0.0");
    let pseudo = go(&["list", "-m", "-f", "{{.Version}}", "gitlab.com/group/sub/plugin@main"]);
    assert_eq!(pseudo, format!("v0.0.0-20240101000000-{}", &lab.head()[..12]));
    assert!(forge.requests().iter().any(|it| it.host == "gitlab.com" && it.query == "go-get=1"));
}

#[test]
fn other_hosts_are_tunnelled_unchanged() {
    let forge = TestForge::start();
    let internet = Internet::start(&forge);
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = elsewhere.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = elsewhere.accept().unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        stream.write_all(&said).unwrap();
    });
    let mut client = TcpStream::connect(internet.proxy_url().trim_start_matches("http://")).unwrap();
    write!(client, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    client.write_all(b"\x16\x03\x01\x00\xff").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\x16\x03\x01\x00\xff");
    echo.join().unwrap();
}

#[test]
fn nothing_is_left_after_the_drop() {
    let forge = TestForge::start();
    let internet = Internet::start(&forge);
    let repo = plugin(forge.github("acme/plugin"));
    let (git_dir, ca) = (repo.git_dir().to_owned(), internet.ca_file());
    let address = forge.github_url().replace("http://", "");
    // A client that keeps its connection.
    let _idle = TcpStream::connect(&address).unwrap();
    drop((forge, repo));
    assert!(!git_dir.exists());
    assert!(TcpStream::connect(&address).is_err());
    drop(internet);
    assert!(!ca.exists());
}
