//! `velox.toml`, in every format it ever had, as one format-neutral [`Manifest`].
//!
//! [`Manifest::parse`] reads the text, [`Flags`] change it for one build; neither touches the file system, the network
//! or the process environment.
//! All mistakes of a file come back together, each a [`Diagnostic`] with its place in the text.

mod build_args;
pub mod catalogue;
mod diagnostic;
pub mod edit;
mod findings;
mod flags;
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

pub use diagnostic::{Diagnostic, Level, Source};
pub use flags::{Flags, With};
pub use manifest::{
    Architecture, BuildArgs, Cache, Dependencies, Exclude, Forge, Format, GoTarget, Log, LogLevel, LogMode,
    Manifest, Origin, Plugin, Project, Replace, Replacement, RoadRunner, Spanned,
};
pub use reference::{Key, Kind, TABLES, Table};
pub use schema::schema;
pub use target::{parse_target, release_targets, targets};
