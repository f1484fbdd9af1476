//! A release made by scripts/pack, and a server for it.

// Each test binary uses only a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fmt::Display,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// The vx under test without debug information, which would make every copy and archive three times as large.
pub fn stripped() -> &'static Path {
    static STRIPPED: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vx");
        let mut strip = Command::new("strip");
        assert!(strip.arg("-o").arg(&path).arg(env!("CARGO_BIN_EXE_vx")).status().unwrap().success());
        path
    });
    &STRIPPED
}

/// A release of the vx under test.
pub fn release() -> &'static Path {
    static RELEASE: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release");
        let _ = fs::remove_dir_all(&directory);
        pack(&directory, &[target()], stripped());
        directory
    });
    &RELEASE
}

/// The target of this machine, as releases name it.
pub fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Runs `scripts/pack` with one program for all targets.
pub fn pack(out: &Path, targets: &[impl Display], program: &Path) {
    let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/pack"))
        .arg(out)
        .args(targets.iter().map(|target| format!("{target}={}", program.display())))
        .status()
        .unwrap();
    assert!(status.success());
}

/// Serves releases until the process exits: `/latest/download/FILE`, `/download/v9.9.9/FILE`.
pub fn serve(files: PathBuf) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            // Reads the whole request: closing early would reset the connection.
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap();
            let known = path.strip_prefix("/latest/download/").or(path.strip_prefix("/download/v9.9.9/"));
            let (status, body) = match known.map(|name| fs::read(files.join(name))) {
                Some(Ok(body)) => ("200 OK", body),
                _ => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // The client may disconnect after the status.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    format!("http://{address}")
}
