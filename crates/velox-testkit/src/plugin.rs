use std::collections::BTreeMap;

/// Files by `/`-separated path below the root of a module or repository.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The source of a small RoadRunner plugin, made by [`plugin()`].
///
/// It compiles into [`roadrunner`](crate::roadrunner()) and into the real RoadRunner, with the methods that
/// [endure](https://github.com/roadrunner-server/endure) calls. By default it requires no other module.
#[derive(Clone, Debug)]
pub struct PluginModule {
    module: String,
    name: String,
    go: String,
    folder: String,
    says: Option<String>,
    requires: Vec<(String, String)>,
    imports: Vec<String>,
    mistake: bool,
}

/// A plugin with the module path `module` and the name `name`.
///
/// ```
/// let files = velox_testkit::plugin("example.com/acme/hello", "hello").files();
/// assert!(files["go.mod"].starts_with(b"module example.com/acme/hello\n"));
/// ```
pub fn plugin(module: &str, name: &str) -> PluginModule {
    PluginModule {
        module: module.to_owned(),
        name: name.to_owned(),
        go: "1.22".to_owned(),
        folder: String::new(),
        says: None,
        requires: Vec::new(),
        imports: Vec::new(),
        mistake: false,
    }
}

impl PluginModule {
    /// Sets the `go` line of its go.mod (default: 1.22).
    pub fn go(mut self, version: &str) -> Self {
        version.clone_into(&mut self.go);
        self
    }

    /// Adds an unused requirement to its go.mod, to raise a version.
    pub fn requires(mut self, module: &str, version: &str) -> Self {
        self.requires.push((module.to_owned(), version.to_owned()));
        self
    }

    /// Adds a requirement and imports its root package.
    pub fn imports(mut self, module: &str, version: &str) -> Self {
        self.imports.push(module.to_owned());
        self.requires(module, version)
    }

    /// Prints a line on standard error when RoadRunner starts the plugin, to identify the copy in a binary.
    pub fn says(mut self, line: &str) -> Self {
        self.says = Some(line.to_owned());
        self
    }

    /// Adds a compile error: `undefined: missing`.
    pub fn compile_error(mut self) -> Self {
        self.mistake = true;
        self
    }

    /// Puts the module into a folder of its repository. The module path stays the one given to [`plugin()`].
    pub fn folder(mut self, folder: &str) -> Self {
        self.folder = format!("{}/", folder.trim_matches('/'));
        self
    }

    /// The files go.mod and plugin.go.
    pub fn files(&self) -> Files {
        let mut go_mod = format!("module {}\n\ngo {}\n", self.module, self.go);
        for (module, version) in &self.requires {
            go_mod.push_str(&format!("\nrequire {module} {version}\n"));
        }
        let mut source =
            format!("// Package {0} is a plugin for tests.\npackage {0}\n\n", package_name(&self.module));
        if self.says.is_some() {
            source.push_str("import \"os\"\n");
        }
        for module in &self.imports {
            source.push_str(&format!("import _ {module:?}\n"));
        }
        source.push_str("\n// Plugin is what the server starts.\ntype Plugin struct{}\n\n");
        source
            .push_str("// Init is called once, before anything is served.\nfunc (*Plugin) Init() error {\n");
        if let Some(line) = &self.says {
            source.push_str(&format!(
                "\t_, err := os.Stderr.WriteString({:?})\n\treturn err\n}}\n",
                format!("{line}\n")
            ));
        } else {
            source.push_str("\treturn nil\n}\n");
        }
        source.push_str(&format!(
            "\n// Name is the plugin's name.\nfunc (*Plugin) Name() string {{ return {:?} }}\n",
            self.name
        ));
        if self.mistake {
            source.push_str("\nvar _ = missing\n");
        }
        [("go.mod", go_mod), ("plugin.go", source)]
            .into_iter()
            .map(|(name, text)| (format!("{}{name}", self.folder), text.into_bytes()))
            .collect()
    }
}

/// The last element of the path other than a major version, as a Go identifier.
fn package_name(module: &str) -> String {
    let is_major = |part: &str| part.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
    let last = module.rsplit('/').find(|part| !is_major(part)).unwrap_or("plugin");
    last.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}
