//! Inspection of a RoadRunner binary.

use std::{fs::File, io::BufReader, path::Path};

use serde::Serialize;
use velox_gomod::{
    buildinfo::{BuildInfo, BuildModule},
    semver,
};
use velox_manifest::catalogue::{self, ROADRUNNER_MODULE};

use velox_build::{BuildRecord, Error};

use crate::{last_part, without_major};

/// The contents of a RoadRunner binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// RoadRunner's module path.
    pub roadrunner: String,
    /// RoadRunner's version; `None` if the binary doesn't contain it.
    pub version: Option<String>,
    /// Whether the binary has an embedded build record of vx.
    pub by_vx: bool,
    /// The version that `rr --version` shows; `None` if it can't be determined without running the binary.
    pub stamp_version: Option<String>,
    /// The build time that `rr --version` shows.
    pub stamp_time: Option<String>,
    /// The Go version that compiled it (`go1.26.8`).
    pub go_version: String,
    /// The target platform (`linux/amd64`).
    pub target: Option<String>,
    /// The build settings that Go and vx recorded, as `key=value`.
    pub flags: Vec<String>,
    /// The plugins, sorted by name. In a binary of another tool, these are the modules in the catalogue.
    pub plugins: Vec<BinaryModule>,
    /// The other modules that are compiled in, sorted by path.
    pub modules: Vec<BinaryModule>,
}

/// A module inside a binary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BinaryModule {
    /// The name in the catalogue, else the last element of the module path.
    pub name: String,
    /// Module path.
    pub module: String,
    /// Version.
    pub version: String,
    /// The replacement: a module and its version, or a directory.
    pub replacement: Option<String>,
}

impl Inspection {
    /// RoadRunner's version, or else the one that `rr --version` shows, if it can be one of this RoadRunner: Go records no
    /// version of the module that it builds.
    #[must_use]
    pub fn roadrunner_version(&self) -> Option<String> {
        let stamped = || {
            let version = format!("v{}", self.stamp_version.as_ref()?.trim_start_matches('v'));
            let major = semver::major(&version)?;
            self.roadrunner.ends_with(&format!("/{major}")).then_some(version)
        };
        self.version.clone().or_else(stamped)
    }
}

/// Inspects a RoadRunner binary for any platform, without running it.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let (info, record) = read(path)?;
    Ok(describe(&info, roadrunner_in(&info, path)?, record.as_ref()))
}

/// Reads the build information of a RoadRunner binary, and its build record, if vx built it.
pub(crate) fn read(path: &Path) -> Result<(BuildInfo, Option<BuildRecord>), Error> {
    let data = path.metadata().map_err(|error| Error::file("read", path, &error))?;
    // Opening a pipe or a device could block forever.
    if !data.is_file() {
        return Err(Error::build(format!("failed to read `{}`: not a regular file", path.display())));
    }
    let info = BuildInfo::read(path).map_err(|error| {
        Error::build(error.to_string())
            .help("pass a RoadRunner binary, such as the `rr` that `vx build` writes")
    })?;
    roadrunner_in(&info, path)?;
    let record = File::open(path)
        .and_then(|file| BuildRecord::find(BufReader::new(file)))
        .map_err(|error| Error::file("read", path, &error))?;
    Ok((info, record))
}

fn roadrunner_in<'a>(info: &'a BuildInfo, path: &Path) -> Result<&'a BuildModule, Error> {
    let mut all = std::iter::once(&info.main).chain(&info.deps);
    all.find(|module| without_major(&module.path) == ROADRUNNER_MODULE).ok_or_else(|| {
        let main = if info.main.path.is_empty() { &info.path } else { &info.main.path };
        Error::build(format!("{} is not a RoadRunner binary: its main module is {main}", path.display()))
    })
}

