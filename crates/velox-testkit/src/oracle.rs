use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, Mutex},
};

use serde_json::{Value, json};

/// A Go program around `golang.org/x/mod`, the reference for velox-gomod and velox-fetch; one per process.
pub struct GoOracle {
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

static ORACLE: LazyLock<Option<GoOracle>> = LazyLock::new(GoOracle::start);

impl GoOracle {
    /// Starts the oracle; `None`, with the reason printed, without Go or `golang.org/x/mod`.
    ///
    /// # Panics
    /// If the oracle doesn't compile.
    #[must_use]
    pub fn get() -> Option<&'static Self> {
        ORACLE.as_ref()
    }

    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let binary = directory.path().join("oracle");
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
        // It exits when its standard input closes, that is, with this process.
        let mut child = Command::new(&binary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let pipes = Mutex::new((child.stdin.take()?, BufReader::new(child.stdout.take()?)));
        Some(Self { pipes })
    }

    /// The result of an operation of `oracle/*.go`.
    ///
    /// # Errors
    /// The error that `golang.org/x/mod` returns.
    ///
    /// # Panics
    /// If the oracle lacks the operation.
    pub fn ask(&self, op: &str, args: &[&str]) -> Result<Value, String> {
        let mut pipes = self.pipes.lock().map_err(|_| "a test failed while it asked")?;
        let (stdin, stdout) = &mut *pipes;
        writeln!(stdin, "{}", json!({ "op": op, "args": args })).map_err(|error| error.to_string())?;
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        match answer["error"].as_str() {
            Some(error) => {
                assert!(!error.starts_with("unknown operation"), "{error}");
                Err(error.to_owned())
            }
            None => Ok(answer["value"].take()),
        }
    }
}
