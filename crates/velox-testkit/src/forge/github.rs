//! GitHub's REST API, its web archive addresses and codeload, as described at <https://docs.github.com/en/rest>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::{ForgeRequest, ForgeResponse, decode};
use super::faults::{now, rate_limited};
use super::git_view::{self, CommitInfo, GitPerson, RefInfo, TreeEntry};
use super::{ForgeKind, ForgeServer, HostedRepo, TokenCheck};

const HOUR: u64 = 3600;

/// [Rate limits](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api), counted for each token.
pub(super) struct RateLimits {
    anonymous: u64,
    with_token: u64,
    spent: BTreeMap<Option<String>, RateWindow>,
}

#[derive(Clone, Copy)]
struct RateWindow {
    used: u64,
    reset: u64,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { anonymous: 60, with_token: 5000, spent: BTreeMap::new() }
    }
}

impl RateLimits {
    pub(super) fn set_limits(&mut self, anonymous: u64, with_token: u64) {
        (self.anonymous, self.with_token) = (anonymous, with_token);
    }

    /// The limit and the window after spending `cost` of it; nothing spent where it is used up.
    fn spend(&mut self, token: Option<String>, cost: u64) -> (u64, RateWindow, bool) {
        let limit = if token.is_some() { self.with_token } else { self.anonymous };
        let window = self.spent.entry(token).or_insert(RateWindow { used: 0, reset: now() + HOUR });
        if window.reset <= now() {
            *window = RateWindow { used: 0, reset: now() + HOUR };
        }
        let allowed = window.used + cost <= limit;
        if allowed {
            window.used += cost;
        }
        (limit, *window, allowed)
    }
}

fn error(status: u16, message: &str, page: &str) -> ForgeResponse {
    ForgeResponse::json(
        status,
        &json!({
            "message": message,
            "documentation_url": format!("https://docs.github.com/rest{page}"),
            "status": status.to_string(),
        }),
    )
}

fn not_found(page: &str) -> ForgeResponse {
    error(404, "Not Found", page)
}

/// A call of the REST API; `path` is below the API's base.
pub(super) fn rest(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    let token = asked.authorization();
    let caller = shared.caller(ForgeKind::GitHub, token.as_deref());
    if caller == TokenCheck::Stranger {
        // https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api#failed-login-limit
        return error(401, "Bad credentials", "");
    }
    let is_limits = path == "/rate_limit";
    let (limit, window, allowed) = shared.state().rates.spend(token.clone(), u64::from(!is_limits));
    if !allowed {
        return rate_limited(limit, window.reset);
    }
    let remaining = limit.saturating_sub(window.used);
    let facts = token.as_ref().and_then(|token| shared.state().facts.get(token).cloned());
    let mut answer = if is_limits {
        // https://docs.github.com/en/rest/rate-limit/rate-limit
        let core =
            json!({"limit": limit, "used": window.used, "remaining": remaining, "reset": window.reset});
        ForgeResponse::json(200, &json!({"resources": {"core": core, "search": core}, "rate": core}))
    } else {
        GitHubApi { shared, asked, token }.call(path).tagged(asked)
    };
    // https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
    if let Some((scopes, expires)) = facts {
        answer = answer.header("x-oauth-scopes", scopes.join(", "));
        if let Some(expires) = expires {
            answer = answer.header("github-authentication-token-expiration", expires);
        }
    }
    answer
        .header("x-ratelimit-limit", limit)
        .header("x-ratelimit-remaining", remaining)
        .header("x-ratelimit-used", window.used)
        .header("x-ratelimit-reset", window.reset)
        .header("x-ratelimit-resource", "core")
        .header("x-github-api-version-selected", "2022-11-28")
        .header("x-github-media-type", "github.v3; format=json")
        .header("vary", "Accept, Authorization, Cookie, X-GitHub-OTP")
}

struct GitHubApi<'a> {
    shared: &'a ForgeServer,
    asked: &'a ForgeRequest,
    token: Option<String>,
}

