//! RoadRunner and its plugins are released together: the plugins of one release share a major version.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, QuerySession, Reporter, RoadRunnerRelease};
use velox_gomod::{module::major_suffix, semver};
use velox_manifest::catalogue;

/// The major version of RoadRunner's own plugins among `plugins`, module paths with versions.
#[must_use]
pub fn plugin_major<'a>(plugins: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<u64> {
    let official = plugins.into_iter().filter(|(path, _)| catalogue::is_official(path));
    let majors: Vec<u64> = official.map(|(path, version)| major(path, version)).collect();
    majors.iter().copied().max_by_key(|major| majors.iter().filter(|other| *other == major).count())
}

/// The major version of the plugins of a release.
#[must_use]
pub fn plugin_major_of(release: &RoadRunnerRelease) -> Option<u64> {
    plugin_major(release.plugins.iter().map(|plugin| (plugin.path.as_str(), plugin.version.as_str())))
}

/// The RoadRunner release at another ref than that of the request.
pub(crate) async fn release_at(
    request: &BuildRequest,
    reference: &str,
    reporter: &Arc<dyn Reporter>,
    cancel: &CancellationToken,
) -> Result<RoadRunnerRelease, Error> {
    let mut request = request.clone();
    request.manifest.roadrunner.reference = Some(reference.to_owned().into());
    QuerySession::new(&request, Arc::clone(reporter), cancel.clone())?.release().await
}

/// The major version in the suffix of the path, else that of the version.
pub(crate) fn major(path: &str, version: &str) -> u64 {
    let digits = |text: &str| text.trim_start_matches(['/', '.', 'v']).parse().ok();
    let suffix = major_suffix(path);
    digits(suffix).or_else(|| digits(semver::major(version)?)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_come_from_the_path() {
        assert_eq!(major("github.com/a/b/v5", "v5.1.0"), 5);
        assert_eq!(major("github.com/a/b", "v0.3.0"), 0);
        assert_eq!(major("github.com/a/b", "v2.0.0+incompatible"), 2);
        assert_eq!(major("gopkg.in/b.v3", "v3.0.0"), 3);
    }

    #[test]
    fn the_plugins_of_a_release_have_a_major_version() {
        let plugins = [
            ("github.com/roadrunner-server/http/v6", "v6.0.0"),
            ("github.com/temporalio/roadrunner-temporal/v6", "v6.0.0"),
            ("github.com/roadrunner-server/tcp/v5", "v5.0.0"),
            ("github.com/acme/a/v9", "v9.0.0"),
            ("github.com/acme/b/v9", "v9.0.0"),
            ("github.com/acme/c/v9", "v9.0.0"),
        ];
        assert_eq!(plugin_major(plugins), Some(6));
        assert_eq!(plugin_major([("github.com/acme/a/v9", "v9.0.0")]), None);
    }
}
