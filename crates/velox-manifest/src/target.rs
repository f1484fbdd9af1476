use crate::GoTarget;

/// What Go compiles for (`go tool dist list`), as far as a server can run there.
const TARGETS: &[(&str, &[&str])] = &[
    ("darwin", &["amd64", "arm64"]),
    ("freebsd", &["386", "amd64", "arm", "arm64"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64le",
            "riscv64", "s390x",
        ],
    ),
    ("windows", &["386", "amd64", "arm64"]),
];

/// Reads a target as the command line gives it, `os/arch` in Go's spelling (`linux/amd64`).
///
/// # Errors
/// A sentence that names the wrong part, with the nearest known one or what is possible.
pub fn parse_target(text: &str) -> Result<GoTarget, String> {
    let (os, arch) = text
        .split_once('/')
        .ok_or_else(|| format!("`{text}` is no target: write os/arch, such as linux/amd64"))?;
    let Some((_, arches)) = TARGETS.iter().find(|(known, _)| *known == os) else {
        return Err(unknown("operating system", os, TARGETS.iter().map(|(known, _)| *known)));
    };
    if !arches.contains(&arch) {
        return Err(unknown(&format!("architecture for {os}"), arch, arches.iter().copied()));
    }
    Ok(GoTarget { os: os.to_owned(), arch: arch.to_owned() })
}

fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known
        .clone()
        .max_by(|a, b| strsim::jaro_winkler(a, given).total_cmp(&strsim::jaro_winkler(b, given)));
    match nearest.filter(|name| strsim::jaro_winkler(name, given) > 0.7) {
        Some(name) => format!("unknown {what} `{given}`: did you mean `{name}`?"),
        None => format!("unknown {what} `{given}`: known are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

impl GoTarget {
    /// The target of the machine that this program was compiled for, in Go's names.
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
