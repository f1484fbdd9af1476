//! `velox.toml`, in every format it ever had, as one format-neutral [`Manifest`].
//!
//! [`Manifest::parse`] reads the text, [`ManifestOverrides`] change it for one build; neither touches the file system, the network
//! or the process environment.
//! All mistakes of a file come back together, each a [`Diagnostic`] with its place in the text.

mod build_args;
pub mod catalogue;
pub mod check;
mod diagnostic;
pub mod edit;
mod findings;
mod flags;
mod identity;
mod interpolate;
mod keys;
mod manifest;
mod manual;
mod modules;
mod parse;
mod reader;
mod reference;
mod refs;
mod schema;
mod target;

pub use diagnostic::{Diagnostic, Level, SourceFile};
pub use flags::{ManifestOverrides, PluginOverride};
pub use manifest::{
    Architecture, BuildArgs, CacheConfig, Dependencies, ExcludeDirective, Forge, ForgeKind, GoTarget,
    LogConfig, LogLevel, LogMode, Manifest, ManifestFormat, Origin, Plugin, Project, ReplaceDirective,
    Replacement, RoadRunnerConfig, Spanned,
};
pub use reference::{KeySpec, TABLES, TableSpec, ValueKind};
pub use schema::schema;
pub use target::{parse_target, release_targets, targets};
