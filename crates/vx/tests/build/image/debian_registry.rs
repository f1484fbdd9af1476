//! Images in a real registry: Debian's docker-registry, with skopeo and buildah as its other clients.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use serde_json::json;

use super::{built_image, json, machine, push::log_in};
use crate::support::{
    buildah::Buildah,
    sandbox::{CommandOutput, Sandbox, assert_contains, program, skip, wait_until},
};

const USER: &str = "me";
const PASSWORD: &str = "s3cret";
/// bcrypt of the password.
const HTPASSWD: &str = "me:$2b$04$bG0EZY/2DiW7nHYeWhalduw21PuSGY0uglAF8AwJNNmLL4DZW/pEW\n";

/// A running docker-registry with its own storage.
struct DockerRegistry {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
}

#[derive(Clone, Copy, PartialEq)]
enum Protection {
    Nothing,
    Password,
    PasswordAndTls,
}

impl DockerRegistry {
    /// Files are written to `registry` in the sandbox. `None`, with a printed reason, without the program.
    fn start(test: &str, sandbox: &Sandbox, protection: Protection) -> Option<Self> {
        for needed in ["docker-registry", "skopeo"] {
            if program(needed).is_none() {
                skip(test, &format!("there is no {needed}"));
                return None;
            }
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| sandbox.at("registry").join(name);
        fs::create_dir_all(at("storage")).unwrap();
        let mut http = json!({ "addr": format!("127.0.0.1:{port}") });
        let mut config = json!({
            "version": 0.1,
            "log": { "accesslog": { "disabled": false }, "level": "info" },
            "storage": { "filesystem": { "rootdirectory": at("storage") } },
        });
        if protection != Protection::Nothing {
            fs::write(at("htpasswd"), HTPASSWD).unwrap();
            config["auth"] = json!({ "htpasswd": { "realm": "test", "path": at("htpasswd") } });
        }
        if protection == Protection::PasswordAndTls {
            let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
            fs::write(at("ca.crt"), key.cert.pem()).unwrap();
            fs::write(at("key.pem"), key.signing_key.serialize_pem()).unwrap();
            http["tls"] = json!({ "certificate": at("ca.crt"), "key": at("key.pem") });
        }
        config["http"] = http;
        // JSON is YAML.
        fs::write(at("config.yml"), config.to_string()).unwrap();
        let log = at("log");
        let out = File::create(&log).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        wait_until("the registry listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { child, port, log })
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn skopeo_and_umoci_read_a_pushed_image() {
    let (_proxy, sandbox) = machine();
    let Some(registry) = DockerRegistry::start("skopeo", &sandbox, Protection::Nothing) else { return };
    let host = registry.host();
    let line = format!(
        "build --format json --image {host}/acme/rr:1 --push --sbom spdx --target linux/amd64 --target linux/arm64 -o bin"
    );
    let image = built_image(&sandbox.vx(&line));
    let inspect = |options: &str| {
        json(sandbox.run(&format!("skopeo inspect --tls-verify=false {options} docker://{host}/acme/rr:1")))
    };
    assert_eq!(inspect("--override-arch arm64")["Architecture"], "arm64");
    let amd64 = inspect("--override-arch amd64");
    assert_eq!(
        amd64["Labels"]["org.opencontainers.image.source"],
        "https://github.com/roadrunner-server/roadrunner"
    );
    assert_eq!(inspect("--raw")["manifests"].as_array().unwrap().len(), 2);
    // It has no referrers API: the bills of materials are in an index with the digest as tag.
    assert_eq!(image["referrers"].as_array().unwrap().len(), 2);
    for manifest in inspect("--raw")["manifests"].as_array().unwrap() {
        let tag = manifest["digest"].as_str().unwrap().replace(':', "-");
        let index = json(
            sandbox.run(&format!("skopeo inspect --tls-verify=false --raw docker://{host}/acme/rr:{tag}")),
        );
        assert_eq!(index["manifests"][0]["artifactType"], "application/spdx+json");
    }
    if program("umoci").is_none() || !rustix::process::geteuid().is_root() {
        return skip("umoci", "there is no umoci, or no permission to change the root directory");
    }
    sandbox.run(&format!(
        "skopeo copy --src-tls-verify=false --override-arch amd64 docker://{host}/acme/rr:1 oci:copy:1"
    ));
    sandbox.run("umoci unpack --image copy:1 bundle");
    let version = sandbox.run("unshare --mount --pid --fork --root=bundle/rootfs /usr/bin/rr --version");
    assert_contains(&version, &["rr version "]);
}

#[test]
fn a_password_and_a_certificate_are_used() {
    let (_proxy, sandbox) = machine();
    for protection in [Protection::Password, Protection::PasswordAndTls] {
        sandbox.run("rm -rf registry docker");
        let Some(registry) = DockerRegistry::start("authentication", &sandbox, protection) else { return };
        let host = registry.host();
        let line = format!("build --image {host}/acme/rr:1 --push");
        let mut certificates = Vec::new();
        if protection == Protection::PasswordAndTls {
            let file = sandbox.at("registry/ca.crt").display().to_string();
            let untrusted = sandbox.vx(&line);
            untrusted.fails_with(1, &[&format!("request to registry {host} failed: "), "certificate"]);
            certificates = vec![("SSL_CERT_FILE".to_owned(), file)];
        }
        let vx = |line: &str, config: &str| {
            let mut command = sandbox.vx_command(line);
            command.envs(certificates.clone()).env("DOCKER_CONFIG", sandbox.at(config));
            CommandOutput::from(command)
        };
        vx(&line, "nowhere").fails_with(1, &[&format!("no credentials for {host}")]);
        write_login(&sandbox, "wrong", &host, "guessed");
        vx(&line, "wrong").fails_with(1, &[&format!("the credentials for {host} don't allow")]);
        write_login(&sandbox, "docker", &host, PASSWORD);
        vx(&line, "docker").ok();
        let trust = match protection {
            Protection::PasswordAndTls => format!("--cert-dir {}", sandbox.at("registry").display()),
            _ => "--tls-verify=false".to_owned(),
        };
        // Of a login for a part of the registry, as Podman stores it.
        sandbox
            .run(&format!("skopeo login {trust} --authfile auth.json -u {USER} -p {PASSWORD} {host}/acme"));
        let mut command = sandbox.vx_command(&line);
        command.envs(certificates.clone()).env("DOCKER_CONFIG", sandbox.at("wrong"));
        CommandOutput::from(command.env("REGISTRY_AUTH_FILE", sandbox.at("auth.json"))).ok();
        assert!(!registry.log().contains(PASSWORD));
        let inspected = sandbox
            .run(&format!("skopeo inspect {trust} --creds {USER}:{PASSWORD} docker://{host}/acme/rr:1"));
        assert_eq!(json(inspected)["Os"], "linux");
    }
}

fn write_login(sandbox: &Sandbox, directory: &str, host: &str, password: &str) {
    let config = json!({ "auths": { host: { "username": USER, "password": password } } });
    fs::create_dir_all(sandbox.at(directory)).unwrap();
    fs::write(sandbox.at(directory).join("config.json"), config.to_string()).unwrap();
}

#[test]
fn buildah_uses_the_image_on_a_base_of_the_same_registry() {
    let (_proxy, sandbox) = machine();
    let buildah = match Buildah::new() {
        Ok(buildah) => buildah,
        Err(reason) => return skip("buildah with the image", &reason),
    };
    let Some(registry) = DockerRegistry::start("buildah", &sandbox, Protection::Password) else { return };
    let host = registry.host();
    let sandbox = log_in(sandbox, &host, PASSWORD);
    // A base with a shell, pushed by skopeo.
    buildah.base("localhost/php:8.4-cli", &[], "ENV PHP_VERSION=8.4\nWORKDIR /app\nCMD [\"sh\"]");
    buildah.push("localhost/php:8.4-cli", &format!("oci:{}:8.4", sandbox.at("php").display()));
    let login = format!("--dest-tls-verify=false --dest-creds {USER}:{PASSWORD}");
    sandbox.run(&format!("skopeo copy {login} oci:php:8.4 docker://{host}/library/php:8.4-cli"));

    let line = format!(
        "build --image {host}/acme/rr:1 --base {host}/library/php:8.4-cli --push --image-compression zstd"
    );
    sandbox.vx(&line).ok();
    let log = registry.log();
    let mounted = log
        .lines()
        .find(|line| line.contains("\"POST ") && line.contains("mount=sha256") && line.contains(" 201 "));
    assert_contains(mounted.unwrap_or_default(), &["from=library%2Fphp"]);

    buildah.pull(&format!("{host}/acme/rr:1"), &format!("{USER}:{PASSWORD}"));
    let name = format!("{host}/acme/rr:1");
    assert_eq!(buildah.setting_of(&name, "Entrypoint"), "[/usr/bin/rr]");
    assert_eq!(buildah.setting_of(&name, "WorkingDir"), "/app");
    assert_contains(&buildah.setting_of(&name, "Env"), &["PHP_VERSION=8.4"]);
    let run = |dockerfile: &str| {
        buildah.build("localhost/derived", dockerfile, &sandbox.path(), &[]);
        buildah.run("localhost/derived", "/usr/bin/rr --version")
    };
    assert_contains(&run(&format!("FROM {name}\nRUN /usr/bin/rr --version\n")), &["rr version "]);
    let copied = format!("FROM localhost/php:8.4-cli\nCOPY --from={name} /usr/bin/rr /usr/bin/rr\n");
    assert_contains(&run(&copied), &["rr version "]);
}
