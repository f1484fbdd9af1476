use std::{collections::BTreeMap, ops::Range};

use toml_edit::{Document, Item, TableLike, TomlError, Value};
use toml_parser::{
    Expected, ParseError, Source,
    parser::{self, Event, EventKind},
};

use super::tree::{ConfigEntry, ConfigNode, ConfigValue};
use crate::Diagnostic;

/// More errors of one kind than a user wants to see at once.
const MAX_ERRORS: usize = 20;

/// As deep as toml_edit nests values.
const MAX_DEPTH: u32 = 80;

/// A TOML key, quoted if necessary.
#[must_use]
pub fn key(name: &str) -> String {
    toml_edit::Key::new(name).display_repr().into_owned()
}

/// A TOML string literal.
#[must_use]
pub fn string(value: &str) -> String {
    toml_edit::Value::from(value).to_string()
}

pub(super) fn parse(text: &str) -> Result<ConfigNode, Vec<Diagnostic>> {
    match Document::parse(text) {
        Ok(document) => {
            Ok(ConfigNode { value: ConfigValue::Table(entries(text, document.as_table())), span: None })
        }
        Err(error) => {
            let duplicates = duplicates(text, &error);
            Err(if duplicates.is_empty() { syntax_errors(text, &error) } else { duplicates })
        }
    }
}

fn entries(text: &str, table: &dyn TableLike) -> Vec<ConfigEntry> {
    let entry = |(key, item): (&str, &Item)| {
        let span = table.get_key_value(key).and_then(|(key, _)| key.span());
        Some(ConfigEntry { key: key.to_owned(), span, node: node(text, item)? })
    };
    table.iter().filter_map(entry).collect()
}

fn node(text: &str, item: &Item) -> Option<ConfigNode> {
    Some(match item {
        Item::None => return None,
        Item::Value(value) => of_value(text, value),
        Item::Table(table) => ConfigNode { value: ConfigValue::Table(entries(text, table)), span: None },
        Item::ArrayOfTables(tables) => {
            let tables = tables.iter().map(|table| ConfigNode {
                value: ConfigValue::Table(entries(text, table)),
                span: table.span(),
            });
            ConfigNode { value: ConfigValue::Array(tables.collect()), span: None }
        }
    })
}

fn of_value(text: &str, value: &Value) -> ConfigNode {
    let span = value.span();
    let raw = || span.clone().and_then(|span| text.get(span)).unwrap_or_default().to_owned();
    let value = match value {
        Value::String(text) => ConfigValue::Text(text.value().clone()),
        Value::Boolean(flag) => ConfigValue::Boolean(*flag.value()),
        Value::Integer(_) => ConfigValue::Integer(raw()),
        Value::Float(_) => ConfigValue::Float(raw()),
        Value::Datetime(_) => ConfigValue::Datetime(raw()),
        Value::Array(values) => {
            ConfigValue::Array(values.iter().map(|value| of_value(text, value)).collect())
        }
        Value::InlineTable(table) => ConfigValue::Table(entries(text, table)),
    };
    ConfigNode { value, span }
}

/// The duplicate keys of a text, each with both places; empty if `error` is another one.
///
/// The parser stops at the second place and says nothing of the first. So the duplicate is renamed to a key that
/// occurs nowhere: its neighbours are then the table in which the first one is.
fn duplicates(text: &str, error: &TomlError) -> Vec<Diagnostic> {
    let mut places: Vec<(Range<usize>, String)> = Vec::new();
    let mut renamed = text.to_owned();
    let mut error = error.clone();
    while error.message().contains("duplicate key") && places.len() < MAX_ERRORS {
        let named = error.span().and_then(|span| Some((span.clone(), key_name(text.get(span)?)?)));
        let Some((span, name)) = named else { break };
        // As long as the key, so that all positions stay the same.
        let Some(other) = unique_key(&renamed, span.len()) else { break };
        renamed.replace_range(span.clone(), &other);
        places.push((span, name));
        match Document::parse(renamed.as_str()) {
            Ok(document) => {
                let table = document.as_table();
                let diagnostic = |(span, name): &(Range<usize>, String)| {
                    duplicate_key(name, span.clone(), first_place(table, span, name))
                };
                return places.iter().map(diagnostic).collect();
            }
            Err(next) => error = next,
        }
    }
    // Something else is wrong too: the second places alone have to do.
    places.into_iter().map(|(span, name)| duplicate_key(&name, span, None)).collect()
}

