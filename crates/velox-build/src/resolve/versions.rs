//! Which versions there are of a module, over its majors.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use serde::Deserialize;
use velox_gomod::{
    fetch::{Error as FetchError, Fetcher},
    module::{path_major_matches, split_path_version},
    semver,
};

use crate::{
    error::Error,
    toolchain::{ModuleMode, Toolchain},
};

/// How many majors above the highest that is there are asked about: some plugins left numbers out.
const MAJORS_AHEAD: u64 = 4;
/// How many lists are asked for at once.
pub(crate) const LISTS: usize = 24;

pub(crate) const ROADRUNNER: &str = "github.com/roadrunner-server/roadrunner";
/// RoadRunner's majors were years from this one on.
pub(crate) const FIRST_YEAR: u64 = 2023;

/// The versions that there are, by major.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// From the lowest major to the highest.
    pub majors: Vec<Major>,
    /// Why there is none, where a source said so.
    pub trouble: Option<String>,
}

/// One major of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Major {
    /// The module path, with its major suffix; of a repository on one's own forge as far as it is known.
    pub module: String,
    /// From the lowest to the highest.
    pub versions: Vec<String>,
}

impl Major {
    /// The newest release; where there is none, the newest pre-release.
    #[must_use]
    pub fn newest(&self) -> Option<&str> {
        let released = self.versions.iter().rfind(|version| is_release(version));
        released.or(self.versions.last()).map(String::as_str)
    }
}

impl Versions {
    /// The major of a module path, where it is there.
    #[must_use]
    pub fn of(&self, module: &str) -> Option<&Major> {
        self.majors.iter().find(|major| major.module == module)
    }

    /// The highest major with a release; where there is none, the highest.
    #[must_use]
    pub fn newest_major(&self) -> Option<&Major> {
        let released =
            self.majors.iter().rfind(|major| major.versions.iter().any(|version| is_release(version)));
        released.or(self.majors.last())
    }

    /// The versions that are most like `wanted`, the best first, three at most.
    #[must_use]
    pub fn nearest(&self, wanted: &str) -> Vec<&str> {
        let mut near: Vec<(f64, &str)> = self
            .majors
            .iter()
            .flat_map(|major| &major.versions)
            .map(|version| (strsim::jaro_winkler(version, wanted), version.as_str()))
            .collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        near.into_iter().take(3).map(|(_, version)| version).collect()
    }
}

fn is_release(version: &str) -> bool {
    semver::prerelease(version).is_none_or(str::is_empty)
}

/// The majors of one module, looked for upward.
pub(crate) struct Chain {
    /// Whose they are, for whoever asks.
    subject: usize,
    base: String,
    start: u64,
    /// The highest that was asked for.
    asked: Option<u64>,
    highest: Option<u64>,
    ended: bool,
    found: Vec<Major>,
    trouble: Option<String>,
}

impl Chain {
    pub(crate) fn new(subject: usize, path: &str) -> Self {
        let (base, suffix) = split_path_version(path).unwrap_or((path, ""));
        let mut chain = Self {
            subject,
            base: base.to_owned(),
            start: number_of(suffix),
            asked: None,
            highest: None,
            ended: false,
            found: Vec::new(),
            trouble: None,
        };
        if path.starts_with("gopkg.in/") {
            // Its majors are written in another way, and it is long past having new ones.
            path.clone_into(&mut chain.base);
            chain.start = 1;
            chain.asked = Some(0);
        }
        chain
    }

    fn first(&self) -> String {
        with_major(&self.base, self.start)
    }

    /// The module paths to ask for next.
    fn next(&self) -> Vec<String> {
        if self.ended {
            return Vec::new();
        }
        let paths = match (self.asked, self.highest) {
            (None, _) => self.start..=self.start + MAJORS_AHEAD,
            (Some(0), None) => return vec![self.base.clone()],
            (Some(asked), Some(highest)) if asked < highest + MAJORS_AHEAD => {
                asked + 1..=highest + MAJORS_AHEAD
            }
            (Some(_), _) => return Vec::new(),
        };
        paths.map(|major| with_major(&self.base, major)).collect()
    }

    fn begin_round(&mut self) {
        match (self.asked, self.highest) {
            (None, _) => self.asked = Some(self.start + MAJORS_AHEAD),
            (Some(0), _) => self.ended = true,
            (Some(_), Some(highest)) => self.asked = Some(highest + MAJORS_AHEAD),
            (Some(_), None) => self.ended = true,
        }
    }

