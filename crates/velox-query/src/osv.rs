//! Known vulnerabilities of module versions, from OSV's database (<https://google.github.io/osv.dev/api/>).

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;
use velox_gomod::{module::Version, semver};

/// The public database.
pub(crate) const PUBLIC: &str = "https://api.osv.dev/";
/// The module path under which Go's vulnerabilities are kept that are in its standard library.
pub(crate) const STANDARD_LIBRARY: &str = "stdlib";

/// The most that one request may ask for.
const BATCH: usize = 1000;
/// How often the rest of a long answer is asked for.
const PAGES: usize = 20;
/// How many descriptions are asked for at once, and at all.
const AT_ONCE: usize = 8;
const DESCRIBED: usize = 200;
/// How long one answer may take, and how long it may be.
const PATIENCE: Duration = Duration::from_secs(20);
const LARGEST: usize = 32 << 20;

/// A known vulnerability of a module at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vulnerability {
    /// Its id, that of Go's own database where it has one (`GO-2024-2687`).
    pub id: String,
    /// The other ids of the same (`CVE-…`, `GHSA-…`).
    pub aliases: Vec<String>,
    /// One line.
    pub summary: String,
    /// The lowest version above this one that has it no more, where there is one.
    pub fixed: Option<String>,
    /// Where to read on.
    pub url: String,
}

/// The vulnerabilities that are known of each module; those without any are left out.
pub(crate) async fn vulnerabilities(
    client: &Client,
    base: &Url,
    modules: &[Version],
) -> Result<BTreeMap<Version, Vec<Vulnerability>>, String> {
    let database = Database { client, base };
    let found = database.ids(modules).await?;
    let mut ids: Vec<&String> = found.values().flatten().collect();
    ids.sort();
    ids.dedup();
    // The rest is told by its id alone.
    ids.truncate(DESCRIBED);
    let entries: BTreeMap<String, Entry> = stream::iter(ids)
        .map(async |id| Ok::<_, String>((id.clone(), database.entry(id).await?)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(found
        .into_iter()
        .map(|(module, ids)| {
            let known = described(&module, &ids, &entries);
            (module, known)
        })
        .filter(|(_, known)| !known.is_empty())
        .collect())
}

struct Database<'a> {
    client: &'a Client,
    base: &'a Url,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

/// An empty object stands for a module of which nothing is known.
#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    vulns: Vec<Id>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

/// The part of <https://ossf.github.io/osv-schema/> that counts here.
#[derive(Debug, Clone, Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    details: String,
    withdrawn: Option<String>,
    #[serde(default)]
    affected: Vec<Affected>,
}

#[derive(Debug, Clone, Deserialize)]
struct Affected {
    package: Option<Package>,
    #[serde(default)]
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, Deserialize)]
struct Package {
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Range {
    #[serde(default)]
    events: Vec<BTreeMap<String, String>>,
}

impl Database<'_> {
    /// The ids of what is known of each module.
    async fn ids(&self, modules: &[Version]) -> Result<BTreeMap<Version, Vec<String>>, String> {
        let mut found: BTreeMap<Version, Vec<String>> = BTreeMap::new();
        let mut open: Vec<(&Version, Option<String>)> = modules.iter().map(|module| (module, None)).collect();
        for _ in 0..PAGES {
            if open.is_empty() {
                break;
            }
            let mut next = Vec::new();
            for batch in open.chunks(BATCH) {
                let queries: Vec<Value> =
                    batch.iter().map(|(module, page)| query(module, page.as_deref())).collect();
                let request =
                    self.client.post(self.at("v1/querybatch")?).json(&json!({ "queries": queries }));
                let answer: Answer = self.send(request).await?;
                if answer.results.len() != batch.len() {
                    return Err(format!(
                        "{} answered {} of {} questions",
                        self.host(),
                        answer.results.len(),
                        batch.len()
                    ));
                }
                for ((module, _), result) in batch.iter().zip(answer.results) {
                    let ids = result.vulns.into_iter().map(|vulnerability| vulnerability.id);
                    found.entry((*module).clone()).or_default().extend(ids);
                    let token = result.next_page_token.filter(|token| !token.is_empty());
                    next.extend(token.map(|token| (*module, Some(token))));
                }
            }
            open = next;
        }
        Ok(found)
    }

    async fn entry(&self, id: &str) -> Result<Entry, String> {
        let mut url = self.at("v1/vulns/")?;
        url.path_segments_mut()
            .map_err(|()| "the database's URL has no path".to_owned())?
            .pop_if_empty()
            .push(id);
        self.send(self.client.get(url)).await
    }

    fn at(&self, path: &str) -> Result<Url, String> {
        self.base.join(path).map_err(|error| format!("{}: {error}", self.host()))
    }

