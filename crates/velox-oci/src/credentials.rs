//! Credentials for registries, as Docker and Podman store them: in a file, or in the keyring of a helper program.
//!
//! <https://docs.docker.com/reference/cli/docker/login/#credential-stores>,
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use crate::model::null_is_default;

/// A helper may ask the user to unlock a keyring.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The name of Docker Hub in Docker's configuration.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The credentials of Docker's `config.json` and Podman's `auth.json`, and the helper programs that they name.
#[derive(Debug, Clone, Default)]
pub struct DockerCredentials {
    files: Vec<DockerConfigFile>,
    /// For the helper programs.
    environment: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfigFile {
    #[serde(deserialize_with = "null_is_default")]
    auths: HashMap<String, StoredLogin>,
    #[serde(deserialize_with = "null_is_default")]
    cred_helpers: HashMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    creds_store: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct StoredLogin {
    /// Base64 of `USER:PASSWORD`.
    auth: Option<SecretString>,
    username: String,
    password: Option<SecretString>,
    identitytoken: Option<SecretString>,
}

/// A user of a registry.
#[derive(Debug, Clone)]
pub(crate) enum RegistryLogin {
    Password {
        user: String,
        password: SecretString,
    },
    /// A refresh token for the registry's token service.
    IdentityToken(SecretString),
}

/// An error reading credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CredentialError {
    /// A configuration file is unreadable.
    #[error("failed to read the registry credentials in `{}`: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// A helper program failed. `helper` is its name without `docker-credential-`.
    #[error("credential helper `docker-credential-{helper}` failed for {registry}: {reason}")]
    Helper { helper: String, registry: String, reason: String },
}

impl DockerCredentials {
    /// Reads the files of an environment, the first that has credentials for a registry counts: REGISTRY_AUTH_FILE,
    /// `config.json` in DOCKER_CONFIG or `~/.docker`, `containers/auth.json` in XDG_RUNTIME_DIR (else
    /// `/run/containers/UID/auth.json`) and in XDG_CONFIG_HOME or `~/.config`.
    ///
    /// # Errors
    /// A file exists, but is unreadable or invalid.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Self, CredentialError> {
        let variable =
            |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
        let candidates = [
            variable("REGISTRY_AUTH_FILE"),
            variable("DOCKER_CONFIG")
                .or_else(|| Some(home()?.join(".docker")))
                .map(|it| it.join("config.json")),
            variable("XDG_RUNTIME_DIR").map_or_else(runtime_file, |it| Some(it.join("containers/auth.json"))),
            variable("XDG_CONFIG_HOME")
                .or_else(|| Some(home()?.join(".config")))
                .map(|directory| directory.join("containers/auth.json")),
        ];
        let files = candidates.into_iter().flatten().map(|path| read(&path)).filter_map(Result::transpose);
        Ok(Self { files: files.collect::<Result<_, _>>()?, environment: environment.clone() })
    }

    /// The login for a part of a registry that has this repository: the longest of the keys `ghcr.io/acme/app` and
    /// `ghcr.io/acme`.
    pub(crate) fn namespace_login(&self, registry: &str, repository: &str) -> Option<RegistryLogin> {
        let ends = repository.match_indices('/').map(|(at, _)| at).chain([repository.len()]);
        let keys: Vec<_> = ends.map(|end| format!("{registry}/{}", &repository[..end])).collect();
        let login = |key| self.files.iter().find_map(|file| file.auths.get(key)?.login());
        keys.iter().rev().find_map(login)
    }

