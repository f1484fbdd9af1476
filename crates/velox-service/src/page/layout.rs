//! What all pages have around them.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, SCRIPT, STYLE};

/// Nothing but this service's own: no script or style in the page itself, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page.
pub(super) struct Page {
    pub(super) title: String,
    /// Without a script it is loaded again after so many seconds.
    pub(super) refresh: Option<u32>,
    pub(super) main: Markup,
}

impl Page {
    pub(super) fn answer(self, status: StatusCode) -> Response {
        let mut response = (status, self.markup()).into_response();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "same-origin"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn markup(self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    link rel="icon" href=(ICON.path) type="image/svg+xml";
                    link rel="stylesheet" href=(STYLE.path);
                    script src=(SCRIPT.path) defer {}
                    @if let Some(seconds) = self.refresh {
                        noscript { meta http-equiv="refresh" content=(seconds); }
                    }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href="/" {
                            img src=(ICON.path) width="28" height="28" alt="";
                            span { "velox" }
                        }
                        nav aria-label="Service" {
                            a href="/v1/openapi.json" { "API" }
                            a href="https://docs.roadrunner.dev" rel="noreferrer" { "RoadRunner’s manual" }
                        }
                    }
                    main id="main" tabindex="-1" { (self.main) }
                }
            }
        }
    }
}

/// A text in which backquotes stand around code.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A page that says one thing.
pub(super) fn notice(status: StatusCode, title: &str, text: &str) -> Response {
    let main = html! {
        div.notice {
            h1 { (title) }
            p { (text) }
            p { a.button href="/" { "Choose a server" } }
        }
    };
    Page { title: format!("{title} · velox"), refresh: None, main }.answer(status)
}
