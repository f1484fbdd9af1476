//! Dockerfiles, built by buildah from base images of this machine's own files: no registry is used.
//!
//! A base image has a shell and a few programs; the machine's libraries and certificates are mounted into
//! every step. Images and caches are stored in the test's own directory.

// Each test binary uses only a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// The programs of a base image, as far as this machine has them.
const PROGRAMS: [&str; 16] = [
    "cat", "cp", "date", "env", "git", "install", "ln", "ls", "mkdir", "mv", "rm", "sh", "ssh", "test",
    "uname", "unshare",
];

/// The environment of every base image.
const ENVIRONMENT: &str =
    "ENV HOME=/root PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// An image store, and the mounts of every build step.
pub struct Buildah {
    directory: TempDir,
    volumes: Vec<String>,
}

impl Buildah {
    /// An error explains why this machine can't build images.
    pub fn new() -> Result<Self, String> {
        if let Err(error) = Command::new("buildah").arg("--version").output() {
            return Err(format!("buildah can't be started: {error}"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err("buildah's chroot isolation needs root".to_owned());
        }
        let buildah = Self { directory: tempfile::tempdir().unwrap(), volumes: Vec::new() };
        let shared = ["/usr/lib", "/usr/lib64", "/etc/ssl"].into_iter();
        Ok(shared.filter(|it| Path::new(it).is_dir()).fold(buildah, |it, path| it.volume(path, path, "ro")))
    }

    /// Mounts a directory of this machine into every step; `mode` is `ro` or `rw`.
    pub fn volume(mut self, source: impl AsRef<Path>, target: &str, mode: &str) -> Self {
        self.volumes
            .extend(["--volume".to_owned(), format!("{}:{target}:{mode}", source.as_ref().display())]);
        self
    }

    /// Creates a base image from files of this machine and Dockerfile instructions.
    pub fn base(&self, name: &str, files: &[(PathBuf, String)], instructions: &str) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        for directory in ["etc", "go", "tmp", "root", "usr/bin", "usr/lib", "usr/lib64", "usr/local/bin"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for link in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), at(link)).unwrap();
        }
        fs::write(at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        for program in PROGRAMS {
            let _ = fs::copy(Path::new("/usr/bin").join(program), at("usr/bin").join(program));
        }
        for (source, target) in files {
            fs::create_dir_all(at(target).parent().unwrap()).unwrap();
            fs::copy(source, at(target)).unwrap();
        }
        self.build(
            name,
            &format!("FROM scratch\nCOPY . /\n{ENVIRONMENT}\n{instructions}\n"),
            root.path(),
            &[],
        );
    }

    /// Runs `docker build -t NAME`, with build arguments as `NAME=VALUE`.
    pub fn build(&self, name: &str, dockerfile: &str, context: &Path, arguments: &[&str]) {
        let file = tempfile::NamedTempFile::new_in(&self.directory).unwrap();
        fs::write(&file, dockerfile).unwrap();
        let mut command = self.command("build");
        // Required by `unshare --net`.
        command.args(["--pull-never", "--isolation", "chroot", "--cap-add", "SYS_ADMIN", "--tag", name]);
        command.args(&self.volumes);
        for argument in arguments {
            command.args(["--build-arg", argument]);
        }
        run(command.arg("--file").arg(file.path()).arg(context));
    }

    /// A program that takes the arguments of `docker build` and `docker push`.
    pub fn docker(&self) -> PathBuf {
        let path = self.directory.path().join("docker");
        let line = |command: &Command| -> String {
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            words.map(|word| format!("'{}' ", word.to_str().unwrap())).collect()
        };
        let mut build = self.command("build");
        build.args(["--pull-never", "--isolation", "chroot"]).args(&self.volumes);
        let mut push = self.command("push");
        push.arg("--tls-verify=false");
        let text = format!(
            "#!/bin/sh\nexport TMPDIR={}\ncommand=$1\nshift\ncase $command in\nbuild) {} \"$@\" ;;\npush) {} \"$@\" ;;\nesac\n",
            self.directory.path().join("tmp").display(),
            line(&build),
            line(&push)
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Copies an image to another place, such as `oci:DIRECTORY:TAG`.
    pub fn push(&self, name: &str, to: &str) {
        run(self.command("push").args([name, to]));
    }

    /// Pulls an image from a registry of this machine, with credentials `USER:PASSWORD`.
    pub fn pull(&self, name: &str, credentials: &str) {
        run(self.command("pull").args(["--tls-verify=false", "--creds", credentials, name]));
    }

    /// Runs `docker run NAME COMMAND`; returns its standard output.
    pub fn run(&self, name: &str, command: &str) -> String {
        let container = run(self.command("from").args(["--pull-never", name]));
        let mut running = self.command("run");
        running.args(["--isolation", "chroot"]).args(&self.volumes).args([container.trim(), "--"]);
        let output = run(running.args(["/bin/sh", "-c", command]));
        run(self.command("rm").arg(container.trim()));
        output
    }

    /// Runs `docker run NAME ARGUMENTS` with the image's entry point, for a container whose root directory keeps
    /// what it writes.
    pub fn container(&self, name: &str) -> Container<'_> {
        let id = run(self.command("from").args(["--pull-never", name])).trim().to_owned();
        let format = "{{range .OCIv1.Config.Entrypoint}}{{.}}\n{{end}}";
        let entry_point = run(self.command("inspect").args(["--type", "image", "--format", format, name]));
        Container { buildah: self, id, entry_point: entry_point.lines().map(str::to_owned).collect() }
    }

    /// A value of an image's configuration, as Go prints it: `Cmd` is `[vx]`.
    pub fn setting_of(&self, name: &str, setting: &str) -> String {
        let format = format!("{{{{.OCIv1.Config.{setting}}}}}");
        run(self.command("inspect").args(["--type", "image", "--format", &format, name])).trim().to_owned()
    }

    fn command(&self, subcommand: &str) -> Command {
        let at = |name: &str| -> PathBuf { self.directory.path().join(name) };
        fs::create_dir_all(at("tmp")).unwrap();
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(at("images")).arg("--runroot").arg(at("run"));
        // Cache mounts are kept below TMPDIR.
        command.arg(subcommand).env("TMPDIR", at("tmp")).stdin(Stdio::null());
        command
    }
}

/// A container of an image with an entry point.
pub struct Container<'a> {
    buildah: &'a Buildah,
    id: String,
    entry_point: Vec<String>,
}

impl Container<'_> {
    /// Runs the entry point with arguments, as `docker run IMAGE ARGUMENTS` does.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut running = self.buildah.command("run");
        running.args(["--isolation", "chroot"]).args(&self.buildah.volumes).args([&self.id, "--"]);
        running.args(&self.entry_point).args(arguments).output().unwrap()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.buildah.command("rm").arg(&self.id).output();
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // Go's module cache is read-only, so it can't be removed directly.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.directory.path()).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}
