//! Checks a `.rr.yaml` for what changes with RoadRunner 3
//! (<https://docs.roadrunner.dev/docs/general/v3-migration>).

use std::{borrow::Cow, collections::BTreeSet, ops::Range, path::Path};

use saphyr::{LoadableYamlNode, MarkedYaml as Node, Scalar, YamlData};
use velox_manifest::{Diagnostic, SourceFile};

use crate::without_major;

/// How deep anchors and merge keys are followed.
const MAX_DEPTH: usize = 32;

/// The keys of a `file_logger_options` section that rotate log files.
const ROTATION_KEYS: [&str; 4] = ["max_size", "max_age", "max_backups", "compress"];

/// The keys of an AMQP pipeline that RoadRunner 3 expects in the sections `exchange` and `queue`.
const AMQP_MOVED_KEYS: [(&str, &str); 14] = [
    ("exchange", "exchange.name"),
    ("exchange_type", "exchange.type"),
    ("exchange_durable", "exchange.durable"),
    ("exchange_auto_delete", "exchange.auto_delete"),
    ("queue", "queue.name"),
    ("durable", "queue.durable"),
    ("queue_auto_delete", "queue.auto_delete"),
    ("delete_queue_on_stop", "queue.delete_on_stop"),
    ("queue_headers", "queue.headers"),
    ("routing_key", "queue.routing_key"),
    ("exclusive", "queue.exclusive"),
    ("consumer_id", "queue.consumer_id"),
    ("multiple_ack", "queue.multiple_ack"),
    ("requeue_on_fail", "queue.requeue_on_fail"),
];

/// Changes of sections that a configuration can't show: section, message, label and help.
const NOTICES: [(&str, &str, &str, &str); 5] = [
    (
        "rpc",
        "RPC no longer accepts MessagePack",
        "affects clients that use the MessagePack codec",
        "use the JSON or protobuf codec in PHP (`Spiral\\Goridge\\RPC\\Codec`)",
    ),
    (
        "centrifuge",
        "the RPC method `centrifuge.RateLimit` was removed",
        "affects clients that call it",
        "remove the calls",
    ),
    (
        "grpc",
        "gRPC reflection is always registered",
        "clients can list the services",
        "restrict network access or use mTLS; unary interceptors do not protect reflection",
    ),
    (
        "grpc.max_connection_age_grace",
        "`max_connection_age_grace` now has its own value",
        "older releases used `max_connection_age` in its place",
        "check how long connections are drained",
    ),
    (
        "jobs.pipelines",
        "the job header `pool` selects a worker pool",
        "affects jobs with a header of this name",
        "rename the header `pool` of your application",
    ),
];

/// The problems of a `.rr.yaml` with RoadRunner 3.
#[derive(Clone, PartialEq, Eq)]
pub struct RrConfigReport {
    /// The file, with secrets replaced by asterisks of the same length.
    pub source: SourceFile,
    /// The problems, in file order. An error is a setting with which RoadRunner 3 does not start or which it ignores, a
    /// warning a change of behavior.
    pub findings: Vec<Diagnostic>,
}

/// Checks a `.rr.yaml` for RoadRunner 3. `directory` contains it; `plugins` are the module paths of the plugins in the
/// binary, or empty if they are unknown.
#[must_use]
pub fn check_rr_config(source: &SourceFile, directory: &Path, plugins: &[String]) -> RrConfigReport {
    let text = source.text.as_str();
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut offsets: Vec<usize> = body.char_indices().map(|(at, _)| text.len() - body.len() + at).collect();
    offsets.push(text.len());
    let mut check = RrConfigCheck {
        offsets,
        directory,
        plugins: plugins.iter().map(|path| without_major(path)).collect(),
        findings: Vec::new(),
    };
    match Node::load_from_str(body) {
        Ok(documents) => {
            if let Some(root) = documents.first() {
                check.root(root);
            }
        }
        Err(error) => {
            let at = check.offset(error.marker().index());
            check.findings.push(
                Diagnostic::error(format!("failed to parse `{}`: {}", source.name, error.info())).at(at..at),
            );
        }
    }
    let mut findings = check.findings;
    findings.sort_by_key(|finding| finding.span.as_ref().map_or(usize::MAX, |span| span.start));
    RrConfigReport { source: SourceFile { name: source.name.clone(), text: mask_secrets(text) }, findings }
}

