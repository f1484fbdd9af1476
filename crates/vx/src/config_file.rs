use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use velox_manifest::{Diagnostic, SourceFile, catalogue};

pub(crate) const DEFAULT_FILE_NAME: &str = "velox.toml";

const MAX_FILE_BYTES: u64 = 16 << 20;

/// How long a named pipe may have no writer.
const PIPE_OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the writer of a pipe may take.
const PIPE_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Files that are found beside a missing velox.toml.
const OTHER_FILE_NAMES: [&str; 3] = ["velox.yaml", "velox.yml", "velox.json"];

/// The configuration file without `--config`: velox.toml in the working directory, or in the nearest parent directory
/// that has one.
pub(crate) fn default_file(working_directory: &Path) -> PathBuf {
    let here = PathBuf::from(DEFAULT_FILE_NAME);
    if working_directory.join(&here).symlink_metadata().is_ok() {
        return here;
    }
    let mut parents = working_directory.ancestors().skip(1).map(|parent| parent.join(DEFAULT_FILE_NAME));
    parents.find(|file| file.is_file()).unwrap_or(here)
}

#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) source: SourceFile,
    /// The base directory of relative paths.
    pub(crate) base: PathBuf,
    /// The path of the file; `None` for stdin and pipes.
    pub(crate) path: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads `path`, relative to the working directory; `-` is stdin.
    pub(crate) fn read(path: &Path, working_directory: &Path) -> Result<Self, Diagnostic> {
        let stdin = path == Path::new("-");
        let name = if stdin { "<stdin>".to_owned() } else { path.display().to_string() };
        let mut base = working_directory.to_owned();
        let mut file = None;
        let bytes = if stdin {
            read_limited(io::stdin().lock())
        } else {
            let absolute = working_directory.join(path);
            match absolute.metadata() {
                Ok(data) if data.is_dir() => {
                    let help = format!("use `--config {}`", path.join(DEFAULT_FILE_NAME).display());
                    return Err(Diagnostic::error(format!("`{name}` is a directory")).help(help));
                }
                Ok(data) if data.is_file() => {
                    base = absolute.parent().unwrap_or(working_directory).to_owned();
                    file = Some(absolute.clone());
                }
                _ => {}
            }
            match file {
                Some(_) => File::open(&absolute).and_then(read_limited),
                // A pipe (`-c <(generate)`) has no directory.
                None => read_pipe(absolute),
            }
        };
        let bytes = bytes.map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => not_found(&working_directory.join(path)),
            _ => Diagnostic::error(format!("failed to read `{name}`: {cause}")),
        })?;
        let text = String::from_utf8(bytes).map_err(|cause| invalid_utf8(&name, &cause))?;
        Ok(Self { source: SourceFile { name, text }, base, path: file })
    }
}

fn read_limited(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Reads what is no regular file: a pipe whose other end nobody opens would wait forever.
fn read_pipe(path: PathBuf) -> io::Result<Vec<u8>> {
    let (opened, is_open) = mpsc::channel();
    let (read, result) = mpsc::channel();
    // It ends with the process, at the latest.
    thread::spawn(move || {
        let file = File::open(path);
        let _ = opened.send(());
        let _ = read.send(file.and_then(read_limited));
    });
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
    is_open.recv_timeout(PIPE_OPEN_TIMEOUT).map_err(|_| late("no program writes to this pipe"))?;
    result
        .recv_timeout(PIPE_READ_TIMEOUT)
        .map_err(|_| late("the program that writes to this pipe doesn't end"))?
}

fn not_found(path: &Path) -> Diagnostic {
    let other = OTHER_FILE_NAMES.iter().find(|name| path.with_file_name(name).is_file());
    if let Some(other) = other {
        let message = format!("configuration file `{}` not found", path.display());
        return Diagnostic::error(message).help(format!("use `--config {other}`"));
    }
    let is_default = path.file_name().is_some_and(|name| name == DEFAULT_FILE_NAME);
    let is_nowhere = || path.ancestors().skip(2).all(|parent| !parent.join(DEFAULT_FILE_NAME).is_file());
    let parents = if is_default && is_nowhere() { ", nor in a parent directory" } else { "" };
    Diagnostic::error(format!("configuration file `{}` not found{parents}", path.display()))
        .help("create one with `vx init`, select another with `--config FILE`, or build without one with `vx build --with MODULE`")
        .help(format!("a minimal velox.toml for PHP applications:\n\n{}", catalogue::starter()))
}

fn invalid_utf8(name: &str, cause: &std::string::FromUtf8Error) -> Diagnostic {
    let bytes = cause.as_bytes();
    let at = cause.utf8_error().valid_up_to();
    let line = bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    let help = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "it looks like UTF-16, the default of PowerShell's `>`; save it as UTF-8"
    } else {
        "save it as UTF-8"
    };
    Diagnostic::error(format!("`{name}` is not valid UTF-8 (line {line}, byte {at})")).help(help)
}
