//! The base directory of relative replacements.

use std::path::{Component, Path, PathBuf};

use velox_manifest::{Diagnostic, Manifest, ManifestFormat, Replacement, Spanned};

/// Makes the relative directories of `[[replaces]]` relative to `base`, the directory of the configuration.
///
/// Velox saw them from the working directory. Where a module is only there, it is meant: the warnings say so.
///
/// # Errors
/// A directory that is a module in both places.
pub fn rebase_replaces(
    manifest: &mut Manifest,
    base: &Path,
    working_directory: &Path,
) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    // The older formats had no `[[replaces]]`.
    if manifest.format != ManifestFormat::Modules {
        return Ok(warnings);
    }
    for Spanned { value, span } in manifest.replaces.iter_mut().map(|replace| &mut replace.new) {
        let Replacement::Directory(path) = value else { continue };
        let is_module = |directory: &Path| directory.join(&*path).join("go.mod").is_file();
        let is_here = is_module(base);
        if Path::new(path).is_absolute() || !is_module(working_directory) {
            continue;
        }
        let canonical = |directory: &Path| directory.join(&*path).canonicalize();
        let (Ok(other), Ok(from)) = (canonical(working_directory), base.canonicalize()) else { continue };
        if !is_here {
            let relative = relative(&from, &other);
            warnings.push(
                Diagnostic::warning(format!("`{path}` is taken from the working directory"))
                    .at(span.clone())
                    .label(format!(
                        "a module in `{}`, not in `{}`",
                        working_directory.display(),
                        base.display()
                    ))
                    .help(format!("write it relative to this file: \"{relative}\"")),
            );
            *path = relative;
        } else if canonical(base).is_ok_and(|here| here != other) {
            let (here, other) = (base.join(&*path), working_directory.join(&*path));
            let (here, other): (PathBuf, PathBuf) =
                (here.components().collect(), other.components().collect());
            errors.push(
                Diagnostic::error(format!(
                    "`{path}` is two modules: `{}` and `{}`",
                    here.display(),
                    other.display()
                ))
                .at(span.clone())
                .label("relative to this file, and to the working directory")
                .help("write an absolute path, or run vx in the directory of the configuration"),
            );
        }
    }
    if errors.is_empty() { Ok(warnings) } else { Err(errors) }
}

/// The way from one canonical directory to another, with `/`; the whole path if they share nothing.
fn relative(from: &Path, to: &Path) -> String {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return to.display().to_string();
    }
    let up = from.components().skip(shared).map(|_| "..".to_owned());
    let down = to
        .components()
        .skip(shared)
        .map(|part: Component<'_>| part.as_os_str().to_string_lossy().into_owned());
    let path = up.chain(down).collect::<Vec<_>>().join("/");
    if path.starts_with("..") { path } else { format!("./{path}") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use velox_manifest::SourceFile;

    use super::*;

    fn manifest(new: &str) -> Manifest {
        let text = format!(
            "[plugins.a]\nmodule_name = 'a.b/c'\ntag = 'v1.0.0'\n[[replaces]]\nold = 'a.b/d'\nnew = '{new}'"
        );
        let source = SourceFile { name: "velox.toml".to_owned(), text };
        Manifest::parse(&source, &|_| None).expect("it is valid").0
    }

    #[test]
    fn the_directory_that_is_a_module_is_meant() {
        let root = tempfile::tempdir().expect("a directory");
        let [base, fork] = ["conf", "fork"].map(|name| root.path().join(name));
        fs::create_dir_all(&base).expect("a directory");
        fs::create_dir_all(&fork).expect("a directory");
        let mut read = manifest("./fork");
        assert_eq!(rebase_replaces(&mut read, &base, root.path()), Ok(Vec::new()));
        assert_eq!(read.replaces[0].new.value, Replacement::Directory("./fork".to_owned()));

        fs::write(fork.join("go.mod"), "module a.b/d\n").expect("a file");
        let warnings = rebase_replaces(&mut read, &base, root.path()).expect("it is found");
        assert_eq!(warnings[0].message, "`./fork` is taken from the working directory");
        assert_eq!(read.replaces[0].new.value, Replacement::Directory("../fork".to_owned()));
        // It is the same directory from both places now.
        assert_eq!(rebase_replaces(&mut read, &base, &base), Ok(Vec::new()));

        fs::create_dir_all(base.join("fork")).expect("a directory");
        fs::write(base.join("fork/go.mod"), "module a.b/d\n").expect("a file");
        let errors = rebase_replaces(&mut manifest("./fork"), &base, root.path()).expect_err("there are two");
        assert!(errors[0].message.contains("conf/fork` and `"), "{}", errors[0].message);
        assert_eq!(rebase_replaces(&mut manifest("./fork"), &base, &base), Ok(Vec::new()));
    }
}
