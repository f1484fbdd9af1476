//! The format with `[plugins]`, and the tables of every format: replaces, excludes, requires, Go, targets, cache.

use crate::{
    CacheConfig, Diagnostic, GoSelection, GoTarget, ModuleDirective, Origin, Plugin, ReplaceDirective,
    Spanned, check,
    manual::{converted, invalid, replace, required},
    reader::{Field, Section},
    target::target,
};

pub(crate) fn plugins(root: &Section<'_>) -> Vec<Plugin> {
    let Some(plugins) = root.section("plugins") else { return Vec::new() };
    plugins.fields().into_iter().filter_map(plugin).collect()
}

fn plugin(field: Field<'_>) -> Option<Plugin> {
    let name = Spanned { value: field.key.to_owned(), span: field.key_span.clone() };
    let section = field.section()?;
    let help =
        "the path in the plugin's go.mod, such as module_name = \"github.com/roadrunner-server/http/v5\"";
    let module = required(&section, "module_name", help, check::module_path);
    let help = "a tag, a version constraint, a branch, a commit or \"latest\", such as tag = \"v5.2.7\" or tag = \"^5.2\"";
    let tag = required(&section, "tag", help, check::requested);
    let replace = replace(&section);
    let (module, tag) = (module?, tag?);
    check_major(&section, &module, &tag);
    Some(Plugin { name, origin: Origin::Module(module), reference: tag, replace: replace? })
}

/// Reports a version whose major version doesn't match its module path.
fn check_major(section: &Section<'_>, module: &Spanned<String>, version: &Spanned<String>) {
    if let Err(wrong) = check::majors_agree(&module.value, &version.value) {
        let message = format!("`{}` is not a version of `{}`", version.value, module.value);
        section.error(invalid(&message, &version.span, wrong));
    }
}

pub(crate) fn replaces(root: &Section<'_>) -> Vec<ReplaceDirective> {
    let Some(field) = root.field("replaces") else { return Vec::new() };
    let mut replaces: Vec<ReplaceDirective> = Vec::new();
    for section in field.sections() {
        let old = section.required("old", "the module to replace, such as old = \"github.com/acme/http\"");
        let new = section.required("new", "a directory (\"../http\") or a module with its version");
        let old = old.and_then(|old| converted(&section, "old", &old, check::replaced));
        let new = new.and_then(|new| converted(&section, "new", &new, check::replacement));
        let (Some(old), Some(new)) = (old, new) else { continue };
        if replaces.iter().any(|known| known.old.value == old.value) {
            section.error(
                Diagnostic::error(format!("duplicate replacement of `{}`", old.value.0))
                    .at(old.span.clone())
                    .label("second replacement")
                    .help("remove one of them"),
            );
        }
        replaces.push(ReplaceDirective { old, new });
    }
    replaces
}

pub(crate) fn excludes(root: &Section<'_>) -> Vec<ModuleDirective> {
    let Some(field) = root.field("excludes") else { return Vec::new() };
    let help = "the version to exclude, such as version = \"v9.15.0\"";
    field.sections().iter().filter_map(|section| directive(section, help)).collect()
}

pub(crate) fn requires(root: &Section<'_>) -> Vec<ModuleDirective> {
    let Some(field) = root.field("requires") else { return Vec::new() };
    let help = "the lowest version, such as version = \"v9.15.1\"";
    let mut requires: Vec<ModuleDirective> = Vec::new();
    for section in field.sections() {
        let Some(require) = directive(&section, help) else { continue };
        if requires.iter().any(|known| known.module.value == require.module.value) {
            section.error(
                Diagnostic::error(format!("duplicate requirement of `{}`", require.module.value))
                    .at(require.module.span.clone())
                    .label("second requirement")
                    .help("remove the one with the lower version"),
            );
        }
        requires.push(require);
    }
    requires
}

/// The keys `module` and `version`; `help` describes the version.
fn directive(section: &Section<'_>, help: &str) -> Option<ModuleDirective> {
    let of_module = "the module path, such as module = \"github.com/redis/go-redis/v9\"";
    let module = required(section, "module", of_module, check::module_path);
    let version = required(section, "version", help, check::full_version);
    let (module, version) = (module?, version?);
    check_major(section, &module, &version);
    Some(ModuleDirective { module, version })
}

