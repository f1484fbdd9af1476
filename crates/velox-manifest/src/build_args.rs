//! `[velox] build_args`: the arguments of `go build` that are safe to apply.

use std::{iter::Peekable, ops::Range, vec::IntoIter};

use crate::{
    BuildArgs, Diagnostic, Spanned,
    check::semver_major,
    interpolate::{interpolate, is_placeholder},
    reader::{ParseContext, nearest},
};

/// Unsupported flags of `go build`, and why.
const UNSUPPORTED_FLAGS: &[(&str, &str)] = &[
    ("C", "it changes the directory of the build"),
    ("asan", "it needs a C compiler and its libraries"),
    ("a", "the go command decides what to recompile"),
    ("buildmode", "the binary is always an executable"),
    ("compiler", "it would run another compiler"),
    ("exec", "it runs a program"),
    ("installsuffix", "the output directory is fixed"),
    ("mod", "the configuration defines the modules"),
    ("modcacherw", "the module cache keeps Go's permissions"),
    ("modfile", "it would replace the generated go.mod"),
    ("msan", "it needs a C compiler and its libraries"),
    ("n", "use `vx build --dry-run`"),
    ("o", "use `vx build -o DIR` or `--output-file FILE`"),
    ("overlay", "it would replace source files"),
    ("pgo", "it reads a file outside the configuration"),
    ("pkgdir", "it would use compiled packages from outside the build"),
    ("toolexec", "it runs a program"),
    ("work", "use `vx build --keep-workspace`"),
    ("x", "use `vx build -v`"),
];

/// Unsupported flags of the linker in `-ldflags`, and why.
const UNSUPPORTED_LINKER_FLAGS: &[(&str, &str)] = &[
    ("extar", "it runs a program"),
    ("extld", "it runs a program"),
    ("extldflags", "it is passed to an external linker, which can run programs"),
    ("linkmode", "the binary is linked by Go itself"),
    ("I", "it names the dynamic loader of the binary"),
    ("L", "it would use compiled packages from outside the build"),
    ("o", "use `vx build -o DIR` or `--output-file FILE`"),
    ("r", "it would use libraries from outside the build"),
    ("tmpdir", "it would write outside the build"),
];

const SUPPORTED: &str =
    "supported: -trimpath, -ldflags (-s, -w, -X), -tags, -race, -p, -gcflags and -asmflags (-N, -l)";

/// Parses the arguments and reports unsupported ones.
///
/// Variables are interpolated after splitting, so that the value of a variable can't become a flag.
pub(crate) fn read(reader: ParseContext<'_>, arguments: Vec<Spanned<String>>) -> BuildArgs {
    let mut parser = ArgumentParser { reader, result: BuildArgs::default() };
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        parser.argument(&argument, &mut arguments);
    }
    parser.result
}

impl BuildArgs {
    /// The first argument that no configuration can have, for arguments from elsewhere.
    #[must_use]
    pub fn unsupported(&self) -> Option<&str> {
        let is_supported = |flag: &&String| match flag.split_once('=') {
            Some(("-p", count)) => count.parse::<u16>().is_ok_and(|count| count > 0),
            Some(("-gcflags" | "-asmflags", value)) => unsupported_compiler_flag(value).is_none(),
            _ => false,
        };
        let flag = self.flags.iter().find(|flag| !is_supported(flag));
        flag.or_else(|| self.tags.iter().find(|tag| !is_tag(tag)))
            .or_else(|| self.definitions.keys().find(|name| !is_variable(name)))
            .map(String::as_str)
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
}

/// In the value of `-gcflags` or `-asmflags`.
fn unsupported_compiler_flag(value: &str) -> Option<&str> {
    let flags = match value.split_once('=') {
        Some((pattern, flags)) if !pattern.starts_with('-') => flags,
        _ => value,
    };
    flags.split_whitespace().find(|flag| !matches!(*flag, "-N" | "-l"))
}

struct ArgumentParser<'a> {
    reader: ParseContext<'a>,
    result: BuildArgs,
}

