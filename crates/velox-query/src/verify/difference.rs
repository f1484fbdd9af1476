//! The first difference between a binary and its lock, or another binary.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use data_encoding::HEXLOWER;
use object::{File, Object as _, ObjectSection as _};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use velox_build::{BuildRecord, Error, Lock};
use velox_gomod::buildinfo::{BuildInfo, BuildModule};

use super::{RecordedBinary, compiled};
use crate::inspect;

/// The sections with the build ID, which differs whenever anything else does.
const BUILD_ID_SECTIONS: [&str; 2] = [".note.go.buildid", ".note.gnu.build-id"];

/// A difference between a binary and what its lock builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BinaryDifference {
    /// What differs.
    pub kind: DifferenceKind,
    /// The module, the setting, the field or the section; for [`DifferenceKind::Bytes`] the offset.
    pub name: String,
    /// The value in the binary; `None`: it has none.
    pub binary: Option<String>,
    /// The value in the lock, or in the binary that was built again; `None`: it has none.
    pub expected: Option<String>,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The Go version.
    Go,
    /// RoadRunner's module path or version.
    Roadrunner,
    /// The version or the replacement of a module.
    Module,
    /// The checksum of a module.
    Sum,
    /// The whole go.mod: requirements of modules that are not compiled.
    GoMod,
    /// Which modules are plugins.
    Plugins,
    /// The target, with its build tags.
    Target,
    /// A flag or another setting that Go recorded.
    Setting,
    /// The stamp, or another field of the record of vx.
    Record,
    /// The content of a section.
    Section,
    /// Bytes outside of sections.
    Bytes,
}

impl fmt::Display for BinaryDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, binary, expected } = self;
        match kind {
            DifferenceKind::Go => write!(f, "the Go version")?,
            DifferenceKind::Roadrunner => write!(f, "RoadRunner")?,
            DifferenceKind::Module => write!(f, "module {name}")?,
            DifferenceKind::Sum => write!(f, "the checksum of module {name}")?,
            DifferenceKind::GoMod => write!(f, "the go.mod")?,
            DifferenceKind::Plugins => write!(f, "the list of plugins")?,
            DifferenceKind::Target => write!(f, "the target")?,
            DifferenceKind::Setting => write!(f, "the build setting {name}")?,
            DifferenceKind::Record => write!(f, "`{name}` in the build record")?,
            DifferenceKind::Section => write!(f, "section {name}")?,
            DifferenceKind::Bytes => write!(f, "the bytes at offset {name}")?,
        }
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, ": the binary has {}, expected {}", value(binary), value(expected))
    }
}

impl RecordedBinary {
    /// The first difference between what the binary says about itself and a lock.
    ///
    /// # Errors
    /// The lock has an invalid go.mod or go.sum.
    pub fn difference_from_lock(&self, lock: &Lock) -> Result<Option<BinaryDifference>, Error> {
        let Self { info, record, variant, .. } = self;
        let differ = |kind, name: &str, found: &str, expected: &str| {
            (found != expected).then(|| BinaryDifference {
                kind,
                name: name.to_owned(),
                binary: Some(found.to_owned()).filter(|it| !it.is_empty()),
                expected: Some(expected.to_owned()).filter(|it| !it.is_empty()),
            })
        };
        let roadrunner = format!("{} {}", record.roadrunner, record.version);
        let locked = format!("{} {}", lock.roadrunner.module, lock.roadrunner.version);
        let first = differ(DifferenceKind::Go, "", go_name(info), &lock.go_version)
            .or_else(|| differ(DifferenceKind::Roadrunner, "", &roadrunner, &locked));
        if first.is_some() {
            return Ok(first);
        }
        let Some(target) = lock.targets.get(variant) else {
            let names = lock.targets.keys().map(|variant| variant.target.to_string());
            let locked = names.collect::<Vec<_>>().join(", ");
            let found = [vec![variant.target.to_string()], variant.tags.clone()].concat().join(" ");
            return Ok(differ(DifferenceKind::Target, "", &found, &locked));
        };
        let mut expected = BTreeMap::new();
        for (path, selected) in lock.selected(target) {
            let replacement = selected.replacement.map_or_else(String::new, |(path, version)| {
                let version = version.map(|version| format!(" {version}")).unwrap_or_default();
                format!(" => {path}{version}")
            });
            expected.insert(path, selected.version + &replacement);
        }
        for module in &info.deps {
            let path = &module.path;
            let locked = expected.remove(path).unwrap_or_default();
            let (compiled_path, version, sum) = compiled(module);
            let locked_sum = version.and_then(|version| lock.go_sum.get(compiled_path, version).next());
            let first = differ(DifferenceKind::Module, path, &versions(module), &locked)
                .or_else(|| differ(DifferenceKind::Sum, compiled_path, sum, locked_sum.unwrap_or_default()));
            if first.is_some() {
                return Ok(first);
            }
        }
        if let Some((path, locked)) = expected.pop_first() {
            return Ok(differ(DifferenceKind::Module, &path, "", &locked));
        }
        let mut plugins: Vec<&str> = lock.plugins.iter().map(|plugin| plugin.module.as_str()).collect();
        plugins.sort_unstable();
        let go_mod = HEXLOWER.encode(&Sha256::digest(lock.go_mod.text()));
        Ok(differ(DifferenceKind::Plugins, "", &record.plugins.join(", "), &plugins.join(", ")).or_else(
            || {
                differ(
                    DifferenceKind::GoMod,
                    "",
                    &format!("SHA-256 {}", record.modules),
                    &format!("SHA-256 {go_mod}"),
                )
            },
        ))
    }

