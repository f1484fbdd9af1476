//! The suggestion of a public cache when a build compiles everything.

use std::{fs, path::Path};

use crate::{
    cache_directory::cache_directory, context::BuildContext, lock::Lock, shared_caches::SharedCaches,
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
    let request = context.request;
    let has_caches = SharedCaches::of(request).is_ok_and(|caches| !caches.remotes.is_empty());
    let disabled =
        request.options.cache.remote.is_some() || request.environment.contains_key("VX_REMOTE_CACHE");
    if has_caches || disabled || request.options.is_offline() || !is_cold(&go.settings().gocache) {
        return;
    }
    let public = request.options.cache.public_caches.as_ref();
    let Some(location) = public.and_then(|public| public.of_release(&lock.roadrunner.version)) else {
        return;
    };
    let marker = cache_directory(&request.environment).join(SUGGESTED);
    if fs::File::create_new(marker).is_ok() {
        context.note(format!(
            "this build compiles all packages; `--remote-cache {location}` downloads those of this RoadRunner release, which vx's project compiled and signed"
        ));
    }
}

/// Whether GOCACHE is nearly empty.
fn is_cold(gocache: &Path) -> bool {
    let entries = SAMPLE.iter().flat_map(|name| fs::read_dir(gocache.join(name)).into_iter().flatten());
    entries.take(FEW_ENTRIES).count() < FEW_ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::PublicCaches;

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
    fn only_published_releases_have_a_cache() {
        let caches = PublicCaches {
            repository: "ghcr.io/acme/cache".to_owned(),
            trusted_key: String::new(),
            releases: vec!["v2025.1.15".to_owned()],
        };
        assert_eq!(caches.of_release("v2025.1.15").as_deref(), Some("oci://ghcr.io/acme/cache:v2025.1.15"));
        assert_eq!(caches.of_release("v2025.1.16"), None);
    }
}
