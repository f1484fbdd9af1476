//! docs/commands.md, made from the help texts that [`Cli`] has; and the examples in them.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Arg, Command, CommandFactory, Parser, builder::StyledStr};

use crate::cli::Cli;

#[test]
fn the_page_of_commands_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/commands.md");
    let wanted = markdown();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&page, &wanted).unwrap_or_else(|error| panic!("docs/commands.md: {error}"));
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == wanted,
        "docs/commands.md isn't what the help texts say: `make book` writes it"
    );
}

#[test]
fn the_examples_in_help_texts_are_right_usage() {
    each(&command(), &mut |command| {
        let help = format!("{}\n{}", plain(command.get_after_help()), plain(command.get_after_long_help()));
        for line in help.lines() {
            let line = line.trim().trim_start_matches("$ ");
            let Some(words) = line.starts_with("vx ").then(|| shlex::split(line)).flatten() else { continue };
            // A remark, a pipe and what stands behind them are the shell's.
            let ours = words.into_iter().take_while(|word| !matches!(&**word, "#" | "|" | "&&" | ">" | ">>"));
            if let Err(wrong) = Cli::try_parse_from(ours) {
                assert!(!wrong.use_stderr(), "`vx {}`: {line}\n{wrong}", command.get_name());
            }
        }
    });
}

/// The program's own, with what clap adds to it; the help texts then don't name what every command has.
fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn each(command: &Command, told: &mut impl FnMut(&Command)) {
    told(command);
    for inner in visible(command) {
        each(inner, told);
    }
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
}

/// A command of commands is told by those, unless it does something by itself.
fn is_told(command: &Command) -> bool {
    visible(command).next().is_none() || command.is_args_conflicts_with_subcommands_set()
}

fn markdown() -> String {
    let program = command();
    let mut text = String::from(
        "<!-- Made from the program's help texts by `make book`. -->\n\n# Command reference\n\n\
         `vx help COMMAND` and `vx COMMAND --help` say the same on a terminal.\n\n| command | what it does |\n|---|---|\n",
    );
    each(&program, &mut |command| {
        if is_told(command) {
            let (name, about) = (full_name(command), plain(command.get_about()));
            let anchor = name.replace(' ', "-");
            writeln!(text, "| [`{name}`](#{anchor}) | {about} |").unwrap_or_default();
        }
    });
    text.push_str("\n## What every command has\n\n");
    let global: Vec<&Arg> = program.get_arguments().filter(|argument| argument.is_global_set()).collect();
    arguments(&mut text, &global);
    paragraph(&mut text, program.get_after_help());
    each(&program, &mut |command| {
        if is_told(command) {
            section(&mut text, command);
        }
    });
    text
}

fn section(text: &mut String, command: &Command) {
    let about = command.get_long_about().or(command.get_about());
    let usage = plain(Some(&command.clone().render_usage()));
    let usage = usage.trim_start_matches("Usage: ");
    write!(
        text,
        "\n## `{}`\n\n{}.\n\n```text\n{usage}\n```\n",
        full_name(command),
        plain(about).trim_end_matches('.')
    )
    .unwrap_or_default();
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| {
            !argument.is_global_set() && !argument.is_hide_set() && argument.get_id() != "help"
        })
        .collect();
    if !own.is_empty() {
        text.push('\n');
        arguments(text, &own);
    }
    paragraph(text, command.get_after_long_help().or(command.get_after_help()));
}

fn arguments(text: &mut String, arguments: &[&Arg]) {
    text.push_str("| option | meaning |\n|---|---|\n");
    for argument in arguments {
        let help = plain(argument.get_long_help().or(argument.get_help()));
        let mut facts = Vec::new();
        let default: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !default.is_empty()
            && !argument.is_hide_default_value_set()
            && argument.get_action().takes_values()
        {
            facts.push(format!("default: `{}`", default.join(" ")));
        }
        let values: Vec<_> = argument
            .get_possible_values()
            .into_iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !values.is_empty() && argument.get_action().takes_values() {
            facts.push(format!("one of {}", values.join(", ")));
        }
        facts.extend(
            argument.get_visible_aliases().unwrap_or_default().iter().map(|name| format!("also `--{name}`")),
        );
        let facts = if facts.is_empty() { String::new() } else { format!(" [{}]", facts.join("; ")) };
        let name = name_of(argument).replace("|", "\\|");
        writeln!(text, "| `{name}` | {} |", cell(&(help + &facts))).unwrap_or_default();
    }
}

/// `-c, --config <FILE>`, `[NAME]...`
fn name_of(argument: &Arg) -> String {
    let shown = argument.to_string();
    match argument.get_short() {
        Some(short) if argument.get_long().is_some() => format!("-{short}, {shown}"),
        _ => shown,
    }
}

/// `vx cache prune`
fn full_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn paragraph(text: &mut String, help: Option<&StyledStr>) {
    let help = plain(help);
    match help.trim_end() {
        "" => {}
        // Examples keep their lines.
        help if help.contains('\n') => writeln!(text, "\n```text\n{help}\n```").unwrap_or_default(),
        help => writeln!(text, "\n{help}").unwrap_or_default(),
    }
}

fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// Fits into a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
        .replace('[', "\\[")
        .replace('<', "&lt;")
}
