use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use velox_build::{Attestation, BuildOptions, Error, Goal, NetworkAccess, VerifyingKey};
use velox_query::{BuildVerification, RecordedBinary};

use super::{
    remote::{RemoteService, lock_from_service},
    sign_key,
};
use crate::{
    cli::{
        OutputFormat,
        build::{RemoteArgs, VerifyCommand},
    },
    commands::session::{LoadedManifest, Session, working_directory},
    config_file::{DEFAULT_FILE_NAME, default_file},
    report::{self, text::clean},
    settings::Settings,
    status::CommandResult,
};

/// The fields of the event `verified`.
#[derive(Serialize)]
struct VerifiedEvent<'a> {
    #[serde(flatten)]
    result: &'a BuildVerification,
    /// The fingerprint of the public key that signed the attestation.
    signed_by: Option<String>,
}

/// An attestation whose signature is valid.
struct SignedBy {
    file: PathBuf,
    key_file: PathBuf,
    key: VerifyingKey,
    attestation: Attestation,
}

pub(crate) async fn verify(mut settings: Settings, mut arguments: VerifyCommand) -> CommandResult {
    // Compilers need no secrets.
    sign_key::take(&mut settings, false, None).map_err(|error| report::failed(&settings, &error))?;
    let directory = working_directory()?;
    // Without --remote, its token file is for --lock.
    let lock_token = arguments.remote_token_file.take_if(|_| arguments.remote.is_none());
    let service = arguments.lock.as_deref().filter(|lock| lock.contains("://"));
    let service = service.map(|url| RemoteService::of_lock(&settings, url, lock_token.as_deref()));
    let service = service.transpose().map_err(|error| report::invalid(&settings, None, &[error]))?;
    let remote = RemoteArgs {
        // VX_REMOTE is where binaries are built, not where they are verified.
        remote: Some(arguments.remote.clone().unwrap_or_else(|| "off".to_owned())),
        remote_token_file: arguments.remote_token_file.take(),
        trusted_key: None,
    };
    let remote = RemoteService::select(&mut settings, &remote, None)
        .map_err(|error| report::invalid(&settings, None, &[error]))?;
    let binary =
        RecordedBinary::read(&arguments.binary).map_err(|error| report::failed(&settings, &error))?;
    let signed = check_documents(&binary, &arguments).map_err(|error| report::failed(&settings, &error))?;
    let downloaded = match service {
        Some((service, id)) => Some(
            lock_from_service(&settings, &service, id)
                .await
                .map_err(|error| report::failed(&settings, &error))?,
        ),
        None => None,
    };
    let lock = match (&downloaded, &arguments.lock) {
        (Some(file), _) => file.path().to_owned(),
        (None, Some(lock)) => directory.join(lock),
        (None, None) => default_lock(&directory.join(&arguments.binary), &directory),
    };
    let session = open(settings, &arguments, &directory, lock)?;
    let verified = async {
        match &remote {
            Some(remote) => remote.verify(&session, &binary).await,
            None => {
                let (reporter, cancel) = (session.reporter(), session.cancel.clone());
                binary.verify(&session.request, arguments.shared_caches, reporter, cancel).await
            }
        }
    };
    let result = session.interruptible(verified).await?;
    session.report.clear();
    if session.format == OutputFormat::Json {
        let signed_by = signed.as_ref().map(|signed| signed.key.id());
        session.print(&report::event("verified", &VerifiedEvent { result: &result, signed_by }))?;
    }
    let lock = match remote {
        Some(_) => "the build service builds".to_owned(),
        None => format!("{} builds", shown_lock(&arguments, &session)),
    };
    match &result.difference {
        Some(difference) => {
            Err(session.failed(&different(&arguments.binary, &lock, difference.to_string(), &result)))
        }
        None if session.format == OutputFormat::Json => Ok(()),
        None => session.print(&clean(&render(&arguments, &lock, &result, signed.as_ref()))),
    }
}

