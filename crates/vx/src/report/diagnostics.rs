use std::ops::Range;

use serde::Serialize;
use velox_build::render::within;
use velox_manifest::{Diagnostic, SourceFile};

pub(crate) use velox_build::render::{heading, render, render_explained};

/// A range of a configuration file in JSON events: 1-based lines and columns, in characters.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SourceRange<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

impl<'a> SourceRange<'a> {
    pub(crate) fn new(source: &'a SourceFile, span: &Range<usize>) -> Self {
        let span = within(&source.text, span);
        let ((line, column), (end_line, end_column)) =
            (source.line_column(span.start), source.line_column(span.end));
        Self { file: &source.name, line, column, end_line, end_column }
    }
}

/// The fields of a diagnostic in JSON, without its message.
#[derive(Debug, Serialize)]
pub(crate) struct DiagnosticFields<'a> {
    #[serde(flatten)]
    range: Option<SourceRange<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<RelatedFields<'a>>,
    help: &'a [String],
}

impl<'a> DiagnosticFields<'a> {
    pub(crate) fn new(diagnostic: &'a Diagnostic, source: Option<&'a SourceFile>) -> Self {
        let range = source.zip(diagnostic.span.as_ref());
        Self {
            range: range.map(|(source, span)| SourceRange::new(source, span)),
            label: diagnostic.label.as_deref(),
            related: source.zip(diagnostic.related.as_ref()).map(|(source, related)| RelatedFields {
                range: SourceRange::new(source, &related.span),
                label: &related.label,
            }),
            help: &diagnostic.help,
        }
    }
}

/// A second place of a diagnostic in JSON.
#[derive(Debug, Serialize)]
struct RelatedFields<'a> {
    #[serde(flatten)]
    range: SourceRange<'a>,
    label: &'a str,
}
