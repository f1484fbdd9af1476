//! The client against a registry on localhost that fails in many ways.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use velox_fetch::http::HttpOptions;
use velox_oci::{
    BlobContent, BlobPush, Descriptor, DockerCredentials, Error, ImageIndex, ImageManifest, ImageReference,
    OnRegistryEvent, RegistryClient, RegistryEvent, RegistryOptions, RegistryRepository,
    image::{Referrer, push_referrers},
    media_type,
};
use velox_testkit::{Fault, TestRegistry};

fn open(registry: &TestRegistry, options: RegistryOptions) -> RegistryRepository {
    let reference: ImageReference = format!("{}/acme/app:1", registry.host()).parse().unwrap();
    let mut options = options;
    options.http.ca_bundle = registry.ca_file().map(Into::into);
    RegistryClient::new(options).unwrap().repository(&reference)
}

fn anonymous(registry: &TestRegistry) -> RegistryRepository {
    open(registry, RegistryOptions::default())
}

/// With the password that Docker's configuration has for the registry.
fn logged_in(registry: &TestRegistry, login: &str) -> RegistryRepository {
    let directory = tempfile::tempdir().unwrap();
    let config = format!("{{\"auths\": {{\"{}\": {login}}}}}", registry.host());
    fs::write(directory.path().join("config.json"), config).unwrap();
    let environment = BTreeMap::from([("DOCKER_CONFIG".to_owned(), directory.path().display().to_string())]);
    let credentials = DockerCredentials::from_environment(&environment).unwrap();
    open(registry, RegistryOptions { credentials, ..RegistryOptions::default() })
}

/// Demands the password `s3cret`, or tokens for it.
fn demand_login(registry: &TestRegistry, with_tokens: bool, public_pull: bool) {
    match with_tokens {
        true => registry.token_service("s3cret", public_pull),
        false => registry.password("s3cret"),
    };
}

const LOGIN: &str = r#"{"username": "me", "password": "s3cret"}"#;

fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(|number| number.to_le_bytes()).collect()
}

async fn push(repository: &RegistryRepository, bytes: &[u8]) -> Result<(Descriptor, BlobPush), Error> {
    let blob = Descriptor::of(media_type::LAYER_TAR, bytes);
    let content = BlobContent::Bytes(Bytes::copy_from_slice(bytes));
    let push = repository.push_blob(&blob, &content).await?;
    Ok((blob, push))
}

/// Pushes an image of one layer under the tag `1`.
async fn push_image(repository: &RegistryRepository) -> Result<Descriptor, Error> {
    let (config, _) = push(repository, b"{}").await?;
    let (layer, _) = push(repository, b"layer").await?;
    let manifest = serde_json::to_vec(&ImageManifest::new(config, vec![layer])).unwrap();
    repository.push_manifest(Some("1"), media_type::MANIFEST, &manifest).await?;
    Ok(Descriptor::of(media_type::MANIFEST, &manifest))
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    let registry = TestRegistry::start();
    let repository = anonymous(&registry);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");
    fs::write(&path, [&b"before"[..], &large()[..], b"after"].concat()).unwrap();
    let blob = Descriptor::of(media_type::LAYER_TAR, &large());
    let content = BlobContent::File { path, offset: 6 };
    assert_eq!(repository.push_blob(&blob, &content).await.unwrap(), BlobPush::Uploaded);
    assert_eq!(repository.push_blob(&blob, &content).await.unwrap(), BlobPush::Present);
    assert!(repository.read_blob(&blob, blob.size).await.unwrap() == large());

    let image = push_image(&repository).await.unwrap();
    for version in ["1", image.digest.as_str()] {
        let pulled = repository.pull_manifest(version).await.unwrap();
        assert_eq!((&pulled.descriptor, pulled.descriptor.is_index()), (&image, false));
        assert_eq!(pulled.parse::<ImageManifest>().unwrap().layers.len(), 1);
    }
    let index = serde_json::to_vec(&ImageIndex::new(vec![image])).unwrap();
    repository.push_manifest(Some("all"), media_type::INDEX, &index).await.unwrap();
    assert!(repository.pull_manifest("all").await.unwrap().descriptor.is_index());
    let missing = repository.pull_manifest("2").await.unwrap_err().to_string();
    assert_eq!(missing, format!("{}/acme/app:2 not found in registry {}", registry.host(), registry.host()));
}

