use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use velox_build::Error;
use velox_manifest::{ImageCompression, Spanned};
use velox_oci::{
    ImageReference, InvalidReference,
    image::{BaseImage, ImageAddition, ImageSettings, LayerCompression, image_path},
};

use super::{DEFAULT_TAG, failure};
use crate::{cli::build::ImageArgs, commands::session::Session};

/// Compressed archives, which `--image-output` doesn't write.
const OTHER_ARCHIVES: [&str; 6] = ["gz", "tgz", "xz", "zst", "bz2", "zip"];

/// Where an image goes, and what is in it.
pub(super) struct ImageRequest {
    pub(super) names: Vec<ImageReference>,
    pub(super) base: BaseImage,
    pub(super) base_span: Option<Range<usize>>,
    pub(super) additions: Vec<ImageAddition>,
    pub(super) settings: ImageSettings,
    pub(super) output: Option<ImageOutput>,
}

/// `--image-output`
pub(super) enum ImageOutput {
    Layout(PathBuf),
    Archive(PathBuf),
}

impl ImageRequest {
    /// The options of the command line before `[image]`.
    pub(super) fn read(session: &Session, arguments: &ImageArgs, directory: &Path) -> Result<Self, Error> {
        let (config, base_directory) = (&session.request.manifest.image, &session.request.base);
        let invalid = |option: &str, reason: String| {
            Error::configuration(format!("invalid value for {option}: {reason}"))
        };
        let (base, base_span) = match (&arguments.base, &config.base) {
            (Some(text), _) => {
                let base = BaseImage::parse(text, directory);
                (base.map_err(|error| invalid("--base", error.to_string()))?, None)
            }
            (None, Some(text)) => {
                (in_file(text, |text| BaseImage::parse(text, base_directory))?, text.span.clone())
            }
            (None, None) => (BaseImage::Scratch, None),
        };
        let mut names = Vec::new();
        for text in &arguments.image {
            names.push(tagged(text).map_err(|reason| invalid("--image", reason))?);
        }
        if let (true, Some(repository)) = (names.is_empty(), &config.repository) {
            let name: ImageReference = in_file(repository, str::parse)?;
            if name.tag().is_some() || name.digest().is_some() {
                let error = Error::configuration("`repository` has a tag").help("move it to `tags`");
                return Err(at(error, &repository.span));
            }
            for tag in &config.tags {
                names.push(in_file(tag, |tag| name.with_tag(tag))?);
            }
            if names.is_empty() {
                names.push(in_file(repository, tagged)?);
            }
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        if arguments.push && names.is_empty() {
            return Err(Error::configuration("--push requires a name for the image")
                .help("add `--image REGISTRY/REPOSITORY:TAG`, or `[image] repository` in velox.toml"));
        }
        let mut additions = Vec::new();
        for text in &config.add {
            additions.push(in_file(text, |text| ImageAddition::parse(text, base_directory))?);
        }
        for text in &arguments.image_add {
            let addition = ImageAddition::parse(text, directory);
            additions.push(addition.map_err(|reason| invalid("--image-add", reason))?);
        }
        for addition in &additions {
            addition.check().map_err(failure)?;
        }
        let binary_path =
            image_path(&arguments.image_path).map_err(|reason| invalid("--image-path", reason))?;
        let settings = ImageSettings {
            binary_path,
            entrypoint: config.entrypoint.clone(),
            user: config.user.clone(),
            labels: config.labels.clone(),
            compression: match arguments.image_compression.or(config.compression) {
                Some(ImageCompression::Zstd) => LayerCompression::Zstd,
                Some(ImageCompression::Gzip) | None => LayerCompression::Gzip,
            },
            ..ImageSettings::default()
        };
        let output = arguments.image_output.as_ref().map(|path| ImageOutput::of(directory.join(path)));
        Ok(Self { names, base, base_span, additions, settings, output: output.transpose()? })
    }
}

impl ImageOutput {
    /// Fails if it can't be written.
    fn of(path: PathBuf) -> Result<Self, Error> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if OTHER_ARCHIVES.contains(&extension) {
            let message =
                format!("invalid value for --image-output: `{}` is not a tar archive", path.display());
            return Err(Error::configuration(message).help("use FILE.tar, or a directory for an OCI layout"));
        }
        let unwritable = |error: std::io::Error| {
            Error::configuration(format!("failed to write the image to `{}`: {error}", path.display()))
        };
        let output = match extension {
            "tar" if path.is_dir() => return Err(unwritable(std::io::ErrorKind::IsADirectory.into())),
            "tar" => Self::Archive(path.clone()),
            _ => {
                velox_oci::image::check_layout(&path).map_err(failure)?;
                Self::Layout(path.clone())
            }
        };
        // A file without a name in the nearest directory that exists.
        if let Some(directory) = path.ancestors().find(|it| it.exists() && (*it != path || it.is_dir())) {
            tempfile::tempfile_in(directory).map_err(unwritable)?;
        }
        Ok(output)
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Layout(path) | Self::Archive(path) => path,
        }
    }
}

/// Parses a value of velox.toml.
fn in_file<T, E: ToString>(
    text: &Spanned<String>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Error> {
    parse(&text.value).map_err(|error| at(Error::configuration(error.to_string()), &text.span))
}

/// The error, at this place of velox.toml.
pub(super) fn at(mut error: Error, span: &Option<Range<usize>>) -> Error {
    if let Some(first) = error.diagnostics.first_mut() {
        first.span.clone_from(span);
    }
    error
}

/// A name with a tag, which an image gets.
fn tagged(text: &str) -> Result<ImageReference, String> {
    let name: ImageReference = text.parse().map_err(|error: InvalidReference| error.to_string())?;
    if name.digest().is_some() {
        return Err(format!("`{name}` has a digest, which only the finished image can have"));
    }
    name.with_tag(name.tag().unwrap_or(DEFAULT_TAG)).map_err(|error| error.to_string())
}
