//! `.rr.yaml`, the configuration of a server: read as RoadRunner's plugin config reads it, and checked against the plugins
//! of the binary.
//!
//! ```text
//! files ──read──► RrConfig ──uses──► ConfigUse ──check──► RrConfigReport, one of each file
//!                                              └─plugins──► the plugins of `vx init --from .rr.yaml`
//! ```

mod dry_start;
mod uses;
mod v3;
mod variables;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
};

use velox_manifest::{ConfigEntry, ConfigNode, ConfigValue, Diagnostic, SourceFile, parse_yaml};

pub use dry_start::DryStart;
pub use uses::{CompiledPlugins, RrConfigCheck, RrConfigPlugins};

/// The file that RoadRunner reads by default.
pub const RR_CONFIG_FILE_NAME: &str = ".rr.yaml";

/// The files that a configuration may include.
const MAX_INCLUDED_FILES: usize = 100;

/// The findings of one kind in a file.
const MAX_FINDINGS: usize = 100;

/// The variable with the path of an environment file.
const ENV_FILE_VARIABLE: &str = "DOTENV_PATH";

/// What was found in a file of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RrConfigReport {
    /// The file, with secrets replaced by asterisks of the same length.
    pub source: SourceFile,
    /// The findings, in file order.
    pub findings: Vec<Diagnostic>,
}

/// A `.rr.yaml` with the files that it includes. Variables are replaced, except those that are not set.
pub struct RrConfig {
    files: Vec<RrConfigFile>,
    directory: PathBuf,
}

struct RrConfigFile {
    source: SourceFile,
    root: ConfigNode,
    findings: Vec<Diagnostic>,
}

impl RrConfig {
    /// Reads a configuration: `name` in messages, `path` for its directory, which the paths of other files are relative to.
    /// `read` reads a file, or says why it can't be read. Errors in files are findings of [`Self::check`].
    ///
    /// # Errors
    /// The file itself can't be read.
    pub fn read(
        name: &str,
        path: &Path,
        environment: &BTreeMap<String, String>,
        read: &dyn Fn(&Path) -> Result<String, Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut root = RrConfigFile::parse(name, read(path)?);
        let mut variables = environment.clone();
        if let Some(file) = environment.get(ENV_FILE_VARIABLE).filter(|file| !file.is_empty()) {
            match read(&directory.join(file)) {
                Ok(text) => variables::load(&text, &mut variables),
                Err(error) => root.findings.push(error.help(format!("{ENV_FILE_VARIABLE} names this file"))),
            }
        }
        if let Some(file) = text_at(&root.root, "envfile")
            && let Ok(text) = read(&directory.join(file.trim_start_matches('/')))
        {
            variables::load(&text, &mut variables);
        }
        variables::expand_tree(&mut root.root, &variables);
        root.check_version();
        let mut config = Self { files: vec![root], directory };
        config.include(name, &variables, read);
        Ok(config)
    }

    /// Reads the included files. RoadRunner doesn't follow their own `include`.
    fn include(
        &mut self,
        name: &str,
        variables: &BTreeMap<String, String>,
        read: &dyn Fn(&Path) -> Result<String, Diagnostic>,
    ) {
        let Some(root) = self.files.first_mut() else { return };
        let version = text_at(&root.root, "version");
        let names = find(&root.root, "include").map(|entry| list_items(&entry.node)).unwrap_or_default();
        let mut included = Vec::new();
        for (file, span) in names.into_iter().filter(|(file, _)| !is_variable(file)) {
            if included.len() >= MAX_INCLUDED_FILES {
                let error =
                    Diagnostic::error(format!("`include` has more than {MAX_INCLUDED_FILES} files")).at(span);
                root.findings.push(error.label("not read"));
                break;
            }
            let shown = Path::new(name).with_file_name(&file).display().to_string();
            let content = match read(&self.directory.join(&file)) {
                Ok(content) => content,
                Err(error) => {
                    let error = Diagnostic::error(error.message).at(span);
                    root.findings.push(error.label("RoadRunner does not start without it"));
                    continue;
                }
            };
            let mut file = RrConfigFile::parse(&shown, content);
            file.check_version();
            variables::expand_tree(&mut file.root, variables);
            if let Some(entry) = find(&file.root, "version")
                && text(&entry.node) != version
            {
                let message = "the version differs from the one of the file that includes this one";
                let error = Diagnostic::error(message).at(entry.node.span.clone());
                file.findings.push(error.label("RoadRunner does not start"));
            }
            if let Some(entry) = find(&file.root, "include") {
                let message = "`include` in an included file is ignored";
                let warning = Diagnostic::warning(message).at(entry.span.clone()).label("not read");
                file.findings.push(warning.help(format!("include these files in {name}")));
            }
            included.push(file);
        }
        self.files.extend(included);
    }

