//! GitHub and GitLab clients against the testkit's forge, working and failing.

use std::{
    fs,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use url::Url;
use velox_fetch::{
    forge::{ForgeClient, ForgeError, GitLabProject, GitOptions, RemoteRepository},
    http::{HttpOptions, ProxySettings},
};
use velox_testkit::{FIRST_COMMIT, Fault, Internet, Repo, TestForge};

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn http() -> ForgeClient {
    ForgeClient::new(HttpOptions { max_wait: Duration::from_secs(3), ..HttpOptions::default() }).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn github(forge: &TestForge, token: Option<&str>) -> RemoteRepository {
    let token = token.map(|token| SecretString::from(token.to_owned()));
    RemoteRepository::github(&http(), Some(&url(&forge.github_url())), token, "acme", "hello")
}

fn gitlab(forge: &TestForge, token: Option<&str>, project: GitLabProject) -> RemoteRepository {
    let token = token.map(|token| SecretString::from(token.to_owned()));
    RemoteRepository::gitlab(&http(), Some(&url(&forge.gitlab_url())), token, project)
}

/// Two commits: the first with a tag, the second with a branch whose name has a slash.
fn history(repo: &Repo) -> (String, String) {
    let first = repo
        .file("go.mod", "module acme.test/hello\n")
        .file("sub/a.go", "package sub\n")
        .commit("first")
        .tag("v1.0.0")
        .head();
    let second = repo.file("b.go", "package hello\n").commit("second").branch("feature/x").head();
    (first, second)
}

/// Assertions that hold for every kind of repository.
fn answers(repository: &RemoteRepository, first: &str, second: &str) {
    wait(async {
        let tag = repository.resolve(Some("v1.0.0")).await.unwrap();
        assert_eq!(
            (tag.commit.id.as_str(), tag.commit.time, tag.tag.as_deref()),
            (first, FIRST_COMMIT, Some("v1.0.0"))
        );
        for reference in ["feature/x", "main", second, &second[..8]] {
            let resolved = repository.resolve(Some(reference)).await.unwrap();
            assert_eq!((resolved.commit.id.as_str(), resolved.tag), (second, None), "{reference}");
        }
        assert_eq!(repository.resolve(None).await.unwrap().commit.id, second);
        for missing in ["v9.9.9", "nowhere"] {
            assert!(
                matches!(repository.resolve(Some(missing)).await, Err(ForgeError::NotFound { .. })),
                "{missing}"
            );
        }
        let go_mod = repository.file("go.mod", first).await.unwrap();
        assert_eq!(go_mod.as_deref(), Some("module acme.test/hello\n"));
        assert_eq!(repository.file("b.go", first).await.unwrap(), None);
        assert!(repository.is_ancestor(first, second).await.unwrap());
        assert!(!repository.is_ancestor(second, first).await.unwrap());
        assert_eq!(repository.tags().await.unwrap().len(), 1);
        assert_eq!(repository.similar_tags("v1.0.1").await, ["v1.0.0"]);

        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        repository.tree(second, &tree).await.unwrap();
        assert_eq!(fs::read_to_string(tree.join("sub/a.go")).unwrap(), "package sub\n");
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 3);
    });
}

#[test]
fn github_gitlab_and_git_answer_alike() {
    let forge = TestForge::start();
    let repo = forge.github("acme/hello");
    let (first, second) = history(&repo);
    forge.host_gitlab("group/sub/hello", &repo);
    repo.id(4711);
    answers(&github(&forge, None), &first, &second);
    answers(&gitlab(&forge, None, GitLabProject::Id(4711)), &first, &second);
    answers(&gitlab(&forge, None, GitLabProject::Path("group/sub/hello".to_owned())), &first, &second);

    let scratch = tempfile::tempdir().unwrap();
    let environment = vec![("PATH".to_owned(), SecretString::from(std::env::var("PATH").unwrap()))];
    let options = GitOptions { program: "git".into(), environment, scratch: scratch.path().to_owned() };
    answers(&RemoteRepository::git(options, format!("file://{}", repo.git_dir().display())), &first, &second);
}

#[test]
fn a_git_tree_is_whole_whatever_its_attributes_say() {
    let repo = Repo::new();
    let commit =
        repo.file(".gitattributes", "hidden.go export-ignore\n").file("hidden.go", "x").commit("one").head();
    repo.annotated_tag("v1.0.0", "the first");
    let scratch = tempfile::tempdir().unwrap();
    let environment = vec![("PATH".to_owned(), SecretString::from(std::env::var("PATH").unwrap()))];
    let options = GitOptions { program: "git".into(), environment, scratch: scratch.path().to_owned() };
    let git = RemoteRepository::git(options, format!("file://{}", repo.git_dir().display()));
    wait(async {
        assert_eq!(git.resolve(Some("v1.0.0")).await.unwrap().commit.id, commit);
        let tree = scratch.path().join("tree");
        git.tree(&commit, &tree).await.unwrap();
        assert!(tree.join("hidden.go").exists());
        assert!(git.resolve(Some("--upload-pack=x")).await.is_err());
    });
}

#[test]
fn more_tags_than_a_page_has() {
    let forge = TestForge::start();
    let repo = forge.github("acme/hello").file("a", "a").commit("one");
    forge.host_gitlab("acme/hello", &repo);
    for number in 0..230 {
        repo.tag(&format!("v0.0.{number}"));
    }
    assert_eq!(wait(github(&forge, None).tags()).unwrap().len(), 230);
    let project = GitLabProject::Path("acme/hello".to_owned());
    assert_eq!(wait(gitlab(&forge, None, project).tags()).unwrap().len(), 230);
}

#[test]
fn private_repositories_need_their_token() {
    let forge = TestForge::start();
    let repo = forge.github("acme/hello").private().token("right");
    history(&repo);
    forge.host_gitlab("acme/hello", &repo);
    let project = || GitLabProject::Path("acme/hello".to_owned());
    for (right, none, wrong) in [
        (github(&forge, Some("right")), github(&forge, None), github(&forge, Some("wrong"))),
        (
            gitlab(&forge, Some("right"), project()),
            gitlab(&forge, None, project()),
            gitlab(&forge, Some("wrong"), project()),
        ),
    ] {
        assert!(wait(right.resolve(Some("main"))).is_ok());
        assert!(!wait(right.is_public()).unwrap());
        assert!(matches!(wait(none.resolve(Some("main"))), Err(ForgeError::NotFound { .. })));
        let refused = wait(wrong.resolve(Some("main"))).unwrap_err();
        assert!(matches!(refused, ForgeError::Unauthorized { had_token: true, .. }), "{refused}");
        assert!(!format!("{refused} {refused:?}").contains("wrong"));
    }
}

#[test]
fn the_token_never_follows_a_redirect_to_another_host() {
    let forge = TestForge::start();
    forge.github_token("right");
    history(&forge.github("acme/hello"));
    let internet = Internet::start(&forge);
    let options = HttpOptions {
        ca_bundle: Some(internet.ca_file()),
        proxy: ProxySettings { https: Some(internet.proxy_url()), ..ProxySettings::default() },
        ..HttpOptions::default()
    };
    let http = ForgeClient::new(options).unwrap();
    let repository = RemoteRepository::github(&http, None, Some("right".to_owned().into()), "acme", "hello");
    let place = tempfile::tempdir().unwrap();
    wait(async {
        let head = repository.resolve(None).await.unwrap().commit.id;
        repository.tree(&head, &place.path().join("tree")).await.unwrap();
        assert!(repository.is_public().await.unwrap());
    });
    let asked = forge.requests();
    let to = |host: &str| asked.iter().filter(|request| request.host == host).collect::<Vec<_>>();
    assert!(!to("codeload.github.com").is_empty());
    assert!(to("codeload.github.com").iter().all(|request| !request.had_token));
    assert!(to("api.github.com").iter().all(|request| request.had_token));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_with_what_to_do() {
    let forge = TestForge::start();
    let internet = Internet::start(&forge);
    let proxy = ProxySettings { https: Some(internet.proxy_url()), ..ProxySettings::default() };
    let http = ForgeClient::new(HttpOptions { proxy, ..HttpOptions::default() }).unwrap();
    let error = wait(RemoteRepository::github(&http, None, None, "acme", "hello").resolve(None)).unwrap_err();
    assert!(matches!(error, ForgeError::Network { .. }), "{error}");
    assert!(error.help().join(" ").contains("SSL_CERT_FILE"), "{error} {:?}", error.help());
}

#[test]
fn temporary_faults_are_retried_and_lasting_ones_reported() {
    for fault in [Fault::Status(500), Fault::HangUp, Fault::CutBody] {
        let forge = TestForge::start();
        history(&forge.github("acme/hello"));
        let rule = forge.fault(fault.clone()).times(2);
        assert!(wait(github(&forge, None).resolve(Some("main"))).is_ok(), "{fault:?}");
        assert_eq!(rule.hits(), 2);
    }
    for (fault, said) in [
        (Fault::Status(500), "returned status 500"),
        (Fault::CutBody, "failed to reach"),
        (Fault::RedirectLoop, "redirect loop"),
        (Fault::GarbageJson, "unexpected response"),
    ] {
        let forge = TestForge::start();
        history(&forge.github("acme/hello"));
        forge.fault(fault.clone());
        let error = wait(github(&forge, None).resolve(Some("main"))).unwrap_err().to_string();
        assert!(error.contains(said), "{fault:?}: {error}");
    }
}

#[test]
fn body_that_stalls_is_a_network_error() {
    let forge = TestForge::start();
    history(&forge.github("acme/hello"));
    forge.fault(Fault::StalledBody(Duration::from_secs(5)));
    let options = HttpOptions { read_timeout: Duration::from_millis(800), ..HttpOptions::default() };
    let url = url(&forge.github_url());
    let github =
        RemoteRepository::github(&ForgeClient::new(options).unwrap(), Some(&url), None, "acme", "hello");
    let error = wait(github.resolve(Some("main"))).unwrap_err();
    assert!(matches!(error, ForgeError::Network { .. }), "{error}");
}

#[test]
fn a_cut_archive_leaves_nothing() {
    let forge = TestForge::start();
    let (first, _) = history(&forge.github("acme/hello"));
    forge.fault(Fault::CutBody);
    let place = tempfile::tempdir().unwrap();
    assert!(wait(github(&forge, None).tree(&first, &place.path().join("tree"))).is_err());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_short_rate_limit_is_waited_for_and_a_long_one_told_with_its_reset() {
    for short in [Fault::TooManyRequests { retry_after: 1 }, Fault::RateLimited { reset_in: 1 }] {
        let forge = TestForge::start();
        history(&forge.github("acme/hello"));
        forge.fault(short.clone()).times(1);
        let waited = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&waited);
        let http = http().on_wait(Arc::new(move |_, seconds| {
            count.fetch_add(seconds, Ordering::Relaxed);
        }));
        let repository =
            RemoteRepository::github(&http, Some(&url(&forge.github_url())), None, "acme", "hello");
        assert!(wait(repository.resolve(Some("main"))).is_ok(), "{short:?}");
        assert!((1..=2).contains(&waited.load(Ordering::Relaxed)), "{short:?}");
    }
    let forge = TestForge::start();
    history(&forge.github("acme/hello"));
    forge.fault(Fault::RateLimited { reset_in: 3000 });
    let error = wait(github(&forge, None).resolve(Some("main"))).unwrap_err();
    assert!(matches!(error, ForgeError::RateLimited { reset: Some(_), had_token: false, .. }), "{error}");
    assert!(error.to_string().contains("rate limit") && error.to_string().contains("UTC"), "{error}");
    assert!(error.help().join(" ").contains("[github.token]"));
}