/// `[go] version`.
pub(crate) fn go(root: &Section<'_>) -> Option<Spanned<GoSelection>> {
    let section = root.section("go")?;
    section.field("version").filter(|field| !field.is_unset())?;
    let version = section.version("version")?;
    converted(&section, "version", &version, check::go_selection)
}

/// `[target_platform]` or `[[targets]]`; an empty table is ignored.
pub(crate) fn targets(root: &Section<'_>) -> Vec<Spanned<GoTarget>> {
    let GoTarget { os, arch } = GoTarget::host();
    let variable = |name: &str| (root.reader.environment)(name).filter(|value| !value.is_empty());
    let (goos, goarch) = (variable("GOOS").unwrap_or(os), variable("GOARCH").unwrap_or(arch));
    let host = GoTarget { os: goos, arch: goarch };
    let one = root.section("target_platform").and_then(|section| platform(section, Some(host)));
    let Some(field) = root.field("targets") else { return one.into_iter().collect() };
    let mut targets: Vec<Spanned<GoTarget>> = Vec::new();
    for target in field.sections().into_iter().filter_map(|section| platform(section, None)) {
        if targets.iter().all(|known| known.value != target.value) {
            targets.push(target);
        }
    }
    if one.is_some() {
        root.error(
            Diagnostic::error("`[target_platform]` and `[[targets]]` can't be combined")
                .at(field.key_span.clone())
                .label("second setting")
                .help("move the target to `[[targets]]` and remove `[target_platform]`"),
        );
    }
    targets
}

/// The target of a table. `host` has the value of a missing key: as in Velox, GOOS or GOARCH, else the host's.
fn platform(section: Section<'_>, host: Option<GoTarget>) -> Option<Spanned<GoTarget>> {
    let (mut os, mut arch) = (section.text("os"), section.text("arch"));
    let is_given = |key| section.field(key).is_some_and(|field| !field.is_unset());
    match (is_given("os"), is_given("arch"), host) {
        (true, false, Some(host)) => {
            arch = Some(Spanned { value: host.arch, span: os.as_ref()?.span.clone() })
        }
        (false, true, Some(host)) => os = Some(Spanned { value: host.os, span: arch.as_ref()?.span.clone() }),
        (true, false, None) => section.missing("arch", "a target needs both keys, such as arch = \"amd64\""),
        (false, true, None) => section.missing("os", "a target needs both keys, such as os = \"linux\""),
        _ => {}
    }
    let (os, arch) = (os?, arch?);
    match target(&os.value, &arch.value) {
        Ok(value) => Some(Spanned { value, span: os.span }),
        Err((variable, message)) => {
            let (key, span) = if variable == "GOOS" { ("os", os.span) } else { ("arch", arch.span) };
            let message = if is_given(key) { message } else { format!("invalid {variable}: {message}") };
            section.error(Diagnostic::error(message).at(span).label("unsupported target"));
            None
        }
    }
}

pub(crate) fn cache(root: &Section<'_>) -> CacheConfig {
    let Some(section) = root.section("cache") else {
        return CacheConfig::default();
    };
    let mut remotes: Vec<Spanned<String>> = section.text("remote").into_iter().collect();
    if let Some(field) = section.field("remotes") {
        if let Some(remote) = remotes.first() {
            let both = Diagnostic::error("`remote` and `remotes` are both set in `[cache]`")
                .at(field.span())
                .label("the list of all shared caches")
                .help("move the value of `remote` to the beginning of `remotes`, and remove `remote`");
            section.error(match remote.span.clone() {
                Some(span) => both.related(span, "a single one"),
                None => both,
            });
        }
        remotes.extend(field.texts());
        remotes.retain(|remote| !remote.value.is_empty());
    }
    CacheConfig {
        remotes,
        read_only: section.bool("read_only").unwrap_or(false),
        artifacts: section.bool("artifacts").unwrap_or(true),
        trusted_key: section.text("trusted_key"),
    }
}
