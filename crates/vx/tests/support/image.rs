//! `docker build` without Docker: runs a Dockerfile's steps in roots made from this machine's own files.
//!
//! A root has the machine's `/usr/lib` and certificates (read-only), a shell, git and a handful of programs, and what the
//! steps write. Each `RUN` has mounts and processes of its own (`unshare`, `chroot`), the image's environment and nothing of
//! the test's. An instruction that isn't known here fails the test, so that none is passed over.

// Each story file uses the part that it needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// The programs that an image has, as far as this machine has them.
const PROGRAMS: &[&str] =
    &["cat", "cp", "date", "env", "git", "ls", "mkdir", "mv", "rm", "sh", "ssh", "test", "uname"];

/// What `docker build` is given: base images, build arguments, the context.
pub struct Builder {
    bases: BTreeMap<String, Image>,
    arguments: BTreeMap<String, String>,
    context: PathBuf,
    caches: TempDir,
}

/// A file system and how programs in it are run.
pub struct Image {
    root: TempDir,
    mounts: Vec<Mount>,
    environment: BTreeMap<String, String>,
    directory: String,
    pub command: Vec<String>,
}

/// A directory of the machine in an image.
#[derive(Clone)]
struct Mount {
    source: PathBuf,
    place: String,
    writable: bool,
}

/// Why Dockerfiles can't be run on this machine; `None`: they can.
pub fn impossible() -> Option<String> {
    if let Err(error) = Command::new("unshare").arg("--version").output() {
        return Some(format!("unshare can't be started: {error}"));
    }
    // A step that does nothing needs all that others need: namespaces, mounts, a root.
    let image = Image::machine();
    let output = Builder::new("/").run(&image, &image.environment, "true");
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("no step can be run: {}", said.trim()))
}

fn unshare(offline: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    if offline {
        command.arg("--net");
    }
    command.stdin(Stdio::null());
    command
}

