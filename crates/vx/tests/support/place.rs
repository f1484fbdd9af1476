//! `vx` as a user would type it, in a directory of its own.

// Each story file uses the part that it needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// An empty directory to run `vx` in.
pub struct Place(TempDir);

/// An empty directory.
pub fn place() -> Place {
    Place(tempfile::tempdir().unwrap())
}

impl Place {
    /// Writes a file.
    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// `vx` with these arguments, with nothing of the user's environment but PATH.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vx"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it: exit code, stdout and stderr, as a snapshot shows them.
    pub fn vx(&self, arguments: &[&str]) -> String {
        self.shown(&mut self.command(arguments))
    }

    /// As [`Place::vx`], for a command that was changed.
    pub fn shown(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        let code = output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string());
        let text = format!(
            "exit code: {code}\n--- stdout\n{}--- stderr\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        let real = self.path().canonicalize().unwrap();
        text.replace(&*real.to_string_lossy(), "[DIR]").replace(&*self.path().to_string_lossy(), "[DIR]")
    }
}

/// `vx` in an empty directory.
pub fn vx(arguments: &[&str]) -> String {
    place().vx(arguments)
}