fn describe(info: &BuildInfo, roadrunner: &BuildModule, record: Option<&BuildRecord>) -> Inspection {
    let is_plugin = |module: &BuildModule| match record {
        Some(record) if !record.plugins.is_empty() => record.plugins.contains(&module.path),
        _ => catalogue::find(&module.path).is_some(),
    };
    let (plugins, modules): (Vec<&BuildModule>, Vec<&BuildModule>) = info
        .deps
        .iter()
        .filter(|module| module.path != roadrunner.path)
        .partition(|module| is_plugin(module));
    let sorted = |modules: Vec<&BuildModule>| {
        let mut modules: Vec<BinaryModule> = modules.into_iter().map(binary_module).collect();
        modules.sort();
        modules
    };
    let setting =
        |name: &str| info.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let stamped = |name: &str| stamp_in(&setting("-ldflags")?, name);
    let tagged = Some(&roadrunner.version).filter(|version| version.starts_with('v'));
    Inspection {
        roadrunner: roadrunner.path.clone(),
        version: record.map(|record| &record.version).or(tagged).cloned(),
        by_vx: record.is_some(),
        stamp_version: record.map(|record| record.stamp_version.clone()).or_else(|| stamped("version")),
        stamp_time: record.map(|record| record.stamp_time.clone()).or_else(|| stamped("buildTime")),
        go_version: info.go_version.clone(),
        target: setting("GOOS").zip(setting("GOARCH")).map(|(os, arch)| format!("{os}/{arch}")),
        flags: flags(info, record),
        plugins: sorted(plugins),
        modules: sorted(modules),
    }
}

fn binary_module(module: &BuildModule) -> BinaryModule {
    let name = catalogue::find(&module.path).map(|plugin| plugin.name.clone());
    BinaryModule {
        name: name.unwrap_or_else(|| last_part(&module.path).to_owned()),
        module: module.path.clone(),
        version: module.version.clone(),
        replacement: module
            .replace
            .as_ref()
            .map(|new| format!("{} {}", new.path, new.version).trim_end().to_owned()),
    }
}

fn flags(info: &BuildInfo, record: Option<&BuildRecord>) -> Vec<String> {
    let mut flags: Vec<String> = info
        .settings
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "GOOS" | "GOARCH"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let Some(record) = record else { return flags };
    flags.extend(record.debug.then(|| "debug=true".to_owned()));
    flags.extend(record.flags.iter().filter(|flag| !flags.contains(flag)).cloned().collect::<Vec<_>>());
    flags
}

/// The value of `-X …/internal/meta.NAME=VALUE` in the linker flags (recorded without `-trimpath`).
fn stamp_in(ldflags: &str, name: &str) -> Option<String> {
    let start = format!("/internal/meta.{name}=");
    let (_, rest) = ldflags.split_once(&start)?;
    let value = rest.split(|c: char| c.is_whitespace() || c == '\'' || c == '"').next()?;
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, version: &str) -> BuildModule {
        BuildModule { path: path.into(), version: version.into(), ..BuildModule::default() }
    }

    /// Velox builds a file, so that the binary has no main module.
    #[test]
    fn a_foreign_binary_is_described_by_its_build_information() {
        let roadrunner = module("github.com/roadrunner-server/roadrunner/v2024", "(devel)");
        let mut http = module("github.com/roadrunner-server/http/v5", "v5.0.2");
        http.replace = Some(Box::new(module("../http", "")));
        let info = BuildInfo {
            go_version: "go1.23.0".into(),
            path: "command-line-arguments".into(),
            deps: vec![module("go.uber.org/zap", "v1.27.0"), roadrunner.clone(), http],
            settings: vec![
                ("-ldflags".into(), "-s -X github.com/roadrunner-server/roadrunner/v2024/internal/meta.version=2024.2.1 -X x/internal/meta.buildTime=".into()),
                ("GOOS".into(), "linux".into()),
                ("GOARCH".into(), "arm64".into()),
            ],
            ..BuildInfo::default()
        };
        let found = describe(&info, &roadrunner, None);
        assert_eq!(found.roadrunner_version().as_deref(), Some("v2024.2.1"));
        assert_eq!((found.version, found.by_vx), (None, false));
        assert_eq!((found.stamp_version.as_deref(), found.stamp_time), (Some("2024.2.1"), None));
        assert_eq!(found.target.as_deref(), Some("linux/arm64"));
        assert_eq!(found.plugins.len(), 1);
        assert_eq!(found.plugins[0].replacement.as_deref(), Some("../http"));
        assert_eq!(found.modules.len(), 1);
    }
}
