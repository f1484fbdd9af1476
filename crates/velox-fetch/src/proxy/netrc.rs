//! `.netrc` proxy credentials (<https://go.dev/ref/mod#private-module-proxy-auth>).

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::SecretString;

/// A parsed netrc file.
#[derive(Debug, Clone, Default)]
pub struct Netrc(Vec<NetrcMachine>);

#[derive(Debug, Clone)]
struct NetrcMachine {
    name: String,
    login: String,
    password: SecretString,
}

impl Netrc {
    /// Reads the file that the go command uses: NETRC, else `.netrc` in the home directory. Without one, there are
    /// no credentials.
    #[must_use]
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Self {
        let variable =
            |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let name = if cfg!(windows) { "_netrc" } else { ".netrc" };
        let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
        let file = variable("NETRC").or_else(|| Some(home()?.join(name)));
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        Self::parse(&text.unwrap_or_default())
    }

    /// Parses a netrc file; like the go command, it ignores unknown words.
    pub fn parse(text: &str) -> Self {
        let (mut machines, mut name, mut login, mut password) = (Vec::new(), None, None, None);
        let mut in_macro = false;
        for line in text.lines() {
            if in_macro {
                in_macro = !line.trim().is_empty();
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            while let Some(word) = words.next() {
                match word {
                    "machine" => (name, login, password) = (words.next(), None, None),
                    "login" => login = words.next(),
                    "password" => password = words.next(),
                    // Macros end with an empty line.
                    "macdef" => in_macro = true,
                    // The go command ignores the default entry.
                    "default" => return Self(machines),
                    _ => {}
                }
                if let (Some(machine), Some(user), Some(word)) = (name, login, password) {
                    machines.push(NetrcMachine {
                        name: machine.to_owned(),
                        login: user.to_owned(),
                        password: SecretString::from(word),
                    });
                    (login, password) = (None, None);
                }
            }
        }
        Self(machines)
    }

    /// The login and password for a host, which includes any port other than 443, as in the go command.
    pub fn get(&self, host: &str) -> Option<(&str, &SecretString)> {
        let machine = self.0.iter().find(|machine| machine.name == host)?;
        Some((&machine.login, &machine.password))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn machines_are_read_over_lines_and_macros() {
        let netrc = Netrc::parse(
            "machine a.example login u password p\nmacdef init\nmachine m login x password y\n\nmachine b.example\n  login v\n  password q\ndefault login d password d\n",
        );
        let get =
            |host| netrc.get(host).map(|(user, word)| (user.to_owned(), word.expose_secret().to_owned()));
        assert_eq!(get("a.example"), Some(("u".into(), "p".into())));
        assert_eq!(get("b.example"), Some(("v".into(), "q".into())));
        assert_eq!((get("m"), get("c.example")), (None, None));
        assert!(!format!("{netrc:?}").contains("\"p\""));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "(?s).{0,200}") {
            let _ = Netrc::parse(&text);
        }
    }
}
