//! go.sum files (<https://go.dev/ref/mod#go-sum-files>).

use std::{collections::BTreeMap, fmt};

use crate::module::ModuleVersion;

/// The checksum of an empty go.mod, which old versions of Go wrote by mistake; Go ignores such lines.
const EMPTY_GO_MOD_SUM: &str = "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=";

/// A parsed go.sum, sorted as Go writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoSum {
    /// The checksums of each module, sorted and without duplicates.
    sums: BTreeMap<ModuleVersion, Vec<String>>,
}

/// A line that isn't `path version sum`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed go.sum: line {line} has {fields} fields, not 3")]
pub struct GoSumError {
    /// The line, from 1.
    pub line: usize,
    /// The number of fields.
    pub fields: usize,
}

impl GoSum {
    /// Parses a go.sum; empty lines are ignored.
    pub fn parse(text: &str) -> Result<Self, GoSumError> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            match fields.as_slice() {
                [] => {}
                [_, _, sum] if *sum == EMPTY_GO_MOD_SUM => {}
                [path, version, sum] => lines.push((ModuleVersion::new(*path, *version), sum.to_string())),
                _ => return Err(GoSumError { line: index + 1, fields: fields.len() }),
            }
        }
        // A file is nearly always sorted: sorting it once compares less than inserting each line.
        lines.sort();
        lines.dedup();
        let mut sums: Vec<(ModuleVersion, Vec<String>)> = Vec::with_capacity(lines.len());
        for (module, sum) in lines {
            match sums.last_mut() {
                Some((last, sums)) if *last == module => sums.push(sum),
                _ => sums.push((module, vec![sum])),
            }
        }
        Ok(Self { sums: BTreeMap::from_iter(sums) })
    }

    /// Adds the checksum of a module's zip, or of its go.mod with `VERSION/go.mod`.
    pub fn insert(&mut self, path: &str, version: &str, sum: &str) {
        self.extend(ModuleVersion::new(path, version), vec![sum.to_owned()]);
    }

    /// The checksums of a module's zip, or of its go.mod with `VERSION/go.mod`; normally at most one.
    pub fn get(&self, path: &str, version: &str) -> impl Iterator<Item = &str> + use<'_> {
        self.of(&ModuleVersion::new(path, version))
    }

    /// As [`get`](Self::get), for one of the [`modules`](Self::modules) of another go.sum.
    pub fn of(&self, module: &ModuleVersion) -> impl Iterator<Item = &str> + use<'_> {
        self.sums.get(module).into_iter().flatten().map(String::as_str)
    }

    /// The modules, and the go.mod files as `VERSION/go.mod`, that have a checksum.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleVersion> {
        self.sums.keys()
    }

    /// Adds all checksums of another go.sum.
    pub fn merge(&mut self, other: Self) {
        for (module, sums) in other.sums {
            self.extend(module, sums);
        }
    }

    fn extend(&mut self, module: ModuleVersion, new: Vec<String>) {
        let sums = self.sums.entry(module).or_default();
        sums.extend(new);
        sums.sort();
        sums.dedup();
    }
}

impl fmt::Display for GoSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (ModuleVersion { path, version }, sums) in &self.sums {
            for sum in sums {
                writeln!(f, "{path} {version} {sum}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_by_precedence_and_the_zip_comes_before_its_go_mod() {
        let text = "a.b/c v1.10.0/go.mod h1:3\n\na.b/c v1.9.0 h1:1\na.b/c v1.10.0 h1:2\n";
        let sums = GoSum::parse(text).unwrap();
        assert_eq!(sums.to_string(), "a.b/c v1.9.0 h1:1\na.b/c v1.10.0 h1:2\na.b/c v1.10.0/go.mod h1:3\n");
        assert_eq!(sums.get("a.b/c", "v1.9.0").collect::<Vec<_>>(), ["h1:1"]);
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert_eq!(GoSum::parse("a b c\na b\n"), Err(GoSumError { line: 2, fields: 2 }));
    }
}
