//! What people see where programs get a problem: whoever opens a path of the service in a browser.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use maud::html;
use velox_api::Problem;

use super::layout::{Page, prose};

/// Answers browsers with a page where the answer is a [`Problem`]; the status and the headers stay.
pub(crate) async fn for_people(request: Request, next: Next) -> Response {
    let here = are_people(request.headers()).then(|| here(&request));
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    let Some(here) = here else { return response };
    let (mut parts, _) = response.into_parts();
    let (page, body) = page(&problem, &here).answer(parts.status).into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(page.headers);
    Response::from_parts(parts, body)
}

/// Where a link leads back to.
fn here(request: &Request) -> String {
    let here = match *request.method() {
        Method::GET | Method::HEAD => request.uri().path_and_query().map_or("/", |here| here.as_str()),
        _ => "/",
    };
    // With more than one slash in front it would lead to another host.
    format!("/{}", here.trim_start_matches(['/', '\\']))
}

/// Scripts and programs ask for what they can read, or for anything.
fn are_people(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted.filter_map(|accepted| accepted.to_str().ok()).any(|accepted| accepted.contains("text/html"))
}

/// `here`: where whoever signed in wants to be.
fn page(problem: &Problem, here: &str) -> Page {
    let title = match problem.kind.as_str() {
        "token_missing" => "Sign in",
        "token_unknown" | "token_expired" => "That token doesn’t count",
        "scope_missing" => "Your token doesn’t allow this",
        "too_many_attempts" => "Too many wrong tokens",
        _ => &problem.title,
    };
    let main = html! {
        div.notice {
            h1 { (title) }
            @match problem.kind.as_str() {
                "token_missing" | "token_unknown" | "token_expired" => {
                    @if problem.kind != "token_missing" { p { (prose(&sentence(&problem.detail))) } }
                    p {
                        "This service is for those who have a token. Your browser asks for a name and a password: the password is the "
                        "token, " code { "vx_…" } ", and any name will do. Whoever runs the service gives out tokens."
                    }
                    p { a.button.primary href=(here) { "Sign in" } }
                }
                "scope_missing" => {
                    p { (prose(&sentence(&problem.detail))) " Ask whoever runs the service for one that does." }
                    p { "Your browser keeps the token until all of its windows are closed; then another one can be used." }
                    p { a.button href="/" { "Choose a server" } }
                }
                _ => {
                    p { (prose(&sentence(&problem.detail))) }
                    p { a.button href="/" { "Choose a server" } }
                }
            }
        }
    };
    Page { title: format!("{title} · velox"), refresh: None, main }
}

/// What programs are told, as people read it.
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
    fn pages_say_what_to_do() {
        let of = |kind: &str, detail: &str| {
            let (kind, title, detail) =
                (kind.to_owned(), "The request isn't allowed".to_owned(), detail.to_owned());
            let problem = Problem { kind, title, status: 403, detail, errors: Vec::new() };
            page(&problem, "/?rr=x&p=y").main.into_string()
        };
        let text = of("token_missing", "a token is needed");
        assert!(
            text.contains("the password is the token") && text.contains("href=\"/?rr=x&amp;p=y\""),
            "{text}"
        );
        assert!(of("token_expired", "the token has expired").contains("<p>The token has expired.</p>"));
        let text = of("scope_missing", "the token doesn't have the scope `build`");
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
