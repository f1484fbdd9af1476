//! The reference of velox.toml's keys says what the reader does, and docs/configuration.md says what the reference does.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use velox_manifest::{Diagnostic, KeySpec, Manifest, SourceFile, TABLES, TableSpec, ValueKind};

/// What the reader complains about.
fn complaints(text: &str) -> Vec<Diagnostic> {
    let source = SourceFile { name: "velox.toml".to_owned(), text: text.to_owned() };
    Manifest::parse(&source, &|_| None).err().unwrap_or_default()
}

/// A file with this line in this table, and a plugin where the table is none itself.
fn file(table: &TableSpec, line: &str) -> String {
    let header = match table {
        TableSpec { name: "", .. } => String::new(),
        TableSpec { name, listed: true, .. } => format!("[[{name}]]\n"),
        TableSpec { name, .. } => format!("[{name}]\n"),
    };
    let plugin = if table.name.contains("plugins") {
        ""
    } else {
        "[github.plugins]\nhttp = { ref = \"v5.0.0\", owner = \"a\", repository = \"b\" }\n"
    };
    format!("{header}{line}\n{plugin}")
}

/// What a table of this name has: its keys, and the tables in it.
fn known(table: &TableSpec) -> BTreeSet<String> {
    let below = |other: &&TableSpec| match table.name {
        "" => !other.name.is_empty(),
        name => other.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')),
    };
    let prefix = if table.name.is_empty() { 0 } else { table.name.len() + 1 };
    let inner = TABLES.iter().filter(below).map(|other| other.name[prefix..].split('.').next().unwrap());
    table.keys.iter().map(|key| key.name).chain(inner).map(str::to_owned).collect()
}

#[test]
fn every_table_has_the_keys_that_the_reader_knows() {
    for table in TABLES {
        let complaints = complaints(&file(table, "no_such_key = 1"));
        let help = complaints
            .iter()
            .flat_map(|found| &found.help)
            .find_map(|line| line.strip_prefix("known keys: "));
        let help = help.unwrap_or_else(|| panic!("[{}] isn't read: {complaints:?}", table.name));
        let read: BTreeSet<String> = help.split(", ").map(str::to_owned).collect();
        assert_eq!(
            known(table),
            read,
            "[{}]: what the reader knows, src/reference.rs has to tell",
            table.name
        );
    }
}

#[test]
fn what_is_required_is_asked_for_and_nothing_else() {
    for table in TABLES {
        for key in table.keys {
            // A target is both halves or none: each is asked for where the other is there.
            let line = match key.name {
                "os" => "arch = \"amd64\"",
                "arch" => "os = \"linux\"",
                _ => "",
            };
            let missing = format!("`{}` is missing in ", key.name);
            let asked =
                complaints(&file(table, line)).iter().any(|found| found.message.starts_with(&missing));
            assert_eq!(asked, key.default.is_none(), "[{}] {}", table.name, key.name);
        }
    }
}

#[test]
fn values_have_the_kind_that_is_told() {
    for table in TABLES {
        for KeySpec { name, kind, .. } in table.keys {
            let (wrong, wanted) = match kind {
                ValueKind::Text => ("true", "must be a string"),
                ValueKind::Boolean => ("\"yes\"", "must be `true` or `false`"),
                ValueKind::Texts => ("true", "must be a list of strings"),
            };
            let complaints = complaints(&file(table, &format!("{name} = {wrong}")));
            assert!(
                complaints.iter().any(|found| found.message.contains(wanted)),
                "[{}] {name} is no {kind:?}: {complaints:?}",
                table.name
            );
        }
    }
}

#[test]
fn the_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let wanted = markdown();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&page, &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == wanted,
        "docs/configuration.md isn't what src/reference.rs says: `make book` writes it"
    );
}

fn markdown() -> String {
    let mut text = String::from(
        "<!-- Made from crates/velox-manifest/src/reference.rs by `make book`. -->\n\n# Configuration reference\n\n\
         All keys of `velox.toml`. [Building](building.md) has examples, and [Migrating from Velox](migrating-from-velox.md) lists \
         the three formats.\n\n\
         In every string, `${NAME}` is an environment variable, `${NAME:-default}` one with a default, and `$$` a dollar sign.\n",
    );
    for TableSpec { name, listed, about, keys } in TABLES {
        let heading = match (*name, listed) {
            ("", _) => "At the top of the file".to_owned(),
            (name, true) => format!("`[[{name}]]`"),
            (name, false) => format!("`[{name}]`"),
        };
        writeln!(text, "\n## {heading}\n").unwrap();
        if !about.is_empty() {
            writeln!(text, "{about}\n").unwrap();
        }
        text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        for KeySpec { name, kind, default, about } in *keys {
            let kind = match kind {
                ValueKind::Text => "string",
                ValueKind::Boolean => "`true` or `false`",
                ValueKind::Texts => "list of strings",
            };
            let default = default.unwrap_or("an error");
            writeln!(text, "| `{name}` | {kind} | {default} | {about} |").unwrap();
        }
    }
    text
}
