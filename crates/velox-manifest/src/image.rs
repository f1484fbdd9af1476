//! `[image]`: the container image of the binary.

use crate::{
    ImageConfig, Spanned,
    reader::{Field, Section},
};

/// Without `compression`.
pub(crate) fn image(root: &Section<'_>) -> ImageConfig {
    let Some(section) = root.section("image") else { return ImageConfig::default() };
    let labels = section.section("labels").map(|labels| labels.fields()).unwrap_or_default();
    let label = |field: Field<'_>| Some((field.key.to_owned(), field.text()?.value));
    ImageConfig {
        base: section.text("base"),
        repository: section.text("repository"),
        tags: texts(&section, "tags").unwrap_or_default(),
        entrypoint: texts(&section, "entrypoint")
            .map(|words| words.into_iter().map(|word| word.value).collect()),
        user: section.text("user").map(|user| user.value),
        labels: labels.into_iter().filter_map(label).collect(),
        add: texts(&section, "add").unwrap_or_default(),
        compression: None,
    }
}

/// The texts of an array, with variables replaced.
fn texts(section: &Section<'_>, key: &str) -> Option<Vec<Spanned<String>>> {
    let field = section.field(key)?;
    Some(field.raw_strings().into_iter().filter_map(|raw| section.reader.interpolated(raw)).collect())
}
