//! Common parts of `vx audit` and `vx update --security`.

use velox_build::Event;
use velox_manifest::Diagnostic;
use velox_query::AuditReport;

use super::Report;

/// What was not looked at, and what an old database lacks.
pub(crate) fn warn(report: &dyn Report, audited: &AuditReport) {
    let AuditReport { database, database_modified, .. } = audited;
    if audited.is_database_old {
        let message =
            format!("the vulnerability database {database} was last modified at {database_modified}");
        let warning =
            Diagnostic::warning(message).help("newer vulnerabilities are missing: update the mirror");
        report.report(Event::Warning(warning));
    }
    if !audited.not_checked.is_empty() {
        let modules = audited.not_checked.join(", ");
        let warning = Diagnostic::warning(format!("not looked up in the vulnerability database: {modules}"));
        report.report(Event::Warning(
            warning.help("a local directory has no version; its dependencies were checked"),
        ));
    }
}

/// `1 vulnerability`, `2 vulnerabilities`
pub(crate) fn vulnerabilities(number: usize) -> String {
    if number == 1 { "1 vulnerability".to_owned() } else { format!("{number} vulnerabilities") }
}
