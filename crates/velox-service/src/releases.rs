//! RoadRunner's releases and their plugins, fetched from the module proxies and cached.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildOptions, BuildRequest, Goal, QuerySession, SilentReporter, VersionSubject, compare_roadrunner,
};
use velox_gomod::semver;
use velox_manifest::{Manifest, catalogue};

/// How long the list of versions is cached.
const CACHE_DURATION: Duration = Duration::from_secs(60 * 60);
/// The delay before a failed request is retried.
const RETRY_DELAY: Duration = Duration::from_secs(60);
/// How long a caller waits for the plugins of a release.
const PLUGINS_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of listed releases.
const MAX_RELEASES: usize = 40;

/// A plugin's module path and its version.
type Released = (String, String);

/// RoadRunner's releases. Callers wait at most a second for the module proxies, and get the built-in list
/// until these have responded.
#[derive(Clone)]
pub(crate) struct Releases {
    source: Option<Arc<dyn Source>>,
    known: watch::Sender<ReleaseCache>,
}

/// A source of releases.
#[async_trait]
trait Source: Send + Sync {
    /// All versions, in any order.
    async fn versions(&self) -> Result<Vec<String>, String>;

    /// The plugins of a release.
    async fn plugins(&self, version: &str) -> Result<Vec<Released>, String>;
}

#[derive(Clone, Default)]
struct ReleaseCache {
    /// Newest first.
    versions: Vec<String>,
    /// When the versions become stale.
    stale: Option<Instant>,
    plugins: BTreeMap<String, Arc<Vec<Released>>>,
    /// The releases being fetched.
    fetching: BTreeSet<String>,
    /// The failed releases, each with the time of its next attempt.
    failed: BTreeMap<String, Instant>,
}

impl Releases {
    /// The releases on the module proxies of this environment. `directory` is the working directory of the
    /// queries.
    pub(crate) fn new(environment: BTreeMap<String, String>, directory: PathBuf) -> Self {
        Self { source: Some(Arc::new(Proxies { environment, directory })), ..Self::built_in() }
    }

    /// The built-in releases.
    pub(crate) fn built_in() -> Self {
        let (known, _) = watch::channel(built_in().clone());
        Self { source: None, known }
    }

    /// The versions, newest first. A stale list is refreshed in the background.
    pub(crate) fn versions(&self) -> Vec<String> {
        let now = Instant::now();
        let mut refresh = false;
        self.known.send_if_modified(|known| {
            refresh = self.source.is_some() && known.stale.is_none_or(|stale| stale <= now);
            if refresh {
                // Prevents simultaneous refreshes.
                known.stale = Some(now + CACHE_DURATION);
            }
            false
        });
        if refresh && let Some(source) = self.source.clone() {
            let this = self.clone();
            tokio::spawn(async move { this.refresh(&*source).await });
        }
        self.known.borrow().versions.clone()
    }

    /// The plugins of a release; `None` if the release is unknown or its plugins aren't available yet.
    pub(crate) async fn plugins(&self, version: &str) -> Option<Arc<Vec<Released>>> {
        let now = Instant::now();
        let mut fetch = false;
        self.known.send_if_modified(|known| {
            fetch = self.source.is_some()
                && known.versions.iter().any(|listed| listed == version)
                && !known.plugins.contains_key(version)
                && known.failed.get(version).is_none_or(|again| *again <= now)
                && known.fetching.insert(version.to_owned());
            false
        });
        let mut changes = self.known.subscribe();
        if fetch && let Some(source) = self.source.clone() {
            let (this, version) = (self.clone(), version.to_owned());
            tokio::spawn(async move { this.fetch(&*source, version).await });
        }
        let settled = changes.wait_for(|known| !known.fetching.contains(version));
        // A timeout means that the plugins aren't available yet.
        let _ = tokio::time::timeout(PLUGINS_TIMEOUT, settled).await;
        self.known.borrow().plugins.get(version).cloned()
    }

