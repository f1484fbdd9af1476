//! The Go variables that select a target: the environment, then the file that `go env -w` writes
//! (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>).

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;
use velox_fetch::goenv::GoEnv;
use velox_manifest::{Diagnostic, GoTarget, parse_target, targets};

use crate::error::Error;

/// A Go variable that decides about a binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoVariable {
    /// `GOARCH`
    pub name: &'static str,
    /// `arm64`
    pub value: String,
    /// The file that `go env -w` wrote; `None`: the environment.
    pub file: Option<PathBuf>,
}

/// The instruction set of an architecture, if it is not the default, such as `GOARM=5`
/// (<https://pkg.go.dev/cmd/go#hdr-Environment_variables>, "Architecture-specific environment variables").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstructionSet {
    /// `GOARM`
    pub variable: &'static str,
    /// `5`
    pub value: String,
}

/// A variable with the instruction set of some architectures.
struct InstructionSetVariable {
    name: &'static str,
    architectures: &'static [&'static str],
    /// What vx compiles for unless the variable is set, the same on every machine.
    default: &'static str,
    values: &'static [&'static str],
    /// What may follow a value.
    options: &'static [&'static str],
}

const INSTRUCTION_SETS: [InstructionSetVariable; 8] = [
    known("GO386", &["386"], "sse2", &["sse2", "softfloat"], &[]),
    known("GOAMD64", &["amd64"], "v1", &["v1", "v2", "v3", "v4"], &[]),
    known("GOARM", &["arm"], "7", &["5", "6", "7"], &["softfloat", "hardfloat"]),
    known(
        "GOARM64",
        &["arm64"],
        "v8.0",
        &[
            "v8.0", "v8.1", "v8.2", "v8.3", "v8.4", "v8.5", "v8.6", "v8.7", "v8.8", "v8.9", "v9.0", "v9.1",
            "v9.2", "v9.3", "v9.4", "v9.5",
        ],
        &["lse", "crypto"],
    ),
    known("GOMIPS", &["mips", "mipsle"], "hardfloat", &["hardfloat", "softfloat"], &[]),
    known("GOMIPS64", &["mips64", "mips64le"], "hardfloat", &["hardfloat", "softfloat"], &[]),
    known("GOPPC64", &["ppc64", "ppc64le"], "power8", &["power8", "power9", "power10"], &[]),
    known("GORISCV64", &["riscv64"], "rva20u64", &["rva20u64", "rva22u64", "rva23u64"], &[]),
];

const fn known(
    name: &'static str,
    architectures: &'static [&'static str],
    default: &'static str,
    values: &'static [&'static str],
    options: &'static [&'static str],
) -> InstructionSetVariable {
    InstructionSetVariable { name, architectures, default, values, options }
}

/// Flags in GOFLAGS that vx passes on, or that are what it does anyway.
const SUPPORTED_FLAGS: [&str; 8] = [
    "-buildvcs=auto",
    "-buildvcs=false",
    "-mod=mod",
    "-mod=readonly",
    "-modcacherw=false",
    "-trimpath",
    "-trimpath=true",
    "-v",
];

/// Variables that would change the binary, but not in its lock or its key.
const IGNORED_VARIABLES: [&str; 3] = ["GOEXPERIMENT", "GOFIPS140", "GO_EXTLINK_ENABLED"];

impl fmt::Display for GoVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, " in {}", file.display()))
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.variable, self.value)
    }
}

