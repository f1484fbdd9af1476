//! What the commands have in common that change a configuration file.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use velox_build::{BuildOptions, Goal, QuerySession, Upgrade};
use velox_gomod::module::split_path_version;
use velox_manifest::{
    Diagnostic, Level, Manifest, SourceFile,
    edit::{Editor, NewOrigin, NewPlugin},
};

use crate::{
    cli,
    commands::session::{Prepared, misconfigured, read, working_directory},
    report::{self, Change, Failure},
    settings::Settings,
    status::Ending,
};

/// The name that RoadRunner itself goes by among plugins.
pub(crate) const ROADRUNNER: &str = "roadrunner";

/// A configuration file that is being edited.
pub(crate) struct Editing {
    /// With the manifest as it was.
    pub(crate) prepared: Prepared,
    pub(crate) editor: Editor,
    pub(crate) source: SourceFile,
    pub(crate) file: PathBuf,
    /// What was done to it, for the user.
    pub(crate) changes: Vec<Change>,
    /// The plugins whose versions in the lock don't stay.
    pub(crate) renew: Vec<String>,
    settings: Settings,
    started: Instant,
}

impl Editing {
    /// Reads the file. One without any plugin can be edited, although no server could be built from it.
    pub(crate) fn open(settings: Settings, arguments: &cli::Edit) -> Result<Self, ExitCode> {
        let started = Instant::now();
        let working_directory = working_directory()?;
        let configuration = read(&settings, &arguments.config, &working_directory)?;
        let source = configuration.source.clone();
        let Some(file) = configuration.file.clone() else {
            let diagnostic = error(
                format!("{} is no file that can be changed", source.name),
                "name a file with `--config FILE`",
            );
            return Err(misconfigured(&settings, None, &[diagnostic]));
        };
        let wrong = |diagnostics: &[Diagnostic]| misconfigured(&settings, Some(source.clone()), diagnostics);
        let editor = Editor::new(&source.text).map_err(|diagnostic| wrong(&[diagnostic]))?;
        let lookup = |name: &str| settings.environment.get(name).cloned();
        let manifest = match Manifest::parse(&source, &lookup) {
            Ok((manifest, _)) => manifest,
            Err(diagnostics) if editor.names().is_empty() => {
                without_plugins(&editor, &source, &lookup).ok_or_else(|| wrong(&diagnostics))?
            }
            Err(diagnostics) => return Err(wrong(&diagnostics)),
        };
        let options = BuildOptions {
            go: arguments.go.as_ref().map(|go| working_directory.join(go)),
            ..BuildOptions::default()
        };
        let prepared = Prepared::of(settings.clone(), configuration, manifest, options, Goal::Lock)?;
        Ok(Self { prepared, editor, source, file, changes: Vec::new(), renew: Vec::new(), settings, started })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.prepared.request.manifest
    }

    pub(crate) fn session(&self) -> QuerySession<'_> {
        let Prepared { request, report, cancel, .. } = &self.prepared;
        QuerySession::new(request, Arc::clone(report) as _, cancel.clone())
    }

    /// Ends with a mistake of the user's; the file stays as it was.
    pub(crate) fn refused(&self, diagnostic: Diagnostic) -> ExitCode {
        let failure = Failure { ending: Ending::Configuration, diagnostics: &[diagnostic], output: &[] };
        self.prepared.report.failed(&failure);
        Ending::Configuration.into()
    }

    /// Brings the lock up to date, then writes the file: where no lock can be made, neither changes.
    pub(crate) async fn save(self, lock: bool) -> ExitCode {
        if self.editor.text() == self.source.text && self.renew.is_empty() {
            return self.told(&[]);
        }
        let source = SourceFile { name: self.source.name.clone(), text: self.editor.text().to_owned() };
        let lookup = |name: &str| self.settings.environment.get(name).cloned();
        let manifest = match Manifest::parse(&source, &lookup) {
            Ok((manifest, _)) => manifest,
            Err(diagnostics) => return self.would_be_wrong(&source, diagnostics),
        };
        let summary = if lock {
            let report = report::open(&self.settings, manifest.log, Some(source.clone()));
            let mut request = self.prepared.request.clone();
            request.manifest = manifest;
            request.source = Some(source.clone());
            request.options.versions.upgrade = Upgrade::Only(self.renew.clone());
            match velox_build::build(&request, Arc::clone(&report) as _, self.prepared.cancel.clone()).await {
                Ok(summary) => Some((report, summary)),
                Err(mut error) => {
                    if let Some(first) = error.diagnostics.first_mut() {
                        first.help.push(self.unchanged());
                    }
                    return self.prepared.failed_on(&*report, &error);
                }
            }
        } else {
            None
        };
        // What somebody else wrote meanwhile must not be lost.
        if std::fs::read_to_string(&self.file).is_ok_and(|text| text != self.source.text) {
            let file = self.file.display();
            return report::complain(&format!("{file} was changed meanwhile, and is left so: run it again"));
        }
        if let Err(error) = velox_build::write_text(&self.file, &source.text) {
            return report::complain(&format!("can't write {}: {error}", self.file.display()));
        }
        let code = self.told(&self.changes);
        if let Some((report, summary)) = summary
            && let Err(error) = report.finished(&Goal::Lock, &summary, self.started.elapsed())
        {
            return report::complain(&format!("can't write to the standard output: {error}"));
        }
        code
    }

    fn told(&self, changes: &[Change]) -> ExitCode {
        match self.prepared.report.edited(&self.file, changes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
        }
    }

    fn would_be_wrong(&self, source: &SourceFile, mut diagnostics: Vec<Diagnostic>) -> ExitCode {
        if let Some(first) = diagnostics.first_mut() {
            first.help.push(self.unchanged());
        }
        misconfigured(&self.settings, Some(source.clone()), &diagnostics)
    }

    fn unchanged(&self) -> String {
        format!("{} was left as it was", self.source.name)
    }
}

/// What a configuration says beside its plugins, of which it has none yet.
fn without_plugins(
    editor: &Editor,
    source: &SourceFile,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Option<Manifest> {
    let mut editor = editor.clone();
    let module = "example.com/stand-in".to_owned();
    let mut stand_in = NewPlugin {
        name: "stand-in".to_owned(),
        origin: NewOrigin::Module(module),
        reference: "latest".to_owned(),
        replace: None,
    };
    if editor.format() != velox_manifest::ManifestFormat::Modules {
        let (owner, repository) = ("example".to_owned(), "stand-in".to_owned());
        stand_in.origin = NewOrigin::GitHub { owner, repository, folder: None };
    }
    editor.add(&stand_in).ok()?;
    let source = SourceFile { name: source.name.clone(), text: editor.text().to_owned() };
    let (mut manifest, _) = Manifest::parse(&source, lookup).ok()?;
    manifest.plugins.clear();
    Some(manifest)
}

pub(crate) fn error(message: String, help: &str) -> Diagnostic {
    Diagnostic { level: Level::Error, message, span: None, label: None, help: vec![help.to_owned()] }
}

/// A module path without its major suffix.
pub(crate) fn base(module: &str) -> &str {
    split_path_version(module).map_or(module, |(base, _)| base)
}