impl GitHubApi<'_> {
    fn call(&self, path: &str) -> ForgeResponse {
        if !matches!(self.asked.method.as_str(), "GET" | "HEAD") {
            return not_found("");
        }
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let [first, owner, name, rest @ ..] = parts.as_slice() else { return not_found("") };
        if first != "repos" {
            return not_found("");
        }
        let found = self.shared.find(ForgeKind::GitHub, &format!("{owner}/{name}"));
        let Some(hosted) = found.filter(|it| it.visible_to(self.token.as_deref())) else {
            return not_found("/repos/repos#get-a-repository");
        };
        let of = RepositoryApi { api: self, hosted: &hosted };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match rest.as_slice() {
            [] => of.describe(),
            ["commits"] => of.commits(),
            ["commits", name @ ..] => of.commit(&name.join("/")),
            ["contents", path @ ..] => of.contents(&path.join("/")),
            ["tags"] => of.tags(),
            ["branches"] => of.branches(),
            ["branches", name @ ..] => of.branch(&name.join("/")),
            ["git", "ref", name @ ..] => of.git_ref(&name.join("/")),
            ["git", "matching-refs", name @ ..] => of.matching_refs(&name.join("/")),
            ["git", "commits", id] => of.git_commit(id),
            ["git", "tags", id] => of.git_tag(id),
            ["git", "trees", name @ ..] => of.git_tree(&name.join("/")),
            ["git", "blobs", id] => of.git_blob(id),
            ["compare", range @ ..] => of.compare(&range.join("/")),
            ["tarball", name @ ..] => of.archive("legacy.tar.gz", &name.join("/")),
            ["zipball", name @ ..] => of.archive("legacy.zip", &name.join("/")),
            _ => not_found(""),
        }
    }

    /// Where the API itself is, as links in answers need it.
    fn base(&self) -> String {
        if self.asked.host == "api.github.com" {
            "https://api.github.com".to_owned()
        } else {
            format!("{}/api/v3", self.asked.origin())
        }
    }

    fn web(&self) -> String {
        if self.asked.is_github_com() { "https://github.com".to_owned() } else { self.asked.origin() }
    }
}

struct RepositoryApi<'a> {
    api: &'a GitHubApi<'a>,
    hosted: &'a HostedRepo,
}

