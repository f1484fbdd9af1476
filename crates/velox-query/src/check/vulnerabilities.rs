use url::Url;
use velox_build::{BuildRequest, LockedPlugin, http_client};
use velox_gomod::{module::ModuleVersion, semver};
use velox_manifest::{Forge, Level};

use super::{CheckRule, Finding, VulnerabilityLookup};
use crate::{
    ModuleGraph,
    osv::{self, Vulnerability},
};

/// Looks up all compiled modules in OSV.
pub(super) async fn find(
    request: &BuildRequest,
    graph: &ModuleGraph,
) -> Result<(VulnerabilityLookup, Vec<Finding>), String> {
    if request.options.is_offline() {
        return Err("`--offline` forbids the lookup".to_owned());
    }
    let address = request.environment.get("VX_OSV_URL").filter(|url| !url.is_empty());
    let base = Url::parse(address.map_or(osv::PUBLIC_URL, String::as_str))
        .map_err(|error| format!("invalid URL in VX_OSV_URL: {error}"))?;
    let client = http_client(&request.environment).map_err(|error| error.to_string())?;
    let compiled = graph.resolved.compiled.iter();
    let (private, mut modules): (Vec<ModuleVersion>, Vec<ModuleVersion>) = compiled
        .filter_map(|(path, selected)| match &selected.replacement {
            None => Some(ModuleVersion { path: path.clone(), version: selected.version.clone() }),
            Some((path, version)) => Some(ModuleVersion { path: path.clone(), version: version.clone()? }),
        })
        .chain([graph.lock().roadrunner()])
        .partition(|module| is_private(request, graph, &module.path));
    modules.extend(standard_library(&graph.lock().go_version));
    let found = osv::vulnerabilities(&client, &base, &modules).await?;
    let lookup = VulnerabilityLookup { asked: modules.len(), private: private.len() };
    let findings = found.into_iter().map(|(module, known)| finding(request, graph, &module, known)).collect();
    Ok((lookup, findings))
}

/// Whether the module is private for the go command or on a self-hosted forge.
fn is_private(request: &BuildRequest, graph: &ModuleGraph, path: &str) -> bool {
    let manifest = &request.manifest;
    let host = path.split('/').next();
    let forges = [&manifest.github, &manifest.gitlab];
    let is_self_hosted = |plugin: &LockedPlugin| {
        let configured = manifest.plugins.iter().find(|it| it.name.value == plugin.name);
        configured.and_then(|it| it.forge(manifest)).is_some_and(Forge::is_self_hosted)
    };
    let lock = graph.lock();
    graph.is_private(path)
        || forges.iter().any(|forge| forge.is_self_hosted() && host == Some(forge.host()))
        || (path == lock.roadrunner.module && manifest.github.is_self_hosted())
        || lock
            .plugins
            .iter()
            .any(|plugin| plugin.source().is_some_and(|source| source.path == path) && is_self_hosted(plugin))
}

/// Converts `go1.26.8` to a version of OSV's standard library module; `None` if it is not a release.
fn standard_library(go_version: &str) -> Option<ModuleVersion> {
    let version = format!("v{}", go_version.strip_prefix("go")?);
    semver::is_valid(&version).then(|| ModuleVersion { path: osv::STANDARD_LIBRARY.to_owned(), version })
}

fn finding(
    request: &BuildRequest,
    graph: &ModuleGraph,
    module: &ModuleVersion,
    known: Vec<Vulnerability>,
) -> Finding {
    let is_standard = module.path == osv::STANDARD_LIBRARY;
    let is_roadrunner = module.path == graph.lock().roadrunner.module;
    let plugin = graph.lock().plugins.iter().find(|plugin| plugin.source().as_ref() == Some(module));
    let manifest = &request.manifest;
    let configured =
        plugin.and_then(|plugin| manifest.plugins.iter().find(|it| it.name.value == plugin.name));
    let reference = match configured {
        Some(configured) => Some(&configured.reference),
        None => manifest.roadrunner.reference.as_ref().filter(|_| is_roadrunner),
    };
    let span = reference.and_then(|reference| reference.span.clone());
    let name = match is_standard {
        true => format!("Go {}", module.version.trim_start_matches('v')),
        false => format!("{} {}", module.path, module.version),
    };
    let count = match known.len() {
        1 => "1 known vulnerability".to_owned(),
        many => format!("{many} known vulnerabilities"),
    };
    let message = format!("{name} has {count}");
    let mut finding = Finding::new(CheckRule::Vulnerable, Level::Warning, message, span, &count);
    for Vulnerability { id, summary, fixed, .. } in &known {
        let fixed = match fixed {
            Some(version) if is_standard => format!("fixed in Go {}", version.trim_start_matches('v')),
            Some(version) => format!("fixed in {version}"),
            None => "no fix available".to_owned(),
        };
        finding = finding.because(format!("{id}: {summary} ({fixed})"));
    }
    if let (None, Some(chain)) = (plugin, shortest_chain(graph, &module.path)) {
        finding = finding.because(format!("required through {chain}"));
    }
    let newest = known.iter().filter_map(|known| known.fixed.as_deref()).max_by(|a, b| semver::compare(a, b));
    let remedy = match newest {
        Some(version) if is_standard => {
            format!("install Go {} or newer, then run `vx lock --upgrade`", version.trim_start_matches('v'))
        }
        Some(version) if plugin.is_some() || is_roadrunner => format!("upgrade to {version} or newer"),
        Some(version) => format!(
            "upgrade the plugin that requires it, or override it: [[replaces]] old = \"{0}\", new = \"{0}@{version}\"",
            module.path
        ),
        None => "run Go's govulncheck on the binary to see whether the vulnerable code is called".to_owned(),
    };
    finding.vulnerabilities = known;
    finding.remedy(remedy)
}

/// The shortest path of requirements from a plugin to a module.
fn shortest_chain(graph: &ModuleGraph, path: &str) -> Option<String> {
    let chains = graph.plugins().into_iter().filter_map(|plugin| graph.chain(&plugin, path));
    let modules = chains.min_by_key(Vec::len)?;
    let names: Vec<String> = modules.iter().map(|it| format!("{} {}", it.path, it.version)).collect();
    Some(names.join(" → "))
}
