use std::{iter, ops::Range};

use annotate_snippets::{AnnotationKind, Level as Title, Renderer, Snippet, renderer::DecorStyle};
use anstyle::{AnsiColor, Style};
use velox_manifest::{Diagnostic, Level, Source};

use crate::report::text::clean;

/// One message as the compiler of Rust shows its own, with a line feed at its end:
///
/// ```text
/// error: unknown key `reff`
///  --> velox.toml:3:5
///   |
/// 3 | reff = "v2024.2.1"
///   | ^^^^ did you mean `ref`?
///   |
///   = help: …
/// ```
///
/// It is styled; write it through `anstream`. It is ASCII on every terminal, since editors and scripts look for `-->`.
pub(crate) fn render(diagnostic: &Diagnostic, source: Option<&Source>) -> String {
    render_explained(diagnostic, &[], source)
}

/// As [`render`], with notes on why it matters before the help.
pub(crate) fn render_explained(diagnostic: &Diagnostic, notes: &[String], source: Option<&Source>) -> String {
    let title = match diagnostic.level {
        Level::Error => Title::ERROR,
        Level::Warning => Title::WARNING,
    };
    let mut text = match (source, &diagnostic.span) {
        (Some(source), Some(span)) => {
            let mark = AnnotationKind::Primary
                .span(within(&source.text, span))
                .label(diagnostic.label.as_deref().map(clean));
            let snippet = Snippet::source(source.text.as_str()).path(clean(&source.name)).annotation(mark);
            let group = title
                .primary_title(clean(&diagnostic.message))
                .element(snippet)
                .elements(notes.iter().map(|note| Title::NOTE.message(clean(note))))
                .elements(diagnostic.help.iter().map(|help| Title::HELP.message(clean(help))));
            Renderer::styled().decor_style(DecorStyle::Ascii).render(&[group])
        }
        _ => {
            let line = |color: AnsiColor, word: &str, text: &str| {
                let style = color.on_default().bold();
                format!("\n{style}{word}{style:#}: {}", clean(text))
            };
            let notes = notes.iter().map(|note| line(AnsiColor::BrightGreen, "note", note));
            let helps = diagnostic.help.iter().map(|help| line(AnsiColor::BrightCyan, "help", help));
            iter::once(heading(diagnostic.level, &diagnostic.message)).chain(notes).chain(helps).collect()
        }
    };
    text.push('\n');
    text
}

/// The first line alone, in the same style.
pub(crate) fn heading(level: Level, message: &str) -> String {
    let (word, color) = match level {
        Level::Error => ("error", AnsiColor::BrightRed),
        Level::Warning => ("warning", AnsiColor::Yellow),
    };
    let (style, bold) = (color.on_default().bold(), Style::new().bold());
    format!("{style}{word}{style:#}{bold}: {}{bold:#}", clean(message))
}

/// A place as editors count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
}

/// Where byte `offset` of `text` is.
pub(crate) fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    Position { line, column }
}

/// `span` as far as it lies in `text`, between characters: the renderer trusts what it gets.
pub(crate) fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end).max(start)
}
