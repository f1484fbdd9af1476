use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use velox_manifest::{Diagnostic, LogConfig};
use velox_service::auth::{TokenEntry, TokenFileError, add_token, revoke_token, tokens};

use crate::{
    cli::{
        OutputFormat,
        service::{NewTokenCommand, TokenCommand},
    },
    report::{
        self,
        text::{clean, table},
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

/// `vx server token`.
pub(crate) fn token(settings: &Settings, command: TokenCommand) -> CommandResult {
    let format = settings.format();
    let output = match command {
        TokenCommand::New(arguments) => create(format, arguments),
        TokenCommand::List { file } => tokens(&file.file).map(|tokens| match format {
            OutputFormat::Json => {
                let tokens: Vec<Value> = tokens.iter().map(fields).collect();
                report::event("tokens", &json!({ "tokens": tokens }))
            }
            OutputFormat::Human => render(&tokens),
        }),
        TokenCommand::Revoke { name, file } => revoke_token(&file.file, &name).map(|()| match format {
            OutputFormat::Json => report::event("token_revoked", &json!({ "name": name })),
            OutputFormat::Human => String::new(),
        }),
    };
    report::print(&output.map_err(|error| failed(settings, &error))?)
}

/// Creates and returns a token, which is not shown again: the file has only its hash.
fn create(format: OutputFormat, arguments: NewTokenCommand) -> Result<String, TokenFileError> {
    let entry = TokenEntry {
        name: arguments.name,
        scopes: arguments.scopes.into_iter().map(Into::into).collect(),
        builds_at_once: arguments.builds_at_once,
        builds_per_hour: arguments.builds_per_hour,
        modules: Some(arguments.modules).filter(|modules| !modules.is_empty()),
        expires: arguments.expires,
    };
    let token = add_token(&arguments.file.file, &entry)?;
    let token = token.expose_secret();
    Ok(match format {
        OutputFormat::Json => report::event("token_made", &json!({ "name": entry.name, "token": token })),
        OutputFormat::Human => format!("{token}\n"),
    })
}

fn scopes(token: &TokenEntry) -> Vec<&'static str> {
    token.scopes.iter().map(|scope| scope.word()).collect()
}

fn fields(token: &TokenEntry) -> Value {
    json!({
        "name": token.name,
        "scopes": scopes(token),
        "builds_at_once": token.builds_at_once,
        "builds_per_hour": token.builds_per_hour,
        "modules": token.modules,
        "expires": token.expires,
    })
}

fn render(tokens: &[TokenEntry]) -> String {
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or("-".to_owned(), |value| value.to_string())
    }
    let mut rows =
        vec![["NAME", "SCOPES", "CONCURRENT", "PER HOUR", "MODULES", "EXPIRES"].map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| {
        let modules = token.modules.as_ref().map(|modules| modules.join(","));
        [
            token.name.clone(),
            scopes(token).join(","),
            or_dash(token.builds_at_once),
            or_dash(token.builds_per_hour),
            clean(&or_dash(modules)).into_owned(),
            or_dash(token.expires),
        ]
    }));
    table(&rows)
}

fn failed(settings: &Settings, error: &TokenFileError) -> ExitStatus {
    let status = match error {
        TokenFileError::Unwritable { .. } | TokenFileError::Random(_) => ExitStatus::Failure,
        _ => ExitStatus::Configuration,
    };
    let report = report::open(settings, LogConfig::default(), None);
    report.failed(status, &[Diagnostic::error(error.to_string())], &[]);
    status
}
