//! Format-preserving edits of a `velox.toml`: comments, order and layout are kept.

mod migrate;
mod outline;
mod text;

use std::{fmt, ops::Range};

use toml_edit::{Document, Item, TableLike};

pub use self::migrate::{Migration, migrate};
use self::{
    outline::{PluginItem, PluginsTable, TableStyle, entries, fields, get, section_item},
    text::{
        TextEdits, after_own_comments, as_lines, blank_line_before, is_blank, line_before, line_end,
        line_start, whole,
    },
};
pub use crate::document::{key, string};
use crate::{
    Diagnostic, ManifestFormat, Replacement, SourceFile,
    catalogue::{self, KnownPlugin, PluginGroup},
    document,
    reader::unknown_plugin,
};

/// The start of each [`group_heading`].
const HEADING: &str = "# --- ";

/// A format-preserving editor of a configuration text.
///
/// A failed operation changes nothing; the spans of its diagnostic refer to the unchanged text.
#[derive(Clone, PartialEq, Eq)]
pub struct Editor {
    text: String,
}

/// A plugin to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlugin {
    /// The name in the file.
    pub name: String,
    /// The origin.
    pub origin: NewOrigin,
    /// Tag, branch, commit or `latest`.
    pub reference: String,
    /// The replacement.
    pub replace: Option<Replacement>,
}

/// The origin of a new plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewOrigin {
    /// A module path, in the newest format.
    Module(String),
    /// A GitHub repository, in the manual's format.
    GitHub {
        /// User or organization.
        owner: String,
        /// Repository name.
        repository: String,
        /// Folder inside the repository.
        folder: Option<String>,
    },
    /// A GitLab project, in the manual's format.
    GitLab {
        /// The group, including subgroups.
        owner: String,
        /// Project name.
        repository: String,
        /// Folder inside the repository.
        folder: Option<String>,
    },
}

impl Editor {
    /// Creates an editor of a TOML text.
    pub fn new(text: &str) -> Result<Self, Diagnostic> {
        match Document::parse(text) {
            Ok(_) => Ok(Self { text: text.to_owned() }),
            Err(error) => Err(document::syntax_error(text, &error)),
        }
    }

    /// The current text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The format of the text; the newest one if it has neither plugins nor tables of an older format.
    #[must_use]
    pub fn format(&self) -> ManifestFormat {
        let Ok(document) = self.document() else { return ManifestFormat::Modules };
        if section_item(&document, PluginsTable::Plugins).is_some() {
            let is_repository =
                |entry: &PluginItem| entry.field("owner").is_some() && entry.field("module_name").is_none();
            let is_first = entries(&document)
                .iter()
                .any(|entry| entry.section == PluginsTable::Plugins && is_repository(entry));
            return if is_first { ManifestFormat::First } else { ManifestFormat::Modules };
        }
        let older = [PluginsTable::GitHub, PluginsTable::GitLab]
            .into_iter()
            .any(|section| section_item(&document, section).is_some());
        match (get(document.as_table(), "velox").is_some(), older) {
            (true, _) => ManifestFormat::Ancestor,
            (false, true) => ManifestFormat::Manual,
            (false, false) => ManifestFormat::Modules,
        }
    }

