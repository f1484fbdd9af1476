//! Edits of a configuration file and its lock.

use std::path::{Path, PathBuf};

use velox_build::{BuildOptions, ErrorKind, Event, Goal, Upgrade, write_text};
use velox_manifest::{
    ConfigSyntax, Diagnostic, Level, Manifest, ManifestFormat, SourceFile,
    edit::{Editor, NewOrigin, NewPlugin, to_toml},
};
use velox_query::SelectedPlugin;

use crate::{
    cli::ConfigArgs,
    commands::{
        edit::{init::newest_roadrunner, select::select},
        session::{LoadedManifest, Session, parse, working_directory},
    },
    config_file::{ConfigFile, default_file},
    report::{self, Change},
    settings::Settings,
    status::CommandResult,
};

/// A configuration file that is being edited.
pub(crate) struct EditSession {
    /// The session of the manifest before the edit.
    pub(crate) session: Session,
    pub(crate) editor: Editor,
    pub(crate) source: SourceFile,
    pub(crate) file: PathBuf,
    pub(crate) changes: Vec<Change>,
    /// The plugins whose locked versions are ignored.
    pub(crate) upgrade: Vec<String>,
    /// The name of the file in YAML or JSON from which `source` was made.
    pub(crate) converted_from: Option<String>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    settings: Settings,
}

/// Why a configuration is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EditPurpose {
    /// To change it in place, which needs TOML in a format that is still written.
    Edit,
    /// To convert it to TOML in the latest format.
    Migrate,
    /// Only to read it.
    Inspect,
}

impl EditSession {
    /// Opens the file, which may have no plugins yet.
    pub(crate) fn open(settings: Settings, config: &ConfigArgs, purpose: EditPurpose) -> CommandResult<Self> {
        let directory = working_directory()?;
        let mut opened =
            ConfigFile::read(&config.config.clone().unwrap_or_else(|| default_file(&directory)), &directory)
                .map_err(|error| report::invalid(&settings, None, &[error]))?;
        let mut source = opened.source.clone();
        let Some(mut file) = opened.path.clone() else {
            let error = Diagnostic::error(format!("`{}` is not a regular file", source.name))
                .help("use `--config FILE`");
            return Err(report::invalid(&settings, None, &[error]));
        };
        let invalid = |source: &SourceFile, errors: &[Diagnostic]| {
            report::invalid(&settings, Some(source.clone()), errors)
        };
        let is_toml = source.syntax() == ConfigSyntax::Toml;
        let text = match is_toml {
            true => source.text.clone(),
            false => to_toml(&source).map_err(|errors| invalid(&source, &errors))?,
        };
        let editor = Editor::new(&text).map_err(|error| {
            match parse(&source, &settings, &opened.base, &directory) {
                // It names the first place of a duplicate key too.
                Err(errors) => invalid(&source, &errors),
                Ok(_) => invalid(&source, &[error]),
            }
        })?;
        let lookup = |name: &str| settings.environment.get(name).cloned();
        let parsed = parse(&source, &settings, &opened.base, &directory);
        let (mut manifest, warnings) = match parsed {
            Ok(parsed) => parsed,
            Err(errors) if is_toml && editor.names().is_empty() => {
                let manifest =
                    without_plugins(&editor, &source, &lookup).ok_or_else(|| invalid(&source, &errors))?;
                (manifest, Vec::new())
            }
            Err(errors) => return Err(invalid(&source, &errors)),
        };
        if purpose == EditPurpose::Edit && (!is_toml || manifest.format == ManifestFormat::First) {
            return Err(invalid(&source, &[read_only(&source.name, is_toml)]));
        }
        let mut converted_from = None;
        if purpose == EditPurpose::Migrate && !is_toml {
            file.set_extension("toml");
            let name = Path::new(&source.name).with_extension("toml").display().to_string();
            if file.exists() {
                let error = Diagnostic::error(format!("`{name}` already exists"));
                let help = format!("`{}` is converted to this file: move one of them away", source.name);
                return Err(report::invalid(&settings, None, &[error.help(help)]));
            }
            converted_from = Some(std::mem::replace(&mut source.name, name));
            source.text = text;
            opened.source = source.clone();
            (manifest, _) = parse(&source, &settings, &opened.base, &directory)
                .map_err(|errors| invalid(&source, &errors))?;
        }
        let options =
            BuildOptions { go: config.go.as_ref().map(|go| directory.join(go)), ..BuildOptions::default() };
        let report = report::open(&settings, manifest.log, Some(source.clone()));
        let mut loaded = LoadedManifest::new(opened, manifest);
        // The places of warnings are those of the file before its conversion.
        if converted_from.is_none() {
            loaded.warnings = warnings;
        }
        let mut session = Session::new(report, settings.clone(), loaded, options, Goal::Lock)?;
        session.report_warnings();
        let (changes, upgrade) = (Vec::new(), Vec::new());
        Ok(Self { session, editor, source, file, converted_from, changes, upgrade, settings, directory })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.session.request.manifest
    }