    async fn refresh(&self, source: &dyn Source) {
        match source.versions().await {
            Ok(versions) if !versions.is_empty() => {
                self.known.send_modify(|known| known.versions = newest_first(versions));
            }
            answer => {
                let why = answer.err().unwrap_or_else(|| "there are none".to_owned());
                tracing::warn!(why, "can't list RoadRunner's versions");
                self.known.send_modify(|known| known.stale = Some(Instant::now() + RETRY_DELAY));
            }
        }
        // Prefetch the plugins of the newest release, which most users select.
        let newest = self.known.borrow().versions.first().cloned();
        if let Some(newest) = newest {
            self.plugins(&newest).await;
        }
    }

    async fn fetch(&self, source: &dyn Source, version: String) {
        let answer = source.plugins(&version).await;
        if let Err(why) = &answer {
            tracing::warn!(version, why, "can't tell what RoadRunner was released with");
        }
        self.known.send_modify(|known| {
            known.fetching.remove(&version);
            match answer {
                Ok(plugins) => {
                    known.failed.remove(&version);
                    known.plugins.insert(version, Arc::new(plugins));
                }
                Err(_) => {
                    known.failed.insert(version, Instant::now() + RETRY_DELAY);
                }
            }
        });
    }
}

/// Sorts the versions, without prereleases.
fn newest_first(mut versions: Vec<String>) -> Vec<String> {
    versions.retain(|version| semver::is_release(version));
    versions.sort_by(|one, other| compare_roadrunner(other, one));
    versions.dedup();
    versions.truncate(MAX_RELEASES);
    versions
}

fn built_in() -> &'static ReleaseCache {
    static BUILT_IN: LazyLock<ReleaseCache> = LazyLock::new(|| {
        let mut known = ReleaseCache::default();
        for release in catalogue::known_releases() {
            let released = release.plugins().map(|(module, version)| (module.to_owned(), version.to_owned()));
            known.plugins.insert(release.version.clone(), Arc::new(released.collect()));
            known.versions.push(release.version.clone());
        }
        known
    });
    &BUILT_IN
}

/// The module proxies, queried as by `vx init`.
struct Proxies {
    environment: BTreeMap<String, String>,
    directory: PathBuf,
}

impl Proxies {
    fn request(&self, roadrunner: Option<&str>) -> BuildRequest {
        let mut manifest = Manifest::without_a_file();
        if let Some(reference) = roadrunner {
            manifest.roadrunner.reference = Some(reference.to_owned().into());
        }
        BuildRequest {
            manifest,
            source: None,
            base: self.directory.clone(),
            environment: self.environment.clone(),
            options: BuildOptions::default(),
            goal: Goal::Plan,
            lock: None,
            updates_lock: true,
        }
    }
}

#[async_trait]
impl Source for Proxies {
    async fn versions(&self) -> Result<Vec<String>, String> {
        let request = self.request(None);
        run_query(move || async move {
            let session = QuerySession::new(&request, Arc::new(SilentReporter), CancellationToken::new())
                .map_err(error_text)?;
            let mut answers = session.versions(&[VersionSubject::RoadRunner]).await.map_err(error_text)?;
            let answer = answers.pop().unwrap_or_default();
            match answer.error {
                Some(why) => Err(why),
                None => Ok(answer.majors.into_iter().flat_map(|major| major.versions).collect()),
            }
        })
        .await
    }

    async fn plugins(&self, version: &str) -> Result<Vec<Released>, String> {
        let request = self.request(Some(version));
        run_query(move || async move {
            let session = QuerySession::new(&request, Arc::new(SilentReporter), CancellationToken::new())
                .map_err(error_text)?;
            let release = session.release().await.map_err(error_text)?;
            Ok(release.plugins.into_iter().map(|plugin| (plugin.path, plugin.version)).collect())
        })
        .await
    }
}

fn error_text(error: velox_build::Error) -> String {
    error.to_string()
}

