use std::{collections::HashMap, ops::Range};

use secrecy::ExposeSecret;
use toml_edit::{Document, TomlError};

use crate::{
    BuildArgs, DebugConfig, Diagnostic, LogConfig, Manifest, ManifestFormat, Origin, Plugin,
    RoadRunnerConfig, SourceFile, build_args,
    findings::DiagnosticSink,
    manual, modules,
    reader::{Field, ParseContext, Section, nearest},
    reference, refs,
};

/// Shorter tokens are placeholders such as `x`, which occur in many words.
const MIN_TOKEN_LENGTH: usize = 8;

const EXAMPLE: &str = r#"[github.plugins]
http = { ref = "v5.0.2", owner = "roadrunner-server", repository = "http" }"#;

impl Manifest {
    /// Parses a text in any format. `environment` returns the value of a variable, `None` if it is not set.
    ///
    /// # Errors
    /// All errors and warnings in text order, or the first TOML syntax error.
    pub fn parse(
        source: &SourceFile,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let findings = DiagnosticSink::new(source);
        let document = match Document::parse(source.text.as_str()) {
            Ok(document) => document,
            Err(error) => {
                findings.push(not_toml(&source.text, &error));
                return Err(findings.finish());
            }
        };
        let root = Section::root(ParseContext { findings: &findings, environment }, document.as_table());
        let manifest = assemble(&root);
        for token in [&manifest.github.token, &manifest.gitlab.token].into_iter().flatten() {
            protect_token(token.expose_secret(), &manifest, &findings);
        }
        if findings.any_error() { Err(findings.finish()) } else { Ok((manifest, findings.finish())) }
    }
}

/// Keeps a token out of diagnostics and of refs, which are sent to proxies and written to logs and the lock.
fn protect_token(token: &str, manifest: &Manifest, findings: &DiagnosticSink<'_>) {
    if token.len() < MIN_TOKEN_LENGTH {
        return;
    }
    findings.conceal(token);
    let references = manifest.plugins.iter().map(|plugin| &plugin.reference);
    for reference in references.chain(&manifest.roadrunner.reference) {
        if reference.value.contains(token) {
            findings.push(
                Diagnostic::error("a ref contains the token")
                    .at(reference.span.clone())
                    .label("not a tag, a branch or a commit")
                    .help("write the token in `[github.token]` or `[gitlab.token]` only"),
            );
        }
    }
}

fn assemble(root: &Section<'_>) -> Manifest {
    let format = format(root);
    let (github, mut plugins) = manual::github(root);
    let (gitlab, from_gitlab) = manual::gitlab(root);
    plugins.extend(from_gitlab);
    plugins.extend(modules::plugins(root));
    plugins.sort_by_key(|plugin| plugin.name.span.as_ref().map_or(0, |span| span.start));
    let manifest = Manifest {
        format,
        roadrunner: roadrunner(root),
        debug: debug(root),
        strict: root.bool("strict").unwrap_or(false),
        plugins,
        replaces: modules::replaces(root),
        excludes: modules::excludes(root),
        targets: modules::targets(root),
        cache: modules::cache(root),
        github,
        gitlab,
        log: log(root),
        build_args: build_args(root),
    };
    reject_duplicates(root, &manifest);
    manifest
}

/// Detects the format. Reports mixed formats and a file without plugins.
fn format(root: &Section<'_>) -> ManifestFormat {
    let plugins_of = |forge: &str| root.field(forge)?.inner("plugins");
    let (github, gitlab, modules) = (plugins_of("github"), plugins_of("gitlab"), root.field("plugins"));
    let velox = root.field("velox");
    if let Some(modules) = &modules {
        let others = [("[github.plugins]", &github), ("[gitlab.plugins]", &gitlab)];
        for (name, other) in others.into_iter().filter_map(|(name, other)| Some((name, other.as_ref()?))) {
            reject_two_formats(root, name, &other.key_span, &modules.key_span);
        }
    }
    let tables = || [&github, &gitlab, &modules].into_iter().flatten();
    if tables().all(Field::is_empty) {
        let diagnostic =
            Diagnostic::error("no plugins configured").help(format!("add at least one plugin:\n\n{EXAMPLE}"));
        root.error(match tables().next() {
            Some(table) => diagnostic.at(table.key_span.clone()).label("empty table"),
            None => diagnostic,
        });
    }
    match (modules, velox) {
        (Some(_), _) => ManifestFormat::Modules,
        (None, Some(_)) => ManifestFormat::Ancestor,
        (None, None) => ManifestFormat::Manual,
    }
}