/// A key of a mapping with its value.
#[derive(Clone, Copy)]
struct Entry<'a, 'b> {
    key: &'a Node<'b>,
    value: &'a Node<'b>,
}

struct RrConfigCheck<'a> {
    /// The byte offset of each character.
    offsets: Vec<usize>,
    directory: &'a Path,
    /// The module paths of the plugins, without major versions.
    plugins: BTreeSet<&'a str>,
    findings: Vec<Diagnostic>,
}

impl RrConfigCheck<'_> {
    fn root(&mut self, root: &Node<'_>) {
        self.version(root);
        self.env_file(root);
        self.middleware(root);
        self.logs(root);
        self.tracing(root);
        let connections = self.amqp_connections(root);
        self.amqp_pipelines(root, &connections);
        self.jobs(root);
        self.tcp(root);
        self.cleartext_http2(root);
        self.storages(root);
        self.file_server(root);
        if let Some(include) = find(root, "include") {
            self.warn(include.key, "included files are not checked", "not read")
                .help("check each of them with `--rr-config FILE`");
        }
        for (path, message, label, help) in NOTICES {
            if let Some(entry) = find(root, path) {
                self.warn(entry.key, message, label).help(help);
            }
        }
    }

    fn version(&mut self, root: &Node<'_>) {
        let Some(entry) = find(root, "version") else { return };
        match text(entry.value) {
            Some(version) if version == "3" => {}
            Some(version) => {
                let message = format!("the configuration has version {version}");
                self.warn(entry.value, message, "expected \"3\"").help("set version: \"3\"");
            }
            None => {
                self.error(
                    entry.value,
                    "the version of the configuration is not a string",
                    "expected a string",
                )
                .help("set version: \"3\"");
            }
        }
    }

    fn env_file(&mut self, root: &Node<'_>) {
        let Some(entry) = find(root, "envfile") else { return };
        let Some(name) = text(entry.value).filter(|name| !name.is_empty()) else { return };
        // RoadRunner joins the path to the directory of the file, even if it is absolute.
        let file = self.directory.join(name.trim_start_matches('/'));
        if file.is_file() {
            self.warn(
                entry.value,
                format!("the environment file `{name}` is always loaded"),
                "older releases load it in experimental mode only",
            )
            .help("check that its variables are meant for this server");
        } else {
            self.error(
                entry.value,
                format!("the environment file `{name}` does not exist"),
                "RoadRunner 3 does not start without it",
            )
            .help("create the file beside the configuration, or remove `envfile`");
        }
    }

    fn middleware(&mut self, root: &Node<'_>) {
        let Some(entry) = find(root, "http.middleware") else { return };
        let mut names: Vec<String> = match &entry.value.data {
            YamlData::Sequence(items) => items.iter().filter_map(|item| text(item)).collect(),
            _ => {
                let list = text(entry.value).unwrap_or_default();
                list.split(',').map(|name| name.trim().to_owned()).collect()
            }
        };
        names.retain(|name| !name.is_empty());
        if names.iter().collect::<BTreeSet<_>>().len() < 2 {
            return;
        }
        names.reverse();
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        self.warn(
            entry.key,
            "the order of the HTTP middleware is reversed",
            "requests pass the list from left to right",
        )
        .help(format!("to keep the order, write middleware: [{}]", quoted.join(", ")));
    }

    fn logs(&mut self, root: &Node<'_>) {
        let Some(logs) = find(root, "logs") else { return };
        self.logger(logs.value);
        let channels = find(logs.value, "channels").map(|channels| entries(channels.value));
        for channel in channels.unwrap_or_default() {
            self.logger(channel.value);
        }
    }

    fn logger(&mut self, logger: &Node<'_>) {
        if let Some(options) = find(logger, "file_logger_options") {
            let file = find(options.value, "log_output").and_then(|output| text(output.value));
            let file = file.unwrap_or_else(|| "FILE".to_owned());
            let rotates = ROTATION_KEYS.iter().any(|key| find(options.value, key).is_some());
            let mut finding = self.error(
                options.key,
                "`file_logger_options` was removed",
                "ignored: the log is written to stderr",
            );
            finding.help(format!("write output: [\"{file}\"] in its place"));
            if rotates {
                finding.help(
                    "RoadRunner 3 does not rotate log files: use logrotate with `copytruncate`, or write the log to stderr",
                );
            }
        }
        if let Some(mode) = find(logger, "mode")
            && effective(mode.value).as_deref() == Some("production")
        {
            self.warn(
                mode.value,
                "the JSON log has other fields",
                "`ts` is now `time`, and levels are in upper case",
            )
            .help("adapt what parses the log");
        }
        if let Some(level) = find(logger, "level")
            && let Some(value) = effective(level.value)
            && matches!(value.as_str(), "panic" | "dpanic" | "fatal")
        {
            self.warn(level.value, format!("unknown log level `{value}`"), "counts as debug")
                .help("use error, warn, info or debug");
        }
    }

    fn tracing(&mut self, root: &Node<'_>) {
        let Some(exporter) = find(root, "otel.exporter") else { return };
        let Some(name) = effective(exporter.value).filter(|name| name == "zipkin" || name == "jaeger") else {
            return;
        };
        let title = if name == "zipkin" { "Zipkin" } else { "Jaeger" };
        self.error(
            exporter.value,
            format!("the {title} exporter of OpenTelemetry was removed"),
            "use \"otlp\"",
        )
        .help(format!(
            "set exporter: otlp and endpoint: HOST:4318 of an OpenTelemetry Collector, which can send to {title}"
        ));
    }

    /// The names of the connections; `None` without a section `amqp`.
    fn amqp_connections(&mut self, root: &Node<'_>) -> Option<BTreeSet<String>> {
        let amqp = find(root, "amqp")?;
        let mut names = BTreeSet::new();
        for entry in entries(amqp.value) {
            let Some(key) = text(entry.key) else { continue };
            let is_mapping = matches!(entry.value.data, YamlData::Mapping(_));
            let is_old = match key.to_lowercase().as_str() {
                "addr" => !is_mapping,
                "tls" => find(entry.value, "addr").is_none(),
                _ => false,
            };
            if is_old {
                self.error(
                    entry.key,
                    format!("AMQP connections have names: `amqp.{key}` was removed"),
                    format!("move it to `amqp.NAME.{key}`"),
                )
                .help("write amqp: { default: { addr: … } }, and connection: default in `config` of each AMQP pipeline");
                continue;
            }
            if find(entry.value, "addr")
                .is_none_or(|addr| text(addr.value).is_none_or(|text| text.is_empty()))
            {
                self.error(entry.key, format!("the AMQP connection `{key}` has no address"), "no `addr`")
                    .help(format!("set addr in amqp.{key}; there is no default"));
            }
            names.insert(key.to_lowercase());
        }
        Some(names)
    }

    fn amqp_pipelines(&mut self, root: &Node<'_>, connections: &Option<BTreeSet<String>>) {
        let pipelines = find(root, "jobs.pipelines").map(|pipelines| entries(pipelines.value));
        for pipeline in pipelines.unwrap_or_default() {
            let name = text(pipeline.key).unwrap_or_default();
            let driver = find(pipeline.value, "driver").and_then(|driver| effective(driver.value));
            if driver.as_deref() != Some("amqp") {
                continue;
            }
            let config = find(pipeline.value, "config");
            let place = config.map_or(pipeline.key, |config| config.key);
            let connection = config.and_then(|config| find(config.value, "connection"));
            match connection.map(|connection| (connection, text(connection.value).unwrap_or_default())) {
                None => {
                    self.error(
                        place,
                        format!("the AMQP pipeline `{name}` has no connection"),
                        "no `config.connection`",
                    )
                    .help("set connection to the NAME of amqp.NAME.addr");
                }
                Some((connection, value)) => {
                    let is_known = value.contains('$')
                        || connections.as_ref().is_some_and(|names| names.contains(&value.to_lowercase()));
                    if !is_known {
                        self.error(
                            connection.value,
                            format!("the AMQP connection `{value}` of pipeline `{name}` does not exist"),
                            format!("no `amqp.{value}`"),
                        )
                        .help("set connection to the NAME of amqp.NAME.addr");
                    }
                }
            }
            if let Some(config) = config {
                self.amqp_pipeline(&name, config);
            }
        }
    }

    fn amqp_pipeline(&mut self, name: &str, config: Entry<'_, '_>) {
        if let Some(version) = find(config.value, "version") {
            self.error(version.key, "AMQP pipelines have no version any more", "remove it")
                .help("the version at the top of the file stays");
        }
        let mut has_section = false;
        for (key, new) in AMQP_MOVED_KEYS {
            let Some(entry) = find(config.value, key) else { continue };
            let is_section = matches!(key, "exchange" | "queue");
            has_section = true;
            if !(is_section && matches!(entry.value.data, YamlData::Mapping(_))) {
                self.error(
                    entry.key,
                    format!("`{key}` of the AMQP pipeline `{name}` has another place"),
                    format!("move it to `{new}`"),
                )
                .help("write exchange: { name: …, type: … } and queue: { name: …, routing_key: … }");
            }
        }
        if !has_section {
            self.error(
                config.key,
                format!("the AMQP pipeline `{name}` has neither an exchange nor a queue"),
                "one of them is required",
            )
            .help("write exchange: { name: …, type: … } and queue: { name: …, routing_key: … }");
        }
    }

    fn jobs(&mut self, root: &Node<'_>) {
        let (pool, pools) = (find(root, "jobs.pool"), find(root, "jobs.pools"));
        if let (Some(_), Some(pools)) = (pool, pools) {
            self.error(pools.key, "jobs have both `pool` and `pools`", "remove one of them")
                .help("`pools` has several worker pools by name, `pool` a single one");
        }
        if let Some(pool) = pool {
            let workers = find(pool.value, "num_workers").and_then(|workers| text(workers.value));
            if workers.is_none_or(|workers| workers == "0") {
                self.warn(
                    pool.key,
                    "the pool of jobs has no number of workers",
                    "only two pollers are started",
                )
                .help("set num_workers");
            }
        }
        let pipelines = find(root, "jobs.pipelines").map(|pipelines| entries(pipelines.value));
        for pipeline in pipelines.unwrap_or_default() {
            let Some(consumer) = find(pipeline.value, "config.consumer_options") else { continue };
            if let (Some(topics), Some(_)) =
                (find(consumer.value, "topics"), find(consumer.value, "consume_partitions"))
            {
                self.warn(
                    topics.key,
                    "`consume_partitions` is now applied",
                    "conflicts with `consume_partitions`",
                )
                .help("remove `topics`");
            }
        }
    }

    fn tcp(&mut self, root: &Node<'_>) {
        let Some(entry) = find(root, "tcp") else { return };
        if self.has_plugin("github.com/roadrunner-server/tcp") {
            return;
        }
        self.error(
            entry.key,
            "the plugin tcp is no longer part of RoadRunner's own binary",
            "ignored without the plugin",
        )
        .help("add it to velox.toml with `vx add tcp`, or remove the section");
    }

    fn cleartext_http2(&mut self, root: &Node<'_>) {
        let Some(entry) = find(root, "http.http2.h2c") else { return };
        if effective(entry.value).as_deref() == Some("true") {
            self.warn(
                entry.key,
                "cleartext HTTP/2 requires prior knowledge",
                "`Upgrade: h2c` of HTTP/1.1 is ignored",
            )
            .help("configure clients and proxies to connect with HTTP/2 (`curl --http2-prior-knowledge`)");
        }
    }

    fn storages(&mut self, root: &Node<'_>) {
        let storages = find(root, "kv").map(|storages| entries(storages.value));
        for storage in storages.unwrap_or_default() {
            let Some(driver) = find(storage.value, "driver") else { continue };
            let Some(name) = effective(driver.value).filter(|name| !name.contains('$')) else { continue };
            let is_driver = |path: &&str| path.rsplit('/').next() == Some(name.as_str());
            if !self.plugins.is_empty() && !self.plugins.iter().any(is_driver) {
                self.warn(
                    driver.value,
                    format!("no plugin for the key-value driver `{name}`"),
                    "RoadRunner 3 does not start without it",
                )
                .help(format!("add it to velox.toml: `vx add {name}`"));
            }
        }
    }

    fn file_server(&mut self, root: &Node<'_>) {
        let Some(entry) = find(root, "fileserver") else { return };
        let is_empty = |node: &Node<'_>| match &node.data {
            YamlData::Sequence(items) => items.is_empty(),
            _ => text(node).is_none_or(|text| text.is_empty()),
        };
        for key in ["address", "serve"] {
            if find(entry.value, key).is_none_or(|entry| is_empty(entry.value)) {
                self.error(
                    entry.key,
                    format!("the file server has no `{key}`"),
                    "RoadRunner 3 does not start",
                )
                .help(format!("set fileserver.{key}, or remove the section"));
            }
        }
    }

    fn has_plugin(&self, module: &str) -> bool {
        self.plugins.contains(module)
    }

    fn error(
        &mut self,
        node: &Node<'_>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> LatestFinding<'_> {
        self.push(node, Diagnostic::error(message).label(label))
    }

    fn warn(
        &mut self,
        node: &Node<'_>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> LatestFinding<'_> {
        self.push(node, Diagnostic::warning(message).label(label))
    }

    fn push(&mut self, node: &Node<'_>, diagnostic: Diagnostic) -> LatestFinding<'_> {
        let span = self.span(node);
        self.findings.push(diagnostic.at(span));
        LatestFinding(&mut self.findings)
    }

    fn span(&self, node: &Node<'_>) -> Range<usize> {
        let (start, end) = (self.offset(node.span.start.index()), self.offset(node.span.end.index()));
        start..end.max(start)
    }

    fn offset(&self, character: usize) -> usize {
        self.offsets.get(character).or(self.offsets.last()).copied().unwrap_or_default()
    }
}

/// The finding that was added last.
struct LatestFinding<'a>(&'a mut Vec<Diagnostic>);

impl LatestFinding<'_> {
    fn help(&mut self, help: impl Into<String>) {
        if let Some(finding) = self.0.last_mut() {
            finding.help.push(help.into());
        }
    }
}

