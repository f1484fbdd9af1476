use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// The forge of a token, which determines the user name that git sends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>
    GitHub,
    /// <https://docs.gitlab.com/user/profile/personal_access_tokens/#clone-repository-using-personal-access-token>
    GitLab,
}

impl TokenKind {
    fn name(self) -> &'static str {
        match self {
            Self::GitHub => "x-access-token",
            Self::GitLab => "oauth2",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::GitHub => "VX_GITHUB_TOKEN",
            Self::GitLab => "VX_GITLAB_TOKEN",
        }
    }
}

/// The credentials of git and the go command for private repositories.
#[derive(Default)]
pub struct GitAccess {
    /// The hosts (as URLs) with a token.
    pub tokens: Vec<(Url, SecretString, TokenKind)>,
    /// The hosts whose https URLs are rewritten to ssh.
    pub ssh_hosts: Vec<String>,
}

impl GitAccess {
    /// The variables to add to `inherited`; entries are appended after the user's GIT_CONFIG_COUNT
    /// (<https://git-scm.com/docs/git-config#Documentation/git-config.txt-GITCONFIGCOUNT>).
    ///
    /// Each token has its own variable, read by a host-specific credential helper, so that it appears in no
    /// argument or configuration value. The go command gets the same credential from git.
    pub fn environment(&self, inherited: &BTreeMap<String, String>) -> Vec<(String, SecretString)> {
        let mut settings: Vec<(String, String)> = self
            .ssh_hosts
            .iter()
            .map(|host| (format!("url.ssh://git@{host}/.insteadOf"), format!("https://{host}/")))
            .collect();
        let mut variables: Vec<(String, SecretString)> = Vec::new();
        for (url, token, user) in &self.tokens {
            let (name, variable) = (user.name(), user.variable());
            let helper = format!(
                "!f() {{ test \"$1\" = get && echo username={name} && echo \"password=${variable}\"; }}; f"
            );
            settings.push((format!("credential.{}.helper", url.origin().ascii_serialization()), helper));
            variables.push((variable.to_owned(), token.expose_secret().to_owned().into()));
        }
        if settings.is_empty() {
            return Vec::new();
        }
        let first = inherited.get("GIT_CONFIG_COUNT").and_then(|count| count.parse().ok()).unwrap_or(0_usize);
        for (index, (key, value)) in (first..).zip(&settings) {
            variables.push((format!("GIT_CONFIG_KEY_{index}"), key.clone().into()));
            variables.push((format!("GIT_CONFIG_VALUE_{index}"), value.clone().into()));
        }
        variables.push(("GIT_CONFIG_COUNT".to_owned(), (first + settings.len()).to_string().into()));
        // https://pkg.go.dev/cmd/go#hdr-GOAUTH_environment_variable
        let own =
            inherited.get("GOAUTH").map(String::as_str).filter(|own| !own.is_empty()).unwrap_or("netrc");
        if !self.tokens.is_empty() && own != "off" {
            let directory = std::env::temp_dir();
            variables.push(("GOAUTH".to_owned(), format!("{own};git {}", directory.display()).into()));
        }
        variables
    }
}

/// Whether the ssh-agent at this socket has a key.
pub async fn ssh_agent_has_keys(socket: Option<&Path>) -> bool {
    match socket {
        Some(socket) => ssh_agent_key_count(socket).await.is_some_and(|keys| keys > 0),
        None => false,
    }
}

/// The number of keys in the ssh-agent at this socket, or `None` if it doesn't respond
/// (<https://datatracker.ietf.org/doc/draft-ietf-sshm-ssh-agent/>, SSH_AGENTC_REQUEST_IDENTITIES).
#[cfg(unix)]
pub async fn ssh_agent_key_count(socket: &Path) -> Option<u32> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const REQUEST_IDENTITIES: [u8; 5] = [0, 0, 0, 1, 11];
    const IDENTITIES_ANSWER: u8 = 12;
    let asked = async {
        let mut agent = tokio::net::UnixStream::connect(socket).await.ok()?;
        agent.write_all(&REQUEST_IDENTITIES).await.ok()?;
        let mut answer = [0; 9];
        agent.read_exact(&mut answer).await.ok()?;
        let [_, _, _, _, kind, keys @ ..] = answer;
        (kind == IDENTITIES_ANSWER).then(|| u32::from_be_bytes(keys))
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten()
}

/// Other systems have no agent socket.
#[cfg(not(unix))]
pub async fn ssh_agent_key_count(_socket: &Path) -> Option<u32> {
    None
}

/// Whether the user's git configuration rewrites `https://HOST/` (`url.*.insteadOf`).
pub async fn has_url_rewrite(git: &Path, environment: &BTreeMap<String, String>, host: &str) -> bool {
    let output = tokio::process::Command::new(git)
        .args(["config", "--get-regexp", r"^url\..*\.insteadof$"])
        .current_dir(std::env::temp_dir())
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .await;
    let prefix = format!("https://{host}");
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.split_once(' ')).any(
            |(_, replaced)| {
                replaced.starts_with(&prefix) || prefix.starts_with(replaced.trim_end_matches('/'))
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(variables: &[(String, SecretString)]) -> BTreeMap<&str, &str> {
        variables.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect()
    }

    #[test]
    fn the_users_own_settings_go_on_counting_and_the_token_has_a_variable_of_its_own() {
        let access = GitAccess {
            tokens: vec![(
                Url::parse("https://ghe.test/x").unwrap(),
                "s3cret".to_owned().into(),
                TokenKind::GitHub,
            )],
            ssh_hosts: vec!["git.test".to_owned()],
        };
        let inherited = BTreeMap::from([("GIT_CONFIG_COUNT".to_owned(), "2".to_owned())]);
        let variables = access.environment(&inherited);
        let variables = plain(&variables);
        assert_eq!(variables["GIT_CONFIG_COUNT"], "4");
        assert_eq!(variables["GIT_CONFIG_KEY_2"], "url.ssh://git@git.test/.insteadOf");
        assert_eq!(variables["GIT_CONFIG_VALUE_2"], "https://git.test/");
        assert_eq!(variables["GIT_CONFIG_KEY_3"], "credential.https://ghe.test.helper");
        let with_token: Vec<_> = variables.iter().filter(|(_, value)| value.contains("s3cret")).collect();
        assert_eq!(with_token, [(&"VX_GITHUB_TOKEN", &"s3cret")]);
        assert!(variables["GOAUTH"].starts_with("netrc;git /"));
    }

    #[test]
    fn nothing_to_say_is_nothing_said() {
        assert!(GitAccess::default().environment(&BTreeMap::new()).is_empty());
    }
}
