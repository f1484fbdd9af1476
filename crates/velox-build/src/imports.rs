//! The imports of Go source files, without a Go compiler.

use std::{collections::BTreeSet, fs, io, path::Path};

use velox_gomod::{
    modfile::{GoMod, Require},
    module::{ModuleVersion, without_major},
};
use velox_manifest::GoTarget;

/// The file in which RoadRunner registers its plugins.
pub(crate) const PLUGINS_GO: &str = "container/plugins.go";

/// The imports of the Go files below `tree`, except tests, that `counts` accepts by their relative path.
pub(crate) fn imports_of(tree: &Path, counts: &dyn Fn(&str) -> bool) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for_each_source(tree, counts, &mut |source| found.extend(imports(source)))?;
    Ok(found)
}

/// The imports whose type `Plugin` these files create: `&config.Plugin{…}`.
pub(crate) fn created_plugins(tree: &Path, counts: &dyn Fn(&str) -> bool) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for_each_source(tree, counts, &mut |source| found.extend(plugins_created_in(source)))?;
    Ok(found)
}

/// The modules of the plugins that a release registers.
pub(crate) fn registered_plugins(tree: &Path, release: &GoMod) -> io::Result<Vec<ModuleVersion>> {
    let registered = imports_of(tree, &|path| path == PLUGINS_GO)?;
    let plugins =
        release.require.iter().filter(|line| !line.indirect && provides(line, release, &registered));
    Ok(plugins.map(Require::module).collect())
}

/// Whether the module of a requirement provides one of the imported packages
/// (<https://go.dev/ref/mod#resolve-pkg-mod>).
pub(crate) fn provides(line: &Require, release: &GoMod, imports: &BTreeSet<String>) -> bool {
    imports
        .iter()
        .any(|import| module_of(import, release.require.iter().map(|r| r.path.as_str())) == Some(&line.path))
}

/// The longest module path that is a path prefix of `package`.
pub fn module_of<'a>(package: &str, modules: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    modules
        .filter(|module| {
            package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .max_by_key(|module| module.len())
}

fn for_each_source(
    tree: &Path,
    counts: &dyn Fn(&str) -> bool,
    visit: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(tree.join(&folder))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            // Directories that the go command ignores:
            // https://pkg.go.dev/cmd/go#hdr-Package_lists_and_patterns
            let ignored = name.starts_with(['.', '_']) || name == "testdata" || name == "vendor";
            if kind.is_dir() && !ignored {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".go") && !name.ends_with("_test.go") && counts(&path)
            {
                visit(&String::from_utf8_lossy(&fs::read(entry.path())?));
            }
        }
    }
    Ok(())
}

/// The imports of one package for any of the targets, by file names alone
/// (<https://pkg.go.dev/cmd/go#hdr-Build_constraints>): build tags are ignored.
pub(crate) fn imports_of_package(directory: &Path, targets: &[GoTarget]) -> BTreeSet<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| targets.iter().any(|target| is_built_for(name, target)))
        .filter_map(|name| fs::read(directory.join(name)).ok())
        .flat_map(|source| imports(&String::from_utf8_lossy(&source)))
        .collect()
}

/// Whether a file is built for `target`, by its name (`x_windows.go`, `x_linux_arm64.go`, `x_test.go`).
fn is_built_for(name: &str, target: &GoTarget) -> bool {
    let Some(stem) = name.strip_suffix(".go").filter(|_| !name.starts_with(['_', '.'])) else { return false };
    let mut parts = stem.split('_').skip(1).collect::<Vec<_>>().into_iter().rev();
    let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let other_os = |part: &str| KNOWN_SYSTEMS.contains(&part) && part != target.os;
    if last == "test" || other_os(last) {
        return false;
    }
    !KNOWN_ARCHITECTURES.contains(&last) || (last == target.arch && !other_os(before))
}

/// As cmd/go knows them (<https://pkg.go.dev/internal/syslist>).
const KNOWN_SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];
const KNOWN_ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv", "riscv64", "s390x", "sparc64", "wasm",
];

fn imports(source: &str) -> Vec<String> {
    import_declarations(source).into_iter().map(|(_, path)| path).collect()
}

