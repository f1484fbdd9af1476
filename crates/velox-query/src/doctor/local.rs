//! The machine itself: go, git, caches, disks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Diagnosis, DoctorContext, broken, places};
use velox_build::{ArtifactStore, BuildRequest, Error, GoInstallation, cache_directory};
use velox_gomod::goversion::GoVersion;

/// Whether a go command of version `installed` (`go1.25.1`) is older than `line` (`1.26`).
fn is_older_than(installed: &str, line: &str) -> bool {
    match (GoVersion::of_toolchain(installed), line.parse::<GoVersion>()) {
        (Some(installed), Ok(line)) => installed < line,
        _ => false,
    }
}

/// The oldest Go that compiles a RoadRunner of today, where it may not fetch another.
const OLDEST: &str = "1.26";
/// How long the files of a cache are counted.
const COUNTING: Duration = Duration::from_millis(1500);

pub(super) fn go(request: &BuildRequest, found: Result<&GoInstallation, &Error>) -> Vec<Diagnosis> {
    let go = match found {
        Ok(go) => go,
        Err(error) => return vec![broken("go", error)],
    };
    let said = &go.policy;
    let Some((program, installed)) = &go.program else {
        let none = "there is no go command on the PATH";
        let install = "install Go from https://go.dev/dl/ and put its bin directory on the PATH";
        return vec![if go.is_fixed {
            Diagnosis::error("go", format!("{none}, and {said} allows no other"), install)
        } else if request.options.is_offline() {
            Diagnosis::warning(
                "go",
                format!("{none}: --offline takes one that was downloaded before"),
                install,
            )
        } else {
            Diagnosis::ok("go", format!("{none}: the right one is downloaded"))
        }];
    };
    let place = format!("{installed}, {}", program.display());
    let locked = velox_build::locked_go_version(request);
    if let Some(locked) = locked.filter(|locked| go.is_fixed && go.version.as_ref() != Some(locked)) {
        return vec![Diagnosis::error(
            "go",
            format!("{place}: velox.lock wants {locked}, and {said} allows no other"),
            format!("install {locked}, or let vx download it: GOTOOLCHAIN=auto"),
        )];
    }
    if go.is_fixed && is_older_than(installed, OLDEST) {
        return vec![Diagnosis::warning(
            "go",
            format!("{place}: older than a RoadRunner of today wants, and {said} allows no other"),
            "install a newer Go from https://go.dev/dl/, or let vx download it: GOTOOLCHAIN=auto",
        )];
    }
    let others = match go.is_fixed {
        true => format!("{said}: no other is downloaded"),
        false => "another one is downloaded where it is needed".to_owned(),
    };
    vec![Diagnosis::ok("go", format!("{place} ({others})"))]
}

pub(super) async fn git(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(git) = context.git else {
        return vec![Diagnosis::warning(
            "git",
            "there is no git on the PATH: modules come from proxies and the forges' APIs only",
            "install git, for private repositories and for GOPROXY=direct",
        )];
    };
    match context.environment.run_git(git, &["--version"]).await {
        Ok(finished) if finished.status.success() => {
            let version = finished.stdout.trim().trim_start_matches("git version ").to_owned();
            vec![Diagnosis::ok("git", format!("{version}, {}", git.display()))]
        }
        Ok(finished) => {
            let why = finished.stderr.first().cloned().unwrap_or_else(|| finished.status.to_string());
            vec![Diagnosis::warning(
                "git",
                format!("{} doesn't work: {why}", git.display()),
                "install it anew",
            )]
        }
        Err(error) => vec![broken("git", &error)],
    }
}

