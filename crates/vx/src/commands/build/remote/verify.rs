//! `vx verify` with a build service: the lock of a build, and building it again there.

use std::path::Path;

use tempfile::NamedTempFile;
use velox_api::{BuildId, BuildSpec, BuildState, SubmitRequest, client::ServiceClient, with_module_paths};
use velox_build::{Error, Lock, LockedRefs};
use velox_manifest::{Diagnostic, GoSelection};
use velox_query::{BuildVerification, RecordedBinary, read_lock};

use super::{
    ADDRESS_VARIABLE, RemoteProgress, RemoteService, TOKEN_VARIABLE, build_error, client_error, finished,
    read_token, spec,
};
use crate::{commands::session::Session, settings::Settings};

/// The path of a lock on a build service, around the ID of the build.
const LOCK_PATH: (&str, &str) = ("/v1/builds/", "/velox.lock");

impl RemoteService {
    /// The service and the build of the URL of a lock. The token of the environment is sent to no other service than that
    /// in `VX_REMOTE`.
    pub(in super::super) fn of_lock(
        settings: &Settings,
        url: &str,
        token_file: Option<&Path>,
    ) -> Result<(Self, BuildId), Diagnostic> {
        let parts = url.split_once(LOCK_PATH.0).and_then(|(address, rest)| {
            let id = rest.strip_suffix(LOCK_PATH.1)?.parse().ok()?;
            Some((address.to_owned(), id))
        });
        let (address, id) = parts.ok_or_else(|| {
            Diagnostic::error("invalid URL in --lock")
                .help("expected https://HOST/v1/builds/ID/velox.lock, as on the page of a build")
        })?;
        let environment = &settings.environment;
        let is_known = environment.get(ADDRESS_VARIABLE).map(|it| it.trim_end_matches('/')) == Some(&address);
        let token = match token_file {
            Some(file) => Some(read_token(file)?),
            None => environment.get(TOKEN_VARIABLE).filter(|_| is_known).cloned().map(Into::into),
        };
        Ok((Self { address, token, trusted_key: None }, id))
    }

    /// Lets the service build the binary again from the configuration at the versions of the lock, and compares it.
    pub(in super::super) async fn verify(
        &self,
        session: &Session,
        binary: &RecordedBinary,
    ) -> Result<BuildVerification, Error> {
        let lock = read_lock(&session.request)?;
        if let Some(difference) = binary.difference_from_lock(&lock)? {
            return Ok(binary.result(None, Some(difference)));
        }
        let client = self.client(session)?;
        let spec = request(session, binary, &lock)?;
        let mut progress = RemoteProgress::new(&*session.report, client.host());
        let submit = SubmitRequest { build: Some(spec), force: true, ..SubmitRequest::default() };
        let view = client.submit(&submit, &mut |event| progress.report(event)).await.map_err(client_error)?;
        let view = finished(session, &client, &mut progress, view, &binary.variant.target);
        let view = view.await.map_err(client_error)?;
        let artifact = view.artifact.as_ref().filter(|_| view.state == BuildState::Succeeded);
        let Some(artifact) = artifact.map(|artifact| &artifact.info) else { return Err(build_error(&view)) };
        if artifact.sha256 == binary.sha256 {
            return Ok(binary.result(Some(artifact.sha256.clone()), None));
        }
        let text = client.lock(view.id).await.map_err(client_error)?;
        let lock = Lock::parse("the lock of the build service", &text)?;
        let difference = match binary.difference_from_lock(&lock)? {
            Some(difference) => difference,
            None => {
                let failed = |error: std::io::Error| Error::file("write to", &std::env::temp_dir(), &error);
                let mut file = NamedTempFile::new().map_err(failed)?;
                let mut on_event = |event| progress.report(event);
                let download = client.download(artifact, file.as_file_mut(), &mut on_event);
                download.await.map_err(client_error)?;
                binary.difference_from(file.path())?
            }
        };
        Ok(binary.result(Some(artifact.sha256.clone()), Some(difference)))
    }
}

/// Downloads the lock of a build to a temporary file.
pub(in super::super) async fn lock_from_service(
    settings: &Settings,
    service: &RemoteService,
    id: BuildId,
) -> Result<NamedTempFile, Error> {
    let http = velox_build::http_client(&settings.environment)?;
    let client = ServiceClient::new(http, &service.address, service.token.as_ref()).map_err(client_error)?;
    temporary_lock(&client.lock(id).await.map_err(client_error)?)
}

/// The request for the binary.
fn request(session: &Session, binary: &RecordedBinary, lock: &Lock) -> Result<BuildSpec, Error> {
    let manifest = &session.request.manifest;
    if session.request.source.is_none() {
        return Err(Error::configuration("a build service needs the configuration, not only the lock")
            .help("name it with `--config`, or put velox.toml beside velox.lock"));
    }
    let modules = lock.plugins.iter().map(|plugin| (plugin.name.clone(), plugin.module.clone())).collect();
    let mut manifest = with_module_paths(manifest, &modules);
    manifest.go = Some(GoSelection::Release.into());
    spec::request_exactly(&mut manifest, LockedRefs::of(lock));
    let record = &binary.record;
    let arguments = &mut manifest.build_args;
    arguments.tags.clone_from(&record.tags);
    arguments.flags.clone_from(&record.flags);
    arguments.definitions.clone_from(&record.definitions);
    arguments.strip = record.strip;
    let specs = BuildSpec::from_manifest(&manifest, Some(&binary.variant.target)).map_err(spec::rejected)?;
    let spec = specs.into_iter().next();
    let spec = spec.ok_or_else(|| Error::build("internal error: a request without a target"))?;
    let spec = BuildSpec {
        debug: record.debug,
        race: record.race,
        strict: false,
        stamp_version: Some(record.stamp_version.clone()),
        stamp_time: Some(record.stamp_time.clone()),
        ..spec
    };
    spec.normalized().map_err(spec::rejected)
}

/// Writes a downloaded lock to a temporary file.
fn temporary_lock(text: &str) -> Result<NamedTempFile, Error> {
    let written = tempfile::Builder::new().prefix("velox-").suffix(".lock").tempfile().and_then(|file| {
        std::fs::write(file.path(), text)?;
        Ok(file)
    });
    written.map_err(|error| Error::file("write to", &std::env::temp_dir(), &error))
}