    fn answered(&mut self, module: String, answer: Result<Vec<String>, String>) {
        match answer {
            Ok(versions) if versions.is_empty() => {}
            Ok(versions) => {
                let major = versions.last().map_or(self.start, |version| number(version));
                self.highest = Some(self.highest.unwrap_or_default().max(major));
                self.found.push(Major { module, versions });
            }
            Err(why) => self.trouble = self.trouble.take().or(Some(why)),
        }
    }
}

/// The number of a version's major; v0 and v1 share a module path.
pub(crate) fn number(version: &str) -> u64 {
    semver::major(version)
        .and_then(|major| major.trim_start_matches('v').parse().ok())
        .map_or(1, |n: u64| n.max(1))
}

/// The number of the major that a module path's suffix names (`/v2`, `.v3`).
fn number_of(suffix: &str) -> u64 {
    suffix.trim_start_matches(['/', '.']).trim_start_matches('v').parse().unwrap_or(1)
}

pub(crate) fn with_major(base: &str, major: u64) -> String {
    if major < 2 { base.to_owned() } else { format!("{base}/v{major}") }
}

/// Where a major stands: RoadRunner's years came after its v2, and v3 after them.
fn rank(module: &str) -> (u8, u64) {
    let major = split_path_version(module).map_or(1, |(_, suffix)| number_of(suffix));
    match major {
        FIRST_YEAR.. => (1, major),
        3.. if module.starts_with(ROADRUNNER) => (2, major),
        _ => (0, major),
    }
}

/// Asks for the next majors of all chains until none has any more.
///
/// Without a `go` none is looked for but with the proxies.
pub(crate) async fn follow(
    fetcher: Option<&Fetcher>,
    go: Option<&Toolchain>,
    chains: &mut [Chain],
) -> Result<(), Error> {
    loop {
        let asked: Vec<(usize, String)> = chains
            .iter()
            .enumerate()
            .flat_map(|(index, chain)| chain.next().into_iter().map(move |path| (index, path)))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let lists: Vec<(usize, String, Result<Vec<String>, FetchError>)> = stream::iter(asked)
            .map(async |(index, path)| {
                let list = match fetcher {
                    Some(fetcher) => fetcher.versions(&path).await,
                    None => Err(FetchError::NeedsGo { module: path.clone(), tried: Vec::new() }),
                };
                (index, path, list)
            })
            .buffered(LISTS)
            .collect()
            .await;
        // A path that no proxy has may be one that only version control has: its first major is asked for there.
        let is_first =
            |index: usize, path: &str| chains.get(index).is_some_and(|chain| chain.first() == path);
        let for_go: Vec<&str> = lists
            .iter()
            .filter(|(index, path, list)| match list {
                Ok(versions) => versions.is_empty() && is_first(*index, path),
                Err(error) => matches!(error, FetchError::NeedsGo { .. }),
            })
            .map(|(_, path, _)| path.as_str())
            .collect();
        let mut by_go = match go {
            Some(go) => by_go(go, &for_go).await?,
            None => BTreeMap::new(),
        };
        for chain in chains.iter_mut() {
            chain.begin_round();
        }
        for (index, path, list) in lists {
            let Some(chain) = chains.get_mut(index) else { continue };
            let answer = match (by_go.remove(&path), list) {
                (Some(answer), _) => answer,
                (None, Ok(versions)) => Ok(versions),
                (None, Err(error)) => Err(error.to_string()),
            };
            chain.answered(path, answer);
        }
    }
}

/// What the chains found, in the answer of each one's subject.
pub(crate) fn gather(chains: Vec<Chain>, answers: &mut [Versions]) {
    for chain in chains {
        if let Some(answer) = answers.get_mut(chain.subject) {
            answer.majors.extend(chain.found);
            answer.trouble = answer.trouble.take().or(chain.trouble);
        }
    }
    for answer in answers {
        answer.majors.sort_by_key(|major| rank(&major.module));
        if !answer.majors.is_empty() {
            answer.trouble = None;
        }
    }
}

/// What the proxies have of a module, over all its majors.
pub(crate) async fn offered(fetcher: &Fetcher, module: &str) -> Versions {
    let base = split_path_version(module).map_or(module, |(base, _)| base);
    let start = match base {
        ROADRUNNER => format!("{base}/v{FIRST_YEAR}"),
        _ if base.starts_with("gopkg.in/") => module.to_owned(),
        _ => base.to_owned(),
    };
    let mut chains = vec![Chain::new(0, &start)];
    let mut answers = [Versions::default()];
    // Only a go command could fail here.
    if follow(Some(fetcher), None, &mut chains).await.is_ok() {
        gather(chains, &mut answers);
    }
    let [versions] = answers;
    versions
}

