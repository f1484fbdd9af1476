use std::collections::BTreeMap;

use velox_manifest::BuildArgs;

use crate::request::StampOptions;

/// The stamp that `rr --version` prints: `version` and `buildTime` of RoadRunner's `internal/meta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The version, without a leading `v`.
    pub version: String,
    /// The build time, as given, or RFC 3339 in UTC.
    pub time: String,
}

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
        let version = version.unwrap_or_else(|| reference.to_owned());
        let time = given.or_else(|| rfc3339(time)).unwrap_or_default();
        Self { version: without_v(&version).to_owned(), time }
    }

    /// The version and the time as far as they are set explicitly.
    pub(crate) fn given(
        options: &StampOptions,
        arguments: &BuildArgs,
        environment: &BTreeMap<String, String>,
    ) -> (Option<String>, Option<String>) {
        let variable = |name: &str| {
            let value = environment.get(name).map(|value| value.trim().to_owned());
            value.filter(|value| !matches!(value.as_str(), "" | "undefined"))
        };
        let version = options
            .version
            .clone()
            .or_else(|| arguments.stamp_version.clone())
            .or_else(|| variable("VERSION"))
            .or_else(|| variable("APP_VERSION"));
        let time = options
            .time
            .clone()
            .or_else(|| arguments.stamp_time.clone())
            .or_else(|| variable("TIME").or_else(|| variable("BUILD_TIME")))
            .or_else(|| variable("SOURCE_DATE_EPOCH").and_then(|epoch| epoch.parse().ok()).and_then(rfc3339));
        (version, time)
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
    fn source_date_epoch_is_written_as_a_date() {
        let stamp = choose(StampOptions::default(), BuildArgs::default(), &[("SOURCE_DATE_EPOCH", "86400")]);
        assert_eq!(stamp.1, "1970-01-02T00:00:00Z");
    }
}
