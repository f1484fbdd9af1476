//! The positions and styles of plugins in a configuration text.

use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

use super::text::{line_end, line_start};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PluginsTable {
    Plugins,
    GitHub,
    GitLab,
}

impl PluginsTable {
    pub(super) const ALL: [Self; 3] = [Self::Plugins, Self::GitHub, Self::GitLab];

    pub(super) fn path(self) -> &'static [&'static str] {
        match self {
            Self::Plugins => &["plugins"],
            Self::GitHub => &["github", "plugins"],
            Self::GitLab => &["gitlab", "plugins"],
        }
    }

    /// The key of a plugin's ref.
    pub(super) fn reference(self) -> &'static str {
        if self == Self::Plugins { "tag" } else { "ref" }
    }
}

/// The syntax of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableStyle {
    /// `[plugins.http]` with keys on the lines below; the span of the header.
    Header(Range<usize>),
    /// `http = { … }` on a separate line; the span of the braces.
    Inline(Range<usize>),
    /// `http.tag = …` on separate lines.
    Dotted,
    /// Like [`TableStyle::Inline`], inside another inline table.
    Nested(Range<usize>),
}

#[derive(Debug, Clone)]
pub(super) struct PluginItem {
    pub(super) section: PluginsTable,
    pub(super) name: String,
    pub(super) key: Range<usize>,
    pub(super) shape: TableStyle,
    pub(super) fields: Vec<KeyValue>,
}

#[derive(Debug, Clone)]
pub(super) struct KeyValue {
    pub(super) name: String,
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

impl PluginItem {
    pub(super) fn field(&self, name: &str) -> Option<&KeyValue> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub(super) fn end(&self) -> usize {
        let own = match &self.shape {
            TableStyle::Header(span) | TableStyle::Inline(span) | TableStyle::Nested(span) => span.end,
            TableStyle::Dotted => self.key.end,
        };
        self.fields.iter().map(|field| field.value.end).max().unwrap_or(own).max(own)
    }

    pub(super) fn lines(&self, text: &str) -> Range<usize> {
        let start = match &self.shape {
            TableStyle::Header(header) => header.start,
            _ => self.fields.iter().map(|field| field.key.start).fold(self.key.start, usize::min),
        };
        line_start(text, start)..line_end(text, self.end())
    }
}

/// All plugins, in text order.
pub(super) fn entries(document: &Document<&str>) -> Vec<PluginItem> {
    let mut entries: Vec<PluginItem> = PluginsTable::ALL
        .into_iter()
        .filter_map(|section| Some((section, section_item(document, section)?)))
        .flat_map(|(section, item)| of_section(section, item))
        .collect();
    entries.sort_by_key(|entry| entry.key.start);
    entries
}

/// The item of a table of plugins, if it exists.
pub(super) fn section_item<'a>(document: &'a Document<&str>, section: PluginsTable) -> Option<&'a Item> {
    section.path().iter().try_fold(document.as_item(), |item, key| get(item.as_table_like()?, key))
}

/// The value of a key; as in the parser, the case of letters doesn't matter.
pub(super) fn get<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a Item> {
    table.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, item)| item)
}

fn of_section(section: PluginsTable, item: &Item) -> Vec<PluginItem> {
    let Some(table) = item.as_table_like() else { return Vec::new() };
    let nested = matches!(item, Item::Value(_)) && !table.is_dotted();
    let entry = |(name, item): (&str, &Item)| {
        let key = table.get_key_value(name)?.0.span()?;
        let inner = item.as_table_like()?;
        let shape = match item {
            Item::Value(Value::InlineTable(table)) if table.is_dotted() => TableStyle::Dotted,
            Item::Value(Value::InlineTable(table)) if nested => TableStyle::Nested(table.span()?),
            Item::Value(Value::InlineTable(table)) => TableStyle::Inline(table.span()?),
            Item::Table(table) if table.is_dotted() => TableStyle::Dotted,
            Item::Table(table) if !table.is_implicit() => TableStyle::Header(table.span()?),
            _ => return None,
        };
        let mut fields = fields(inner);
        fields.iter_mut().for_each(|field| field.name.make_ascii_lowercase());
        Some(PluginItem { section, name: name.to_owned(), key, shape, fields })
    };
    table.iter().filter_map(entry).collect()
}

pub(super) fn fields(table: &dyn TableLike) -> Vec<KeyValue> {
    let mut fields: Vec<KeyValue> = table
        .iter()
        .filter_map(|(name, item)| {
            let key = table.get_key_value(name)?.0.span()?;
            Some(KeyValue { name: name.to_owned(), key, value: item.span()? })
        })
        .collect();
    fields.sort_by_key(|field| field.key.start);
    fields
}