impl RepositoryApi<'_> {
    fn url(&self) -> String {
        format!("{}/repos/{}", self.api.base(), self.hosted.path)
    }

    fn html_url(&self) -> String {
        format!("{}/{}", self.api.web(), self.hosted.path)
    }

    /// <https://docs.github.com/en/rest/repos/repos#get-a-repository>
    fn describe(&self) -> ForgeResponse {
        let (hosted, url, html) = (self.hosted, self.url(), self.html_url());
        ForgeResponse::json(
            200,
            &json!({
                "id": hosted.id(),
                "node_id": node_id("Repository", &hosted.path),
                "name": hosted.name(),
                "full_name": hosted.path,
                "private": hosted.is_private(),
                "visibility": if hosted.is_private() { "private" } else { "public" },
                "owner": self.owner_json(),
                "html_url": html,
                "description": null,
                "fork": false,
                "url": url,
                "archive_url": format!("{url}/{{archive_format}}{{/ref}}"),
                "branches_url": format!("{url}/branches{{/branch}}"),
                "commits_url": format!("{url}/commits{{/sha}}"),
                "compare_url": format!("{url}/compare/{{base}}...{{head}}"),
                "contents_url": format!("{url}/contents/{{+path}}"),
                "git_refs_url": format!("{url}/git/refs{{/sha}}"),
                "tags_url": format!("{url}/tags"),
                "clone_url": format!("{html}.git"),
                "default_branch": git_view::default_branch(&hosted.repo),
                "archived": false,
                "disabled": false,
            }),
        )
    }

    /// The "simple user" of the API's schemas: <https://docs.github.com/en/rest/users/users#get-a-user>
    fn owner_json(&self) -> Value {
        let owner = self.hosted.owner();
        let (url, html) =
            (format!("{}/users/{owner}", self.api.base()), format!("{}/{owner}", self.api.web()));
        json!({
            "login": owner, "id": 1, "node_id": node_id("User", owner), "type": "Organization", "site_admin": false,
            "url": url,
            "html_url": html,
            "avatar_url": format!("{html}.png"),
            "gravatar_id": "",
            "followers_url": format!("{url}/followers"),
            "following_url": format!("{url}/following{{/other_user}}"),
            "gists_url": format!("{url}/gists{{/gist_id}}"),
            "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"),
            "subscriptions_url": format!("{url}/subscriptions"),
            "organizations_url": format!("{url}/orgs"),
            "repos_url": format!("{url}/repos"),
            "events_url": format!("{url}/events{{/privacy}}"),
            "received_events_url": format!("{url}/received_events"),
        })
    }

    /// <https://docs.github.com/en/rest/commits/commits#list-commits>
    fn commits(&self) -> ForgeResponse {
        let page = "/commits/commits#list-commits";
        let start = self.api.asked.parameter("sha").unwrap_or_else(|| "HEAD".to_owned());
        let Some(id) = git_view::resolve(&self.hosted.repo, &start) else { return not_found(page) };
        let path = self.api.asked.parameter("path").unwrap_or_default();
        let commits = git_view::log(&self.hosted.repo, &id, &path, 0, usize::MAX >> 1);
        self.paged(commits.iter().map(|commit| self.commit_json(commit)).collect())
    }

    /// <https://docs.github.com/en/rest/commits/commits#get-a-commit>
    fn commit(&self, name: &str) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let found = git_view::resolve(repo, name).and_then(|id| git_view::commit(repo, &id));
        let Some(commit) = found else {
            return error(422, &format!("No commit found for SHA: {name}"), "/commits/commits#get-a-commit");
        };
        if self.accepts("sha") {
            return ForgeResponse::new(200, "application/vnd.github.sha; charset=utf-8", commit.id);
        }
        let parent = commit.parents.first().map_or(EMPTY_TREE, String::as_str);
        let files = self.files(parent, &commit.id);
        let sum = |key: &str| files.iter().filter_map(|file| file[key].as_u64()).sum::<u64>();
        let mut json = self.commit_json(&commit);
        json["stats"] =
            json!({"additions": sum("additions"), "deletions": sum("deletions"), "total": sum("changes")});
        json["files"] = files.into();
        ForgeResponse::json(200, &json)
    }

    fn accepts(&self, format: &str) -> bool {
        // https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api#media-types
        let accept = self.api.asked.header("accept").unwrap_or_default();
        ["", "v3.", "v4."]
            .iter()
            .any(|version| accept.contains(&format!("application/vnd.github.{version}{format}")))
    }

    fn commit_json(&self, commit: &CommitInfo) -> Value {
        let (url, html, id) = (self.url(), self.html_url(), &commit.id);
        let parents: Vec<Value> = commit
            .parents
            .iter()
            .map(|parent| {
                json!({
                    "sha": parent,
                    "url": format!("{url}/commits/{parent}"),
                    "html_url": format!("{html}/commit/{parent}"),
                })
            })
            .collect();
        json!({
            "sha": id,
            "node_id": node_id("Commit", id),
            "url": format!("{url}/commits/{id}"),
            "html_url": format!("{html}/commit/{id}"),
            "comments_url": format!("{url}/commits/{id}/comments"),
            "commit": {
                "author": person(&commit.author),
                "committer": person(&commit.committer),
                "message": commit.message,
                "tree": {"sha": commit.tree, "url": format!("{url}/git/trees/{}", commit.tree)},
                "url": format!("{url}/git/commits/{id}"),
                "comment_count": 0,
                "verification": unsigned(),
            },
            // No account has the author's address.
            "author": null,
            "committer": null,
            "parents": parents,
        })
    }

    fn files(&self, from: &str, to: &str) -> Vec<Value> {
        let (url, html) = (self.url(), self.html_url());
        git_view::changes(&self.hosted.repo, from, to)
            .into_iter()
            .map(|(letter, path, additions, deletions)| {
                let id = git_view::entry(&self.hosted.repo, to, &path).map(|entry| entry.id);
                json!({
                    "sha": id.unwrap_or_else(|| "0".repeat(40)),
                    "filename": path,
                    "status": match letter { 'A' => "added", 'D' => "removed", _ => "modified" },
                    "additions": additions,
                    "deletions": deletions,
                    "changes": additions + deletions,
                    "blob_url": format!("{html}/blob/{to}/{path}"),
                    "raw_url": format!("{html}/raw/{to}/{path}"),
                    "contents_url": format!("{url}/contents/{path}?ref={to}"),
                })
            })
            .collect()
    }

    /// <https://docs.github.com/en/rest/repos/contents#get-repository-content>
    fn contents(&self, path: &str) -> ForgeResponse {
        let page = "/repos/contents#get-repository-content";
        let repo = &self.hosted.repo;
        let name = self.api.asked.parameter("ref").filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| git_view::default_branch(repo));
        let Some(commit) = git_view::resolve(repo, &name) else {
            return error(404, &format!("No commit found for the ref {name}"), page);
        };
        let path = path.trim_matches('/');
        let Some(entry) = git_view::entry(repo, &commit, path) else { return not_found(page) };
        if entry.kind == "tree" {
            let entries = git_view::list(repo, &commit, path, false);
            let list: Vec<Value> = entries.iter().map(|entry| self.content_json(entry, &name)).collect();
            return if self.accepts("object") {
                let mut json = self.content_json(&entry, &name);
                json["entries"] = list.into();
                ForgeResponse::json(200, &json)
            } else {
                ForgeResponse::json(200, &list.into())
            };
        }
        let mut json = self.content_json(&entry, &name);
        if entry.kind == "blob" {
            let Some(content) = git_view::blob(repo, &entry.id) else { return not_found(page) };
            if self.accepts("raw") {
                return ForgeResponse::new(200, "application/vnd.github.raw+json; charset=utf-8", content);
            }
            if entry.mode == "120000" {
                json["target"] = String::from_utf8_lossy(&content).into();
            } else if content.len() <= LARGEST_CONTENT {
                json["encoding"] = "base64".into();
                json["content"] = lined_base64(&content).into();
            } else {
                json["encoding"] = "none".into();
                json["content"] = "".into();
            }
        }
        ForgeResponse::json(200, &json)
    }

    fn content_json(&self, entry: &TreeEntry, name: &str) -> Value {
        let (url, html, path) = (self.url(), self.html_url(), &entry.path);
        let (kind, object) = match (entry.kind.as_str(), entry.mode.as_str()) {
            ("tree", _) => ("dir", "trees"),
            ("commit", _) => ("submodule", "trees"),
            (_, "120000") => ("symlink", "blobs"),
            _ => ("file", "blobs"),
        };
        let own = format!("{url}/contents/{path}?ref={name}");
        let git = format!("{url}/git/{object}/{}", entry.id);
        let page = format!("{html}/{}/{name}/{path}", if kind == "dir" { "tree" } else { "blob" });
        json!({
            "name": entry.name(),
            "path": path,
            "sha": entry.id,
            "size": entry.size.unwrap_or(0),
            "url": own,
            "html_url": page,
            "git_url": git,
            "download_url": (kind == "file").then(|| format!("{html}/raw/{name}/{path}")),
            "type": kind,
            "_links": {"self": own, "git": git, "html": page},
        })
    }

    /// <https://docs.github.com/en/rest/repos/repos#list-repository-tags>
    fn tags(&self) -> ForgeResponse {
        let (url, path) = (self.url(), &self.hosted.path);
        let tags = git_view::refs(&self.hosted.repo, "refs/tags/", "").into_iter().rev();
        self.paged(
            tags.map(|RefInfo { name, commit, .. }| {
                json!({
                    "name": name,
                    "zipball_url": format!("{url}/zipball/refs/tags/{name}"),
                    "tarball_url": format!("{url}/tarball/refs/tags/{name}"),
                    "commit": {"sha": commit, "url": format!("{url}/commits/{commit}")},
                    "node_id": node_id("Ref", &format!("{path}:refs/tags/{name}")),
                })
            })
            .collect(),
        )
    }

    /// <https://docs.github.com/en/rest/branches/branches#list-branches>
    fn branches(&self) -> ForgeResponse {
        let url = self.url();
        let branches = git_view::refs(&self.hosted.repo, "refs/heads/", "").into_iter();
        self.paged(
            branches
                .map(|RefInfo { name, commit, .. }| {
                    json!({
                        "name": name,
                        "commit": {"sha": commit, "url": format!("{url}/commits/{commit}")},
                        "protected": false,
                    })
                })
                .collect(),
        )
    }

    /// <https://docs.github.com/en/rest/branches/branches#get-a-branch>
    fn branch(&self, name: &str) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let found = git_view::refs(repo, "refs/heads/", name).into_iter().find(|it| it.name == name);
        let Some(commit) = found.and_then(|it| git_view::commit(repo, &it.commit)) else {
            return error(404, "Branch not found", "/branches/branches#get-a-branch");
        };
        let (own, html) =
            (format!("{}/branches/{name}", self.url()), format!("{}/tree/{name}", self.html_url()));
        ForgeResponse::json(
            200,
            &json!({
                "name": name,
                "commit": self.commit_json(&commit),
                "_links": {"self": own, "html": html},
                "protected": false,
                "protection_url": format!("{own}/protection"),
            }),
        )
    }

    fn ref_json(&self, prefix: &str, found: &RefInfo) -> Value {
        let (url, name) = (self.url(), format!("{prefix}{}", found.name));
        json!({
            "ref": name,
            "node_id": node_id("Ref", &format!("{}:{name}", self.hosted.path)),
            "url": format!("{url}/git/{name}"),
            "object": {
                "type": found.kind,
                "sha": found.object,
                "url": format!("{url}/git/{}s/{}", found.kind, found.object),
            },
        })
    }

    fn refs_below(&self, name: &str) -> Vec<(String, Value)> {
        ["refs/heads/", "refs/tags/"]
            .iter()
            .flat_map(|prefix| {
                git_view::refs(&self.hosted.repo, prefix, "")
                    .into_iter()
                    .map(move |it| (format!("{prefix}{}", it.name), self.ref_json(prefix, &it)))
            })
            .filter(|(full, _)| full.starts_with(&format!("refs/{name}")))
            .collect()
    }

    /// <https://docs.github.com/en/rest/git/refs#get-a-reference>
    fn git_ref(&self, name: &str) -> ForgeResponse {
        let full = format!("refs/{name}");
        match self.refs_below(name).into_iter().find(|(it, _)| *it == full) {
            Some((_, json)) => ForgeResponse::json(200, &json),
            None => not_found("/git/refs#get-a-reference"),
        }
    }

    /// <https://docs.github.com/en/rest/git/refs#list-matching-references>
    fn matching_refs(&self, name: &str) -> ForgeResponse {
        let refs: Vec<Value> = self.refs_below(name).into_iter().map(|(_, json)| json).collect();
        ForgeResponse::json(200, &refs.into())
    }

    /// <https://docs.github.com/en/rest/git/commits#get-a-commit-object>
    fn git_commit(&self, id: &str) -> ForgeResponse {
        let found = full_id(id).and_then(|id| git_view::commit(&self.hosted.repo, id));
        let Some(commit) = found else { return not_found("/git/commits#get-a-commit-object") };
        let (url, html) = (self.url(), self.html_url());
        let parents: Vec<Value> = commit
            .parents
            .iter()
            .map(|it| {
                json!({"sha": it, "url": format!("{url}/git/commits/{it}"), "html_url": format!("{html}/commit/{it}")})
            })
            .collect();
        ForgeResponse::json(
            200,
            &json!({
                "sha": commit.id,
                "node_id": node_id("Commit", &commit.id),
                "url": format!("{url}/git/commits/{}", commit.id),
                "html_url": format!("{html}/commit/{}", commit.id),
                "author": person(&commit.author),
                "committer": person(&commit.committer),
                "message": commit.message,
                "tree": {"sha": commit.tree, "url": format!("{url}/git/trees/{}", commit.tree)},
                "parents": parents,
                "verification": unsigned(),
            }),
        )
    }

    /// <https://docs.github.com/en/rest/git/tags#get-a-tag>
    fn git_tag(&self, id: &str) -> ForgeResponse {
        let (repo, url) = (&self.hosted.repo, self.url());
        let found =
            git_view::refs(repo, "refs/tags/", "").into_iter().find(|it| it.kind == "tag" && it.object == id);
        let Some(tag) = found else { return not_found("/git/tags#get-a-tag") };
        let tagger = git_view::commit(repo, &tag.commit).map(|commit| person(&commit.committer));
        ForgeResponse::json(
            200,
            &json!({
                "node_id": node_id("Tag", id),
                "sha": id,
                "url": format!("{url}/git/tags/{id}"),
                "tag": tag.name,
                "message": git_view::tag_message(repo, id),
                "tagger": tagger,
                "object": {"type": "commit", "sha": tag.commit, "url": format!("{url}/git/commits/{}", tag.commit)},
                "verification": unsigned(),
            }),
        )
    }

    /// <https://docs.github.com/en/rest/git/trees#get-a-tree>
    fn git_tree(&self, name: &str) -> ForgeResponse {
        let (repo, url) = (&self.hosted.repo, self.url());
        let root = git_view::resolve(repo, name)
            .and_then(|commit| Some(git_view::commit(repo, &commit)?.tree))
            .or_else(|| full_id(name).map(str::to_owned));
        let Some(root) = root.filter(|id| is_tree(self.hosted, id)) else {
            return not_found("/git/trees#get-a-tree");
        };
        let recursive = self.api.asked.parameter("recursive").is_some();
        let entries: Vec<Value> = git_view::list(repo, &root, "", recursive)
            .into_iter()
            .map(|it| {
                let mut json = json!({
                    "path": it.path, "mode": it.mode, "type": it.kind, "sha": it.id,
                    "url": format!("{url}/git/{}s/{}", it.kind, it.id),
                });
                if let Some(size) = it.size {
                    json["size"] = size.into();
                }
                json
            })
            .collect();
        ForgeResponse::json(
            200,
            &json!({"sha": root, "url": format!("{url}/git/trees/{root}"), "tree": entries, "truncated": false}),
        )
    }

    /// <https://docs.github.com/en/rest/git/blobs#get-a-blob>
    fn git_blob(&self, id: &str) -> ForgeResponse {
        let Some(content) = full_id(id).and_then(|id| git_view::blob(&self.hosted.repo, id)) else {
            return not_found("/git/blobs#get-a-blob");
        };
        if self.accepts("raw") {
            return ForgeResponse::new(200, "application/vnd.github.raw+json; charset=utf-8", content);
        }
        ForgeResponse::json(
            200,
            &json!({
                "sha": id, "node_id": node_id("Blob", id), "size": content.len(),
                "url": format!("{}/git/blobs/{id}", self.url()),
                "content": lined_base64(&content), "encoding": "base64",
            }),
        )
    }

    /// <https://docs.github.com/en/rest/commits/commits#compare-two-commits>
    fn compare(&self, range: &str) -> ForgeResponse {
        let page = "/commits/commits#compare-two-commits";
        let repo = &self.hosted.repo;
        let Some((base, head)) = range.split_once("...") else { return not_found(page) };
        let ends = git_view::resolve(repo, base).zip(git_view::resolve(repo, head));
        let Some((base_id, head_id)) = ends else { return not_found(page) };
        let Some(merge_base) = git_view::merge_base(repo, &base_id, &head_id) else {
            return error(404, &format!("No common ancestor between {base} and {head}."), page);
        };
        let json_of = |id: &str| git_view::commit(repo, id).map(|commit| self.commit_json(&commit));
        let (ahead, behind) =
            (git_view::count(repo, &base_id, &head_id), git_view::count(repo, &head_id, &base_id));
        let commits: Vec<Value> =
            git_view::between(repo, &base_id, &head_id).iter().map(|it| self.commit_json(it)).collect();
        let (url, html) = (self.url(), self.html_url());
        ForgeResponse::json(
            200,
            &json!({
                "url": format!("{url}/compare/{range}"),
                "html_url": format!("{html}/compare/{range}"),
                "permalink_url": format!("{html}/compare/{base_id}...{head_id}"),
                "diff_url": format!("{html}/compare/{range}.diff"),
                "patch_url": format!("{html}/compare/{range}.patch"),
                "base_commit": json_of(&base_id),
                "merge_base_commit": json_of(&merge_base),
                "status": match (ahead, behind) {
                    (0, 0) => "identical",
                    (_, 0) => "ahead",
                    (0, _) => "behind",
                    _ => "diverged",
                },
                "ahead_by": ahead,
                "behind_by": behind,
                "total_commits": ahead,
                "commits": commits,
                "files": self.files(&merge_base, &head_id),
            }),
        )
    }

    /// <https://docs.github.com/en/rest/repos/contents#download-a-repository-archive-zip>
    fn archive(&self, format: &str, name: &str) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let name = if name.is_empty() {
            format!("refs/heads/{}", git_view::default_branch(repo))
        } else {
            name.to_owned()
        };
        let location = codeload_url(self.api.asked, self.hosted, format, &name);
        ForgeResponse::redirect(302, &location)
    }

    /// <https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api>
    fn paged(&self, all: Vec<Value>) -> ForgeResponse {
        let number = |name: &str| self.api.asked.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let size = number("per_page").unwrap_or(30).clamp(1, 100);
        let page = number("page").unwrap_or(1).max(1);
        let last = all.len().div_ceil(size).max(1);
        let shown: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect();
        let kept: Vec<&str> = self
            .api
            .asked
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("page="))
            .collect();
        let link = |number: usize, relation: &str| {
            let mut query = kept.join("&");
            if !query.is_empty() {
                query.push('&');
            }
            format!(
                "<{}{}?{query}page={number}>; rel=\"{relation}\"",
                self.api.asked.origin(),
                self.api.asked.path
            )
        };
        let mut links = Vec::new();
        if page > 1 {
            links.push(link((page - 1).min(last), "prev"));
        }
        if page < last {
            links.push(link(page + 1, "next"));
            links.push(link(last, "last"));
        }
        if page > 1 {
            links.push(link(1, "first"));
        }
        let answer = ForgeResponse::json(200, &shown.into());
        if links.is_empty() { answer } else { answer.header("link", links.join(", ")) }
    }
}

