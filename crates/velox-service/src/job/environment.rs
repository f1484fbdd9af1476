//! The environment of a job: what it needs, and nothing that belongs to the service.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use velox_fetch::goenv::GoEnv;

/// What goes to a job as the service has it. Everything else may be a credential.
const PASSED: [&str; 9] = [
    "PATH",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GOMODCACHE",
    "GOCACHE",
    // Windows starts no program without these.
    "SystemRoot",
    "SystemDrive",
];

/// Where the modules are in the directory of the service, with what Go knows of them.
pub(super) const MODULES: &str = "go/pkg";
/// Where the compiled packages are in it.
pub(super) const PACKAGES: &str = "cache/go-build";

/// The Go settings of the operator that hold for jobs too.
const SETTINGS: [&str; 2] = ["GONOSUMDB", "GOTOOLCHAIN"];

/// The environment of the job in `directory`, of a service with this environment; its way out comes on top of that.
pub(super) fn of_job(
    service: &BTreeMap<String, String>,
    data: &Path,
    directory: &Path,
) -> BTreeMap<String, String> {
    let operator = GoEnv::read(service, None);
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    set("GOMODCACHE", path(data.join(MODULES).join("mod")));
    set("GOCACHE", path(data.join(PACKAGES)));
    for name in PASSED {
        if let Some(value) = service.get(name).filter(|value| !value.is_empty()) {
            set(name, value.clone());
        }
    }
    for name in SETTINGS {
        set(name, operator.value(name));
    }
    set("HOME", path(data.join("home")));
    set("GOPATH", path(data.join("go")));
    set("VX_CACHE_DIR", path(data.join("cache")));
    for name in if cfg!(windows) { &["TMP", "TEMP"][..] } else { &["TMPDIR"] } {
        set(name, path(directory.join("tmp")));
    }
    // A file of the user's could say otherwise.
    set("GOENV", "off".to_owned());
    set("GOAUTH", "off".to_owned());
    set("GOTELEMETRY", "off".to_owned());
    set("CGO_ENABLED", "0".to_owned());
    set("GIT_CONFIG_NOSYSTEM", "1".to_owned());
    set("GIT_TERMINAL_PROMPT", "0".to_owned());
    set("GIT_ALLOW_PROTOCOL", "https".to_owned());
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(service: &[(&str, &str)]) -> BTreeMap<String, String> {
        let service = service.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        of_job(&service, Path::new("/data"), Path::new("/data/jobs/job-1"))
    }

    #[test]
    fn nothing_of_the_services_own_reaches_a_job() {
        let secret = "s3cret";
        let names = [
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "NETRC",
            "SSH_AUTH_SOCK",
            "GOAUTH",
            "GOFLAGS",
            "GOENV",
            "NATS_CREDS",
            "HTTPS_PROXY",
            "CGO_CFLAGS",
            "GIT_SSH_COMMAND",
            "TMPDIR",
            "HOME",
            "GOPATH",
        ];
        let job = of(&names.map(|name| (name, secret)));
        assert!(job.values().all(|value| !value.contains(secret)), "{job:?}");
    }

    #[test]
    fn the_operators_caches_and_databases_serve_the_jobs() {
        let job = of(&[("GOMODCACHE", "/mod"), ("GOPRIVATE", "acme.dev"), ("PATH", "/bin")]);
        for (name, value) in [
            ("GOMODCACHE", "/mod"),
            ("GOCACHE", "/data/cache/go-build"),
            ("GONOSUMDB", "acme.dev"),
            ("PATH", "/bin"),
            ("TMPDIR", "/data/jobs/job-1/tmp"),
        ] {
            assert_eq!(job.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}
