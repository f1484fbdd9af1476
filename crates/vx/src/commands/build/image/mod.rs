//! The container image of a build: prepared before the compile, made and pushed after all checks.

mod progress;
mod request;

use std::{collections::BTreeMap, io::ErrorKind, path::Path, sync::Arc};

use futures::future::try_join_all;
use velox_build::{BuildSummary, BuiltImage, Error, Phase, SbomFormat, ScratchDirectory, cache_directory};
use velox_manifest::GoTarget;
use velox_oci::{
    Descriptor, Error as OciError, ImageReference, Platform, RegistryAccess, RegistryClient, RegistryOptions,
    image::{
        BaseImage, ImageAddition, ImageInput, ImageSet, ImageSettings, PlatformBase, Referrer, push_image,
        push_referrers, write_archive, write_layout,
    },
};

use self::{
    progress::ImageProgress,
    request::{ImageOutput, ImageRequest},
};
use crate::{cli::build::ImageArgs, commands::session::Session};

const DEFAULT_TAG: &str = "latest";
const ANNOTATIONS: &str = "org.opencontainers.image";
const DSSE_ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// An image to make.
pub(super) struct ImageBuild {
    names: Vec<ImageReference>,
    /// In the order of the targets.
    platforms: Vec<(Platform, Option<PlatformBase>)>,
    client: RegistryClient,
    progress: Arc<ImageProgress>,
    push: bool,
    output: Option<ImageOutput>,
    additions: Vec<ImageAddition>,
    settings: ImageSettings,
}

impl ImageBuild {
    /// Checks the names, the base and the access to the registry before anything is compiled.
    pub(super) async fn prepare(
        session: &Session,
        arguments: &ImageArgs,
        directory: &Path,
    ) -> Result<Self, Error> {
        let request = ImageRequest::read(session, arguments, directory)?;
        let platforms = platforms(session)?;
        if let (Some(ImageOutput::Archive(file)), true) = (&request.output, platforms.len() > 1) {
            let message = format!("{} is for `docker load`, which takes one platform", file.display());
            return Err(Error::configuration(message)
                .help("use `--image-output DIR` for an OCI layout with the images of all targets"));
        }
        if session.request.options.is_offline() {
            if arguments.push {
                return Err(Error::configuration("--offline forbids --push"));
            }
            if let BaseImage::Registry(reference) = &request.base {
                return Err(Error::configuration(format!("--offline forbids pulling the base {reference}"))
                    .help("use a base in a file: `oci:DIR` or `docker-archive:FILE`"));
            }
        }
        let progress = Arc::new(ImageProgress::new(session.reporter()));
        let mut options = RegistryOptions::from_environment(&session.request.environment)
            .map_err(|error| Error::configuration(error.to_string()))?;
        let on_event = Arc::clone(&progress);
        options.on_event = Some(Arc::new(move |event| on_event.registry(event)));
        let client = RegistryClient::new(options).map_err(failure)?;
        let at_base = |error: OciError| request::at(failure(error), &request.base_span);
        let bases = request.base.open(&client, &platforms).await.map_err(at_base)?;
        if arguments.push {
            for (repository, _) in repositories(&request.names) {
                let repository = client.repository(repository);
                repository.check_push().await.map_err(failure)?;
            }
        }
        let ImageRequest { names, additions, settings, output, .. } = request;
        let platforms = platforms.into_iter().zip(bases).collect();
        Ok(Self { names, platforms, client, progress, push: arguments.push, output, additions, settings })
    }

    /// Makes the image of the built binaries, and pushes it.
    pub(super) async fn finish(
        mut self,
        session: &Session,
        summary: &BuildSummary,
    ) -> Result<BuiltImage, Error> {
        self.settings = stamped(self.settings, summary);
        let cache = cache_directory(&session.request.environment);
        let directory = ScratchDirectory::create(&cache, false)?;
        let set = self.assemble(summary, &directory).await?;
        let mut image = BuiltImage {
            digest: set.descriptor.digest.to_string(),
            platforms: self.platforms.iter().map(|(platform, _)| platform.to_string()).collect(),
            size: set.size(),
            names: self.names.iter().map(ToString::to_string).collect(),
            pushed: self.push,
            referrers: Vec::new(),
            output: self.output.as_ref().map(|output| output.path().to_owned()),
        };
        if self.push {
            let formats: Vec<_> = session.request.options.sboms.iter().map(|sbom| sbom.format).collect();
            image.referrers = self.push(summary, &set, &directory, &formats).await?;
        } else if self.output.is_none() {
            let text =
                "the image was neither pushed nor written: add --push, or --image-output DIR or FILE.tar";
            session.note(text.to_owned());
        }
        Ok(image)
    }

