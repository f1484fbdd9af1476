use std::{ops::Range, path::Path};

use velox_build::Error;
use velox_oci::{
    ImageReference, InvalidReference,
    image::{BaseImage, ImageAddition, ImageSettings, image_path},
};

use super::DEFAULT_TAG;
use crate::{cli::build::ImageArgs, commands::session::Session};

/// Where an image goes, and what is in it.
pub(super) struct ImageRequest {
    pub(super) names: Vec<ImageReference>,
    pub(super) base: BaseImage,
    pub(super) base_span: Option<Range<usize>>,
    pub(super) additions: Vec<ImageAddition>,
    pub(super) settings: ImageSettings,
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
                let base = BaseImage::parse(&text.value, base_directory);
                let base = base.map_err(|error| at(Error::configuration(error.to_string()), &text.span))?;
                (base, text.span.clone())
            }
            (None, None) => (BaseImage::Scratch, None),
        };
        let mut names = Vec::new();
        for text in &arguments.image {
            let name: ImageReference =
                text.parse().map_err(|error: InvalidReference| invalid("--image", error.to_string()))?;
            names.push(tagged(name).map_err(|reason| invalid("--image", reason))?);
        }
        if let (true, Some(repository)) = (names.is_empty(), &config.repository) {
            let wrong = |reason: String, span| at(Error::configuration(reason), span);
            let name: Result<ImageReference, InvalidReference> = repository.value.parse();
            let name = name.map_err(|error| wrong(error.to_string(), &repository.span))?;
            if name.tag().is_some() || name.digest().is_some() {
                let error = wrong("`repository` has a tag".to_owned(), &repository.span);
                return Err(error.help("move it to `tags`"));
            }
            for tag in &config.tags {
                names.push(name.with_tag(&tag.value).map_err(|error| wrong(error.to_string(), &tag.span))?);
            }
            if names.is_empty() {
                names.push(tagged(name).map_err(|reason| wrong(reason, &repository.span))?);
            }
        }
        names.dedup();
        if arguments.push && names.is_empty() {
            return Err(Error::configuration("--push requires a name for the image")
                .help("add `--image REGISTRY/REPOSITORY:TAG`, or `[image] repository` in velox.toml"));
        }
        let mut additions = Vec::new();
        for text in &config.add {
            let addition = ImageAddition::parse(&text.value, base_directory);
            additions.push(addition.map_err(|reason| at(Error::configuration(reason), &text.span))?);
        }
        for text in &arguments.image_add {
            let addition = ImageAddition::parse(text, directory);
            additions.push(addition.map_err(|reason| invalid("--image-add", reason))?);
        }
        for addition in &additions {
            std::fs::metadata(&addition.source).map_err(|error| {
                let source = addition.source.display();
                Error::configuration(format!("failed to add `{source}` to the image: {error}"))
            })?;
        }
        let binary_path = image_path(&arguments.image_path).and_then(|path| match path.as_str() {
            "/" => Err("expected the path of a file".to_owned()),
            _ => Ok(path),
        });
        let settings = ImageSettings {
            binary_path: binary_path.map_err(|reason| invalid("--image-path", reason))?,
            entrypoint: config.entrypoint.clone(),
            user: config.user.clone(),
            labels: config.labels.clone(),
            ..ImageSettings::default()
        };
        Ok(Self { names, base, base_span, additions, settings })
    }
}

/// The error, at this place of velox.toml.
pub(super) fn at(mut error: Error, span: &Option<Range<usize>>) -> Error {
    if let Some(first) = error.diagnostics.first_mut() {
        first.span.clone_from(span);
    }
    error
}

/// A name with a tag, which an image gets.
fn tagged(name: ImageReference) -> Result<ImageReference, String> {
    if name.digest().is_some() {
        return Err(format!("`{name}` has a digest, which only the finished image can have"));
    }
    match name.tag() {
        Some(_) => Ok(name),
        None => name.with_tag(DEFAULT_TAG).map_err(|error| error.to_string()),
    }
}
