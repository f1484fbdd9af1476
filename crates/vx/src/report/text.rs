use std::time::Duration;

pub(crate) use velox_build::render::{clean, escape_json, human_size};

/// Formats a duration: `0.4s`, `41.2s`, `3m 05s`, `1h 02m`.
pub(crate) fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Formats a count: `1 plugin`, `7 plugins`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Formats aligned columns, separated by two spaces.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The changed lines of a text, as a unified diff without context; empty if nothing changed.
pub(crate) fn line_diff(name: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut hunks: Vec<(usize, Vec<&str>, Vec<&str>)> = Vec::new();
    if old.len() == new.len() {
        for (index, (before, after)) in old.iter().zip(&new).enumerate().filter(|(_, (a, b))| a != b) {
            match hunks.last_mut().filter(|(start, lines, _)| start + lines.len() == index) {
                Some((_, removed, added)) => {
                    removed.push(before);
                    added.push(after);
                }
                None => hunks.push((index, vec![before], vec![after])),
            }
        }
    } else {
        let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
        let rest = old.len().min(new.len()) - start;
        let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        let part = |lines: &[&'_ str]| lines.iter().skip(start).take(lines.len() - start - end).count();
        let (removed, added) = (part(&old), part(&new));
        hunks.push((
            start,
            old.iter().skip(start).take(removed).copied().collect(),
            new.iter().skip(start).take(added).copied().collect(),
        ));
    }
    if hunks.is_empty() {
        return String::new();
    }
    let mut text = format!("--- {name}\n+++ {name}\n");
    let mut shift = 0_isize;
    for (start, removed, added) in hunks {
        let (line, new_line) = (start + 1, (start + 1).saturating_add_signed(shift));
        text += &format!("@@ -{line},{} +{new_line},{} @@\n", removed.len(), added.len());
        text.extend(removed.iter().map(|line| format!("-{line}\n")));
        text.extend(added.iter().map(|line| format!("+{line}\n")));
        shift = shift.saturating_add_unsigned(added.len()).saturating_sub_unsigned(removed.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_short() {
        let shown = [0, 999, 59_999, 60_000, 185_000, 3_725_000].map(|ms| elapsed(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.0s", "0.9s", "59.9s", "1m 00s", "3m 05s", "1h 02m"]);
    }

    #[test]
    fn changed_lines() {
        assert_eq!(line_diff("f", "a\nb\n", "a\nb\n"), "");
        assert_eq!(
            line_diff("f", "a\nb\nc\nd\n", "a\nB\nC\nd\n"),
            "--- f\n+++ f\n@@ -2,2 +2,2 @@\n-b\n-c\n+B\n+C\n"
        );
        assert_eq!(
            line_diff("f", "a\nb\nc\n", "A\nb\nC\n"),
            "--- f\n+++ f\n@@ -1,1 +1,1 @@\n-a\n+A\n@@ -3,1 +3,1 @@\n-c\n+C\n"
        );
        assert_eq!(line_diff("f", "a\nc\n", "a\nb\nc\n"), "--- f\n+++ f\n@@ -2,0 +2,1 @@\n+b\n");
    }
}
