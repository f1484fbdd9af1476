//! The operator's restrictions on requests.

use url::Host;
use velox_api::{BuildSpec, Violation};
use velox_gomod::module::{check_path, match_prefix_patterns};

use crate::{
    error::{ApiError, ApiErrorKind},
    options::BuildPolicy,
};

/// Domains without public hosts (<https://www.iana.org/assignments/special-use-domain-names>,
/// and customary ones).
const PRIVATE_DOMAINS: [&str; 16] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "in-addr.arpa",
    "ip6.arpa",
    "onion",
    "alt",
    "test",
    "invalid",
];

impl BuildPolicy {
    /// Checks the request of a caller restricted to these modules; `None`: no further restriction.
    pub(crate) fn check(&self, spec: &BuildSpec, modules: Option<&[String]>) -> Result<(), ApiError> {
        let (mut invalid, mut forbidden) = (Vec::new(), Vec::new());
        // Replaced and excluded modules aren't fetched, but their paths must be valid.
        let mut check = |field: String, path: &str, is_fetched: bool| {
            if let Err(why) = self.check_module(path) {
                invalid.push(Violation::new(field, why));
            } else if is_fetched && !self.allows(path, modules) {
                forbidden.push(Violation::new(field, format!("module {path} is not allowed here")));
            }
        };
        for (at, plugin) in spec.plugins.iter().enumerate() {
            check(format!("plugins[{at}].module"), &plugin.module, true);
        }
        for (at, replace) in spec.replaces.iter().enumerate() {
            check(format!("replaces[{at}].new"), path_of(&replace.new), true);
            check(format!("replaces[{at}].old"), path_of(&replace.old), false);
        }
        for (at, require) in spec.requires.iter().enumerate() {
            check(format!("requires[{at}].module"), &require.module, true);
        }
        for (at, exclude) in spec.excludes.iter().enumerate() {
            check(format!("excludes[{at}].module"), &exclude.module, false);
        }
        if !invalid.is_empty() {
            return Err(ApiError::invalid(invalid));
        }
        if !forbidden.is_empty() {
            return Err(ApiError::of_fields(ApiErrorKind::Forbidden, forbidden));
        }
        if spec.race && !self.cgo {
            let message =
                "the race detector needs a C compiler; this service doesn't allow one (--allow-cgo)";
            let violations = vec![Violation::new("race", message)];
            return Err(ApiError::of_fields(ApiErrorKind::FailedPrecondition, violations));
        }
        Ok(())
    }

    /// Checks that the path is valid and its host public or listed.
    fn check_module(&self, path: &str) -> Result<(), String> {
        if path.starts_with(['.', '/', '\\', '~']) || path.contains(['\\', ':']) {
            return Err("expected a module path, found a directory or a URL".to_owned());
        }
        check_path(path).map_err(|error| error.to_string())?;
        let host = path.split('/').next().unwrap_or_default();
        // Also rejects alternative forms of IP addresses: 127.1, 0x7f.0.0.1.
        let is_name = matches!(Host::parse(host), Ok(Host::Domain(_)))
            && host.split('.').all(|label| !label.is_empty());
        if !is_name {
            return Err(format!("invalid host name `{host}`"));
        }
        let ends =
            |end: &str| host.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if PRIVATE_DOMAINS.iter().any(|end| ends(end)) && !self.is_listed(path) {
            return Err(format!("`{host}` is not a public host"));
        }
        Ok(())
    }

    /// Whether one of the operator's lists matches.
    fn is_listed(&self, path: &str) -> bool {
        matches_any(&self.modules, path) || matches_any(&self.direct, path)
    }

    fn allows(&self, path: &str, modules: Option<&[String]>) -> bool {
        (self.modules.is_empty() || matches_any(&self.modules, path))
            && modules.is_none_or(|modules| matches_any(modules, path))
    }
}

/// The path of `module@version`.
fn path_of(module: &str) -> &str {
    module.split('@').next().unwrap_or_default()
}