/// A bare key of this length that the text doesn't contain.
fn unique_key(text: &str, length: usize) -> Option<String> {
    (b'A'..=b'Z')
        .chain(b'0'..=b'9')
        .map(|byte| char::from(byte).to_string().repeat(length))
        .find(|key| !text.contains(key.as_str()))
}

/// The name of a key as it is written, with its quotes.
fn key_name(raw: &str) -> Option<String> {
    let key: toml_edit::Key = raw.trim().parse().ok()?;
    Some(key.get().to_owned())
}

/// The key `name` beside the one at `renamed`.
fn first_place(table: &dyn TableLike, renamed: &Range<usize>, name: &str) -> Option<Range<usize>> {
    for (key, item) in table.iter() {
        let span = table.get_key_value(key).and_then(|(key, _)| key.span());
        if span.as_ref() == Some(renamed) {
            return table.get_key_value(name)?.0.span();
        }
        let below: Vec<&dyn TableLike> = match item {
            Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
            Item::Value(Value::Array(values)) => {
                values.iter().filter_map(|value| Some(value.as_inline_table()? as &dyn TableLike)).collect()
            }
            item => item.as_table_like().into_iter().collect(),
        };
        if let Some(found) = below.into_iter().find_map(|table| first_place(table, renamed, name)) {
            return Some(found);
        }
    }
    None
}

/// The second key of the same name in a table.
pub(crate) fn duplicate_key(name: &str, second: Range<usize>, first: Option<Range<usize>>) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("duplicate key `{name}`"))
        .at(second)
        .label("second definition")
        .help("remove one of them");
    match first {
        Some(first) => diagnostic.related(first, "first definition"),
        None => diagnostic,
    }
}

/// The syntax errors of a text, one of each line and one of each array or inline table: the parser goes on behind an error.
fn syntax_errors(text: &str, first: &TomlError) -> Vec<Diagnostic> {
    if is_json(text) {
        return vec![syntax_error(text, first)];
    }
    let (errors, values) = parse_errors(text);
    let line_ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
    let mut reported: BTreeMap<usize, Diagnostic> = BTreeMap::new();
    for (start, error) in errors {
        let value = values.partition_point(|value| value.start < start).checked_sub(1);
        let value = value.and_then(|index| values.get(index)).filter(|value| start <= value.end);
        let place = value.map_or(start, |value| value.start);
        let line = line_ends.partition_point(|end| *end < place);
        reported.entry(line).or_insert(error);
    }
    if reported.is_empty() {
        return vec![syntax_error(text, first)];
    }
    reported.into_values().take(MAX_ERRORS).collect()
}