/// The entries of a mapping, with those of merge keys (`<<`) that it doesn't have itself.
fn entries<'a, 'b>(node: &'a Node<'b>) -> Vec<Entry<'a, 'b>> {
    let mut found = Vec::new();
    collect_entries(node, &mut found, MAX_DEPTH);
    found
}

fn collect_entries<'a, 'b>(node: &'a Node<'b>, found: &mut Vec<Entry<'a, 'b>>, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match &node.data {
        YamlData::Tagged(_, inner) => collect_entries(inner, found, depth),
        YamlData::Mapping(mapping) => {
            let is_merge = |key: &Node<'_>| text(key).as_deref() == Some("<<");
            for (key, value) in mapping.iter().filter(|(key, _)| !is_merge(key)) {
                if !found.iter().any(|known| has_same_name(known.key, key)) {
                    found.push(Entry { key, value });
                }
            }
            for (_, value) in mapping.iter().filter(|(key, _)| is_merge(key)) {
                match &value.data {
                    YamlData::Sequence(items) => {
                        items.iter().for_each(|item| collect_entries(item, found, depth));
                    }
                    _ => collect_entries(value, found, depth),
                }
            }
        }
        _ => {}
    }
}

fn has_same_name(one: &Node<'_>, other: &Node<'_>) -> bool {
    text(one).zip(text(other)).is_some_and(|(one, other)| one.eq_ignore_ascii_case(&other))
}

