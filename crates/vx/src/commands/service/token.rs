use std::process::ExitCode;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use velox_manifest::{Diagnostic, Level, LogConfig};
use velox_service::auth::{TokenEntry, TokenFileError, add_token, revoke_token, tokens};

use crate::{
    cli::{
        Format,
        token::{New, Token},
    },
    report::{
        self, Failure,
        text::{clean, table},
    },
    settings::Settings,
    status::Ending,
};

/// `vx server token`.
pub(crate) fn token(settings: &Settings, command: Token) -> ExitCode {
    let answer = match command {
        Token::New(new) => self::new(settings, new),
        Token::List { file } => tokens(&file.file).map(|tokens| list(settings, &tokens)),
        Token::Revoke { name, file } => revoke_token(&file.file, &name).map(|()| match format(settings) {
            Format::Json => report::event("token_revoked", &json!({ "name": name })),
            Format::Human => String::new(),
        }),
    };
    match answer {
        Ok(text) => report::answer(&text),
        Err(error) => failed(settings, &error),
    }
}

fn new(settings: &Settings, new: New) -> Result<String, TokenFileError> {
    let entry = TokenEntry {
        name: new.name,
        scopes: new.scopes.into_iter().map(Into::into).collect(),
        builds_at_once: new.builds_at_once,
        builds_per_hour: new.builds_per_hour,
        modules: Some(new.modules).filter(|modules| !modules.is_empty()),
        expires: new.expires,
    };
    let token = add_token(&new.file.file, &entry)?;
    // The one place where it is shown.
    Ok(match format(settings) {
        Format::Json => {
            report::event("token_made", &json!({ "name": entry.name, "token": token.expose_secret() }))
        }
        Format::Human => format!("{}\n", token.expose_secret()),
    })
}

fn list(settings: &Settings, tokens: &[TokenEntry]) -> String {
    let scopes = |token: &TokenEntry| token.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>();
    match format(settings) {
        Format::Json => {
            let tokens: Vec<Value> = tokens
                .iter()
                .map(|token| {
                    json!({
                        "name": token.name,
                        "scopes": scopes(token),
                        "builds_at_once": token.builds_at_once,
                        "builds_per_hour": token.builds_per_hour,
                        "modules": token.modules,
                        "expires": token.expires,
                    })
                })
                .collect();
            report::event("tokens", &json!({ "tokens": tokens }))
        }
        Format::Human => {
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
            let row = |token: &TokenEntry| {
                [
                    token.name.clone(),
                    scopes(token).join(","),
                    number(token.builds_at_once),
                    number(token.builds_per_hour),
                    clean(&token.modules.as_ref().map_or("-".to_owned(), |modules| modules.join(",")))
                        .into_owned(),
                    token.expires.map_or("-".to_owned(), |end| end.to_string()),
                ]
            };
            let head = ["NAME", "SCOPES", "AT ONCE", "AN HOUR", "MODULES", "EXPIRES"].map(str::to_owned);
            let rows: Vec<[String; 6]> = std::iter::once(head).chain(tokens.iter().map(row)).collect();
            table(&rows)
        }
    }
}

fn format(settings: &Settings) -> Format {
    settings.format(LogConfig::default())
}

fn failed(settings: &Settings, error: &TokenFileError) -> ExitCode {
    let ending = match error {
        TokenFileError::Unwritable { .. } | TokenFileError::Random(_) => Ending::Build,
        _ => Ending::Configuration,
    };
    let message = error.to_string();
    let diagnostic = Diagnostic { level: Level::Error, message, span: None, label: None, help: Vec::new() };
    let failure = Failure { ending, diagnostics: &[diagnostic], output: &[] };
    report::open(settings, LogConfig::default(), None).failed(&failure);
    ending.into()
}