/// Whether each cache can be written, and how large it is.
pub(super) async fn caches(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let cache = cache_directory(&context.request.environment);
    let mut findings = Vec::new();
    for (name, path) in places(context) {
        if let Err(error) = writable(&path) {
            let variable = match name {
                "Go's module cache" => "GOMODCACHE",
                "Go's compile cache" => "GOCACHE",
                _ => "VX_CACHE_DIR",
            };
            findings.push(Diagnosis::error(
                "caches",
                format!("{name} can't be written: {}: {error}", path.display()),
                format!("mend its permissions, or set {variable} to another directory"),
            ));
            continue;
        }
        let size = if path == cache {
            let contents = ArtifactStore::new(&cache).contents();
            format!("{} binaries, {}", contents.artifacts, size(contents.bytes))
        } else {
            let counted = path.clone();
            let (bytes, all) =
                tokio::task::spawn_blocking(move || size_of(&counted)).await.unwrap_or((0, false));
            format!("{}{}", if all { "" } else { "more than " }, size(bytes))
        };
        findings.push(Diagnosis::ok("caches", format!("{name}: {} ({size})", path.display())));
    }
    findings
}

/// Makes what is missing, as a build would.
fn writable(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    tempfile::Builder::new().prefix(".vx-doctor-").tempfile_in(directory)?.close()
}

/// The bytes of all files below, and whether there was time to count them all.
fn size_of(directory: &Path) -> (u64, bool) {
    let until = Instant::now() + COUNTING;
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        if Instant::now() > until {
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

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut left = bytes;
    while left >= 10 * 1024 && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    format!("{left} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// The space that is left where a build writes, each file system once.
#[cfg(unix)]
pub(super) async fn disk(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    use std::os::unix::fs::MetadataExt as _;
    let mut places = places(context);
    // The go command compiles there, unless GOTMPDIR says otherwise.
    let variable = |name: &str| context.request.environment.get(name).filter(|value| !value.is_empty());
    let temporary = variable("GOTMPDIR").or_else(|| variable("TMPDIR")).map_or("/tmp", String::as_str);
    places.push(("the temporary directory", PathBuf::from(temporary)));
    let mut seen: Vec<u64> = Vec::new();
    let mut findings = Vec::new();
    for (name, path) in places {
        let Some(existing) = path.ancestors().find(|ancestor| ancestor.exists()) else { continue };
        let Ok(metadata) = fs::metadata(existing) else { continue };
        if seen.contains(&metadata.dev()) {
            continue;
        }
        seen.push(metadata.dev());
        let Ok(disk) = rustix::fs::statvfs(existing) else { continue };
        findings.push(space(name, &path, disk.f_bavail.saturating_mul(disk.f_frsize)));
    }
    findings
}

#[cfg(not(unix))]
pub(super) async fn disk(_: &DoctorContext<'_>) -> Vec<Diagnosis> {
    Vec::new()
}

/// A first build of RoadRunner downloads and compiles some two GiB.
#[cfg_attr(not(unix), expect(dead_code, reason = "nothing asks for the space there yet"))]
fn space(name: &str, path: &Path, free: u64) -> Diagnosis {
    const TOO_LITTLE: u64 = 512 << 20;
    const LITTLE: u64 = 3 << 30;
    let message = format!("{} free for {name} ({})", size(free), path.display());
    let remedy = "make space: `vx cache prune`, `go clean -cache`, `go clean -modcache`";
    match free {
        ..TOO_LITTLE => Diagnosis::error("disk", message, remedy),
        TOO_LITTLE..LITTLE => Diagnosis::warning("disk", message, remedy),
        _ => Diagnosis::ok("disk", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    #[test]
    fn sizes_stay_short() {
        assert_eq!([0, 10_000, 10_241, 5 << 30].map(size), ["0 B", "10000 B", "10 KiB", "5120 MiB"]);
    }

    #[test]
    fn little_space_is_told() {
        let state = |free: u64| space("a cache", Path::new("/x"), free).state;
        assert_eq!([1 << 20, 1 << 30, 1 << 40].map(state), [Health::Error, Health::Warning, Health::Ok]);
    }

    #[test]
    fn a_cache_that_cannot_be_made_is_told() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        assert!(writable(&place.path().join("deep/er")).is_ok());
        assert!(writable(&place.path().join("file/er")).is_err());
        assert_eq!(size_of(place.path()), (0, true));
    }
}