impl ArgumentParser<'_> {
    fn argument(&mut self, argument: &Spanned<String>, rest: &mut Peekable<IntoIter<Spanned<String>>>) {
        let Some(flag) = argument.value.strip_prefix("--").or_else(|| argument.value.strip_prefix('-'))
        else {
            return self.reject(argument, "it is not a flag, and the package is always RoadRunner's");
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        match name {
            "trimpath" => self.require_default(
                argument,
                value,
                "true",
                "vx always trims paths, so that builds are reproducible",
            ),
            "v" => self.require_default(argument, value, "true", "use `vx build -q`"),
            "buildvcs" if matches!(value, Some("false" | "auto")) => {}
            "buildvcs" => self.reject(argument, "the build directory has no version control"),
            "race" => match value.unwrap_or("true") {
                "true" => self.result.race = true,
                "false" => self.result.race = false,
                _ => self.reject(argument, "write `-race` or `-race=false`"),
            },
            "tags" | "ldflags" | "p" | "gcflags" | "asmflags" => {
                let value = match value {
                    Some(value) => Spanned { value: value.to_owned(), span: argument.span.clone() },
                    None => match rest.next() {
                        Some(value) => value,
                        None => {
                            return self.reject(
                                argument,
                                "missing value; write it after `=` in the same string, or as the next string",
                            );
                        }
                    },
                };
                match name {
                    "tags" => self.tags(value),
                    "ldflags" => self.linker(&value),
                    "p" => self.parallel(value),
                    _ => self.compiler(name, value),
                }
            }
            _ => {
                let known = UNSUPPORTED_FLAGS.iter().find(|(flag, _)| *flag == name).map(|(_, why)| *why);
                let why = known.unwrap_or(if name.contains(char::is_whitespace) {
                    "every argument must be a separate string"
                } else {
                    "it is not known to be safe"
                });
                self.reject(argument, why);
                // Skip its value, which needs no separate error.
                if value.is_none() {
                    rest.next_if(|next| !next.value.starts_with('-'));
                }
            }
        }
    }

    /// Accepts a flag that restates the default, and rejects any other value.
    fn require_default(&mut self, argument: &Spanned<String>, value: Option<&str>, same: &str, why: &str) {
        if value.is_some_and(|value| value != same) {
            self.reject(argument, why);
        }
    }

    fn tags(&mut self, value: Spanned<String>) {
        let Some(value) = self.reader.interpolated(value) else { return };
        for tag in value.value.split([',', ' ']).filter(|tag| !tag.is_empty()) {
            if !is_tag(tag) {
                self.error(
                    format!("invalid build tag `{tag}`"),
                    &value.span,
                    "a tag has letters, digits, `_` and `.`",
                );
            } else if !self.result.tags.iter().any(|known| known == tag) {
                self.result.tags.push(tag.to_owned());
            }
        }
    }

    fn parallel(&mut self, value: Spanned<String>) {
        let Some(value) = self.reader.interpolated(value) else { return };
        match value.value.trim().parse::<u16>() {
            Ok(count) if count > 0 => self.result.flags.push(format!("-p={count}")),
            _ => self.error(
                format!("invalid value `{}` for `-p`", value.value),
                &value.span,
                "write a number from 1, such as `-p=4`",
            ),
        }
    }

    /// `-gcflags` and `-asmflags`, `[pattern=]flags`. Only flags that don't access files are supported.
    fn compiler(&mut self, name: &str, value: Spanned<String>) {
        match unsupported_compiler_flag(&value.value) {
            Some(flag) => {
                let message = format!("`{flag}` in `-{name}` is not supported");
                self.error(message, &value.span, "supported: -N and -l, which help a debugger");
            }
            None => self.result.flags.push(format!("-{name}={}", value.value)),
        }
    }

    fn linker(&mut self, value: &Spanned<String>) {
        let fields = match fields(&value.value) {
            Ok(fields) => fields,
            Err(quote) => {
                return self.error(
                    format!("unclosed {quote} in `-ldflags`"),
                    &value.span,
                    "quote a whole field, as in '-X main.title=two words'",
                );
            }
        };
        let mut fields = fields.into_iter();
        while let Some(field) = fields.next() {
            let flag = field.strip_prefix("--").or_else(|| field.strip_prefix('-'));
            match flag {
                Some("s" | "s=true") => self.result.strip = Some(true),
                Some("s=false") => self.result.strip = Some(false),
                Some("w" | "w=true" | "w=false") => {}
                Some("X") => match fields.next() {
                    Some(definition) => self.definition(definition, &value.span),
                    None => self.error("missing definition after `-X`".to_owned(), &value.span, DEFINITION),
                },
                Some(definition) if definition.starts_with("X=") => {
                    self.definition(definition.trim_start_matches("X="), &value.span);
                }
                _ => {
                    let name = flag.unwrap_or(field).split('=').next().unwrap_or(field);
                    let known = UNSUPPORTED_LINKER_FLAGS.iter().find(|(flag, _)| *flag == name);
                    let why = known.map_or("it is not known to be safe", |(_, why)| why);
                    self.reject(&Spanned { value: field.to_owned(), span: value.span.clone() }, why);
                }
            }
        }
    }

    /// `-X importpath.name=value`.
    fn definition(&mut self, definition: &str, span: &Option<Range<usize>>) {
        let named = definition.split_once('=').filter(|(name, _)| is_variable(name));
        let Some((name, raw)) = named else {
            return self.error(format!("invalid definition `-X {definition}`"), span, DEFINITION);
        };
        if let Some(stamp) = stamp_field(&mut self.result, name) {
            *stamp = match raw {
                // The default stamp reads these variables itself and has fallbacks.
                "${VERSION}" | "${TIME}" | "$VERSION" | "$TIME" => None,
                raw => interpolate(raw, self.reader.environment).ok().filter(|value| !is_placeholder(value)),
            };
        } else if let Some(value) =
            self.reader.interpolated(Spanned { value: raw.to_owned(), span: span.clone() })
        {
            self.result.definitions.insert(name.to_owned(), value.value);
        }
    }

    fn reject(&self, argument: &Spanned<String>, why: &str) {
        let name = argument.value.split('=').next().unwrap_or(&argument.value);
        let diagnostic = Diagnostic::error(format!("build argument `{name}` is not supported: {why}"))
            .at(argument.span.clone())
            .label("remove this")
            .help(SUPPORTED);
        let bare = name.trim_start_matches('-');
        let unknown =
            ![UNSUPPORTED_FLAGS, UNSUPPORTED_LINKER_FLAGS].concat().iter().any(|(flag, _)| *flag == bare);
        let near = nearest(bare, ["trimpath", "ldflags", "tags", "race", "gcflags", "asmflags"]);
        self.reader.findings.push(match near {
            Some(near) if unknown && near != bare => diagnostic.label(format!("did you mean `-{near}`?")),
            _ => diagnostic,
        });
    }

    fn error(&self, message: String, span: &Option<Range<usize>>, help: &str) {
        self.reader.findings.push(Diagnostic::error(message).at(span.clone()).help(help));
    }
}