    /// Gives a file that has neither plugins nor RoadRunner's ref the newest release.
    pub(crate) async fn start(&mut self) -> CommandResult {
        let reference = &self.manifest().roadrunner.reference;
        if !self.editor.names().is_empty() || reference.as_ref().is_some_and(|it| it.span.is_some()) {
            return Ok(());
        }
        let query = self.session.query().map_err(|error| self.session.failed(&error))?;
        let newest = newest_roadrunner(&query).await.map_err(|error| self.session.failed(&error))?.1;
        drop(query);
        self.editor.set_roadrunner(&newest).map_err(|error| self.session.invalid(error))?;
        self.session.request.manifest.roadrunner.reference = Some(newest.into());
        Ok(())
    }

    /// The plugins that a user names for `vx add`.
    pub(crate) async fn select(
        &self,
        texts: &[String],
        prereleases: bool,
    ) -> CommandResult<Vec<SelectedPlugin>> {
        let query = self.session.query().map_err(|error| self.session.failed(&error))?;
        let (host, places) = (self.manifest().github.host(), (&*self.directory, &*self.session.request.base));
        let selected = select(&query, texts, host, prereleases, places).await;
        selected.map_err(|error| self.session.failed(&error))
    }

    /// The name in the file of the plugin that a user means; an unknown one is returned as it is.
    pub(crate) fn name_of(&self, text: &str) -> String {
        self.manifest().plugin_named(text).map_or_else(|| text.to_owned(), |plugin| plugin.name.value.clone())
    }

    /// Updates the lock, then writes the file. If the update fails, neither is changed.
    pub(crate) async fn save(mut self, lock: bool) -> CommandResult {
        let changes_go = self.session.request.options.versions.lowest_go.is_some();
        if self.editor.text() == self.source.text && self.upgrade.is_empty() && !changes_go {
            return self.finish(&[]);
        }
        let source = SourceFile { name: self.source.name.clone(), text: self.editor.text().to_owned() };
        let unchanged = format!("`{}` was not changed", self.source.name);
        let manifest = match self.parse(&source) {
            Ok(manifest) => manifest,
            Err(mut errors) => {
                if let Some(first) = errors.first_mut() {
                    first.help.push(unchanged);
                }
                return Err(report::invalid(&self.settings, Some(source), &errors));
            }
        };
        let mut summary = None;
        if lock {
            self.session.report = report::open(&self.settings, manifest.log, Some(source.clone()));
            let request = &mut self.session.request;
            request.manifest = manifest;
            request.source = Some(source.clone());
            request.options.versions.upgrade = Upgrade::Only(self.upgrade.clone());
            let build =
                self.session.build().await.map_err(|error| self.session.failed(&error.help(unchanged)))?;
            summary = Some(build);
            self.warn_of_majors().await?;
        }
        // Detect a concurrent change of the file.
        if std::fs::read_to_string(&self.file).is_ok_and(|text| text != self.source.text) {
            let message =
                format!("`{}` was changed by another program; run the command again", self.file.display());
            return Err(report::complain(&message));
        }
        self.write(&source.text)?;
        self.finish(&self.changes)?;
        summary.map_or(Ok(()), |summary| self.session.finished(&summary))
    }

    /// Warns of plugins with another major version than those of the RoadRunner release.
    async fn warn_of_majors(&self) -> CommandResult {
        let Session { request, report, cancel, .. } = &self.session;
        match velox_query::check_majors(request, self.session.reporter(), cancel.clone()).await {
            Ok(findings) => {
                for finding in findings {
                    report.report(Event::Warning(Diagnostic { level: Level::Warning, ..finding.diagnostic }));
                }
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::Interrupted => Err(self.session.failed(&error)),
            // Without the release, nothing is known.
            Err(_) => Ok(()),
        }
    }

    pub(crate) fn parse(&self, source: &SourceFile) -> Result<Manifest, Vec<Diagnostic>> {
        let base = &self.session.request.base;
        parse(source, &self.settings, base, &self.directory).map(|(manifest, _)| manifest)
    }

    pub(crate) fn write(&self, text: &str) -> CommandResult {
        write_text(&self.file, text)
            .map_err(|error| report::complain(&format!("failed to write `{}`: {error}", self.file.display())))
    }

    pub(crate) fn finish(&self, changes: &[Change]) -> CommandResult {
        self.session.report.edited(&self.file, changes).map_err(report::output_error)
    }
}

/// Why a file can be read, but not edited.
fn read_only(name: &str, is_toml: bool) -> Diagnostic {
    let why = if is_toml { "is in Velox's first format" } else { "is not TOML" };
    Diagnostic::error(format!("`{name}` {why}, which vx reads but doesn't edit"))
        .help(format!("convert it with `vx migrate --config {name}`"))
}

/// The manifest of a configuration without plugins, parsed with a placeholder plugin.
fn without_plugins(
    editor: &Editor,
    source: &SourceFile,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Option<Manifest> {
    let mut editor = editor.clone();
    let name = "placeholder".to_owned();
    let origin = match editor.format() {
        ManifestFormat::Modules => NewOrigin::Module(format!("example.com/{name}")),
        _ => NewOrigin::GitHub { owner: "example".to_owned(), repository: name.clone(), folder: None },
    };
    editor.add(&NewPlugin { name, origin, reference: "latest".to_owned(), replace: None }).ok()?;
    let source = SourceFile { name: source.name.clone(), text: editor.text().to_owned() };
    let (mut manifest, _) = Manifest::parse(&source, lookup).ok()?;
    manifest.plugins.clear();
    Some(manifest)
}
