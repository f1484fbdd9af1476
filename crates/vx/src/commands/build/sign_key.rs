use std::path::Path;

use dialoguer::console::Term;
use secrecy::{ExposeSecret as _, SecretString};
use velox_build::{Error, SigningKey};

use crate::settings::Settings;

/// A path, or the text of a key.
const KEY_VARIABLE: &str = "VX_SIGN_KEY";
const PASSWORD_VARIABLES: [&str; 2] = ["VX_SIGN_KEY_PASSWORD", "COSIGN_PASSWORD"];

/// Reads the key that signs the provenance if it `is_wanted`, and removes it and its password from the environment of
/// the build: compilers and plugins don't need them.
pub(in super::super) fn take(
    settings: &mut Settings,
    is_wanted: bool,
    path: Option<&Path>,
) -> Result<Option<SigningKey>, Error> {
    let terminal = settings.terminal;
    let mut remove = |name: &str| settings.environment.remove(name).map(SecretString::from);
    let from_environment = remove(KEY_VARIABLE);
    let [own, cosign] = PASSWORD_VARIABLES.map(remove);
    if !is_wanted {
        return Ok(None);
    }
    let mut password = || match own.as_ref().or(cosign.as_ref()) {
        Some(password) => Ok(password.clone()),
        None if terminal.stdin && terminal.stderr => ask(),
        None => {
            Err(Error::configuration("the key is encrypted, and there is no terminal to enter its password")
                .help(format!("set {}", PASSWORD_VARIABLES.join(" or "))))
        }
    };
    let key = match (path, &from_environment) {
        (Some(path), _) => SigningKey::read(path, &mut password),
        (None, Some(text)) => match is_pem(text) {
            true => SigningKey::parse(&format!("in ${KEY_VARIABLE}"), text, &mut password),
            false => SigningKey::read(Path::new(text.expose_secret()), &mut password),
        },
        (None, None) => Err(Error::configuration("--attestation requires a key to sign with")
            .help(format!("use --sign-key KEY or set {KEY_VARIABLE}"))
            .help("`cosign generate-key-pair` creates one")),
    };
    key.map(Some)
}

fn is_pem(text: &SecretString) -> bool {
    text.expose_secret().trim_start().starts_with("-----BEGIN")
}

fn ask() -> Result<SecretString, Error> {
    let failed = |error| Error::build(format!("failed to read the password from the terminal: {error}"));
    let terminal = Term::stderr();
    terminal.write_str("Password of the signing key: ").map_err(failed)?;
    terminal.read_secure_line().map(SecretString::from).map_err(failed)
}
