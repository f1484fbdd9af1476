//! GitLab's REST API v4, as described at <https://docs.gitlab.com/api/rest/>.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::{ForgeRequest, ForgeResponse, decode};
use super::git_view::{self, CommitInfo};
use super::{ForgeKind, ForgeServer, HostedRepo, TokenCheck};

/// Where GitLab is on the forge's own port.
pub(super) const SUB_PATH: &str = "/gitlab";

fn message(status: u16, text: &str) -> ForgeResponse {
    ForgeResponse::json(status, &json!({"message": format!("{status} {text}")}))
}

/// A call of the REST API; `path` is below `/api/v4`.
pub(super) fn rest(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    // https://docs.gitlab.com/api/rest/authentication/
    let token = asked
        .header("private-token")
        .or_else(|| asked.header("job-token"))
        .map(str::to_owned)
        .or_else(|| asked.parameter("private_token"))
        .or_else(|| asked.authorization());
    let caller = shared.caller(ForgeKind::GitLab, token.as_deref());
    if caller == TokenCheck::Stranger {
        return message(401, "Unauthorized");
    }
    if !matches!(asked.method.as_str(), "GET" | "HEAD") {
        return message(403, "Forbidden");
    }
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        // https://docs.gitlab.com/api/users/#retrieve-the-current-user
        ["user"] if caller == TokenCheck::Known => ForgeResponse::json(
            200,
            &json!({
                "id": 1, "username": "tester", "name": "A Developer", "state": "active", "locked": false,
                "avatar_url": null, "web_url": format!("{}/tester", web_base(asked)),
                "created_at": "2024-01-01T00:00:00.000Z", "email": "dev@example.com",
            }),
        ),
        // https://docs.gitlab.com/api/personal_access_tokens/#get-details-on-a-personal-access-token
        ["personal_access_tokens", "self"] if caller == TokenCheck::Known => {
            let facts = token.as_ref().and_then(|token| shared.state().facts.get(token).cloned());
            let (scopes, expires) = facts.unwrap_or_else(|| (vec!["api".to_owned()], None));
            ForgeResponse::json(
                200,
                &json!({
                    "id": 1, "name": "for tests", "revoked": false, "active": true, "user_id": 1,
                    "created_at": "2024-01-01T00:00:00.000Z", "scopes": scopes, "expires_at": expires,
                }),
            )
        }
        // https://docs.gitlab.com/api/version/
        ["version"] if caller == TokenCheck::Known => {
            ForgeResponse::json(200, &json!({"version": "18.0.0", "revision": "0000000"}))
        }
        ["user" | "version"] | ["personal_access_tokens", "self"] => message(401, "Unauthorized"),
        ["projects", id, rest @ ..] => {
            let hosted = match id.parse() {
                Ok(id) => shared.find_by_id(ForgeKind::GitLab, id),
                Err(_) => shared.find(ForgeKind::GitLab, id),
            };
            match hosted.filter(|it| it.visible_to(token.as_deref())) {
                Some(hosted) => ProjectApi { asked, hosted: &hosted }.call(rest),
                None => message(404, "Project Not Found"),
            }
        }
        _ => message(404, "Not Found"),
    }
}

/// The pages of a project that programs use: its archives,
/// `/-/archive/REF/NAME.FORMAT`.
pub(super) fn web(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    let token = asked.header("private-token").map(str::to_owned).or_else(|| asked.authorization());
    let path = decode(path.trim_matches('/'));
    let (project, rest) = path.split_once("/-/").unwrap_or((&path, ""));
    let Some(hosted) = shared.find(ForgeKind::GitLab, project).filter(|it| it.visible_to(token.as_deref()))
    else {
        return ForgeResponse::redirect(302, &format!("{}/users/sign_in", web_base(asked)));
    };
    match rest.strip_prefix("archive/").and_then(|rest| rest.rsplit_once('/')) {
        Some((name, file)) => {
            let format = [".zip", ".tar.gz", ".tar"].iter().find(|format| file.ends_with(**format));
            let format = format.map_or("tar.gz", |format| format.trim_start_matches('.'));
            ProjectApi { asked, hosted: &hosted }.archive_of(name, format)
        }
        None if rest.is_empty() => ForgeResponse::new(
            200,
            "text/html; charset=utf-8",
            format!("<!DOCTYPE html><title>{}</title>", hosted.path),
        ),
        None => ForgeResponse::text(404, "Not Found"),
    }
}

