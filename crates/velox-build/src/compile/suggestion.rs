//! The suggestion of a public cache when a build compiles everything.

use std::{fs, path::Path};

use crate::{
    cache_directory::cache_directory, context::BuildContext, lock::Lock, request::BuildRequest,
    toolchain::Toolchain,
};

/// The file in vx's cache directory that remembers the suggestion.
const SUGGESTED: &str = "public-cache-suggested";
/// The number of entries in [`SAMPLE`] below which most packages have to be compiled: RoadRunner with its plugins has about
/// three thousand, evenly spread.
const FEW_ENTRIES: usize = 8;
/// Some of the 256 directories of GOCACHE.
const SAMPLE: [&str; 4] = ["00", "55", "aa", "ff"];

/// Suggests the public cache of the RoadRunner release, once, if there is one and this build compiles everything.
pub(crate) fn suggest_public_cache(context: &BuildContext<'_>, lock: &Lock, go: &Toolchain) {
    let gocache = &go.settings.gocache;
    let location = suggested(context.request, &lock.roadrunner.version, gocache);
    if let Some(location) = location.filter(|_| go.settings.gocacheprog.is_empty()) {
        context.note(format!(
            "this build compiles all packages; `--remote-cache {location}` downloads those of this RoadRunner release, which vx's project compiled and signed"
        ));
    }
}

/// The location to suggest; `None` also if it was suggested before.
fn suggested(request: &BuildRequest, version: &str, gocache: &Path) -> Option<String> {
    let BuildRequest { options, environment, manifest, .. } = request;
    // `off` is a choice, too.
    let is_configured = options.cache.remote.is_some()
        || environment.contains_key("VX_REMOTE_CACHE")
        || !manifest.cache.remotes.is_empty();
    if is_configured || options.is_offline() || !is_cold(gocache) {
        return None;
    }
    let location = options.cache.public_caches.as_ref()?.of_release(version)?;
    fs::File::create_new(cache_directory(environment).join(SUGGESTED)).is_ok().then_some(location)
}

/// Whether GOCACHE is nearly empty.
fn is_cold(gocache: &Path) -> bool {
    let entries = SAMPLE.iter().flat_map(|name| fs::read_dir(gocache.join(name)).into_iter().flatten());
    entries.take(FEW_ENTRIES).count() < FEW_ENTRIES
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use velox_manifest::{Manifest, SourceFile};

    use super::*;
    use crate::request::{BuildOptions, Goal, NetworkAccess, PublicCaches};

    #[test]
    fn a_cache_with_few_entries_is_cold() {
        let gocache = tempfile::tempdir().unwrap();
        assert!(is_cold(gocache.path()) && is_cold(&gocache.path().join("missing")));
        for directory in SAMPLE {
            fs::create_dir(gocache.path().join(directory)).unwrap();
            fs::write(gocache.path().join(directory).join("1-a"), "").unwrap();
            fs::write(gocache.path().join(directory).join("2-a"), "").unwrap();
        }
        assert!(!is_cold(gocache.path()));
    }

    #[test]
    fn a_public_cache_is_suggested_once_where_none_is_configured() {
        let empty = tempfile::tempdir().unwrap();
        let request = |cache: &str| {
            let text = format!(
                "[roadrunner]\nref = \"v2025.1.15\"\n[plugins.a]\nmodule_name = \"a.b/a\"\ntag = \"v1.0.0\"\n{cache}"
            );
            let source = SourceFile { name: "velox.toml".to_owned(), text };
            let mut request = BuildRequest {
                manifest: Manifest::parse(&source, &|_| None).unwrap().0,
                source: None,
                environment: [("VX_CACHE_DIR".to_owned(), empty.path().display().to_string())].into(),
                base: PathBuf::new(),
                options: BuildOptions::default(),
                lock: None,
                updates_lock: false,
                goal: Goal::Plan,
            };
            request.options.cache.public_caches = Some(PublicCaches {
                repository: "ghcr.io/acme/cache".to_owned(),
                trusted_key: "a key".to_owned(),
                releases: vec!["v2025.1.15".to_owned()],
            });
            request
        };
        let suggested =
            |request: &BuildRequest| suggested(request, "v2025.1.15", &empty.path().join("gocache"));
        let with = |change: &dyn Fn(&mut BuildRequest)| {
            let mut request = request("");
            change(&mut request);
            request
        };
        for configured in [
            request("[cache]\nremote = \"off\"\n"),
            request("[cache]\nremote = \"/team\"\n"),
            with(&|it| it.options.cache.remote = Some("off".to_owned())),
            with(&|it| drop(it.environment.insert("VX_REMOTE_CACHE".to_owned(), "/team".to_owned()))),
            with(&|it| it.options.network = NetworkAccess::Offline),
            with(&|it| it.options.cache.public_caches = None),
        ] {
            assert_eq!(suggested(&configured), None);
        }
        assert_eq!(super::suggested(&request(""), "v2025.1.16", &empty.path().join("gocache")), None);
        assert_eq!(suggested(&request("")).as_deref(), Some("oci://ghcr.io/acme/cache:v2025.1.15"));
        assert_eq!(suggested(&request("")), None);
    }
}
