use crate::{Files, Repo};

/// The Go source of a small server with RoadRunner's layout, made by [`roadrunner()`].
#[derive(Clone, Debug)]
pub struct RoadRunnerTree {
    module: String,
    files: Files,
}

/// A small server with RoadRunner's layout and the module path
/// `github.com/roadrunner-server/roadrunner/MAJOR` (`v2`, `v2023`, `v2024`, `v2025`, `v3`).
///
/// It supports `rr serve -c FILE`, `rr workers -c FILE` and `rr --version`, and contains endure, the config
/// plugin and the real plugins fileserver, informer, logger, metrics, resetter, rpc and status from the
/// public proxy. A build can't omit two of them, which `internal/cli/workers` imports as in RoadRunner.
pub fn roadrunner(major: &str) -> RoadRunnerTree {
    const WRITTEN_AS: &str = "github.com/roadrunner-server/roadrunner/v2025";
    let module = format!("github.com/roadrunner-server/roadrunner/{major}");
    let files = SOURCES
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.replace(WRITTEN_AS, &module).into_bytes()))
        .collect();
    RoadRunnerTree { module, files }
}

/// A server with RoadRunner's layout and module path, whose plugins are [`plugin()`](crate::plugin())s: `plugins` are
/// their module paths with versions. It compiles without any other module.
pub fn roadrunner_with(major: &str, plugins: &[(&str, &str)]) -> RoadRunnerTree {
    let RoadRunnerTree { module, files } = roadrunner(major);
    let requirements: String =
        plugins.iter().map(|(path, version)| format!("\t{path} {version}\n")).collect();
    let imports: String =
        plugins.iter().enumerate().map(|(index, (path, _))| format!("\tp{index} \"{path}\"\n")).collect();
    let registered: String = (0..plugins.len()).map(|index| format!("\t\t&p{index}.Plugin{{}},\n")).collect();
    let container = format!(
        "package container\n\nimport (\n{imports})\n\n// Plugins are the parts of this server.\n\
         func Plugins() []any {{\n\treturn []any{{\n{registered}\t}}\n}}\n"
    );
    let main = format!(
        "package main\n\nimport (\n\t\"fmt\"\n\n\t\"{module}/container\"\n\t\"{module}/internal/meta\"\n)\n\n\
         func main() {{\n\tfmt.Printf(\"rr version %s (build time: %s)\\n\", meta.Version(), meta.BuildTime())\n\
         \t_ = container.Plugins()\n}}\n"
    );
    let go_mod = format!("module {module}\n\ngo 1.22\n\nrequire (\n{requirements})\n");
    let meta = files.get("internal/meta/meta.go").cloned().unwrap_or_default();
    let tree = RoadRunnerTree { module, files: Files::new() };
    tree.file("go.mod", go_mod)
        .file("container/plugins.go", container)
        .file("cmd/rr/main.go", main)
        .file("internal/meta/meta.go", meta)
}

macro_rules! sources {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../roadrunner/", $name)))),*] };
}

const SOURCES: &[(&str, &str)] = sources![
    "cmd/rr/main.go",
    "container/container.go",
    "container/plugins.go",
    "go.mod",
    "go.sum",
    "internal/cli/cli.go",
    "internal/cli/serve/serve.go",
    "internal/cli/serve/signals_unix.go",
    "internal/cli/serve/signals_windows.go",
    "internal/cli/workers/workers.go",
    "internal/meta/meta.go",
];

impl RoadRunnerTree {
    /// The module path.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// All files.
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Adds or replaces a file.
    pub fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(name.to_owned(), content.as_ref().to_vec());
        self
    }

    /// Commits the tree on the repository's current branch.
    pub fn commit_to(&self, repo: &Repo) -> Repo {
        repo.files(self.files()).commit(&format!("{} for tests", self.module))
    }
}
