use crate::{GoTarget, reader::nearest};

/// The supported operating systems and architectures, a subset of `go tool dist list`.
pub(crate) const TARGETS: &[(&str, &[&str])] = &[
    ("darwin", &["amd64", "arm64"]),
    ("freebsd", &["386", "amd64", "arm", "arm64"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le",
            "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["amd64", "arm64"]),
    ("openbsd", &["amd64", "arm64"]),
    ("windows", &["386", "amd64", "arm64"]),
];

/// Common names of operating systems and architectures, and Go's names.
const ALIASES: &[(&str, &str)] = &[
    ("macos", "darwin"),
    ("osx", "darwin"),
    ("win32", "windows"),
    ("win64", "windows"),
    ("x86_64", "amd64"),
    ("x64", "amd64"),
    ("aarch64", "arm64"),
    ("x86", "386"),
    ("i386", "386"),
    ("i686", "386"),
];

/// Parses a target, `GOOS/GOARCH` (`linux/amd64`).
///
/// # Errors
/// A message with the unknown part, and the most similar value or all supported ones.
pub fn parse_target(text: &str) -> Result<GoTarget, String> {
    let (os, arch) = text
        .split_once('/')
        .ok_or_else(|| format!("invalid target `{text}`: expected os/arch, such as linux/amd64"))?;
    target(os, arch).map_err(|(_, message)| message)
}

/// The targets of RoadRunner's releases, `--target all`.
#[must_use]
pub fn release_targets() -> Vec<GoTarget> {
    [
        ("darwin", "amd64"),
        ("darwin", "arm64"),
        ("freebsd", "amd64"),
        ("linux", "amd64"),
        ("linux", "arm64"),
        ("windows", "amd64"),
    ]
    .into_iter()
    .map(|(os, arch)| GoTarget { os: os.to_owned(), arch: arch.to_owned() })
    .collect()
}

/// All supported targets, sorted by operating system and architecture.
#[must_use]
pub fn targets() -> Vec<GoTarget> {
    let of_os = |(os, arches): &(&str, &[&str])| {
        let target = |arch: &&str| GoTarget { os: (*os).to_owned(), arch: (*arch).to_owned() };
        arches.iter().map(target).collect::<Vec<_>>()
    };
    TARGETS.iter().flat_map(of_os).collect()
}

/// The error is the Go variable of the invalid part, and a message.
pub(crate) fn target(os: &str, arch: &str) -> Result<GoTarget, (&'static str, String)> {
    let Some((_, arches)) = TARGETS.iter().find(|(known, _)| *known == os) else {
        let known = TARGETS.iter().map(|(known, _)| *known);
        return Err(("GOOS", unknown("operating system", os, known)));
    };
    if !arches.contains(&arch) {
        let what = format!("architecture for {os}");
        return Err(("GOARCH", unknown(&what, arch, arches.iter().copied())));
    }
    Ok(GoTarget { os: os.to_owned(), arch: arch.to_owned() })
}

fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let alias = ALIASES.iter().find(|(name, _)| name.eq_ignore_ascii_case(given));
    let alias = alias.and_then(|(_, name)| known.clone().find(|known| known == name));
    match alias.or_else(|| nearest(given, known.clone())) {
        Some(name) => format!("unknown {what} `{given}`; did you mean `{name}`?"),
        None => format!("unknown {what} `{given}`; supported: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

impl GoTarget {
    /// The target that this program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        let little = cfg!(target_endian = "little");
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "mips" if little => "mipsle",
            "mips64" if little => "mips64le",
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self { os: os.to_owned(), arch: arch.to_owned() }
    }
}

impl std::fmt::Display for GoTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)
    }
}
