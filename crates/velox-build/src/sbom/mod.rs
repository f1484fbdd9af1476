//! The bill of materials of a binary: the modules that are compiled in, their sums, licenses and repositories.
//!
//! Equal locks and module caches give equal bytes: nothing depends on the time, the machine, or the order of downloads.

mod cyclonedx;
mod spdx;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, HEXLOWER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use velox_fetch::modcache::{CacheFile, ModCache};
use velox_gomod::{
    modfile::{GoMod, Require},
    module::ModuleVersion,
    pseudo,
};
use velox_manifest::GoTarget;

use crate::{
    compile::go_build::build_flags,
    context::BuildContext,
    error::Error,
    licenses::{LicenseFinder, ModuleLicense},
    lock::{Lock, LockedPlugin, TargetVariant},
    resolve::download::{VcsOrigin, VersionInfo},
    sbom_format::SbomFormat,
    settings::BuildSettings,
    stamp::Stamp,
    toolchain::Toolchain,
    workspace::tree,
};

/// What a package URL leaves as it is (<https://github.com/package-url/purl-spec>).
const PURL: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// The bill of materials of a binary.
#[derive(Debug, Clone)]
pub struct Sbom {
    /// The target.
    pub target: GoTarget,
    /// RoadRunner.
    pub roadrunner: SbomModule,
    /// The other compiled modules, sorted by path, and the standard library as `stdlib`.
    pub modules: Vec<SbomModule>,
    /// The build settings: names and values.
    properties: Vec<(&'static str, String)>,
    /// The commit time of RoadRunner, in RFC 3339.
    created: String,
    /// The SHA-256 of the binary; `None`: it wasn't built.
    binary: Option<String>,
}

/// A module in a [`Sbom`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SbomModule {
    /// The module path by which it is imported.
    pub path: String,
    /// The selected version.
    pub version: String,
    /// The path and version of the replacement (no version for a directory).
    pub replacement: Option<(String, Option<String>)>,
    /// The name of the plugin, if it is one.
    pub plugin: Option<String>,
    /// The license.
    pub license: ModuleLicense,
    /// The `h1:` sum of its zip.
    sum: Option<String>,
    /// The SHA-256 of a directory's files.
    directory_digest: Option<String>,
    /// The URL of its repository.
    repository: Option<String>,
    /// The commit, abbreviated if only a pseudo-version has it.
    commit: Option<String>,
    /// Its direct requirements that are compiled in: indices of [`Sbom::modules`].
    requires: Vec<usize>,
}

/// What a bill of materials is made from.
struct SbomSource {
    lock: Lock,
    variant: TargetVariant,
    settings: BuildSettings,
    stamp: Stamp,
    module_cache: ModCache,
    /// The directory with RoadRunner's source.
    roadrunner: PathBuf,
    /// The directories of local replacements, each with the path of the replaced module.
    directories: Vec<(String, PathBuf)>,
}

/// Collects the bill of materials of a target on another thread. `roadrunner` is the directory with its source,
/// `directories` has those of local replacements, each with the path of the replaced module.
pub(crate) async fn collect(
    context: &BuildContext<'_>,
    go: &Toolchain,
    lock: &Lock,
    variant: &TargetVariant,
    roadrunner: &Path,
    directories: &[(String, PathBuf)],
) -> Result<Sbom, Error> {
    let source = SbomSource {
        lock: lock.clone(),
        variant: variant.clone(),
        settings: context.settings.clone(),
        stamp: context.stamp(lock),
        module_cache: go.modules(),
        roadrunner: roadrunner.to_owned(),
        directories: directories.to_vec(),
    };
    let collecting = tokio::task::spawn_blocking(move || Sbom::collect(&source));
    let failed = |error| Error::build(format!("internal error: collecting the modules failed: {error}"));
    collecting.await.map_err(failed)?
}

