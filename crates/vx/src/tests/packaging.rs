//! Tests that the commands and environment variables in packaging/ are valid.

use std::{collections::BTreeMap, fs, path::Path};

use clap::{CommandFactory, Parser};

use crate::cli::Cli;

type Variables<'a> = BTreeMap<&'a str, &'a str>;

fn packaging(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Parses a command line, with environment variables converted to options.
fn usage(words: &str, variables: &Variables<'_>) -> Result<(), String> {
    let mut words = shlex::split(words).ok_or("quotes that don't end")?;
    let root = Cli::command();
    let command = words.get(1).and_then(|name| root.find_subcommand(name)).ok_or("no such command")?;
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("VX_SERVER_")) {
        let argument = command.get_arguments().find(|it| it.get_env().is_some_and(|env| env == *name));
        let option = argument.and_then(clap::Arg::get_long).ok_or(format!("no option is {name}"))?;
        words.push(format!("--{option}={value}"));
    }
    Cli::try_parse_from(words).map(drop).map_err(|error| error.to_string())
}

#[test]
fn the_systemd_unit() {
    let unit = packaging("systemd/vx-server.service");
    let settings: Vec<(&str, &str)> = unit.lines().filter_map(|line| line.split_once('=')).collect();
    let values = |wanted: &str| {
        settings.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let variables: Variables<'_> =
        values("Environment").into_iter().filter_map(|setting| setting.split_once('=')).collect();
    let [start] = values("ExecStart")[..] else { panic!("{unit}") };
    assert_eq!(usage(start, &variables), Ok(()));
    // The address in the comment is valid.
    assert!(unit.contains("VX_SERVER_ADDRESS=0.0.0.0:8443"));
    assert_eq!(usage(start, &[("VX_SERVER_ADDRESS", "0.0.0.0:8443")].into()), Ok(()));

    // The service only writes to its own directories.
    let state = format!("/var/lib/{}", values("StateDirectory").concat());
    let cache = format!("/var/cache/{}", values("CacheDirectory").concat());
    assert_eq!(variables["VX_SERVER_DATA"], state);
    for name in ["HOME", "GOMODCACHE", "GOCACHE"] {
        assert!(Path::new(variables[name]).starts_with(&cache), "{name}");
    }
    // The build sandbox needs these system calls, and is disabled without an error if they are blocked.
    let calls = values("SystemCallFilter").join(" ");
    for call in ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"] {
        assert!(calls.split(' ').any(|known| known == call), "{call}: {calls}");
    }
}

#[test]
fn the_compose_file() {
    let text = packaging("compose.yaml");
    let commands = text.lines().filter_map(|line| line.split_once(" --no-deps server ")?.1.into());
    for command in commands {
        assert_eq!(usage(command, &Variables::new()), Ok(()), "{command}");
    }
    // Service blocks and shared blocks by name.
    let mut blocks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut block = "";
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        if depth <= 2 && line.trim_end().ends_with(':') || depth == 0 && line.contains(": &") {
            block = line.trim().split(':').next().unwrap_or_default();
        }
        blocks.entry(block).or_default().push(line.trim());
    }
    let variables = |block: &str| -> Variables<'_> {
        let lines = blocks[block].iter().filter_map(|line| line.split_once(": "));
        lines.map(|(name, value)| (name, value.trim_matches('"'))).collect()
    };
    for service in ["server", "worker"] {
        let own = variables(service);
        let command = own["command"].trim_matches(['[', ']']).replace(", ", " ");
        let all = variables("x-environment").into_iter().chain(own).collect();
        assert_eq!(usage(&command, &all), Ok(()), "{service}: {all:?}");
    }
    // Each worker replica has a separate data directory.
    assert!(blocks["worker"].contains(&"volumes: [/data]"), "{:?}", blocks["worker"]);
}
