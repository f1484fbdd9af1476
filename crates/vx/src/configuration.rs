use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use velox_manifest::{Diagnostic, Level, SourceFile};

/// The file that is read where none is named.
pub(crate) const USUAL_NAME: &str = "velox.toml";

/// More than any real velox.toml by far; what is larger is no configuration (a device, a binary).
const LARGEST: u64 = 16 << 20;

const EXAMPLE: &str = r#"[roadrunner]
ref = "v2024.2.1"

[github.plugins]
logger = { ref = "v5.0.2", owner = "roadrunner-server", repository = "logger" }
server = { ref = "v5.0.2", owner = "roadrunner-server", repository = "server" }
http = { ref = "v5.0.2", owner = "roadrunner-server", repository = "http" }"#;

/// A configuration that was read.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) source: SourceFile,
    /// The directory that its relative paths start from.
    pub(crate) base: PathBuf,
    /// The file itself; `None`: it came through a pipe.
    pub(crate) file: Option<PathBuf>,
}

/// Reads `path` (`-`: the standard input), as seen from the working directory.
pub(crate) fn read(path: &Path, working_directory: &Path) -> Result<Configuration, Diagnostic> {
    let stdin = path == Path::new("-");
    let name = if stdin { "<stdin>".to_owned() } else { path.display().to_string() };
    let mut base = working_directory.to_owned();
    let mut file = None;
    let bytes = if stdin {
        bounded(io::stdin().lock())
    } else {
        let place = working_directory.join(path);
        // A pipe (`-c <(generate)`) has no directory of its own.
        match place.metadata() {
            Ok(data) if data.is_dir() => return Err(directory(path)),
            Ok(data) if data.is_file() => {
                base = place.parent().unwrap_or(working_directory).to_owned();
                file = Some(place.clone());
            }
            _ => {}
        }
        File::open(&place).and_then(bounded)
    };
    let bytes = bytes.map_err(|cause| unreadable(path, &name, working_directory, &cause))?;
    let text = String::from_utf8(bytes).map_err(|cause| not_text(&name, &cause))?;
    Ok(Configuration { source: SourceFile { name, text }, base, file })
}

fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if source.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
    }
    Ok(bytes)
}

fn error(message: String, help: impl IntoIterator<Item = String>) -> Diagnostic {
    Diagnostic { level: Level::Error, message, span: None, label: None, help: help.into_iter().collect() }
}

fn directory(path: &Path) -> Diagnostic {
    error(
        format!("the configuration `{}` is a directory", path.display()),
        [format!("name the file in it: `--config {}`", path.join("velox.toml").display())],
    )
}

fn unreadable(path: &Path, name: &str, working_directory: &Path, cause: &io::Error) -> Diagnostic {
    if cause.kind() != io::ErrorKind::NotFound {
        return error(format!("can't read the configuration `{name}`: {cause}"), []);
    }
    let place = working_directory.join(path);
    error(
        format!("there is no configuration at `{}`", place.display()),
        [
            "`vx init` writes one; `--config FILE` names another, and `vx build` and `vx run` do without, by `--with MODULE`"
                .to_owned(),
            format!("the smallest server that runs PHP is this velox.toml:\n\n{EXAMPLE}"),
        ],
    )
}

fn not_text(name: &str, cause: &std::string::FromUtf8Error) -> Diagnostic {
    let bytes = cause.as_bytes();
    let at = cause.utf8_error().valid_up_to();
    let line = bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let help = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "it looks like UTF-16, as PowerShell's `>` writes it: save it as UTF-8"
    } else {
        "a velox.toml is UTF-8 text: save it as that"
    };
    error(format!("the configuration `{name}` is not UTF-8 text (byte {at}, line {line})"), [help.to_owned()])
}
