//! Settings that change with RoadRunner 3 (<https://docs.roadrunner.dev/docs/general/v3-migration>).

use std::{collections::BTreeSet, ops::Range, path::Path};

use velox_manifest::{ConfigEntry, ConfigNode, ConfigValue, Diagnostic};

use super::{entries, entries_at, find, is_variable, list_items, lower_text, text, text_at};
use crate::without_major;

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

/// The problems of a configuration with RoadRunner 3. An error is a setting with which RoadRunner 3 does not start or
/// which it ignores, a warning a change of behavior. `directory` contains the file; `plugins` are the module paths of the
/// plugins in the binary, or empty if they are unknown.
pub(super) fn changes(root: &ConfigNode, directory: &Path, plugins: &[String]) -> Vec<Diagnostic> {
    let plugins = plugins.iter().map(|path| without_major(path)).collect();
    let mut check = ChangeCheck { directory, plugins, findings: Vec::new() };
    check.root(root);
    check.findings
}

struct ChangeCheck<'a> {
    directory: &'a Path,
    /// The module paths of the plugins, without major versions.
    plugins: BTreeSet<&'a str>,
    findings: Vec<Diagnostic>,
}

impl ChangeCheck<'_> {
    fn root(&mut self, root: &ConfigNode) {
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
            self.warn(
                &include.span,
                "included files are not checked",
                "not read",
                "check each of them with `--rr-config FILE`",
            );
        }
        for (path, message, label, help) in NOTICES {
            if let Some(entry) = find(root, path) {
                self.warn(&entry.span, message, label, help);
            }
        }
    }

    fn version(&mut self, root: &ConfigNode) {
        let Some(entry) = find(root, "version") else { return };
        match text(&entry.node) {
            Some(version) if version == "3" => {}
            Some(version) => {
                let message = format!("the configuration has version {version}");
                self.warn(&entry.node.span, message, "expected \"3\"", "set version: \"3\"");
            }
            None => {
                self.error(
                    &entry.node.span,
                    "the version of the configuration is not a string",
                    "expected a string",
                    "set version: \"3\"",
                );
            }
        }
    }

    fn env_file(&mut self, root: &ConfigNode) {
        let Some(entry) = find(root, "envfile") else { return };
        let Some(name) = text(&entry.node).filter(|name| !name.is_empty()) else { return };
        // RoadRunner joins the path to the directory of the file, even if it is absolute.
        let file = self.directory.join(name.trim_start_matches('/'));
        if file.is_file() {
            self.warn(
                &entry.node.span,
                format!("the environment file `{name}` is always loaded"),
                "older releases load it in experimental mode only",
                "check that its variables are meant for this server",
            );
        } else {
            self.error(
                &entry.node.span,
                format!("the environment file `{name}` does not exist"),
                "RoadRunner 3 does not start without it",
                "create the file beside the configuration, or remove `envfile`",
            );
        }
    }

    fn middleware(&mut self, root: &ConfigNode) {
        let Some(entry) = find(root, "http.middleware") else { return };
        let mut names: Vec<String> = list_items(&entry.node).into_iter().map(|(name, _)| name).collect();
        if names.iter().collect::<BTreeSet<_>>().len() < 2 {
            return;
        }
        names.reverse();
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        self.warn(
            &entry.span,
            "the order of the HTTP middleware is reversed",
            "requests pass the list from left to right",
            format!("to keep the order, write middleware: [{}]", quoted.join(", ")),
        );
    }

    fn logs(&mut self, root: &ConfigNode) {
        let Some(logs) = find(root, "logs") else { return };
        self.logger(&logs.node);
        for channel in entries_at(&logs.node, "channels") {
            self.logger(&channel.node);
        }
    }

    fn logger(&mut self, logger: &ConfigNode) {
        if let Some(options) = find(logger, "file_logger_options") {
            let file = text_at(&options.node, "log_output").unwrap_or_else(|| "FILE".to_owned());
            let rotates = ROTATION_KEYS.iter().any(|key| find(&options.node, key).is_some());
            let help = format!("write output: [\"{file}\"] in its place");
            self.error(
                &options.span,
                "`file_logger_options` was removed",
                "ignored: the log is written to stderr",
                help,
            );
            if let Some(finding) = self.findings.last_mut().filter(|_| rotates) {
                finding.help.push("RoadRunner 3 does not rotate log files: use logrotate with `copytruncate`, or write the log to stderr".to_owned());
            }
        }
        if let Some(mode) = find(logger, "mode")
            && lower_text(&mode.node).as_deref() == Some("production")
        {
            self.warn(
                &mode.node.span,
                "the JSON log has other fields",
                "`ts` is now `time`, and levels are in upper case",
                "adapt what parses the log",
            );
        }
        if let Some(level) = find(logger, "level")
            && let Some(value) = lower_text(&level.node)
            && matches!(value.as_str(), "panic" | "dpanic" | "fatal")
        {
            self.warn(
                &level.node.span,
                format!("unknown log level `{value}`"),
                "counts as debug",
                "use error, warn, info or debug",
            );
        }
    }

    fn tracing(&mut self, root: &ConfigNode) {
        let Some(exporter) = find(root, "otel.exporter") else { return };
        let Some(name) = lower_text(&exporter.node).filter(|name| name == "zipkin" || name == "jaeger")
        else {
            return;
        };
        let title = if name == "zipkin" { "Zipkin" } else { "Jaeger" };
        self.error(&exporter.node.span,
            format!("the {title} exporter of OpenTelemetry was removed"),
            "use \"otlp\"", format!(
            "set exporter: otlp and endpoint: HOST:4318 of an OpenTelemetry Collector, which can send to {title}"
        ));
    }

    /// The names of the connections; `None` without a section `amqp`.
    fn amqp_connections(&mut self, root: &ConfigNode) -> Option<BTreeSet<String>> {
        let amqp = find(root, "amqp")?;
        let mut names = BTreeSet::new();
        for entry in entries(&amqp.node) {
            let key = &entry.key;
            let is_mapping = entry.node.entries().is_some();
            let is_old = match key.to_lowercase().as_str() {
                "addr" => !is_mapping,
                "tls" => find(&entry.node, "addr").is_none(),
                _ => false,
            };
            if is_old {
                self.error(&entry.span,
                    format!("AMQP connections have names: `amqp.{key}` was removed"),
                    format!("move it to `amqp.NAME.{key}`"), "write amqp: { default: { addr: … } }, and connection: default in `config` of each AMQP pipeline");
                continue;
            }
            if text_at(&entry.node, "addr").is_none_or(|address| address.is_empty()) {
                self.error(
                    &entry.span,
                    format!("the AMQP connection `{key}` has no address"),
                    "no `addr`",
                    format!("set addr in amqp.{key}; there is no default"),
                );
            }
            names.insert(key.to_lowercase());
        }
        Some(names)
    }

    fn amqp_pipelines(&mut self, root: &ConfigNode, connections: &Option<BTreeSet<String>>) {
        for pipeline in entries_at(root, "jobs.pipelines") {
            let name = &pipeline.key;
            if find(&pipeline.node, "driver").is_none_or(|it| lower_text(&it.node).as_deref() != Some("amqp"))
            {
                continue;
            }
            let config = find(&pipeline.node, "config");
            let place = config.map_or(&pipeline.span, |config| &config.span);
            let connection = config.and_then(|config| find(&config.node, "connection"));
            match connection.map(|connection| (connection, text(&connection.node).unwrap_or_default())) {
                None => {
                    self.error(
                        place,
                        format!("the AMQP pipeline `{name}` has no connection"),
                        "no `config.connection`",
                        "set connection to the NAME of amqp.NAME.addr",
                    );
                }
                Some((connection, value)) => {
                    let is_known = value.contains('$')
                        || connections.as_ref().is_some_and(|names| names.contains(&value.to_lowercase()));
                    if !is_known {
                        self.error(
                            &connection.node.span,
                            format!("the AMQP connection `{value}` of pipeline `{name}` does not exist"),
                            format!("no `amqp.{value}`"),
                            "set connection to the NAME of amqp.NAME.addr",
                        );
                    }
                }
            }
            if let Some(config) = config {
                self.amqp_pipeline(name, config);
            }
        }
    }

    fn amqp_pipeline(&mut self, name: &str, config: &ConfigEntry) {
        if let Some(version) = find(&config.node, "version") {
            self.error(
                &version.span,
                "AMQP pipelines have no version any more",
                "remove it",
                "the version at the top of the file stays",
            );
        }
        let mut has_section = false;
        for (key, new) in AMQP_MOVED_KEYS {
            let Some(entry) = find(&config.node, key) else { continue };
            let is_section = matches!(key, "exchange" | "queue");
            has_section = true;
            if !(is_section && entry.node.entries().is_some()) {
                self.error(
                    &entry.span,
                    format!("`{key}` of the AMQP pipeline `{name}` has another place"),
                    format!("move it to `{new}`"),
                    "write exchange: { name: …, type: … } and queue: { name: …, routing_key: … }",
                );
            }
        }
        if !has_section {
            self.error(
                &config.span,
                format!("the AMQP pipeline `{name}` has neither an exchange nor a queue"),
                "one of them is required",
                "write exchange: { name: …, type: … } and queue: { name: …, routing_key: … }",
            );
        }
    }

    fn jobs(&mut self, root: &ConfigNode) {
        let (pool, pools) = (find(root, "jobs.pool"), find(root, "jobs.pools"));
        if let (Some(_), Some(pools)) = (pool, pools) {
            self.error(
                &pools.span,
                "jobs have both `pool` and `pools`",
                "remove one of them",
                "`pools` has several worker pools by name, `pool` a single one",
            );
        }
        if let Some(pool) = pool
            && text_at(&pool.node, "num_workers").is_none_or(|workers| workers == "0")
        {
            self.warn(
                &pool.span,
                "the pool of jobs has no number of workers",
                "only two pollers are started",
                "set num_workers",
            );
        }
        for pipeline in entries_at(root, "jobs.pipelines") {
            let Some(consumer) = find(&pipeline.node, "config.consumer_options") else { continue };
            if let (Some(topics), Some(_)) =
                (find(&consumer.node, "topics"), find(&consumer.node, "consume_partitions"))
            {
                self.warn(
                    &topics.span,
                    "`consume_partitions` is now applied",
                    "conflicts with `consume_partitions`",
                    "remove `topics`",
                );
            }
        }
    }

    fn tcp(&mut self, root: &ConfigNode) {
        let Some(entry) = find(root, "tcp") else { return };
        if self.plugins.contains("github.com/roadrunner-server/tcp") {
            return;
        }
        self.error(
            &entry.span,
            "the plugin tcp is no longer part of RoadRunner's own binary",
            "ignored without the plugin",
            "add it to velox.toml with `vx add tcp`, or remove the section",
        );
    }

    fn cleartext_http2(&mut self, root: &ConfigNode) {
        let Some(entry) = find(root, "http.http2.h2c") else { return };
        if lower_text(&entry.node).as_deref() == Some("true") {
            self.warn(
                &entry.span,
                "cleartext HTTP/2 requires prior knowledge",
                "`Upgrade: h2c` of HTTP/1.1 is ignored",
                "configure clients and proxies to connect with HTTP/2 (`curl --http2-prior-knowledge`)",
            );
        }
    }

    fn storages(&mut self, root: &ConfigNode) {
        for storage in entries_at(root, "kv") {
            let Some(driver) = find(&storage.node, "driver") else { continue };
            let Some(name) = lower_text(&driver.node).filter(|name| !is_variable(name)) else { continue };
            let is_driver = |path: &&str| path.rsplit('/').next() == Some(name.as_str());
            if !self.plugins.is_empty() && !self.plugins.iter().any(is_driver) {
                self.warn(
                    &driver.node.span,
                    format!("no plugin for the key-value driver `{name}`"),
                    "RoadRunner 3 does not start without it",
                    format!("add it to velox.toml: `vx add {name}`"),
                );
            }
        }
    }

    fn file_server(&mut self, root: &ConfigNode) {
        let Some(entry) = find(root, "fileserver") else { return };
        let is_empty = |node: &ConfigNode| match &node.value {
            ConfigValue::Array(items) => items.is_empty(),
            _ => text(node).is_none_or(|text| text.is_empty()),
        };
        for key in ["address", "serve"] {
            if find(&entry.node, key).is_none_or(|entry| is_empty(&entry.node)) {
                self.error(
                    &entry.span,
                    format!("the file server has no `{key}`"),
                    "RoadRunner 3 does not start",
                    format!("set fileserver.{key}, or remove the section"),
                );
            }
        }
    }

    fn error(
        &mut self,
        span: &Option<Range<usize>>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.findings.push(Diagnostic::error(message).at(span.clone()).label(label).help(help));
    }

    fn warn(
        &mut self,
        span: &Option<Range<usize>>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.findings.push(Diagnostic::warning(message).at(span.clone()).label(label).help(help));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use velox_manifest::SourceFile;

    use crate::{RrConfigReport, check_rr_config};

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
        insta::assert_snapshot!(found(include_str!("../../tests/v2025.rr.yaml")).join("\n"));
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
        assert!(found("http: [").first().is_some_and(|first| first.contains("invalid YAML")));
        let deep = format!("http: {}{}", "{ a: ".repeat(200), "1".to_owned() + &" }".repeat(200));
        report(&deep, &[]);
    }
}
