//! Asking the go command, which asks the module proxies, or the version control of what GOPRIVATE covers.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Deserialize;
use velox_gomod::{
    fetch::{Error as FetchError, Fetched, Fetcher, Verified, Wanted},
    modcache::{self, ModCache, Part},
    module::Version,
    semver, sumdb,
};

use super::pin::Sources;
use crate::{
    Error, Event, Note, Phase,
    process::Children,
    toolchain::{Mode, Toolchain},
};

/// What `go mod download -json` says of one module (<https://go.dev/ref/mod#go-mod-download>).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Download {
    pub(super) path: String,
    pub(super) version: String,
    pub(super) query: String,
    pub(super) error: String,
    pub(super) info: PathBuf,
    pub(super) go_mod: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) sum: String,
    pub(super) go_mod_sum: String,
    pub(super) origin: Option<Origin>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Origin {
    pub(super) hash: String,
}

/// Downloads all `modules`: exact versions from the module proxies; queries, and what the proxies can't serve, with one go
/// command. The answer has an entry for each of them, by its path.
///
/// # Errors
/// A module whose checksum is wrong ends the build: no other source may stand in for it.
pub(super) async fn download(
    sources: &Sources<'_>,
    modules: &[Version],
) -> Result<BTreeMap<String, Download>, Error> {
    let mut answers = native(sources, modules).await?;
    let rest: Vec<&Version> = modules.iter().filter(|module| !answers.contains_key(&module.path)).collect();
    answers.extend(by_go(sources.go, sources.children, &rest).await?);
    Ok(answers)
}

/// What the module proxies have of exact versions.
async fn native(sources: &Sources<'_>, modules: &[Version]) -> Result<BTreeMap<String, Download>, Error> {
    let Some(fetcher) = sources.fetcher else { return Ok(BTreeMap::new()) };
    let wanted: Vec<Wanted> = modules
        .iter()
        .filter(|module| semver::canonical(&module.version).as_deref() == Some(&module.version))
        .filter(|module| !fetcher.needs_go(&module.path))
        .map(|module| Wanted { module: module.clone(), zip_sums: Vec::new(), mod_sums: Vec::new() })
        .collect();
    let cache = ModCache::new(&sources.go.settings().gomodcache);
    let mut answers = BTreeMap::new();
    for (module, fetched) in fetch(sources, fetcher, wanted, Phase::Resolve).await? {
        let place = |part| cache.path(&module, part);
        if let Some(fetched) = fetched
            && let (Ok(info), Ok(go_mod), Ok(dir)) = (place(Part::Info), place(Part::Mod), cache.dir(&module))
        {
            let origin = std::fs::read_to_string(&info).ok();
            let origin = origin.and_then(|text| serde_json::from_str::<Info>(&text).ok()?.origin);
            let answer = Download {
                path: module.path.clone(),
                version: module.version.clone(),
                info,
                go_mod,
                dir,
                sum: fetched.sums.zip,
                go_mod_sum: fetched.sums.go_mod,
                origin,
                ..Download::default()
            };
            answers.insert(module.path, answer);
        }
    }
    Ok(answers)
}