    /// The first difference from another binary, which has another SHA-256.
    ///
    /// # Errors
    /// A binary can't be read.
    pub fn difference_from(&self, other: &Path) -> Result<BinaryDifference, Error> {
        let (info, record) = inspect::read(other)?;
        if let Some(difference) = described(self, &info, record.as_ref()) {
            return Ok(difference);
        }
        let read = |path: &Path| fs::read(path).map_err(|error| Error::file("read", path, &error));
        Ok(in_bytes(&read(&self.path)?, &read(other)?))
    }
}

/// The name of the toolchain: a binary may have experiments after it.
fn go_name(info: &BuildInfo) -> &str {
    info.go_version.split(' ').next().unwrap_or_default()
}

/// The version with the replacement, as in a lock.
fn versions(module: &BuildModule) -> String {
    match &module.replace {
        Some(new) if new.path.starts_with("./") => format!("{} => {}", module.version, new.path),
        Some(new) => format!("{} => {} {}", module.version, new.path, new.version),
        None => module.version.clone(),
    }
}

/// The first difference in the build information and the record.
fn described(
    binary: &RecordedBinary,
    info: &BuildInfo,
    record: Option<&BuildRecord>,
) -> Option<BinaryDifference> {
    let settings = |info: &BuildInfo| -> Map<String, Value> {
        info.settings.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect()
    };
    let modules = |info: &BuildInfo| -> Map<String, Value> {
        info.deps.iter().map(|module| (module.path.clone(), versions(module).into())).collect()
    };
    let fields = |record: Option<&BuildRecord>| match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let main = |info: &BuildInfo| -> Map<String, Value> {
        [("path".to_owned(), info.path.clone().into()), ("mod".to_owned(), info.main.version.clone().into())]
            .into_iter()
            .collect()
    };
    in_maps(DifferenceKind::Module, &modules(&binary.info), &modules(info))
        .or_else(|| in_maps(DifferenceKind::Setting, &settings(&binary.info), &settings(info)))
        .or_else(|| in_maps(DifferenceKind::Setting, &main(&binary.info), &main(info)))
        .or_else(|| in_maps(DifferenceKind::Record, &fields(Some(&binary.record)), &fields(record)))
}

fn in_maps(
    kind: DifferenceKind,
    found: &Map<String, Value>,
    expected: &Map<String, Value>,
) -> Option<BinaryDifference> {
    let text = |value: Option<&Value>| {
        value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let name = found.keys().chain(expected.keys()).find(|name| found.get(*name) != expected.get(*name))?;
    let (binary, expected) = (text(found.get(name)), text(expected.get(name)));
    Some(BinaryDifference { kind, name: name.clone(), binary, expected })
}

/// The first section that differs, else the first byte.
fn in_bytes(found: &[u8], expected: &[u8]) -> BinaryDifference {
    let sections = |data: &[u8]| -> Vec<(String, Vec<u8>)> {
        let Ok(file) = File::parse(data) else { return Vec::new() };
        let section = |section: object::Section<'_, '_>| {
            Some((section.name().ok()?.to_owned(), section.data().ok()?.to_owned()))
        };
        file.sections().filter_map(section).collect()
    };
    let (one, other) = (sections(found), sections(expected));
    let of = |name: &str| other.iter().find(|(other, _)| other == name).map(|(_, data)| data);
    let mut differing: Vec<&(String, Vec<u8>)> =
        one.iter().filter(|(name, data)| of(name) != Some(data)).collect();
    differing.sort_by_key(|(name, _)| BUILD_ID_SECTIONS.contains(&name.as_str()));
    let Some((name, data)) = differing.first() else {
        let (at, found, expected) = first_bytes(found, expected);
        let (kind, name) = (DifferenceKind::Bytes, format!("{at:#x}"));
        return BinaryDifference { kind, name, binary: found, expected };
    };
    let (at, found, expected) = first_bytes(data, of(name).map_or(&[], Vec::as_slice));
    let place = |bytes: Option<String>| bytes.map(|bytes| format!("{bytes} at offset {at:#x}"));
    BinaryDifference {
        kind: DifferenceKind::Section,
        name: name.clone(),
        binary: place(found),
        expected: place(expected),
    }
}

/// The offset of the first difference, and a few bytes there in hexadecimal; `None`: the end.
fn first_bytes(one: &[u8], other: &[u8]) -> (usize, Option<String>, Option<String>) {
    let at = one.iter().zip(other).position(|(a, b)| a != b).unwrap_or_else(|| one.len().min(other.len()));
    let bytes = |data: &[u8]| {
        let rest = data.get(at..).filter(|rest| !rest.is_empty())?;
        Some(HEXLOWER.encode(rest.get(..8).unwrap_or(rest)))
    };
    (at, bytes(one), bytes(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_byte_is_named_outside_of_sections() {
        let difference = in_bytes(b"not a binary, abc", b"not a binary, abcdef");
        assert_eq!(
            difference.to_string(),
            "the bytes at offset 0x11: the binary has nothing, expected 646566"
        );
    }

    #[test]
    fn sections_are_compared_before_bytes() {
        let this = std::env::current_exe().unwrap();
        let original = fs::read(this).unwrap();
        let file = File::parse(original.as_slice()).unwrap();
        let text = file.section_by_name(".text").and_then(|section| section.file_range());
        let Some((start, _)) = text else { return };
        let mut changed = original.clone();
        changed[start as usize + 16] ^= 1;
        let difference = in_bytes(&changed, &original);
        assert_eq!((difference.kind, difference.name.as_str()), (DifferenceKind::Section, ".text"));
        assert!(difference.binary.unwrap().ends_with("at offset 0x10"));
    }
}