#[tokio::test]
async fn blobs_are_mounted_from_other_repositories() {
    let registry = TestRegistry::start();
    registry.token_service("s3cret", false);
    let repository = logged_in(&registry, LOGIN);
    let blob = Descriptor::of(media_type::LAYER_TAR, b"base");
    registry.put_blob("library/php", b"base");
    let mounted = repository.push_without_content(&blob, Some("library/php")).await.unwrap();
    assert_eq!(mounted, Some(BlobPush::Mounted));
    let other = Descriptor::of(media_type::LAYER_TAR, b"x");
    assert_eq!(repository.push_without_content(&other, Some("library/php")).await.unwrap(), None);
    assert!(registry.requests().last().unwrap().starts_with("DELETE "), "the upload is canceled");
}

#[tokio::test]
async fn referrers_have_a_tagged_index_without_the_api() {
    for has_api in [true, false] {
        let registry = TestRegistry::start();
        if !has_api {
            registry.without_referrers();
        }
        let repository = anonymous(&registry);
        let image = push_image(&repository).await.unwrap();
        let document = |kind: &str| Referrer {
            artifact_type: kind.to_owned(),
            media_type: "application/json".to_owned(),
            content: kind.as_bytes().to_vec(),
            annotations: BTreeMap::new(),
        };
        // Others push theirs at the same time.
        let kinds = ["spdx", "in-toto", "cyclonedx", "vex"].map(document);
        let push = async |referrers| push_referrers(&repository, &image, referrers).await.unwrap();
        let pushed = tokio::join!(push(&kinds[..2]), push(&kinds[2..3]), push(&kinds[3..]));
        let tag = image.digest.as_str().replace(':', "-");
        assert_eq!(registry.tags("acme/app").contains(&tag), !has_api);
        if !has_api {
            let index = registry.manifest("acme/app", &tag).unwrap();
            let listed: BTreeMap<_, _> = index["manifests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| {
                    (
                        it["digest"].as_str().unwrap().to_owned(),
                        it["artifactType"].as_str().unwrap().to_owned(),
                    )
                })
                .collect();
            let digests = [pushed.0, pushed.1, pushed.2].concat();
            let expected: BTreeMap<_, _> = digests
                .iter()
                .map(ToString::to_string)
                .zip(kinds.each_ref().map(|it| it.artifact_type.clone()))
                .collect();
            assert_eq!(listed, expected);
        }
        registry.clear_requests();
        push(&kinds).await;
        let tagged = format!("PUT /v2/acme/app/manifests/{tag}");
        assert!(!registry.requests().contains(&tagged), "they are there already");
    }
}

