//! The release's static vx in a root directory without a C library, as in an Alpine image. `VX_TEST_STATIC` is its path
//! (`scripts/release --no-pack x86_64-unknown-linux-musl` makes it); without it these tests are skipped.

#![cfg(target_os = "linux")]

use std::{fs, net::UdpSocket, path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;
use velox_testkit::ModuleProxy;

use crate::support::sandbox::{CommandOutput, acme_proxy, configuration};

/// A root directory with vx, a velox.toml and nothing else.
struct Root {
    directory: TempDir,
}

impl Root {
    fn new(test: &str) -> Option<Self> {
        let Some(vx) = std::env::var_os("VX_TEST_STATIC").map(PathBuf::from) else {
            println!("skipped: {test} needs VX_TEST_STATIC, the path of a static vx");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            println!("skipped: {test} needs root, for chroot");
            return None;
        }
        let root = Self { directory: tempfile::tempdir().unwrap() };
        root.file("usr/bin/vx", "").file("velox.toml", &configuration("hello@v1.0.0")).file("tmp/keep", "");
        fs::copy(&vx, root.directory.path().join("usr/bin/vx")).unwrap();
        Some(root)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn vx(&self, arguments: &[&str], proxy: &str) -> CommandOutput {
        let mut command = Command::new("chroot");
        command.arg(self.directory.path()).arg("/usr/bin/vx").args(arguments);
        command
            .env("HOME", "/tmp")
            .env("GOPROXY", proxy)
            .env("GOSUMDB", "off")
            .env("PATH", "/usr/bin:/usr/sbin:/sbin");
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "VX_CACHE_DIR", "GOMODCACHE"] {
            command.env_remove(variable);
        }
        command.into()
    }

    /// What `vx doctor` says of this module proxy: its state, and the text.
    fn doctor(&self, proxy: &str) -> (String, String) {
        let events = self.vx(&["doctor", "--format", "json"], proxy).events();
        let said = |event: &&Value| event["check"] == "proxy";
        let found = events.iter().find(said).unwrap_or_else(|| panic!("{events:?}"));
        (found["state"].as_str().unwrap().to_owned(), found.to_string())
    }
}

#[test]
fn static_vx_starts_without_a_c_library() {
    let Some(root) = Root::new("a static vx") else { return };
    let version = concat!("vx ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(root.vx(&["--version"], "off").ok(), version);
    assert_eq!(root.vx(&["build", "-c", "missing.toml"], "off").code(), Some(2));
}

#[test]
fn static_vx_finds_certificates_where_alpine_has_them() {
    // `ca-certificates-bundle`, a part of the base image, and `ca-certificates`.
    for place in ["etc/ssl/cert.pem", "etc/ssl/certs/ca-certificates.crt"] {
        let Some(root) = Root::new("certificates of a static vx") else { return };
        let proxy = ModuleProxy::start_tls();
        let (state, said) = root.doctor(&proxy.url());
        assert_eq!(state, "error", "without certificates: {said}");
        root.file(place, proxy.ca());
        let (state, said) = root.doctor(&proxy.url());
        assert_eq!(state, "ok", "{place}: {said}");
    }
}

#[test]
fn static_vx_resolves_names() {
    let Some(root) = Root::new("names of a static vx") else { return };
    let proxy = acme_proxy();
    let port = proxy.url().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    // From /etc/hosts.
    root.file("etc/hosts", "127.0.0.1 localhost\n127.0.0.1 in-hosts.example.test\n");
    assert_eq!(root.doctor(&format!("http://in-hosts.example.test:{port}")).0, "ok");
    // From a name server, on an address of its own.
    let server = UdpSocket::bind("127.9.9.9:53").unwrap();
    root.file("etc/resolv.conf", "nameserver 127.9.9.9\noptions timeout:1 attempts:1\n");
    std::thread::spawn(move || answer(&server));
    assert_eq!(root.doctor(&format!("http://in-dns.example.test:{port}")).0, "ok");
    let (state, said) = root.doctor(&format!("http://nowhere.example.test:{port}"));
    assert!(state == "error" && said.contains("nowhere.example.test"), "{said}");
}

/// A name server: `in-dns.example.test` is 127.0.0.1 and has no IPv6 address; other names don't exist
/// (<https://www.rfc-editor.org/rfc/rfc1035#section-4>).
fn answer(server: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, client)) = server.recv_from(&mut query) {
        let query = &query[..length];
        let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
        let is_known = query[12..name_end].starts_with(b"\x06in-dns\x07example\x04test\0");
        let is_ipv4 = query[name_end..name_end + 2] == [0, 1];
        let answers = u8::from(is_known && is_ipv4);
        // A response, recursion available, and NXDOMAIN for other names.
        let code = if is_known { 0x80 } else { 0x83 };
        let mut reply =
            [&query[..2], &[0x81, code, 0, 1, 0, answers, 0, 0, 0, 0], &query[12..name_end + 4]].concat();
        if answers == 1 {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        server.send_to(&reply, client).unwrap();
    }
}
