//! Builds interrupted by a signal.
#![cfg(unix)]

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::sandbox::Sandbox;

/// A build blocked on a module proxy that never responds.
struct Waiting {
    sandbox: Sandbox,
    child: Child,
    /// Kept open: closing it would end the request.
    _request: TcpStream,
}

fn waiting(arguments: &str) -> Waiting {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = Sandbox::new().plugins("github.com/roadrunner-server/http/v5@v5.2.7");
    let mut command = sandbox.vx_command(arguments);
    let child = command
        .env("GOPROXY", format!("http://{}", proxy.local_addr().unwrap()))
        .env("GOSUMDB", "off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (request, _) = proxy.accept().unwrap();
    Waiting { sandbox, child, _request: request }
}

impl Waiting {
    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the exit; returns exit code, stdout and stderr.
    fn ended(&mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

#[test]
fn ctrl_c_exits_with_130_and_leaves_nothing() {
    let mut build = waiting("build -o out");
    build.send(Signal::INT);
    let (code, out, err) = build.ended();
    assert_eq!((code, out.as_str()), (Some(130), ""), "{err}");
    assert!(err.ends_with("error: interrupted\n"), "{err}");
    assert_eq!(build.sandbox.entries("out"), [""; 0]);
}

#[test]
fn sigterm_exits_with_143() {
    let mut build = waiting("build --format json");
    build.send(Signal::TERM);
    let (code, out, err) = build.ended();
    assert_eq!((code, err.as_str()), (Some(143), ""), "{out}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.contains(r#""event":"failed","kind":"interrupted","exit_code":143"#), "{out}");
}