fn plugins_created_in(source: &str) -> Vec<String> {
    let is_created = |name: &str| {
        source
            .match_indices(&format!("{name}.Plugin{{"))
            .any(|(at, _)| !source.get(..at).is_some_and(|before| before.ends_with(is_word)))
    };
    import_declarations(source)
        .into_iter()
        .filter(|(name, path)| {
            let path = without_major(path);
            is_created(name.as_deref().unwrap_or_else(|| path.rsplit('/').next().unwrap_or_default()))
        })
        .map(|(_, path)| path)
        .collect()
}

/// The import declarations at the top of a Go source, each with its name if it has one
/// (<https://go.dev/ref/spec#Import_declarations>).
fn import_declarations(source: &str) -> Vec<(Option<String>, String)> {
    let mut tokens = GoTokens { rest: source };
    let mut declarations = Vec::new();
    // package NAME
    tokens.next();
    tokens.next();
    while tokens.next_if("import") {
        if tokens.next_if("(") {
            let mut name = None;
            while let Some(token) = tokens.next() {
                if token == ")" {
                    break;
                }
                match unquoted(token) {
                    Some(path) => declarations.push((name.take(), path)),
                    None => name = Some(token.to_owned()),
                }
            }
        } else {
            let first = tokens.next().unwrap_or_default();
            declarations.extend(match unquoted(first) {
                Some(path) => Some((None, path)),
                None => tokens.next().and_then(unquoted).map(|path| (Some(first.to_owned()), path)),
            });
        }
    }
    declarations
}

fn unquoted(token: &str) -> Option<String> {
    let inner = token.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    inner.or_else(|| token.strip_prefix('`').and_then(|t| t.strip_suffix('`'))).map(str::to_owned)
}

/// Words, string literals and single characters; skips white space, semicolons and comments.
struct GoTokens<'a> {
    rest: &'a str,
}

impl<'a> GoTokens<'a> {
    fn next_if(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        let found = self.next() == Some(wanted);
        if !found {
            self.rest = before;
        }
        found
    }

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.rest =
                self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{feff}');
            if let Some(comment) = self.rest.strip_prefix("//") {
                self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let length = match first {
            '"' | '`' => self.rest.get(1..)?.find(first)? + 2,
            c if is_word(c) => self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len()),
            c => c.len_utf8(),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_import_is_read() {
        let source = "//go:build linux\n/* a \"b\" */ package main; import \"one\"\nimport two `2`\nimport (\n\t. \"three\" // \"no\"\n\t_ \"four/v5\"; five \"5\"\n)\nvar x = \"import\"\n";
        assert_eq!(imports(source), ["one", "2", "three", "four/v5", "5"]);
    }

    #[test]
    fn created_plugins_are_found_by_the_name_of_their_import() {
        let source = "package serve\nimport (\n\tconfigImpl \"a.b/config/v6\"\n\t\"a.b/rpc/v5\"\n\t\"a.b/errors\"\n\t\"a.b/pc\"\n)\n\
                      func run() {\n\tcfg := &configImpl.Plugin{\n\t\tPath: \"x\",\n\t}\n\t_, _ = rpc.Plugin{}, errors.PluginError{}\n}\n";
        assert_eq!(plugins_created_in(source), ["a.b/config/v6", "a.b/rpc/v5"]);
        assert!(plugins_created_in("package x\nimport config \"a.b/config\"\n").is_empty());
    }

    #[test]
    fn a_files_name_says_which_targets_it_is_for() {
        let target = GoTarget { os: "linux".into(), arch: "amd64".into() };
        for name in
            ["a.go", "linux.go", "a_linux.go", "a_linux_amd64.go", "a_amd64.go", "a_b.go", "a_unix.go"]
        {
            assert!(is_built_for(name, &target), "{name}");
        }
        for name in ["a_test.go", "a_windows.go", "a_windows_amd64.go", "a_arm64.go", "_a.go", ".a.go", "a.s"]
        {
            assert!(!is_built_for(name, &target), "{name}");
        }
    }

    #[test]
    fn what_is_no_go_source_has_no_imports() {
        for source in ["", "package", "import", "package x import (", "package x import \"", "\u{0}é"] {
            assert!(imports(source).is_empty(), "{source:?}");
        }
    }
}
