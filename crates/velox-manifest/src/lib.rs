//! Parsing, validating and editing `velox.toml` in all its formats.
//!
//! [`Manifest::parse`] returns a format-independent [`Manifest`], or all errors of the file, each a
//! [`Diagnostic`] with its span. [`ManifestOverrides`] change a manifest for one build. Neither accesses the
//! file system, the network or the process environment.

mod build_args;
pub mod catalogue;
pub mod check;
mod constraint;
mod diagnostic;
mod document;
pub mod edit;
mod findings;
mod flags;
mod identity;
mod interpolate;
mod invalid_value;
mod manifest;
mod manual;
mod modules;
mod parse;
mod reader;
mod reference;
mod schema;
mod target;

pub use check::{go_selection, is_directory};
pub use constraint::VersionConstraint;
pub use diagnostic::{ConfigSyntax, Diagnostic, DiagnosticKind, Level, RelatedSpan, SourceFile};
pub use document::{ConfigEntry, ConfigNode, ConfigValue, parse_yaml};
pub use flags::{ManifestOverrides, PluginOverride};
pub use manifest::{
    Architecture, BuildArgs, CacheConfig, DebugConfig, Dependencies, Forge, ForgeKind, GoSelection, GoTarget,
    ImageCompression, ImageConfig, LogConfig, LogLevel, LogMode, Manifest, ManifestFormat, ModuleDirective,
    Origin, Plugin, Project, ReplaceDirective, Replacement, RoadRunnerConfig, Spanned,
};
pub use reader::unknown_plugin;
pub use reference::{KeySpec, TABLES, TableSpec, ValueKind};
pub use schema::schema;
pub use target::{parse_target, release_targets, targets};