/// Runs a query on its own thread: the pipeline's futures aren't `Send`.
async fn run_query<T: Send + 'static, F: Future<Output = Result<T, String>>>(
    question: impl FnOnce() -> F + Send + 'static,
) -> Result<T, String> {
    let runtime = tokio::runtime::Handle::current();
    let answer = tokio::task::spawn_blocking(move || runtime.block_on(question()));
    answer.await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A source with fixed answers that counts its queries.
    #[derive(Default)]
    struct FakeSource {
        versions: Vec<&'static str>,
        plugins: Vec<(&'static str, &'static str)>,
        hangs: bool,
        asked: AtomicU32,
    }

    #[async_trait]
    impl Source for FakeSource {
        async fn versions(&self) -> Result<Vec<String>, String> {
            if self.versions.is_empty() {
                return Err("no such host".to_owned());
            }
            Ok(self.versions.iter().map(|version| (*version).to_owned()).collect())
        }

        async fn plugins(&self, _: &str) -> Result<Vec<Released>, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            if self.plugins.is_empty() {
                return Err("no such module".to_owned());
            }
            Ok(self.plugins.iter().map(|(m, v)| ((*m).to_owned(), (*v).to_owned())).collect())
        }
    }

    fn releases(source: Arc<FakeSource>) -> Releases {
        Releases { source: Some(source), ..Releases::built_in() }
    }

    async fn renewed(releases: &Releases) -> Vec<String> {
        let mut changes = releases.known.subscribe();
        let at_first = releases.versions();
        assert_eq!(at_first, built_in().versions, "nobody waits");
        let renewed = changes.wait_for(|known| known.versions != at_first);
        tokio::time::timeout(Duration::from_secs(10), renewed).await.unwrap().unwrap();
        releases.versions()
    }

    #[test]
    fn what_is_built_in_can_be_read() {
        let known = built_in();
        assert!(!known.versions.is_empty());
        assert_eq!(known.versions, newest_first(known.versions.clone()));
        for version in &known.versions {
            let plugins = &known.plugins[version];
            assert!(plugins.len() > 30, "{version}");
            for (module, version) in plugins.iter() {
                let major = module.rsplit_once("/v").unwrap().1;
                assert!(version.starts_with(&format!("v{major}.")), "{module} {version}");
            }
        }
    }

    #[tokio::test]
    async fn the_proxies_list_takes_the_place_of_the_built_in_one() {
        let versions = vec!["v2.12.3", "v2025.1.9", "v2025.1.10-rc.1", "v2025.1.10", "v2023.3.12", "v3.0.0"];
        let source = Arc::new(FakeSource {
            versions,
            plugins: vec![("example.com/a/v5", "v5.0.1")],
            ..FakeSource::default()
        });
        let releases = releases(Arc::clone(&source));
        let listed = renewed(&releases).await;
        assert_eq!(listed, ["v3.0.0", "v2025.1.10", "v2025.1.9", "v2023.3.12", "v2.12.3"]);

        let plugins = releases.plugins("v2025.1.9").await.unwrap();
        assert_eq!(*plugins, [("example.com/a/v5".to_owned(), "v5.0.1".to_owned())]);
        let asked = source.asked.load(Ordering::Relaxed);
        releases.plugins("v2025.1.9").await.unwrap();
        assert!(
            releases.plugins("master").await.is_none(),
            "not everything that somebody types is asked for"
        );
        assert_eq!(source.asked.load(Ordering::Relaxed), asked);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_slow_proxy() {
        let source =
            Arc::new(FakeSource { versions: vec!["v2025.9.9"], hangs: true, ..FakeSource::default() });
        let releases = releases(Arc::clone(&source));
        renewed(&releases).await;
        assert!(releases.plugins("v2025.9.9").await.is_none());
        assert_eq!(source.asked.load(Ordering::Relaxed), 1, "one question at a time");
        assert!(releases.plugins("v2025.1.15").await.is_some(), "the built-in ones need no proxy");
    }

    #[tokio::test]
    async fn a_failure_is_not_asked_for_again_at_once() {
        let source = Arc::new(FakeSource { versions: vec!["v2025.9.9"], ..FakeSource::default() });
        let releases = releases(Arc::clone(&source));
        renewed(&releases).await;
        for _ in 0..3 {
            assert!(releases.plugins("v2025.9.9").await.is_none());
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);

        let source = Arc::new(FakeSource::default());
        let releases = self::releases(source);
        for _ in 0..3 {
            assert_eq!(releases.versions(), built_in().versions);
            tokio::task::yield_now().await;
        }
    }
}
