//! Which Go versions may be used: GOTOOLCHAIN (<https://go.dev/doc/toolchain#select>) and `--go`.

use velox_gomod::goversion::GoVersion;

use crate::error::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolchainPolicy {
    /// The version that replaces the go command on the PATH (`go1.26.4`, `go1.26.4+auto`).
    pub(super) base: Option<String>,
    pub(super) others: ToolchainSwitching,
    /// The setting, for messages.
    pub(super) said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToolchainSwitching {
    None,
    /// Toolchains on the PATH, by name.
    Path,
    /// Toolchains on the PATH, and downloads.
    Any,
}

impl ToolchainPolicy {
    /// The policy of GOTOOLCHAIN; `given`: `--go` names a go command.
    pub(super) fn new(gotoolchain: &str, given: bool) -> Result<Self, Error> {
        let said = format!("GOTOOLCHAIN={gotoolchain}");
        if given {
            return Ok(Self { base: None, others: ToolchainSwitching::None, said: "--go".to_owned() });
        }
        let (base, others) = match gotoolchain {
            "auto" => ("local", Some("auto")),
            "path" => ("local", Some("path")),
            // A go command without this setting never switches.
            "" => ("local", None),
            text => text.split_once('+').map_or((text, None), |(base, others)| (base, Some(others))),
        };
        let others = match others {
            None => ToolchainSwitching::None,
            Some("path") => ToolchainSwitching::Path,
            Some("auto") => ToolchainSwitching::Any,
            Some(_) => return Err(invalid(&said)),
        };
        let base = match base {
            "local" => None,
            name if GoVersion::from_toolchain_name(name).is_some() => Some(name.to_owned()),
            _ => return Err(invalid(&said)),
        };
        Ok(Self { base, others, said })
    }
}

fn invalid(said: &str) -> Error {
    Error::configuration(format!("invalid {said}"))
        .help("use `auto`, `local`, `path`, or a version such as go1.26.4 or go1.26.4+auto; `go env -u GOTOOLCHAIN` restores the default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gotoolchain_is_read_as_go_reads_it() {
        let read =
            |text: &str| ToolchainPolicy::new(text, false).map(|allowed| (allowed.base, allowed.others)).ok();
        let go = |name: &str| Some(name.to_owned());
        for (text, expected) in [
            ("auto", (None, ToolchainSwitching::Any)),
            ("local", (None, ToolchainSwitching::None)),
            ("path", (None, ToolchainSwitching::Path)),
            ("local+auto", (None, ToolchainSwitching::Any)),
            ("go1.26.4", (go("go1.26.4"), ToolchainSwitching::None)),
            ("go1.26.4+auto", (go("go1.26.4"), ToolchainSwitching::Any)),
            ("go1.26.4-corp+path", (go("go1.26.4-corp"), ToolchainSwitching::Path)),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for wrong in ["1.26.4", "latest", "go1.26.4+", "go1.26.4+local", "auto+auto", "go1.26/../x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(ToolchainPolicy::new("auto", true).unwrap().others, ToolchainSwitching::None);
    }
}