/// All errors of a text with their positions, those of its structure first, and the outermost arrays and inline tables.
fn parse_errors(text: &str) -> (Vec<(usize, Diagnostic)>, Vec<Range<usize>>) {
    let source = Source::new(text);
    let (mut events, mut errors): (Vec<Event>, Vec<ParseError>) = (Vec::new(), Vec::new());
    let mut receiver = parser::RecursionGuard::new(&mut events, MAX_DEPTH);
    parser::parse_document(&source.lex().into_vec(), &mut receiver, &mut errors);
    let mut values: Vec<Range<usize>> = Vec::new();
    let mut depth = 0_usize;
    for event in events {
        let Some(raw) = source.get(event) else { continue };
        match event.kind() {
            EventKind::SimpleKey => raw.decode_key(&mut (), &mut errors),
            EventKind::Scalar => {
                let _ = raw.decode_scalar(&mut (), &mut errors);
            }
            EventKind::ArrayOpen | EventKind::InlineTableOpen => {
                if depth == 0 {
                    values.push(event.span().start()..text.len());
                }
                depth += 1;
            }
            EventKind::ArrayClose | EventKind::InlineTableClose => {
                depth = depth.saturating_sub(1);
                if let Some(value) = values.last_mut().filter(|_| depth == 0) {
                    value.end = event.span().end();
                }
            }
            _ => {}
        }
    }
    let diagnostic = |error: ParseError| {
        let span = error.unexpected()?;
        let expected = error.expected().unwrap_or_default().iter().map(|expected| match expected {
            Expected::Literal(text) if !text.trim().is_empty() => format!("`{text}`"),
            Expected::Description(text) => (*text).to_owned(),
            _ => "a line break".to_owned(),
        });
        let expected = expected.collect::<Vec<_>>().join(", ");
        let message = match expected.as_str() {
            "" => error.description().to_owned(),
            expected => format!("{}, expected {expected}", error.description()),
        };
        Some((span.start(), syntax_diagnostic(text, &message, span.start()..span.end())))
    };
    (errors.into_iter().filter_map(diagnostic).collect(), values)
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

pub(crate) fn syntax_error(text: &str, error: &TomlError) -> Diagnostic {
    syntax_diagnostic(text, error.message(), error.span().unwrap_or(text.len()..text.len()))
}

fn syntax_diagnostic(text: &str, message: &str, span: Range<usize>) -> Diagnostic {
    let start = text.floor_char_boundary(span.start);
    let span = start..text.ceil_char_boundary(span.end).max(start);
    let mut lines = message.lines();
    let mut diagnostic =
        Diagnostic::error(format!("invalid TOML: {}", lines.next().unwrap_or("syntax error")))
            .at(span.clone());
    for line in lines {
        diagnostic = diagnostic.help(line);
    }
    let backslash = |at: Option<&str>| at.is_some_and(|text| text.contains('\\'));
    let near = start.checked_sub(1).map(|before| text.floor_char_boundary(before)..span.end);
    if backslash(text.get(span)) || near.is_some_and(|near| backslash(text.get(near))) {
        diagnostic = diagnostic.help(
            "write Windows paths in single quotes ('C:\\plugins\\http') or with double backslashes (\"C:\\\\plugins\\\\http\")",
        );
    }
    if is_json(text) {
        diagnostic =
            diagnostic.help("this looks like JSON; vx reads it from a file with the extension `.json`");
    }
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_of_several_lines_are_reported_together() {
        let lines = |text: &str| -> Vec<(usize, String)> {
            let errors = parse(text).map(drop).unwrap_err();
            let line =
                |error: &Diagnostic| text[..error.span.clone().unwrap().start].matches('\n').count() + 1;
            errors
                .iter()
                .map(|error| (line(error), error.message.replacen("invalid TOML: ", "", 1)))
                .collect()
        };
        let text = "[roadrunner]\nref = v2025.1.15\n\n[plugins]\nhttp = \"v5\nrpc = 'v5.1.9'\n[debug\nenabled = true\nx y = 1\n";
        let expected = [
            (2, "string values must be quoted, expected literal string"),
            (5, "invalid basic string, expected `\"`"),
            (7, "unclosed table, expected `]`"),
            (9, "key with no value, expected `=`"),
        ];
        assert_eq!(lines(text), expected.map(|(line, message)| (line, message.to_owned())));
        // What follows an unclosed array or table is part of it.
        for (text, error_lines) in [
            (
                "targets = [\n  \"linux/amd64\",\n\n[roadrunner]\nref = \"v3\"\n\n[plugins]\nhttp = \"v6\"\n",
                vec![5],
            ),
            ("a = { b = 1\nc = 2\n[d]\ne = 3\n", vec![2]),
            ("a = [1 2]\nb = [\n3 4,\n5 6\n]\nc = x\n", vec![1, 3, 6]),
            ("a = \"\"\"\nb = 1\nc = 2\n", vec![4]),
            ("a: 1\nb: 2\n", vec![1, 2]),
            ("{\n  \"a\": 1,\n  \"b\": 2\n}\n", vec![1]),
        ] {
            let found = lines(text);
            assert_eq!(
                found.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
                error_lines,
                "{text}{found:?}"
            );
        }
        assert_eq!(lines(&"x\n".repeat(1000)).len(), MAX_ERRORS);
    }
}
