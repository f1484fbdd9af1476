//! The pages by which the go command finds a repository: <https://go.dev/ref/mod#vcs-find>

use super::answer::{ForgeRequest, ForgeResponse, decode};
use super::{ForgeKind, ForgeServer, git_view, gitlab};

/// The page for `?go-get=1`, or nothing where that wasn't asked.
pub(super) fn answer(
    shared: &ForgeServer,
    asked: &ForgeRequest,
    kind: ForgeKind,
    path: &str,
) -> Option<ForgeResponse> {
    if asked.parameter("go-get").as_deref() != Some("1") {
        return None;
    }
    let path = decode(path.trim_matches('/'));
    if path.contains(['"', '<', '>', '&', '\'']) {
        return Some(ForgeResponse::text(404, "Not Found"));
    }
    let parts: Vec<&str> = path.split('/').collect();
    let token = asked.authorization();
    let longest = (2..=parts.len()).rev().find_map(|count| {
        let hosted = shared.find(kind, &parts.get(..count)?.join("/"))?;
        hosted.visible_to(token.as_deref()).then_some(hosted)
    });
    let (project, branch) = match (longest, kind) {
        (Some(hosted), _) => (hosted.path.clone(), git_view::default_branch(&hosted.repo)),
        // GitLab doesn't tell whether a project exists: it guesses that the first two parts name it.
        // https://docs.gitlab.com/user/project/use_project_as_go_package/
        (None, ForgeKind::GitLab) => (parts.get(..2)?.join("/"), "main".to_owned()),
        (None, ForgeKind::GitHub) => return Some(ForgeResponse::text(404, "Not Found")),
    };
    let sub_path = if asked.path.starts_with(gitlab::SUB_PATH) && kind == ForgeKind::GitLab {
        gitlab::SUB_PATH
    } else {
        ""
    };
    let import = format!("{}{sub_path}/{project}", asked.authority());
    let web = format!("{}{sub_path}/{project}", asked.origin());
    let (tree, blob) = match kind {
        ForgeKind::GitHub => ("tree", "blob"),
        ForgeKind::GitLab => ("-/tree", "-/blob"),
    };
    Some(ForgeResponse::new(
        200,
        "text/html; charset=utf-8",
        format!(
            "<!DOCTYPE html>\n<html><head>\
             <meta name=\"go-import\" content=\"{import} git {web}.git\">\
             <meta name=\"go-source\" content=\"{import} {web} {web}/{tree}/{branch}{{/dir}} {web}/{blob}/{branch}{{/dir}}/{{file}}#L{{line}}\">\
             </head><body>go get {import}</body></html>\n"
        ),
    ))
}
