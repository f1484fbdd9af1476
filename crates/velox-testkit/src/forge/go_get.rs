//! Pages with which the go command finds a repository: <https://go.dev/ref/mod#vcs-find>

use super::{ForgeServer, HostKind, gitlab};
use crate::http::{HttpReply, HttpRequest, decode};

/// The page for `?go-get=1`; `None` for any other request.
pub(super) fn answer(
    shared: &ForgeServer,
    request: &HttpRequest,
    kind: HostKind,
    path: &str,
) -> Option<HttpReply> {
    if request.parameter("go-get").as_deref() != Some("1") {
        return None;
    }
    let path = decode(path.trim_matches('/'));
    if path.contains(['"', '<', '>', '&', '\'']) {
        return Some(HttpReply::text(404, "Not Found"));
    }
    let parts: Vec<&str> = path.split('/').collect();
    let token = request.authorization();
    let longest = (2..=parts.len()).rev().find_map(|count| {
        let hosted = shared.find(kind, &parts.get(..count)?.join("/"))?;
        hosted.visible_to(token.as_deref()).then_some(hosted)
    });
    let project = match (longest, kind) {
        (Some(hosted), _) => hosted.path,
        // GitLab doesn't reveal whether a project exists: it assumes that the first two parts name it.
        // https://docs.gitlab.com/user/project/use_project_as_go_package/
        (None, HostKind::GitLab) => parts.get(..2)?.join("/"),
        (None, HostKind::GitHub) => return Some(HttpReply::text(404, "Not Found")),
    };
    let below_sub_path = request.path.starts_with(gitlab::SUB_PATH) && kind == HostKind::GitLab;
    let sub_path = if below_sub_path { gitlab::SUB_PATH } else { "" };
    let import = format!("{}{sub_path}/{project}", request.authority);
    let web = format!("{}{sub_path}/{project}", request.origin());
    Some(HttpReply::html(format!(
        "<!DOCTYPE html>\n<html><head><meta name=\"go-import\" content=\"{import} git {web}.git\"></head>\
         <body>go get {import}</body></html>\n"
    )))
}