    /// The top-level sections with a value, and the index of the file of each: a later file replaces those of others.
    fn sections(&self) -> Vec<(usize, &ConfigEntry)> {
        let mut sections: Vec<(usize, &ConfigEntry)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (index, file) in self.files.iter().enumerate() {
            for entry in entries(&file.root).iter().filter(|entry| !is_null(&entry.node)) {
                match places.get(&entry.key.to_lowercase()).and_then(|place| sections.get_mut(*place)) {
                    Some(known) if known.0 == index => {}
                    Some(known) => *known = (index, entry),
                    None => {
                        places.insert(entry.key.to_lowercase(), sections.len());
                        sections.push((index, entry));
                    }
                }
            }
        }
        sections
    }

    /// Whether RoadRunner finds a value for a key.
    fn has(&self, key: &str) -> bool {
        let files = self.files.iter().rev();
        files.filter_map(|file| find(&file.root, key)).any(|entry| !is_null(&entry.node))
    }

    /// Whether a file can't be parsed.
    fn is_invalid(&self) -> bool {
        self.files.iter().any(|file| is_null(&file.root))
    }

    /// The reports of the files, with further findings, each with the index of its file.
    fn reports(&self, findings: Vec<(usize, Diagnostic)>) -> Vec<RrConfigReport> {
        let mut reports: Vec<RrConfigReport> = self
            .files
            .iter()
            .map(|file| RrConfigReport { source: masked(&file.source), findings: file.findings.clone() })
            .collect();
        for (file, finding) in findings {
            if let Some(report) = reports.get_mut(file).filter(|it| it.findings.len() < 2 * MAX_FINDINGS) {
                report.findings.push(finding);
            }
        }
        for report in &mut reports {
            sort(&mut report.findings);
        }
        reports
    }
}

impl RrConfigFile {
    fn parse(name: &str, text: String) -> Self {
        let mut findings = Vec::new();
        let empty = ConfigNode { value: ConfigValue::Null, span: None };
        let root = match parse_yaml(&text) {
            Ok(root) if root.entries().is_some() => root,
            Ok(root) if is_null(&root) => {
                findings.push(Diagnostic::error(format!("`{name}` has no settings")));
                empty
            }
            Ok(root) => {
                let message = format!("expected sections, found {}", root.kind());
                findings
                    .push(Diagnostic::error(message).at(root.span).label("no configuration of RoadRunner"));
                empty
            }
            Err(error) => {
                findings.push(error);
                empty
            }
        };
        find_duplicates(&root, &mut findings);
        Self { source: SourceFile { name: name.to_owned(), text }, root, findings }
    }

    fn check_version(&mut self) {
        const HELP: &str = "set version: \"3\"";
        let name = &self.source.name;
        if is_null(&self.root) {
            return;
        }
        let error = |message: &str| Diagnostic::error(message).label("RoadRunner does not start").help(HELP);
        let finding = match find(&self.root, "version") {
            None => error(&format!("`{name}` has no `version`")),
            Some(entry) => match &entry.node.value {
                ConfigValue::Text(version) if version == "2.7" => {
                    Diagnostic::warning("the configuration has an old version")
                        .label("expected \"3\"")
                        .at(entry.node.span.clone())
                        .help(HELP)
                }
                ConfigValue::Text(_) => return,
                _ => error("the version of the configuration is not a string").at(entry.node.span.clone()),
            },
        };
        self.findings.push(finding);
    }
}

/// Whether a YAML file is a configuration of RoadRunner rather than one of vx: without a table that only the latter has.
#[must_use]
pub fn is_rr_config(source: &SourceFile) -> bool {
    const TABLES: [&str; 5] = ["roadrunner", "plugins", "github", "gitlab", "velox"];
    parse_yaml(&source.text).is_ok_and(|root| TABLES.iter().all(|table| find(&root, table).is_none()))
}

