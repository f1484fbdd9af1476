//! octocrab, which knows nothing of this forge, as its GitHub client.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

use std::io::Cursor;

use http_body_util::BodyExt as _;
use octocrab::Octocrab;
use octocrab::params::repos::Reference;
use velox_testkit::{Fault, Repo, TestForge};

fn client(forge: &TestForge, token: Option<&str>) -> Octocrab {
    // The build as a whole may hold two TLS providers; here one is chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Octocrab::builder().base_uri(format!("{}/api/v3", forge.github_url())).unwrap();
    match token {
        Some(token) => builder.personal_token(token.to_owned()).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

fn plugin(forge: &TestForge) -> Repo {
    forge
        .github("acme/http-plugin")
        .file("go.mod", "module github.com/acme/http-plugin/v5\n")
        .file("sub/a.go", "package sub\n")
        .commit("first")
        .tag("v1.0.0")
        .branch("feature/next")
        .file("b.go", "package plugin\n")
        .commit("second")
        .annotated_tag("v1.1.0", "one point one")
        .checkout("main")
}

fn status(error: octocrab::Error) -> u16 {
    match error {
        octocrab::Error::GitHub { source, .. } => source.status_code.as_u16(),
        other => panic!("not GitHub's own error: {other:?}"),
    }
}

async fn names(
    response: octocrab::Result<hyper::Response<impl hyper::body::Body<Data = hyper::body::Bytes>>>,
) -> Vec<String> {
    let Ok(bytes) = response.unwrap().into_body().collect().await else { panic!("no whole body") };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes.to_bytes())).unwrap();
    (0..archive.len()).map(|at| archive.by_index(at).unwrap().name().unwrap().into_owned()).collect()
}

#[tokio::test]
async fn repository_commits_and_refs() {
    let forge = TestForge::start();
    let repo = plugin(&forge);
    let crab = client(&forge, None);
    let about = crab.repos("acme", "http-plugin").get().await.unwrap();
    assert_eq!(about.default_branch.as_deref(), Some("main"));
    assert_eq!(about.full_name.as_deref(), Some("acme/http-plugin"));

    let first = repo.commit_id("v1.0.0");
    let second = repo.commit_id("v1.1.0");
    for name in ["v1.0.0", "main", "tags/v1.0.0", "heads/main", &first, &first[..8]] {
        assert_eq!(crab.commits("acme", "http-plugin").get(name).await.unwrap().sha, first, "{name}");
    }
    let commit = crab.commits("acme", "http-plugin").get("feature/next").await.unwrap();
    assert_eq!(commit.sha, second);
    assert_eq!(commit.parents[0].sha.as_ref(), Some(&first));
    assert_eq!(commit.commit.committer.unwrap().date.unwrap().timestamp(), velox_testkit::FIRST_COMMIT + 60);
    let files = commit.files.unwrap();
    assert_eq!((files.len(), files[0].filename.as_str()), (1, "b.go"));
    for name in ["nope", "main~1", "--all"] {
        assert_eq!(status(crab.commits("acme", "http-plugin").get(name).await.unwrap_err()), 422, "{name}");
    }

    let handle = crab.repos("acme", "http-plugin");
    let tag = handle.get_ref(&Reference::Tag("v1.1.0".into())).await.unwrap();
    let octocrab::models::repos::Object::Tag { sha, .. } = tag.object else { panic!("an annotated tag") };
    assert_eq!(sha, repo.git(["rev-parse", "v1.1.0"]));
    assert_eq!(handle.get_tag(sha).await.unwrap().message, "one point one");
    assert_eq!(handle.list_matching_refs("tags/v1.").await.unwrap().len(), 2);
    assert_eq!(handle.list_branches().send().await.unwrap().items.len(), 2);
    assert_eq!(handle.get_commit(first.clone()).await.unwrap().sha, first);

    let compared = handle.compare_commits("v1.0.0", "feature/next").send().await.unwrap();
    assert_eq!((compared.ahead_by, compared.behind_by), (1, 0));
    assert_eq!(compared.merge_base_commit.sha, first);
}

