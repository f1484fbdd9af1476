//! A configuration text as a tree, the same for every syntax.

mod json;
mod toml;
mod tree;
mod yaml;

pub(crate) use self::toml::{duplicate_key, syntax_error};
pub use self::{
    toml::{key, string},
    tree::{ConfigEntry, ConfigNode, ConfigValue},
    yaml::parse_yaml,
};
use crate::{ConfigSyntax, Diagnostic, SourceFile};

/// Parses a text in the syntax that the extension of its name selects.
///
/// # Errors
/// The first syntax error, or all duplicate keys of TOML.
pub(crate) fn parse(source: &SourceFile) -> Result<ConfigNode, Vec<Diagnostic>> {
    match source.syntax() {
        ConfigSyntax::Toml => toml::parse(&source.text),
        ConfigSyntax::Yaml => parse_yaml(&source.text).map_err(|error| vec![error]),
        ConfigSyntax::Json => json::parse(&source.text).map_err(|error| vec![error]),
    }
}
