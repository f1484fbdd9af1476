use std::{collections::HashMap, ops::Range};

use secrecy::ExposeSecret;

use crate::{
    BuildArgs, DebugConfig, Diagnostic, ImageConfig, LogConfig, LogLevel, LogMode, Manifest, ManifestFormat,
    Origin, Plugin, RoadRunnerConfig, SourceFile, Spanned, build_args, catalogue,
    check::{self, can_be_token},
    document::{self, ConfigNode, ConfigValue},
    findings::DiagnosticSink,
    manual, modules,
    reader::{Field, ParseContext, Section, nearest},
    reference,
};

/// The branch of RoadRunner that is built without a ref, as Velox does.
const DEFAULT_BRANCH: &str = "master";

/// A plugin for a file in Velox's format of repositories.
const REPOSITORY_EXAMPLE: &str = r#"[github.plugins]
http = { ref = "v5.3.0", owner = "roadrunner-server", repository = "http" }"#;

impl Manifest {
    /// Parses a text in any format, as TOML, YAML or JSON: see [`SourceFile::syntax`]. `environment` returns the value
    /// of a variable, `None` if it is not set.
    ///
    /// # Errors
    /// All errors and warnings in text order, or the first syntax error.
    pub fn parse(
        source: &SourceFile,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let findings = DiagnosticSink::new(source);
        let mut document = match document::parse(source) {
            Ok(document) => document,
            Err(errors) => {
                errors.into_iter().for_each(|error| findings.push(error));
                return Err(findings.finish());
            }
        };
        match document.value {
            ConfigValue::Table(_) => {}
            ConfigValue::Null => document = ConfigNode { value: ConfigValue::Table(Vec::new()), ..document },
            _ => {
                let message = format!("expected the tables of a configuration, found {}", document.kind());
                findings.push(Diagnostic::error(message).at(document.span));
                return Err(findings.finish());
            }
        }
        findings.hide_secrets(&document);
        let root = Section::root(ParseContext { findings: &findings, environment }, &document);
        let manifest = assemble(&root);
        for token in [&manifest.github.token, &manifest.gitlab.token].into_iter().flatten() {
            protect_token(token.expose_secret(), &manifest, &findings);
        }
        if findings.any_error() { Err(findings.finish()) } else { Ok((manifest, findings.finish())) }
    }
}

/// Keeps a token out of diagnostics and of refs, which are sent to proxies and written to logs and the lock.
fn protect_token(token: &str, manifest: &Manifest, findings: &DiagnosticSink<'_>) {
    if !can_be_token(token) {
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
    plugins.extend(match format {
        ManifestFormat::First => manual::first(root),
        _ => modules::plugins(root),
    });
    plugins.sort_by_key(|plugin| plugin.name.span.as_ref().map_or(0, |span| span.start));
    let manifest = Manifest {
        format,
        roadrunner: roadrunner(root),
        debug: debug(root),
        strict: root.bool("strict").unwrap_or(false),
        plugins,
        replaces: modules::replaces(root),
        excludes: modules::excludes(root),
        requires: modules::requires(root),
        go: modules::go(root),
        targets: modules::targets(root),
        cache: modules::cache(root),
        image: image(root),
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
        let starter = catalogue::starter();
        let example = match (&modules, &github, &gitlab) {
            (None, Some(_), _) | (None, None, Some(_)) => REPOSITORY_EXAMPLE,
            // The file has its RoadRunner.
            _ if root.has("roadrunner") => {
                starter.split_once("\n\n").map_or(starter.as_str(), |(_, plugins)| plugins)
            }
            _ => &starter,
        };
        let diagnostic =
            Diagnostic::error("no plugins configured").help(format!("add at least one plugin:\n\n{example}"));
        root.error(match tables().next() {
            Some(table) => diagnostic.at(table.key_span.clone()).label("empty table"),
            None => diagnostic,
        });
    }
    match (modules, velox) {
        (Some(modules), _) if is_first(&modules) => ManifestFormat::First,
        (Some(_), _) => ManifestFormat::Modules,
        (None, Some(_)) => ManifestFormat::Ancestor,
        (None, None) => ManifestFormat::Manual,
    }
}

/// Whether `[plugins]` has repositories, as in the first format.
fn is_first(plugins: &Field<'_>) -> bool {
    let has = |key: &str| plugins.values().iter().any(|plugin| plugin.inner(key).is_some());
    (has("owner") || has("repository")) && !has("module_name")
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
    let default = || Some(Spanned::from(DEFAULT_BRANCH.to_owned()));
    let Some(section) = root.section("roadrunner") else {
        return RoadRunnerConfig { reference: default(), dependencies: None };
    };
    let reference = match section.field("ref").filter(|field| !field.is_unset()) {
        Some(_) => section
            .version("ref")
            .and_then(|reference| manual::checked(&section, "ref", reference, check::requested)),
        None => default(),
    };
    let dependencies = choice(&section, "dependencies", reference::DEPENDENCIES, None);
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
        level: choice(&section, "level", reference::LOG_LEVELS, Some(("info", LogLevel::Info))),
        mode: choice(&section, "mode", reference::LOG_MODES, Some(("development", LogMode::Development))),
    }
}

/// A case-insensitive enumeration value. With a `fallback`, an unknown word is only a warning.
fn choice<T: Copy>(
    section: &Section<'_>,
    key: &str,
    words: &[(&str, T)],
    fallback: Option<(&str, T)>,
) -> Option<T> {
    let given = section.text(key)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(given.value.trim())) {
        return Some(*value);
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let suggestion = nearest(&given.value, known.iter().copied());
    let suggestion = suggestion.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let message = format!("invalid value `{}` for `{key}`{suggestion}", manual::shown(&given.value));
    let diagnostic = match fallback {
        Some((word, _)) => Diagnostic::warning(message).label(format!("read as `{word}`")),
        None => Diagnostic::error(message).label("invalid value"),
    };
    section.error(diagnostic.at(given.span).help(format!("possible values: {}", known.join(", "))));
    fallback.map(|(_, value)| value)
}

fn image(root: &Section<'_>) -> ImageConfig {
    let Some(section) = root.section("image") else { return ImageConfig::default() };
    let labels = section.section("labels").map(|labels| labels.fields()).unwrap_or_default();
    let label = |field: Field<'_>| Some((field.key.to_owned(), field.text()?.value));
    let texts = |key| section.field(key).map(|field| field.texts());
    ImageConfig {
        base: section.text("base"),
        repository: section.text("repository"),
        tags: texts("tags").unwrap_or_default(),
        entrypoint: texts("entrypoint").map(|words| words.into_iter().map(|word| word.value).collect()),
        user: section.text("user").map(|user| user.value),
        labels: labels.into_iter().filter_map(label).collect(),
        add: texts("add").unwrap_or_default(),
        compression: choice(&section, "compression", reference::IMAGE_COMPRESSIONS, None),
    }
}

fn build_args(root: &Section<'_>) -> BuildArgs {
    let field = root.section("velox").and_then(|velox| velox.field("build_args"));
    field.map_or_else(BuildArgs::default, |field| build_args::read(field.reader, field.raw_strings()))
}
