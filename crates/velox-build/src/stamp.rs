use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use velox_manifest::{BuildArgs, Diagnostic};

use crate::request::StampOptions;

/// The stamp that `rr --version` prints: `version` and `buildTime` of RoadRunner's `internal/meta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The version, without a leading `v`.
    pub version: String,
    /// The build time, as given, or RFC 3339 in UTC.
    pub time: String,
    /// Where the version is from.
    pub version_source: StampSource,
    /// Where the time is from.
    pub time_source: StampSource,
}

/// Where a part of a [`Stamp`] is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampSource {
    /// `--stamp-version`, `--stamp-time`, or the same fields of a request.
    Option,
    /// `-X` definitions in `build_args`.
    BuildArgs,
    /// An environment variable.
    Variable(&'static str),
    /// The resolved RoadRunner: its version, and the time of its commit.
    Release,
}

impl StampSource {
    /// A name for people: `build_args`, or that of the variable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Option => "option",
            Self::BuildArgs => "build_args",
            Self::Variable(name) => name,
            Self::Release => "release",
        }
    }

    /// The name, if the user may not know that it decided.
    #[must_use]
    pub fn surprising(self) -> Option<&'static str> {
        matches!(self, Self::BuildArgs | Self::Variable(_)).then(|| self.name())
    }
}

impl Serialize for StampSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

type Chosen = Option<(String, StampSource)>;

impl Stamp {
    /// Precedence: options, `build_args`, environment, resolved version. Never the clock.
    ///
    /// `reference` is the resolved version of RoadRunner, and `time` its commit time in seconds since 1970.
    pub(crate) fn choose(
        options: &StampOptions,
        arguments: &BuildArgs,
        environment: &BTreeMap<String, String>,
        reference: &str,
        time: i64,
    ) -> Self {
        let (version, given) = Self::given(options, arguments, environment);
        let (version, version_source) =
            version.unwrap_or_else(|| (reference.to_owned(), StampSource::Release));
        let (time, time_source) =
            given.unwrap_or_else(|| (rfc3339(time).unwrap_or_default(), StampSource::Release));
        Self { version: without_v(&version).to_owned(), time, version_source, time_source }
    }

    /// The version and the time as far as they are set explicitly.
    pub(crate) fn given(
        options: &StampOptions,
        arguments: &BuildArgs,
        environment: &BTreeMap<String, String>,
    ) -> (Chosen, Chosen) {
        let variable = |name: &'static str| {
            let value = environment.get(name).map(|value| value.trim().to_owned());
            let value = value.filter(|value| !matches!(value.as_str(), "" | "undefined"));
            Some((value?, StampSource::Variable(name)))
        };
        let from = |value: &Option<String>, source| Some((value.clone()?, source));
        let epoch = || {
            let (epoch, source) = variable("SOURCE_DATE_EPOCH")?;
            Some((rfc3339(epoch.parse().ok()?)?, source))
        };
        let version = from(&options.version, StampSource::Option)
            .or_else(|| from(&arguments.stamp_version, StampSource::BuildArgs))
            .or_else(|| variable("VERSION"))
            .or_else(|| variable("APP_VERSION"));
        let time = from(&options.time, StampSource::Option)
            .or_else(|| from(&arguments.stamp_time, StampSource::BuildArgs))
            .or_else(|| variable("TIME").or_else(|| variable("BUILD_TIME")))
            .or_else(epoch);
        (version, time)
    }

    /// A warning about a version of something else: of an application, or of last year's RoadRunner.
    /// `release` is the version of the compiled RoadRunner.
    pub(crate) fn contradiction(&self, release: &str) -> Option<Diagnostic> {
        let source = self.version_source.surprising()?;
        let (stamped, compiled) = (numbers(&self.version)?, numbers(without_v(release))?);
        if compiled.starts_with(&stamped) || stamped.starts_with(&compiled) {
            return None;
        }
        let help = match self.version_source {
            StampSource::Variable(name) => {
                format!("unset {name}, or set it to `undefined`, to stamp the version of RoadRunner")
            }
            _ => "remove the `-X …/internal/meta.version=…` from build_args, to stamp the version of RoadRunner"
                .to_owned(),
        };
        let version = &self.version;
        let message =
            format!("`rr --version` will print {version}, from {source}, but this is RoadRunner {release}");
        Some(Diagnostic::warning(message).help(help))
    }

    /// The `-X` definitions for the linker.
    pub(crate) fn definitions(&self, roadrunner: &str) -> [(String, String); 2] {
        [
            (format!("{roadrunner}/internal/meta.version"), self.version.clone()),
            (format!("{roadrunner}/internal/meta.buildTime"), self.time.clone()),
        ]
    }
}