const DEFINITION: &str = "write `-X importpath.name=value`";

/// The field of RoadRunner's version stamp that a definition sets, for any major version.
fn stamp_field<'a>(arguments: &'a mut BuildArgs, name: &str) -> Option<&'a mut Option<String>> {
    let rest = name.strip_prefix("github.com/roadrunner-server/roadrunner/")?;
    let inner = match rest.split_once('/') {
        Some((major, inner)) if semver_major(&format!("{major}.0.0")).is_some() => inner,
        _ => rest,
    };
    match inner {
        "internal/meta.version" => Some(&mut arguments.stamp_version),
        "internal/meta.buildTime" => Some(&mut arguments.stamp_time),
        _ => None,
    }
}

fn is_variable(name: &str) -> bool {
    let path = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let Some((package, variable)) = name.rsplit_once('.') else { return false };
    !package.is_empty()
        && package.chars().all(path)
        && !variable.is_empty()
        && !variable.starts_with(|c: char| c.is_ascii_digit())
        && variable.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Splits a flag value at whitespace like `go build`: a field can be quoted as a whole, without escapes
/// (<https://pkg.go.dev/cmd/go#hdr-Compile_packages_and_dependencies>). The error is an unclosed quote.
fn fields(text: &str) -> Result<Vec<&str>, char> {
    let mut fields = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (field, after) = if matches!(first, '"' | '\'') {
            rest.get(1..).and_then(|inner| inner.split_once(first)).ok_or(first)?
        } else {
            rest.split_once(char::is_whitespace).unwrap_or((rest, ""))
        };
        fields.push(field);
        rest = after.trim_start();
    }
    Ok(fields)
}