const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
/// Bytes; larger files come without content: <https://docs.github.com/en/rest/repos/contents#get-repository-content>
const LARGEST_CONTENT: usize = 1 << 20;

fn full_id(id: &str) -> Option<&str> {
    (id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

fn is_tree(hosted: &HostedRepo, id: &str) -> bool {
    hosted
        .repo
        .command()
        .args(["cat-file", "-e", &format!("{id}^{{tree}}")])
        .output()
        .is_ok_and(|it| it.status.success())
}

fn person(person: &GitPerson) -> Value {
    json!({"name": person.name, "email": person.email, "date": person.date})
}

fn unsigned() -> Value {
    json!({"verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null})
}

fn node_id(kind: &str, of: &str) -> String {
    BASE64_STANDARD.encode(format!("{kind}:{of}"))
}

fn lined_base64(content: &[u8]) -> String {
    // GitHub breaks after 60 characters, as MIME's ancestor PEM does after 64: clients have to take line ends.
    let text = BASE64_STANDARD.encode(content);
    let mut lines = String::with_capacity(text.len() + text.len() / 60 + 1);
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 60 == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    lines.push('\n');
    lines
}

/// A pass for one private repository at codeload, which isn't the caller's token.
fn pass(hosted: &HostedRepo) -> Option<String> {
    let access = hosted.repo.access();
    let token = access.tokens.first().filter(|_| access.private)?;
    let digest = Sha256::digest(format!("codeload {} {token}", hosted.path));
    Some(digest.iter().take(15).map(|byte| format!("{byte:02X}")).collect())
}

fn codeload_url(asked: &ForgeRequest, hosted: &HostedRepo, format: &str, name: &str) -> String {
    // Without subdomain isolation an Enterprise Server has it below a path:
    // https://docs.github.com/en/enterprise-server@latest/admin/configuring-settings/hardening-security-for-your-enterprise/enabling-subdomain-isolation
    let base = if asked.is_github_com() {
        "https://codeload.github.com".to_owned()
    } else {
        format!("{}/codeload", asked.origin())
    };
    let pass = pass(hosted).map(|pass| format!("?token={pass}")).unwrap_or_default();
    format!("{base}/{}/{format}/{name}{pass}", hosted.path)
}

/// The pages of a repository that programs use: its archives.
/// <https://docs.github.com/en/repositories/working-with-files/using-files/downloading-source-code-archives#source-code-archive-urls>
pub(super) fn web(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    let token = asked.authorization();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let [owner, name, rest @ ..] = parts.as_slice() else { return ForgeResponse::text(404, "Not Found") };
    let found = shared.find(ForgeKind::GitHub, &format!("{owner}/{name}"));
    let Some(hosted) = found.filter(|it| it.visible_to(token.as_deref())) else {
        return ForgeResponse::text(404, "Not Found");
    };
    let Some(([verb], name)) = rest.split_first_chunk::<1>() else {
        return ForgeResponse::new(
            200,
            "text/html; charset=utf-8",
            format!("<!DOCTYPE html><title>{}</title>", hosted.path),
        );
    };
    let name = name.join("/");
    match verb.as_str() {
        "archive" => {
            let (format, name) = if let Some(name) = name.strip_suffix(".zip") {
                ("zip", name)
            } else if let Some(name) = name.strip_suffix(".tar.gz") {
                ("tar.gz", name)
            } else {
                return ForgeResponse::text(404, "Not Found");
            };
            ForgeResponse::redirect(302, &codeload_url(asked, &hosted, format, name))
        }
        "raw" => (1..=name.matches('/').count())
            .find_map(|parts| {
                let at = name.match_indices('/').nth(parts - 1)?.0;
                let (at, path) = (name.get(..at)?, name.get(at + 1..)?);
                let commit = git_view::resolve(&hosted.repo, at)?;
                let entry = git_view::entry(&hosted.repo, &commit, path)?;
                git_view::blob(&hosted.repo, &entry.id)
            })
            .map_or_else(
                || ForgeResponse::text(404, "404: Not Found"),
                |content| ForgeResponse::new(200, "text/plain; charset=utf-8", content),
            ),
        _ => ForgeResponse::text(404, "Not Found"),
    }
}

/// Where archives come from: `/OWNER/NAME/(legacy.)zip|tar.gz/REF`.
pub(super) fn codeload(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    let missing = || ForgeResponse::text(404, "404: Not Found");
    let token = asked.authorization();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let [owner, project, format, name @ ..] = parts.as_slice() else { return missing() };
    let Some(hosted) = shared.find(ForgeKind::GitHub, &format!("{owner}/{project}")) else {
        return missing();
    };
    let passed = asked.parameter("token").is_some_and(|given| Some(given) == pass(&hosted));
    if !passed && !hosted.visible_to(token.as_deref()) {
        return missing();
    }
    let name = name.join("/");
    let Some(id) = git_view::resolve(&hosted.repo, &name) else { return missing() };
    let (repo, plain) = (&hosted.repo, !name.starts_with("refs/"));
    if plain
        && repo.find(&format!("refs/heads/{name}")).is_some()
        && repo.find(&format!("refs/tags/{name}")).is_some()
    {
        return ForgeResponse::text(
            300,
            "the given path has multiple possibilities: #<Git::Ref:branch>, #<Git::Ref:tag>",
        );
    }
    let short = name.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
    let (legacy, format) = match format.strip_prefix("legacy.") {
        Some(format) => (true, format),
        None => (false, format.as_str()),
    };
    let root = if legacy {
        format!("{}-{}-{}", hosted.owner(), hosted.name(), id.get(..7).unwrap_or(&id))
    } else {
        let digits = short.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        format!("{}-{}", hosted.name(), digits.unwrap_or(short).replace('/', "-"))
    };
    let content_type = match format {
        "zip" => "application/zip",
        "tar.gz" => "application/x-gzip",
        _ => return missing(),
    };
    match git_view::archive(repo, &id, format, &root, "") {
        Some(bytes) => ForgeResponse::new(200, content_type, bytes)
            .header("content-disposition", format!("attachment; filename={root}.{format}"))
            .tagged(asked),
        None => missing(),
    }
}