    /// The login for a whole registry (`ghcr.io`, `docker.io`, `localhost:5000`).
    pub(crate) async fn login(&self, registry: &str) -> Result<Option<RegistryLogin>, CredentialError> {
        let keys = match registry {
            "docker.io" => vec![DOCKER_HUB_KEY.to_owned(), registry.to_owned(), "index.docker.io".to_owned()],
            _ => vec![registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v1/")],
        };
        for file in &self.files {
            let helper = keys.iter().find_map(|key| file.cred_helpers.get(key)).unwrap_or(&file.creds_store);
            if let (false, Some(key)) = (helper.is_empty(), keys.first())
                && let Some(login) = self.ask_helper(helper, key).await?
            {
                return Ok(Some(login));
            }
            if let Some(login) = keys.iter().find_map(|key| file.auths.get(key)?.login()) {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// <https://github.com/docker/docker-credential-helpers#development>
    async fn ask_helper(&self, helper: &str, key: &str) -> Result<Option<RegistryLogin>, CredentialError> {
        let failed = |reason: String| CredentialError::Helper {
            helper: helper.to_owned(),
            registry: key.to_owned(),
            reason,
        };
        if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(failed("invalid name".to_owned()));
        }
        let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
            .arg("get")
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => failed("the program is not installed".to_owned()),
                _ => failed(error.to_string()),
            })?;
        let exchange = async {
            if let Some(mut input) = child.stdin.take() {
                // A helper that doesn't read its input says why in its output.
                let _ = input.write_all(key.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(HELPER_TIMEOUT, exchange)
            .await
            .map_err(|_| failed(format!("no answer within {} s", HELPER_TIMEOUT.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            // Helpers print errors to stdout. JSON could be a login.
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            let mut lines = text.iter().flat_map(|text| text.lines()).map(str::trim);
            let message = lines.find(|line| !line.is_empty() && !line.starts_with('{')).unwrap_or_default();
            if message.contains("credentials not found") {
                return Ok(None);
            }
            return Err(failed(match message {
                "" => output.status.to_string(),
                line => line.chars().filter(|c| !c.is_control()).collect(),
            }));
        }
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("its output is not the expected JSON".to_owned()))?;
        let is_empty = answer.secret.expose_secret().is_empty();
        Ok((!is_empty).then(|| match answer.username.as_str() {
            "<token>" => RegistryLogin::IdentityToken(answer.secret),
            _ => RegistryLogin::Password { user: answer.username, password: answer.secret },
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: SecretString,
}

/// Where Podman keeps credentials if there is no XDG_RUNTIME_DIR.
fn runtime_file() -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    return Some(format!("/run/containers/{}/auth.json", rustix::process::getuid()).into());
    #[cfg(not(target_os = "linux"))]
    None
}

fn read(path: &Path) -> Result<Option<DockerConfigFile>, CredentialError> {
    let failed = |reason: String| CredentialError::File { path: path.to_owned(), reason };
    match fs::read(path) {
        // The message of a syntax error shows the position, but no content.
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            failed(format!("invalid JSON at line {}, column {}", error.line(), error.column()))
        }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

impl StoredLogin {
    fn login(&self) -> Option<RegistryLogin> {
        let has_text = |secret: &&SecretString| !secret.expose_secret().is_empty();
        if let Some(token) = self.identitytoken.as_ref().filter(has_text) {
            return Some(RegistryLogin::IdentityToken(token.clone()));
        }
        if let Some(auth) = self.auth.as_ref().filter(has_text) {
            let pair = String::from_utf8(BASE64_STANDARD.decode(auth.expose_secret().trim()).ok()?).ok()?;
            let (user, password) = pair.split_once(':')?;
            let password = password.trim_end_matches('\0').to_owned();
            return Some(RegistryLogin::Password { user: user.to_owned(), password: password.into() });
        }
        let password = self.password.clone().filter(|it| has_text(&it))?;
        Some(RegistryLogin::Password { user: self.username.clone(), password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(config: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, DockerCredentials) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".docker")).unwrap();
        fs::write(home.path().join(".docker/config.json"), config).unwrap();
        let mut environment: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.insert("HOME".to_owned(), home.path().display().to_string());
        let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap_or_default());
        environment.insert("PATH".to_owned(), path);
        let credentials = DockerCredentials::from_environment(&environment).unwrap();
        (home, credentials)
    }

    async fn user(credentials: &DockerCredentials, registry: &str) -> Option<String> {
        Some(match credentials.login(registry).await.unwrap()? {
            RegistryLogin::Password { user, password } => format!("{user}/{}", password.expose_secret()),
            RegistryLogin::IdentityToken(token) => format!("token {}", token.expose_secret()),
        })
    }

    #[tokio::test]
    async fn logins_come_from_docker_config() {
        let config = format!(
            r#"{{"auths": {{"ghcr.io": {{"auth": "{}"}}, "https://index.docker.io/v1/": {{"username": "u", "password": "p:w"}},
                "https://old.test/v1/": {{"identitytoken": "t"}}, "empty.test": {{}}}}, "credHelpers": null}}"#,
            BASE64_STANDARD.encode("me:s3c:ret")
        );
        let (_home, credentials) = credentials(&config, &[]);
        assert_eq!(user(&credentials, "ghcr.io").await.as_deref(), Some("me/s3c:ret"));
        assert_eq!(user(&credentials, "docker.io").await.as_deref(), Some("u/p:w"));
        assert_eq!(user(&credentials, "old.test").await.as_deref(), Some("token t"));
        assert_eq!(user(&credentials, "empty.test").await, None);
        assert!(!format!("{credentials:?}").contains("p:w"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_are_asked() {
        use std::os::unix::fs::PermissionsExt as _;
        let (home, credentials) = credentials(
            r#"{"auths": {"missing.test": {"username": "file", "password": "x"}},
                "credHelpers": {"gone.test": "absent", "odd.test": "../evil"}, "credsStore": "test"}"#,
            &[],
        );
        let helper = home.path().join("docker-credential-test");
        let script = "#!/bin/sh\nread -r key || true\ncase $key in\n\
            missing.test) echo 'credentials not found in native keychain'; exit 1;;\n\
            locked.test) echo '{\"Username\":\"\",\"Secret\":\"hidden\"}'; echo 'the keychain is locked' >&2; exit 1;;\n\
            token.test) echo '{\"ServerURL\":\"\",\"Username\":\"<token>\",\"Secret\":\"refresh\"}';;\n\
            *) echo \"{\\\"ServerURL\\\":\\\"\\\",\\\"Username\\\":\\\"$key\\\",\\\"Secret\\\":\\\"hidden\\\"}\";;\nesac\n";
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(user(&credentials, "ghcr.io").await.as_deref(), Some("ghcr.io/hidden"));
        assert_eq!(user(&credentials, "docker.io").await.unwrap(), format!("{DOCKER_HUB_KEY}/hidden"));
        assert_eq!(user(&credentials, "token.test").await.as_deref(), Some("token refresh"));
        assert_eq!(user(&credentials, "missing.test").await.as_deref(), Some("file/x"));
        for (registry, reason) in [
            ("locked.test", "`docker-credential-test` failed for locked.test: the keychain is locked"),
            ("gone.test", "the program is not installed"),
            ("odd.test", "invalid name"),
        ] {
            let error = credentials.login(registry).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_invalid_file_is_an_error_without_its_content() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("auth.json");
        fs::write(&file, "{\"auths\": \"s3cret\"}").unwrap();
        let environment = BTreeMap::from([("REGISTRY_AUTH_FILE".to_owned(), file.display().to_string())]);
        let error = DockerCredentials::from_environment(&environment).unwrap_err().to_string();
        assert!(error.contains("auth.json`: invalid JSON at line 1") && !error.contains("s3cret"), "{error}");
    }
}
