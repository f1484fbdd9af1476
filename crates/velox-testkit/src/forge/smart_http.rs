//! git's [smart HTTP protocol](https://git-scm.com/docs/http-protocol), through
//! [`git http-backend`](https://git-scm.com/docs/git-http-backend).

use std::{io::Write as _, process::Stdio};

use super::{ForgeServer, HostKind, TokenCheck};
use crate::{
    Repo,
    http::{Delivery, HttpReply, HttpRequest, decode},
    repo::git,
};

/// The response to a git request; `None` for any other request.
pub(super) fn answer(
    shared: &ForgeServer,
    request: &HttpRequest,
    kind: HostKind,
    path: &str,
) -> Option<HttpReply> {
    let (project, service) = ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .iter()
        .find_map(|service| Some((path.strip_suffix(service)?, *service)))?;
    let project = decode(project.trim_start_matches('/'));
    let hosted = shared.find(kind, project.strip_suffix(".git").unwrap_or(&project));
    let token = request.authorization();
    let check = shared.check_token(kind, token.as_deref());
    let hosted = match hosted {
        Some(hosted) if check != TokenCheck::Unknown && hosted.visible_to(token.as_deref()) => hosted,
        // Forges don't reveal whether a repository exists.
        _ if check != TokenCheck::Valid => return Some(unauthorized(kind)),
        _ => return Some(HttpReply::text(404, "Repository not found.\n")),
    };
    // The dumb protocol has no service parameter; today's forges don't support it.
    if service == "/info/refs" && request.parameter("service").is_none() {
        return Some(HttpReply::text(403, "Please upgrade your git client.\n"));
    }
    Some(
        backend(request, &hosted.repo, service)
            .unwrap_or_else(|| HttpReply::text(500, "git http-backend failed\n")),
    )
}

fn unauthorized(kind: HostKind) -> HttpReply {
    match kind {
        HostKind::GitHub => {
            HttpReply::text(401, "Repository not found.").header("www-authenticate", "Basic realm=\"GitHub\"")
        }
        HostKind::GitLab => HttpReply::text(401, "HTTP Basic: Access denied")
            .header("www-authenticate", "Basic realm=\"GitLab\""),
    }
}

fn backend(request: &HttpRequest, repo: &Repo, service: &str) -> Option<HttpReply> {
    let mut command = git();
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", repo.git_dir())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", service)
        .env("REQUEST_METHOD", request.method.as_str())
        .env("QUERY_STRING", &request.query)
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1");
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        match request.header(header) {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let stdin = child.stdin.take();
    let body = request.body.clone();
    // Writes and reads concurrently: git responds before it has read a large request.
    let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&body)));
    let output = child.wait_with_output().ok()?;
    let _ = writer.join();
    parse(&output.stdout)
}

/// A CGI response: <https://www.rfc-editor.org/rfc/rfc3875#section-6.3>
fn parse(output: &[u8]) -> Option<HttpReply> {
    let end = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (output.get(..end)?, output.get(end + 4..)?);
    let mut reply =
        HttpReply { status: 200, headers: Vec::new(), body: body.to_vec(), delivery: Delivery::Whole };
    for line in String::from_utf8_lossy(head).lines() {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            reply.status = value.split(' ').next()?.parse().ok()?;
        } else {
            reply = reply.header(&name.to_ascii_lowercase(), value);
        }
    }
    Some(reply)
}
