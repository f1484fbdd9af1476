//! The differences between two builds, as Markdown.

use std::fmt::Write as _;

use velox_query::{
    BuildChange, BuildDiff, ChangeDirection, LockChangeKind, ROADRUNNER, SizeChange, VersionVulnerability,
    VulnerabilityDiff,
};

use super::{
    audit::vulnerabilities,
    text::{clean, count, human_size},
};

/// The modules whose sizes are shown.
const MAX_SIZES: usize = 10;

/// The differences as Markdown, which is readable on a terminal, too.
pub(crate) fn render(diff: &BuildDiff) -> String {
    let mut parts = Vec::new();
    let of = |kinds: &[LockChangeKind]| -> Vec<&BuildChange> {
        diff.changes.iter().filter(|it| kinds.contains(&it.change.kind)).collect()
    };
    let main = of(&[LockChangeKind::RoadRunner, LockChangeKind::Go, LockChangeKind::Plugin]);
    let settings = of(&[LockChangeKind::Setting]);
    let modules = of(&[LockChangeKind::Module]);
    if !main.is_empty() {
        parts.push(versions(main));
    }
    if !settings.is_empty() {
        let lines = settings.iter().map(|it| {
            let verb = if it.change.from.is_none() { "added" } else { "removed" };
            format!("- {} {verb}\n", code(&it.change.name))
        });
        parts.push(format!("### Settings\n\n{}", lines.collect::<String>()));
    }
    if !modules.is_empty() {
        parts.push(format!("### Modules: {}\n\n{}", summary(&modules), brought(&modules)));
    }
    parts.extend(diff.vulnerabilities.as_ref().map(render_vulnerabilities));
    if !diff.licenses.is_empty() {
        let name = |license: &Option<String>| code(license.as_deref().unwrap_or("unknown"));
        let lines = diff
            .licenses
            .iter()
            .map(|it| format!("- {}: {} → {}\n", code(&it.module), name(&it.from), name(&it.to)));
        parts.push(format!("### Licenses\n\n{}", lines.collect::<String>()));
    }
    parts.extend(diff.sizes.iter().filter(|size| size.from != size.to).map(render_size));
    if parts.is_empty() {
        return "no differences\n".to_owned();
    }
    if !diff.without_license.is_empty() {
        let modules = count(diff.without_license.len() as u64, "module");
        parts.push(format!("Licenses of {modules} not compared: not in the module cache.\n"));
    }
    clean(&parts.join("\n")).into_owned()
}

fn versions(mut changes: Vec<&BuildChange>) -> String {
    changes.sort_by_key(|it| match it.change.kind {
        LockChangeKind::RoadRunner => 0,
        LockChangeKind::Go => 1,
        _ => 2,
    });
    let mut text = "| | from | to |\n|---|---|---|\n".to_owned();
    for BuildChange { change, direction, license, .. } in changes {
        let name = match change.kind {
            LockChangeKind::RoadRunner => "RoadRunner".to_owned(),
            LockChangeKind::Go => "Go".to_owned(),
            _ => code(&change.name),
        };
        let version = |version: &Option<String>| {
            version.as_deref().map(|it| code(it.strip_prefix("go").unwrap_or(it))).unwrap_or_default()
        };
        let remark = match direction {
            ChangeDirection::Down => " (older)".to_owned(),
            ChangeDirection::Added => license.as_ref().map(|it| format!(" ({it})")).unwrap_or_default(),
            _ => String::new(),
        };
        let to =
            if *direction == ChangeDirection::Removed { "removed".to_owned() } else { version(&change.to) };
        let from =
            if *direction == ChangeDirection::Added { "new".to_owned() } else { version(&change.from) };
        let _ = writeln!(text, "| {name} | {from} | {to}{remark} |");
    }
    text
}

