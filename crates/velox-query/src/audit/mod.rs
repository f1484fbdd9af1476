//! Known vulnerabilities of a binary, and whether the vulnerable code is called, by the Go team's own analysis
//! (<https://go.dev/doc/security/vuln/>).
//!
//! ```text
//! prepared source tree ──govulncheck──► calls ──┐
//! vulnerability database ──► main module ───────┼──► AuditReport ──► text, JSON, SARIF, OpenVEX
//! ModuleGraph ──► plugins that require it ──────┘
//! ```

mod by_version;
mod database;
mod govulncheck;
mod openvex;
mod remedy;
mod sarif;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, Lock, QuerySession, Reporter, http_client, until_cancelled};
use velox_gomod::module::ModuleVersion;

pub use self::{
    by_version::{VersionAudit, VersionVulnerability, VulnerabilityDiff},
    database::PUBLIC_VULNERABILITY_DATABASE,
    remedy::{SecurityChange, SecurityPlan, SecuritySubject, UnfixedVulnerability},
};
use self::{
    database::VulnerabilityDatabase,
    govulncheck::{Analysis, GOVULNCHECK, OsvEntry, ScanFinding, ScanFrame},
};
use crate::ModuleGraph;

/// The module path of the standard library in vulnerability databases.
pub(crate) const STANDARD_LIBRARY: &str = "stdlib";

/// The vulnerabilities of a binary.
#[derive(Debug, Clone, Serialize)]
pub struct AuditReport {
    /// RoadRunner.
    #[serde(skip)]
    pub roadrunner: ModuleVersion,
    /// The versions that were analyzed.
    #[serde(skip)]
    pub lock: Lock,
    /// The version of Go (`go1.26.8`).
    pub go_version: String,
    /// The URL of the database.
    pub database: String,
    /// When the database was modified.
    pub database_modified: Timestamp,
    /// Whether the database lacks the vulnerabilities of the last month.
    pub is_database_old: bool,
    /// The analyzer and its version.
    pub scanner: String,
    /// The targets that were analyzed, `os/arch`.
    pub targets: Vec<String>,
    /// The number of modules that were looked up, the standard library included.
    pub modules: usize,
    /// Modules that no database knows: those replaced by local directories.
    pub not_checked: Vec<String>,
    /// The vulnerabilities, the called ones first.
    #[serde(skip)]
    pub vulnerabilities: Vec<Vulnerability>,
}

/// A known vulnerability of a module in the binary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Vulnerability {
    /// The id in the database (`GO-2024-2687`).
    pub id: String,
    /// Aliases (`CVE-…`, `GHSA-…`).
    pub aliases: Vec<String>,
    /// One line.
    pub summary: String,
    /// The URL of a description.
    pub url: String,
    /// The module path; `stdlib` for the standard library.
    pub module: String,
    /// The version in the binary.
    pub version: String,
    /// The lowest higher version with a fix.
    pub fixed: Option<String>,
    /// How much of it the binary uses; with several targets, the one that uses most of it.
    pub reach: Reach,
    /// The targets whose binaries use that much of it; empty for RoadRunner itself, which all contain.
    pub targets: Vec<String>,
    /// The vulnerable functions that are called.
    pub symbols: Vec<String>,
    /// The vulnerable packages that are imported.
    pub packages: Vec<String>,
    /// The plugins through which it is reached, by their names in the configuration: those on a call stack, else those
    /// that require the module.
    pub plugins: Vec<String>,
    /// A call stack to each function, the entry point first.
    pub calls: Vec<Vec<CallFrame>>,
    /// The shortest path of requirements from each plugin to the module, as `path version`.
    pub required_by: Vec<Vec<String>>,
}

/// How much of a vulnerability a binary uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// A module is required, but no vulnerable package is compiled.
    #[default]
    Required,
    /// A vulnerable package is compiled, but no vulnerable function is called.
    Imported,
    /// A vulnerable function is called.
    Called,
}

/// A function on a call stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallFrame {
    /// The function with its package and receiver.
    pub function: String,
    /// The module path.
    pub module: String,
    /// The version of the module; empty for RoadRunner.
    pub version: String,
    /// The file in the module.
    pub file: Option<String>,
    /// The line in the file, starting at 1.
    pub line: Option<u64>,
}