/// Fetches from the proxies; `None` for what these can't serve, and another source may.
///
/// # Errors
/// A module whose checksum is wrong, a database that contradicts itself, an interruption.
pub(super) async fn fetch(
    sources: &Sources<'_>,
    fetcher: &Fetcher,
    wanted: Vec<Wanted>,
    phase: Phase,
) -> Result<Vec<(Version, Option<Fetched>)>, Error> {
    let modules: Vec<Version> = wanted.iter().map(|wanted| wanted.module.clone()).collect();
    let total = u64::try_from(wanted.len()).ok();
    let done = AtomicU64::new(0);
    let progress = |module: &Version| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        let item = format!("{} {}", module.path, module.version);
        sources.children.reporter.report(Event::Progress { phase, done, total, item });
    };
    let answers = tokio::select! {
        answers = fetcher.fetch(wanted, &progress) => answers,
        () = sources.children.cancel.cancelled() => return Err(Error::interrupted()),
    };
    let mut fetched = Vec::new();
    for (module, answer) in modules.into_iter().zip(answers) {
        let name = format!("{} {}", module.path, module.version);
        let answer = match answer {
            Ok(fetched) => Some(fetched),
            Err(FetchError::Mismatch { file, found, expected, .. }) => {
                let text = format!("its {file} has the sum {found}\nexpected is  {expected}");
                return Err(checksum_mismatch(&name, &text));
            }
            Err(error @ FetchError::Database { source: sumdb::Error::Security { .. }, .. }) => {
                return Err(checksum_mismatch(&name, &error.to_string()));
            }
            Err(error @ FetchError::Cache(modcache::Error::File { .. })) => {
                return Err(Error::build(error.to_string()).help(
                    "check the directory's permissions and the space on its disk; GOMODCACHE names another",
                ));
            }
            Err(_) => None,
        };
        fetched.push((module, answer));
    }
    let trusted = fetched
        .iter()
        .filter(|(_, fetched)| {
            fetched.as_ref().is_some_and(|fetched| fetched.verified == Verified::Nothing && fetched.bytes > 0)
        })
        .count();
    if trusted > 0 {
        let modules = if trusted == 1 { "1 module".to_owned() } else { format!("{trusted} modules") };
        let text = format!(
            "no checksum database was asked about {modules} (GONOSUMDB, GOSUMDB=off): the first use is trusted, and kept in the lock"
        );
        sources.children.reporter.report(Event::Note(Note::Text { text }));
    }
    Ok(fetched)
}

/// The part of an `.info` file that names the commit.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    origin: Option<Origin>,
}

pub(super) async fn by_go(
    go: &Toolchain,
    children: &Children,
    modules: &[&Version],
) -> Result<BTreeMap<String, Download>, Error> {
    if modules.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Outside of any module, so that no go.mod on the way changes what a query means.
    let outside = tempfile::tempdir()
        .map_err(|error| Error::file("make a directory in", &std::env::temp_dir(), &error))?;
    let queries: Vec<String> =
        modules.iter().map(|module| format!("{}@{}", module.path, module.version)).collect();
    let arguments: Vec<&str> =
        ["mod", "download", "-json", "--"].into_iter().chain(queries.iter().map(String::as_str)).collect();
    let total = u64::try_from(modules.len()).ok();
    let on_line = |line: &str| {
        if let Some(item) = line.strip_prefix("go: downloading ") {
            let event = Event::Progress { phase: Phase::Resolve, done: 0, total, item: item.to_owned() };
            children.reporter.report(event);
        }
    };
    let finished = go.run(Mode::Complete, None, &arguments, outside.path(), false, Some(&on_line)).await?;

    let mut answers = BTreeMap::new();
    for answer in serde_json::Deserializer::from_str(&finished.stdout).into_iter::<Download>() {
        let answer = answer.map_err(|error| {
            Error::build(format!("can't read what `go mod download -json` says: {error}"))
                .output(finished.stderr.clone())
        })?;
        if is_security_error(&answer.error) {
            return Err(checksum_mismatch(&format!("{}@{}", answer.path, answer.version), &answer.error));
        }
        answers.insert(answer.path.clone(), answer);
    }
    let why =
        finished.stderr.last().cloned().unwrap_or_else(|| "the go command says nothing about it".to_owned());
    if is_security_error(&why) {
        return Err(checksum_mismatch("a module", &finished.stderr.join("\n")));
    }
    for module in modules {
        answers
            .entry(module.path.clone())
            .or_insert_with(|| Download { error: why.clone(), ..Download::default() });
    }
    Ok(answers)
}

fn is_security_error(text: &str) -> bool {
    text.contains("SECURITY ERROR") || text.contains("checksum mismatch")
}

pub(super) fn checksum_mismatch(module: &str, text: &str) -> Error {
    Error::build(format!("{module} is not what its checksum says"))
        .help("someone changed the module after its sum was recorded, or changed it on the way: don't use it before you know which")
        .output(text.lines().map(str::to_owned).collect())
}

impl Download {
    /// What went wrong, without the module's name that Go puts before it.
    pub(super) fn reason(&self) -> String {
        let text =
            self.error.strip_prefix(&format!("{}@{}: ", self.path, self.version)).unwrap_or(&self.error);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