/// One go command for everything that the proxies may not be asked for, or don't have.
async fn by_go(
    go: &Toolchain,
    modules: &[&str],
) -> Result<BTreeMap<String, Result<Vec<String>, String>>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        path: String,
        #[serde(default)]
        versions: Vec<String>,
        error: Option<Failure>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Failure {
        err: String,
    }
    if modules.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Outside of any module, so that no go.mod on the way changes the answer.
    let outside = tempfile::tempdir()
        .map_err(|error| Error::file("make a directory in", &std::env::temp_dir(), &error))?;
    let arguments: Vec<&str> =
        ["list", "-m", "-e", "-versions", "-json", "--"].into_iter().chain(modules.iter().copied()).collect();
    let finished = go.run(ModuleMode::Complete, None, &arguments, outside.path(), false, None).await?;
    let mut answers = BTreeMap::new();
    for listed in serde_json::Deserializer::from_str(&finished.stdout).into_iter::<Listed>() {
        let Listed { path, versions, error } = listed.map_err(|error| {
            Error::build(format!("can't read what `go list -m -versions` says: {error}"))
                .output(finished.stderr.clone())
        })?;
        let suffix = split_path_version(&path).map_or("", |(_, suffix)| suffix).to_owned();
        let versions: Vec<String> =
            versions.into_iter().filter(|version| path_major_matches(version, &suffix)).collect();
        let answer = match error {
            Some(failure) if versions.is_empty() => {
                Err(failure.err.lines().next().unwrap_or_default().trim().to_owned())
            }
            _ => Ok(versions),
        };
        answers.insert(path, answer);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows a chain through the majors that are there; what was asked for, round by round.
    fn followed(path: &str, there: &[(&str, &[&str])]) -> (Vec<Vec<String>>, Chain) {
        let mut chain = Chain::new(0, path);
        let mut rounds = Vec::new();
        loop {
            let asked = chain.next();
            if asked.is_empty() {
                return (rounds, chain);
            }
            chain.begin_round();
            for path in &asked {
                let versions = there.iter().find(|(module, _)| module == path).map(|(_, versions)| *versions);
                let versions =
                    versions.unwrap_or_default().iter().map(|version| (*version).to_owned()).collect();
                chain.answered(path.clone(), Ok(versions));
            }
            rounds.push(asked);
        }
    }

    #[test]
    fn majors_are_looked_for_upward_over_gaps() {
        let there =
            [("a.b/c", &["v0.9.0", "v1.0.0"][..]), ("a.b/c/v4", &["v4.0.0"]), ("a.b/c/v8", &["v8.0.0-rc.1"])];
        let (rounds, chain) = followed("a.b/c", &there);
        assert_eq!(rounds[0], ["a.b/c", "a.b/c/v2", "a.b/c/v3", "a.b/c/v4", "a.b/c/v5"]);
        assert_eq!(
            rounds[1..],
            [
                vec!["a.b/c/v6", "a.b/c/v7", "a.b/c/v8"],
                vec!["a.b/c/v9", "a.b/c/v10", "a.b/c/v11", "a.b/c/v12"]
            ]
        );
        let versions = Versions { majors: chain.found, trouble: None };
        let newest = versions.newest_major().unwrap();
        assert_eq!(
            (newest.module.as_str(), newest.newest()),
            ("a.b/c/v4", Some("v4.0.0")),
            "released ones first"
        );
        assert_eq!(versions.of("a.b/c/v8").unwrap().newest(), Some("v8.0.0-rc.1"));
        assert_eq!(versions.nearest("v1.0.1")[0], "v1.0.0");

        let (rounds, chain) = followed("a.b/c/v3", &[]);
        assert_eq!((rounds.len(), chain.found.len()), (1, 0));
        let (rounds, _) = followed("gopkg.in/yaml.v3", &[("gopkg.in/yaml.v3", &["v3.0.1"])]);
        assert_eq!(rounds, [["gopkg.in/yaml.v3"]]);
    }

    #[test]
    fn roadrunners_years_lie_between_its_v2_and_its_v3() {
        let module = |major: &str| format!("{ROADRUNNER}/{major}");
        let mut majors = ["v2025", "v3", "v2", "v2024"].map(module);
        majors.sort_by_key(|module| rank(module));
        assert_eq!(majors, ["v2", "v2024", "v2025", "v3"].map(module));
    }
}