impl Reach {
    /// The word in the output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Imported => "imported",
            Self::Called => "called",
        }
    }
}

impl AuditReport {
    /// Analyzes the binary of a request. `database`: the URL of a Go vulnerability database. Only caches are written.
    ///
    /// # Errors
    /// The versions can't be resolved; the analyzer can't be had or fails; the database can't be read or is invalid.
    pub async fn load(
        request: &BuildRequest,
        database: &str,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        let client = http_client(&request.environment)?;
        let database = VulnerabilityDatabase::open(database, client, request.options.is_offline())?;
        let modified = until_cancelled(&cancel, database.modified()).await??;
        let graph = ModuleGraph::load(request, Arc::clone(&reporter), cancel.clone()).await?;
        let roadrunner = graph.lock().roadrunner();
        let reading = main_module(&database, &graph, &roadrunner);
        let of_roadrunner = until_cancelled(&cancel, reading).await??;
        let url = database.argument();
        let session = QuerySession::new(request, reporter, cancel)?;
        let arguments = ["-format", "json", "-scan", "symbol", "-db", &url];
        let output = session.run_go_tool(GOVULNCHECK, &arguments).await?;
        let mut analysis = Analysis::default();
        for (target, stdout) in &output.outputs {
            analysis.add(Analysis::parse(stdout)?, &target.to_string());
        }
        let targets = output.outputs.iter().map(|(target, _)| target.to_string()).collect();
        Ok(Self { targets, ..Self::new(&graph, output.lock, &analysis, of_roadrunner, url, modified) })
    }

    fn new(
        graph: &ModuleGraph,
        lock: Lock,
        analysis: &Analysis,
        of_roadrunner: Vec<OsvEntry>,
        database: String,
        (database_modified, is_database_old): (Timestamp, bool),
    ) -> Self {
        let names = ModulePluginNames::new(graph);
        let mut found: BTreeMap<(&str, &str), Vec<&ScanFinding>> = BTreeMap::new();
        for finding in &analysis.findings {
            if let Some(frame) = finding.trace.first() {
                found.entry((&finding.osv, &frame.module)).or_default().push(finding);
            }
        }
        let scanned = found.into_iter().filter_map(|((id, _), findings)| {
            let entry = analysis.entries.get(id)?;
            Some(vulnerability(graph, &names, entry, &findings))
        });
        let roadrunner = graph.lock().roadrunner();
        let own = of_roadrunner.iter().map(|entry| of_main_module(entry, &roadrunner));
        let mut vulnerabilities: Vec<Vulnerability> = scanned.chain(own).collect();
        vulnerabilities.sort_by(|one, other| {
            let key = |it: &Vulnerability| (it.id.clone(), it.module.clone());
            other.reach.cmp(&one.reach).then_with(|| key(one).cmp(&key(other)))
        });
        let (checked, local): (Vec<_>, Vec<_>) = analysis
            .modules
            .iter()
            .filter(|module| module.path != roadrunner.path)
            .partition(|module| !module.version.is_empty());
        let not_checked = local.into_iter().map(|module| names.of_directory(&module.path)).collect();
        Self {
            go_version: analysis.config.go_version.clone().unwrap_or_else(|| graph.lock().go_version.clone()),
            roadrunner,
            lock,
            database,
            database_modified,
            is_database_old,
            scanner: format!("{} {}", GOVULNCHECK.name, GOVULNCHECK.version),
            targets: Vec::new(),
            // With RoadRunner.
            modules: checked.len() + 1,
            not_checked,
            vulnerabilities,
        }
    }

    /// The number of vulnerabilities that are used this much.
    #[must_use]
    pub fn count(&self, reach: Reach) -> usize {
        self.vulnerabilities.iter().filter(|known| known.reach == reach).count()
    }
}

