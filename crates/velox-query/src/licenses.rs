//! The licenses of everything that is compiled in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::Serialize;
use spdx::{
    ParseMode,
    expression::{ExprNode, Operator},
};
use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, LicenseFile, ModuleLicense, QuerySession, Reporter};

/// `GPL-3.0` and `GPL-3.0+` are deprecated, but in use. Imprecise names, such as `GPL`, could deny another license than
/// the one that was meant.
const PARSE_MODE: ParseMode =
    ParseMode { allow_deprecated: true, allow_postfix_plus_on_gpl: true, ..ParseMode::STRICT };

/// A license that no module may have, or modules of an unknown license.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeniedLicense {
    /// An SPDX identifier, without `-only` and `-or-later`: a license text doesn't say which applies.
    License(String),
    /// Unknown licenses (`unknown`).
    Unknown,
}

/// The licenses of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LicenseReport {
    /// The modules by license; unknown licenses last.
    pub groups: Vec<LicenseGroup>,
    /// The modules with a denied license.
    pub denied: Vec<(DeniedLicense, LicensedModule)>,
}

/// The modules with the same license.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LicenseGroup {
    /// An SPDX expression; `None`: unknown.
    pub license: Option<String>,
    /// The modules, sorted by path.
    pub modules: Vec<LicensedModule>,
}

/// A module and its license files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LicensedModule {
    /// The path of the compiled module.
    pub module: String,
    /// Its version; `None`: a directory.
    pub version: Option<String>,
    /// The license files, and then the notices.
    pub files: Vec<LicenseFile>,
}

impl DeniedLicense {
    /// Parses an SPDX expression such as `GPL-3.0 OR AGPL-3.0`, or `unknown`. The error is a message.
    ///
    /// # Errors
    /// It isn't an SPDX expression, or has other operators than `OR`.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        if text.trim() == "unknown" {
            return Ok(vec![Self::Unknown]);
        }
        let expression = spdx::Expression::parse_mode(text, PARSE_MODE).map_err(|error| {
            let found = text.get(error.span.clone()).filter(|found| !found.is_empty());
            let found = found.map(|found| format!("`{found}`: ")).unwrap_or_default();
            format!(
                "{found}{}; expected SPDX license identifiers, such as GPL-3.0, or `unknown`",
                error.reason
            )
        })?;
        if expression.iter().any(|node| *node == ExprNode::Op(Operator::And)) {
            return Err("`AND` has no meaning here; join licenses with `OR`, or repeat --deny".to_owned());
        }
        let name = |node: &spdx::expression::ExpressionReq| {
            let license = &node.req.license;
            Self::License(family(license.id().map_or_else(|| license.to_string(), |id| id.name.to_owned())))
        };
        Ok(expression.requirements().map(name).collect())
    }
}