/// Checks a `.rr.yaml` for RoadRunner 3. `directory` contains it; `plugins` are the module paths of the plugins in the
/// binary, or empty if they are unknown.
#[must_use]
pub fn check_rr_config(source: &SourceFile, directory: &Path, plugins: &[String]) -> RrConfigReport {
    let mut findings = match parse_yaml(&source.text) {
        Ok(mut root) => {
            variables::expand_tree(&mut root, &BTreeMap::new());
            v3::changes(&root, directory, plugins)
        }
        Err(error) => vec![error],
    };
    sort(&mut findings);
    RrConfigReport { source: masked(source), findings }
}

/// Finds keys that a table has twice.
fn find_duplicates(node: &ConfigNode, findings: &mut Vec<Diagnostic>) {
    match &node.value {
        ConfigValue::Array(nodes) => nodes.iter().for_each(|node| find_duplicates(node, findings)),
        ConfigValue::Table(entries) => {
            let mut known: HashMap<&str, &ConfigEntry> = HashMap::new();
            for entry in entries {
                if let Some(first) = known.insert(&entry.key, entry) {
                    let error = Diagnostic::error(format!("duplicate key `{}`", entry.key))
                        .at(entry.span.clone())
                        .label("RoadRunner does not start");
                    let error = match &first.span {
                        Some(span) => error.related(span.clone(), "first here"),
                        None => error,
                    };
                    // An alias repeats what it refers to.
                    if findings.len() < MAX_FINDINGS && !findings.contains(&error) {
                        findings.push(error);
                    }
                }
                find_duplicates(&entry.node, findings);
            }
        }
        _ => {}
    }
}

fn sort(findings: &mut [Diagnostic]) {
    findings.sort_by_key(|finding| finding.span.as_ref().map_or(usize::MAX, |span| span.start));
}

fn entries(node: &ConfigNode) -> &[ConfigEntry] {
    node.entries().unwrap_or_default()
}

/// The entry at a dotted path. Like RoadRunner, ignores the case of keys.
fn find<'a>(node: &'a ConfigNode, path: &str) -> Option<&'a ConfigEntry> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let entry = node.get(first)?;
    match rest {
        Some(rest) => find(&entry.node, rest),
        None => Some(entry),
    }
}

/// The entries of the table at a dotted path.
fn entries_at<'a>(node: &'a ConfigNode, path: &str) -> &'a [ConfigEntry] {
    find(node, path).map(|entry| entries(&entry.node)).unwrap_or_default()
}

/// The text of the scalar at a dotted path.
fn text_at(node: &ConfigNode, path: &str) -> Option<String> {
    text(&find(node, path)?.node)
}

fn is_null(node: &ConfigNode) -> bool {
    matches!(node.value, ConfigValue::Null)
}

/// The text of a scalar.
fn text(node: &ConfigNode) -> Option<String> {
    match &node.value {
        ConfigValue::Text(text)
        | ConfigValue::Integer(text)
        | ConfigValue::Float(text)
        | ConfigValue::Datetime(text) => Some(text.clone()),
        ConfigValue::Boolean(value) => Some(value.to_string()),
        ConfigValue::Null | ConfigValue::Array(_) | ConfigValue::Table(_) => None,
    }
}

fn lower_text(node: &ConfigNode) -> Option<String> {
    text(node).map(|text| text.trim().to_lowercase())
}

/// Whether a text contains a variable that is not set.
fn is_variable(text: &str) -> bool {
    text.contains('$')
}

/// The texts of a list, or of a text with commas, which RoadRunner reads in the same way.
fn list_items(node: &ConfigNode) -> Vec<(String, Option<Range<usize>>)> {
    match &node.value {
        ConfigValue::Array(items) => {
            items.iter().filter_map(|item| Some((text(item)?, item.span.clone()))).collect()
        }
        _ => {
            let list = text(node).unwrap_or_default();
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| (name.to_owned(), node.span.clone())).collect()
        }
    }
}

fn masked(source: &SourceFile) -> SourceFile {
    SourceFile { name: source.name.clone(), text: mask_secrets(&source.text) }
}

