//! The licenses of modules, from the license files in their root directories.
//!
//! A license is only named if its text was recognized; everything else is unknown.

mod texts;

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::Path,
    sync::LazyLock,
};

use serde::Serialize;
use spdx::detection::{LicenseType, Store, TextData, scan::Scanner};

use self::texts::{APACHE_NOTICE, GO_LICENSE, LICENSE_TEXTS};
use crate::error::Error;

/// The least similarity of a text with that of a license, as in `cargo deny`'s recommendation.
const MIN_CONFIDENCE: f32 = 0.9;
/// Texts this similar contain no second license.
const SINGLE_LICENSE_CONFIDENCE: f32 = 0.98;
/// More words than these beside the recognized licenses may be another license.
const MAX_UNRECOGNIZED_WORDS: usize = 100;
/// Larger files are no license files.
const MAX_LICENSE_BYTES: u64 = 1 << 20;
/// Extensions of files that are named after what they do with licenses (`license.go`).
const CODE_EXTENSIONS: [&str; 10] = ["c", "css", "go", "h", "html", "js", "json", "s", "tmpl", "yml"];

/// The license of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleLicense {
    /// An SPDX expression; `None`: unknown. Several licenses are joined with `AND`: which of them may be chosen isn't
    /// known.
    pub expression: Option<String>,
    /// The license files, and then the notices.
    pub files: Vec<LicenseFile>,
}

/// A license file or a notice of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LicenseFile {
    /// The file name.
    pub name: String,
    /// The SPDX identifiers of the recognized licenses. Empty for a notice, and if the file has other text that may be
    /// a license.
    pub licenses: Vec<&'static str>,
    /// Whether it is a notice, such as `NOTICE` or `PATENTS`, which stays with the license but grants none.
    pub is_notice: bool,
    /// The text.
    #[serde(skip)]
    pub text: String,
}

/// Finds the licenses of modules; each text is recognized once.
#[derive(Default)]
pub(crate) struct LicenseFinder {
    known: HashMap<String, Vec<&'static str>>,
}

impl ModuleLicense {
    /// The license of the Go standard library.
    pub(crate) fn of_go() -> Self {
        let file = LicenseFile {
            name: "LICENSE".to_owned(),
            licenses: vec!["BSD-3-Clause"],
            is_notice: false,
            text: GO_LICENSE.to_owned(),
        };
        Self { expression: Some("BSD-3-Clause".to_owned()), files: vec![file] }
    }
}

impl LicenseFinder {
    /// The license of the module in this directory.
    pub(crate) fn find(&mut self, directory: &Path) -> Result<ModuleLicense, Error> {
        let mut files = Vec::new();
        let read = |files: &mut Vec<LicenseFile>| -> io::Result<()> {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let Some(is_notice) = is_notice(&name) else { continue };
                // A link may lead anywhere.
                let data = fs::symlink_metadata(entry.path())?;
                if data.is_file() && data.len() <= MAX_LICENSE_BYTES {
                    let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
                    files.push(LicenseFile { name, licenses: Vec::new(), is_notice, text });
                }
            }
            Ok(())
        };
        read(&mut files).map_err(|error| Error::file("read", directory, &error))?;
        files.sort_by(|one, other| (one.is_notice, &one.name).cmp(&(other.is_notice, &other.name)));
        for file in files.iter_mut().filter(|file| !file.is_notice) {
            file.licenses = self.recognize(&file.text);
        }
        let licenses = || files.iter().filter(|file| !file.is_notice);
        let is_known = licenses().next().is_some() && licenses().all(|file| !file.licenses.is_empty());
        let names: BTreeSet<&str> = licenses().flat_map(|file| file.licenses.iter().copied()).collect();
        let expression = is_known.then(|| names.into_iter().collect::<Vec<_>>().join(" AND "));
        Ok(ModuleLicense { expression, files })
    }

    fn recognize(&mut self, text: &str) -> Vec<&'static str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        // Files with several licenses mostly have lines between them.
        let sections = || text.split_inclusive('\n').collect::<Vec<_>>();
        let found = recognize_section(text)
            .or_else(|| {
                let mut found = BTreeSet::new();
                for section in sections().split(|line| is_separator(line)) {
                    found.extend(recognize_section(&section.concat())?);
                }
                Some(found)
            })
            .unwrap_or_default();
        let found: Vec<&str> = found.into_iter().collect();
        self.known.insert(text.to_owned(), found.clone());
        found
    }
}