impl Sbom {
    /// Reads the module cache.
    fn collect(source: &SbomSource) -> Result<Self, Error> {
        let SbomSource { lock, variant, settings, .. } = source;
        let locked = lock.targets.get(variant).cloned().unwrap_or_default();
        let mut finder = LicenseFinder::default();
        let mut modules = Vec::new();
        let mut requirements: Vec<Vec<Require>> = Vec::new();
        for (path, selected) in lock.selected(&locked) {
            let module = SbomModule {
                plugin: lock.plugins.iter().find(|plugin| plugin.module == path).map(|it| it.name.clone()),
                path,
                version: selected.version,
                replacement: selected.replacement,
                ..SbomModule::default()
            };
            let (module, required) = source.complete(module, &mut finder)?;
            modules.push(module);
            requirements.push(required);
        }
        let mut roadrunner = SbomModule {
            path: lock.roadrunner.module.clone(),
            version: lock.roadrunner.version.clone(),
            license: finder.find(&source.roadrunner)?,
            ..SbomModule::default()
        };
        source.locate(&lock.roadrunner(), lock.roadrunner.commit.as_ref(), &mut roadrunner)?;
        let index: BTreeMap<String, usize> =
            modules.iter().enumerate().map(|(at, module)| (module.path.clone(), at)).collect();
        let of = |requires: &[Require]| {
            let direct = requires.iter().filter(|require| !require.indirect);
            let mut found: Vec<usize> =
                direct.filter_map(|require| index.get(&require.path).copied()).collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        for (module, required) in modules.iter_mut().zip(&requirements) {
            module.requires = of(required);
        }
        roadrunner.requires = of(&lock.go_mod.require);
        // A module that others require only as `// indirect` is in RoadRunner's go.mod, too.
        for at in 0..modules.len() {
            let is_required = |by: &SbomModule| by.requires.contains(&at);
            if !is_required(&roadrunner) && !modules.iter().any(is_required) {
                roadrunner.requires.push(at);
            }
        }
        roadrunner.requires.push(modules.len());
        modules.push(SbomModule {
            path: "stdlib".to_owned(),
            version: lock.go_version.trim_start_matches("go").to_owned(),
            license: ModuleLicense::of_go(),
            repository: Some("https://go.googlesource.com/go".to_owned()),
            ..SbomModule::default()
        });
        Ok(Self {
            target: variant.target.clone(),
            roadrunner,
            modules,
            properties: properties(source, settings)?,
            created: jiff::Timestamp::from_second(lock.roadrunner.time).unwrap_or_default().to_string(),
            binary: None,
        })
    }

    /// Adds the SHA-256 of the binary.
    pub(crate) fn with_binary(mut self, sha256: &str) -> Self {
        self.binary = Some(sha256.to_owned());
        self
    }

    /// The document.
    #[must_use]
    pub fn render(&self, format: SbomFormat) -> String {
        let document = match format {
            SbomFormat::CycloneDx => cyclonedx::document(self),
            SbomFormat::Spdx => spdx::document(self),
        };
        format!("{document:#}\n")
    }

    /// The name and version of the tool that made it.
    fn tool() -> (&'static str, &'static str) {
        ("vx", env!("CARGO_PKG_VERSION"))
    }
}

impl SbomModule {
    fn is_stdlib(&self) -> bool {
        self.path == "stdlib"
    }

    /// The path and the version of the compiled source code; no version for a directory.
    #[must_use]
    pub fn source(&self) -> (&str, Option<&str>) {
        match &self.replacement {
            None => (&self.path, Some(&self.version)),
            Some((path, Some(version))) => (path, Some(version)),
            Some((_, None)) => (&self.path, None),
        }
    }

    /// The package URL, which also identifies it in the document. Its letters keep their case: Go's paths have one.
    fn purl(&self) -> String {
        let (path, version) = self.source();
        package_url(path, version)
    }

    /// SHA-256 in hexadecimal: of the sum, as other tools write it, or of a directory.
    fn sha256(&self) -> Option<String> {
        self.sum.as_deref().and_then(hex_of_sum).or_else(|| self.directory_digest.clone())
    }

    /// What it replaces, as `path@version`.
    fn replaced(&self) -> Option<String> {
        self.replacement.as_ref().map(|_| format!("{}@{}", self.path, self.version))
    }
}

impl SbomSource {
    /// Adds the sum, the repository and the license to a module. Also returns its requirements.
    fn complete(
        &self,
        mut module: SbomModule,
        finder: &mut LicenseFinder,
    ) -> Result<(SbomModule, Vec<Require>), Error> {
        let cache = &self.module_cache;
        let failed = |error: velox_fetch::modcache::ModCacheError| Error::build(error.to_string());
        let (directory, go_mod) = match module.source() {
            (path, Some(version)) => {
                let source = ModuleVersion::new(path, version);
                let commit = self.plugin(&module.path).and_then(|plugin| plugin.commit.as_ref());
                self.locate(&source, commit, &mut module)?;
                let directory = cache.dir(&source).map_err(failed)?;
                (directory, cache.path(&source, CacheFile::Mod).map_err(failed)?)
            }
            (path, None) => {
                let Some((_, directory)) = self.directories.iter().find(|(replaced, _)| replaced == path)
                else {
                    return Ok((module, Vec::new()));
                };
                module.directory_digest = Some(tree::digest(directory)?);
                (directory.clone(), directory.join("go.mod"))
            }
        };
        module.license = finder.find(&directory)?;
        // Old modules may have no go.mod.
        let go_mod = fs::read_to_string(go_mod).ok().and_then(|text| GoMod::parse_lax(&text).ok());
        Ok((module, go_mod.map(|go_mod| go_mod.require).unwrap_or_default()))
    }

    fn plugin(&self, path: &str) -> Option<&LockedPlugin> {
        self.lock.plugins.iter().find(|plugin| plugin.module == path)
    }