/// `7 up, 1 added`
fn summary(changes: &[&BuildChange]) -> String {
    let directions = [
        (ChangeDirection::Up, "up"),
        (ChangeDirection::Down, "down"),
        (ChangeDirection::Added, "added"),
        (ChangeDirection::Removed, "removed"),
        (ChangeDirection::Other, "changed"),
    ];
    let counts = directions
        .map(|(direction, word)| (changes.iter().filter(|it| it.direction == direction).count(), word));
    let shown = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// The modules, each below the first one who brings it.
fn brought(changes: &[&BuildChange]) -> String {
    let mut groups: Vec<(Option<&String>, String)> = Vec::new();
    for BuildChange { change, direction, brought_by, license } in changes {
        let name = code(&change.name);
        let [from, to] = [&change.from, &change.to].map(|it| it.as_deref().unwrap_or_default());
        let line = match direction {
            ChangeDirection::Added => {
                let license = license.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
                format!("- {name} {to} added{license}\n")
            }
            ChangeDirection::Removed => format!("- {name} {from} removed\n"),
            ChangeDirection::Down => format!("- {name} {from} → {to} (older)\n"),
            ChangeDirection::Up | ChangeDirection::Other => format!("- {name} {from} → {to}\n"),
        };
        let by = brought_by.first();
        match groups.iter_mut().find(|(group, _)| *group == by) {
            Some((_, lines)) => *lines += &line,
            None => groups.push((by, line)),
        }
    }
    // RoadRunner, then plugins, then what nobody is known to require.
    groups.sort_by_key(|(by, _)| (by.is_none(), by.is_some_and(|by| by != ROADRUNNER), *by));
    let only_unknown = groups.iter().all(|(by, _)| by.is_none());
    let shown = groups.iter().map(|(by, lines)| match by {
        None if only_unknown => lines.clone(),
        None => format!("Others:\n\n{lines}"),
        Some(by) if *by == ROADRUNNER => format!("Required by RoadRunner:\n\n{lines}"),
        Some(by) => format!("Required by {}:\n\n{lines}", code(by)),
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn render_vulnerabilities(diff: &VulnerabilityDiff) -> String {
    let VulnerabilityDiff { database, database_modified, closed, opened } = diff;
    let list = |known: &[VersionVulnerability], word: &str| {
        let lines = known.iter().map(|it| {
            let fixed =
                it.fixed.as_ref().map(|fixed| format!(", fixed in {}", fixed.trim_start_matches('v')));
            let aliases = it.aliases.iter().map(|alias| format!(", {alias}")).collect::<String>();
            let fixed = fixed.unwrap_or_else(|| ", no fix available".to_owned());
            format!("- {}{aliases}: {}\n  ({}{fixed})\n", it.id, code(&it.summary), code(&it.subject()))
        });
        match known.len() {
            0 => String::new(),
            length => format!("{} {word}:\n\n{}\n", vulnerabilities(length), lines.collect::<String>()),
        }
    };
    let found = list(opened, "opened") + &list(closed, "closed");
    let none = if found.is_empty() { "None closed, none opened.\n\n" } else { "" };
    format!(
        "### Vulnerabilities\n\n{found}{none}By version, from {database} of {database_modified}; `vx audit` shows whether \
         the code is called.\n"
    )
}

fn render_size(size: &SizeChange) -> String {
    let SizeChange { target, from, to, modules } = size;
    let signed = |from: u64, to: u64| {
        let sign = if to >= from { '+' } else { '-' };
        format!("{sign}{}", human_size(from.abs_diff(to)))
    };
    let mut text = format!(
        "### Size for {target}: {} → {} ({})\n\n",
        human_size(*from),
        human_size(*to),
        signed(*from, *to)
    );
    for change in modules.iter().take(MAX_SIZES) {
        let _ = writeln!(text, "- {} {}", signed(change.from, change.to), code(&change.module));
    }
    if let Some(more) = modules.len().checked_sub(MAX_SIZES).filter(|more| *more > 0) {
        let _ = writeln!(text, "- {} more", count(more as u64, "module"));
    }
    text
}

/// A text that Markdown doesn't interpret.
fn code(text: &str) -> String {
    format!("`{}`", text.replace(['`', '|', '\n', '\r'], "'"))
}