    fn host(&self) -> &str {
        self.base.host_str().unwrap_or("the database")
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", self.host());
        let sent = request.timeout(PATIENCE).send().await;
        let mut answer = sent.map_err(|error| told(&root(&error.without_url())))?;
        if !answer.status().is_success() {
            return Err(told(&answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| told(&root(&error.without_url())))? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(told(&"the answer is too long"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| told(&format!("can't read its answer: {error}")))
    }
}

/// What is wrong, instead of the request that it was wrong with.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn query(module: &Version, page: Option<&str>) -> Value {
    let version = module.version.trim_start_matches('v').trim_end_matches("+incompatible");
    let mut query = json!({ "package": { "ecosystem": "Go", "name": module.path }, "version": version });
    if let (Some(fields), Some(page)) = (query.as_object_mut(), page) {
        fields.insert("page_token".to_owned(), page.into());
    }
    query
}

/// One for each vulnerability, whatever databases have it under ids of their own.
fn described(module: &Version, ids: &[String], entries: &BTreeMap<String, Entry>) -> Vec<Vulnerability> {
    let mut known: Vec<Vulnerability> = Vec::new();
    let mut sorted: Vec<&String> = ids.iter().collect();
    // Go's own database says exactly which modules are meant: its entry stands for the others.
    sorted.sort_by_key(|id| (!id.starts_with("GO-"), id.as_str()));
    for id in sorted {
        let entry = entries.get(id);
        if entry.is_some_and(|entry| entry.withdrawn.is_some()) {
            continue;
        }
        let aliases = entry.map(|entry| entry.aliases.clone()).unwrap_or_default();
        let same = |other: &Vulnerability| {
            other.id == *id
                || other.aliases.contains(id)
                || aliases.iter().any(|alias| *alias == other.id || other.aliases.contains(alias))
        };
        if known.iter().any(same) {
            continue;
        }
        known.push(Vulnerability {
            id: entry.map_or_else(|| id.clone(), |entry| entry.id.clone()),
            summary: entry.map(summary).unwrap_or_default(),
            fixed: entry.and_then(|entry| fixed(module, entry)),
            url: format!("https://osv.dev/vulnerability/{id}"),
            aliases,
        });
    }
    known
}

fn summary(entry: &Entry) -> String {
    let text = if entry.summary.is_empty() { &entry.details } else { &entry.summary };
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// The lowest fixed version above the one that is there.
fn fixed(module: &Version, entry: &Entry) -> Option<String> {
    let of_module =
        |affected: &&Affected| affected.package.as_ref().is_some_and(|package| package.name == module.path);
    let ranges = entry.affected.iter().filter(of_module).flat_map(|affected| &affected.ranges);
    let mut versions: Vec<String> = ranges
        .flat_map(|range| &range.events)
        .filter_map(|event| event.get("fixed"))
        .map(|version| format!("v{}", version.trim_start_matches('v')))
        .filter(|version| semver::compare(version, &module.version).is_gt())
        .collect();
    versions.sort_by(|one, other| semver::compare(one, other));
    versions.into_iter().next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn entry(text: &str) -> (String, Entry) {
        let entry: Entry = serde_json::from_str(text).unwrap();
        (entry.id.clone(), entry)
    }

    #[test]
    fn one_vulnerability_of_two_databases_is_told_once() {
        let entries = BTreeMap::from([
            entry(r#"{"id":"GHSA-1","aliases":["CVE-1"],"summary":"the same"}"#),
            entry(
                r#"{"id":"GO-1","aliases":["CVE-1","GHSA-1"],"summary":"read too far","affected":[
                   {"package":{"name":"a.b/c","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[
                     {"introduced":"0"},{"fixed":"1.0.5"},{"introduced":"1.1.0"},{"fixed":"1.2.3"}]}]},
                   {"package":{"name":"a.b/other","ecosystem":"Go"},"ranges":[{"events":[{"fixed":"1.1.1"}]}]}]}"#,
            ),
            entry(r#"{"id":"GO-2","withdrawn":"2024-01-01T00:00:00Z"}"#),
        ]);
        let ids = ["GHSA-1", "GO-1", "GO-2", "GO-3"].map(str::to_owned);
        let module = Version { path: "a.b/c".into(), version: "v1.1.0".into() };
        let known = described(&module, &ids, &entries);
        let ids: Vec<_> = known.iter().map(|known| (known.id.as_str(), known.fixed.as_deref())).collect();
        assert_eq!(ids, [("GO-1", Some("v1.2.3")), ("GO-3", None)]);
        assert_eq!(known[0].summary, "read too far");
    }

    #[test]
    fn versions_are_asked_for_as_the_database_writes_them() {
        let module = Version { path: "a.b/c".into(), version: "v2.0.0+incompatible".into() };
        let query = query(&module, Some("more")).to_string();
        assert_eq!(
            query,
            r#"{"package":{"ecosystem":"Go","name":"a.b/c"},"page_token":"more","version":"2.0.0"}"#
        );
    }
}
