//! Checks of the machine: go, git, caches, disks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use velox_build::{
    ArtifactStore, BuildRequest, GoInstallation, cache_directory, locked_go_version, render::human_size,
};
use velox_gomod::goversion::is_older;

use super::{Diagnosis, DoctorContext, cache_directories};

/// The oldest Go that compiles current RoadRunner releases.
const MIN_GO_VERSION: &str = "1.26";
const COUNT_TIMEOUT: Duration = Duration::from_millis(1500);

pub(super) fn go(request: &BuildRequest, go: &GoInstallation) -> Diagnosis {
    const NONE: &str = "no go command on PATH";
    const INSTALL: &str = "install Go from https://go.dev/dl/ and add its bin directory to PATH";
    let policy = &go.policy;
    let Some((program, installed)) = &go.program else {
        return if go.is_fixed {
            Diagnosis::error("go", format!("{NONE}, and {policy} forbids downloading one"), INSTALL)
        } else if request.options.is_offline() {
            let message = format!("{NONE}: `--offline` requires one that was downloaded before");
            Diagnosis::warning("go", message, INSTALL)
        } else {
            Diagnosis::ok("go", format!("{NONE}: the required version is downloaded"))
        };
    };
    let found = format!("{installed}, {}", program.display());
    if !go.is_fixed {
        return Diagnosis::ok("go", format!("{found} (other versions are downloaded when required)"));
    }
    if let Some(locked) = locked_go_version(request).filter(|locked| go.version.as_ref() != Some(locked)) {
        let message = format!("{found}: velox.lock requires {locked}, and {policy} forbids other versions");
        let remedy = format!("install {locked}, or allow the download with GOTOOLCHAIN=auto");
        return Diagnosis::error("go", message, remedy);
    }
    if is_older(installed, MIN_GO_VERSION) {
        let message =
            format!("{found}: too old for current RoadRunner releases, and {policy} forbids other versions");
        let remedy =
            "install a newer Go from https://go.dev/dl/, or allow the download with GOTOOLCHAIN=auto";
        return Diagnosis::warning("go", message, remedy);
    }
    Diagnosis::ok("go", format!("{found} ({policy}: no other version is downloaded)"))
}

pub(super) async fn git(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(git) = context.git else {
        return vec![Diagnosis::warning(
            "git",
            "no git on PATH: modules come from proxies and forge APIs only",
            "install git for private repositories and GOPROXY=direct",
        )];
    };
    vec![match context.environment.run_git(git, &["--version"]).await {
        Ok(output) if output.status.success() => {
            let version = output.stdout.trim().trim_start_matches("git version ").to_owned();
            Diagnosis::ok("git", format!("{version}, {}", git.display()))
        }
        Ok(output) => {
            let why = output.stderr.first().cloned().unwrap_or_else(|| output.status.to_string());
            Diagnosis::warning("git", format!("{} failed: {why}", git.display()), "reinstall git")
        }
        Err(error) => Diagnosis::of_error("git", &error),
    }]
}

/// Checks that each cache is writable, and reports its size.
pub(super) async fn caches(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let vx_cache = cache_directory(&context.request.environment);
    let mut diagnoses = Vec::new();
    for cache in cache_directories(context) {
        let (name, path) = (cache.name, cache.path);
        if let Err(error) = create_and_write(&path) {
            let message = format!("{name} is not writable: {}: {error}", path.display());
            let remedy = format!("fix its permissions, or set {} to another directory", cache.variable);
            diagnoses.push(Diagnosis::error("caches", message, remedy));
            continue;
        }
        let size = if path == vx_cache {
            let contents = ArtifactStore::new(&path).contents();
            format!("{} binaries, {}", contents.artifacts, human_size(contents.bytes))
        } else {
            let counted = path.clone();
            let count = tokio::task::spawn_blocking(move || directory_size(&counted));
            let (bytes, is_complete) = count.await.unwrap_or((0, false));
            format!("{}{}", if is_complete { "" } else { "more than " }, human_size(bytes))
        };
        diagnoses.push(Diagnosis::ok("caches", format!("{name}: {} ({size})", path.display())));
    }
    diagnoses
}

/// Creates missing directories, as a build would.
fn create_and_write(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    tempfile::Builder::new().prefix(".vx-doctor-").tempfile_in(directory)?.close()
}

/// The total size of all files, and whether the count finished in time.
fn directory_size(directory: &Path) -> (u64, bool) {
    let deadline = Instant::now() + COUNT_TIMEOUT;
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        if Instant::now() > deadline {
            return (bytes, false);
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    (bytes, true)
}

/// Checks the free space of each file system that a build writes to.
#[cfg(unix)]
pub(super) async fn disks(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    use std::os::unix::fs::MetadataExt as _;
    let mut places: Vec<_> =
        cache_directories(context).into_iter().map(|cache| (cache.name, cache.path)).collect();
    // The go command's directory for temporary files.
    let temporary = context.variable("GOTMPDIR").or_else(|| context.variable("TMPDIR")).unwrap_or("/tmp");
    places.push(("temporary directory", PathBuf::from(temporary)));
    let mut seen: Vec<u64> = Vec::new();
    let mut diagnoses = Vec::new();
    for (name, path) in places {
        let Some(existing) = path.ancestors().find(|ancestor| ancestor.exists()) else { continue };
        let Ok(metadata) = fs::metadata(existing) else { continue };
        if seen.contains(&metadata.dev()) {
            continue;
        }
        seen.push(metadata.dev());
        let Ok(disk) = rustix::fs::statvfs(existing) else { continue };
        diagnoses.push(free_space(name, &path, disk.f_bavail.saturating_mul(disk.f_frsize)));
    }
    diagnoses
}

#[cfg(not(unix))]
pub(super) async fn disks(_: &DoctorContext<'_>) -> Vec<Diagnosis> {
    Vec::new()
}

/// Checks for the space of a first build, which needs about 2 GiB for downloads and compiled packages.
#[cfg_attr(not(unix), expect(dead_code, reason = "free space is checked on Unix only"))]
fn free_space(name: &str, path: &Path, free: u64) -> Diagnosis {
    const MIN_FREE_BYTES: u64 = 512 << 20;
    const RECOMMENDED_FREE_BYTES: u64 = 3 << 30;
    let message = format!("{} free for the {name} ({})", human_size(free), path.display());
    let remedy = "free disk space: `vx cache prune`, `go clean -cache`, `go clean -modcache`";
    match free {
        ..MIN_FREE_BYTES => Diagnosis::error("disk", message, remedy),
        MIN_FREE_BYTES..RECOMMENDED_FREE_BYTES => Diagnosis::warning("disk", message, remedy),
        _ => Diagnosis::ok("disk", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Health;

    #[test]
    fn low_disk_space_is_reported() {
        let state = |free: u64| free_space("cache", Path::new("/x"), free).state;
        assert_eq!([1 << 20, 1 << 30, 1 << 40].map(state), [Health::Error, Health::Warning, Health::Ok]);
    }

    #[test]
    fn an_unwritable_cache_is_reported() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        assert!(create_and_write(&place.path().join("deep/er")).is_ok());
        assert!(create_and_write(&place.path().join("file/er")).is_err());
        assert_eq!(directory_size(place.path()), (0, true));
    }
}