fn reject_two_formats(
    root: &Section<'_>,
    name: &str,
    other: &Option<Range<usize>>,
    modules: &Option<Range<usize>>,
) {
    let start = |span: &Option<Range<usize>>| span.as_ref().map_or(0, |span| span.start);
    let (first, second) = if start(other) < start(modules) { (other, modules) } else { (modules, other) };
    let line = root.reader.findings.line(start(first));
    let help = format!(
        "use one of them for all plugins: `{name}` with `owner`, `repository` and `ref`, \
         or `[plugins.NAME]` with `module_name` and `tag`"
    );
    root.error(
        Diagnostic::error(format!("`{name}` and `[plugins]` can't be combined"))
            .at(second.clone())
            .label(format!("the other format starts on line {line}"))
            .help(help),
    );
}

/// Reports plugins with the same module or repository.
fn reject_duplicates(root: &Section<'_>, manifest: &Manifest) {
    let mut seen: HashMap<String, &Plugin> = HashMap::new();
    for plugin in &manifest.plugins {
        let (identity, what) = match &plugin.origin {
            Origin::Module(path) => (path.value.clone(), "module"),
            Origin::GitHub { .. } => {
                (plugin.identity(manifest).to_ascii_lowercase(), "repository and folder")
            }
            Origin::GitLab { .. } => (plugin.identity(manifest).to_ascii_lowercase(), "project and folder"),
        };
        let Some(first) = seen.get(&identity) else {
            seen.insert(identity, plugin);
            continue;
        };
        let line = first.name.span.as_ref().map_or(0, |span| root.reader.findings.line(span.start));
        root.error(
            Diagnostic::error(format!(
                "plugins `{}` and `{}` are the same {what}",
                first.name.value, plugin.name.value
            ))
            .at(plugin.name.span.clone())
            .label(format!("same as `{}` on line {line}", first.name.value))
            .help("remove one of them"),
        );
    }
}

fn roadrunner(root: &Section<'_>) -> RoadRunnerConfig {
    let Some(section) = root.section("roadrunner") else {
        return RoadRunnerConfig { reference: None, dependencies: None };
    };
    let reference = section
        .text("ref")
        .and_then(|reference| manual::checked(&section, "ref", reference, refs::reference));
    let dependencies = choice(&section, "dependencies", reference::DEPENDENCIES);
    RoadRunnerConfig { reference, dependencies }
}

fn debug(root: &Section<'_>) -> DebugConfig {
    let Some(section) = root.section("debug") else { return DebugConfig::default() };
    let flag = |key| section.bool(key).unwrap_or(false);
    DebugConfig { enabled: flag("enabled"), race: flag("race") }
}

fn log(root: &Section<'_>) -> LogConfig {
    let Some(section) = root.section("log") else {
        return LogConfig::default();
    };
    LogConfig {
        level: choice(&section, "level", reference::LOG_LEVELS),
        mode: choice(&section, "mode", reference::LOG_MODES),
    }
}

/// A case-insensitive enumeration value.
fn choice<T: Copy>(section: &Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
    let given = section.text(key)?;
    let word = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&given.value));
    if word.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let suggestion = nearest(&given.value, known.iter().copied());
        let suggestion = suggestion.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        section.error(
            Diagnostic::error(format!("invalid value `{}` for `{key}`{suggestion}", given.value))
                .at(given.span)
                .label("invalid value")
                .help(format!("possible values: {}", known.join(", "))),
        );
    }
    word.map(|(_, value)| *value)
}

fn build_args(root: &Section<'_>) -> BuildArgs {
    let field = root.section("velox").and_then(|velox| velox.field("build_args"));
    field.map_or_else(BuildArgs::default, |field| build_args::read(field.reader, field.raw_strings()))
}

pub(crate) fn not_toml(text: &str, error: &TomlError) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let start = text.floor_char_boundary(span.start);
    let span = start..text.ceil_char_boundary(span.end).max(start);
    let mut lines = error.message().lines();
    let mut diagnostic =
        Diagnostic::error(format!("invalid TOML: {}", lines.next().unwrap_or("syntax error")))
            .at(span.clone());
    for line in lines {
        diagnostic = diagnostic.help(line);
    }
    let backslash = |at: Option<&str>| at.is_some_and(|text| text.contains('\\'));
    let near = start.checked_sub(1).map(|before| text.floor_char_boundary(before)..span.end);
    if backslash(text.get(span)) || near.is_some_and(|near| backslash(text.get(near))) {
        diagnostic = diagnostic.help(
            "write Windows paths in single quotes ('C:\\plugins\\http') or with double backslashes (\"C:\\\\plugins\\\\http\")",
        );
    }
    if text.trim_start().starts_with('{') {
        diagnostic = diagnostic.help("this looks like JSON; vx reads TOML");
    }
    diagnostic
}
