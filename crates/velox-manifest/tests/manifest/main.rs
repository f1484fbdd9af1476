//! velox.toml in every format: parsing, diagnostics, overrides, editing, the reference and the schema.
#![allow(clippy::unwrap_used)]

mod edit;
mod formats;
mod hostile;
mod invalid;
mod overrides;
mod reference;
mod syntaxes;
mod velox;

use velox_manifest::{Diagnostic, Level, Manifest, SourceFile};

const MANUAL: &str = include_str!("../manual.toml");
const MODULES: &str = include_str!("../../../vx/tests/real-35-plugins.toml");

fn source(text: &str) -> SourceFile {
    SourceFile { name: "velox.toml".into(), text: text.into() }
}

/// Parses `text` with these environment variables.
fn parse(text: &str, variables: &[(&str, &str)]) -> Result<(Manifest, Vec<Diagnostic>), Vec<Diagnostic>> {
    let lookup =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Manifest::parse(&source(text), &lookup)
}

/// The manifest of a valid configuration without warnings.
#[track_caller]
fn valid(text: &str, variables: &[(&str, &str)]) -> Manifest {
    match parse(text, variables) {
        Ok((manifest, warnings)) if warnings.is_empty() => manifest,
        Ok((_, warnings)) => panic!("warnings:\n{}", shown(text, &warnings)),
        Err(errors) => panic!("errors:\n{}", shown(text, &errors)),
    }
}

/// `level line:column: message`, the source text of the span, the label, the help.
fn shown(text: &str, diagnostics: &[Diagnostic]) -> String {
    let source = source(text);
    let mut lines = Vec::new();
    for diagnostic in diagnostics {
        let level = if diagnostic.level == Level::Error { "error" } else { "warning" };
        match &diagnostic.span {
            Some(span) => {
                let (line, column) = source.line_column(span.start);
                lines.push(format!("{level} {line}:{column}: {}", diagnostic.message));
                let label = diagnostic.label.as_deref().unwrap_or("-");
                lines.push(format!("  ^ {}  <- {label}", text.get(span.clone()).unwrap().escape_debug()));
            }
            None => lines.push(format!("{level}: {}", diagnostic.message)),
        }
        if let Some(related) = &diagnostic.related {
            let (line, column) = source.line_column(related.span.start);
            lines.push(format!("  {line}:{column} {}", related.label));
        }
        lines.extend(diagnostic.help.iter().map(|help| format!("  = {help}")));
    }
    lines.join("\n")
}
