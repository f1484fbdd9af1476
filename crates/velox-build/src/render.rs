//! Rendering of diagnostics and sizes.

use std::{borrow::Cow, iter, ops::Range};

use annotate_snippets::{AnnotationKind, Level as Title, Renderer, Snippet, renderer::DecorStyle};
use anstyle::{AnsiColor, Style};
use velox_manifest::{Diagnostic, Level, SourceFile};

/// Formats a size: `57.23 MiB`, `76 KiB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    let in_units_of = |shift: u32| bytes as f64 / (1_u64 << shift) as f64;
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{:.0} KiB", in_units_of(10)),
        0x10_0000..0x4000_0000 => format!("{:.2} MiB", in_units_of(20)),
        _ => format!("{:.2} GiB", in_units_of(30)),
    }
}

/// Renders a diagnostic in the style of rustc, ending with a newline:
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
/// The text has styles: print it with `anstream`, or use [`plain`]. It is ASCII: editors parse `-->`.
#[must_use]
pub fn render(diagnostic: &Diagnostic, source: Option<&SourceFile>) -> String {
    render_explained(diagnostic, &[], source)
}

/// As [`render`], with notes before the help.
#[must_use]
pub fn render_explained(diagnostic: &Diagnostic, notes: &[String], source: Option<&SourceFile>) -> String {
    let title = match diagnostic.level {
        Level::Error => Title::ERROR,
        Level::Warning => Title::WARNING,
    };
    let mut text = match (source, &diagnostic.span) {
        (Some(source), Some(span)) => {
            let mark = AnnotationKind::Primary
                .span(within(&source.text, span))
                .label(diagnostic.label.as_deref().map(clean));
            let related = diagnostic.related.as_ref().map(|related| {
                let span = within(&source.text, &related.span);
                AnnotationKind::Context.span(span).label(clean(&related.label))
            });
            let snippet = Snippet::source(visible(&source.text)).path(clean(&source.name));
            let snippet = snippet.annotation(mark).annotations(related);
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

/// The first line.
#[must_use]
pub fn heading(level: Level, message: &str) -> String {
    let (word, color) = match level {
        Level::Error => ("error", AnsiColor::BrightRed),
        Level::Warning => ("warning", AnsiColor::Yellow),
    };
    let (style, bold) = (color.on_default().bold(), Style::new().bold());
    format!("{style}{word}{style:#}{bold}: {}{bold:#}", clean(message))
}

/// Removes control sequences from untrusted text. Characters that change the order of the text, or hide parts
/// of it, become `\u{fffd}` (<https://trojansource.codes>).
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && c != '\t' && c != '\n';
    if !text.contains(is_control) && !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(plain(text).replace(is_control, "").replace(is_deceptive, "\u{fffd}"))
}

/// Escapes the characters of serialized JSON that [`clean`] removes. Its value stays the same, and a terminal shows it in
/// order.
#[must_use]
pub fn escape_json(json: String) -> String {
    let is_escaped = |c: char| is_deceptive(c) || ('\u{7f}'..='\u{9f}').contains(&c);
    if !json.contains(is_escaped) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_escaped(c) {
            let mut units = [0; 2];
            escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A text of the same length, so that its spans stay valid, without deceptive characters. The renderer itself
/// replaces the control characters of ASCII.
fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| is_deceptive(c) || ('\u{80}'..='\u{9f}').contains(&c);
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let replacement = |c: char| match c.len_utf8() {
        _ if !is_hidden(c) => c.to_string(),
        2 => "\u{b7}".to_owned(),
        3 => "\u{fffd}".to_owned(),
        _ => "\u{fffd}?".to_owned(),
    };
    Cow::Owned(text.chars().map(replacement).collect())
}

/// Whether a character changes the direction of the text around it, ends its line, or is invisible.
fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Removes styles.
#[must_use]
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// The part of `span` within `text`, at character boundaries.
#[must_use]
pub fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 1023, 78_000, 57_234_123, 5 << 30].map(human_size);
        assert_eq!(sizes, ["0 B", "1023 B", "76 KiB", "54.58 MiB", "5.00 GiB"]);
    }

    #[test]
    fn terminal_escapes_of_others_are_dropped() {
        assert_eq!(clean("plain\ttext"), "plain\ttext");
        assert_eq!(clean("remote: \u{1b}[2J\u{1b}]0;title\u{7}gone\r"), "remote: gone");
        assert_eq!(clean("a\u{202e}b\u{2066}c\u{85}\u{9b}2J\u{200b}"), "a\u{fffd}b\u{fffd}c2J\u{fffd}");
    }

    #[test]
    fn the_excerpt_of_a_configuration_is_clean_too() {
        let text = "ref = \"v1\" # \u{202e}x\u{1b}[2J\u{9b}";
        let source = SourceFile { name: "velox\u{202e}.toml".into(), text: text.into() };
        let shown = plain(&render(&Diagnostic::error("wrong").at(0..3), Some(&source)));
        assert!(!shown.contains(|c: char| is_deceptive(c) || (c.is_control() && c != '\n')), "{shown:?}");
    }

    #[test]
    fn spans_outside_the_text() {
        let text = "aä\nb";
        assert_eq!(within(text, &(2..2)), 1..3);
        assert_eq!(within(text, &(2..400)), 1..5);
        assert_eq!(within(text, &Range { start: 90, end: 1 }), 5..5);
        for (start, end) in [(0, 0), (5, 5), (2, 2), (90, 1), (3, 4)] {
            for text in ["", "aä\nb", "\r\n\r\n", "\u{feff}x\u{1b}[2J\ty"] {
                let source = SourceFile { name: "velox.toml".into(), text: text.into() };
                let diagnostic = Diagnostic::error("unknown key").at(start..end).label("did you mean `ref`?");
                let rendered = render(&diagnostic, Some(&source));
                assert!(rendered.contains("\u{1b}[") && plain(&rendered).contains("--> velox.toml:"));
            }
        }
    }

    #[test]
    fn json_keeps_its_values() {
        let text = "a\u{202e}\u{9b}\u{7f}\u{e0041}\u{85}b\u{f6}\n";
        let escaped = escape_json(serde_json::to_string(text).unwrap());
        assert_eq!(escaped, "\"a\\u202e\\u009b\\u007f\\udb40\\udc41\\u0085b\u{f6}\\n\"");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