    /// Makes the image, and writes it to `--image-output`.
    async fn assemble(
        &self,
        summary: &BuildSummary,
        directory: &ScratchDirectory,
    ) -> Result<ImageSet, Error> {
        let started = self.progress.start(Phase::Image);
        let targets = self.platforms.iter().zip(&summary.binaries);
        let input = ImageInput {
            targets: targets
                .map(|((platform, base), binary)| (platform, binary.path.clone(), base.as_ref()))
                .collect(),
            additions: &self.additions,
            settings: &self.settings,
            directory: directory.path(),
        };
        let set = input.assemble().await.map_err(failure)?;
        if let Some(output) = &self.output {
            self.progress.expect(set.blob_count());
            let on_blob = |blob: &Descriptor| self.progress.blob(blob);
            let written = match output {
                ImageOutput::Archive(file) => {
                    write_archive(&set, file, &self.names, directory.path(), &on_blob).await
                }
                ImageOutput::Layout(layout) => write_layout(&set, layout, &self.names, &on_blob).await,
            };
            written.map_err(failure)?;
        }
        self.progress.finish(Phase::Image, started);
        Ok(set)
    }

    /// Returns the digests of the referrers.
    async fn push(
        &self,
        summary: &BuildSummary,
        set: &ImageSet,
        directory: &ScratchDirectory,
        formats: &[SbomFormat],
    ) -> Result<Vec<String>, Error> {
        let started = self.progress.start(Phase::Push);
        let mut referrers = Vec::new();
        for (name, tags) in repositories(&self.names) {
            let repository = self.client.repository(name);
            self.progress.expect(set.blob_count());
            let on_blob = |blob: &Descriptor| self.progress.blob(blob);
            let pushed = push_image(set, &repository, &tags, directory.path(), &on_blob).await;
            pushed.map_err(failure)?;
            let documents = referrers_of(summary, set, formats)?;
            let pushes = documents.iter().map(|(subject, all)| push_referrers(&repository, subject, all));
            let digests = try_join_all(pushes).await.map_err(failure)?;
            referrers.extend(digests.iter().flatten().map(ToString::to_string));
        }
        referrers.sort();
        referrers.dedup();
        self.progress.finish(Phase::Push, started);
        Ok(referrers)
    }
}

/// The tags of each repository.
fn repositories(names: &[ImageReference]) -> Vec<(&ImageReference, Vec<&str>)> {
    let mut found: Vec<(&ImageReference, Vec<&str>)> = Vec::new();
    for name in names {
        let tag = name.tag().unwrap_or(DEFAULT_TAG);
        let is_same = |other: &ImageReference| {
            other.registry() == name.registry() && other.repository() == name.repository()
        };
        match found.iter_mut().find(|(other, _)| is_same(other)) {
            Some((_, tags)) => tags.push(tag),
            None => found.push((name, vec![tag])),
        }
    }
    found
}

fn platforms(session: &Session) -> Result<Vec<Platform>, Error> {
    let variables = session.request.go_variables()?;
    let arm = variables.iter().find(|variable| variable.name == "GOARM");
    let of_target = |target: &GoTarget| match target.os.as_str() {
        "linux" => Ok(Platform::of_go(&target.os, &target.arch, arm.map(|arm| arm.value.as_str()))),
        _ => Err(Error::configuration(format!("container images are for Linux, but the target is {target}"))
            .help(format!("add `--target linux/{}`", target.arch))),
    };
    session.request.targets()?.iter().map(of_target).collect()
}

