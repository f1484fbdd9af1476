//! The formats with `[github.plugins]` and `[gitlab.plugins]`, and the forge settings of every format.

use std::ops::Range;

use secrecy::SecretString;
use url::Url;

use crate::{
    Diagnostic, Forge, ForgeKind, Origin, Plugin, Project, Spanned, check,
    invalid_value::InvalidValue,
    reader::{Field, Section},
};

const OWNER: &str = "the user or organization, such as owner = \"roadrunner-server\"";
const REPOSITORY: &str = "the repository's name, such as repository = \"http\"";
const REFERENCE: &str = "a tag, a branch, a commit or a version constraint, such as ref = \"v5.0.2\"";

pub(crate) fn github(root: &Section<'_>) -> (Forge, Vec<Plugin>) {
    read(root, ForgeKind::GitHub, &["github.com", "www.github.com", "api.github.com"], github_origin)
}

/// `[plugins]` of the first format: the same as `[github.plugins]`.
pub(crate) fn first(root: &Section<'_>) -> Vec<Plugin> {
    let plugins = root.field("plugins").and_then(|plugins| plugins.like("github.plugins").section());
    let plugins = plugins.map_or_else(Vec::new, |plugins| plugins.fields());
    plugins.into_iter().filter_map(|field| plugin(field, github_origin)).collect()
}

fn github_origin(section: &Section<'_>) -> Option<Origin> {
    let owner = required(section, "owner", OWNER, check::github_name);
    let repository = required(section, "repository", REPOSITORY, check::github_name);
    let folder = folder(section);
    Some(Origin::GitHub { owner: owner?, repository: repository?, folder: folder? })
}

pub(crate) fn gitlab(root: &Section<'_>) -> (Forge, Vec<Plugin>) {
    read(root, ForgeKind::GitLab, &["gitlab.com", "www.gitlab.com"], |section| {
        let project = project(section);
        let folder = folder(section);
        Some(Origin::GitLab { project: project?, folder: folder? })
    })
}

fn read(
    root: &Section<'_>,
    kind: ForgeKind,
    public: &[&str],
    origin: impl Fn(&Section<'_>) -> Option<Origin>,
) -> (Forge, Vec<Plugin>) {
    let name = match kind {
        ForgeKind::GitHub => "github",
        ForgeKind::GitLab => "gitlab",
    };
    // The first format had the token of GitHub outside.
    let first_token = || match kind {
        ForgeKind::GitHub => root.section("github_token").and_then(|section| token(&section)),
        ForgeKind::GitLab => None,
    };
    let Some(section) = root.section(name) else {
        return (Forge { token: first_token(), ..Forge::public(kind) }, Vec::new());
    };
    let forge = Forge {
        kind,
        endpoint: endpoint(&section, public),
        token: section.section("token").and_then(|section| token(&section)).or_else(first_token),
    };
    let plugins = section.section("plugins").map_or_else(Vec::new, |plugins| {
        plugins.fields().into_iter().filter_map(|field| plugin(field, &origin)).collect()
    });
    (forge, plugins)
}

fn plugin(field: Field<'_>, origin: impl Fn(&Section<'_>) -> Option<Origin>) -> Option<Plugin> {
    let name = Spanned { value: field.key.to_owned(), span: field.key_span.clone() };
    let section = field.section()?;
    let reference = required(&section, "ref", REFERENCE, check::requested);
    let origin = origin(&section);
    let replace = replace(&section);
    Some(Plugin { name, origin: origin?, reference: reference?, replace: replace? })
}

/// The `replace` of a plugin: `None` if it is invalid, `Some(None)` if it is missing.
pub(crate) fn replace(section: &Section<'_>) -> Option<Option<Spanned<crate::Replacement>>> {
    let Some(text) = section.optional("replace")? else { return Some(None) };
    Some(Some(converted(section, "replace", &text, check::replacement)?))
}

/// The folder: `None` if it is invalid, `Some(None)` for the repository root.
fn folder(section: &Section<'_>) -> Option<Option<Spanned<String>>> {
    let Some(text) = section.optional("folder")? else { return Some(None) };
    let Spanned { value, span } = converted(section, "folder", &text, check::folder)?;
    Some(value.map(|value| Spanned { value, span }))
}

/// The project: an id, or a path from `repository` alone if it has a `/`, else from `owner` and `repository`.
fn project(section: &Section<'_>) -> Option<Spanned<Project>> {
    let owner = section.text("owner");
    let Some(field) = section.field("repository") else {
        section
            .missing("repository", "the numeric project id (\"36405203\"), or its path (\"group/project\")");
        return None;
    };
    if let Some(id) = field.integer() {
        let id = u64::try_from(id).ok().filter(|id| *id > 0);
        if id.is_none() {
            field.wrong_type("a project id or path");
        }
        return Some(Spanned { value: Project::Id(id?), span: field.span() });
    }
    let repository = field.text()?;
    if !repository.value.is_empty() && repository.value.bytes().all(|b| b.is_ascii_digit()) {
        return converted(section, "repository", &repository, |digits| {
            let id = digits.parse().ok().filter(|id| *id > 0);
            id.map(Project::Id).ok_or_else(|| InvalidValue::new("not a project id"))
        });
    }
    let repository = checked(section, "repository", repository, check::gitlab_path)?;
    if repository.value.contains('/') {
        return Some(Spanned { value: Project::Path(repository.value), span: repository.span });
    }
    if !section.has("owner") {
        section.missing(
            "owner",
            "the user or group, or write the project's whole path: repository = \"group/project\"",
        );
    }
    let owner = checked(section, "owner", owner?, check::gitlab_path)?;
    let path = format!("{}/{}", owner.value, repository.value);
    Some(Spanned { value: Project::Path(path), span: repository.span })
}