/// The entries about RoadRunner itself, which govulncheck doesn't look up: the main module has no version there.
async fn main_module(
    database: &VulnerabilityDatabase,
    graph: &ModuleGraph,
    roadrunner: &ModuleVersion,
) -> Result<Vec<OsvEntry>, Error> {
    let compiled = graph.resolved.compiled.keys().map(String::as_str);
    let modules: Vec<&str> = compiled.chain([roadrunner.path.as_str(), STANDARD_LIBRARY]).collect();
    let index = database.index(&modules).await?;
    let mut entries = Vec::new();
    for id in index.get(&roadrunner.path).into_iter().flatten() {
        let entry = database.entry(id).await?;
        if entry.withdrawn.is_none() && entry.is_affected(&roadrunner.path, &roadrunner.version) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The plugins by the paths of modules in call stacks, which are those of the replacements.
struct ModulePluginNames {
    plugins: BTreeMap<String, String>,
    /// The replaced modules by replacement.
    replaced: BTreeMap<String, String>,
}

impl ModulePluginNames {
    fn new(graph: &ModuleGraph) -> Self {
        let mut replaced = BTreeMap::new();
        for (path, selected) in &graph.resolved.compiled {
            if let Some((new, _)) = &selected.replacement {
                replaced.insert(new.clone(), path.clone());
            }
        }
        let plugins = graph.lock().plugins.iter();
        Self {
            plugins: plugins.map(|plugin| (plugin.module.clone(), plugin.name.clone())).collect(),
            replaced,
        }
    }

    /// The path of a module before its replacement.
    fn original<'a>(&'a self, path: &'a str) -> &'a str {
        self.replaced.get(path).map_or(path, String::as_str)
    }

    fn of(&self, path: &str) -> Option<&String> {
        self.plugins.get(self.original(path))
    }

    fn of_directory(&self, path: &str) -> String {
        match self.of(path) {
            Some(plugin) => format!("plugin {plugin}"),
            None => self.original(path).to_owned(),
        }
    }
}

fn vulnerability(
    graph: &ModuleGraph,
    names: &ModulePluginNames,
    entry: &OsvEntry,
    findings: &[&ScanFinding],
) -> Vulnerability {
    let vulnerable = findings.iter().filter_map(|finding| finding.trace.first());
    let unique = |mut texts: Vec<String>| {
        texts.sort();
        texts.dedup();
        texts
    };
    let (module, version) =
        vulnerable.clone().next().map_or(("", ""), |frame| (frame.module.as_str(), frame.version.as_str()));
    let called: Vec<&ScanFrame> = vulnerable.clone().filter(|frame| !frame.function.is_empty()).collect();
    let packages = vulnerable.filter(|frame| !frame.package.is_empty()).map(|frame| frame.package.clone());
    let packages = unique(packages.collect());
    // The analysis starts in the packages of plugins, and doesn't report what is vulnerable right there.
    let is_entry = packages.iter().any(|package| names.plugins.contains_key(package));
    let reach = match (called.is_empty(), packages.is_empty()) {
        (false, _) => Reach::Called,
        (true, false) if is_entry => Reach::Called,
        (true, false) => Reach::Imported,
        (true, true) => Reach::Required,
    };
    let uses = |finding: &&&ScanFinding| {
        finding.trace.first().is_some_and(|frame| match reach {
            Reach::Called => !frame.function.is_empty() || (is_entry && !frame.package.is_empty()),
            Reach::Imported => !frame.package.is_empty(),
            Reach::Required => true,
        })
    };
    let targets = unique(findings.iter().filter(uses).map(|finding| finding.target.clone()).collect());
    let stacks =
        findings.iter().filter(|finding| finding.trace.first().is_some_and(|it| !it.function.is_empty()));
    let on_stacks = stacks.clone().flat_map(|finding| &finding.trace);
    let mut plugins = unique(on_stacks.filter_map(|frame| names.of(&frame.module).cloned()).collect());
    let path = names.original(module);
    let chains: Vec<_> = graph.plugins().iter().filter_map(|plugin| graph.chain(plugin, path)).collect();
    if called.is_empty() {
        let requiring = chains.iter().filter_map(|chain| chain.first()).map(|plugin| &plugin.path);
        let of_plugins = requiring.filter_map(|path| names.plugins.get(path)).chain(names.of(path));
        plugins = unique(of_plugins.cloned().collect());
    }
    let line = |module: &crate::GraphModule| format!("{} {}", module.path, module.version);
    Vulnerability {
        reach,
        targets,
        symbols: unique(called.iter().map(|frame| frame.symbol()).collect()),
        packages,
        plugins,
        calls: {
            let mut calls: Vec<Vec<CallFrame>> = Vec::new();
            for finding in stacks {
                let stack: Vec<CallFrame> = finding.trace.iter().rev().map(call_frame).collect();
                // Targets have most stacks in common.
                if !calls.contains(&stack) {
                    calls.push(stack);
                }
            }
            calls
        },
        required_by: chains.iter().map(|chain| chain.iter().map(line).collect()).collect(),
        ..described(entry, module, version)
    }
}

/// Everything in the main module is the program itself: its vulnerabilities count as called.
fn of_main_module(entry: &OsvEntry, roadrunner: &ModuleVersion) -> Vulnerability {
    Vulnerability { reach: Reach::Called, ..described(entry, &roadrunner.path, &roadrunner.version) }
}

fn described(entry: &OsvEntry, module: &str, version: &str) -> Vulnerability {
    Vulnerability {
        id: entry.id.clone(),
        aliases: entry.aliases.clone(),
        summary: entry.title(),
        url: format!("https://pkg.go.dev/vuln/{}", entry.id),
        module: module.to_owned(),
        version: version.to_owned(),
        fixed: entry.fixed(module, version),
        ..Vulnerability::default()
    }
}

fn call_frame(frame: &ScanFrame) -> CallFrame {
    let position = frame.position.as_ref().filter(|position| position.line > 0);
    CallFrame {
        function: frame.symbol(),
        module: frame.module.clone(),
        version: frame.version.clone(),
        file: position.map(|position| position.filename.clone()).filter(|file| !file.is_empty()),
        line: position.map(|position| position.line),
    }
}

impl Vulnerability {
    /// The module as Go users name it: `Go 1.26.8` or `example.com/acme/lib v1.2.0`.
    #[must_use]
    pub fn subject(&self) -> String {
        module_display_name(&self.module, &self.version)
    }

    /// The fix, without the module.
    #[must_use]
    pub fn fix(&self) -> String {
        match &self.fixed {
            Some(version) if self.module == STANDARD_LIBRARY => format!("fixed in Go {}", number(version)),
            Some(version) => format!("fixed in {version}"),
            None => "no fix available".to_owned(),
        }
    }

    /// What the binary does with the vulnerable code.
    #[must_use]
    pub fn sentence(&self) -> String {
        let through = match self.plugins.as_slice() {
            [] => String::new(),
            [plugin] => format!(" through plugin {plugin}"),
            plugins => format!(" through plugins {}", plugins.join(", ")),
        };
        let subject = self.subject();
        match self.reach {
            Reach::Called if self.symbols.is_empty() => format!("{subject} is vulnerable, {}", self.fix()),
            Reach::Called => {
                format!("{subject}, {}: {} is called{through}", self.fix(), self.symbols.join(", "))
            }
            Reach::Imported => format!(
                "{subject}, {}: {} is imported{through}, but the vulnerable functions are not called",
                self.fix(),
                self.packages.join(", ")
            ),
            Reach::Required => {
                format!("{subject}, {}: required{through}, but no vulnerable package is compiled", self.fix())
            }
        }
    }

    /// What to do.
    fn action(&self) -> String {
        match &self.fixed {
            Some(_) => format!("update {}: {}", self.subject(), self.fix()),
            None => format!("no fix of {} is available", self.subject()),
        }
    }
}

/// A module as Go users name it: `Go 1.26.8` or `example.com/acme/lib v1.2.0`.
#[must_use]
pub fn module_display_name(module: &str, version: &str) -> String {
    match module {
        STANDARD_LIBRARY => format!("Go {}", number(version)),
        module => format!("{module} {version}"),
    }
}

/// `1.26.8` for `v1.26.8` and `go1.26.8`.
fn number(version: &str) -> &str {
    version.trim_start_matches(['v', 'g', 'o'])
}