/// Checks what doesn't take a build.
fn check_documents(binary: &RecordedBinary, arguments: &VerifyCommand) -> Result<Option<SignedBy>, Error> {
    let read = |path: &Path| {
        fs::read_to_string(path)
            .map_err(|error| Error::configuration(format!("failed to read `{}`: {error}", path.display())))
    };
    let signed = match arguments.attestation.as_ref().zip(arguments.key.as_ref()) {
        Some((file, key_file)) => {
            let key = VerifyingKey::read(key_file)?;
            let attestation = binary.check_attestation(&file.display().to_string(), &read(file)?, &key)?;
            Some(SignedBy { file: file.clone(), key_file: key_file.clone(), key, attestation })
        }
        None => None,
    };
    for sbom in &arguments.sbom {
        binary.check_sbom(&sbom.display().to_string(), &read(sbom)?)?;
    }
    Ok(signed)
}

/// The lock beside the binary, else that of the configuration.
fn default_lock(binary: &Path, directory: &Path) -> PathBuf {
    let name = Path::new(DEFAULT_FILE_NAME).with_extension("lock");
    let beside = binary.with_file_name(name);
    if beside.is_file() { beside } else { directory.join(default_file(directory)).with_extension("lock") }
}

/// Opens a session for a build from this lock, with the configuration beside it, if there is one.
fn open(
    settings: Settings,
    arguments: &VerifyCommand,
    directory: &Path,
    lock: PathBuf,
) -> CommandResult<Session> {
    let config = arguments.config.clone().or_else(|| {
        let beside = lock.with_extension("toml");
        beside.is_file().then_some(beside)
    });
    let loaded = match config {
        Some(config) => LoadedManifest::load(&settings, Some(config), &Default::default(), directory)
            .map_err(|error| report::invalid(&settings, error.source, &error.diagnostics))?,
        None => LoadedManifest::empty(directory),
    };
    let mut options =
        BuildOptions { go: arguments.go.as_ref().map(|go| directory.join(go)), ..BuildOptions::default() };
    if arguments.offline {
        options.network = NetworkAccess::Offline;
    }
    let report = report::open(&settings, loaded.manifest.log, loaded.source.clone());
    let mut session = Session::new(report, settings, loaded, options, Goal::Plan)?;
    session.request.lock = Some(lock);
    session.request.updates_lock = false;
    session.report_warnings();
    Ok(session)
}

fn shown_lock(arguments: &VerifyCommand, session: &Session) -> String {
    let path = session.request.lock.as_ref().and_then(|path| path.file_name());
    let name = path.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    arguments.lock.clone().unwrap_or(name)
}

fn different(binary: &Path, lock: &str, difference: String, result: &BuildVerification) -> Error {
    let message = format!("{} differs from what {lock}: {difference}", binary.display());
    let error = Error::build(message);
    match &result.rebuilt_sha256 {
        Some(rebuilt) => error
            .help(format!("SHA-256 of the binary: {}", result.sha256))
            .help(format!("SHA-256 of the binary that was built again: {rebuilt}")),
        None => error.help("it was built from another lock file: name that one with `--lock`"),
    }
}

fn render(
    arguments: &VerifyCommand,
    lock: &str,
    result: &BuildVerification,
    signed: Option<&SignedBy>,
) -> String {
    let BuildVerification { version, go_version, target, sha256, .. } = result;
    let mut text = format!(
        "{} is exactly what {lock}: RoadRunner {version} for {target}, Go {}\nSHA-256 {sha256}\n",
        arguments.binary.display(),
        go_version.trim_start_matches("go"),
    );
    if let Some(SignedBy { file, key_file, attestation, .. }) = signed {
        text += &format!("{} is signed by {}", file.display(), key_file.display());
        text += match &attestation.build {
            Some(_) => ", and describes this build\n",
            None => "; another builder wrote it, so only the checksum of the binary was compared\n",
        };
    }
    for sbom in &arguments.sbom {
        text += &format!("{} lists the modules of the binary\n", sbom.display());
    }
    text
}
