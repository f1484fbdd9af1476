//! Known vulnerabilities of module versions, from OSV's database (<https://google.github.io/osv.dev/api/>).

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;
use velox_gomod::{module::ModuleVersion, semver};

pub(crate) const PUBLIC_URL: &str = "https://api.osv.dev/";
/// The module path of vulnerabilities in Go's standard library.
pub(crate) const STANDARD_LIBRARY: &str = "stdlib";

const MAX_BATCH_QUERIES: usize = 1000;
const MAX_PAGES: usize = 20;
const MAX_CONCURRENT_RECORDS: usize = 8;
const MAX_RECORDS: usize = 200;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RESPONSE_BYTES: usize = 32 << 20;

/// A known vulnerability of a module version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vulnerability {
    /// The id, preferably in Go's database (`GO-2024-2687`).
    pub id: String,
    /// Aliases (`CVE-…`, `GHSA-…`).
    pub aliases: Vec<String>,
    /// A one-line summary.
    pub summary: String,
    /// The lowest higher version with a fix.
    pub fixed: Option<String>,
    /// The URL of a description.
    pub url: String,
}

/// The known vulnerabilities of each module, without unaffected modules.
pub(crate) async fn vulnerabilities(
    client: &Client,
    base: &Url,
    modules: &[ModuleVersion],
) -> Result<BTreeMap<ModuleVersion, Vec<Vulnerability>>, String> {
    let database = OsvDatabase { client, base };
    let found = database.query(modules).await?;
    let mut ids: Vec<&String> = found.values().flatten().collect();
    ids.sort();
    ids.dedup();
    // The others are reported by id only.
    ids.truncate(MAX_RECORDS);
    let records: BTreeMap<String, OsvRecord> = stream::iter(ids)
        .map(async |id| Ok::<_, String>((id.clone(), database.record(id).await?)))
        .buffer_unordered(MAX_CONCURRENT_RECORDS)
        .try_collect()
        .await?;
    let described = found.into_iter().map(|(module, ids)| {
        let known = describe(&module, &ids, &records);
        (module, known)
    });
    Ok(described.filter(|(_, known)| !known.is_empty()).collect())
}

struct OsvDatabase<'a> {
    client: &'a Client,
    base: &'a Url,
}

#[derive(Deserialize)]
struct BatchResponse {
    #[serde(default)]
    results: Vec<QueryResult>,
}

#[derive(Deserialize)]
struct QueryResult {
    #[serde(default)]
    vulns: Vec<OsvRecord>,
    next_page_token: Option<String>,
}

/// The used part of <https://ossf.github.io/osv-schema/>; a batch query returns only the id.
#[derive(Debug, Clone, Deserialize)]
struct OsvRecord {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    details: String,
    withdrawn: Option<String>,
    #[serde(default)]
    affected: Vec<Value>,
}

