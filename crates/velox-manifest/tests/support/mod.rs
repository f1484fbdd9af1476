//! Reading a text in a test, and showing what was found as a person would point at it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use velox_manifest::{Diagnostic, Level, Manifest, SourceFile};

pub fn source(text: &str) -> SourceFile {
    SourceFile { name: "velox.toml".into(), text: text.into() }
}

/// Reads `text` with these variables.
pub fn parse(text: &str, variables: &[(&str, &str)]) -> Result<(Manifest, Vec<Diagnostic>), Vec<Diagnostic>> {
    let lookup =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Manifest::parse(&source(text), &lookup)
}

/// A configuration that is right, without a warning.
#[track_caller]
pub fn right(text: &str, variables: &[(&str, &str)]) -> Manifest {
    match parse(text, variables) {
        Ok((manifest, warnings)) if warnings.is_empty() => manifest,
        Ok((_, warnings)) => panic!("warnings:\n{}", shown(text, &warnings)),
        Err(errors) => panic!("refused:\n{}", shown(text, &errors)),
    }
}

/// `level line:column: message`, what it points at, its label, its help.
pub fn shown(text: &str, diagnostics: &[Diagnostic]) -> String {
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
        lines.extend(diagnostic.help.iter().map(|help| format!("  = {help}")));
    }
    lines.join("\n")
}