/// The entry at a dotted path. Like RoadRunner, ignores the case of keys.
fn find<'a, 'b>(node: &'a Node<'b>, path: &str) -> Option<Entry<'a, 'b>> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let is_first = |entry: &Entry<'_, '_>| text(entry.key).is_some_and(|key| key.eq_ignore_ascii_case(first));
    let entry = entries(node).into_iter().find(is_first)?;
    match rest {
        Some(rest) => find(entry.value, rest),
        None => Some(entry),
    }
}

/// The text of a scalar.
fn text(node: &Node<'_>) -> Option<String> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(value)) => Some(value.to_string()),
        YamlData::Representation(text, ..) => Some(text.to_string()),
        YamlData::Tagged(_, inner) => text(inner),
        _ => None,
    }
}

/// The lower-case text of a scalar, or the default of the variable that it consists of (`${NAME:-default}`).
fn effective(node: &Node<'_>) -> Option<String> {
    let text = text(node)?;
    let variable = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let value =
        variable.and_then(|variable| variable.split_once(":-")).map_or(text.as_str(), |(_, value)| value);
    Some(value.trim().to_lowercase())
}

/// Replaces passwords in URLs, and the values of keys that name a secret, by asterisks. No other byte moves.
fn mask_secrets(text: &str) -> String {
    const NAMES: [&str; 6] = ["password", "passwd", "token", "secret", "api-key", "authorization"];
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
        for (at, _) in lower.match_indices(name) {
            let start = at + name.len();
            let rest = text.get(start..).unwrap_or_default();
            let Some(colon) = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-\"'".contains(c))) else {
                continue;
            };
            let is_key = rest.get(colon..).is_some_and(|rest| rest.starts_with(':'));
            if is_key {
                let value = rest.get(colon + 1..).unwrap_or_default();
                let end = value.find(['\n', ',', '}']).unwrap_or(value.len());
                secrets.push(start + colon + 1..start + colon + 1 + end);
            }
        }
    }
    let is_secret = |at: usize| secrets.iter().any(|secret| secret.contains(&at));
    let masked = text.char_indices().map(|(at, c)| match is_secret(at) && !c.is_whitespace() {
        true => Cow::Owned("*".repeat(c.len_utf8())),
        false => Cow::Owned(c.to_string()),
    });
    masked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, plugins: &[&str]) -> RrConfigReport {
        let source = SourceFile { name: ".rr.yaml".to_owned(), text: text.to_owned() };
        let plugins: Vec<String> = plugins.iter().map(|path| (*path).to_owned()).collect();
        check_rr_config(&source, Path::new("/no/such/directory"), &plugins)
    }

    /// `LINE:COLUMN level: message | text at the span`
    fn found(text: &str) -> Vec<String> {
        let RrConfigReport { source, findings } = report(text, &[]);
        findings
            .iter()
            .map(|finding| {
                let span = finding.span.clone().unwrap_or(0..0);
                let (line, column) = source.line_column(span.start);
                let shown = text.get(span).unwrap_or_default();
                format!("{line}:{column} {:?}: {} | {shown}", finding.level, finding.message)
            })
            .collect()
    }

    #[test]
    fn settings_that_change_are_found() {
        insta::assert_snapshot!(found(include_str!("../tests/v2025.rr.yaml")).join("\n"));
    }

    #[test]
    fn configurations_for_roadrunner_3_have_no_errors() {
        let text = "\
version: \"3\"
server: { command: \"php worker.php\" }
http:
  address: 127.0.0.1:8080
  middleware: [\"gzip\"]
  http2: { h2c: false }
logs: { mode: development, output: [\"rr.log\"] }
otel: { exporter: otlp }
amqp:
  brokerA: { addr: \"amqp://guest:guest@127.0.0.1:5672\" }
jobs:
  pool: { num_workers: 4 }
  pipelines:
    p1: { driver: amqp, config: { connection: brokera, exchange: { name: e }, queue: { name: q } } }
    p2: { driver: memory }
";
        let findings = found(text);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains("the job header `pool`"), "{findings:?}");
    }

    #[test]
    fn keys_are_found_as_roadrunner_finds_them() {
        let merged = "x: &base { middleware: [static, gzip] }\nHTTP:\n  <<: *base\n";
        assert!(found(merged)[0].contains("order of the HTTP middleware"), "{:?}", found(merged));
        assert!(found("http: { middleware: \"static,gzip\" }")[0].contains("order"));
        assert_eq!(found("http: { middleware: [gzip, gzip] }"), Vec::<String>::new());
        assert!(found("otel: { exporter: \"${EXPORTER:-zipkin}\" }")[0].contains("Zipkin"));
        assert_eq!(found("otel: { exporter: \"${EXPORTER}\" }"), Vec::<String>::new());
        let unicode = found("\u{feff}# ä€😀\ntcp: {}\n");
        assert_eq!(unicode, ["2:1 Error: the plugin tcp is no longer part of RoadRunner's own binary | tcp"]);
        assert_eq!(report("tcp: {}", &["github.com/roadrunner-server/tcp/v6"]).findings, []);
        let kv = "kv: { a: { driver: memory }, b: { driver: redis } }";
        assert_eq!(report(kv, &["github.com/roadrunner-server/memory/v6"]).findings.len(), 1);
        assert_eq!(report(kv, &[]).findings, []);
    }

    #[test]
    fn any_text_is_checked_without_a_panic() {
        for text in
            ["", "a", "- 1\n- 2", "a: [", "a: *b", "? [x]: y", "\u{feff}", "1: 2\nhttp: 3\namqp: []\njobs: x"]
        {
            report(text, &[]);
        }
        assert!(found("http: [").first().is_some_and(|first| first.contains("failed to parse `.rr.yaml`")));
        let deep = format!("http: {}{}", "{ a: ".repeat(200), "1".to_owned() + &" }".repeat(200));
        report(&deep, &[]);
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