impl InstructionSet {
    /// Parses `GOARM=5`, for this architecture. The error is a message.
    pub(crate) fn parse(text: &str, arch: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("expected `VARIABLE=VALUE`, found `{text}`"))?;
        let known = INSTRUCTION_SETS
            .iter()
            .find(|known| known.name == name && known.architectures.contains(&arch))
            .ok_or_else(|| format!("`{name}` is not a variable of {arch}"))?;
        match known.accepts(value) {
            true => Ok(Self { variable: known.name, value: value.to_owned() }),
            false => Err(format!("invalid {text}: {}", known.expected())),
        }
    }

    /// The one among the build settings of a binary, unless it is the default.
    pub(crate) fn of_settings(settings: &[(String, String)], arch: &str) -> Option<Self> {
        INSTRUCTION_SETS.iter().filter(|known| known.architectures.contains(&arch)).find_map(|known| {
            let (_, value) = settings.iter().find(|(name, _)| name == known.name)?;
            let is_other = known.accepts(value) && !known.is_default(value);
            is_other.then(|| Self { variable: known.name, value: value.clone() })
        })
    }

    /// Whether it is an instruction set of this target's architecture.
    pub(crate) fn applies_to(&self, target: &GoTarget) -> bool {
        INSTRUCTION_SETS
            .iter()
            .any(|known| known.name == self.variable && known.architectures.contains(&target.arch.as_str()))
    }

    /// Every variable with its value: this one, or the default.
    pub(crate) fn variables(selected: Option<&Self>) -> impl Iterator<Item = (&'static str, String)> {
        INSTRUCTION_SETS.iter().map(move |known| {
            let value = selected.filter(|set| set.variable == known.name).map(|set| set.value.clone());
            (known.name, value.unwrap_or_else(|| known.default.to_owned()))
        })
    }
}

impl InstructionSetVariable {
    fn accepts(&self, value: &str) -> bool {
        let mut parts = value.split(',');
        parts.next().is_some_and(|first| self.values.contains(&first))
            && parts.all(|option| self.options.contains(&option))
    }

    fn is_default(&self, value: &str) -> bool {
        value == self.default || (self.name == "GOARM" && value == "7,hardfloat")
    }

    fn expected(&self) -> String {
        let options = match self.options {
            [] => String::new(),
            options => format!(", optionally followed by `,{}`", options.join("` or `,")),
        };
        format!("expected {}{options}", self.values.join(", "))
    }
}

/// The variables that a build reads.
pub(crate) struct GoVariables<'a> {
    environment: &'a BTreeMap<String, String>,
    settings: GoEnv,
}

impl<'a> GoVariables<'a> {
    pub(crate) fn read(environment: &'a BTreeMap<String, String>) -> Self {
        Self { environment, settings: GoEnv::read(environment, None) }
    }

    fn get(&self, name: &'static str) -> Option<GoVariable> {
        let value = self.settings.get(name)?.to_owned();
        let is_variable = self.environment.get(name).is_some_and(|value| !value.is_empty());
        Some(GoVariable { name, value, file: if is_variable { None } else { self.settings.file() } })
    }

    /// The target of GOOS and GOARCH; the host has the other half. `None`: both are unset.
    pub(crate) fn target(&self) -> Result<Option<(GoTarget, Vec<GoVariable>)>, Error> {
        let (os, arch) = (self.get("GOOS"), self.get("GOARCH"));
        let GoTarget { os: host_os, arch: host_arch } = GoTarget::host();
        let value = |variable: &Option<GoVariable>, host: String| {
            variable.as_ref().map_or(host, |variable| variable.value.clone())
        };
        if os.is_none() && arch.is_none() {
            return Ok(None);
        }
        let target = (value(&os, host_os), value(&arch, host_arch));
        match parse_target(&format!("{}/{}", target.0, target.1)) {
            Ok(target) => Ok(Some((target, os.into_iter().chain(arch).collect()))),
            Err(message) => {
                let is_known_os = targets().iter().any(|known| known.os == target.0);
                let (first, second) = if is_known_os { (arch, os) } else { (os, arch) };
                Err(first.or(second).map_or_else(
                    || Error::configuration(message.clone()),
                    |variable| invalid(&variable, &message),
                ))
            }
        }
    }

    /// The instruction sets that are not the default. Each variable is checked, whatever the target.
    pub(crate) fn instruction_sets(&self) -> Result<Vec<(InstructionSet, GoVariable)>, Error> {
        let mut sets = Vec::new();
        for known in &INSTRUCTION_SETS {
            let Some(variable) = self.get(known.name) else { continue };
            if !known.accepts(&variable.value) {
                return Err(invalid(&variable, &known.expected()));
            }
            if !known.is_default(&variable.value) {
                let set = InstructionSet { variable: known.name, value: variable.value.clone() };
                sets.push((set, variable));
            }
        }
        Ok(sets)
    }

    /// GOMODCACHE.
    pub(crate) fn module_cache(&self) -> Option<PathBuf> {
        self.settings.gomodcache()
    }