    /// The plugin names, in file order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries().into_iter().map(|entry| entry.name).collect()
    }

    /// Whether the ref of a plugin, or of `roadrunner`, contains a variable (`${NAME}`, `$NAME`), which a new ref would
    /// overwrite.
    #[must_use]
    pub fn has_variable_ref(&self, name: &str) -> bool {
        let place = match name {
            "roadrunner" => self.document().ok().and_then(|document| roadrunner_ref(&document)),
            _ => self
                .entries()
                .iter()
                .find(|entry| entry.name == name)
                .and_then(|entry| entry.field(entry.section.reference()))
                .map(|field| field.value.clone()),
        };
        place.and_then(|place| self.text.get(place)).is_some_and(|raw| raw.contains('$'))
    }

    /// Adds a plugin after the last one of its group in the catalogue, else after the last one, in the same style. In a
    /// file with the headings of `vx init`, a new group gets one.
    pub fn add(&mut self, plugin: &NewPlugin) -> Result<(), Diagnostic> {
        let all = self.entries();
        if let Some(taken) = all.iter().find(|entry| entry.name == plugin.name) {
            return Err(Diagnostic::error(format!("plugin `{}` already exists", plugin.name))
                .at(taken.key.clone())
                .label("name already in use")
                .help("choose another name with `--name`"));
        }
        let section = plugin.section();
        let has_headings = self.text.lines().any(|line| line.starts_with(HEADING));
        let group = group_of(&plugin.name);
        let is_alike = |entry: &&PluginItem| entry.section == section;
        let in_group = |entry: &&PluginItem| is_alike(entry) && group_of(&entry.name) == group;
        let order = |group: Option<PluginGroup>| (group.is_none(), group);
        let is_before = |entry: &&PluginItem| is_alike(entry) && order(group_of(&entry.name)) < order(group);
        let grouped = all.iter().rfind(in_group).filter(|_| group.is_some() || has_headings);
        let before = || all.iter().rfind(is_before).filter(|_| has_headings);
        let like = grouped.or_else(before).or_else(|| all.iter().rfind(is_alike));
        let pairs = plugin.pairs(like);
        match like {
            Some(like) => self.add_like(like, plugin, &pairs),
            None => self.add_first(section, plugin, &pairs),
        }
    }

    /// Removes a plugin. Comments on separate lines are kept, except those of `vx init`: its description, and the heading
    /// of a group without other plugins.
    pub fn remove(&mut self, name: &str) -> Result<(), Diagnostic> {
        let entry = self.entry(name)?;
        let mut changes = TextEdits::default();
        match &entry.shape {
            TableStyle::Header(_) => {
                let mut lines = entry.lines(&self.text);
                lines.start = self.description(&entry).unwrap_or(lines.start);
                lines.start = self.own_heading(&entry, lines.start).unwrap_or(lines.start);
                if is_blank(&self.text, lines.end) {
                    lines.start = blank_line_before(&self.text, lines.start).unwrap_or(lines.start);
                }
                changes.remove(whole(&self.text, lines));
            }
            TableStyle::Inline(_) => changes.remove(whole(&self.text, entry.lines(&self.text))),
            TableStyle::Dotted => {
                for field in &entry.fields {
                    changes.remove(self.statement(field));
                }
            }
            TableStyle::Nested(_) => {
                let document = self.document()?;
                let siblings =
                    section_item(&document, entry.section).and_then(Item::as_table_like).map(fields);
                changes.remove(self.between_commas(&siblings.unwrap_or_default(), name));
            }
        }
        self.change(changes)
    }

    /// Sets a plugin's ref.
    pub fn set_ref(&mut self, name: &str, reference: &str) -> Result<(), Diagnostic> {
        let entry = self.entry(name)?;
        self.set(&entry, entry.section.reference(), reference)
    }

    /// Sets a plugin's module path. Plugins of a forge don't change: a repository has all major versions.
    pub fn set_module(&mut self, name: &str, module: &str) -> Result<(), Diagnostic> {
        let entry = self.entry(name)?;
        if entry.section == PluginsTable::Plugins { self.set(&entry, "module_name", module) } else { Ok(()) }
    }

    /// Sets or removes the replacement of a plugin.
    pub fn set_replace(&mut self, name: &str, replace: Option<&Replacement>) -> Result<(), Diagnostic> {
        let entry = self.entry(name)?;
        match replace {
            Some(replace) => self.set(&entry, "replace", &replace.to_string()),
            None => {
                let Some(field) = entry.field("replace") else { return Ok(()) };
                let place = match entry.shape {
                    TableStyle::Header(_) | TableStyle::Dotted => self.statement(field),
                    TableStyle::Inline(_) | TableStyle::Nested(_) => {
                        self.between_commas(&entry.fields, "replace")
                    }
                };
                self.replace(place, "")
            }
        }
    }

    /// Sets RoadRunner's ref; adds `[roadrunner]` if it is missing.
    pub fn set_roadrunner(&mut self, reference: &str) -> Result<(), Diagnostic> {
        let document = self.document()?;
        if get(document.as_table(), "roadrunner").is_none() {
            return self.append(&["[roadrunner]".to_owned(), format!("ref = {}", string(reference))]);
        }
        let Some(place) = roadrunner_ref(&document) else {
            return Err(Diagnostic::error("missing key `ref` in `[roadrunner]`")
                .help(format!("add it: [roadrunner] ref = \"{reference}\"")));
        };
        if self.has_variable_ref("roadrunner") {
            return Err(Diagnostic::error("the ref of RoadRunner contains a variable")
                .at(place)
                .label("stays unchanged")
                .help(format!("set the variable to {reference}")));
        }
        self.set_value(place, reference)
    }

    /// Sets `version` in `[go]`.
    pub fn set_go(&mut self, version: &str) -> Result<(), Diagnostic> {
        let document = self.document()?;
        let table = get(document.as_table(), "go");
        let value = table.and_then(|table| get(table.as_table_like()?, "version")?.span());
        match (value, table) {
            (Some(place), _) => self.set_value(place, version),
            (None, None) => self.append(&["[go]".to_owned(), format!("version = {}", string(version))]),
            (None, Some(_)) => Err(Diagnostic::error("missing key `version` in `[go]`")
                .help(format!("add it: version = {}", string(version)))),
        }
    }

    /// Sets the lowest version of a module, in `[[requires]]`.
    pub fn set_floor(&mut self, module: &str, version: &str) -> Result<(), Diagnostic> {
        let document = self.document()?;
        let item = get(document.as_table(), "requires");
        let tables: Vec<&dyn TableLike> = match item {
            Some(Item::ArrayOfTables(tables)) => tables.iter().map(|table| table as &dyn TableLike).collect(),
            Some(Item::Value(toml_edit::Value::Array(values))) => {
                values.iter().filter_map(|value| Some(value.as_inline_table()? as &dyn TableLike)).collect()
            }
            _ => Vec::new(),
        };
        let is_module =
            |table: &&&dyn TableLike| get(**table, "module").and_then(Item::as_str) == Some(module);
        let known = tables.iter().find(is_module).and_then(|table| get(*table, "version")?.span());
        let pairs = [("module", string(module)), ("version", string(version))];
        let inline_array = item.and_then(|item| item.as_value()?.span());
        if let Some(place) = known {
            return self.set_value(place, version);
        }
        let Some(array) = inline_array else {
            let lines = pairs.map(|(key, value)| format!("{key} = {value}"));
            return self.append(&[&["[[requires]]".to_owned()], lines.as_slice()].concat());
        };
        let comma = if tables.is_empty() { "" } else { ", " };
        let (at, element) = (array.start + 1, format!("{}{comma}", inline(&pairs)));
        self.replace(at..at, element)
    }

    /// Adds a table at the end, after a blank line.
    fn append(&mut self, lines: &[String]) -> Result<(), Diagnostic> {
        let text = &self.text;
        let mut lines = lines.to_vec();
        let (start, end) = (line_start(text, text.len()), text.len());
        let is_empty = text.trim_start_matches('\u{feff}').is_empty();
        let is_separate = is_empty || (start == end && blank_line_before(text, start).is_some());
        if !is_separate {
            lines.insert(0, String::new());
        }
        self.replace(end..end, as_lines(text, end, &lines))
    }

    fn document(&self) -> Result<Document<&str>, Diagnostic> {
        Document::parse(self.text.as_str()).map_err(|error| document::syntax_error(&self.text, &error))
    }

    fn entries(&self) -> Vec<PluginItem> {
        self.document().map(|document| entries(&document)).unwrap_or_default()
    }

    fn entry(&self, name: &str) -> Result<PluginItem, Diagnostic> {
        let entries = self.entries();
        if let Some(entry) = entries.iter().find(|entry| entry.name == name) {
            return Ok(entry.clone());
        }
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        Err(unknown_plugin(name, &names))
    }

    /// The start of the comment above a plugin that begins with its description.
    fn description(&self, entry: &PluginItem) -> Option<usize> {
        let description = catalogue::find(&entry.name)?.comment();
        let text = &self.text;
        let mut start = entry.lines(text).start;
        loop {
            start = line_before(text, start)?;
            match text.get(start..line_end(text, start)).map(str::trim_end) {
                Some(line) if line == description => return Some(start),
                Some(line) if line.starts_with('#') => {}
                _ => return None,
            }
        }
    }

    /// The start of the heading above `start`, if no other plugin is of the group of `entry`.
    fn own_heading(&self, entry: &PluginItem, start: usize) -> Option<usize> {
        let group = group_of(&entry.name);
        let is_other = |other: &PluginItem| other.name != entry.name && group_of(&other.name) == group;
        if self.entries().iter().any(is_other) {
            return None;
        }
        let heading = line_before(&self.text, blank_line_before(&self.text, start)?)?;
        let line = self.text.get(heading..line_end(&self.text, heading))?;
        (line.trim_end() == group_heading(group)).then_some(heading)
    }

    fn add_like(
        &mut self,
        like: &PluginItem,
        plugin: &NewPlugin,
        pairs: &[(&str, String)],
    ) -> Result<(), Diagnostic> {
        let text = &self.text;
        let name = key(&plugin.name);
        let (at, new) = match &like.shape {
            TableStyle::Header(header) => {
                let at = after_own_comments(text, like.lines(text).end);
                let prefix = text.get(header.start..like.key.start).unwrap_or("[plugins.");
                let mut lines = Vec::new();
                if is_blank(text, at) {
                    lines.push(String::new());
                }
                let group = group_of(&plugin.name);
                if group_of(&like.name) != group && text.lines().any(|line| line.starts_with(HEADING)) {
                    lines.extend([group_heading(group), String::new()]);
                }
                if self.description(like).is_some() {
                    lines.extend(catalogue::find(&plugin.name).map(KnownPlugin::comment));
                }
                lines.push(format!("{prefix}{name}]"));
                let indent = like.fields.first().map_or("", |field| {
                    text.get(line_start(text, field.key.start)..field.key.start).unwrap_or_default()
                });
                lines.extend(pairs.iter().map(|(key, value)| format!("{indent}{key} = {value}")));
                (at, as_lines(text, at, &lines))
            }
            TableStyle::Inline(_) | TableStyle::Dotted => {
                let at = like.lines(text).end;
                let prefix = text.get(line_start(text, like.key.start)..like.key.start).unwrap_or_default();
                let line = format!("{prefix}{name} = {}", inline(pairs));
                (at, as_lines(text, at, &[line]))
            }
            TableStyle::Nested(braces) => (braces.end, format!(", {name} = {}", inline(pairs))),
        };
        self.replace(at..at, new)
    }

    /// Adds the first plugin of a table that is missing or empty.
    fn add_first(
        &mut self,
        section: PluginsTable,
        plugin: &NewPlugin,
        pairs: &[(&str, String)],
    ) -> Result<(), Diagnostic> {
        let line = format!("{} = {}", key(&plugin.name), inline(pairs));
        let document = self.document()?;
        let item = section_item(&document, section);
        match item.and_then(|item| Some((item, item.span()?))) {
            Some((Item::Table(table), header)) if !table.is_implicit() && !table.is_dotted() => {
                let at = line_end(&self.text, header.end);
                self.replace(at..at, as_lines(&self.text, at, &[line]))
            }
            Some((Item::Value(value), braces)) if value.is_inline_table() => {
                self.replace(braces, format!("{{ {line} }}"))
            }
            _ if section == PluginsTable::Plugins => {
                let mut lines = vec![format!("[plugins.{}]", key(&plugin.name))];
                lines.extend(pairs.iter().map(|(key, value)| format!("{key} = {value}")));
                self.append(&lines)
            }
            _ => self.append(&[format!("[{}]", section.path().join(".")), line]),
        }
    }

    fn set(&mut self, entry: &PluginItem, name: &str, value: &str) -> Result<(), Diagnostic> {
        if let Some(field) = entry.field(name) {
            return self.set_value(field.value.clone(), value);
        }
        let Some(last) = entry.fields.last() else { return Ok(()) };
        let pair = format!("{name} = {}", self.literal(value, &last.value));
        let (at, new) = match entry.shape {
            TableStyle::Header(_) | TableStyle::Dotted => {
                let at = line_end(&self.text, last.value.end);
                let start = line_start(&self.text, last.key.start);
                let prefix = self.text.get(start..last.key.start).unwrap_or_default();
                (at, as_lines(&self.text, at, &[format!("{prefix}{pair}")]))
            }
            TableStyle::Inline(_) | TableStyle::Nested(_) => (last.value.end, format!(", {pair}")),
        };
        self.replace(at..at, new)
    }

    /// Writes a value in place of another.
    fn set_value(&mut self, place: Range<usize>, value: &str) -> Result<(), Diagnostic> {
        let literal = self.literal(value, &place);
        self.replace(place, literal)
    }

    /// The lines of a key and its value.
    fn statement(&self, field: &outline::KeyValue) -> Range<usize> {
        let lines = line_start(&self.text, field.key.start)..line_end(&self.text, field.value.end);
        whole(&self.text, lines)
    }

    /// The range of a pair in an inline table, with the preceding comma (for the first pair, the following
    /// one).
    fn between_commas(&self, pairs: &[outline::KeyValue], name: &str) -> Range<usize> {
        let Some(index) = pairs.iter().position(|pair| pair.name == name) else { return 0..0 };
        let before = index.checked_sub(1).and_then(|before| pairs.get(before));
        match (before, pairs.get(index), pairs.get(index + 1)) {
            (Some(before), Some(pair), _) => before.value.end..pair.value.end,
            (None, Some(pair), Some(next)) => pair.key.start..next.key.start,
            (None, Some(pair), None) => pair.key.start..pair.value.end,
            (_, None, _) => 0..0,
        }
    }

    /// A string literal with the quotes of `like`, if they can represent the value.
    fn literal(&self, value: &str, like: &Range<usize>) -> String {
        let raw = self.text.get(like.clone()).unwrap_or_default();
        let single = raw.starts_with('\'') && !raw.starts_with("'''");
        let plain = !value.contains('\'') && !value.chars().any(char::is_control);
        if single && plain { format!("'{value}'") } else { string(value) }
    }

    fn replace(&mut self, place: Range<usize>, new: impl Into<String>) -> Result<(), Diagnostic> {
        let mut changes = TextEdits::default();
        changes.replace(place, new);
        self.change(changes)
    }

    fn change(&mut self, changes: TextEdits) -> Result<(), Diagnostic> {
        let text = changes.apply(&self.text);
        match Document::parse(text.as_str()) {
            Ok(_) => {
                self.text = text;
                Ok(())
            }
            Err(error) => Err(Diagnostic::error(format!("failed to edit the file: {}", error.message()))
                .help("make this change by hand")),
        }
    }
}