/// Replaces passwords in URLs, and the values of keys that name a secret, by asterisks. No other byte moves.
fn mask_secrets(text: &str) -> String {
    const NAMES: [&str; 6] = ["password", "passwd", "token", "secret", "api-key", "authorization"];
    const MAX_KEY_BYTES: usize = 256;
    let mut secrets: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = text.get(start..).unwrap_or_default();
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'')).unwrap_or(rest.len());
        if let Some(user) = rest.get(..end).and_then(|authority| authority.rfind('@')) {
            secrets.push(start..start + user);
        }
    }
    let lower = text.to_ascii_lowercase();
    for name in NAMES {
        let mut masked = 0;
        for (at, _) in lower.match_indices(name) {
            let start = at + name.len();
            if start < masked {
                continue;
            }
            let end = text.floor_char_boundary(start + MAX_KEY_BYTES);
            let rest = text.get(start..end).unwrap_or_default();
            let Some(colon) = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-\"'".contains(c))) else {
                continue;
            };
            if rest.get(colon..).is_some_and(|rest| rest.starts_with(':')) {
                let start = start + colon + 1;
                let value = text.get(start..).unwrap_or_default();
                masked = start + value.find(['\n', ',', '}']).unwrap_or(value.len());
                secrets.push(start..masked);
            }
        }
    }
    secrets.sort_by_key(|secret| secret.start);
    let mut result = String::with_capacity(text.len());
    for secret in secrets {
        let start = secret.start.max(result.len());
        result += text.get(result.len()..start).unwrap_or_default();
        let hidden = text.get(start..secret.end).unwrap_or_default();
        result.extend(hidden.chars().flat_map(|c| {
            let shown = if c.is_whitespace() { c } else { '*' };
            std::iter::repeat_n(shown, if shown == '*' { c.len_utf8() } else { 1 })
        }));
    }
    result += text.get(result.len()..).unwrap_or_default();
    result
}

#[cfg(test)]
mod tests {
    use velox_manifest::catalogue;

    use super::*;
    use crate::PluginGraph;

