//! `velox-demo VX`: demonstrates the given `vx` on one machine, from a velox.toml to a running RoadRunner.
//!
//! RoadRunner is a small server with its layout, from a module proxy on localhost. Its five plugins are the real ones,
//! from the Go module proxy, as all other modules.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use velox_testkit::{ModuleProxy, RunningRoadRunner};

const RELEASE: &str = "v2025.1.0";
const PLUGINS: [&str; 5] = ["fileserver", "logger", "rpc", "status", "metrics"];
const PLUGIN_RELEASE: &str = "v5.1.9";

const SERVER: &str = r#"version: "3"

rpc:
  listen: "tcp://127.0.0.1:${RR_RPC_PORT}"

logs:
  mode: production
  level: error

fileserver:
  address: "127.0.0.1:${RR_HTTP_PORT}"
  serve:
    - prefix: "/"
      root: "public"
"#;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(vx), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: velox-demo VX (the path of the vx program)");
        return ExitCode::from(2);
    };
    match demo(Path::new(&vx)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("demo: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The error is a message for the user.
type DemoResult<T> = Result<T, String>;

fn demo(vx: &Path) -> DemoResult<()> {
    for (program, argument, remedy) in [
        ("go", "version", "install it from https://go.dev/dl/"),
        ("git", "--version", "install it with your system's package manager"),
    ] {
        stdout_of(Command::new(program).arg(argument)).map_err(|error| format!("{error}; {remedy}"))?;
    }
    let vx = fs::canonicalize(vx)
        .map_err(|error| format!("{}: {error}; build it with: cargo build -p vx", vx.display()))?;
    let place = DemoDirectory::new()?;

    step("start a module proxy on localhost");
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    println!("  {}: a small server with RoadRunner's layout, {RELEASE}", proxy.url());

    step("write velox.toml");
    let manifest = manifest();
    place.write("velox.toml", &manifest)?;
    for line in manifest.lines() {
        println!("  {line}");
    }

    step("vx build -c velox.toml -o bin");
    let status = place
        .vx(&vx, &proxy)?
        .status()
        .map_err(|error| format!("failed to start {}: {error}", vx.display()))?;
    if !status.success() {
        return Err(format!("vx build failed ({status})"));
    }
    let binary = place.directory.join("bin").join(format!("rr{}", env::consts::EXE_SUFFIX));

    step("bin/rr --version");
    let version = stdout_of(Command::new(&binary).arg("--version"))?;
    println!("  {version}");
    let expected = format!("rr version {} ", RELEASE.trim_start_matches('v'));
    if !version.starts_with(&expected) {
        return Err(format!("unexpected output; expected: {expected}"));
    }

    step("bin/rr serve, and fetch a file from its fileserver plugin");
    place.write("public/hello.txt", "Hello from a RoadRunner of your own.\n")?;
    let failed = |error: std::io::Error| format!("rr: {error}");
    let mut server = RunningRoadRunner::start(&binary, &place.directory, SERVER).map_err(failed)?;
    let answer = server.get("/hello.txt").map_err(failed)?;
    println!("  GET {}: {}", server.url("/hello.txt"), answer.trim_end());
    if answer != "Hello from a RoadRunner of your own.\n" {
        return Err("unexpected reply instead of the file".to_owned());
    }
    let status = server.stop().map_err(failed)?;
    if !status.success() {
        return Err(format!("rr exited with {status}"));
    }
    println!("  rr stopped");
    println!("\nThe binary is {}; its configuration is .rr.yaml beside bin.", binary.display());
    Ok(())
}

fn step(what: &str) {
    println!("\n==> {what}");
}

fn manifest() -> String {
    let plugin = |name: &str| {
        format!(
            "\n[plugins.{name}]\nmodule_name = \"github.com/roadrunner-server/{name}/v5\"\ntag = \"{PLUGIN_RELEASE}\"\n"
        )
    };
    format!("[roadrunner]\nref = \"{RELEASE}\"\n{}", PLUGINS.map(plugin).concat())
}

/// `target/demo` below the current directory, with all files of the demo.
struct DemoDirectory {
    directory: PathBuf,
}

impl DemoDirectory {
    fn new() -> DemoResult<Self> {
        let directory = Path::new("target").join("demo");
        let made = fs::create_dir_all(&directory).and_then(|()| fs::canonicalize(&directory));
        let place = Self { directory: made.map_err(|error| format!("{}: {error}", directory.display()))? };
        // Each run starts from scratch.
        for name in ["bin/rr", "velox.lock"] {
            match fs::remove_file(place.directory.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{name}: {error}"));
                }
                _ => {}
            }
        }
        Ok(place)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> DemoResult<()> {
        let file = self.directory.join(name);
        let parent = file.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&file, content))
            .map_err(|error| format!("{}: {error}", file.display()))
    }

    fn vx(&self, vx: &Path, proxy: &ModuleProxy) -> DemoResult<Command> {
        let public = stdout_of(Command::new("go").args(["env", "GOPROXY"]))?;
        let mut command = Command::new(vx);
        let direct = ["NO_PROXY", "no_proxy"].iter().find_map(|name| env::var(name).ok()).unwrap_or_default();
        command
            .args(["build", "-c", "velox.toml", "-o", "bin"])
            .current_dir(&self.directory)
            .env("GOPROXY", format!("{},{public}", proxy.url()))
            // The checksum database doesn't know this RoadRunner, which must not get into the user's module cache.
            .env("GONOSUMDB", "github.com/roadrunner-server/*")
            .env("GOMODCACHE", self.directory.join("modules"))
            .env("GOFLAGS", "-modcacherw")
            .env("VX_CACHE_DIR", self.directory.join("cache"))
            .env("NO_PROXY", format!("127.0.0.1,{direct}"));
        // Without these variables the release is the version stamp.
        for name in ["VERSION", "APP_VERSION"] {
            command.env_remove(name);
        }
        Ok(command)
    }
}

/// The standard output of a program, without trailing whitespace.
fn stdout_of(command: &mut Command) -> DemoResult<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("failed to start {name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let complaints = [output.stderr, output.stdout].concat();
    Err(format!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&complaints).trim()))
}
