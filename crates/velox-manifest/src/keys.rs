//! The keys of velox.toml and the words that some of them take: what is read, and what the schema tells editors.

use crate::{Dependencies, LogLevel, LogMode};

/// Of the top level; a known one in a wrong table usually slipped below a header.
pub(crate) const TOP: &[&str] = &[
    "roadrunner",
    "debug",
    "strict",
    "log",
    "target_platform",
    "targets",
    "cache",
    "github",
    "gitlab",
    "plugins",
    "replaces",
    "excludes",
    "velox",
];

pub(crate) const ROADRUNNER: &[&str] = &["ref", "dependencies"];
pub(crate) const DEBUG: &[&str] = &["enabled"];
pub(crate) const LOG: &[&str] = &["level", "mode"];
pub(crate) const TARGET: &[&str] = &["os", "arch"];
pub(crate) const CACHE: &[&str] = &["remote", "read_only"];
/// `[github]`, `[gitlab]`.
pub(crate) const FORGE: &[&str] = &["token", "plugins", "endpoint", "base_url"];
pub(crate) const TOKEN: &[&str] = &["token"];
pub(crate) const ENDPOINT: &[&str] = &["endpoint"];
/// A plugin of a forge.
pub(crate) const REPOSITORY: &[&str] = &["ref", "owner", "repository", "folder", "replace"];
/// `[plugins.NAME]`.
pub(crate) const MODULE: &[&str] = &["module_name", "tag", "replace"];
pub(crate) const REPLACE: &[&str] = &["old", "new"];
pub(crate) const EXCLUDE: &[&str] = &["module", "version"];
pub(crate) const VELOX: &[&str] = &["build_args"];

pub(crate) const DEPENDENCIES: &[(&str, Dependencies)] =
    &[("release", Dependencies::Release), ("minimal", Dependencies::Minimal)];

pub(crate) const LEVELS: &[(&str, LogLevel)] = &[
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("warning", LogLevel::Warn),
    ("error", LogLevel::Error),
];

pub(crate) const MODES: &[(&str, LogMode)] = &[
    ("production", LogMode::Production),
    ("development", LogMode::Development),
    ("raw", LogMode::Raw),
    ("off", LogMode::Off),
    ("none", LogMode::Off),
];
