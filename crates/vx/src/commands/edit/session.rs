//! Edits of a configuration file and its lock.

use std::path::PathBuf;

use velox_build::{BuildOptions, Goal, Upgrade, write_text};
use velox_manifest::{
    Diagnostic, Manifest, ManifestFormat, SourceFile,
    edit::{Editor, NewOrigin, NewPlugin},
};

use crate::{
    cli::ConfigArgs,
    commands::session::{LoadedManifest, Session, working_directory},
    config_file::ConfigFile,
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
    settings: Settings,
}

impl EditSession {
    /// Opens the file, which may have no plugins yet.
    pub(crate) fn open(settings: Settings, config: &ConfigArgs) -> CommandResult<Self> {
        let directory = working_directory()?;
        let opened = ConfigFile::read(config.file(), &directory)
            .map_err(|error| report::invalid(&settings, None, &[error]))?;
        let source = opened.source.clone();
        let Some(file) = opened.path.clone() else {
            let error = Diagnostic::error(format!("`{}` is not a regular file", source.name))
                .help("use `--config FILE`");
            return Err(report::invalid(&settings, None, &[error]));
        };
        let invalid = |errors: &[Diagnostic]| report::invalid(&settings, Some(source.clone()), errors);
        let editor = Editor::new(&source.text).map_err(|error| invalid(&[error]))?;
        let lookup = |name: &str| settings.environment.get(name).cloned();
        let manifest = match Manifest::parse(&source, &lookup) {
            Ok((manifest, _)) => manifest,
            Err(errors) if editor.names().is_empty() => {
                without_plugins(&editor, &source, &lookup).ok_or_else(|| invalid(&errors))?
            }
            Err(errors) => return Err(invalid(&errors)),
        };
        let options =
            BuildOptions { go: config.go.as_ref().map(|go| directory.join(go)), ..BuildOptions::default() };
        let report = report::open(&settings, manifest.log, Some(source.clone()));
        let loaded = LoadedManifest::new(opened, manifest);
        let session = Session::new(report, settings.clone(), loaded, options, Goal::Lock)?;
        Ok(Self { session, editor, source, file, changes: Vec::new(), upgrade: Vec::new(), settings })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.session.request.manifest
    }

    /// Updates the lock, then writes the file. If the update fails, neither is changed.
    pub(crate) async fn save(mut self, lock: bool) -> CommandResult {
        if self.editor.text() == self.source.text && self.upgrade.is_empty() {
            return self.finish(&[]);
        }
        let source = SourceFile { name: self.source.name.clone(), text: self.editor.text().to_owned() };
        let unchanged = format!("`{}` was not changed", self.source.name);
        let lookup = |name: &str| self.settings.environment.get(name).cloned();
        let manifest = match Manifest::parse(&source, &lookup) {
            Ok((manifest, _)) => manifest,
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

    pub(crate) fn write(&self, text: &str) -> CommandResult {
        write_text(&self.file, text)
            .map_err(|error| report::complain(&format!("failed to write `{}`: {error}", self.file.display())))
    }

    pub(crate) fn finish(&self, changes: &[Change]) -> CommandResult {
        self.session.report.edited(&self.file, changes).map_err(report::output_error)
    }
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