fn token(section: &Section<'_>) -> Option<SecretString> {
    let field = section.field("token")?;
    let token = field.reader.secret(field.raw_secret()?)?;
    if token.chars().all(|c| c.is_ascii_graphic()) {
        return Some(SecretString::from(token));
    }
    field.error(
        Diagnostic::error("invalid token: contains whitespace, control or non-ASCII characters")
            .at(field.span())
            .help("a token is one word of ASCII letters, digits and punctuation"),
    );
    None
}

/// `base_url` or its synonym `[….endpoint] endpoint`; `None` for the public instance.
fn endpoint(forge: &Section<'_>, public: &[&str]) -> Option<Spanned<Url>> {
    let base = forge.field("base_url").and_then(|field| url(&field));
    let section = forge.section("endpoint");
    let endpoint = section.and_then(|section| url(&section.field("endpoint")?));
    if let (Some(base), Some(endpoint)) = (&base, &endpoint)
        && base.value != endpoint.value
    {
        let message = "`base_url` and `endpoint` are different URLs";
        forge.error(
            Diagnostic::error(message)
                .at(endpoint.span.clone())
                .label("differs from `base_url`")
                .help("remove one of them"),
        );
    }
    let mut given = base.or(endpoint)?;
    let host = given.value.host_str().unwrap_or_default();
    if public.contains(&host) && given.value.path() == "/" && given.value.port().is_none() {
        return None;
    }
    let path = given.value.path().trim_end_matches('/').to_owned();
    given.value.set_path(&path);
    Some(given)
}

fn url(field: &Field<'_>) -> Option<Spanned<Url>> {
    let text = field.text().filter(|text| !text.value.trim().is_empty())?;
    let invalid = |why: &str| {
        field.error(
            Diagnostic::error(format!("invalid endpoint: {why}"))
                .at(text.span.clone())
                .label("invalid URL")
                .help("write the URL of the instance, such as \"https://git.example.com\""),
        );
        None
    };
    let url = match Url::parse(text.value.trim()) {
        Ok(url) => url,
        Err(error) => return invalid(&error.to_string()),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return invalid("the scheme must be https or http");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("a user name or a password is not allowed; use the key `token`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid("a query or a fragment is not allowed");
    }
    Some(Spanned { value: url, span: text.span })
}

/// A required value that passes `check`; `help` describes a valid value.
pub(crate) fn required(
    section: &Section<'_>,
    key: &str,
    help: &str,
    check: impl FnOnce(&str) -> Result<(), InvalidValue>,
) -> Option<Spanned<String>> {
    checked(section, key, section.required(key, help)?, check)
}

pub(crate) fn checked(
    section: &Section<'_>,
    key: &str,
    text: Spanned<String>,
    check: impl FnOnce(&str) -> Result<(), InvalidValue>,
) -> Option<Spanned<String>> {
    converted(section, key, &text, check)?;
    Some(text)
}

/// Converts a value, and reports a failure.
pub(crate) fn converted<T>(
    section: &Section<'_>,
    key: &str,
    text: &Spanned<String>,
    convert: impl FnOnce(&str) -> Result<T, InvalidValue>,
) -> Option<Spanned<T>> {
    match convert(&text.value) {
        Ok(value) => Some(Spanned { value, span: text.span.clone() }),
        Err(reason) => {
            let message = match text.value.as_str() {
                "" => format!("`{key}` is empty"),
                given => format!("invalid {} `{}`", noun(key), shown(given)),
            };
            section.error(invalid(&message, &text.span, reason));
            None
        }
    }
}

pub(crate) fn invalid(message: &str, span: &Option<Range<usize>>, reason: InvalidValue) -> Diagnostic {
    let diagnostic = Diagnostic::error(message).at(span.clone()).label(reason.why);
    match reason.help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

fn noun(key: &str) -> &str {
    match key {
        "ref" | "tag" => "ref",
        "owner" => "owner",
        "repository" => "repository",
        "folder" => "folder",
        "module_name" | "module" | "old" => "module path",
        "version" => "version",
        _ => "replacement",
    }
}

/// A value for a message: escaped to one line, truncated, and without the user information of a URL.
pub(crate) fn shown(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let text = match text.rsplit_once('@') {
        Some((before, after)) if start > 0 && before.len() >= start => format!("…@{after}"),
        _ => text.to_owned(),
    };
    let mut short: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().count() > 100 {
        short.push('…');
    }
    short.replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}
