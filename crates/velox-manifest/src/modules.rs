//! The newest format: plugins by module path; and the lists of replaces and excludes, which every format has.

use crate::{
    CacheConfig, Diagnostic, ExcludeDirective, GoTarget, Origin, Plugin, ReplaceDirective, Spanned, keys,
    manual::{cannot_be, checked, converted, replace},
    reader::{AllowedKeys, Field, Section},
    refs,
    target::{InvalidTarget, target},
};

/// `[plugins.NAME]`.
pub(crate) fn plugins(root: &Section<'_>) -> Vec<Plugin> {
    let Some(plugins) = root.section("plugins", AllowedKeys::Names) else { return Vec::new() };
    plugins.fields().into_iter().filter_map(plugin).collect()
}

fn plugin(field: Field<'_>) -> Option<Plugin> {
    let name = Spanned { value: field.key.to_owned(), span: field.key_span.clone() };
    let section = field.section(AllowedKeys::Keys(keys::MODULE))?;
    let module = section.required(
        "module_name",
        "the path in the plugin's go.mod, such as module_name = \"github.com/roadrunner-server/http/v5\"",
    );
    let tag = section.required("tag", "a tag, a branch, a commit or \"latest\", such as tag = \"v5.2.7\"");
    let module = module.and_then(|module| checked(&section, "module_name", module, refs::module_path));
    let tag = tag.and_then(|tag| checked(&section, "tag", tag, refs::reference));
    let replace = replace(&section);
    let (module, tag) = (module?, tag?);
    of_module(&section, &module, &tag);
    Some(Plugin { name, origin: Origin::Module(module), reference: tag, replace: replace? })
}

/// Finds a version that is of another major than its module.
fn of_module(section: &Section<'_>, module: &Spanned<String>, version: &Spanned<String>) {
    if let Err(wrong) = refs::majors_agree(&module.value, &version.value) {
        let message = format!("{} is no version of {}", version.value, module.value);
        section.error(cannot_be(&message, &version.span, wrong));
    }
}

/// `[[replaces]]`.
pub(crate) fn replaces(root: &Section<'_>) -> Vec<ReplaceDirective> {
    let Some(field) = root.field("replaces") else { return Vec::new() };
    let mut replaces: Vec<ReplaceDirective> = Vec::new();
    for section in field.sections(keys::REPLACE) {
        let old = section.required("old", "the module to replace, such as old = \"github.com/acme/http\"");
        let new = section.required("new", "a directory (\"../http\") or a module with its version");
        let old = old.and_then(|old| {
            let value = converted(&section, "old", &old, refs::replaced)?;
            Some(Spanned { value, span: old.span })
        });
        let new = new.and_then(|new| {
            let value = converted(&section, "new", &new, refs::replacement)?;
            Some(Spanned { value, span: new.span })
        });
        let (Some(old), Some(new)) = (old, new) else { continue };
        if replaces.iter().any(|known| known.old.value == old.value) {
            section.error(
                Diagnostic::error(format!("`{}` is replaced twice", old.value.0))
                    .at(old.span.clone())
                    .label("the second time")
                    .help("remove one of the two"),
            );
        }
        replaces.push(ReplaceDirective { old, new });
    }
    replaces
}

/// `[[excludes]]`.
pub(crate) fn excludes(root: &Section<'_>) -> Vec<ExcludeDirective> {
    let Some(field) = root.field("excludes") else { return Vec::new() };
    let read = |section: Section<'_>| {
        let module = section
            .required("module", "the module's path, such as module = \"github.com/redis/go-redis/v9\"");
        let version = section.required("version", "the version never to use, such as version = \"v9.15.0\"");
        let module = module.and_then(|module| checked(&section, "module", module, refs::module_path));
        let version = version.and_then(|version| checked(&section, "version", version, refs::full_version));
        let (module, version) = (module?, version?);
        of_module(&section, &module, &version);
        Some(ExcludeDirective { module, version })
    };
    field.sections(keys::EXCLUDE).into_iter().filter_map(read).collect()
}

/// `[target_platform]`, or many as `[[targets]]`; an empty one is none.
pub(crate) fn targets(root: &Section<'_>) -> Vec<Spanned<GoTarget>> {
    let one = root.section("target_platform", AllowedKeys::Keys(keys::TARGET)).and_then(platform);
    let Some(field) = root.field("targets") else { return one.into_iter().collect() };
    let mut targets: Vec<Spanned<GoTarget>> = Vec::new();
    for target in field.sections(keys::TARGET).into_iter().filter_map(platform) {
        if targets.iter().all(|known| known.value != target.value) {
            targets.push(target);
        }
    }
    if one.is_some() {
        root.error(
            Diagnostic::error("[target_platform] and [[targets]] both say what to compile for")
                .at(field.key_span.clone())
                .label("the second one")
                .help("move the one target to [[targets]], and remove [target_platform]"),
        );
    }
    targets
}

fn platform(section: Section<'_>) -> Option<Spanned<GoTarget>> {
    let (os, arch) = (section.text("os"), section.text("arch"));
    match (section.has("os"), section.has("arch")) {
        (true, false) => section.missing("arch", "a target has both halves, such as arch = \"amd64\""),
        (false, true) => section.missing("os", "a target has both halves, such as os = \"linux\""),
        _ => {}
    }
    let (os, arch) = (os?, arch?);
    match target(&os.value, &arch.value) {
        Ok(value) => Some(Spanned { value, span: os.span }),
        Err(wrong) => {
            let (message, span) = match wrong {
                InvalidTarget::Os(message) => (message, os.span),
                InvalidTarget::Arch(message) => (message, arch.span),
            };
            section.error(Diagnostic::error(message).at(span).label("no server can be compiled for it"));
            None
        }
    }
}

/// `[cache]`.
pub(crate) fn cache(root: &Section<'_>) -> CacheConfig {
    let Some(section) = root.section("cache", AllowedKeys::Keys(keys::CACHE)) else {
        return CacheConfig::default();
    };
    CacheConfig { remote: section.text("remote"), read_only: section.bool("read_only").unwrap_or(false) }
}