impl OsvDatabase<'_> {
    async fn query(&self, modules: &[ModuleVersion]) -> Result<BTreeMap<ModuleVersion, Vec<String>>, String> {
        let mut found: BTreeMap<ModuleVersion, Vec<String>> = BTreeMap::new();
        let mut open: Vec<(&ModuleVersion, Option<String>)> =
            modules.iter().map(|module| (module, None)).collect();
        for _ in 0..MAX_PAGES {
            let mut next = Vec::new();
            for batch in open.chunks(MAX_BATCH_QUERIES) {
                let queries: Vec<Value> =
                    batch.iter().map(|(module, page)| query(module, page.as_deref())).collect();
                let request =
                    self.client.post(self.url("v1/querybatch")?).json(&json!({ "queries": queries }));
                let results = self.send::<BatchResponse>(request).await?.results;
                if results.len() != batch.len() {
                    let (got, sent) = (results.len(), batch.len());
                    return Err(self.failed(&format!("{got} results for {sent} queries")));
                }
                for ((module, _), result) in batch.iter().zip(results) {
                    found
                        .entry((*module).clone())
                        .or_default()
                        .extend(result.vulns.into_iter().map(|it| it.id));
                    let token = result.next_page_token.filter(|token| !token.is_empty());
                    next.extend(token.map(|token| (*module, Some(token))));
                }
            }
            open = next;
        }
        Ok(found)
    }

    async fn record(&self, id: &str) -> Result<OsvRecord, String> {
        let mut url = self.url("v1/vulns/")?;
        url.path_segments_mut().map_err(|()| self.failed(&"the URL has no path"))?.pop_if_empty().push(id);
        self.send(self.client.get(url)).await
    }

    fn url(&self, path: &str) -> Result<Url, String> {
        self.base.join(path).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> String {
        format!("{}: {error}", self.base.host_str().unwrap_or("OSV"))
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, String> {
        let failed = |error: reqwest::Error| self.failed(&root_cause(&error.without_url()));
        let mut response = request.timeout(RESPONSE_TIMEOUT).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(self.failed(&response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_RESPONSE_BYTES {
                return Err(self.failed(&"the response is too large"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| self.failed(&format!("invalid response: {error}")))
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn query(module: &ModuleVersion, page: Option<&str>) -> Value {
    let version = module.version.trim_start_matches('v').trim_end_matches("+incompatible");
    let mut query = json!({ "package": { "ecosystem": "Go", "name": module.path }, "version": version });
    if let (Some(fields), Some(page)) = (query.as_object_mut(), page) {
        fields.insert("page_token".to_owned(), page.into());
    }
    query
}

/// Merges the records of one vulnerability in different databases.
fn describe(
    module: &ModuleVersion,
    ids: &[String],
    records: &BTreeMap<String, OsvRecord>,
) -> Vec<Vulnerability> {
    let mut known: Vec<Vulnerability> = Vec::new();
    let mut sorted: Vec<&String> = ids.iter().collect();
    // Prefer the records of Go's database: they list the affected modules exactly.
    sorted.sort_by_key(|id| (!id.starts_with("GO-"), id.as_str()));
    for id in sorted {
        let record = records.get(id);
        let aliases = record.map(|record| record.aliases.clone()).unwrap_or_default();
        let is_same = |other: &Vulnerability| {
            let names = |name: &String| *name == other.id || other.aliases.contains(name);
            names(id) || aliases.iter().any(names)
        };
        if record.is_some_and(|record| record.withdrawn.is_some()) || known.iter().any(is_same) {
            continue;
        }
        known.push(Vulnerability {
            id: record.map_or_else(|| id.clone(), |record| record.id.clone()),
            summary: record.map(summary).unwrap_or_default(),
            fixed: record.and_then(|record| fixed(module, record)),
            url: format!("https://osv.dev/vulnerability/{id}"),
            aliases,
        });
    }
    known
}

fn summary(record: &OsvRecord) -> String {
    let text = if record.summary.is_empty() { &record.details } else { &record.summary };
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// The lowest fixed version above the version of the module.
fn fixed(module: &ModuleVersion, record: &OsvRecord) -> Option<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let affected =
        record.affected.iter().filter(|affected| affected["package"]["name"] == module.path.as_str());
    affected
        .flat_map(|affected| list(&affected["ranges"]))
        .flat_map(|range| list(&range["events"]))
        .filter_map(|event| Some(format!("v{}", event["fixed"].as_str()?.trim_start_matches('v'))))
        .filter(|version| semver::compare(version, &module.version).is_gt())
        .min_by(|one, other| semver::compare(one, other))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn record(text: &str) -> (String, OsvRecord) {
        let record: OsvRecord = serde_json::from_str(text).unwrap();
        (record.id.clone(), record)
    }

    #[test]
    fn aliases_of_one_vulnerability_are_merged() {
        let records = BTreeMap::from([
            record(r#"{"id":"GHSA-1","aliases":["CVE-1"],"summary":"the same"}"#),
            record(
                r#"{"id":"GO-1","aliases":["CVE-1","GHSA-1"],"summary":"read too far","affected":[
                   {"package":{"name":"a.b/c","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[
                     {"introduced":"0"},{"fixed":"1.0.5"},{"introduced":"1.1.0"},{"fixed":"1.2.3"}]}]},
                   {"package":{"name":"a.b/other","ecosystem":"Go"},"ranges":[{"events":[{"fixed":"1.1.1"}]}]}]}"#,
            ),
            record(r#"{"id":"GO-2","withdrawn":"2024-01-01T00:00:00Z"}"#),
        ]);
        let ids = ["GHSA-1", "GO-1", "GO-2", "GO-3"].map(str::to_owned);
        let module = ModuleVersion { path: "a.b/c".into(), version: "v1.1.0".into() };
        let known = describe(&module, &ids, &records);
        let ids: Vec<_> = known.iter().map(|known| (known.id.as_str(), known.fixed.as_deref())).collect();
        assert_eq!(ids, [("GO-1", Some("v1.2.3")), ("GO-3", None)]);
        assert_eq!(known[0].summary, "read too far");
    }

    #[test]
    fn queries_use_the_database_s_version_format() {
        let module = ModuleVersion { path: "a.b/c".into(), version: "v2.0.0+incompatible".into() };
        let query = query(&module, Some("more")).to_string();
        assert_eq!(
            query,
            r#"{"package":{"ecosystem":"Go","name":"a.b/c"},"page_token":"more","version":"2.0.0"}"#
        );
    }
}
