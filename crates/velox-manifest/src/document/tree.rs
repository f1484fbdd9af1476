use std::ops::Range;

use serde::{Serialize, Serializer, ser::SerializeMap};

/// The nesting that YAML and JSON may have: a configuration has 4 levels, and recursion is limited.
pub(super) const MAX_DEPTH: usize = 64;

/// A value with its position.
#[derive(Debug, Clone)]
pub struct ConfigNode {
    /// The value.
    pub value: ConfigValue,
    /// The byte range of the value; `None` for a table with a header, whose key is more precise.
    pub span: Option<Range<usize>>,
}

/// A value. Numbers and dates are kept as they are written: a version such as `1.10` must not become `1.1`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConfigValue {
    Null,
    Text(String),
    Boolean(bool),
    Integer(String),
    Float(String),
    Datetime(String),
    Array(Vec<ConfigNode>),
    Table(Vec<ConfigEntry>),
}

/// A key with its value. A table of YAML or JSON may have the same key twice.
#[derive(Debug, Clone)]
pub struct ConfigEntry {
    /// The key.
    pub key: String,
    /// The byte range of the key.
    pub span: Option<Range<usize>>,
    /// The value.
    pub node: ConfigNode,
}

impl ConfigNode {
    /// The entries of a table.
    #[must_use]
    pub fn entries(&self) -> Option<&[ConfigEntry]> {
        match &self.value {
            ConfigValue::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a table with this key. As in Velox, the case of letters doesn't matter.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ConfigEntry> {
        let entries = self.entries()?;
        let exact = entries.iter().find(|entry| entry.key == key);
        exact.or_else(|| entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key)))
    }

    /// Whether this is missing in all but name: an empty text, or nothing at all.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        matches!(&self.value, ConfigValue::Null)
            || matches!(&self.value, ConfigValue::Text(text) if text.is_empty())
    }

    /// The value in one word, with its article.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            ConfigValue::Null => "nothing",
            ConfigValue::Text(_) => "a string",
            ConfigValue::Boolean(_) => "a boolean",
            ConfigValue::Integer(_) => "an integer",
            ConfigValue::Float(_) => "a float",
            ConfigValue::Datetime(_) => "a datetime",
            ConfigValue::Array(nodes)
                if !nodes.is_empty()
                    && self.span.is_none()
                    && nodes.iter().all(|node| node.entries().is_some()) =>
            {
                "an array of tables"
            }
            ConfigValue::Array(_) => "an array",
            ConfigValue::Table(_) => "a table",
        }
    }
}

/// For conversion to TOML, which has no null.
impl Serialize for ConfigNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            ConfigValue::Null => serializer.serialize_none(),
            ConfigValue::Text(text) | ConfigValue::Datetime(text) => serializer.serialize_str(text),
            ConfigValue::Boolean(value) => serializer.serialize_bool(*value),
            ConfigValue::Integer(text) => match text.parse() {
                Ok(number) => serializer.serialize_i64(number),
                Err(_) => serializer.serialize_str(text),
            },
            // As a text, it keeps its digits.
            ConfigValue::Float(text) => serializer.serialize_str(text),
            ConfigValue::Array(nodes) => serializer.collect_seq(nodes),
            ConfigValue::Table(entries) => {
                let mut map = serializer.serialize_map(None)?;
                for entry in entries.iter().filter(|entry| !matches!(entry.node.value, ConfigValue::Null)) {
                    map.serialize_entry(&entry.key, &entry.node)?;
                }
                map.end()
            }
        }
    }
}