    fn read_files(files: &[(&str, &str)], environment: &[(&str, &str)]) -> RrConfig {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new("/app").join(name) == path);
            found
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| Diagnostic::error(format!("failed to read {}", path.display())))
        };
        let (name, _) = files[0];
        RrConfig::read(name, &Path::new("/app").join(name), &environment.collect(), &read).unwrap()
    }

    /// `FILE:LINE:COLUMN level: message | text at the span`
    fn shown(reports: &[RrConfigReport]) -> Vec<String> {
        let mut lines = Vec::new();
        for RrConfigReport { source, findings } in reports {
            for finding in findings {
                let place = finding.span.clone().map(|span| {
                    let (line, column) = source.line_column(span.start);
                    (format!(":{line}:{column}"), source.text.get(span).unwrap().to_owned())
                });
                let (place, text) = place.unwrap_or_default();
                let help = finding.help.join("; ");
                let Diagnostic { level, message, .. } = finding;
                lines.push(format!("{}{place} {level:?}: {message} | {text} | {help}", source.name));
            }
        }
        lines
    }

    fn modules(names: &[&str]) -> Vec<(String, String)> {
        let module = |name: &&str| match catalogue::find(name) {
            Some(known) => ((*name).to_owned(), known.module_path_at(5)),
            None => ((*name).to_owned(), format!("example.com/{name}")),
        };
        names.iter().map(module).collect()
    }

    fn found(text: &str, plugins: &[&str]) -> Vec<String> {
        let config = read_files(&[(".rr.yaml", text)], &[]);
        shown(&config.check(CompiledPlugins::Modules(&modules(plugins)), Some(5)).reports)
    }

    fn graph(text: &str) -> PluginGraph {
        let mut graph: PluginGraph = serde_json::from_str(text).unwrap();
        for plugin in &mut graph.plugins {
            plugin.label = crate::plugin_name(&plugin.module);
        }
        graph
    }

    fn graphs() -> [PluginGraph; 2] {
        [
            graph(include_str!("../plugin_graph/testdata/roadrunner-2025.json")),
            graph(include_str!("../plugin_graph/testdata/roadrunner-3.json")),
        ]
    }

    #[test]
    fn the_catalogue_agrees_with_the_graphs_of_two_releases() {
        for graph in graphs() {
            for (index, plugin) in graph.plugins.iter().enumerate().filter(|(_, it)| !it.is_configuration) {
                let known = catalogue::find(&plugin.module).unwrap();
                let settings = uses::settings_of(&graph, index);
                // The graph of RoadRunner 3 has fewer plugins.
                let is_read = |setting: &&String| {
                    let section = setting.split(['.', '=']).next().unwrap();
                    graph.plugins.iter().any(|other| other.sections.iter().any(|key| key == section))
                };
                for setting in known.rr_config.iter().filter(is_read) {
                    assert!(settings.contains(setting), "{}: {setting}", known.name);
                }
                let is_own =
                    |setting: &String| setting.contains('=') || plugin.name.as_ref() == Some(setting);
                for setting in settings.iter().filter(|setting| is_own(setting)) {
                    assert!(known.rr_config.contains(setting), "{}: {setting}", known.name);
                }
            }
        }
    }

    #[test]
    fn each_preset_starts() {
        for graph in graphs() {
            for preset in catalogue::presets() {
                let is_included = |index: usize| {
                    let plugin = &graph.plugins[index];
                    plugin.is_configuration
                        || ["informer", "resetter"].contains(&plugin.label.as_str())
                        || preset.contains(&plugin.module)
                };
                for (index, state) in graph.start(&is_included, &|_| Some(true)).iter().enumerate() {
                    assert!(!state.is_disabled(), "{}: {}", preset.name, graph.plugins[index].label);
                }
            }
        }
    }

    #[test]
    fn configurations_of_real_applications_fit_the_plugins_of_the_release() {
        let [graph, _] = graphs();
        let mut all = Vec::new();
        for (name, text) in [
            ("web.rr.yaml", include_str!("../../tests/web.rr.yaml")),
            ("workers.rr.yaml", include_str!("../../tests/workers.rr.yaml")),
        ] {
            let config = read_files(&[(name, text)], &[]);
            let checked = config.check(CompiledPlugins::Graph(&graph), Some(5));
            assert_eq!(shown(&checked.reports), Vec::<String>::new());
            let needed: Vec<&str> = config.plugins().plugins.iter().map(|it| it.name.as_str()).collect();
            let unused: Vec<&str> = checked.unused.iter().map(|(name, _)| name.as_str()).collect();
            all.push(format!("{name}\nneeds {}\nunused {}", needed.join(" "), unused.join(" ")));
            // What the file needs is all that it needs.
            let modules = modules(&needed);
            let checked = config.check(CompiledPlugins::Modules(&modules), Some(5));
            assert_eq!((shown(&checked.reports), checked.unused), (Vec::new(), Vec::new()));
        }
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn settings_that_no_plugin_serves_are_found() {
        let text = "\
version: \"3\"
server: { command: php worker.php }
http:
  address: :8080
  middleware: [gzip, cors, headrs]
  headers: {}
htpp: {}
websockets: {}
jobs: { pipelines: { a: { driver: amqp }, b: { driver: \"${DRIVER:-memory}\" }, c: { driver: $DRIVER } } }
kv: { local: { driver: redis }, cache: { driver: nsq } }
local: { addrs: [\"127.0.0.1:6379\"] }
nsq: {}
x-anchors: {}
rpc: { listen: tcp://127.0.0.1:6001 }
";
        let plugins = ["server", "http", "jobs", "kv", "logger"];
        insta::assert_snapshot!(found(text, &plugins).join("\n"));
        // A plugin that the catalogue doesn't know may read any section.
        let open = found(text, &["server", "http", "jobs", "kv", "logger", "acme"]);
        assert!(!open.iter().any(|line| line.contains("htpp") || line.contains("cors")), "{open:?}");
    }

    #[test]
    fn plugins_whose_sections_are_missing_do_not_start() {
        let [graph, _] = graphs();
        let text = "\
version: \"3\"
http: { address: \":8080\", middleware: [headers, otel] }
jobs: { pipelines: { a: { driver: kafka } } }
";
        let config = read_files(&[(".rr.yaml", text)], &[]);
        let checked = config.check(CompiledPlugins::Graph(&graph), Some(5));
        insta::assert_snapshot!(shown(&checked.reports).join("\n"));
    }

    #[test]
    fn included_files_replace_sections_and_are_not_followed() {
        let files = [
            (
                ".rr.yaml",
                "version: \"3\"\ninclude: [a.yaml, \"${DIR}/b.yaml\", no.yaml, \"$NO/c.yaml\"]\nhttp: { middleware: [gzip] }\nenvfile: .env\n",
            ),
            ("a.yaml", "version: \"3\"\ninclude: [.rr.yaml]\nhttp: { middleware: [static] }\n"),
            ("sub/b.yaml", "version: \"2\"\nkv: { a: { driver: $DRIVER } }\n"),
            (".env", "DRIVER=redis"),
        ];
        let config = read_files(&files, &[("DIR", "sub"), ("DOTENV_PATH", "missing")]);
        let names: Vec<&str> = config.plugins().plugins.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["http", "kv", "logger", "redis", "server", "static"]);
        let reports = config.check(CompiledPlugins::Modules(&modules(&names)), Some(5)).reports;
        insta::assert_snapshot!(shown(&reports).join("\n"));
        let itself = [(".rr.yaml", "version: \"3\"\ninclude: [.rr.yaml, .rr.yaml]\n")];
        assert_eq!(read_files(&itself, &[]).files.len(), 3);
        let many = format!("version: \"3\"\ninclude: [{}]\n", ".rr.yaml, ".repeat(1000));
        assert_eq!(read_files(&[(".rr.yaml", &many)], &[]).files.len(), 1 + MAX_INCLUDED_FILES);
    }

    #[test]
    fn any_text_has_bounded_findings_with_places() {
        let deep = format!("http: {}1{}", "{ a: ".repeat(500), " }".repeat(500));
        let bomb = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let below = level - 1;
            text + &format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}]\n")
        });
        let large = format!("version: \"3\"\nhttp:\n{}", "  - a\n".repeat(2 << 20));
        let long = format!("version: \"3\"\nhttp: {}", "token://a@".repeat(1 << 20));
        let brackets = "[".repeat(10 << 20);
        let mut wrong = Vec::new();
        let duplicates = format!("version: \"3\"\n{}", "http: {}\n".repeat(10_000));
        for (text, expected) in [
            ("version: \"3\"\nhttp:\n\taddress: x\n", "3:2 Error: invalid YAML: tabs disallowed"),
            ("http: *none\n", "1:7 Error: invalid YAML"),
            ("version: \"3\"\nhttp: {}\nhttp: {}\n", "3:1 Error: duplicate key `http`"),
            ("version: 3\n", "1:10 Error: the version of the configuration is not a string"),
            ("version: \"2.7\"\n", "1:10 Warning: the configuration has an old version"),
            ("http: {}\n", "Error: `.rr.yaml` has no `version`"),
            ("just text", "1:1 Error: expected sections, found a string"),
            ("\u{7f}ELF\u{1}\u{0}", "Error: "),
            ("", "Error: `.rr.yaml` has no settings"),
            ("a: 1\n---\nb: 2\n", "Error: a configuration is a single YAML document"),
            ("? [x]\n: y", "Error: invalid YAML: a key must be a string"),
            (&deep, "Error: invalid YAML: too many levels"),
            (&bomb, "Error: too many values by YAML aliases"),
            (&large, "Error: invalid YAML: more than 200000 values"),
            (&brackets, "Error: invalid YAML"),
            (&duplicates, "3:1 Error: duplicate key `http`"),
        ] {
            let findings = found(text, &["http", "server", "logger"]);
            let first = findings.first().cloned().unwrap_or_default();
            if !first.contains(expected) {
                wrong.push((text.chars().take(20).collect::<String>(), first));
            }
            assert!(findings.len() <= 2 * MAX_FINDINGS);
        }
        assert_eq!(wrong, []);
        assert_eq!(found(&long, &["http"]), Vec::<String>::new());
        // Anchors and merge keys are part of YAML.
        let merged = "version: \"3\"\nx-a: &a { middleware: [gzip] }\nhttp: { <<: *a }\n";
        assert_eq!(found(merged, &["http", "gzip"]), Vec::<String>::new());
    }

    #[test]
    fn secrets_are_masked_in_place() {
        let text = "amqp:\n  addr: amqp://user:pä@host:5672/\nredis: { sentinel_password: \"x y\", db: 1 }\n";
        let masked = mask_secrets(text);
        assert_eq!(masked.len(), text.len());
        assert!(masked.contains("addr: amqp://********@host:5672/"), "{masked}");
        assert!(masked.contains("db: 1") && !masked.contains("x y"), "{masked}");
        assert_eq!(
            mask_secrets("token_file: a\nlisten: tcp://127.0.0.1:6001"),
            "token_file: *\nlisten: tcp://127.0.0.1:6001"
        );
    }
}
