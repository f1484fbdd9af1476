//! GitLab's REST API v4, as described at <https://docs.gitlab.com/api/rest/>.

use serde_json::{Value, json};

use super::{ForgeServer, HostKind, HostedRepo, TokenCheck, git_view};
use crate::http::{HttpReply, HttpRequest, decode};

/// GitLab's path prefix on the forge's own port.
pub(super) const SUB_PATH: &str = "/gitlab";

fn message(status: u16, text: &str) -> HttpReply {
    HttpReply::json(status, &json!({"message": format!("{status} {text}")}))
}

/// Handles a REST API request; `path` is below `/api/v4`.
pub(super) fn rest(shared: &ForgeServer, request: &HttpRequest, path: &str) -> HttpReply {
    // https://docs.gitlab.com/api/rest/authentication/
    let token = request
        .header("private-token")
        .or_else(|| request.header("job-token"))
        .map(str::to_owned)
        .or_else(|| request.parameter("private_token"))
        .or_else(|| request.authorization());
    let check = shared.check_token(HostKind::GitLab, token.as_deref());
    if check == TokenCheck::Unknown {
        return message(401, "Unauthorized");
    }
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["user" | "version"] | ["personal_access_tokens", "self"] if check == TokenCheck::Missing => {
            message(401, "Unauthorized")
        }
        // https://docs.gitlab.com/api/users/#retrieve-the-current-user
        ["user"] => HttpReply::json(200, &json!({"id": 1, "username": "tester", "name": "A Developer"})),
        // https://docs.gitlab.com/api/personal_access_tokens/#get-details-on-a-personal-access-token
        ["personal_access_tokens", "self"] => {
            let facts = token.as_ref().and_then(|token| shared.state().facts.get(token).cloned());
            let (scopes, expires) = facts.unwrap_or_else(|| (vec!["api".to_owned()], None));
            HttpReply::json(200, &json!({"id": 1, "active": true, "scopes": scopes, "expires_at": expires}))
        }
        // https://docs.gitlab.com/api/version/
        ["version"] => HttpReply::json(200, &json!({"version": "18.0.0", "revision": "0000000"})),
        ["projects", id, rest @ ..] => {
            let hosted = match id.parse() {
                Ok(id) => shared.find_by_id(HostKind::GitLab, id),
                Err(_) => shared.find(HostKind::GitLab, id),
            };
            match hosted.filter(|it| it.visible_to(token.as_deref())) {
                Some(hosted) => project(&hosted, request, rest),
                None => message(404, "Project Not Found"),
            }
        }
        _ => message(404, "Not Found"),
    }
}

fn project(hosted: &HostedRepo, request: &HttpRequest, rest: &[&str]) -> HttpReply {
    let repo = &hosted.repo;
    match rest {
        [] => describe(hosted),
        ["repository", "files", path, "raw"] => raw_file(hosted, request, path),
        // https://docs.gitlab.com/api/commits/#get-a-single-commit
        ["repository", "commits", name] => {
            match git_view::resolve(repo, name).and_then(|id| commit_json(hosted, &id)) {
                Some(commit) => HttpReply::json(200, &commit),
                None => message(404, "Commit Not Found"),
            }
        }
        // https://docs.gitlab.com/api/tags/#list-all-project-repository-tags: the newest first.
        ["repository", "tags"] => {
            let tags = git_view::tags(repo);
            let mut tags: Vec<Value> = tags.iter().filter_map(|tag| tag_json(hosted, tag)).collect();
            tags.sort_by_key(|tag| tag["commit"]["committed_date"].as_str().unwrap_or_default().to_owned());
            tags.reverse();
            paged(request, tags)
        }
        // https://docs.gitlab.com/api/tags/#get-a-single-repository-tag
        ["repository", "tags", name] => {
            let tag = git_view::tags(repo).into_iter().find(|tag| tag.name == *name);
            match tag.and_then(|tag| tag_json(hosted, &tag)) {
                Some(tag) => HttpReply::json(200, &tag),
                None => message(404, "Tag Not Found"),
            }
        }
        ["repository", "merge_base"] => merge_base(hosted, request),
        ["repository", "archive.tar.gz"] => archive(hosted, request),
        _ => message(404, "Not Found"),
    }
}

