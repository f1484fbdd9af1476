use url::Url;
use velox_gomod::{module::Version, semver};
use velox_manifest::{Forge, Level};

use super::{Finding, LookedUp, Rule};
use velox_build::{BuildRequest, LockedPlugin, http_client};

use crate::{
    ModuleGraph,
    osv::{self, Vulnerability},
};

/// Asks OSV about everything that is compiled in.
pub(super) async fn find(
    request: &BuildRequest,
    study: &ModuleGraph,
) -> Result<(LookedUp, Vec<Finding>), String> {
    if request.options.is_offline() {
        return Err("--offline forbids to ask".to_owned());
    }
    let address = request.environment.get("VX_OSV_URL").filter(|url| !url.is_empty());
    let base = Url::parse(address.map_or(osv::PUBLIC, String::as_str))
        .map_err(|error| format!("VX_OSV_URL is no URL: {error}"))?;
    let client = http_client(&request.environment).map_err(|error| error.to_string())?;
    let compiled = study.resolved.compiled.iter();
    let (private, mut modules): (Vec<Version>, Vec<Version>) = compiled
        .filter_map(|(path, selected)| match &selected.replacement {
            None => Some(Version { path: path.clone(), version: selected.version.clone() }),
            Some((path, version)) => Some(Version { path: path.clone(), version: version.clone()? }),
        })
        .chain([study.resolved.lock.roadrunner()])
        .partition(|module| is_private(request, study, &module.path));
    modules.extend(standard_library(&study.resolved.lock.go_version));
    let found = osv::vulnerabilities(&client, &base, &modules).await?;
    let looked_up = LookedUp { asked: modules.len(), private: private.len() };
    let findings = found.into_iter().map(|(module, known)| finding(request, study, &module, known)).collect();
    Ok((looked_up, findings))
}

/// Names that the go command keeps from public services stay here too, and so does what a forge of the user's own has.
fn is_private(request: &BuildRequest, study: &ModuleGraph, path: &str) -> bool {
    let manifest = &request.manifest;
    let mut own_forges =
        [&manifest.github, &manifest.gitlab].into_iter().filter(|forge| forge.is_self_hosted());
    let own_host = own_forges.any(|forge| path.split('/').next() == Some(forge.host()));
    let from_own_forge = |plugin: &LockedPlugin| {
        let asked = manifest.plugins.iter().find(|asked| asked.name.value == plugin.name);
        asked.and_then(|asked| asked.forge(manifest)).is_some_and(Forge::is_self_hosted)
    };
    let mut plugins = study.resolved.lock.plugins.iter();
    study.is_private(path)
        || own_host
        || (path == study.resolved.lock.roadrunner.module && manifest.github.endpoint.is_some())
        || plugins
            .any(|plugin| plugin.source().is_some_and(|source| source.path == path) && from_own_forge(plugin))
}

/// `go1.26.8` as a version of the module that stands for the standard library; none for a Go that is no release.
fn standard_library(go_version: &str) -> Option<Version> {
    let version = format!("v{}", go_version.strip_prefix("go")?);
    semver::is_valid(&version).then(|| Version { path: osv::STANDARD_LIBRARY.to_owned(), version })
}

fn finding(
    request: &BuildRequest,
    study: &ModuleGraph,
    module: &Version,
    known: Vec<Vulnerability>,
) -> Finding {
    let standard = module.path == osv::STANDARD_LIBRARY;
    let plugin = study.resolved.lock.plugins.iter().find(|plugin| plugin.source().as_ref() == Some(module));
    let asked = plugin
        .and_then(|plugin| request.manifest.plugins.iter().find(|asked| asked.name.value == plugin.name));
    let name = if standard {
        format!("Go {}", module.version.trim_start_matches('v'))
    } else {
        format!("{} {}", module.path, module.version)
    };
    let count = match known.len() {
        1 => "1 known vulnerability".to_owned(),
        many => format!("{many} known vulnerabilities"),
    };
    let roadrunner = module.path == study.resolved.lock.roadrunner.module;
    let reference = match asked {
        Some(asked) => Some(&asked.reference),
        None => request.manifest.roadrunner.reference.as_ref().filter(|_| roadrunner),
    };
    let span = reference.and_then(|reference| reference.span.clone());
    let mut finding =
        Finding::new(Rule::Vulnerable, Level::Warning, format!("{name} has {count}"), span, &count);
    for Vulnerability { id, summary, fixed, .. } in &known {
        let fixed = match fixed {
            Some(version) if standard => format!(" (fixed in Go {})", version.trim_start_matches('v')),
            Some(version) => format!(" (fixed in {version})"),
            None => " (not fixed yet)".to_owned(),
        };
        finding = finding.because(format!("{id}: {summary}{fixed}"));
    }
    if let (None, Some(chain)) = (plugin, chain(study, &module.path)) {
        finding = finding.because(chain);
    }
    let newest = known.iter().filter_map(|known| known.fixed.as_deref()).max_by(|a, b| semver::compare(a, b));
    let remedy = match newest {
        Some(version) if standard => {
            format!("install Go {} or newer, then `vx lock --upgrade`", version.trim_start_matches('v'))
        }
        Some(version) if plugin.is_some() || roadrunner => format!("ask for {version} or newer"),
        Some(version) => format!(
            "upgrade the plugin that needs it, or force it: [[replaces]] old = \"{0}\", new = \"{0}@{version}\"",
            module.path
        ),
        None => "whether this server calls what is vulnerable, Go's govulncheck tells of the built binary"
            .to_owned(),
    };
    finding.vulnerabilities = known;
    finding.remedy(remedy)
}

/// How a module comes into the server.
fn chain(study: &ModuleGraph, path: &str) -> Option<String> {
    let chains = study.plugins().into_iter().filter_map(|plugin| study.chain(&plugin, path));
    let shortest = chains.min_by_key(Vec::len)?;
    let names: Vec<String> =
        shortest.iter().map(|module| format!("{} {}", module.path, module.version)).collect();
    Some(format!("it is needed so: {}", names.join(" → ")))
}
