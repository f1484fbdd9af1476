//! Text edits and line positions.

use std::ops::Range;

/// Non-overlapping edits that are applied together.
#[derive(Debug, Default)]
pub(super) struct TextEdits(Vec<(Range<usize>, String)>);

impl TextEdits {
    pub(super) fn replace(&mut self, place: Range<usize>, text: impl Into<String>) {
        self.0.push((place, text.into()));
    }

    pub(super) fn remove(&mut self, place: Range<usize>) {
        self.replace(place, "");
    }

    pub(super) fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.replace(at..at, text);
    }

    /// Applies all edits. Adjacent removals may overlap.
    pub(super) fn apply(mut self, text: &str) -> String {
        self.0.sort_by_key(|(place, _)| (place.start, place.end));
        let mut result = String::with_capacity(text.len() + 256);
        let mut done = 0;
        for (place, new) in self.0 {
            result.push_str(text.get(done..place.start).unwrap_or_default());
            result.push_str(&new);
            done = place.end.max(done);
        }
        result.push_str(text.get(done..).unwrap_or_default());
        result
    }
}

pub(super) fn line_ending(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text.get(..at).is_some_and(|line| line.ends_with('\r')) => "\r\n",
        _ => "\n",
    }
}

/// The start of the line that contains `at`, after a byte order mark.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    match before.rfind('\n') {
        Some(end) => end + 1,
        None if text.starts_with('\u{feff}') => '\u{feff}'.len_utf8(),
        None => 0,
    }
}

/// The end of the line that contains `at`, including the line ending.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|after| after.find('\n')).map_or(text.len(), |end| at + end + 1)
}

/// Whether the line that starts at `at` is blank or the end of the text.
pub(super) fn is_blank(text: &str, at: usize) -> bool {
    text.get(at..line_end(text, at)).is_none_or(|line| line.trim().is_empty())
}

/// The blank line before `start`, if there is one.
pub(super) fn blank_line_before(text: &str, start: usize) -> Option<usize> {
    line_before(text, start).filter(|before| is_blank(text, *before))
}

/// The start of the line before `start`, the start of another one.
pub(super) fn line_before(text: &str, start: usize) -> Option<usize> {
    Some(line_start(text, start.checked_sub(1)?)).filter(|before| *before < start)
}

/// The end of the comment lines at `at` if a blank line follows: they belong to the lines above.
pub(super) fn after_own_comments(text: &str, at: usize) -> usize {
    let mut end = at;
    while text.get(end..).is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('#')) {
        end = line_end(text, end);
    }
    if is_blank(text, end) { end } else { at }
}

/// The range that removes `lines`. For a last line without a newline, it includes the preceding newline.
pub(super) fn whole(text: &str, lines: Range<usize>) -> Range<usize> {
    let last = lines.end == text.len() && !text.ends_with('\n');
    let before = text.get(..lines.start).unwrap_or_default();
    match last {
        true => {
            let kept =
                before.strip_suffix('\n').map_or(before, |kept| kept.strip_suffix('\r').unwrap_or(kept));
            kept.len()..lines.end
        }
        false => lines,
    }
}

/// Joins `lines` for insertion at `at`, the start of a line or the end of the text.
pub(super) fn as_lines(text: &str, at: usize, lines: &[String]) -> String {
    let ending = line_ending(text);
    let joined = lines.join(ending);
    let before = text.get(..at).unwrap_or_default();
    if before.is_empty() || before.ends_with('\n') || before == "\u{feff}" {
        format!("{joined}{ending}")
    } else {
        format!("{ending}{joined}")
    }
}