    /// CGO_ENABLED=1.
    pub(crate) fn cgo(&self) -> Result<Option<GoVariable>, Error> {
        let Some(variable) = self.get("CGO_ENABLED") else { return Ok(None) };
        match variable.value.as_str() {
            "0" => Ok(None),
            "1" => Ok(Some(variable)),
            _ => Err(invalid(&variable, "expected 0 or 1")),
        }
    }

    /// A warning about the settings that have no effect.
    pub(crate) fn ignored(&self) -> Option<Diagnostic> {
        let flags = self.get("GOFLAGS");
        let flags = flags.iter().flat_map(|variable| {
            let ignored = split_flags(&variable.value).into_iter().filter(|flag| !is_supported(flag));
            ignored.map(|flag| GoVariable { value: flag, ..variable.clone() })
        });
        let variables = IGNORED_VARIABLES.iter().filter_map(|name| self.get(name));
        // What vx sets anyway.
        let variables = variables.filter(|variable| !matches!(variable.value.as_str(), "0" | "off" | "none"));
        let ignored: Vec<String> = flags.chain(variables).map(|variable| variable.to_string()).collect();
        if ignored.is_empty() {
            return None;
        }
        let verb = if ignored.len() == 1 { "is" } else { "are" };
        Some(
            Diagnostic::warning(format!("{} {verb} ignored", ignored.join(", "))).help(
                "vx sets the compiler's flags itself, so that a build is reproducible: use `--debug`, `--race`, or `build_args` in `[velox]`",
            ),
        )
    }
}

/// The target of GOOS and GOARCH in this environment; `None`: both are unset.
///
/// # Errors
/// An unknown operating system or architecture.
pub fn target_of_environment(environment: &BTreeMap<String, String>) -> Result<Option<GoTarget>, Error> {
    Ok(GoVariables::read(environment).target()?.map(|(target, _)| target))
}

/// Whether GOFLAGS asks for writable directories in the module cache.
pub(crate) fn has_writable_modules(goflags: &str) -> bool {
    // The last one wins, as for the go command.
    let flags = split_flags(goflags);
    flags.iter().rev().find_map(|flag| writable_modules(flag)).unwrap_or_default()
}

/// The number of compilers that GOFLAGS allows at once, as a flag.
pub(crate) fn parallelism(goflags: &str) -> Option<String> {
    split_flags(goflags).into_iter().rev().find(|flag| is_parallelism(flag))
}

fn writable_modules(flag: &str) -> Option<bool> {
    match flag.trim_start_matches('-').split_once('=').unwrap_or((flag.trim_start_matches('-'), "true")) {
        ("modcacherw", "true" | "1" | "t" | "T" | "TRUE" | "True") => Some(true),
        ("modcacherw", _) => Some(false),
        _ => None,
    }
}

fn is_parallelism(flag: &str) -> bool {
    let number = flag.trim_start_matches('-').strip_prefix("p=");
    number.is_some_and(|number| number.parse::<u16>().is_ok_and(|number| number > 0))
}

fn is_supported(flag: &str) -> bool {
    let flag = flag.strip_prefix('-').filter(|flag| flag.starts_with('-')).unwrap_or(flag);
    SUPPORTED_FLAGS.contains(&flag) || writable_modules(flag).is_some() || is_parallelism(flag)
}

/// The fields of GOFLAGS: a field that starts with a quote ends with it.
fn split_flags(text: &str) -> Vec<String> {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let quoted = (first == '\'' || first == '"').then(|| rest.get(1..)?.split_once(first)).flatten();
        let (flag, after) = match quoted {
            Some(parts) => parts,
            None => rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, "")),
        };
        flags.push(flag.to_owned());
        rest = after.trim_start();
    }
    flags
}

