//! The small server, plugins made by code, and the ways to run them: tried with the go command and git themselves.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use velox_testkit::{Files, Repo, RunningRoadRunner, plugin, roadrunner, worker};

fn go(directory: &Path, arguments: &[&str]) -> Output {
    // Caches of the tests' own, kept between runs: the modules are the public proxy's.
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
    Command::new("go")
        .args(arguments)
        .current_dir(directory)
        .env("GOWORK", "off")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GONOSUMDB", "*")
        .env("CGO_ENABLED", "0")
        .env("GOMODCACHE", shared.join("gomodcache"))
        .output()
        .unwrap()
}

fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn write(directory: &Path, files: &Files) {
    for (name, content) in files {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
}

#[test]
fn the_small_server_compiles_says_its_version_and_serves_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path, &roadrunner("v2025").files());
    let stamp = "-X github.com/roadrunner-server/roadrunner/v2025/internal/meta.version=v2025.1.0 \
                 -X github.com/roadrunner-server/roadrunner/v2025/internal/meta.buildTime=today";
    succeed(go(path, &["build", "-mod=readonly", "-ldflags", stamp, "-o", "rr", "./cmd/rr"]));

    let version = succeed(Command::new(path.join("rr")).arg("--version").output().unwrap());
    assert!(version.starts_with("rr version 2025.1.0 (build time: today, go1."), "{version}");
    assert!(version.trim_end().ends_with(&format!(", OS: {}, arch: {}", go_os(), go_arch())), "{version}");

    let configuration = "version: \"3\"\nrpc: {listen: \"tcp://127.0.0.1:${RR_RPC_PORT}\"}\nlogs: {mode: none}\n\
                         fileserver:\n  address: \"127.0.0.1:${RR_HTTP_PORT}\"\n  serve: [{prefix: \"/\", root: \"container\"}]\n";
    let mut server = RunningRoadRunner::start(&path.join("rr"), path, configuration).unwrap();
    assert!(server.get("/plugins.go").unwrap().starts_with("package container"));
    assert!(server.get("/nothing").unwrap_err().to_string().contains("404"));
    assert!(server.stop().unwrap().success());
}

fn go_os() -> String {
    succeed(go(Path::new("."), &["env", "GOOS"])).trim().to_owned()
}

fn go_arch() -> String {
    succeed(go(Path::new("."), &["env", "GOARCH"])).trim().to_owned()
}

#[test]
fn every_major_has_its_own_module_path() {
    for major in ["v2", "v2023", "v2024", "v3"] {
        let tree = roadrunner(major);
        for (name, content) in tree.files() {
            let text = String::from_utf8(content).unwrap();
            assert!(!text.contains("roadrunner/v2025"), "{major}: {name}");
        }
        let repo = tree.commit_to(&Repo::new());
        let go_mod = String::from_utf8(repo.read("HEAD", "go.mod").unwrap()).unwrap();
        assert!(go_mod.starts_with(&format!("module {}\n", tree.module())), "{go_mod}");
    }
}

#[test]
fn the_whole_tree_is_in_the_list() {
    fn names(folder: &Path, top: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: PathBuf| path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        entries.flat_map(|path| if path.is_dir() { names(&path, top) } else { vec![name(path)] }).collect()
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("roadrunner");
    let mut on_disk = names(&top, &top);
    on_disk.sort();
    assert_eq!(roadrunner("v2025").files().into_keys().collect::<Vec<_>>(), on_disk);
}

#[test]
fn a_plugin_is_in_the_server_and_speaks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let plugins = "package container\n\nimport \"example.com/acme/hello/v2\"\n\n\
                   // Plugins is all.\nfunc Plugins() []any { return []any{&hello.Plugin{}} }\n";
    write(path, &roadrunner("v2025").file("container/plugins.go", plugins).files());
    let hello =
        plugin("example.com/acme/hello/v2", "hello").says("hello from a fork").folder("replace/hello");
    write(path, &hello.files());
    let go_mod = fs::read_to_string(path.join("go.mod")).unwrap();
    let with =
        "\nrequire example.com/acme/hello/v2 v2.0.0\nreplace example.com/acme/hello/v2 => ./replace/hello\n";
    fs::write(path.join("go.mod"), go_mod + with).unwrap();
    succeed(go(path, &["build", "-mod=mod", "-o", "rr", "./cmd/rr"]));

    fs::write(path.join(".rr.yaml"), "version: \"3\"\n").unwrap();
    let mut server = Command::new(path.join("rr"))
        .args(["serve", "-c", ".rr.yaml"])
        .current_dir(path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(line, "hello from a fork\n");
}

#[test]
fn a_plugin_with_a_mistake_does_not_compile() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &plugin("example.com/acme/go-hello", "hello").go("1.24").compile_error().files());
    let output = go(directory.path(), &["build", "./..."]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("plugin.go:") && said.contains("undefined: missing"), "{said}");
}

#[test]
fn the_php_worker_ends_when_the_server_says_so() {
    if !worker::has_php() {
        println!("skipped: the PHP worker: there is no php on the PATH (Debian: php-cli)");
        return;
    }
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("worker.php"), worker::WORKER).unwrap();
    let mut php = Command::new("php")
        .arg("worker.php")
        .current_dir(directory.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Control frames with JSON, then a request with an option (the context's length) and a body.
    let frame = |flags: u8, options: &[u8], payload: &[u8]| {
        let words = 3 + u8::try_from(options.len() / 4).unwrap();
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        [&[0x10 | words, flags], &length[..], &[0; 6], options, payload].concat()
    };
    let pid = frame(0x09, &[], br#"{"pid":1}"#);
    let request = frame(0x80, &[0, 0, 0, 0], b"body");
    let stop = frame(0x09, &[], br#"{"stop":true}"#);
    php.stdin.take().unwrap().write_all(&[pid, request, stop].concat()).unwrap();
    let output = php.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("{\"pid\":") && said.contains("hello from PHP"), "{said}");
    // Version 1 with three words, control; then version 1 with four words, protobuf.
    assert_eq!(output.stdout[..2], [0x13, 0x01]);
    assert!(output.stdout.windows(2).any(|bytes| bytes == [0x14, 0x80]));
}