fn matches_any(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|patterns| match_prefix_patterns(patterns, path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use velox_api::{ModuleVersionSpec, PluginSpec, ReplaceSpec};

    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    fn spec(module: &str) -> BuildSpec {
        BuildSpec::new("v2025.1.5", vec![PluginSpec::new(module, "v1.0.0")])
    }

    fn policy(modules: &[&str], direct: &[&str]) -> BuildPolicy {
        BuildPolicy { modules: list(modules), direct: list(direct), cgo: false }
    }

    fn fields(refusal: Result<(), ApiError>) -> Vec<String> {
        refusal.unwrap_err().violations.into_iter().map(|wrong| wrong.field).collect()
    }

    fn kind(refusal: Result<(), ApiError>) -> ApiErrorKind {
        refusal.unwrap_err().kind
    }

    const BAD: [&str; 33] = [
        "",
        ".",
        "..",
        "../x",
        "./x",
        "/etc",
        "/etc/passwd",
        "~/x",
        "C:\\x",
        "c:/x",
        "\\\\host\\share",
        "file:///etc",
        "https://github.com/acme/x",
        "git@github.com:acme/x",
        "github.com/../../etc",
        "github.com//x",
        "localhost",
        "localhost/x",
        "localhost:8080/x",
        "db.localhost/x",
        "metadata.google.internal/x",
        "router.lan/x",
        "nas.local/x",
        "printer.home.arpa/x",
        "127.0.0.1/x",
        "127.1/x",
        "0x7f.1/x",
        "2130706433/x",
        "169.254.169.254/latest/meta-data",
        "[::1]/x",
        "github.com:22/x",
        "user@github.com/x",
        "-toolexec=/bin/sh",
    ];

    #[test]
    fn paths_of_this_machine_and_of_private_hosts_are_none() {
        for bad in BAD {
            let refused = BuildPolicy::default().check(&spec(bad), None);
            assert_eq!(fields(refused), ["plugins[0].module"], "{bad}");
            let mut replaced = spec("github.com/acme/x");
            replaced.replaces.push(ReplaceSpec::new("github.com/acme/x", format!("{bad}@v1.0.0")));
            let refused = BuildPolicy::default().check(&replaced, None);
            assert_eq!(fields(refused), ["replaces[0].new"], "{bad}");
            let mut named = spec("github.com/acme/x");
            named.replaces.push(ReplaceSpec::new(bad, "github.com/acme/y@v1.0.0"));
            named.excludes.push(ModuleVersionSpec::new(bad, "v1.0.0"));
            let refused = BuildPolicy::default().check(&named, None);
            assert_eq!(fields(refused), ["replaces[0].old", "excludes[0].module"], "{bad}");
        }
    }

    #[test]
    fn the_operators_and_the_tokens_lists_both_have_to_allow_it() {
        let ours = policy(&["github.com/acme,github.com/roadrunner-server/*"], &[]);
        let rpc = spec("github.com/roadrunner-server/rpc/v5");
        ours.check(&rpc, None).unwrap();
        ours.check(&rpc, Some(&list(&["github.com/*"]))).unwrap();
        for refused in [
            ours.check(&rpc, Some(&list(&["github.com/acme"]))),
            ours.check(&rpc, Some(&list(&[]))),
            ours.check(&spec("github.com/stranger/x"), None),
        ] {
            assert_eq!(kind(refused), ApiErrorKind::Forbidden);
        }
        let mut replaced = rpc.clone();
        let new = "github.com/stranger/rpc/v5@v5.0.0";
        replaced.replaces.push(ReplaceSpec::new("github.com/roadrunner-server/rpc/v5", new));
        assert_eq!(fields(ours.check(&replaced, None)), ["replaces[0].new"]);
    }

    #[test]
    fn a_private_host_that_the_operator_names_is_meant() {
        let private = spec("git.acme.internal/x");
        assert!(BuildPolicy::default().check(&private, None).is_err());
        policy(&[], &["git.acme.internal"]).check(&private, None).unwrap();
        policy(&["git.acme.internal/*"], &[]).check(&private, None).unwrap();
        assert!(policy(&["*"], &[]).check(&spec("127.0.0.1/x"), None).is_err());
    }

    #[test]
    fn race_needs_the_operators_c_compiler() {
        let race = BuildSpec { race: true, ..spec("github.com/acme/x") };
        assert_eq!(kind(BuildPolicy::default().check(&race, None)), ApiErrorKind::FailedPrecondition);
        BuildPolicy { cgo: true, ..BuildPolicy::default() }.check(&race, None).unwrap();
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_module_of_a_named_host(
            path in r"([a-zA-Z0-9.:/@\\~%\[\]-]|localhost|127\.0\.0\.1|\.\./|file://|github\.com/){0,8}",
        ) {
            if BuildPolicy::default().check(&spec(&path), None).is_ok() {
                let host = path.split('/').next().unwrap();
                prop_assert!(host.contains('.') && !host.contains([':', '@', '[']), "{path}");
                prop_assert!(host.parse::<std::net::IpAddr>().is_err(), "{path}");
                prop_assert!(!path.starts_with(['.', '/']) && path.split('/').all(|part| part != ".."), "{path}");
                prop_assert!(!host.ends_with(".localhost"), "{path}");
            }
        }

        #[test]
        fn no_text_makes_it_panic(path in "(?s).{0,60}") {
            let _ = BuildPolicy::default().check(&spec(&path), None);
        }
    }
}
