use std::{fmt, ops::Range};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::tree::{ConfigEntry, ConfigNode, ConfigValue, MAX_DEPTH};
use crate::Diagnostic;

pub(super) fn parse(text: &str) -> Result<ConfigNode, Diagnostic> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    if body.trim().is_empty() {
        return Ok(ConfigNode { value: ConfigValue::Null, span: None });
    }
    let failed = |error: &serde_json::Error| syntax_error(text, error);
    let raw: &RawValue = serde_json::from_str(body).map_err(|error| failed(&error))?;
    JsonText(text).node(raw, 0)
}

struct JsonText<'a>(&'a str);

impl<'a> JsonText<'a> {
    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<ConfigNode, Diagnostic> {
        let span = self.range(raw);
        let invalid = |why: String| Diagnostic::error(format!("invalid JSON: {why}")).at(span.clone());
        if depth > MAX_DEPTH {
            return Err(invalid("too many levels".to_owned()));
        }
        let failed = |error: serde_json::Error| invalid(reason(&error));
        let json = raw.get();
        let value = match json.as_bytes().first() {
            Some(b'{') => {
                let JsonEntries(entries) = serde_json::from_str(json).map_err(failed)?;
                let entry = |(key, value): (&'a RawValue, &'a RawValue)| {
                    let name: String =
                        serde_json::from_str(key.get()).map_err(|error| invalid(reason(&error)))?;
                    Ok(ConfigEntry {
                        key: name,
                        span: Some(self.range(key)),
                        node: self.node(value, depth + 1)?,
                    })
                };
                ConfigValue::Table(entries.into_iter().map(entry).collect::<Result<_, Diagnostic>>()?)
            }
            Some(b'[') => {
                let values: Vec<&'a RawValue> = serde_json::from_str(json).map_err(failed)?;
                let nodes = values.into_iter().map(|value| self.node(value, depth + 1));
                ConfigValue::Array(nodes.collect::<Result<_, _>>()?)
            }
            Some(b'"') => ConfigValue::Text(serde_json::from_str(json).map_err(failed)?),
            Some(b't') => ConfigValue::Boolean(true),
            Some(b'f') => ConfigValue::Boolean(false),
            Some(b'n') | None => ConfigValue::Null,
            Some(_) if json.contains(['.', 'e', 'E']) => ConfigValue::Float(json.to_owned()),
            Some(_) => ConfigValue::Integer(json.to_owned()),
        };
        Ok(ConfigNode { value, span: Some(span) })
    }

    /// The position of a part of the text, which borrows from it.
    fn range(&self, raw: &RawValue) -> Range<usize> {
        let start = (raw.get().as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize);
        start..start + raw.get().len()
    }
}

/// The keys and values of an object, as they are written.
struct JsonEntries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for JsonEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = JsonEntries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(JsonEntries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// The message without its position, which the span shows.
fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split_once(" at line ").map_or(message.clone(), |(reason, _)| reason.to_owned())
}

fn syntax_error(text: &str, error: &serde_json::Error) -> Diagnostic {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start: usize = body.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    // The column is the number of bytes that were read, the wrong one included.
    let at = text.len() - body.len() + start + error.column().saturating_sub(1);
    let at = text.floor_char_boundary(at.min(text.len()));
    let end = text.ceil_char_boundary((at + 1).min(text.len()));
    Diagnostic::error(format!("invalid JSON: {}", reason(error))).at(at..end)
}
