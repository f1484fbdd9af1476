//! The layout of all pages.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, SCRIPT, STYLE};

/// Allows only the service's own resources, no inline scripts or styles, and no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) struct Page {
    pub(super) title: String,
    /// Reload interval in seconds without JavaScript.
    pub(super) refresh: Option<u32>,
    pub(super) main: Markup,
}

impl Page {
    pub(super) fn respond(self, status: StatusCode) -> Response {
        let headers = [
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "same-origin"),
        ];
        (status, headers, self.markup()).into_response()
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
                    a.skip href="#main" { "Skip to content" }
                    header.top {
                        a.brand href="/" {
                            img src=(ICON.path) width="28" height="28" alt="";
                            span { "velox" }
                        }
                        nav aria-label="Service" {
                            a href="/v1/openapi.json" { "API" }
                            a href="https://docs.roadrunner.dev" rel="noreferrer" { "RoadRunner documentation" }
                        }
                    }
                    main id="main" tabindex="-1" { (self.main) }
                }
            }
        }
    }
}

/// Renders text in backquotes as `<code>`.
pub(super) fn code_spans(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