fn without_v(version: &str) -> &str {
    match version.strip_prefix(['v', 'V']) {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => version,
    }
}

/// The numbers that a version begins with; `None`: it doesn't look like a version (`nightly`, `1a2b3c`).
fn numbers(version: &str) -> Option<Vec<u64>> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let (numbers, rest) = version.split_at(end);
    if rest.starts_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    numbers.trim_end_matches('.').split('.').map(|number| number.parse().ok()).collect()
}

fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(options: StampOptions, arguments: BuildArgs, environment: &[(&str, &str)]) -> (String, String) {
        let environment = environment.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let stamp = Stamp::choose(&options, &arguments, &environment, "v2025.1.15", 0);
        (stamp.version, stamp.time)
    }

    #[test]
    fn the_resolved_ref_and_its_commit_time_are_the_default() {
        let plain = choose(StampOptions::default(), BuildArgs::default(), &[]);
        assert_eq!(plain, ("2025.1.15".into(), "1970-01-01T00:00:00Z".into()));
    }

    #[test]
    fn the_manuals_docker_arguments_count_unless_undefined() {
        let undefined = [("APP_VERSION", "undefined"), ("BUILD_TIME", "undefined"), ("VERSION", "")];
        assert_eq!(choose(StampOptions::default(), BuildArgs::default(), &undefined).0, "2025.1.15");
        let given = [("APP_VERSION", "1.2.3"), ("BUILD_TIME", "today"), ("SOURCE_DATE_EPOCH", "1")];
        assert_eq!(
            choose(StampOptions::default(), BuildArgs::default(), &given),
            ("1.2.3".into(), "today".into())
        );
    }

    #[test]
    fn flags_win_over_build_args_and_these_over_the_environment() {
        let environment = [("VERSION", "v3"), ("TIME", "t3")];
        let arguments = BuildArgs { stamp_version: Some("v2".into()), ..BuildArgs::default() };
        let options = StampOptions { time: Some("t1".into()), ..StampOptions::default() };
        assert_eq!(choose(options, arguments, &environment), ("2".into(), "t1".into()));
    }

    #[test]
    fn a_version_of_something_else_is_warned_of() {
        let warns = |version: &str, release: &str| {
            let environment = [("APP_VERSION".to_owned(), version.to_owned())].into();
            let (options, arguments) = (StampOptions::default(), BuildArgs::default());
            Stamp::choose(&options, &arguments, &environment, release, 0).contradiction(release).is_some()
        };
        for version in ["1.0.0", "v2024.2.1", "2025.1.1", "3", "2026-11-27"] {
            assert!(warns(version, "v2025.1.15"), "{version}");
        }
        for version in
            ["2025.1.15", "v2025.1.15-acme.1", "2025.1", "nightly", "1a2b3c4", "undefined", "2025.1.15.1"]
        {
            assert!(!warns(version, "v2025.1.15"), "{version}");
        }
        let options = StampOptions { version: Some("1.0.0".into()), ..StampOptions::default() };
        let chosen = Stamp::choose(&options, &BuildArgs::default(), &BTreeMap::new(), "v2025.1.15", 0);
        assert_eq!(chosen.contradiction("v2025.1.15"), None, "a flag was meant");
    }

    #[test]
    fn source_date_epoch_is_written_as_a_date() {
        let stamp = choose(StampOptions::default(), BuildArgs::default(), &[("SOURCE_DATE_EPOCH", "86400")]);
        assert_eq!(stamp.1, "1970-01-02T00:00:00Z");
    }
}
