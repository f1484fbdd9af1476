use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{Document, Item};

use super::{
    outline::{KeyValue, PluginItem, PluginsTable, TableStyle, entries, fields, section_item},
    string,
    text::{TextEdits, line_end, line_ending, line_start, whole},
};
use crate::{Diagnostic, Forge, Manifest, ManifestFormat, Origin, Plugin, Project, SourceFile};

/// The result of a migration to the newest format.
#[derive(Clone, PartialEq, Eq)]
pub struct Migration {
    /// The new configuration text.
    pub text: String,
    /// Descriptions of the removed settings that are defaults of vx.
    pub dropped: Vec<String>,
}

/// Converts a configuration to the newest format. `manifest` is the parsed `source`; `modules` has the module
/// paths, by plugin name, that [`Plugin::module_path`] can't derive.
///
/// Comments and lines that the formats share are kept. A text in the newest format is returned unchanged.
pub fn migrate(
    source: &SourceFile,
    manifest: &Manifest,
    modules: &BTreeMap<String, String>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Migration, Vec<Diagnostic>> {
    if manifest.format == ManifestFormat::Modules {
        return Ok(Migration { text: source.text.clone(), dropped: Vec::new() });
    }
    let modules = module_paths(manifest, modules)?;
    let document = Document::parse(source.text.as_str())
        .map_err(|error| vec![crate::document::syntax_error(&source.text, &error)])?;
    let mut migrating = Migrator {
        text: &source.text,
        document: &document,
        changes: TextEdits::default(),
        dropped: Vec::new(),
    };
    migrating.plugins(&modules)?;
    migrating.first_token();
    migrating.build_args(manifest);
    let Migrator { changes, dropped, .. } = migrating;
    let text = changes.apply(&source.text);

    let migrated = SourceFile { name: source.name.clone(), text };
    match Manifest::parse(&migrated, environment) {
        Ok((new, _)) if is_equivalent(manifest, &new, &modules) => {
            Ok(Migration { text: migrated.text, dropped })
        }
        _ => Err(vec![
            Diagnostic::error("failed to migrate the file: its layout is not supported")
                .help("write each plugin as a line or a table of `[github.plugins]` or `[gitlab.plugins]`"),
        ]),
    }
}

/// The module path of each plugin, checked against its repository.
fn module_paths(
    manifest: &Manifest,
    modules: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let mut known = BTreeMap::new();
    let mut errors = Vec::new();
    for plugin in &manifest.plugins {
        let name = &plugin.name.value;
        let at = |message: String| Diagnostic::error(message).at(plugin.name.span.clone());
        let Some(module) = modules.get(name).cloned().or_else(|| plugin.module_path(manifest)) else {
            errors.push(
                at(format!("unknown module path of plugin `{name}`"))
                    .label("required by the new format")
                    .help("create velox.lock with `vx lock`, or run `vx migrate` without `--offline`"),
            );
            continue;
        };
        if plugin.replace.is_none() && !leads_to_repository(&module, plugin, manifest) {
            errors.push(
                at(format!("the module path {module} of plugin `{name}` doesn't lead to its repository"))
                    .label("can't be expressed in the new format")
                    .help("use the repository's path in its go.mod, or keep this format"),
            );
        }
        if known.insert(name.clone(), module).is_some() {
            errors.push(
                at(format!("duplicate plugin `{name}`: the new format has one table for both"))
                    .label("second plugin")
                    .help("rename one of them"),
            );
        }
    }
    if errors.is_empty() { Ok(known) } else { Err(errors) }
}

fn leads_to_repository(module: &str, plugin: &Plugin, manifest: &Manifest) -> bool {
    let (root, own_folder) = match &plugin.origin {
        Origin::Module(_) => return true,
        Origin::GitHub { owner, repository, .. } => {
            (format!("{}/{}/{}", manifest.github.host(), owner.value, repository.value), false)
        }
        Origin::GitLab { project, folder } => {
            // The project path contains neither the URL prefix of a self-hosted GitLab nor the folder.
            let own = manifest.gitlab.endpoint.as_ref();
            let hidden = own.is_some_and(|url| url.value.path() != "/" || folder.is_some());
            let host = manifest.gitlab.host();
            match &project.value {
                Project::Path(path) => (format!("{host}/{path}"), hidden),
                Project::Id(_) => (host.to_owned(), hidden),
            }
        }
    };
    let (module, root) = (module.to_ascii_lowercase(), root.to_ascii_lowercase());
    !own_folder && module.strip_prefix(&root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

struct Migrator<'a> {
    text: &'a str,
    document: &'a Document<&'a str>,
    changes: TextEdits,
    dropped: Vec<String>,
}

impl Migrator<'_> {
    /// Renames the first table of plugins to `[plugins]`. TOML forbids defining a table twice, so each plugin
    /// of the second one gets its own table.
    fn plugins(&mut self, modules: &BTreeMap<String, String>) -> Result<(), Vec<Diagnostic>> {
        let mut headers: Vec<(usize, PluginsTable)> = Vec::new();
        for section in PluginsTable::ALL {
            if let Some(Item::Table(table)) = section_item(self.document, section)
                && let Some(span) = table.span().filter(|_| !table.is_implicit() && !table.is_dotted())
            {
                headers.push((span.start, section));
            }
        }
        headers.sort_by_key(|(start, _)| *start);
        let entries = entries(self.document);
        // An empty table would still select the old format.
        headers.retain(|(start, section)| {
            let used = entries.iter().any(|entry| {
                entry.section == *section && matches!(entry.shape, TableStyle::Inline(_) | TableStyle::Dotted)
            });
            if !used {
                self.remove_header(*start);
            }
            used
        });
        let (first, others) = match headers.split_first() {
            Some((first, others)) => (Some(first.1), others),
            None => (None, &[][..]),
        };
        if let Some((start, section)) = headers.first() {
            let end =
                section_item(self.document, *section).and_then(Item::span).map_or(*start, |span| span.end);
            self.changes.replace(*start..end, "[plugins]");
        }
        for (start, _) in others {
            self.remove_header(*start);
        }

        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in &entries {
            let Some(module) = modules.get(&entry.name) else { continue };
            let below_second = others.iter().any(|(_, section)| *section == entry.section);
            match &entry.shape {
                TableStyle::Header(header) => {
                    self.changes.replace(header.start..entry.key.start, "[plugins.");
                    self.fields(entry, module);
                }
                TableStyle::Dotted if !below_second => {
                    if first != Some(entry.section) {
                        for field in &entry.fields {
                            self.shorten(entry.section, field.key.start);
                        }
                    }
                    self.fields(entry, module);
                }
                TableStyle::Inline(braces)
                    if !self.text.get(braces.clone()).unwrap_or_default().contains('\n') =>
                {
                    let pairs = self.pairs(entry, module);
                    if below_second {
                        let first_of_section = seen.insert(entry.section.path());
                        self.own_table(entry, braces.end, &pairs, first_of_section);
                    } else {
                        if first != Some(entry.section) {
                            self.shorten(entry.section, entry.key.start);
                        }
                        self.changes.replace(braces.clone(), super::inline(&pairs));
                    }
                }
                TableStyle::Inline(_) | TableStyle::Nested(_) | TableStyle::Dotted => errors.push(
                    Diagnostic::error(format!(
                        "failed to migrate plugin `{}`: its layout is not supported",
                        entry.name
                    ))
                    .at(entry.key.clone())
                    .help("write it on one line of `[github.plugins]` or `[gitlab.plugins]`"),
                ),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The keys of a plugin in the newest format, with their literal values.
    fn pairs(&self, entry: &PluginItem, module: &str) -> Vec<(&'static str, String)> {
        let raw = |name: &str| Some(self.text.get(entry.field(name)?.value.clone())?.to_owned());
        let mut pairs = vec![("module_name", string(module))];
        pairs.extend(raw("ref").map(|reference| ("tag", reference)));
        pairs.extend(raw("replace").map(|replace| ("replace", replace)));
        pairs
    }

    /// `http = { … } # note` → `[plugins.http] # note`, with keys on separate lines.
    fn own_table(&mut self, entry: &PluginItem, end: usize, pairs: &[(&str, String)], first: bool) {
        let ending = line_ending(self.text);
        let start = line_start(self.text, entry.key.start);
        let before = line_start(self.text, start.saturating_sub(1));
        let above = self.text.get(before..start).unwrap_or_default().trim();
        let blank = if first || above.is_empty() || above.starts_with('#') { "" } else { ending };
        let name = self.text.get(entry.key.clone()).unwrap_or_default();
        self.changes.replace(start..end, format!("{blank}[plugins.{name}]"));
        let at = line_end(self.text, end);
        let lines: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        self.changes.insert(at, super::as_lines(self.text, at, &lines));
    }

    /// Rewrites keys that are on separate lines.
    fn fields(&mut self, entry: &PluginItem, module: &str) {
        for field in &entry.fields {
            match field.name.as_str() {
                "ref" => self.changes.replace(field.key.clone(), "tag"),
                "repository" => {
                    self.changes.replace(field.key.clone(), "module_name");
                    self.changes.replace(field.value.clone(), string(module));
                }
                "owner" | "folder" => self.remove(field),
                _ => {}
            }
        }
    }

    /// Removes a key and its value, and the line unless it has a comment.
    fn remove(&mut self, field: &KeyValue) {
        let (start, end) = (line_start(self.text, field.key.start), line_end(self.text, field.value.end));
        match self.text.get(field.value.end..end).and_then(|rest| rest.find('#')) {
            Some(comment) => self.changes.remove(start..field.value.end + comment),
            None => self.changes.remove(whole(self.text, start..end)),
        }
    }

    fn remove_header(&mut self, start: usize) {
        let end = line_end(self.text, start);
        let line = self.text.get(start..end).unwrap_or_default();
        match line.find('#') {
            Some(comment) => self.changes.remove(start..start + comment),
            None => self.changes.remove(whole(self.text, line_start(self.text, start)..end)),
        }
    }

    /// `[github_token]` → `[github.token]`.
    fn first_token(&mut self) {
        let key = self.document.iter().find(|(key, _)| key.eq_ignore_ascii_case("github_token"));
        let Some((name, item)) = key else { return };
        let places: Vec<usize> = match item {
            Item::Table(table) if table.is_dotted() => {
                fields(table).iter().map(|field| line_start(self.text, field.key.start)).collect()
            }
            Item::Table(table) => table.span().into_iter().map(|span| span.start).collect(),
            _ => self
                .document
                .key(name)
                .and_then(toml_edit::Key::span)
                .into_iter()
                .map(|span| span.start)
                .collect(),
        };
        for start in places {
            let found = self.text.get(start..).and_then(|text| text.find(name));
            if let Some(at) = found.map(|at| start + at) {
                self.changes.replace(at..at + name.len(), "github.token");
            }
        }
    }

    /// `github.plugins.http` → `plugins.http`, if the line has the full key.
    fn shorten(&mut self, section: PluginsTable, key: usize) {
        let start = line_start(self.text, key);
        let prefix = self.text.get(start..key).unwrap_or_default().to_ascii_lowercase();
        let forge = section.path().first().copied().unwrap_or_default();
        if let Some(at) = prefix.find(forge)
            && let Some(dot) = prefix.get(at..).and_then(|rest| rest.find("plugins"))
        {
            self.changes.remove(start + at..start + at + dot);
        }
    }

    /// Removes `[velox] build_args` if they equal the defaults of vx.
    fn build_args(&mut self, manifest: &Manifest) {
        let velox = self.document.iter().find(|(key, _)| key.eq_ignore_ascii_case("velox"));
        let Some((name, item)) = velox else { return };
        let arguments = &manifest.build_args;
        let usual = arguments.stamp_version.is_none()
            && arguments.stamp_time.is_none()
            && arguments.tags.is_empty()
            && arguments.flags.is_empty()
            && arguments.definitions.is_empty()
            && !arguments.race
            && arguments.strip != Some(false);
        if !usual {
            return;
        }
        self.dropped.push("[velox] build_args: vx trims, strips and stamps by default".to_owned());
        match item {
            Item::Table(table) => {
                if let Some(header) = table.span().filter(|_| !table.is_dotted() && !table.is_implicit()) {
                    self.remove_header(header.start);
                }
                for field in fields(table) {
                    self.remove(&field);
                }
            }
            item => {
                if let Some(value) = item.span()
                    && let Some(key) = self.document.key(name).and_then(toml_edit::Key::span)
                {
                    self.remove(&KeyValue { name: "velox".to_owned(), key, value });
                }
            }
        }
    }
}

/// Whether the migrated manifest is equivalent.
fn is_equivalent(old: &Manifest, new: &Manifest, modules: &BTreeMap<String, String>) -> bool {
    let plugins = |manifest: &Manifest| -> BTreeMap<String, (Option<String>, String, String)> {
        manifest
            .plugins
            .iter()
            .map(|plugin| {
                let module = match &plugin.origin {
                    Origin::Module(path) => Some(path.value.clone()),
                    Origin::GitHub { .. } | Origin::GitLab { .. } => modules.get(&plugin.name.value).cloned(),
                };
                let replace =
                    plugin.replace.as_ref().map(|replace| replace.value.to_string()).unwrap_or_default();
                (plugin.name.value.clone(), (module, plugin.reference.value.clone(), replace))
            })
            .collect()
    };
    let rest = |manifest: &Manifest| {
        let endpoint = |forge: &Forge| forge.endpoint.as_ref().map(|endpoint| endpoint.value.clone());
        let mut arguments = manifest.build_args.clone();
        arguments.strip = Some(arguments.strip.unwrap_or(true));
        format!(
            "{:?}",
            (
                manifest.roadrunner.reference.as_ref().map(|reference| &reference.value),
                manifest.roadrunner.dependencies,
                (manifest.debug, manifest.strict, manifest.log.level, manifest.log.mode),
                manifest.replaces.iter().map(|r| (&r.old.value, &r.new.value)).collect::<Vec<_>>(),
                manifest.excludes.iter().map(|e| (&e.module.value, &e.version.value)).collect::<Vec<_>>(),
                manifest.requires.iter().map(|r| (&r.module.value, &r.version.value)).collect::<Vec<_>>(),
                manifest.go.as_ref().map(|go| &go.value),
                manifest.targets.iter().map(|target| &target.value).collect::<Vec<_>>(),
                (
                    manifest.cache.remotes.iter().map(|remote| &remote.value).collect::<Vec<_>>(),
                    (manifest.cache.read_only, manifest.cache.artifacts),
                    manifest.cache.trusted_key.as_ref().map(|key| &key.value),
                ),
                (endpoint(&manifest.github), endpoint(&manifest.gitlab)),
                (manifest.github.token.is_some(), manifest.gitlab.token.is_some()),
                arguments,
            )
        )
    };
    new.format == ManifestFormat::Modules && plugins(old) == plugins(new) && rest(old) == rest(new)
}
