//! The Go program below `oracle/`, which answers with golang.org/x/mod.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};

/// The running oracle.
pub(crate) struct Oracle {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    binary: PathBuf,
}

impl Oracle {
    /// Builds and starts it; `None`, with the reason printed, where there is no Go or no golang.org/x/mod to be had.
    ///
    /// An oracle that does not build is a failure.
    pub(crate) fn start(name: &str) -> Option<Self> {
        let binary =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let go = |args: &[&str]| {
            Command::new("go")
                .args(args)
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/oracle"))
                .env("GONOSUMDB", "*")
                .env("GOFLAGS", "")
                .output()
        };
        let missing = match go(&["mod", "download"]) {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(format!("go: {error}")),
        };
        if let Some(reason) = missing {
            eprintln!("skipped, no oracle: {reason}");
            return None;
        }
        let built = go(&["build", "-o", &binary.display().to_string()]).ok()?;
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut child = Command::new(&binary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let pipes = Mutex::new((child.stdin.take()?, BufReader::new(child.stdout.take()?)));
        Some(Self { child, pipes, binary })
    }

    /// Its answer, or its error.
    pub(crate) fn ask(&self, op: &str, args: &[&str]) -> Result<Value, String> {
        let mut pipes = self.pipes.lock().map_err(|_| "a test failed while it asked")?;
        let (stdin, stdout) = &mut *pipes;
        writeln!(stdin, "{}", json!({ "op": op, "args": args })).map_err(|error| error.to_string())?;
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        match answer["error"].as_str() {
            Some(error) => {
                // A question that the oracle does not know is our mistake, never an answer.
                assert!(!error.starts_with("unknown operation"), "{error}");
                Err(error.to_owned())
            }
            None => Ok(answer["value"].take()),
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.binary);
    }
}