impl NewPlugin {
    fn section(&self) -> PluginsTable {
        match self.origin {
            NewOrigin::Module(_) => PluginsTable::Plugins,
            NewOrigin::GitHub { .. } => PluginsTable::GitHub,
            NewOrigin::GitLab { .. } => PluginsTable::GitLab,
        }
    }

    /// The keys and values, in the order of `like`.
    fn pairs(&self, like: Option<&PluginItem>) -> Vec<(&'static str, String)> {
        let mut pairs = match &self.origin {
            NewOrigin::Module(path) => vec![("module_name", string(path)), ("tag", string(&self.reference))],
            NewOrigin::GitHub { owner, repository, folder }
            | NewOrigin::GitLab { owner, repository, folder } => {
                let mut pairs = vec![
                    ("ref", string(&self.reference)),
                    ("owner", string(owner)),
                    ("repository", string(repository)),
                ];
                pairs.extend(folder.iter().map(|folder| ("folder", string(folder))));
                pairs
            }
        };
        pairs.extend(self.replace.iter().map(|replace| ("replace", string(&replace.to_string()))));
        if let Some(like) = like {
            let place =
                |name: &str| like.fields.iter().position(|field| field.name == name).unwrap_or(usize::MAX);
            pairs.sort_by_key(|(name, _)| place(name));
        }
        pairs
    }
}