/// <https://docs.gitlab.com/api/projects/#retrieve-a-project>
fn describe(hosted: &HostedRepo) -> HttpReply {
    HttpReply::json(
        200,
        &json!({
            "id": hosted.id(),
            "name": hosted.name(),
            "path_with_namespace": hosted.path,
            "default_branch": git_view::default_branch(&hosted.repo),
            "visibility": if hosted.is_private() { "private" } else { "public" },
        }),
    )
}

/// The commit of a ref parameter, or of the default branch without one.
fn commit_of(hosted: &HostedRepo, request: &HttpRequest, parameter: &str) -> Option<(String, String)> {
    let name = request.parameter(parameter).unwrap_or_else(|| git_view::default_branch(&hosted.repo));
    Some((git_view::resolve(&hosted.repo, &name)?, name))
}

/// <https://docs.gitlab.com/api/repository_files/#retrieve-a-raw-file-from-a-repository>
fn raw_file(hosted: &HostedRepo, request: &HttpRequest, path: &str) -> HttpReply {
    let Some((commit, _)) = commit_of(hosted, request, "ref") else {
        return message(404, "Commit Not Found");
    };
    match hosted.repo.read(&commit, path) {
        Some(content) => HttpReply::new(200, "text/plain; charset=utf-8", content),
        None => message(404, "File Not Found"),
    }
}

fn commit_json(hosted: &HostedRepo, id: &str) -> Option<Value> {
    let commit = git_view::commit(&hosted.repo, id)?;
    // GitLab's dates have milliseconds and an offset.
    let date = format!("{}.000+00:00", commit.date.trim_end_matches('Z'));
    Some(json!({"id": commit.id, "committed_date": date}))
}

fn tag_json(hosted: &HostedRepo, tag: &git_view::TagInfo) -> Option<Value> {
    let commit = commit_json(hosted, &tag.commit)?;
    Some(json!({"name": tag.name, "commit": commit}))
}

/// <https://docs.gitlab.com/api/repositories/#retrieve-the-merge-base>
fn merge_base(hosted: &HostedRepo, request: &HttpRequest) -> HttpReply {
    let repo = &hosted.repo;
    let names: Vec<String> = request.parameters("refs[]").collect();
    let [one, other] = names.as_slice() else { return message(400, "Provide at least 2 refs") };
    let Some((one, other)) = git_view::resolve(repo, one).zip(git_view::resolve(repo, other)) else {
        return message(400, "Could not find ref");
    };
    match git_view::merge_base(repo, &one, &other).and_then(|id| commit_json(hosted, &id)) {
        Some(commit) => HttpReply::json(200, &commit),
        None => message(404, "Merge Base Not Found"),
    }
}

/// <https://docs.gitlab.com/api/repositories/#retrieve-a-file-archive-of-a-repository>
fn archive(hosted: &HostedRepo, request: &HttpRequest) -> HttpReply {
    let bytes = commit_of(hosted, request, "sha").and_then(|(id, name)| {
        let root = format!("{}-{}-{id}", hosted.name(), name.replace('/', "-"));
        git_view::archive(&hosted.repo, &id, &root)
    });
    match bytes {
        Some(bytes) => HttpReply::new(200, "application/octet-stream", bytes),
        None => message(404, "File Not Found"),
    }
}

/// <https://docs.gitlab.com/api/rest/#offset-based-pagination>
fn paged(request: &HttpRequest, all: Vec<Value>) -> HttpReply {
    let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let size = number("per_page").unwrap_or(20).clamp(1, 100);
    let page = number("page").unwrap_or(1).max(1);
    let last = all.len().div_ceil(size).max(1);
    let shown: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect();
    let next = if page < last { (page + 1).to_string() } else { String::new() };
    HttpReply::json(200, &shown.into()).header("x-next-page", next)
}
