//! The environment variables of a job, without any of the service's credentials.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use velox_fetch::goenv::GoEnv;

/// The variables that jobs inherit. Any other variable may contain a credential.
const INHERITED_VARIABLES: [&str; 9] = [
    "PATH",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GOMODCACHE",
    "GOCACHE",
    "GOGC",
    "GOMEMLIMIT",
];

/// The directories that jobs write to, besides their own; relative to the data directory.
pub(super) const OWN_DIRECTORIES: [&str; 3] = ["home", "go", "cache"];
/// The module cache, relative to the data directory.
pub(super) const MODULE_CACHE: &str = "go/pkg";
/// The build cache, relative to the data directory.
pub(super) const BUILD_CACHE: &str = "cache/go-build";

/// The operator's Go settings that also apply to jobs.
const GO_SETTINGS: [&str; 2] = ["GONOSUMDB", "GOTOOLCHAIN"];

/// The environment of the job in `directory`, except for the variables of the egress proxy.
pub(super) fn of_job(
    service: &BTreeMap<String, String>,
    data: &Path,
    directory: &Path,
) -> BTreeMap<String, String> {
    let operator = GoEnv::read(service, None);
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    set("GOMODCACHE", path(data.join(MODULE_CACHE).join("mod")));
    set("GOCACHE", path(data.join(BUILD_CACHE)));
    for name in INHERITED_VARIABLES {
        if let Some(value) = service.get(name).filter(|value| !value.is_empty()) {
            set(name, value.clone());
        }
    }
    for name in GO_SETTINGS {
        set(name, operator.value(name));
    }
    set("HOME", path(data.join("home")));
    set("GOPATH", path(data.join("go")));
    set("VX_CACHE_DIR", path(data.join("cache")));
    set("TMPDIR", path(directory.join("tmp")));
    // Ignores the users' configuration files.
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

    fn job_environment(service: &[(&str, &str)]) -> BTreeMap<String, String> {
        let service = service.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        of_job(&service, Path::new("/data"), Path::new("/data/jobs/job-1"))
    }

    #[test]
    fn credentials_are_not_passed_on() {
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
        let job = job_environment(&names.map(|name| (name, secret)));
        assert!(job.values().all(|value| !value.contains(secret)), "{job:?}");
    }

    #[test]
    fn settings_of_the_operator_are_passed_on() {
        let job = job_environment(&[("GOMODCACHE", "/mod"), ("GOPRIVATE", "acme.dev"), ("PATH", "/bin")]);
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