#[tokio::test]
async fn logins_are_basic_tokens_or_missing() {
    for is_token in [false, true] {
        let registry = TestRegistry::start();
        demand_login(&registry, is_token, true);
        let repository = logged_in(&registry, LOGIN);
        push_image(&repository).await.unwrap();
        registry.expire_tokens();
        push_image(&repository).await.unwrap();

        let denied = push(&anonymous(&registry), b"x").await.unwrap_err();
        assert!(matches!(denied, Error::Unauthorized { had_credentials: false, .. }), "{denied}");
        let wrong = logged_in(&registry, r#"{"username": "me", "password": "guess"}"#);
        let denied = push(&wrong, b"x").await.unwrap_err();
        assert!(matches!(denied, Error::Unauthorized { had_credentials: true, .. }), "{denied}");
        assert!(!denied.to_string().contains("guess"));
        assert_eq!(anonymous(&registry).pull_manifest("1").await.is_ok(), is_token);
    }
    let registry = TestRegistry::start();
    registry.token_service("refresh", false);
    push_image(&logged_in(&registry, r#"{"identitytoken": "refresh"}"#)).await.unwrap();
}

#[tokio::test]
async fn a_login_for_a_namespace_is_for_its_repositories_only() {
    for is_token in [false, true] {
        let registry = TestRegistry::start();
        demand_login(&registry, is_token, false);
        let directory = tempfile::tempdir().unwrap();
        let login = |password: &str| serde_json::json!({ "username": "me", "password": password });
        let host = registry.host();
        let config = serde_json::json!({ "auths": {
            &host: login("whole"), format!("{host}/acme"): login("s3cret"), format!("{host}/acme/private"): login("other"),
        } });
        fs::create_dir(directory.path().join("containers")).unwrap();
        fs::write(directory.path().join("containers/auth.json"), config.to_string()).unwrap();
        let runtime = directory.path().display().to_string();
        let environment = BTreeMap::from([("XDG_RUNTIME_DIR".to_owned(), runtime)]);
        let client = RegistryClient::new(RegistryOptions::from_environment(&environment).unwrap()).unwrap();
        for (name, is_allowed) in
            [("acme/app", true), ("acme/private", false), ("acmes/app", false), ("other", false)]
        {
            let repository = client.repository(&format!("{host}/{name}:1").parse().unwrap());
            match push_image(&repository).await {
                Ok(_) => assert!(is_allowed, "{name}"),
                Err(Error::Unauthorized { had_credentials: true, .. }) => assert!(!is_allowed, "{name}"),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn tls_is_used_where_the_registry_has_it() {
    let registry = TestRegistry::start_tls();
    registry.password("s3cret");
    push_image(&logged_in(&registry, LOGIN)).await.unwrap();
    let reference: ImageReference = format!("{}/acme/app:1", registry.host()).parse().unwrap();
    let untrusting = RegistryClient::new(RegistryOptions::default()).unwrap().repository(&reference);
    let error = untrusting.pull_manifest("1").await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn lies_are_detected() {
    let registry = TestRegistry::start();
    let repository = anonymous(&registry);
    let image = push_image(&repository).await.unwrap();
    let blob = Descriptor::of(media_type::LAYER_TAR, b"true");
    registry.put_lie("acme/app", blob.digest.as_str(), b"lies");
    let lie = repository.read_blob(&blob, 100).await.unwrap_err();
    assert!(matches!(lie, Error::DigestMismatch { .. }), "{lie}");
    registry.put_lie("acme/app", blob.digest.as_str(), b"longer than true");
    for (limit, most) in [(100, 4), (3, 3)] {
        let error = repository.read_blob(&blob, limit).await.unwrap_err().to_string();
        assert!(error.contains(&format!("more than {most} bytes")), "{error}");
    }
    registry.put_lie("acme/app", blob.digest.as_str(), b"tru");
    assert!(matches!(repository.read_blob(&blob, 100).await.unwrap_err(), Error::InvalidResponse { .. }));

    registry.fault(Fault::Altered).on("GET", "/v2/acme/app/manifests/*");
    for version in ["1", image.digest.as_str()] {
        let lie = repository.pull_manifest(version).await.unwrap_err();
        assert!(matches!(lie, Error::DigestMismatch { .. }), "{lie}");
    }
    registry.fault(Fault::Oversized(5 << 20)).on("GET", "/v2/acme/other/manifests/*");
    let reference: ImageReference = format!("{}/acme/other", registry.host()).parse().unwrap();
    let other = RegistryClient::new(RegistryOptions::default()).unwrap().repository(&reference);
    let error = other.pull_manifest("1").await.unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn another_host_gets_no_credentials() {
    let (registry, other) = (TestRegistry::start(), TestRegistry::start());
    registry.password("s3cret");
    let repository = logged_in(&registry, LOGIN);
    let (blob, _) = push(&repository, b"blob").await.unwrap();
    let redirect =
        |to: String| registry.fault(Fault::Redirect(to)).on("GET", "/v2/acme/app/blobs/*").times(1);
    let path = format!("/v2/acme/app/blobs/{}", blob.digest);
    for is_token in [false, true] {
        demand_login(&other, is_token, false);
        redirect(format!("http://{}{path}", other.host()));
        let denied = repository.read_blob(&blob, 100).await.unwrap_err();
        assert!(matches!(denied, Error::Unauthorized { .. }), "{denied}");
        assert_eq!(other.requests(), [format!("GET {path}")]);
        other.clear_requests();
    }
    // Plain HTTP stays on this machine.
    redirect("http://registry.test/blob".to_owned());
    let error = repository.read_blob(&blob, 100).await.unwrap_err().to_string();
    assert!(error.ends_with("redirect to an address without HTTPS"), "{error}");
}

#[tokio::test]
async fn interrupted_transfers_are_continued() {
    let registry = TestRegistry::start();
    let repository = anonymous(&registry);
    registry.cut_uploads(2_000_000, 2);
    let (blob, _) = push(&repository, &large()).await.unwrap();
    assert!(registry.blob("acme/app", blob.digest.as_str()).unwrap() == large());
    let patches = registry.requests().iter().filter(|request| request.starts_with("PATCH")).count();
    assert_eq!(patches, 3, "{:#?}", registry.requests());

    let cut = registry.fault(Fault::CutBody).on("GET", "/v2/acme/app/blobs/sha256*").times(3);
    let mut received = Vec::new();
    repository.pull_blob(&blob, &mut received).await.unwrap();
    assert!(received == large() && cut.hits() == 3);

    // Not for ever.
    registry.fault(Fault::CutBody).on("GET", "/v2/acme/app/blobs/sha256*");
    let error = repository.pull_blob(&blob, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
}

#[tokio::test]
async fn temporary_failures_are_retried_and_others_are_not() {
    let registry = TestRegistry::start();
    let repository = anonymous(&registry);
    push_image(&repository).await.unwrap();
    for fault in [Fault::Status(502), Fault::HangUp] {
        let fault = registry.fault(fault).on("GET", "/v2/acme/app/manifests/*").times(2);
        repository.pull_manifest("1").await.unwrap();
        assert_eq!(fault.hits(), 2);
    }
    registry.immutable_tag("fixed");
    let error =
        repository.push_manifest(Some("fixed"), media_type::INDEX, b"{}").await.unwrap_err().to_string();
    let expected = "with status 409: the tag is immutable";
    assert!(error.contains("/acme/app:fixed") && error.ends_with(expected), "{error}");
    let missing = Descriptor::of(media_type::CONFIG, b"missing");
    let manifest = serde_json::to_vec(&ImageManifest::new(missing, Vec::new())).unwrap();
    let error = repository.push_manifest(Some("2"), media_type::MANIFEST, &manifest).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 404, .. }), "{error}");
}

#[tokio::test]
async fn rate_limits_are_waited_for() {
    let registry = TestRegistry::start();
    let events = Arc::new(Mutex::new(Vec::new()));
    let on_event: OnRegistryEvent = Arc::new({
        let events = Arc::clone(&events);
        move |event| {
            if let RegistryEvent::RateLimited { seconds, .. } = event {
                events.lock().unwrap().push(seconds);
            }
        }
    });
    let http = HttpOptions { max_wait: Duration::from_secs(2), ..HttpOptions::default() };
    let options = RegistryOptions { http, on_event: Some(on_event), ..RegistryOptions::default() };
    let repository = open(&registry, options);
    registry.fault(Fault::TooManyRequests { retry_after: 1 }).on("*", "/v2/acme/app/*").times(1);
    push_image(&repository).await.unwrap();
    assert_eq!(*events.lock().unwrap(), [1]);
    registry.fault(Fault::TooManyRequests { retry_after: 100 }).on("*", "/v2/acme/app/*").times(1);
    let error = repository.pull_manifest("1").await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { retry_after: Some(100), .. }), "{error}");
    // The sum of the waits counts.
    registry.fault(Fault::TooManyRequests { retry_after: 1 }).on("*", "/v2/acme/app/blobs/*");
    let error = push(&repository, b"x").await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { retry_after: Some(1), .. }), "{error}");
    assert_eq!(*events.lock().unwrap(), [1, 1, 1]);
}
