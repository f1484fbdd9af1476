//! `vx build --watch` and `vx run --watch`: builds follow the changes of files.

#![cfg(unix)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use velox_testkit::{ModuleProxy, plugin};

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy, wait_until};

const HELLO: &str = "example.com/acme/hello";

/// A running command with what it printed so far.
struct Running {
    child: Child,
    printed: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn start(sandbox: &Sandbox, line: &str) -> Self {
        let mut command = sandbox.vx_command(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = streams.map(|stream| {
            let printed = Arc::clone(&printed);
            thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    *printed.lock().unwrap() += &(line.unwrap() + "\n");
                }
            })
        });
        Self { child, printed, readers: readers.into() }
    }

    fn text(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Waits until a text was printed this often.
    #[track_caller]
    fn wait_for(&self, text: &str, times: usize) {
        wait_until(&format!("{text} × {times}"), || self.text().matches(text).count() >= times);
    }

    /// Interrupts it, and waits until no process holds its streams. Returns the exit code.
    fn interrupt(mut self) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let code = self.child.wait().unwrap().code();
        for reader in std::mem::take(&mut self.readers) {
            reader.join().unwrap();
        }
        (code, self.text())
    }
}

/// A velox.toml whose plugin is a local directory.
fn machine() -> (Sandbox, ModuleProxy) {
    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    let configuration = format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.hello]\nmodule_name = \"{HELLO}\"\ntag = \"v1.0.0\"\n\
         replace = \"./hello\"\n"
    );
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", configuration);
    let sandbox = sandbox.files("hello", plugin(HELLO, "hello").files());
    (with_plugin(sandbox, "first"), proxy)
}

fn with_plugin(sandbox: Sandbox, says: &str) -> Sandbox {
    let files = plugin(HELLO, "hello").says(says).files();
    sandbox.file("hello/plugin.go", &files["plugin.go"])
}

#[test]
fn a_build_follows_the_code_and_goes_on_after_errors() {
    let (sandbox, _proxy) = machine();
    let watch = Running::start(&sandbox, "build --watch -o bin");
    watch.wait_for("; Ctrl-C stops", 1);
    let contains = |text: &str| {
        let binary = sandbox.bytes("bin/rr");
        binary.windows(text.len()).any(|window| window == text.as_bytes())
    };
    assert!(contains("first\n"));
    let sandbox = with_plugin(sandbox, "second");
    watch.wait_for("changed: hello/plugin.go", 1);
    watch.wait_for("; Ctrl-C stops", 2);
    let contains = |text: &str| {
        let binary = sandbox.bytes("bin/rr");
        binary.windows(text.len()).any(|window| window == text.as_bytes())
    };
    assert!(contains("second\n"));

    // Files that are not compiled change nothing; errors are shown, and the binary stays.
    fs::write(sandbox.at("hello/README.md"), "x").unwrap();
    fs::write(sandbox.at("hello/broken.go"), "package hello\n\nvar _ = missing\n").unwrap();
    watch.wait_for("undefined: missing", 1);
    watch.wait_for("; Ctrl-C stops", 3);
    assert!(contains("second\n"));
    let valid = sandbox.read("velox.toml");
    fs::write(sandbox.at("velox.toml"), "[roadrunner\n").unwrap();
    watch.wait_for("; Ctrl-C stops", 4);
    fs::remove_file(sandbox.at("hello/broken.go")).unwrap();
    fs::write(sandbox.at("velox.toml"), valid + "\n[debug]\nenabled = true\n").unwrap();
    watch.wait_for("; Ctrl-C stops", 5);
    wait_until("a debug binary", || contains(",\"debug\":true,"));

    let (code, text) = watch.interrupt();
    assert_eq!(code, Some(130), "{text}");
    assert_eq!(text.matches("changed: ").count(), text.matches("; Ctrl-C stops").count() - 1, "{text}");
    assert_eq!(sandbox.entries("."), ["bin", "hello", "velox.lock", "velox.toml"]);
    assert_eq!(sandbox.entries("bin"), ["rr"]);
    sandbox.vx("build --watch -c -").fails_with(2, &["--watch needs a configuration file"]);
    sandbox.vx("build --watch --dry-run").fails(2);
}

#[test]
fn a_server_restarts_with_new_code_and_ends_with_vx() {
    let (sandbox, _proxy) = machine();
    let sandbox = sandbox.file(".rr.yaml", "version: \"3\"\n");
    let watch = Running::start(&sandbox, "run --watch serve -c .rr.yaml");
    watch.wait_for("RoadRunner server started", 1);
    watch.wait_for("first\n", 1);
    let sandbox = with_plugin(sandbox, "second");
    watch.wait_for("second\n", 1);
    watch.wait_for("RoadRunner server started", 2);
    // The server of the last build that works goes on.
    fs::write(sandbox.at("hello/broken.go"), "package hello\n\nvar _ = missing\n").unwrap();
    watch.wait_for("the server still runs the previous binary", 1);
    fs::remove_file(sandbox.at("hello/broken.go")).unwrap();
    watch.wait_for("RoadRunner server started", 3);
    fs::write(sandbox.at(".rr.yaml"), "version: 3\n").unwrap();
    watch.wait_for("the server ended (exit status: 1); waiting for a change", 1);
    fs::write(sandbox.at(".rr.yaml"), "version: \"3\"\n").unwrap();
    watch.wait_for("RoadRunner server started", 4);
    let (code, text) = watch.interrupt();
    assert_eq!(code, Some(130), "{text}");
}
