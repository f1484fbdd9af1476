//! The gitlab crate, which knows nothing of this forge, as its GitLab client.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

use gitlab::api::projects::Project;
use gitlab::api::projects::repository::branches::Branches;
use gitlab::api::projects::repository::commits::Commit;
use gitlab::api::projects::repository::files::{File, FileRaw};
use gitlab::api::projects::repository::tags::{Tag, Tags};
use gitlab::api::projects::repository::{Archive, ArchiveFormat};
use gitlab::api::{ApiError, Pagination, Query as _, paged, raw};
use gitlab::{Gitlab, GitlabBuilder};
use serde_json::Value;
use velox_testkit::{Repo, TestForge};

const PROJECT: &str = "group/sub/plugin";

fn client(forge: &TestForge, token: &str) -> Result<Gitlab, gitlab::GitlabError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = forge.gitlab_url();
    GitlabBuilder::new(url.trim_start_matches("http://"), token).insecure().build()
}

fn plugin(forge: &TestForge) -> Repo {
    forge
        .gitlab(PROJECT)
        .id(36_405_203)
        .private()
        .token("secret")
        .file("go.mod", "module gitlab.com/group/sub/plugin\n")
        .executable("sub/run me.sh", "#!/bin/sh\n")
        .commit("first")
        .tag("v1.0.0")
        .branch("feature/next")
        .file("b.go", "package plugin\n")
        .commit("second")
        .annotated_tag("sub/v1.1.0", "one point one")
        .checkout("main")
}

#[test]
fn project_by_id_and_by_path() {
    let forge = TestForge::start();
    plugin(&forge);
    let lab = client(&forge, "secret").unwrap();
    let by_id: Value = Project::builder().project(36_405_203).build().unwrap().query(&lab).unwrap();
    let by_path: Value = Project::builder().project(PROJECT).build().unwrap().query(&lab).unwrap();
    assert_eq!(by_id, by_path);
    assert_eq!(
        (by_id["path_with_namespace"].as_str(), by_id["default_branch"].as_str()),
        (Some(PROJECT), Some("main"))
    );
}

#[test]
fn commits_tags_and_branches() {
    let forge = TestForge::start();
    let repo = plugin(&forge);
    let lab = client(&forge, "secret").unwrap();
    let first = repo.head();
    for name in ["v1.0.0", "main", &first, &first[..8]] {
        let commit: Value =
            Commit::builder().project(36_405_203).commit(name).build().unwrap().query(&lab).unwrap();
        assert_eq!(commit["id"], *first, "{name}");
        assert_eq!(commit["committed_date"], "2024-01-01T00:00:00.000+00:00");
    }
    let next: Value =
        Commit::builder().project(PROJECT).commit("feature/next").build().unwrap().query(&lab).unwrap();
    assert_eq!(next["parent_ids"][0], *first);
    let tag: Value =
        Tag::builder().project(PROJECT).tag_name("sub/v1.1.0").build().unwrap().query(&lab).unwrap();
    assert_eq!(
        (tag["message"].as_str(), tag["commit"]["id"].as_str()),
        (Some("one point one"), next["id"].as_str())
    );
    let branches: Vec<Value> = Branches::builder().project(PROJECT).build().unwrap().query(&lab).unwrap();
    assert_eq!(
        branches.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["feature/next", "main"]
    );

    for patch in 1..=45 {
        repo.tag(&format!("v2.0.{patch}"));
    }
    let all: Vec<Value> =
        paged(Tags::builder().project(PROJECT).build().unwrap(), Pagination::All).query(&lab).unwrap();
    assert_eq!(all.len(), 47);
    let some: Vec<Value> =
        paged(Tags::builder().project(PROJECT).build().unwrap(), Pagination::Limit(25)).query(&lab).unwrap();
    assert_eq!(some.len(), 25);
}

#[test]
fn files_and_archives() {
    let forge = TestForge::start();
    let repo = plugin(&forge);
    let lab = client(&forge, "secret").unwrap();
    let file: Value = File::builder()
        .project(36_405_203)
        .file_path("sub/run me.sh")
        .ref_("v1.0.0")
        .build()
        .unwrap()
        .query(&lab)
        .unwrap();
    assert_eq!(
        (file["content"].as_str(), file["execute_filemode"].as_bool()),
        (Some("IyEvYmluL3NoCg=="), Some(true))
    );
    assert_eq!(file["commit_id"], *repo.head());
    let content =
        raw(FileRaw::builder().project(PROJECT).file_path("go.mod").build().unwrap()).query(&lab).unwrap();
    assert_eq!(content, b"module gitlab.com/group/sub/plugin\n");
    let missing = raw(FileRaw::builder().project(PROJECT).file_path("none").build().unwrap()).query(&lab);
    assert!(
        matches!(missing, Err(ApiError::GitlabWithStatus { status, .. }) if status == 404),
        "{missing:?}"
    );

    let root = format!("plugin-feature-next-{}", repo.commit_id("feature/next"));
    let zip =
        Archive::builder().project(PROJECT).format(ArchiveFormat::Zip).sha("feature/next").build().unwrap();
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(raw(zip).query(&lab).unwrap())).unwrap();
    assert!(zip.by_name(&format!("{root}/b.go")).is_ok());
    let folder = Archive::builder().project(PROJECT).sha("feature/next").path("sub").build().unwrap();
    let gz = raw(folder).query(&lab).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(gz.as_slice()));
    let paths: Vec<_> =
        tar.entries().unwrap().map(|it| it.unwrap().path().unwrap().display().to_string()).collect();
    assert!(paths.contains(&format!("{root}-sub/sub/run me.sh")), "{paths:?}");
    assert!(!paths.iter().any(|path| path.ends_with("b.go")), "{paths:?}");
}

#[test]
fn strangers_see_nothing() {
    let forge = TestForge::start();
    plugin(&forge);
    forge.gitlab_token("someone else's");
    assert!(client(&forge, "wrong").is_err());
    let lab = client(&forge, "someone else's").unwrap();
    let hidden: Result<Value, _> = Project::builder().project(PROJECT).build().unwrap().query(&lab);
    assert!(
        matches!(hidden, Err(ApiError::GitlabWithStatus { status, ref msg }) if status == 404 && msg.contains("404 Project Not Found")),
        "{hidden:?}"
    );
}