/// The settings with the time and the annotations of the build.
fn stamped(settings: ImageSettings, summary: &BuildSummary) -> ImageSettings {
    let time: jiff::Timestamp = summary.stamp_time.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let created = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let module = &summary.roadrunner;
    let repository = match module.rsplit_once("/v") {
        Some((path, major)) if major.bytes().all(|byte| byte.is_ascii_digit()) => path,
        _ => module,
    };
    let mut labels = BTreeMap::from([
        (format!("{ANNOTATIONS}.created"), created.clone()),
        (format!("{ANNOTATIONS}.source"), format!("https://{repository}")),
        (format!("{ANNOTATIONS}.version"), summary.stamp_version.clone()),
    ]);
    if let Some(commit) = &summary.commit {
        labels.insert(format!("{ANNOTATIONS}.revision"), commit.clone());
    }
    labels.extend(settings.labels);
    let file_time = u64::try_from(time.as_second()).unwrap_or(0);
    ImageSettings { created, file_time, labels, ..settings }
}

/// The bills of materials of each binary refer to its image, the provenance to the whole.
fn referrers_of<'a>(
    summary: &BuildSummary,
    set: &'a ImageSet,
    formats: &[SbomFormat],
) -> Result<Vec<(&'a Descriptor, Vec<Referrer>)>, Error> {
    let referrer = |path: &Path, artifact_type: &str, media_type: &str| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok::<_, Error>(Referrer {
            artifact_type: artifact_type.to_owned(),
            media_type: media_type.to_owned(),
            content: std::fs::read(path).map_err(|error| Error::file("read", path, &error))?,
            annotations: BTreeMap::from([(format!("{ANNOTATIONS}.title"), name)]),
        })
    };
    let mut referrers = Vec::new();
    for (binary, image) in summary.binaries.iter().zip(&set.images) {
        let sboms = binary.sboms.iter().zip(formats).map(|(path, format)| {
            let kind = match format {
                SbomFormat::CycloneDx => "application/vnd.cyclonedx+json",
                SbomFormat::Spdx => "application/spdx+json",
            };
            referrer(path, kind, kind)
        });
        referrers.push((&image.descriptor, sboms.collect::<Result<Vec<_>, _>>()?));
    }
    if let Some(path) = &summary.attestation {
        let mut attestation = referrer(path, IN_TOTO, DSSE_ENVELOPE)?;
        let predicate = ("in-toto.io/predicate-type".to_owned(), "https://slsa.dev/provenance/v1".to_owned());
        attestation.annotations.extend([predicate]);
        // The only image has no index.
        match referrers.iter_mut().find(|(subject, _)| subject.digest == set.descriptor.digest) {
            Some((_, documents)) => documents.push(attestation),
            None => referrers.push((&set.descriptor, vec![attestation])),
        }
    }
    Ok(referrers)
}

/// The error with help.
fn failure(error: OciError) -> Error {
    let message = error.to_string();
    let (is_configuration, help) = match error {
        OciError::Reference(_)
        | OciError::Credentials(_)
        | OciError::Client(_)
        | OciError::Addition { .. }
        | OciError::InvalidImage { .. } => (true, None),
        OciError::NoPlatform { available, .. } => {
            let available = available.join(", ");
            (true, Some(format!("it is for {available}: select one of them with --target, or another base")))
        }
        OciError::Network { .. } => {
            (false, Some("check the network, and the proxy in HTTPS_PROXY".to_owned()))
        }
        OciError::Certificate { .. } => (
            false,
            Some(
                "set SSL_CERT_FILE to a file with the certificate of the authority that signed it".to_owned(),
            ),
        ),
        OciError::Unauthorized { host, had_credentials: false, access, .. } => {
            let login = format!("log in with `docker login {host}` or `podman login {host}`");
            (
                false,
                Some(match access {
                    RegistryAccess::Pull => format!("check the name; if the repository is private, {login}"),
                    RegistryAccess::Push => login,
                }),
            )
        }
        OciError::Unauthorized { .. } => {
            (false, Some("check the name of the repository, and the permissions of the login".to_owned()))
        }
        OciError::NotFound { .. } => (false, Some("check the name and the tag".to_owned())),
        OciError::RateLimited { .. } => {
            (false, Some("log in for a higher limit, or try again later".to_owned()))
        }
        OciError::Io { error, .. } => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => (true, None),
            ErrorKind::AlreadyExists => {
                (true, Some("choose another directory for --image-output".to_owned()))
            }
            _ => (false, None),
        },
        _ => (false, None),
    };
    let error = if is_configuration { Error::configuration(message) } else { Error::build(message) };
    match help {
        Some(help) => error.help(help),
        None => error,
    }
}
