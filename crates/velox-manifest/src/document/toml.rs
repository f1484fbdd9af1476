use std::ops::Range;

use toml_edit::{Document, Item, TableLike, TomlError, Value};

use super::tree::{ConfigEntry, ConfigNode, ConfigValue};
use crate::Diagnostic;

/// More duplicate keys than a user wants to see at once.
const MAX_DUPLICATES: usize = 20;

pub(super) fn parse(text: &str) -> Result<ConfigNode, Vec<Diagnostic>> {
    match Document::parse(text) {
        Ok(document) => {
            Ok(ConfigNode { value: ConfigValue::Table(entries(text, document.as_table())), span: None })
        }
        Err(error) => {
            let duplicates = duplicates(text, &error);
            Err(if duplicates.is_empty() { vec![syntax_error(text, &error)] } else { duplicates })
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
    while error.message().contains("duplicate key") && places.len() < MAX_DUPLICATES {
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

pub(crate) fn syntax_error(text: &str, error: &TomlError) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let start = text.floor_char_boundary(span.start);
    let span = start..text.ceil_char_boundary(span.end).max(start);
    let mut lines = error.message().lines();
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
    if text.trim_start().starts_with('{') {
        diagnostic =
            diagnostic.help("this looks like JSON; vx reads it from a file with the extension `.json`");
    }
    diagnostic
}
