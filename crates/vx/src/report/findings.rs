//! Findings of `vx check` and `vx migrate --to`.

use serde_json::{Value, json};
use velox_manifest::{Level, SourceFile};
use velox_query::Finding;

use super::{
    diagnostics::{SourceRange, render_explained},
    event,
};

/// A finding, with a blank line after it.
pub(crate) fn render_finding(finding: &Finding, source: Option<&SourceFile>) -> String {
    render_explained(&finding.diagnostic, &finding.explanation, source) + "\n"
}

/// A finding as a JSON event.
pub(crate) fn finding_event(finding: &Finding, source: Option<&SourceFile>) -> String {
    event("finding", &fields(finding, source))
}

fn fields(finding: &Finding, source: Option<&SourceFile>) -> Value {
    let Finding { rule, diagnostic, explanation } = finding;
    let mut fields = json!({
        "rule": rule,
        "level": match diagnostic.level { Level::Error => "error", Level::Warning => "warning" },
        "message": diagnostic.message,
        "label": diagnostic.label,
        "explanation": explanation,
        "help": diagnostic.help,
    });
    if let (Some(source), Some(span)) = (source, &diagnostic.span)
        && let (Some(object), Value::Object(range)) =
            (fields.as_object_mut(), json!(SourceRange::new(source, span)))
    {
        object.extend(range);
    }
    fields
}