fn invalid(variable: &GoVariable, message: &str) -> Error {
    let error = Error::configuration(format!("invalid {variable}: {message}"));
    match &variable.file {
        Some(_) => error.help(format!("`go env -u {}` removes the setting", variable.name)),
        None if variable.name.starts_with("GOOS") || variable.name == "GOARCH" => {
            error.help(format!("unset {}, or name a target with `--target OS/ARCH`", variable.name))
        }
        None => error.help(format!("set another value, or unset {}", variable.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(variables: &[(&str, &str)], read: impl Fn(&GoVariables<'_>) -> T) -> T {
        let mut environment: BTreeMap<String, String> = [("GOENV".to_owned(), "off".to_owned())].into();
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        read(&GoVariables::read(&environment))
    }

    #[test]
    fn half_a_target_is_completed_by_the_host() {
        let target = |variables: &[(&str, &str)]| {
            with(variables, |read| read.target().unwrap().map(|(target, _)| target.to_string()))
        };
        let GoTarget { os, arch } = GoTarget::host();
        assert_eq!(target(&[]), None);
        assert_eq!(target(&[("GOOS", "")]), None);
        assert_eq!(target(&[("GOARCH", "arm64")]), Some(format!("{os}/arm64")));
        assert_eq!(target(&[("GOOS", "windows")]), Some(format!("windows/{arch}")));
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let message = |variables: &[(&str, &str)]| {
            with(variables, |read| {
                let checked = read.target().map(drop).and_then(|()| read.instruction_sets().map(drop));
                checked.and_then(|()| read.cgo().map(drop)).unwrap_err().to_string()
            })
        };
        for (variables, expected) in [
            (&[("GOOS", "windos")][..], "invalid GOOS=windos: unknown operating system"),
            (&[("GOOS", "linux"), ("GOARCH", "x86_64")], "invalid GOARCH=x86_64"),
            (&[("GOOS", "plan9"), ("GOARCH", "amd64")], "invalid GOOS=plan9"),
            (&[("GOARM", "8")], "invalid GOARM=8: expected 5, 6, 7"),
            (&[("GOAMD64", "3")], "invalid GOAMD64=3"),
            (&[("GOARM64", "v8.0,simd")], "invalid GOARM64"),
            (&[("CGO_ENABLED", "yes")], "invalid CGO_ENABLED=yes: expected 0 or 1"),
        ] {
            assert!(message(variables).contains(expected), "{}", message(variables));
        }
    }

    #[test]
    fn a_default_instruction_set_is_none() {
        let sets = |variables: &[(&str, &str)]| {
            let sets = with(variables, |read| read.instruction_sets().unwrap());
            sets.iter().map(|(set, _)| set.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sets(&[("GOARM", "7"), ("GOAMD64", "v1"), ("GOARM64", "v8.0")]), [""; 0]);
        assert_eq!(sets(&[("GOARM", "6,softfloat"), ("GOAMD64", "v3")]), ["GOAMD64=v3", "GOARM=6,softfloat"]);
        assert!(InstructionSet::parse("GOARM=5", "arm").is_ok());
        for wrong in ["GOARM=5", "GOFLAGS=-x", "GOAMD64=v9", "GOAMD64"] {
            assert!(InstructionSet::parse(wrong, "amd64").is_err(), "{wrong}");
        }
    }

    #[test]
    fn ignored_flags_are_named_and_supported_ones_are_not() {
        let ignored = |flags: &str| {
            let warning = with(&[("GOFLAGS", flags)], |read| read.ignored());
            warning.map(|warning| warning.message)
        };
        assert_eq!(ignored("-modcacherw -mod=mod --trimpath -p=2 -buildvcs=false"), None);
        assert_eq!(
            ignored("'-ldflags=-s -w' -modcacherw=true").unwrap(),
            "GOFLAGS=-ldflags=-s -w is ignored"
        );
        assert_eq!(
            ignored("-tags=a  -mod=vendor").unwrap(),
            "GOFLAGS=-tags=a, GOFLAGS=-mod=vendor are ignored"
        );
        let experiment = with(&[("GOEXPERIMENT", "jsonv2"), ("GOFIPS140", "off")], |read| read.ignored());
        assert_eq!(experiment.unwrap().message, "GOEXPERIMENT=jsonv2 is ignored");
    }

    #[test]
    fn a_writable_module_cache_is_asked_for_as_a_go_flag() {
        for (flags, expected) in [
            ("-modcacherw", true),
            ("--modcacherw=true -v", true),
            ("-modcacherw=false", false),
            ("-modcacherw -modcacherw=0", false),
            ("-v", false),
            ("", false),
        ] {
            assert_eq!(has_writable_modules(flags), expected, "{flags}");
        }
        assert_eq!(parallelism("-v -p=3").as_deref(), Some("-p=3"));
        assert_eq!(parallelism("-p=x"), None);
    }
}