fn web_base(asked: &ForgeRequest) -> String {
    let sub_path = if asked.path.starts_with(SUB_PATH) { SUB_PATH } else { "" };
    format!("{}{sub_path}", asked.origin())
}

struct ProjectApi<'a> {
    asked: &'a ForgeRequest,
    hosted: &'a HostedRepo,
}

impl ProjectApi<'_> {
    fn call(&self, rest: &[&str]) -> ForgeResponse {
        match rest {
            [] => self.describe(),
            ["repository", "files", path, "raw"] => self.raw_file(path),
            ["repository", "files", path] => self.file(path),
            ["repository", "tree"] => self.tree(),
            ["repository", "commits"] => self.commits(),
            ["repository", "commits", name] => self.commit(name),
            ["repository", "tags"] => self.tags(),
            ["repository", "tags", name] => self.tag(name),
            ["repository", "branches"] => self.branches(),
            ["repository", "branches", name] => self.branch(name),
            ["repository", "merge_base"] => self.merge_base(),
            ["repository", "compare"] => self.compare(),
            ["repository", "archive"] => self.archive("tar.gz"),
            ["repository", file] => match file.strip_prefix("archive.") {
                Some(format @ ("zip" | "tar" | "tar.gz")) => self.archive(format),
                Some(_) => ForgeResponse::json(400, &json!({"error": "format does not have a valid value"})),
                None => message(404, "Not Found"),
            },
            _ => message(404, "Not Found"),
        }
    }

    fn web_url(&self) -> String {
        format!("{}/{}", web_base(self.asked), self.hosted.path)
    }

    fn head(&self) -> String {
        git_view::default_branch(&self.hosted.repo)
    }

    /// <https://docs.gitlab.com/api/projects/#retrieve-a-project>
    fn describe(&self) -> ForgeResponse {
        let (hosted, web) = (self.hosted, self.web_url());
        let owner = hosted.owner();
        ForgeResponse::json(
            200,
            &json!({
                "id": hosted.id(),
                "description": null,
                "name": hosted.name(),
                "name_with_namespace": hosted.path.replace('/', " / "),
                "path": hosted.name(),
                "path_with_namespace": hosted.path,
                "created_at": "2024-01-01T00:00:00.000Z",
                "default_branch": self.head(),
                "tag_list": [],
                "topics": [],
                "http_url_to_repo": format!("{web}.git"),
                "web_url": web,
                "readme_url": null,
                "forks_count": 0,
                "star_count": 0,
                "last_activity_at": "2024-01-01T00:00:00.000Z",
                "visibility": if hosted.is_private() { "private" } else { "public" },
                "empty_repo": hosted.repo.find("HEAD").is_none(),
                "archived": false,
                "namespace": {
                    "id": 1, "name": owner, "path": owner.rsplit('/').next(), "kind": "group", "full_path": owner,
                    "parent_id": null, "avatar_url": null,
                    "web_url": format!("{}/groups/{owner}", web_base(self.asked)),
                },
            }),
        )
    }

    /// <https://docs.gitlab.com/api/repository_files/#retrieve-a-file-from-a-repository>
    fn file(&self, path: &str) -> ForgeResponse {
        let Some(name) = self.asked.parameter("ref").filter(|name| !name.is_empty()) else {
            return ForgeResponse::json(400, &json!({"error": "ref is missing, ref is empty"}));
        };
        let repo = &self.hosted.repo;
        let Some(commit) = git_view::resolve(repo, &name) else { return message(404, "Commit Not Found") };
        let entry = git_view::entry(repo, &commit, path).filter(|entry| entry.kind == "blob");
        let Some((entry, content)) =
            entry.and_then(|it| git_view::blob(repo, &it.id).map(|content| (it, content)))
        else {
            return message(404, "File Not Found");
        };
        let last = git_view::log(repo, &commit, path, 0, 1).into_iter().next().map(|it| it.id);
        let digest = HEXLOWER.encode(&Sha256::digest(&content));
        let executable = entry.mode == "100755";
        let last = last.unwrap_or_else(|| commit.clone());
        ForgeResponse::json(
            200,
            &json!({
                "file_name": entry.name(),
                "file_path": entry.path,
                "size": content.len(),
                "encoding": "base64",
                "content_sha256": digest,
                "ref": name,
                "blob_id": entry.id,
                "commit_id": commit,
                "last_commit_id": last,
                "execute_filemode": executable,
                "content": BASE64_STANDARD.encode(&content),
            }),
        )
        .header("x-gitlab-blob-id", &entry.id)
        .header("x-gitlab-commit-id", &commit)
        .header("x-gitlab-content-sha256", &digest)
        .header("x-gitlab-encoding", "base64")
        .header("x-gitlab-execute-filemode", executable)
        .header("x-gitlab-file-name", entry.name())
        .header("x-gitlab-file-path", &entry.path)
        .header("x-gitlab-last-commit-id", &last)
        .header("x-gitlab-ref", &name)
        .header("x-gitlab-size", content.len())
        .tagged(self.asked)
    }

    /// <https://docs.gitlab.com/api/repository_files/#retrieve-a-raw-file-from-a-repository>
    fn raw_file(&self, path: &str) -> ForgeResponse {
        let name = self.asked.parameter("ref").filter(|name| !name.is_empty()).unwrap_or_else(|| self.head());
        let repo = &self.hosted.repo;
        let Some(commit) = git_view::resolve(repo, &name) else { return message(404, "Commit Not Found") };
        let entry = git_view::entry(repo, &commit, path).filter(|entry| entry.kind == "blob");
        match entry.and_then(|entry| git_view::blob(repo, &entry.id)) {
            Some(content) => {
                ForgeResponse::text(200, "").with_body(content).header("x-gitlab-commit-id", &commit)
            }
            None => message(404, "File Not Found"),
        }
    }

    /// <https://docs.gitlab.com/api/repositories/#list-repository-tree>
    fn tree(&self) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let name = self.asked.parameter("ref").unwrap_or_else(|| self.head());
        let path = self.asked.parameter("path").unwrap_or_default();
        let path = path.trim_matches('/');
        let Some(commit) = git_view::resolve(repo, &name) else { return message(404, "Tree Not Found") };
        if git_view::entry(repo, &commit, path).is_none_or(|entry| entry.kind != "tree") {
            return message(404, "invalid revision or path Not Found");
        }
        let recursive = self.asked.parameter("recursive").is_some_and(|it| it == "true" || it == "1");
        let entries = git_view::list(repo, &commit, path, recursive);
        self.paged(
            entries
                .iter()
                .map(|it| json!({"id": it.id, "name": it.name(), "type": it.kind, "path": it.path, "mode": it.mode}))
                .collect(),
        )
    }

    fn commit_json(&self, commit: &CommitInfo) -> Value {
        let title = commit.message.lines().next().unwrap_or_default();
        json!({
            "id": commit.id,
            "short_id": commit.id.get(..8),
            "created_at": gitlab_date(&commit.committer.date),
            "parent_ids": commit.parents,
            "title": title,
            "message": commit.message,
            "author_name": commit.author.name,
            "author_email": commit.author.email,
            "authored_date": gitlab_date(&commit.author.date),
            "committer_name": commit.committer.name,
            "committer_email": commit.committer.email,
            "committed_date": gitlab_date(&commit.committer.date),
            "trailers": {},
            "extended_trailers": {},
            "web_url": format!("{}/-/commit/{}", self.web_url(), commit.id),
        })
    }

    /// <https://docs.gitlab.com/api/commits/#list-repository-commits>
    fn commits(&self) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let name = self.asked.parameter("ref_name").unwrap_or_else(|| self.head());
        let Some(id) = git_view::resolve(repo, &name) else { return message(404, "Commit Not Found") };
        let path = self.asked.parameter("path").unwrap_or_default();
        let commits = git_view::log(repo, &id, &path, 0, usize::MAX >> 1);
        self.paged(commits.iter().map(|commit| self.commit_json(commit)).collect())
    }

    /// <https://docs.gitlab.com/api/commits/#get-a-single-commit>
    fn commit(&self, name: &str) -> ForgeResponse {
        let repo = &self.hosted.repo;
        match git_view::resolve(repo, name).and_then(|id| git_view::commit(repo, &id)) {
            Some(commit) => {
                let mut json = self.commit_json(&commit);
                json["stats"] = json!({"additions": 0, "deletions": 0, "total": 0});
                if let Some(parent) = commit.parents.first() {
                    let changes = git_view::changes(repo, parent, &commit.id);
                    let (added, deleted) =
                        changes.iter().fold((0, 0), |sum, it| (sum.0 + it.2, sum.1 + it.3));
                    json["stats"] =
                        json!({"additions": added, "deletions": deleted, "total": added + deleted});
                }
                json["status"] = Value::Null;
                json["project_id"] = self.hosted.id().into();
                json["last_pipeline"] = Value::Null;
                ForgeResponse::json(200, &json).tagged(self.asked)
            }
            None => message(404, "Commit Not Found"),
        }
    }

    fn tag_json(&self, tag: &git_view::RefInfo) -> Option<Value> {
        let repo = &self.hosted.repo;
        let commit = git_view::commit(repo, &tag.commit)?;
        let text = if tag.kind == "tag" { git_view::tag_message(repo, &tag.object) } else { String::new() };
        Some(json!({
            "name": tag.name,
            "message": text,
            "target": tag.object,
            "commit": self.commit_json(&commit),
            "release": null,
            "protected": false,
            "created_at": (tag.kind == "tag").then(|| gitlab_date(&commit.committer.date)),
        }))
    }

    /// <https://docs.gitlab.com/api/tags/#list-all-project-repository-tags>
    fn tags(&self) -> ForgeResponse {
        let tags = git_view::refs(&self.hosted.repo, "refs/tags/", "");
        let mut tags: Vec<Value> = tags
            .iter()
            .filter(|tag| self.asked.parameter("search").is_none_or(|text| searched(&text, &tag.name)))
            .filter_map(|tag| self.tag_json(tag))
            .collect();
        // Unless asked otherwise, the newest first.
        tags.sort_by_key(|tag| tag["commit"]["committed_date"].as_str().unwrap_or_default().to_owned());
        if self.asked.parameter("order_by").as_deref() == Some("name") {
            tags.sort_by_key(|tag| tag["name"].as_str().unwrap_or_default().to_owned());
        }
        if self.asked.parameter("sort").as_deref() != Some("asc") {
            tags.reverse();
        }
        self.paged(tags)
    }

    /// <https://docs.gitlab.com/api/tags/#get-a-single-repository-tag>
    fn tag(&self, name: &str) -> ForgeResponse {
        let tags = git_view::refs(&self.hosted.repo, "refs/tags/", name);
        match tags.iter().find(|tag| tag.name == name).and_then(|tag| self.tag_json(tag)) {
            Some(json) => ForgeResponse::json(200, &json),
            None => message(404, "Tag Not Found"),
        }
    }

    fn branch_json(&self, branch: &git_view::RefInfo) -> Option<Value> {
        let commit = git_view::commit(&self.hosted.repo, &branch.commit)?;
        Some(json!({
            "name": branch.name,
            "merged": false,
            "protected": false,
            "default": branch.name == self.head(),
            "developers_can_push": false,
            "developers_can_merge": false,
            "can_push": false,
            "web_url": format!("{}/-/tree/{}", self.web_url(), branch.name),
            "commit": self.commit_json(&commit),
        }))
    }

    /// <https://docs.gitlab.com/api/branches/#list-repository-branches>
    fn branches(&self) -> ForgeResponse {
        let branches = git_view::refs(&self.hosted.repo, "refs/heads/", "");
        self.paged(
            branches
                .iter()
                .filter(|it| self.asked.parameter("search").is_none_or(|text| searched(&text, &it.name)))
                .filter_map(|it| self.branch_json(it))
                .collect(),
        )
    }

    /// <https://docs.gitlab.com/api/branches/#get-single-repository-branch>
    fn branch(&self, name: &str) -> ForgeResponse {
        let branches = git_view::refs(&self.hosted.repo, "refs/heads/", name);
        match branches.iter().find(|it| it.name == name).and_then(|it| self.branch_json(it)) {
            Some(json) => ForgeResponse::json(200, &json),
            None => message(404, "Branch Not Found"),
        }
    }

    /// <https://docs.gitlab.com/api/repositories/#retrieve-the-merge-base>
    fn merge_base(&self) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let mut names = self.asked.parameters("refs[]");
        names.extend(self.asked.parameters("refs"));
        if names.len() < 2 {
            return message(400, "Provide at least 2 refs");
        }
        let mut base: Option<String> = None;
        for name in &names {
            let Some(id) = git_view::resolve(repo, name) else {
                return message(400, &format!("Could not find ref: {name}"));
            };
            base = match base {
                None => Some(id),
                Some(one) => match git_view::merge_base(repo, &one, &id) {
                    Some(both) => Some(both),
                    None => return message(404, "Merge Base Not Found"),
                },
            };
        }
        match base.and_then(|id| git_view::commit(repo, &id)) {
            Some(commit) => ForgeResponse::json(200, &self.commit_json(&commit)),
            None => message(404, "Merge Base Not Found"),
        }
    }

    /// <https://docs.gitlab.com/api/repositories/#compare-branches-tags-or-commits>
    fn compare(&self) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let end = |name: &str| git_view::resolve(repo, &self.asked.parameter(name)?);
        let Some((from, to)) = end("from").zip(end("to")) else { return message(404, "Ref Not Found") };
        let base = git_view::merge_base(repo, &from, &to).unwrap_or_else(|| from.clone());
        let commits = git_view::between(repo, &from, &to);
        let diffs: Vec<Value> = git_view::changes(repo, &base, &to)
            .into_iter()
            .map(|(letter, path, ..)| {
                json!({
                    "old_path": path, "new_path": path, "new_file": letter == 'A', "deleted_file": letter == 'D',
                    "renamed_file": false, "a_mode": "100644", "b_mode": "100644", "diff": "",
                })
            })
            .collect();
        ForgeResponse::json(
            200,
            &json!({
                "commit": git_view::commit(repo, &to).filter(|_| from != to).map(|it| self.commit_json(&it)),
                "commits": commits.iter().map(|it| self.commit_json(it)).collect::<Vec<_>>(),
                "diffs": diffs,
                "compare_timeout": false,
                "compare_same_ref": from == to,
                "web_url": format!("{}/-/compare/{from}...{to}", self.web_url()),
            }),
        )
    }

    /// <https://docs.gitlab.com/api/repositories/#retrieve-a-file-archive-of-a-repository>
    fn archive(&self, format: &str) -> ForgeResponse {
        let name = self.asked.parameter("sha").filter(|name| !name.is_empty()).unwrap_or_else(|| self.head());
        self.archive_of(&name, format)
    }

    fn archive_of(&self, name: &str, format: &str) -> ForgeResponse {
        let repo = &self.hosted.repo;
        let Some(id) = git_view::resolve(repo, name) else { return message(404, "File Not Found") };
        let path = self.asked.parameter("path").unwrap_or_default();
        let path = path.trim_matches('/');
        let mut root = format!("{}-{}-{id}", self.hosted.name(), name.replace('/', "-"));
        if !path.is_empty() {
            root = format!("{root}-{}", path.replace('/', "-"));
        }
        let content_type = match format {
            "zip" => "application/zip",
            "tar" => "application/x-tar",
            _ => "application/octet-stream",
        };
        match git_view::archive(repo, &id, format, &root, path) {
            Some(bytes) => ForgeResponse::new(200, content_type, bytes)
                .header("content-disposition", format!("attachment; filename=\"{root}.{format}\"")),
            None => message(404, "File Not Found"),
        }
    }

    /// <https://docs.gitlab.com/api/rest/#offset-based-pagination>
    fn paged(&self, all: Vec<Value>) -> ForgeResponse {
        let number = |name: &str| self.asked.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let size = number("per_page").unwrap_or(20).clamp(1, 100);
        let page = number("page").unwrap_or(1).max(1);
        let total = all.len();
        let last = total.div_ceil(size).max(1);
        let shown: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect();
        let kept: String = self
            .asked
            .query
            .split('&')
            .filter(|pair| {
                !pair.is_empty() && !pair.starts_with("page=") && !pair.starts_with("private_token=")
            })
            .map(|pair| format!("{pair}&"))
            .collect();
        let link = |number: usize, relation: &str| {
            format!("<{}{}?{kept}page={number}>; rel=\"{relation}\"", self.asked.origin(), self.asked.path)
        };
        let mut links = vec![link(1, "first"), link(last, "last")];
        if page > 1 {
            links.insert(0, link(page - 1, "prev"));
        }
        if page < last {
            links.insert(0, link(page + 1, "next"));
        }
        let optional = |page: Option<usize>| page.map_or_else(String::new, |page| page.to_string());
        ForgeResponse::json(200, &shown.into())
            .header("link", links.join(", "))
            .header("x-page", page)
            .header("x-per-page", size)
            .header("x-total", total)
            .header("x-total-pages", last)
            .header("x-next-page", optional((page < last).then(|| page + 1)))
            .header("x-prev-page", optional((page > 1).then(|| page - 1)))
    }
}

/// `^text` is a start, `text$` an end, anything else a part.
fn searched(text: &str, name: &str) -> bool {
    match (text.strip_prefix('^'), text.strip_suffix('$')) {
        (Some(start), _) => name.starts_with(start),
        (_, Some(end)) => name.ends_with(end),
        _ => name.contains(text),
    }
}

/// GitLab's dates have milliseconds and an offset.
fn gitlab_date(date: &str) -> String {
    format!("{}.000+00:00", date.trim_end_matches('Z'))
}