impl fmt::Display for DeniedLicense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::License(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl LicensedModule {
    /// Whether the license file of a module is missing, or what isn't recognized, for a module of unknown license.
    #[must_use]
    pub fn unknown_cause(&self) -> String {
        let unknown: Vec<&str> = self
            .files
            .iter()
            .filter(|file| !file.is_notice && file.licenses.is_empty())
            .map(|file| file.name.as_str())
            .collect();
        match unknown.as_slice() {
            [] => "no license file".to_owned(),
            files => format!("not recognized: {}", files.join(", ")),
        }
    }
}

impl LicenseReport {
    /// The names of all modules and the texts of their licenses and notices, each text once.
    #[must_use]
    pub fn notice(&self) -> String {
        let mut text = "This binary contains the following software.\n".to_owned();
        let line = "=".repeat(80);
        for group in &self.groups {
            let mut by_texts: BTreeMap<Vec<&str>, Vec<&LicensedModule>> = BTreeMap::new();
            for module in &group.modules {
                let texts = module.files.iter().map(|file| file.text.as_str()).collect();
                by_texts.entry(texts).or_default().push(module);
            }
            let mut groups: Vec<_> = by_texts.into_iter().collect();
            groups.sort_by_key(|(_, modules)| modules.first().map(|module| module.module.clone()));
            for (texts, modules) in groups {
                let license = group.license.as_deref().unwrap_or("unknown license");
                text += &format!("\n{line}\n{license}\n\n");
                for LicensedModule { module, version, .. } in modules {
                    text += &format!("{module} {}\n", version.as_deref().unwrap_or("(local directory)"));
                }
                for part in texts {
                    text += &format!("\n{}\n", part.trim_end());
                }
            }
        }
        text
    }
}

/// Finds the licenses of all modules of all targets. Downloads the modules that the cache lacks.
///
/// # Errors
/// As a build, up to the downloads.
pub async fn licenses(
    request: &BuildRequest,
    denied: &[DeniedLicense],
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<LicenseReport, Error> {
    let mut modules: BTreeMap<(String, Option<String>), ModuleLicense> = BTreeMap::new();
    for sbom in QuerySession::new(request, reporter, cancel)?.sboms().await? {
        for module in std::iter::once(&sbom.roadrunner).chain(&sbom.modules) {
            let (path, version) = module.source();
            modules.insert((path.to_owned(), version.map(str::to_owned)), module.license.clone());
        }
    }
    Ok(report(modules, denied))
}

fn report(
    modules: BTreeMap<(String, Option<String>), ModuleLicense>,
    denied: &[DeniedLicense],
) -> LicenseReport {
    let mut groups: BTreeMap<Option<String>, Vec<LicensedModule>> = BTreeMap::new();
    let mut violations = Vec::new();
    for ((module, version), ModuleLicense { expression, files }) in modules {
        let module = LicensedModule { module, version, files };
        let names: BTreeSet<DeniedLicense> = match &expression {
            None => [DeniedLicense::Unknown].into(),
            Some(license) => {
                license.split(" AND ").map(|name| DeniedLicense::License(family(name.to_owned()))).collect()
            }
        };
        let found = names.into_iter().filter(|name| denied.contains(name));
        violations.extend(found.map(|name| (name, module.clone())));
        groups.entry(expression).or_default().push(module);
    }
    let unknown = groups.remove(&None);
    let mut groups: Vec<LicenseGroup> =
        groups.into_iter().map(|(license, modules)| LicenseGroup { license, modules }).collect();
    groups.extend(unknown.map(|modules| LicenseGroup { license: None, modules }));
    LicenseReport { groups, denied: violations }
}

/// The identifier without `-only`, `-or-later` and `+`.
fn family(mut name: String) -> String {
    for suffix in ["-only", "-or-later", "+"] {
        if let Some(family) = name.strip_suffix(suffix) {
            name.truncate(family.len());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_licenses_are_spdx_expressions() {
        let parsed = |text: &str| {
            DeniedLicense::parse(text)
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(parsed("GPL-3.0").as_deref(), Ok("GPL-3.0"));
        assert_eq!(parsed("GPL-2.0-or-later OR AGPL-3.0-only").as_deref(), Ok("GPL-2.0 AGPL-3.0"));
        assert_eq!(parsed("unknown").as_deref(), Ok("unknown"));
        for wrong in ["", "Acme-1.0", "GPL", "MIT AND", "MIT AND ISC", "(MIT"] {
            assert!(parsed(wrong).is_err(), "{wrong}: {:?}", parsed(wrong));
        }
    }

    #[test]
    fn each_of_several_licenses_is_compared() {
        let license =
            |text: Option<&str>| ModuleLicense { expression: text.map(str::to_owned), files: Vec::new() };
        let modules = || {
            [
                ("a", Some("MIT")),
                ("b", Some("BSD-3-Clause AND GPL-3.0")),
                ("c", None),
                ("d", Some("LGPL-3.0")),
            ]
            .into_iter()
            .map(|(path, text)| ((path.to_owned(), Some("v1.0.0".to_owned())), license(text)))
            .collect()
        };
        let denied = |text: &str| {
            let report = report(modules(), &DeniedLicense::parse(text).unwrap());
            report.denied.iter().map(|(_, module)| module.module.clone()).collect::<String>()
        };
        assert_eq!(denied("GPL-3.0-only"), "b");
        assert_eq!(denied("GPL-3.0-or-later OR MIT"), "ab");
        assert_eq!(denied("GPL-2.0"), "");
        assert_eq!(denied("unknown"), "c");
    }
}
