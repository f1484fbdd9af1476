use secrecy::{ExposeSecret, SecretString};

/// Replaces secrets in text.
#[derive(Debug, Default)]
pub struct Redactor {
    secrets: Vec<SecretString>,
}

impl Redactor {
    /// Creates a redactor; empty secrets are ignored.
    pub fn new(secrets: Vec<SecretString>) -> Self {
        Self { secrets: secrets.into_iter().filter(|secret| !secret.expose_secret().is_empty()).collect() }
    }

    /// Replaces each secret and the credentials in URLs (`https://user:pass@host`) with `***`.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.expose_secret()) {
                text = text.replace(secret.expose_secret(), "***");
            }
        }
        without_userinfo(&text)
    }
}

fn without_userinfo(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let authority =
            after.find(|c: char| c.is_whitespace() || "/?#'\"<>".contains(c)).unwrap_or(after.len());
        let (authority, tail) = after.split_at(authority);
        match authority.rsplit_once('@') {
            // `ssh://git@host` contains no secret.
            Some((user, host)) if user.contains(':') || !before.ends_with("ssh://") => {
                clean.push_str("***@");
                clean.push_str(host);
            }
            _ => clean.push_str(authority),
        }
        rest = tail;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_credentials_go() {
        let redactor = Redactor::new(vec!["s3cret".to_owned().into(), String::new().into()]);
        assert_eq!(redactor.redact("a s3cret b"), "a *** b");
        assert_eq!(
            redactor.redact("at https://me:pw@host/x and ssh://git@host/y"),
            "at https://***@host/x and ssh://git@host/y"
        );
        assert_eq!(redactor.redact("no://"), "no://");
        assert!(!format!("{redactor:?}").contains("s3cret"));
    }
}