/// The licenses in a text; `None` if it has other text that may be a license.
fn recognize_section(text: &str) -> Option<BTreeSet<&'static str>> {
    static STORE: LazyLock<Store> = LazyLock::new(|| {
        let mut store = Store::new();
        for (name, text) in LICENSE_TEXTS {
            store.add_license(name.to_owned(), TextData::new(text).without_text());
        }
        // The license was added above.
        let _ =
            store.add_variant("Apache-2.0", LicenseType::Header, TextData::new(APACHE_NOTICE).without_text());
        store
    });
    static SCANNER: LazyLock<Scanner<'static>> = LazyLock::new(|| {
        Scanner::new(&STORE)
            .confidence_threshold(MIN_CONFIDENCE)
            .shallow_limit(SINGLE_LICENSE_CONFIDENCE)
            .optimize(true)
            .max_passes(1)
    });
    let text = TextData::new(text);
    let scanned = SCANNER.scan(&text);
    let is_short = || {
        let words = text.lines().iter().flat_map(|line| line.split_whitespace());
        words.take(MAX_UNRECOGNIZED_WORDS + 1).count() <= MAX_UNRECOGNIZED_WORDS
    };
    let Some(found) = scanned.containing.first() else {
        let known = scanned.license.map(|license| BTreeSet::from([identifier(license.name)]));
        return known.or_else(|| is_short().then(BTreeSet::new));
    };
    // The scanner itself would miss a license before this one.
    let (start, end) = found.line_range;
    let mut licenses = BTreeSet::from([identifier(found.license.name)]);
    for rest in [text.lines().get(..start)?, text.lines().get(end..)?] {
        if rest.len() == text.lines().len() {
            return None;
        }
        licenses.extend(recognize_section(&rest.join("\n"))?);
    }
    Some(licenses)
}

/// The identifier in [`LICENSE_TEXTS`], which lives as long as the program.
fn identifier(name: &str) -> &'static str {
    LICENSE_TEXTS.iter().find(|(known, _)| *known == name).map_or("NOASSERTION", |(known, _)| known)
}

fn is_separator(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3 && line.chars().all(|c| "-=*_#".contains(c))
}

/// Whether the file of this name is a notice; `None`: it is neither a license nor a notice.
fn is_notice(name: &str) -> Option<bool> {
    let name = name.to_ascii_uppercase();
    let is_code = name
        .rsplit_once('.')
        .is_some_and(|(_, extension)| CODE_EXTENSIONS.contains(&&*extension.to_ascii_lowercase()));
    let starts_with = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    match () {
        () if is_code => None,
        () if starts_with(&["LICENSE", "LICENCE", "COPYING", "UNLICENSE"]) => Some(false),
        () if starts_with(&["NOTICE", "PATENTS", "COPYRIGHT"]) => Some(true),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(name: &str) -> &'static str {
        LICENSE_TEXTS.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn found(files: &[(&str, &str)]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        LicenseFinder::default().find(directory.path()).unwrap().expression
    }

    #[test]
    fn each_text_is_recognized_as_its_own() {
        for (name, text) in LICENSE_TEXTS {
            assert_eq!(found(&[("LICENSE", text)]).as_deref(), Some(name));
        }
        assert_eq!(found(&[("LICENSE.md", GO_LICENSE)]).as_deref(), Some("BSD-3-Clause"));
    }

    #[test]
    fn several_licenses_are_joined() {
        let (mit, apache) = (text_of("MIT"), text_of("Apache-2.0"));
        let both = Some("Apache-2.0 AND MIT".to_owned());
        assert_eq!(found(&[("LICENSE-MIT", mit), ("LICENSE-APACHE", apache)]), both);
        assert_eq!(found(&[("LICENSE", &format!("{mit}\n\n{apache}"))]), both);
        assert_eq!(found(&[("COPYING", &format!("{mit}\n----\n{apache}\n----\n{mit}"))]), both);
        let notice =
            format!("The files in c/ are under MIT, the others under Apache.\n\n{mit}\n{APACHE_NOTICE}");
        assert_eq!(found(&[("LICENSE", &notice)]), both);
    }

    #[test]
    fn other_text_is_unknown() {
        let mit = text_of("MIT");
        let own = "You may use this on weekdays if you pay ten coins to each of the authors. ".repeat(20);
        assert_eq!(found(&[("LICENSE", &own)]), None);
        assert_eq!(found(&[("LICENSE", "See https://example.com/license for all that you may do.")]), None);
        assert_eq!(found(&[("LICENSE", &format!("{mit}\n{own}"))]), None);
        assert_eq!(found(&[("LICENSE", mit), ("LICENSE.enterprise", &own)]), None);
        assert_eq!(found(&[("license.go", mit), ("README.md", mit), ("NOTICE", mit)]), None);
        assert_eq!(found(&[]), None);
    }
}
