//! Asking the go command, which asks the module proxies, or the version control of what GOPRIVATE covers.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use velox_gomod::module::Version;

use crate::{
    Error, Event, Phase,
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

/// Downloads all `modules` with one command. The answer has an entry for each of them, by its path.
///
/// # Errors
/// A module whose checksum is wrong ends the build: no other source may stand in for it.
pub(super) async fn download(
    go: &Toolchain,
    children: &Children,
    modules: &[Version],
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
