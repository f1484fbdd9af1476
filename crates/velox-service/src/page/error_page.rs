//! Error pages, sent to browsers instead of `application/problem+json`.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use maud::html;
use velox_api::Problem;

use super::layout::{Page, code_spans};

/// Replaces a [`Problem`] with a page if the client is a browser, preserving status and headers.
pub(crate) async fn show_errors_as_pages(request: Request, next: Next) -> Response {
    let back = is_browser(request.headers()).then(|| link_back(&request));
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    let Some(back) = back else { return response };
    let (mut parts, _) = response.into_parts();
    let (page, body) = page(&problem, &back).respond(parts.status).into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(page.headers);
    Response::from_parts(parts, body)
}

/// The path to return to after signing in.
fn link_back(request: &Request) -> String {
    let path = match *request.method() {
        Method::GET | Method::HEAD => request.uri().path_and_query().map_or("/", |path| path.as_str()),
        _ => "/",
    };
    // Two leading slashes would link to another host.
    format!("/{}", path.trim_start_matches(['/', '\\']))
}

/// Whether the client is a browser: other programs don't accept `text/html` explicitly.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted.filter_map(|accepted| accepted.to_str().ok()).any(|accepted| accepted.contains("text/html"))
}

fn page(problem: &Problem, back: &str) -> Page {
    let title = match problem.kind.as_str() {
        "token_missing" => "Sign in",
        "token_unknown" | "token_expired" => "Invalid token",
        "scope_missing" => "Not allowed by your token",
        "too_many_attempts" => "Too many attempts",
        _ => &problem.title,
    };
    let main = html! {
        div.notice {
            h1 { (title) }
            @match problem.kind.as_str() {
                "token_missing" | "token_unknown" | "token_expired" => {
                    @if problem.kind != "token_missing" { p { (code_spans(&sentence(&problem.detail))) } }
                    p {
                        "This service requires a token. When your browser asks for a user name and a password, enter any name, and "
                        "the token (" code { "vx_…" } ") as the password. The operator of the service issues tokens."
                    }
                    p { a.button.primary href=(back) { "Sign in" } }
                }
                "scope_missing" => {
                    p { (code_spans(&sentence(&problem.detail))) " Ask the operator of the service for another token." }
                    p { "Close all browser windows to sign in with another token." }
                    p { a.button href="/" { "Select plugins" } }
                }
                _ => {
                    p { (code_spans(&sentence(&problem.detail))) }
                    p { a.button href="/" { "Select plugins" } }
                }
            }
        }
    };
    Page { title: format!("{title} · velox"), refresh: None, main }
}

/// Formats the detail as a sentence, with a capital letter and a full stop.
fn sentence(detail: &str) -> String {
    let mut letters = detail.chars();
    let first = letters.next().map(char::to_uppercase);
    let text: String = first.into_iter().flatten().chain(letters).collect();
    if text.is_empty() || text.ends_with(['.', '!', '?', '…']) { text } else { text + "." }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_explain_errors() {
        let of = |kind: &str, detail: &str| {
            let (kind, title, detail) = (kind.to_owned(), "Access denied".to_owned(), detail.to_owned());
            let problem = Problem { kind, title, status: 403, detail, errors: Vec::new() };
            page(&problem, "/?rr=x&p=y").main.into_string()
        };
        let text = of("token_missing", "authentication required");
        assert!(text.contains("as the password") && text.contains("href=\"/?rr=x&amp;p=y\""), "{text}");
        assert!(of("token_expired", "the token has expired").contains("<p>The token has expired.</p>"));
        let text = of("scope_missing", "the token lacks the scope `build`");
        assert!(text.contains("the scope <code>build</code>. Ask"), "{text}");
        assert!(of("other", "no <b>").contains("No &lt;b&gt;."));
    }

    #[test]
    fn details_are_sentences() {
        assert_eq!(sentence("there is no build x"), "There is no build x.");
        assert_eq!(sentence("As it is."), "As it is.");
        assert_eq!(sentence(""), "");
    }
}