    /// Adds the sum, the repository and the commit of a module version.
    fn locate(
        &self,
        source: &ModuleVersion,
        commit: Option<&String>,
        module: &mut SbomModule,
    ) -> Result<(), Error> {
        module.sum = self.lock.go_sum.get(&source.path, &source.version).next().map(str::to_owned);
        let info =
            self.module_cache.path(source, CacheFile::Info).ok().and_then(|path| VersionInfo::read(&path));
        let VcsOrigin { url, hash } = info.and_then(|info| info.origin).unwrap_or_default();
        module.repository = url.and_then(|url| public_url(&url)).or_else(|| repository_of(&source.path));
        module.commit = Some(hash)
            .filter(|hash| !hash.is_empty())
            .or_else(|| commit.cloned())
            .or_else(|| pseudo::revision(&source.version).map(str::to_owned))
            .filter(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Ok(())
    }
}

/// The package URL of a module (<https://github.com/package-url/purl-spec>).
#[must_use]
pub fn package_url(path: &str, version: Option<&str>) -> String {
    let encode = |text: &str| utf8_percent_encode(text, PURL).to_string();
    let version = version.map(|version| format!("@{}", encode(version)));
    format!("pkg:golang/{}{}", encode(path), version.unwrap_or_default())
}

/// An `h1:` sum in hexadecimal.
#[must_use]
pub fn hex_of_sum(sum: &str) -> Option<String> {
    Some(HEXLOWER.encode(&BASE64.decode(sum.strip_prefix("h1:")?.as_bytes()).ok()?))
}

/// The URL without credentials; `None`: it isn't one.
fn public_url(url: &str) -> Option<String> {
    let mut url = url::Url::parse(url).ok().filter(url::Url::has_host)?;
    url.set_password(None).ok()?;
    if url.scheme() != "ssh" {
        url.set_username("").ok()?;
    }
    Some(url.to_string())
}

/// The repository of a module on a forge whose paths say where it is.
fn repository_of(path: &str) -> Option<String> {
    let mut parts = path.split('/');
    let (host, owner, name) = (parts.next()?, parts.next()?, parts.next()?);
    matches!(host, "github.com" | "bitbucket.org").then(|| format!("https://{host}/{owner}/{name}"))
}

/// The build settings, named as in <https://github.com/CycloneDX/cyclonedx-property-taxonomy/blob/main/cdx/gomod.md>
/// as far as they are there.
fn properties(
    SbomSource { lock, variant, stamp, .. }: &SbomSource,
    settings: &BuildSettings,
) -> Result<Vec<(&'static str, String)>, Error> {
    let flags = build_flags(settings, lock, stamp)?;
    let mut properties = vec![
        ("cdx:gomod:build:compiler", "gc".to_owned()),
        ("cdx:gomod:build:env:CGO_ENABLED", u8::from(variant.cgo).to_string()),
        ("cdx:gomod:build:env:GOARCH", variant.target.arch.clone()),
        ("cdx:gomod:build:env:GOOS", variant.target.os.clone()),
    ];
    properties.extend(variant.tags.iter().map(|tag| ("cdx:gomod:build:tag", tag.clone())));
    properties
        .extend(variant.instruction_set.iter().map(|set| ("vx:build:instruction-set", set.to_string())));
    properties.extend(flags.into_iter().map(|flag| ("vx:build:flag", flag)));
    properties.push(("vx:build:go-version", lock.go_version.clone()));
    properties.push(("vx:stamp:version", stamp.version.clone()));
    properties.push(("vx:stamp:time", stamp.time.clone()));
    Ok(properties)
}

/// A UUID of version 8, from the content (<https://www.rfc-editor.org/rfc/rfc9562#section-5.8>).
fn uuid_of(document: &Value) -> String {
    let digest = Sha256::digest(document.to_string());
    let mut bytes: [u8; 16] = std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default());
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_identify_the_compiled_source() {
        let module = |path: &str, replacement: Option<(&str, Option<&str>)>| SbomModule {
            path: path.to_owned(),
            version: "v2.0.0+incompatible".to_owned(),
            replacement: replacement.map(|(path, version)| (path.to_owned(), version.map(str::to_owned))),
            ..SbomModule::default()
        };
        let purl = |path: &str, replacement| module(path, replacement).purl();
        assert_eq!(purl("github.com/Acme/a_b", None), "pkg:golang/github.com/Acme/a_b@v2.0.0%2Bincompatible");
        let fork = Some(("example.com/fork/v3", Some("v3.0.0")));
        assert_eq!(purl("example.com/a", fork), "pkg:golang/example.com/fork/v3@v3.0.0");
        assert_eq!(purl("example.com/a", Some(("./replace/a", None))), "pkg:golang/example.com/a");
    }

    #[test]
    fn repository_urls_have_no_credentials() {
        for (url, expected) in [
            ("https://github.com/acme/lib", Some("https://github.com/acme/lib")),
            ("https://me:secret@git.acme.dev/lib", Some("https://git.acme.dev/lib")),
            ("https://secret@git.acme.dev/lib", Some("https://git.acme.dev/lib")),
            ("ssh://git@git.acme.dev/lib", Some("ssh://git@git.acme.dev/lib")),
            ("git@github.com:acme/lib.git", None),
            ("file:///home/me/lib", None),
        ] {
            assert_eq!(public_url(url).as_deref(), expected, "{url}");
        }
    }
}
