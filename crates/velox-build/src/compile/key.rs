//! The key of an artifact: a digest of everything that affects the bytes of the binary.

use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    error::Error,
    lock::{Lock, TargetVariant},
    settings::BuildSettings,
    stamp::Stamp,
    workspace::{Workspace, tree},
};

/// Changed when vx compiles or verifies the same input in another way.
const GENERATION: &str = "vx-artifact-6";

/// The key in hexadecimal; `None` with cgo, since the lock doesn't identify the C compiler. Without a stamp it is the key
/// of the packages, which the linker and its flags don't change.
pub(crate) fn of(
    lock: &Lock,
    variant: &TargetVariant,
    settings: &BuildSettings,
    stamp: Option<&Stamp>,
    replaced: &[(String, PathBuf)],
) -> Result<Option<String>, Error> {
    if variant.cgo {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut field = |value: &str| {
        // With its length, to separate the fields.
        hash.update(value.len().to_le_bytes());
        hash.update(value);
    };
    field(GENERATION);
    field(&lock.go_version);
    field(&lock.roadrunner.module);
    field(&lock.roadrunner.version);
    field(lock.go_mod.text());
    field(&variant.target.to_string());
    field(&variant.instruction_set.as_ref().map(ToString::to_string).unwrap_or_default());
    if let Some(stamp) = stamp {
        field(&stamp.version);
        field(&stamp.time);
        field(&format!("debug={} race={} strip={}", settings.debug, settings.race, settings.strip()));
    }
    for plugin in &lock.plugins {
        field(&plugin.module);
    }
    for text in settings.tags().iter().chain(&settings.arguments.flags) {
        field(text);
    }
    for (name, value) in settings.arguments.definitions.iter().filter(|_| stamp.is_some()) {
        field(name);
        field(value);
    }
    // Only the sums of compiled modules: go.sum grows with every target.
    let locked = lock.targets.get(variant).cloned().unwrap_or_default();
    for module in lock.zips(&[&locked]) {
        field(&format!("{} {}", module.path, module.version));
        lock.go_sum.get(&module.path, &module.version).for_each(&mut field);
    }
    for (name, directory) in replaced {
        field(name);
        field(&tree::digest(directory)?);
    }
    Ok(Some(HEXLOWER.encode(&hash.finalize())))
}

/// The copies of local replacements in the workspace: the originals may change during the build.
pub(crate) fn copies(
    lock: &Lock,
    workspace: &Workspace,
    replaced: Vec<(String, PathBuf)>,
) -> Vec<(String, PathBuf)> {
    let mut directories = lock.go_mod.replace.clone();
    directories.retain(|replace| replace.new_version.is_none());
    let copy = |(module, original): (String, PathBuf)| {
        let index = directories.iter().position(|replace| replace.old_path == module);
        let copy = index.map(|index| workspace.directory().join(directories.remove(index).new_path));
        (module, copy.unwrap_or(original))
    };
    replaced.into_iter().map(copy).collect()
}
