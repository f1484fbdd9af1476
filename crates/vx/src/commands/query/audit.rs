use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::json;
use velox_query::{AuditReport, CallFrame, Reach, Vulnerability};

use crate::{
    cli::{AuditFormat, OutputFormat, query::AuditCommand},
    commands::session::Session,
    report::{
        self,
        audit::{vulnerabilities, warn},
        text::{clean, count},
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The author of OpenVEX statements, if `VX_AUTHOR` names nobody.
const DEFAULT_AUTHOR: &str = "vx audit";

pub(crate) async fn audit(settings: Settings, arguments: AuditCommand) -> CommandResult {
    let AuditCommand { project, database, fail_on } = arguments;
    let format = settings.audit;
    let session = Session::open(settings, project)?;
    let loaded =
        AuditReport::load(&session.request, &database.url, session.reporter(), session.cancel.clone());
    let audited = loaded.await.map_err(|error| session.failed(&error))?;
    session.report.clear();
    warn(&*session.report, &audited);
    session.print(&match (format, session.format) {
        (Some(AuditFormat::Sarif), _) => {
            let source = session.request.source.as_ref();
            format!("{:#}\n", audited.sarif(VERSION, &session.request.manifest, source))
        }
        (Some(AuditFormat::Openvex), _) => openvex(&session, &audited),
        (None, OutputFormat::Json) => events(&audited),
        (None, OutputFormat::Human) => clean(&render(&audited)).into_owned(),
    })?;
    let is_failure = audited.vulnerabilities.iter().any(|known| fail_on.includes(known.reach));
    if is_failure { Err(ExitStatus::Failure) } else { Ok(()) }
}

fn openvex(session: &Session, audited: &AuditReport) -> String {
    let variable = |name: &str| session.request.environment.get(name).filter(|value| !value.is_empty());
    // https://reproducible-builds.org/specs/source-date-epoch/
    let epoch = variable("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse().ok());
    let epoch = epoch.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let author = variable("VX_AUTHOR").map_or(DEFAULT_AUTHOR, String::as_str);
    format!("{:#}\n", audited.openvex(VERSION, author, epoch.unwrap_or_else(Timestamp::now)))
}

fn events(audited: &AuditReport) -> String {
    let mut text: String =
        audited.vulnerabilities.iter().map(|known| report::event("vulnerability", known)).collect();
    let mut summary = json!(audited);
    if let Some(fields) = summary.as_object_mut() {
        fields.insert("roadrunner".to_owned(), json!(audited.roadrunner.path));
        fields.insert("version".to_owned(), json!(audited.roadrunner.version));
        for reach in [Reach::Called, Reach::Imported, Reach::Required] {
            fields.insert(reach.word().to_owned(), json!(audited.count(reach)));
        }
    }
    text += &report::event("audited", &summary);
    text
}

fn render(audited: &AuditReport) -> String {
    let mut text = String::new();
    for (reach, title) in [
        (Reach::Called, "Called: the vulnerable code can run"),
        (Reach::Imported, "Imported: compiled, but the vulnerable functions are not called"),
        (Reach::Required, "Required: no vulnerable package is compiled"),
    ] {
        let mut known = audited.vulnerabilities.iter().filter(|known| known.reach == reach).peekable();
        if known.peek().is_some() {
            let _ = writeln!(text, "{title}\n");
        }
        for known in known {
            text += &render_vulnerability(known, audited.targets.len());
        }
    }
    let total = audited.vulnerabilities.len();
    let found = match total {
        0 => "no known vulnerabilities".to_owned(),
        _ => format!(
            "{}: {} called, {} imported, {} required",
            vulnerabilities(total),
            audited.count(Reach::Called),
            audited.count(Reach::Imported),
            audited.count(Reach::Required)
        ),
    };
    let AuditReport {
        roadrunner, go_version, modules, database, database_modified, scanner, targets, ..
    } = audited;
    let targets = match targets.as_slice() {
        [_] => String::new(),
        targets => format!(", {}", targets.join(", ")),
    };
    let modules = count(*modules as u64, "module");
    let go = go_version.trim_start_matches("go");
    text + &format!(
        "RoadRunner {}, {modules}, Go {go}{targets}: {found}\n{scanner}, {database} of {database_modified}\n",
        roadrunner.version
    )
}

fn render_vulnerability(known: &Vulnerability, audited_targets: usize) -> String {
    let Vulnerability {
        id, aliases, summary, targets, symbols, packages, plugins, calls, required_by, ..
    } = known;
    let aliases = if aliases.is_empty() { String::new() } else { format!(" ({})", aliases.join(", ")) };
    let mut text = format!("{id}{aliases}: {summary}\n  {}, {}\n", known.subject(), known.fix());
    if !symbols.is_empty() {
        let _ = writeln!(text, "  calls {}", symbols.join(", "));
    } else if !packages.is_empty() {
        let _ = writeln!(text, "  compiles {}", packages.join(", "));
    }
    if !targets.is_empty() && targets.len() < audited_targets {
        let _ = writeln!(text, "  only for {}", targets.join(", "));
    }
    let noun = if plugins.len() == 1 { "plugin" } else { "plugins" };
    if !plugins.is_empty() {
        let _ = writeln!(text, "  through {noun} {}", plugins.join(", "));
    }
    // The shortest one; JSON has all.
    if let Some(calls) = calls.iter().min_by_key(|calls| calls.len()) {
        for frame in calls {
            let _ = writeln!(text, "    {}", render_frame(frame));
        }
    }
    if calls.is_empty()
        && let Some(chain) = required_by.iter().min_by_key(|chain| chain.len())
    {
        let _ = writeln!(text, "    {}", chain.join(" -> "));
    }
    text + "\n"
}

fn render_frame(frame: &CallFrame) -> String {
    let CallFrame { function, file, line, .. } = frame;
    match (file, line) {
        (Some(file), Some(line)) => format!("{function} ({file}:{line})"),
        _ => function.clone(),
    }
}