#[tokio::test]
async fn contents_and_archives() {
    let forge = TestForge::start();
    let repo = plugin(&forge);
    let crab = client(&forge, None);
    let handle = crab.repos("acme", "http-plugin");
    let file = handle.get_content().path("go.mod").r#ref("v1.0.0").send().await.unwrap();
    assert_eq!(file.items[0].decoded_content().unwrap(), "module github.com/acme/http-plugin/v5\n");
    let folder = handle.get_content().path("sub").send().await.unwrap();
    assert_eq!(folder.items.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["sub/a.go"]);
    assert_eq!(status(handle.get_content().path("none").send().await.unwrap_err()), 404);
    let raw = crab.repos("acme", "http-plugin").raw_file("feature/next".to_owned(), "b.go").await.unwrap();
    assert_eq!(raw.into_body().collect().await.unwrap().to_bytes(), "package plugin\n");

    let root = format!("acme-http-plugin-{}", &repo.commit_id("v1.0.0")[..7]);
    let zip = names(handle.download_zipball("v1.0.0".to_owned()).await).await;
    assert!(zip.contains(&format!("{root}/go.mod")) && zip.contains(&format!("{root}/sub/a.go")), "{zip:?}");
    let tarball = handle.download_tarball("v1.0.0".to_owned()).await.unwrap();
    let bytes = tarball.into_body().collect().await.unwrap().to_bytes();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(Cursor::new(bytes)));
    let paths: Vec<_> =
        tar.entries().unwrap().map(|it| it.unwrap().path().unwrap().display().to_string()).collect();
    assert!(paths.contains(&format!("{root}/go.mod")), "{paths:?}");
    assert!(forge.requests().iter().any(|it| it.path.starts_with("/codeload/acme/http-plugin/legacy.zip/")));
}

#[tokio::test]
async fn tags_come_in_pages() {
    let forge = TestForge::start();
    let repo = plugin(&forge);
    for patch in 1..=70 {
        repo.tag(&format!("v2.0.{patch}"));
    }
    let crab = client(&forge, None);
    let first = crab.repos("acme", "http-plugin").list_tags().per_page(30).send().await.unwrap();
    assert_eq!((first.items.len(), first.number_of_pages()), (30, Some(3)));
    assert_eq!(crab.all_pages(first).await.unwrap().len(), 72);
}

#[tokio::test]
async fn tokens_and_limits() {
    let forge = TestForge::start();
    plugin(&forge).private().token("secret");
    forge.github_token("someone else's");
    let get = |token| {
        let crab = client(&forge, token);
        async move { crab.repos("acme", "http-plugin").get().await }
    };
    assert_eq!(get(Some("secret")).await.unwrap().private, Some(true));
    assert_eq!(status(get(None).await.unwrap_err()), 404);
    assert_eq!(status(get(Some("someone else's")).await.unwrap_err()), 404);
    assert_eq!(status(get(Some("wrong")).await.unwrap_err()), 401);

    // The redirect of a private archive carries a pass of its own, so no token has to follow it.
    let crab = client(&forge, Some("secret"));
    forge.clear_requests();
    let zip = names(crab.repos("acme", "http-plugin").download_zipball("main".to_owned()).await).await;
    assert!(zip.iter().any(|name| name.ends_with("/go.mod")));
    let requests = forge.requests();
    let codeload = requests.iter().find(|it| it.path.starts_with("/codeload/")).unwrap();
    assert!(codeload.query.starts_with("token=") && !codeload.query.contains("secret"));

    let before = crab.ratelimit().get().await.unwrap().rate;
    assert_eq!((before.limit, before.used + before.remaining), (5000, 5000));
    forge.github_rate_limits(0, 5000);
    assert_eq!(status(get(None).await.unwrap_err()), 403);
    forge.fault(Fault::RateLimited { reset_in: 5 }).on("GET", "/repos/acme/*").times(1);
    assert_eq!(status(get(Some("secret")).await.unwrap_err()), 403);
    get(Some("secret")).await.unwrap();
}