/// Omits the text, which may contain a token.
impl fmt::Debug for Editor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Editor").finish_non_exhaustive()
    }
}

/// The configuration syntax.
impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => f.write_str(directory),
            Self::Module { path, version: None } => f.write_str(path),
            Self::Module { path, version: Some(version) } => write!(f, "{path}@{version}"),
        }
    }
}

impl std::str::FromStr for Replacement {
    type Err = Diagnostic;

    /// A directory (`../http`), or a module (`github.com/acme/http`, `github.com/acme/http@v5.0.1`).
    fn from_str(text: &str) -> Result<Self, Diagnostic> {
        crate::check::replacement(text)
            .map_err(|wrong| crate::manual::invalid(&format!("invalid replacement `{text}`"), &None, wrong))
    }
}

/// A configuration in YAML or JSON as TOML, in the same format. Comments are lost.
///
/// # Errors
/// The syntax errors of the text, or a value that TOML can't express.
pub fn to_toml(source: &SourceFile) -> Result<String, Vec<Diagnostic>> {
    let tree = document::parse(source)?;
    toml_edit::ser::to_string_pretty(&tree).map_err(|error| {
        vec![Diagnostic::error(format!("failed to write `{}` as TOML: {error}", source.name))]
    })
}

/// The comment above the plugins of a group, or of those in none.
#[must_use]
pub fn group_heading(group: Option<PluginGroup>) -> String {
    format!("{HEADING}{}", group.map_or("Other", PluginGroup::title))
}

fn group_of(name: &str) -> Option<PluginGroup> {
    catalogue::find(name).map(|known| known.group)
}

/// The place of `ref` in `[roadrunner]`.
fn roadrunner_ref(document: &Document<&str>) -> Option<Range<usize>> {
    get(get(document.as_table(), "roadrunner")?.as_table_like()?, "ref")?.span()
}

fn inline(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}
