//! A fixture repository is a real one, and the same one every time.

use velox_testkit::Repo;

fn story() -> Repo {
    Repo::new()
        .file("go.mod", "module example.com/m\n")
        .executable("run \"me\".sh", "#!/bin/sh\n")
        .symlink("link", "go.mod")
        .commit("first")
        .tag("v1.0.0")
        .branch("next")
        .at(1_720_000_000)
        .file("sub/a.go", "package sub\n")
        .remove("link")
        .commit("second")
        .annotated_tag("v1.1.0", "one point one")
        .checkout("main")
}

#[test]
fn history_is_what_was_written() {
    let repo = story();
    assert_eq!(repo.head(), repo.commit_id("v1.0.0"));
    assert_eq!(repo.commit_id("next"), repo.commit_id("v1.1.0"));
    assert_eq!(repo.commit_id("next^"), repo.head());
    assert_eq!(repo.git(["ls-tree", "-r", "--name-only", "next"]), "go.mod\n\"run \\\"me\\\".sh\"\nsub/a.go");
    assert_eq!(repo.git(["log", "-1", "--format=%ct %an %s", "next"]), "1720000000 A Developer second");
    assert_eq!(repo.git(["cat-file", "-t", "v1.1.0"]), "tag");
    assert_eq!(repo.read("main", "link").as_deref(), Some(b"go.mod".as_slice()));
    assert_eq!(repo.git(["symbolic-ref", "HEAD"]), "refs/heads/main");
    repo.git(["fsck", "--strict"]);
}

#[test]
fn the_same_calls_give_the_same_ids() {
    assert_eq!(story().commit_id("next"), story().commit_id("next"));
}

#[test]
fn the_directory_goes_with_the_last_handle() {
    let repo = story();
    let dir = repo.git_dir().to_owned();
    let other = repo.clone();
    drop(repo);
    assert!(dir.is_dir());
    drop(other);
    assert!(!dir.exists());
}