impl Builder {
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self {
            bases: BTreeMap::new(),
            arguments: BTreeMap::new(),
            context: context.into(),
            caches: tempfile::tempdir().unwrap(),
        }
    }

    /// An image that a `FROM` may name.
    pub fn base(mut self, name: &str, image: Image) -> Self {
        self.bases.insert(name.to_owned(), image);
        self
    }

    /// `--build-arg NAME=VALUE`
    pub fn argument(mut self, name: &str, value: &str) -> Self {
        self.arguments.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The image of the last stage.
    pub fn build(&self, dockerfile: &str) -> Image {
        let mut stages: Vec<(Option<String>, Image)> = Vec::new();
        // What ARG and ENV say: those before the first FROM, and those of the stage.
        let mut global = BTreeMap::new();
        let mut arguments = BTreeMap::new();
        for (instruction, text) in instructions(dockerfile) {
            if instruction == "FROM" {
                let name = text.split_whitespace().find(|word| !word.starts_with("--")).unwrap();
                let name = expanded(name, &global);
                let stage = text.split_once(" as ").or_else(|| text.split_once(" AS ")).map(|(_, name)| name);
                let earlier = stages.iter().find(|(stage, _)| stage.as_deref() == Some(&name));
                let base = earlier.map(|(_, image)| image).or_else(|| self.bases.get(&name));
                let base = base.unwrap_or_else(|| panic!("the base image {name} isn't there"));
                stages.push((stage.map(|name| name.trim().to_owned()), base.copy()));
                arguments.clear();
                continue;
            }
            let known = if stages.is_empty() { global.clone() } else { arguments.clone() };
            if instruction == "ARG" {
                let (name, default) = text.split_once('=').map_or((&*text, None), |(n, d)| (n, Some(d)));
                let default = default.or(global.get(name).map(String::as_str));
                let value = self.arguments.get(name).cloned().or(default.map(|d| unquoted(d, &known)));
                let scope = if stages.is_empty() { &mut global } else { &mut arguments };
                scope.extend(value.map(|value| (name.to_owned(), value)));
                continue;
            }
            let (_, image) = stages.last().unwrap_or_else(|| panic!("{instruction} before FROM"));
            let known: BTreeMap<_, _> = known.into_iter().chain(image.environment.clone()).collect();
            match &*instruction {
                "COPY" => {
                    let words: Vec<String> =
                        text.split_whitespace().map(|word| expanded(word, &known)).collect();
                    let from = words.iter().find_map(|word| word.strip_prefix("--from="));
                    let paths: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
                    let source = match from {
                        None => self.context.clone(),
                        Some(from) => {
                            let stage = stages.iter().find(|(name, _)| name.as_deref() == Some(from));
                            stage.unwrap_or_else(|| panic!("no stage {from}")).1.root.path().to_owned()
                        }
                    };
                    let (target, sources) = paths.split_last().unwrap();
                    image.copy_in(&source, sources, target);
                }
                "RUN" => {
                    let output = self.run(image, &known, &text);
                    assert!(
                        output.status.success(),
                        "RUN {text}\n{}{}",
                        String::from_utf8_lossy(&output.stdout),
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
                _ => {
                    let (_, image) = stages.last_mut().unwrap();
                    image.configure(&instruction, &text, &known);
                }
            }
        }
        stages.pop().unwrap().1
    }

    /// `docker run IMAGE COMMAND`: its standard output.
    pub fn output_of(&self, image: &Image, command: &str) -> String {
        let output = self.run(image, &image.environment, command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, image: &Image, environment: &BTreeMap<String, String>, step: &str) -> Output {
        let mut mounts = image.mounts.clone();
        let (mut offline, mut command) = (false, step.trim_start());
        while let Some(flag) = command.strip_prefix("--") {
            let (flag, rest) = flag.split_once(char::is_whitespace).unwrap();
            command = rest.trim_start();
            match flag.strip_prefix("mount=type=cache,target=") {
                Some(target) => {
                    let source = self.caches.path().join(target.trim_start_matches('/').replace('/', "-"));
                    fs::create_dir_all(&source).unwrap();
                    mounts.push(Mount { source, place: target.to_owned(), writable: true });
                }
                None if flag == "network=none" => offline = true,
                None => panic!("RUN --{flag} isn't known here"),
            }
        }
        if offline {
            // The modules of the test's network may be files.
            mounts.retain(|mount| !mount.place.starts_with("/network"));
        }
        let root = image.root.path();
        let mut script = String::from("set -e\n");
        mounts.push(Mount { source: "/dev".into(), place: "/dev".to_owned(), writable: true });
        for mount in mounts {
            let target = root.join(mount.place.trim_start_matches('/'));
            fs::create_dir_all(&target).unwrap();
            let target = target.display();
            script.push_str(&format!("mount --rbind '{}' '{target}'\n", mount.source.display()));
            if !mount.writable {
                script.push_str(&format!("mount -o remount,bind,ro '{target}'\n"));
            }
        }
        fs::create_dir_all(root.join("proc")).unwrap();
        let (root, directory) = (root.display(), &image.directory);
        script.push_str(&format!("mount -t proc proc '{root}/proc'\n"));
        script.push_str(&format!("exec chroot '{root}' /usr/bin/env -i --chdir='{directory}' \"$@\"\n"));
        let mut unshared = unshare(offline);
        unshared.args(["sh", "-c", &script, "sh"]);
        unshared.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        unshared.args(["/bin/sh", "-c", command]).output().unwrap()
    }
}

impl Image {
    /// The machine as it is new: programs, no home.
    pub fn machine() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["dev", "etc", "go", "proc", "root", "tmp", "usr/bin", "usr/local/bin", "usr/lib"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            std::os::unix::fs::symlink(target, root.path().join(link)).unwrap();
        }
        fs::write(root.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        for name in ["hosts", "resolv.conf", "nsswitch.conf"] {
            // Not every machine has all of them.
            let _ = fs::copy(Path::new("/etc").join(name), root.path().join("etc").join(name));
        }
        for name in PROGRAMS {
            let _ = fs::copy(Path::new("/usr/bin").join(name), root.path().join("usr/bin").join(name));
        }
        let path = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let environment = [("PATH", path), ("HOME", "/root")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let image =
            Self { root, mounts: Vec::new(), environment, directory: "/".to_owned(), command: Vec::new() };
        let shared = ["/usr/lib", "/usr/lib64", "/etc/ssl"].map(PathBuf::from).into_iter();
        shared.filter(|directory| directory.is_dir()).fold(image, |image, directory| {
            let place = directory.to_string_lossy().into_owned();
            image.mount(directory, &place)
        })
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// A directory of this machine in it, read-only.
    pub fn mount(mut self, source: impl Into<PathBuf>, place: &str) -> Self {
        self.mounts.push(Mount { source: source.into(), place: place.to_owned(), writable: false });
        self
    }

    /// A directory of this machine in it, in which the steps write too.
    pub fn shared(mut self, source: impl Into<PathBuf>, place: &str) -> Self {
        self.mounts.push(Mount { source: source.into(), place: place.to_owned(), writable: true });
        self
    }

    /// A file of this machine in it.
    pub fn file(self, source: &Path, place: &str) -> Self {
        fs::copy(source, self.root.path().join(place.trim_start_matches('/'))).unwrap();
        self
    }

    /// A place in it, as seen from outside.
    pub fn path(&self, place: &str) -> PathBuf {
        self.root.path().join(place.trim_start_matches('/'))
    }

    /// The same image again.
    pub fn copy(&self) -> Self {
        let root = tempfile::tempdir().unwrap();
        let source = format!("{}/.", self.root.path().display());
        let status = Command::new("cp").args(["-a", &source]).arg(root.path()).status().unwrap();
        assert!(status.success());
        Self {
            root,
            mounts: self.mounts.clone(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            command: self.command.clone(),
        }
    }

    fn copy_in(&self, source: &Path, names: &[&String], target: &str) {
        let into = self.path(&Path::new(&self.directory).join(target).to_string_lossy());
        let directory = target.ends_with('/') || target == "." || names.len() > 1 || into.is_dir();
        let parent = if directory { &into } else { into.parent().unwrap() };
        fs::create_dir_all(parent).unwrap();
        for name in names {
            let status = Command::new("cp")
                .arg("-a")
                .arg(source.join(name.trim_start_matches('/')))
                .arg(&into)
                .status()
                .unwrap();
            assert!(status.success(), "COPY {name} {target}");
        }
    }

    fn configure(&mut self, instruction: &str, text: &str, known: &BTreeMap<String, String>) {
        match instruction {
            "ENV" => {
                for pair in shlex::split(text).unwrap() {
                    let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("ENV {text}"));
                    self.environment.insert(name.to_owned(), expanded(value, known));
                }
            }
            "WORKDIR" => {
                let directory = Path::new(&self.directory).join(expanded(text, known));
                self.directory = directory.to_string_lossy().into_owned();
                fs::create_dir_all(self.path(&self.directory)).unwrap();
            }
            "CMD" => {
                self.command = serde_json::from_str(text).unwrap_or_else(|_| panic!("CMD {text}: no list"))
            }
            // Says nothing to the steps.
            "LABEL" => {}
            other => panic!("{other} isn't known here"),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Go's module cache is read-only, which a plain removal stumbles over.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.path("go")).status();
    }
}

/// The instructions in order, in capitals, continued lines joined.
pub fn instructions(dockerfile: &str) -> Vec<(String, String)> {
    let mut joined = String::new();
    for line in dockerfile.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(part) => joined.push_str(part),
            None => {
                joined.push_str(line);
                joined.push('\n');
            }
        }
    }
    let split = |line: &str| {
        let (instruction, text) = line.split_once(char::is_whitespace).unwrap_or_else(|| panic!("{line}"));
        (instruction.to_ascii_uppercase(), text.trim().to_owned())
    };
    joined.lines().map(split).collect()
}

fn unquoted(text: &str, known: &BTreeMap<String, String>) -> String {
    expanded(&shlex::split(text).unwrap().concat(), known)
}

/// `$NAME`, `${NAME}` and `${NAME:-default}`, as instructions (not the shell) know them.
fn expanded(text: &str, known: &BTreeMap<String, String>) -> String {
    let Some((before, rest)) = text.split_once('$') else { return text.to_owned() };
    let (name, default, after) = if let Some(braced) = rest.strip_prefix('{') {
        let (inner, after) = braced.split_once('}').unwrap_or_else(|| panic!("{text}"));
        let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
        (name, default, after)
    } else {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        (&rest[..end], "", &rest[end..])
    };
    let value = known.get(name).filter(|value| !value.is_empty()).map_or(default, String::as_str);
    format!("{before}{value}{}", expanded(after, known))
}
